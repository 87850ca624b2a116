"""Speculation: a smaller model, or the prompt itself, proposes tokens that the model checks in one inference.
The texts are those without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.forks import made_once
from ovjit.genai.adapters import DECODER, AdapterConfig, AdapterController, controller_of, is_same
from ovjit.genai.answers import Answer, Writer, end_early, find_running
from ovjit.genai.config import GenerationConfig
from ovjit.genai.figures import Figures, now_us
from ovjit.genai.results import ExtendedPerfMetrics, MeanStdPair, PerfMetrics
from ovjit.genai.sampler import Sampler
from ovjit.genai.stops import OutOfBlocks, Stops
from ovjit.generation.decoder import FILES, Decoder
from ovjit.generation.speculative import check_tokens, follow_ngram, rewind_to_common

#: Marks of draft models that read features.
MODES = ("eagle3_mode", "dflash_mode", "mtp_mode")
#: The file of a layer for multi-token prediction, which may lie in the model's own folder.
MTP_FILE = "openvino_mtp_model.xml"
#: The kind of drafts that attend to keys and values of the model.
SHARED = "shared"
#: Tokens that a draft model proposes if neither their number nor a threshold is set.
PROPOSED = 5


class SDPerfMetrics(ExtendedPerfMetrics):
    """Figures of one of the models of speculative decoding, from the durations of its steps."""

    def __add__(self, metrics: Any) -> Any:
        total = super().__add__(metrics)
        total.raw_metrics.generate_durations = self._list_calls() + metrics._list_calls()
        return total

    __iadd__ = __add__

    def _list_calls(self) -> list[float]:
        """The duration of each call of `generate`."""
        raw = self.raw_metrics
        return raw.generate_durations or ([sum(raw.m_durations)] if raw.m_durations else [])

    def _list_steps(self, first: int, last: int | None = None) -> list[tuple[float, int]]:
        """(duration, number of tokens) of the steps of each call, from the `first` to before the `last`."""
        raw, ends, steps = self.raw_metrics, self._list_calls(), list[tuple[float, int]]()
        index, elapsed = 0, 0.0
        for step in zip(raw.m_durations, raw.m_batch_sizes, strict=True):
            if first <= index and (last is None or index < last):
                steps.append(step)
            index, elapsed = index + 1, elapsed + step[0]
            if len(ends) > 1 and elapsed >= ends[0] - 1e-3:
                index, elapsed, ends = 0, 0.0, ends[1:]
        return steps

    def _average(self, first: int, last: int | None = None) -> MeanStdPair:
        return MeanStdPair.of([duration for duration, _ in self._list_steps(first, last)], 1000.0)

    def get_generate_duration(self) -> MeanStdPair:
        return MeanStdPair.of(self._list_calls(), 1000.0)

    def get_ttft(self) -> MeanStdPair:
        """Milliseconds of the first step."""
        return self._average(0, 1)

    def get_ttst(self) -> MeanStdPair:
        """Milliseconds of the second step."""
        return self._average(1, 2)

    def get_latency(self) -> MeanStdPair:
        """Milliseconds of a step, from the third on."""
        return self._average(2)

    def get_tpot(self) -> MeanStdPair:
        """Milliseconds for each token, from the third step on."""
        return MeanStdPair.of([duration / count for duration, count in self._list_steps(2) if count], 1000.0)

    def get_ipot(self) -> MeanStdPair:
        """0: it is not measured."""
        return MeanStdPair(0.0, 0.0)


#: The lists of a call's figures that are also those of its speculation.
_COMMON = ("generate_durations", "inference_durations", "m_batch_sizes", "m_durations", "m_new_token_times",
           "m_times_to_first_token", "token_infer_durations")  # fmt: skip


class SDPerModelsPerfMetrics(SDPerfMetrics):
    """Figures of speculative decoding, and those of both models. Its own ones are those of the call."""

    get_generate_duration, get_ttft = PerfMetrics.get_generate_duration, PerfMetrics.get_ttft
    get_tpot, get_ipot = PerfMetrics.get_tpot, PerfMetrics.get_ipot

    def __init__(self) -> None:
        super().__init__()
        self.main_model_metrics, self.draft_model_metrics = SDPerfMetrics(), SDPerfMetrics()
        self._accepted = self._proposed = self._processed = 0

    def __add__(self, metrics: Any) -> SDPerModelsPerfMetrics:
        total = super().__add__(metrics)
        assert isinstance(total, SDPerModelsPerfMetrics)
        for name in ("main_model_metrics", "draft_model_metrics", "_accepted", "_proposed", "_processed"):
            setattr(total, name, getattr(self, name) + getattr(metrics, name))
        return total

    __iadd__ = __add__

    def _list_calls(self) -> list[float]:
        return self.raw_metrics.generate_durations

    def get_ttst(self) -> MeanStdPair:
        """0: see the models."""
        return MeanStdPair(0.0, 0.0)

    get_latency = get_ttst

    def _copy_call(self, metrics: PerfMetrics) -> None:
        """Take the lists of a call's figures."""
        for name in _COMMON:
            setattr(self.raw_metrics, name, list(getattr(metrics.raw_metrics, name)))

    def _add_draft_inference(self, start_us: float, tokens: int, rows: int) -> None:
        raw = self.draft_model_metrics.raw_metrics
        raw.m_durations.append(now_us() - start_us)
        raw.m_batch_sizes.append(tokens)
        self.draft_model_metrics._generated_tokens += rows

    def get_num_accepted_tokens(self) -> int:
        return self._accepted

    def get_num_draft_tokens(self) -> int:
        """Tokens that the draft model proposed."""
        return self._proposed

    def get_num_rejected_tokens(self) -> int:
        return self._proposed - self._accepted

    def get_num_draft_processed_tokens(self) -> int:
        """Tokens that the draft model computed, without those of the prompt."""
        return self._processed

    def get_draft_acceptance_rate(self) -> float:
        return self._accepted / self._proposed if self._proposed else 0.0

    def get_draft_processed_to_candidate_ratio(self) -> float:
        return self._processed / self._proposed if self._proposed else 0.0

    def get_draft_to_main_inference_duration_ratio(self) -> float:
        pairs = [sum(metrics.raw_metrics.inference_durations)
                 for metrics in (self.draft_model_metrics, self.main_model_metrics)]  # fmt: skip
        return pairs[0] / pairs[1] if pairs[1] else 0.0


