"""LLMPipeline: texts from a decoder and its tokenizer."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.beams import search
from ovjit.genai.config import GenerationConfig, merge
from ovjit.genai.engine import Engine
from ovjit.genai.enums import GenerationFinishReason, StreamingStatus
from ovjit.genai.figures import Figures, now_us
from ovjit.genai.history import ChatHistory
from ovjit.genai.results import DecodedResults, EncodedResults, PerfMetrics
from ovjit.genai.sampler import Choice, Sampler
from ovjit.genai.scheduler import SchedulerConfig
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import StreamerBase, status_of, streamer_of
from ovjit.genai.tokenizer import TokenizedInputs, Tokenizer
from ovjit.generation.tokenizer import is_gguf
from ovjit.locks import rlock

#: Engines of the real package. Tokens are the same with each, so the property is accepted.
_BACKENDS = ("PA", "SDPA")
#: Properties of features that ovjit does not have.
_ABSENT = ("draft_model", "prompt_lookup", "adapters")
#: Reasons of ends by the streamer's answer.
_REASONS = {
    StreamingStatus.STOP: GenerationFinishReason.STOP,
    StreamingStatus.CANCEL: GenerationFinishReason.NONE,
    StreamingStatus.TOOL_CALL_STOP: GenerationFinishReason.TOOL_CALL,
}


def _engine_properties(properties: dict[str, Any]) -> dict[str, Any]:
    """Properties of the device. UnsupportedError for features that ovjit does not have."""
    for name in _ABSENT:
        if properties.get(name):
            raise UnsupportedError(f"ovjit does not support {name} yet: leave the property out")
    scheduler = properties.get("scheduler_config", SchedulerConfig())
    if not isinstance(scheduler, SchedulerConfig):
        raise OvjitError(f"scheduler_config should be a SchedulerConfig, not {type(scheduler).__name__}")
    backend = properties.get("ATTENTION_BACKEND", "PA")
    if backend not in _BACKENDS:
        raise OvjitError(f"ATTENTION_BACKEND should be one of {list(_BACKENDS)}, not {backend!r}")
    names = (*_ABSENT, "ATTENTION_BACKEND", "scheduler_config")
    return {name: value for name, value in properties.items() if name not in names}


def _check_saving(properties: dict[str, Any]) -> None:
    """Remove the property that asks for an IR beside a GGUF file. UnsupportedError if it does ask."""
    if properties.pop("enable_save_ov_model", False):
        raise UnsupportedError(
            "ovjit does not support enable_save_ov_model: leave it out, and write the model's IR by "
            "ov.save_model(ov.Core().read_model(path), ...)"
        )


class Answer:
    """One generated sequence: tokens, the sum of log-probabilities, the reason of its end."""

    def __init__(self, tokens: list[int], score: float = 0.0) -> None:
        self.tokens, self.score = tokens, score
        self.finish: GenerationFinishReason | None = None
        self.row = 0
        self._logs: list[float] = []

    def take(self, choice: Choice, stops: Stops) -> None:
        """Append a token, and end with it where it is due."""
        self.tokens.append(choice.token)
        self._logs.append(choice.log_probability)
        self.score += choice.log_probability
        self.finish = stops.end(self.tokens)
        self.score -= sum(self._logs[len(self.tokens) :])  # those of a stop string


class LLMPipeline:
    """Generates texts with a decoder that keeps its state.

    LLMPipeline(folder, device, config={}, **properties), LLMPipeline(folder, tokenizer, device, ...), where
    the folder may be a GGUF file, or
    LLMPipeline(model, weights, tokenizer, device, generation_config=None, **properties) for an IR in memory.
    """

    def __init__(self, *arguments: Any, **kwargs: Any):
        start_us = now_us()
        self._lock = rlock("pipeline")
        self._is_running = False
        self._history = ChatHistory()
        self._in_chat = False
        if isinstance(kwargs.get("weights", arguments[1] if len(arguments) > 1 else None), Tensor):
            self._load_text(*arguments, **kwargs)
        else:
            self._load_folder(*arguments, **kwargs)
        if self._config.eos_token_id == -1 and self._tokenizer.get_eos_token_id() != -1:
            self._config.set_eos_token_id(self._tokenizer.get_eos_token_id())
        self._load_time = (now_us() - start_us) / 1000

    def _load_folder(self, models_path: Any = None, *arguments: Any, **kwargs: Any) -> None:
        items = list(arguments)
        tokenizer = kwargs.pop("tokenizer", None)
        if items and isinstance(items[0], Tokenizer):
            tokenizer = items.pop(0)
        device = items.pop(0) if items else kwargs.pop("device", None)
        config = items.pop(0) if items else kwargs.pop("config", None)
        is_path = isinstance(models_path, (str, bytes, os.PathLike))
        if items or not is_path or not isinstance(device, str) or not isinstance(config or {}, dict):
            raise TypeError(
                "__init__(): incompatible constructor arguments. LLMPipeline takes the path of a folder, "
                "an optional Tokenizer, and a device"
            )
        if config:
            warnings.warn("config is deprecated: use keywords", DeprecationWarning, 3)
        folder = Path(os.fsdecode(models_path))
        properties = {**(config or {}), **kwargs}
        if is_gguf(folder):
            _check_saving(properties)
        elif not folder.exists():
            raise OvjitError(f"the folder {str(folder)!r} does not exist")
        self._tokenizer = tokenizer or Tokenizer(folder, **properties)
        settings = (folder if folder.is_dir() else folder.parent) / "generation_config.json"
        has_settings = settings.is_file() and not is_gguf(folder)
        self._config = GenerationConfig(settings) if has_settings else GenerationConfig()
        self._engine = Engine.load(folder, device, _engine_properties(properties))

    def _load_text(self, model: str, weights: Tensor, tokenizer: Tokenizer, device: str,
                   generation_config: GenerationConfig | None = None, **properties: Any) -> None:  # fmt: skip
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError(f"tokenizer should be a Tokenizer, not {type(tokenizer).__name__}")
        self._tokenizer, self._config = tokenizer, copy.copy(generation_config or GenerationConfig())
        self._engine = Engine.load_text(model, weights, device, _engine_properties(properties))

    # -- settings

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def get_generation_config(self) -> GenerationConfig:
        return copy.copy(self._config)

    def set_generation_config(self, config: GenerationConfig) -> None:
        """Use this configuration by default. The token that ends texts stays if it has none."""
        if not isinstance(config, GenerationConfig):
            raise TypeError(f"config should be a GenerationConfig, not {type(config).__name__}")
        eos = self._config.eos_token_id
        changed = copy.copy(config)
        if changed.eos_token_id == -1 and eos != -1:
            changed.set_eos_token_id(eos)
        changed.validate()
        self._config = changed

    # -- chat

    def start_chat(self, system_message: str = "") -> None:
        """Keep messages from now on: each `generate` of a str continues the chat. Deprecated: use
        ChatHistory."""
        warnings.warn("start_chat is deprecated: give a ChatHistory to generate", DeprecationWarning, 2)
        self._in_chat = True
        self._history.clear()
        if system_message:
            self._history.append({"role": "system", "content": system_message})

    def finish_chat(self) -> None:
        """Forget the chat. Deprecated: use ChatHistory."""
        warnings.warn("finish_chat is deprecated: give a ChatHistory to generate", DeprecationWarning, 2)
        self._in_chat = False
        self._history.clear()

    # -- generation

    def __call__(self, inputs: Any, generation_config: GenerationConfig | None = None, streamer: Any = None,
                 **kwargs: Any) -> Any:  # fmt: skip
        return self.generate(inputs, generation_config, streamer, **kwargs)

    def generate(self, inputs: Any, generation_config: GenerationConfig | None = None, streamer: Any = None,
                 **kwargs: Any) -> Any:  # fmt: skip
        """A str for one str and one sequence, DecodedResults for several or for a ChatHistory,
        EncodedResults for tokens. Keywords are fields of GenerationConfig. Calls of several threads take
        turns."""
        with self._lock:
            if self._is_running:
                raise OvjitError("a streamer cannot call generate of the pipeline that it is called by")
            self._is_running = True
            try:
                return self._generate(inputs, generation_config, streamer, kwargs)
            finally:
                self._is_running = False

    def _generate(
        self, inputs: Any, generation_config: GenerationConfig | None, streamer: Any, kwargs: dict[str, Any]
    ) -> Any:
        start_us = now_us()
        stream = streamer_of(streamer, self._tokenizer)
        config = merge(generation_config, self._config, kwargs)
        if config.is_assisting_generation() or config.is_tree_search():
            raise UnsupportedError("ovjit does not support draft models and prompt lookup yet")
        metrics = PerfMetrics()
        metrics._load_time = self._load_time
        length = len(self._history)
        try:
            prompts, is_text = self._tokens_of(inputs, config, metrics)
            several = len(prompts) > 1 or config.num_return_sequences > 1 or config.is_beam_search()
            if stream is not None and several:
                raise OvjitError(
                    "a streamer takes one sequence: give one prompt, without beams and num_return_sequences"
                )
            answers: list[Answer] = []
            for prompt in prompts:
                answers += self._run(prompt, config, stream, metrics, start_us)
        except BaseException:
            self._history.set_messages(self._history.get_messages()[:length])
            raise
        if not is_text:
            return self._encode_results(answers, metrics, start_us)
        results = self._decode_results(answers, metrics, start_us)
        if self._in_chat and len(self._history) > length:
            if answers[0].finish is GenerationFinishReason.NONE:
                self._history.pop()  # the answer was cancelled, and the question with it
            else:
                self._history.append({"role": "assistant", "content": results.texts[0]})
        return results.texts[0] if isinstance(inputs, str) and config.num_return_sequences == 1 else results

    def _tokens_of(
        self, inputs: Any, config: GenerationConfig, metrics: PerfMetrics
    ) -> tuple[list[list[int]], bool]:
        """(tokens of each prompt, whether results are texts)."""
        if isinstance(inputs, TokenizedInputs):
            ids, mask = np.array(inputs.input_ids.data), np.array(inputs.attention_mask.data)
            return [[int(t) for t in row[keep != 0]] for row, keep in zip(ids, mask, strict=True)], False
        if isinstance(inputs, Tensor):
            ids = np.array(inputs.data)
            if ids.dtype != np.int64:
                raise OvjitError(f"input_ids should be i64, not {ids.dtype}")
            if ids.ndim != 2:
                raise OvjitError(f"input_ids should have the shape [batch, length], not {list(ids.shape)}")
            return [[int(t) for t in row] for row in ids], False
        if isinstance(inputs, ChatHistory):
            if not inputs or not config.apply_chat_template:
                raise OvjitError("a ChatHistory needs messages, and apply_chat_template=True")
            texts, special = [self._render(inputs, metrics)], False
        elif isinstance(inputs, str):
            texts, special = self._text_prompts([inputs], config, metrics)
        elif isinstance(inputs, Sequence) and not isinstance(inputs, (bytes, bytearray)):
            if not len(inputs):
                raise IndexError("the list of prompts is empty")
            if not all(isinstance(text, str) for text in inputs):
                raise TypeError("prompts should be a list of str")
            texts, special = self._text_prompts(list(inputs), config, metrics)
        else:
            raise TypeError(
                "inputs should be str, a list of str, ChatHistory, TokenizedInputs or Tensor, not "
                f"{type(inputs).__name__}"
            )
        start_us = now_us()
        prompts = []
        for text in texts:
            encoded = self._tokenizer.encode(text, add_special_tokens=special)
            prompts.append(np.array(encoded.input_ids.data)[0].tolist())
        metrics.raw_metrics.tokenization_durations.append(now_us() - start_us)
        return prompts, True

    def _text_prompts(
        self, texts: list[str], config: GenerationConfig, metrics: PerfMetrics
    ) -> tuple[list[str], bool]:
        """(texts with the chat's template, whether special tokens are added)."""
        if self._in_chat:
            if len(texts) > 1:
                raise OvjitError("a chat takes one prompt at a time")
            self._history.append({"role": "user", "content": texts[0]})
            return [self._render(self._history, metrics)], False
        if not config.apply_chat_template or not self._tokenizer.chat_template:
            return texts, True
        chats = [ChatHistory([{"role": "user", "content": text}]) for text in texts]
        return [self._render(chat, metrics) for chat in chats], False

    def _render(self, history: ChatHistory, metrics: PerfMetrics) -> str:
        start_us = now_us()
        text = self._tokenizer.apply_chat_template(history, True)
        metrics.raw_metrics.chat_template_durations.append(now_us() - start_us)
        return text

    def _run(
        self,
        prompt: list[int],
        config: GenerationConfig,
        stream: StreamerBase | None,
        metrics: PerfMetrics,
        start_us: float,
    ) -> list[Answer]:
        """Generate the sequences of one prompt."""
        if not prompt:
            raise OvjitError("a prompt cannot have the length 0")
        stops = Stops(config, self._tokenizer, len(prompt))
        metrics._input_tokens += len(prompt)
        writer = _Writer(stream, stops, prompt if config.echo else [])
        if stops.most == 0:
            writer.write([], is_last=True)
            writer.end()
            answers = [Answer([])]
            answers[0].finish = GenerationFinishReason.NONE
        elif config.is_beam_search():
            beams = search(self._engine, prompt, stops, Figures(metrics, start_us))
            answers = []
            for beam in beams:
                answers.append(Answer(beam.tokens, beam.score))
                answers[-1].finish = beam.finish
        else:
            answers = self._choose(prompt, stops, writer, metrics, start_us)
        if config.echo:
            for answer in answers:
                answer.tokens = [*prompt, *answer.tokens]
        return sorted(answers, key=lambda answer: -answer.score)

    def _choose(self, prompt: list[int], stops: Stops, writer: _Writer, metrics: PerfMetrics,
                start_us: float) -> list[Answer]:  # fmt: skip
        """Generate by greedy choices or by sampling: all sequences take a token in turn."""
        figures, sampler = Figures(metrics, start_us), Sampler(stops.config, prompt)
        logits = self._engine.start(prompt)
        figures.end_inference()
        answers = []
        for choice in sampler.choose(logits[0], 0, stops.config.num_return_sequences):
            answers.append(Answer([]))
            answers[-1].take(choice, stops)
        figures.end_step(1)
        running = self._running(answers, writer)
        while running:
            rows, tokens = [answer.row for answer in running], [answer.tokens[-1] for answer in running]
            logits = self._engine.step(rows, tokens)
            figures.end_inference()
            for i, answer in enumerate(running):
                answer.row = i
                answer.take(sampler.choose(logits[i], len(answer.tokens))[0], stops)
            figures.end_step(len(running))
            running = self._running(running, writer)
        figures.finish()
        return answers

    def _running(self, answers: list[Answer], writer: _Writer) -> list[Answer]:
        """Give the new tokens to the streamer. Returns the sequences that go on."""
        answer = answers[0]
        status = writer.write(answer.tokens, answer.finish is not None)
        if status is not StreamingStatus.RUNNING and answer.finish is None:
            answer.finish = _REASONS[status]
        elif status is StreamingStatus.CANCEL:
            answer.finish = GenerationFinishReason.NONE
        if answer.finish is not None:
            writer.end()
        return [answer for answer in answers if answer.finish is None]

    def _decode_results(self, answers: list[Answer], metrics: PerfMetrics, start_us: float) -> DecodedResults:
        results, start = DecodedResults(), now_us()
        results.texts = [self._tokenizer.decode(answer.tokens) for answer in answers]
        metrics.raw_metrics.detokenization_durations.append(now_us() - start)
        return self._fill(results, answers, metrics, start_us)

    def _encode_results(self, answers: list[Answer], metrics: PerfMetrics, start_us: float) -> EncodedResults:
        results = EncodedResults()
        results.tokens = [answer.tokens for answer in answers]
        return self._fill(results, answers, metrics, start_us)

    def _fill(self, results: Any, answers: list[Answer], metrics: PerfMetrics, start_us: float) -> Any:
        results.scores = [answer.score for answer in answers]
        results.finish_reasons = [answer.finish for answer in answers]
        metrics.raw_metrics.generate_durations.append(now_us() - start_us)
        results.perf_metrics = metrics
        return results


class _Writer:
    """Gives tokens to a streamer: those of a possible stop string only when they are not one."""

    def __init__(self, stream: StreamerBase | None, stops: Stops, echoed: Sequence[int]):
        self._stream, self._window = stream, stops.window
        self._echoed = list(echoed)
        self._count = 0

    def write(self, tokens: Sequence[int], is_last: bool) -> StreamingStatus:
        """Give the tokens that are new. Returns the streamer's status."""
        end = len(tokens) - (0 if is_last else self._window)
        new = [*self._echoed, *tokens[self._count : end]] if end > self._count or not tokens else []
        if self._stream is None or not new:
            return StreamingStatus.RUNNING
        self._count, self._echoed = max(end, 0), []
        return status_of(self._stream.write(new))

    def end(self) -> None:
        if self._stream is not None:
            self._stream.end()
