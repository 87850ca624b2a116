"""A TensorFlow Lite file as plain rows of tensors and operators, parsed by the package `tflite`.

That package's accessors check nothing. Counts are bounded here before they are used, indices and buffers are
checked, and what the accessors raise for offsets that lead nowhere becomes a ModelError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.shapes import ANY, Dim

MAGIC = b"TFL3"
#: The most tensors, operators and buffers of a file, and dimensions of a tensor.
MOST, MAX_RANK = 1 << 20, 64
#: How often a file's bytes may be read in the mean, and how many bytes more: tables may share what they refer
#: to, such as subgraphs, shapes and scales, and each of them reads it.
MOST_SHARED, ALLOWANCE = 16, 1 << 16
#: The fewest bytes of a table of a list.
_OF_TABLES = 12
#: Element types by the schema's names.
TYPES = {
    "FLOAT32": "f32", "FLOAT16": "f16", "FLOAT64": "f64", "BFLOAT16": "bf16", "INT4": "i4", "INT8": "i8",
    "INT16": "i16", "INT32": "i32", "INT64": "i64", "UINT8": "u8", "UINT16": "u16", "UINT32": "u32",
    "UINT64": "u64", "BOOL": "boolean", "STRING": "string", "COMPLEX64": "complex64",
    "COMPLEX128": "complex128", "RESOURCE": "resource", "VARIANT": "variant",
}  # fmt: skip


#: Options that name a subgraph, by operator.
SUBGRAPHS = {
    "IF": ("ThenSubgraphIndex", "ElseSubgraphIndex"), "WHILE": ("CondSubgraphIndex", "BodySubgraphIndex"),
    "CALL": ("Subgraph",), "CALL_ONCE": ("InitSubgraphIndex",),
    "STABLEHLO_COMPOSITE": ("DecompositionSubgraphIndex",),
}  # fmt: skip


@dataclass(frozen=True)
class Quant:
    """Quantization: value = (stored - zero) * scale, with scalars, or one number for each channel of
    `axis`."""

    scale: np.ndarray
    zero: np.ndarray
    axis: int

    def per_channel(self) -> bool:
        return self.scale.size > 1

    def fit_rank(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """(scale, zero point), reshaped to broadcast with a tensor of this rank."""
        if not self.per_channel():
            return self.scale.reshape(()), self.zero.reshape(())
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero.reshape(shape)


@dataclass
class TensorRow:
    """A tensor. `data` are its bytes if it is a constant."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    data: np.ndarray | None
    quant: Quant | None
    sparsity: Any = None
    variable: bool = False


@dataclass
class OperatorRow:
    """An operator: indices of tensors, -1 for an input that is left out."""

    index: int
    kind: str
    custom: bool
    inputs: list[int]
    outputs: list[int]
    options: Any
    custom_options: bytes = b""

    @property
    def rule(self) -> str:
        """The name by which the operator's rule is registered."""
        return f"custom {self.kind}" if self.custom else self.kind

    def subgraphs(self) -> list[int]:
        """The indices of the subgraphs in the options."""
        names = SUBGRAPHS.get(self.kind, ()) if self.options is not None else ()
        return [getter() for name in names if (getter := getattr(self.options, name, None)) is not None]


@dataclass
class GraphRow:
    """A subgraph."""

    name: str
    tensors: list[TensorRow]
    operators: list[OperatorRow]
    inputs: list[int]
    outputs: list[int]


@dataclass
class LiteFile:
    """The subgraphs of a file; the first one is the model."""

    graphs: list[GraphRow]
    description: str = ""

    def reachable_graphs(self) -> list[GraphRow]:
        """The model's graph, and the subgraphs that its operators name, directly or not.

        Others belong to further signatures.
        """
        indices, waiting = [0], [0]
        while waiting:
            for op in self.graphs[waiting.pop()].operators:
                for index in op.subgraphs():
                    if 0 <= index < len(self.graphs) and index not in indices:
                        indices.append(index)
                        waiting.append(index)
        return [self.graphs[index] for index in indices]


def schema() -> Any:
    """The package with the schema's accessors. UnsupportedError that names the extra where it is missing."""
    try:
        import tflite
    except ImportError as error:
        raise UnsupportedError(
            "TensorFlow Lite files need the package tflite: pip install 'ovjit[tflite]'"
        ) from error
    return tflite


