"""VLMPipeline: texts from pictures and texts."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.adapters import apply_adapters, load_adapters
from ovjit.genai.answers import Answer, Writer, answer_prompt
from ovjit.genai.batched_engine import BatchedEngine
from ovjit.genai.config import GenerationConfig, add_eos, check_single, merge, read_config
from ovjit.genai.enums import GenerationFinishReason
from ovjit.genai.fields import unpack_config
from ovjit.genai.figures import Figures, measure, now_us
from ovjit.genai.history import ChatHistory
from ovjit.genai.llm import engine_properties, has_byte_caches
from ovjit.genai.proposals import load_proposals
from ovjit.genai.scheduler import SchedulerConfig, needs_batches
from ovjit.genai.speculation import answer_drafted, begin_figures, check_drafts, sum_durations
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import streamer_of
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn
from ovjit.genai.vision.engine import EmbeddedRows, EmbeddingEngine
from ovjit.genai.vision.reader import LANGUAGE, PictureReader, read_folder, read_models
from ovjit.genai.vision.results import VLMDecodedResults, VLMPerfMetrics
from ovjit.generation.decoder import choose_caches
from ovjit.generation.head import keep_last


class VLMPipelineBase:
    """The base of pipelines that take pictures."""


class VLMPipeline(VLMPipelineBase):
    """Texts from texts and pictures: VLMPipeline(folder, device, **properties), or VLMPipeline(models,
    tokenizer, config_dir_path, device, generation_config=None, **properties) with a dict of IRs in memory."""

    def __init__(self, models_path: Any = None, *arguments: Any, **kwargs: Any):
        start_us = now_us()
        self._turn = Turn()
        models = kwargs.pop("models", models_path if isinstance(models_path, Mapping) else None)
        if models is None:
            self._load_folder(models_path, *arguments, **unpack_config(kwargs))
        else:
            self._load_models(models, *arguments, **unpack_config(kwargs))
        add_eos(self._config, self._tokenizer)
        #: The chat of start_chat.
        self._history: ChatHistory | None = None
        self._load_time = (now_us() - start_us) / 1000

    def _load_folder(self, models_path: Any, device: str, **properties: Any) -> None:
        if not isinstance(models_path, (str, bytes, os.PathLike)) or not isinstance(device, str):
            raise TypeError("VLMPipeline takes the path of a folder and a device")
        folder = Path(os.fsdecode(models_path))
        models = read_folder(folder)
        self._config = read_config(GenerationConfig, folder)
        self._tokenizer = Tokenizer(folder)
        self._compile(models, folder, device, properties)

    def _load_models(
        self, models: Mapping[str, Any], tokenizer: Tokenizer, config_dir_path: Any, device: str,
        generation_config: GenerationConfig | None = None, **properties: Any,
    ) -> None:  # fmt: skip
        folder = Path(os.fsdecode(config_dir_path))
        self._config, self._tokenizer = copy.copy(generation_config or GenerationConfig()), tokenizer
        self._compile(read_models(folder, models), folder, device, properties)

    def _compile(self, models: dict[str, Any], folder: Path, device: str, properties: dict[str, Any]) -> None:
        from ovjit.api.run.core import Core

        settings = engine_properties(properties)
        self._has_state = properties.get("ATTENTION_BACKEND") == "SDPA"
        language = models.pop(LANGUAGE)
        self._reader = reader = PictureReader(models, folder, self._tokenizer, device, settings)
        self._adapters, change = load_adapters(properties, self._config)
        self._engine: EmbeddingEngine | BatchedEngine
        rows = EmbeddedRows(reader)
        self._drafts = load_proposals(properties, folder, language, rows)
        if self._drafts is not None or needs_batches(properties, device):
            scheduler = properties.get("scheduler_config") or SchedulerConfig()
            self._engine = BatchedEngine(language, device, scheduler, settings, change, rows, self._drafts)
        else:
            keep_last(language, 1)
            if has_byte_caches(properties, device):
                choose_caches(language, settings)
            names = () if change is None else change(language)
            self._engine = EmbeddingEngine(Core().compile_model(language, device, settings), reader.family,
                                           reader.embed, names)  # fmt: skip

    # -- settings

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def get_generation_config(self) -> GenerationConfig:
        return copy.copy(self._config)

    def set_generation_config(self, config: GenerationConfig) -> None:
        """Use this configuration by default. Tokens that end texts stay if it has none."""
        self._config = merge(config, self._config, {})

    def set_chat_template(self, chat_template: str) -> None:
        if self._history is not None:
            raise OvjitError("the template cannot be changed in a chat: call finish_chat first")
        self._tokenizer.set_chat_template(chat_template)

    def start_chat(self, system_message: str = "") -> None:
        """Keep messages from now on. Deprecated: use ChatHistory."""
        warnings.warn("start_chat is deprecated: give a ChatHistory to generate", DeprecationWarning, 2)
        self._history = ChatHistory([{"role": "system", "content": system_message}] if system_message else [])

    def finish_chat(self) -> None:
        """Forget the chat. Deprecated: use ChatHistory."""
        warnings.warn("finish_chat is deprecated: give a ChatHistory to generate", DeprecationWarning, 2)
        self._history = None

    # -- generation

    def generate(self, prompt: Any = None, *arguments: Any, **kwargs: Any) -> VLMDecodedResults:
        """generate(prompt or history, images=[...], videos=[], generation_config=None, streamer=None,
        **kwargs), where a Tensor may stand for images, or be the keyword image. A picture is a Tensor u8
        [height, width, 3], or [n, height, width, 3] for several; a video one [frames, height, width, 3],
        with `videos_metadata`; `audios` are Tensors f32 [samples] at 16 kHz. Further keywords are fields of
        GenerationConfig."""
        prompt = kwargs.pop("history", None) if prompt is None else prompt
        if not isinstance(prompt, (str, ChatHistory)):
            raise TypeError(f"prompt should be a str or a ChatHistory, not {type(prompt).__name__}")
        options = _bind(arguments, kwargs)
        chat = self._history if isinstance(prompt, str) else None
        return self._turn.run(chat, self._generate, prompt, chat, options, kwargs)

    def _generate(
        self, prompt: str | ChatHistory, chat_history: ChatHistory | None, options: Mapping[str, Any],
        keywords: dict[str, Any],
    ) -> VLMDecodedResults:  # fmt: skip
        start_us, metrics = now_us(), VLMPerfMetrics()
        metrics._load_time = self._load_time
        images = options.get("images", [])
        images = [images] if isinstance(images, Tensor) else [*images]
        images += [options["image"]] if "image" in options else []
        others = (options.get(name, ()) for name in ("videos", "videos_metadata", "audios"))
        shown = self._reader.check(images, *others)
        config = merge(options.get("generation_config"), self._config, keywords)
        if self._has_state:
            config._prefer_new_tokens()
        if apply_adapters(self._adapters, self._engine.requests, config.adapters):
            self._engine.forget()
        stream = streamer_of(options.get("streamer"), self._tokenizer)
        check_single(stream, config, 1)
        check_drafts(config, self._drafts)
        history = prompt if isinstance(prompt, ChatHistory) else chat_history
        if history is prompt and not (history and config.apply_chat_template):
            raise OvjitError("a ChatHistory needs messages, and apply_chat_template=True")
        if chat_history is not None:
            chat_history.append({"role": "user", "content": prompt})
        read, chat = self._reader.read(str(prompt), history, config, shown, metrics)
        # as in openvino_genai, penalties do not count the tokens of a ChatHistory
        ids = [] if history is prompt else read.words
        stops = Stops(config, self._tokenizer, read.ids.size, metrics)
        writer = Writer(stream, stops, ids if config.echo else [])
        figures = Figures(metrics, start_us)
        extended = None
        if self._drafts is not None and stops.most and not config.is_beam_search():
            assert isinstance(self._engine, BatchedEngine)
            extended = begin_figures(self._drafts, self._load_time)
            self._drafts.apply(config.adapters, self._config.adapters)
            drafted = answer_drafted(ids, stops, writer, figures, self._drafts)
            answers = self._engine.run_drafted(read, drafted, config)
            sum_durations(extended)
        else:
            answers = self._engine.run(read, answer_prompt(ids, stops, writer, figures))
        answers = answers[: config.num_return_sequences]
        is_done = answers[0].finish is not GenerationFinishReason.NONE
        results = self._decode(answers, metrics, start_us)
        if self._drafts is not None and self._drafts.has_draft and extended is not None:
            results.extended_perf_metrics = extended
            extended._copy_call(metrics)
        if history is not None and is_done:
            self._reader.keep(history, chat)
        if chat_history is not None:
            _end_turn(chat_history, results.texts[0], is_done)
        return results

    def _decode(self, answers: list[Answer], metrics: VLMPerfMetrics, start_us: float) -> VLMDecodedResults:
        results = VLMDecodedResults()
        for answer in answers:
            with measure(metrics.raw_metrics.detokenization_durations):
                results.texts.append(self._tokenizer.decode(answer.tokens))
        results.scores = [answer.score for answer in answers]
        results.finish_reasons = [answer.finish or GenerationFinishReason.NONE for answer in answers]
        metrics.raw_metrics.generate_durations.append(now_us() - start_us)
        results.perf_metrics = metrics
        return results


def _end_turn(history: ChatHistory, answer: str, is_done: bool) -> None:
    """Add the answer to its question. The question of a cancelled answer is no part of the chat."""
    if is_done:
        history.append({"role": "assistant", "content": answer})
    else:
        history.pop()


def _bind(arguments: Sequence[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `generate` after the prompt, by name; they are removed from the keywords. TypeError
    for others."""
    names = {"images": (Tensor, Sequence), "videos": Sequence, "generation_config": GenerationConfig,
             "streamer": object}  # fmt: skip
    options: dict[str, Any] = {}
    order = list(names)
    for value in arguments:
        while order and not isinstance(value, names[order[0]]):  # type: ignore[arg-type]
            order.pop(0)
        if not order:
            raise TypeError(
                f"generate(): incompatible function arguments: {type(value).__name__} is not expected"
            )
        options[order.pop(0)] = value
    for name in ("image", *names, "videos_metadata", "audios"):
        if name in keywords:
            options[name] = keywords.pop(name)
    return options
