"""TopK: the largest or smallest elements along an axis, and their positions."""

from __future__ import annotations

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import Bool, DType, Int, TensorType, Word, op
from ovjit.graph.shapes import Interval, bounds, normalize_axis
from ovjit.graph.symbolic import sym_min
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.values import INDEX_TYPES, check_scalar, extent_of, widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases

TOPK = (*NUMBERS, "boolean")


def _infer_topk(data: TensorType, k: TensorType, axis: int, index: str):
    check(index in INDEX_TYPES, f"Index element type attribute should be either 'i32' or 'i64'. Got: {index}")
    check_type(data, TOPK)
    says = "K input has to be an integer type, which does match the provided one:{type}"
    negative = "The value of 'K' must be greater or equal to zero. (got {number})."
    count = extent_of(k, "k", says, negative)
    check_scalar(k, "The 'K' input must be a scalar.")
    if data.shape is None:
        return TensorType(data.dtype, None), TensorType(index, None)
    along = normalize_axis(axis, len(data.shape))
    extent = data.shape[along]
    most = bounds(extent)[1]
    if isinstance(count, Interval):
        count = sym_min(count, extent)
    else:
        check(most is None or count <= most, f"k {count} exceeds the {extent} elements of the axis")
    shape = (*data.shape[:along], count, *data.shape[along + 1 :])
    return TensorType(data.dtype, shape), TensorType(index, shape)


def top_k(data: np.ndarray, k: int, axis: int, mode: str, sort: str) -> tuple[np.ndarray, np.ndarray]:
    """The k largest (mode "max") or smallest elements along `axis`, and their positions.

    Of equal elements the first wins. NaN is above all numbers, as in NumPy's sort. `sort` "none" also gives
    the order of values.
    """
    axis = normalize_axis(axis, data.ndim)
    if not 0 <= k <= data.shape[axis]:
        raise InferenceError(f"k {k} is out of range [0, {data.shape[axis]}]")
    keys = widen_floats(data)  # NumPy does not order NaN among bf16
    if mode == "min":
        order = np.argsort(keys, axis, kind="stable")
    else:
        # reversed, so that the stable sort keeps the order of equal elements
        order = data.shape[axis] - 1 - np.flip(np.argsort(np.flip(keys, axis), axis, kind="stable"), axis)
    order = np.take(order, np.arange(k), axis)
    if sort == "index":
        order = np.sort(order, axis)
    return np.take_along_axis(data, order, axis), order


@op("TopK", opset=1, types=TOPK, lower=".cpu_topk:TopK.of", bounds=(1,))
class TopK1:
    """The k largest or smallest elements along `axis`, and their positions as i32."""

    words = {"mode": "ov::op::TopKMode: max min", "sort": "none index value"}

    def infer(data, k, *, axis: Int, mode: Word, sort: Word, index_element_type: DType = "i32"):
        return _infer_topk(data, k, axis, index_element_type)

    def ref(data, k, *, axis, mode, sort, index_element_type="i32", stable=False):
        values, order = top_k(data, int(k.reshape(-1)[0]), axis, mode, sort)
        return values, order.astype(numpy_dtype(index_element_type))

    samples = cases(
        ((7,), 3, {"axis": 0}),
        ((3, 17), 5, {"axis": 1}),
        ((16, 3), 1, {"axis": 0}),
        ((2, 5, 33), 33, {"axis": -1}),
        ((1, 1000), 5, {"axis": 1}),
        each=[{"mode": mode, "sort": sort} for mode in ("max", "min") for sort in ("value", "index")],
        domain=(-100, 100),
    )


@op("TopK", opset=3, like=TopK1)
class TopK3:
    """The k largest or smallest elements along `axis`, and their positions."""


@op("TopK", opset=11, like=TopK3)
class TopK11:
    """TopK-3 with the attribute `stable`; results are stable in any case."""

    def infer(data, k, *, stable: Bool = False, **attrs):
        sort = attrs["sort"]
        says = "Stable sort can only be used when TopK's sorting mode is set to 'VALUE' or 'INDEX'."
        check(not stable or sort != "none", f"{says}{sort}")
        return _infer_topk(data, k, attrs["axis"], attrs["index_element_type"])
