"""ContinuousBatchingPipeline: requests that share batches and the memory of keys and values."""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.adapters import is_same, load_adapters
from ovjit.genai.answers import answer_prompt, echo_prompt
from ovjit.genai.batch_prompts import SHOWN, BatchPrompts, ReadPrompt, bind_arguments
from ovjit.genai.batched_engine import read_model
from ovjit.genai.batches import Batches, Proposals, Request, paged_options
from ovjit.genai.config import GenerationConfig, add_eos, check_single, merge, read_config
from ovjit.genai.drafts import DraftedRequest
from ovjit.genai.enums import GenerationFinishReason, GenerationStatus, StreamingStatus
from ovjit.genai.figures import Figures, SharedFigures, measure, now_us
from ovjit.genai.handles import GenerationHandle, GenerationOutput, HandleWriter, PipelineMetrics
from ovjit.genai.history import ChatHistory
from ovjit.genai.llm import check_folder
from ovjit.genai.proposals import load_proposals
from ovjit.genai.results import EncodedGenerationResult, GenerationResult, PerfMetrics
from ovjit.genai.scheduler import SchedulerConfig
from ovjit.genai.speculation import (
    SDPerModelsPerfMetrics,
    answer_drafted,
    begin_figures,
    check_drafts,
    check_properties,
    sum_durations,
)
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import StreamerBase, streamer_of
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn
from ovjit.genai.vision.engine import EmbeddedRows
from ovjit.genai.vision.reader import LANGUAGE, PictureReader, Shown, read_folder
from ovjit.genai.vision.results import VLMDecodedResults
from ovjit.generation.paged import PagedDecoder

_CONSTRUCTORS = (
    "__init__(): incompatible constructor arguments. ContinuousBatchingPipeline takes the path of a folder, "
    "an optional Tokenizer, a SchedulerConfig, and a device"
)
_GENERATE = (
    "generate(): incompatible function arguments. It takes a str and a GenerationConfig, or a list of str, "
    "ChatHistory or Tensor, lists of the pictures and of the videos of each, and a list of GenerationConfig"
)
_OWN_PROPERTIES = ("adapters", "draft_model", "prompt_lookup")
#: The status of a result by the streamer's answer.
_STATUSES = {
    StreamingStatus.STOP: GenerationStatus.STOP,
    StreamingStatus.CANCEL: GenerationStatus.CANCEL,
    StreamingStatus.TOOL_CALL_STOP: GenerationStatus.STOP,
}


