"""TensorProtos as arrays: element types, exact sizes and the one field that holds the data are checked.

The package's own decoder trusts what it is given; this one is for files from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ovjit.build.builder import FOLD_BUDGET
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.dtypes import ELEMENT_TYPES, unpack_low_first
from ovjit.graph.shapes import ANY, Dim
from ovjit.records import NamedTuple

#: NumPy's limit on dimensions.
MAX_RANK = 64
#: The fields that may hold a tensor's data.
_FIELDS = frozenset(
    ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data", "raw_data")
)


class OnnxType(NamedTuple):
    """One of ONNX's element types: OpenVINO's name ("" where it has none), and the field of typed data."""

    onnx: str
    name: str
    field: str


#: TensorProto.DataType -> OnnxType.
TYPES = {
    1: OnnxType("FLOAT", "f32", "float_data"),
    2: OnnxType("UINT8", "u8", "int32_data"),
    3: OnnxType("INT8", "i8", "int32_data"),
    4: OnnxType("UINT16", "u16", "int32_data"),
    5: OnnxType("INT16", "i16", "int32_data"),
    6: OnnxType("INT32", "i32", "int32_data"),
    7: OnnxType("INT64", "i64", "int64_data"),
    8: OnnxType("STRING", "string", "string_data"),
    9: OnnxType("BOOL", "boolean", "int32_data"),
    10: OnnxType("FLOAT16", "f16", "int32_data"),
    11: OnnxType("DOUBLE", "f64", "double_data"),
    12: OnnxType("UINT32", "u32", "uint64_data"),
    13: OnnxType("UINT64", "u64", "uint64_data"),
    14: OnnxType("COMPLEX64", "", "float_data"),
    15: OnnxType("COMPLEX128", "", "double_data"),
    16: OnnxType("BFLOAT16", "bf16", "int32_data"),
    17: OnnxType("FLOAT8E4M3FN", "f8e4m3", "int32_data"),
    18: OnnxType("FLOAT8E4M3FNUZ", "", "int32_data"),
    19: OnnxType("FLOAT8E5M2", "f8e5m2", "int32_data"),
    20: OnnxType("FLOAT8E5M2FNUZ", "", "int32_data"),
    21: OnnxType("UINT4", "u4", "int32_data"),
    22: OnnxType("INT4", "i4", "int32_data"),
    23: OnnxType("FLOAT4E2M1", "f4e2m1", "int32_data"),
    24: OnnxType("FLOAT8E8M0", "f8e8m0", "int32_data"),
    25: OnnxType("UINT2", "u2", "int32_data"),
    26: OnnxType("INT2", "", "int32_data"),
}
#: OpenVINO's name -> TensorProto.DataType.
NUMBERS = {row.name: number for number, row in TYPES.items() if row.name}


class StandIn(NamedTuple):
    """Stand-in for an element type that OpenVINO lacks: constants are read as the type `like`, and `convert`
    turns them into the same values in the type `name`."""

    like: str
    name: str
    convert: Callable[[np.ndarray], np.ndarray]


def _f16_from_bytes(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from bytes of a small float type, which the package ml_dtypes decodes, to f16."""

    def convert(x: np.ndarray) -> np.ndarray:
        import ml_dtypes

        return x.view(getattr(ml_dtypes, name)).astype(np.float16)

    return convert


#: TensorProto.DataType -> StandIn, which holds each of the type's numbers exactly.
STAND_INS = {
    18: StandIn("f8e4m3", "f16", _f16_from_bytes("float8_e4m3fnuz")),
    20: StandIn("f8e5m2", "f16", _f16_from_bytes("float8_e5m2fnuz")),
    26: StandIn("u2", "i8", lambda x: (x.astype(np.int8) ^ 2) - np.int8(2)),
}


class Outside(Protocol):
    """Data that are not in the parsed messages."""

    #: What was cut out of the file, by the mark that stands for it in `raw_data`, see `wire`.
    cut: dict[bytes, np.ndarray]

    def __call__(self, tensor: Any, size: int) -> np.ndarray:
        """The bytes of a tensor's data in another file, exactly `size` of them."""


def element_code(name: str) -> int:
    """ONNX's number of an element type. ModelError for one that ONNX does not have."""
    code = next((number for number, row in TYPES.items() if row.name == name), None)
    if code is None:
        raise ModelError(f"ONNX has no element type {name}")
    return code


