"""Python code that depends on the places of a mask, recorded so that it holds for any mask.

A recorded graph has the iterations and branches of its example. Experts of transformers run for the places
that a mask selects: `for i in mask.nonzero()`, or `if indices.numel() > 0` where `torch.where` gives the
indices. Such code changes nothing for no place, as it reads and writes empty tensors then. So a loop over
selected places is recorded over all places, and "is there any" is answered with yes. Whether a module allows
that is found by running what was recorded on the example: `agrees`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.patches import patch, suspend_tracing

#: A loop over a mask of more places than these is recorded as it runs.
MOST_PLACES = 512
#: Attributes of tensors: the mask whose places they are, as rows or as numbers; that they are selected, or
#: count what is.
_MASK, _LINE, _SELECTED, _COUNT = "_ovjit_mask", "_ovjit_line", "_ovjit_selected", "_ovjit_count"


class Assumed:
    """Flag `any`: an operation was recorded differently from how it ran.

    If `changes` is False, nothing is recorded differently, and `any` tells whether it could have been.
    """

    any = False

    def __init__(self, changes: bool = True):
        self.changes = changes


@contextlib.contextmanager
def for_any_mask(*, export: bool = False, changes: bool = True) -> Iterator[Assumed]:
    """Context manager in which selections by a mask are recorded so that they hold for any mask, in traces or
    exports.

    If `changes` is False, operations run unchanged. The result then tells whether a trace for any mask could
    differ from a plain one.
    """
    from torch.overrides import TorchFunctionMode

    assumed = Assumed(changes)
    rows = {**_rows(), **({} if export else _traced_rows())}

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            row = rows.get(function)
            if row is None:
                return function(*args, **(kwargs or {}))
            return row(assumed, function, args, kwargs or {})

    iterate = torch.Tensor.__iter__

    def each_place(self: Any) -> Any:
        line = getattr(self, _LINE, None)
        positions = _positions(getattr(self, _MASK, line))
        if positions is None:
            return iterate(self)
        assumed.any = True
        if not assumed.changes:
            return iterate(self)
        return iter([position[0] for position in positions] if line is not None else positions)

    with patch((torch.Tensor, "__iter__", each_place)), Mode():
        yield assumed


def depends_on_mask(graph: Any, warned: Sequence[Any]) -> bool:
    """Whether a trace selects or lists positions, and has iterations or branches that hold for its example
    only."""
    messages = " ".join(str(w.message) for w in warned)
    if "to a Python list" in messages:
        return True
    if "Iterating over a tensor" not in messages and "to a Python boolean" not in messages:
        return False
    if any(node.inputsSize() == 1 for node in graph.findAllNodes("aten::where")):
        return True
    kinds = ("aten::nonzero", "aten::nonzero_numpy", "aten::argwhere")
    return any(graph.findNode(kind) is not None for kind in kinds)


def _positions(mask: Any) -> list[Any] | None:
    """All positions of a mask as scalars; None if there are too many or its shape is dynamic."""
    if mask is None:
        return None
    with suspend_tracing():
        shape = tuple(mask.shape)
        if not shape or not all(isinstance(d, int) for d in shape) or math.prod(shape) > MOST_PLACES:
            return None
        return [torch.tensor(position) for position in itertools.product(*map(range, shape))]


_Row = Callable[[Assumed, Any, Sequence[Any], Mapping[str, Any]], Any]


def _rows() -> dict[Any, _Row]:
    """Return the replacements for PyTorch functions, by function."""
    return {
        torch.nonzero: _nonzero, torch.Tensor.nonzero: _nonzero, torch.where: _where,
        torch.Tensor.__getitem__: _part, torch.argwhere: _nonzero, torch.Tensor.argwhere: _nonzero,
        torch.Tensor.tolist: _to_list,
    }  # fmt: skip


def _traced_rows() -> dict[Any, _Row]:
    """The replacements for traces, in which numbers of elements are tensors."""
    tensor = torch.Tensor
    more = (tensor.__gt__, tensor.__ne__, tensor.gt, tensor.ne, tensor.__bool__)
    return {
        tensor.numel: _numel, tensor.nelement: _numel, **dict.fromkeys(more, _answer(True)),
        **dict.fromkeys((tensor.__eq__, tensor.eq), _answer(False)),
    }  # fmt: skip


def _nonzero(assumed: Assumed, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    result = function(*args, **kwargs)
    mask = args[0] if args else kwargs.get("input")
    if isinstance(result, tuple):
        return _mark_selected(result, mask)
    setattr(result, _MASK, mask)
    return _mark_selected((result,))[0]


def _where(assumed: Assumed, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    result = function(*args, **kwargs)
    mask = args[0] if args else kwargs.get("condition")
    return _mark_selected(result, mask) if isinstance(result, tuple) else result


def _mark_selected(indices: tuple[Any, ...], mask: Any = None) -> tuple[Any, ...]:
    """Mark index tensors of selected elements; torch.export assumes that they have at least one element.

    The only index tensor of a one-dimensional `mask` refers to the mask.
    """
    if mask is not None and len(indices) == 1:
        setattr(indices[0], _LINE, mask)
    for value in indices:
        setattr(value, _SELECTED, True)
        if isinstance(value.shape[0], torch.SymInt):
            torch._check(value.shape[0] >= 1)
    return indices


def _part(assumed: Assumed, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Replacement of `__getitem__`: `places[:]` is the same list of positions."""
    result = function(*args, **kwargs)
    if isinstance(args[1], slice) and args[1] == slice(None):
        for mark in (_MASK, _LINE, _SELECTED):
            if hasattr(args[0], mark):
                setattr(result, mark, getattr(args[0], mark))
    return result


def _numel(assumed: Assumed, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    result = function(*args, **kwargs)
    if hasattr(args[0], _SELECTED):
        if isinstance(result, torch.Tensor):
            setattr(result, _COUNT, True)
        elif not assumed.changes:  # a number of Python's has no marks
            assumed.any = True
    return result


def _answer(truth: bool) -> _Row:
    """Replacement of comparisons of a count with 0 that assumes selected elements."""

    def row(assumed: Assumed, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        against_zero = len(args) == 1 or (isinstance(args[1], int) and args[1] == 0)
        if not against_zero or not hasattr(args[0], _COUNT):
            return function(*args, **kwargs)
        assumed.any = True
        return truth

    return row


def _to_list(assumed: Assumed, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Replacement of `tolist`: all positions of a mask; other numbers as scalars that stay traced."""
    tensor = args[0]
    positions = _positions(getattr(tensor, _LINE, None))
    is_list = tensor.dim() == 1 and tensor.dtype in (torch.int64, torch.int32)
    if not assumed.changes:
        assumed.any = assumed.any or positions is not None or is_list
        return function(*args, **kwargs)
    if positions is not None:
        assumed.any = True
        return list(range(len(positions)))
    if not is_list or not torch.jit.is_tracing():
        return function(*args, **kwargs)
    if torch._C._get_value_trace(tensor).node().kind() == "prim::Constant":
        return function(*args, **kwargs)
    assumed.any = True
    return list(tensor.unbind())
