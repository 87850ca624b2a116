"""How many threads make sense here: what the operating system lets this process use.

The least of three counts: the CPUs of the affinity mask, the cgroup's quota (version 2: cpu.max, version 1:
cpu.cfs_quota_us), rounded up, and what the user asks for.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """A number of CPUs, and what limits it."""

    count: int
    reason: str


def available_cores(root: str | Path = "/") -> Cores:
    """The CPUs that this process may keep busy; `root` is the place of `proc` and `sys`."""
    counts = [Cores(os.cpu_count() or 1, "the machine's CPUs")]
    if hasattr(os, "sched_getaffinity"):
        counts.append(Cores(len(os.sched_getaffinity(0)), "the process's CPU affinity"))
    quota = cgroup_quota(Path(root))
    if quota is not None:
        counts.append(Cores(max(1, math.ceil(quota)), f"the cgroup's quota of {quota:g} CPUs"))
    return min(counts, key=lambda cores: cores.count)


def cgroup_quota(root: Path) -> float | None:
    """The CPUs' worth of time that the cgroup of this process may use; None without a limit."""
    quotas = []
    for folder in _folders(root):
        quota = _quota(folder)
        if quota is not None:
            quotas.append(quota)
    return min(quotas, default=None)


def _folders(root: Path) -> list[Path]:
    """The folders of this process's cgroup and of its ancestors, whose limits hold as well."""
    base = root / "sys/fs/cgroup"
    folders = [base, base / "cpu", base / "cpu,cpuacct"]
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in [base / controllers, base / "cpu"] if controllers else [base]:
            folders += [mount.joinpath(*parts[:n]) for n in range(1, len(parts) + 1)]
    return folders


def _quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        limit, length = int(quota), int(period)
    except ValueError:  # "max"
        return None
    return limit / length if limit > 0 and length > 0 else None
