"""Parameter, Constant and Result."""

from __future__ import annotations

import math

from ovjit.errors import check
from ovjit.graph.converted import Unmade
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.graph.op import Any_, DType, OpenShape, TensorType, op
from ovjit.graph.shapes import is_static, text


@op("Parameter", opset=1, role="parameter")
class Parameter:
    """An input of the model; `shape` may have dynamic dimensions."""

    def infer(*, shape: OpenShape, element_type: DType = "f32"):
        return TensorType(element_type, shape)


@op("Constant", opset=1, role="constant")
class Constant:
    """A tensor that is part of the model. `value` is a read-only array with the NumPy dtype of the element
    type. Element types without a NumPy dtype have the packed bytes; then `shape` is required."""

    def infer(*, value: Any_, element_type: DType, shape: OpenShape = None):
        kind = ELEMENT_TYPES[element_type]
        check(shape is None or is_static(shape), f"a constant needs a static shape, not {text(shape)}")
        if element_type == "string":
            check(
                value.dtype.kind in "OUS",
                f"a constant of strings cannot be made from an array of {value.dtype}",
            )
        elif kind.numpy is not None:
            check(
                value.dtype == kind.numpy,
                f"a constant of {element_type} cannot be made from an array of {value.dtype}",
            )
        if kind.numpy is None:
            check(shape is not None, f"a constant of {element_type} needs a shape")
            count = math.prod(shape)
            need = -(-count * kind.bits // 8)
            check(
                value.dtype.itemsize == 1 and value.nbytes >= need,
                f"a constant of {element_type}{list(shape)} has {value.nbytes} bytes, not {need}",
            )
        else:
            check(
                shape is None or tuple(shape) == value.shape,
                f"a constant of shape {shape} cannot be made from an array of shape {list(value.shape)}",
            )
        array = None if isinstance(value, Unmade) else value  # types do not keep a lazy array
        return TensorType(element_type, value.shape if shape is None else shape, array)

    def ref(*, value, element_type, shape=None):
        return value.array() if isinstance(value, Unmade) else value


@op("Result", opset=1, role="result")
class Result:
    """An output of the model: its input, unchanged."""

    def infer(x):
        return TensorType(x.dtype, x.shape, x.value)

    def ref(x):
        return x
