"""No function of the API that works for long holds the GIL: a thread beside it goes on every 100 ms at least.

The functions are those of which OpenVINO's documents say so, and Python's way of doing so is the measure:
what is plain Python gives way as Python does.
"""

from __future__ import annotations

import gc
import io
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import ovjit
from tests.support.heartbeat import ATTEMPTS, LONGEST, gives_way
from tests.support.networks import build, network_input
from tests.support.run import printed

pytestmark = pytest.mark.thread_unsafe(reason="it measures how long one call holds the GIL: here eight would")


@pytest.fixture(scope="module")
def core():
    return ovjit.Core()


@pytest.fixture(scope="module")
def model(core):
    return core.read_model(str(build("resnet50")))


@pytest.fixture(scope="module")
def compiled(core, model):
    return core.compile_model(model, "CPU")


def run_alone(program, cache):
    """What `program` prints in a process of its own, with `cache` for kernels."""
    return printed("-c", program, OVJIT_CACHE=str(cache))


def test_the_heartbeat_notices_who_holds_the_gil():
    def give_way():
        began = time.process_time()
        while time.process_time() - began < 2 * LONGEST:
            sum(range(1000))

    gives_way("a loop of Python", give_way)

    numbers = range(1 << 20)
    while True:  # how long one sum takes is the machine's affair
        began = time.process_time()
        sum(numbers)
        if time.process_time() - began > 2 * LONGEST:
            break
        numbers = range(2 * len(numbers))
    with pytest.raises(AssertionError, match="a sum held the GIL for"):
        gives_way("a sum", lambda: sum(numbers))


def test_compiling_with_an_empty_cache(tmp_path):
    """All of Numba and LLVM, in a process of its own."""
    program = textwrap.dedent("""
        import sys
        import numpy as np
        from tests.support.heartbeat import LONGEST, Heartbeat
        import ovjit as ov
        from ovjit import opset8 as o
        from ovjit.codegen.compiling import counts
        rng = np.random.default_rng(0)
        x = o.parameter([1, 8, 32, 32], name="x")
        weights = rng.standard_normal((16, 8, 3, 3), dtype=np.float32)
        y = o.relu(o.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
        y = o.reshape(o.softmax(y, 1), np.array([16, 1024]), False)
        y = o.matmul(y, rng.standard_normal((1024, 64), dtype=np.float32), False, False)
        y = o.transpose(o.erf(y), np.array([1, 0]))
        model = ov.Model([y], [x])
        with Heartbeat() as beat:
            compiled = ov.Core().compile_model(model, "CPU")
        assert counts["compiled"] + counts["shipped"] >= 4, counts
        print(beat.gap < LONGEST, f"compile_model held the GIL for {beat.gap:.3f} s, until", beat.where)
        assert np.isfinite(compiled(rng.standard_normal((1, 8, 32, 32), dtype=np.float32))[0]).all()
    """)
    for attempt in range(ATTEMPTS):  # each in a process of its own: the second compilation in one is none
        said = run_alone(program, tmp_path / str(attempt))
        if said.startswith("True"):
            break
    assert said.startswith("True"), said


def test_a_frozen_heap_stays_frozen(tmp_path):
    """`gc.freeze` before forking is a habit of servers; compiling must not undo it."""
    program = textwrap.dedent("""
        import gc
        import numpy as np
        import ovjit as ov
        from ovjit.codegen.compiling import counts
        x = ov.opset8.parameter([8], name="x")
        model = ov.Model([ov.opset8.tanh(x)], [x])
        ballast = [{} for _ in range(50_000)]
        before = gc.get_freeze_count()
        ov.compile_model(model)
        assert gc.get_freeze_count() == before and gc.isenabled()
        gc.freeze()
        frozen = gc.get_freeze_count()
        known = sum(counts.values())
        compiled = ov.compile_model(ov.Model([ov.opset8.exp(x)], [x]))
        assert sum(counts.values()) > known
        # reference counting takes objects away, not many
        assert gc.get_freeze_count() > frozen * 0.9
    """)
    run_alone(program, tmp_path)


def test_reading_and_asking_about_a_model(core, model):
    path = str(build("resnet50"))
    xml, weights = Path(path).read_bytes(), Path(path).with_suffix(".bin").read_bytes()
    for what, call in {
        "read_model of a file": lambda: core.read_model(path),
        "read_model of bytes": lambda: core.read_model(xml, weights),
        "query_model": lambda: core.query_model(model, "CPU"),
        "reshape": lambda: core.read_model(path).reshape([2, 3, 224, 224]),
        "get_available_devices": lambda: core.get_available_devices(),
    }.items():
        gives_way(what, call)


@pytest.fixture
def own_objects_only():
    """A full collection looks at all objects of the process: not at what the other tests have left. They stay
    frozen: those of later tests shall not look at what was imported either (`conftest.py`)."""
    gc.collect()
    gc.freeze()


def test_compiling_with_kernels_at_hand(core, model, compiled, own_objects_only):
    gives_way("compile_model", lambda: core.compile_model(model, "CPU"))


def test_exporting_and_importing(core, compiled):
    """A hundred megabytes: a single copy of them would hold the GIL for too long."""

    def to_a_stream():
        stream = io.BytesIO()
        compiled.export_model(stream)
        return stream

    blob = gives_way("export_model", compiled.export_model)
    given = gives_way("export_model to a stream", to_a_stream)
    assert given.getvalue() == blob.getvalue()
    again = gives_way("import_model", lambda: core.import_model(blob, "CPU"))
    x = network_input("resnet50")
    np.testing.assert_array_equal(again([x])[0], compiled([x])[0])


def test_inferring(compiled):
    x = network_input("resnet50")
    request = compiled.create_infer_request()

    def poll():
        request.start_async([x])
        while not request.wait_for(2):
            pass

    for what, call in {
        "infer": lambda: request.infer([x]),
        "calling": lambda: compiled([x]),
        "infer_new_request": lambda: compiled.infer_new_request([x]),
        "start_async": lambda: request.start_async([x]),
        "wait": lambda: request.wait(),
        "wait_for": poll,
        "get_profiling_info": lambda: request.get_profiling_info(),
        "query_state": lambda: request.query_state(),
        "create_infer_request": lambda: compiled.create_infer_request(),
        "get_runtime_model": lambda: compiled.get_runtime_model(),
    }.items():
        gives_way(what, call)


@pytest.mark.parametrize("callback", [False, True])
def test_a_queue(compiled, callback):
    x = network_input("resnet50")
    queue = ovjit.AsyncInferQueue(compiled, 2)
    if callback:
        queue.set_callback(lambda request, userdata: request.results)

    def start():
        for _ in range(6):
            queue.start_async([x])
            queue.is_ready()

    gives_way("start_async", start)
    gives_way("get_idle_request_id", queue.get_idle_request_id)
    start()
    gives_way("wait_all", queue.wait_all)
