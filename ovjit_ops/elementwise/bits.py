"""BitCast: the bits of a tensor as elements of another type of the same size.

OpenVINO has no such operation. Readers use it where a format has one, as arithmetic would lose the payload of
NaN.
"""

from __future__ import annotations

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import ELEMENT_TYPES, numpy_dtype
from ovjit.graph.op import DType, TensorType, op
from ovjit.planning.lower import Lowering, Planner
from ovjit_ops.common.checks import check_type
from ovjit_ops.elementwise.arithmetic import INTS, NUMBERS


class SameBits(Lowering):
    """A view: no kernel runs."""

    flexible = True

    def plan(self, planner: Planner) -> None:
        planner.alias_or_copy(self.group.last.output, planner.view(self.group.last.inputs[0]))


@op("BitCast", types=INTS, lower=SameBits, plugin="extension", part="keep", ulp=0)
class BitCast:
    """The bits of the data as elements of `destination_type`, which has as many."""

    def infer(data, *, destination_type: DType):
        check_type(data, (*NUMBERS, "dynamic"))
        check(destination_type in NUMBERS, f"destination_type {destination_type} should be a number's")
        old, new = ELEMENT_TYPES[data.dtype], ELEMENT_TYPES[destination_type]
        same = data.dtype == "dynamic" or old.bits == new.bits
        check(same, f"{data} has elements of {old.bits} bits, {destination_type} of {new.bits}")
        return TensorType(destination_type, data.shape)

    def ref(data, *, destination_type):
        return np.ascontiguousarray(data).view(numpy_dtype(destination_type)).reshape(data.shape)
