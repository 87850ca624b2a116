"""In-place writes of scripts: all tensors that share the memory get new values, or become unreadable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ovjit.build import Output
from ovjit.readers.torch.branches import Inside, Writes
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.naming import label, where
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.scripts.block_reader import BlockReader
from ovjit.readers.torch.scripts.layouts import (
    IN_ORDER,
    has_plain_format,
    is_view,
    layout_of_tensor,
    layout_of_view,
)
from ovjit.readers.torch.scripts.memory import TENSORS, Piece, tensors_of
from ovjit.readers.torch.scripts.shared_memory import is_read_after
from ovjit.readers.torch.scripts.views import View, as_own_tensor, parts_of_list, picked_view, view_of
from ovjit.readers.torch.values import Picked

#: Operators that give a view of a tensor where that is possible, and else a copy.
_MAY_COPY = frozenset(("contiguous", "flatten", "ravel", "reshape", "reshape_as"))
#: Operators that give a tensor as it is, or in another element type.
_CONVERT = frozenset(("to", "type_as"))


class WritingReader(BlockReader):
    """Reads a graph whose values may share memory. One Python object stands for one tensor in memory."""

    def __init__(self, converters: Mapping[str, Any] | None = None):
        super().__init__(converters)
        self.named: dict[str, Any] = {}  # the values of the graph that is read, by their names in `env`
        self._attributes: dict[str, Any] = {}  # of modules, by their paths
        self.bodies: list[tuple[Inside, dict[str, Any]]] = []  # that are read, and attributes around them

    def _copying(self, node: Any) -> Call:
        return Call(self, "copy", label(node.scopeName(), node.kind()))

    # -- what operators give ---------------------------------------------------------------------------------

    def note_parts(self, node: Any, schema: Any, kind: str, arguments: Mapping[str, Any], result: Any) -> Any:
        """Record of which tensor the result of an operator is a view. Returns the result, as a new object if
        it has memory of its own."""
        name = kind.removeprefix("aten::")
        bases = [value for value in _shared(schema, arguments) if isinstance(value, TENSORS)]
        if not bases:
            self._note_layout(node, name, arguments, result)
            return result
        base, call = bases[0], self._copying(node)
        if name in _MAY_COPY and isinstance(result, Output) and isinstance(base, Output):
            return self._note_copy(call, name, arguments, base, result)
        if name in _CONVERT and (result is not base or arguments.get("copy")):
            return as_own_tensor(result)
        if name in _CONVERT and not has_plain_format(arguments):
            result = as_own_tensor(result)
        view = None if name in _MAY_COPY else view_of(kind, schema.overload_name, arguments)
        if view is not None and isinstance(result, TENSORS):
            self._note_view(call, name, base, result, view)
        elif (parts := parts_of_list(call, kind, arguments, result)) is not None:
            for i, value in enumerate(result):
                self._note_view(call, name, base, value, parts.item(i), arguments)
        elif isinstance(result, Picked) and isinstance(base, Output):
            for i, value in result.items():
                self._note_view(call, name, base, value, picked_view(call, kind, base, arguments, i))
        else:
            for value in tensors_of(result):
                for other in bases:
                    self.memory.part(value, other, None)
        return result

    def _note_view(
        self, call: Call, name: str, base: Any, result: Any, view: View,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if result is base:
            return
        self.memory.part(result, base, view)
        piece = self.memory.piece(base)
        if isinstance(base, Output) and isinstance(result, Output):
            how = view.arguments if arguments is None else arguments
            self.memory.piece(result).layout = layout_of_view(call, name, base, piece.layout, how, result)

    def _note_copy(self, call: Call, name: str, how: Mapping[str, Any], base: Output, result: Output) -> Any:
        """Record that `result` is a view of the tensor `base`, or a copy with its strides."""
        layout = self.memory.piece(base).layout
        has_ranks = call.shape(base) is not None and call.shape(result) is not None
        is_plain = has_plain_format(how)
        decided = is_view(call, name, base, layout, result) if has_ranks and is_plain else None
        if decided is True and name == "contiguous":
            return base
        result = as_own_tensor(result)
        piece = self.memory.piece(result)
        if decided is False:
            piece.layout = IN_ORDER
            return result
        arguments = {**how, "condition": None if decided is True else decided}
        self.memory.part(result, base, None if decided is None else View.of_shape(f"aten::{name}", arguments))
        is_ordered = name in ("contiguous", "ravel") or layout == IN_ORDER
        piece.layout = IN_ORDER if is_plain and is_ordered else None
        return result

    def note_contiguous(self, values: Any) -> None:
        """Record that these tensors are contiguous."""
        for value in tensors_of(values):
            self.memory.piece(value).layout = IN_ORDER

    def note_constant(self, value: Any, tensor: Any) -> None:
        """Record the strides of a constant, which are those of PyTorch's tensor."""
        self.memory.piece(value).layout = layout_of_tensor(tensor)
        if tensor.layout is torch.strided and tensor.storage_offset():
            self.memory.join(value, tensor)  # which stands for all that is in its memory

    def _note_layout(self, node: Any, name: str, arguments: Mapping[str, Any], result: Any) -> None:
        """Record the layout of results: elementwise operators keep the order of their inputs, those that
        create tensors are row-major."""
        tensors = list(tensors_of(list(arguments.values())))
        pieces = [self.memory.find(value) for value in tensors]
        if all(piece is not None and piece.layout == IN_ORDER for piece in pieces):
            if has_plain_format(arguments) and _keeps_order(node, name):
                self.note_contiguous(result)

    # -- what is written -------------------------------------------------------------------------------------

    def check_read(self, kind: str, read: Any) -> None:
        """Raise Refused if an operator reads a tensor of unknown value, also within lists."""
        for value in tensors_of(read):
            piece = self.memory.find(value)
            if piece is not None and piece.stale:
                raise Refused(kind, piece.stale)

    def replace(self, node: Any, old: Any, value: Any) -> None:
        """Set the new value of a tensor that a node writes, and update all others in its memory."""
        if not isinstance(old, TENSORS):
            return
        piece = self.memory.piece(old)
        self._check_around(piece)
        self.memory.forget(piece.family, self._read_behind(node, piece) | {id(old)})
        call = self._copying(node)
        new: dict[int, Any] = {id(piece): value}
        self._write_to_bases(call, piece, value, new)
        lost = {id(p): p for p in piece.family if self._update_alias(call, piece, p, new) is None}
        changes = [(other, other.value, new[id(other)]) for other in piece.family if id(other) not in lost]
        self._replace_tensors({id(old): (old, after) for _, old, after in changes if old is not after})
        for other, before, after in changes:
            other.is_written = True
            if before is not after:
                self.memory.update_value(other, after)
                other.stale = other.base.stale if other.base is not None and not other.stale else other.stale
        for other in lost.values():
            other.is_written = True
            other.stale = f"{node.kind()} writes to a view{where(node)}"

    def _write_to_bases(self, call: Call, piece: Piece, value: Any, new: dict[int, Any]) -> None:
        """Write a view's new value into its base, that into the base's own base ...; put into `new` by id."""
        while piece.base is not None and piece.view is not None:
            value = piece.view.back(self, call, piece.base.value, value)
            if value is None:
                break
            piece = piece.base
            new[id(piece)] = value

    def _update_alias(self, call: Call, written: Piece, other: Piece, new: dict[int, Any]) -> Any:
        """The value of a tensor after a write to another one in its memory; None if unknown."""
        if id(other) in new:
            return new[id(other)]
        result = None
        if other.base is not None and other.view is not None:
            if any(p.base is other.base and _are_apart(p.view, other.view) for p in written.above()):
                result = other.value
            elif (base := self._update_alias(call, written, other.base, new)) is not None:
                is_same = base is other.base.value
                result = other.value if is_same else other.view.again(self, call, base, other.value)
        if result is not None:
            new[id(other)] = result
        return result

    def _replace_tensors(self, replacements: Mapping[int, tuple[Any, Any]]) -> None:
        """Replace tensors by others in all containers of values. Keys are the ids of the old tensors."""
        for holder in self._all_holders():
            _put_in(holder, replacements)

    def _read_behind(self, node: Any, written: Piece) -> set[int]:
        """The tensors in the memory of `written` that may be read after the node, by id."""
        family = {id(piece.value) for piece in written.family}
        read_ids = {id(p.value) for p in written.family if not isinstance(p.value, TENSORS)}
        read_ids |= {id(value) for holder in self._all_holders()[1:] for value in tensors_of(holder)}
        for name, entry in self.env.items():
            here = {id(value) for value in tensors_of(entry)} & family
            value = None if self.around else self.named.get(name)
            if here - read_ids and (value is None or is_read_after(value, node)):
                read_ids |= here
        return read_ids

    def _all_holders(self) -> tuple[Any, ...]:
        return self.env, self._attributes, self.shared.constants, *self.holders

    def reshape_in_place(
        self, node: Any, overload: str, arguments: Mapping[str, Any], old: Any, result: Any
    ) -> None:
        """Record that a node changes the shape of a tensor in place."""
        body_objects = self.bodies[-1][0].objects.values() if self.bodies else ()
        if self.memory.piece(old).outer is not None or any(value is old for value in body_objects):
            raise Refused(
                node.kind(), f"{node.kind()} in a branch or loop reshapes what is around it{where(node)}"
            )
        self._check_around(self.memory.piece(old))
        # the operator that is not in place, which may have overloads where this one has none
        operator = node.kind().removesuffix("_")
        overload = "int" if operator == "aten::transpose" else overload
        under = self.memory.reshape_base(old, result)
        view = view_of(operator, overload, arguments) or View.of_shape(operator, arguments)
        piece = self.memory.piece(result)
        piece.view = view
        if isinstance(old, Output):
            name = operator.removeprefix("aten::")
            piece.layout = layout_of_view(self._copying(node), name, old, under.layout, arguments, result)
        self._replace_tensors({id(old): (old, result)})

    # -- bodies ----------------------------------------------------------------------------------------------

    def _check_around(self, piece: Piece) -> None:
        """Raise Writes if a body writes to an outer tensor, unless its new value leaves the body."""
        top = piece.top
        if top.carried or not self.around or (top.outer is None and top.path is None):
            return
        raise Writes([self._name_around(top)])

    def _name_around(self, top: Piece) -> str:
        """The outer name of the tensor for which one in the body stands."""
        if top.outer is None:
            assert top.path is not None
            value = self._attribute_around(top.path)
        else:
            value = top.outer.top.value
        outer_name = next((name for name, other in self.around.items() if other is value), None)
        if outer_name is None:
            outer_name = f"memory {len(self.around)}"
            self.around[outer_name] = value
        return outer_name

    def _attribute_around(self, path: str) -> Any:
        """A module's attribute outside of the body that is being read."""
        raise NotImplementedError

    def stand_in(self, inside: Inside, value: Any) -> Any:
        """Return the body's value for an outer tensor: a view of what the body carries, or an input."""
        outer = self.memory.piece(value)
        result = self._derive_view(inside, outer)
        if result is None:
            result = inside.copy(value)
            piece = self.memory.piece(result)
            inside.pieces.append(piece)
            piece.outer, piece.stale = outer, outer.stale
            if outer.layout is not None and outer.layout.is_known:
                piece.layout = outer.layout
            if any(id(other.value) in inside.carried for other in outer.family):
                piece.stale = "a body writes to what may be a view of a tensor that it reads"
        return result

    def _derive_view(self, inside: Inside, outer: Piece) -> Any:
        if outer.base is None or outer.view is None or id(outer.top.value) not in inside.carried:
            return None
        base = inside.inner_value_of(outer.base.value)
        arguments = {key: inside.argument(part) for key, part in outer.view.arguments.items()}
        view = outer.view._replace(arguments=arguments)
        with self.in_body(inside.shared):
            result = None if arguments.get("condition") else view.again(self, inside.call, base, None)
        if result is not None:
            self.memory.part(result, base, view)
        return result

    def carry(self, inside: Inside, value: Any, inner: Any) -> None:
        """Record that a body carries an outer tensor as `inner`, which may be written."""
        piece = self.memory.piece(inner)
        inside.pieces.append(piece)
        piece.outer, piece.carried = self.memory.piece(value), True
        piece.layout = piece.outer.layout if piece.outer.layout == IN_ORDER else None

    def begin_iteration(self, outer: Any, value: Any) -> list[Piece]:
        """Begin a loop that carries `value`: in its first iteration it may share the memory of `outer`.
        Returns the pieces of `value`."""
        pieces = []
        for before, result in zip(tensors_of(outer), tensors_of(value), strict=False):
            piece = self.memory.piece(result)
            piece.outer, piece.carried = self.memory.piece(before), True
            pieces.append(piece)
        return pieces

    def end_iterations(
        self, node: Any, inside: Inside, carried: Sequence[Any], after: Sequence[Any], used: Sequence[bool]
    ) -> list[int]:
        """Return the indices of the carried tensors that the body writes in place: the loop's results are the
        content of their memory. Other tensors in that memory become unreadable. Raises Refused if an
        iteration may read, through another tensor, what an earlier one has written."""
        added = [self.memory.piece(v).family for v in tensors_of(list(inside.added.values()))]
        if any(p.is_written and p.family is family for _, mine in carried for p in mine for family in added):
            raise Refused(node.kind(), f"a loop writes to what it has added to a list{where(node)}")
        written_indices = self._written_in_place(carried, after)
        for i, ((outer, mine), result, is_used) in enumerate(zip(carried, after, used, strict=True)):
            families = [self.memory.piece(v).family for v in tensors_of(outer)]
            for piece in (self.memory.piece(v) for v in tensors_of(result)):
                others = (p for p in piece.family if p.outer is not None and p not in mine)
                families += [p.outer.family for p in others if p.outer is not None]
            is_written = any(p.is_written for p in mine)
            for here in inside.pieces:
                if here not in mine and any(here.outer in family for family in families):
                    if is_written or (is_used and here.is_written):
                        raise Refused(node.kind(), f"a loop writes to a view{where(node)}")
            for family in families if is_written and i not in written_indices else ():
                for piece in family:
                    piece.stale, piece.is_written = f"a loop writes to a view{where(node)}", True
        self.mark_unknown(inside)
        return written_indices

    def _written_in_place(self, carried: Sequence[Any], after: Sequence[Any]) -> list[int]:
        """The indices of tensors that every iteration takes, writes and returns, in memory of their own."""
        families = [[id(self.memory.piece(v).family) for v in tensors_of(outer)] for outer, _ in carried]
        ends = [[id(self.memory.piece(v).family) for v in tensors_of(result)] for result in after]
        indices = []
        for i, ((outer, mine), result) in enumerate(zip(carried, after, strict=True)):
            if not isinstance(outer, TENSORS) or not isinstance(result, TENSORS):
                continue
            piece = self.memory.piece(result)
            others = [key for j, keys in enumerate(families) if j != i for key in keys]
            other_ends = [key for j, keys in enumerate(ends) if j != i for key in keys]
            is_own = id(self.memory.piece(outer).family) not in others and id(piece.family) not in other_ends
            if is_own and piece in mine and piece.is_written:
                indices.append(i)
        return indices

    def note_outputs(self, outputs: Sequence[Any], ends: Sequence[Sequence[Any]]) -> None:
        """Record that outputs of a node with bodies may share outer memory. `ends` are outputs by body."""
        shared: dict[int, Any] = {}
        for i, output in enumerate(outputs):
            for value in tensors_of([output]):
                inner = [v for end in ends for v in tensors_of([end[i]])]
                for piece in filter(None, map(self.memory.find, inner)):
                    self.memory.join(value, shared.setdefault(id(piece.family), value))
                    for other in piece.family:
                        if other.outer is not None:
                            self.memory.join(value, other.outer.value)
                    self.memory.piece(value).stale = self.memory.piece(value).stale or piece.stale
                pieces = [self.memory.find(v) for v in inner]
                if all(piece is not None and piece.layout == IN_ORDER for piece in pieces):
                    self.memory.piece(value).layout = IN_ORDER

    def mark_unknown(self, inside: Inside) -> None:
        """Mark outer tensors that a body writes without carrying them as unreadable after the body."""
        for piece in inside.pieces:
            if piece.outer is not None and not piece.carried and piece.stale and piece.is_written:
                for other in piece.outer.family:
                    other.stale, other.is_written = piece.stale, True


