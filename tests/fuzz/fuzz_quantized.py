"""Random quantized graphs: FakeQuantize of all kinds, weights of all forms and what lies between them, as
they are compiled, beside exact arithmetic in f64.

Half of the cases are on a *grid*: all scales are powers of 2 and no operation rounds, so that f32, integers
and f64 have the same numbers, and answers are compared to the last bits of a sum. The others have any scales,
and an answer may be a step away. Quantizers may go either way where a number is next to a half: answers are
compared with what the exact graph spans when it is run several times with nudged quantizers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph.graph import Builder, Graph, Node, Value
from ovjit.graph.interp import evaluate_node
from ovjit.graph.shapes import ANY
from tests.fuzz import fuzzing

#: Cases of one process, which keeps their kernels.
LIFE = 1000
#: Runs with nudged quantizers, and how far each is nudged, in steps and as a share of the number of steps.
RUNS, NUDGE = 400, 4e-6
LEVELS = (256, 256, 256, 255, 255, 16, 2)
#: How often each step is drawn.
STEPS = {
    "quantize": 8,
    "conv": 7,
    "depthwise": 3,
    "grouped": 2,
    "matmul": 3,
    "bias": 2,
    "activation": 4,
    "add": 4,
    "multiply": 1,
    "concat": 3,
    "max_pool": 2,
    "avg_pool": 2,
    "mean": 1,
    "resize": 2,
    "transpose": 2,
    "reshape": 1,
    "pad": 2,
    "slice": 1,
    "split": 1,
    "transposed_conv": 1,
    "outer": 1,
    "shuffle": 1,
}


def make(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([20261122, seed])
    names, weights = list(STEPS), np.array(list(STEPS.values()), float)
    steps = []
    for i in range(int(rng.integers(2, 10))):
        name = "quantize" if i == 0 else str(rng.choice(names, p=weights / weights.sum()))
        back = int(min(rng.geometric(0.6) - 1, 5))
        steps.append({"do": name, "at": back, "seed": int(rng.integers(1 << 30))})
        if name in ("conv", "depthwise", "grouped", "matmul") and rng.random() < 0.7:
            steps += [
                {"do": d, "at": 0, "seed": int(rng.integers(1 << 30))}
                for d in ("bias", "activation", "quantize")
                if rng.random() < 0.6
            ]
    shape = [
        int(rng.choice([1, 2])),
        int(rng.choice([1, 3, 4, 16, 17, 32])),
        *map(int, rng.integers(3, 9, 2)),
    ]
    if rng.random() < 0.25:
        shape = [int(rng.integers(1, 8)), int(rng.choice([3, 16, 33, 64]))]
    return {
        "seed": seed,
        "grid": bool(rng.random() < 0.5),
        "shape": shape,
        "open": bool(rng.random() < 0.15),
        "more": int(rng.integers(0, 3)),
        "steps": steps,
    }


class Net:
    """The graph of a case, in f32 or f64."""

    def __init__(self, case: dict[str, Any], real: str):
        self.case, self.real, self.grid = case, real, case["grid"]
        self.dtype = np.float32 if real == "f32" else np.float64
        self.b = Builder()
        shape = [ANY, *case["shape"][1:]] if case["open"] else case["shape"]
        x = self.b.add("Parameter", (), {"shape": shape, "element_type": real}).output
        self.values: list[tuple[Value, tuple[int, ...]]] = [(x, tuple(case["shape"]))]
        for step in case["steps"]:
            rng = np.random.default_rng(step["seed"])
            at = self.values[-1 - step["at"] % len(self.values)]
            try:
                made = getattr(self, step["do"])(rng, *at)
            except OvjitError:
                continue  # of a shape that it does not take, where what was before is left out
            if made is None:
                continue
            out = made.output if isinstance(made, Node) else made
            shape = (case["shape"][0], *out.shape[1:]) if case["open"] else tuple(out.shape)
            if all(isinstance(d, int) and d > 0 for d in shape):
                self.values.append((out, shape))
        outputs = {self.values[-1][0]: None}
        rng = np.random.default_rng(case["seed"])
        for _ in range(case["more"]):
            outputs[self.values[int(rng.integers(1, len(self.values)))][0]] = None
        self.graph: Graph = self.b.finish(list(outputs))

    def const(self, array: Any) -> Value:
        return self.b.constant(np.asarray(array, self.dtype), self.real)

    def ints(self, *values: int) -> Value:
        return self.b.constant(np.array(values, np.int64))

    def scale(self, rng: Any, low: float, high: float, size: Any = ()) -> np.ndarray:
        """Powers of two on a grid; else any number, the same in f32 and f64."""
        drawn = np.exp2(rng.uniform(np.log2(low), np.log2(high), size))
        return np.exp2(np.round(np.log2(drawn))) if self.grid else np.float64(np.float32(drawn))

    # quantizers

    def quantize(self, rng: Any, x: Value, shape: tuple) -> Any:
        levels = int(rng.choice(LEVELS))
        each: tuple[int, ...] = ()
        kind = rng.random()
        if kind < 0.2:
            each = (1, shape[1], *[1] * (len(shape) - 2))
        elif kind < 0.3:
            each = pick(rng, (1,) * len(shape), (1,), (shape[-1],))
        step = (
            self.scale(rng, 0.5, 8, each if rng.random() < 0.8 else ()) * 2.0 / 2 ** np.ceil(np.log2(levels))
        )
        zero = self.zero(rng, levels, each)
        low = -zero * step
        high = low + step * (levels - 1)
        out_step, out_zero = step, zero
        if rng.random() < 0.15:
            out_step = step * self.scale(rng, 0.3, 3)
        if rng.random() < 0.1:
            out_zero = self.zero(rng, levels, each)
        if rng.random() < 0.04:
            out_step = -out_step
        out_low = -out_zero * out_step
        limits = [low, high, out_low, out_low + out_step * (levels - 1)]
        limits = [np.asarray(v, np.float32) for v in limits]
        if rng.random() < 0.1:
            limits = [np.broadcast_to(v, np.broadcast_shapes(*(u.shape for u in limits))) for v in limits]
        given = [self.const(v) for v in limits]
        if rng.random() < 0.05:  # limits that only a run knows
            nothing = self.b.add("Multiply", [self.values[0][0], self.const(0.0)]).output
            axes = self.b.constant(np.arange(len(self.values[0][1])))
            none = self.b.add("ReduceMax", [nothing, axes], {"keep_dims": False}).output
            given[0] = self.b.add("Add", [given[0], none]).output
        return self.b.add("FakeQuantize", [x, *given], {"levels": levels})

    def zero(self, rng: Any, levels: int, each: tuple) -> np.ndarray:
        """The step that stands for 0: in the middle, at an end, anywhere, beyond, between two."""
        kind = rng.random()
        size = each if rng.random() < 0.5 else ()
        if kind < 0.3:
            return np.float64(levels // 2)
        if kind < 0.5:
            return np.float64(0)
        if kind < 0.8:
            return np.float64(rng.integers(0, levels, size))
        if kind < 0.85:
            return np.float64(rng.integers(-20, levels + 20, size))
        return np.float64(rng.integers(0, 4 * levels, size) / 4)

    def weights(self, rng: Any, shape: tuple[int, ...], kept: tuple[int, ...]) -> Value:
        """Weights of a product: integers with scales and perhaps zero points, or FakeQuantize of reals or of
        integers; `kept` are the axes of output channels."""
        b = self.b
        each = tuple(d if a in kept else 1 for a, d in enumerate(shape))
        kind = rng.random()
        if kind < 0.1:  # of other axes, which no scale of sums stands for
            each = tuple(d if a == len(shape) - 1 else 1 for a, d in enumerate(shape))
        elif kind < 0.3:
            each = ()
        scale = self.scale(rng, 2**-8, 2**-5, each)
        form = pick(rng, "i8", "i8", "i8z", "u8", "u8z", "faked", "faked", "faked bytes", "i4", "u4z")
        if form.startswith("faked"):
            levels = pick(rng, 255, 255, 256)
            low = -(127 if levels == 255 else 128) * scale
            high = 127 * scale
            if form == "faked":
                steps = rng.integers(-140, 140, shape)
                real = steps * scale if self.grid else rng.uniform(-1.1, 1.1, shape) * high
                value = self.const(np.float32(real))
                limits = [low, high, low, high]
            else:
                integers = rng.integers(-127 if levels == 255 else -128, 128, shape).astype(np.int8)
                value = b.add("Convert", [b.constant(integers)], {"destination_type": self.real}).output
                limits = [-127.0 if levels == 255 else -128.0, 127.0, low, high]
            limits = [self.const(np.float32(v)) for v in limits]
            return b.add("FakeQuantize", [value, *limits], {"levels": levels}).output
        bits, low, high = {"i": (int(form[1]), -1, 1), "u": (int(form[1]), 0, 2)}[form[0]]
        half = 2 ** (bits - 1)
        integers = rng.integers(low * half, high * half, shape).astype(
            np.int8 if form[0] == "i" else np.uint8
        )
        value = b.constant(integers, form[:2])
        value = b.add("Convert", [value], {"destination_type": self.real}).output
        if form.endswith("z"):
            zero = rng.integers(low * half, high * half, each if rng.random() < 0.5 else ())
            value = b.add("Subtract", [value, self.const(zero)]).output
        return b.add("Multiply", [value, self.const(scale)]).output

    # products

    def window(self, rng: Any, shape: tuple) -> tuple[int, dict[str, Any]]:
        size = int(pick(rng, 1, 1, 3, 3, 2))
        pads = [int(v) for v in rng.integers(0, 2, 4)] if size > 1 and rng.random() < 0.6 else [0] * 4
        attrs = {
            "strides": [pick(rng, 1, 1, 2)] * 2,
            "dilations": [1, 1],
            "pads_begin": pads[:2],
            "pads_end": pads[2:],
        }
        if size > 1 and rng.random() < 0.1:
            attrs["auto_pad"] = pick(rng, "same_upper", "same_lower", "valid")
        return size, attrs

    def conv(self, rng: Any, x: Value, shape: tuple) -> Any:
        if len(shape) != 4 or min(shape[2:]) < 3:
            return None
        size, attrs = self.window(rng, shape)
        outs = int(pick(rng, 1, 5, 16, 17, 32, 40, shape[1]))
        return self.b.add("Convolution", [x, self.weights(rng, (outs, shape[1], size, size), (0,))], attrs)

    def depthwise(self, rng: Any, x: Value, shape: tuple) -> Any:
        if len(shape) != 4 or min(shape[2:]) < 3:
            return None
        size, attrs = self.window(rng, shape)
        return self.b.add(
            "GroupConvolution", [x, self.weights(rng, (shape[1], 1, 1, size, size), (0, 1))], attrs
        )

    def grouped(self, rng: Any, x: Value, shape: tuple) -> Any:
        if len(shape) != 4 or min(shape[2:]) < 3:
            return None
        groups = pick(rng, *[g for g in (1, 2, 4, 8) if shape[1] % g == 0])
        size, attrs = self.window(rng, shape)
        outs = pick(rng, 1, 3, 8)
        w = self.weights(rng, (groups, outs, shape[1] // groups, size, size), (0, 1))
        return self.b.add("GroupConvolution", [x, w], attrs)

    def transposed_conv(self, rng: Any, x: Value, shape: tuple) -> Any:
        if len(shape) != 4:
            return None
        attrs = {"strides": [2, 2], "dilations": [1, 1], "pads_begin": [0, 0], "pads_end": [0, 0]}
        w = self.weights(rng, (shape[1], pick(rng, 3, 16), 2, 2), (1,))
        return self.b.add("ConvolutionBackpropData", [x, w], attrs)

    def matmul(self, rng: Any, x: Value, shape: tuple) -> Any:
        turned = rng.random() < 0.5
        depth, outs = shape[-1], int(pick(rng, 1, 5, 16, 33))
        if rng.random() < 0.12:  # weights on the left
            w = self.weights(rng, (outs, shape[-2]), (0,))
            return self.b.add("MatMul", [w, x], {"transpose_a": False, "transpose_b": False})
        size = (outs, depth) if turned else (depth, outs)
        attrs = {"transpose_a": False, "transpose_b": turned}
        if rng.random() < 0.12 and shape[0] > 1 and len(shape) > 2 and not self.case["open"]:
            lead = (1,) * (len(shape) - 2)
            return self.b.add(
                "MatMul",
                [x, self.weights(rng, (*lead, *size), (len(shape) - (2 if turned else 1),))],
                attrs,
            )
        return self.b.add("MatMul", [x, self.weights(rng, size, (0 if turned else 1,))], attrs)

    def outer(self, rng: Any, x: Value, shape: tuple) -> Any:
        """A product of two computed tensors."""
        return self.b.add("MatMul", [x, x], {"transpose_a": False, "transpose_b": True})

    # between them

    def bias(self, rng: Any, x: Value, shape: tuple) -> Any:
        each = pick(rng, (1, shape[1], *[1] * (len(shape) - 2)), (), (shape[-1],))
        steps = rng.integers(-600, 600, each)
        number = steps / 256.0 if self.grid else np.float32(steps / 300.0)
        name = pick(rng, "Add", "Add", "Subtract")
        return self.b.add(name, [x, self.const(number)])

    def activation(self, rng: Any, x: Value, shape: tuple) -> Any:
        name = str(
            pick(
                rng,
                "Relu",
                "Relu",
                "Clamp",
                "PRelu",
                "Abs",
                "Negative",
                "Sigmoid",
                "Swish",
                "HSwish",
                "Maximum",
            )
        )
        if self.grid and name in ("Sigmoid", "Swish", "HSwish"):
            name = "Relu"
        if name == "Clamp":
            low, high = pick(rng, (0, 6), (-1, 1), (0.5, 3), (-3, 0))
            return self.b.add("Clamp", [x], {"min": float(low), "max": float(high)})
        if name == "PRelu":
            slope = self.scale(rng, 0.1, 1, pick(rng, (shape[1],), (1,)))
            return self.b.add("PRelu", [x, self.const(slope * pick(rng, 1, -1))])
        if name == "Maximum":
            return self.b.add("Maximum", [x, self.const(pick(rng, 0.0, -0.25, 0.5))])
        return self.b.add(name, [x])

    def add(self, rng: Any, x: Value, shape: tuple) -> Any:
        others = [
            v
            for v, s in self.values
            if s == shape or (len(s) == len(shape) and s[:2] == shape[:2] and set(s[2:]) == {1})
        ]
        other = others[int(rng.integers(len(others)))]
        pair = [x, other] if rng.random() < 0.5 else [other, x]
        if set(map(type, (x.shape, other.shape))) and self.case["open"] and x.shape != other.shape:
            return None
        return self.b.add(pick(rng, "Add", "Add", "Add", "Subtract", "Maximum"), pair)

    def multiply(self, rng: Any, x: Value, shape: tuple) -> Any:
        each = pick(rng, (1, shape[1], *[1] * (len(shape) - 2)), ())
        factor = self.scale(rng, 0.3, 3, each) * pick(rng, 1, 1, -1)
        return self.b.add(pick(rng, "Multiply", "Divide"), [x, self.const(factor)])

    def concat(self, rng: Any, x: Value, shape: tuple) -> Any:
        axis = int(pick(rng, 1, 1, len(shape) - 1))
        others = [
            v
            for v, s in self.values
            if len(s) == len(shape) and all(a == axis or s[a] == d for a, d in enumerate(shape))
        ]
        parts = [others[int(rng.integers(len(others)))] for _ in range(int(rng.integers(1, 3)))]
        return self.b.add("Concat", [x, *parts], {"axis": axis})

    def max_pool(self, rng: Any, x: Value, shape: tuple) -> Any:
        if len(shape) != 4 or min(shape[2:]) < 3:
            return None
        size, pad = int(pick(rng, 2, 3)), int(pick(rng, 0, 1))
        attrs = {
            "kernel": [size] * 2,
            "strides": [pick(rng, 1, 2)] * 2,
            "pads_begin": [pad] * 2,
            "pads_end": [0, 0],
            "dilations": [1, 1],
            "rounding_type": pick(rng, "floor", "ceil"),
        }
        return self.b.add("MaxPool", [x], attrs).outputs[0]

    def avg_pool(self, rng: Any, x: Value, shape: tuple) -> Any:
        if len(shape) != 4 or min(shape[2:]) < 3:
            return None
        pad = int(pick(rng, 0, 1))
        size = 2 if self.grid else int(pick(rng, 2, 3))
        attrs = {
            "kernel": [size] * 2,
            "strides": [pick(rng, 1, 2)] * 2,
            "pads_begin": [pad] * 2,
            "pads_end": [0, 0],
            "exclude_pad": bool(rng.random() < 0.5),
            "rounding_type": "floor",
        }
        return self.b.add("AvgPool", [x], attrs)

    def mean(self, rng: Any, x: Value, shape: tuple) -> Any:
        axes = pick(rng, (2, 3), (1,), (len(shape) - 1,)) if len(shape) == 4 else (1,)
        count = int(np.prod([shape[a] for a in axes]))
        name = "ReduceMean" if not self.grid or count & (count - 1) == 0 else "ReduceMax"
        return self.b.add(name, [x, self.ints(*axes)], {"keep_dims": True})

    def resize(self, rng: Any, x: Value, shape: tuple) -> Any:
        if len(shape) != 4 or self.case["open"] or shape[2] * shape[3] > 400:
            return None
        attrs = {
            "mode": pick(rng, "nearest", "nearest", "linear"),
            "shape_calculation_mode": "scales",
            "coordinate_transformation_mode": pick(rng, "half_pixel", "asymmetric"),
            "nearest_mode": "floor",
            "antialias": False,
            "pads_begin": [0] * 4,
            "pads_end": [0] * 4,
            "cube_coeff": -0.75,
        }
        scales = self.b.constant(np.array([2, 2], np.float32))
        return self.b.add(
            "Interpolate",
            [x, self.ints(*(2 * d for d in shape[2:])), scales, self.ints(2, 3)],
            attrs,
        )

    def transpose(self, rng: Any, x: Value, shape: tuple) -> Any:
        order = [0, *(1 + rng.permutation(len(shape) - 1))]
        return self.b.add("Transpose", [x, self.ints(*map(int, order))])

    def reshape(self, rng: Any, x: Value, shape: tuple) -> Any:
        pattern = pick(rng, (0, -1, 1, 1), (0, 0, -1)) if len(shape) == 4 else (0, -1, 1, 1)
        pattern = pattern[: len(shape) + 2]
        return self.b.add("Reshape", [x, self.ints(*pattern)], {"special_zero": True})

    def pad(self, rng: Any, x: Value, shape: tuple) -> Any:
        ends = [[0, *map(int, rng.integers(0, 2, len(shape) - 1))] for _ in range(2)]
        mode = str(pick(rng, "constant", "constant", "edge", "reflect"))
        if mode == "reflect" and min(shape[1:]) < 2:
            mode = "edge"
        value = float(pick(rng, 0, 0, 0.5, -1))
        given = [x, *(self.ints(*e) for e in ends), self.const(value)]
        return self.b.add("Pad", given, {"pad_mode": mode})

    def slice(self, rng: Any, x: Value, shape: tuple) -> Any:
        axis = int(rng.integers(1, len(shape)))
        first = int(rng.integers(0, max(1, shape[axis] // 2)))
        return self.b.add("Slice", [x, *map(self.ints, (first, shape[axis], pick(rng, 1, 1, 2), axis))])

    def split(self, rng: Any, x: Value, shape: tuple) -> Any:
        if shape[1] < 2:
            return None
        cut = int(rng.integers(1, shape[1]))
        return self.b.add("VariadicSplit", [x, self.ints(1), self.ints(cut, -1)]).outputs[
            int(rng.integers(2))
        ]

    def shuffle(self, rng: Any, x: Value, shape: tuple) -> Any:
        if len(shape) != 4 or shape[1] % 2:
            return None
        return self.b.add("ShuffleChannels", [x], {"axis": 1, "group": 2})


def pick(rng: Any, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def exact(graph: Graph, x: np.ndarray, nudge: Any = None) -> list[np.ndarray]:
    """The graph in f64: FakeQuantize by one rounding, of a quotient that a grid has exactly. What only one
    Add reads may also keep what is between two steps."""
    values: dict[Value, np.ndarray] = {graph.inputs[0]: x}
    uses = graph.uses()
    for node in graph.nodes:
        if node.op.name == "Parameter":
            continue
        given = [values[v] for v in node.inputs]
        made = (
            [_quantized(*given, node.attrs["levels"], nudge, _may_stay(uses[node.output], nudge))]
            if node.op.name == "FakeQuantize"
            else None
        )
        values.update(zip(node.outputs, evaluate_node(node, given) if made is None else made, strict=True))
    return [values[v] for v in graph.outputs]


def _may_stay(users: Any, nudge: Any) -> bool:
    added = len(users) == 1 and users[0][0] is not None and users[0][0].op.name == "Add"
    return added and nudge is not None and nudge.random() < 0.5


def _quantized(
    x: Any, low: Any, high: Any, out_low: Any, out_high: Any, levels: int, nudge: Any, stays: bool
) -> np.ndarray:
    at = (x - low) * (levels - 1) / (high - low)
    if nudge is not None:  # all numbers alike now and then: a tie for one is a tie for all equal ones
        each = at.shape if nudge.random() < 0.7 else ()
        at = at + nudge.uniform(-1, 1, each) * NUDGE * (levels + np.abs(at))
    steps = np.clip(at, 0, levels - 1)
    steps = steps if stays else np.rint(steps)
    return steps * (out_high - out_low) / (levels - 1) + out_low


def check(case: dict[str, Any]) -> str:
    try:
        net, wide = Net(case, "f32"), Net(case, "f64")
    except OvjitError:
        return ""  # what is left out of a graph may make it one that is not accepted
    x = data_of(case)
    job = compile_graph(net.graph, {"threads": 1}).new_job()
    job.set_input(0, x.astype(np.float32))
    job.run()
    want = exact(wide.graph, x)
    for i, (got, right) in enumerate(zip(job.outputs, want, strict=True)):
        if got.shape != right.shape:
            return f"output {i} has the shape {got.shape}, not {right.shape}"
    low, high = want, want
    for run in range(RUNS):  # more and more of what the exact graph may be
        wrong = _far(case, wide.graph, job.outputs, low, high)
        if not wrong:
            break
        also = exact(wide.graph, x, np.random.default_rng([case["seed"], run]))
        low = [np.minimum(a, b) for a, b in zip(low, also, strict=True)]
        high = [np.maximum(a, b) for a, b in zip(high, also, strict=True)]
    return wrong


def _far(case: dict[str, Any], graph: Graph, outputs: Any, low: Any, high: Any) -> str:
    """Which output is not between `low` and `high`, but for a step where scales are any numbers."""
    for i, got in enumerate(outputs):
        size = max(
            _range(graph),
            float(np.abs(high[i]).max(initial=0)),
            float(np.abs(low[i]).max(initial=0)),
        )
        room = 4e-6 * size if case["grid"] else 1e-5 * size + _step(graph, i)
        off = np.nan_to_num(np.maximum(low[i] - got, got - high[i]), nan=np.inf)
        if np.any(off > room):
            at = tuple(int(v) for v in np.unravel_index(np.argmax(off), off.shape))
            return (
                f"output {i}: {(off > room).sum()} of {off.size} are off, {got[at]!r} at {at} instead of "
                f"{low[i][at]!r} to {high[i][at]!r} (room {room:.3g})"
            )
    return ""


def _range(graph: Graph) -> float:
    """The largest end of a quantizer's range: in f32 a step is as exact as that."""
    ends = [v.constant for n in graph.nodes if n.op.name == "FakeQuantize" for v in n.inputs[3:]]
    return max((float(np.abs(end).max()) for end in ends if end is not None), default=0.0)


