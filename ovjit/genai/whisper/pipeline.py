"""WhisperPipeline and ASRPipeline: texts of speech, window after window of 30 seconds."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.adapters import apply_adapters
from ovjit.genai.answers import Writer, answer_prompt
from ovjit.genai.config import add_eos, merge, read_config
from ovjit.genai.enums import StreamingStatus
from ovjit.genai.fields import unpack_config
from ovjit.genai.figures import Figures, now_us
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import StreamerBase, status_of, streamer_of
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn
from ovjit.genai.whisper.config import ASRGenerationConfig, WhisperGenerationConfig, find_language
from ovjit.genai.whisper.decoder import Encoder, SpeechDecoder
from ovjit.genai.whisper.fun import FunSpeech
from ovjit.genai.whisper.language import ENDS, SpeechReader
from ovjit.genai.whisper.mel import FeatureExtractor, Features
from ovjit.genai.whisper.qwen import QwenSpeech
from ovjit.genai.whisper.results import (
    ASRDecodedResults,
    WhisperDecodedResultChunk,
    WhisperDecodedResults,
    WhisperWordTiming,
)
from ovjit.genai.whisper.rules import LogitRules, Segment, Segments, constrain
from ovjit.genai.whisper.words import compute_costs, split_words, time_words, warp
from ovjit.generation.tokenizer import read_settings

#: The model_type of config.json -> models with a language model as decoder.
_READERS: dict[Any, type[SpeechReader]] = {"fun_asr": FunSpeech, "qwen3_asr": QwenSpeech}


def _folder_of(path: Any, device: Any) -> Path:
    if not isinstance(path, (str, bytes, os.PathLike)) or not isinstance(device, str):
        raise TypeError(
            "__init__(): incompatible constructor arguments: models_path should be the path of a folder, and "
            "device a str"
        )
    return Path(os.fsdecode(path))


def _samples_of(sound: Any) -> np.ndarray:
    """Samples in f32. TypeError unless they are a sequence of numbers."""
    is_sequence = hasattr(sound, "__len__") and hasattr(sound, "__getitem__")
    if not is_sequence or isinstance(sound, (str, bytes, bytearray, Mapping)):
        raise TypeError(f"raw_speech_input should be a list of float, not {type(sound).__name__}")
    samples = np.asarray(sound)
    if samples.ndim != 1 or samples.size and samples.dtype.kind not in "biuf":
        raise TypeError(
            f"raw_speech_input should be a list of float, not of {samples.dtype} {list(samples.shape)}"
        )
    return samples.astype(np.float32)


class _Speech:
    """One call of `generate`: the results, and the tokens, segments and words so far."""

    def __init__(self, config: WhisperGenerationConfig, stream: StreamerBase | None, start_us: float):
        self.config, self.stream, self.start_us = config, stream, start_us
        self.results = WhisperDecodedResults()
        self.metrics = self.results.perf_metrics
        self.figures = Figures(self.metrics, start_us, counts_beams=True)
        #: Tokens that begin each window: the start, the language and the task.
        self.start_tokens: list[int] = []
        self.initial: list[int] = []
        self.hotwords: list[int] = []
        self.tokens: list[int] = []
        self.segments: list[Segment] = []
        self.words: list[WhisperWordTiming] = []
        self.is_cancelled = False

    def prompt_at(self, frame: int, timestamps: bool) -> list[int]:
        """The prompt of the window that begins at a frame."""
        context = [*(self.initial if frame == 0 else []), *self.hotwords]
        before = [self.config.prev_sot_token_id, *context] if context else []
        return [*before, *self.start_tokens, *([] if timestamps else [self.config.no_timestamps_token_id])]

    def add_segments(self, segments: Segments) -> None:
        """Take the tokens of a window's segments, and keep the figures of these tokens only."""
        raw, before = self.metrics.raw_metrics, len(self.tokens)
        for name in ("token_infer_durations", "m_new_token_times", "m_batch_sizes", "sampling_durations"):
            values = getattr(raw, name)
            values[before:] = [v for begin, end in segments.ranges for v in values[before:][begin:end]]
        self.segments += segments.items
        self.tokens += segments.text_tokens
        if self.stream is not None:
            status = status_of(self.stream.write(segments.text_tokens))
            self.is_cancelled |= status is not StreamingStatus.RUNNING

    def finish_figures(self) -> None:
        """Complete the metrics, for the tokens that are in the results."""
        raw, speech = self.metrics.raw_metrics, self.metrics.whisper_raw_metrics
        speech.decode_inference_durations = list(raw.token_infer_durations)
        raw.inference_durations = [sum(raw.inference_durations) + sum(speech.encode_inference_durations)]
        times, counts = raw.m_new_token_times, raw.m_batch_sizes
        raw.m_times_to_first_token = [time * 1000 - self.start_us for time in times[:1]]
        gaps = zip(np.diff(times).tolist(), counts[1:], strict=False)
        raw.m_durations = [gap * 1000 / count for gap, count in gaps for _ in range(count)]
        self.metrics._generated_tokens = sum(counts)
        raw.generate_durations.append(now_us() - self.start_us)


