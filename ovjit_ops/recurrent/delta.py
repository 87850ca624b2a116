"""GatedDeltaNet: linear attention with a gated delta rule, token by token.

For each head, with g, beta, q, k and v of a token, and a state [key, value]:

    state = exp(g) state
    state = state + k^T beta (v - k state)
    y     = q state / sqrt(size of a key)

It is expanded to a TensorIterator over tokens. q and k may have fewer heads than v.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ovjit.errors import check
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, Float, TensorType, op
from ovjit.graph.shapes import is_static
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import in_f32
from ovjit_ops.elementwise.arithmetic import REALS
from ovjit_ops.recurrent.tokens import over_tokens, repeat_heads

#: Dimensions of the inputs: B batch, T tokens, H key heads, K size of a key, G value heads, V size of a
#: value.
SHAPES = {
    "query": "BTHK", "key": "BTHK", "value": "BTGV", "recurrent_state": "BGKV", "gate": "BTG", "beta": "BTG",
}  # fmt: skip


def _expand(w: Writer, node: Node, inputs: Sequence[Value]) -> Sequence[Value] | None:
    q, k, v, state, gate, beta = inputs
    if any(x.shape is None for x in inputs):
        return None
    sizes = (q.shape[2], q.shape[3], v.shape[2])
    if not is_static(sizes):
        return None
    heads, size, groups = sizes
    attrs = node.attrs
    if attrs["fuse_qk_l2norm"]:
        q, k = (_unit(w, x, attrs[f"{n}_l2_norm_eps"]) for n, x in (("q", q), ("k", k)))
    q, k = (repeat_heads(w, x, heads, groups) for x in (q, k))
    q = w("Multiply", q, 1 / math.sqrt(size))
    return over_tokens(w, node, [q, k, v, w("Exp", gate), beta], state, _token)


def _unit(w: Writer, x: Value, eps: float) -> Value:
    """Rows normalized to length 1."""
    squares = w("ReduceSum", w("Multiply", x, x), [-1], keep_dims=True)
    return w("Divide", x, w("Sqrt", w("Add", squares, eps)))


def _token(w: Writer, rows: Sequence[Value], state: Value) -> tuple[Value, Value]:
    q, k, v, decay, beta = rows
    column_q, column_k = (w("Unsqueeze", x, [-1]) for x in (q, k))
    before = w("Multiply", state, w("Unsqueeze", decay, [-1, -2]))
    recalled = w("ReduceSum", w("Multiply", before, column_k), [-2], keep_dims=False)
    change = w("Multiply", w("Subtract", v, recalled), w("Unsqueeze", beta, [-1]))
    after = w("Add", before, w("Multiply", column_k, w("Unsqueeze", change, [-2])))
    return w("ReduceSum", w("Multiply", after, column_q), [-2], keep_dims=False), after


@op("GatedDeltaNet", opset=1, plugin="extension", types=REALS, native=("f32",), ulp=64, expand=_expand)
class GatedDeltaNet:
    """The output of each token, and the state after the last one. `fuse_qk_l2norm`: queries and keys are
    normalized to length 1 first; `..._eps` is added to the sums of squares."""

    def infer(
        query, key, value, recurrent_state, gate, beta, *, fuse_qk_l2norm: Bool = False,
        q_l2_norm_eps: Float = 1e-6, k_l2_norm_eps: Float = 1e-6,
    ):  # fmt: skip
        inputs = (query, key, value, recurrent_state, gate, beta)
        dims = unify(**{n: (x, letters) for (n, letters), x in zip(SHAPES.items(), inputs, strict=True)})
        heads, groups = (dims.shape(letter)[0] for letter in "HG")
        if isinstance(heads, int) and isinstance(groups, int):
            check(heads and groups % heads == 0, f"{groups} heads of values are not a multiple of {heads}")
        check(
            q_l2_norm_eps > 0 and k_l2_norm_eps > 0,
            "the attributes q_l2_norm_eps and k_l2_norm_eps should be positive",
        )
        dtype = next((x.dtype for x in inputs if x.dtype != "dynamic"), "dynamic")
        return TensorType(dtype, dims.shape("BTGV")), TensorType(dtype, dims.shape("BGKV"))

    @in_f32
    def ref(q, k, v, state, gate, beta, *, fuse_qk_l2norm=False, q_l2_norm_eps=1e-6, k_l2_norm_eps=1e-6):
        pair = [q, k]
        if fuse_qk_l2norm:
            pair = [
                x / np.sqrt((x * x).sum(-1, keepdims=True) + np.asarray(eps, x.dtype))
                for x, eps in ((q, q_l2_norm_eps), (k, k_l2_norm_eps))
            ]
        rows, columns = (np.repeat(x, v.shape[2] // x.shape[2], 2)[..., None] for x in pair)
        rows = rows * np.asarray(1 / math.sqrt(rows.shape[-2]), rows.dtype)
        out, current = np.zeros_like(v), np.array(state)
        for t in range(v.shape[1]):
            decayed = current * np.exp(gate[:, t])[..., None, None]
            change = (v[:, t] - (decayed * columns[:, t]).sum(-2)) * beta[:, t, :, None]
            current = decayed + columns[:, t] * change[:, :, None]
            out[:, t] = (current * rows[:, t]).sum(-2)
        return out, current
