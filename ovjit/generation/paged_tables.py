"""The inputs of a paged decoder that describe a batch."""

from __future__ import annotations

import numpy as np

from ovjit.records import NamedTuple


class Tables(NamedTuple):
    """The inputs that all layers share, all i32.

    In order: tokens of each sequence in the cache; the start of each one's new tokens, [sequences + 1]; the
    blocks of all sequences, concatenated; the start of each one's blocks; the length of the longest sequence.
    """

    past_lens: np.ndarray
    subsequence_begins: np.ndarray
    block_indices: np.ndarray
    block_indices_begins: np.ndarray
    max_context_len: np.ndarray


#: The largest number in a table.
_MOST = (1 << 31) - 1


def tables_of(begins: np.ndarray, lengths: np.ndarray, blocks: np.ndarray, block: int) -> Tables:
    """The tables for starts of new tokens [sequences + 1], lengths including the new tokens [sequences], and
    a table of blocks [sequences, maximum]. Only blocks that a sequence needs are read. `block`: tokens of a
    block.

    Raises ValueError if the table has fewer columns than a sequence needs, a length is less than its number
    of new tokens, or the arrays do not fit each other.
    """
    begins, lengths, blocks = np.asarray(begins), np.asarray(lengths), np.asarray(blocks)
    if (begins.ndim, lengths.ndim, blocks.ndim) != (1, 1, 2) or len(begins) != len(lengths) + 1:
        raise ValueError(
            f"starts, lengths and blocks have the shapes {begins.shape}, {lengths.shape} and "
            f"{blocks.shape}; [n + 1], [n] and [n, m] are expected"
        )
    if len(blocks) < len(lengths) or any(a.dtype.kind not in "iu" for a in (begins, lengths, blocks)):
        raise ValueError(
            "starts, lengths and blocks should be integers, a row for each sequence: shapes "
            f"{begins.shape}, {lengths.shape} and {blocks.shape}"
        )
    for name, array in (("starts", begins), ("lengths", lengths)):
        if array.size and not (0 <= array.min() and array.max() <= _MOST):
            raise ValueError(f"{name} {array.tolist()} should be between 0 and {_MOST}")
    begins, lengths = begins.astype(np.int32), lengths.astype(np.int32)
    past = lengths - (begins[1:] - begins[:-1])
    needed = (lengths.astype(np.int64) + block - 1) // block
    if (past < 0).any() or needed.max(initial=0) > blocks.shape[1]:
        raise ValueError(
            f"lengths {lengths.tolist()} are inconsistent with new tokens that begin at "
            f"{begins.tolist()} and tables of {blocks.shape[1]} blocks"
        )
    used = np.arange(blocks.shape[1]) < needed[:, None]
    indices = blocks[: len(lengths)][used]
    if indices.size and not (0 <= indices.min() and indices.max() <= _MOST):
        raise ValueError(f"blocks {indices.tolist()} should be between 0 and {_MOST}")
    ends = np.zeros(len(needed) + 1, np.int32)
    needed.cumsum(out=ends[1:])
    return Tables(past, begins, indices.astype(np.int32), ends, np.array(lengths.max(initial=0), np.int32))


def check_tables(tables: Tables, rows: int, block: int, blocks: int) -> None:
    """Raise ValueError unless `rows` new tokens in caches of `blocks` blocks, of `block` tokens each, may
    have these tables.

    Blocks of a common prefix may be shared. But a block that gets new tokens belongs to one sequence alone,
    and occurs once in its table: other sequences would read tokens of this one, or overwrite them.
    """
    for name, array in tables._asdict().items():
        if array.dtype != np.int32 or array.ndim != (name != "max_context_len"):
            raise ValueError(f"{name} is an array of {array.dtype} with {array.ndim} dimensions")
    past, begins, indices, ends, longest = (array.astype(np.int64) for array in tables)
    new, have = begins[1:] - begins[:-1], ends[1:] - ends[:-1]
    if len(begins) != len(past) + 1 or len(ends) != len(past) + 1:
        raise ValueError(
            f"{len(past)} sequences have {len(begins)} subsequence_begins, {len(ends)} block_indices_begins"
        )
    for name, offsets, total in (("subsequence_begins", begins, rows),
                               ("block_indices_begins", ends, len(indices))):  # fmt: skip
        if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any() or offsets[-1] != total:
            raise ValueError(f"{name} {offsets.tolist()} should increase from 0 to {total}")
    if (past < 0).any() or int(longest) != (past + new).max(initial=0):
        raise ValueError(f"past_lens {past.tolist()} and max_context_len {longest} contradict new tokens")
    needed = (past + new + block - 1) // block
    if (have < needed).any():
        raise ValueError(f"sequences need {needed.tolist()} blocks, but have {have.tolist()}")
    if indices.size and not (0 <= indices.min() and indices.max() < blocks):
        raise ValueError(f"block_indices should be between 0 and {blocks - 1}, the last block of the caches")
    at = np.arange(len(indices)) - np.repeat(ends[:-1], have)
    used = at < np.repeat(needed, have)
    written = used & (at >= np.repeat(past // block, have)) & np.repeat(new > 0, have)
    order = np.sort(indices[used])
    gets = indices[written]
    shared = np.searchsorted(order, gets, "right") - np.searchsorted(order, gets, "left") > 1
    if shared.any():
        twice = sorted(set(gets[shared].tolist()))[:8]
        raise ValueError(f"the blocks {twice} get new tokens of a sequence, and occur again in block_indices")