class Draft:
    """A model that `draft_model` describes: its path, its device ("": that of the pipeline), properties."""

    def __init__(self, path: Path, device: str, properties: Mapping[str, Any]):
        self.path, self.device, self.properties = path, device, dict(properties)

    def load(self, device: str) -> Proposer:
        """The model, ready to propose. `device`: that of the pipeline."""
        adapters, properties = self.split_properties()
        change = None if adapters is None else adapters.insert
        return Proposer(Decoder.load(self.path, self.device or device, properties, change), adapters)

    @made_once
    def mode(self) -> str:
        """The mark of a model that reads features of the other one, in its file, its name or the properties.
        "" without."""
        if (self.path / MTP_FILE).is_file() and not (self.path / FILES[0]).is_file():
            return "mtp_mode"
        files = [file for file in (self.path, *(self.path / name for name in FILES)) if file.suffix == ".xml"]
        text = b"".join(file.read_bytes() for file in files if file.is_file())
        if b'"sliding_attention_key"' in text:
            return SHARED
        marks = (mode for mode in MODES if self.properties.get(mode) or b"<%s " % mode.encode() in text)
        return next(marks, "")

    @property
    def settings(self) -> dict[str, Any]:
        """The properties of its device."""
        names = ("adapters", "scheduler_config", *MODES)
        return {name: value for name, value in self.properties.items() if name not in names}

    def split_properties(self) -> tuple[AdapterController | None, dict[str, Any]]:
        """The controller of the model's adapters, and the properties of its device."""
        return controller_of(self.properties, DECODER), self.settings


def draft_model(models_path: Any, device: str = "", **kwargs: Any) -> Draft:
    """A draft model for the property `draft_model` of LLMPipeline. `kwargs`: properties of its device."""
    if not isinstance(models_path, (str, bytes, os.PathLike)) or not isinstance(device, str):
        raise TypeError("draft_model(): models_path should be the path of a folder, and device a str")
    path = Path(os.fsdecode(models_path))
    if not path.exists():
        raise OvjitError(f"the draft model {str(path)!r} does not exist")
    return Draft(path, device, kwargs)


#: Properties of pipelines, but not of devices.
OWN_PROPERTIES = ("adapters", "draft_model", "prompt_lookup", "ATTENTION_BACKEND", "scheduler_config")


