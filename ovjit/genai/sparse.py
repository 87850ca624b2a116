"""Sparse attention of prompts: chunks of a long prompt attend to a part of the earlier tokens."""

from __future__ import annotations

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.blocks import Row
from ovjit.genai.enums import SparseAttentionMode
from ovjit.genai.scheduler import SchedulerConfig

#: A threshold of XATTENTION that no blocks reach: all are attended to.
_ALL = 2.0


class SparseAttention:
    """Chooses the blocks that the tokens of a step attend to. TRISHAPE: all but the last chunks of a prompt
    skip the blocks between the first and the most recent ones. XATTENTION: the decoder estimates which blocks
    of a whole prompt matter. RuntimeError for sizes that are not multiples of a block's tokens."""

    def __init__(self, config: SchedulerConfig, block: int, layers: int):
        self._config, self._block, self._layers = config.sparse_attention_config, block, layers
        self._mode = self._config.mode if config.use_sparse_attention else None
        if self._mode is SparseAttentionMode.XATTENTION:
            self._check_xattention()
        if self._mode is not SparseAttentionMode.TRISHAPE:
            return
        for name in ("num_retained_start_tokens_in_cache", "num_retained_recent_tokens_in_cache"):
            if getattr(self._config, name) % block:
                raise OvjitError(
                    f"{name} ({getattr(self._config, name)}) must be a multiple of block size {block}"
                )

    def _check_xattention(self) -> None:
        size, stride = self._config.xattention_block_size, self._config.xattention_stride
        if not size or size % self._block or not stride or size % stride:
            raise OvjitError(
                f"xattention_block_size ({size}) must be a multiple of block size {self._block} and of "
                f"xattention_stride ({stride})"
            )

    def find_skipped(self, row: Row, count: int, prompt: int) -> range:
        """The blocks that the next `count` tokens of a row, with a prompt of `prompt` tokens, skip."""
        if self._mode is not SparseAttentionMode.TRISHAPE:
            return range(0)
        sparse, size = self._config, self._block
        first = sparse.num_retained_start_tokens_in_cache // size
        stop = row.cache_length // size - sparse.num_retained_recent_tokens_in_cache // size
        is_dense = prompt - row.length - count < sparse.num_last_dense_tokens_in_prefill
        return range(0) if is_dense or stop <= first else range(first, stop)

    def inputs(self, steps: list[tuple[Row, int, int]]) -> dict[str, np.ndarray]:
        """Inputs of the decoder for a batch of (row, number of its next tokens, that of its prompt)."""
        if self._mode is not SparseAttentionMode.XATTENTION:
            return {}
        sparse, thresholds = self._config, np.full(len(steps), _ALL, np.float32)
        for i, (row, count, prompt) in enumerate(steps):
            following = prompt - row.length - count
            if following <= 0 or following >= sparse.num_last_dense_tokens_in_prefill:
                thresholds[i] = sparse.xattention_threshold
        sizes = {
            f"xattention_{name}": np.array(getattr(sparse, f"xattention_{name}"), np.int32)
            for name in ("block_size", "stride")
        }
        return {**sizes, **{f"xattention_threshold.{i}": thresholds for i in range(self._layers)}}
