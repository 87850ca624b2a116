"""Runs the requests of a ContinuousBatchingPipeline in common batches of tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.adapters import AdapterConfig, AdapterController, apply_adapters
from ovjit.genai.answers import Answer, Steps
from ovjit.genai.blocks import BlockPool, Row, RowInputs
from ovjit.genai.enums import GenerationStatus, SparseAttentionMode
from ovjit.genai.eviction import Eviction
from ovjit.genai.handles import GenerationHandle, HandleWriter, PipelineMetrics
from ovjit.genai.sampler import log_sum
from ovjit.genai.scheduler import SchedulerConfig
from ovjit.genai.sparse import SparseAttention
from ovjit.genai.speculation import Drafts
from ovjit.genai.stops import OutOfBlocks
from ovjit.generation.paged import Options, PagedDecoder

#: Steps whose use of the cache is averaged.
_AVERAGED = 1000


class Request:
    """A request: its sequences in the cache, and the steps that choose their tokens. `writer` gives the
    sequences to the handle at the end. `embedded`: a prompt of a model that takes embeddings."""

    def __init__(self, number: int, prompt: Sequence[int], steps: Steps, handle: GenerationHandle,
                 writer: HandleWriter | None = None, embedded: Any = None):  # fmt: skip
        self.number, self.prompt, self.handle = number, prompt, handle
        self.writer, self._steps = writer, steps
        self.rows = [Row(prompt, embedded)]
        self.answers: list[Answer] | None = None
        #: The log-probabilities of the prompt's tokens that are computed, None if they are not asked for.
        self.prompt_logs: list[float] | None = None
        self._logits: dict[int, np.ndarray] = {}
        self._is_started = False

    @property
    def reads_prompt(self) -> bool:
        """True if tokens without a choice are to be computed: of a prompt, or once more."""
        return any(row.remaining > row.logit_count for row in self.rows)

    def advance(self, pool: BlockPool) -> None:
        """Choose the tokens of the next step, or finish."""
        try:
            if self._is_started:
                logits = [self._logits[i] for i in range(len(self.rows))]
                rows, tokens = self._steps.send(np.stack(logits) if len(logits) > 1 else logits[0][None])
            else:
                self._is_started = True
                next(self._steps)
                return
        except StopIteration as end:
            self.end(end.value)
            return
        self._logits = {}
        if rows != list(range(len(self.rows))):
            before, self.rows = self.rows, [pool.fork(self.rows[i]) for i in rows]
            for row in before:
                pool.release(row)
        for row, token in zip(self.rows, tokens, strict=True):
            row.tokens.append(token)

    def end(self, answers: list[Answer]) -> None:
        """Pass the sequences to the handle, after the last step."""
        self.answers = answers
        if self.writer is not None:
            self.writer.finish(answers)
        if self.handle._status is GenerationStatus.RUNNING:
            self.handle._status = GenerationStatus.FINISHED

    def end_without_blocks(self) -> None:
        """Pass the incomplete sequences to the handle: the cache has no room for their next tokens."""
        self.handle._status = GenerationStatus.IGNORED
        try:
            self._steps.throw(OutOfBlocks())
        except OutOfBlocks:
            pass
        except StopIteration as end:
            self.end(end.value)

    def take(self, row: Row, logits: np.ndarray) -> bool:
        """Store the logits [count, words] of a row's last tokens. True once those of all rows are stored. The
        arrays are overwritten by the decoder's next call."""
        self._logits[next(i for i, each in enumerate(self.rows) if each is row)] = logits[-1]
        return len(self._logits) == len(self.rows)

    def own_logits(self) -> None:
        """Copy the stored logits, since the request waits for those of other rows."""
        self._logits = {i: np.array(values) for i, values in self._logits.items()}

    def close(self, pool: BlockPool) -> None:
        """Release all blocks."""
        for row in self.rows:
            pool.keep_prefix(row)
            pool.release(row)
        self._steps.close()


class Proposals(Drafts):
    """Suggests tokens that requests may choose next. `outputs`: names of those that the model has for it."""

    outputs: tuple[str, ...] = ()

    def propose(self, requests: Sequence[Request], most: int) -> None:
        """Suggest at most `most` tokens to each request that can use some."""

    def note(self, pool: BlockPool, rows: Sequence[Row], counts: Sequence[int]) -> None:
        """Take what the model has computed for the last `counts` tokens of rows."""

    def release(self, request: Request) -> None:
        """Forget a request that has ended."""


def paged_options(
    config: SchedulerConfig, properties: Mapping[str, Any], inputs: RowInputs | None = None,
    proposals: Proposals | None = None,
) -> Options:  # fmt: skip
    """The options of a decoder for `Batches` with this configuration, these inputs and proposals."""
    evicts = config.use_cache_eviction
    mode = config.sparse_attention_config.mode if config.use_sparse_attention else None
    return Options(
        kv_cache="", properties=properties, scores=evicts,
        rotation=evicts and config.cache_eviction_config.apply_rotation,
        xattention=mode is SparseAttentionMode.XATTENTION, inputs=() if inputs is None else inputs.names,
        outputs=() if proposals is None else proposals.outputs, defers=True, exact=False, states=True,
    )  # fmt: skip


