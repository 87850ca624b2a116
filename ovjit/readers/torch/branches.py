"""Branches that depend on data: If, whose bodies take what they read from around them."""

from __future__ import annotations

from collections.abc import Collection
from itertools import repeat

from ovjit.build import make_constant, make_parameter, set_tensor_type, tensor_type, wrap_port
from ovjit.build.bodies import body_of, if_of
from ovjit.graph.op import TensorType
from ovjit.graph.symbolic import statically_known_equal, with_symbol
from ovjit.readers.torch.containers import assign, copy_containers, is_same, replace, stack_items
from ovjit.readers.torch.dimensions import Shared
from ovjit.readers.torch.graph import TorchReader
from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.scripts.block_reader import BlockReader
from ovjit.readers.torch.values import Uninitialized


class Inside:
    """The inputs of one body: a parameter for each outer tensor that it reads."""

    def __init__(self, call: Call):
        self.call = call
        self.reader: Any = call.reader
        self.sources: list[Output] = []
        self.parameters: list[Any] = []
        self.written: list[str] = []  # names from around the body that it gives new values
        self.grown: dict[str, Output] = {}  # what it appends to lists from around it that it does not read
        self.added: dict[str, list[Any]] = {}  # the items
        self.numbers: set[str] = set()  # those of these lists that hold numbers
        self._containers: dict[int, tuple[Any, Any]] = {}  # lists and dicts, and what stands for them
        self._constants: dict[tuple[Any, int], Output] = {}
        self.objects: dict[int, Any] = {}  # what stands for tensors around the body, by their objects
        self._outer: list[Any] = []  # these tensors
        self.pieces: list[Any] = []  # of what stands for them
        self.shared = Shared()  # by its nodes
        self.carried: set[int] = set()  # the objects of those that the body gives new values

    def inner_value_of(self, value: Any) -> Any:
        """Return the body's value for an outer tensor: one object each, as objects represent memory."""
        if id(value) not in self.objects:
            self.represent(value, self.reader.stand_in(self, value))
        return self.objects[id(value)]

    def copy(self, value: Any) -> Any:
        """Return a new object for a tensor, which becomes an input of the body."""
        if isinstance(value, Output):
            return wrap_port(Output, self._parameter(value))
        return map_tensors(value, self._parameter)

    def represent(self, value: Any, inner: Any) -> None:
        """Register `inner` as the body's value for an outer tensor or list."""
        self.objects[id(value)] = inner
        self._outer.append(value)

    def tensor(self, value: Output) -> Output:
        result: Output = self.inner_value_of(value)
        return result

    def _parameter(self, value: Output) -> Output:
        """Return the parameter for a tensor, or a constant if its value is known and small."""
        key = value.node, value.index
        if key not in self._constants:
            constant, kind = self.call.value(value), tensor_type(value)
            if constant is not None:
                self._constants[key] = make_constant(constant, kind.dtype)
            else:
                node = make_parameter(kind.dtype, kind.shape)
                self.sources.append(value)
                self.parameters.append(node)
                self._constants[key] = node.output(0)
        return self._constants[key]

    def value(self, value: Any) -> Any:
        """Return the body's value for any outer value. Computed numbers become inputs as well."""
        if isinstance(value, Number):
            return Number(self._parameter(self.call.tensor(value)), value.dim)
        if isinstance(value, (Output, Complex, Stacked)):
            return self.inner_value_of(value)
        if isinstance(value, (list, dict)):
            return self._container(value)
        if isinstance(value, tuple) and not isinstance(value, Complex):
            return [self.value(part) for part in value]
        return value

    def argument(self, value: Any) -> Any:
        """Return the body's value for an argument of a view. A named tuple stays a named tuple."""
        if not isinstance(value, tuple) or isinstance(value, Complex) or not hasattr(value, "_fields"):
            return self.value(value)
        if id(value) not in self._containers:
            result = type(value)(*(self.value(part) for part in value))
            self._containers[id(value)] = value, result
        return self._containers[id(value)][1]

    def _container(self, value: Any) -> Any:
        """Return the body's list or dict for an outer one, shared by all its names."""
        if id(value) not in self._containers:
            result: Any = [] if isinstance(value, list) else _Inner(self, value)
            self._containers[id(value)] = value, result
            if isinstance(value, list):
                result.extend(self.value(part) for part in value)
            else:
                result.update({key: self.value(part) for key, part in value.items()})
        return self._containers[id(value)][1]


class _Inner(dict):
    """A body's dict for an outer one. It creates the value of a key when the key is first read."""

    def __init__(self, inside: Inside, outer: dict[Any, Any]):
        super().__init__()
        self.inside, self.outer = inside, outer
        self.read: dict[Any, Any] = {}  # what was made so

    def __missing__(self, key: Any) -> Any:
        result = self[key] = self.read[key] = self.inside.value(self.outer[key])
        return result


