"""Inputs of scripts: a script's types tell of tensors, numbers, and lists, tuples and dicts of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

from ovjit.errors import OvjitError, UnsupportedError
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.scripts.script import ScriptReader
from ovjit.readers.torch.tracing.trace import Prepared, argument_names, arguments_of
from ovjit.readers.torch.values import Number, element_type, torch_types
from ovjit.records import NamedTuple

#: Element types by the types that scripts have for numbers.
_NUMBERS = {"IntType": "i64", "FloatType": "f32", "BoolType": "boolean"}
EXAMPLE = "Please provide 'example_input'"


def input_of(reader: ScriptReader, name: str, leaf: Any, kind: Any) -> Any:
    index = len(reader.parameters)
    reader.often_none |= {("input", index, axis) for axis, size in enumerate(leaf.shape) if size == 0}
    return reader.parameter(name, kind, [None] * leaf.dim())


def inputs_of(
    reader: ScriptReader, ready: Prepared, names: Sequence[str], schema: Sequence[Any]
) -> list[Any]:
    """The inputs of a script: one for each tensor in lists, tuples and dicts. Arguments that the example
    omits have their defaults."""
    remaining_leaves = ready.inputs()

    def read_input(value: Any, name: str | None = None, kind: Any = None) -> Any:
        if isinstance(value, torch.Tensor):
            leaf_name, leaf, dtype = next(remaining_leaves)
            number = _listed_number(kind)
            if number is not None and leaf.dim() == 1:
                return _numbers(reader, name or leaf_name, torch_types()[number], len(leaf))
            value = input_of(reader, name or leaf_name, leaf, dtype)
            return Number(value) if kind is not None and kind.kind() in _NUMBERS else value
        if isinstance(value, Mapping):
            return {key: read_input(part) for key, part in value.items()}
        return [read_input(part) for part in value] if isinstance(value, (list, tuple)) else value

    own_names = argument_names(schema)
    tensor_names = dict(zip(own_names, names, strict=True))
    kinds = {name: argument.type for name, argument in zip(own_names, schema, strict=True)}
    values = {
        name: read_input(value, tensor_names.get(name), kinds.get(name))
        for name, value in ready.arguments.items()
    }
    rows = list(zip(own_names, schema, strict=True))
    missing = [name for name, a in rows if name not in values and not a.has_default_value()]
    if missing:
        raise UnsupportedError(f"the example has no {missing[0]!r}, which is an input of the script")
    return [values.get(name, a.default_value) for name, a in rows]


def _listed_number(kind: Any) -> str | None:
    """The element type of a TorchScript list of numbers, None for other types."""
    while kind is not None and kind.kind() == "OptionalType":
        kind = kind.getElementType()
    if kind is None or kind.kind() != "ListType":
        return None
    return _NUMBERS.get(kind.getElementType().kind())


def _numbers(reader: ScriptReader, name: str, dtype: Any, length: int) -> list[Number]:
    """An input [length] as a list of scalars."""
    value = reader.parameter(name, dtype, [length])
    call = Call(reader, "prim::ListUnpack", name)
    return [Number(partial(call, "Gather", value, i, 0)) for i in range(length)]


def check_lists(script: Any, described: Sequence[tuple[Any, Any, Any]]) -> None:
    """Raise OvjitError for a list of numbers whose described length is dynamic."""
    schema = arguments_of(script)
    argument_by_name = {argument.name: argument for argument in schema}
    for index, (name, shape, _) in enumerate(described):
        argument = argument_by_name.get(name, schema[index] if not name and index < len(schema) else None)
        if argument is not None and shape is not None and _listed_number(argument.type) is not None:
            if len(shape) != 1 or not _is_known(shape[0]):
                raise OvjitError(_length_message(argument))


def _is_known(d: Any) -> bool:
    return bool(d.is_static) if hasattr(d, "is_static") else isinstance(d, int) and d >= 0


def _length_message(argument: Any) -> str:
    """Return the error message for a list of unknown length among a script's inputs."""
    text = (
        f"The script's input {argument.name!r} is of the type {argument.type.annotation_str}, of any number"
    )
    is_number = _listed_number(argument.type)
    tells = "or 'input' with the list's length" if is_number else "which determines their number"
    return f"{text} of items.\n{EXAMPLE}, {tells}."


