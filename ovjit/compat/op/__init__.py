"""Nodes as classes: Constant, Parameter, Result, those with bodies; and other names of OpenVINO's `op`."""

from ovjit.api.model.boundary import Constant, Parameter, Result
from ovjit.api.model.custom import Extension
from ovjit.api.model.paged import PagedAttentionExtension as _PagedAttentionExtension  # noqa: F401
from ovjit.api.model.subgraphs import if_op, loop, tensor_iterator
from ovjit.api.model.variables import assign, read_value
from ovjit.compat.op import util

__all__ = [
    "Constant", "Parameter", "Result", "assign", "if_op", "loop", "read_value", "tensor_iterator", "util",
]  # fmt: skip


class _GroupQueryAttentionExtension(Extension):
    """An extension that a Core accepts without effect.

    Programs add it before they read an IR with GroupQueryAttention. That operation is read from ONNX, and
    refused in an IR.
    """