def _put_in(holder: Any, replacements: Mapping[int, tuple[Any, Any]]) -> None:
    for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
        if id(value) in replacements:
            holder[key] = replacements[id(value)][1]
        elif isinstance(value, (list, dict)):
            _put_in(value, replacements)


def _are_apart(view: View | None, other: View | None) -> bool:
    return view is not None and other is not None and view.is_other_item(other)


def _shared(schema: Any, arguments: Mapping[str, Any]) -> Iterable[Any]:
    """The arguments with which the results of an operator may share memory."""
    shared = {name for r in schema.returns if r.alias_info is not None for name in r.alias_info.before_set}
    for argument in schema.arguments:
        alias = argument.alias_info
        if alias is not None and not alias.is_write and (alias.before_set & shared or "*" in alias.after_set):
            yield arguments[argument.name]


def own_memory(schema: Any, result: Any, writes: bool) -> Any:
    """Results as separate objects, except views: one object is one tensor in memory.

    A rule may give what it was given, as that of `clone` does.
    """
    if isinstance(result, list) and len(result) == len(schema.returns) > 1:
        return [as_own_tensor(v) if writes or r.alias_info is None else v
                for v, r in zip(result, schema.returns, strict=True)]  # fmt: skip
    is_new = writes or not schema.returns or schema.returns[0].alias_info is None
    return as_own_tensor(result) if is_new else result


#: Operators that give tensors in order where their inputs are in order, beside those of elements.
_IN_ORDER = frozenset((
    "addmm", "amax", "amin", "arange", "argmax", "argmin", "avg_pool2d", "batch_norm", "bmm", "cat",
    "clone", "constant_pad_nd", "cumsum", "embedding", "empty", "empty_like", "eye", "flip", "full",
    "full_like", "gather", "index_select", "layer_norm", "linear", "linspace", "log_softmax", "max",
    "max_pool2d", "mean", "min", "mm", "ones", "ones_like", "outer", "pad", "prod", "rand", "rand_like",
    "randn", "randn_like", "repeat", "roll", "scalar_tensor", "softmax", "stack", "sum", "tensor",
    "tril", "triu", "zeros", "zeros_like",
))  # fmt: skip


def _keeps_order(node: Any, name: str) -> bool:
    if name in _IN_ORDER:
        return True
    overload = torch._C.parse_schema(node.schema()).overload_name or "default"
    operator = getattr(getattr(torch.ops.aten, name, None), overload, None)
    return operator is not None and torch.Tag.pointwise in operator.tags