def _step(graph: Graph, output: int) -> float:
    """The largest step of a quantizer that makes the output; what products make of steps is spanned."""
    found, todo = 0.0, [graph.outputs[output]]
    while todo:
        node = todo.pop().node
        if node.op.name == "FakeQuantize" and all(v.constant is not None for v in node.inputs[3:]):
            low, high = (v.constant for v in node.inputs[3:])
            found = max(found, float(np.abs(high - low).max()) / (node.attrs["levels"] - 1))
        elif node.op.multiplied == 0:
            todo += [v for v in node.inputs if v.constant is None]
    return found


def data_of(case: dict[str, Any]) -> np.ndarray:
    rng = np.random.default_rng([case["seed"], 1])
    x = rng.standard_normal(case["shape"]) * 2
    return np.round(x * 128) / 128 if case["grid"] else np.float64(np.float32(x))


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for steps in fuzzing.without(case["steps"]):
        if steps:
            yield {**case, "steps": steps}
    if case["more"]:
        yield {**case, "more": 0}
    if case["open"]:
        yield {**case, "open": False}
    for axis, size in enumerate(case["shape"]):
        if size > 3 or axis == 0 and size > 1:
            yield {
                **case,
                "shape": [size // 2 if a == axis else d for a, d in enumerate(case["shape"])],
            }


#: The part of a case that findings show.
SHOWN = "Net(case, 'f32').graph"

if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
