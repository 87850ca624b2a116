"""Converts vLLM's description of a batch to the inputs of a paged decoder."""

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


def tables_of(begins: np.ndarray, lengths: np.ndarray, blocks: np.ndarray, block: int) -> Tables:
    """The tables for starts of new tokens [sequences + 1], lengths including the new tokens [sequences], and
    a table of blocks [sequences, maximum]. Only blocks that a sequence needs are read. `block`: tokens of a
    block.

    Raises ValueError if the table has fewer columns than a sequence needs, or a length is less than its
    number of new tokens.
    """
    begins, lengths = begins.astype(np.int32), lengths.astype(np.int32)
    past = lengths - np.diff(begins)
    needed = -(-lengths // block)
    if (past < 0).any() or needed.max(initial=0) > blocks.shape[1]:
        raise ValueError(
            f"lengths {lengths.tolist()} are inconsistent with new tokens that begin at "
            f"{begins.tolist()} and tables of {blocks.shape[1]} blocks"
        )
    used = np.arange(blocks.shape[1]) < needed[:, None]
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(needed, dtype=np.int32)])
    indices = blocks[: len(lengths)][used].astype(np.int32)
    return Tables(past, begins, indices, ends, np.array(lengths.max(initial=0), np.int32))
