"""Graphs of TorchScript -> Model: what torch.jit.trace and torch.jit.script give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ovjit.build import Output
from ovjit.errors import ConverterError, ModelError, UnsupportedError
from ovjit.readers.torch.branches import raises, read_if
from ovjit.readers.torch.call import Call, OutputUses
from ovjit.readers.torch.containers import change, copy_containers, is_changed, item_of, restore
from ovjit.readers.torch.graph import Refused, bound, parsed_schema
from ovjit.readers.torch.loops import read_loop, unroll
from ovjit.readers.torch.naming import UNPACK, label, naming, where
from ovjit.readers.torch.operators.lists import as_list, broadcast_shapes, extreme_list
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.registry import find_rule
from ovjit.readers.torch.scripts.attributes import AttributesReader
from ovjit.readers.torch.scripts.by_strides import as_in_memory
from ovjit.readers.torch.scripts.composed import compose
from ovjit.readers.torch.scripts.memory import tensors_of
from ovjit.readers.torch.scripts.mutation import own_memory
from ovjit.readers.torch.scripts.shared_memory import COPIES_OF_LISTS, RESHAPES, values_of, written_by
from ovjit.readers.torch.tracing.strides import BY_STRIDES
from ovjit.readers.torch.values import Complex, Number, Stacked, Uninitialized

#: Nodes that return their input.
_SAME = frozenset((
    "prim::data", "prim::unchecked_cast", "aten::_unwrap_optional", "prim::unchecked_unwrap_optional",
))  # fmt: skip
#: Operators that also write running statistics -> those that return the new statistics after the results.
_WRITES_BESIDE = {
    "aten::native_batch_norm": "aten::_native_batch_norm_legit_functional",
    "aten::_native_batch_norm_legit": "aten::_native_batch_norm_legit_functional",
    "aten::_batch_norm_with_update": "aten::_batch_norm_with_update_functional",
}
#: Operators of lists; some are of tensors, too.
OF_LISTS = COPIES_OF_LISTS | {"aten::__getitem__", "aten::len", "aten::__contains__", "aten::get"}


class ScriptReader(AttributesReader):
    """Reads one script."""

    #: True for a trace of zeros, not of an example.
    is_assumed = False

    def run(self, graph: Any, values: Sequence[Any]) -> list[Any]:
        """Evaluate a graph for its inputs, without `self`, and return its outputs."""
        inputs = list(graph.inputs())
        if self.module is not None and inputs:
            self._paths[inputs[0].debugName()] = ""
            inputs = inputs[1:]
        if len(inputs) != len(values):
            raise UnsupportedError(f"the script takes {len(inputs)} inputs, but {len(values)} are given")
        for value, argument in zip(inputs, values, strict=True):
            self.env[value.debugName()] = argument
        self.note_contiguous(values)
        self.named = values_of(graph)
        self.read_block(graph)
        result = [self.look_up(v) for v in graph.outputs()]
        self.check_read("prim::Return", result)
        return result

    def number_of(self, call: Any, dim: Any) -> Number | None:
        for name, value in self.env.items():
            if isinstance(value, Output) and self.around.get(name) is not value:
                for axis, size in enumerate(call.shape(value) or ()):
                    if getattr(size, "key", None) == dim.key:
                        return Number(call.index(call.size(value, axis)), dim)
        return super().number_of(call, dim)

    def read_block(self, block: Any) -> None:
        for node in block.nodes():
            self._read_node(node)

    def _read_node(self, node: Any) -> None:
        """Convert a node of the script, or evaluate it if its inputs are known."""
        kind = node.kind()
        if is_changed(node):
            tensors = list(tensors_of([self.look_up(v) for v in node.inputs()]))
            change(self, node)
            self.join_stacked([self.look_up(v) for v in (node.inputsAt(0), *node.outputs())], tensors)
            return
        special = _SPECIAL.get(kind)
        if special is not None:
            special(self, node)
            return
        inputs = [self.look_up(v) for v in node.inputs()]
        if kind in _SAME:
            self.set_value(node, inputs[0])
            return
        if kind == "prim::PythonOp":
            self._python(node, inputs)
            return
        schema = None if node.schema() == "(no schema)" else parsed_schema(node.schema())
        if schema is None:
            raise Refused(kind, f"No conversion rule found for operations: {kind}{where(node)}")
        self._convert_operator(node, kind, schema, inputs)

    def _convert_operator(self, node: Any, kind: str, schema: Any, inputs: list[Any]) -> None:
        """Convert an operator by its rule. `schema`: the declaration of its arguments."""
        overload = schema.overload_name or ("Scalars" if _of_numbers(schema) else "")
        if any(schema_argument.is_out for schema_argument in schema.arguments):
            count = len(schema.arguments) - sum(a.is_out for a in schema.arguments)
            inputs = inputs[:count]
            overload = overload.removesuffix("out").removesuffix("_")
        written = written_by(node, schema)
        name = kind[:-1] if written is not None and find_rule(kind, "") is None else kind
        outputs = list(node.outputs())
        if kind.removesuffix("_") in BY_STRIDES:
            inputs = as_in_memory(self, node, inputs)
        elif kind == "aten::view" and _strips_ones(node) or kind == "aten::expand" and _is_written(node):
            self.set_value(node, inputs[0])
            return
        arguments = bound(schema, inputs, {})
        if not _is_of_list(kind, inputs[0] if inputs else None):
            self.check_read(kind, inputs)
        base = label(node.scopeName(), naming(kind, [use.user for v in outputs for use in v.uses()]))
        if kind not in self.converters and arguments.get("running_mean") is not None:
            name = _WRITES_BESIDE.get(kind, name)
        try:
            uses = self._output_uses(outputs)
            result = self.call(name, overload, arguments, base, partial(where, node), uses)
            if name in _WRITES_BESIDE.values():
                for key, value in zip(("running_mean", "running_var"), result[len(outputs) :], strict=False):
                    self.replace(node, arguments[key], value)
                result = result[: len(outputs)]
            _check_outputs(node, name, result)
        except Refused as error:
            result = compose(self, error, name, overload, arguments)
        result = self._in_memory(node, schema, kind, arguments, result, written)
        if len(outputs) == 1:
            self.set_value(node, result)
            self.name_variable(result, outputs[0].debugName())
        else:
            for output, value in zip(outputs, result, strict=False):
                self.env[output.debugName()] = value
                self.name_variable(value, output.debugName())

    def _in_memory(
        self, node: Any, schema: Any, kind: str, arguments: Mapping[str, Any], result: Any, written: Any
    ) -> Any:
        """Record the memory of an operator's result and return the result.

        `written` is the value that the operator writes to, or None.
        """
        result, first = own_memory(schema, result, written is not None), next(iter(arguments.values()), None)
        if kind in RESHAPES:
            self.reshape_in_place(node, schema.overload_name, arguments, first, result)
        elif written is not None:
            result = self._overwrite(node, written, result)
        elif _is_of_list(kind, first):
            self.check_read(kind, result if isinstance(result, Output) else ())
            self.check_read(kind, first if isinstance(first, Stacked) else ())
            self.join_stacked([result, *arguments.values()], list(tensors_of(result)))
        else:
            result = result[0] if node.outputsSize() == 1 and _takes_one(schema, result) else result
            result = self.note_parts(node, schema, kind, arguments, result)
        return result

    def join_stacked(self, lists: Sequence[Any], tensors: Sequence[Any]) -> None:
        """Record that the items of a list of dynamic length may be these tensors."""
        for value in lists:
            for other in tensors if isinstance(value, Stacked) else ():
                self.memory.join(value, other)

    def _output_uses(self, outputs: Sequence[Any]) -> OutputUses:
        if len(outputs) != 1:
            return OutputUses(len(outputs), frozenset(i for i, v in enumerate(outputs) if v.uses()))
        users = [use.user for use in outputs[0].uses()]
        if len(users) == 1 and users[0].kind() == UNPACK:
            return OutputUses(users[0].outputsSize(), is_examples=True, is_assumed=self.is_assumed)
        result = outputs[0].type()
        if result.kind() == "ListType":
            lengths = [user for user in users if user.kind() == "aten::len"]
            return OutputUses(items=_items_read(users), is_counted=bool(lengths))
        return OutputUses(rank=result.dim() if result.kind() == "TensorType" else None)

    def _python(self, node: Any, inputs: list[Any]) -> None:
        """Convert a prim::PythonOp: one of an extension, or one with a rule."""
        name, _, overload = node.pyname().partition(".")
        if name not in self.converters and find_rule(name, "") is None and node.hasAttribute("Subgraph"):
            self._subgraph(node, inputs)
            return
        arguments = {f"input{i}": value for i, value in enumerate(inputs)}
        result = self.call(name, overload, arguments, label(node.scopeName(), name), partial(where, node))
        result = result if isinstance(result, list) else [result]
        for output, value in zip(node.outputs(), result, strict=False):
            self.env[output.debugName()] = value

    def _subgraph(self, node: Any, inputs: list[Any]) -> None:
        """Evaluate a torch.autograd.Function from its recorded graph."""
        graph, outer = node.g("Subgraph"), (self.env, self.named, self.holders)
        graph_inputs = list(graph.inputs())
        if graph_inputs and not any(list(v.uses()) for v in graph_inputs):
            # what stands for a module records the example's results
            name = node.pyname()
            raise Refused(name, f"No conversion rule found for operations: {name}{where(node)}")
        self.holders = [*self.holders, self.env]
        self.env = dict(zip((v.debugName() for v in graph.inputs()), inputs, strict=True))
        self.named = values_of(graph)
        try:
            self.read_block(graph)
            result = [self.look_up(v) for v in graph.outputs()]
        finally:
            self.env, self.named, self.holders = outer
        for output, value in zip(node.outputs(), result, strict=False):
            self.env[output.debugName()] = value

    # -- memory that is shared -------------------------------------------------------------------------------

    def _overwrite(self, node: Any, written: Any, new: Any) -> Any:
        """Store the new value of a tensor that is written in place, for later readers of it and of its base.
        Other views of the base are refused if they are read later: that needs functionalization, as
        torch.export does."""
        old = self.look_up(written)
        call = self._copying(node)
        if isinstance(old, Output) and isinstance(new, Output):
            new = call.to_type(new, call.dtype(old))
            if call.rank(new) != call.rank(old):
                new = call.expand(new, call.shape_of(old))
        self.replace(node, old, new)
        return new

    def set_value(self, node: Any, value: Any) -> None:
        self.env[node.output().debugName()] = value

    # -- nodes that are no operators -------------------------------------------------------------------------

    def _constant(self, node: Any) -> None:
        def to_value(tensor: Any) -> Any:
            constant = self.constant(tensor, None)
            self.note_constant(constant, tensor)
            return constant

        value = node.output().toIValue()
        if isinstance(value, torch.Tensor):
            value = to_value(value)
        elif isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
            value = [to_value(v) if isinstance(v, torch.Tensor) else v for v in value]
        self.set_value(node, value)

    def _object(self, node: Any) -> None:
        """An object of a TorchScript class, as a dict of its attributes."""
        self.set_value(node, {})

    def _isinstance(self, node: Any) -> None:
        """Evaluate isinstance by the static type or, for lists, numbers, strings and tensors, the value."""
        value = self.look_up(node.input())
        kinds = node.tys("types")
        static_type = node.input().type()
        self.set_value(node, any(static_type.isSubtypeOf(kind) or _is_a(value, kind) for kind in kinds))

    def _enum(self, node: Any) -> None:
        member, field = self.look_up(node.input()), node.kind().removeprefix("prim::Enum").lower()
        self.set_value(node, getattr(member, field))

    def _list(self, node: Any) -> None:
        self.set_value(node, [self.env.get(v.debugName()) for v in node.inputs()])

    def _dict(self, node: Any) -> None:
        items = [self.look_up(v) for v in node.inputs()]
        self.set_value(node, dict(zip(items[::2], items[1::2], strict=True)))

    def _unpack(self, node: Any) -> None:
        values = self.look_up(node.inputsAt(0))
        if isinstance(values, Stacked):
            call = Call(self, node.kind(), label(node.scopeName(), node.kind()))
            stacked, values = values, [item_of(call, values, i) for i in range(node.outputsSize())]
            self.join_stacked([stacked], values)
        for output, value in zip(node.outputs(), values, strict=False):
            self.env[output.debugName()] = value

    def _index(self, node: Any) -> None:
        values = self.look_up(node.inputsAt(0))
        self.set_value(node, values[self.look_up(node.inputsAt(1))])

    def _slice(self, node: Any) -> None:
        self.set_value(node, self.look_up(node.input())[node.i("beg") : node.i("end")])

    def _read_branch(self, node: Any) -> None:
        """Read the block that a known condition chooses, else both blocks as an If."""
        call = Call(self, "prim::If", "")
        condition = call.known_number(self.look_up(node.inputsAt(0)))
        blocks = list(node.blocks())
        if condition is None and any(raises(block) for block in blocks):
            condition = not raises(blocks[0])
        if condition is None:
            result = self._depending(
                node, "branch", lambda: read_if(self, node, self.look_up(node.inputsAt(0)))
            )
            for output, value in zip(node.outputs(), result, strict=True):
                self.env[output.debugName()] = value
            return
        chosen_block = blocks[0 if condition else 1]
        self.read_block(chosen_block)
        for output, value in zip(node.outputs(), chosen_block.outputs(), strict=True):
            self.env[output.debugName()] = self.env.get(value.debugName())
            if value.debugName() in self._paths:
                self._paths[output.debugName()] = self._paths[value.debugName()]

    def _loop(self, node: Any) -> None:
        before = dict(self.env)
        containers = (value for value in before.values() if isinstance(value, (list, dict)))
        contents = [(value, copy_containers(value)) for value in containers]
        pieces, attributes = self.memory.save(), dict(self._attributes)
        carried = unroll(self, node)
        if carried is None:
            self.env, self._attributes = before, attributes
            restore(contents)
            self.memory.restore(pieces)
            carried = self._depending(node, "loop", lambda: read_loop(self, node))
        for output, value in zip(node.outputs(), carried, strict=True):
            self.env[output.debugName()] = value

    def _depending(self, node: Any, what: str, read: Callable[[], list[Any]]) -> list[Any]:
        """Return the results of a data-dependent node with blocks. Raises Refused with its location."""
        try:
            return read()
        except (Refused, ConverterError):
            raise
        except (UnsupportedError, ModelError) as error:
            raise Refused(node.kind(), f"a {what} depends on data{where(node)}: {error}") from error


def _none(reader: ScriptReader, node: Any) -> None:
    for output in node.outputs():
        reader.env[output.debugName()] = None


def _raise(reader: ScriptReader, node: Any) -> None:
    """An exception that is certain to be raised is an error. In a data-dependent body it is ignored."""
    if not reader.around:
        message = reader.env.get(node.inputsAt(0).debugName())
        text = f": {message}" if isinstance(message, str) else ""
        raise ModelError(f"the script raises an exception{where(node)}{text}")


def _text(reader: ScriptReader, node: Any) -> None:
    """`pattern.format(*parts)`; the pattern alone if a part is unknown."""
    pattern, *parts = (reader.look_up(v) for v in node.inputs())
    is_known = all(isinstance(part, (str, int, float)) or part is None for part in parts)
    reader.set_value(node, pattern.format(*parts) if is_known else pattern)


def _percent(reader: ScriptReader, node: Any) -> None:
    """`pattern % parts`; the pattern alone if a part is unknown."""
    pattern, *values = (reader.look_up(v) for v in node.inputs())
    parts = [part for value in values for part in (value if isinstance(value, (list, tuple)) else [value])]
    is_known = all(isinstance(part, (str, int, float)) for part in parts)
    reader.set_value(node, pattern % tuple(parts) if is_known else pattern)


def _broadcast(reader: ScriptReader, node: Any) -> None:
    call = Call(reader, node.kind(), label(node.scopeName(), node.kind()))
    reader.set_value(node, broadcast_shapes(call, [reader.look_up(v) for v in node.inputs()]))


def _items_read(users: Sequence[Any]) -> frozenset[int] | None:
    """The indices of the list items that are read, None if others may be."""
    lengths = [user for user in users if user.kind() == "aten::len"]
    indices = [user.inputsAt(1).toIValue() for user in users if user.kind() == "aten::__getitem__"]
    if len(indices) + len(lengths) < len(users) or any(map(_limits_loop, lengths)):
        return None
    return frozenset(indices) if users and all(isinstance(i, int) for i in indices) else None


def _limits_loop(node: Any) -> bool:
    """True if a number limits the iterations of a loop, possibly as an operand of `min`."""
    users = [use.user for use in node.output().uses() if use.user.kind() != "prim::Loop" or use.offset == 0]
    through = ("prim::ListConstruct", "prim::min", "aten::__range_length")
    return any(u.kind() == "prim::Loop" or (u.kind() in through and _limits_loop(u)) for u in users)


def _length(reader: ScriptReader, node: Any) -> None:
    """The length of a list. Of parts that may be empty it is the number of the others, except for loops over
    them."""
    value = reader.look_up(node.inputsAt(0))
    number = getattr(value, "number", None)
    if number is not None and not _limits_loop(node):
        reader.set_value(node, number)
    else:
        reader._convert_operator(node, node.kind(), parsed_schema(node.schema()), [value])


def _tolist(reader: ScriptReader, node: Any) -> None:
    """A tensor as a number, or as nested lists of numbers."""
    value = reader.look_up(node.inputsAt(0))
    reader.check_read(node.kind(), [value])
    call = Call(reader, node.kind(), label(node.scopeName(), node.kind()))
    reader.set_value(node, as_list(call, value))


def _set_uninitialized(reader: ScriptReader, node: Any) -> None:
    reader.set_value(node, Uninitialized())


def _context(reader: ScriptReader, node: Any) -> None:
    """Ignore the begin and end of torch.no_grad() and the like, which change no values."""
    kind = str(node.inputsAt(0).type())
    if ".grad_mode." not in kind:
        raise Refused(node.kind(), f"the context manager {kind} is not supported{where(node)}")
    for output in node.outputs():
        reader.env[output.debugName()] = None


def _convert_extreme(reader: ScriptReader, node: Any) -> None:
    """Convert prim::max and prim::min: of two numbers, of one list, or of two lists."""
    call = Call(reader, node.kind(), label(node.scopeName(), node.kind()))
    values = [reader.look_up(v) for v in node.inputs()]
    if len(values) == 1:
        values = values[0]
    if isinstance(values, Stacked):
        op = "ReduceMax" if node.kind() == "prim::max" else "ReduceMin"
        reader.set_value(node, Number(call(op, values.rows, [0], keep_dims=False)))
        return
    if len(values) == 2 and all(isinstance(v, list) for v in values):
        first, second = values
        reader.set_value(node, extreme_list(call, first, second, node.kind() == "prim::max"))
        return
    op = "Maximum" if node.kind() == "prim::max" else "Minimum"
    out = values[0]
    for value in values[1:]:
        out = call.compute(op, out, value)
    reader.set_value(node, out)


_SPECIAL = {
    "prim::Constant": ScriptReader._constant,
    "prim::GetAttr": ScriptReader._attribute,
    "prim::SetAttr": ScriptReader._set_attribute,
    "prim::CreateObject": ScriptReader._object,
    "prim::isinstance": ScriptReader._isinstance,
    "prim::EnumValue": ScriptReader._enum,
    "prim::EnumName": ScriptReader._enum,
    "prim::ListConstruct": ScriptReader._list,
    "prim::TupleConstruct": ScriptReader._list,
    "prim::DictConstruct": ScriptReader._dict,
    UNPACK: ScriptReader._unpack,
    "prim::TupleUnpack": ScriptReader._unpack,
    "prim::TupleIndex": ScriptReader._index,
    "prim::TupleSlice": ScriptReader._slice,
    "prim::If": ScriptReader._read_branch,
    "prim::Loop": ScriptReader._loop,
    "prim::RaiseException": _raise,
    "prim::Print": _none,
    "aten::warn": _none,
    "prim::Enter": _context,
    "prim::Exit": _context,
    "prim::max": _convert_extreme,
    "prim::min": _convert_extreme,
    "aten::format": _text,
    "aten::percentFormat": _percent,
    "prim::tolist": _tolist,
    "aten::len": _length,
    "aten::broadcast_shapes": _broadcast,
    "prim::Uninitialized": _set_uninitialized,
}


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a TorchScript type, as far as the kind of the type decides it."""
    rows = {
        "TensorType": (Output, Complex), "IntType": (int, Number), "FloatType": (float,), "BoolType": (bool,),
        "StringType": (str,), "ListType": (list, Stacked), "AnyListType": (list, Stacked),
        "TupleType": (tuple, list), "AnyTupleType": (tuple,), "DictType": (dict,), "NoneType": (type(None),),
    }  # fmt: skip
    if kind.kind() == "IntType" and isinstance(value, bool):
        return False
    return isinstance(value, rows.get(kind.kind(), ()))