def map_tensors(value: Any, function: Callable[[Output], Any]) -> Any:
    """A value of nested lists and dicts with `function` applied to its tensors."""
    if isinstance(value, Output):
        return function(value)
    if isinstance(value, Complex):
        return Complex(function(value.pair))
    if isinstance(value, Stacked):
        return Stacked(function(value.rows), value.numbers)
    if isinstance(value, (list, tuple)):
        return [map_tensors(v, function) for v in value]
    return value


def raises(block: Any) -> bool:
    """Whether a block ends in an exception, so that its condition is only an assertion."""
    return any(node.kind() == "prim::RaiseException" for node in block.nodes())


class Writes(Exception):
    """A body writes to outer tensors, lists or dicts; `args` are their names in the script."""

    def __init__(self, names: Sequence[str]):
        super().__init__(f"a body writes to {names}")
        self.names = names


def read_if(reader: BlockReader, node: Any, condition: Any) -> list[Any]:
    """The outputs of a branch whose condition is known only when the model runs."""
    call = Call(reader, "prim::If", node.scopeName())
    written: list[str] = []  # from around the branches
    count = node.outputsSize()
    read: list[Inside] = []
    results: list[list[Any]] = []
    while True:
        ends: list[list[Any]] = []
        read.clear()
        results.clear()

        try:
            logs = written, ends, read, results
            bodies = [partial(_branch, reader, call, block, *logs) for block in node.blocks()]
            result = build_if(reader, call, condition, bodies)
            break
        except Writes as writes:
            written += [name for name in writes.names if name not in written]
        except UnsupportedError:
            if not _of_other_lengths(reader, call, written, ends):
                raise
    for inside in read:
        reader.mark_unknown(inside)
    lists = [i for i, value in enumerate(result) if i < count or not isinstance(value, (Output, Complex))]
    for name, value in zip(written, result[count:], strict=True):
        assign(reader, node, name, value)
    reader.note_outputs([result[i] for i in lists], [[values[i] for i in lists] for values in results])
    return result[:count]


def _branch(
    reader: BlockReader, call: Call, block: Any, written: Sequence[str], ends: list[list[Any]],
    read: list[Inside], results: list[list[Any]],
) -> tuple[Inside, list[Any]]:  # fmt: skip
    """Read one branch. Its body is added to `read`, its results to `results`, and the final values of outer
    variables to `ends`."""
    inside, values = read_body(reader, call, block, None, written)
    ends.append(values[len(values) - len(written) :])
    results.append(values)
    read.append(inside)
    return inside, values


def _of_other_lengths(reader: BlockReader, call: Call, names: Sequence[str], ends: list[list[Any]]) -> bool:
    """Make lists `Stacked` that two branches leave with different lengths. False if there are none."""
    has_stacked = False
    if len(ends) != 2:
        return False
    for name, first, second in zip(names, *ends, strict=True):
        pair = [v for v in (first, second) if isinstance(v, (list, Stacked))]
        lengths = [len(v) if isinstance(v, list) else None for v in pair]
        old = reader.env[name]
        if len(pair) == 2 and isinstance(old, list) and (lengths[0] != lengths[1] or lengths == [None, None]):
            longer = max(pair, key=lambda v: math.inf if isinstance(v, Stacked) else len(v))
            like = longer if isinstance(longer, Stacked) else longer[-1]
            replace(reader, old, stack_items(call, old, like))
            has_stacked = True
    return has_stacked


def build_if(
    reader: TorchReader, call: Call, condition: Any, bodies: Sequence[Callable[[], tuple[Inside, list[Any]]]]
) -> list[Any]:
    """Convert a branch to an If and return its outputs. `bodies` read the branches for true and for false."""
    truth = call.scalar(call.tensor(condition, "boolean"))
    models, forms = [], []
    read = [body() for body in bodies]
    if written := [name for inside, _ in read for name in (*inside.written, *inside.grown)]:
        raise Writes(list(dict.fromkeys(written)))
    values_by_branch = [
        _fill_unset(call, values, other) for (_, values), (_, other) in zip(read, read[::-1], strict=True)
    ]
    for (inside, _), values in zip(read, values_by_branch, strict=True):
        leaves: list[Output] = []
        forms.append([form_of(call, v, leaves) for v in values])
        models.append(body_of(call, leaves, inside.parameters))
    if forms[0] != forms[1]:
        raise UnsupportedError(f"the branches return different kinds of values: {forms[0]} and {forms[1]}")
    sources = [inside.sources for inside, _ in read]
    outputs = if_of(truth, sources, models, reader.name(call.base, "If"))
    for i, output in enumerate(outputs):
        _forget_differing(output, [model.get_results()[i].input_value(0) for model in models])
    reader.name_dimensions(outputs)
    remaining = iter(outputs)
    return [built(form, remaining) for form in forms[0]]


