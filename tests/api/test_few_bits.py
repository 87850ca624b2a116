"""Element types below a byte at every length: tensors, constants, files and inference beside OpenVINO."""

from __future__ import annotations

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


def computed(ov: Any, node: Any, config: dict[str, Any]) -> Any:
    """What a node gives, as an output of a model, with a result that depends on an input beside it."""
    ops = ov.opset13
    x = ops.parameter([1], np.float32)
    request = ov.Core().compile_model(ov.Model([ops.result(node), ops.result(x)], [x], "m"), "CPU", config)
    got = request([X])[0]
    return str(got.dtype), got.shape, got.tobytes()


def of_tensor(ov: Any, kind: str, shape: list[int]) -> list[Any]:
    """What the tensor and the constant of it say; and what a conversion gives."""
    t, ops, f32 = tensor(ov, kind, shape), ov.opset13, {"INFERENCE_PRECISION_HINT": "f32"}
    said = [t.data.view(np.uint8).tolist(), t.byte_size, t.size, list(t.shape)]
    constant = ops.constant(t)
    said += [
        outcome(lambda: constant.get_data(dtype=np.float32).tolist()),
        outcome(lambda: constant.tensor_view.data.view(np.uint8).tolist()),
        computed(ov, ops.convert(constant, np.float32), f32),
    ]
    count = int(np.prod(shape))
    if count:
        column = ops.constant(np.array([count, 1]))
        said.append(computed(ov, ops.convert(ops.reshape(constant, column, False), np.float32), f32))
    return said


def check(kind: str, n: int) -> None:
    for shape in shapes(n):
        real, ours = (of_tensor(ov, kind, shape) for ov in (openvino, ovjit))
        assert ours == real, (kind, shape)


@pytest.mark.parametrize("kind", BYTES)
def test_constants_of_few_bits(kind: str) -> None:
    for n in LENGTHS:
        check(kind, n)


@pytest.mark.long
@pytest.mark.parametrize("kind", BYTES)
def test_constants_of_few_bits_at_every_length(kind: str) -> None:
    for n in range(34):
        check(kind, n)


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
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    for n in (1, 9, 24):
        whole = openvino.opset13.constant(tensor(openvino, kind, [n]))
        values = computed(openvino, openvino.opset13.convert(whole, np.float32), exact)
        array = np.frombuffer(values[2], np.float32)
        wanted = {"slice": array[1::2], "gather": array[::-1], "concat": np.concatenate([array] * 2)}[way]
        got = computed(ovjit, moved(ovjit, kind, n, way), exact)
        assert got == ("float32", wanted.shape, wanted.tobytes()), (kind, n)


@pytest.mark.thread_unsafe(reason="all threads would write one file")
@pytest.mark.parametrize("kind", BYTES)
def test_files_with_constants_of_few_bits(kind: str, tmp_path: Any) -> None:
    for n in (0, 1, 9, 24):
        said = []
        for ov in (openvino, ovjit):
            ops, x = ov.opset13, ov.opset13.parameter([1], np.float32)
            y = ops.convert(ops.constant(tensor(ov, kind, [n])), np.float32)
            ov.save_model(ov.Model([ops.result(y), ops.result(x)], [x], "m"), tmp_path / "m.xml")
            here = [(tmp_path / "m.bin").read_bytes()]
            for reader in (openvino, ovjit):
                got = reader.Core().compile_model(
                    tmp_path / "m.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
                )
                here.append(np.array(got([X])[0]).tobytes())
            said.append(here)
        assert said[0] == said[1], (kind, n)
        assert said[0][1] == said[0][2], (kind, n)
