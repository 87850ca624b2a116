"""Element types below a byte at every length: tensors, constants, files and inference beside OpenVINO."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit

#: How many bytes `n` elements take.
BYTES = {
    "u1": lambda n: -(-n // 8), "u2": lambda n: -(-n // 4), "u3": lambda n: 3 * -(-n // 8),
    "u4": lambda n: -(-n // 2), "u6": lambda n: 3 * -(-n // 4), "i4": lambda n: -(-n // 2),
    "nf4": lambda n: -(-n // 2), "f4e2m1": lambda n: -(-n // 2),
}  # fmt: skip
#: Lengths that a byte, a group and a vector may get wrong; the long test has all lengths from 0 to 33.
LENGTHS = (0, 1, 3, 8, 9, 33)
X = np.zeros(1, np.float32)
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def tensor(ov: Any, kind: str, shape: list[int]) -> Any:
    """Random values. Bits of the last byte that no element has are 0: OpenVINO keeps what is given, and ovjit
    writes 0."""
    count = int(np.prod(shape))
    packed = np.random.default_rng(count).integers(0, 256, BYTES[kind](count)).astype(np.uint8)
    bits = {"u2": 2, "u4": 4, "i4": 4, "nf4": 4, "f4e2m1": 4}.get(kind, 8)
    if count * bits % 8:
        packed[-1] &= (1 << count * bits % 8) - 1
    return ov.Tensor(packed, ov.Shape(shape), getattr(ov.Type, kind))


def shapes(n: int) -> list[list[int]]:
    return [[n], *([[1, n]] if n else []), *([[n // 3, 3]] if n and n % 3 == 0 else [])]


def outcome(call: Any) -> Any:
    """What comes of it, or that it is refused."""
    try:
        return call()
    except Exception:
        return "refused"


def computed(ov: Any, nodes: list[Any]) -> list[Any]:
    """What nodes give, as outputs of one model, with a result that depends on an input beside them."""
    ops = ov.opset13
    x = ops.parameter([1], np.float32)
    model = ov.Model([*map(ops.result, nodes), ops.result(x)], [x], "m")
    request = ov.Core().compile_model(model, "CPU", F32)
    answers = request([X])
    got = [answers[i] for i in range(len(nodes))]
    return [(str(one.dtype), one.shape, one.tobytes()) for one in got]


def of_tensor(ov: Any, t: Any, shape: list[int]) -> tuple[list[Any], list[Any]]:
    """What the tensor and the constant of it say; and conversions of the constant, to be computed."""
    ops = ov.opset13
    said = [t.data.view(np.uint8).tolist(), t.byte_size, t.size, list(t.shape)]
    constant = ops.constant(t)
    said += [
        outcome(lambda: constant.get_data(dtype=np.float32).tolist()),
        outcome(lambda: constant.tensor_view.data.view(np.uint8).tolist()),
    ]
    nodes = [ops.convert(constant, np.float32)]
    count = int(np.prod(shape))
    if count:
        column = ops.constant(np.array([count, 1]))
        nodes.append(ops.convert(ops.reshape(constant, column, False), np.float32))
    return said, nodes


def check(kind: str, lengths: Iterable[int]) -> None:
    """All shapes of these lengths in one model."""
    every = [shape for n in lengths for shape in shapes(n)]
    answers = []
    for ov in (openvino, ovjit):
        tensors = [tensor(ov, kind, shape) for shape in every]
        said, nodes = zip(*map(partial(of_tensor, ov), tensors, every), strict=True)
        answers.append((said, computed(ov, [node for some in nodes for node in some])))
    (real, real_values), (ours, our_values) = answers
    for shape, one, other in zip(every, ours, real, strict=True):
        assert one == other, (kind, shape)
    for one, other in zip(our_values, real_values, strict=True):
        assert one == other, kind


@pytest.mark.parametrize("kind", BYTES)
def test_constants_of_few_bits(kind: str) -> None:
    check(kind, LENGTHS)


@pytest.mark.long
@pytest.mark.parametrize("kind", BYTES)
def test_constants_of_few_bits_at_every_length(kind: str) -> None:
    check(kind, range(34))


def moved(ov: Any, kind: str, n: int, way: str) -> Any:
    """A slice, a part by its places or the reverse order of a constant, as f32."""
    ops = ov.opset13
    node = ops.constant(tensor(ov, kind, [n]))
    numbers = {
        name: ops.constant(np.array([value])) for name, value in (("0", 0), ("1", 1), ("2", 2), ("n", n))
    }
    if way == "slice":
        node = ops.slice(node, numbers["1"], numbers["n"], numbers["2"])
    elif way == "gather":
        node = ops.gather(node, ops.constant(np.arange(n)[::-1].copy()), ops.constant(np.int64(0)))
    elif way == "concat":
        node = ops.concat([node, node], 0)
    return ops.convert(node, np.float32)


@pytest.mark.thread_unsafe(reason="OpenVINO's constants read memory that another thread has by then")
@pytest.mark.parametrize("way", ["slice", "gather", "concat"])
@pytest.mark.parametrize("kind", BYTES)
def test_parts_of_constants(kind: str, way: str) -> None:
    """OpenVINO crashes on some of these: the whole constant, as OpenVINO converts it, says what they are."""
    lengths, ops = (1, 9, 24), openvino.opset13
    tensors = [tensor(openvino, kind, [n]) for n in lengths]  # OpenVINO's constants share their memory
    wholes = [ops.convert(ops.constant(one), np.float32) for one in tensors]
    parts = computed(ovjit, [moved(ovjit, kind, n, way) for n in lengths])
    for n, values, got in zip(lengths, computed(openvino, wholes), parts, strict=True):
        array = np.frombuffer(values[2], np.float32)
        wanted = {"slice": array[1::2], "gather": array[::-1], "concat": np.concatenate([array] * 2)}[way]
        assert got == ("float32", wanted.shape, wanted.tobytes()), (kind, n)


@pytest.mark.thread_unsafe(reason="all threads would write one file")
@pytest.mark.parametrize("kind", BYTES)
def test_files_with_constants_of_few_bits(kind: str, tmp_path: Any) -> None:
    said = []
    for ov in (openvino, ovjit):
        ops, x = ov.opset13, ov.opset13.parameter([1], np.float32)
        tensors = [tensor(ov, kind, [n]) for n in (0, 1, 9, 24)]
        parts = [ops.convert(ops.constant(one), np.float32) for one in tensors]
        model = ov.Model([*map(ops.result, parts), ops.result(x)], [x], "m")
        ov.save_model(model, tmp_path / "m.xml")
        here = [(tmp_path / "m.bin").read_bytes()]
        for reader in (openvino, ovjit):
            answers = reader.Core().compile_model(tmp_path / "m.xml", "CPU", F32)([X])
            here.append([np.array(answers[i]).tobytes() for i in range(len(parts))])
        said.append(here)
    assert said[0] == said[1], kind
    assert said[0][1] == said[0][2], kind


@pytest.mark.parametrize("kind", BYTES)
def test_constants_of_one_value_and_of_listed_ones(kind: str) -> None:
    """One value for the whole shape was repeated as a byte, and listed ones were cut off at so many bytes."""

    def said(ov: Any, n: int, values: list[int]) -> Any:
        made = outcome(lambda: ov.op.Constant(getattr(ov.Type, kind), ov.Shape([n]), values))
        if made == "refused":
            return made
        vector = outcome(lambda: made.get_vector().tolist())
        return made.data.tolist(), made.get_byte_size(), list(made.shape), vector

    for n in LENGTHS:
        for values in ([1], [0], [k % 2 for k in range(n)]):
            assert said(ovjit, n, values) == said(openvino, n, values), (n, values)
