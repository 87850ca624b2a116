"""Products of depth 0, transposed convolutions without outputs, no texts; and indices of bytes in bf16."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import ovjit as ov

o = ov.opset15
NUMPY = {"u8": np.uint8, "i8": np.int8, "f16": np.float16, "f32": np.float32}


def infer(output: Any, parameters: list[Any], *arrays: Any, **properties: str) -> np.ndarray:
    compiled = ov.compile_model(ov.Model([output], parameters), "CPU", properties)
    return np.array(compiled(list(arrays))[0])


def shapes(shape: list[int]) -> list[Any]:
    return [shape, ov.PartialShape([-1] * len(shape))]


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("kind", ["u8", "i8", "f16", "u4", "f32"])
def test_a_product_of_depth_0_is_0(kind: str, precision: str) -> None:
    for transposed, shape in itertools.product((False, True), shapes([2, 0])):
        rows = [3, 0] if transposed else [0, 3]
        x = o.parameter(shape, np.float32)
        if kind == "u4":
            weights = o.constant(ov.Tensor(np.zeros(0, np.uint8), rows, ov.Type.u4))
        else:
            weights = o.constant(np.zeros(rows, NUMPY[kind]))
        scale = np.full([3, 1] if transposed else [1, 3], 0.5, np.float32)
        wide = o.multiply(o.convert(weights, np.float32), o.constant(scale))
        y = o.add(o.matmul(x, wide, False, transposed), o.constant(np.float32([1, 2, 3])))
        made = infer(y, [x], np.zeros((2, 0), np.float32), INFERENCE_PRECISION_HINT=precision)
        np.testing.assert_array_equal(made, [[1, 2, 3]] * 2)


def test_a_quantized_product_of_depth_0_is_0() -> None:
    ends = [np.float32(v) for v in (-1, 1, -1, 1)]
    for shape in shapes([2, 0]):
        x = o.parameter(shape, np.float32)
        weights = o.fake_quantize(o.constant(np.zeros((0, 3), np.float32)), *ends, 256)
        y = o.matmul(o.fake_quantize(x, *ends, 256), weights, False, False)
        np.testing.assert_array_equal(infer(y, [x], np.zeros((2, 0), np.float32)), np.zeros((2, 3)))
    groups = o.multiply(
        o.convert(o.constant(np.zeros((3, 0, 32), np.uint8)), np.float32),
        o.constant(np.ones((3, 0, 1), np.float32)),
    )
    x = o.parameter([2, 0], np.float32)
    y = o.matmul(x, o.reshape(groups, np.array([3, 0]), False), False, True)
    np.testing.assert_array_equal(infer(y, [x], np.zeros((2, 0), np.float32)), np.zeros((2, 3)))


@pytest.mark.parametrize("size, kernel, pad", [((1, 1), 2, 1), ((3, 3), 4, 3), ((3, 4), 4, 3)])
@pytest.mark.parametrize("is_grouped", [False, True])
def test_a_transposed_convolution_may_leave_nothing(
    size: tuple[int, int], kernel: int, pad: int, is_grouped: bool
) -> None:
    build = o.group_convolution_backprop_data if is_grouped else o.convolution_backprop_data
    channels = [2, 1, 3] if is_grouped else [2, 3]
    filters = o.constant(np.ones([*channels, kernel, kernel], np.float32))
    out = [side + kernel - 1 - 2 * pad for side in size]
    assert min(out) == 0
    for shape in ([1, 2, *size], ov.PartialShape([1, 2, -1, -1])):
        x = o.parameter(shape, np.float32)
        y = build(x, filters, [1, 1], None, [pad, pad], [pad, pad], [1, 1])
        made = infer(y, [x], np.ones((1, 2, *size), np.float32))
        assert made.shape == (1, 6 if is_grouped else 3, *out)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int64])
def test_indices_of_bytes_into_what_bf16_stores(kind: type) -> None:
    """The indices are no bytes of a quantised tensor."""
    rng = np.random.default_rng(69)
    data, weights = rng.integers(-3, 4, (32, 64)), rng.integers(-1, 2, (64, 64))
    places = np.array([0, 31, 2, 7], kind)
    wanted = (data @ weights)[places.astype(int)].clip(0)
    for shape, which in itertools.product(shapes([32, 64]), ("gather", "gather_nd", "gather_elements")):
        dims = {"gather": [4], "gather_nd": [4, 1], "gather_elements": [4, 64]}[which]
        open_dims = dims if isinstance(shape, list) else ov.PartialShape([-1, *dims[1:]])
        x, i = o.parameter(shape, np.float32), o.parameter(open_dims, kind)
        y = o.matmul(x, o.constant(weights.astype(np.float32)), False, False)
        if which == "gather":
            y = o.gather(y, i, np.array(0))
        elif which == "gather_nd":
            y = o.gather_nd(y, i)
        elif kind is np.int64:
            y = o.gather_elements(y, i, 0)
        else:
            continue
        y = o.matmul(o.relu(y), o.constant(np.eye(64, dtype=np.float32)), False, False)
        given = np.broadcast_to(places.reshape(-1, *[1] * (len(dims) - 1)), dims).copy()
        made = infer(y, [x, i], data.astype(np.float32), given, INFERENCE_PRECISION_HINT="bf16")
        np.testing.assert_allclose(made, wanted, rtol=0.01)


@pytest.mark.parametrize("dtype", [object, "U", "S3"])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_an_array_of_no_texts(dtype: Any, shape: tuple[int, ...]) -> None:
    x = o.parameter(ov.PartialShape([-1] * len(shape)), ov.Type.string)
    begins, _, letters = o.string_tensor_unpack(x).outputs()
    compiled = ov.compile_model(ov.Model([begins, letters], [x]), "CPU")
    made = compiled([np.zeros(shape, dtype)])
    assert made[0].shape == shape and made[1].shape == (0,)
    made = compiled([np.array([["ab", b"c"]], object).reshape([1] * (len(shape) - 1) + [2])])
    np.testing.assert_array_equal(made[1], [*b"abc"])


@pytest.mark.parametrize(
    "shape, pattern", [([-1, 0, 0], [0, 0]), ([-1, 0, 5], [0, 0]), ([2, -1, 0, 3], [0, 0, 0])]
)
def test_a_copied_dimension_of_0_leaves_others_out(shape: list[int], pattern: list[int]) -> None:
    """No element is there on either side, whatever the dimensions that are not copied."""
    x = o.parameter(shape, np.float32)
    y = o.reshape(x, o.constant(np.array(pattern)), True)
    known = [2 if d == -1 else d for d in shape]
    assert infer(y, [x], np.zeros(known, np.float32)).shape == tuple(known[: len(pattern)])
