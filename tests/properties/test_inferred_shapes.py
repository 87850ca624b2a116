"""Arithmetic of dimensions as operations do it: the outputs' shapes of single nodes, beside OpenVINO's.

Of known shapes both refuse a node, or say the same of its outputs. Of open ones ovjit refuses a node only if
OpenVINO refuses all known ones that fit them; else it gives a shape that theirs fit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from hypothesis import given
from hypothesis import strategies as st

import ovjit
from tests.support.beside import outcome, partial, small_dimensions

ranked = st.lists(small_dimensions, max_size=5)
shapes = st.one_of(ranked, ranked, ranked, ranked, st.none())


def inferred(
    build: Callable[[Any, Any], Any], *dims: Any, stricter: bool = False, open_too: bool = True
) -> None:
    """The output shapes of a node whose parameters have these shapes, or known ones that fit. `stricter`:
    ovjit may refuse what OpenVINO takes, such as an axis named twice. `open_too`: not only the known ones."""
    rng = random.Random(str(dims))
    known = [[_known(rng, d) for d in (rng.choices(range(1, 5), k=rng.randrange(5)) if one is None else one)]
             for one in dims]  # fmt: skip
    exact = outcome(lambda package: _outputs(build, package, known), ovjit)
    theirs = outcome(lambda package: _outputs(build, package, known), openvino)
    late = exact[0] == "raises" and (stricter or "?" in str(theirs))
    assert late or exact == theirs, f"{known}\nOpenVINO: {theirs}\novjit:    {exact}"
    if not open_too or late:
        return
    ours = outcome(lambda package: _outputs(build, package, dims), ovjit)
    if "raises" in (ours[0], exact[0]):
        assert exact[0] == "raises", f"{dims} is refused, {known} is taken: {exact}"
        return
    for shape, one in zip(_outputs(build, ovjit, dims), _outputs(build, ovjit, known), strict=True):
        assert ovjit.PartialShape(shape).relaxes(ovjit.PartialShape(one)), (
            f"{dims} gives {shape}, and {known} gives {one}"
        )


def _outputs(build: Callable[[Any, Any], Any], package: Any, dims: Any) -> list[str]:
    ops = package.opset13
    parameters = [ops.parameter(partial(package, d), np.float32) for d in dims]
    return [str(out.get_partial_shape()) for out in build(ops, parameters).outputs()]


def _known(rng: random.Random, d: Any) -> int:
    """A length that a dimension may have."""
    low, high = d if isinstance(d, tuple) else (0, -1) if d == -1 else (d, d)
    return rng.randint(low, low + 5 if high < 0 else high)


def of_rank(low: int, high: int) -> Any:
    return st.lists(small_dimensions, min_size=low, max_size=high)


#: Of four dimensions, none of which is 0.
images = st.lists(st.sampled_from([1, 2, 4, 7, (1, 4), (3, -1)]), min_size=4, max_size=4)


def ints(low: int, high: int, size: Any = None, least: int = 0, most: int = 5) -> Any:
    numbers = st.integers(low, high)
    return st.lists(
        numbers, min_size=least if size is None else size, max_size=most if size is None else size
    )


@given(shapes, shapes, st.sampled_from(["numpy", "none"]))
def test_elementwise(a: Any, b: Any, rule: str) -> None:
    inferred(lambda ops, p: ops.add(p[0], p[1], rule), a, b)


@given(st.lists(shapes, min_size=1, max_size=3), st.integers(-4, 4))
def test_concat(dims: list[Any], axis: int) -> None:
    inferred(lambda ops, p: ops.concat(p, axis), *dims)


@given(ranked, small_dimensions, st.integers(0, 4))
def test_concat_of_shapes_that_differ_in_one_dimension(dims: list[Any], other: Any, at: int) -> None:
    changed = [other if i == at else d for i, d in enumerate(dims)]
    inferred(lambda ops, p: ops.concat(p, min(at, max(len(dims) - 1, 0))), dims, changed)


@given(shapes, ints(-1, 12), st.booleans())
def test_reshape(dims: Any, target: list[int], special: bool) -> None:
    inferred(lambda ops, p: ops.reshape(p[0], np.array(target, np.int64), special), dims, stricter=True)


@given(of_rank(1, 4), of_rank(1, 4), st.booleans(), st.booleans())
def test_matmul(a: Any, b: Any, turned_a: bool, turned_b: bool) -> None:
    inferred(lambda ops, p: ops.matmul(p[0], p[1], turned_a, turned_b), a, b)


@given(shapes, ints(-1, 4))
def test_transpose(dims: Any, order: list[int]) -> None:
    inferred(lambda ops, p: ops.transpose(p[0], np.array(order, np.int64)), dims)


@given(shapes, ints(-5, 5, most=3))
def test_squeeze_and_unsqueeze(dims: Any, axes: list[int]) -> None:
    # where an open dimension turns out to be another than 1, the rank is another, too
    inferred(lambda ops, p: ops.squeeze(p[0], np.array(axes, np.int64)), dims, open_too=False)
    inferred(lambda ops, p: ops.unsqueeze(p[0], np.array(axes, np.int64)), dims, stricter=True)


@given(of_rank(1, 5), ints(-5, 5, most=3), st.booleans())
def test_reduce(dims: Any, axes: list[int], keep: bool) -> None:
    inferred(lambda ops, p: ops.reduce_sum(p[0], np.array(axes, np.int64), keep), dims)


@given(shapes, st.integers(-5, 5), st.integers(1, 4))
def test_split(dims: Any, axis: int, parts: int) -> None:
    inferred(lambda ops, p: ops.split(p[0], np.int64(axis), parts), dims)


@given(shapes, st.integers(-5, 5), ints(-1, 4, least=1, most=4))
def test_variadic_split(dims: Any, axis: int, lengths: list[int]) -> None:
    inferred(
        lambda ops, p: ops.variadic_split(p[0], np.int64(axis), np.array(lengths, np.int64)),
        dims,
        stricter=True,
    )


@given(of_rank(1, 4), shapes, st.integers(-5, 5), st.integers(-3, 3))
def test_gather(dims: Any, places: Any, axis: int, batch: int) -> None:
    def build(ops: Any, p: Any) -> Any:
        return ops.gather(p[0], ops.convert(p[1], "i64"), np.int64(axis), batch)

    inferred(build, dims, places, stricter=True)


@given(shapes, ints(0, 3), ints(-2, 3))
def test_pad(dims: Any, begin: list[int], end: list[int]) -> None:
    inferred(
        lambda ops, p: ops.pad(p[0], np.array(begin, np.int64), np.array(end, np.int64), "constant"), dims
    )


@given(shapes, ints(0, 4))
def test_tile(dims: Any, repeats: list[int]) -> None:
    inferred(lambda ops, p: ops.tile(p[0], np.array(repeats, np.int64)), dims)


@given(shapes, ints(1, 6), st.sampled_from(["numpy", "bidirectional"]))
def test_broadcast(dims: Any, target: list[int], mode: str) -> None:
    inferred(lambda ops, p: ops.broadcast(p[0], np.array(target, np.int64), broadcast_spec=mode), dims)


@given(shapes, st.lists(st.tuples(*[st.integers(-8, 8)] * 2, st.sampled_from([1, 1, 2, -1, -3])), max_size=4))
def test_slice(dims: Any, parts: list[tuple[int, int, int]]) -> None:
    begin, end, step = (np.array([part[i] for part in parts], np.int64) for i in range(3))
    inferred(lambda ops, p: ops.slice(p[0], begin, end, step), dims)


@given(
    shapes,
    st.lists(
        st.tuples(*[st.integers(-8, 8)] * 2, st.sampled_from([1, 1, 2, -1, -3]), *[st.integers(0, 1)] * 5),
        max_size=4,
    ),
)  # fmt: skip
def test_strided_slice(dims: Any, parts: list[tuple[int, ...]]) -> None:
    begin, end, step = (np.array([part[i] for part in parts], np.int64) for i in range(3))
    masks = [[part[i] for part in parts] for i in range(3, 8)]
    inferred(lambda ops, p: ops.strided_slice(p[0], begin, end, step, *masks), dims, stricter=True)


@given(
    images, images, ints(1, 3, 2), ints(0, 2, 2), ints(0, 2, 2), ints(1, 2, 2),
    st.sampled_from(["explicit", "same_upper", "same_lower", "valid"]),
)  # fmt: skip
def test_convolution(x: Any, w: Any, strides: Any, begin: Any, end: Any, dilations: Any, pad: str) -> None:
    inferred(lambda ops, p: ops.convolution(p[0], p[1], strides, begin, end, dilations, pad), x, w)


@given(
    images, ints(1, 3, 2), ints(0, 1, 2), ints(0, 1, 2), ints(2, 3, 2),
    st.sampled_from(["floor", "ceil"]), st.sampled_from(["explicit", "same_upper", "valid"]), st.booleans(),
)  # fmt: skip
def test_pooling(
    x: Any, strides: Any, begin: Any, end: Any, kernel: Any, rounding: str, pad: str, leave: bool
) -> None:
    inferred(lambda ops, p: ops.avg_pool(p[0], strides, begin, end, kernel, leave, rounding, pad), x)


@given(of_rank(3, 3), ints(1, 3, 3), ints(0, 3, 3), ints(0, 3, 3))  # OpenVINO dies of other lengths
def test_space_to_batch(dims: Any, block: list[int], begin: list[int], end: list[int]) -> None:
    block, begin, end = [1, *block[1:]], [0, *begin[1:]], [0, *end[1:]]
    parts = [np.array(part, np.int64) for part in (block, begin, end)]
    inferred(lambda ops, p: ops.space_to_batch(p[0], *parts), dims)
    inferred(lambda ops, p: ops.batch_to_space(p[0], *parts), dims)


@given(shapes, st.integers(1, 3))
def test_depth_to_space(dims: Any, block: int) -> None:
    inferred(lambda ops, p: ops.depth_to_space(p[0], "blocks_first", block), dims)
    inferred(lambda ops, p: ops.space_to_depth(p[0], "blocks_first", block), dims)


@given(shapes, st.integers(-5, 5), st.integers(0, 7))
def test_top_k(dims: Any, axis: int, k: int) -> None:
    inferred(lambda ops, p: ops.topk(p[0], np.int64(k), axis, "max", "value"), dims, stricter=True)
