"""LLMPipeline: texts from a decoder and its tokenizer."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.adapters import apply_adapters, load_adapters
from ovjit.genai.answers import Answer, Steps, Writer, answer_prompt
from ovjit.genai.config import GenerationConfig, add_eos, check_single, merge, read_config
from ovjit.genai.engine import MAX_ROWS, Engine
from ovjit.genai.enums import GenerationFinishReason
from ovjit.genai.figures import Figures, SharedFigures, measure, now_us
from ovjit.genai.parsers import TextParserStreamer, parse_texts
from ovjit.genai.prompts import Prompts
from ovjit.genai.results import DecodedResults, EncodedResults, PerfMetrics
from ovjit.genai.scheduler import SchedulerConfig, needs_batches
from ovjit.genai.speculation import (
    OWN_PROPERTIES,
    SHARED,
    Proposer,
    SDPerModelsPerfMetrics,
    answer_drafted,
    begin_figures,
    check_drafts,
    check_properties,
    draft_of,
    look_up,
    run_drafted,
    sum_durations,
)
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import StreamerBase, streamer_of
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn
from ovjit.generation.decoder import CHECKED, model_file
from ovjit.generation.tokenizer import is_gguf

if TYPE_CHECKING:
    from ovjit.genai.batched_engine import BatchedEngine
    from ovjit.genai.batches import Proposals

#: Engines of the real package. They differ by the default type of caches alone.
_BACKENDS = ("PA", "SDPA")


def engine_properties(properties: dict[str, Any]) -> dict[str, Any]:
    """Properties of the device. RuntimeError for those of the pipeline that contradict each other."""
    scheduler = properties.get("scheduler_config", SchedulerConfig())
    if not isinstance(scheduler, SchedulerConfig):
        raise OvjitError(f"scheduler_config should be a SchedulerConfig, not {type(scheduler).__name__}")
    backend = properties.get("ATTENTION_BACKEND", "PA")
    if backend not in _BACKENDS:
        raise OvjitError(f"ATTENTION_BACKEND should be one of {list(_BACKENDS)}, not {backend!r}")
    check_properties(properties)
    if backend == "SDPA" and "scheduler_config" in properties:
        raise OvjitError("scheduler_config is not for ATTENTION_BACKEND SDPA: leave one of them out")
    return {name: value for name, value in properties.items() if name not in OWN_PROPERTIES}


def has_byte_caches(properties: Mapping[str, Any], device: str) -> bool:
    """Whether the caches of a decoder are those of `choose_caches` by default."""
    return properties.get("ATTENTION_BACKEND") != "SDPA" and not device.startswith("GPU")


def check_folder(folder: Path, properties: dict[str, Any]) -> None:
    """RuntimeError if there is no such folder or file. For a GGUF file, remove the property that asks for an
    IR beside it. UnsupportedError if it does ask."""
    if not is_gguf(folder):
        model_file(folder)
    elif properties.pop("enable_save_ov_model", False):
        raise UnsupportedError(
            "ovjit does not support enable_save_ov_model: leave it out, and write the model's IR by "
            "ov.save_model(ov.Core().read_model(path), ...)"
        )


class LLMPipeline:
    """Generates texts with a decoder that keeps its state.

    LLMPipeline(folder, device, config={}, **properties), LLMPipeline(folder, tokenizer, device, ...), where
    the folder may be a GGUF file, or
    LLMPipeline(model, weights, tokenizer, device, generation_config=None, **properties) for an IR in memory.
    """

    def __init__(self, *arguments: Any, **kwargs: Any):
        start_us = now_us()
        self._turn = Turn()
        #: Proposes tokens: a draft model, or earlier tokens.
        self._drafts: Proposer | Proposals | None = None
        self._extended: SDPerModelsPerfMetrics | None = None
        self._engine: Engine | BatchedEngine
        if isinstance(kwargs.get("weights", arguments[1] if len(arguments) > 1 else None), Tensor):
            self._load_text(*arguments, **kwargs)
        else:
            self._load_folder(*arguments, **kwargs)
        self._prompts = Prompts(self._tokenizer)
        add_eos(self._config, self._tokenizer)
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
        check_folder(folder, properties)
        self._tokenizer = tokenizer or Tokenizer(folder, **properties)
        parent = folder if folder.is_dir() else folder.parent
        self._config = GenerationConfig() if is_gguf(folder) else read_config(GenerationConfig, parent)
        self._load_engine((folder,), device, properties)

    def _load_text(self, model: str, weights: Tensor, tokenizer: Tokenizer, device: str,
                   generation_config: GenerationConfig | None = None, **properties: Any) -> None:  # fmt: skip
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError(f"tokenizer should be a Tokenizer, not {type(tokenizer).__name__}")
        self._tokenizer, self._config = tokenizer, copy.copy(generation_config or GenerationConfig())
        self._load_engine((model, weights), device, properties)

    def _load_engine(self, source: tuple[Any, ...], device: str, properties: dict[str, Any]) -> None:
        """Load the decoder of a path, or of an IR's text and weights, with its adapters and drafts."""
        self._adapters, change = load_adapters(properties, self._config)
        settings, draft = engine_properties(properties), draft_of(properties)
        self._has_state = properties.get("ATTENTION_BACKEND") == "SDPA"
        is_drafted = draft is not None or bool(properties.get("prompt_lookup"))
        mode = "" if draft is None else draft.mode
        if needs_batches(properties, device) or mode not in ("", SHARED):
            from ovjit.genai.batched_engine import BatchedEngine, read_model
            from ovjit.genai.proposals import load_proposals

            model = read_model(source)
            scheduler = properties.get("scheduler_config") or SchedulerConfig()
            self._drafts = load_proposals(properties, source[0], model)
            self._engine = BatchedEngine(model, device, scheduler, settings, change, None, self._drafts)
            return
        load: Any = Engine.load if len(source) == 1 else Engine.load_text
        rows, in_bytes = CHECKED if is_drafted else 1, has_byte_caches(properties, device)
        self._engine = engine = load(*source, device, settings, change, rows, in_bytes)
        if draft is not None and mode == SHARED:
            from ovjit.genai.batched_engine import read_model
            from ovjit.genai.shared_caches import SharedCacheProposer

            self._drafts = SharedCacheProposer(draft, engine.decoder, read_model(source), device)
        elif draft is not None:
            self._drafts = draft.load(device)
        elif is_drafted:
            from ovjit.genai.drafts import LookupProposer

            self._drafts = LookupProposer()

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
        self._prompts.start_chat(system_message)

    def finish_chat(self) -> None:
        """Forget the chat. Deprecated: use ChatHistory."""
        self._prompts.finish_chat()

    # -- generation

    def __call__(self, inputs: Any, generation_config: GenerationConfig | None = None, streamer: Any = None,
                 **kwargs: Any) -> Any:  # fmt: skip
        return self.generate(inputs, generation_config, streamer, **kwargs)

    def generate(self, inputs: Any, generation_config: GenerationConfig | None = None, streamer: Any = None,
                 **kwargs: Any) -> Any:  # fmt: skip
        """A str for one str and one sequence, DecodedResults for several or for a ChatHistory,
        EncodedResults for tokens. Keywords are fields of GenerationConfig. Calls of several threads take
        turns."""
        return self._turn.run(
            self._prompts.history, self._generate, inputs, generation_config, streamer, kwargs
        )

    def _generate(self, inputs: Any, generation_config: GenerationConfig | None, streamer: Any,
                  kwargs: dict[str, Any]) -> Any:  # fmt: skip
        start_us = now_us()
        stream = streamer_of(streamer, self._tokenizer)
        config = merge(generation_config, self._config, kwargs)
        if self._has_state:
            config._prefer_new_tokens()
        check_drafts(config, self._drafts)
        if apply_adapters(self._adapters, self._engine.requests, config.adapters):
            self._engine.forget()
        metrics = PerfMetrics()
        metrics._load_time = self._load_time
        self._extended = None
        length = len(self._prompts.history)
        prompts, is_text = self._prompts.tokens_of(inputs, config, metrics)
        check_single(stream, config, len(prompts))
        if is_text and isinstance(stream, TextParserStreamer):
            stream.reset()
        answers: list[Answer] = []
        engine, is_alone = self._engine, len(prompts) == 1 or self._drafts is not None
        if isinstance(engine, Engine) and engine.can_join and not is_alone:
            for first in range(0, len(prompts), MAX_ROWS):
                some = prompts[first : first + MAX_ROWS]
                answers += self._run_together(engine, some, config, metrics, start_us)
        else:
            for prompt in prompts:
                answers += self._run(prompt, config, stream, metrics, start_us)
        if not is_text:
            return self._encode_results(answers, metrics, start_us)
        results = self._decode_results(answers, metrics, start_us)
        results.parsed = parse_texts(results.texts, config.parsers, stream)
        is_cancelled = answers[0].finish is GenerationFinishReason.NONE
        self._prompts.end_turn(length, None if is_cancelled else results.texts[0])
        is_one = isinstance(inputs, (str, bytes)) and config.num_return_sequences == 1
        return results.texts[0] if is_one else results

    def _run(self, prompt: list[int], config: GenerationConfig, stream: StreamerBase | None,
             metrics: PerfMetrics, start_us: float) -> list[Answer]:  # fmt: skip
        """Generate the sequences of one prompt."""
        figures = Figures(metrics, start_us)
        stops, writer = self._begin(prompt, config, stream, metrics)
        if self._drafts is not None and stops.most and not config.is_beam_search():
            if config.num_return_sequences == 1:
                return self._run_drafted(prompt, stops, writer, figures)
        steps = answer_prompt(prompt, stops, writer, figures)
        return self._engine.run(prompt, steps)[: config.num_return_sequences]

    def _run_together(self, engine: Engine, prompts: list[list[int]], config: GenerationConfig,
                      metrics: PerfMetrics, start_us: float) -> list[Answer]:  # fmt: skip
        """Generate the sequences of several prompts, each step for all of them."""
        figures, steps = SharedFigures(metrics, start_us), list[Steps]()
        for prompt in prompts:
            stops, writer = self._begin(prompt, config, None, metrics)
            steps.append(answer_prompt(prompt, stops, writer, figures))
        answers = engine.run_together(prompts, steps, figures.end_common_step)
        figures.finish_all()
        return [answer for each in answers for answer in each[: config.num_return_sequences]]

    def _begin(self, prompt: list[int], config: GenerationConfig, stream: StreamerBase | None,
               metrics: PerfMetrics) -> tuple[Stops, Writer]:  # fmt: skip
        """The ends of a prompt's sequences, and what gives their tokens to the streamer."""
        if not prompt:
            raise OvjitError("a prompt cannot have the length 0")
        metrics._input_tokens = metrics._input_tokens or len(prompt)
        stops = Stops(config, self._tokenizer, len(prompt), metrics)
        return stops, Writer(stream, stops, prompt if config.echo else [])

    def _run_drafted(self, prompt: list[int], stops: Stops, writer: Writer, figures: Figures) -> list[Answer]:
        """Generate one sequence whose tokens are proposed by a draft model or by earlier tokens."""
        engine, drafts = self._engine, self._drafts
        assert drafts is not None
        metrics = begin_figures(drafts, self._load_time)
        drafts.apply(stops.config.adapters, self._config.adapters)
        engine.forget()
        steps = answer_drafted(prompt, stops, writer, figures, drafts)
        if isinstance(engine, Engine):
            propose = drafts.propose if isinstance(drafts, Proposer) else look_up
            answers = run_drafted(engine.decoder, prompt, steps, propose, stops.config)
        else:
            answers = engine.run_drafted(prompt, steps, stops.config)
        sum_durations(metrics)
        if drafts.has_draft:
            self._extended = metrics if self._extended is None else self._extended + metrics
        return answers

    def _decode_results(self, answers: list[Answer], metrics: PerfMetrics, start_us: float) -> DecodedResults:
        results, raw = DecodedResults(), metrics.raw_metrics
        for answer in answers:
            with measure(raw.detokenization_durations):
                results.texts.append(self._tokenizer.decode(answer.tokens))
        del raw.chat_template_durations[1:]  # as for tokens, the first prompt counts
        return self._fill(results, answers, metrics, start_us)

    def _encode_results(self, answers: list[Answer], metrics: PerfMetrics, start_us: float) -> EncodedResults:
        results = EncodedResults()
        results.tokens = [answer.tokens for answer in answers]
        return self._fill(results, answers, metrics, start_us)

    def _fill(self, results: Any, answers: list[Answer], metrics: PerfMetrics, start_us: float) -> Any:
        results.scores = [answer.score for answer in answers]
        results.finish_reasons = [answer.finish for answer in answers]
        metrics.raw_metrics.generate_durations.append(now_us() - start_us)
        results.perf_metrics, results.extended_perf_metrics = metrics, self._extended
        if self._extended is not None:
            self._extended._copy_call(metrics)
        return results
