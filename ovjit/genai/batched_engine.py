"""The engine of an LLMPipeline whose SchedulerConfig changes what is computed: sparse attention and cache
eviction are those of ContinuousBatchingPipeline."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ovjit.api.model.model import Model
from ovjit.api.run.core import Core
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.answers import Answer, Steps
from ovjit.genai.batches import Batches, Request, paged_options
from ovjit.genai.blocks import RowInputs
from ovjit.genai.handles import GenerationHandle
from ovjit.genai.results import PerfMetrics
from ovjit.genai.scheduler import SchedulerConfig
from ovjit.generation.paged import PagedDecoder, read_folder


class BatchedEngine:
    """Runs requests one after another, each in the steps of `Batches`."""

    def __init__(self, model: Model, device: str, scheduler: SchedulerConfig, properties: dict[str, Any],
                 change: Callable[..., Collection[str]] | None, inputs: RowInputs | None = None
                 ):  # fmt: skip
        if device not in ("CPU", "AUTO"):
            raise UnsupportedError(
                f"sparse attention and cache eviction run on the device CPU, not on {device!r}"
            )
        decoder = PagedDecoder(model, paged_options(scheduler, properties, inputs), change=change)
        self._batches, self.requests = Batches(decoder, scheduler, inputs=inputs), decoder.requests
        self._is_embedded = inputs is not None

    @classmethod
    def load(cls, path: Path, *arguments: Any) -> BatchedEngine:
        """The decoder of a file, or of a folder with one."""
        return cls(read_folder(path) if path.is_dir() else Core().read_model(path), *arguments)

    def forget(self) -> None:
        """Compute common prefixes of prompts anew."""
        self._batches.drop_prefixes()

    def run(self, prompt: Any, steps: Steps) -> list[Answer]:
        """Compute the steps of one request. Returns its sequences. `prompt`: its tokens, or what a model that
        takes embeddings reads."""
        handle, embedded = GenerationHandle(self._batches.step, PerfMetrics()), None
        if self._is_embedded:
            embedded, prompt = prompt, prompt.tokens
        request = Request(0, prompt, steps, handle, embedded=embedded)
        self._batches.add(request)
        try:
            while request in self._batches.running:
                self._batches.step()
        except BaseException:
            if request in self._batches.running:
                self._batches.remove(request)
            raise
        if request.answers is None:
            raise OvjitError(
                "the cache has too few blocks for this request: raise num_kv_blocks or cache_size of "
                "scheduler_config"
            )
        return request.answers
