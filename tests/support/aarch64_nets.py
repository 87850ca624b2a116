"""What a program on another CPU computes of some networks: products of reals and of bytes, recurrent layers,
attention, compressed weights.

    python -m tests.support.aarch64_nets OUT.npz

OUT gets "kernels", the names of the kernels, and for each network what it answers, by
`<name> <precision>.<output>`.
`wanted` is what NumPy makes of the graphs, to be asked on a machine that is not emulated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

import ovjit as ov
from ovjit import opset8, opset13
from ovjit.codegen.kernel import Kernel
from ovjit.graph.interp import evaluate

SEED = 20261123


def reals(rng: np.random.Generator) -> Iterator[tuple[str, ov.Model, list[np.ndarray]]]:
    op = opset8
    for m, k, n in ((1, 5, 7), (13, 33, 17), (25, 64, 40), (49, 4100, 9)):
        x = op.parameter([m, k], np.float32)
        w = op.constant((rng.standard_normal((k, n)) / k**0.5).astype(np.float32))
        bias = op.constant(rng.standard_normal((1, n), np.float32))
        y = op.relu(op.add(op.matmul(x, w, False, False), bias))
        yield f"product {m}x{k}x{n}", ov.Model([y], [x], "m"), [rng.standard_normal((m, k), np.float32)]
    shape = [1, 16, 15, 13]
    x = op.parameter(shape, np.float32)
    w = op.constant((rng.standard_normal((24, 16, 3, 3)) / 12).astype(np.float32))
    y = op.relu(op.convolution(x, w, [1, 1], [1, 1], [1, 1], [1, 1]))
    d = op.constant((rng.standard_normal((24, 1, 1, 3, 3)) / 3).astype(np.float32))
    y = op.group_convolution(y, d, [2, 2], [1, 1], [1, 1], [1, 1])
    y = ov.opset1.max_pool(y, [2, 2], [0, 0], [0, 0], [2, 2])
    yield (
        "windows",
        ov.Model([op.reduce_mean(y, op.constant([2, 3]), False)], [x], "m"),
        [rng.standard_normal(shape, np.float32)],
    )
    shape = [1, 2, 9, 16]
    x = op.parameter(shape, np.float32)
    y = opset8.softmax(opset13.scaled_dot_product_attention(x, x, x), 3)
    yield "attention", ov.Model([y], [x], "m"), [rng.standard_normal(shape, np.float32)]


def quantized(
    rng: np.random.Generator, shape: list[int], outs: int, k: int, stride: int, signed: bool,
    dilation: int = 1,
) -> ov.Model:  # fmt: skip
    """Two convolutions of bytes, k x k and 1x1."""
    op = opset8
    x = op.parameter(shape, np.float32)

    def number(value: float) -> ov.Node:
        return op.constant(np.float32(value))

    ends = [number(-4.0), number(3.96875)] if signed else [number(0.0), number(7.96875)]
    y = op.fake_quantize(x, *ends, *ends, 256)
    for size, count in ((k, outs), (1, 17)):
        integers = rng.integers(-128, 128, (count, y.shape[1], size, size)).astype(np.int8)
        scale = ((rng.random((count, 1, 1, 1)) + 0.5) / 64).astype(np.float32)
        w = op.multiply(op.convert(op.constant(integers), "f32"), op.constant(scale))
        begin = [size // 2 * dilation] * 2
        y = op.convolution(y, w, [stride if size == k else 1] * 2, begin, begin, [dilation] * 2)
        if size == k:
            y = op.relu(op.add(y, op.constant(rng.standard_normal((1, count, 1, 1), np.float32))))
            y = op.fake_quantize(y, number(0), number(200), number(0), number(200), 256)
    return ov.Model([y], [x], "quantized")


def nets() -> Iterator[tuple[str, ov.Model, list[np.ndarray]]]:
    rng = np.random.default_rng(SEED)
    yield from reals(rng)
    for shape, outs, k, stride, signed, *dilation in (
        ([1, 5, 9, 9], 11, 3, 1, False),
        ([1, 16, 14, 14], 24, 1, 1, False),
        ([2, 3, 17, 15], 8, 3, 2, True),
        ([2, 24, 9, 7], 44, 3, 1, False),  # pixels are copied in pairs
        ([1, 16, 8, 16], 8, 3, 1, False, 6),  # most taps read padding alone in some regions
    ):
        model = quantized(rng, shape, outs, k, stride, signed, *dilation)
        name = f"bytes {shape} {k}" + " dilated" * len(dilation)
        yield name, model, [(rng.standard_normal(shape) * 2).astype(np.float32)]


def wanted() -> dict[str, np.ndarray]:
    """By `<name>.<output>`."""
    return {
        f"{name}.{i}": value
        for name, model, inputs in nets()
        for i, value in enumerate(evaluate(model._graph(), inputs))
    }


def main(out: str) -> None:
    names: set[str] = set()
    symbol = Kernel.symbol

    def noted(self: Kernel, isa=None) -> str:
        names.add(self.name)
        return symbol(self, isa)

    Kernel.symbol = noted  # type: ignore[method-assign]
    found: dict[str, np.ndarray] = {}
    for name, model, inputs in nets():
        for precision in ("f32", "bf16", "f16"):
            compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
            told = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            if told != precision:
                continue
            for i, got in enumerate(compiled(inputs).values()):
                found[f"{name} {precision}.{i}"] = np.array(got)
    np.savez(out, kernels=np.array(sorted(names)), **found)


if __name__ == "__main__":
    main(sys.argv[1])
