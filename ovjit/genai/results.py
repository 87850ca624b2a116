"""Results of pipelines, and their performance figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ovjit.genai.enums import GenerationFinishReason, GenerationStatus


class MeanStdPair:
    """A mean and a standard deviation."""

    def __init__(self, mean: float = 0.0, std: float = 0.0):
        self.mean, self.std = mean, std

    def __iter__(self) -> Iterator[float]:
        return iter((self.mean, self.std))

    @classmethod
    def of(cls, values: Sequence[float], scale: float = 1.0) -> MeanStdPair:
        """The mean and standard deviation of values, divided by `scale`; -1 without values."""
        if not values:
            return cls(-1.0, -1.0)
        scaled = [value / scale for value in values]
        return cls(statistics.fmean(scaled), statistics.pstdev(scaled))


class SummaryStats(MeanStdPair):
    """Mean, standard deviation, minimum and maximum."""

    min = max = 0.0

    @classmethod
    def summarize(cls, values: Sequence[float]) -> SummaryStats:
        """The statistics of values; -1 without values."""
        stats = cls(*MeanStdPair.of(values))
        stats.min, stats.max = (min(values), max(values)) if values else (-1.0, -1.0)
        return stats

    def as_tuple(self) -> tuple[float, float, float, float]:
        return self.mean, self.std, self.min, self.max


class RawPerfMetrics:
    """Lists of durations in microseconds, one entry for each call or step. Times of tokens are in
    milliseconds of a monotonic clock."""

    def __init__(self) -> None:
        self.chat_template_durations: list[float] = []
        self.detokenization_durations: list[float] = []
        self.generate_durations: list[float] = []
        self.grammar_compile_times: list[float] = []
        self.inference_durations: list[float] = []
        self.m_batch_sizes: list[int] = []
        self.m_durations: list[float] = []
        self.m_new_token_times: list[float] = []
        self.m_times_to_first_token: list[float] = []
        self.sampling_durations: list[float] = []
        self.token_infer_durations: list[float] = []
        self.tokenization_durations: list[float] = []


def durations(name: str) -> Callable[[Any], MeanStdPair]:
    """A getter of PerfMetrics: mean and deviation in milliseconds of the list `name` of microseconds."""

    def get(self: PerfMetrics) -> MeanStdPair:
        groups = (getattr(self, group) for group in self._raw_groups)
        return MeanStdPair.of(next(getattr(group, name) for group in groups if hasattr(group, name)), 1000.0)

    return get


class PerfMetrics:
    """Figures of one or several calls of `generate`; they are added by `+`."""

    #: The attributes whose objects have lists, which are joined by `+`.
    _raw_groups: tuple[str, ...] = ("raw_metrics",)

    def __init__(self) -> None:
        self.raw_metrics = RawPerfMetrics()
        self._load_time = 0.0
        self._input_tokens = 0
        self._generated_tokens = 0
        #: Microseconds to begin the compiler of grammars, by its name.
        self._grammar_init: dict[str, float] = {}

    def __add__(self, metrics: PerfMetrics) -> PerfMetrics:
        total = type(self)()
        for group in self._raw_groups:
            others = getattr(metrics, group, None)
            for name, values in vars(getattr(self, group)).items():
                # times of one clock's calls are not joined, as in openvino_genai
                more = [] if name == "m_new_token_times" else getattr(others, name, [])
                setattr(getattr(total, group), name, values + more)
        total._load_time, total._grammar_init = self._load_time, self._grammar_init
        total._input_tokens = self._input_tokens + metrics._input_tokens
        total._generated_tokens = self._generated_tokens + metrics._generated_tokens
        return total

    __iadd__ = __add__

    def get_load_time(self) -> float:
        """Milliseconds to load the model."""
        return self._load_time

    def get_num_generated_tokens(self) -> int:
        return self._generated_tokens

    def get_num_input_tokens(self) -> int:
        return self._input_tokens

    get_generate_duration = durations("generate_durations")
    get_tokenization_duration = durations("tokenization_durations")
    get_detokenization_duration = durations("detokenization_durations")
    get_inference_duration = durations("inference_durations")
    get_sampling_duration = durations("sampling_durations")
    get_chat_template_duration = durations("chat_template_durations")
    #: Milliseconds to the first token; for each further token of a sequence; of inference for each of these.
    get_ttft = durations("m_times_to_first_token")
    get_tpot = durations("m_durations")
    get_ipot = durations("token_infer_durations")

    def get_throughput(self) -> MeanStdPair:
        """Tokens in a second."""
        tpot = self.get_tpot()
        if tpot.mean <= 0:
            return MeanStdPair(1000.0 / tpot.mean, 1000.0 / tpot.mean)
        return MeanStdPair(1000.0 / tpot.mean, 1000.0 * tpot.std / tpot.mean**2)

    def get_grammar_compile_time(self) -> SummaryStats:
        return SummaryStats.summarize([time / 1000 for time in self.raw_metrics.grammar_compile_times])

    def get_grammar_compiler_init_times(self) -> dict[str, float]:
        return dict(self._grammar_init)


class ExtendedPerfMetrics(PerfMetrics):
    """Figures of speculative decoding; those of PerfMetrics elsewhere."""


def format_texts(texts: Sequence[str], scores: Sequence[float]) -> str:
    """One text as it is; several with their scores, each on its lines."""
    if len(texts) == 1:
        return texts[0]
    return "\n".join(f"{score:.6f}: {text}" for text, score in zip(texts, scores, strict=False))


class DecodedResults:
    """Texts with scores. str() gives the texts, each on its lines."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.scores: list[float] = []
        self.finish_reasons: list[GenerationFinishReason] = []
        self.parsed: list[Any] = []
        self.perf_metrics = PerfMetrics()
        self.extended_perf_metrics: ExtendedPerfMetrics | None = None

    def __str__(self) -> str:
        return format_texts(self.texts, self.scores)


class EncodedResults:
    """Tokens with scores."""

    def __init__(self) -> None:
        self.tokens: list[list[int]] = []
        self.scores: list[float] = []
        self.finish_reasons: list[GenerationFinishReason] = []
        self.perf_metrics = PerfMetrics()
        self.extended_perf_metrics: ExtendedPerfMetrics | None = None


class EncodedGenerationResult:
    """Tokens of the sequences of a request of ContinuousBatchingPipeline, the best first."""

    def __init__(self) -> None:
        self.m_request_id = 0
        self.m_generation_ids: list[list[int]] = []
        self.m_scores: list[float] = []
        self.finish_reasons: list[GenerationFinishReason] = []
        self.perf_metrics = PerfMetrics()
        self.extended_perf_metrics: ExtendedPerfMetrics | None = None


class GenerationResult:
    """Texts of the sequences of a request of ContinuousBatchingPipeline, the best first."""

    def __init__(self) -> None:
        self.m_request_id = 0
        self.m_generation_ids: list[str] = []
        self.m_scores: list[float] = []
        self.m_status = GenerationStatus.RUNNING
        self.perf_metrics = PerfMetrics()
        self.extended_perf_metrics: ExtendedPerfMetrics | None = None

    def get_generation_ids(self) -> list[str]:
        return self.m_generation_ids

    def __repr__(self) -> str:
        pairs = zip(self.m_scores, self.m_generation_ids, strict=False)
        lines = [f"{{ {score:.6g}, {text} }}\n" for score, text in pairs]
        return f"<py_continuous_batching.GenerationResult {self.m_request_id}\n{''.join(lines)}\n>"
