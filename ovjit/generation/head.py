"""The last product of a decoder: from hidden states to logits."""

from __future__ import annotations

from typing import Any

from ovjit.generation.row_slices import take_rows

#: Operations that may follow the last product. Each has one operand that is not constant.
_TAIL = frozenset("Add Convert Divide Multiply Reshape Subtract Tanh".split())
#: Those that compute each row of logits from the same row of the product.
_BY_ROW = _TAIL - {"Reshape"}
#: Maximum operations between a constant and its use: conversion, zero point, scale, shape.
_DEPTH = 6


def logits_of(model: Any) -> Any:
    """The Result of the output named `logits`, else of the first output."""
    results = model.get_results()
    return next((r for r in results if "logits" in r.output(0).get_names()), results[0])


def last_product(model: Any) -> tuple[Any, frozenset[str]]:
    """The node that logits are computed from, and the types of the operations that follow it.

    The node is a MatMul, unless an operation that is not in `_TAIL` follows the last MatMul.
    """
    path = _path_to_product(model)
    return path[-1], frozenset(node.get_type_name() for node in path[:-1])


def _path_to_product(model: Any) -> list[Any]:
    """The nodes from that of the logits back to the one of `last_product`."""
    path = [logits_of(model).input_value(0).get_node()]
    while path[-1].get_type_name() in _TAIL:
        operands = [value.get_node() for value in path[-1].input_values()]
        changing = [operand for operand in operands if not _is_constant(operand)]
        if len(changing) != 1:
            break
        path.append(changing[0])
    return path


def keep_last(model: Any, rows: int) -> bool:
    """Change `model` to compute the logits [batch, tokens, words] of at most the last `rows` tokens.

    A prompt only needs those of its last token. With 100,000 words, the last product is a fifth of the work
    of a model of 1 billion parameters, and logits take 400 KB per token. Returns False, without a change,
    unless the logits are computed row by row from a MatMul of hidden states of rank 3.
    """
    product, tail = last_product(model)
    if product.get_type_name() != "MatMul" or tail - _BY_ROW or product.get_attributes()["transpose_a"]:
        return False
    hidden = product.input_value(0)
    if hidden.get_partial_shape().rank != 3 or _is_constant(hidden.get_node()):
        return False
    take_rows(product.input(0), 1, -rows, 2**31 - 1)
    path = _path_to_product(model)
    if all(len(node.output(0).get_target_inputs()) == 1 for node in path):
        for node in [*reversed(path), logits_of(model)]:
            node.validate_and_infer_types()
    else:
        model.validate_nodes_and_infer_types()
    return True


def _is_constant(node: Any, depth: int = _DEPTH) -> bool:
    """Whether the value depends on constants only, such as decompressed weights."""
    if node.get_type_name() == "Constant" or not depth:
        return node.get_type_name() == "Constant"
    inputs = node.input_values()
    return bool(inputs) and all(_is_constant(value.get_node(), depth - 1) for value in inputs)
