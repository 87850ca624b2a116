"""Strings, which no kernel computes with."""

from __future__ import annotations

from ovjit.api.model.node import Output
from ovjit.errors import UnsupportedError
from ovjit.frontends.onnx.node import OnnxNode


def cast_text(n: OnnxNode, x: Output, kind: str) -> Output:
    """Numbers as text, or text as numbers."""
    raise UnsupportedError("a conversion from or to strings: no operation of OpenVINO says it")
