"""Which values of a script may share memory, and whether one of them is read behind a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SharedMemory:
    """Sets of values, named as the script names them. A value that was never joined is alone."""

    def __init__(self) -> None:
        self._group: dict[str, str] = {}  # values of one set have one name here
        self._members: dict[str, set[str]] = {}
        self._values: dict[str, Any] = {}

    def names_beside(self, name: str) -> set[str]:
        """All values that may share memory with this one, itself included."""
        return self._members.get(self._group.get(name, name), {name})

    def join(self, a: Any, b: Any) -> None:
        """The two may share memory, and so may all that share memory with either."""
        names = [a.debugName(), b.debugName()]
        self._values.update(zip(names, (a, b), strict=True))
        members = self.names_beside(names[0]) | self.names_beside(names[1])
        group = self._group.get(names[1], names[1])
        for name in members:
            self._group[name] = group
        self._members[group] = members

    def add(self, name: str, first: str) -> None:
        """`name` is another name of the memory of `first`, an attribute that was read before."""
        self._members.setdefault(self._group.get(first, first), {first}).add(name)
        self._group[name] = self._group.setdefault(first, first)

    def is_read_behind(self, node: Any, name: str) -> bool:
        """Whether the value has a reader behind the node, or before it in the next iteration of a loop."""
        value = self._values.get(name)
        if value is None:
            return False
        users = [use.user for use in value.uses()]
        outer = [loop for loop in _loops(node) if not _is_in(loop, _loops(value.node()))]
        again = any(_is_in(loop, _loops(user)) for user in users for loop in outer)
        return again or any(_is_after(user, node) for user in users)


def _is_after(other: Any, node: Any) -> bool:
    """Whether a node runs behind another one of its block, or inside of a node that does."""
    return bool(other.isAfter(node))


def _loops(node: Any) -> list[Any]:
    """The loops that a node is in."""
    found = []
    while (node := node.owningBlock().owningNode()) is not None:
        if node.kind() == "prim::Loop":
            found.append(node)
    return found


def _is_in(node: Any, others: Sequence[Any]) -> bool:
    return any(node is other for other in others)
