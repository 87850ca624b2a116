"""The tensors of the Open Inference Protocol (KServe v2), without any server: names, datatypes, shapes, JSON,
and the raw bytes of the protocol's binary extension.

In: what a request says of a tensor (name, datatype, shape, data). Out: an array of exactly that type and
shape; and the other way round. What a client did wrong is an `InvalidRequest` whose text is meant for him.
"""

from __future__ import annotations

import json
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
#: datatype -> the array type of its elements, little endian as raw bytes have them; and back.
_ELEMENTS = {name: np.dtype(kind).newbyteorder("<") for name, kind in _NUMPY.items()}
_NAMES = {np.dtype(kind): name for name, kind in _NUMPY.items()}


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
    #: The least and the greatest length of each dimension, a greatest below 0 for none; None: any rank.
    bounds: tuple[tuple[int, int], ...] | None

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
        bounds = None if partial.rank.is_dynamic else tuple(
            (d.get_min_length(), d.get_max_length()) for d in partial
        )  # fmt: skip
        shape = (-1,) if bounds is None else tuple(low if low == high else -1 for low, high in bounds)
        name = min(names)
        if any(name == other.name for other in out):
            name = f"{what}_{i}"
        out.append(Port(name, DATATYPES[kind][0], shape, names | {name}, partial, kind, bounds))
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
            array = np.frombuffer(data, _ELEMENTS[datatype]).astype(dtype, copy=False)
            if datatype == "BOOL":  # any byte but 0 is true, and kernels count on 0 and 1
                array = array.view(np.uint8) != 0
            elif not array.flags.aligned:  # where they lie in a body is the client's to choose
                array = array.copy()
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
        if not _fits(array.shape, port.bounds):
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
    return "BYTES" if dtype.kind in "OSU" else _NAMES.get(dtype, "")


