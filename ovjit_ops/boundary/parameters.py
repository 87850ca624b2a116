"""The ends of a graph: Parameter, Constant, Result."""

from __future__ import annotations

from ovjit.graph.op import Any_, DType, TensorType, op


@op("Parameter", opset=1)
class Parameter:
    """A tensor that the caller gives; `shape` may have open dimensions."""

    def infer(*, shape: Any_, element_type: DType = "f32"):
        return TensorType(element_type, shape)


@op("Constant", opset=1)
class Constant:
    """A tensor that is part of the model. `value` is a read-only array of the element type's NumPy dtype
    (packed element types without one: the packed bytes, with `shape` giving the logical shape)."""

    def infer(*, value: Any_, element_type: DType, shape: Any_ = None):
        return TensorType(element_type, value.shape if shape is None else shape, value)

    def ref(*, value, element_type, shape=None):
        return value


@op("Result", opset=1)
class Result:
    """An output of the model: its input, unchanged."""

    def infer(x):
        return TensorType(x.dtype, x.shape, x.value)

    def ref(x):
        return x
