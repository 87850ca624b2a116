"""`ovjit cache` in Python: the kernels on disk, and the compiled models in folders that CACHE_DIR names."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from ovjit.disk.kernel_cache import default_cache
from ovjit.disk.store import Entry

__all__ = ["Entry", "entries", "folder", "prune"]


def prune(
    max_bytes: int | None = None, max_age: float | timedelta | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> int:  # fmt: skip
    """Remove entries unused for `max_age` (seconds, or a timedelta), then the least recently used until
    `max_bytes` remain. Returns the bytes freed.

    `cache_dir` None means the kernel cache. `max_bytes` None is 1 GiB of kernels, with times of last use to
    the day, and 256 MiB of models kept beside them, to the hour. Otherwise it means the compiled models
    in that CACHE_DIR (16 GiB, to the hour). Other processes may use the cache meanwhile: they compile missing
    entries again. Raises ValueError for negative bounds, OSError for a CACHE_DIR that cannot be listed.
    """
    age = max_age.total_seconds() if isinstance(max_age, timedelta) else max_age
    if (max_bytes is not None and max_bytes < 0) or (age is not None and age < 0):
        raise ValueError("the bounds of a cache cannot be negative")
    if cache_dir is None:
        from ovjit.storage import kept_models

        return default_cache().prune(max_bytes, age) + kept_models.prune(max_bytes, age)
    from ovjit.storage import model_cache

    limit = model_cache.MAX_BYTES if max_bytes is None else max_bytes
    return model_cache.prune(_expand(cache_dir), limit, age)


def entries(cache_dir: str | os.PathLike[str] | None = None) -> list[Entry]:
    """The kept kernels, or the compiled models in `cache_dir`, the most recently used first: size in bytes,
    last use, and what it is. Raises OSError for a `cache_dir` that cannot be listed."""
    if cache_dir is None:
        return default_cache().entries()
    from ovjit.storage import model_cache

    return model_cache.entries(_expand(cache_dir))


def folder() -> Path | None:
    """The folder of the kernels, None when none are kept: OVJIT_CACHE=0, or no folder that can be trusted."""
    return default_cache().folder


def _expand(cache_dir: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(cache_dir)))
