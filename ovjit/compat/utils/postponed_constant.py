"""A constant whose values are made when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovjit.api.model.boundary import Constant
from ovjit.api.model.custom import Op
from ovjit.api.model.node import Node
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.types import Type
from ovjit.api.tensors.vectors import Shape


class PostponedConstant(Op):
    """A constant known by type and shape; `maker()` gives its Tensor when a file is written or a model
    compiled."""

    def __init__(
        self, element_type: Type, shape: Shape, maker: Callable[[], Tensor], name: str | None = None
    ) -> None:
        super().__init__(self)
        self.get_rt_info()["postponed_constant"] = True
        self.m_element_type = element_type
        self.m_shape = shape
        self.m_maker = maker
        if name is not None:
            self.friendly_name = name
        self.constructor_validate_and_infer_types()

    def evaluate(self, outputs: Any, _: Any, evaluationContext: Any = None) -> bool:
        outputs[0] = self.m_maker()
        return True

    def validate_and_infer_types(self) -> None:
        self.set_output_type(0, self.m_element_type, PartialShape(self.m_shape))

    def clone_with_new_inputs(self, new_inputs: Any) -> PostponedConstant:
        return PostponedConstant(self.m_element_type, self.m_shape, self.m_maker, self.friendly_name)

    def has_evaluate(self) -> bool:
        return True

    def _stands_for(self) -> Node:
        result = Constant(self.m_maker(), shared_memory=True)
        result._tensors[0]._names = set(self._tensors[0]._names)
        return result


def make_postponed_constant(
    element_type: Type, shape: Shape, maker: Callable[[], Tensor], name: str | None = None
) -> Op:
    """A `PostponedConstant`."""
    return PostponedConstant(element_type, shape, maker, name)
