"""State: variables that a request keeps from one inference to the next.

ReadValue gives a variable's value as the inference before has left it, Assign says what it shall be for the
next one. The compiler makes hidden inputs and outputs of both, see `ovjit.rewrite.model_variables`;
the references are what they are in the first inference.
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
    """The variable `variable_id`, which has the type and shape of `init_value`, its value after a reset."""

    def infer(init_value, *, variable_id: Str):
        return TensorType(init_value.dtype, init_value.shape)

    def ref(init_value, *, variable_id):
        return init_value


@op("ReadValue", opset=6, stateful=True, role="read")
class ReadValue6:
    """The variable `variable_id`; after a reset it is `init_value`, or zeros (open dimensions 0) without."""

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
                f"the variable {variable_id!r} is {dtype}, its initial value {init_value.dtype}",
            )
            check(
                compatible_shapes(shape, init_value.shape),  # which one it is, a run tells
                f"the variable {variable_id!r} has the shape {text(shape)}, its initial value "
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
    """What the variable `variable_id` shall be in the next inference; as an output, the new value."""

    def infer(new_value: Any, *, variable_id: Str):
        return TensorType(new_value.dtype, new_value.shape)

    def ref(new_value, *, variable_id):
        return new_value


op("Assign", opset=3, stateful=True, role="assign")(type("Assign3", (), {**vars(_Assign)}))
op("Assign", opset=6, stateful=True, role="assign")(type("Assign6", (), {**vars(_Assign)}))
