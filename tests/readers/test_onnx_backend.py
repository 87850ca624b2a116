"""ONNX's own backend tests: all pass by the references but those listed with a reason; some run natively, and
some in the real OpenVINO from the IR that ovjit writes. The package takes ten seconds to compute them.

`tests/support/onnx/scoreboard.py` counts the same tests for OpenVINO and ONNX Runtime; docs/onnx.md has the
table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.graph import interp
from tests.support.onnx.cases import KINDS, Case, as_arrays, as_rows, input_names, load_cases, reasons
from tests.support.onnx.scoreboard import _array, _tensor, engine, judge


def cases(kind: str) -> list[Case]:
    return load_cases((kind,))


def by_reference(case: Case) -> list[list[Any]]:
    """The outputs of a case's runs, node by node in NumPy."""
    graph = ov.Core().read_model(case.model)._graph()
    names = input_names(case)
    outputs = []
    for inputs, _ in case.runs:
        given = dict(zip(names, map(as_arrays, inputs), strict=False))
        arrays = [given[value.node.name] for value in graph.inputs]
        if any(array is None for array in arrays):
            raise RuntimeError("an empty optional cannot be an input")
        arrays = [as_rows(a) if isinstance(a, list) else a for a in arrays]
        arrays = [a.astype(object) if a.dtype.kind in "US" else a for a in arrays]
        outputs.append(list(interp.evaluate(graph, arrays)))
    return outputs


def unexpected(run: Any, chosen: list[Case]) -> tuple[list[str], list[str]]:
    """(what fails without a listed reason, listed tests that pass)."""
    fails, passes = [], []
    for case in chosen:
        status, said = judge(run, case)
        if status != "pass" and case.name not in reasons():
            fails.append(f"{case.name}: {status}: {said[:300]}")
        elif status == "wrong" and "no engine" not in reasons()[case.name]:
            fails.append(f"{case.name}: wrong, which no reason excuses: {said[:300]}")
        elif status == "pass" and case.name in reasons():
            passes.append(case.name)
    return fails, passes


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", KINDS)
def test_by_the_references(kind: str, step: int) -> None:
    """Every third case by default; those of one operator have names that are neighbours."""
    with np.errstate(all="ignore"):
        fails, _ = unexpected(by_reference, cases(kind)[::step])
    assert not fails, "\n".join(fails)


def test_a_tenth_natively() -> None:
    chosen = [case for kind in KINDS for case in cases(kind)][3::40]
    fails, _ = unexpected(engine("ovjit"), chosen)
    assert not fails, "\n".join(fails)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_all_natively(kind: str) -> None:
    fails, passes = unexpected(engine("ovjit"), cases(kind))
    assert not fails, "\n".join(fails)
    assert not passes, f"these pass now; take them off tests/support/onnx/not_passed.txt: {passes}"


def test_every_reason_is_of_a_test() -> None:
    names = {case.name for kind in KINDS for case in cases(kind)}
    assert set(reasons()) <= names
    assert len(names) - len(reasons()) > 1780


#: Computed differently by OpenVINO for every writer of the file: f64, beyond i32, saturation, rounding.
OPENVINOS_OWN = (
    "DOUBLE",
    "float64",
    "bf16",
    "FLOAT8",
    "int64",
    "uint64",
    "shift_ge_width",
    "tile",
    "add_broadcast",
)


def by_openvino(case: Case, path: Path) -> list[list[Any]]:
    """The outputs of a case's runs: the file that ovjit writes, in the real OpenVINO."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ports = {name: port for port in compiled.inputs for name in port.get_names()}
    outputs = []
    for inputs, _ in case.runs:
        request = compiled.create_infer_request()
        for name, value in zip(input_names(case), map(as_arrays, inputs), strict=False):
            if name in ports:
                port = ports[name]
                request.set_tensor(port, _tensor(openvino, value, port.get_element_type()))
        request.infer()
        outputs.append([_array(request.get_output_tensor(i)) for i in range(len(compiled.outputs))])
    return outputs


def check_in_openvino(chosen: list[Case], folder: Path) -> tuple[int, list[str]]:
    """(how many agree, what does not)"""
    good, bad = 0, []
    for case in chosen:
        if case.name in reasons() or any(word in case.name for word in OPENVINOS_OWN):
            continue
        path = folder / "model.xml"
        ov.save_model(ov.Core().read_model(case.model), path, compress_to_fp16=False)
        status, said = judge(lambda case: by_openvino(case, folder / "model.xml"), case)
        if status == "pass":
            good += 1
        elif not ("dynamic rank" in said or "rank().is_dynamic()" in said or "e-0" in said):
            bad.append(f"{case.name}: {status}: {said[-300:]}")
    return good, bad


def test_openvino_reads_what_is_written(tmp_path: Path) -> None:
    good, bad = check_in_openvino(load_cases()[5::48], tmp_path)
    assert not bad, "\n".join(bad)
    assert good > 25


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_openvino_reads_all_that_is_written(tmp_path: Path) -> None:
    good, bad = check_in_openvino(load_cases(), tmp_path)
    assert len(bad) < 0.03 * good, "\n".join(bad)
