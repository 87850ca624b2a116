"""SparseTensor: values with their indices, as COO or as compressed rows (CSR). Sessions take dense ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import arguments_error
from ovjit.onnxruntime.choices import OrtSparseFormat
from ovjit.onnxruntime.element_types import number_of, tensor_text
from ovjit.onnxruntime.failures import STATE, Fail, failure_of

_PLACE = "sparse_tensor.cc"
_DIMS = "collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]"
_INDICES = "typing.Annotated[numpy.typing.ArrayLike, numpy.int64]"


class SparseData:
    """The content of a sparse tensor, its dimensions `shape`, values [n], and arrays of indices."""

    def __init__(self, shape: Sequence[int], values: np.ndarray, form: OrtSparseFormat, *indices: np.ndarray):
        self.shape, self.form = list(map(int, shape)), form
        self.values, *self.indices = map(_view, (values, *indices))
        self.number = number_of(values.dtype)


def _view(array: np.ndarray) -> np.ndarray:
    """A read-only view of an array."""
    view = array.view()
    view.flags.writeable = False
    return view


class SparseCooView:
    """The indices of values: their places in the flat tensor [n], or rows and columns [n, 2]."""

    def __init__(self, data: SparseData) -> None:
        self._indices = data.indices[0]

    def indices(self) -> np.ndarray:
        return self._indices


class SparseCsrView:
    """The columns of values, and where the values of each row begin."""

    def __init__(self, data: SparseData) -> None:
        self._inner, self._outer = data.indices

    def inner(self) -> np.ndarray:
        return self._inner

    def outer(self) -> np.ndarray:
        return self._outer


class SparseTensor:
    """A sparse tensor in the CPU's memory. It shares the memory of numeric values and of indices."""

    def __init__(self, sparse_tensor: Any) -> None:
        if not isinstance(sparse_tensor, SparseData):
            raise ValueError(f"`Provided object` needs to be of type `{STATE}.SparseTensor`")
        self._tensor = sparse_tensor

    def _get_c_tensor(self) -> SparseData:
        return self._tensor

    @staticmethod
    def sparse_coo_from_numpy(
        dense_shape: Sequence[int], values: np.ndarray, coo_indices: Any, ort_device: Any
    ) -> SparseTensor:
        """Values [n] at places of the flat tensor [n], or at rows and columns [2 * n] or [n, 2].
        RuntimeError for another number of indices."""
        name = "sparse_coo_from_numpy"
        indices = _check_arguments(name, "COO", dense_shape, values, [coo_indices], ort_device)[0]
        count = len(values)
        if indices.size not in (count, 2 * count):
            raise RuntimeError(
                f"Index size: {indices.size} must be equal to or twice the values size: {count}"
            )
        indices = indices.reshape(-1) if indices.size == count else indices.reshape(count, 2)
        return SparseTensor(SparseData(dense_shape, values, OrtSparseFormat.ORT_SPARSE_COO, indices))

    @staticmethod
    def sparse_csr_from_numpy(
        dense_shape: Sequence[int],
        values: np.ndarray,
        inner_indices: Any,
        outer_indices: Any,
        ort_device: Any,
    ) -> SparseTensor:
        """Values [n] with their columns [n] and the begins of rows [rows + 1] of a matrix. RuntimeError for
        other numbers of these."""
        name = "sparse_csr_from_numpy"
        arrays = [inner_indices, outer_indices]
        inner, outer = _check_arguments(name, "CSR", dense_shape, values, arrays, ort_device)
        faults = [
            (334, len(dense_shape) != 2, f"dense shape must 2-D. Got: {len(dense_shape)}"),
            (337, inner.size != len(values),
             f"Expecting inner index size: {inner.size} the same as values size: {len(values)}"),
            (340, bool(outer.size) and outer.size != int(dense_shape[0]) + 1,
             f"Outer index count must be rows + 1 or zero. Got: {outer.size} rows: {dense_shape[0]}"),
        ]  # fmt: skip
        for line, is_wrong, text in faults:
            if is_wrong:
                error = failure_of(Fail, f"{_PLACE}:{line} ValidateCsrIndices {text}")
                raise RuntimeError(str(error))
        form = OrtSparseFormat.ORT_SPARSE_CSRC
        return SparseTensor(SparseData(dense_shape, values, form, inner.reshape(-1), outer.reshape(-1)))

    def values(self) -> np.ndarray:
        return self._tensor.values

    def as_coo_view(self) -> SparseCooView:
        self._check_form(OrtSparseFormat.ORT_SPARSE_COO, "COO")
        return SparseCooView(self._tensor)

    def as_csrc_view(self) -> SparseCsrView:
        self._check_form(OrtSparseFormat.ORT_SPARSE_CSRC, "CSR(C)")
        return SparseCsrView(self._tensor)

    def as_blocksparse_view(self) -> Any:
        """RuntimeError: no function creates such tensors."""
        raise RuntimeError("This sparse tensor does not contain BlockSparse format")

    def _check_form(self, form: OrtSparseFormat, text: str) -> None:
        if self._tensor.form is not form:
            raise RuntimeError(f"This sparse tensor does not contain {text} format")

    def to_cuda(self, ort_device: Any) -> SparseTensor:
        raise RuntimeError("Cuda is not available in this build")

    def format(self) -> OrtSparseFormat:
        return self._tensor.form

    def dense_shape(self) -> list[int]:
        return list(self._tensor.shape)

    def data_type(self) -> str:
        """The type as NodeArg shows it."""
        return f"sparse_{tensor_text(self._tensor.number)}"

    def device_name(self) -> str:
        return "cpu"


def _check_arguments(
    name: str, form: str, shape: Any, values: Any, indices: Sequence[Any], device: Any
) -> list[np.ndarray]:
    """The indices as i64. TypeError for values that are no array, RuntimeError for those of another rank."""
    device._get_c_device()
    if not isinstance(values, np.ndarray):
        parameters = [f"arg0: {_DIMS}", "arg1: numpy.ndarray", *(f"arg2: {_INDICES}" for _ in indices)]
        raise arguments_error(name, "function", parameters, [shape, values], {}, "values should be an array")
    if values.ndim != 1:
        raise RuntimeError(
            f"Expecting values 1-D numpy values array for {form} format. Got dims: {values.ndim}"
        )
    if values.dtype == object:
        raise RuntimeError(f"Unsupported values data type: {values.dtype.num}")
    return [np.asarray(each, np.int64) for each in indices]


for _class in (SparseData, SparseCooView, SparseCsrView):
    _class.__module__ = STATE
SparseTensor.__module__ = "onnxruntime.capi.onnxruntime_inference_collection"
