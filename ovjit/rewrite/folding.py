"""Constant folding: replaces nodes whose inputs are constants by their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.graph.converted import Converted, is_worth, remember_conversion
from ovjit.graph.dtypes import HALVES
from ovjit.graph.graph import Builder, Node, Value
from ovjit.graph.interp import evaluate_node
from ovjit.graph.op import grown_bytes
from ovjit.graph.shapes import is_static
from ovjit.rewrite.conversions import converts
from ovjit.rewrite.pattern import operation
from ovjit.rewrite.rules import Uses, rule

#: A folded constant may have at most this many bytes more than the constants from which it is computed.
FOLD_BUDGET = 64 * 1024 * 1024


def _may_be_known(node: Node, inputs: Sequence[Value]) -> bool:
    if not inputs or node.output.type.value is not None:
        return bool(inputs)
    return all(v.node.op.role == "constant" or v.type.value is not None for v in inputs)


@rule(operation(lambda record: record.may_fold)(...), quick=_may_be_known)
def fold_constants(b: Builder, node: Node, readers: Uses) -> Sequence[Value] | None:
    """op(constants) -> constant     unless the result is much larger than the inputs"""
    inputs = node.inputs
    if node.lowered and node.op.multiplied:
        return None  # references multiply inputs of one type only
    stored = [v.type.value if v.stored_array is None else v.stored_array for v in inputs]
    inferred = [v.type.value for v in node.outputs]
    if all(k is not None for k in inferred) and all(v.stored_array is None for v in inputs):
        return [b.constant(k, v.dtype) for k, v in zip(inferred, node.outputs, strict=True)]
    constants = [a for a in stored if a is not None]
    if len(constants) < len(stored) or any(not is_static(v.shape) for v in node.outputs):
        return None
    if any(v.dtype == "string" for v in (*inputs, *node.outputs)):
        return None
    first = constants[0]
    if isinstance(first, np.ndarray | Converted) and _is_widened_weight(node, readers) and is_worth(first):
        return [b.constant(Converted(first, [np.dtype(np.float32)]), name=node.name)]
    values = _values(node, constants)
    if values is None:
        return None
    if isinstance(first, np.ndarray) and converts(node, of=HALVES, to=("f32",)):
        remember_conversion(values[0], first)
    return [b.constant(v, o.dtype, name=node.name) for v, o in zip(values, node.outputs, strict=True)]


def _values(node: Node, args: Sequence[Any]) -> Sequence[np.ndarray] | None:
    """The node's outputs for these stored inputs. None if they are much larger than the inputs. A record
    knows one type; a lowered node has several, as means of bytes in f32."""
    types = [v.type for v in node.outputs]
    if not node.lowered:
        return node.op.fold(args, node.attrs, types, FOLD_BUDGET)
    return (
        None if grown_bytes(args, types) > FOLD_BUDGET else evaluate_node(node, list(map(np.asarray, args)))
    )


def _is_widened_weight(node: Node, readers: Uses) -> bool:
    """Whether a Convert from f16 or bf16 to f32 is only read by matrix products, which pack it themselves."""
    if not converts(node, of=HALVES, to=("f32",)):
        return False
    return all(
        user is not None and user.op.name in ("MatMul", "GatheredMatMul") and i == 1
        for user, i in readers.of(node.output)
    )
