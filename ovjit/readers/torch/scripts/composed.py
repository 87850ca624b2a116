"""Operators of scripts that have no rule, or whose rules refuse their arguments: they are read as the
operators that PyTorch's own implementation is composed of.

A trace of the operator with fake tensors finds them. Dynamic dimensions are symbols there. A second trace has
other lengths: the operator stays refused if its graph differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.build import Output
from ovjit.errors import UnsupportedError, unless_of_signal
from ovjit.graph.shapes import Interval
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.graph import Refused, TorchReader
from ovjit.readers.torch.programs.decompose import UNFAITHFUL, more_decompositions
from ovjit.readers.torch.programs.fx import FxReader
from ovjit.readers.torch.programs.reader import MOST_REFUSED
from ovjit.readers.torch.programs.undecomposed import written_beside
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.patches import patch
from ovjit.readers.torch.values import Complex, Number, complex_type, torch_types


class _Composition(FxReader):
    """Reads the decomposition of an operator, which may write to its own tensors."""

    writes = True


#: Operators whose implementation reads lengths from the memory of a tensor: it has none in a trace, and
#: PyTorch would crash.
_READS_MEMORY = frozenset((
    "aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu", "aten::_pack_padded_sequence",
    "aten::_pad_packed_sequence", "aten::tensor_split", "aten::ctc_loss", "aten::segment_reduce",
))  # fmt: skip
#: The lengths that dynamic dimensions have in the two traces.
_LENGTHS = 7, 12


def compose(
    reader: TorchReader, error: Refused, name: str, overload: str, arguments: Mapping[str, Any]
) -> Any:
    """The result of an operator that was refused with `error`, composed of others. Raises the error if
    PyTorch does not compose it of others, or its composition depends on dynamic dimensions."""
    target = _overload(name, overload)
    if target is None or name in UNFAITHFUL or name in _READS_MEMORY:
        raise error
    call, refused = Call(reader, name, name, overload), frozenset((name,))
    while True:
        graph, values = _trace_twice(call, target, arguments, refused) or (None, [])
        if graph is None:
            raise error
        try:
            return _Composition.for_subgraph(reader).run(graph, values)
        except Refused as other:
            if other.operator in refused or len(refused) > MOST_REFUSED:
                raise error from other
            refused |= {other.operator}


def _overload(name: str, overload: str) -> Any:
    """PyTorch's object for an operator, None if there is none. Operators of scripts alone, such as those of
    lists, have none that runs."""
    library, _, operator = name.partition("::")
    packet = getattr(torch.ops.aten, operator, None) if library == "aten" else None
    function = getattr(packet, overload or "default", None)
    is_known = isinstance(function, torch._ops.OpOverload) and torch._C._dispatch_has_kernel(function.name())
    return function if is_known else None


def _trace_twice(
    call: Call, target: Any, arguments: Mapping[str, Any], refused: frozenset[str]
) -> tuple[Any, list[Any]] | None:
    """(graph of an operator's decomposition, its input values). None if PyTorch cannot trace it, or if its
    graph depends on lengths."""
    result = []
    try:
        for length in _LENGTHS:
            inputs = _FakeInputs(call, length)
            with patch(*_silence_log()):
                result.append((inputs.trace(target, arguments, refused), inputs.values))
    except unless_of_signal(Exception):  # whatever PyTorch raises of tensors without data
        return None
    (graph, values), (other, _) = result
    is_itself = any(node.target is target for node in graph.graph.nodes)
    if is_itself or graph.code != other.code or written_beside(graph):
        return None
    return graph, values


def _silence_log() -> list[tuple[Any, str, Any]]:
    """A patch by which PyTorch does not log why an operator takes no tensors without data."""
    from torch._subclasses import fake_tensor

    return [(fake_tensor.log, "exception", lambda *_, **__: None)]


class _FakeInputs:
    """Symbolic inputs for tracing an operator: fake tensors, and symbols for dynamic dimensions and numbers.

    Equal dimensions have one symbol. `values` are the values that the inputs represent.
    """

    def __init__(self, call: Call, length: int):
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        self.call = call
        self.length = length
        self.shapes = ShapeEnv()
        self.mode = FakeTensorMode(shape_env=self.shapes, static_shapes=False)
        self.symbols: dict[Any, Any] = {}
        self.values: list[Any] = []
        self.fakes: list[Any] = []

    def trace(self, target: Any, arguments: Mapping[str, Any], refused: frozenset[str]) -> Any:
        """The graph of the operator, decomposed until all operators have rules, as far as possible."""
        from torch.fx.experimental.proxy_tensor import make_fx

        stand_ins = {key: self._fake(value) for key, value in arguments.items()}
        positional_names = [a.name for a in target._schema.arguments if not a.kwarg_only]

        def function(*inputs: Any) -> Any:
            values = {key: _fill_inputs(value, inputs) for key, value in stand_ins.items()}
            first = [values.pop(name) for name in positional_names]
            return target(*first, **values)

        # operators in place stay: a decomposition of them would copy
        table = {op: how for op, how in more_decompositions(refused).items() if not op._schema.is_mutable}
        with self.mode, torch.no_grad():
            return make_fx(function, decomposition_table=table)(*self.fakes)

    def _fake(self, value: Any) -> Any:
        call = self.call
        if isinstance(value, Number) and call.known_number(value) is None:
            if call.dtype(value.value) != "i64":
                raise UnsupportedError("a number that is no integer")
            return self._add_input(value, self._symbol(value.key))
        if isinstance(value, (Output, Complex)):
            tensor, rank, _ = call.unwrap(value)
            shape = call.shape(tensor)
            if shape is None:
                raise UnsupportedError("a tensor of unknown rank")
            kind = call.dtype(tensor)
            dtype = complex_type(kind) if isinstance(value, Complex) else torch_types()[kind]
            with self.mode:
                dims = [self._dimension(d) for d in shape[:rank]]
                return self._add_input(value, torch.empty(dims, dtype=dtype))
        if isinstance(value, Number):
            return call.known_number(value)
        if isinstance(value, (list, tuple)):
            return [self._fake(part) for part in value]
        if value is None or isinstance(value, (bool, int, float, complex, str, torch.dtype)):
            return value
        raise UnsupportedError("a value that is no tensor")

    def _add_input(self, value: Any, fake: Any) -> _InputIndex:
        self.values.append(value)
        self.fakes.append(fake)
        return _InputIndex(len(self.values) - 1)

    def _dimension(self, dim: Any) -> Any:
        return self._symbol(dim.key) if isinstance(dim, Interval) else int(dim)

    def _symbol(self, key: Any) -> Any:
        """The symbol of a dimension or number; a new one for an unknown one."""
        from torch._dynamo.source import ConstantSource
        from torch.fx.experimental.symbolic_shapes import DimDynamic

        if key is None or key not in self.symbols:
            key = ("new", len(self.symbols)) if key is None else key
            source = ConstantSource(f"d{len(self.symbols)}")
            symbol = self.shapes.create_symbol(self.length, source, DimDynamic.DYNAMIC, None)
            self.symbols[key] = self.shapes.create_symintnode(symbol, hint=self.length, source=source)
        return self.symbols[key]


class _InputIndex:
    """Stands for an argument: its index among the inputs of a traced function."""

    def __init__(self, index: int):
        self.index = index


def _fill_inputs(value: Any, inputs: Any) -> Any:
    """An argument with inputs instead of their indices."""
    if isinstance(value, _InputIndex):
        return inputs[value.index]
    return [_fill_inputs(part, inputs) for part in value] if isinstance(value, list) else value
