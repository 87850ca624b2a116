"""Results of speech pipelines, and their performance figures."""

from __future__ import annotations

from ovjit.genai.results import PerfMetrics, durations, format_texts


class WhisperDecodedResultChunk:
    """A segment of a text, from `start_ts` to `end_ts` in seconds; the end is -1 if it is unknown."""

    def __init__(self, start_ts: float = 0.0, end_ts: float = -1.0, text: str = ""):
        self.start_ts, self.end_ts, self.text = start_ts, end_ts, text


class WhisperWordTiming:
    """A word and its tokens, from `start_ts` to `end_ts` in seconds."""

    def __init__(
        self, word: str = "", token_ids: list[int] | None = None, start_ts: float = 0.0, end_ts: float = 0.0
    ):
        self.word, self.token_ids = word, token_ids or []
        self.start_ts, self.end_ts = start_ts, end_ts


class ASRDecodedResultChunk:
    """A segment or a word, from `start_ts` to `end_ts` in seconds; `token_ids` of words only."""

    def __init__(
        self, start_ts: float = 0.0, end_ts: float = 0.0, text: str = "", token_ids: list[int] | None = None
    ):
        self.start_ts, self.end_ts, self.text, self.token_ids = start_ts, end_ts, text, token_ids or []


class WhisperRawPerfMetrics:
    """Durations in microseconds: of each extraction of features, each inference of the encoder and of the
    decoder, and the sum for word timestamps."""

    def __init__(self) -> None:
        self.features_extraction_durations: list[float] = []
        self.encode_inference_durations: list[float] = []
        self.decode_inference_durations: list[float] = []
        self.word_level_timestamps_processing_durations: list[float] = []


class ASRRawPerfMetrics(WhisperRawPerfMetrics):
    """Durations in microseconds as in WhisperRawPerfMetrics, of ASRPipeline."""


class _SpeechPerfMetrics(PerfMetrics):
    _raw_groups = ("raw_metrics", "_speech")
    _raw_kind = WhisperRawPerfMetrics

    def __init__(self) -> None:
        super().__init__()
        self._speech = self._raw_kind()

    get_features_extraction_duration = durations("features_extraction_durations")
    get_word_level_timestamps_processing_duration = durations("word_level_timestamps_processing_durations")
    get_encode_inference_duration = durations("encode_inference_durations")
    get_decode_inference_duration = durations("decode_inference_durations")


class WhisperPerfMetrics(_SpeechPerfMetrics):
    """Figures of WhisperPipeline."""

    @property
    def whisper_raw_metrics(self) -> WhisperRawPerfMetrics:
        return self._speech


class ASRPerfMetrics(_SpeechPerfMetrics):
    """Figures of ASRPipeline."""

    _raw_kind = ASRRawPerfMetrics

    @property
    def asr_raw_metrics(self) -> WhisperRawPerfMetrics:
        return self._speech


class WhisperDecodedResults:
    """The text of speech with its language. `chunks` with `return_timestamps`, `words` with
    `word_timestamps`, else None. str() gives the text."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.scores: list[float] = []
        self.language = ""
        self.chunks: list[WhisperDecodedResultChunk] | None = None
        self.words: list[WhisperWordTiming] | None = None
        self.perf_metrics = WhisperPerfMetrics()

    def __str__(self) -> str:
        return format_texts(self.texts, self.scores)


class ASRDecodedResults:
    """The texts of speech with their languages; `chunks` and `words` of each text, or None."""

    def __init__(self, results: WhisperDecodedResults) -> None:
        self.texts, self.scores, self.languages = results.texts, results.scores, [results.language]
        self.chunks: list[list[ASRDecodedResultChunk]] | None = None
        self.words: list[list[ASRDecodedResultChunk]] | None = None
        if results.chunks is not None:
            self.chunks = [[ASRDecodedResultChunk(c.start_ts, c.end_ts, c.text) for c in results.chunks]]
        if results.words is not None:
            self.words = [
                [ASRDecodedResultChunk(w.start_ts, w.end_ts, w.word, w.token_ids) for w in results.words]
            ]
        self.perf_metrics = ASRPerfMetrics()
        self.perf_metrics.__dict__.update(
            {name: value for name, value in vars(results.perf_metrics).items() if name != "_speech"}
        )
        vars(self.perf_metrics._speech).update(vars(results.perf_metrics._speech))

    def __repr__(self) -> str:
        return format_texts(self.texts, self.scores)