def draft_of(properties: Mapping[str, Any]) -> Draft | None:
    """The draft model of a pipeline with these properties. One without properties of its device takes those
    of the pipeline."""
    draft: Draft | None = properties.get("draft_model")
    if draft is None or draft.settings:
        return draft
    inherited = {name: value for name, value in properties.items() if name not in OWN_PROPERTIES}
    return Draft(draft.path, draft.device, {**inherited, **draft.properties})


def limit_proposals(most: int, config: GenerationConfig) -> int:
    """The number of tokens that a draft model proposes at most."""
    if config.assistant_confidence_threshold:
        return most
    return min(most, config.num_assistant_tokens or PROPOSED, config.tree_depth or most)


def is_unsure(logits: np.ndarray, config: GenerationConfig) -> bool:
    """True if the probability of the most likely token is not above `assistant_confidence_threshold`."""
    if not config.assistant_confidence_threshold:
        return False
    return 1 / np.exp(logits - logits.max()).sum() <= config.assistant_confidence_threshold


def apply_to_draft(
    controller: AdapterController | None, requests: Sequence[Any], adapters: AdapterConfig | None,
    default: AdapterConfig | None,
) -> bool:  # fmt: skip
    """Set the adapters of a call in a draft model, if it has some: its own ones for those that the pipeline
    has by default. True if they have changed."""
    if controller is None:
        return False
    chosen = controller.first if adapters and is_same(adapters, default) else adapters
    return controller.apply(requests, chosen)


class Drafts:
    """A source of proposed tokens. `has_draft`: it is a model; `looks_up`: it repeats earlier tokens;
    `counts_last`: figures count the last step; `name`: of drafts that take no
    `assistant_confidence_threshold`."""

    has_draft = looks_up = takes_trees = counts_last = False
    name = ""

    def __init__(self) -> None:
        self.metrics = SDPerModelsPerfMetrics()

    def apply(self, adapters: AdapterConfig | None, default: AdapterConfig | None) -> None:
        """Set the adapters of a call."""


class Proposer(Drafts):
    """A smaller decoder that proposes its most likely tokens, one after another."""

    has_draft = True

    def __init__(self, decoder: Decoder, adapters: AdapterController | None):
        super().__init__()
        self._decoder, self._adapters = decoder, adapters
        self._tokens: list[int] = []

    def apply(self, adapters: AdapterConfig | None, default: AdapterConfig | None) -> None:
        if apply_to_draft(self._adapters, [self._decoder._request], adapters, default):
            self._decoder.reset()
            self._tokens = []

    def propose(self, tokens: Sequence[int], most: int, config: GenerationConfig) -> list[int]:
        """At most `most` tokens that follow. With `assistant_confidence_threshold`, the last one is the first
        whose probability is not above it."""
        most = limit_proposals(most, config)
        before, self._tokens = self._tokens, []  # until it is done: it may fail
        rewind_to_common(self._decoder, before, tokens)
        proposed, pending = list[int](), list(tokens[self._decoder.length :])
        while len(proposed) < most:
            logits = self._feed(pending, is_prompt=not proposed and len(pending) > most + 2)
            token = int(logits.argmax())
            proposed.append(token)
            if is_unsure(logits, config):
                break
            pending = [token]
        self._tokens = [*tokens, *proposed[:-1]]
        return proposed

    def _feed(self, tokens: list[int], is_prompt: bool) -> np.ndarray:
        start = now_us()
        logits = self._decoder.feed(tokens)[-1]
        self.metrics._add_draft_inference(start, len(tokens), 1)
        self.metrics._processed += 0 if is_prompt else len(tokens)
        return logits


def look_up(tokens: Sequence[int], most: int, config: GenerationConfig) -> list[int]:
    """The tokens after the first earlier occurrence of the last ones: of `max_ngram_size`, or of fewer."""
    return follow_ngram(tokens, config.max_ngram_size, min(most, config.num_assistant_tokens or 0), 0)


#: Proposes at most so many tokens that follow.
Propose = Callable[[Sequence[int], int, GenerationConfig], list[int]]


#: Yields (the newest tokens, the most proposals that are of use); first ([], 0) for the prompt. Gets (the
#: proposals, the logits of the last token and of each of them, the time at which their inference began).
DraftedSteps = Generator[
    tuple[list[int], int], tuple[Sequence[int], Iterable[np.ndarray], float], list[Answer]
]


