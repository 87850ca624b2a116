"""The kernel cache of this process: what is kept, where, and how to keep less of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from ovjit.storage.cache import Entry, default_cache

__all__ = ["Entry", "entries", "folder", "prune"]


def prune(max_bytes: int | None = None, max_age: float | timedelta | None = None) -> int:
    """Remove kernels unused for `max_age` (seconds, or a timedelta), then the least recently used ones until
    `max_bytes` remain (None: 1 GiB). Returns the bytes freed. Raises ValueError for negative bounds.

    Safe while other processes use the cache: what they miss they compile again. Times of last use are kept
    to the day.
    """
    age = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    if (max_bytes is not None and max_bytes < 0) or (age is not None and age < 0):
        raise ValueError("the bounds of a cache can't be negative")
    return default_cache().prune(max_bytes, age)


def entries() -> list[Entry]:
    """The kept kernels, the most recently used first: size in bytes, last use, and what it is."""
    return default_cache().entries()


def folder() -> Path | None:
    """The folder of the cache, None when nothing is kept: OVJIT_CACHE=0, or no folder that can be trusted."""
    return default_cache().folder
