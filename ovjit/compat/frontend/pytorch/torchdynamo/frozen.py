"""Graphs whose weights are constants, as long as they do not change.

What was tried and lost: PyTorch's copy-on-write (`torch._lazy_clone`) makes a weight move at its next write,
also to `tensor.data`. But a NumPy array that shares the weight's memory is then an array of freed memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter, methodcaller
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.records import NamedTuple

#: How many bytes are looked at in one place.
SPOT = 64
#: How often weights may change before they become inputs, and after how many calls without a change they are
#: constants again.
FEW_CHANGES, CALLS_UNTIL_RETRY = 4, 100

_pointer, _version = methodcaller("data_ptr"), attrgetter("_version")


class _State(NamedTuple):
    """A compiled graph and the weights that it was compiled with: their indices among the arguments, their
    addresses, PyTorch's counts of writes to them, views of a few of their bytes, and the contents of these.
    `pick` selects them from the arguments, `weights` keeps them alive."""

    indices: list[int]
    pick: Callable[[Any], Sequence[Any]]
    pointers: list[int]
    versions: list[int]
    samples: list[Any]
    contents: bytes
    call: Callable[[Any], list[Any]]
    weights: Sequence[Any]


class Frozen:
    """A graph with weights among its arguments, compiled as constants as long as they do not change.

    `indices` are the indices of the weights. Each call checks them: if one is another tensor or has been
    written to, `make` compiles the graph again. PyTorch does not count writes to `tensor.data`: they are
    detected by a few of the bytes. It counts no writes to tensors of inference mode: these stay inputs.
    Buffers and attributes that the module replaces, such as a cache that grows, are inputs from the first
    change on. `make({})` compiles the graph with all weights as inputs. It is called while weights change
    often, as in training.
    """

    _boxed_call = True  # for aot_autograd: all arguments come in one list

    def __init__(self, indices: list[int], make: Callable[[Mapping[int, Any]], Callable[[Any], list[Any]]]):
        self.make = make
        self._state = _State(indices, _make_picker(indices), [], [], [], b"", _not_compiled, ())
        self._changes = 0
        self._calls_until_retry = 0
        self._open: Callable[[Any], list[Any]] | None = None

    def __call__(self, arguments: Any) -> list[Any]:
        state = self._state
        weights = state.pick(arguments)
        pointers = list(map(_pointer, weights))
        try:
            versions = list(map(_version, weights))
        except RuntimeError:
            versions = _count_writes(weights)
        if (
            pointers != state.pointers
            or versions != state.versions
            or b"".join(state.samples) != state.contents
        ):
            state = self._recompile(state, arguments)
        return state.call(arguments)

    def _recompile(self, old: _State, arguments: Any) -> _State:
        """Compile the graph with these weights. Two threads may do so at once: each calls its own result."""
        moved = _find_replaced(old, arguments)
        indices = [index for index in old.indices if index not in moved]
        picked = _make_picker(indices) if moved else old.pick
        weights = picked(arguments)
        pointers, versions = list(map(_pointer, weights)), _count_writes(weights)
        samples = _sample_bytes(weights)
        contents = b"".join(samples)
        self._changes += 1
        if self._changes <= FEW_CHANGES:
            pairs = zip(indices, weights, strict=True)
            call = self.make({index: weight for index, weight in pairs if not weight.is_inference()})
        else:
            self._open = self._open or self.make({})
            self._calls_until_retry, call = CALLS_UNTIL_RETRY, self._call_with_inputs
        self._state = state = _State(indices, picked, pointers, versions, samples, contents, call, weights)
        return state

    def _call_with_inputs(self, arguments: Any) -> list[Any]:
        """Call the graph with weights as inputs. After some calls it is compiled with constants again."""
        assert self._open is not None
        self._calls_until_retry -= 1
        if self._calls_until_retry <= 0:
            self._changes, self._state = 0, self._state._replace(pointers=[])
        return self._open(arguments)


def _not_compiled(arguments: Any) -> list[Any]:
    raise AssertionError("the graph is not compiled yet")


def _make_picker(indices: list[int]) -> Callable[[Any], Sequence[Any]]:
    if len(indices) > 1:
        return itemgetter(*indices)
    if not indices:
        return lambda arguments: ()
    index = indices[0]
    return lambda arguments: (arguments[index],)


def _find_replaced(old: _State, arguments: Any) -> set[int]:
    """The indices of weights that are other tensors now, except parameters, which seldom are replaced."""
    if not old.pointers:
        return set()
    states = zip(old.indices, old.pick(arguments), old.pointers, strict=True)
    return {
        index
        for index, tensor, pointer in states
        if tensor.data_ptr() != pointer and not isinstance(tensor, torch.nn.Parameter)
    }


def _count_writes(tensors: Sequence[Any]) -> list[int]:
    """The number of writes to each tensor; 0 for inference tensors, whose writes PyTorch does not count."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def _sample_bytes(tensors: Sequence[Any]) -> list[Any]:
    """Views of a few bytes at the beginning, the middle and the end of each contiguous tensor."""
    views = []
    for tensor in tensors:
        address, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        if not address or not size or tensor.device.type != "cpu" or not tensor.is_contiguous():
            continue
        starts = {0, size // 2, max(0, size - SPOT)}
        views += [(ctypes.c_char * min(SPOT, size - at)).from_address(address + at) for at in sorted(starts)]
    return views
