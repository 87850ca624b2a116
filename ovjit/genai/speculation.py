"""Speculation: a smaller model, or the prompt itself, proposes tokens that the model checks in one inference.
The texts are those without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.answers import Answer, Writer, find_running
from ovjit.genai.config import GenerationConfig
from ovjit.genai.figures import Figures, now_us
from ovjit.genai.results import ExtendedPerfMetrics, MeanStdPair
from ovjit.genai.sampler import Sampler
from ovjit.genai.stops import Stops
from ovjit.generation.decoder import Decoder
from ovjit.generation.speculative import check_tokens, follow_ngram, rewind_to_common

#: Tokens that a draft model proposes if neither their number nor a threshold is set.
_PROPOSED = 5


class SDPerfMetrics(ExtendedPerfMetrics):
    """Figures of one of the models of speculative decoding."""

    def get_ttst(self) -> MeanStdPair:
        """Milliseconds to the second token."""
        return MeanStdPair.of(self.raw_metrics.m_durations[:1], 1000.0)

    def get_latency(self) -> MeanStdPair:
        """Milliseconds of an inference, from the third on."""
        return MeanStdPair.of(self.raw_metrics.token_infer_durations[2:], 1000.0)


class SDPerModelsPerfMetrics(SDPerfMetrics):
    """Figures of speculative decoding, and those of both models."""

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
        return Proposer(Decoder.load(self.path, self.device or device, self.properties))


def draft_model(models_path: Any, device: str = "", **kwargs: Any) -> Draft:
    """A draft model for the property `draft_model` of LLMPipeline. `kwargs`: properties of its device."""
    if not isinstance(models_path, (str, bytes, os.PathLike)) or not isinstance(device, str):
        raise TypeError("draft_model(): models_path should be the path of a folder, and device a str")
    path = Path(os.fsdecode(models_path))
    if not path.exists():
        raise OvjitError(f"the draft model {str(path)!r} does not exist")
    return Draft(path, device, kwargs)


class Proposer:
    """A smaller decoder that proposes its most likely tokens, one after another."""

    def __init__(self, decoder: Decoder):
        self._decoder = decoder
        self._tokens: list[int] = []
        self.metrics = SDPerModelsPerfMetrics()

    def propose(self, tokens: Sequence[int], most: int, config: GenerationConfig) -> list[int]:
        """At most `most` tokens that follow. With `assistant_confidence_threshold`, the last one is the first
        whose probability is not above it."""
        if not config.assistant_confidence_threshold:
            most = min(most, config.num_assistant_tokens or _PROPOSED)
        rewind_to_common(self._decoder, self._tokens, tokens)
        proposed, pending = list[int](), list(tokens[self._decoder.length :])
        while len(proposed) < most:
            logits = self._feed(pending, is_prompt=not proposed and len(pending) > most + 2)
            token = int(logits.argmax())
            proposed.append(token)
            if config.assistant_confidence_threshold:
                weights = np.exp(logits - logits.max())
                if weights[token] / weights.sum() <= config.assistant_confidence_threshold:
                    break
            pending = [token]
        self._tokens = [*tokens, *proposed[:-1]]
        return proposed

    def _feed(self, tokens: list[int], is_prompt: bool) -> np.ndarray:
        start = now_us()
        logits = self._decoder.feed(tokens)[-1]
        raw = self.metrics.draft_model_metrics.raw_metrics
        raw.m_durations.append(now_us() - start)
        raw.token_infer_durations.append(raw.m_durations[-1])
        raw.m_batch_sizes.append(len(tokens))
        self.metrics._processed += 0 if is_prompt else len(tokens)
        self.metrics.draft_model_metrics._generated_tokens += 1
        return logits


def look_up(tokens: Sequence[int], most: int, config: GenerationConfig) -> list[int]:
    """The tokens behind the first earlier occurrence of the last ones: of `max_ngram_size`, or of fewer."""
    return follow_ngram(tokens, config.max_ngram_size, min(most, config.num_assistant_tokens or 0), 0)


#: Proposes at most so many tokens that follow.
Propose = Callable[[Sequence[int], int, GenerationConfig], list[int]]


def answer_with_drafts(
    decoder: Decoder, prompt: Sequence[int], stops: Stops, writer: Writer, figures: Figures, propose: Propose,
    metrics: SDPerModelsPerfMetrics,
) -> list[Answer]:  # fmt: skip
    """Generate one sequence. The model's own choices are compared with the proposed tokens."""
    config, answer, start = stops.config, Answer([], matcher=stops.matcher), now_us()
    sampler, proposed = Sampler(config, prompt), list[int]()
    raw = metrics.main_model_metrics.raw_metrics
    decoder.reset()
    rows: Any = decoder.feed(prompt)[-1:]
    while True:
        count = 0
        for i, row in enumerate(rows):
            if not i:
                figures.end_inference()
            choices = sampler.choose(row, len(answer.tokens), matcher=answer.matcher)
            answer.take(choices[0], stops)
            count += 1
            if answer.finish is not None or i >= len(proposed) or answer.tokens[-1] != proposed[i]:
                break
        figures.end_step(count)
        metrics._proposed += len(proposed)
        metrics._accepted += count - 1
        raw.m_batch_sizes.append(count)
        raw.m_durations.append(now_us() - start)
        if not find_running([answer], writer):
            break
        most = stops.most - len(answer.tokens) - 1
        tokens = [*prompt, *answer.tokens]
        decoder.rewind(len(tokens) - 1)
        proposed = propose(tokens, most, config) if most > 0 else []
        if proposed:
            decoder.mark()
        start = now_us()
        rows = check_tokens(decoder, [tokens[-1], *proposed])
    figures.finish()
    for part in (metrics.main_model_metrics, metrics.draft_model_metrics):
        part.raw_metrics.inference_durations.append(sum(part.raw_metrics.m_durations))
    metrics.main_model_metrics._generated_tokens += len(answer.tokens)
    return [answer]