class Read(NamedTuple):
    """Rank and element type of a tensor, inferred from its uses in a script. The rank is None if unknown."""

    rank: int | None
    kind: str

    def over(self, other: Read) -> Read:
        """Combine two results: this one's known values take precedence."""
        rank = other.rank if self.rank is None else self.rank
        return Read(rank, other.kind if self.kind == "dynamic" else self.kind)


UNKNOWN = Read(None, "dynamic")
#: Ranks of what convolutions read.
_CONVOLVED = {f"aten::conv{dims}d": 2 + dims for dims in (1, 2, 3)}
#: Operators whose first argument has the rank and the element type of their result.
_KEEPING = {
    "prim::unchecked_cast", "aten::_unwrap_optional", "aten::contiguous", "aten::clone", "aten::detach",
    "aten::pad", "aten::dropout", "aten::relu", "aten::sigmoid", "aten::tanh", "aten::gelu", "aten::silu",
    "aten::abs",
}  # fmt: skip


def infer_from_uses(value: Any, module: Any) -> Read:
    """Infer the rank and type of a script's input from its uses.

    Both are unknown if the ranks disagree, or if no use reads a size or the rank.
    """
    ranks, kinds, values, asks = set(), set(), [value], False
    for each in values:
        for use in each.uses():
            node, kind = use.user, use.user.kind()
            asks |= kind in ("aten::size", "aten::dim")
            if use.offset:
                continue
            if kind in _CONVOLVED:
                ranks.add(_CONVOLVED[kind])
                kinds |= _type_of_attribute(node.inputsAt(1), module)
            elif kind in _KEEPING:
                values.append(node.output())
            elif kind == "aten::size" and node.inputsSize() == 1:
                users = [other.user for other in node.output().uses()]
                ranks |= {u.outputsSize() for u in users if u.kind() == "prim::ListUnpack"}
    rank = ranks.pop() if len(ranks) == 1 and asks else None
    return Read(rank, kinds.pop() if len(kinds) == 1 and rank is not None else "dynamic")


def _type_of_attribute(value: Any, module: Any) -> set[str]:
    """The element type of a tensor that is an attribute of a module, as a set; an empty one for others."""
    path: list[str] = []
    while value.node().kind() == "prim::GetAttr":
        path.append(value.node().s("name"))
        value = value.node().input()
    if not path or value.node().kind() != "prim::Param":
        return set()
    tensor = reduce(getattr, reversed(path), module)
    return {element_type(tensor.dtype)}


class _UnknownDict(dict):
    """A dict of inputs, created when the script reads a key."""

    def __init__(self, reader: ScriptReader, kind: Any):
        super().__init__()
        self.reader, self.kind = reader, kind

    def __missing__(self, key: str) -> Any:
        self[key] = result = unknown_input(self.reader, key, self.kind)
        return result


def unknown_input(
    reader: ScriptReader, name: str, kind: Any, argument: Any = None, read: Read = UNKNOWN
) -> Any:
    """An input without an example: a tensor, a number, a tuple or a dict of such, by its type in the script
    and its default. `read`: how the script uses it. Raises OvjitError for an unknown number of tensors."""
    if kind.kind() == "OptionalType" and kind.getElementType().kind() == "ListType":
        kind = kind.getElementType()
    if kind.kind() == "TupleType":
        base = name if argument is None else argument.name
        return [unknown_input(reader, f"{base}.{i}", part) for i, part in enumerate(kind.elements())]
    if kind.kind() == "DictType" and kind.getKeyType().kind() == "StringType":
        return _UnknownDict(reader, kind.getValueType())
    if kind.kind() in ("ListType", "DictType"):
        if argument is not None and argument.has_default_value():
            return argument.default_value
        if argument is not None:
            raise OvjitError(_length_message(argument))
        text = f"The script's input {name!r} is of the type {kind.annotation_str}, of any number of items."
        raise OvjitError(f"{text}\n{EXAMPLE}, which determines their number.")
    number = _NUMBERS.get(kind.kind())
    result = reader.unknown_parameter(name, number or read.kind, read.rank)
    return result if number is None else Number(result)