def element_type(number: int) -> str:
    """OpenVINO's name of an ONNX element type. Raises UnsupportedError where there is none."""
    row = TYPES.get(number)
    if row is None:
        raise ModelError(f"{number} is not an element type of ONNX")
    if not row.name:
        raise UnsupportedError(f"the element type {row.onnx} is not supported by OpenVINO")
    return row.name


def fits(shape: tuple[int, ...]) -> bool:
    """Whether NumPy supports arrays of this shape, which may be empty but must not exceed memory
    otherwise."""
    return math.prod(d for d in shape if d) < 1 << 59


def input_type(info: Any) -> tuple[str, tuple[Dim, ...] | None, bool]:
    """(element type, shape, True for a sequence) of the TypeProto of a model's input. An optional is treated
    as present. The tensors of a sequence are the rows of one tensor, so their rank must be known."""
    kind = info.WhichOneof("value")
    if kind == "optional_type":
        return input_type(info.optional_type.elem_type)
    if kind != "sequence_type":
        return *tensor_type(info), False
    name, shape = tensor_type(info.sequence_type.elem_type)
    if shape is None:
        raise UnsupportedError(
            "a sequence is read as one tensor with its tensors as rows, which needs their rank: give their "
            "type a shape, whose dimensions may be dynamic"
        )
    return name, (ANY, *shape), True


def tensor_type(info: Any) -> tuple[str, tuple[Dim, ...] | None]:
    """(element type, shape) of a TypeProto; a sparse tensor counts as dense."""
    kind = info.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        what = (kind or "nothing").removesuffix("_type")
        raise UnsupportedError(f"a tensor is expected, not {what}: OpenVINO's models have no such values")
    tensor = getattr(info, kind)
    name = element_type(tensor.elem_type)
    if not tensor.HasField("shape"):
        return name, None
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        static = dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0
        dims.append(int(dim.dim_value) if static else ANY)
    if len(dims) > MAX_RANK:
        raise ModelError(f"the shape has {len(dims)} dimensions; the maximum is {MAX_RANK}")
    return name, tuple(dims)


def decode(
    tensor: Any, external: Outside | None = None, stand_in: bool = False
) -> tuple[np.ndarray, str, tuple[int, ...]]:
    """(values, element type, shape) of a TensorProto; packed types are unpacked. With `stand_in`, types in
    `STAND_INS` are replaced by their substitutes.

    `external(tensor, size)` reads data that lie in another file; its `cut` has what was cut out of this one.
    Raises ModelError for dimensions below 0, data in no field or in several, and any number of bytes or
    elements but the right one.
    """
    number = tensor.data_type
    if not stand_in or number not in STAND_INS:
        return _decode(tensor, element_type(number), external)
    like, name, convert = STAND_INS[number]
    values, _, shape = _decode(tensor, like, external)
    return convert(values), name, shape


def _decode(tensor: Any, name: str, external: Outside | None) -> tuple[np.ndarray, str, tuple[int, ...]]:
    """Decode a TensorProto of the element type `name`."""
    fields = {descriptor.name: value for descriptor, value in tensor.ListFields()}
    shape = tuple(fields.get("dims", ()))
    if shape and (min(shape) < 0 or len(shape) > MAX_RANK or not fits(shape)):
        raise ModelError(f"the dimensions {_short(shape)} of a tensor are not valid")
    if "segment" in fields:
        raise ModelError("tensors in segments are not supported")
    count = math.prod(shape)
    filled = [field for field in fields if field in _FIELDS]
    if fields.get("data_location") == 1:
        if filled:
            raise ModelError(f"a tensor has external data, but also data in {filled[0]}")
        filled = ["external"]
    if len(filled) > 1:
        raise ModelError(f"a tensor has data in several fields: {', '.join(filled)}")
    if not filled and count:
        raise ModelError(f"a tensor of shape {_short(shape)} has no data")
    if name == "string":
        return _strings(tensor, filled, shape, count), name, shape
    row = ELEMENT_TYPES[name]
    size = (count * row.bits + 7) // 8 if row.kind != "b" else count
    if not filled:
        return np.zeros(shape, row.numpy), name, shape
    if filled[0] == "external":
        if external is None:
            raise ModelError(
                "a tensor's data are in another file, but the model was given without a path: give the "
                "path, or the contents as weights={location: bytes}"
            )
        data = external(tensor, size)
    elif filled[0] == "raw_data":
        raw = fields["raw_data"]
        external_data = None if external is None else external.cut.get(raw)
        data = np.frombuffer(raw, np.uint8) if external_data is None else external_data
        if data.size != size:
            raise ModelError(
                f"a tensor has {data.size} bytes of data, but {name}{_short(shape)} needs {size}"
            )
    else:
        field = TYPES[tensor.data_type].field
        if filled[0] != field:
            raise ModelError(f"a tensor of {name} has its data in {filled[0]}; expected {field}")
        data = _typed(fields[field], name, row, count, size)
    return _values(data, row, shape), name, shape


