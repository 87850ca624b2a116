"""LLMPipeline: texts from a decoder and its tokenizer."""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.generation.decoder import Decoder
from ovjit.genai.config import UNLIMITED, GenerationConfig, merge
from ovjit.genai.enums import GenerationFinishReason, StreamingStatus
from ovjit.genai.history import ChatHistory
from ovjit.genai.results import DecodedResults, EncodedResults, PerfMetrics
from ovjit.genai.sampler import Sampler
from ovjit.genai.streamers import StreamerBase, status_of, streamer_of
from ovjit.genai.tokenizer import TokenizedInputs, Tokenizer

#: Properties of a pipeline that choose its engine, and are none of the device.
ENGINE_PROPERTIES = frozenset(
    ("ATTENTION_BACKEND", "scheduler_config", "SCHEDULER_CONFIG", "draft_model", "prompt_lookup", "adapters")
)


def now_us() -> float:
    """Microseconds of a monotonic clock."""
    return time.perf_counter() * 1e6


#: Why a sequence ends, by the streamer's answer.
_REASONS = {
    StreamingStatus.STOP: GenerationFinishReason.STOP,
    StreamingStatus.CANCEL: GenerationFinishReason.NONE,
    StreamingStatus.TOOL_CALL_STOP: GenerationFinishReason.TOOL_CALL,
}


