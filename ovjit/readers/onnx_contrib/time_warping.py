"""Paths through costs: which token was said when."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.readers.onnx.control import loop_over
from ovjit.readers.onnx.node import OnnxNode
from ovjit.readers.onnx_contrib.attention import ms


@ms("DynamicTimeWarping")
def dynamic_time_warping(n: OnnxNode) -> Any:
    """The path of the least cost through a matrix from one corner to the other, [2, steps].

    Costs are added up along one diagonal after the other, and the path is walked back over these.
    """
    x = n.squeeze(n[0], [0]) if n.rank(n[0]) == 3 else n[0]
    rows = n.dim_of(x, 0)
    # the diagonals as rows: each line of the matrix a place further to the right than that above
    tail = n.broadcast(float("inf"), n.concat([rows, rows], 0))
    line = n.reshape(n("Concat", x, tail, axis=1), [-1])
    line = n("Slice", line, [0], n("Subtract", n.dim_of(line, 0), rows), [1], [0])
    skewed = n.transpose(n.reshape(line, n.concat([rows, n.const([-1])], 0)), [1, 0])  # [diagonals, rows]
    beyond = np.full((1, 1), np.inf, np.float32)

    def further(state: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        """(the costs of the last two diagonals, by rows behind one of no cost, where each place came from)"""
        corner, upper = (n.slice(n.slice(state, 0, i, i + 1), 1, 0, -1) for i in (0, 1))
        previous = n.slice(n.slice(state, 0, 1, 2), 1, 1)
        first = n("LogicalAnd", n("Less", corner, upper), n("Less", corner, previous))
        second = n("LogicalAnd", n("Less", upper, corner), n("Less", upper, previous))
        came = n("Select", second, n.const(1, "i32"), n.const(2, "i32"))
        came = n("Select", first, n.const(0, "i32"), came)
        least = n("Select", first, corner, n("Select", second, upper, previous))
        total = n("Add", least, n.unsqueeze(now["cost"], [0]))
        following = n("Concat", n.slice(state, 0, 1, 2), n("Concat", beyond, total, axis=1), axis=0)
        return following, n.squeeze(came, [0])

    state_shape = n.concat([n.const([2]), n("Add", rows, 1)], 0)
    start = n.broadcast(float("inf"), state_shape)
    start = n("ScatterNDUpdate", start, np.zeros((1, 2), np.int64), np.zeros(1, np.float32), opset=3)
    _, came = loop_over(n, further, start, {"cost": skewed})  # [diagonals, rows]
    count = n.dim_of(came, 0)
    backwards = {
        "came": n.slice(came, 0, -1, None, -1),
        "diagonal": n("Subtract", n("Subtract", count, 1), n.upto(count)),
    }

    def back(state: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        """(row and column of the path, the same where it crosses this diagonal, else -1)"""
        row = n.slice(state, 0, 0, 1)
        here = n("Equal", n("ReduceSum", state, [0], keep_dims=False), now["diagonal"])
        here = n("LogicalAnd", here, n("GreaterEqual", n("ReduceMin", state, [0], keep_dims=False), 0))
        way = n("Gather", now["came"], n("Maximum", row, 0), 0, opset=8)
        steps = n("Gather", np.array([[1, 1], [1, 0], [0, 1]], np.int64), n.squeeze(way, [0]), 0, opset=8)
        previous_step = n("Select", here, n("Subtract", state, steps), state)
        return previous_step, n("Select", here, state, n.const(np.full(2, -1, np.int64)))

    corner = n("Subtract", n.concat([rows, n.dim_of(x, 1)], 0), 1)
    _, path = loop_over(n, back, corner, backwards)  # [diagonals, 2]
    path = n.slice(path, 0, -1, None, -1)
    crossed = n("GreaterEqual", n.squeeze(n.slice(path, 1, 0, 1), [1]), 0)
    crossings = n.reshape(n("NonZero", crossed, output_type="i64"), [-1])
    return n.convert(n.transpose(n("Gather", path, crossings, 0, opset=8), [1, 0]), "i32")
