"""com.microsoft.nchwc: images in blocks of channels, in models that ONNX Runtime has optimised and saved.

ONNX Runtime declares such images [batch, channels, height, width], with channels filled up to whole blocks.
So are they here: only filters, whose elements are stored in blocks, are put into the standard's order.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.readers.onnx.node import OnnxNode
from ovjit.readers.onnx.registry import onnx_op, prepares
from ovjit.readers.onnx.resize import interpolate
from ovjit.readers.onnx_contrib.fusions import as_standard, convolution_of

DOMAIN = "com.microsoft.nchwc"
_op = functools.partial(onnx_op, domain=DOMAIN)

for _name, _version in {
    "MaxPool": 12, "AveragePool": 11, "GlobalMaxPool": 1, "GlobalAveragePool": 1,
}.items():  # fmt: skip
    as_standard(_name, _version, DOMAIN)


def block_of(n: OnnxNode) -> int:
    """The number of channels in a block of this model: 8 or 16, which files do not state.

    Counts of channels decide it if they are not multiples of 16. Otherwise it is ONNX Runtime's number on
    this CPU, as such a file is meant for machines like the one that wrote it.
    """
    memo = n.reader.memo
    if DOMAIN not in memo:
        memo[DOMAIN] = _told_block(n.reader.proto.graph) or _block_of_cpu()
    return memo[DOMAIN]


def _told_block(graph: Any) -> int | None:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.domain != DOMAIN or node.op_type != "Conv" or len(node.input) < 2:
            continue
        shape = shapes.get(node.input[1], ())
        if len(shape) < 2 or min(shape) < 1:
            continue
        if shape[0] % 16 or (shape[1] > 16 and shape[1] % 16):
            return 8
        if 8 < shape[1] < 16:  # too few for a block of 16
            return 16
    return None


def _block_of_cpu() -> int:
    from ovjit.codegen.cpu import host, machine

    return 16 if machine.is_arm() or host.best_target() == "avx512" else 8


@prepares(DOMAIN)
def in_domain(nodes: Iterable[Any]) -> list[Any]:
    """Nodes of a graph, those Reshapes renamed into this domain that take blocks for a dimension.

    ONNX Runtime adds images of different sizes as [batch, blocks, height, width, channels of a block], and
    reshapes them before and after.
    """
    out: list[Any] = []
    blocked: set[str] = set()
    for node in nodes:
        if node.domain == DOMAIN:
            blocked.update(() if node.op_type == "ReorderOutput" else node.output)
        elif blocked.intersection(node.input):
            blocked.update(node.output)
            if node.op_type == "Reshape":
                copy = type(node)()
                copy.CopyFrom(node)
                copy.domain = DOMAIN
                node = copy
        out.append(node)
    return out


@_op("Reshape")
def reshape(n: OnnxNode) -> Any:
    """Blocks are no dimension here."""
    return n("Identity", n[0])


@_op("ReorderInput")
def reorder_input(n: OnnxNode) -> Any:
    x = n.channels_first(n[0]) if n.attr("channels_last", 0) else n[0]
    rank = n.rank(x)
    channels, block = (n.shape(x) or ())[1], block_of(n)
    more: Any = [-channels % block] if isinstance(channels, int) else None
    if more == [0]:
        return n("Identity", x)
    if more is None:
        more = n("FloorMod", n("Negative", n.dim_of(x, 1)), block)
    end = n("Concat", [0], more, [0] * (rank - 2), axis=0)
    return n("Pad", x, [0] * rank, end, n.like(x, 0), pad_mode="constant", opset=12)


@_op("ReorderOutput")
def reorder_output(n: OnnxNode) -> Any:
    x, channels = n[0], n.require("channels")
    there = (n.shape(x) or (None, None))[1]
    if channels < 1 or (isinstance(there, int) and channels > there):
        raise ModelError(f"{channels} channels are given, the input has {there}")
    out = n("Identity", x) if channels == there else n.slice(x, 1, 0, channels)
    return n.channels_last(out) if n.attr("channels_last", 0) else out


def plain_filters(filters: np.ndarray, block: int) -> np.ndarray:
    """Filters [out, in, ...] in the standard's order.

    Blocks of outputs are innermost, and outside of them blocks of inputs, if inputs make whole blocks.
    """
    out, depth, *kernel = filters.shape
    if out < 1 or out % block:
        raise ModelError(f"{out} filters are not a multiple of the block size {block}")
    k = len(kernel)
    if depth % block:
        blocked = filters.reshape(out // block, depth, *kernel, block)
        order = (0, k + 2, *range(1, k + 2))
    else:
        blocked = filters.reshape(out // block, depth // block, *kernel, block, block)
        order = (0, k + 3, 1, k + 2, *range(2, k + 2))
    return np.ascontiguousarray(blocked.transpose(order)).reshape(filters.shape)


@_op("Conv")
def conv(n: OnnxNode) -> Any:
    """(x, filters, bias, what is added before the activation); x of few channels has no blocks"""
    filters = n.static(1, "the filters")
    if filters.ndim < 3:
        raise ModelError(f"filters of {filters.ndim} dimensions are not valid")
    return convolution_of(n, n.like(n[0], plain_filters(filters, block_of(n))))


@_op("Upsample")
def upsample(n: OnnxNode) -> Any:
    scales = n.const(np.array(n.require("scales"), np.float32))
    coordinates = n.attr("coordinate_transformation_mode", "asymmetric")
    return interpolate(n, n.attr("mode", "nearest"), coordinates, "floor", scales=scales)
