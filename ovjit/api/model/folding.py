"""Constant folding on a Model that users edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ovjit.api.model.boundary import Constant, Result
from ovjit.api.model.custom import Op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.api.model.rt_info import RTMap
from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.shapes import is_static
from ovjit.rewrite.pattern import op

#: Constants of these types are weights that are meant to stay small.
COMPRESSED = {row.name for row in dtypes.ELEMENT_TYPES.values() if row.is_small}
#: No result of folding has so many bytes more than what it is made of.
MAX_BYTES = 1 << 28


def fold(
    model: Model, keep_compressed: bool = False, keep: Callable[[Node], bool] = lambda node: False
) -> bool:
    """Fold nodes into constants if their inputs are constants, or if they only read a known shape.

    Decompression of f16 weights stays, and what rounds weights. `keep_compressed` leaves the decompression of
    all weights, and nodes for which `keep` is true are not folded. True if anything changed.
    """
    changed = False
    for node in model.get_ordered_ops():
        if _foldable(node, keep_compressed) and not keep(node) and (values := _values(node)) is not None:
            _replace(node, values)
            changed = True
    return changed


def _foldable(node: Node, keep_compressed: bool) -> bool:
    if isinstance(node, (Constant, Result, Op)) or not node._inputs or not node._op.may_fold:
        return False
    if node._op.role == "shape":
        return is_static(node._inputs[0]._tensor._type.shape)
    if _ROUNDED.fits(node._op) or not all(isinstance(source._node, Constant) for source in node._inputs):
        return False
    if not _CONVERTED.fits(node._op):
        return True
    if node._rt_info is not None and any(key.startswith("decompression") for key in node._rt_info._items):
        return False
    return not (keep_compressed and node._inputs[0]._tensor._type.dtype in COMPRESSED)


_CONVERTED = op.Convert(...)
#: Weights that these round become integers with a scale: they are never folded, as in OpenVINO.
_ROUNDED = op["FakeQuantize FakeConvert"](...)


def _values(node: Node) -> tuple[np.ndarray, ...] | None:
    if node._op.role == "shape":
        dtype = dtypes.numpy_dtype(node._tensors[0]._type.dtype)
        return (np.array(node._inputs[0]._tensor._type.shape, dtype),)
    return values_of(node, [source._node.value for source in node._inputs])


def values_of(node: Node, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...] | None:
    """The results of a node for these inputs; None if they are large, or if the node refuses the inputs: then
    the inference raises its error."""
    types = [tensor._type for tensor in node._tensors]
    try:
        return node._op.fold(inputs, node._graph_attrs(), types, MAX_BYTES)
    except OvjitError:
        return None


def _replace(node: Node, arrays: tuple[np.ndarray, ...]) -> None:
    for index, array in enumerate(arrays):
        type_ = node._tensors[index]._type
        row = dtypes.ELEMENT_TYPES.get(type_.dtype)
        packed = row is not None and row.numpy is None
        name = node.get_friendly_name() + (f".{index}" if len(arrays) > 1 else "")
        result = Constant._of(array, type_.dtype, tuple(type_.shape) if packed else None, name)
        if node._rt_info is not None:
            result._rt_info = RTMap(dict(node._rt_info._items))
        Output._of(node, index).replace(result.output(0))
