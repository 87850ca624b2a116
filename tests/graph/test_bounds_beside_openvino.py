"""Bounds of dynamic dimensions that inference gives, beside the real OpenVINO's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit


def _sizes(o: Any, x: Any, *places: int, times: int = 1) -> Any:
    """Some dimensions of x, as the model computes them."""
    picked = o.gather(o.shape_of(x), np.array(places), np.int64(0))
    return o.multiply(picked, np.array([times])) if times > 1 else picked


def _size(o: Any, x: Any, place: int) -> Any:
    return o.gather(o.shape_of(x), np.int64(place), np.int64(0))


def _odd(o: Any, x: Any) -> Any:
    return o.minimum(o.shape_of(x), np.array([1]))


WINDOW = ([1, 1], [0, 0], [0, 0], [1, 1])
PLANE = ("asymmetric", "floor", False, -0.75, np.array([2, 3]))
CASES = {
    "one length per sample": ("[?,4,?]", lambda o, x: o.reverse_sequence(x, np.array([1, 2, 3]), 0, 1)),
    "samples of a range": ("[2..4,4]", lambda o, x: o.reverse_sequence(x, np.array([1, 2, 3]), 0, 1)),
    "positions": ("[2..4,3]", lambda o, x: o.non_zero(x)),
    "positions in constants": (
        "[2]",
        lambda o, x: o.non_zero(
            o.multiply(o.constant(np.float32([[1, 0], [2, 3]])), np.float32([[1, 1], [0, 1]]))
        ),
    ),
    "positions in a constant scalar": ("[2]", lambda o, x: o.non_zero(o.constant(np.int32(3)))),
    "positions without a bound": ("[2..,3]", lambda o, x: o.non_zero(x)),
    "blocks of an odd bound": ("[1,4,3..7,2..6]", lambda o, x: o.space_to_depth(x, "blocks_first", 2)),
    "blocks of channels": ("[1,7..13,2,2]", lambda o, x: o.depth_to_space(x, "depth_first", 2)),
    "blocks of a batch": (
        "[2,4..6,?]",
        lambda o, x: o.space_to_batch(x, np.array([1, 2, 2]), np.array([0, 1, 0]), np.array([0, 0, 0])),
    ),
    "blocks of Darknet": ("[1,4,3..4,2..6]", lambda o, x: o.reorg_yolo(x, [2])),
    "no axis to skip": ("[2..5,1,3..]", lambda o, x: o.squeeze(x, np.array([0, 1]), True)),
    "an axis that may be skipped": ("[1..5,1]", lambda o, x: o.squeeze(x, np.array([0]), True)),
    "values of unknown rank": ("[...]", lambda o, x: o.search_sorted(np.zeros((3, 4), "f4"), x)),
    "updates tell the rank": (
        "[...]",
        lambda o, x: o.slice_scatter(
            x, o.parameter([-1, -1], np.float32), np.array([0]), np.array([2]), np.array([1]), np.array([0])
        ),
    ),
    "rows that are computed": (
        "[3..5,2]",
        lambda o, x: o.eye(_size(o, x, 0), np.int64(2), np.int64(0), "f32"),
    ),
    "a batch that is computed": (
        "[3..5,2]",
        lambda o, x: o.eye(np.int64(2), np.int64(2), np.int64(0), "f32", o.shape_of(x)),
    ),
    "no class at all": (
        "[3..5,2]",
        lambda o, x: o.one_hot(o.convert(x, "i64"), np.int64(0), np.float32(1), np.float32(0), 1),
    ),
    "pads that are computed": ("[3..5,2]", lambda o, x: o.pad(x, _odd(o, x), _odd(o, x), "constant")),
    "k that is computed": ("[3..5,2..7]", lambda o, x: o.topk(x, _size(o, x, 0), 1, "max", "value")),
    "boxes": (
        "[1,2,3..4,5]",
        lambda o, x: o.prior_box(
            _sizes(o, x, 2, 3), _sizes(o, x, 2, 3), {"offset": 0.5, "min_size": [2.0], "aspect_ratio": [2.0]}
        ),
    ),
    "a transposed convolution's size": (
        "[1,3,3..4,5]",
        lambda o, x: o.convolution_backprop_data(
            x, np.ones((3, 2, 2, 2), "f4"), [2, 2], _sizes(o, x, 2, 3, times=2)
        ),
    ),
    "a picture's size": (
        "[1,3,3..4,5]",
        lambda o, x: o.interpolate(x, _sizes(o, x, 2, 3, times=2), "nearest", "sizes", None, None, *PLANE),
    ),
    "segments that are computed": (
        "[3..5,2]",
        lambda o, x: o.embedding_segments_sum(
            x, np.zeros(4, "i4"), np.zeros(4, "i4"), o.convert(_size(o, x, 0), "i32")
        ),
    ),
    "operands of unknown rank": ("[...]", lambda o, x: o.add(x, np.ones(3, "f4"), "PDPD")),
    "scalars or tensors": (
        "[...]",
        lambda o, x: o.convert_promote_types(x, o.parameter([2], np.int32), True, True),
    ),
    "a scalar of another kind or a tensor": (
        "[...]",
        lambda o, x: o.convert_promote_types(o.convert(x, "u8"), o.parameter([], np.int32), True, True),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bounds(case: str) -> None:
    shape, make = CASES[case]
    told = []
    for ov in (openvino, ovjit):
        node = make(ov.opset15, ov.opset15.parameter(ov.PartialShape(shape), np.float32))
        told.append([(str(x.partial_shape), x.element_type.get_type_name()) for x in node.outputs()])
    assert told[0] == told[1]


def test_no_multiple_within_the_bounds() -> None:
    o = ovjit.opset15
    with pytest.raises(RuntimeError, match="must be a multiple of divisor: 4"):
        o.depth_to_space(o.parameter(ovjit.PartialShape("[1,5..7,2,2]")), "blocks_first", 2)


def test_a_bound_of_pads_is_a_bound() -> None:
    """OpenVINO's bound takes the parity of the largest extent; 3 becomes 4 here."""
    o = ovjit.opset15
    x = o.parameter(ovjit.PartialShape("[..4]"), np.float32)
    n = o.pad(x, np.array([0]), o.floor_mod(o.shape_of(x), np.array([2])), "constant")
    assert str(n.output(0).partial_shape) == "[..5]"


