"""Branches that depend on data: If, whose bodies take what they read from around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.model.boundary import Constant, Parameter, Result
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.errors import UnsupportedError
from ovjit.graph.bodies import INVARIANT, LAST, Port
from ovjit.graph.op import find_op
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.values import Complex, Number, Uninitialized

if TYPE_CHECKING:
    from ovjit.readers.torch.fx import FxReader
    from ovjit.readers.torch.graph import TorchReader
    from ovjit.readers.torch.script import ScriptReader


class Inside:
    """The inputs of one body: a parameter for each tensor of the graph around it."""

    def __init__(self, call: Call):
        self.call = call
        self.sources: list[Output] = []
        self.parameters: list[Any] = []
        self.written: list[str] = []  # names from around the body that it gives new values
        self.grown: dict[str, Output] = {}  # what it appends to empty lists from around it
        self._made: dict[tuple[Any, int], Output] = {}

    def tensor(self, value: Output) -> Output:
        """What stands for a tensor; small ones whose values are known are constants here, too."""
        key = value._node, value._index
        if key not in self._made:
            known, own = self.call.value(value), value._tensor._type
            if known is not None:
                self._made[key] = Output._of(Constant._of(known, own.dtype, None, None), 0)
            else:
                node = Parameter._of(own.dtype, own.shape, None)
                self.sources.append(value)
                self.parameters.append(node)
                self._made[key] = Output._of(node, 0)
        return self._made[key]

    def value(self, value: Any) -> Any:
        """What stands for any value: numbers that are computed are inputs as well."""
        if isinstance(value, Number):
            return Number(self.tensor(self.call.tensor(value)), value.dim)
        if isinstance(value, (list, tuple)) and not isinstance(value, Complex):
            return [self.value(part) for part in value]
        return mapped(value, self.tensor)


def mapped(value: Any, function: Callable[[Output], Any]) -> Any:
    """A value with `function` of its tensors."""
    if isinstance(value, Output):
        return function(value)
    if isinstance(value, Complex):
        return Complex(function(value.pair))
    if isinstance(value, (list, tuple)):
        return [mapped(v, function) for v in value]
    return value


def raises(block: Any) -> bool:
    """Whether a block ends in an exception: what leads there only checks."""
    return any(node.kind() == "prim::RaiseException" for node in block.nodes())


def read_if(reader: ScriptReader, node: Any, condition: Any) -> list[Any]:
    """The outputs of a branch whose condition is known only when the model runs."""
    call = Call(reader, "prim::If", "", node.scopeName(), reader._inner)
    return chosen(reader, call, condition, [partial(read_body, reader, call, b) for b in node.blocks()])


def chosen(
    reader: TorchReader, call: Call, condition: Any, bodies: Sequence[Callable[[], tuple[Inside, list[Any]]]]
) -> list[Any]:
    """What an If gives whose `bodies`, for true and for false, are read by calling them."""
    from ovjit.api.model.subgraphs import if_op

    truth = call.scalar(call.tensor(condition, "boolean"))
    models, inputs, sources = [], [], [truth]
    forms = []
    read = [body() for body in bodies]
    if any(inside.written or inside.grown for inside, _ in read):
        raise UnsupportedError("a tensor or a list is written to that is made outside")
    given = [
        _initialized(call, values, other) for (_, values), (_, other) in zip(read, read[::-1], strict=True)
    ]
    for (inside, _), values in zip(read, given, strict=True):
        leaves: list[Output] = []
        forms.append([form_of(call, v, leaves) for v in values])
        own = [call.same(v) if isinstance(v._node, Parameter) else v for v in leaves]
        models.append(Model._from_parts([Result._of(v) for v in own], inside.parameters))
        inputs.append([Port(INVARIANT, len(sources) + i, i) for i in range(len(inside.sources))])
        sources += inside.sources
    if forms[0] != forms[1]:
        raise UnsupportedError(f"the branches give different kinds of values: {forms[0]} and {forms[1]}")
    ends = [[Port(LAST, i, i) for i in range(len(model.get_results()))] for model in models]
    made = if_op._of_parts(find_op("If"), sources, models, inputs, ends, reader.name(call.base, "If"))
    outputs = [Output._of(made, i) for i in range(len(made._tensors))]
    reader.name_dimensions(outputs)
    rest = iter(outputs)
    return [built(form, rest) for form in forms[0]]


def _initialized(call: Call, values: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    """The values of one branch; those that it leaves without one are of the other branch's kinds."""
    pairs = zip(values, other, strict=True)
    return [_blank(call, theirs) if isinstance(own, Uninitialized) else own for own, theirs in pairs]


