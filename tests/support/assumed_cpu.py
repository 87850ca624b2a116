"""Run as a program: networks in bf16 and in bytes as a CPU would compute them that this one need not be.

    python assumed_cpu.py [FEATURE ...]

Prints, for each, the largest difference to the f32 answer as a part of its largest element, and the kernels.
Plans, layouts, packed weights and arguments are those of AVX-512 with BF16 and VNNI; their kernels are
compiled for it and run by Python's interpreter, each address checked, so that none of its instructions is
needed. FEATURE: what the CPU has beside these.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import ml_dtypes
import numpy as np

import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen.cpu import host
from ovjit.codegen.cpu.formats import available_formats
from ovjit.tools.roofline import dot_kernel

SEED = 20261121


class Nets:
    """name -> model; the shape of its input is in the model."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(SEED)

    def weights(self, *shape: int) -> Any:
        scale = max(1, int(np.prod(shape[1:]))) ** -0.5
        return op.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def product(self, shape: tuple[int, ...], weights: tuple[int, ...], turned: bool = False) -> Any:
        x = op.parameter(list(shape), np.float32)
        return ov.Model([op.relu(op.matmul(x, self.weights(*weights), False, turned))], [x], "product")

    def convolution(self, shape: tuple[int, ...], weights: tuple[int, ...], stride: int = 1) -> Any:
        x = op.parameter(list(shape), np.float32)
        pad, make = weights[-1] // 2, op.group_convolution if len(weights) == 5 else op.convolution
        y = make(x, self.weights(*weights), [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])
        return ov.Model([op.relu(y)], [x], "convolution")

    def volume(self) -> Any:
        """Transposed, with several taps in each dimension of a phase, and an odd number of channels."""
        x = op.parameter([1, 5, 2, 3, 3], np.float32)
        y = op.convolution_backprop_data(
            x, self.weights(5, 18, 4, 4, 4), [2] * 3, None, [0] * 3, [0] * 3, [1] * 3
        )
        return ov.Model([op.relu(y)], [x], "volume")

    def computed(self) -> Any:
        """A convolution in groups by filters that depend on the input."""
        x = op.parameter([1, 8, 5, 5], np.float32)
        scale = op.reshape(op.reduce_mean(x, np.array([2, 3])), np.array([2, 1, 4, 1, 1]), False)
        filters = op.multiply(self.weights(2, 6, 4, 3, 3), op.add(scale, np.float32(1)))
        y = op.group_convolution(x, filters, [1, 1], [1, 1], [1, 1], [1, 1])
        return ov.Model([op.relu(y)], [x], "computed")

    def classifier(self) -> Any:
        x = op.parameter([1, 3, 12, 12], np.float32)
        y = op.relu(op.convolution(x, self.weights(32, 3, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]))
        y = op.max_pool(y, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        z = op.relu(op.convolution(y, self.weights(32, 32, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1]))
        y = op.avg_pool(op.add(y, z), [1, 1], [1, 1], [1, 1], [3, 3], True)
        y = op.reduce_mean(y, op.constant(np.array([2, 3])), False)
        return ov.Model([op.softmax(op.matmul(y, self.weights(32, 10), False, False), 1)], [x], "classifier")

    def encoder(self) -> Any:
        x = op.parameter([1, 12, 32], np.float32)
        normal = op.mvn(x, op.constant(np.array([2])), True, 1e-5, "INSIDE_SQRT")
        heads, order = op.constant(np.array([1, 12, 2, 16])), op.constant(np.array([0, 2, 1, 3]))
        parts = [op.matmul(normal, self.weights(32, 32), False, False) for _ in range(3)]
        parts = [op.transpose(op.reshape(part, heads, False), order) for part in parts]
        y = op.scaled_dot_product_attention(*parts)
        y = op.reshape(op.transpose(y, order), op.constant(np.array([1, 12, 32])), False)
        y = op.add(x, op.matmul(y, self.weights(32, 32), False, False))
        wide = op.gelu(op.matmul(y, self.weights(32, 64), False, False), "erf")
        y = op.matmul(wide, self.weights(64, 32), False, False)
        return ov.Model([y], [x], "encoder")

    def given_in_bf16(self) -> Any:
        x = op.parameter([2, 7, 5, 33], ov.Type.bf16)
        y = op.matmul(x, op.convert(self.weights(33, 17), "bf16"), False, False)
        return ov.Model([op.convert(y, "f32")], [x], "bf16")

    def recurrent(self, kind: str, hidden: int, **more: Any) -> Any:
        """A layer in both directions, of three sequences with lengths of their own."""
        own = Nets()  # the numbers of other models stay what they are
        x, rows = op.parameter([3, 4, 6], np.float32), {"lstm": 4, "gru": 3}[kind] * hidden
        state = np.zeros((3, 2, hidden), np.float32)
        states = [op.constant(state) for _ in range(2 if kind == "lstm" else 1)]
        lengths = op.constant(np.array([4, 1, 3], np.int64))
        weights = own.weights(2, rows, 6), own.weights(2, rows, hidden)
        bias = own.weights(2, rows + hidden * bool(more))
        make = op.lstm_sequence if kind == "lstm" else op.gru_sequence
        y = make(x, *states, lengths, *weights, bias, hidden, "bidirectional", **more)
        return ov.Model([y.output(0)], [x], kind)

    def quantized(self) -> Any:
        def steps(value: Any, high: float) -> Any:
            ends = [op.constant(np.float32(v)) for v in (0, high)]
            return op.fake_quantize(value, *ends, *ends, 256)

        def bytes_(*shape: int) -> Any:
            whole = op.constant(self.rng.integers(-127, 128, shape).astype(np.int8))
            return op.multiply(op.convert(whole, "f32"), op.constant(np.float32(0.01)))

        x, around = op.parameter([1, 8, 9, 9], np.float32), ([1, 1],) * 4
        y = steps(op.relu(op.convolution(steps(x, 4), bytes_(16, 8, 3, 3), *around)), 20)
        y = op.max_pool(y, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
        return ov.Model([op.group_convolution(y, bytes_(16, 1, 1, 3, 3), *around)], [x], "quantized")

    def all(self) -> dict[str, Any]:
        return {
            "vector": self.product((40,), (40, 24)),
            "rows": self.product((2, 9, 33), (24, 33), True),
            "five dimensions": self.product((2, 3, 2, 5, 40), (40, 24)),
            "a matrix for each head": self.product((2, 3, 5, 17), (3, 17, 19)),
            "3x3": self.convolution((1, 16, 9, 9), (32, 16, 3, 3)),
            "1x1": self.convolution((1, 17, 7, 7), (19, 17, 1, 1)),
            "stem": self.convolution((1, 3, 12, 12), (16, 3, 3, 3), 2),
            "depthwise": self.convolution((1, 16, 9, 9), (16, 1, 1, 3, 3)),
            "grouped": self.convolution((1, 16, 9, 9), (2, 16, 8, 3, 3)),
            "classifier": self.classifier(),
            "encoder": self.encoder(),
            "given in bf16": self.given_in_bf16(),
            "quantized": self.quantized(),
            "cached": self.cached(),
            "cached in bytes": self.cached(1),
            "volume": self.volume(),
            "computed": self.computed(),
            "LSTM": self.recurrent("lstm", 17),
            "GRU": self.recurrent("gru", 9),
            "GRU, reset after": self.recurrent("gru", 8, linear_before_reset=True),
        }

    def cached(self, rows: int = 3) -> Any:
        """Attention to what variables have and what is appended to them, stored in f16 or u8 (`main`)."""
        x = op.parameter([1, 2, rows, 32], np.float32)
        product = op.matmul(x, self.weights(32, 32), False, False)
        joined, sinks = [], []
        for name in ("key", "value"):
            start = op.constant(ov.Tensor(np.zeros((1, 2, 0, 32), np.float32)))
            before = op.read_value(start, name, np.float32, ov.PartialShape([1, 2, -1, 32]))
            joined.append(op.concat([before, op.matmul(x, self.weights(32, 32), False, False)], 2))
            sinks.append(op.assign(joined[-1], name))
        y = op.scaled_dot_product_attention(product, *joined)
        return ov.Model([op.result(y)], sinks, [x], "cached")


def answer(model: Any, given: Any, precision: str, caches: str) -> tuple[np.ndarray, str]:
    """The result, and the kernels of the steps."""
    config = {"INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True, "INFERENCE_PRECISION_HINT": precision}
    config["KV_CACHE_PRECISION"] = caches
    request = ov.compile_model(model, "CPU", config).create_infer_request()
    request.infer([given])
    kernels = " ".join(row.exec_type for row in request.get_profiling_info())
    return np.array(request.get_output_tensor(0).data, np.float32), kernels


def main() -> None:
    nets = Nets()
    models = nets.all()
    inputs: dict[str, Any] = {}
    for name, model in models.items():
        port = model.input(0)
        x = nets.rng.standard_normal(list(port.shape)).astype(np.float32)
        if port.element_type == ov.Type.bf16:
            bits = x.astype(ml_dtypes.bfloat16).view(np.uint16)
            x = ov.Tensor(bits.view(np.float16), list(bits.shape), ov.Type.bf16)
        inputs[name] = x
    os.environ["OVJIT_HIDE"] = "avx512bf16"  # products of tensors of bf16 are then those of f32 everywhere
    wanted = {name: answer(model, inputs[name], "f32", "f32")[0] for name, model in models.items()}
    del os.environ["OVJIT_HIDE"]
    host.assume("avx512", ("avx512bf16", "avx512vnni", *sys.argv[1:]))
    os.environ["OVJIT_INTERP"] = "kernels"
    for name, model in models.items():
        caches = "u8" if name == "cached in bytes" else "f16"
        got, kernels = answer(model, inputs[name], "bf16", caches)
        error = np.abs(got - wanted[name]).max() / np.abs(wanted[name]).max()
        print(f"{name}|{error}|{kernels}", flush=True)
    for form in available_formats(host.host_target()):  # what measures the CPU's peak
        dot_kernel(form).content(host.host_target())


if __name__ == "__main__":
    main()
