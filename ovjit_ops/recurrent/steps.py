"""RecurrentSteps: a recurrent layer with given input products, and the expansion to it.

    LSTMSequence(x, h, c, lengths, W, R, B) -> RecurrentSteps(x W^T + B, h, c, lengths, R)

The input products of all steps and directions are one matrix product. Each step only computes h R^T and the
gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import BF16, find_format
from ovjit.codegen.cpu.targets import Target
from ovjit.errors import check
from ovjit.graph.graph import Node, Value
from ovjit.graph.op import Bool, Floats, Int, Single, Str, Strs, TensorType, Word, op
from ovjit.rewrite.writer import Writer
from ovjit_ops.common.dims import Dims
from ovjit_ops.recurrent.step import (
    KINDS,
    check_lengths,
    directions,
    make_step,
    run_directions,
)

#: Letter of an input in `roles` -> its dimensions. x: input products, Q = directions x gates x hidden; h, c:
#: states; l: lengths; r: recurrent weights; b: bias inside the reset gate's product; a: attention.
SHAPES = {"x": "BTQ", "h": "BDH", "c": "BDH", "l": "B", "r": "DGH", "b": "DH", "a": "BT1"}


def _lower(group: Any) -> Any:
    if group.context.target.is_gpu:
        from ovjit_ops.recurrent.gpu_recurrent import GpuRecurrentSteps

        return GpuRecurrentSteps.of(group)
    from ovjit_ops.recurrent.cpu_recurrent import RecurrentSteps

    return RecurrentSteps.of(group)


def _types(target: Target) -> tuple[str, ...]:
    """The types of recurrent weights with a native kernel; all other inputs are f32."""
    return ("f32", "bf16") if find_format("bf16", "bf16", target) is BF16 else ("f32",)


@op(
    "RecurrentSteps", opset=1, internal=True, native=_types, lower=_lower, ulp=64,
    factor=lambda attrs: attrs["roles"].index("r"),
)  # fmt: skip
class RecurrentSteps:
    """All steps of a recurrent layer: each h, the last h, and for LSTM the last C. With recurrent weights of
    bf16, the states are rounded to bf16 before they are multiplied."""

    def infer(
        *xs, kind: Str, roles: Str, direction: Word, hidden_size: Int, activations: Strs,
        activations_alpha: Floats = (), activations_beta: Floats = (), clip: Single = 0.0,
        linear_before_reset: Bool = False, input_forget: Bool = False,
    ):  # fmt: skip
        check(
            kind in KINDS and len(xs) == len(roles) and set(roles) <= set(SHAPES), f"unknown {kind} {roles}"
        )
        turns, gates = len(directions(direction)), KINDS[kind].gates
        dims = Dims(D=turns, H=hidden_size, G=gates * hidden_size, Q=turns * gates * hidden_size)
        for role, x in zip(roles, xs, strict=True):
            dims.fit(role, x, SHAPES[role])
        outputs = ["BDTH", *["BDH"] * KINDS[kind].states]
        return tuple(TensorType(xs[0].dtype, dims.shape(letters)) for letters in outputs)

    def ref(*xs, kind, roles, direction, hidden_size, **attrs):
        named = dict(zip(roles, xs, strict=True))
        step = make_step(kind, attrs)
        batch, steps = xs[0].shape[:2]
        lengths = named.get("l")
        backwards = directions(direction)
        lengths = np.full(batch, steps) if lengths is None else check_lengths(lengths, steps, backwards)
        each = np.split(named["x"], len(backwards), 2)
        c, a, rbs = named.get("c"), named.get("a"), named.get("b", [None] * len(backwards))
        return run_directions(step, each, named["h"], c, lengths, backwards, named["r"], rbs, a)


def expand_layer(kind: str, names: Sequence[str], sequence: bool) -> Any:
    """The `expand` function of a cell or sequence whose inputs have these names."""

    def in_order(w: Writer, x: Value, order: str) -> Value:
        """The rows of gates in the order "fico", by nodes."""
        if order == "fico":
            return x
        parts = w.outputs("Split", x, np.array(0), num_splits=4)
        return w("Concat", *(parts[order.index(gate)] for gate in "fico"), axis=0)

    def expand(w: Writer, node: Node, inputs: Sequence[Value]) -> Sequence[Value] | None:
        named = dict(zip(names, inputs, strict=False))
        attrs = dict(node.attrs)
        order = attrs.pop("weights_format", "fico")
        peep = named.get("P")
        if peep is not None and (peep.constant is None or peep.constant.any()):
            return None
        if named["X"].dtype != "f32" or named["X"].shape is None:
            return None
        if any(named[n].shape is None for n in "WRB"):
            return None
        weights, recurrent, bias = (in_order(w, named[n], order) for n in "WRB")
        if not sequence:
            weights, recurrent, bias = (w("Unsqueeze", v, (0,)) for v in (weights, recurrent, bias))
        size, rb = attrs["hidden_size"], None
        rows = KINDS[kind].gates * size
        if attrs.get("linear_before_reset"):
            bias, rb = w.part(bias, 0, rows, 1), w.part(bias, rows, rows + size, 1)
        turns = len(directions(attrs.get("direction", "forward")))
        flat = w("Reshape", weights, (turns * rows, w.shape(weights)[2]), special_zero=False)
        bias = w("Reshape", bias, (turns * rows,), special_zero=False)
        products = w("Add", w("MatMul", named["X"], flat, transpose_b=True), bias)

        def steps_of(x: Value | None) -> Value | None:
            """The input of a cell as input of a sequence with one step (or one direction)."""
            return x if sequence or x is None else w("Unsqueeze", x, (1,))

        by_role = {"x": steps_of(products), "h": steps_of(named["initial_hidden_state"])}
        by_role["c"] = steps_of(named.get("initial_cell_state"))
        lengths = named.get("sequence_lengths")
        by_role["l"] = None if lengths is None else w("Convert", lengths, destination_type="i64")
        by_role["r"], by_role["b"] = recurrent, rb
        by_role["a"] = steps_of(named.get("A"))
        used = {role: x for role, x in by_role.items() if x is not None}
        attrs |= {"kind": kind, "roles": "".join(used), "direction": attrs.get("direction", "forward")}
        outputs = w.outputs("RecurrentSteps", *used.values(), **attrs)
        return outputs if sequence else [w("Squeeze", x, (1,)) for x in outputs[1:]]

    return expand
