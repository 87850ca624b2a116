"""Requests and responses of the Open Inference Protocol (KServe v2), independent of a server: names,
datatypes, shapes, JSON, and the raw bytes of the protocol's binary extension.

In: a request's description of its tensors (name, datatype, shape, data). Out: an array of that type and shape
for each. Responses are the reverse. Errors of the client are `InvalidRequest`, with a message for the client.
Limits of requests are in `limits.py`, elements in `elements.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.integrations.elements import DATATYPES, array_of, datatype_of, raw_bytes, to_list, unpack_strings
from ovjit.integrations.json_pieces import dumps_list, let_go, loads
from ovjit.integrations.limits import DEFAULT, InvalidRequest, Limits, TooLarge, show
from ovjit.integrations.sessions import Session, sequence_of
from ovjit.records import NamedTuple


class Port(NamedTuple):
    """An input or output: `shape` has -1 for dynamic dimensions, `names` has all accepted names."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    names: frozenset[str]
    partial: Any  # the PartialShape, whose dimensions may have bounds
    kind: str  # OpenVINO's name of the element type
    #: Minimum and maximum of each dimension; a negative maximum means none. None: any rank.
    bounds: tuple[tuple[int, int], ...] | None

    def metadata(self) -> dict[str, Any]:
        """The port in the form of the protocol's metadata."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def ports(model_ports: Sequence[Any], what: str) -> list[Port]:
    """The ports of a compiled model. Raises UnsupportedError for types that the protocol does not have."""
    out: list[Port] = []
    for i, port in enumerate(model_ports):
        kind = port.get_element_type().get_type_name()
        node = port.get_node().get_friendly_name()
        names = frozenset(port.get_names()) or frozenset([node])
        if kind not in DATATYPES:
            raise UnsupportedError(
                f"{what} {min(names)!r} is of type {kind}, which the protocol does not support: convert "
                "it in the model with PrePostProcessor"
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


def check_inputs(arrays: Mapping[str, np.ndarray], inputs: Sequence[Port]) -> list[np.ndarray]:
    """The arrays in the order of the model's inputs, in the model's element types. Raises InvalidRequest for
    missing or unknown names, and for types and shapes that do not fit."""
    out: list[Any] = [None] * len(inputs)
    for name, array in arrays.items():
        i = next((i for i, port in enumerate(inputs) if name in port.names), None)
        if i is None:
            raise InvalidRequest(f"the model has no input {show(name)}; its inputs are {_named(inputs)}")
        port, datatype = inputs[i], datatype_of(array.dtype)
        if out[i] is not None:
            raise InvalidRequest(f"input {port.name!r} is given twice, as {show(name)} too")
        if datatype != port.datatype:
            raise InvalidRequest(
                f"input {show(name)} has the datatype {datatype or array.dtype}, the model expects "
                f"{port.datatype}"
            )
        if not _fits(array.shape, port.bounds):
            raise InvalidRequest(
                f"input {show(name)} has the shape {list(array.shape)}, the model expects {port.partial}"
            )
        out[i] = _bits(array) if port.kind == "bf16" else array
    for port, array in zip(inputs, out, strict=True):
        if array is None:
            raise InvalidRequest(f"input {port.name!r} is missing; the model's inputs are {_named(inputs)}")
    return out


def _named(ports: Sequence[Port]) -> str:
    return ", ".join(repr(port.name) for port in ports)


def _fits(shape: Sequence[int], bounds: tuple[tuple[int, int], ...] | None) -> bool:
    return bounds is None or (
        len(shape) == len(bounds)
        and all(low <= n and (high < 0 or n <= high) for n, (low, high) in zip(shape, bounds, strict=True))
    )


def output_indices(names: Sequence[str] | None, offered: Sequence[Port]) -> list[int]:
    """The indices of the outputs that a request names; all if it names none."""
    if not names:
        return list(range(len(offered)))
    out = []
    for name in names:
        indices = [i for i, port in enumerate(offered) if name in port.names]
        if not indices:
            raise InvalidRequest(f"the model has no output {show(name)}; its outputs are {_named(offered)}")
        out.append(indices[0])
    return out


def to_protocol(array: np.ndarray, port: Port) -> np.ndarray:
    """An output's array in the protocol's type."""
    if port.kind != "bf16":
        return array
    from ml_dtypes import bfloat16

    return array.view(bfloat16).astype(np.float32)


def _bits(array: np.ndarray) -> np.ndarray:
    """f32 rounded to bf16, as an array of NumPy's f16 with these bits, which OpenVINO expects."""
    from ml_dtypes import bfloat16

    return array.astype(bfloat16).view(np.float16)