def _blank(call: Call, like: Any) -> Any:
    """A value of the kind of another, whose numbers are not read."""
    if isinstance(like, Number):
        return Number(call.const(0, call.dtype(like.value)))
    if isinstance(like, Output):
        return call.const(np.zeros([1] * len(call.shape(like) or ())), call.dtype(like))
    if isinstance(like, Complex):
        return Complex(_blank(call, like.pair))
    if isinstance(like, (list, tuple)):
        return [_blank(call, part) for part in like]
    return None if isinstance(like, Uninitialized) else like


def read_body(
    reader: ScriptReader, call: Call, block: Any, inputs: Mapping[str, Any] | None = None,
    carried: Sequence[str] = (),
) -> tuple[Inside, list[Any]]:  # fmt: skip
    """What a block gives, read as a graph of its own. `inputs` are the values of the block's inputs, and
    of the names from around it that are `carried`: what these become is given, too."""
    inside, env = Inside(call), reader.env
    given = {name: inside.value(env[name]) for name in _names(block) if name in env}
    given.update(inputs or {})
    reader.env = {**env, **given}
    outer = reader.start_body()
    try:
        reader._block(block)
        values = [reader.env.get(v.debugName()) for v in block.outputs()]
        values += [reader.env[name] for name in carried]
        own = inputs or {}
        inside.written = [k for k, v in given.items() if k not in own and reader.env[k] is not v]
        lists = [k for k, v in given.items() if isinstance(v, list) and k not in own]
        inside.grown = {k: _appended(call, env[k], given[k]) for k in lists if len(given[k]) != len(env[k])}
    finally:
        reader.env = env
        reader.end_body(outer)
    return inside, values


def _appended(call: Call, before: list[Any], after: list[Any]) -> Output:
    """The one value that a body appends to an empty list."""
    if before or len(after) != 1 or not isinstance(after[0], Output):
        raise UnsupportedError("a body appends more than one tensor, or appends to a list that is not empty")
    return call.unsqueeze(after[0], [0])


def read_graph(reader: FxReader, call: Call, graph: Any, given: Sequence[Any]) -> tuple[Inside, list[Any]]:
    """What a graph module gives, read as a graph of its own, for values of the graph around it."""
    inside = Inside(call)
    values = [inside.value(v) for v in given]
    return inside, inner_graph(reader, graph, values)


def inner_graph(reader: FxReader, graph: Any, values: Sequence[Any]) -> list[Any]:
    """What a graph module gives for values of a body that is being read."""
    outer = reader.start_body()
    try:
        made = reader.run(graph, values)
    finally:
        reader.end_body(outer)
    return made if isinstance(made, list) else [made]


def _names(block: Any) -> Iterator[str]:
    """The names that a block reads, those of its inner blocks included."""
    for node in block.nodes():
        yield from (v.debugName() for v in node.inputs())
        for inner in node.blocks():
            yield from _names(inner)
    yield from (v.debugName() for v in block.outputs())


def form_of(call: Call, value: Any, leaves: list[Output]) -> Any:
    """How a value is made of tensors, which are added to `leaves`: lists of kinds, None for nothing."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)) and not isinstance(value, Complex):
        return [form_of(call, v, leaves) for v in value]
    kind = "number" if isinstance(value, (Number, bool, int, float)) else type(value).__name__
    leaf = value.pair if isinstance(value, Complex) else call.tensor(value)
    leaves.append(leaf)
    return kind, call.dtype(leaf)


def built(form: Any, leaves: Iterator[Output]) -> Any:
    if form is None:
        return None
    if isinstance(form, list):
        return [built(part, leaves) for part in form]
    value = next(leaves)
    return Number(value) if form[0] == "number" else Complex(value) if form[0] == "Complex" else value
