"""pack_data and unpack_data beside the real OpenVINO: every length, every type, odd last dimensions."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from openvino.helpers import pack_data as openvino_pack
from openvino.helpers import unpack_data as openvino_unpack
from ovjit.helpers import pack_data, unpack_data

from ovjit.api.tensors.types import Type
from ovjit.api.tensors.vectors import Shape

BITS = {"u1": 1, "u2": 2, "u3": 3, "u4": 4, "u6": 6, "i4": 4, "nf4": 4, "f4e2m1": 4}


def samples(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    low, high = (-8, 8) if name == "i4" else (0, 1 << BITS[name])
    return rng.integers(low, high, shape).astype(np.int8 if name == "i4" else np.uint8)


@pytest.mark.parametrize("name", BITS)
def test_every_length(name):
    rng = np.random.default_rng(11)
    ours, theirs = Type.__dict__[name], getattr(openvino.Type, name)
    for length in range(35):
        values = samples(name, (length,), rng)
        packed = pack_data(values, ours)
        expected = openvino_pack(values, theirs)
        assert packed.dtype == expected.dtype == np.uint8
        np.testing.assert_array_equal(packed, expected, err_msg=f"seed 11, length {length}")
        assert packed.size == ours._bytes(length)
        back = unpack_data(packed, ours, [length])
        np.testing.assert_array_equal(back, values)
        if length:  # OpenVINO's unpack_data fails on nothing at all
            real = openvino_unpack(packed, theirs, [length])
            assert back.dtype == real.dtype
            np.testing.assert_array_equal(back, real)


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("shape", [(2, 3), (5, 1), (1, 7), (2, 3, 5), (), (3, 0)])
def test_shapes(name, shape):
    values = samples(name, shape, np.random.default_rng(12))
    type_ = Type.__dict__[name]
    packed = pack_data(values, type_)
    np.testing.assert_array_equal(packed, openvino_pack(values, getattr(openvino.Type, name)))
    back = unpack_data(packed, type_, Shape(shape))
    assert back.shape == shape
    np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize("name", BITS)
def test_too_large_values_keep_their_low_bits(name):
    values = np.arange(-128, 128, dtype=np.int8) if name == "i4" else np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(
        pack_data(values, Type.__dict__[name]), openvino_pack(values, getattr(openvino.Type, name))
    )


def test_the_first_value_is_the_high_half():
    assert pack_data(np.array([7, 8], np.uint8), Type.u4).tolist() == [0x78]
    assert unpack_data(np.array([0x78], np.uint8), Type.u4, [2]).tolist() == [7, 8]
    assert unpack_data(np.array([0x8F], np.uint8), Type.i4, [2]).tolist() == [-8, -1]


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.int8, np.uint16])
def test_other_dtypes_of_whole_values(dtype):
    values = np.array([[1, 2, 3], [4, 5, 6]], dtype)
    for name in ("u4", "i4"):
        expected = openvino_pack(values, getattr(openvino.Type, name))
        np.testing.assert_array_equal(pack_data(values, Type.__dict__[name]), expected)


def test_strided_values_and_signed_bytes():
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)[:, ::2]
    np.testing.assert_array_equal(pack_data(values, Type.u4), openvino_pack(values, openvino.Type.u4))
    packed = np.array([-1, 0x12], np.int8)
    np.testing.assert_array_equal(
        unpack_data(packed, Type.i4, [4]), openvino_unpack(packed, openvino.Type.i4, [4])
    )


BAD_VALUES = [[1.5, 2.0], [256, 1], [-1, 1], [np.nan, 1.0]]


@pytest.mark.parametrize("values", BAD_VALUES)
def test_values_that_would_be_rounded(values):
    with pytest.raises(RuntimeError), np.errstate(invalid="ignore"):
        openvino_pack(np.array(values), openvino.Type.u4)
    for name in ("u1", "u2", "u3", "u4", "u6", "nf4", "f4e2m1"):
        with pytest.raises(RuntimeError):
            pack_data(np.array(values), Type.__dict__[name])
    with pytest.raises(RuntimeError):
        pack_data(np.array([200]), Type.i4)


def test_other_types_are_refused():
    for name in ("u8", "f32", "i8", "boolean", "string"):
        with pytest.raises(AssertionError):
            openvino_pack(np.zeros(2, np.uint8), getattr(openvino.Type, name))
        with pytest.raises(AssertionError):
            pack_data(np.zeros(2, np.uint8), Type.__dict__[name])
        with pytest.raises(AssertionError):
            unpack_data(np.zeros(2, np.uint8), Type.__dict__[name], [2])


def test_too_few_bytes():
    for name in BITS:
        with pytest.raises(RuntimeError):  # OpenVINO repeats what there is
            unpack_data(np.zeros(3, np.uint8), Type.__dict__[name], [100])


def test_large_arrays():
    values = samples("u4", (1000, 1001), np.random.default_rng(13))
    packed = pack_data(values, Type.u4)
    np.testing.assert_array_equal(packed, openvino_pack(values, openvino.Type.u4))
    np.testing.assert_array_equal(unpack_data(packed, Type.u4, values.shape), values)
