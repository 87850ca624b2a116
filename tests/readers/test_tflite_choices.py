"""TensorFlow Lite: options that are members of an enumeration, and what lies behind the flatbuffer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ovjit as ov

pytest.importorskip("tflite", reason="needs ovjit[tflite]")
import tflite

from ovjit.errors import ModelError
from ovjit.readers.tflite.reader import ENUMERATIONS, read_tflite
from tests.support.tflite.files import G, Op, T, const, quantized, write

SEED = 20271128


def small_integers() -> Iterator[tuple[str, str]]:
    """(table, option) of each option of one byte that is no truth value: the schema's enumerations"""
    for table in sorted(
        n for n in vars(tflite.BuiltinOptions) | vars(tflite.BuiltinOptions2) if n[0].isupper()
    ):
        for name, accessor in vars(getattr(tflite, table, object)).items():
            if not inspect.isfunction(accessor) or name.startswith("_"):
                continue
            source = inspect.getsource(accessor)
            if len(inspect.signature(accessor).parameters) > 1:  # an element of a list
                continue
            if re.search(r"\.Get\(flatbuffers\.number_types\.U?[iI]nt8Flags", source):
                yield table, name


def test_each_enumeration_of_the_schema_is_declared() -> None:
    found = set(small_integers())
    assert len(found) > 30
    assert {name for _, name in found} - set(ENUMERATIONS) == set()


@pytest.mark.parametrize(("table", "option"), sorted(set(small_integers())))
def test_a_wrong_member_is_refused(table: str, option: str) -> None:
    op = Op("ABS", ["x"], ["y"], table, {option: 99})
    data = write(G([T("x", (2,)), T("y", (2,))], [op], ["x"], ["y"]))
    with pytest.raises(ModelError, match=f"attribute '{option}' is 99, which is none of its choices: .*ABS"):
        ov.Core().read_model(data)


def test_members_of_stablehlo_are_declared() -> None:
    op = Op("ABS", ["x"], ["y"], "StablehloCompareOptions", {"ComparisonDirection": 77})
    data = write(G([T("x", (2,)), T("y", (2,))], [op], ["x"], ["y"]))
    with pytest.raises(ModelError, match="'ComparisonDirection' is 77, .*STABLEHLO_COMPARISON_DIRECTION_EQ"):
        ov.Core().read_model(data)


def test_constants_behind_the_flatbuffer() -> None:
    rng = np.random.default_rng(SEED)
    weights, bias = rng.normal(size=(5, 7)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    stored = rng.integers(-127, 128, (5, 5)).astype(np.int8)
    tensors = [
        T("x", (3, 7)), const("w", weights), const("b", bias), T("h", (3, 5)),
        const("q", stored, quant=quantized(0.02)), T("y", (3, 5)), const("flag", np.array([True])),
    ]  # fmt: skip
    how = "FullyConnectedOptions", {"KeepNumDims": True}
    ops = [
        Op("FULLY_CONNECTED", ["x", "w", "b"], ["h"], *how),
        Op("FULLY_CONNECTED", ["h", "q"], ["y"], *how),
    ]
    graph = G(tensors, ops, ["x"], ["y"])
    inside, outside = write(graph), write(graph, outside=True)
    assert weights.tobytes() in outside and len(outside) > outside.index(weights.tobytes()) > 100
    x = rng.normal(size=(3, 7)).astype(np.float32)
    results = [ov.compile_model(data, "CPU")([x])[0] for data in (inside, outside)]
    np.testing.assert_array_equal(*results)
    expected = (x @ weights.T.astype(np.float64) + bias) @ (stored.T * 0.02)
    np.testing.assert_allclose(results[1], expected, rtol=1e-4, atol=1e-4)


def custom(outside: bool, **fields: Any) -> bytes:
    from flatbuffers import flexbuffers

    builder = flexbuffers.Builder()
    with builder.Map():
        for name, value in fields.items():
            builder.Key(name)
            builder.Float(value) if isinstance(value, float) else builder.Int(value)
    rng = np.random.default_rng(SEED)
    anchors = const("anchors", rng.random((6, 4), np.float32))
    tensors = [T("boxes", (1, 6, 4)), T("scores", (1, 6, 3)), anchors,
               T("o0", (1, 4, 4)), T("o1", (1, 4)), T("o2", (1, 4)), T("o3", (1,))]  # fmt: skip
    outputs = ["o0", "o1", "o2", "o3"]
    op = Op("CUSTOM", ["boxes", "scores", "anchors"], outputs, custom="TFLite_Detection_PostProcess",
            custom_options=bytes(builder.Finish()))  # fmt: skip
    return write(G(tensors, [op], ["boxes", "scores"], outputs), outside=outside)


FIELDS: dict[str, Any] = {
    "max_detections": 4, "max_classes_per_detection": 1, "num_classes": 3, "nms_score_threshold": 0.1,
    "nms_iou_threshold": 0.5, "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0,
    "use_regular_nms": 0, "detections_per_class": 4,
}  # fmt: skip


def test_options_behind_the_flatbuffer() -> None:
    rng = np.random.default_rng(SEED)
    inputs = [rng.normal(size=(1, 6, 4)).astype(np.float32), rng.random((1, 6, 3), np.float32)]
    inside, outside = (ov.compile_model(custom(where, **FIELDS), "CPU")(inputs) for where in (False, True))
    for i in range(4):
        np.testing.assert_array_equal(inside[i], outside[i])
    assert outside[3] > 0


def test_a_converter_gets_options_behind_the_flatbuffer() -> None:
    seen: list[bytes] = []

    def convert(node: Any) -> Any:
        seen.append(node.attributes["custom_options"])
        return [node("Relu", node[0])] * 4

    converters = {"TFLite_Detection_PostProcess": convert}
    for where in (False, True):
        read_tflite(custom(where, **FIELDS), converters=converters)
    assert bytes(seen[0]) == bytes(seen[1]) and len(seen[1]) > 40


def test_offsets_outside_of_the_file_are_refused() -> None:
    data = write(G([T("x", (4,)), const("c", np.ones(4, np.float32)), T("y", (4,))],
                   [Op("ADD", ["x", "c"], ["y"], "AddOptions")], ["x"], ["y"]), outside=True)  # fmt: skip
    assert ov.Core().read_model(data)
    with pytest.raises(RuntimeError, match="the data of 'c' are outside of the file"):
        ov.Core().read_model(data[:-4])
    with pytest.raises(RuntimeError, match="the options of TFLite_Detection_PostProcess are outside"):
        ov.Core().read_model(custom(True, **FIELDS)[:-4])
    for place in range(0, len(data), 3):  # damaged files
        for value in (0, 1, 255):
            try:
                ov.Core().read_model(data[:place] + bytes([value]) + data[place + 1 :])
            except RuntimeError:
                pass
