"""Optimisers of ai.onnx.preview.training, which are arithmetic."""

from __future__ import annotations

from ovjit.readers.onnx.rule_language import *

DOMAIN = "ai.onnx.preview.training"


def _groups(n: OnnxNode, parts: int) -> list[list[Output]]:
    """The inputs after the first two, regrouped: a list of `parts` inputs for each tensor."""
    values = [n[i] for i in range(2, len(n))]
    count = len(values) // parts
    return [[values[part * count + i] for part in range(parts)] for i in range(count)]


def _outputs(rows: list[list[Output]]) -> list[Output]:
    return [row[part] for part in range(len(rows[0])) for row in rows] if rows else []


def _regularize(n: OnnxNode, x: Output, gradient: Output) -> Output:
    return n("Add", n("Multiply", n.like(x, n.attr("norm_coefficient")), x), gradient)


@onnx_op("Adagrad", domain=DOMAIN)
def adagrad(n: OnnxNode) -> Any:
    rate, step, rows = n[0], n.convert(n[1], n.dtype(n[0])), []
    decay = n.like(rate, n.attr("decay_factor"))
    rate = n("Divide", rate, n("Add", n.like(rate, 1), n("Multiply", step, decay)))
    for x, gradient, squares in _groups(n, 3):
        g = _regularize(n, x, gradient)
        squares = n("Add", squares, n("Multiply", g, g))
        scale = n("Add", n("Sqrt", squares), n.like(x, n.attr("epsilon")))
        rows.append([n("Subtract", x, n("Divide", n("Multiply", rate, g), scale)), squares])
    return _outputs(rows)


@onnx_op("Adam", domain=DOMAIN)
def adam(n: OnnxNode) -> Any:
    rate, step = n[0], n.convert(n[1], n.dtype(n[0]))
    alpha, beta = n.attr("alpha"), n.attr("beta")
    one = n.like(rate, 1)
    grown = n("Divide", n("Sqrt", n("Subtract", one, n("Power", n.like(rate, beta), step))),
              n("Subtract", one, n("Power", n.like(rate, alpha), step)))  # fmt: skip
    first = n("Equal", step, n.like(step, 0))
    rate = n("Select", first, rate, n("Multiply", rate, grown))
    rows = []
    for x, gradient, mean, square in _groups(n, 4):
        g = _regularize(n, x, gradient)
        mean = n("Add", n("Multiply", mean, n.like(x, alpha)), n("Multiply", g, n.like(x, 1 - alpha)))
        square = n("Add", n("Multiply", square, n.like(x, beta)),
                   n("Multiply", n("Multiply", g, g), n.like(x, 1 - beta)))  # fmt: skip
        root = n("Add", n("Sqrt", square), n.like(x, n.attr("epsilon")))
        moved = n("Subtract", x, n("Divide", n("Multiply", rate, mean), root))
        rows.append([n("Multiply", moved, n.like(x, 1 - n.attr("norm_coefficient_post"))), mean, square])
    return _outputs(rows)


@onnx_op("Momentum", domain=DOMAIN)
def momentum(n: OnnxNode) -> Any:
    rate, step = n[0], n[1]
    alpha = n.like(rate, n.attr("alpha"))
    rows = []
    for x, gradient, speed in _groups(n, 3):
        g = _regularize(n, x, gradient)
        beta = n.like(x, n.attr("beta"))
        beta = n("Select", n("Greater", step, 0), beta, n.like(x, 1))
        speed = n("Add", n("Multiply", alpha, speed), n("Multiply", beta, g))
        change = n("Add", g, n("Multiply", alpha, speed)) if n.attr("mode") == "nesterov" else speed
        rows.append([n("Subtract", x, n("Multiply", rate, change)), speed])
    return _outputs(rows)
