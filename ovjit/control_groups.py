"""The Linux control groups of this process, as containers set them: folders, and the memory left to use.

Linux ends a process that takes more memory than its group may have, without a word. What is about to take
much asks first, so that a MemoryError comes instead.
"""

from __future__ import annotations

import os
from itertools import takewhile

#: The file system to read /sys and /proc from; tests give their own.
ROOT = "/"


def folders(controller: str, root: str) -> list[str]:
    """The folders of the groups that bound this process, the outermost first, of both versions of groups."""
    base = os.path.join(root, "sys/fs/cgroup")
    result = [base, f"{base}/{controller}"]
    if controller == "cpu":
        result.append(f"{base}/cpu,cpuacct")
    try:
        lines = read_text(os.path.join(root, "proc/self/cgroup")).splitlines()
    except OSError:
        return result
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        if controllers and controller not in controllers.split(","):
            continue
        here = f"{base}/{controllers}" if controllers else base
        for piece in (part for part in takewhile("..".__ne__, path.split("/")) if part not in ("", ".")):
            here = f"{here}/{piece}"
            result.append(here)
    return result


def memory_left(root: str | None = None) -> int | None:
    """Bytes that this process may still take before a group's limit is reached; None without a limit. What
    the system would let go first counts as free: cached files, and what can be swapped out."""
    root = ROOT if root is None else root
    limits = [free for folder in folders("memory", root) if (free := _left_in(folder, root)) is not None]
    return max(0, min(limits)) if limits else None


def _left_in(folder: str, root: str) -> int | None:
    for limit, used, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        most, now = _number(f"{folder}/{limit}"), _number(f"{folder}/{used}")
        if most is None or now is None or most >= 1 << 60:  # which means none in the first version
            continue
        cached = _rows(f"{folder}/memory.stat")
        files = sum(cached.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))
        return most - now + min(files, now) + _swap(folder, root)
    return None


def _swap(folder: str, root: str) -> int:
    """Bytes of swap that the group may still use: SwapFree, bounded by the group's limit; 0 if unknown."""
    free = _rows(os.path.join(root, "proc/meminfo")).get("SwapFree:", 0) * 1024
    try:
        text = read_text(f"{folder}/memory.swap.max").strip()
    except OSError:
        return free
    if text == "max":
        return free
    most, now = _number(f"{folder}/memory.swap.max"), _number(f"{folder}/memory.swap.current")
    return 0 if most is None else min(free, max(0, most - (now or 0)))


def _number(path: str) -> int | None:
    try:
        return int(read_text(path))
    except (OSError, ValueError):  # "max", say
        return None


def _rows(path: str) -> dict[str, int]:
    try:
        rows = [line.split() for line in read_text(path).splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) >= 2 and row[1].isdecimal()}
    except OSError:
        return {}


def read_text(path: str) -> str:
    """The content of a file of the system."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
