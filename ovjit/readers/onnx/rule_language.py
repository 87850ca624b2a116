"""The language of rules for ONNX, see `ovjit.readers.rule_language`."""

from ovjit.readers.onnx import tensors  # noqa: F401
from ovjit.readers.onnx.node import MOST_NODES, OnnxNode  # noqa: F401
from ovjit.readers.onnx.registry import Rule, onnx_op, onnx_ops  # noqa: F401
from ovjit.readers.onnx.values import *
from ovjit.readers.rule_language import *
