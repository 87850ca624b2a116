"""Interrupts at bytecodes of what changes models and keeps files: reshapes, exports, imports, caches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit import opset13 as op
from tests.support.interrupted import SignalError, bytecodes, check_interrupted, sample_of

SEED = 20261129
WEIGHTS = np.random.default_rng(SEED).standard_normal((8, 5)).astype(np.float32)
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
#: Classes of exceptions that signals' handlers raise.
ERRORS = (KeyboardInterrupt, SignalError, TimeoutError)
Case = tuple[Callable[[], Any], Callable[[], Any], tuple[str, ...]]

pytestmark = pytest.mark.thread_unsafe(reason="trace functions are of a thread")


def make_model() -> Any:
    x = op.parameter([-1, 8], np.float32, name="x")
    y = op.relu(op.matmul(x, op.constant(WEIGHTS), False, False))
    return ovjit.Model([op.result(y), op.result(op.softmax(y, 1))], [x], "m")


def check_answers(compiled: Any, rows: int = 3) -> None:
    x = np.random.default_rng(SEED + rows).standard_normal((rows, 8)).astype(np.float32)
    y = np.maximum(x.astype(np.float64) @ WEIGHTS, 0)
    e = np.exp(y - y.max(1, keepdims=True))
    results = compiled(x)
    np.testing.assert_allclose(results[0], y, atol=1e-4)
    np.testing.assert_allclose(results[1], e / e.sum(1, keepdims=True), atol=1e-5)


def reshapes(folder: str) -> Case:
    """All shapes of a model are those for one size of its input, whenever it is interrupted."""
    model, core = make_model(), ovjit.Core()
    model.get_parameters()[0].set_layout(ovjit.Layout("NC"))

    def scenario() -> None:
        for rows in (3, -1):
            model.reshape([rows, 8])
        ovjit.set_batch(model, 4)
        model.validate_nodes_and_infer_types()

    def check() -> None:
        ports = [*model.inputs, *model.outputs]
        assert len({str(port.partial_shape[0]) for port in ports}) == 1, [str(p.partial_shape) for p in ports]
        model.reshape([-1, 8])
        check_answers(core.compile_model(model, "CPU", EXACT))

    return scenario, check, ("ovjit/api/model/",)


def exports(folder: str) -> Case:
    core = ovjit.Core()
    compiled = core.compile_model(make_model(), "CPU", EXACT)
    kept = compiled.export_model().getvalue()

    def scenario() -> None:
        core.import_model(compiled.export_model().getvalue(), "CPU", EXACT)(np.ones((2, 8), np.float32))

    def check() -> None:
        check_answers(compiled)
        for data in (kept, compiled.export_model().getvalue()):
            check_answers(core.import_model(data, "CPU", EXACT))

    return scenario, check, ("ovjit/storage/", "ovjit/engine.py", "ovjit/api/run/compiled.py")


def caches(folder: str) -> Case:
    """A folder of compiled models: written, read, and written again."""
    core, model, count = ovjit.Core(), make_model(), 0
    core.set_property({"CACHE_DIR": folder})

    def scenario() -> None:
        nonlocal count
        count += 1
        if count % 3 == 0:
            shutil.rmtree(folder)
        for _ in range(2):
            core.compile_model(model, "CPU", EXACT)(np.ones((2, 8), np.float32))

    def check() -> None:
        check_answers(core.compile_model(model, "CPU", EXACT))
        files = [name for _, _, names in os.walk(folder) for name in names]
        assert len(files) < 20, files

    return scenario, check, ("ovjit/storage/", "ovjit/disk/", "ovjit/api/run/core.py")


CASES = {case.__name__: case for case in (reshapes, exports, caches)}


def _try(name: str, folder: str, count: int) -> None:
    scenario, check, files = CASES[name](folder)
    for _ in range(2):
        scenario()
        check()
    numbers = sample_of(bytecodes(scenario, files), count, SEED)
    check()
    for i, error in enumerate(ERRORS):
        assert check_interrupted(scenario, check, numbers[i :: len(ERRORS)], error, files) > 0


@pytest.mark.parametrize("name", CASES)
def test_some_bytecodes(name: str, tmp_path: Any) -> None:
    _try(name, str(tmp_path / "models"), 60)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_many_bytecodes(name: str, tmp_path: Any) -> None:
    _try(name, str(tmp_path / "models"), 1500)


def test_an_interrupt_while_shapes_are_taken_over() -> None:
    """At every bytecode of the function."""
    scenario, check, _ = reshapes("")
    scenario()
    files = ("ovjit/api/model/model_edits.py", "ovjit/api/model/node_ports.py")
    places = bytecodes(scenario, files)
    wanted = [
        i for i, (code, _) in enumerate(places) if code.co_name in ("_settle", "_take_over", "<lambda>")
    ]
    assert len(wanted) > 100
    check_interrupted(scenario, check, wanted[::7], SignalError, files)


def test_a_time_limit_is_no_damaged_file(tmp_path: Any, monkeypatch: Any) -> None:
    """What a signal's handler raises while a kept model is read or written comes out of `compile_model`."""
    from ovjit.storage import graph_format, model_cache

    core, model = ovjit.Core(), make_model()
    core.set_property({"CACHE_DIR": str(tmp_path / "models")})
    core.compile_model(model, "CPU", EXACT)

    def limit(*_: Any, **__: Any) -> None:
        raise error("the time is over")

    for error in (SignalError, TimeoutError):
        for module, name in (
            (graph_format.Reader, "_value"), (model_cache, "read_file"), (model_cache, "known_digest"),
        ):  # fmt: skip
            with monkeypatch.context() as patch:
                patch.setattr(module, name, limit)
                with pytest.raises(error, match="the time is over"):
                    core.compile_model(model, "CPU", EXACT)
        other = ovjit.Core()
        other.set_property({"CACHE_DIR": str(tmp_path / error.__name__)})
        with monkeypatch.context() as patch:
            patch.setattr(model_cache, "write_plain", limit)
            with pytest.raises(error, match="the time is over"):
                other.compile_model(model, "CPU", EXACT)
