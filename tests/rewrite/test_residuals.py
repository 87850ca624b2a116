"""Which FakeQuantizes before the Add of a residual round, as OpenVINO was observed to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.cpu.host import host_target
from ovjit.rewrite.residuals import find_unrounded

SEED = 20261126
CHANNELS, PIXELS = 16, 7
SHAPE = [1, CHANNELS, PIXELS, PIXELS]
LARGE = 8.0
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


class Residual:
    """Models of one package: a branch of two convolutions, quantized as `branch`, and what it is added to."""

    def __init__(self, package: Any):
        self.ops, self.package = package.opset8, package
        self.rng = np.random.default_rng(SEED)

    def quantized(self, x: Any, signed: bool, high: float = LARGE, name: str | None = None) -> Any:
        low = -high * 128 / 127 if signed else 0.0
        ends = [np.float32(low), np.float32(high)] * 2
        made = self.ops.fake_quantize(x, *ends, 256)
        if name:
            made.set_friendly_name(name)
        return made

    def numbers(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def convolved(self, x: Any, in_bytes: bool = True) -> Any:
        """A convolution whose weights are so small that sums of two products fit 16 bits."""
        weights = self.numbers(CHANNELS, CHANNELS, 1, 1)
        ends = np.abs(weights).max((1, 2, 3), keepdims=True) * np.float32(2.3)
        w = self.ops.constant(weights)
        w = self.ops.fake_quantize(w, -ends, ends, -ends, ends, 255) if in_bytes else w
        y = self.ops.convolution(x, w, [1, 1], [0, 0], [0, 0], [1, 1])
        return self.ops.add(y, self.numbers(1, CHANNELS, 1, 1))

    def model(self, residual: str = "data", before: str = "", after: str = "relu", first: bool = True) -> Any:
        """`residual`: what is added; `before`: what comes before the branch's FakeQuantize; `after`: what
        comes after the sum; `first`: whether the branch is the first addend."""
        ops = self.ops
        x, further = ops.parameter(SHAPE, np.float32), list[Any]()
        data = self.quantized(ops.relu(self.convolved(self.quantized(x, False, 4.0))), False)
        y = (
            data
            if residual == "read by the branch"
            else self.quantized(ops.relu(self.convolved(data)), False)
        )
        y = self.convolved(y)
        steps: dict[str, Callable[[Any], Any]] = {
            "relu": ops.relu, "sigmoid": ops.sigmoid, "swish": ops.swish, "abs": ops.abs, "exp": ops.exp,
            "scale": lambda v: ops.multiply(v, np.full((1, CHANNELS, 1, 1), 0.7, np.float32)),
            "bias": lambda v: ops.subtract(v, np.full((1, CHANNELS, 1, 1), 0.7, np.float32)),
            "grid": lambda v: ops.add(v, self.numbers(*SHAPE)),
            "pool": lambda v: ops.max_pool(v, [1, 1], [1, 1], [1, 1], [1, 1], [3, 3]).output(0),
        }  # fmt: skip
        for step in before.split():
            y = steps[step](y)
        branch = self.quantized(y, before != "relu", name="branch")
        other = data
        if residual == "real":
            other = ops.sigmoid(data)
        elif residual in ("convolution", "convolution read twice"):
            other = self.quantized(self.convolved(data), True, 5.0, name="shortcut")
        elif residual == "convolution with relu":
            other = self.quantized(ops.relu(self.convolved(data)), False, 5.0, name="shortcut")
        elif residual == "sums":
            other = self.convolved(data)
        elif residual == "real convolution":
            other = self.quantized(self.convolved(ops.sigmoid(data), False), True, 5.0, name="shortcut")
        total = ops.add(branch, other) if first else ops.add(other, branch)
        if residual == "convolution read twice":
            further.append(ops.sigmoid(other))
        elif residual == "branch read twice":
            further.append(ops.sigmoid(branch))
        if after == "read twice":
            further.append(ops.sigmoid(total))
        for step in after.split():
            total = steps[step](total) if step in steps else total
        if after not in ("relu, not quantized", "nothing"):
            total = self.convolved(self.quantized(total, True))
        return self.package.Model([total, *further], [x], "residual")


CASES = [
    ({}, "branch"), ({"first": False}, "branch"), ({"after": ""}, "branch"), ({"after": "swish"}, "branch"),
    ({"after": "scale relu"}, "branch"), ({"after": "bias"}, "branch"), ({"after": "abs"}, "branch"),
    ({"before": "relu"}, "branch"), ({"before": "scale"}, "branch"), ({"residual": "real"}, "branch"),
    ({"residual": "real convolution"}, "branch"), ({"residual": "convolution"}, "branch"),
    ({"residual": "real convolution", "first": False}, "branch"),
    ({"residual": "convolution", "first": False}, "shortcut"),
    ({"residual": "convolution with relu", "first": False}, "shortcut"),
    # rounded: sums that are not stored as bytes alone
    ({"after": "nothing"}, None), ({"after": "read twice"}, None), ({"after": "pool"}, None),
    ({"after": "exp"}, None), ({"after": "grid"}, None),
    # and those that no convolution adds in its epilogue
    ({"before": "sigmoid"}, None), ({"before": "scale relu"}, None), ({"before": "pool"}, None),
    ({"residual": "sums"}, None), ({"residual": "read by the branch"}, None),
    ({"residual": "branch read twice"}, None), ({"residual": "convolution read twice"}, None),
]  # fmt: skip


def _named(case: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in case.items()) or "plain"


@pytest.mark.parametrize(("case", "name"), CASES, ids=[_named(case) for case, _ in CASES])
def test_what_does_not_round(case: dict[str, Any], name: str | None) -> None:
    found = find_unrounded(Residual(ov).model(**case)._graph())
    assert [node.name for node in found] == ([] if name is None else [name])


@pytest.mark.skipif(host_target().name != "avx2", reason="observed on AVX2")
@pytest.mark.parametrize("case", [case for case, _ in CASES], ids=[_named(case) for case, _ in CASES])
def test_results_are_openvino_s(case: dict[str, Any]) -> None:
    import openvino

    x = 2 * np.random.default_rng(SEED).standard_normal(SHAPE).astype(np.float32)
    got, wanted = (
        package.Core().compile_model(Residual(package).model(**case), "CPU", F32)([x])[0]
        for package in (ov, openvino)
    )
    apart = np.sqrt(((got - wanted) ** 2).mean()) / np.sqrt((wanted**2).mean())
    assert apart < 2e-4, f"{apart:.2g} apart, seed {SEED}"
