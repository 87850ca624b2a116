"""Matrix products."""

from __future__ import annotations

from typing import Any

from ovjit.build import Output
from ovjit.errors import UnsupportedError
from ovjit.readers.tflite.node import LiteNode
from ovjit.readers.tflite.registry import tflite_op


@tflite_op("FULLY_CONNECTED")
def fully_connected(n: LiteNode) -> Any:
    """x @ weights.T + bias, of weights [outputs, inputs]. The result is [rows, outputs] unless the operator
    keeps the number of dimensions."""
    if n.option("WeightsFormat", 0):
        raise UnsupportedError(
            '"FullyConnectedOptions::weights_format != FullyConnectedOptionsWeightsFormat_DEFAULT" is not '
            "implemented for this FrontEnd class"
        )
    x, weights = n[0], n[1]
    if not n.option("KeepNumDims", False):
        x = _rows(n, x, n.static_shape(weights, "the weights' shape")[-1])
    result = n("MatMul", x, weights, transpose_a=False, transpose_b=True)
    if n.has(2):
        result = n("Add", result, n[2])
    return n.activate(result)


def _rows(n: LiteNode, x: Output, columns: int) -> Output:
    shape = n.shape(x)
    if shape is not None and len(shape) == 2 and shape[1] == columns:
        return x
    return n.reshape(x, [-1, columns])


@tflite_op("BATCH_MATMUL")
def batch_matmul(n: LiteNode) -> Any:
    adjoint = [bool(n.option(name, False)) for name in ("AdjX", "AdjY")]
    return n("MatMul", n[0], n[1], transpose_a=adjoint[0], transpose_b=adjoint[1])
