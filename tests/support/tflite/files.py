"""TensorFlow Lite files written by hand: tensors and operators in, the bytes of a flatbuffer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

#: NumPy's types by TensorFlow Lite's names, where they differ from NumPy's own.
TYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "FLOAT64": np.float64, "BOOL": np.bool_}


class T(NamedTuple):
    """A tensor: `data` makes it a constant; `quant` are fields of QuantizationParameters; `signature` is its
    shape with -1 for open dimensions."""

    name: str | None
    shape: Sequence[int] | None
    type: str = "FLOAT32"
    data: Any = None
    quant: Mapping[str, Any] | None = None
    signature: Sequence[int] | None = None
    sparsity: Mapping[str, Any] | None = None
    variable: bool = False


class Op(NamedTuple):
    """An operator: names of its inputs ("" where one is left out) and outputs, and its options by field."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: str | None = None
    fields: Mapping[str, Any] = {}
    custom: str | None = None
    custom_options: bytes | None = None
    version: int = 1


class G(NamedTuple):
    """A subgraph."""

    tensors: Sequence[T]
    ops: Sequence[Op]
    inputs: Sequence[str]
    outputs: Sequence[str]
    name: str | None = "main"


def const(name: str, value: Any, dtype: str | None = None, **kwargs: Any) -> T:
    """A constant tensor of a value."""
    array = np.asarray(value)
    if dtype is None:
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        elif array.dtype == np.int64 and not isinstance(value, np.ndarray):
            array = array.astype(np.int32)
        dtype = type_of(array)
    return T(name, list(array.shape), dtype, array, **kwargs)


def type_of(array: np.ndarray) -> str:
    """TensorFlow Lite's name of an array's type."""
    named = {"bool": "BOOL", "complex64": "COMPLEX64"}
    return named.get(array.dtype.name, array.dtype.name.upper())