def answer_drafted(
    prompt: Sequence[int], stops: Stops, writer: Writer, figures: Figures, drafts: Drafts
) -> DraftedSteps:
    """Generate one sequence. The model's own choices are compared with the tokens that `drafts` propose."""
    config, answer, most = stops.config, Answer([], matcher=stops.matcher), 0
    metrics = drafts.metrics
    sampler, newest = Sampler(config, prompt), list[int]()
    raw = metrics.main_model_metrics.raw_metrics
    while True:
        try:
            proposed, rows, start = yield newest, most
        except OutOfBlocks:
            end_early([answer], writer, even_none=not answer.tokens)
            break
        count = 0
        for row in rows:
            if not count:
                figures.end_inference()
            choices = sampler.choose(row, len(answer.tokens), matcher=answer.matcher)
            answer.take(choices[0], stops)
            count += 1
            if answer.finish is not None or count > len(proposed) or answer.tokens[-1] != proposed[count - 1]:
                break
        figures.end_step(count)
        raw.m_batch_sizes.append(count)
        raw.m_durations.append(now_us() - start)
        is_last = not find_running([answer], writer)
        if drafts.counts_last or not is_last:  # as in openvino_genai
            metrics._proposed += len(proposed)
            metrics._accepted += count - 1
        if is_last:
            break
        newest, most = answer.tokens[-count:], stops.most - len(answer.tokens) - 1
    figures.finish()
    metrics._input_tokens += len(prompt)
    for each in (metrics, metrics.main_model_metrics):
        each._generated_tokens += len(answer.tokens)
    if config.echo:
        answer.tokens = [*prompt, *answer.tokens]
    return [answer]


def begin_figures(drafts: Drafts, load_time: float) -> SDPerModelsPerfMetrics:
    """New figures of a generation with `drafts`. `load_time`: that of the pipeline."""
    drafts.metrics = metrics = SDPerModelsPerfMetrics()
    metrics._load_time = metrics.main_model_metrics._load_time = load_time
    return metrics


def sum_durations(metrics: SDPerModelsPerfMetrics) -> None:
    """Note the time of both models at the end of a generation."""
    for part in (metrics.main_model_metrics, metrics.draft_model_metrics):
        raw = part.raw_metrics
        raw.inference_durations.append(sum(raw.m_durations))
        raw.m_times_to_first_token += raw.m_durations[:1]


def run_drafted(
    decoder: Decoder, prompt: Sequence[int], steps: DraftedSteps, propose: Propose, config: GenerationConfig
) -> list[Answer]:
    """Compute the steps of one sequence."""
    tokens, proposed, start = list(prompt), list[int](), now_us()
    next(steps)
    decoder.reset()
    rows: Iterable[np.ndarray] = decoder.feed(prompt)[-1:]
    try:
        while True:
            newest, most = steps.send((proposed, rows, start))
            tokens += newest
            decoder.rewind(len(tokens) - 1)
            proposed = propose(tokens, most, config) if most > 0 else []
            if proposed:
                decoder.mark()
            start = now_us()
            rows = check_tokens(decoder, [tokens[-1], *proposed])
    except StopIteration as end:
        return end.value


def check_drafts(config: GenerationConfig, drafts: Drafts | None) -> None:
    """RuntimeError for a configuration that does not fit a pipeline with the `drafts`: a draft model, prompt
    lookup, or None."""
    if config.is_tree_search() and not (drafts and drafts.takes_trees):
        raise OvjitError("tree_depth needs a draft_model of EAGLE-3: leave it at 0")
    if config.assistant_confidence_threshold and drafts and drafts.name:
        raise OvjitError(
            f"{drafts.name} takes num_assistant_tokens: leave assistant_confidence_threshold at 0"
        )
    if drafts and drafts.looks_up and not config.is_prompt_lookup():
        raise OvjitError(
            "`max_ngram_size` && `num_assistant_tokens` should be specified for `prompt lookup decoding`"
        )
    if config.assistant_confidence_threshold and not (drafts and drafts.has_draft):
        raise OvjitError("assistant_confidence_threshold needs a pipeline with a draft_model")


def check_properties(properties: Mapping[str, Any]) -> None:
    """RuntimeError for properties of speculation that contradict each other."""
    if properties.get("draft_model") is not None and properties.get("prompt_lookup"):
        raise OvjitError("Speculative decoding and prompt lookup decoding are mutually exclusive")
    if not isinstance(properties.get("draft_model"), (Draft, type(None))):
        raise OvjitError("the property draft_model should be the result of draft_model(folder, device)")
