"""List and dict operations of scripts. Lists of data-dependent length are `Stacked`, others Python's."""

from __future__ import annotations

from ovjit.graph.op import TensorType
from ovjit.readers.torch.operators.numbers import sorted_items
from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.scripts.block_reader import BlockReader
from ovjit.readers.torch.scripts.memory import tensors_of


def is_changed(node: Any) -> bool:
    """Whether a node is an operator that changes a list or a dict."""
    if node.kind() not in _LISTS and node.kind() not in _DICTS:
        return False
    inputs = list(node.inputs())
    return bool(inputs) and inputs[0].type().kind() in ("ListType", "DictType")


def change(reader: BlockReader, node: Any) -> None:
    """Apply an operator that changes a list or dict to the value of all its names."""
    kind = node.kind()
    values, *arguments = (reader.look_up(v) for v in node.inputs())
    call = Call(reader, kind, node.scopeName())
    argument = arguments[0] if kind in _OF_LISTS and arguments else None
    if isinstance(argument, Stacked) and isinstance(values, list):  # what is added has another length
        replace(reader, values, values := stack_items(call, values, argument))
    if isinstance(values, Stacked):
        rule = _STACKS.get(kind)
        if rule is None:
            raise UnsupportedError(f"{kind} of a list whose length depends on data is not supported")
        after, result = rule(call, values, *arguments)
        replace(reader, values, after)
        values = after
    else:
        result = (_DICTS if isinstance(values, dict) else _LISTS)[kind](call, values, *arguments)
    for output in node.outputs():
        same = str(output.type()) == str(node.inputsAt(0).type()) and result is None
        reader.env[output.debugName()] = values if same else result


def replace(reader: BlockReader, old: Any, new: Any) -> None:
    """Replace a list by another value under all its names and in all lists that contain it."""
    reader.join_stacked([new], list(tensors_of(old)))
    for name, value in reader.env.items():
        reader.env[name] = _replace_item(value, old, new)


def _replace_item(value: Any, old: Any, new: Any) -> Any:
    if value is old:
        return new
    if isinstance(value, list):
        value[:] = [_replace_item(v, old, new) for v in value]
    elif isinstance(value, dict):
        value.update({k: _replace_item(v, old, new) for k, v in value.items()})
    return value


def assign(reader: BlockReader, node: Any, name: str, value: Any) -> None:
    """Set the value of a tensor, list or dict to what a body has computed for it."""
    old = reader.env[name]
    if isinstance(old, list) and isinstance(value, list):
        old[:] = value
    elif isinstance(old, dict) and isinstance(value, dict):
        old.clear()
        old.update(value)
    elif isinstance(old, (list, Stacked)):
        replace(reader, old, value)
    else:
        reader.replace(node, old, value)


def copy_containers(value: Any) -> Any:
    """Copy nested lists and dicts, but not the tensors in them."""
    if isinstance(value, list):
        return [copy_containers(v) for v in value]
    return {k: copy_containers(v) for k, v in value.items()} if isinstance(value, dict) else value


