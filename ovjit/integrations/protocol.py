"""The tensors of the Open Inference Protocol (KServe v2), without any server: names, datatypes, shapes, JSON.

In: what a request says of a tensor (name, datatype, shape, data). Out: an array of exactly that type and
shape; and the other way round. What a client did wrong is an `InvalidRequest` whose text is meant for him.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError

#: element type of OpenVINO -> (datatype of the protocol, NumPy's type of its elements). The protocol's JSON
#: has no
#: bf16: such ports are offered as FP32 and converted.
DATATYPES: dict[str, tuple[str, Any]] = {
    "boolean": ("BOOL", np.bool_),
    "u8": ("UINT8", np.uint8), "u16": ("UINT16", np.uint16), "u32": ("UINT32", np.uint32),
    "u64": ("UINT64", np.uint64), "i8": ("INT8", np.int8), "i16": ("INT16", np.int16),
    "i32": ("INT32", np.int32), "i64": ("INT64", np.int64), "f16": ("FP16", np.float16),
    "bf16": ("FP32", np.float32), "f32": ("FP32", np.float32), "f64": ("FP64", np.float64),
    "string": ("BYTES", np.object_),
}  # fmt: skip
_NUMPY = dict(DATATYPES.values())


class InvalidRequest(OvjitError, ValueError):
    """A request that does not fit the model: what is wrong, and what the model takes."""


class Port(NamedTuple):
    """An input or output: `shape` has -1 for open dimensions, `names` all that it may be called."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    names: frozenset[str]
    partial: Any  # the PartialShape, whose dimensions may have bounds
    kind: str  # OpenVINO's name of the element type

    def metadata(self) -> dict[str, Any]:
        """As the protocol's metadata say it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def ports(found: Sequence[Any], what: str) -> list[Port]:
    """The ports of a compiled model; UnsupportedError for types that the protocol does not have."""
    out: list[Port] = []
    for i, port in enumerate(found):
        kind = port.get_element_type().get_type_name()
        node = port.get_node().get_friendly_name()
        names = frozenset(port.get_names()) or frozenset([node])
        if kind not in DATATYPES:
            raise UnsupportedError(
                f"{what} {min(names)!r} is of type {kind}, which the protocol does not have: convert it in "
                "the model, by PrePostProcessor"
            )
        partial = port.get_partial_shape()
        shape = (-1,) if partial.rank.is_dynamic else tuple(
            d.get_length() if d.is_static else -1 for d in partial
        )  # fmt: skip
        name = min(names)
        if any(name == other.name for other in out):
            name = f"{what}_{i}"
        out.append(Port(name, DATATYPES[kind][0], shape, names | {name}, partial, kind))
    return out


def array_of(name: str, datatype: str, shape: Sequence[int], data: Any) -> np.ndarray:
    """The array of a request's tensor. `data`: nested or flat numbers, strings or bytes; or raw bytes, little
    endian. InvalidRequest where these do not agree."""
    if datatype not in _NUMPY:
        known = ", ".join(sorted(_NUMPY))
        raise InvalidRequest(f"input {name!r}: there is no datatype {datatype!r}; datatypes are {known}")
    if any(not isinstance(d, int) or isinstance(d, bool) or d < 0 for d in shape):
        raise InvalidRequest(f"input {name!r}: shape {list(shape)} should have whole numbers from 0 on")
    dtype = np.dtype(_NUMPY[datatype])
    try:
        if datatype == "BYTES":
            array = _strings(data)
        elif isinstance(data, (bytes, bytearray, memoryview)):
            array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
        else:
            array = _numbers(data, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"input {name!r}: the data are no {datatype}: {error}") from None
    count = 1
    for d in shape:
        count *= d
    if array.size != count:
        raise InvalidRequest(
            f"input {name!r}: shape {list(shape)} has {count} elements, the data have {array.size}"
        )
    return array.reshape(tuple(shape))


def _numbers(data: Any, dtype: np.dtype) -> np.ndarray:
    """Nested lists as an array; numbers that the type cannot hold are errors and not cut."""
    array = np.asarray(data)
    if array.dtype == object and dtype.kind == "f":  # JSON's null is what became of NaN
        array = array.astype(np.float64)
    if array.dtype == np.float64 and dtype == np.uint64:  # that is what NumPy makes of 0 and 2 ** 63 together
        exact = np.asarray(data, object)
        if all(type(x) is int for x in exact.reshape(-1)):
            return exact.astype(dtype)
    if array.size == 0 or array.dtype == dtype:
        return array.astype(dtype, copy=False)
    if array.dtype.kind not in ("biuf" if dtype.kind == "f" else "iu" if dtype.kind in "iu" else "b"):
        raise ValueError(f"{array.dtype} in their place")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise ValueError(f"{limits.min} to {limits.max} is what it holds")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _strings(data: Any) -> np.ndarray:
    flat: list[bytes] = []

    def walk(part: Any) -> None:
        if isinstance(part, str):
            flat.append(part.encode())
        elif isinstance(part, (bytes, bytearray)):
            flat.append(bytes(part))
        elif isinstance(part, (list, tuple, np.ndarray)):
            for inner in part:
                walk(inner)
        else:
            raise ValueError(f"{type(part).__name__} in the place of a string")

    walk(data)
    out = np.empty(len(flat), object)
    out[:] = flat
    return out


def check_inputs(given: Mapping[str, np.ndarray], wanted: Sequence[Port]) -> list[np.ndarray]:
    """The arrays in the order of the model's inputs, in the model's own element types. InvalidRequest for
    names that are missing or unknown, and for other types and shapes."""
    out: list[Any] = [None] * len(wanted)
    for name, array in given.items():
        i = next((i for i, port in enumerate(wanted) if name in port.names), None)
        if i is None:
            raise InvalidRequest(f"the model has no input {name!r}; its inputs are {_named(wanted)}")
        port, datatype = wanted[i], datatype_of(array.dtype)
        if out[i] is not None:
            raise InvalidRequest(f"input {port.name!r} is given twice, as {name!r} too")
        if datatype != port.datatype:
            raise InvalidRequest(
                f"input {name!r} is {datatype or array.dtype}, the model takes {port.datatype}"
            )
        if not _fits(array.shape, port.partial):
            raise InvalidRequest(
                f"input {name!r} has the shape {list(array.shape)}, the model takes {port.partial}"
            )
        out[i] = _bits(array) if port.kind == "bf16" else array
    for port, array in zip(wanted, out, strict=True):
        if array is None:
            raise InvalidRequest(f"input {port.name!r} is missing; the model's inputs are {_named(wanted)}")
    return out


def _named(found: Sequence[Port]) -> str:
    return ", ".join(repr(port.name) for port in found)


def datatype_of(dtype: Any) -> str:
    """The protocol's name of a NumPy type; "" where it has none."""
    dtype = np.dtype(dtype)
    if dtype.kind in "OSU":
        return "BYTES"
    return next((name for name, kind in _NUMPY.items() if np.dtype(kind) == dtype), "")


