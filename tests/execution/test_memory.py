"""Memory: the peak of compiling, many sizes in the room of the largest, inferences that allocate nothing."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.data import digits
from ovjit.storage import late_writes
from tests.support.networks import build
from tests.support.run import printed

if not sys.platform.startswith("linux"):
    pytest.skip("resident memory is read from /proc", allow_module_level=True)

#: What compiling may take: so many times the weights, and so many bytes.
WEIGHTS, MORE = 2, 200e6
#: What all sizes may take more than the largest alone.
GROWTH = 1.1


def ask(*what: str, cache: str | None = None) -> dict[str, Any]:
    """The answer of `resident.py` in a process of its own."""
    given = {} if cache is None else {"OVJIT_CACHE": cache}
    return json.loads(printed("-m", "tests.support.resident", *what, seconds=3600, **given))


def test_compiling_resnet50() -> None:
    """The first time on a machine: nothing comes from the cache."""
    path = build("resnet50")
    found = ask("compile", str(path), cache="0")
    assert found["compiled"] + found["shipped"] > 10 and found["cached"] == 0
    weights = path.with_suffix(".bin").stat().st_size
    peak = found["peak"]
    assert weights < peak, "the packed weights are resident"
    limit = WEIGHTS * weights + MORE
    assert peak <= limit, f"{peak / 1e6:.0f} MB to compile {weights / 1e6:.0f} MB of weights"


def many_sizes(inferences: int, sizes: int) -> None:
    largest = ask("infer", "20", "1")
    found = ask("infer", str(inferences), str(sizes))
    assert found["sizes"] == sizes
    assert not any(found["new"].values()), "another size compiled something"
    ratio = found["resident"] / largest["resident"]
    assert ratio <= GROWTH, f"{sizes} sizes take {ratio:.2f} times the memory of the largest"


def test_many_sizes() -> None:
    many_sizes(60, 15)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_very_many_sizes() -> None:
    many_sizes(5000, 200)


@pytest.mark.parametrize("threads", [1, 2])
def test_inferences_allocate_nothing(threads: int) -> None:
    """Neither Python nor NumPy: nothing stays, and no array comes and goes, but for small objects
    of the call. The activations are far larger."""
    xml, images, _ = digits()
    compiled = ov.Core().compile_model(xml, "CPU", {"INFERENCE_NUM_THREADS": threads})
    request = compiled.create_infer_request()
    request.set_input_tensor(0, ov.Tensor(np.ascontiguousarray(images[:16])))

    def run(count: int) -> tuple[int, int]:
        """(bytes that stayed, the most there were beyond those before) of `count` inferences."""
        gc.collect()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(count):
            request.infer(share_outputs=True)
        after, peak = tracemalloc.get_traced_memory()
        return after - before, peak - before

    request.infer(share_outputs=True)
    late_writes.finish()  # another thread allocates
    gc.disable()
    tracemalloc.start()
    try:
        run(50)
        stayed, most = run(500)
        kept = [np.ones(100) for _ in range(500)]  # that this would be seen
        seen = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert seen > 500 * 800 and len(kept) == 500
    assert stayed < 500, f"{stayed} bytes stay after 500 inferences"
    assert most < 2000, f"{most} bytes are allocated for a moment"


def test_working_memory_is_given_back() -> None:
    """By `release_memory`, and with the model: callers' arenas go, and the next call works."""
    import gc

    import ovjit
    from ovjit.data import DIGITS_XML, digits
    from ovjit.execution import blocks

    compiled = ovjit.compile_model(DIGITS_XML, "CPU", {"INFERENCE_NUM_THREADS": 1})
    images = digits()[1]
    before = compiled(images)[0]
    assert sum(arena.size for arena in blocks.free_arenas) > 100_000
    compiled.release_memory()
    assert not blocks.free_arenas
    assert (compiled(images)[0] == before).all()
    del compiled
    gc.collect()
    assert not blocks.free_arenas
