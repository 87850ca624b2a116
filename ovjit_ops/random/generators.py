"""Streams of random 32-bit numbers, vectorised: Philox 4x32-10 (Salmon et al., 2011) and MT19937."""

from __future__ import annotations

import numpy as np

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(key: int, counter: int, count: int, first: int = 0) -> np.ndarray:
    """`count` numbers of the stream as u32: four for each n = first, first + 1, ... Each round multiplies n
    and the counter, and adds Weyl constants to the key."""
    blocks = -(-count // 4)
    n = np.uint64(first) + np.arange(blocks, dtype=np.uint64)
    n_low, n_high = n & _LOW, n >> _32
    c_low = np.full(blocks, counter & 0xFFFFFFFF, np.uint64)
    c_high = np.full(blocks, counter >> 32 & 0xFFFFFFFF, np.uint64)
    k_low, k_high = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(10):
        a, b = n_low * np.uint64(0xD2511F53), c_low * np.uint64(0xCD9E8D57)
        n_low, n_high, c_low, c_high = (
            (b >> _32) ^ n_high ^ np.uint64(k_low), b & _LOW,
            (a >> _32) ^ c_high ^ np.uint64(k_high), a & _LOW,
        )  # fmt: skip
        k_low, k_high = (k_low + 0x9E3779B9) & 0xFFFFFFFF, (k_high + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([n_low, n_high, c_low, c_high], 1).astype(np.uint32).reshape(-1)[:count]


def mersenne_twister(seed: int, count: int) -> np.ndarray:
    """`count` numbers of MT19937 as u32, equal to PyTorch's generator after manual_seed(seed)."""
    state = np.random.RandomState(seed & 0xFFFFFFFF)
    return state.randint(0, 1 << 32, count, np.uint32)
