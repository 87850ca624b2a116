"""Bytes of a TensorFlow Lite file -> Model. Operators are read by the rules of the families, see `registry`.

Quantised tensors are real numbers between operators: a FakeQuantize behind each one that is computed, a
Convert and Multiply behind those that are stored, as OpenVINO's front end gives them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit import build
from ovjit.build import Constant, Model, Node, Output, Parameter
from ovjit.build.builder import Builder, Draft
from ovjit.errors import ModelError, UnsupportedError, unreadable
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.readers.files import name_errors
from ovjit.readers.files.weights import mapped_or_read, open_regular
from ovjit.readers.rows import Rule
from ovjit.readers.tflite.choices import check_options
from ovjit.readers.tflite.constants import Stored, is_quantized, output_of, read_constant
from ovjit.readers.tflite.file import (
    GraphRow,
    LiteFile,
    OperatorRow,
    Quant,
    TensorRow,
    has_magic,
    open_file,
    refuse_damaged,
)
from ovjit.readers.tflite.node import Layouts, LiteNode
from ovjit.readers.tflite.registry import find_rule
from ovjit.readers.tflite.variables import Handle, Variables

#: The name of models, as OpenVINO's front end gives it.
MODEL_NAME = "TensorFlow_Lite_Frontend_IR"
#: Subgraphs may call each other this deep.
MAX_NESTING = 40
#: The most operators of subgraphs that are read in place.
MAX_OPERATORS = 300_000
#: Operators that take complex numbers.
OF_PAIRS = {"COMPLEX_ABS", "REAL", "IMAG", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
#: The range of the numbers that quantised tensors are stored in.
RANGES = {"u8": (0, 255), "i8": (-128, 127), "i16": (-32768, 32767), "u16": (0, 65535), "i4": (-8, 7)}


def read_tflite(
    model: Any, use_mmap: bool = True, converters: Mapping[str, Rule] | None = None, plain: bool = False
) -> Model:
    """The Model of a TensorFlow Lite file: a path or the file's bytes.

    `converters` are rules of the caller's, by the operator's name, before all others. `plain`: every tensor
    has its channels last, as in the file, so that the model can be cut at each of them.

    Raises RuntimeError that names the file and the operator for whatever is not valid; UnsupportedError, one
    too, lists all operators that cannot be read.
    """
    where = "the given model"
    path = None
    if isinstance(model, (str, os.PathLike)):
        path = where = os.fsdecode(model)
        with open_regular(where, "file") as file:
            content = mapped_or_read(file, where, use_mmap)
    else:
        content = np.frombuffer(bytes(model), np.uint8)
    if not has_magic(content):
        why = "The file is not a TensorFlow Lite file: the identifier TFL3 is missing."
        raise ModelError(unreadable(path, why))
    with name_errors(where), refuse_damaged():
        return Reader(open_file(content), converters, plain).read()


class Scope:
    """The tensors of one subgraph that is being read: constants and values by their index."""

    def __init__(self, graph: GraphRow, prefix: str = "", depth: int = 0):
        self.graph = graph
        self.prefix = prefix
        self.depth = depth
        self.values: dict[int, Output] = {}
        self.stored: dict[int, Stored] = {}
        self.handles: dict[int, Handle] = {}
        self.parameters: list[Parameter] = []


class Reader(Draft):
    """Reads one model."""

    def __init__(self, file: LiteFile, converters: Mapping[str, Rule] | None = None, plain: bool = False):
        super().__init__()
        self.file = file
        self.converters = dict(converters or {})
        self.layouts = Layouts(plain)
        self.variables = Variables(file)
        #: Values before the FakeQuantize that was put behind them.
        self.exact: dict[tuple[Node, int], Output] = {}
        #: Constants by the rows that they are of.
        self.constants: dict[int, Stored] = {}
        #: How many operators of subgraphs have been read.
        self.operators = 0
        #: Names of tensors that a value has already.
        self.taken: set[str] = set()

    def read(self) -> Model:
        graph = self.file.graphs[0]
        self._check_operators()
        scope = Scope(graph)
        results = self.run(scope)
        if not graph.outputs:
            raise ModelError("TFLite subgraph has no outputs")
        sinks = self.variables.sinks(self._builder("variables"))
        model = build.make_model(results, scope.parameters, MODEL_NAME, sinks=sinks)
        self._name_forms(model)
        return model

    # -- a graph ---------------------------------------------------------------------------------------------

    def run(self, scope: Scope) -> list[Output]:
        """Read the main graph; its inputs become `scope.parameters`."""
        for index in scope.graph.inputs:
            if index not in scope.values:
                scope.parameters.append(self._input(scope, index))
        self._read(scope)
        visited: set[int] = set()
        results = []
        for index in scope.graph.outputs:
            if index in visited or index in scope.stored:
                continue  # as OpenVINO: an output that is named twice is one, and constants are none
            visited.add(index)
            results.append(self._output(scope, index))
        return results

    def _read(self, scope: Scope) -> None:
        """Read the operators of a subgraph whose inputs have values."""
        for index, row in enumerate(scope.graph.tensors):
            if row.data is not None and index not in scope.values:
                scope.stored[index] = self._read_constant(row)
        for op in scope.graph.operators:
            self._operator(scope, op)

    def _read_constant(self, row: TensorRow) -> Stored:
        """The constant of a tensor, once for all places that its subgraph is read into."""
        constant = self.constants.get(id(row))
        if constant is None:
            constant = self.constants[id(row)] = read_constant(row)
        return constant

    def inline(self, outer: Scope, index: int, values: Sequence[Output], prefix: str) -> list[Output]:
        """Read a subgraph in place: its outputs for values of its inputs, as operators see them."""
        if not 0 <= index < len(self.file.graphs):
            raise ModelError(f"There is no subgraph with idx {index}")
        if outer.depth >= MAX_NESTING:
            raise ModelError(f"calls of subgraphs are nested more than {MAX_NESTING} deep")
        graph = self.file.graphs[index]
        if len(graph.inputs) != len(values):
            raise ModelError(
                f"the subgraph {index} has {len(graph.inputs)} inputs, but {len(values)} are given"
            )
        self.operators += len(graph.operators)
        if self.operators > MAX_OPERATORS:
            raise UnsupportedError(f"the subgraphs have more than {MAX_OPERATORS} operators in total")
        scope = Scope(graph, prefix, outer.depth + 1)
        scope.values.update(zip(graph.inputs, values, strict=True))
        self._read(scope)
        results = [
            self.value_at(scope, tensor_index, self._builder(prefix)) for tensor_index in graph.outputs
        ]
        for value in results:
            if value not in values and not isinstance(value.node, (Constant, Parameter)):
                build.set_names(value, ())  # the operator around it gives it its own
        return results

    def _input(self, scope: Scope, index: int) -> Parameter:
        row = scope.graph.tensors[index]
        if row.dtype not in ELEMENT_TYPES:
            raise UnsupportedError(f"the input {row.name[:200]!r} has the unsupported type {row.dtype}")
        parameter = build.make_parameter(row.dtype, row.shape, row.name)
        value = parameter.output(0)
        self._name(value, row)
        if is_quantized(row):
            value = dequantize(self._builder(row.name), value, row)
        scope.values[index] = value
        return parameter

    def _output(self, scope: Scope, index: int) -> Output:
        """The value of an output, in the element type that the file says."""
        row = scope.graph.tensors[index]
        value = self.value_at(scope, index, self._builder(row.name))
        if not is_quantized(row) or isinstance(value.node, Parameter):
            return value
        exact = self.exact.get((value.node, value.index), value)
        result = requantize(self, self._builder(row.name), exact, row)
        names = build.names_of(exact)
        build.set_names(exact, {f"{row.name}_1"} if row.name in names else names)
        build.set_names(result, {row.name})
        return result

    def value_at(self, scope: Scope, index: int, n: Builder) -> Output:
        """A tensor as operators see it. ModelError where no operator before computes it."""
        if index in scope.values:
            return scope.values[index]
        if scope.graph.tensors[index].variable and index not in scope.stored:
            return self.state_at(scope, index, n)
        if index not in scope.stored:
            name = scope.graph.tensors[index].name
            raise ModelError(
                f"This tensor should be either input, constant or should be already produced by previous "
                f"operators: {name[:200]}"
            )
        constant = scope.stored[index]
        value = output_of(n, constant)
        if isinstance(value.node, Constant):
            self._name(value, scope.graph.tensors[index])
        scope.values[index] = value
        return value

    def state_at(self, scope: Scope, index: int, n: Builder) -> Output:
        """Current value of a variable tensor; ModelError if the tensor is not variable."""
        row = scope.graph.tensors[index]
        if not row.variable:
            raise ModelError(f"the tensor {row.name[:200]!r} is not variable")
        return self.variables.state(n, row.name, row.shape, "f32" if is_quantized(row) else row.dtype, scope)

    def round_as_stored(self, n: Builder, value: Output, row: TensorRow) -> Output:
        """A value as a tensor can store it."""
        return fake_quantized(self, n, value, row) if is_quantized(row) else value

    def _builder(self, base: str) -> Builder:
        n = Builder()
        n.reader, n.base = self, base
        return n

    # -- operators -------------------------------------------------------------------------------------------

    def _operator(self, scope: Scope, op: OperatorRow) -> None:
        converter = self.converters.get(op.kind)
        rule = converter or find_rule(op.rule)
        label = f"operation {op.index} of type {op.kind[:80]}"
        if rule is None:
            raise UnsupportedError(f"No translator found for {op.kind[:80]} node.")
        n = LiteNode(self, scope, op)
        try:
            if converter is None and op.kind not in OF_PAIRS and any(map(n.is_complex, range(len(n)))):
                raise UnsupportedError("complex numbers are not supported here")
            if converter is None:
                check_options(op)
            result = rule(n)
            outputs = result if isinstance(result, list) else [result]
            if len(outputs) < sum(index >= 0 for index in op.outputs):
                raise ModelError(f"the operator has {len(op.outputs)} outputs; expected {len(outputs)}")
            for index, value in zip(op.outputs, outputs, strict=False):
                if index >= 0:
                    self._bind(scope, index, value, n)
        except (ModelError, UnsupportedError) as error:
            raise type(error)(f"{error}. Error is encountered while working with {label}") from error
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"[:300]
            raise ModelError(f"{label}: the operator is not valid ({what})") from error

    def _bind(self, scope: Scope, index: int, value: Output | Stored | Handle, n: LiteNode) -> None:
        """Give an operator's output its name, and what its quantisation rounds it to."""
        row = scope.graph.tensors[index]
        if index in scope.values or index in scope.stored:
            raise ModelError(f"the tensor {row.name[:200]!r} is computed twice")
        if isinstance(value, Stored):
            scope.stored[index] = value
            return
        if isinstance(value, Handle):
            scope.handles[index] = value
            return
        node = value.node
        if not isinstance(node, (Parameter, Constant)):
            node.set_friendly_name(n.base)
        self._name(value, row)
        if is_quantized(row) and n.is_real(value):
            exact, value = value, fake_quantized(self, n, value, row)
            self.exact[value.node, value.index] = exact
        scope.values[index] = value

    def _name(self, value: Output, row: TensorRow) -> None:
        if row.name and row.name not in self.taken and not build.names_of(value):
            build.set_names(value, {row.name})
            self.taken.add(row.name)

    def _name_forms(self, model: Model) -> None:
        """Name the operations that only a form with channels first is left of.

        Their tensors have no name: a name stands for what the file says, channels last.
        """
        live_nodes = set(model.get_ordered_ops())
        for (node, _), first in self.layouts.firsts.items():
            if node in live_nodes or first.node not in live_nodes:
                continue
            if node.get_type_name() == "Transpose" and not isinstance(first.node, (Constant, Parameter)):
                first.node.set_friendly_name(build.name_of(node))

    # -- what there is ---------------------------------------------------------------------------------------

    def _check_operators(self) -> None:
        """Raise UnsupportedError that lists all operators without a rule, of the subgraphs that are read."""
        missing: dict[str, int] = {}
        for graph in self.file.reachable_graphs():
            for op in graph.operators:
                has_rule = op.kind in self.converters or find_rule(op.rule) is not None
                if not has_rule:
                    missing[op.kind[:80]] = missing.get(op.kind[:80], 0) + 1
        if missing:
            first = f"No translator found for {next(iter(missing))} node."
            listed = ", ".join(f"{kind} ({count})" for kind, count in sorted(missing.items()))
            raise UnsupportedError(f"{first} Unsupported operators and their numbers: {listed}")


