"""Losses."""

from __future__ import annotations

from typing import Any

import paddle  # type: ignore[import-not-found]

from .parts import Rule

functional = paddle.nn.functional


def _label_smooth(op: Any) -> Any:
    x, prior = op.operands_source()
    epsilon = op.attrs()["epsilon"]
    if prior.initialized():
        return x * (1 - epsilon) + prior * epsilon
    return None if x.shape[-1] < 0 else x * (1 - epsilon) + epsilon / x.shape[-1]


def _huber(op: Any) -> Any:
    x, label = op.operands_source()
    delta = op.attrs()["delta"]
    off = paddle.abs(label - x)
    return paddle.where(off <= delta, off * off * 0.5, (off - delta / 2) * delta)


def _divergence(op: Any) -> Any:
    x, target = op.operands_source()
    attrs = op.attrs()
    if attrs["reduction"] != "none":
        return None
    if attrs["log_target"]:
        return paddle.exp(target) * (target - x)
    inside = target > 0
    ones = paddle.ones_like(target)
    return paddle.where(inside, target * (paddle.log(paddle.where(inside, target, ones)) - x), ones * 0)


def _cross_entropy_of_logits(op: Any) -> Any:
    x, target, weight = op.operands_source()
    attrs = op.attrs()
    if attrs["normalize"]:
        return None
    softplus = paddle.log1p(paddle.exp(-paddle.abs(x)))
    if weight.initialized():
        result = (1 - target) * x + (1 + (weight - 1) * target) * (softplus + functional.relu(-x))
    else:
        result = functional.relu(x) - x * target + softplus
    return paddle.where(target == attrs["ignore_index"], paddle.zeros_like(result), result)


RULES: dict[str, Rule] = {
    "label_smooth": _label_smooth,
    "huber_loss": _huber,
    "kldiv_loss": _divergence,
    "sigmoid_cross_entropy_with_logits": _cross_entropy_of_logits,
}
