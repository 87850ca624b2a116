"""Tensors: of arrays, parts of others, packed elements, copies; and slices at run time. Beside OpenVINO's."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import openvino
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ovjit
from tests.support.beside import examples, random_array, same

DTYPES = ["float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "uint64", "bool"]
lengths = st.lists(st.integers(0, 4), max_size=4)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def arrays(draw: Any) -> np.ndarray:
    """Any array: its elements may lie in any order, with gaps, or backwards."""
    dtype, shape, seed = draw(st.sampled_from(DTYPES)), draw(lengths), draw(seeds)
    if dtype == "bool":
        array = random_array("uint8", shape, seed) % 2 == 1
    else:
        array = random_array(dtype, shape, seed)
    if array.ndim and draw(st.booleans()):
        array = array[tuple(slice(None, None, draw(st.sampled_from([1, 2, -1]))) for _ in shape)]
    return array.transpose(draw(st.permutations(range(array.ndim))))


def said(t: Any) -> list[Any]:
    """Every public property of a tensor."""
    about = [t.element_type.get_type_name(), list(t.shape), t.size, t.byte_size, list(t.strides)]
    return [*about, t.is_continuous(), t.data]


@given(arrays(), st.booleans())
def test_a_tensor_of_an_array(array: np.ndarray, shared: bool) -> None:
    assume(not shared or array.flags.c_contiguous)  # what else may be shared: see the next test
    same(lambda ov: said(ov.Tensor(array, shared_memory=shared)))


@given(arrays())
def test_sharing_an_array(array: np.ndarray) -> None:
    def written(ov: Any) -> Any:
        mine = array.copy(order="K")
        t = ov.Tensor(mine, shared_memory=True)
        if t.size:
            t.data[...] = 1
        return mine

    same(written)


@given(st.sampled_from(DTYPES), lengths, st.data())
def test_a_part_of_a_tensor(dtype: str, shape: list[int], data: Any) -> None:
    assume(dtype != "bool" and shape and 0 not in shape)
    array = random_array(dtype, shape, 1)
    begin = [data.draw(st.integers(0, n)) for n in shape]
    # ends behind the tensor's end, which OpenVINO does not check, are no examples
    end = [data.draw(st.integers(b, n)) for b, n in zip(begin, shape, strict=True)]

    same(lambda ov: said(ov.Tensor(ov.Tensor(array), begin, end)))

    def copied(ov: Any) -> Any:
        whole = ov.Tensor(array)
        source = ov.Tensor(whole, begin, end)
        target = ov.Tensor(source.element_type, source.shape)
        source.copy_to(target)
        source.data[...] = 0
        return target.data, whole.data

    if all(b < e for b, e in zip(begin, end, strict=True)):
        same(copied)
    else:  # OpenVINO dies of a part without elements
        assert copied(ovjit)[0].size == 0


@given(lengths, lengths, st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_copies_between_shapes_and_types(a: list[int], b: list[int], kind: str, other: str) -> None:
    def copied(ov: Any) -> Any:
        x, y = ov.Tensor(random_array("uint8", a, 3).astype(kind)), ov.Tensor(np.zeros(b, other))
        y.copy_from(x)
        return list(y.shape), y.data

    same(copied)


@given(st.sampled_from(DTYPES), lengths, lengths)
def test_another_shape(kind: str, a: list[int], b: list[int]) -> None:
    def changed(ov: Any) -> Any:
        x = ov.Tensor(getattr(ov.Type, _short(kind)), a)
        x.shape = b
        return list(x.shape), x.byte_size, list(x.strides)

    same(changed)


def _short(kind: str) -> str:
    return kind.replace("float", "f").replace("uint", "u").replace("int", "i").replace("bool", "boolean")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4))
def test_strings(words: list[str]) -> None:
    assume(any(words) or not words)  # OpenVINO's `bytes_data` of empty strings is unwritten memory

    def read(ov: Any) -> Any:
        t = ov.Tensor(words)
        return t.str_data, t.bytes_data, list(t.shape)

    same(read)


# -- elements below a byte


@pytest.mark.parametrize("kind", ["u1", "u2", "u3", "u4", "u6", "i4", "nf4", "f8e4m3", "bf16"])
@settings(max_examples=examples(12))
@given(shape=lengths, seed=seeds)
def test_packing(kind: str, shape: list[int], seed: int) -> None:
    """`pack_data` and `unpack_data`, and back again."""
    bits = int("".join(filter(str.isdigit, kind))[:1])
    array = random_array("uint8", shape, seed) % (1 << min(bits, 7))
    array = array.astype(np.int8) - (1 << bits - 1) if kind[0] == "i" else array

    def packed(ov: Any) -> Any:
        raw = ov.helpers.pack_data(array, getattr(ov.Type, kind))
        return raw, ov.helpers.unpack_data(raw, getattr(ov.Type, kind), array.shape)

    import openvino.helpers  # noqa: F401
    import ovjit.helpers  # noqa: F401

    same(packed)


@pytest.mark.parametrize("kind", ["u1", "u4", "i4", "f8e4m3", "f8e5m2", "bf16", "f16", "f64", "i64"])
@settings(max_examples=examples(8))
@given(values=st.lists(st.one_of(st.integers(-8, 15), st.floats(-20, 20)), min_size=1, max_size=20))
def test_constants_of_any_type(kind: str, values: list[float]) -> None:
    """Numbers as a constant of that type: its bytes, and what they are as numbers."""
    if kind[0] in "ui":
        top = 1 << (3 if kind == "i4" else min(int(kind[1:]), 8))
        values = [int(abs(v)) % top for v in values]

    if kind == "f64":
        values = [float(np.float32(v)) for v in values]  # OpenVINO rounds them so

    def constant(ov: Any) -> Any:
        node = ov.op.Constant(getattr(ov.Type, kind), ov.Shape([len(values)]), values)
        return node.data.view(np.uint8), node.get_byte_size(), node.get_vector()

    same(constant)


# -- slices


@functools.cache
def sliced(package: Any, rank: int) -> Any:
    """A model that slices a tensor of that rank by inputs."""
    ops = package.opset13
    x = ops.parameter([-1] * rank, np.float32)
    bounds = [ops.parameter([rank], np.int64) for _ in range(3)]
    model = package.Model([ops.slice(x, *bounds)], [x, *bounds], "m")
    return package.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize("rank", [1, 3])
@settings(max_examples=examples(30))
@given(data=st.data())
def test_slices_at_run_time(rank: int, data: Any) -> None:
    draw = data.draw
    shape = [draw(st.integers(1, 6)) for _ in range(rank)]
    # beyond 32 bits OpenVINO wraps
    bounds = st.one_of(st.integers(-8, 8), st.sampled_from([2**31 - 1, -(2**31)]))
    begin, end = ([draw(bounds) for _ in range(rank)] for _ in range(2))
    step = [draw(st.sampled_from([1, 1, 2, 3, -1, -2, 100])) for _ in range(rank)]
    x = random_array("float32", shape, 5)
    expected = x[tuple(map(slice, begin, end, step))]  # as NumPy, but that an end below 0 counts from the end
    feed = [x, *(np.array(part, np.int64) for part in (begin, end, step))]
    theirs, ours = (sliced(package, rank)(feed)[0] for package in (openvino, ovjit))
    assert ours.shape == theirs.shape and (ours == theirs).all(), (shape, begin, end, step)
    if all(s > 0 for s in step):
        assert ours.shape == expected.shape and (ours == expected).all(), (shape, begin, end, step)
