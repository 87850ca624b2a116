"""Number of cores that this process can use, from its affinity mask and control-group quota."""

from __future__ import annotations

import math
import os

from ovjit.control_groups import folders, read_text


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
    for folder in folders("cpu", root):
        limit = _read_v2(f"{folder}/cpu.max") or _read_v1(folder)
        if limit:
            limits.append(limit)
    return math.ceil(min(limits)) if limits else None


def _read_v2(path: str) -> float | None:
    try:
        quota, period = read_text(path).split()
        if quota == "max" or int(quota) <= 0 or int(period) <= 0:
            return None
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _read_v1(folder: str) -> float | None:
    try:
        quota = int(read_text(f"{folder}/cpu.cfs_quota_us"))
        period = int(read_text(f"{folder}/cpu.cfs_period_us"))
        return quota / period if quota > 0 and period > 0 else None
    except (OSError, ValueError):
        return None
