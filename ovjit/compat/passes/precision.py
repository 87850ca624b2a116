"""Weights and types made smaller: f32 to f16."""

from __future__ import annotations

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter
from ovjit.api.model.custom import Op
from ovjit.api.model.model import Model
from ovjit.api.model.node import make_node
from ovjit.api.model.rt_info import RTMap
from ovjit.graph import dtypes
from ovjit.readers.ir.writer import as_f16, compressible, is_quantized

#: The mark of a Convert that brings a weight back to the type it is computed with.
DECOMPRESSION = "decompression"


def to_f16(model: Model) -> bool:
    """Convert f32 to f16 everywhere: parameters, constants, conversions. True if anything changed."""
    changed = False
    for node in model.get_ordered_ops():
        if isinstance(node, Op):
            continue
        if isinstance(node, Constant) and node._attrs["element_type"] == "f32":
            with np.errstate(over="ignore"):
                half = np.clip(node.value, -65504, 65504).astype(np.float16)
            half = np.where(np.isfinite(node.value), half, node.value.astype(np.float16))
            node.output(0).replace(Constant._of(half, "f16", None, node.get_friendly_name()).output(0))
            changed = True
        elif isinstance(node, Parameter) and node._attrs["element_type"] == "f32":
            node._attrs = {**node._attrs, "element_type": "f16"}
            changed = True
        else:
            as_halves = {
                attribute.name: "f16"
                for attribute in node._op.attributes.values()
                if attribute.type == "DType" and node._attrs.get(attribute.name) == "f32"
            }
            if as_halves:
                node._attrs = {**node._attrs, **as_halves}
                changed = True
    if changed:
        model.validate_nodes_and_infer_types()
    return changed


def flush_subnormals(model: Model) -> None:
    """Replace subnormal numbers of f32 constants by 0."""
    for node in model.get_ordered_ops():
        if not isinstance(node, Constant) or node._attrs["element_type"] != "f32":
            continue
        flushed = node.value.copy()
        if dtypes.flush_subnormals(flushed):
            node.output(0).replace(Constant._of(flushed, "f32", None, node.get_friendly_name()).output(0))


def compress_to_f16(model: Model) -> None:
    """Convert f32 and f64 constants to f16, followed by a Convert, as `save_model` writes them."""
    if is_quantized(model):
        return
    for node in model.get_ordered_ops():
        if not isinstance(node, Constant) or not compressible(node):
            continue
        name = node.get_friendly_name()
        half = Constant._of(as_f16(node.value), "f16", None, f"{name}_compressed")
        attrs = {"destination_type": node._attrs["element_type"]}
        convert = make_node("Convert", [half.output(0)], attrs, name, opset=1)
        convert._rt_info = RTMap({f"{DECOMPRESSION}_0": {}})
        node.output(0).replace(convert.output(0))
