"""Qwen3-ASR: a language model that reads the states of a sound at the tokens `<|audio_pad|>` of a fixed
prompt, and writes "language English<asr_text>" and the text."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.answers import Writer, answer_prompt
from ovjit.genai.config import demand
from ovjit.genai.enums import StreamingStatus
from ovjit.genai.figures import Figures, measure, now_us
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import StreamerBase, streamer_of
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn
from ovjit.genai.whisper.config import ASRGenerationConfig
from ovjit.genai.whisper.decoder import Encoder, SpeechDecoder
from ovjit.genai.whisper.mel import FeatureExtractor
from ovjit.genai.whisper.results import ASRDecodedResults, WhisperDecodedResults, WhisperPerfMetrics
from ovjit.generation.tokenizer import read_settings

_TEXT, _PAD = "<asr_text>", "<|audio_pad|>"
#: `<|endoftext|>` and `<|im_end|>`: exported folders have no generation_config.json.
ENDS = (151643, 151645)
#: Seconds of a part of the sound at most, before and after its end where a quiet sample is sought, of the
#: frame that is quiet, and of a part at least.
_LONGEST, _AROUND, _QUIET, _SHORTEST = 1200, 5, 0.1, 0.5


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


def split_sound(samples: np.ndarray, rate: int) -> Iterator[np.ndarray]:
    """Parts of a sound, cut at quiet samples. A short one is padded with zeros."""
    longest, around = _LONGEST * rate, _AROUND * rate
    width, shortest = max(4, round(_QUIET * rate)), round(_SHORTEST * rate)
    while len(samples) > longest:
        window = np.abs(samples[longest - around : longest + around])
        cut = longest
        if len(window) > width:
            sums = np.concatenate([[0.0], np.cumsum(window, dtype=np.float64)])
            first = int((sums[width:] - sums[:-width]).argmin())
            cut = longest - around + first + int(window[first : first + width].argmin())
        yield samples[:cut]
        samples = samples[cut:]
    yield np.pad(samples, (0, max(0, shortest - len(samples))))


def split_answer(text: str) -> tuple[str, str]:
    """(language, transcript) of the model's text: the language is "" for a sound without speech."""
    before, tag, transcript = text.partition(_TEXT)
    if not tag:
        return "", text
    _, _, language = before.partition("language ")
    is_none = "language None" in before or "language none" in before
    return "" if is_none else language, transcript


class QwenSpeech:
    """ASRPipeline of a Qwen3-ASR folder."""

    def __init__(self, folder: Path, device: str, properties: Mapping[str, Any]):
        start_us = now_us()
        options = {name: value for name, value in properties.items() if name != "word_timestamps"}
        self._turn, self._tokenizer = Turn(), Tokenizer(folder)
        vocabulary = self._tokenizer.get_vocab()
        demand(_TEXT.encode() in vocabulary, f"Qwen3-ASR tokenizer must contain '{_TEXT}' token")
        self._text_token = vocabulary[_TEXT.encode()]
        self._extractor = FeatureExtractor(folder)
        audio = read_settings(folder / "config.json").get("thinker_config", {}).get("audio_config", {})
        self._frames = 2 * audio.get("n_window", 100)
        self._encoder = Encoder(folder, device, options)
        self._decoder = SpeechDecoder(folder, device, options, scores=False)
        self._load_time = (now_us() - start_us) / 1000

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def generate(self, samples: np.ndarray, config: ASRGenerationConfig, streamer: Any) -> ASRDecodedResults:
        """The text of samples at 16 kHz. RuntimeError for beams."""
        with self._turn.take():
            start_us = now_us()
            demand(not config.is_beam_search(), "Qwen3-ASR does not support beam search decoding")
            stream, results = streamer_of(streamer, self._tokenizer), WhisperDecodedResults()
            metrics = results.perf_metrics
            figures, texts, languages = Figures(metrics, start_us), list[str](), [""]
            parts = list(split_sound(samples, self._extractor.rate))
            with measure(metrics.whisper_raw_metrics.features_extraction_durations):
                features = [self._extractor.extract(part, pads=False).data for part in parts]
            for each in features:
                answer = self._read(each, config, stream, metrics, figures)
                language, text = (config.language, answer) if config.language else split_answer(answer)
                texts.append(text)
                languages = [language]
            if stream is not None:
                stream.end()
            text = functools.reduce(lambda before, part: f"{before} {part}" if before else part, texts)
            results.texts, results.scores, results.language = [text], [0.0], languages[0]
            raw, speech = metrics.raw_metrics, metrics.whisper_raw_metrics
            durations = [*raw.inference_durations, *speech.encode_inference_durations]
            raw.inference_durations = [sum(durations)]
            raw.generate_durations.append(now_us() - start_us)
            speech.decode_inference_durations = list(raw.token_infer_durations)
            metrics._load_time = self._load_time
            return ASRDecodedResults(results)

    def _encode(self, features: np.ndarray) -> np.ndarray:
        """The states [1, tokens, width] of a spectrogram [mels, frames], which is encoded in chunks."""
        size = self._frames
        mels, frames = features.shape
        demand(frames, "Qwen3-ASR encoder input features must contain at least one frame.")
        count = -(-frames // size)
        padded = np.zeros((mels, count * size), np.float32)
        padded[:, :frames] = features
        states = self._encoder.encode(np.ascontiguousarray(padded.reshape(mels, count, size).swapaxes(0, 1)))
        # three convolutions of stride 2 halve the frames, rounded up
        last = -(-(frames % size) // 8) if frames % size else states.shape[1]
        if last > states.shape[1]:
            raise OvjitError(f"config.json: n_window {size // 2} is not that of the encoder")
        return states.reshape(1, -1, states.shape[2])[:, : (count - 1) * states.shape[1] + last]

    def _read(self, features: np.ndarray, config: ASRGenerationConfig, stream: StreamerBase | None,
              metrics: WhisperPerfMetrics, figures: Figures) -> str:  # fmt: skip
        """Generate the text of one part of the sound."""
        with measure(metrics.whisper_raw_metrics.encode_inference_durations):
            states = self._encode(features)
        self._decoder.set_sound(states)
        text = (
            f"<|im_start|>system\n{config.context or ''}<|im_end|>\n<|im_start|>user\n<|audio_start|>"
            f"{_PAD * states.shape[1]}<|audio_end|><|im_end|>\n<|im_start|>assistant\n"
        )
        text += f"language {config.language}{_TEXT}" if config.language else ""
        with measure(metrics.raw_metrics.tokenization_durations):
            prompt = np.array(self._tokenizer.encode([text]).input_ids.data)[0].tolist()
        stops, inner = Stops(config, self._tokenizer, len(prompt)), None
        if stream is not None:
            inner = _TextStreamer(stream, None if config.language else self._text_token)
        figures.begin()
        steps = answer_prompt(prompt, stops, Writer(inner, stops, []), figures)
        tokens = self._decoder.run(prompt, steps)[0].tokens
        with measure(metrics.raw_metrics.detokenization_durations):
            return self._tokenizer.decode(tokens)
