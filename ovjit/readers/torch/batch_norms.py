"""BatchNorm as a factor and a term for each channel, the factor in a convolution's weights: OpenVINO's
`convert_model` does so, too."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ovjit.api.model.boundary import Constant
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output
from ovjit.graph.op import find_op

#: Operation -> the dimensions of its weights that are output channels: groups first, where it has them.
_CHANNELS = {"Convolution": (0,), "GroupConvolution": (0, 1), "ConvolutionBackpropData": (1,),
             "GroupConvolutionBackpropData": (0, 2)}  # fmt: skip


def fold_batch_norms(model: Model) -> None:
    """BatchNormInference(x) -> x * scale + shift, in f32 with constant numbers.

    Behind a convolution that nothing else reads: conv(x; weights * scale) + shift.
    """
    nodes = model.get_ordered_ops()
    readers = Counter((v._node, v._index) for node in nodes for v in node._inputs)
    for node in nodes:
        if node._op.name != "BatchNormInference" or node._tensors[0]._type.dtype != "f32":
            continue
        numbers = [_constant(value) for value in node._inputs[1:]]
        shape = node._inputs[0]._tensor._type.shape
        if shape is None or any(v is None for v in numbers):
            continue
        gamma, beta, mean, var = (v.astype(np.float64) for v in numbers if v is not None)
        scale = gamma / np.sqrt(var + node._attrs["epsilon"])
        _replace(node, scale, beta - mean * scale, len(shape), readers)


def _replace(
    node: Node, scale: np.ndarray, shift: np.ndarray, rank: int, readers: Counter[tuple[Node, int]]
) -> None:
    name, x = node.get_friendly_name(), node._inputs[0]
    source, term = x, None
    if x._node._op.name == "Add" and readers[x._node, 0] == 1:  # a bias
        term = _constant(x._node._inputs[1])
        source = x._node._inputs[0] if term is not None and term.size == scale.size else x
    conv = source._node
    axes = _CHANNELS.get(conv._op.name)
    weights = _constant(conv._inputs[1]) if axes and readers[conv, 0] == 1 else None
    if axes is None or weights is None:
        scaled = _made("Multiply", x, _numbers(scale, rank, f"{name}/scale"), f"{name}/Multiply")
    else:
        if source is not x and term is not None:
            shift = shift + term.astype(np.float64).reshape(-1) * scale
        wide = [weights.shape[i] if i in axes else 1 for i in range(weights.ndim)]
        folded = (weights * scale.reshape(wide)).astype(np.float32)
        other = Output._of(Constant._of(folded, "f32", None, conv._inputs[1]._node.get_friendly_name()), 0)
        inputs = [conv._inputs[0], other, *conv._inputs[2:]]
        scaled = Output._of(Node._new(conv._op, inputs, conv._attrs, conv.get_friendly_name()), 0)
    made = _made("Add", scaled, _numbers(shift, rank, f"{name}/shift"), name)
    Output._of(node, 0).replace(made)


def _made(op: str, a: Output, b: Output, name: str) -> Output:
    record = find_op(op, None)
    return Output._of(Node._new(record, [a, b], record.check_attributes({}), name), 0)


def _numbers(values: np.ndarray, rank: int, name: str) -> Output:
    """A number for each channel, the dimension 1."""
    array = values.astype(np.float32).reshape(1, -1, *[1] * (rank - 2))
    return Output._of(Constant._of(array, "f32", None, name), 0)


def _constant(value: Output) -> np.ndarray | None:
    found = value._node.value if isinstance(value._node, Constant) else None
    return found if found is not None and found.dtype == np.float32 else None