class Sequence_:
    """One generated sequence of a request."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self.tokens: list[int] = []
        self.score = 0.0
        self.finish = GenerationFinishReason.NONE
        self.is_running = True
        self.text_length = UNLIMITED


class LLMPipeline:
    """Generates texts with a decoder that keeps its state.

    LLMPipeline(folder, device, config={}, **properties), LLMPipeline(folder, tokenizer, device, ...), or
    LLMPipeline(model, weights, tokenizer, device, generation_config=None, **properties) for an IR in memory.
    """

    def __init__(self, *arguments: Any, **kwargs: Any):
        began = now_us()
        self._history = ChatHistory()
        self._in_chat = False
        if arguments and len(arguments) >= 2 and isinstance(arguments[1], Tensor):
            self._from_memory(*arguments, **kwargs)
        else:
            self._from_folder(*arguments, **kwargs)
        self._load_time = (now_us() - began) / 1000

    def _from_folder(self, models_path: Any = None, *rest: Any, **kwargs: Any) -> None:
        tokenizer = kwargs.pop("tokenizer", None)
        given = list(rest)
        if given and isinstance(given[0], Tokenizer):
            tokenizer = given.pop(0)
        device = kwargs.pop("device", None) or (given.pop(0) if given else "CPU")
        config = kwargs.pop("config", None)
        if given:
            warnings.warn(
                "a dict as third positional argument is deprecated: use keywords", DeprecationWarning, 3
            )
            config = given.pop(0)
        properties = {**(config or {}), **kwargs}
        folder = Path(os.fsdecode(models_path))
        if not folder.exists():
            raise OvjitError(f"the folder {str(folder)!r} does not exist")
        self._tokenizer = tokenizer or Tokenizer(folder)
        settings = (
            folder / "generation_config.json" if folder.is_dir() else folder.parent / "generation_config.json"
        )
        self._config = GenerationConfig(settings) if settings.is_file() else GenerationConfig()
        engine = {name: value for name, value in properties.items() if name not in ENGINE_PROPERTIES}
        self._decoder = Decoder.load(folder, device, engine)
        self._settle_ends()

    def _from_memory(self, model: str, weights: Tensor, tokenizer: Tokenizer, device: str,
                     generation_config: GenerationConfig | None = None, **properties: Any) -> None:  # fmt: skip
        from ovjit.api.run.core import Core
        from ovjit.generation.decoder import CHECKED
        from ovjit.generation.head import keep_last

        read = Core().read_model(model, weights)
        keep_last(read, CHECKED)
        engine = {name: value for name, value in properties.items() if name not in ENGINE_PROPERTIES}
        self._decoder = Decoder(Core().compile_model(read, device, engine))
        self._tokenizer, self._config = tokenizer, copy.copy(generation_config or GenerationConfig())
        self._settle_ends()

    def _settle_ends(self) -> None:
        if self._config.eos_token_id == -1 and self._tokenizer.get_eos_token_id() >= 0:
            self._config.set_eos_token_id(self._tokenizer.get_eos_token_id())

    # -- settings

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def get_generation_config(self) -> GenerationConfig:
        return copy.copy(self._config)

    def set_generation_config(self, config: GenerationConfig) -> None:
        eos = self._config.eos_token_id
        self._config = copy.copy(config)
        if self._config.eos_token_id == -1 and eos != -1:
            self._config.set_eos_token_id(eos)
        self._config.validate()

    # -- chat

    def start_chat(self, system_message: str = "") -> None:
        """Keep messages from now on: each `generate` of a str continues the chat."""
        self._in_chat = True
        self._history.clear()
        if system_message:
            self._history.append({"role": "system", "content": system_message})

    def finish_chat(self) -> None:
        """Forget the chat."""
        self._in_chat = False
        self._history.clear()

    # -- generation

    def __call__(self, inputs: Any, generation_config: GenerationConfig | None = None, streamer: Any = None,
                 **kwargs: Any) -> Any:  # fmt: skip
        return self.generate(inputs, generation_config, streamer, **kwargs)

    def generate(self, inputs: Any, generation_config: GenerationConfig | None = None, streamer: Any = None,
                 **kwargs: Any) -> Any:  # fmt: skip
        """A str for one str and one sequence, DecodedResults for several or for a ChatHistory,
        EncodedResults for tokens. Keywords are fields of GenerationConfig."""
        began = now_us()
        config = merge(generation_config, self._config, kwargs)
        stream = streamer_of(streamer, self._tokenizer)
        metrics = PerfMetrics()
        metrics._load_time = self._load_time
        prompts, is_text = self._tokens_of(inputs, config, metrics)
        several = len(prompts) > 1 or config.num_return_sequences > 1 or config.is_beam_search()
        if stream is not None and several:
            raise OvjitError(
                "Currently streaming is possible only with batch size=1 and only for greedy or multinomial "
                "decoding"
            )
        finished = [list(self._run(prompt, config, stream, metrics, began)) for prompt in prompts]
        if not is_text:
            return self._encoded(finished, metrics, began)
        results = self._decoded(finished, metrics, began)
        if not isinstance(inputs, str):
            return results
        if self._in_chat and config.apply_chat_template:
            if any(s.finish is GenerationFinishReason.NONE for s in finished[0]):
                self._history.pop()  # the answer was cancelled, and the question with it
            else:
                self._history.append({"role": "assistant", "content": results.texts[0]})
        return results.texts[0] if config.num_return_sequences == 1 else results

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
                raise TypeError(f"input_ids should be i64, not {ids.dtype}")
            if ids.ndim != 2:
                raise OvjitError(f"input_ids should have the shape [batch, length], not {list(ids.shape)}")
            return [[int(t) for t in row] for row in ids], False
        if isinstance(inputs, ChatHistory):
            texts, special = [self._render(inputs, metrics)], False
        elif isinstance(inputs, str):
            texts, special = self._text_prompts([inputs], config, metrics)
        elif isinstance(inputs, Sequence) and not isinstance(inputs, (bytes, bytearray, np.ndarray)):
            if not len(inputs):
                raise IndexError("the list of prompts is empty")
            if not all(isinstance(text, str) for text in inputs):
                raise TypeError("prompts should be a list of str")
            texts, special = self._text_prompts(list(inputs), config, metrics)
        else:
            raise TypeError(f"inputs should be str, a list of str, ChatHistory, TokenizedInputs or Tensor, not "
                            f"{type(inputs).__name__}")  # fmt: skip
        began = now_us()
        prompts = [self._tokenizer._encode_one(text, special) for text in texts]
        metrics.raw_metrics.tokenization_durations.append(now_us() - began)
        if not all(prompts):
            raise OvjitError("a prompt cannot have the length 0")
        return prompts, True

    def _text_prompts(
        self, texts: list[str], config: GenerationConfig, metrics: PerfMetrics
    ) -> tuple[list[str], bool]:
        """(texts with the chat's template, whether special tokens are added)."""
        if not config.apply_chat_template or not self._tokenizer.chat_template:
            return texts, True
        if self._in_chat and len(texts) == 1:
            self._history.append({"role": "user", "content": texts[0]})
            return [self._render(self._history, metrics)], False
        chats = [ChatHistory([{"role": "user", "content": text}]) for text in texts]
        return [self._render(chat, metrics) for chat in chats], False

    def _render(self, history: ChatHistory, metrics: PerfMetrics) -> str:
        began = now_us()
        text = self._tokenizer.apply_chat_template(history, True)
        metrics.raw_metrics.chat_template_durations.append(now_us() - began)
        return text

    def _decoders(self, count: int) -> Iterator[Decoder]:
        """Decoders with states of their own."""
        self._decoder.reset()
        yield self._decoder
        for _ in range(count - 1):
            yield Decoder(self._decoder.compiled, self._decoder.turn)

    def _run(self, prompt: list[int], config: GenerationConfig, stream: StreamerBase | None, metrics: PerfMetrics,
             began: float) -> Sequence[Sequence_]:  # fmt: skip
        """Generate the sequences of one prompt."""
        if config.is_beam_search():
            raise OvjitError("beam search is not supported by this pipeline yet: set num_beams=1")
        most = config.get_max_new_tokens(len(prompt))
        by_length = config.max_new_tokens == UNLIMITED and config.max_length != UNLIMITED
        if by_length and config.max_length <= len(prompt):
            raise OvjitError(
                f"max_length ({config.max_length}) should be above the prompt's length ({len(prompt)})"
            )
        sampler, raw = Sampler(config, prompt), metrics.raw_metrics
        metrics._input_tokens += len(prompt)
        sequences = [Sequence_(decoder) for decoder in self._decoders(config.num_return_sequences)]
        stop_lengths = max((len(text) for text in config.stop_strings), default=0)
        feeds = [prompt] * len(sequences)
        last = began
        while any(s.is_running for s in sequences):
            size = 0
            inference = sampling = 0.0
            for i, sequence in enumerate(sequences):
                if not sequence.is_running:
                    continue
                if len(sequence.tokens) >= most:
                    sequence.is_running, sequence.finish = False, GenerationFinishReason.LENGTH
                    continue
                start = now_us()
                logits = sequence.decoder.feed(feeds[i])[-1]
                middle = now_us()
                choice = sampler.choose(logits, sequence.tokens)
                sequence.tokens.append(choice.token)
                sequence.score += choice.log_probability
                inference += middle - start
                sampling += now_us() - middle
                feeds[i] = [choice.token]
                size += 1
                self._check_end(sequence, config, most, stop_lengths)
                if stream is not None:
                    self._stream(sequence, stream, choice.token, config)
            if not size:
                break
            now = now_us()
            if not raw.m_times_to_first_token:
                raw.m_times_to_first_token.append(now - began)
            else:
                raw.m_durations.append((now - last) / size)
                raw.token_infer_durations.append(inference)
            raw.m_new_token_times.append(now / 1000)
            raw.m_batch_sizes.append(size)
            raw.inference_durations.append(inference)
            raw.sampling_durations.append(sampling)
            last = now
        if stream is not None:
            stream.end()
        metrics._generated_tokens += sum(len(s.tokens) for s in sequences)
        return sorted(sequences, key=lambda s: -s.score) if len(sequences) > 1 else sequences

    def _check_end(self, sequence: Sequence_, config: GenerationConfig, most: int, stop_lengths: int) -> None:
        """End a sequence at a stop token, a stop string or its maximum length."""
        token = sequence.tokens[-1]
        if token in config.stop_token_ids and not config.ignore_eos:
            sequence.is_running, sequence.finish = False, GenerationFinishReason.STOP
        elif stop_lengths and self._has_stop_string(sequence, config, stop_lengths):
            sequence.is_running, sequence.finish = False, GenerationFinishReason.STOP
        elif len(sequence.tokens) >= most:
            sequence.is_running, sequence.finish = False, GenerationFinishReason.LENGTH

    def _has_stop_string(self, sequence: Sequence_, config: GenerationConfig, longest: int) -> bool:
        """Whether the end of the text has a stop string. The tokens are cut at the one where it begins,
        unless it is to be included."""
        count = len(sequence.tokens)
        first = max(0, count - longest - 1)
        text = self._tokenizer.decode(sequence.tokens[first:])
        places = [at for stop in config.stop_strings if (at := text.find(stop)) >= 0]
        if not places:
            return False
        if not config.include_stop_str_in_output:
            at, kept = min(places), first
            while kept < count and len(self._tokenizer.decode(sequence.tokens[first : kept + 1])) <= at:
                kept += 1
            del sequence.tokens[kept:]
        return True

    def _stream(
        self, sequence: Sequence_, stream: StreamerBase, token: int, config: GenerationConfig
    ) -> None:
        """Give a token to the streamer, and end the sequence if it says so."""
        if sequence.finish is GenerationFinishReason.STOP and token in config.stop_token_ids:
            return
        if not sequence.tokens or sequence.tokens[-1] != token:
            return  # it belonged to a stop string
        status = status_of(stream.write(token))
        if status is StreamingStatus.RUNNING:
            return
        sequence.is_running = False
        sequence.finish = _REASONS[status]

    def _decoded(self, finished: list[list[Sequence_]], metrics: PerfMetrics, began: float) -> DecodedResults:
        results, start = DecodedResults(), now_us()
        for sequence in (s for each in finished for s in each):
            results.texts.append(self._tokenizer.decode(sequence.tokens))
            results.scores.append(sequence.score)
            results.finish_reasons.append(sequence.finish)
        metrics.raw_metrics.detokenization_durations.append(now_us() - start)
        metrics.raw_metrics.generate_durations.append(now_us() - began)
        results.perf_metrics = metrics
        return results

    def _encoded(self, finished: list[list[Sequence_]], metrics: PerfMetrics, began: float) -> EncodedResults:
        results = EncodedResults()
        for sequence in (s for each in finished for s in each):
            results.tokens.append(list(sequence.tokens))
            results.scores.append(sequence.score)
            results.finish_reasons.append(sequence.finish)
        metrics.raw_metrics.generate_durations.append(now_us() - began)
        results.perf_metrics = metrics
        return results


def draft_model(models_path: Any, device: str = "", **properties: Any) -> Mapping[str, Any]:
    """The description of a draft model, for the keyword `draft_model` of a pipeline."""
    return {"path": os.fsdecode(models_path), "device": device, "properties": properties}
