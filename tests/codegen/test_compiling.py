"""What compiling tells, and how processes share it."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

import ovjit
from ovjit import opset8
from ovjit.codegen import compiling
from ovjit.codegen.kernel import Kernel, KernelArgs
from ovjit.codegen.loading import Loaded, addresses
from ovjit.codegen.versions import code_digest
from ovjit.disk import kernel_cache as storage
from ovjit.disk import store
from tests.support import ROOT
from tests.support.compiled import program_of


def new_kernels(count: int, tag: str) -> list[Kernel]:
    source = "@njit(nogil=True)\ndef kernel(bases, args, chunk, scratch):\n    return {} + chunk  # {}\n"
    return [Kernel(f"{tag}_{i}", source.format(i, tag), KernelArgs()) for i in range(count)]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> storage.KernelCache:
    cache = storage.KernelCache(tmp_path / "kernels")
    monkeypatch.setattr(storage, "_default", cache)
    return cache


@pytest.mark.usefixtures("own_cache")
def test_progress_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(compiling, "_LONG", 0.0)
    told: list = []
    kernels = new_kernels(3, "told")
    assert ovjit.progress(told.append) is None
    try:
        with caplog.at_level(logging.INFO, "ovjit"):
            addresses(kernels)
            addresses(kernels)  # nothing is compiled again, and nothing told
    finally:
        assert ovjit.progress(None) == told.append
    assert [(p.done, p.total, p.kernel) for p in told] == [
        (0, 3, "told_0"), (1, 3, "told_1"), (2, 3, "told_2"), (3, 3, ""),
    ]  # fmt: skip
    assert [p.seconds for p in told] == sorted(p.seconds for p in told)
    assert caplog.messages[-1].startswith("compiled 3 kernels in ") and "kernels" in caplog.messages[-1]
    assert any(message.startswith("compiling: 1 of 3") for message in caplog.messages)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    "room, said",
    [(3, ", kept for later in "), (2, ", 2 of them kept for later in "), (0, ", not kept on disk")],
)
def test_what_a_full_disk_does_not_keep_is_said(
    room: int, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left, write = [None] * room, store.write_whole

    def write_while_there_is_room(*arguments: object, **more: object) -> None:
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left.pop()
        write(*arguments, **more)

    code_digest()  # is kept as well, once in a process
    monkeypatch.setattr(store, "write_whole", write_while_there_is_room)
    monkeypatch.setattr(compiling, "_LONG", 0.0)
    kernels = new_kernels(3, f"full_{room}")
    with caplog.at_level(logging.INFO, "ovjit"):
        assert len(addresses(kernels)) == 3
    assert said in caplog.messages[-1]
    assert sum("No space left" in message for message in caplog.messages) == (room < 3)


def test_a_callback_may_end_it_and_what_is_compiled_is_kept(own_cache: storage.KernelCache) -> None:
    kernels = new_kernels(3, "ended")

    def stop(step) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    ovjit.progress(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            addresses(kernels)
    finally:
        ovjit.progress(None)
    kept = [own_cache.get(kernel.symbol()) is not None for kernel in kernels]
    assert kept == [True, True, False]
    before = compiling.counts["compiled"]
    addresses(kernels)
    assert compiling.counts["compiled"] == before + 1


def test_what_another_process_has_claimed_is_waited_for_but_not_for_ever(
    own_cache: storage.KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_kernels(2, "claimed")
    program = f"""
import sys, time
from ovjit.disk.kernel_cache import KernelCache
cache = KernelCache({str(own_cache.folder)!r})
with cache.claim({first.symbol()!r}):
    print("held", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "held\n"
        assert own_cache.claim(first.symbol()) is None
        claim = own_cache.claim(second.symbol())
        assert claim is not None
        with claim:
            pass
        monkeypatch.setattr(compiling, "PATIENCE", 0.2)
        order = []
        ovjit.progress(lambda step: order.append(step.kernel))
        addresses([first, second])
        assert order == ["claimed_1", "claimed_0", ""]  # what is free comes first
    finally:
        ovjit.progress(None)
        other.communicate("")
    claim = own_cache.claim(first.symbol())
    assert claim is not None
    with claim:
        pass


@pytest.mark.usefixtures("own_cache")
def test_what_is_unlikely_waits_where_it_has_to_be_compiled() -> None:
    first, second, third = new_kernels(3, "unlikely")
    compiled: list[str] = []

    def unlikely(missing: Collection[Kernel]) -> Collection[Kernel]:
        return {second, third}.intersection(missing)

    ovjit.progress(lambda step: compiled.append(step.kernel))
    try:
        have = Loaded((first, second), None, unlikely)
        assert set(have) == {first} and compiled == ["unlikely_0", ""]
        compiled.clear()
        addresses((third,))
        assert set(Loaded((second, third), None, unlikely)) == {third}, "it is at hand"
        have.need((first, second))
        assert set(have) == {first, second} and compiled == ["unlikely_2", "", "unlikely_1", ""]
    finally:
        ovjit.progress(None)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("axes, wanted, other", [((2, 3), "keep", "reduce"), ((1,), "reduce", "keep")])
def test_of_open_shapes_only_what_their_strides_ask_for_is_compiled(
    axes: tuple[int, ...], wanted: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A convolution writes channels side by side: it is they that a reduction over them finds adjacent."""
    monkeypatch.setenv("OVJIT_SHIPPED", "0")
    x = opset8.parameter([-1, 3, 6, 6], np.float32)
    weights = np.random.default_rng(7).standard_normal((8, 3, 3, 3)).astype(np.float32)
    y = opset8.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    graph = ovjit.Model([opset8.reduce_max(y, list(axes), False)], [x])._graph()
    program = program_of(graph)
    every = {kernel.name for kernel in program.kernels}
    unlikely = {kernel.name for kernel in program._unlikely(program.kernels)}
    assert {f"reducemax_{wanted}_f32", f"reducemax_{other}_f32"} <= every
    assert f"reducemax_{other}_f32" in unlikely and f"reducemax_{wanted}_f32" not in unlikely
    for batch in (1, 2, 5):
        assert not unlikely & {step.kernel.name for step in program.plan([(batch, 3, 6, 6)]).steps}


SHARED = """
import numpy as np, ovjit as ov
from ovjit.codegen.compiling import counts
x = ov.opset8.parameter([1, 8, 16], np.float32)
y = ov.opset8.softmax(ov.opset8.tanh(ov.opset8.exp(x)), 1)
out = ov.compile_model(ov.Model([y], [x], "m"))(np.zeros((1, 8, 16), np.float32))[0]
assert abs(out.sum() - 16) < 1e-4
print(counts["compiled"])
"""


def test_processes_that_start_together_share_the_work(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OVJIT_CACHE": str(tmp_path / "c"), "OVJIT_SHIPPED": "0"}
    alone = subprocess.run(
        [sys.executable, "-c", SHARED], capture_output=True, text=True, check=True,
        env={**env, "OVJIT_CACHE": str(tmp_path / "alone")},
    )  # fmt: skip
    together = [
        subprocess.Popen([sys.executable, "-c", SHARED], stdout=subprocess.PIPE, text=True, env=env)
        for _ in range(6)
    ]
    counts = [int(process.communicate()[0]) for process in together]
    assert all(process.returncode == 0 for process in together)
    assert sum(counts) == int(alone.stdout)


def test_without_a_cache_everybody_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_CACHE", "0")
    cache = storage.KernelCache()
    for _ in range(2):
        claim = cache.claim("some_kernel_or_other")
        assert claim is not None
    assert storage.claim_byte(-1, 3) is not None
