"""Sparse tensors: SparseFillEmptyRows."""

from __future__ import annotations

import numpy as np

from ovjit.errors import InferenceError, ModelError, check
from ovjit.graph.op import TensorType, op
from ovjit.graph.shapes import ANY, Dim
from ovjit_ops.common.checks import check_rank, check_same_type, check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INDEX_TYPES, shape_value
from ovjit_ops.elementwise.arithmetic import NUMBERS


@op("SparseFillEmptyRows", opset=16, types=NUMBERS)
class SparseFillEmptyRows:
    """Indices and values of a sparse matrix, sorted by rows, with the default value at the start of each
    empty row; and which rows were empty."""

    def infer(values, dense_shape, indices, default_value):
        for name, x in (("dense_shape", dense_shape), ("indices", indices)):
            check_type(x, INDEX_TYPES, name)
        check_same_type(default_value, values, "default_value")
        check_rank(default_value, 0, "default_value")
        unify(values=(values, "N"), dense_shape=(dense_shape, "2"), indices=(indices, "N2"))
        shape = shape_value(dense_shape, "dense_shape")
        check(shape is None or (len(shape) == 2 and min(shape) >= 0), f"{shape} is not the shape of a matrix")
        rows: Dim = ANY if shape is None else int(shape[0])
        return (
            TensorType(indices.dtype, (ANY, 2)),
            TensorType(values.dtype, (ANY,)),
            TensorType("boolean", (rows,)),
        )

    def ref(values, dense_shape, indices, default_value):
        if dense_shape.size != 2 or dense_shape.min() < 0:
            raise ModelError(f"{dense_shape.tolist()} is not the shape of a matrix")
        rows, columns = (int(d) for d in dense_shape)
        pairs = indices.astype(np.int64)
        if pairs.size and (pairs.min() < 0 or (pairs >= [rows, columns]).any()):
            raise InferenceError(f"an index is outside of {rows} rows and {columns} columns")
        empty = np.bincount(indices[:, 0], minlength=rows) == 0 if rows else np.zeros(0, bool)
        new = np.zeros((int(empty.sum()), 2), indices.dtype)
        new[:, 0] = np.flatnonzero(empty)
        everything = np.concatenate([indices, new])
        filled = np.concatenate([values, np.full(len(new), default_value, values.dtype)])
        order = np.lexsort((everything[:, 1], everything[:, 0]))
        return everything[order], filled[order], empty