def is_same(a: Any, b: Any) -> bool:
    """Whether nested lists and dicts contain the same objects."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(is_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(is_same(v, b[k]) for k, v in a.items())
    return a is b


def restore(contents: Sequence[tuple[Any, Any]]) -> None:
    """Restore lists and dicts to the `contents` that `copy_containers` saved."""
    for value, before in contents:
        if isinstance(value, list):
            value[:] = before
        elif isinstance(value, dict):
            value.clear()
            value.update(before)


# -- lists of a length that depends on data ------------------------------------------------------------------


def stack_items(call: Call, values: list[Any], like: Any) -> Stacked:
    """Stack a list of static length. An empty one gets the shape and type of the items of `like`."""
    if isinstance(like, Stacked):
        numbers, kind = like.numbers, call.type(like.rows)
        shape = None if kind.shape is None else kind.shape[1:]
    else:
        numbers = not isinstance(like, Output)
        kind = call.type(_item(call, like))
        shape = kind.shape
    if values:
        rows = call.same_kind([_item(call, v) for v in values])
        return Stacked(call.concat([call.unsqueeze(row, [0]) for row in rows], 0), numbers)
    return Stacked(call.fill(0, [0, *_dims(call, TensorType(kind.dtype, shape))], kind.dtype), numbers)


def _dims(call: Call, kind: TensorType) -> list[Any]:
    """The shape of items of an empty list. Dynamic dimensions are those of known tensors."""
    result: list[Any] = []
    for dim in kind.shape if kind.shape is not None else [None]:
        number = None if isinstance(dim, Interval) else dim
        if isinstance(dim, Interval) and dim.key is not None:
            number = call.reader.number_of(call, dim)
        if number is None:
            raise UnsupportedError(
                "an initially empty list whose length depends on data is not supported for these items"
            )
        result.append(number)
    return result


def _item(call: Call, value: Any) -> Output:
    if isinstance(value, (list, dict, Stacked, str)) or value is None:
        raise UnsupportedError("a list whose length depends on data can hold only tensors")
    if isinstance(value, float):
        return call.const(value, "f64")
    return call.tensor(value)


def item_of(call: Call, values: Stacked, index: Any) -> Any:
    """One item of a list."""
    result = call("Gather", values.rows, call.scalar(call.tensor(index)), 0)
    return Number(result) if values.numbers else result


def _row(call: Call, values: Stacked, item: Any) -> Output:
    return call.unsqueeze(call.to_type(_item(call, item), call.dtype(values.rows)), [0])


def _join(call: Call, values: Stacked, *parts: Output) -> Stacked:
    return Stacked(call.concat(list(parts), 0), values.numbers)


def _rows_of(call: Call, values: Stacked, other: Any) -> list[Output]:
    """A list as a tensor of rows, to concatenate with that of `other`."""
    if isinstance(other, Stacked):
        return [other.rows]
    return [_row(call, values, item) for item in other]


def _stack_insert(call: Call, values: Stacked, index: Any, item: Any) -> tuple[Stacked, None]:
    row, rows = _row(call, values, item), values.rows
    if call.known_number(index) == 0:
        return _join(call, values, row, rows), None
    before, after = call.cut(rows, 0, 0, index), call.cut(rows, 0, index, LAST)
    return _join(call, values, before, row, after), None


def _stack_pop(call: Call, values: Stacked, index: Any = -1) -> tuple[Stacked, Any]:
    at, rows = call.known_int(index, "the index of a list"), values.rows
    parts = [call.cut(rows, 0, 0, at)] if at else []
    parts += [call.cut(rows, 0, at + 1, LAST)] if at != -1 else []
    return _join(call, values, *parts), item_of(call, values, at)


def _stack_set(call: Call, values: Stacked, index: Any, item: Any) -> tuple[Stacked, None]:
    indices = call.reshape(call.tensor(index), [1])
    result = call("ScatterUpdate", values.rows, indices, _row(call, values, item), 0)
    return Stacked(result, values.numbers), None


def _sorted(n: Call, values: Stacked, reverse: Any) -> Stacked:
    return Stacked(n.also("sort", values.rows, descending=bool(reverse))[0], values.numbers)


_STACKS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "aten::append": lambda n, x, item: (_join(n, x, x.rows, _row(n, x, item)), None),
    "aten::extend": lambda n, x, other: (_join(n, x, x.rows, *_rows_of(n, x, other)), None),
    "aten::add_": lambda n, x, other: (_join(n, x, x.rows, *_rows_of(n, x, other)), None),
    "aten::insert": _stack_insert,
    "aten::pop": _stack_pop,
    "aten::Delete": lambda n, x, index: (_stack_pop(n, x, index)[0], None),
    "aten::reverse": lambda n, x: (Stacked(n.also("flip", x.rows, [0]), x.numbers), None),
    "aten::clear": lambda n, x: ([], None),
    "aten::_set_item": _stack_set,
    "aten::sort": lambda n, x, reverse=False: (_sorted(n, x, reverse), None),
}

# -- lists and dicts of a known length -----------------------------------------------------------------------


def _at(n: Call, index: Any) -> int:
    return n.known_int(index, "the index of a list")


def _set(n: Call, x: list[Any], index: Any, item: Any) -> None:
    x[_at(n, index)] = item


def _delete(n: Call, x: list[Any], index: Any) -> None:
    del x[_at(n, index)]


def _sort(n: Call, x: list[Any], reverse: Any = False) -> None:
    if any(isinstance(v, Output) for v in x):
        raise UnsupportedError("sorting a list of tensors is not supported")
    x[:] = sorted_items(n, x, bool(reverse))


def _remove(n: Call, x: list[Any], item: Any) -> None:
    numbers = [n.known_number(v) if isinstance(v, (Output, Number)) else v for v in (*x, item)]
    if None in numbers:
        raise UnsupportedError("removing an item that depends on data from a list is not supported")
    del x[numbers.index(numbers[-1])]


_LISTS: dict[str, Callable[..., Any]] = {
    "aten::append": lambda n, x, item: x.append(item),
    "aten::extend": lambda n, x, other: x.extend(other),
    "aten::add_": lambda n, x, other: x.extend(other),
    "aten::insert": lambda n, x, index, item: x.insert(_at(n, index), item),
    "aten::pop": lambda n, x, index=-1: x.pop(_at(n, index)),
    "aten::Delete": _delete,
    "aten::remove": _remove,
    "aten::reverse": lambda n, x: x.reverse(),
    "aten::clear": lambda n, x: x.clear(),
    "aten::_set_item": _set,
    "aten::sort": _sort,
}
#: Those whose argument is a list, too.
_OF_LISTS = ("aten::extend", "aten::add_")
_DICTS: dict[str, Callable[..., Any]] = {
    "aten::_set_item": lambda n, x, key, item: x.__setitem__(key, item),
    "aten::Delete": lambda n, x, key: x.__delitem__(key),
    "aten::pop": lambda n, x, *default: x.pop(*default),
    "aten::popitem": lambda n, x: list(x.popitem()),
    "aten::setdefault": lambda n, x, key, item: x.setdefault(key, item),
    "aten::update": lambda n, x, other: x.update(other),
    "aten::clear": lambda n, x: x.clear(),
}
