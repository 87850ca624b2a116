"""The memory layout of the caches of paged attention.

A cache is [blocks, heads, tokens of a block, elements of a token]. Numbers of 8 and 4 bits are quantised:
x ~ scale * (number - zero). Scales and zeros are f32, in the block itself:

    keys     for each channel:  scales [size], zeros [size], then a row of numbers for each token
    values   for each token:    scale and zero of each group, then the numbers

So the port of u8 keys has `HEAD` more rows, and that of u8 values has `HEAD` more elements for each group.
A byte of two 4-bit numbers has the even one in its high bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.records import NamedTuple

#: Bytes of a scale and a zero.
HEAD = 8
#: Tokens of a block, if the model does not fix them.
BLOCK = 32
#: Smallest scale: relative to the magnitude of the numbers, and absolute.
FLAT, LEAST = 2.0**-20, 1e-30
#: The largest numbers.
TOP = {"u8": 255, "u4": 15}


class CacheKind(NamedTuple):
    """One cache. `kind`: the element type. `tokens`: those of a block. `size`: numbers of a token. `group`:
    numbers that share a scale, 0 for all of a token. `by_channel`: a scale is shared by a channel's numbers
    in a block instead."""

    kind: str
    heads: int
    tokens: int
    size: int
    group: int = 0
    by_channel: bool = False

    @property
    def bits(self) -> int:
        """Bits of an element."""
        return {"f32": 32, "u8": 8, "u4": 4}.get(self.kind, 16)

    @property
    def packed(self) -> bool:
        """Whether there are scales and zeros."""
        return self.kind in TOP

    @property
    def groups(self) -> int:
        """Scales of a token, unless they are those of channels."""
        return self.size // self.group if self.group else 1

    @property
    def row(self) -> int:
        """Bytes of a token."""
        head = HEAD * self.groups if self.packed and not self.by_channel else 0
        return head + self.size * self.bits // 8

    @property
    def bytes(self) -> int:
        """Bytes of a block of one head."""
        head = HEAD * self.size if self.packed and self.by_channel else 0
        return head + self.tokens * self.row

    @property
    def port(self) -> tuple[int, int]:
        """The last two dimensions of the port."""
        if not self.packed:
            return self.tokens, self.size
        more = HEAD * 8 // self.bits
        if self.by_channel:
            return self.tokens + more, self.size
        return self.tokens, self.size + more * self.groups

    @property
    def array_layout(self) -> tuple[str, tuple[int, int]]:
        """Element type and last two dimensions of the arrays that kernels take. 4-bit numbers are passed as
        bytes."""
        rows, size = self.port
        return ("u8", (rows, size * self.bits // 8)) if self.kind == "u4" else (self.kind, (rows, size))


#: The inputs of `PagedAttention`.
INPUTS = (
    "query", "key", "value", "key_cache", "value_cache", "past_lens", "subsequence_begins", "block_indices",
    "block_indices_begins", "scale", "window", "alibi_slopes", "max_context_len", "score_aggregation_window",
    "rotated_block_indices", "rotation_deltas", "rotation_trig_lut", "xattention_threshold",
    "xattention_block_size", "xattention_stride", "sinks", "adaptive_rkv_start_size",
    "adaptive_rkv_evictable_sizes", "adaptive_rkv_diversity_block_set_indices",
    "adaptive_rkv_diversity_block_set_indices_begins", "token_type_ids", "qq_bias", "qq_bias_begins", "table",
)  # fmt: skip


def kinds_of(attrs: Mapping[str, Any]) -> tuple[CacheKind, CacheKind]:
    """The layouts of the caches of keys and of values."""
    heads, block = attrs["heads"], attrs["block"]
    keys = CacheKind(attrs["keys"], heads, block, attrs["size"], 0, True)
    return keys, CacheKind(attrs["values"], heads, block, attrs["value_size"], attrs["group"])
