"""How many threads there are: affinity and control groups, read from file systems made for the purpose."""

from __future__ import annotations

import os

import pytest

import ovjit
from ovjit.api.run import properties_table
from ovjit.cores import usable_cores
from tests.support import api_cases as cases

QUOTA = "control group quota"
AFFINITY = "affinity mask"


@pytest.fixture
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def tree(root, files):
    """A file system with these files."""
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


V1 = "sys/fs/cgroup/cpu,cpuacct"
V2 = "sys/fs/cgroup"
SELF_V1 = "12:cpuset:/a\n4:cpu,cpuacct:/kube/pod\n1:name=systemd:/x\n"
CASES = {
    "no control groups": ({}, 16, AFFINITY),
    "version 2, in a container": (
        {f"{V2}/cpu.max": "200000 100000\n", "proc/self/cgroup": "0::/\n"}, 2, QUOTA,
    ),
    "version 2, half a core": ({f"{V2}/cpu.max": "50000 100000\n", "proc/self/cgroup": "0::/\n"}, 1, QUOTA),
    "version 2, two and a half": ({f"{V2}/cpu.max": "250000 100000\n"}, 3, QUOTA),
    "version 2, another period": ({f"{V2}/cpu.max": "60000 20000\n"}, 3, QUOTA),
    "version 2, max": ({f"{V2}/cpu.max": "max 100000\n", "proc/self/cgroup": "0::/\n"}, 16, AFFINITY),
    "version 2, more than there are": ({f"{V2}/cpu.max": "6400000 100000\n"}, 16, AFFINITY),
    "version 2, nested, the innermost binds": (
        {"proc/self/cgroup": "0::/kube/pod/box\n", f"{V2}/kube/cpu.max": "800000 100000\n",
         f"{V2}/kube/pod/cpu.max": "max 100000\n", f"{V2}/kube/pod/box/cpu.max": "300000 100000\n"}, 3, QUOTA,
    ),
    "version 2, nested, an outer one binds": (
        {"proc/self/cgroup": "0::/kube/pod/box\n", f"{V2}/kube/cpu.max": "200000 100000\n",
         f"{V2}/kube/pod/box/cpu.max": "400000 100000\n"}, 2, QUOTA,
    ),
    "version 2, another's group": (
        {"proc/self/cgroup": "0::/mine\n", f"{V2}/other/cpu.max": "100000 100000\n"}, 16, AFFINITY,
    ),
    "version 2, above the root": (
        {"proc/self/cgroup": "0::/../../secret\n", "secret/cpu.max": "100000 100000\n",
         f"{V2}/cpu.max": "500000 100000\n"}, 5, QUOTA,
    ),
    "version 1": (
        {"proc/self/cgroup": SELF_V1, f"{V1}/kube/pod/cpu.cfs_quota_us": "400000\n",
         f"{V1}/kube/pod/cpu.cfs_period_us": "100000\n"}, 4, QUOTA,
    ),
    "version 1, in a container": (
        {"proc/self/cgroup": SELF_V1, f"{V1}/cpu.cfs_quota_us": "150000\n",
         f"{V1}/cpu.cfs_period_us": "100000\n"}, 2, QUOTA,
    ),
    "version 1, mounted as cpu": (
        {"proc/self/cgroup": "3:cpu:/a\n", f"{V2}/cpu/a/cpu.cfs_quota_us": "700000\n",
         f"{V2}/cpu/a/cpu.cfs_period_us": "100000\n"}, 7, QUOTA,
    ),
    "version 1, no quota": (
        {"proc/self/cgroup": SELF_V1, f"{V1}/kube/pod/cpu.cfs_quota_us": "-1\n",
         f"{V1}/kube/pod/cpu.cfs_period_us": "100000\n"}, 16, AFFINITY,
    ),
    "version 1, without a period": (
        {"proc/self/cgroup": SELF_V1, f"{V1}/kube/pod/cpu.cfs_quota_us": "100000\n"}, 16, AFFINITY,
    ),
    "both versions": (
        {"proc/self/cgroup": SELF_V1 + "0::/unified\n", f"{V1}/kube/pod/cpu.cfs_quota_us": "600000\n",
         f"{V1}/kube/pod/cpu.cfs_period_us": "100000\n", f"{V2}/unified/cpu.max": "500000 100000"}, 5, QUOTA,
    ),
    "a name that is no text": (
        {"proc/self/cgroup": b"0::/caf\xe9\n", f"{V2}/cpu.max": "300000 100000\n"}, 3, QUOTA,
    ),
    "damaged lines": (
        {"proc/self/cgroup": "\n0\n::\nno:\n0::/a\0b\n0::/ok\n", f"{V2}/ok/cpu.max": "200000 100000"}, 2,
        QUOTA,
    ),
    "folders in place of files": ({f"{V2}/cpu.max/x": "", "proc/self/cgroup/y": ""}, 16, AFFINITY),
    **{
        f"damaged, {text!r}": ({f"{V2}/cpu.max": text}, 16, AFFINITY)
        for text in ("", "max", "100000", "a b", "100000 0", "0 100000", "-100000 100000", "100000 -1",
                     "1 2 3", "1e5 100000", "nan nan", "inf 1", b"\xff\xfe 3")
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_quotas(case, tmp_path, many_cores):
    files, cores, reason = CASES[case]
    assert usable_cores(tree(tmp_path, files)) == (cores, reason)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity masks")
def test_the_affinity_mask_binds_when_it_is_the_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert usable_cores(tree(tmp_path, {f"{V2}/cpu.max": "200000 100000\n"})) == (1, AFFINITY)


def test_without_affinity_masks(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert usable_cores(tmp_path) == (8, "cores of the machine")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path)[0] == 1


def test_threads_follow(tmp_path, many_cores, monkeypatch):
    """A compiled model has the threads that the quota leaves, runs on them, and says why."""
    root = tree(tmp_path, {f"{V2}/cpu.max": "300000 100000\n"})
    monkeypatch.setattr(properties_table, "usable_cores", lambda: usable_cores(root))
    for config, threads, streams, reason in (
        ({}, 3, 1, QUOTA),
        ({"PERFORMANCE_HINT": "THROUGHPUT"}, 3, 3, QUOTA),
        ({"INFERENCE_NUM_THREADS": 2}, 2, 1, "INFERENCE_NUM_THREADS of 2"),
        ({"INFERENCE_NUM_THREADS": 12}, 3, 1, QUOTA),
    ):
        compiled = cases.adder(ovjit, **config)
        assert compiled.get_property("INFERENCE_NUM_THREADS") == threads, config
        assert compiled.get_property("INFERENCE_NUM_THREADS_REASON") == reason, config
        assert compiled.get_property("NUM_STREAMS") == streams, config
        pool = compiled._executable.pool
        assert (pool.streams, pool.threads) == (streams, threads), config


def test_the_reason_is_read_only():
    compiled = cases.adder(ovjit)
    cores, reason = usable_cores()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == cores
    assert compiled.get_property("INFERENCE_NUM_THREADS_REASON") == reason
    with pytest.raises(RuntimeError):
        cases.adder(ovjit, INFERENCE_NUM_THREADS_REASON="mine")