class Request(NamedTuple):
    """Inputs by name; the requested outputs, None for all; the request's id; which outputs are sent as raw
    bytes: those named in `raw`, or all others too (`raw_unless_named`); and the session, if it names one."""

    arrays: dict[str, np.ndarray]
    output_names: list[str] | None
    identity: str | None
    raw: Mapping[str, bool]
    raw_unless_named: bool
    session: Session | None = None

    def is_raw(self, name: str) -> bool:
        """Whether this output is sent as bytes after the JSON."""
        return self.raw.get(name, self.raw_unless_named)


def read_body(body: bytes, header_length: str | None = None, limits: Limits = DEFAULT) -> Request:
    """Parse the body of a request. If raw tensors follow the JSON, it has `header_length` bytes (the header
    Inference-Header-Content-Length of the protocol's binary extension)."""
    view = memoryview(body)
    if len(view) > limits.body_bytes:
        raise TooLarge(f"the request has {len(view)} bytes, this server accepts at most {limits.body_bytes}")
    split = len(view)
    if header_length is not None:
        is_number = header_length.isascii() and header_length.isdecimal() and len(header_length) < 20
        split = int(header_length) if is_number else -1
        if not 0 <= split <= len(view):
            raise InvalidRequest(
                f"Inference-Header-Content-Length is {show(header_length)}; it should be the length of "
                f"the JSON at the beginning of the {len(view)} bytes"
            )
    content = loads(body if split == len(view) else bytes(view[:split]), limits)
    try:
        return read_request(content, view[split:], limits)
    finally:
        _let_data_go(content)


def _let_data_go(content: Any) -> None:
    tensors = content.get("inputs") if isinstance(content, dict) else None
    for tensor in tensors if isinstance(tensors, list) else ():
        if isinstance(tensor, dict) and isinstance(tensor.get("data"), list):
            let_go(tensor["data"])


def read_request(content: Any, raw: bytes | memoryview = b"", limits: Limits = DEFAULT) -> Request:
    """The request of parsed JSON and of the raw tensors that follow it."""
    if not isinstance(content, Mapping) or not isinstance(content.get("inputs"), list):
        raise InvalidRequest('a request should be a JSON object with a list "inputs"')
    requested = content.get("outputs")
    if requested is None:
        requested = []
    if not isinstance(requested, list) or not all(
        isinstance(tensor, Mapping) and isinstance(tensor.get("name"), str) for tensor in requested
    ):
        raise InvalidRequest("the outputs should be a list of objects, each with a name, which is a string")
    for what, tensors in (("inputs", content["inputs"]), ("outputs", requested)):
        if len(tensors) > limits.tensors:
            raise InvalidRequest(
                f"a request can have at most {limits.tensors} {what}; this one has {len(tensors)}"
            )
    identity = content.get("id")
    if isinstance(identity, int) and not isinstance(identity, bool) and identity.bit_length() <= 64:
        identity = str(identity)
    if identity is not None and not isinstance(identity, str):
        raise InvalidRequest(f"a request's id should be a string, not {show(identity)}")
    arrays: dict[str, np.ndarray] = {}
    remaining = memoryview(raw)
    for tensor in content["inputs"]:
        name, array, remaining = _tensor(tensor, remaining, limits)
        if name in arrays:
            raise InvalidRequest(f"input {show(name)} is given twice")
        arrays[name] = array
    if remaining:
        raise InvalidRequest(f"{len(remaining)} bytes that follow the JSON belong to no input")
    chosen = {tensor["name"]: _parameter(tensor, "binary_data") for tensor in requested}
    return Request(
        arrays, [tensor["name"] for tensor in requested] or None, identity,
        {name: bool(value) for name, value in chosen.items() if value is not None},
        bool(_parameter(content, "binary_data_output")), sequence_of(parameters_of(content)),
    )  # fmt: skip