def _fits(shape: Sequence[int], partial: Any) -> bool:
    if partial.rank.is_dynamic:
        return True
    return len(shape) == len(partial) and all(
        d.get_min_length() <= n and (d.get_max_length() < 0 or n <= d.get_max_length())
        for n, d in zip(shape, partial, strict=True)
    )


def output_indices(asked: Sequence[str] | None, offered: Sequence[Port]) -> list[int]:
    """Which outputs a request wants, by name; all of them for None or nothing."""
    if not asked:
        return list(range(len(offered)))
    out = []
    for name in asked:
        found = [i for i, port in enumerate(offered) if name in port.names]
        if not found:
            raise InvalidRequest(f"the model has no output {name!r}; its outputs are {_named(offered)}")
        out.append(found[0])
    return out


def offered(array: np.ndarray, port: Port) -> np.ndarray:
    """An output's array in the type that the protocol has for it."""
    if port.kind != "bf16":
        return array
    from ml_dtypes import bfloat16

    return array.view(bfloat16).astype(np.float32)


def _bits(array: np.ndarray) -> np.ndarray:
    """f32 as what OpenVINO takes for bf16: their bits as NumPy's f16."""
    from ml_dtypes import bfloat16

    return array.astype(bfloat16).view(np.float16)


def plain(array: np.ndarray) -> list[Any]:
    """The elements, row by row, as JSON and Python have them; strings as text, or as bytes if they are
    none."""
    if array.dtype.kind in "OSU":
        return [_text(x) for x in array.reshape(-1).tolist()]
    return array.reshape(-1).tolist()


def _text(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def read_request(content: Any) -> tuple[dict[str, np.ndarray], list[str] | None, str | None]:
    """A request of the protocol's JSON, parsed: inputs by name, the outputs it asks for, its id."""
    if not isinstance(content, Mapping) or not isinstance(content.get("inputs"), list):
        raise InvalidRequest('a request is a JSON object with a list "inputs"')
    arrays: dict[str, np.ndarray] = {}
    for tensor in content["inputs"]:
        fields = ("name", "datatype", "shape", "data")
        if not isinstance(tensor, Mapping) or any(f not in tensor for f in fields):
            raise InvalidRequest("each of the inputs is an object with name, datatype, shape and data")
        name, datatype, shape, data = (tensor[f] for f in fields)
        if not isinstance(name, str) or not isinstance(shape, list):
            raise InvalidRequest("an input's name is a string, its shape a list")
        if name in arrays:
            raise InvalidRequest(f"input {name!r} is given twice")
        arrays[name] = array_of(name, str(datatype), shape, data)
    asked = content.get("outputs")
    try:
        wanted = [str(tensor["name"]) for tensor in asked] if asked else None
    except (TypeError, KeyError):
        raise InvalidRequest("each of the outputs is an object with a name") from None
    identity = content.get("id")
    return arrays, wanted, None if identity is None else str(identity)


def response(
    name: str, version: str | None, identity: str | None, outputs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """A response as the protocol's JSON has it, NaN and infinities as null."""
    tensors = []
    for key, array in outputs.items():
        data = plain(array)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            data = [x if np.isfinite(x) else None for x in data]
        if array.dtype.kind in "OSU" and any(isinstance(x, bytes) for x in data):
            raise InvalidRequest(f"output {key!r} has strings that are not UTF-8: JSON cannot carry them")
        tensors.append(
            {"name": key, "datatype": datatype_of(array.dtype), "shape": list(array.shape), "data": data}
        )
    out: dict[str, Any] = {"model_name": name, "outputs": tensors}
    if version:
        out["model_version"] = version
    if identity is not None:
        out["id"] = identity
    return out
