"""The language of rules for TensorFlow Lite, see `ovjit.readers.rule_language`."""

from ovjit.readers.rule_language import *
from ovjit.readers.tflite.node import LiteNode  # noqa: F401
from ovjit.readers.tflite.registry import tflite_op, tflite_ops  # noqa: F401
