"""Dimension, PartialShape, Shape and Layout: any of them, beside OpenVINO's; models of another shape."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.beside import dimensions, partial, same, small_dimensions

shapes = st.one_of(st.none(), st.lists(dimensions, max_size=5))
slices = st.builds(
    slice, *[st.one_of(st.none(), st.integers(-7, 7))] * 2, st.sampled_from([None, 1, 2, -1, -2, 3])
)

#: What OpenVINO reads as 0, and ovjit refuses.
MUDDLED = re.compile(r"\d-")


def dimension(package: Any, d: Any) -> Any:
    return package.Dimension(*d) if isinstance(d, tuple) else package.Dimension(d)


@given(dimensions)
def test_a_dimension(d: Any) -> None:
    same(
        lambda ov: [
            str(x := dimension(ov, d)),
            repr(x),
            x.is_dynamic,
            x.is_static,
            x.min_length,
            x.max_length,
        ]
    )
    same(lambda ov: dimension(ov, d).get_length())
    same(lambda ov: ov.Dimension(str(dimension(ov, d))))


@given(st.integers(-(2**65), 2**65), st.one_of(st.none(), st.integers(-(2**65), 2**65)))
def test_any_numbers_as_a_dimension(low: int, high: int | None) -> None:
    same(lambda ov: ov.Dimension(low) if high is None else ov.Dimension(low, high))


@given(dimensions, dimensions)
def test_two_dimensions(a: Any, b: Any) -> None:
    for name in ("compatible", "refines", "relaxes", "same_scheme", "__eq__", "__ne__"):
        same(lambda ov, name=name: getattr(dimension(ov, a), name)(dimension(ov, b)))


@given(shapes)
def test_a_partial_shape(dims: Any) -> None:
    for name in ("rank", "is_static", "is_dynamic", "all_non_negative"):
        same(lambda ov, name=name: getattr(partial(ov, dims), name))
    for name in (
        "to_shape",
        "get_shape",
        "get_min_shape",
        "get_max_shape",
        "to_string",
        "__len__",
        "__str__",
    ):
        same(lambda ov, name=name: getattr(partial(ov, dims), name)())
    same(lambda ov: ov.PartialShape(str(partial(ov, dims))))
    same(lambda ov: repr(partial(ov, dims)))


@given(shapes, shapes)
def test_two_partial_shapes(a: Any, b: Any) -> None:
    for name in ("compatible", "refines", "relaxes", "same_scheme", "__eq__"):
        same(lambda ov, name=name: getattr(partial(ov, a), name)(partial(ov, b)))
        same(lambda ov, name=name: getattr(partial(ov, a), name)(partial(ov, a)))


@given(shapes, st.one_of(slices, st.integers(-7, 7)), dimensions)
def test_items_of_a_partial_shape(dims: Any, item: Any, new: Any) -> None:
    if isinstance(item, int) and dims is not None:
        assume(-len(dims) <= item < len(dims))  # OpenVINO reads memory behind its end
    same(lambda ov: partial(ov, dims)[item])
    assume(isinstance(item, int))

    def changed(ov: Any) -> Any:
        shape = partial(ov, dims)
        shape[item] = dimension(ov, new)
        return shape

    same(changed)


@given(
    st.lists(st.sampled_from([*"[]{},? x", *",,??", "..", "-1", "0", "12", "3..5"]), max_size=9).map("".join)
)
def test_text_as_a_partial_shape(text: str) -> None:
    assume(not MUDDLED.search(text))
    same(lambda ov: ov.PartialShape(text))


@given(st.lists(st.sampled_from(["..", "?", "-1", "0", "12", " ", "-7", "x"]), max_size=4).map("".join))
def test_text_as_a_dimension(text: str) -> None:
    assume(not MUDDLED.search(text))
    same(lambda ov: ov.Dimension(text))


@given(
    st.lists(st.one_of(st.integers(0, 9), st.integers(-(2**64), 2**65)), max_size=5),
    st.one_of(slices, st.integers(-7, 7)),
)
def test_a_shape(dims: list[int], item: Any) -> None:
    same(lambda ov: list(ov.Shape(dims)))
    same(lambda ov: ov.Shape(dims))
    if isinstance(item, slice) or -len(dims) <= item < len(dims):  # OpenVINO reads memory behind its end
        same(lambda ov: ov.Shape(dims)[item])
    same(lambda ov: ov.PartialShape(ov.Shape(dims)))


@given(
    st.lists(st.sampled_from([*"NCHWD?n0[], ", "...", "_x", "N1"]), max_size=6),
    st.booleans(),
    st.sampled_from(["N", "C", "?", "...", "n", "_x", "N1", ""]),
)
def test_text_as_a_layout(words: list[str], separate: bool, name: str) -> None:
    text = f"[{','.join(words)}]" if separate else "".join(words)
    assume(not re.search(r"\.\.\..*, *[],]", text))  # behind "..." OpenVINO reads a blank as "?"
    same(lambda ov: (ov.Layout(text).to_string(), ov.Layout(text).empty, ov.Layout(text).has_name(name)))
    same(lambda ov: ov.Layout(text).get_index_by_name(name))
    same(lambda ov: ov.layout_helpers.channels_idx(ov.Layout(text)))


@given(
    st.lists(small_dimensions, min_size=2, max_size=2),
    st.lists(small_dimensions, max_size=3),
    st.sampled_from("lpti"),
)
def test_a_model_of_another_shape(first: list[Any], dims: list[Any], form: str) -> None:
    """By a list, a PartialShape, its text, or a dict by the input."""

    def reshaped(ov: Any) -> Any:
        ops = ov.opset13
        x = ops.parameter(partial(ov, first), np.float32, name="x")
        model = ov.Model([ops.concat([x, x], -1), ops.reduce_sum(x, np.int64(0), False)], [x], "m")
        shape = partial(ov, dims)
        given = {"l": dims, "p": shape, "t": str(shape), "i": {model.input(): shape}}[form]
        model.reshape(given)
        return [str(port.partial_shape) for port in [model.input(), *model.outputs]]

    same(reshaped)