def write(
    *graphs: G,
    signatures: Sequence[Mapping[str, Any]] = (),
    description: str | None = None,
    outside: bool = False,
) -> bytes:
    """The bytes of a model. `outside`: constants and options of custom operators lie behind the flatbuffer,
    as in files from 2 GB on."""
    import flatbuffers

    writer = _Writer(flatbuffers.Builder(1024))
    if not outside:
        return writer.model(graphs, signatures, description)
    writer.behind, writer.begin = bytearray(), 2  # any offset: tables have room for it
    flatbuffer = writer.model(graphs, signatures, description)
    writer = _Writer(flatbuffers.Builder(1024))
    writer.behind, writer.begin = bytearray(), -(-len(flatbuffer) // 16) * 16
    flatbuffer = writer.model(graphs, signatures, description)
    return flatbuffer.ljust(writer.begin, b"\0") + bytes(writer.behind)


def quantized(scale: Any, zero: Any = 0, axis: int = 0) -> dict[str, Any]:
    """Fields of QuantizationParameters: a number each per tensor, or one for each channel of `axis`."""
    scales = np.atleast_1d(np.asarray(scale, np.float32))
    zeros = np.broadcast_to(np.atleast_1d(np.asarray(zero, np.int64)), scales.shape)
    return {"Scale": scales, "ZeroPoint": np.ascontiguousarray(zeros), "QuantizedDimension": axis}


class _Writer:
    def __init__(self, builder: Any):
        self.b = builder
        self.buffers: list[Any] = []
        self.codes: dict[tuple[str, str | None, int], int] = {}
        #: What lies behind the flatbuffer, from the offset `begin` on; None: nothing does.
        self.behind: bytearray | None = None
        self.begin = 0

    def table(self, kind: str, fields: Mapping[str, Any]) -> int:
        """A table of the schema; arrays and lists of ints become vectors, str a string."""
        import tflite

        made = {name: self._value(value) for name, value in fields.items() if value is not None}
        getattr(tflite, f"{kind}Start")(self.b)
        for name, value in made.items():
            getattr(tflite, f"{kind}Add{name}")(self.b, value)
        return int(getattr(tflite, f"{kind}End")(self.b))

    def put(self, data: bytes, prefix: str = "") -> dict[str, int]:
        """The fields of a table whose data lie behind the flatbuffer."""
        assert self.behind is not None
        self.behind += bytes(-len(self.behind) % 16)
        offset = self.begin + len(self.behind)
        self.behind += data
        return {f"{prefix}Offset": offset, f"{prefix}Size": len(data)}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.b.CreateString(value)
        if isinstance(value, bytes):
            return self._bytes(value)
        if isinstance(value, tuple):  # offsets of tables
            self.b.StartVector(4, len(value), 4)
            for offset in reversed(value):
                self.b.PrependUOffsetTRelative(offset)
            return self.b.EndVector()
        if isinstance(value, list):
            value = np.array(value, np.int32)
        return self.b.CreateNumpyVector(value) if isinstance(value, np.ndarray) else value

    def _bytes(self, data: bytes) -> int:
        self.b.StartVector(1, len(data), 16)
        self.b.head = self.b.head - len(data)
        self.b.Bytes[self.b.Head() : self.b.Head() + len(data)] = data
        return int(self.b.EndVector())

    def model(self, graphs: Sequence[G], signatures: Sequence[Any], description: str | None) -> bytes:
        import tflite

        self.buffers.append(self.table("Buffer", {}))
        subgraphs = tuple(self.graph(graph) for graph in graphs)
        codes = []
        for kind, custom, version in self.codes:
            number = getattr(tflite.BuiltinOperator, kind) if not kind.isdecimal() else int(kind)
            fields = {"DeprecatedBuiltinCode": min(number, 127), "BuiltinCode": number, "Version": version}
            codes.append(self.table("OperatorCode", fields | {"CustomCode": custom}))
        defs = tuple(self.signature(row, graphs) for row in signatures)
        root = {
            "Version": 3, "OperatorCodes": tuple(codes), "Subgraphs": subgraphs, "Description": description,
            "Buffers": tuple(self.buffers), "SignatureDefs": defs or None,
        }  # fmt: skip
        self.b.Finish(self.table("Model", root), b"TFL3")
        return bytes(self.b.Output())

    def signature(self, row: Mapping[str, Any], graphs: Sequence[G]) -> int:
        index = row.get("subgraph", 0)
        places = {tensor.name: i for i, tensor in enumerate(graphs[index].tensors)}

        def maps(names: Mapping[str, str]) -> tuple[int, ...]:
            return tuple(
                self.table("TensorMap", {"Name": name, "TensorIndex": places[tensor]})
                for name, tensor in names.items()
            )

        fields = {"Inputs": maps(row["inputs"]), "Outputs": maps(row["outputs"])}
        return self.table("SignatureDef", fields | {"SignatureKey": row["key"], "SubgraphIndex": index})

    def graph(self, graph: G) -> int:
        places = {tensor.name: i for i, tensor in enumerate(graph.tensors)} | {"": -1}
        tensors = tuple(self.tensor(tensor) for tensor in graph.tensors)
        ops = tuple(self.op(op, places) for op in graph.ops)
        fields = {"Tensors": tensors, "Operators": ops, "Name": graph.name}
        fields |= {"Inputs": [places[n] for n in graph.inputs], "Outputs": [places[n] for n in graph.outputs]}
        return self.table("SubGraph", fields)

    def tensor(self, tensor: T) -> int:
        import tflite

        buffer = 0
        if tensor.data is not None:
            raw = tensor.data if isinstance(tensor.data, bytes) else self._packed(tensor)
            buffer = len(self.buffers)
            self.buffers.append(self.table("Buffer", {"Data": raw} if self.behind is None else self.put(raw)))
        quant = None if tensor.quant is None else self.table("QuantizationParameters", tensor.quant)
        sparsity = None if tensor.sparsity is None else self.sparse(tensor.sparsity)
        shape = None if tensor.shape is None else list(tensor.shape)
        signature = None if tensor.signature is None else list(tensor.signature)
        fields = {"Name": tensor.name, "Shape": shape, "Type": getattr(tflite.TensorType, tensor.type),
                  "Buffer": buffer, "Quantization": quant, "ShapeSignature": signature,
                  "Sparsity": sparsity, "IsVariable": tensor.variable, "HasRank": True}  # fmt: skip
        return self.table("Tensor", fields)

    def _packed(self, tensor: T) -> bytes:
        array = np.asarray(tensor.data)
        if tensor.type == "STRING":
            texts = [t if isinstance(t, bytes) else str(t).encode() for t in array.reshape(-1).tolist()]
            offsets = np.cumsum([4 * (len(texts) + 2), *map(len, texts)]).astype(np.int32)
            return np.int32(len(texts)).tobytes() + offsets.tobytes() + b"".join(texts)
        if tensor.type == "INT4":
            low = (array.reshape(-1).astype(np.int8) & 15).view(np.uint8)
            low = np.append(low, 0) if low.size % 2 else low
            return (low[::2] | low[1::2] << 4).astype(np.uint8).tobytes()
        wanted = TYPES.get(tensor.type) or np.dtype(tensor.type.lower())
        return array.astype(wanted).tobytes()

    def sparse(self, fields: Mapping[str, Any]) -> int:
        """SparsityParameters: `dims` are rows of DimensionMetadata, as vectors of int32."""
        dims = []
        for row in fields["dims"]:
            made: dict[str, Any] = {"Format": row.get("format", 0), "DenseSize": row.get("size", 0)}
            for name, values in (
                ("ArraySegments", row.get("segments")),
                ("ArrayIndices", row.get("indices")),
            ):
                if values is not None:
                    kind = row.get("kind", "Int32Vector")
                    width = {"Int32Vector": np.int32, "Uint16Vector": np.uint16, "Uint8Vector": np.uint8}[
                        kind
                    ]
                    made[name] = self.table(kind, {"Values": np.array(values, width)})
                    made[name + "Type"] = {"Int32Vector": 1, "Uint16Vector": 2, "Uint8Vector": 3}[kind]
            dims.append(self.table("DimensionMetadata", made))
        whole = {"TraversalOrder": list(fields["order"]), "DimMetadata": tuple(dims)}
        if "blocks" in fields:
            whole["BlockMap"] = list(fields["blocks"])
        return self.table("SparsityParameters", whole)

    def op(self, op: Op, places: Mapping[str | None, int]) -> int:
        import tflite

        key = (op.kind, op.custom, op.version)
        index = self.codes.setdefault(key, len(self.codes))
        fields: dict[str, Any] = {"OpcodeIndex": index}
        fields["Inputs"] = [places[name] for name in op.inputs]
        fields["Outputs"] = [places[name] for name in op.outputs]
        if op.options is not None:
            options = self.table(op.options, op.fields)
            second = not hasattr(tflite.BuiltinOptions, op.options)
            union = tflite.BuiltinOptions2 if second else tflite.BuiltinOptions
            suffix = "2" if second else ""
            fields[f"BuiltinOptions{suffix}Type"] = getattr(union, op.options)
            fields[f"BuiltinOptions{suffix}"] = options
        if op.custom_options is not None:
            given = {"CustomOptions": op.custom_options}
            fields |= given if self.behind is None else self.put(op.custom_options, "LargeCustomOptions")
        return self.table("Operator", fields)
