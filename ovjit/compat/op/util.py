"""OpenVINO's `op.util`: variables, descriptions of body inputs and outputs, and kinds of operations.

The kinds are there to be named; as in OpenVINO's Python, the node that a builder returns is a plain Node.
"""

from ovjit.api.accessors import accessor
from ovjit.api.model.boundary import Constant, constant_node
from ovjit.api.model.descriptions import (
    BodyOutputDescription,
    ConcatOutputDescription,
    InputDescription,
    InvariantInputDescription,
    MergedInputDescription,
    OutputDescription,
    SliceInputDescription,
)
from ovjit.api.model.node import Node
from ovjit.api.model.variables import Variable, VariableInfo
from ovjit.api.tensors.types import TYPES, Type
from ovjit.api.tensors.vectors import AxisSet
from ovjit.errors import ModelError


class UnaryElementwiseArithmetic(Node):
    """A node that applies a function to each element of one input."""


class BinaryElementwiseArithmetic(Node):
    """A node that broadcasts two inputs and combines them elementwise."""


class BinaryElementwiseComparison(Node):
    """A node that broadcasts two inputs and compares them elementwise."""


class BinaryElementwiseLogical(Node):
    """A node that broadcasts two boolean inputs and combines them elementwise."""


class ArithmeticReduction(Node):
    """A node that computes sums, means and the like over axes."""

    def get_reduction_axes(self) -> AxisSet:
        """The axes. RuntimeError if they are not constant."""
        axes = self.input_value(1).get_node()
        if not isinstance(axes, Constant):
            raise ModelError(f"the axes of {self!r} are not constant")
        rank = self.input_value(0).get_partial_shape().rank.get_length()
        return AxisSet({int(axis) % rank for axis in axes.value.reshape(-1)})

    def set_reduction_axes(self, reduction_axes: AxisSet) -> None:
        """Set the axes; types are inferred at the next validation."""
        self.set_argument(1, constant_node(sorted(reduction_axes)).output(0))

    reduction_axes = accessor(get_reduction_axes, set_reduction_axes)


class IndexReduction(Node):
    """A reduction that returns indices along an axis."""

    def get_reduction_axis(self) -> int:
        """The axis."""
        return int(self.get_attributes()["axis"])

    def set_reduction_axis(self, value: int) -> None:
        """Set the axis."""
        self.set_attribute("axis", value)

    def get_index_element_type(self) -> Type:
        """The type of the indices."""
        return TYPES[self.get_attributes()["index_element_type"]]

    def set_index_element_type(self, index_element_type: Type) -> None:
        """Set the type of the indices."""
        self.set_attribute("index_element_type", index_element_type)

    reduction_axis = accessor(get_reduction_axis, set_reduction_axis)
    index_element_type = accessor(get_index_element_type, set_index_element_type)


__all__ = [
    "ArithmeticReduction", "BinaryElementwiseArithmetic", "BinaryElementwiseComparison",
    "BinaryElementwiseLogical", "BodyOutputDescription", "ConcatOutputDescription", "IndexReduction",
    "InputDescription", "InvariantInputDescription", "MergedInputDescription", "OutputDescription",
    "SliceInputDescription", "UnaryElementwiseArithmetic", "Variable", "VariableInfo",
]  # fmt: skip
