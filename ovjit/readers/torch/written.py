"""What a script writes in place: later readers of the memory get the new value, or the script is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ovjit.api.model.node import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.containers import items_of, overwrite_items
from ovjit.readers.torch.graph import Refused, TorchReader
from ovjit.readers.torch.naming import label, where
from ovjit.readers.torch.shared_memory import SharedMemory
from ovjit.readers.torch.values import Picked, Stacked
from ovjit.readers.torch.views import View, parts_of_list, view_of, written_back

#: Types of lists without tensors.
_OF_NUMBERS = ("int[]", "float[]", "bool[]", "str[]")


class WritingReader(TorchReader):
    """Reads a graph whose values may share memory. One object of Python's stands for one tensor in memory."""

    def __init__(self, converters: Mapping[str, Any] | None = None):
        super().__init__(converters)
        self.env: dict[str, Any] = {}
        self.around: dict[str, Any] = {}  # what `env` was around the body that is read
        self._shared = SharedMemory()
        self.views: dict[str, View] = {}  # by the names of values
        self._holding: dict[str, None] = {}  # names of lists and dicts of more than numbers
        self._items: dict[int, tuple[Any, View]] = {}  # items of lists of parts, by their objects

    def _value(self, value: Any) -> Any:
        return self.env[value.debugName()]

    def _note_parts(
        self, node: Any, kind: str, overload: str, arguments: Mapping[str, Any], made: Any
    ) -> None:
        """Remember what a view, or the items of a list, are parts of."""
        name = node.output().debugName()
        if (view := view_of(node, kind, overload, arguments)) is not None:
            self.views[name] = view._replace(body=self.around)
        elif (parts := parts_of_list(self._copying(node), node, kind, arguments, made)) is not None:
            for i, value in enumerate(made):
                self._items[id(value)] = value, parts.item(name, i)._replace(body=self.around)
        self._hold(node.output())
        if kind == "aten::__getitem__" and isinstance(made, Output):
            self._note_item(node.output(), node.inputsAt(0))

    def _note_item(self, output: Any, listed: Any) -> None:
        """An item of a list shares memory with the other names of the same tensor, and with what it is a part
        of."""
        made = self._value(output)
        self._shared.leave(output.debugName())
        found = self._items.get(id(made))
        if found is not None and found[1].listed is not None:
            self.views[output.debugName()] = found[1]
            self._shared.join_named(output, found[1].listed[0])
        elif isinstance(self._value(listed), (Stacked, Picked)):
            self._shared.join(output, listed)
        for name, value in self.env.items():
            if value is made and name != output.debugName():
                self._shared.join_named(output, name)
                return

    def _copying(self, node: Any) -> Call:
        return Call(self, "copy", "", label(node.scopeName(), node.kind()), self._inner)

    def replace(self, node: Any, name: str, made: Any) -> None:
        """A node gives the tensor of this name a new value, and what it is a part of."""
        old, self.env[name] = self.env[name], made
        call = self._copying(node)
        pairs = [(old, made), *written_back(self, call, name, made)]
        beside = self._shared.names_beside(name) & self.env.keys()
        if isinstance(made, Output):
            self._renew(call, name, beside, pairs)
        stale = []
        own = self.views.get(name)
        for other in beside:
            value = self.env[other]
            new = next((new for before, new in pairs if value is before), None)
            if new is not None and not isinstance(value, (list, dict)):
                self.env[other] = new
            elif not isinstance(value, (list, dict)) and all(value is not new for _, new in pairs):
                if own is not None and own.is_apart(self.views.get(other)):
                    continue
                stale.append(value)
                if self._shared.is_read_behind(node, other):
                    raise Refused(node.kind(), f"{node.kind()} writes to a view{where(node)}")
        if isinstance(made, Output):
            for before, new in pairs:
                if id(before) in self._items:
                    self._items[id(new)] = new, self._items[id(before)][1]
            overwrite_items(dict(self._containers()).values(), pairs)
            self._check_items(node, {id(v) for v in stale if isinstance(v, Output)})

    def _reshape(self, node: Any, overload: str, arguments: Mapping[str, Any], made: Any) -> None:
        """A node gives a tensor another shape in the same memory. What are views of the tensor are now views
        of what it was, and so is the tensor itself."""
        name, output = node.inputsAt(0).debugName(), node.output().debugName()
        old, earlier = self.env[name], f"{name} before {output}"
        self.env[earlier] = old
        self._shared.add(earlier, name)
        for other, view in list(self.views.items()):
            if view.base == name:
                self.views[other] = view._replace(base=earlier)
        for value, view in list(self._items.values()):
            if view.base == name:
                self._items[id(value)] = value, view._replace(base=earlier)
        if name in self.views:
            self.views[earlier] = self.views[name]
        operator = node.kind().removesuffix("_")
        overload = (
            "int" if operator == "aten::transpose" else overload
        )  # of the operator that is not in place
        view = view_of(node, operator, overload, arguments) or View(name, None, arguments, operator=operator)
        for other in {name, output, *self._shared.names_of_tensor(name)}:
            if other in (name, output) or self.env.get(other) is old:
                self.env[other] = made
                self.views[other] = view._replace(base=earlier, body=self.around)

    def _renew(self, call: Call, name: str, beside: set[str], pairs: list[tuple[Any, Any]]) -> None:
        """Add to pairs of old and new values the other views of the memory that a write to `name` changes,
        and items of lists that are such views. Those that cannot be computed stay away."""
        own = self.views.get(name)
        new = {id(before): after for before, after in pairs}
        new.update((id(after), after) for _, after in pairs)

        def renewed(value: Any, view: View | None) -> Any:
            if id(value) in new or view is None or (own is not None and own.is_apart(view)):
                return new.get(id(value))
            base = renewed(self.env.get(view.base), self.views.get(view.base))
            made = view.again(self, call, base) if isinstance(base, Output) else None
            if made is not None:
                new[id(value)] = new[id(made)] = made
                pairs.append((value, made))
            return made

        for other in beside:
            if isinstance(self.env[other], Output):
                renewed(self.env[other], self.views.get(other))
        for value, view in list(self._items.values()):
            if view.base in beside:
                renewed(value, view)

    def _check_items(self, node: Any, stale: set[int]) -> None:
        """Lists that are read later must not hold views of what was written: tensors in `stale`."""
        for name, value in self._containers() if stale else ():
            if any(id(item) in stale for item in items_of(value)):
                if self._shared.is_read_behind(node, name):
                    said = f"{node.kind()} writes to a view that a list holds{where(node)}"
                    raise Refused(node.kind(), said)

    def _containers(self) -> Iterator[tuple[str, Any]]:
        """Lists and dicts of more than numbers, and their names."""
        for name in self._holding:
            value = self.env.get(name)
            if isinstance(value, (list, dict)):
                yield name, value

    def _hold(self, value: Any) -> None:
        """Remember a list or a dict that may hold tensors."""
        if isinstance(self.env.get(value.debugName()), (list, dict)) and str(value.type()) not in _OF_NUMBERS:
            self._holding[value.debugName()] = None
            self._shared.note(value)


def own_memory(schema: Any, made: Any, writes: bool) -> Any:
    """Results as objects of their own, but for views: one object is one tensor in memory.

    A rule may give what it was given, as that of `clone` does.
    """
    if isinstance(made, list) and len(made) == len(schema.returns) > 1:
        return [_own(v) if writes or r.alias_info is None else v
                for v, r in zip(made, schema.returns, strict=True)]  # fmt: skip
    return _own(made) if writes or not schema.returns or schema.returns[0].alias_info is None else made


def _own(value: Any) -> Any:
    return Output._of(value._node, value._index) if type(value) is Output else value
