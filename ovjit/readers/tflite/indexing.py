"""Operators that pick elements by indices or by their size."""

from __future__ import annotations

from typing import Any

from ovjit.readers.tflite.elementwise import typed
from ovjit.readers.tflite.node import LiteNode
from ovjit.readers.tflite.registry import tflite_op, tflite_ops


@tflite_op("SCATTER_ND")
def scatter_nd(n: LiteNode) -> Any:
    """Updates added up in a tensor of zeros."""
    zeros = n.broadcast(n.like(n[1], 0), n[2])
    return n("ScatterNDUpdate", zeros, n[0], n[1], reduction="sum", opset=15)


@tflite_op("UNIQUE")
def unique(n: LiteNode) -> Any:
    """Values in the order in which they come, and where each element's value is among them."""
    outputs = n.all("Unique", n[0], sorted=False, index_element_type=typed(n.option("IdxOutType", 2)))
    return [outputs[0], outputs[2]]


#: Operators that are one expression.
tflite_ops({
    "GATHER": lambda n: n("Gather", n[0], n[1], n.option("Axis", 0), batch_dims=n.option("BatchDims", 0)),
    "GATHER_ND": lambda n: n("GatherND", n[0], n[1], batch_dims=0),
    "EMBEDDING_LOOKUP": lambda n: n("Gather", n[1], n[0], 0),
    # indices that are not there, negative ones among them, have no hot element
    "ONE_HOT": lambda n: n("OneHot", n[0], n[1], n[2], n[3], axis=n.option("Axis")),
    "TOPK_V2": lambda n: n.top_k(n[0], n[1], -1, index=n.out(1).dtype),
})  # fmt: skip
