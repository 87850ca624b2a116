"""Memory of large results: reused when it has no reference, and never before."""

from __future__ import annotations

import ctypes
import errno
import gc
import math
import mmap
import resource
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.execution import blocks, states
from tests.support.decoders import decoder
from tests.support.threads import start_and_join

SEED = 20261122
MB = 1 << 20
F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


class User:
    """In the place of a model."""


@pytest.fixture(autouse=True)
def _none_free(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    user = User()
    monkeypatch.setattr(blocks, "users", weakref.WeakSet([user]))
    gc.collect()
    blocks.release_arenas()
    yield
    blocks.release_arenas()


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_a_block_is_free_when_its_arrays_and_views_are_gone() -> None:
    for hold in (lambda a: a[5:], lambda a: memoryview(a)[3:], lambda a: a.reshape(2, -1).T, lambda a: a):
        array = blocks.lent(2 * MB)
        at, held = address(array), hold(array)
        assert at % 64 == 0
        array = blocks.lent(2 * MB)
        assert address(array) != at
        del array, held
        blocks.release_arenas()


def test_the_smallest_block_that_fits_is_lent_and_none_that_is_far_too_large() -> None:
    sizes = {n: blocks.lent(n * MB) for n in (3, 5, 4)}
    places = {n: address(array) for n, array in sizes.items()}
    sizes.clear()
    assert address(a := blocks.lent(4 * MB)) == places[4]
    assert address(b := blocks.lent(3 * MB + 1)) == places[5]
    assert address(c := blocks.lent(MB)) == places[3]
    del a, b, c
    huge = blocks.lent(40 * MB)
    place = address(huge)
    del huge
    blocks.free_blocks[:] = [block for block in blocks.free_blocks if block.size >= 40 * MB]
    assert address(d := blocks.lent(9 * MB)) != place
    assert address(blocks.lent(10 * MB)) == place
    del d


@pytest.mark.skipif(not blocks.REMAPS, reason="mappings of memory do not grow here")
def test_a_block_grows_with_its_pages() -> None:
    array = blocks.lent(3 * MB)
    array[:] = 7
    del array
    larger = blocks.lent(5 * MB)
    assert not blocks.free_blocks and (larger[: 3 * MB] == 7).all() and not larger[3 * MB :].any()


def faults_of(size: int, address: int) -> int:
    """How many pages the system has to find while so many bytes are written."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    ctypes.memset(address, 1, size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not blocks.REMAPS, reason="mappings of memory do not grow here")
@pytest.mark.parametrize("dear", [False, True], ids=["large pages", "small pages"])
def test_an_arena_has_its_pages_when_it_has_grown(dear: bool, monkeypatch) -> None:
    monkeypatch.setattr(blocks.Arena, "large_are_dear", dear)
    probe = mmap.mmap(-1, mmap.PAGESIZE)
    try:
        probe.madvise(blocks._POPULATE)
    except OSError:
        pytest.skip("this system gives pages one by one")
    arena = blocks.Arena()
    for size in (3 * MB, 7 * MB, 16 * MB + 5000):
        arena.reserve(size)
        assert arena.size >= size and faults_of(size, arena.address) < 100, f"{size} bytes"


@pytest.mark.skipif(not blocks.REMAPS, reason="mappings of memory do not grow here")
def test_what_a_system_cannot_be_told_keeps_nothing_else_from_it(monkeypatch) -> None:
    """One without large pages gives small ones at once; one that gives none at once still joins them."""
    told: list[int] = []

    class Mapping(mmap.mmap):
        def madvise(self, advice: int, *rest: int) -> None:
            told.append(advice)
            if advice in unknown:
                raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(blocks.mmap, "mmap", Mapping)
    monkeypatch.setattr(blocks, "DEAR_PAGE", math.inf)
    monkeypatch.setattr(blocks.Arena, "large_are_dear", False)
    large, small = mmap.MADV_HUGEPAGE, mmap.MADV_NOHUGEPAGE
    for unknown in ({large, small}, {blocks._POPULATE}, {large, small, blocks._POPULATE}):
        arena = blocks.Arena(3 * MB)
        ctypes.memset(arena.address, 7, 3 * MB)
        told.clear()
        arena.reserve(7 * MB)
        assert told == [small, blocks._POPULATE, large], unknown
        assert ctypes.string_at(arena.address, 3 * MB) == b"\7" * (3 * MB)


def test_values_that_grow_lie_in_blocks_that_are_there_before_the_first_run(monkeypatch) -> None:
    """Of the first prompt, and of the one after a reset."""
    for module in (blocks, states):
        monkeypatch.setattr(module, "LARGE_STATE", 4096)
    request = ov.Core().compile_model(decoder(told=False), "CPU", F32).create_infer_request()
    ready = {block.address for block in blocks.free_blocks if block.size >= 4096}
    prompt = [np.ones((1, 64, 16), np.float32), np.zeros(1, np.int32)]
    lying = request._job.states()
    for run in range(3):
        request.reset_state()
        request.infer(prompt)
        places = {address(memory) for memory in lying.memory}
        assert len(places) == len(lying.memory) and places <= ready, f"run {run}"


def test_few_blocks_stay_free() -> None:
    held = [blocks.lent(8 * MB) for _ in range(20)]
    held.append(blocks.lent(30 * MB))
    del held
    free = sorted(block.size for block in blocks.free_blocks)
    assert free[-1] == 30 * MB and blocks.KEPT[0] < sum(free[:-1]) <= blocks.KEPT[1]


def test_threads_never_share_a_block() -> None:
    wrong: list[Any] = []

    def work(me: int) -> None:
        rng = np.random.default_rng(SEED + me)
        for _ in range(300):
            array = blocks.lent(int(rng.integers(MB // 4, MB)))
            array[::4096] = me
            wrong.extend([me] * bool((array[::4096] != me).any()))

    threads = [threading.Thread(target=work, args=(me,)) for me in range(1, 5)]
    start_and_join(threads)
    assert not wrong


def doubler() -> ov.InferRequest:
    ops = ov.opset13
    x = ops.parameter([-1, 1024], np.float32)
    model = ov.Model([ops.multiply(x, ops.constant(np.float32(2)))], [x], "doubler")
    return ov.compile_model(model, "CPU", F32).create_infer_request()


def test_results_are_the_callers_own() -> None:
    request = doubler()
    given: Callable[[int], np.ndarray] = lambda n: np.full((600, 1024), n, np.float32)  # noqa: E731
    results = [request.infer([given(n)])[0] for n in range(5)]
    results[2] += 1  # without another reference
    assert [float(r[3, 5]) for r in results] == [0, 2, 5, 6, 8]
    assert (request.get_output_tensor(0).data == 8).all()
    assert all(r.flags.writeable and r.flags.c_contiguous for r in results)
    place = address(results.pop())
    again = request.infer([given(9)])[0]
    assert address(again) == place and (again == 18).all() and float(results[1][0, 0]) == 2


def test_results_that_outlive_all_models_leave_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "users", weakref.WeakSet())
    request = doubler()
    assert len(blocks.users) == 1
    results = [request.infer([np.full((600, 1024), n, np.float32)])[0] for n in range(2)]
    results.pop()
    assert blocks.free_blocks
    del request
    gc.collect()
    assert not blocks.free_blocks and not blocks.users and not results[0].any()
    results.clear()
    assert not blocks.free_blocks


def test_memory_is_ready_before_the_first_inference_of_a_length_traced_ahead() -> None:
    """Results, the caller's copies, and what the plan works in."""
    ops, wide = ov.opset13, 1 << 13
    x = ops.parameter([1, -1, 64], np.float32)
    weights = ops.constant(np.random.default_rng(SEED).standard_normal((64, wide)).astype(np.float32))
    y = ops.softmax(ops.relu(ops.matmul(x, weights, False, False)), 1)
    request = ov.compile_model(ov.Model([y], [x]), "CPU", F32).create_infer_request()
    ready = {block.address for block in blocks.free_blocks}
    assert len(ready) == 2 and all(b.size >= 64 * wide * 4 for b in blocks.free_blocks)
    result = request.infer([np.ones((1, 64, 64), np.float32)])[0]
    assert {address(result), address(request._job.outputs[0])} == ready
