"""Bytes of a TensorFlow Lite file -> Model. Operators are read by the rules of the families, see `registry`.

Quantised tensors are real numbers between operators: a FakeQuantize after each one that is computed, a
Convert and Multiply after those that are stored, as OpenVINO's front end gives them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit import build
from ovjit.build import Constant, Model, Node, Output, Parameter
from ovjit.errors import ModelError, UnsupportedError, unless_of_signal, unreadable
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.readers.choices import unknown_choice
from ovjit.readers.files import list_missing, name_errors
from ovjit.readers.files.weights import mapped_or_read, open_regular
from ovjit.readers.rows import Rule
from ovjit.readers.tflite.constants import Stored, is_quantized, read_constant
from ovjit.readers.tflite.draft import Handle, LiteDraft, Scope
from ovjit.readers.tflite.file import (
    LiteFile,
    OperatorRow,
    TensorRow,
    has_magic,
    names_of,
    open_file,
    refuse_damaged,
)
from ovjit.readers.tflite.node import LiteNode
from ovjit.readers.tflite.quantized import dequantize, fake_quantized, requantize
from ovjit.readers.tflite.registry import find_rule

#: Option -> the schema's enumeration. An option has the same meaning in all operators that have it.
ENUMERATIONS = {
    "Algorithm": "RngAlgorithm", "Combiner": "CombinerType", "CompareType": "StablehloComparisonType",
    "ComparisonDirection": "StablehloComparisonDirection", "CompositeAttributesFormat": "CustomOptionsFormat",
    "FusedActivationFunction": "ActivationFunctionType", "IdxOutType": "TensorType",
    "InDataType": "TensorType", "KernelType": "LSTMKernelType", "KeyDtype": "TensorType",
    "Mode": "MirrorPadMode", "OutDataType": "TensorType", "OutType": "TensorType", "OutputType": "TensorType",
    "Padding": "Padding", "QuantizedBiasType": "TensorType", "Type": "LSHProjectionType",
    "ValueDtype": "TensorType", "WeightsFormat": "FullyConnectedOptionsWeightsFormat",
}  # fmt: skip


def check_options(row: OperatorRow) -> None:
    """Raise ModelError, with the choices, for an option that is no member of its enumeration."""
    for name, enumeration in ENUMERATIONS.items():
        getter: Any = getattr(row.options, name, None)
        if getter is None:
            continue
        value, members = getter(), names_of(enumeration)
        if value not in members:
            raise unknown_choice(
                name, value, (f"{number} ({word})" for number, word in sorted(members.items()))
            )


#: The name of models, as OpenVINO's front end gives it.
MODEL_NAME = "TensorFlow_Lite_Frontend_IR"
#: Operators that take complex numbers.
OF_PAIRS = {"COMPLEX_ABS", "REAL", "IMAG", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"}


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


class Reader(LiteDraft):
    """Reads one model."""

    def __init__(self, file: LiteFile, converters: Mapping[str, Rule] | None = None, plain: bool = False):
        super().__init__(file, plain)
        self.converters = dict(converters or {})
        #: Values before the FakeQuantize that was put after them.
        self.exact: dict[tuple[Node, int], Output] = {}
        #: Constants by the rows that they are of.
        self.constants: dict[int, Stored] = {}

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

    def _input(self, scope: Scope, index: int) -> Parameter:
        row = scope.graph.tensors[index]
        if row.dtype not in ELEMENT_TYPES:
            raise UnsupportedError(f"the input {row.name[:200]!r} has the unsupported type {row.dtype}")
        parameter = build.make_parameter(row.dtype, row.shape, row.name)
        value = parameter.output(0)
        self.name_value(value, row)
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
        result = requantize(self.layouts, self._builder(row.name), exact, row)
        names = build.names_of(exact)
        build.set_names(exact, {f"{row.name}_1"} if row.name in names else names)
        build.set_names(result, {row.name})
        return result

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
        except unless_of_signal(ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"[:300]
            raise ModelError(f"{label}: the operator is not valid ({what})") from error

    def _bind(self, scope: Scope, index: int, value: Output | Stored | Handle, n: LiteNode) -> None:
        """Give an operator's output its name, and the FakeQuantize of its quantisation."""
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
        self.name_value(value, row)
        if is_quantized(row) and n.is_real(value):
            exact, value = value, fake_quantized(self.layouts, n, value, row)
            self.exact[value.node, value.index] = exact
        scope.values[index] = value

    def _name_forms(self, model: Model) -> None:
        """Name the nodes whose only remaining version is the channels-first form.

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
        missing: dict[str, list[str]] = {}
        for graph in self.file.reachable_graphs():
            for op in graph.operators:
                if op.kind not in self.converters and find_rule(op.rule) is None:
                    names = (graph.tensors[index].name for index in op.outputs if index >= 0)
                    missing.setdefault(op.kind[:80], []).append(next(names, ""))
        if missing:
            first = f"No translator found for {next(iter(missing))} node."
            raise UnsupportedError(f"{first} The nodes, by their outputs, are: {list_missing(missing)}")