def _tensor(tensor: Any, raw: memoryview, limits: Limits) -> tuple[str, np.ndarray, memoryview]:
    """An input's name and array, and the remaining raw bytes."""
    if not isinstance(tensor, Mapping) or any(f not in tensor for f in ("name", "datatype", "shape")):
        raise InvalidRequest("each input should be an object with name, datatype, shape and data")
    name, datatype, shape = tensor["name"], tensor["datatype"], tensor["shape"]
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        raise InvalidRequest("an input's name and datatype should be strings, its shape a list")
    size = _parameter(tensor, "binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise InvalidRequest("each input should be an object with name, datatype, shape and data")
        return name, array_of(name, datatype, shape, tensor["data"], limits), raw
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(raw):
        raise InvalidRequest(
            f"input {show(name)}: binary_data_size is {show(size)}, but {len(raw)} bytes remain after "
            "the JSON"
        )
    data = unpack_strings(raw[:size]) if datatype == "BYTES" else raw[:size]
    return name, array_of(name, datatype, shape, data, limits), raw[size:]


def parameters_of(content: Any) -> Mapping[str, Any]:
    """The parameters of a request or a tensor."""
    parameters = content.get("parameters") if isinstance(content, Mapping) else None
    return parameters if isinstance(parameters, Mapping) else {}


def _parameter(content: Any, name: str) -> Any:
    return parameters_of(content).get(name)


def response(
    name: str, version: str | None, identity: str | None, outputs: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """A response in the protocol's JSON. NaN and infinities are null."""
    tensors = [{**_about(key, array), "data": _data(key, array)} for key, array in outputs.items()]
    return {**_head(name, version, identity), "outputs": tensors}


def response_body(
    name: str, version: str | None, request: Request, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """The body of a response. The second result is the length of its JSON if raw tensors follow it, else
    None."""
    tensors: list[str] = []
    raw: list[bytes] = []
    for key, array in outputs.items():
        about = _about(key, array)
        if request.is_raw(key):
            raw.append(raw_bytes(array))
            tensors.append(json.dumps({**about, "parameters": {"binary_data_size": len(raw[-1])}}))
        else:
            tensors.append(f'{json.dumps(about)[:-1]}, "data": {dumps_list(_data(key, array))}}}')
    head_text = json.dumps(_head(name, version, request.identity))
    head = f'{head_text[:-1]}, "outputs": [{", ".join(tensors)}]}}'.encode()
    return (b"".join([head, *raw]), len(head)) if raw else (head, None)


def _head(name: str, version: str | None, identity: str | None) -> dict[str, Any]:
    entries = {"model_name": name, "model_version": version, "id": identity}
    return {key: value for key, value in entries.items() if value or (key == "id" and value is not None)}


def _about(key: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": key, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}


def _data(key: str, array: np.ndarray) -> list[Any]:
    data = to_list(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        data = [x if isfinite(x) else None for x in data]
    if array.dtype.kind in "OSU" and any(isinstance(x, bytes) for x in data):
        raise InvalidRequest(
            f"output {key!r} has strings that are not UTF-8, which JSON cannot hold: request binary data"
        )
    return data