def _forget_differing(output: Output, results: Sequence[Output]) -> None:
    """Replace dimensions of an If's output that differ between the branches by new dynamic ones: equal bounds
    do not make them equal."""
    kind = tensor_type(output)
    shapes = [tensor_type(value).shape for value in results]
    if kind.shape is None or None in shapes or len({len(shape or ()) for shape in shapes}) > 1:
        return
    dims_by_branch = zip(kind.shape, *(shape or () for shape in shapes), strict=True)
    dims = tuple(d if statically_known_equal(*e) else with_symbol(d, None) for d, *e in dims_by_branch)
    set_tensor_type(output, TensorType(kind.dtype, dims, kind.value, kind.partial))


def _fill_unset(call: Call, values: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    """The values of one branch, with unset ones replaced by placeholders of the other branch's types."""
    pairs = zip(values, other, strict=True)
    return [blank(call, sample) if isinstance(value, Uninitialized) else value for value, sample in pairs]


def blank(call: Call, like: Any) -> Any:
    """A placeholder of the type of `like`, whose elements are never read."""
    if isinstance(like, Number):
        return Number(call.const(0, call.dtype(like.value)))
    if isinstance(like, Output):
        return call.const(np.zeros([1] * len(call.shape(like) or ())), call.dtype(like))
    if isinstance(like, Complex):
        return Complex(blank(call, like.pair))
    if isinstance(like, Stacked):
        return Stacked(blank(call, like.rows), like.numbers)
    if isinstance(like, dict):
        return {key: blank(call, part) for key, part in like.items()}
    if isinstance(like, (list, tuple)):
        return [blank(call, part) for part in like]
    return None if isinstance(like, Uninitialized) else like


def read_body(
    reader: BlockReader, call: Call, block: Any, inputs: Mapping[str, Any] | None = None,
    carried: Sequence[str] = (), left_out: Collection[int] = (),
) -> tuple[Inside, list[Any]]:  # fmt: skip
    """Read a block as the graph of a body; return the body's inputs and the values that it computes.

    `inputs` are the values of the block's inputs and of the outer names that are `carried`, whose new values
    are returned as well. The outputs with indices in `left_out` are not returned.
    """
    inside, env = Inside(call), reader.env
    unused = [v.debugName() for i, v in enumerate(block.inputs()) if i in left_out]
    outer_values = _outer_values(reader, inside, inputs or {}, [*_names(block), *carried, *unused], carried)
    before = {name: copy_containers(value) for name, value in outer_values.items()}
    reader.env, around, holders = {**env, **outer_values}, reader.around, reader.holders
    reader.around, reader.holders = env, [*holders, outer_values, before, inside.objects]
    try:
        with reader.enter(inside):
            reader.read_block(block)
            outputs = [v.debugName() for i, v in enumerate(block.outputs()) if i not in left_out]
            values = [reader.env.get(name) for name in outputs]
            values += [reader.env[name] for name in carried]
            _materialize_numbers(values)
            listed = {*(inputs or ()), *carried}
            added = {k: v for k, v in outer_values.items() if k not in listed}
            _note_changes(inside, block, added, before, reader.env)
    finally:
        reader.env, reader.around, reader.holders = env, around, holders
    return inside, values


def _outer_values(
    reader: BlockReader, inside: Inside, inputs: Mapping[str, Any], names: Sequence[str],
    carried: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """The initial values of a body's variables. Views of tensors that it carries become views of the body's
    own tensors."""
    env = reader.env
    for name in carried:
        if isinstance(env[name], (Output, Complex, Stacked)):
            inside.represent(env[name], inputs[name] if name in inputs else inside.copy(env[name]))
        if isinstance(env[name], (Output, Complex)):
            inside.carried.add(id(env[name]))
            reader.carry(inside, env[name], inside.inner_value_of(env[name]))
    return {**{name: inside.value(env[name]) for name in names if name in env}, **inputs}


def _note_changes(
    inside: Inside, block: Any, outer: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Record the outer values that a body reassigns, and the lists that it only appends to.

    `before` are the values before the body.
    """
    for name, value in outer.items():
        first = {**before[name], **value.read} if isinstance(value, _Inner) else before[name]
        if after[name] is value and is_same(value, first):
            continue
        added = value[len(first) :] if isinstance(value, list) and after[name] is value else []
        if added and is_same(value[: len(first)], first) and _is_only_appended_to(block, name):
            rows = [v for v in map(_row, repeat(inside.call), added) if v is not None]
            if len(rows) == len(added) and (not first or _row(inside.call, first[0]) is not None):
                inside.added[name] = added
                inside.grown[name] = inside.call.concat(inside.call.same_kind(rows), 0)
                if not isinstance(added[0], Output):
                    inside.numbers.add(name)
                continue
        inside.written.append(name)


def _row(call: Call, item: Any) -> Output | None:
    """An item of a list with a first dimension of 1; None for other objects."""
    if isinstance(item, Output):
        return call.unsqueeze(item, [0]) if call.shape(item) is not None else None
    if isinstance(item, (bool, int, float, Number)):
        value = call.const(item, "f64") if isinstance(item, float) else call.tensor(item)
        return call.reshape(value, [1])
    return None


def _is_only_appended_to(block: Any, name: str) -> bool:
    """Whether the nodes of a block, not those of inner blocks, add to a list and do not read it."""
    for node in block.nodes():
        positions = [i for i, v in enumerate(node.inputs()) if v.debugName() == name]
        if positions and (positions != [0] or not _adds_alone(block, node)):
            return False
        if any(name in _names(inner) for inner in node.blocks()):
            return False
    return all(v.debugName() != name for v in block.outputs())


def _adds_alone(block: Any, node: Any) -> bool:
    """Whether a node appends to a list that the block otherwise at most returns."""
    if node.kind() not in ("aten::append", "aten::add_"):
        return False
    uses = [use.user.kind() for value in node.outputs() for use in value.uses()]
    return not uses or uses == ["prim::Return"] and node.output() in list(block.outputs())


def is_extended(block: Any, index: int) -> bool:
    """Whether a loop's body only adds items to a list that it carries (`+=`). `index` is that of the block's
    input and output."""
    value, result = list(block.inputs())[index], list(block.outputs())[index]
    if result.node().kind() != "aten::add_" or result.node().inputsAt(0).debugName() != value.debugName():
        return False
    return _is_only_appended_to(block, value.debugName())


def read_graph(
    reader: TorchReader, call: Call, graph: Any, inputs: Sequence[Any]
) -> tuple[Inside, list[Any]]:
    """Read a graph module as a body for values of the outer graph; return the body's inputs and outputs."""
    inside = Inside(call)
    return inside, inner_graph(reader, graph, [inside.value(v) for v in inputs])


def inner_graph(reader: TorchReader, graph: Any, values: Sequence[Any]) -> list[Any]:
    """Evaluate a graph module for values of the body that is being read; return the list of its outputs."""
    with reader.in_body(Shared()):
        result = reader.run(graph, values)
        _materialize_numbers(result)
    return result if isinstance(result, list) else [result]


def _materialize_numbers(value: Any) -> None:
    """Create the nodes of the lazy Numbers among a body's results now, so that they are part of the body.
    Later they would be created in the outer graph."""
    if isinstance(value, Number):
        _ = value.value
    elif isinstance(value, (list, tuple)):
        for part in value:
            _materialize_numbers(part)
    elif isinstance(value, dict):
        _materialize_numbers(list(value.values()))


def _names(block: Any) -> Iterator[str]:
    """The names that a block and its inner blocks read."""
    for node in block.nodes():
        yield from (v.debugName() for v in node.inputs())
        for inner in node.blocks():
            yield from _names(inner)
    yield from (v.debugName() for v in block.outputs())


def form_of(call: Call, value: Any, leaves: list[Output]) -> Any:
    """Return the structure of a value as nested lists of kinds, and append its tensors to `leaves`."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)) and not isinstance(value, Complex):
        return [form_of(call, v, leaves) for v in value]
    if isinstance(value, dict):
        return {"keys": list(value), "values": [form_of(call, v, leaves) for v in value.values()]}
    if isinstance(value, Stacked):
        leaves.append(value.rows)
        return "Numbers" if value.numbers else "Stacked", call.dtype(value.rows)
    kind = "number" if isinstance(value, (Number, bool, int, float)) else type(value).__name__
    leaf = value.pair if isinstance(value, Complex) else call.tensor(value)
    leaves.append(leaf)
    return kind, call.dtype(leaf)


def built(form: Any, leaves: Iterator[Output]) -> Any:
    if form is None:
        return None
    if isinstance(form, list):
        return [built(part, leaves) for part in form]
    if isinstance(form, dict):
        return dict(zip(form["keys"], (built(part, leaves) for part in form["values"]), strict=True))
    value = next(leaves)
    if form[0] in ("Numbers", "Stacked"):
        return Stacked(value, form[0] == "Numbers")
    return Number(value) if form[0] == "number" else Complex(value) if form[0] == "Complex" else value
