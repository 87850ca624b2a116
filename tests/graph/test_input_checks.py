"""The words in which operations say what they ask of their inputs while types are inferred."""

from __future__ import annotations

import pytest

from ovjit.errors import ModelError
from ovjit.graph.op import TensorType, find_op
from ovjit.graph.shapes import ANY, Interval, compatible, compatible_shapes
from ovjit_ops.common.checks import check_rank, check_same_type, check_type, dims
from ovjit_ops.common.dims import unify


def f32(*shape):
    return TensorType("f32", shape)


def test_letters_learn_from_every_input():
    known = unify(data=(f32(2, 7, ANY), "NCL"), rois=(f32(ANY, 4), "R4"), at=(f32(Interval(1, 9)), "R"))
    assert known.shape("NC4") == (2, 7, 4)
    assert known["R"] == Interval(1, 9) and known["L"] == ANY and known["Z"] == ANY
    assert unify(absent=(None, "AB"), open=(TensorType("f32", None), "A"))["A"] == ANY


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"a": (f32(2, 3), "NC"), "b": (f32(4), "C")}, r"b .*should have 3 in dimension 0 \(C\)"),
        ({"rois": (f32(2, 5), "R4")}, r"rois .*should have 4 in dimension 1"),
        ({"a": (f32(2), "NC")}, r"a should have the dimensions \[N C\]"),
        ({"a": (TensorType("i32", (2,)), "N")}, r"a should be one of f16 f32"),
    ],
)
def test_what_does_not_fit_is_named(inputs, says):
    with pytest.raises(ModelError, match=says):
        unify(("f32", "f16"), **inputs)


def test_what_is_not_known_is_as_good_as_any():
    nothing = TensorType("dynamic", None)
    check_type(nothing, ("f32",), "x")
    check_same_type(f32(1), nothing, "x")
    check_same_type(nothing, f32(1), "x")
    check_rank(nothing, 3, "x")
    assert dims(nothing, 2) == (ANY, ANY)
    assert compatible(ANY, 3) and not compatible(Interval(4, 5), 3)
    assert compatible_shapes(None, (2,)) and not compatible_shapes((2,), (2, 1))
    with pytest.raises(ModelError, match="differs in element type"):
        check_same_type(f32(1), TensorType("f64", (1,)), "x")


def test_data_of_an_open_type_takes_updates_of_any():
    """As OpenVINO merges element types: what is dynamic may turn out to be the other one."""
    data, one = TensorType("dynamic", (4,)), TensorType("i64", (1,))
    assert find_op("SliceScatter").infer_types([data, f32(1), one, one, one], {})[0] == data
    assert find_op("ScatterUpdate", 3).infer_types([data, one, f32(1), TensorType("i64", ())], {})[0] == data
