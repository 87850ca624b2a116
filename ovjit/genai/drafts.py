"""Speculation in common batches: requests whose next tokens are proposed, by a draft model or by look-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.genai.adapters import AdapterConfig
from ovjit.genai.batches import Proposals, Request
from ovjit.genai.blocks import NO_INPUTS, BlockPool, Row, RowInputs
from ovjit.genai.config import GenerationConfig
from ovjit.genai.figures import now_us
from ovjit.genai.handles import GenerationHandle, HandleWriter
from ovjit.genai.scheduler import SchedulerConfig
from ovjit.genai.speculation import Draft, DraftedSteps, apply_to_draft, is_unsure, limit_proposals, look_up
from ovjit.generation.paged import Options, PagedDecoder, read_folder
from ovjit.generation.speculative import count_common


class DraftedRequest(Request):
    """A request of one sequence. Its row ends with the proposed tokens until the model has checked them."""

    def __init__(self, number: int, prompt: Sequence[int], steps: DraftedSteps, handle: GenerationHandle,
                 writer: HandleWriter | None, config: GenerationConfig, embedded: Any = None):  # fmt: skip
        super().__init__(number, prompt, steps, handle, writer, embedded)  # type: ignore[arg-type]
        self.config, self._drafted_steps = config, steps
        #: The most further proposals that are of use.
        self.most = 0
        self._proposed: Sequence[int] = ()
        self._checked: np.ndarray | None = None
        self._start_us = now_us()

    @property
    def row(self) -> Row:
        return self.rows[0]

    def suggest(self, tokens: Sequence[int]) -> None:
        """Append proposed tokens, to be checked in the next step."""
        self._proposed, self.row.logit_count, self.most = tokens, 1 + len(tokens), 0
        self.row.tokens += tokens
        self._start_us = now_us()

    def take(self, row: Row, logits: np.ndarray) -> bool:
        self._checked = logits
        return True

    def advance(self, pool: BlockPool) -> None:
        if self._checked is None:
            next(self._drafted_steps)
            return
        row, proposed = self.row, self._proposed
        del row.tokens[len(row.tokens) - len(proposed) :]
        row.length, row.logit_count, self._proposed = len(row.tokens), 1, ()
        try:
            newest, self.most = self._drafted_steps.send((proposed, self._checked, self._start_us))
        except StopIteration as end:
            self.end(end.value)
            return
        row.tokens += newest
        row.length = len(row.tokens) - 1
        self._start_us = now_us()


class LookupProposer(Proposals):
    """Proposes the tokens that followed the last ones earlier in the same sequence."""

    looks_up = True

    def propose(self, requests: Sequence[Request], most: int) -> None:
        for request in requests:
            if isinstance(request, DraftedRequest) and request.most > 0:
                limit = min(request.most, most)
                request.suggest(look_up(request.row.tokens, limit, request.config))


class DraftProposer(Proposals):
    """A smaller decoder that proposes its most likely tokens, for all requests in common batches. `rows`: its
    inputs if it takes embeddings. `options`: those of the decoder that a subclass changes."""

    has_draft = True
    #: Tokens at the begin of a sequence that the decoder does not read.
    _skipped = 0

    def __init__(
        self, draft: Draft, model: Model | None = None, rows: RowInputs | None = None, **options: Any
    ):  # fmt: skip
        super().__init__()
        self._adapters, properties = draft.split_properties()
        change = None if self._adapters is None else self._adapters.insert
        options = {"defers": True, **options, "exact": False, "states": True, "kv_cache": ""}
        model = read_folder(draft.path) if model is None else model
        self._decoder = PagedDecoder(model, Options(properties=properties, **options), change=change)
        self._pool = BlockPool(self._decoder, SchedulerConfig(), rows)
        self._rows: dict[int, Row] = {}

    def apply(self, adapters: AdapterConfig | None, default: AdapterConfig | None) -> None:
        apply_to_draft(self._adapters, self._decoder.requests, adapters, default)

    def propose(self, requests: Sequence[Request], most: int) -> None:
        asking = [r for r in requests if isinstance(r, DraftedRequest) and r.most > 0]
        limits = {id(r): limit_proposals(min(r.most, most), r.config) for r in asking}
        for request in asking:
            self._rewind(request)
        running = [request for request in asking if limits[id(request)] > 0]
        while running:
            logits, following = self._compute(running), []
            for request, values in zip(running, logits, strict=True):
                row = self._rows[id(request)]
                row.tokens.append(self._choose(values))
                count = len(row.tokens) + self._skipped - len(request.row.tokens)
                if count < limits[id(request)] and not is_unsure(values, request.config):
                    following.append(request)
            running = following
        for request in asking:
            request.suggest(self._rows[id(request)].tokens[len(request.row.tokens) - self._skipped :])

    def _choose(self, logits: np.ndarray) -> int:
        """The most likely token."""
        return int(logits.argmax())

    def _begin(self, request: DraftedRequest) -> Row:
        """The row of a new request."""
        return Row([])

    def _rewind(self, request: DraftedRequest) -> None:
        """Truncate a request's row to the common prefix with the sequence, without its last token."""
        row = self._rows.get(id(request))
        if row is None:
            self._rows[id(request)] = row = self._begin(request)
            self.metrics._processed -= len(request.prompt)  # they are not counted
        tokens = request.row.tokens[self._skipped :]
        self._pool.rewind(row, count_common(row.tokens, tokens[:-1]))
        row.fewest = row.length
        row.tokens = tokens

    def _compute(self, requests: Sequence[DraftedRequest],
                 more: Mapping[str, np.ndarray] = NO_INPUTS) -> np.ndarray:  # fmt: skip
        """The logits [requests, words] of the last tokens. `more`: further inputs."""
        start, rows = now_us(), [self._rows[id(request)] for request in requests]
        counts = [row.remaining for row in rows]
        for row, count in zip(rows, counts, strict=True):
            self._pool.reserve(row, count)
        hidden = self._pool.compute(rows, counts, more=more)
        logits = np.array(self._decoder.logits(hidden[np.cumsum(counts) - 1]), np.float32)
        self.metrics._add_draft_inference(start, sum(counts), len(rows))
        self.metrics._processed += sum(counts)
        return logits

    def release(self, request: Request) -> None:
        row = self._rows.pop(id(request), None)
        if row is not None:
            self._pool.release(row)
