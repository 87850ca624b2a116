"""Memory of a script's tensors: views of other tensors, and tensors that may share memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ovjit.build import Output
from ovjit.readers.torch.scripts.layouts import Layout
from ovjit.readers.torch.scripts.views import View
from ovjit.readers.torch.values import Complex, Stacked

#: What stands for tensors, and for lists of an unknown number of them.
TENSORS = (Output, Complex, Stacked)


class Piece:
    """A tensor in memory. `value`: the object with its current value."""

    __slots__ = ("base", "carried", "family", "is_written", "layout", "outer", "path", "stale", "value",
                 "view")  # fmt: skip

    def __init__(self, value: Any):
        self.value = value
        self.base: Piece | None = None  # what it is a part of
        self.view: View | None = None  # how it is a part of `base`
        self.family: list[Piece] = [self]  # all that may share memory with it, itself included
        self.outer: Piece | None = None  # what it stands for, in a body
        self.carried = False  # whether its new value leaves the body that it is in
        self.path: str | None = None  # of an attribute that it is
        self.layout: Layout | None = None
        self.stale = ""  # why its value is not known, if it is not
        self.is_written = False

    @property
    def top(self) -> Piece:
        """The base tensor: the one of which this is a view, directly or not, and which is no view itself."""
        piece = self
        while piece.base is not None:
            piece = piece.base
        return piece

    def above(self) -> Iterator[Piece]:
        """Yield this piece, the piece of which it is a view, and so on."""
        piece: Piece | None = self
        while piece is not None:
            yield piece
            piece = piece.base


class Memory:
    """The pieces of all tensors, by the ids of their values."""

    def __init__(self) -> None:
        self._pieces: dict[int, Piece] = {}

    def find(self, value: Any) -> Piece | None:
        return self._pieces.get(id(value))

    def piece(self, value: Any) -> Piece:
        piece = self._pieces.get(id(value))
        if piece is None:
            piece = self._pieces[id(value)] = Piece(value)
        return piece

    def join(self, a: Any, b: Any) -> None:
        """Record that two tensors, and all that share memory with either, may share memory."""
        first, second = self.piece(a).family, self.piece(b).family
        if first is not second:
            first += second
            for piece in second:
                piece.family = first

    def part(self, value: Any, base: Any, view: View | None) -> None:
        """Record that a tensor is a view of `base`; without `view` it may be one, of an unknown part."""
        piece, base_piece = self.piece(value), self.piece(base)
        if piece is base_piece:
            return
        if view is not None and piece.base is None and base_piece.top is not piece:
            piece.base, piece.view = base_piece, view
        self.join(value, base)

    def update_value(self, piece: Piece, value: Any) -> None:
        """Set a new value of a tensor."""
        if self._pieces.get(id(piece.value)) is piece:
            del self._pieces[id(piece.value)]
        piece.value = value
        self._pieces[id(value)] = piece

    def reshape_base(self, value: Any, reshaped: Any) -> Piece:
        """Change a tensor's shape in its memory to that of `reshaped`. Its old shape becomes a new tensor, of
        which this one is now a view. Returns the new tensor."""
        piece = self.piece(value)
        under = Piece(value)
        for name in ("base", "view", "layout", "outer", "carried", "path", "stale"):
            setattr(under, name, getattr(piece, name))
        for other in piece.family:
            if other.base is piece:
                other.base = under
        piece.family.append(under)
        under.family = piece.family
        piece.base, piece.view, piece.outer, piece.layout = under, None, None, None
        self._pieces[id(value)] = under
        piece.value = reshaped
        self._pieces[id(reshaped)] = piece
        return under

    def forget(self, family: list[Piece], live_ids: set[int]) -> None:
        """Remove tensors that are no longer referenced; `live_ids`: the ids of those that are."""
        kept_ids = {
            id(piece) for p in family if id(p.value) in live_ids or p.outer or p.path for piece in p.above()
        }
        for piece in family:
            if id(piece) not in kept_ids and self._pieces.get(id(piece.value)) is piece:
                del self._pieces[id(piece.value)]
        family[:] = [piece for piece in family if id(piece) in kept_ids]

    def save(self) -> list[Any]:
        """Return the current state. `restore` takes it to undo later writes."""
        families = {id(p.family): (p.family, list(p.family)) for p in self._pieces.values()}
        return [(key, p, *families[id(p.family)], p.value, p.base, p.view, p.outer, p.layout, p.stale,
                 p.is_written) for key, p in self._pieces.items()]  # fmt: skip

    def restore(self, saved: list[Any]) -> None:
        self._pieces = {}
        for key, piece, family, members, *state in saved:
            self._pieces[key] = piece
            piece.family = family
            family[:] = members
            (piece.value, piece.base, piece.view, piece.outer, piece.layout, piece.stale,
             piece.is_written) = state  # fmt: skip


def tensors_of(value: Any) -> Iterator[Any]:
    """The tensors in a value, which may be lists and dicts."""
    if isinstance(value, TENSORS):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(part)