class Batches:
    """Requests that run together. A step computes tokens of sequences that generate, and parts of prompts,
    up to `max_num_batched_tokens`; without `dynamic_split_fuse`, whole prompts or sequences that generate. If
    there are no free blocks, the request that came last gives its own back and is computed again later."""

    def __init__(self, decoder: PagedDecoder, config: SchedulerConfig, proposals: Proposals | None = None,
                 inputs: RowInputs | None = None):  # fmt: skip
        if not config.dynamic_split_fuse and config.max_num_seqs > config.max_num_batched_tokens:
            raise OvjitError(
                f"Max num batched tokens ({config.max_num_batched_tokens}) must be greater or equal to max "
                f"num sequences ({config.max_num_seqs}) without dynamic_split_fuse"
            )
        self._decoder, self._config, self._proposals = decoder, config, proposals
        self._pool = BlockPool(decoder, config, inputs)
        self._sparse = SparseAttention(config, decoder.block, len(decoder.layers))
        self._eviction: Eviction | None = None
        if config.use_cache_eviction:
            if proposals is not None:
                raise UnsupportedError(
                    "ovjit does not support cache eviction with draft_model and prompt_lookup"
                )
            self._eviction = Eviction(self._pool, config.cache_eviction_config)
        self.running: list[Request] = []
        self._usage: deque[float] = deque(maxlen=_AVERAGED)
        self.metrics = PipelineMetrics()

    def add(self, request: Request) -> None:
        """Run a request from the next step on."""
        request.advance(self._pool)
        if request.answers is None:
            self.running.append(request)

    def remove(self, request: Request) -> None:
        """End a request that runs."""
        self.running.remove(request)
        request.close(self._pool)
        if self._proposals is not None:
            self._proposals.release(request)

    def apply(self, adapters: AdapterController | None, config: AdapterConfig | None) -> None:
        """Set the adapters of the next requests. RuntimeError for others than those of requests that run."""
        if self.running and adapters is not None and not adapters.is_current(config):
            raise OvjitError("LoRA adapters value must be the same for all requests")
        if apply_adapters(adapters, self._decoder.requests, config):
            self.drop_prefixes()

    def drop_prefixes(self) -> None:
        """Forget all prefixes of prompts."""
        self._pool.drop_prefixes()

    def step(self) -> None:
        """Compute a batch, and choose the tokens of the sequences whose logits it gave."""
        requests = len(self.running)
        for request in list(self.running):
            if request.handle._status is not GenerationStatus.RUNNING:
                self.remove(request)
        if self._proposals is not None:
            self._proposals.propose(self.running, self._config.max_num_batched_tokens - 1)
        if self._eviction is not None:
            for request in self.running:
                for row in request.rows:
                    # a row that waits for others of its request may be forked before its next step
                    if row.length > len(request.prompt) and row.remaining:
                        self._eviction.evict(row)
        batch = self._schedule()
        if batch:
            try:
                self._compute(batch)
            except BaseException:
                for request, row, _ in batch:  # rows that wait for a choice that does not come
                    if request in self.running and not row.remaining:
                        self._preempt(request, [])
                raise
        self._measure(requests, len({id(request) for request, _, _ in batch}))
        for request in list(self.running):
            if request.handle._status is not GenerationStatus.RUNNING or request.answers is not None:
                self.remove(request)

    def _schedule(self) -> list[tuple[Request, Row, int]]:
        """(request, row, number of its next tokens) of a batch."""
        generating = [request for request in self.running if not request.reads_prompt]
        prompts = [request for request in self.running if request.reads_prompt]
        if self._config.dynamic_split_fuse:
            return self._schedule_some([*generating, *prompts])
        some = prompts[: max(self._config.max_num_seqs - len(generating), 0)]
        return self._schedule_some(some) or self._schedule_some(generating)

    def _schedule_some(self, requests: list[Request]) -> list[tuple[Request, Row, int]]:
        config, batch = self._config, list[tuple[Request, Row, int]]()
        budget = config.max_num_batched_tokens
        for request in requests:
            if request.handle._status is not GenerationStatus.RUNNING:
                continue
            if budget <= 0:
                break
            count = self._schedule_request(request, budget, batch)
            if not count and not config.dynamic_split_fuse:
                break  # prompts are not overtaken
            budget -= count
        return batch

    def _schedule_request(self, request: Request, budget: int, batch: list[tuple[Request, Row, int]]) -> int:
        """Add the next tokens of a request to the batch. Returns their number."""
        total = 0
        for row in request.rows:
            if not row.blocks and row.remaining > row.logit_count and request.prompt_logs is None:
                self._pool.find_prefix(row)
            count = row.remaining
            if self._config.dynamic_split_fuse:
                count = min(count, budget - total)
                if row.remaining - row.logit_count < count < row.remaining:  # logits come from one batch
                    count = row.remaining - row.logit_count
            elif count > budget - total and batch:
                count = 0
            if (count == 0 and row.remaining) or not self._reserve(request, row, count, batch):
                break
            if count:
                batch.append((request, row, count))
                total += count
        return total

    def _reserve(self, request: Request, row: Row, count: int, batch: list[tuple[Request, Row, int]]) -> bool:
        """Blocks for tokens of a row, if need be those of requests that came later. False if it must wait, or
        cannot go on at all."""
        while not self._pool.reserve(row, count):
            others = [r for r in self.running if r is not request and any(each.blocks for each in r.rows)]
            later = self.running[self.running.index(request) + 1 :]
            victim = next((r for r in reversed(later) if r in others), None)
            if victim is None:
                if not others:
                    request.end_without_blocks()
                else:
                    self._preempt(request, batch)
                return False
            self._preempt(victim, batch)
        return True

    def _preempt(self, request: Request, batch: list[tuple[Request, Row, int]]) -> None:
        """Take a request out of the batch, and its blocks. Its tokens are computed again later."""
        batch[:] = [entry for entry in batch if entry[0] is not request]
        for row in request.rows:
            self._pool.release(row)
        request._logits.clear()

    def _compute(self, batch: list[tuple[Request, Row, int]]) -> None:
        rows, counts = [row for _, row, _ in batch], [count for _, _, count in batch]
        hidden = self._compute_hidden(batch)
        self._add_prompt_logs(batch, hidden)
        full = [i for i, row in enumerate(rows) if not row.remaining]
        if not full:
            return
        ends = np.cumsum(counts)
        indices = [k for i in full for k in range(ends[i] - rows[i].logit_count, ends[i])]
        logits = np.asarray(self._decoder.logits(hidden[indices]), np.float32)
        ready, begin = [], 0
        for i in full:
            request, row, count = batch[i]
            if count > row.logit_count:
                self._pool.keep_prefix(row)
            end = begin + row.logit_count
            if request.take(row, logits[begin:end]):
                ready.append(request)
            begin = end
        self._advance(ready)
        for i in full:
            batch[i][0].own_logits()

    def _add_prompt_logs(self, batch: list[tuple[Request, Row, int]], hidden: np.ndarray) -> None:
        """Take the log-probabilities of the prompts' tokens that follow those of a batch."""
        end = 0
        for request, row, count in batch:
            end += count
            begin = row.length - count
            following = request.prompt[begin + 1 : row.length + 1]
            if request.prompt_logs is not None and following:
                logits = self._decoder.logits(hidden[end - count :][: len(following)])
                logs = [float(each[t] - log_sum(each)) for each, t in zip(logits, following, strict=True)]
                request.prompt_logs[begin + 1 : row.length + 1] = logs

    def _compute_hidden(self, batch: list[tuple[Request, Row, int]]) -> np.ndarray:
        """The hidden states of a batch. Scores of rows that have skipped blocks are not taken."""
        steps = [(row, count, len(request.prompt)) for request, row, count in batch]
        rows, counts = [row for row, _, _ in steps], [count for _, count, _ in steps]
        ranges = {i: self._sparse.find_skipped(*step) for i, step in enumerate(steps)}
        skipped = {i: blocks for i, blocks in ranges.items() if blocks}
        more, eviction = self._sparse.inputs(steps), self._eviction
        if eviction is None:
            hidden = self._pool.compute(rows, counts, skipped, more)
            if self._proposals is not None:
                self._proposals.note(self._pool, rows, counts)
            return hidden
        queries = [eviction.count_queries(*step) for step in steps]
        more |= eviction.inputs(rows, queries)
        hidden = self._pool.compute(rows, counts, skipped, more)
        eviction.update(rows, queries, skipped)
        return hidden

    def _advance(self, requests: Sequence[Request]) -> None:
        """Choose the next tokens of requests. One that fails ends; the others take theirs before the first
        error is raised, since their logits are not computed again."""
        errors = []
        for request in requests:
            try:
                request.advance(self._pool)
            except BaseException as error:
                self.remove(request)
                request.handle._status = GenerationStatus.CANCEL
                errors.append(error)
        if errors:
            raise errors[0]

    def _measure(self, requests: int, scheduled: int) -> None:
        self._usage.append(100.0 * self._pool.count / self._decoder.blocks)
        metrics, usage = self.metrics, self._usage[-1]
        metrics.requests, metrics.scheduled_requests, metrics.cache_usage = requests, scheduled, usage
        metrics.max_cache_usage = max(metrics.max_cache_usage, usage)
        metrics.avg_cache_usage = sum(self._usage) / len(self._usage)
        metrics.cache_size_in_bytes = self._decoder.blocks * sum(self._decoder.layer_bytes)
        metrics.kv_cache_size_in_bytes = metrics.cache_size_in_bytes