def test_a_type_that_depends_on_a_rank() -> None:
    """squeeze() may give a scalar, which would take the type of the tensor."""
    o = ovjit.opset15
    x, y = o.parameter([-1, -1], np.uint8), o.parameter([], np.int32)
    n = o.convert_promote_types(o.squeeze(x), y, True, True)
    with pytest.raises(RuntimeError, match="depends on their ranks"):
        ovjit.compile_model(ovjit.Model([n.output(0), n.output(1)], [x, y]), "CPU")
    n = o.convert_promote_types(o.convert(o.squeeze(x), "f32"), y, True, True)
    compiled = ovjit.compile_model(ovjit.Model([n.output(0), n.output(1)], [x, y]), "CPU")
    for shape in ((2, 3), (1, 1)):
        found = compiled([np.ones(shape, "u1"), np.int32(3)])
        assert found[0].tolist() == np.ones(shape).squeeze().tolist()
        assert (found[1].tolist(), found[1].dtype) == (3.0, np.float32)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_the_ends_of_a_type_are_no_limits_of_slices(dtype: type) -> None:
    """`?` sliced up to 2^31 - 1 in i32 stays `?`; in i64 that is a limit like others."""
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    rows = [(0, most, 1), (1, most, 1), (0, most, 2), (-3, most, 1), (-1, least, -1), (least, most, 1)]
    rows += [(0, most - 1, 1), (0, 5, 1), (0, 2**31 - 1, 1), (most, least, -1)]
    for least_rows, (start, stop, step) in itertools.product((0, 2), rows):
        if stop == 2**63 - 2:
            continue  # OpenVINO prints that number, which no tensor has
        said = []
        for package in (openvino, ovjit):
            o = package.opset13
            shape = package.PartialShape([package.Dimension(least_rows, -1), 4])
            limits = [np.array([v], dtype) for v in (start, stop, step)]
            x = o.parameter(shape, np.float32)
            cut = o.slice(x, *limits, np.array([0], dtype))
            strided = o.strided_slice(x, *limits, [0], [0])
            said.append([str(y.output(0).partial_shape) for y in (cut, strided)])
        if least_rows == 0 or dtype is np.int32:
            assert said[0] == said[1], (start, stop, step)