# -- quantised tensors ------------------------------------------------------------------------------------


def _bounds(row: TensorRow, rank: int) -> tuple[int, int, np.ndarray, np.ndarray]:
    """The range of stored numbers, and that of the numbers they stand for."""
    quant = row.quant
    assert isinstance(quant, Quant)
    low, high = RANGES[row.dtype]
    scale, zero = quant.fit_rank(rank)
    with np.errstate(over="ignore"):
        return (
            low,
            high,
            (scale * (low - zero)).astype(np.float32),
            (scale * (high - zero)).astype(np.float32),
        )


def _is_too_wide(bottom: np.ndarray, top: np.ndarray) -> bool:
    """Whether f32 does not hold the width of a range, so that FakeQuantize has no answer: that of attention
    masks with the lowest f32 among 16-bit numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        return not np.isfinite(top - bottom).all()


def _in_steps(n: Builder, value: Output, row: TensorRow) -> tuple[Output, Output, Output]:
    """Numbers in steps from zero, rounded to those that can be stored; the step and the stored zero."""
    assert row.quant is not None
    scale, zero = row.quant.fit_rank(n.rank(value))
    low, high = (n.const((end - zero).astype(np.float32)) for end in RANGES[row.dtype])
    step = n.const(scale)
    steps = n("Round", n("Divide", value, step), mode="half_to_even")
    return n("Minimum", n("Maximum", steps, low), high), step, n.const(zero.astype(np.float32))


def dequantize(n: Builder, value: Output, row: TensorRow) -> Output:
    """Stored numbers as those that they stand for."""
    real = n.convert(value, "f32")
    rank = n.rank(value)
    assert row.quant is not None
    if row.dtype not in RANGES or _is_too_wide(*_bounds(row, rank)[2:]):
        scale, zero = row.quant.fit_rank(rank)
        if zero.any():
            real = n("Subtract", real, n.const(zero.astype(np.float32)))
        return n("Multiply", real, n.const(scale))
    low, high, bottom, top = _bounds(row, rank)
    ends = [n.const(np.float32(v)) for v in (low, high)]
    return n("FakeQuantize", real, *ends, n.const(bottom), n.const(top), levels=high - low + 1)


def fake_quantized(reader: Reader, n: Builder, value: Output, row: TensorRow) -> Output:
    """Numbers rounded to those that can be stored."""
    if row.dtype not in RANGES:
        return value
    low, high, bottom, top = _bounds(row, n.rank(value))
    if _is_too_wide(bottom, top):
        steps, step, _ = _in_steps(n, value, row)
        return n("Multiply", steps, step)
    ends = [n.const(bottom), n.const(top)]
    return reader.layouts.each(
        n, lambda x, a, b: n("FakeQuantize", x, a, b, a, b, levels=high - low + 1), [value, *ends]
    )


def requantize(reader: Reader, n: Builder, value: Output, row: TensorRow) -> Output:
    """Numbers as the ones that are stored for them."""
    assert row.quant is not None
    if row.dtype not in RANGES:
        scale, zero = row.quant.fit_rank(n.rank(value))
        steps = n("Round", n("Divide", value, n.const(scale)), mode="half_to_even")
        return n.convert(n("Add", steps, n.const(zero.astype(np.float32))), row.dtype)
    low, high, bottom, top = _bounds(row, n.rank(value))
    if _is_too_wide(bottom, top):
        steps, _, origin = _in_steps(n, value, row)
        return n.convert(n("Add", steps, origin), row.dtype)
    ends = [n.const(bottom), n.const(top), n.const(np.float32(low)), n.const(np.float32(high))]

    def make(x: Output, *bounds: Output) -> Output:
        return n.convert(n("FakeQuantize", x, *bounds, levels=high - low + 1), row.dtype)

    return reader.layouts.each(n, make, [value, *ends])
