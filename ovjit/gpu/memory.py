"""Memory of a card: blocks that belong to an object, and copies between tensors with strides."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.gpu.driver import Card
from ovjit.records import NamedTuple


class Resource:
    """A resource that this process has of a card's driver, released with this object."""

    def __init__(self, card: Card):
        self.card, self._pid = card, os.getpid()

    def _release(self) -> None:
        raise NotImplementedError

    def __del__(self) -> None:
        if os is not None and os.getpid() == self._pid and not sys.is_finalizing():
            try:
                self._release()
            except Exception:  # it was not allocated, or the card is lost
                pass


class DeviceMemory(Resource):
    """Bytes of a card's memory, freed with this object."""

    def __init__(self, card: Card, size: int):
        super().__init__(card)
        self.size, self.address = size, card.allocate(size)

    def _release(self) -> None:
        self.card.free(self.address)


class PinnedMemory(Resource):
    """Host memory that the driver copies without a buffer between, freed with this object. `array`: its
    bytes, which must not be used after that; see `lend`."""

    def __init__(self, card: Card, size: int):
        super().__init__(card)
        self.array = card.allocate_pinned(size)

    def lend(self, size: int) -> np.ndarray:
        """Its first bytes as an array that keeps the memory, as do all of its views."""
        buffer = (ctypes.c_uint8 * size).from_address(self.array.ctypes.data)
        buffer.memory = self  # type: ignore[attr-defined]
        return np.frombuffer(memoryview(buffer), np.uint8)

    def _release(self) -> None:
        self.card.free_pinned(self.array)


class Stream(Resource):
    """A stream of a card, destroyed with this object."""

    def __init__(self, card: Card):
        super().__init__(card)
        self.handle = card.create_stream()

    def _release(self) -> None:
        self.card.destroy_stream(self.handle)


class DeviceTensor(NamedTuple):
    """A tensor in a card's memory. `strides`: in bytes. `owner`: keeps the memory alive."""

    card: Card
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    owner: Any

    @property
    def size(self) -> int:
        """The number of bytes from the first element to the end of the last one."""
        if 0 in self.shape:
            return 0
        return sum((d - 1) * s for d, s in zip(self.shape, self.strides, strict=True)) + self.itemsize

    @property
    def is_contiguous(self) -> bool:
        return self.size == math.prod(self.shape) * self.itemsize

    def overlaps(self, address: int, size: int) -> bool:
        """True if its memory has one of these bytes."""
        return address < self.address + self.size and self.address < address + size


def row_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """The strides in bytes of a contiguous tensor."""
    strides: list[int] = []
    for dim in reversed(shape):
        strides.append(itemsize)
        itemsize *= dim
    return tuple(reversed(strides))


def contiguous_runs(
    shape: Sequence[int], itemsize: int, *strides: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield (offset in each of the tensors, bytes) of the ranges that are contiguous in all of them."""
    if 0 in shape:
        return
    size, axis = itemsize, len(shape)
    while axis and all(steps[axis - 1] == size or shape[axis - 1] == 1 for steps in strides):
        axis -= 1
        size *= shape[axis]
    for index in np.ndindex(*shape[:axis]):
        yield tuple(sum(i * s for i, s in zip(index, steps, strict=False)) for steps in strides), size


def download(tensor: DeviceTensor, array: np.ndarray, stream: Any) -> None:
    """Copy a tensor to a contiguous array of its shape, and wait for that."""
    card = tensor.card
    memory, strides = array.reshape(-1).view(np.uint8), row_strides(tensor.shape, tensor.itemsize)
    for (source, to), size in contiguous_runs(tensor.shape, tensor.itemsize, tensor.strides, strides):
        card.download(memory[to : to + size], tensor.address + source, stream)
    card.synchronize(stream)


def upload(tensor: DeviceTensor, array: np.ndarray, stream: Any) -> None:
    """Copy a contiguous array of its shape to a tensor, and wait for that."""
    card = tensor.card
    memory, strides = array.reshape(-1).view(np.uint8), row_strides(tensor.shape, tensor.itemsize)
    for (to, source), size in contiguous_runs(tensor.shape, tensor.itemsize, tensor.strides, strides):
        card.upload(tensor.address + to, memory[source : source + size], stream)
    card.synchronize(stream)


def copy(source: DeviceTensor, to: DeviceTensor, stream: Any) -> None:
    """Copy a tensor to another one of its shape, on any card, and wait for that. `stream`: of its card."""
    card = source.card
    runs = contiguous_runs(source.shape, source.itemsize, source.strides, to.strides)
    for (begin, end), size in runs:
        card.copy(to.address + end, source.address + begin, size, stream, to.card)
    card.synchronize(stream)
