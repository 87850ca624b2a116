"""The engine of single requests that need what ContinuousBatchingPipeline has: sparse attention, cache
eviction, and prompt lookup of models that take pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ovjit.api.model.model import Model
from ovjit.api.run.core import Core
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.answers import Answer, Steps
from ovjit.genai.batches import Batches, Proposals, Request, paged_options
from ovjit.genai.blocks import RowInputs
from ovjit.genai.config import GenerationConfig
from ovjit.genai.drafts import DraftedRequest
from ovjit.genai.enums import GenerationStatus
from ovjit.genai.handles import GenerationHandle
from ovjit.genai.results import PerfMetrics
from ovjit.genai.scheduler import SchedulerConfig
from ovjit.genai.speculation import DraftedSteps
from ovjit.generation.paged import PagedDecoder, read_folder


def read_model(source: tuple[Any, ...]) -> Model:
    """The decoder of a path, which may be a folder, or of an IR's text and weights."""
    path = source[0]
    return read_folder(path) if isinstance(path, Path) and path.is_dir() else Core().read_model(*source)


class BatchedEngine:
    """Runs requests one after another, each in the steps of `Batches`."""

    def __init__(self, model: Model, device: str, scheduler: SchedulerConfig, properties: dict[str, Any],
                 change: Callable[..., Collection[str]] | None, inputs: RowInputs | None = None,
                 proposer: Proposals | None = None):  # fmt: skip
        if device not in ("CPU", "AUTO"):
            raise UnsupportedError(
                "sparse attention, cache eviction, EAGLE-3 and prompt lookup of pictures run on the CPU, not "
                f"on {device!r}"
            )
        options = paged_options(scheduler, properties, inputs, proposer)
        decoder = PagedDecoder(model, options, change=change)
        self._batches, self.requests = Batches(decoder, scheduler, proposer, inputs), decoder.requests
        self._is_embedded = inputs is not None

    def forget(self) -> None:
        """Compute common prefixes of prompts anew."""
        self._batches.drop_prefixes()

    def run(self, prompt: Any, steps: Steps) -> list[Answer]:
        """Compute the steps of one request. Returns its sequences. `prompt`: its tokens, or what a model that
        takes embeddings reads."""
        tokens, embedded = self._split(prompt)
        handle = GenerationHandle(self._batches.step, PerfMetrics())
        return self._complete(Request(0, tokens, steps, handle, embedded=embedded))

    def _split(self, prompt: Any) -> tuple[list[int], Any]:
        """The tokens of a prompt, and its embeddings, None for a model that takes tokens."""
        return (prompt.tokens, prompt) if self._is_embedded else (prompt, None)

    def run_drafted(self, prompt: Any, steps: DraftedSteps, config: GenerationConfig) -> list[Answer]:
        """Compute the steps of one sequence, whose tokens are proposed."""
        tokens, embedded = self._split(prompt)
        handle = GenerationHandle(self._batches.step, PerfMetrics())
        return self._complete(DraftedRequest(0, tokens, steps, handle, None, config, embedded))

    def _complete(self, request: Request) -> list[Answer]:
        self._batches.add(request)
        try:
            while request in self._batches.running:
                self._batches.step()
        except BaseException:
            if request in self._batches.running:
                self._batches.remove(request)
            raise
        if request.answers is None or request.handle.get_status() is GenerationStatus.IGNORED:
            raise OvjitError(
                "the cache has too few blocks for this request: raise num_kv_blocks or cache_size of "
                "scheduler_config"
            )
        return request.answers
