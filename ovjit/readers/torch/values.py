"""PyTorch's tensors and types as ovjit's, and the values of a graph that are no tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ovjit.build import Output, make_constant, make_node, set_notes, tensor_type, wrap_port
from ovjit.errors import UnsupportedError
from ovjit.graph.shapes import Dim, Interval
from ovjit.readers.torch.pytorch import torch
from ovjit.records import NamedTuple

#: OpenVINO's names of element types by PyTorch's.
ELEMENT_NAMES = {
    "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int64": "i64", "int32": "i32",
    "int16": "i16", "int8": "i8", "uint8": "u8", "bool": "boolean", "uint16": "u16", "uint32": "u32",
    "uint64": "u64", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2",
    "quint8": "u8", "qint8": "i8", "qint32": "i32",
}  # fmt: skip
#: The type of a pair's numbers by PyTorch's complex type.
PARTS = {"complex64": "f32", "complex128": "f64", "complex32": "f16"}
#: The attribute of a tensor that stands for a weight of 16 or 8 bits: that weight.
STORED = "_ovjit_stored"


class Complex(NamedTuple):
    """A complex tensor: its real and imaginary parts are the last dimension of `pair`, [..., 2]."""

    pair: Output


class Uninitialized:
    """A variable of a script on a path that exits before it is set. It is never read."""


class Stacked:
    """A list whose length depends on data: `rows` has its items along its first dimension. They are tensors
    of one shape, or `numbers`."""

    __slots__ = ("numbers", "rows")

    def __init__(self, rows: Output, numbers: bool = False):
        self.rows = rows
        self.numbers = numbers


class Picked(dict):
    """Slices along a dynamic dimension by the constant indices that are read; negative ones count from the
    end. `number`: how many slices there are, if that is read."""

    number: Any = None


class Chunks(list):
    """Slices along a dynamic dimension, of which the last ones may be empty. `number`: how many are not."""

    number: Any = None


class Part(Output):
    """A part of `source` along the dynamic dimension `axis`. `parts`: all parts of the example's tensor."""

    __slots__ = ("axis", "parts", "source")
    source: Output
    axis: int
    parts: list[Part]


class Nested(Output):
    """Samples of different lengths, padded to [batch, length, size]. `mask` [batch, length] is true for the
    elements that belong to them. An operator that does not expect this class gives plain tensors."""

    __slots__ = ("mask",)
    mask: Output


def nested_tensor(padded: Output, mask: Output) -> Nested:
    return wrap_port(Nested, padded, mask=mask)


def parts_of(source: Output, axis: int, parts: Sequence[Output]) -> list[Part]:
    """All slices of a tensor along a dynamic dimension, as values that refer to the whole tensor."""
    result: list[Part] = [wrap_port(Part, part) for part in parts]
    for part in result:
        part.source, part.axis, part.parts = source, axis, result
    return result


def are_all_parts(values: Any) -> bool:
    """Whether a list has all slices of one tensor, in order. It then stands for any number of slices."""
    if not isinstance(values, (list, tuple)) or not values or not isinstance(values[0], Part):
        return False
    parts = values[0].parts
    return len(parts) == len(values) and all(a is b for a, b in zip(parts, values, strict=True))


def dimension_of(value: Output) -> Dim | None:
    """The dynamic dimension that a tensor of one element contains, None for other numbers."""
    partial = tensor_type(value).partial
    bound = partial.reshape(-1)[0] if partial is not None and partial.size == 1 else None
    return bound if isinstance(bound, Interval) else None


class Number:
    """A scalar that Python computes with, such as a dynamic dimension.

    `dim` is the dynamic dimension that it is, where it is one. Its nodes are made when `value` is first read.
    """

    __slots__ = ("_value", "dim")

    def __init__(self, value: Output | Callable[[], Output], dim: Dim | None = None):
        self._value = value
        self.dim = dimension_of(value) if dim is None and isinstance(value, Output) else dim

    @property
    def value(self) -> Output:
        if not isinstance(self._value, Output):
            self._value = self._value()
        return self._value

    @property
    def key(self) -> tuple | None:
        """A key that equal numbers share, or None if it is unknown."""
        return self.dim.key if isinstance(self.dim, Interval) else None


@cache
def torch_types() -> dict[str, Any]:
    """OpenVINO's name of an element type -> torch.dtype."""
    plain = [name for name in ELEMENT_NAMES if hasattr(torch, name) and not name.startswith("q")]
    return {ELEMENT_NAMES[name]: getattr(torch, name) for name in plain}