class WhisperPipeline:
    """Texts of speech by a Whisper model: WhisperPipeline(folder, device, **properties). The property
    `word_timestamps=True` prepares times of words."""

    def __init__(self, models_path: Any, device: str, **kwargs: Any):
        start_us, folder = now_us(), _folder_of(models_path, device)
        kwargs = unpack_config(kwargs)
        self._turn = Turn()
        self._config = read_config(WhisperGenerationConfig, folder)
        self._config.update_generation_config(**kwargs)
        self._tokenizer = Tokenizer(folder)
        self._extractor = FeatureExtractor(folder)
        positions = read_settings(folder / "config.json").get("max_source_positions", 1500)
        self._precision = np.float32(self._extractor.seconds) / np.float32(positions)
        kwargs.pop("word_timestamps", None)
        self._encoder = Encoder(folder, device, kwargs)
        self._decoder = SpeechDecoder(folder, device, kwargs, self._config.word_timestamps)
        add_eos(self._config, self._tokenizer)
        self._load_time = (now_us() - start_us) / 1000

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def get_generation_config(self) -> WhisperGenerationConfig:
        return copy.copy(self._config)

    def set_generation_config(self, config: WhisperGenerationConfig) -> None:
        """Use this configuration by default. Ends and languages stay if it has none."""
        self._config = merge(config, self._config, {})

    def generate(self, raw_speech_input: Sequence[float],
                 generation_config: WhisperGenerationConfig | None = None, streamer: Any = None,
                 **kwargs: Any) -> WhisperDecodedResults:  # fmt: skip
        """The text of samples at 16 kHz, near [-1, 1]. Keywords are fields of WhisperGenerationConfig."""
        with self._turn.take():
            start_us, samples = now_us(), _samples_of(raw_speech_input)
            stream = streamer_of(streamer, self._tokenizer)
            speech = _Speech(merge(generation_config, self._config, kwargs), stream, start_us)
            apply_adapters(None, [], speech.config.adapters)
            self._read_context(speech)
            self._transcribe(samples, speech)
            self._decode_texts(speech)
            speech.metrics._load_time = self._load_time
            speech.finish_figures()
            return speech.results

    def _read_context(self, speech: _Speech) -> None:
        """Tokenize the prompt and the hotwords."""
        start_us, config = now_us(), speech.config
        # tokenizers may add these to each text
        special = {config.decoder_start_token_id, config.eos_token_id, config.no_timestamps_token_id}

        def read(text: str | None) -> list[int]:
            if text is None:
                return []
            ids = self._tokenizer.encode(f" {text}", add_special_tokens=False).input_ids.data
            return [token for token in np.array(ids)[0].tolist() if token not in special]

        speech.initial, speech.hotwords = read(config.initial_prompt), read(config.hotwords)
        has_texts = config.initial_prompt is not None or config.hotwords is not None
        speech.metrics.raw_metrics.tokenization_durations.append(now_us() - start_us if has_texts else 0.0)

    def _transcribe(self, samples: np.ndarray, speech: _Speech) -> None:
        """Generate the tokens of all windows."""
        start_us, config, extractor = now_us(), speech.config, self._extractor
        raw = speech.metrics.whisper_raw_metrics
        features = extractor.extract(samples)
        raw.features_extraction_durations.append(now_us() - start_us)
        raw.word_level_timestamps_processing_durations.append(0.0)
        count = features.data.shape[1]
        timestamps = config.return_timestamps or count > extractor.frames
        seconds = np.float32(extractor.hop) / np.float32(extractor.rate)
        frame = 0
        while frame < count and not speech.is_cancelled:
            self._encode(features.window(frame, extractor.frames), speech)
            tokens = self._run(speech.prompt_at(frame, timestamps), timestamps, speech)
            offset, begin = float(np.float32(frame) * seconds), frame
            if timestamps:
                first = config.no_timestamps_token_id + 1
                segments = Segments(tokens, first, extractor.frames, self._precision, offset)
                speech.add_segments(segments)
                frame += segments.frames
            else:
                speech.tokens, frame = tokens, count
            if config.word_timestamps and not speech.is_cancelled:
                self._add_words(tokens, self._count_active(features, begin), offset, speech)
        if speech.stream is not None and (timestamps or config.is_beam_search()):
            speech.stream.end()

    def _count_active(self, features: Features, frame: int) -> int:
        """The frames of a window that are sound; all of them in a window after the sound."""
        active = features.active - frame
        return min(active, self._extractor.frames) if active >= 0 else self._extractor.frames

    def _encode(self, window: np.ndarray, speech: _Speech) -> None:
        """Encode a window for the decoder. In the first one the language is detected."""
        start_us, config = now_us(), speech.config
        states = self._encoder.encode(window)
        speech.metrics.whisper_raw_metrics.encode_inference_durations.append(now_us() - start_us)
        self._decoder.set_sound(states)
        if speech.start_tokens:
            return
        speech.start_tokens = [config.decoder_start_token_id]
        speech.results.language = "en"
        if config.is_multilingual:
            name, token = self._detect(speech) if config.language is None else find_language(config)
            is_translation = config.task == "translate"
            task = config.translate_token_id if is_translation else config.transcribe_token_id
            speech.start_tokens += [token, task]
            speech.results.language = name.translate(str.maketrans("", "", "<|>"))

    def _detect(self, speech: _Speech) -> tuple[str, int]:
        """(name, token) of the likeliest language."""
        start_us, languages = now_us(), sorted(speech.config.lang_to_id.items())
        logits = self._decoder.start([speech.config.decoder_start_token_id])[0]
        speech.metrics.raw_metrics.inference_durations.append(now_us() - start_us)
        if any(not 0 <= token < len(logits) for _, token in languages):
            raise OvjitError(f"lang_to_id has a token that is not in [0, {len(logits)}), the vocabulary")
        values = logits[[token for _, token in languages]]
        if np.isnan(values).any():
            raise OvjitError("the model's logits are not numbers (NaN): no language can be detected")
        return languages[int(values.argmax())]

    def _run(self, prompt: list[int], timestamps: bool, speech: _Speech) -> list[int]:
        """Generate the tokens of one window."""
        config, beams = speech.config, speech.config.is_beam_search()
        stops = Stops(config, self._tokenizer, len(prompt))
        stream = None if timestamps or beams else speech.stream
        writer = Writer(stream, stops, prompt if config.echo else [])
        steps = answer_prompt(prompt, stops, writer, speech.figures, normalize=not beams)
        steps = constrain(steps, LogitRules(config, timestamps), normalize=beams)
        speech.figures.begin()
        tokens = self._decoder.run(prompt, steps)[0].tokens
        if config.echo:
            tokens = tokens[len(prompt) :]
        speech.is_cancelled |= writer.status is not StreamingStatus.RUNNING
        if beams and not timestamps and speech.stream is not None:
            speech.stream.write(tokens)
        return tokens

    def _add_words(self, tokens: list[int], active: int, offset: float, speech: _Speech) -> None:
        """Find the times of a window's words."""
        start_us, config = now_us(), speech.config
        text = [*(token for token in tokens if token < config.eos_token_id), config.eos_token_id]
        words = split_words(text, self._tokenizer, speech.results.language)
        if words and active >= 2:
            prompt = [*speech.start_tokens, config.no_timestamps_token_id, *text]
            scores = self._decoder.read_scores(prompt, config.alignment_heads)[..., : active // 2]
            costs = compute_costs(scores)[len(speech.start_tokens) : -1]
            speech.words += time_words(words, warp(costs), offset)
        durations = speech.metrics.whisper_raw_metrics.word_level_timestamps_processing_durations
        durations[0] += now_us() - start_us

    def _decode_texts(self, speech: _Speech) -> None:
        durations = speech.metrics.raw_metrics.detokenization_durations

        def decode(tokens: list[int]) -> str:
            start_us = now_us()
            text: str = self._tokenizer.decode(tokens)
            durations.append(now_us() - start_us)
            return text

        results, config = speech.results, speech.config
        results.texts, results.scores = [decode(speech.tokens)], [1.0]
        if config.return_timestamps:
            chunks = speech.segments
            results.chunks = [WhisperDecodedResultChunk(c.start, c.end, decode(c.tokens)) for c in chunks]
        if config.word_timestamps and not (speech.is_cancelled and not speech.words):
            results.words = speech.words


class ASRPipeline:
    """Texts of speech: ASRPipeline(folder of Whisper, Qwen3-ASR or Fun-ASR, device, **properties)."""

    def __init__(self, models_path: Any, device: str, **kwargs: Any):
        folder = _folder_of(models_path, device)
        if not (folder / "config.json").is_file():
            raise OvjitError(f"Failed to open '{folder / 'config.json'}'")
        kind = read_settings(folder / "config.json").get("model_type")
        if kind not in ("whisper", *_READERS):
            raise OvjitError(f"Unsupported '{kind}' ASR model type in config.json")
        self._config = read_config(ASRGenerationConfig, folder)
        if kind == "whisper":
            self._pipeline: WhisperPipeline | SpeechReader = WhisperPipeline(folder, device, **kwargs)
        else:
            self._pipeline = _READERS[kind](folder, device, unpack_config(kwargs))
            self._config.set_eos_token_id(ENDS[0])
            self._config.stop_token_ids = self._config.stop_token_ids.union(ENDS)

    def get_tokenizer(self) -> Tokenizer:
        return self._pipeline.get_tokenizer()

    def get_generation_config(self) -> ASRGenerationConfig:
        return copy.copy(self._config)

    def set_generation_config(self, config: ASRGenerationConfig) -> None:
        """Use this configuration by default."""
        if not isinstance(config, ASRGenerationConfig):
            raise TypeError(f"config should be an ASRGenerationConfig, not {type(config).__name__}")
        if isinstance(self._pipeline, WhisperPipeline):
            self._pipeline.set_generation_config(config.for_whisper())
            self._config = copy.copy(config)
        else:
            self._config = merge(config, self._config, {})

    def generate(self, audio_inputs: Sequence[float], generation_config: ASRGenerationConfig | None = None,
                 streamer: Any = None, **kwargs: Any) -> ASRDecodedResults:  # fmt: skip
        """The text of samples at 16 kHz, near [-1, 1]. Keywords are fields of ASRGenerationConfig."""
        if generation_config is not None and not isinstance(generation_config, ASRGenerationConfig):
            kind = type(generation_config).__name__
            raise TypeError(f"generation_config should be an ASRGenerationConfig, not {kind}")
        config = copy.copy(generation_config or self._config)
        config.update_generation_config(**kwargs)
        if isinstance(self._pipeline, SpeechReader):
            merged = merge(config, self._config, {})
            return self._pipeline.generate(_samples_of(audio_inputs), merged, streamer)
        return ASRDecodedResults(self._pipeline.generate(audio_inputs, config.for_whisper(), streamer))
