"""Types of values in PyTorch's graphs that no element type of tensors stands for."""

from __future__ import annotations

from typing import Any

from ovjit.compat.frontend.pytorch.operator_extensions import ConversionExtension, OpExtension


class _OfElements:
    """A type with another type as its parameter."""

    def __init__(self, element_type: Any):
        self.element_type = element_type


class _Type:
    """The classes of these types by name."""

    class Tensor(_OfElements):
        """A tensor whose elements have a type."""

    class List(_OfElements):
        """A list whose items have a type."""

    class Complex(_OfElements):
        """A complex number whose parts have a type."""

    class PyScalar(_OfElements):
        """A number of Python's that has a type."""

    class Str:
        """A text."""

    class PyNone:
        """None."""


__all__ = ["ConversionExtension", "OpExtension", "_Type"]
