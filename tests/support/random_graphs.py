"""Random graphs of convolutions, views, concatenations and elementwise operations."""

from __future__ import annotations

import numpy as np

from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.shapes import ANY


class Maker:
    """Grows a graph of f32 tensors [N, C, H, W]."""

    def __init__(self, rng: np.random.Generator, dynamic: bool):
        self.rng = rng
        self.b = Builder()
        self.values: list[Value] = []
        self.shapes: list[tuple[int, ...]] = []
        self.inputs: list[np.ndarray] = []
        for _ in range(int(rng.integers(1, 3))):
            shape = (
                1,
                int(rng.choice([1, 3, 5, 16, 17])),
                int(rng.integers(5, 12)),
                int(rng.integers(5, 12)),
            )
            open_shape = (ANY, shape[1], ANY, ANY) if dynamic else shape
            value = self.b.add("Parameter", (), {"shape": open_shape, "element_type": "f32"}).output
            self.keep(value, shape)
            self.inputs.append(rng.standard_normal(shape).astype(np.float32))

    def keep(self, value: Value, shape: tuple[int, ...]) -> None:
        self.values.append(value)
        self.shapes.append(tuple(int(d) for d in shape))

    def pick(self) -> int:
        """Mostly what was made last."""
        n = len(self.values)
        return n - 1 - int(min(self.rng.geometric(0.45) - 1, n - 1))

    def constant(self, *shape: int) -> Value:
        scale = max(1.0, float(np.prod(shape[1:]))) ** 0.5
        return self.b.constant((self.rng.standard_normal(shape) / scale).astype(np.float32))

    def indices(self, *values: int) -> Value:
        return self.b.constant(np.array(values, np.int64))

    def convolution(self, i: int) -> None:
        n, c, h, w = self.shapes[i]
        k, s, d = (
            int(self.rng.choice([1, 3, 3, 5])),
            int(self.rng.choice([1, 1, 2])),
            int(self.rng.choice([1, 1, 2])),
        )
        outs = int(self.rng.choice([1, 7, 16, 24, 33]))
        pad = (k - 1) * d // 2
        if (h + 2 * pad - (k - 1) * d - 1) < 0 or (w + 2 * pad - (k - 1) * d - 1) < 0:
            return
        attrs = {"strides": (s, s), "dilations": (d, d), "pads_begin": (pad, pad), "pads_end": (pad, pad)}
        y = self.b.add("Convolution", [self.values[i], self.constant(outs, c, k, k)], attrs).output
        size = [(e + 2 * pad - (k - 1) * d - 1) // s + 1 for e in (h, w)]
        self.keep(y, (n, outs, *size))

    def depthwise(self, i: int) -> None:
        n, c, h, w = self.shapes[i]
        attrs = {"strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}
        y = self.b.add("GroupConvolution", [self.values[i], self.constant(c, 1, 1, 3, 3)], attrs).output
        self.keep(y, (n, c, h, w))

    def activation(self, i: int) -> None:
        name = str(self.rng.choice(["Relu", "Sigmoid", "Tanh", "Abs", "HSwish"]))
        self.keep(self.b.add(name, [self.values[i]]).output, self.shapes[i])

    def scale(self, i: int) -> None:
        c = self.shapes[i][1]
        shape = [(1, c, 1, 1), (1,), (1, 1, 1, self.shapes[i][3])][int(self.rng.integers(3))]
        if shape[-1] != 1 and not isinstance(self.values[i].shape[3], int):
            shape = (1, c, 1, 1)
        name = str(self.rng.choice(["Add", "Multiply", "Subtract", "Maximum"]))
        self.keep(self.b.add(name, [self.values[i], self.constant(*shape)]).output, self.shapes[i])

    def combine(self, i: int) -> None:
        same = [j for j in range(len(self.values)) if self.shapes[j] == self.shapes[i]]
        j = int(self.rng.choice(same))
        name = str(self.rng.choice(["Add", "Multiply", "Minimum"]))
        self.keep(self.b.add(name, [self.values[i], self.values[j]]).output, self.shapes[i])

    def concatenate(self, i: int) -> None:
        fit = [j for j in range(len(self.values)) if self.shapes[j][0::2] == self.shapes[i][0::2]]
        fit = [j for j in fit if self.shapes[j][3] == self.shapes[i][3]]
        parts = [i, *map(int, self.rng.choice(fit, min(len(fit), 2), replace=False))]
        channels = sum(self.shapes[j][1] for j in parts)
        if channels > 150:
            return
        y = self.b.add("Concat", [self.values[j] for j in parts], {"axis": 1}).output
        self.keep(y, (self.shapes[i][0], channels, *self.shapes[i][2:]))

    def divide(self, i: int) -> None:
        c = self.shapes[i][1]
        if c < 2:
            return
        cut = int(self.rng.integers(1, c))
        ys = self.b.add(
            "VariadicSplit", [self.values[i], self.indices(1), self.indices(cut, c - cut)]
        ).outputs
        for y, size in zip(ys, (cut, c - cut), strict=True):
            self.keep(y, (self.shapes[i][0], size, *self.shapes[i][2:]))

    def pool(self, i: int) -> None:
        n, c, h, w = self.shapes[i]
        attrs = {"kernel": (3, 3), "strides": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}
        if self.rng.random() < 0.5:
            y = self.b.add("MaxPool", [self.values[i]], attrs).outputs[0]
        else:
            y = self.b.add("AvgPool", [self.values[i]], attrs | {"exclude_pad": True}).output
        self.keep(y, (n, c, h, w))

    def squeeze_and_excite(self, i: int) -> None:
        mean = self.b.add("ReduceMean", [self.values[i], self.indices(2, 3)], {"keep_dims": True}).output
        gate = self.b.add("Sigmoid", [mean]).output
        self.keep(self.b.add("Multiply", [self.values[i], gate]).output, self.shapes[i])

    def turn(self, i: int) -> None:
        n, c, h, w = self.shapes[i]
        y = self.b.add("Transpose", [self.values[i], self.indices(0, 1, 3, 2)]).output
        self.keep(y, (n, c, w, h))

    def shuffle(self, i: int) -> None:
        c = self.shapes[i][1]
        groups = [g for g in (2, 3, 4) if c % g == 0]
        if groups:
            y = self.b.add(
                "ShuffleChannels", [self.values[i]], {"axis": 1, "group": int(self.rng.choice(groups))}
            ).output
            self.keep(y, self.shapes[i])

    def grow(self, steps: int) -> Graph:
        kinds = [
            self.convolution, self.convolution, self.depthwise, self.activation, self.activation, self.scale,
            self.combine, self.combine, self.concatenate, self.divide, self.pool, self.squeeze_and_excite,
            self.turn, self.shuffle,
        ]  # fmt: skip
        for _ in range(steps):
            kinds[int(self.rng.integers(len(kinds)))](self.pick())
        others = [v for v in self.values[:-1] if v.node.op.name != "Parameter" and self.rng.random() < 0.15]
        return self.b.finish([self.values[-1], *others])
