"""Rules of Models on random models: results stay equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.api.model.folding import fold
from ovjit.api.model.merge_equal_nodes import merge_equal_nodes
from ovjit.api.model.model_rules import apply_rules
from ovjit.compat.passes.unneeded import UNNEEDED, simplify
from ovjit.compat.preprocess.tidy import tidy
from ovjit.graph.interp import evaluate
from ovjit.readers.torch.fusions.activations import ACTIVATIONS
from ovjit.readers.torch.fusions.attention import ATTENTION
from ovjit.readers.torch.fusions.constants import join_constants
from ovjit.readers.torch.fusions.transposes import MOVEMENTS
from ovjit.rewrite.rules import applied
from ovjit.rewrite.weight_scales import BATCH_NORMS

ops = ov.opset13
SHAPE = (2, 4, 6, 6)
SEEDS = range(24)


def apply_lists(lists: Any) -> Callable[[ov.Model], None]:
    def run(model: ov.Model) -> None:
        for rules in lists:
            apply_rules(rules, model)

    return run


#: All rewrites of Models, by name.
REWRITES: dict[str, Callable[[ov.Model], Any]] = {
    "tidy": tidy,
    "unneeded": apply_lists([UNNEEDED]),
    "conversion": lambda model: simplify(model, fold_shapes=False),
    "equal nodes": merge_equal_nodes,
    "folding": fold,
    "batch norms": apply_lists(BATCH_NORMS),
    "activations": apply_lists(ACTIVATIONS),
    "movements": apply_lists(MOVEMENTS),
    "attention": apply_lists(ATTENTION),
    "constants": join_constants,
}


class Maker:
    """Makes a model of random steps, each of one or several values of the shape `SHAPE`."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.x = ops.parameter(list(SHAPE), np.float32, name="x")
        self.values: list[Any] = [self.x]
        steps = [
            getattr(self, name)
            for name in sorted(vars(Maker))
            if name[0] != "_" and name not in ("pick", "const")
        ]
        for _ in range(int(self.rng.integers(6, 16))):
            self.values.append(steps[self.rng.integers(len(steps))]())
        ends = [self.values[-1], self.pick()]
        self.model = ov.Model([ops.tanh(end) for end in ends], [self.x])

    def pick(self) -> Any:
        """A value, one of the last ones more often, so that chains are long."""
        return self.values[-1 - min(int(self.rng.exponential(1.5)), len(self.values) - 1)]

    def const(self, *shape: int) -> Any:
        """Small numbers, sometimes all 0 or 1."""
        kind = self.rng.integers(6)
        if kind < 2:
            return ops.constant(np.full(shape, kind, np.float32))
        return ops.constant((self.rng.standard_normal(shape) * 0.5 + 1).astype(np.float32))

    def _operand(self) -> Any:
        shapes = [(), (1,), (4, 1, 1), (1, 4, 1, 1), (6,), SHAPE]
        return self.const(*shapes[self.rng.integers(len(shapes))])

    def arithmetic(self) -> Any:
        build = [ops.add, ops.multiply, ops.subtract][self.rng.integers(3)]
        return build(self.pick(), self._operand())

    def quotient(self) -> Any:
        divisor = self.rng.choice(np.float32([1, 2, -4, 0.3]))
        return ops.divide(self.pick(), ops.constant(divisor))

    def chain(self) -> Any:
        return ops.add(ops.add(self.pick(), self.const(4, 1, 1)), self.const(1))

    def factors(self) -> Any:
        return ops.multiply(ops.multiply(self.pick(), self.const(4, 1, 1)), self.const(1))

    def sum(self) -> Any:
        return ops.add(self.pick(), self.pick())

    def twice(self) -> Any:
        """Equal nodes."""
        value, weights = self.pick(), np.float32(self.rng.integers(1, 4))
        both = [ops.multiply(ops.transpose(value, [0, 1, 3, 2]), weights) for _ in range(2)]
        return ops.transpose(ops.maximum(*both), [0, 1, 3, 2])

    def convolution(self) -> Any:
        x = self.pick()
        if self.rng.random() < 0.5:
            x = ops.multiply(x, self.const(1, 4, 1, 1))
        pads = [1, 1]
        if self.rng.random() < 0.3:
            x, pads = ops.pad(x, [0, 0, 1, 1], [0, 0, 1, 1], "constant", np.float32(0)), [0, 0]
        y = ops.convolution(x, self.const(4, 4, 3, 3), [1, 1], pads, pads, [1, 1])
        if self.rng.random() < 0.5:
            y = ops.add(y, self.const(1, 4, 1, 1))
        return ops.multiply(y, self.const(1, 4, 1, 1)) if self.rng.random() < 0.5 else y

    def batch_norm(self) -> Any:
        spread = ops.constant(self.rng.random(4).astype(np.float32) + 0.5)
        x = self.convolution() if self.rng.random() < 0.6 else self.pick()
        return ops.batch_norm_inference(x, self.const(4), self.const(4), self.const(4), spread, 1e-3)

    def channels(self) -> Any:
        return ops.gather(self.pick(), self.rng.permutation(4), np.int64(1))

    def transposes(self) -> Any:
        order = self.rng.permutation(4)
        inner = ops.transpose(self.pick(), order)
        return (
            ops.transpose(inner, np.argsort(order)) if self.rng.random() < 0.5 else self._back(inner, order)
        )

    def _back(self, value: Any, order: np.ndarray) -> Any:
        """To the shape by two reshapes, which mixes elements."""
        return ops.reshape(ops.reshape(value, [-1], False), list(SHAPE), False)

    def slices(self) -> Any:
        x = ops.slice(self.pick(), [1], [7], [1], [2])
        x = ops.slice(x, [0], [5], [1], [3])
        return ops.pad(x, [0, 0, 1, 0], [0, 0, 0, 1], "constant", np.float32(0))

    def gelu(self) -> Any:
        x = self.pick()
        gate = ops.add(ops.erf(ops.divide(x, np.float32(2**0.5))), np.float32(1))
        return ops.multiply(ops.multiply(x, np.float32(0.5)), gate)

    def swish(self) -> Any:
        x = self.pick()
        return ops.multiply(x, ops.sigmoid(x))

    def limits(self) -> Any:
        return ops.minimum(ops.maximum(self.pick(), np.float32(-1)), np.float32(1.5))

    def norm(self) -> Any:
        x = self.pick()
        centred = ops.subtract(x, ops.reduce_mean(x, np.array([3]), True))
        variance = ops.reduce_mean(ops.multiply(centred, centred), np.array([3]), True)
        return ops.divide(centred, ops.sqrt(ops.add(variance, np.float32(1e-5))))

    def attention(self) -> Any:
        q, k, v = self.pick(), self.pick(), self.pick()
        scores = ops.matmul(q, ops.transpose(k, [0, 1, 3, 2]), False, False)
        scores = ops.multiply(scores, np.float32(0.4))
        if self.rng.random() < 0.5:
            scores = ops.add(scores, self.const(1, 1, 6, 6))
        return ops.matmul(ops.softmax(scores, 3), v, False, False)

    def constants(self) -> Any:
        """Something to fold."""
        return ops.add(self.pick(), ops.relu(ops.transpose(self.const(1, 4, 6), [1, 0, 2])))


@pytest.mark.parametrize("name", REWRITES)
def test_results_of_random_models_stay(name: str) -> None:
    before = applied.total()
    changed = 0
    for seed in SEEDS:
        model = Maker(seed).model
        x = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
        expected = evaluate(model._graph(), [x])
        count = len(model.get_ops())
        REWRITES[name](model)
        model.validate_nodes_and_infer_types()
        for result, wanted in zip(evaluate(model._graph(), [x]), expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=2e-4, atol=2e-4, err_msg=f"seed {seed}")
        changed += applied.total() > before or len(model.get_ops()) != count
        before = applied.total()
    assert changed > len(SEEDS) / 10, f"{name} changed {changed} models alone"
