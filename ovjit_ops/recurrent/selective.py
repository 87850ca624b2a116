"""SelectiveSSM: the state-space model of Mamba 2, token by token.

For each head, with dt, b, x and c of a token, a number a, and a state [size of x, states]:

    state = exp(dt a) state + dt x^T b
    y     = c state^T

It is expanded to a TensorIterator over tokens. Groups of heads share b and c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.errors import check
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import TensorType, op
from ovjit.graph.shapes import is_static
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import in_f32
from ovjit_ops.elementwise.arithmetic import REALS
from ovjit_ops.recurrent.tokens import over_tokens, repeat_heads

#: Dimensions of the inputs: B batch, T tokens, H heads, P size of a head, G groups of heads, N states.
SHAPES = {"A": "H", "dt": "BTH", "B": "BTGN", "x": "BTHP", "C": "BTGN", "recurrent_state": "BHPN"}


def _expand(w: Writer, node: Node, inputs: Sequence[Value]) -> Sequence[Value] | None:
    a, dt, b, x, c, state = inputs
    if any(v.shape is None for v in inputs) or not is_static((b.shape[2], x.shape[2])):
        return None
    b, c = (repeat_heads(w, v, b.shape[2], x.shape[2]) for v in (b, c))
    decay = w("Exp", w("Multiply", dt, a))
    return over_tokens(w, node, [decay, b, w("Multiply", x, w("Unsqueeze", dt, [-1])), c], state, _token)


def _token(w: Writer, rows: Sequence[Value], state: Value) -> tuple[Value, Value]:
    decay, b, x, c = rows
    added = w("Multiply", w("Unsqueeze", x, [-1]), w("Unsqueeze", b, [-2]))
    after = w("Add", w("Multiply", state, w("Unsqueeze", decay, [-1, -2])), added)
    return w("ReduceSum", w("Multiply", after, w("Unsqueeze", c, [-2])), [-1], keep_dims=False), after


@op("SelectiveSSM", opset=1, plugin="extension", types=REALS, native=("f32",), ulp=64, expand=_expand)
class SelectiveSSM:
    """The output of each token, and the state after the last one."""

    def infer(A, dt, B, x, C, recurrent_state):
        inputs = (A, dt, B, x, C, recurrent_state)
        dims = unify(**{n: (v, letters) for (n, letters), v in zip(SHAPES.items(), inputs, strict=True)})
        heads, groups = dims["H"], dims["G"]
        if isinstance(heads, int) and isinstance(groups, int):
            check(groups and heads % groups == 0, f"{heads} heads are not a multiple of {groups} groups")
        dtype = next((v.dtype for v in inputs if v.dtype != "dynamic"), "dynamic")
        return TensorType(dtype, dims.shape("BTHP")), TensorType(dtype, dims.shape("BHPN"))

    @in_f32
    def ref(a, dt, b, x, c, state):
        b, c = (np.repeat(v, x.shape[2] // v.shape[2], 2) for v in (b, c))
        out = np.zeros_like(x)
        for t in range(x.shape[1]):
            added = (dt[:, t, :, None] * x[:, t])[..., None] * b[:, t, :, None]
            state = state * np.exp(dt[:, t] * a)[..., None, None] + added
            out[:, t] = (state * c[:, t, :, None]).sum(-1)
        return out, np.array(state)