@cache
def _by_number() -> dict[int, Any]:
    """TorchScript's number of a type -> torch.dtype."""
    order = (
        "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex32", "complex64",
        "complex128", "bool", "qint8", "quint8", "qint32", "bfloat16",
    )  # fmt: skip
    return {i: getattr(torch, name) for i, name in enumerate(order)}


def torch_type(dtype: Any) -> Any:
    """A torch.dtype, from itself or its number."""
    return _by_number()[dtype] if isinstance(dtype, int) else dtype


def name_of(dtype: Any) -> str:
    """PyTorch's name of a type: "float32"."""
    return str(torch_type(dtype)).removeprefix("torch.")


def is_complex(dtype: Any) -> bool:
    return name_of(dtype) in PARTS


def element_type(dtype: Any) -> str:
    """OpenVINO's name of a torch.dtype, or of its number in scripts; for complex ones that of their parts."""
    name = name_of(dtype)
    element_name = ELEMENT_NAMES.get(name) or PARTS.get(name)
    if element_name is None:
        raise UnsupportedError(f"tensors of the type {name} are not supported")
    return element_name


def array_of(tensor: Any) -> tuple[np.ndarray, str]:
    """(the elements of a tensor as an array, which shares its memory if it is contiguous; their element
    type)."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    if tensor.is_sparse or tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    tensor = tensor.contiguous()
    kind = element_type(tensor.dtype)
    if kind == "bf16":
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16), kind
    if kind in ("f8e4m3", "f8e5m2"):
        from ovjit.graph.dtypes import numpy_dtype

        return tensor.view(torch.uint8).numpy().view(numpy_dtype(kind)), kind
    return tensor.numpy(), kind


def constant_of(tensor: Any, name: str | None) -> Output | Complex:
    """A Constant that shares the tensor's memory. For a stand-in of a weight it is the weight in f32."""
    stored = getattr(tensor, STORED, None)
    array, kind = array_of(tensor if stored is None else stored)
    result = make_constant(array, kind, None, name)
    if stored is not None:
        return as_f32(result)
    return Complex(result) if tensor.is_complex() else result


def as_f32(stored: Output) -> Output:
    """A 16- or 8-bit weight with a Convert to f32: it stays narrow in the model."""
    result = make_node("Convert", [stored], {"destination_type": "f32"}, opset=1)
    set_notes(result, {"decompression_0": ""})
    return result.output(0)


def number_of(kind: str, of_complex: bool = False) -> int:
    """TorchScript's integer for an element type, or with `of_complex` for complex numbers with such parts."""
    dtype = complex_type(kind) if of_complex else torch_types()[kind]
    return next(number for number, candidate in _by_number().items() if candidate is dtype)


def complex_type(kind: str) -> Any:
    """PyTorch's type of complex numbers with parts of an element type."""
    return next(candidate for candidate in _by_number().values() if PARTS.get(name_of(candidate)) == kind)


def inline_calls(script: Any) -> Any:
    """A copy of the script's graph with calls of other scripts inlined. A forked task runs where it
    starts."""
    graph = script.graph.copy() if hasattr(script.graph, "copy") else script.graph
    torch._C._jit_pass_inline(graph)
    while _typed_as_are(graph, script) or graph.findNode("prim::fork") is not None:
        torch._C._jit_pass_inline_fork_wait(graph)
        torch._C._jit_pass_inline(graph)
    return graph


def _typed_as_are(graph: Any, script: Any) -> bool:
    """Give modules that are called through an interface their concrete types. False if there are none."""
    has_interfaces = False
    for node in graph.findAllNodes("prim::CallMethod"):
        value = node.inputsAt(0)
        module = _module_at(value, script)
        if value.type().kind() == "InterfaceType" and module is not None:
            value.setType(module._c._type())
            has_interfaces = True
    return has_interfaces


def _module_at(value: Any, script: Any) -> Any:
    """The module that a value of a script refers to, None for other values."""
    node = value.node()
    if node.kind() == "prim::GetAttr":
        owner = _module_at(node.inputsAt(0), script)
        result = getattr(owner, node.s("name"), None)
        return result if hasattr(result, "_c") else None
    is_self = node.kind() == "prim::Param" and value.offset() == 0
    return script if is_self and hasattr(script, "_c") else None