@contextmanager
def refuse_damaged() -> Iterator[None]:
    """Converts errors of accessors for invalid offsets to ModelError."""
    try:
        yield
    except (struct.error, ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(
            "the model file is corrupted or malformed (FlatBuffer verification failed): "
            f"{type(error).__name__}: {error}"[:300]
        ) from error


def has_magic(content: np.ndarray) -> bool:
    """Whether a file begins with the identifier of TensorFlow Lite."""
    return content.size >= 8 and bytes(content[4:8]) == MAGIC


def open_file(content: np.ndarray) -> LiteFile:
    """The rows of a file's bytes. ModelError for one that is damaged."""
    tflite = schema()
    with refuse_damaged():
        return _Parser(tflite, content).file()


@cache
def names_of(of: str) -> dict[int, str]:
    """Number -> name of an enumeration of the schema."""
    return {v: k for k, v in vars(getattr(schema(), of)).items() if isinstance(v, int)}


@cache
def _lengths(options: str) -> list[str]:
    """The accessors of the lengths of vectors, in a table of options."""
    return [name for name in vars(getattr(schema(), options)) if name.endswith("Length")]


class _Parser:
    def __init__(self, tflite: Any, content: np.ndarray):
        self.tflite = tflite
        self.content = content
        self._remaining_bytes = MOST_SHARED * content.size + ALLOWANCE
        self.model = tflite.Model.GetRootAs(content.data, 0)

    def _read(self, count: int, size: int) -> None:
        """Count entries of `size` bytes that will be read. ModelError for far more than the file can have."""
        if not 0 <= count <= self.content.size // size:
            raise ModelError(f"the file states {count} entries of a list, more than it can hold")
        self._remaining_bytes -= count * size
        if self._remaining_bytes < 0:
            raise ModelError(
                f"the tables of the file share what they refer to: to read all of it would take more than "
                f"{MOST_SHARED} times its {self.content.size} bytes"
            )

    def file(self) -> LiteFile:
        model = self.model
        if not model.SubgraphsLength():
            raise ModelError("TFLite model has no subgraphs")
        codes = [self._code(row) for row in self._rows(model.OperatorCodes, model.OperatorCodesLength())]
        self.codes: list[tuple[str, bool]] = codes
        self.buffers = self._rows(model.Buffers, model.BuffersLength())
        graphs = [self._read_graph(row) for row in self._rows(model.Subgraphs, model.SubgraphsLength())]
        return LiteFile(graphs, self._text(model.Description() or b""))

    def _rows(self, get: Callable[[int], Any], count: int) -> list[Any]:
        """The tables of a vector."""
        if count > MOST:
            raise ModelError(f"the file states {count} entries of a list, more than it can hold")
        self._read(count, 4)
        self._remaining_bytes -= _OF_TABLES * count
        return [get(i) for i in range(count)]

    def _text(self, data: bytes) -> str:
        self._read(len(data), 1)
        return _text(data)

    def _ints(self, table: Any, name: str) -> list[int]:
        self._read(getattr(table, f"{name}Length")(), 4)
        values = getattr(table, f"{name}AsNumpy")()
        return [] if isinstance(values, int) else [int(v) for v in values]

    def _code(self, row: Any) -> tuple[str, bool]:
        """The name of an operator, and whether it is a custom one."""
        number = max(row.BuiltinCode(), row.DeprecatedBuiltinCode())
        kind = names_of("BuiltinOperator").get(number)
        if kind is None:
            raise UnsupportedError(f"No translator found for builtin operator {number} node.")
        if kind != "CUSTOM":
            return kind, False
        custom = row.CustomCode()
        if not custom:
            raise ModelError("Operator has CUSTOM type but no custom_code string")
        return self._text(custom), True

    def _read_graph(self, graph: Any) -> GraphRow:
        """Read a subgraph. Raises ModelError for indices of tensors out of range."""
        tensors = [self._read_tensor(row) for row in self._rows(graph.Tensors, graph.TensorsLength())]
        rows = self._rows(graph.Operators, graph.OperatorsLength())
        out = GraphRow(
            self._text(graph.Name() or b""), tensors, [self._read_operator(*row) for row in enumerate(rows)],
            self._ints(graph, "Inputs"), self._ints(graph, "Outputs"),
        )  # fmt: skip
        for index in (*out.inputs, *out.outputs):
            if not 0 <= index < len(tensors):
                raise ModelError(
                    f"Graph input/output tensor index {index} is out of range. "
                    f"Number of tensors: {len(tensors)}"
                )
        for op in out.operators:
            for index in (*op.inputs, *op.outputs):
                if not -1 <= index < len(tensors):
                    raise ModelError(
                        f"{op.kind} {op.index}: tensor index {index} is out of range. "
                        f"Number of tensors: {len(tensors)}"
                    )
        result = {*out.inputs, *(index for op in out.operators for index in op.outputs)}
        for index, tensor in enumerate(tensors):
            if 0 in tensor.shape and tensor.data is None and index not in result:  # a constant without bytes
                tensors[index] = replace(tensor, data=np.empty(0, np.uint8))
        return out

    def _read_operator(self, index: int, row: Any) -> OperatorRow:
        """Read an operator: kind, inputs, outputs and options."""
        code_index = row.OpcodeIndex()
        if not 0 <= code_index < len(self.codes):
            raise ModelError(
                f"Operator opcode index {code_index} is out of range. "
                f"Number of operator codes: {len(self.codes)}"
            )
        kind, custom = self.codes[code_index]
        options = self._read_options("BuiltinOptions", row.BuiltinOptionsType(), row.BuiltinOptions())
        if options is None and hasattr(row, "BuiltinOptions2"):
            options = self._read_options("BuiltinOptions2", row.BuiltinOptions2Type(), row.BuiltinOptions2())
        custom_options = self._custom_options(row, kind) if custom else b""
        inputs, outputs = (self._ints(row, ends) for ends in ("Inputs", "Outputs"))
        return OperatorRow(index, kind, custom, inputs, outputs, options, custom_options)

    def _custom_options(self, row: Any, kind: str) -> bytes:
        self._read(row.CustomOptionsLength(), 1)
        values = row.CustomOptionsAsNumpy()
        if not isinstance(values, int):
            return bytes(values.tobytes())
        outside = self._outside(row, "LargeCustomOptions", f"the options of {kind[:80]}")
        if outside is None:
            return b""
        self._read(outside.size, 1)
        return outside.tobytes()

    def _outside(self, row: Any, prefix: str, what: str) -> np.ndarray | None:
        """The bytes that a table names after the flatbuffer, as in files from 2 GB on. None if it has none:
        offsets of 0 and 1. `prefix`: what the names of offset and size begin with."""
        if not hasattr(row, f"{prefix}Offset"):  # an older schema
            return None
        offset, size = getattr(row, f"{prefix}Offset")(), getattr(row, f"{prefix}Size")()
        if offset < 2:
            return None
        if offset + size > self.content.size:
            raise ModelError(f"{what} are outside of the file")
        return self.content[offset : offset + size]

    def _read_options(self, union: str, number: int, table: Any) -> Any:
        """The table of an operator's options, None without one. `union`: their type in the schema."""
        name = names_of(union).get(number, "NONE")
        if name == "NONE" or table is None:
            return None
        options = getattr(self.tflite, name)()
        options.Init(table.Bytes, table.Pos)
        for length in _lengths(name):
            self._read(getattr(options, length)(), 4)
        return options

    # -- tensors ---------------------------------------------------------------------------------------------

    def _read_tensor(self, row: Any) -> TensorRow:
        """Read a tensor's description, and the data of a constant."""
        name = row.Name()
        if name is None:
            raise ModelError(
                "TensorFlow Lite Frontend: tensor has no 'name' field (malformed flatbuffer: optional 'name' "
                "string is absent)."
            )
        label = self._text(name)
        kind = names_of("TensorType").get(row.Type())
        if kind not in TYPES:
            raise UnsupportedError(f"the tensor {label[:200]!r} has the unknown type {row.Type()}")
        dims = self._ints(row, "Shape")
        data = self._data(row.Buffer(), label)
        signature = self._ints(row, "ShapeSignature") if data is None else []
        if len(dims) > MAX_RANK or (signature and len(signature) != len(dims)):
            raise ModelError(f"the tensor {label[:200]!r} has the shape {dims} and the signature {signature}")
        shape: tuple[Dim, ...] = tuple(ANY if d < 0 else d for d in signature or dims)
        quant = self._read_quantization(row.Quantization(), label, len(shape))
        return TensorRow(label, TYPES[kind], shape, data, quant, row.Sparsity(), row.IsVariable())

    def _data(self, index: int, label: str) -> np.ndarray | None:
        """The bytes of a tensor's buffer: None for a tensor that an operator computes."""
        if not index:
            return None
        if not 0 <= index < len(self.buffers):
            raise ModelError(
                f"Tensor buffer index {index} of {label[:200]!r} is out of range. "
                f"Number of buffers: {len(self.buffers)}"
            )
        buffer = self.buffers[index]
        if buffer.DataLength():
            return buffer.DataAsNumpy()
        return self._outside(buffer, "", f"the data of {label[:200]!r}")

    def _read_quantization(self, row: Any, label: str, rank: int) -> Quant | None:
        """Read scales, zero points and their axis. None if there are no scales."""
        if row is None or not row.ScaleLength():
            return None
        self._read(row.ScaleLength(), 4)
        self._read(row.ZeroPointLength(), 8)
        scale = np.array(row.ScaleAsNumpy(), np.float32)
        zero = np.zeros(1, np.int64)
        if row.ZeroPointLength():
            zero = np.array(row.ZeroPointAsNumpy(), np.int64)
        axis = row.QuantizedDimension()
        if zero.size not in (1, scale.size):
            raise ModelError(
                f"the tensor {label[:200]!r} has {scale.size} scales and {zero.size} zero points"
            )
        if scale.size > 1 and not 0 <= axis < max(rank, 1):
            raise ModelError(
                f"Per-Channel Quantization axis {axis} is out of range for tensor of rank {rank}"
            )
        return Quant(scale, np.broadcast_to(zero, scale.shape), axis)


def _text(data: bytes) -> str:
    return bytes(data).decode("utf-8", "replace")
