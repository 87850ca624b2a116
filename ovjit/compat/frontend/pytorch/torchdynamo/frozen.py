"""Graphs whose weights are constants, as long as they do not change.

PyTorch counts writes to a tensor, but not those to its `data`. So the memory of each weight is marked to be
copied on the next write, which then moves the weight. Reading does not move it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter, methodcaller
from typing import Any

import numpy as np
import torch

from ovjit.records import NamedTuple

#: How many bytes are looked at at the beginning, in the middle and at the end of a tensor.
SPOT = 64
#: Memory that PyTorch does not keep is looked at in steps of so many bytes, 8 of each. Of tensors up to SMALL
#: all bytes are.
STEP, SMALL = 1024, 16384
#: How often weights may change before they become inputs, and after how many calls without a change they are
#: constants again.
FEW_CHANGES, CALM = 4, 100

_own_address = getattr(torch._C, "_data_address", None)
#: Where a tensor lies. `data_ptr` is for writing: PyTorch would copy the memory that `_guarded` has marked.
address: Callable[[Any], int] = _own_address or methodcaller("data_ptr")
_version = attrgetter("_version")
_content = methodcaller("tobytes")


class _State(NamedTuple):
    """A compiled graph, and the weights that it was compiled with: where they are, how often PyTorch counted
    a write to them, views of some of their bytes, and what these were. `kept` has the memory of each weight
    as it was, None where PyTorch cannot keep it. `weights` keeps the tensors alive."""

    pointers: list[int]
    versions: list[int]
    spots: list[Any]
    contents: bytes
    steps: list[np.ndarray]
    of_steps: list[bytes]
    call: Callable[[Any], list[Any]]
    kept: list[Any]
    weights: Sequence[Any]


class Frozen:
    """A graph some of whose arguments are weights: constants, as long as they do not change.

    `places` are those arguments. Each call looks at them: where one is another tensor, has been written to
    or has moved, and its bytes are others, the graph is compiled anew by `make`. `make({})` gives the graph
    that takes all weights as inputs. It is called while weights change often, as in training.
    """

    _boxed_call = True  # for aot_autograd: all arguments come in one list

    def __init__(self, places: list[int], make: Callable[[Mapping[int, Any]], Callable[[Any], list[Any]]]):
        self.places, self.make = places, make
        self._weights = _picked(places)
        self._state: _State | None = None
        self._changes = 0
        self._calm = 0
        self._open: Callable[[Any], list[Any]] | None = None

    def __call__(self, arguments: Any) -> list[Any]:
        weights, state = self._weights(arguments), self._state
        pointers = list(map(address, weights))
        try:
            versions = list(map(_version, weights))
        except RuntimeError:
            versions = _counted(weights)
        if (
            state is None
            or pointers != state.pointers
            or versions != state.versions
            or b"".join(state.spots) != state.contents
            or list(map(_content, state.steps)) != state.of_steps
        ):
            state = self._made(weights)
        return state.call(arguments)

    def _made(self, weights: Sequence[Any]) -> _State:
        """The graph for these weights. Two threads may compile it at once: each calls its own."""
        state = self._state
        is_same = state is not None and _are_same(state, weights)
        self._changes += not is_same
        is_constant = self._changes <= FEW_CHANGES
        kept = [_guarded(weight) if is_constant else None for weight in weights]
        pointers, versions = list(map(address, weights)), _counted(weights)
        spots: list[Any] = []
        steps: list[np.ndarray] = []
        for weight, is_kept in zip(weights, kept, strict=True):
            _look_at(weight, not is_constant or is_kept is not None, spots, steps)
        contents, of_steps = b"".join(spots), list(map(_content, steps))
        if state is not None and is_same:
            call = state.call
        elif is_constant:
            call = self.make(dict(zip(self.places, weights, strict=True)))
        else:
            self._open = self._open or self.make({})
            self._calm, call = CALM, self._patient
        self._state = state = _State(
            pointers, versions, spots, contents, steps, of_steps, call, kept, weights
        )
        return state

    def _patient(self, arguments: Any) -> list[Any]:
        """The call with weights as inputs."""
        assert self._open is not None
        self._calm -= 1
        if self._calm <= 0:
            self._changes, self._state = 0, None
        return self._open(arguments)


def _picked(places: list[int]) -> Callable[[Any], Sequence[Any]]:
    if len(places) > 1:
        return itemgetter(*places)
    place = places[0]
    return lambda arguments: (arguments[place],)


def _counted(tensors: Sequence[Any]) -> list[int]:
    """How often each tensor was written to. PyTorch does not count it for tensors of inference mode."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def _guarded(tensor: Any) -> Any:
    """A tensor that keeps the memory of a weight: PyTorch copies it before the next write to the weight.

    None where PyTorch cannot: memory of NumPy, of files and of other processes.
    """
    plain = tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.is_quantized
    if address is not _own_address or not plain or tensor.is_conj() or tensor.is_neg():
        return None
    try:
        with torch.no_grad():
            return torch._lazy_clone(tensor)
    except RuntimeError:
        return None


def _are_same(state: _State, weights: Sequence[Any]) -> bool:
    """Whether weights have the bytes that they had."""
    was = zip(state.kept, state.pointers, state.versions, strict=True)
    now = zip(weights, map(address, weights), _counted(weights), strict=True)
    is_read = (b"".join(state.spots), list(map(_content, state.steps))) == (state.contents, state.of_steps)
    return is_read and all(
        (pointer, version) == (place, count) or kept is not None and _is_equal(kept, weight)
        for (kept, pointer, version), (weight, place, count) in zip(was, now, strict=True)
    )


def _is_equal(kept: Any, tensor: Any) -> bool:
    """Whether a weight has the bytes that were kept."""
    if kept.shape != tensor.shape or kept.stride() != tensor.stride() or kept.dtype != tensor.dtype:
        return False
    if address(kept) == address(tensor):
        return True
    first, second = (x.detach().reshape(-1).view(torch.uint8) for x in (kept, tensor))
    return torch.equal(first, second)


def _look_at(tensor: Any, is_kept: bool, spots: list[Any], steps: list[np.ndarray]) -> None:
    """Add views of bytes of a tensor that lies in order: at the beginning, the middle and the end; where
    PyTorch does not keep the memory, in steps, or all of them."""
    place, size = address(tensor), tensor.numel() * tensor.element_size()
    if not place or not size or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return
    starts, length = {0, size // 2, max(0, size - SPOT)}, SPOT
    if not is_kept and size <= SMALL:
        starts, length = {0}, size
    elif not is_kept:
        memory = (ctypes.c_char * size).from_address(place)
        steps.append(np.ndarray((size // STEP,), np.int64, memory, STEP // 2, (STEP,)))
    spots += [(ctypes.c_char * min(length, size - at)).from_address(place + at) for at in sorted(starts)]
