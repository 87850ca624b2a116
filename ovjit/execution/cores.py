"""How many cores this process may really use: affinity mask and control-group quota."""

from __future__ import annotations

import math
import os


def usable_cores(root: str | os.PathLike[str] = "/") -> tuple[int, str]:
    """(cores, why): the least of the affinity mask and the cgroup quota (v2 `cpu.max`, v1 `cfs_quota_us`).

    `root` is the file system to read /sys and /proc from; tests give their own.
    """
    if hasattr(os, "sched_getaffinity"):
        count, reason = len(os.sched_getaffinity(0)), "affinity mask"
    else:
        count, reason = os.cpu_count() or 1, "cores of the machine"
    quota = _quota(os.fspath(root))
    if quota is not None and quota < count:
        return max(1, quota), "control group quota"
    return max(1, count), reason


def _quota(root: str) -> int | None:
    """Cores by quota, rounded up; the tightest along the group's path. None without one."""
    limits = []
    for folder in _groups(root):
        limit = _read_v2(f"{folder}/cpu.max") or _read_v1(folder)
        if limit:
            limits.append(limit)
    return math.ceil(min(limits)) if limits else None


def _groups(root: str) -> list[str]:
    base = os.path.join(root, "sys/fs/cgroup")
    folders = [base, f"{base}/cpu", f"{base}/cpu,cpuacct"]
    try:
        lines = _text(os.path.join(root, "proc/self/cgroup")).splitlines()
    except OSError:
        return folders
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        if controllers and "cpu" not in controllers.split(","):
            continue
        here = f"{base}/{controllers}" if controllers else base
        for piece in path.split("/"):
            if piece == "..":
                break
            if piece in ("", "."):
                continue
            here = f"{here}/{piece}"
            folders.append(here)
    return folders


def _read_v2(path: str) -> float | None:
    try:
        quota, period = _text(path).split()
        if quota == "max" or int(quota) <= 0 or int(period) <= 0:
            return None
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _read_v1(folder: str) -> float | None:
    try:
        quota = int(_text(f"{folder}/cpu.cfs_quota_us"))
        period = int(_text(f"{folder}/cpu.cfs_period_us"))
        return quota / period if quota > 0 and period > 0 else None
    except (OSError, ValueError):
        return None


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
