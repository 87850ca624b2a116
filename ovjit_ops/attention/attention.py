"""Scaled dot-product attention, and the variants that models write out.

out = softmax(scale q k^T + mask) v        q [..., L, E], k [..., S, E], v [..., S, V]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import float_types
from ovjit.errors import check
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, Float, TensorType, op
from ovjit.graph.shapes import ANY, broadcast, compatible
from ovjit.rewrite.writer import Writer
from ovjit_ops.attention.recognize import recognize_attention
from ovjit_ops.common.checks import check_same_type, check_type
from ovjit_ops.common.values import check_one, in_f32
from ovjit_ops.elementwise.arithmetic import REALS


def causal_mask(rows: int, columns: int, dtype: Any = np.float32) -> np.ndarray:
    """0 where column <= row, else -inf."""
    later = np.arange(columns) > np.arange(rows)[:, None]
    return np.where(later, -np.inf, 0).astype(dtype)


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None = None,
    scale: np.ndarray | None = None, sink: np.ndarray | None = None, *, causal: bool = False,
    guarded: bool = False, plain: bool = False, cap: float = 0,
) -> np.ndarray:  # fmt: skip
    """softmax(scale q k^T + mask) v. `causal` replaces the mask.

    A sink is one more logit in the denominator of each row. `cap`: scores are cap tanh(scale q k^T) + mask. A
    fully masked row is 0, as in PyTorch. With `plain` it is NaN, as from a softmax. `guarded`: all NaN
    weights become 0.
    """
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale.reshape(-1)[0])
    scores = np.matmul(q, k.swapaxes(-1, -2)) * factor
    if cap:
        scores = np.tanh(scores) * np.asarray(cap, scores.dtype)
    if causal:
        scores = scores + causal_mask(scores.shape[-2], scores.shape[-1], scores.dtype)
    elif mask is not None:
        scores = scores + (np.where(mask, 0, -np.inf).astype(scores.dtype) if mask.dtype == bool else mask)
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    if sink is not None:
        top = np.maximum(top, sink)
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - top)
    weights = weights / total
    if not plain:
        weights = np.where(np.isnan(weights) if guarded else np.isneginf(top), 0, weights)
    return np.matmul(weights.astype(scores.dtype), v)


def _before_repetition(value: Value) -> Value | None:
    """[B, heads, 1, S, E] if `value` is its Broadcast to [B, heads, groups, S, E] and Reshape to four
    dimensions, else None. Models with grouped queries repeat keys and values so."""
    flat, spread = value.node, value.node.inputs[0].node if value.node.inputs else None
    if flat.op.name != "Reshape" or spread is None or spread.op.name != "Broadcast":
        return None
    source, full, out = spread.inputs[0].shape, spread.output.shape, value.shape
    if source is None or full is None or out is None or (len(source), len(full), len(out)) != (5, 5, 4):
        return None
    heads, groups = source[1], full[2]
    if (
        not isinstance(heads, int)
        or not isinstance(groups, int)
        or source[2] != 1
        or out[1] != heads * groups
    ):
        return None
    same = full[1] == heads and (source[0], source[3:]) == (full[0], full[3:]) == (
        out[0],
        out[2:],
    )
    return spread.inputs[0] if same else None


def _with_shared_heads(w: Writer, node: Node, inputs: Sequence[Value]) -> Sequence[Value] | None:
    """SDPA(q: [B, H, L, E], k and v repeated for groups of heads) -> SDPA in five dimensions, with k and v
    before the repetition. Heads that share keys read them in place."""
    q, k, v, *more = inputs
    if q.shape is None or len(q.shape) != 4 or len(more) > 2 or not isinstance(q.shape[-1], int):
        return None
    keys, values = _before_repetition(k), _before_repetition(v)
    if keys is None or values is None or keys.shape[1] != values.shape[1] or k.shape[1] != q.shape[1]:
        return None
    if more and more[0].shape and (len(more[0].shape) != 4 or more[0].shape[1] != 1):
        return None
    width = values.shape[-1]
    if not isinstance(width, int):
        return None
    heads = keys.shape[1]
    groups = q.shape[1] // heads
    grouped = w("Reshape", q, (0, heads, groups, -1, q.shape[-1]), special_zero=True)
    if more and more[0].shape:
        more[0] = w("Unsqueeze", more[0], (1,))
    arguments = [grouped, keys, values, *more]
    (attention,) = w.b.instead(node, arguments)  # five dimensions, unlike the replaced node
    return [w("Reshape", attention, (0, q.shape[1], -1, width), special_zero=True)]


def _infer(query, key, value, attention_mask, scale, sink, causal):
    """The output type of attention. Raises ModelError if the inputs do not fit together."""
    dtype = query.dtype
    check_type(query, REALS)
    for name, x in (("key", key), ("value", value), ("scale", scale), ("sink", sink)):
        check_same_type(x, query, name)
    if attention_mask is not None:
        kinds = (dtype, "boolean", "dynamic")
        check(
            attention_mask.dtype in kinds or dtype == "dynamic",
            f"the mask should have the type {dtype} or boolean, not {attention_mask.dtype}",
        )
    if scale is not None:
        check_one(scale, "scale")
    if query.shape is None:
        return TensorType(dtype, None)
    rank = len(query.shape)
    check(rank >= 3, f"query should have at least 3 dimensions; its shape is {query}")
    for name, x in (("key", key), ("value", value)):
        check(x.shape is None or len(x.shape) == rank, f"{name} {x} should have the rank of query {query}")
    batch = broadcast(*(x.shape[:-2] for x in (query, key, value) if x.shape is not None))
    assert batch is not None
    if key.shape is not None:
        check(
            compatible(query.shape[-1], key.shape[-1]),
            f"query {query} and key {key} should have equal last dimensions",
        )
    if key.shape is not None and value.shape is not None:
        check(
            compatible(key.shape[-2], value.shape[-2]),
            f"key {key} and value {value} should have equal sequence lengths",
        )
        if attention_mask is not None and not causal:
            scores = (*batch, query.shape[-2], key.shape[-2])
            joint = broadcast(attention_mask.shape, scores)
            check(
                joint is None or len(joint) == rank,
                f"the mask {attention_mask} has more dimensions than the scores",
            )
            fits = joint is None or all(compatible(a, b) for a, b in zip(joint, scores, strict=True))
            check(fits, f"the mask {attention_mask} cannot be broadcast to the scores")
    if sink is not None and sink.shape is not None:
        check(len(sink.shape) == rank, f"sink {sink} should have the rank of query {query}")
        rows = (*batch, query.shape[-2], 1)
        fits = all(compatible(a, b) or a == 1 for a, b in zip(sink.shape, rows, strict=True))
        check(fits, f"sink {sink} cannot be broadcast to query {query}")
    last = ANY if value.shape is None else value.shape[-1]
    if key.shape is None or value.shape is None:
        batch = (ANY,) * (rank - 2)
    return TensorType(dtype, (*batch, query.shape[-2], last))


@op(
    "ScaledDotProductAttention", opset=13, types=REALS, native=float_types, multiplied=3, ulp=16,
    rules=[recognize_attention], rules_for=["Softmax"], lower=".choose_lowering:lower_attention",
)  # fmt: skip
class ScaledDotProductAttention:
    """softmax(scale query key^T + mask) value, with the scale 1 / sqrt(E) unless given.

    A fully masked row is 0, as in PyTorch. OpenVINO gives NaN there, which the next layer spreads from the
    padding on the left of a batch to all tokens.
    """

    def infer(query, key, value, attention_mask=None, scale=None, sink=None, *, causal: Bool = False):
        return _infer(query, key, value, attention_mask, scale, sink, causal)

    ref = in_f32(attention)

    def expand(w, node, inputs):
        """SDPA(q, k, v, mask: boolean) -> SDPA(q, k, v, Select(mask, 0, -inf)); else as
        `_with_shared_heads`"""
        if inputs[0].dtype not in ("f32", "bf16"):
            return None
        more = list(inputs[3:])
        if more and more[0].dtype == "boolean":
            zero, never = np.zeros((), np.float32), np.array(-math.inf, np.float32)
            more[0] = w("Select", more[0], zero, never)
        more = [v if v.dtype == "f32" else w("Convert", v, destination_type="f32") for v in more]
        if any(new is not old for new, old in zip(more, inputs[3:], strict=True)):
            types = [v.type for v in node.outputs]
            return w.b.instead(node, [*inputs[:3], *more], types=types, lowered=True)
        return _with_shared_heads(w, node, inputs)


@op("GuardedAttention", like=ScaledDotProductAttention, internal=True, rules=[], rules_for=[])
class GuardedAttention:
    """ScaledDotProductAttention with 0 for NaN weights, such as those of fully masked rows."""

    ref = in_f32(partial(attention, guarded=True))


@op("SoftmaxAttention", like=ScaledDotProductAttention, internal=True, rules=[], rules_for=[])
class SoftmaxAttention:
    """ScaledDotProductAttention by a plain softmax: a fully masked row is NaN."""

    ref = in_f32(partial(attention, plain=True))


@op("CappedAttention", like=ScaledDotProductAttention, internal=True, rules=[], rules_for=[])
class CappedAttention:
    """softmax(cap tanh(scale query key^T) + mask) value."""

    def infer(
        query, key, value, attention_mask=None, scale=None, sink=None, *, causal: Bool = False, cap: Float
    ):  # fmt: skip
        return _infer(query, key, value, attention_mask, scale, sink, causal)

    ref = in_f32(partial(attention, plain=True))