class ContinuousBatchingPipeline:
    """Generates texts for many requests at a time.

    ContinuousBatchingPipeline(folder, scheduler_config, device, properties={}, tokenizer_properties={},
    vision_encoder_properties={}), or ContinuousBatchingPipeline(folder, tokenizer, scheduler_config, device,
    **properties), where the folder may be a GGUF file.
    """

    def __init__(self, models_path: Any, *arguments: Any, **kwargs: Any):
        start_us = now_us()
        self._turn, items = Turn(), list(arguments)
        is_first = bool(items) and isinstance(items[0], Tokenizer)
        tokenizer = items.pop(0) if is_first else kwargs.pop("tokenizer", None)
        scheduler = items.pop(0) if items else kwargs.pop("scheduler_config", None)
        device = items.pop(0) if items else kwargs.pop("device", None)
        if not isinstance(scheduler, SchedulerConfig) or not isinstance(device, str):
            raise TypeError(_CONSTRUCTORS)
        if tokenizer is None:
            names = ("properties", "tokenizer_properties", "vision_encoder_properties")
            options = dict(zip(names, items, strict=False))
            options |= {name: kwargs.pop(name) for name in names if name in kwargs}
            properties, of_tokenizer = options.get("properties", {}), options.get("tokenizer_properties", {})
            items = items[len(names) :]
        else:
            properties, of_tokenizer, kwargs = kwargs, {}, {}
        if items or kwargs or not isinstance(properties, Mapping) or not isinstance(of_tokenizer, Mapping):
            raise TypeError(_CONSTRUCTORS)
        check_properties(properties)
        properties, folder = {**properties}, Path(os.fsdecode(models_path))
        check_folder(folder, properties)
        if device not in ("CPU", "AUTO"):
            raise UnsupportedError(f"ContinuousBatchingPipeline runs on the device CPU, not on {device!r}")
        self._tokenizer = tokenizer or Tokenizer(folder, **of_tokenizer)
        self._config = read_config(GenerationConfig, folder)
        add_eos(self._config, self._tokenizer)
        self._prompts = BatchPrompts(self._tokenizer, self._load(folder, scheduler, properties))
        self._prompts.load_time = self._load_time = (now_us() - start_us) / 1000

    _proposals: Proposals | None = None

    def _load(self, folder: Path, scheduler: SchedulerConfig,
              properties: Mapping[str, Any]) -> PictureReader | None:  # fmt: skip
        """Load the model, and what proposes tokens. Returns what reads prompts with pictures."""
        settings = {n: v for n, v in properties.items() if n not in _OWN_PROPERTIES}
        self._adapters, change = load_adapters(properties, self._config)
        reader = inputs = None
        has_pictures = (folder / f"openvino_{LANGUAGE}_model.xml").is_file()
        if has_pictures:
            models = read_folder(folder)
            model = models.pop(LANGUAGE)
            reader = PictureReader(models, folder, self._tokenizer, "CPU", settings)
            inputs = EmbeddedRows(reader)
        else:
            model = read_model((folder,))
        self._proposals = load_proposals(properties, folder, model, inputs)
        options = paged_options(scheduler, settings, inputs, self._proposals)
        decoder = PagedDecoder(model, options, change=change)
        self._batches = Batches(decoder, scheduler, self._proposals, inputs)
        return reader

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def get_config(self) -> GenerationConfig:
        """The configuration of generation_config.json."""
        return copy.copy(self._config)

    def get_metrics(self) -> PipelineMetrics:
        """Figures of the last step."""
        return copy.copy(self._batches.metrics)

    def start_chat(self, system_message: str = "") -> None:
        """Keep messages from now on: each `generate` of a str continues the chat. Deprecated: use
        ChatHistory."""
        self._prompts.start_chat(system_message)

    def finish_chat(self) -> None:
        """Forget the chat. Deprecated: use ChatHistory."""
        self._prompts.finish_chat()

    # -- requests

    def add_request(self, request_id: int, prompt: Any = None, *arguments: Any,
                    input_ids: Tensor | None = None, **keywords: Any) -> GenerationHandle:  # fmt: skip
        """add_request(request_id, prompt, images=[], videos=[], generation_config): add a request, which
        `step` computes. `prompt`: a Tensor of tokens, or a text, without a template if the model takes no
        pictures."""
        options = bind_arguments(arguments, keywords, Tensor)
        generation_config = options.get("generation_config")
        inputs = input_ids if prompt is None else prompt
        try:
            number = operator.index(request_id)
        except TypeError:
            number = -1
        if (number < 0 or not isinstance(inputs, (str, Tensor))
                or not isinstance(generation_config, GenerationConfig)):  # fmt: skip
            raise TypeError(
                "add_request(): incompatible function arguments. It takes a number of the request, a str or "
                "a Tensor, and a GenerationConfig"
            )
        config = merge(generation_config, self._config, {})
        with self._turn.lock:
            read = self._prompts.read_request(inputs, config, self._prompts.check_shown(options))
            self._apply_adapters([config])
            logs = [1.0] if config.echo else None  # the first token follows nothing
            figures = Figures(read.metrics, now_us())
            return self._add(number, read, config, None, figures, logs).handle

    def _add(self, number: int, read: ReadPrompt, config: GenerationConfig, stream: StreamerBase | None,
             figures: Figures, prompt_logs: list[float] | None = None) -> Request:  # fmt: skip
        prompt, metrics = read.tokens, read.metrics
        check_drafts(config, self._proposals)
        if self._proposals is not None and (config.is_beam_search() or config.num_return_sequences > 1):
            raise OvjitError("Beam search and parallel sampling are not compatible with assistant generation")
        if not prompt:
            raise OvjitError("a prompt cannot have the length 0")
        stops = Stops(config, self._tokenizer, len(prompt), figures.metrics)
        if read.embedded is None:
            metrics._input_tokens += len(prompt)
        handle = GenerationHandle(self.step, metrics)
        writer = HandleWriter(handle, stream, stops, read.words if config.echo else [], prompt_logs or ())
        if prompt_logs is not None and not stops.most:
            request = Request(number, prompt, echo_prompt(read.words, writer), handle, writer, read.embedded)
        elif self._proposals is None or not stops.most:
            steps = answer_prompt(read.words, stops, writer, figures)
            request = Request(number, prompt, steps, handle, writer, read.embedded)
        else:
            drafted = answer_drafted(prompt, stops, writer, figures, self._proposals)
            request = DraftedRequest(number, prompt, drafted, handle, writer, stops.config, read.embedded)
        request.prompt_logs = prompt_logs
        self._batches.add(request)
        return request

    def _apply_adapters(self, configs: Sequence[GenerationConfig]) -> None:
        """Set the adapters of requests. RuntimeError if they differ, or differ from those that run."""
        first = configs[0].adapters
        if any(not is_same(config.adapters, first) for config in configs):
            raise OvjitError("LoRA adapters value must be the same for all requests")
        self._batches.apply(self._adapters, first)
        if self._proposals is not None:
            self._proposals.apply(first, self._config.adapters)

    def has_non_finished_requests(self) -> bool:
        """True if a request needs further steps."""
        return bool(self._batches.running)

    def step(self) -> None:
        """Compute the next tokens of the requests."""
        with self._turn.take():
            self._batches.step()

    # -- generation

    def generate(self, prompts: Any = None, *arguments: Any, input_ids: Any = None, prompt: Any = None,
                 histories: Any = None, **keywords: Any) -> list[Any]:  # fmt: skip
        """generate(prompts, images=None, videos=None, generation_config, streamer=None): a VLMDecodedResults
        for each prompt with lists of pictures or videos, else a GenerationResult for each text or
        ChatHistory, an EncodedGenerationResult for each Tensor. A list of prompts takes a list of
        configurations."""
        options = bind_arguments(arguments, keywords, (list, tuple))
        inputs = next((value for value in (prompts, input_ids, prompt, histories) if value is not None), None)
        items, configs = _check_items(inputs, options)
        shown = [self._prompts.check_shown(options, i) for i in range(len(items))]
        is_shown = any(options.get(name) is not None for name in SHOWN)
        stream = streamer_of(options.get("streamer"), self._tokenizer)
        return self._turn.run(self._prompts.history, self._generate, items, configs, shown, is_shown, stream)

    def _generate(self, items: list[Any], configs: list[GenerationConfig], shown: list[Shown],
                  is_decoded: bool, stream: StreamerBase | None) -> list[Any]:  # fmt: skip
        if self.has_non_finished_requests():
            raise OvjitError(
                "Generate cannot be called while ContinuousBatchingPipeline is already in running state. Use "
                "ContinuousBatchingPipeline.add_request"
            )
        start_us = now_us()
        merged = [merge(config, self._config, {}) for config in configs]
        check_single(stream, merged[0], len(items))
        length, requests = len(self._prompts.history), list[Request]()
        try:
            self._apply_adapters(merged)
            drafts = self._new_figures()
            reads = self._prompts.read(items, merged, shown)
            shared = SharedFigures(PerfMetrics(), start_us)
            for i, read in enumerate(reads):
                requests.append(self._add(i, read, merged[i], stream, shared))
            while self.has_non_finished_requests():
                self._batches.step()
                shared.end_common_step()
            shared.finish_all()
            for read in reads:
                shared.copy_to(read.metrics)
            if drafts is not None:
                sum_durations(drafts)
            results = [self._result_of(request, items[i], start_us)
                       for i, request in enumerate(requests)]  # fmt: skip
        except BaseException:
            for request in requests:
                if request in self._batches.running:
                    self._batches.remove(request)
            raise
        for result, request in zip(results, requests, strict=True):
            if drafts is not None:
                result.extended_perf_metrics = figures = copy.copy(drafts)
                figures.raw_metrics = copy.copy(drafts.raw_metrics)
                figures._copy_call(result.perf_metrics)
                figures._input_tokens = len(request.prompt)
        is_cancelled = getattr(results[0], "m_status", None) is GenerationStatus.CANCEL
        if not is_cancelled:
            self._prompts.keep(reads)
        if isinstance(items[0], str):
            texts = results[0].m_generation_ids
            is_refused = results[0].m_status is GenerationStatus.IGNORED and not any(texts)
            is_kept = texts and not (is_cancelled or is_refused)
            self._prompts.end_turn(length, texts[0] if is_kept else None)
        if is_decoded:
            return [_as_decoded(*pair) for pair in zip(results, requests, strict=True)]
        return results

    def _new_figures(self) -> SDPerModelsPerfMetrics | None:
        """Begin new figures of drafts. None without a draft model."""
        if self._proposals is None or not self._proposals.has_draft:
            return None
        return begin_figures(self._proposals, self._load_time)

    def _result_of(self, request: Request, item: Any, start_us: float) -> Any:
        answered = request.writer.status if request.writer is not None else StreamingStatus.RUNNING
        status = _STATUSES.get(answered, request.handle.get_status())
        outputs = request.handle.read_all()
        if not outputs and request.answers:  # of a single sequence that a stop string removed
            outputs = [GenerationOutput.of([], [], request.answers[0])]
        metrics = request.handle.get_perf_metrics()
        tokens = [output.generated_ids for output in outputs]
        result: Any = EncodedGenerationResult() if isinstance(item, Tensor) else GenerationResult()
        result.m_request_id, result.m_scores = request.number, [output.score for output in outputs]
        if isinstance(item, Tensor):
            result.m_generation_ids = tokens
            result.finish_reasons = [output.finish_reason for output in outputs]
            if request.answers and len(outputs) == 1:
                result.finish_reasons = [request.answers[0].finish]  # the streamer's, too
        else:
            for each in tokens:
                with measure(metrics.raw_metrics.detokenization_durations):
                    result.m_generation_ids.append(self._tokenizer.decode(each))
            result.m_status = status
        metrics.raw_metrics.generate_durations.append(now_us() - start_us)
        result.perf_metrics = metrics
        return result


