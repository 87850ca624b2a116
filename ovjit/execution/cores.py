"""How many cores this process may really use: affinity mask and control-group quota."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> tuple[int, str]:
    """(cores, why): the least of the affinity mask and the cgroup quota (v2 `cpu.max`, v1 `cfs_quota_us`).

    `root` is the file system to read /sys and /proc from; tests give their own.
    """
    if hasattr(os, "sched_getaffinity"):
        count, reason = len(os.sched_getaffinity(0)), "affinity mask"
    else:
        count, reason = os.cpu_count() or 1, "cores of the machine"
    quota = _quota(root)
    if quota is not None and quota < count:
        return max(1, quota), "control group quota"
    return max(1, count), reason


def _quota(root: Path) -> int | None:
    """Cores by quota, rounded up; the tightest along the group's path. None without one."""
    limits = []
    for folder in _groups(root):
        limit = _read_v2(folder / "cpu.max") or _read_v1(folder)
        if limit:
            limits.append(limit)
    return math.ceil(min(limits)) if limits else None


def _groups(root: Path) -> list[Path]:
    base = root / "sys/fs/cgroup"
    folders = [base, base / "cpu", base / "cpu,cpuacct"]
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return folders
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        home = base if not controllers else base / controllers if "cpu" in controllers.split(",") else None
        if home is None:
            continue
        here = home
        for piece in Path(path.lstrip("/")).parts:
            if piece == "..":
                break
            here = here / piece
            folders.append(here)
    return folders


def _read_v2(path: Path) -> float | None:
    try:
        quota, period = path.read_text().split()
        if quota == "max" or int(quota) <= 0 or int(period) <= 0:
            return None
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _read_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 and period > 0 else None
    except (OSError, ValueError):
        return None
