"""State: variables that a request keeps between inferences.

ReadValue reads the value that the previous inference assigned; Assign sets it for the next one. The compiler
turns them into hidden inputs and outputs (`ovjit.rewrite.model_variables`). The references are those of the
first inference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import DType, OpenShape, Str, TensorType, op
from ovjit.graph.shapes import Interval, compatible_shapes, text


@op("ReadValue", opset=3, stateful=True, role="read")
class ReadValue3:
    """The variable `variable_id`, with the type and shape of `init_value`, its value after a reset."""

    def infer(init_value, *, variable_id: Str):
        return TensorType(init_value.dtype, init_value.shape)

    def ref(init_value, *, variable_id):
        return init_value


@op("ReadValue", opset=6, stateful=True, role="read")
class ReadValue6:
    """The variable `variable_id`. After a reset it is `init_value`, or without one, zeros (dynamic dimensions
    are 0)."""

    def infer(
        init_value: Any = None,
        *,
        variable_id: Str,
        variable_type: DType = "dynamic",
        variable_shape: OpenShape = None,
    ):
        dtype, shape = variable_type, variable_shape
        if init_value is not None:
            check(
                dtype in ("dynamic", init_value.dtype) or init_value.dtype == "dynamic",
                f"the variable {variable_id!r} has the type {dtype}, its initial value {init_value.dtype}",
            )
            check(
                compatible_shapes(shape, init_value.shape),  # dynamic shapes may match
                f"the variable {variable_id!r} has the shape {text(shape)}, its initial value has "
                f"{text(init_value.shape)}",
            )
            if dtype == "dynamic" and shape is None:
                shape = init_value.shape
            dtype = init_value.dtype if dtype == "dynamic" else dtype
        return TensorType(dtype, shape)

    def ref(init_value=None, *, variable_id, variable_type="dynamic", variable_shape=None):
        if init_value is not None:
            return init_value
        lowest = [0 if isinstance(d, Interval) else d for d in variable_shape or ()]
        return np.zeros(lowest, numpy_dtype(variable_type))


class _Assign:
    """Sets the variable `variable_id` for the next inference. The output is the new value."""

    def infer(new_value: Any, *, variable_id: Str):
        return TensorType(new_value.dtype, new_value.shape)

    def ref(new_value, *, variable_id):
        return new_value


op("Assign", opset=3, stateful=True, role="assign")(type("Assign3", (), {**vars(_Assign)}))
op("Assign", opset=6, stateful=True, role="assign")(type("Assign6", (), {**vars(_Assign)}))