def _as_decoded(result: Any, request: Request) -> VLMDecodedResults:
    """A result as that of a prompt with pictures."""
    decoded = VLMDecodedResults()
    decoded.texts, decoded.scores = result.m_generation_ids, result.m_scores
    decoded.perf_metrics, decoded.extended_perf_metrics = result.perf_metrics, result.extended_perf_metrics
    reasons = [answer.finish or GenerationFinishReason.NONE for answer in request.answers or ()]
    decoded.finish_reasons = reasons[: len(decoded.texts)]
    return decoded


def _check_items(inputs: Any, options: dict[str, Any]) -> tuple[list[Any], list[GenerationConfig]]:
    """The prompts and a configuration for each. Raises the real package's errors for inputs of other types
    and for other numbers."""
    is_list = isinstance(inputs, Sequence) and not isinstance(inputs, (str, bytes))
    items: list[Any] = [*inputs] if inputs is not None and is_list else [inputs]
    configs = options.get("generation_config") if is_list else [options.get("generation_config")]
    kinds = {kind for kind in (str, Tensor, ChatHistory) if any(isinstance(i, kind) for i in items)}
    lists = [options[name] for name in SHOWN if options.get(name) is not None]
    is_known = len(kinds) <= 1 and all(isinstance(i, (str, Tensor, ChatHistory)) for i in items)
    if not (is_known and (is_list or isinstance(inputs, str)) and _are_configs(configs)):
        raise TypeError(_GENERATE)
    if lists and (not is_list or Tensor in kinds or not _are_nested(lists)):
        raise TypeError(_GENERATE)
    is_short = str in kinds and not lists and len(configs) < len(items)
    if is_short or not (items or (configs and not lists)):
        raise IndexError(f"{len(items)} prompts have {len(configs)} configurations")
    if any(len(each) != len(items) for each in (configs, *lists)):
        raise OvjitError(
            f"{len(items)} prompts need as many configurations, lists of pictures and lists of videos"
        )
    return items, list(configs)


def _are_configs(values: Any) -> TypeGuard[Sequence[GenerationConfig]]:
    return isinstance(values, Sequence) and all(isinstance(value, GenerationConfig) for value in values)


def _are_nested(lists: list[Any]) -> bool:
    return all(isinstance(each, (list, tuple)) for values in lists for each in values)
