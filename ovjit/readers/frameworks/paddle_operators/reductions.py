"""Reductions, scans, searches and comparisons of all elements."""

from __future__ import annotations

from .parts import *


def _of_all(function: Callable[..., Any]) -> Rule:
    """The rule of a reduction of all elements, which the exporter refuses or gives a dimension."""

    def rule(op: Any) -> Any:
        if op.result(0).shape or not op.operand_source(0).shape:
            return None
        return of_one_axis(function, paddle.reshape(op.operand_source(0), [-1]))

    return rule


RULES: dict[str, Rule] = {
    "all": _of_all(paddle.all),
    "any": _of_all(paddle.any),
    "mean": _of_all(paddle.mean),
    "sum": _of_all(paddle.sum),
    "logsumexp": _of_all(paddle.logsumexp),
    "max": _of_all(paddle.max),
    "min": _of_all(paddle.min),
    "prod": _of_all(lambda x, axis, keepdim: paddle.prod(x, axis[0], keepdim)),
}