def _fits(shape: Sequence[int], bounds: tuple[tuple[int, int], ...] | None) -> bool:
    return bounds is None or (
        len(shape) == len(bounds)
        and all(low <= n and (high < 0 or n <= high) for n, (low, high) in zip(shape, bounds, strict=True))
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


class Request(NamedTuple):
    """Inputs by name; the outputs that are asked for, None for all; the request's id; and which of the
    outputs shall come as raw bytes, by name, or all that are not named (`raw_unless_named`)."""

    arrays: dict[str, np.ndarray]
    wanted: list[str] | None
    identity: str | None
    raw: Mapping[str, bool]
    raw_unless_named: bool

    def is_raw(self, name: str) -> bool:
        """Whether that output is sent as bytes behind the JSON."""
        return self.raw.get(name, self.raw_unless_named)


def read_body(body: bytes, header_length: str | None = None) -> Request:
    """A request of the protocol: JSON, of `header_length` bytes where raw tensors follow it (the header
    Inference-Header-Content-Length of the protocol's binary extension)."""
    view = memoryview(body)
    split = len(view)
    if header_length is not None:
        try:
            split = int(header_length)
        except ValueError:
            split = -1
        if not 0 <= split <= len(view):
            raise InvalidRequest(
                f"Inference-Header-Content-Length is {header_length!r}, and should be the length of the JSON "
                f"at the beginning of the {len(view)} bytes"
            )
    try:
        content = json.loads(bytes(view[:split]))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request is no JSON: {error}") from None
    return read_request(content, view[split:])


def read_request(content: Any, raw: bytes | memoryview = b"") -> Request:
    """A request of the protocol's JSON, parsed, and the raw tensors that follow it."""
    if not isinstance(content, Mapping) or not isinstance(content.get("inputs"), list):
        raise InvalidRequest('a request is a JSON object with a list "inputs"')
    arrays: dict[str, np.ndarray] = {}
    at = 0
    for tensor in content["inputs"]:
        if not isinstance(tensor, Mapping) or any(f not in tensor for f in ("name", "datatype", "shape")):
            raise InvalidRequest("each of the inputs is an object with name, datatype, shape and data")
        name, datatype, shape = tensor["name"], str(tensor["datatype"]), tensor["shape"]
        if not isinstance(name, str) or not isinstance(shape, list):
            raise InvalidRequest("an input's name is a string, its shape a list")
        if name in arrays:
            raise InvalidRequest(f"input {name!r} is given twice")
        size = _parameter(tensor, "binary_data_size")
        if size is None:
            if "data" not in tensor:
                raise InvalidRequest("each of the inputs is an object with name, datatype, shape and data")
            data = tensor["data"]
        else:
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(raw) - at:
                raise InvalidRequest(
                    f"input {name!r}: binary_data_size is {size!r}, {len(raw) - at} bytes are left of those "
                    "that follow the JSON"
                )
            data = raw[at : at + size]
            at += size
            if datatype == "BYTES":
                data = _unpacked(name, bytes(data))
        arrays[name] = array_of(name, datatype, shape, data)
    if at != len(raw):
        raise InvalidRequest(f"{len(raw) - at} bytes follow the JSON that belong to no input")
    asked = content.get("outputs")
    try:
        wanted = [str(tensor["name"]) for tensor in asked] if asked else None
        chosen = {str(tensor["name"]): _parameter(tensor, "binary_data") for tensor in asked or ()}
    except (TypeError, KeyError):
        raise InvalidRequest("each of the outputs is an object with a name") from None
    identity = content.get("id")
    return Request(
        arrays, wanted, None if identity is None else str(identity),
        {name: bool(value) for name, value in chosen.items() if value is not None},
        bool(_parameter(content, "binary_data_output")),
    )  # fmt: skip


def _parameter(content: Any, name: str) -> Any:
    found = content.get("parameters") if isinstance(content, Mapping) else None
    return found.get(name) if isinstance(found, Mapping) else None


def _unpacked(name: str, raw: bytes) -> list[bytes]:
    """Strings, each behind its length in four bytes."""
    out: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise InvalidRequest(f"input {name!r}: its bytes end within a string")
        out.append(raw[at + 4 : end])
        at = end
    return out


def raw_bytes(array: np.ndarray) -> bytes:
    """The elements as the binary extension has them: little endian, strings behind their lengths."""
    if array.dtype.kind in "OSU":
        strings = [x.encode() if isinstance(x, str) else bytes(x) for x in array.reshape(-1).tolist()]
        return b"".join(len(x).to_bytes(4, "little") + x for x in strings)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def response(
    name: str, version: str | None, identity: str | None, outputs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """A response as the protocol's JSON has it, NaN and infinities as null."""
    return _response(name, version, identity, [_as_json(key, array) for key, array in outputs.items()])


def response_body(
    name: str, version: str | None, request: Request, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """A response's body, and the length of its JSON where raw tensors follow it, else None."""
    tensors: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for key, array in outputs.items():
        if request.is_raw(key):
            raw.append(raw_bytes(array))
            tensors.append({**_about(key, array), "parameters": {"binary_data_size": len(raw[-1])}})
        else:
            tensors.append(_as_json(key, array))
    head = json.dumps(_response(name, version, request.identity, tensors)).encode()
    return (b"".join([head, *raw]), len(head)) if raw else (head, None)


def _about(key: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": key, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}


def _as_json(key: str, array: np.ndarray) -> dict[str, Any]:
    data = plain(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        data = [x if np.isfinite(x) else None for x in data]
    if array.dtype.kind in "OSU" and any(isinstance(x, bytes) for x in data):
        raise InvalidRequest(f"output {key!r} has strings that are not UTF-8: JSON cannot carry them")
    return {**_about(key, array), "data": data}


def _response(
    name: str, version: str | None, identity: str | None, tensors: list[dict[str, Any]]
) -> dict[str, Any]:
    out: dict[str, Any] = {"model_name": name, "outputs": tensors}
    if version:
        out["model_version"] = version
    if identity is not None:
        out["id"] = identity
    return out
