"""Products with and without copies of pixels in pairs, on a CPU that multiplies so: the same answers.

    python -m tests.support.aarch64_pairs

Prints how many products of each format multiplied copies. AssertionError with the case where answers differ.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator

import numpy as np

import ovjit as ov
from ovjit import opset8 as op
from ovjit.codegen.cpu.formats import Format
from ovjit.tiles import lowering

#: Of the largest: bf16 are added in f32, in an order of their own where words are odd in number.
LIMIT = 1e-5
#: Elements: the first answer of each format with fewer is computed by kernels in Python, too.
IN_PYTHON = 300


def products(rng: np.random.Generator) -> Iterator[tuple[str, ov.Model]]:
    """Rows of tiles of all heights, last panels of one vector and of two, weights with a stride."""
    for rows, depth, outs in itertools.product((1, 2, 5, 9, 13, 25), (16, 24), (32, 41)):
        x = op.parameter([rows, depth], np.float32)
        w = op.constant(rng.standard_normal((depth, outs)).astype(np.float32))
        y = op.relu(op.add(op.matmul(x, w, False, False), op.constant(np.float32(0.25))))
        yield f"{rows} x {depth} x {outs}", ov.Model([y], [x], "m")


def windows(rng: np.random.Generator) -> Iterator[tuple[str, ov.Model]]:
    """Kernel, stride, dilation and groups of convolutions of one to three dimensions."""
    for rank, k, stride, dilation, groups, channels in (
        (2, 3, 1, 1, 1, 16), (2, 3, 2, 1, 1, 24), (2, 3, 1, 2, 1, 13), (2, 1, 1, 1, 1, 40),
        (2, 1, 2, 1, 2, 16), (2, 5, 1, 1, 2, 8), (1, 3, 1, 1, 1, 16), (1, 3, 1, 4, 1, 16),
        (3, 3, 1, 1, 1, 16), (3, 2, 2, 1, 1, 7),
    ):  # fmt: skip
        x = op.parameter([2, groups * channels, *(7, 5, 3)[:rank]], np.float32)
        shape = (36, channels, *[k] * rank)
        w = op.constant(rng.standard_normal((groups, *shape) if groups > 1 else shape).astype(np.float32))
        pads = [k // 2 * dilation] * rank
        make = op.group_convolution if groups > 1 else op.convolution
        y = make(x, w, [stride] * rank, pads, pads, [dilation] * rank)
        yield f"{rank}d {k} {stride} {dilation} {groups} {channels}", ov.Model([op.relu(y)], [x], "m")


def quantized(model: ov.Model) -> ov.Model:
    """The model with data of 8 bits before its product, and weights of 8 bits."""
    names = ("MatMul", "Convolution", "GroupConvolution")
    (node,) = (n for n in model.get_ordered_ops() if n.get_type_name() in names)
    for i, (low, high, levels) in enumerate(((0.0, 7.96875, 256), (-4.0, 4.0, 255))):
        ends = [op.constant(np.float32(end)) for end in (low, high)]
        made = op.fake_quantize(node.input_value(i), *ends, *ends, levels)
        node.input(i).replace_source_output(made.output(0))
    model.validate_nodes_and_infer_types()
    return model


def answer(model: ov.Model, x: np.ndarray, precision: str, channels: int) -> np.ndarray:
    """What the model makes of x where copies are worth it from so many channels on."""
    lowering.PAIRED_CHANNELS = channels
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return np.array(compiled([x])[0])


def main() -> None:
    many, suits, found = lowering.PAIRED_CHANNELS, lowering.Tiled._suits_pairs, list[str]()

    def noted(self: lowering.Tiled, form: Format) -> bool:
        if suits(self, form):
            found.append(form.name)
        return suits(self, form)

    lowering.Tiled._suits_pairs = noted  # type: ignore[method-assign]
    rng, in_python = np.random.default_rng(38), set[str]()
    for precision, made in itertools.product(("bf16", "f32"), (products, windows)):
        for name, model in made(rng):
            model = quantized(model) if precision == "f32" else model
            x = (rng.standard_normal(tuple(model.input(0).shape)) * 2).astype(np.float32)
            plain = answer(model, x, precision, sys.maxsize)
            pairs = answer(model, x, precision, many)
            answers = {"in pairs": pairs}
            if found and found[-1] not in in_python and plain.size < IN_PYTHON:
                in_python.add(found[-1])
                os.environ["OVJIT_INTERP"] = "kernels"
                for channels in (many, sys.maxsize):
                    answers[f"in Python from {channels} on"] = answer(model, x, precision, channels)
                del os.environ["OVJIT_INTERP"]
            for how, got in answers.items():
                off = np.abs(got - plain).max() / np.abs(plain).max()
                assert off <= LIMIT, f"{precision} {name} {how}: off by {off:.2g}"
    print(*(f"{name} {found.count(name)}" for name in sorted(set(found))))


if __name__ == "__main__":
    main()
