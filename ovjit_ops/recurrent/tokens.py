"""A recurrence over tokens, as a TensorIterator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.graph.bodies import CONCAT, LAST, MERGED, SLICED, Port
from ovjit.graph.graph import Builder, Node, Value
from ovjit.rewrite.writer import Writer

#: (writer of the body, rows of one token, state) -> (output of the token, next state)
Token = Callable[[Writer, Sequence[Value], Value], tuple[Value, Value]]


def over_tokens(
    w: Writer, node: Node, rows: Sequence[Value], state: Value, token: Token
) -> tuple[Value, ...]:
    """A TensorIterator over tokens: (outputs of all tokens, last state). `rows` are [batch, tokens, ...]."""
    indices = range(len(rows))
    into = [*(Port(SLICED, i, i, axis=1) for i in indices), Port(MERGED, len(rows), len(rows), 1)]
    out = [Port(CONCAT, 0, 0, axis=1), Port(LAST, 1, 1)]
    ports = {"input_ports": tuple(into), "output_ports": tuple(out)}
    body = _make_body(w.b.context, node, rows, state, token)
    return w.outputs("TensorIterator", *rows, state, body=body, **ports)


def _make_body(context: Any, node: Node, rows: Sequence[Value], state: Value, token: Token) -> Any:
    """The graph of one iteration: `token` applied to slices [batch, 1, ...] of `rows` and to the state."""
    inner = Builder(context)
    shaped = [(x, (x.shape[0], 1, *x.shape[2:])) for x in rows] + [(state, state.shape)]
    parameters = [
        inner.add("Parameter", (), {"shape": shape, "element_type": x.dtype}, name=f"{node.name}/{i}").output
        for i, (x, shape) in enumerate(shaped)
    ]
    w = Writer(inner, node)
    y, after = token(w, [w("Squeeze", x, [1]) for x in parameters[:-1]], parameters[-1])
    return inner.finish([w("Unsqueeze", y, [1]), after])


def repeat_heads(w: Writer, x: Value, heads: int, groups: int) -> Value:
    """Repeat the heads of [batch, tokens, heads, ...] so that there are `groups` of them."""
    if heads == groups:
        return x
    each = np.repeat(np.arange(heads), groups // heads)
    return w("Gather", x, each, np.array(2), batch_dims=0)