def _is_of_list(kind: str, value: Any) -> bool:
    """Whether an operator concerns a list, and reads no tensor in it."""
    return kind in OF_LISTS and not isinstance(value, (Output, Complex))


def _of_numbers(schema: Any) -> bool:
    """Whether an operator takes two numbers: that overload has no name."""
    return len(schema.arguments) == 2 and all(str(a.type) == "number" for a in schema.arguments)


def _strips_ones(node: Any) -> bool:
    """Whether a trace drops leading dimensions of 1 of a value that is written into a tensor, as for `x[mask]
    = y`. Values for other masks have other dimensions, and broadcasting does not need it."""
    sizes, shape = (value.type().sizes() for value in (node.inputsAt(0), node.output()))
    if sizes is None or shape is None:
        return False
    ones = next((i for i, n in enumerate(sizes) if n != 1), len(sizes))
    return _is_written(node) and list(shape) == list(sizes[ones:])


def _is_written(node: Any) -> bool:
    """Whether a node's result is only written into tensors, which broadcasts it. A trace expands it to the
    example's shape."""
    written = {"aten::index_put_": 2, "aten::copy_": 1}
    uses = list(node.output().uses())
    return bool(uses) and all(
        written.get(use.user.kind()) == use.offset
        or use.user.kind() == "aten::expand"
        and _is_written(use.user)
        for use in uses
    )


#: Operators whose unused outputs are no tensors.
_UNDEFINED = ("aten::_native_multi_head_attention",)


def _check_outputs(node: Any, name: str, values: Any) -> None:
    """Raise Refused if a tensor is read that a rule does not return."""
    if name in _UNDEFINED or node.outputsSize() == 1:
        return
    for i, (output, value) in enumerate(zip(node.outputs(), values, strict=False)):
        if value is None and output.type().kind() == "TensorType" and output.uses():
            raise Refused(name, f"{name} is read without its output {i}{where(node)}")


def _takes_one(schema: Any, result: Any) -> bool:
    """True if a rule returned several values, of which the operator has one in scripts."""
    return isinstance(result, list) and len(schema.returns) == 1 and str(schema.returns[0].type) == "Tensor"


def unwrap_single(values: list[Any]) -> Any:
    """The result of a graph: one value, such as a dict with the names of outputs, or a list of several."""
    return values[0] if len(values) == 1 else values
