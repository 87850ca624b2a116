"""Speech models whose decoder is a language model: it reads the states of a sound at tokens of its prompt."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.genai.answers import Answer, Writer, answer_prompt
from ovjit.genai.config import demand
from ovjit.genai.enums import StreamingStatus
from ovjit.genai.figures import Figures, measure, now_us
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import StreamerBase, streamer_of
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn
from ovjit.genai.whisper.config import ASRGenerationConfig
from ovjit.genai.whisper.decoder import Encoder, SpeechDecoder
from ovjit.genai.whisper.results import ASRDecodedResults, WhisperDecodedResults, WhisperPerfMetrics

#: `<|endoftext|>` and `<|im_end|>`: exported folders have no generation_config.json.
ENDS = (151643, 151645)


class _TextStreamer(StreamerBase):
    """Gives the tokens after `token` to a streamer; without a token, all of them."""

    def __init__(self, stream: StreamerBase, token: int | None):
        self._stream, self._token, self._is_open = stream, token, token is None

    def write(self, token: int | Sequence[int]) -> Any:
        tokens = [token] if isinstance(token, int) else [*token]
        if not self._is_open:
            before = tokens.index(self._token) + 1 if self._token in tokens else len(tokens)
            self._is_open, tokens = self._token in tokens, tokens[before:]
        return self._stream.write(tokens) if tokens else StreamingStatus.RUNNING

    def end(self) -> None:
        """Do nothing: the streamer ends after the last part."""


class SpeechReader:
    """ASRPipeline of a folder with an encoder and a decoder. Subclasses have the steps of a family."""

    #: The family's name in messages.
    _family = ""

    def __init__(self, folder: Path, device: str, properties: Mapping[str, Any]):
        start_us = now_us()
        options = {name: value for name, value in properties.items() if name != "word_timestamps"}
        self._turn, self._tokenizer = Turn(), Tokenizer(folder)
        self._prepare(folder)
        self._encoder = Encoder(folder, device, options)
        self._decoder = SpeechDecoder(folder, device, options, scores=False)
        self._load_time = (now_us() - start_us) / 1000

    def _prepare(self, folder: Path) -> None:
        """Read the settings of a folder. RuntimeError if its tokenizer is that of another model."""

    def _extract(self, samples: np.ndarray) -> Iterable[np.ndarray]:
        """The features of each part of a sound."""
        raise NotImplementedError

    def _encode(self, features: np.ndarray) -> np.ndarray:
        """The states [1, tokens, width] of features."""
        raise NotImplementedError

    def _write_prompt(self, states: int, config: ASRGenerationConfig) -> list[int]:
        """The tokens of a prompt with a number of states."""
        raise NotImplementedError

    def _first_token(self, config: ASRGenerationConfig) -> int | None:
        """The token that a transcript follows; None if it is the whole answer."""
        return None

    def _split(self, answer: str, config: ASRGenerationConfig) -> tuple[str, str]:
        """(language, transcript) of an answer."""
        return config.language or "", answer

    def _score(self, answer: Answer) -> float:
        return answer.score

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def generate(self, samples: np.ndarray, config: ASRGenerationConfig, streamer: Any) -> ASRDecodedResults:
        """The text of samples at 16 kHz. RuntimeError for beams."""
        with self._turn.take():
            start_us = now_us()
            demand(not config.is_beam_search(), f"{self._family} does not support beam search decoding")
            stream, results = streamer_of(streamer, self._tokenizer), WhisperDecodedResults()
            metrics = results.perf_metrics
            figures, texts = Figures(metrics, start_us), list[str]()
            with measure(metrics.whisper_raw_metrics.features_extraction_durations):
                features = list(self._extract(samples))
            for each in features:
                answer = self._read(each, config, stream, metrics, figures)
                with measure(metrics.raw_metrics.detokenization_durations):
                    text = self._tokenizer.decode(answer.tokens)
                results.language, transcript = self._split(text, config)
                texts.append(transcript)
                results.scores = [self._score(answer)]
            if stream is not None:
                stream.end()
            results.texts = [
                functools.reduce(lambda before, part: f"{before} {part}" if before else part, texts)
            ]
            raw, speech = metrics.raw_metrics, metrics.whisper_raw_metrics
            durations = [*raw.inference_durations, *speech.encode_inference_durations]
            raw.inference_durations = [sum(durations)]
            raw.generate_durations.append(now_us() - start_us)
            speech.decode_inference_durations = list(raw.token_infer_durations)
            metrics._load_time = self._load_time
            return ASRDecodedResults(results)

    def _read(self, features: np.ndarray, config: ASRGenerationConfig, stream: StreamerBase | None,
              metrics: WhisperPerfMetrics, figures: Figures) -> Answer:  # fmt: skip
        """Generate the text of one part of the sound."""
        with measure(metrics.whisper_raw_metrics.encode_inference_durations):
            states = self._encode(features)
        self._decoder.set_sound(states)
        with measure(metrics.raw_metrics.tokenization_durations):
            prompt = self._write_prompt(states.shape[1], config)
        stops = Stops(config, self._tokenizer, len(prompt))
        inner = None if stream is None else _TextStreamer(stream, self._first_token(config))
        figures.begin()
        steps = answer_prompt(prompt, stops, Writer(inner, stops, []), figures)
        return self._decoder.run(prompt, steps)[0]

    def _list_tokens(self, text: str, special: bool) -> list[int]:
        """The tokens of a text, with special tokens or without."""
        ids: list[int] = self._tokenizer.encode([text], add_special_tokens=special).input_ids.data[0].tolist()
        return ids
