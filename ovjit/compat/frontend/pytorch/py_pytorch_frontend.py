"""Types of values in PyTorch's graphs that no element type of tensors stands for."""

from __future__ import annotations

from typing import Any

from ovjit.compat.frontend.pytorch.operator_extensions import ConversionExtension, OpExtension


class _Type:
    """Names of these types."""

    class Tensor:
        """A tensor whose elements have a type."""

        def __init__(self, element_type: Any):
            self.element_type = element_type

    class List:
        """A list whose items have a type."""

        def __init__(self, element_type: Any):
            self.element_type = element_type

    class Complex:
        """A complex number whose parts have a type."""

        def __init__(self, element_type: Any):
            self.element_type = element_type

    class PyScalar:
        """A number of Python's that has a type."""

        def __init__(self, element_type: Any):
            self.element_type = element_type

    class Str:
        """A text."""

    class PyNone:
        """None."""


__all__ = ["ConversionExtension", "OpExtension", "_Type"]