def _typed(field: Any, name: str, row: Any, count: int, size: int) -> np.ndarray:
    """The bytes of the elements in a typed field."""
    entries = size if row.is_packed else count
    if len(field) != entries:
        raise ModelError(f"a tensor has {len(field)} entries of data; expected {entries}")
    if name in ("f32", "f64", "i64", "u64"):
        return np.array(field, row.numpy).view(np.uint8)
    elements = np.array(field, np.int64 if row.bits < 32 or name == "i32" else np.uint64)
    bits = 8 if row.is_packed else row.bits
    return elements.astype({8: np.uint8, 16: np.uint16, 32: np.uint32}[bits]).view(np.uint8)


def _values(data: np.ndarray, row: Any, shape: tuple[int, ...]) -> np.ndarray:
    if row.kind == "b":
        return (data != 0).reshape(shape)
    if row.is_packed:
        return unpack_low_first(data, row.bits, shape, row.numpy)
    return data.view(row.numpy).reshape(shape)  # at any address: nothing but NumPy reads constants in place


def _strings(tensor: Any, filled: list[str], shape: tuple[int, ...], count: int) -> np.ndarray:
    if filled and filled[0] != "string_data":
        raise ModelError(f"a tensor of strings has its data in {filled[0]}")
    if len(tensor.string_data) != count:
        raise ModelError(f"a tensor has {len(tensor.string_data)} strings; expected {count}")
    out = np.empty(count, object)
    for i, text in enumerate(tensor.string_data):
        try:
            out[i] = text.decode()
        except UnicodeDecodeError as error:
            raise ModelError(f"string {i} of a tensor is not valid UTF-8") from error
    return out.reshape(shape)


def _short(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape[:8]))}{',...' if len(shape) > 8 else ''}]"


def dense(sparse: Any, external: Outside) -> tuple[np.ndarray, str]:
    """The array of a SparseTensorProto, and its element type."""
    values, element_type, _ = decode(sparse.values, external)
    indices, _, _ = decode(sparse.indices, external)
    shape = tuple(sparse.dims)
    count = math.prod(shape)
    if any(d < 0 for d in shape) or len(shape) > MAX_RANK or not fits(shape):
        raise ModelError(f"the dimensions {list(shape)[:8]} of a sparse tensor are not valid")
    if count * max(values.itemsize, 1) > FOLD_BUDGET:
        raise ModelError(f"a sparse tensor of {list(shape)[:8]} is too large to be converted to dense")
    if indices.dtype.kind not in "iu" or indices.ndim > 2:
        raise ModelError("the indices of a sparse tensor should be integers in one or two dimensions")
    flat = indices.reshape(-1)
    if indices.ndim == 2:
        if indices.shape[1] != len(shape):
            wrong = indices.shape[1]
            raise ModelError(f"a sparse tensor of {len(shape)} dimensions has indices of length {wrong}")
        if not ((indices >= 0) & (indices < np.array(shape, np.int64))).all():
            raise ModelError("a sparse tensor has indices that are out of range")
        flat = np.zeros(len(indices), np.int64)
        if indices.size:
            flat = np.ravel_multi_index(tuple(indices.T), shape)
    if flat.size != values.size or (flat.size and (flat.min() < 0 or flat.max() >= count)):
        raise ModelError(
            "a sparse tensor has indices that are out of range, or their number differs "
            "from that of its values"
        )
    filled = np.zeros(count, values.dtype)
    filled[flat.astype(np.int64)] = values.reshape(-1)
    return filled.reshape(shape), element_type
