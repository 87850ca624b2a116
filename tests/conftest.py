"""What all tests start from."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

# NumPy's products take one thread, and so they do in processes that tests start. Threads of OpenBLAS wait for
# each other in loops: beside another busy process a product takes up to twenty times as long. It is read when
# NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a test compares with NumPy it compares in f32, on CPUs that would compute in bf16 too. Low precision is
# asked for by name; the default itself is in tests/compiler/test_default_precision.py.
os.environ.setdefault("OVJIT_PRECISION", "f32")

# Processes that tests start read bytecode, as those of an installation do. Where none is written, each of
# them compiles ovjit's sources, which takes a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# OpenVINO's `convert_model` sends usage data from forked processes. Tests send none.
with contextlib.suppress(ImportError):
    from openvino_telemetry.utils.sender import TelemetrySender

    TelemetrySender.send = lambda *args, **kwargs: None

# What tests write need not outlive a power cut, and to wait for a disk takes longer than many a test. Those
# that are about it patch it themselves, and processes that are started have it.
os.fsync = lambda descriptor: None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """While modules are read and tests are made, there is next to no garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


#: Thresholds of `gc.set_threshold`. Graphs have many objects, and each collection also visits what other
#: tests have left. Processes that tests start have Python's own thresholds.
SELDOM = (10_000, 20, 20)


def pytest_collection_finish() -> None:
    """What modules and tests are made of stays: collections, which tests often ask for, pass it over."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)


@pytest.fixture(autouse=True)
def logger_as_before() -> Iterator[None]:
    """What makes ovjit's logger quiet ends with its test: fuzzers do, and what others configure."""
    logger, root = logging.getLogger("ovjit"), logging.root
    before = logger.level, root.level, logger.disabled, logger.propagate, root.manager.disable
    yield
    level, root_level, logger.disabled, logger.propagate, root.manager.disable = before
    logger.setLevel(level)
    root.setLevel(root_level)


@pytest.fixture(autouse=True)
def memory_that_is_not_zero() -> None:
    """Small arrays that NumPy makes without values are not zeros by chance: no test counts on them."""
    for size in (*range(1, 9), 12, 16, 24, 32, 48, 64):
        for array in [np.empty(size, np.uint8) for _ in range(8)]:
            array.fill(0xA5)


@pytest.fixture
def no_workers(monkeypatch):
    """Models compiled in this test share no pool with earlier ones: no worker has been started."""
    from ovjit.execution import streams

    pools: dict[tuple[int, int], streams.Pool] = {}
    monkeypatch.setattr(streams, "_pools", pools)
    yield
    for pool in pools.values():
        pool.stop()


@pytest.fixture
def unread(monkeypatch) -> list[str]:
    """Model files that have been read."""
    from ovjit.readers import registry

    seen: list[str] = []
    real = registry.read_model

    def reading(model, *rest):
        seen.append(str(model))
        return real(model, *rest)

    monkeypatch.setattr(registry, "read_model", reading)
    return seen
