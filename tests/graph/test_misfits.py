"""What operations ask of shapes is asked for real ones, too, where other operations make their results: the
words are those of the operation that the model has, and nothing is computed of what does not fit.

`fuzz_misfits` tries every operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from ovjit.planning import concrete_types
from tests.support.run import run_job

SEED = 20261122

#: Operation -> its attributes, shapes that fit, and shapes that do not.
MISFITS: dict[str, tuple[dict[str, Any], Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]]] = {
    "NV12toRGB": ({}, [(2, 4, 6, 1), (2, 2, 3, 2)], [(2, 4, 6, 1), (2, 2, 4, 2)]),
    "I420toBGR": ({}, [(1, 6, 4, 1)], [(1, 7, 4, 1)]),
    "RGBtoNV12": ({"single_plane": False}, [(1, 4, 6, 3)], [(1, 4, 5, 3)]),
    "ExtractImagePatches": (
        {"sizes": (3, 3), "strides": (1, 1), "rates": (2, 2), "auto_pad": "valid"},
        [(1, 2, 9, 9)],
        [(1, 2, 9, 4)],
    ),
    "ReverseSequence": ({"batch_axis": 0, "seq_axis": 1}, [(2, 5, 3), (2,)], [(2, 5, 3), (1,)]),
    "FakeConvert": ({}, [(2, 1, 4), (1, 4)], [(2, 1, 4), (3, 1)]),
    "ReorgYolo": ({"stride": (2,)}, [(1, 8, 4, 6)], [(1, 8, 5, 6)]),
}


def _graph(name: str, attrs: dict[str, Any], ranks: Sequence[int], before: str = "") -> Graph:
    """The operation alone on open shapes; `before`: on what this one makes of its first input."""
    b = Builder()
    inputs = [
        b.add("Parameter", (), {"shape": (ANY,) * rank, "element_type": "f32" if rank > 1 else "i64"}).output
        for rank in ranks
    ]
    if before:
        inputs[0] = b.add(before, [inputs[0]], {}).output
    record = find_op(name)
    return b.finish(b.add(record, inputs, record.check_attributes(attrs), name="asked").outputs)


def _arrays(shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    rng = np.random.default_rng(SEED)
    made = (rng.uniform(1, 200, shape).astype(np.float32) for shape in shapes)
    return [a if a.ndim > 1 else np.ones(a.shape, np.int64) for a in made]


def _run(executable: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    job = executable.new_job()
    return run_job(job, arrays)


@pytest.mark.parametrize("before", ("", "Relu"))
@pytest.mark.parametrize("name", MISFITS)
def test_the_reference_and_native_code_refuse_in_the_same_words(name: str, before: str) -> None:
    attrs, fitting, others = MISFITS[name]
    record = find_op(name)
    executable = compile_graph(_graph(name, attrs, [len(s) for s in fitting], before), {})
    assert f"asked ({name})" not in executable.program.host_nodes()
    checked = record.check_attributes(attrs)
    with pytest.raises(OvjitError) as reference:
        record.evaluate(_arrays(others), checked)
    for shapes in (fitting, fitting):  # planned anew, and by what planning has left
        want = record.evaluate(_arrays(shapes), checked)
        for a, b in zip(_run(executable, _arrays(shapes)), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
        with pytest.raises(OvjitError) as native:
            _run(executable, _arrays(others))
        assert str(native.value) == f"node 'asked' ({name}): {reference.value}"


def test_misfits_are_seen_by_what_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: slices give no patches of a picture that is too small."""
    monkeypatch.setattr(concrete_types, "_check_replaced", lambda *_: None)
    attrs, _, others = MISFITS["ExtractImagePatches"]
    executable = compile_graph(_graph("ExtractImagePatches", attrs, [4]), {})
    assert _run(executable, _arrays(others))[0].shape == (1, 18, 5, 0)


def test_it_is_asked_behind_shapes_that_depend_on_data() -> None:
    b = Builder()
    x, mask = (
        b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
        for shape in ((ANY, ANY, ANY, 3), (ANY,))
    )
    found = b.add("NonZero", [mask], {"output_type": "i64"}).output
    rows = b.add("Squeeze", [found, b.constant(np.array([0]))], {}).output
    chosen = b.add("Gather", [x, rows, b.constant(np.array(1))], {"batch_dims": 0}).output
    colours = b.add("RGBtoNV12", [chosen], {"single_plane": True}, name="asked").output
    executable = compile_graph(b.finish([colours]), {})
    picture = _arrays([(1, 6, 4, 3)])[0]
    for mask_, fits in (([0, 1, 1, 1, 0, 1], True), ([0, 1, 1, 1, 0, 0], False), ([1] * 6, True)):
        many = np.array(mask_, np.float32)
        if fits:
            want = find_op("RGBtoNV12").evaluate([picture[:, many > 0]], {"single_plane": True})[0]
            np.testing.assert_allclose(_run(executable, [picture, many])[0], want, rtol=1e-4, atol=1e-3)
            continue
        with pytest.raises(OvjitError, match="'asked'.*height"):
            _run(executable, [picture, many])


def test_a_blob_asks_as_the_model_does() -> None:
    shape = ov.PartialShape([1, -1, -1, 3])
    x = ops.parameter(shape, np.float32, name="x")
    node = ov.opset17.rgb_to_nv12(ops.relu(x), False)
    node.set_friendly_name("asked")
    compiled = ov.Core().compile_model(ov.Model(list(node.outputs()), [x]), "CPU")
    stream = compiled.export_model()
    for model in (compiled, ov.Core().import_model(stream, "CPU")):
        for extents in ((4, 6), (8, 8), (4, 6)):
            assert model([_arrays([(1, *extents, 3)])[0]])[0].shape == (1, *extents, 1)
        with pytest.raises(RuntimeError, match=r"node 'asked' \(RGBtoNV12\): .*width"):
            model([_arrays([(1, 4, 7, 3)])[0]])
