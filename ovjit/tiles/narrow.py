"""Weights of 8 bits, ordered so that sums of their products fit 16 bits, for CPUs without VNNI.

`vpmaddubsw` multiplies unsigned bytes by signed bytes and adds pairs of products with saturation to 16 bits.
A word is four bytes of depth. The sums of its products do not saturate, for any data, in one of these ways:

- unchanged: data of 0 to 255 are the unsigned bytes. A sum fits if its positive weights add up to at most
  128, and the sizes of its negative ones likewise.
- *turned* (`moves_signs`): |w| is the unsigned byte, and an exclusive or maps the data x to

      x - 128 where w >= 0,  127 - x where w < 0          (from -128 to 127)

  The product is then w x - 128 w or w x - 127 w, and the accumulator starts with the difference. One word
  fits with any weights, two words if their |w| add up to at most 255.

The sum of integers does not depend on the order. So the words of each vector of channels are sorted by way,
in the order of `WAYS`, and a tile has a loop for each way. A list has the words' offsets in a pixel. Native
code chooses the ways and writes the words (`ovjit.tiles.narrow_steps`). Each word is paired with the first
later word that fits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.targets import Target
from ovjit.records import NamedTuple
from ovjit.tiles import weave
from ovjit.tiles.pack import PanelSizes, pack_panels, tile_width
from ovjit.tiles.sizes import RUN_BITS, WAYS

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel


#: The time of a word whose bytes are widened to 16 bits before the product, see `vector.dot_bytes`.
WIDENED = 3.0
#: Size of the sample that `word_time` measures: panels, and words of each.
SAMPLED, SAMPLED_WORDS = 3, 256
#: Bytes of a vector of the native code.
_BLOCK = 16


class Listed(NamedTuple):
    """Panels whose vectors have their words sorted by way.

    `memory`: for each vector, way and step, weights [span][lanes][4], and for turned words as many masks of
    data. Panels are `sizes.panel` bytes apart. `word_offsets` [vectors, words]: index of a word's run,
    shifted by RUN_BITS, plus its byte offset in the run. `steps` [vectors, WAYS]: steps of each loop. `bias`
    [vectors, lanes]: start values of the accumulators. All panels have the same number of vectors; the last
    panel may leave some unused.
    """

    memory: np.ndarray
    sizes: PanelSizes
    word_offsets: np.ndarray
    steps: np.ndarray
    bias: np.ndarray


def word_time(weights: np.ndarray, isa: Target, form: Format) -> float:
    """Estimated time of a word of weights [G, runs..., depth, O], in the unit of `Way.time`."""
    width, (depth, outs) = tile_width(isa), weights.shape[-2:]
    panels = max(1, outs // width)
    chosen = np.unique(np.linspace(0, panels - 1, SAMPLED).astype(int))
    columns = (chosen[:, None] * width + np.arange(width)).reshape(-1)
    deep = weights[:1].reshape(1, -1, depth, outs)[:, : -(-SAMPLED_WORDS // form.words(depth))]
    sample = deep[:, :, : SAMPLED_WORDS * form.group].take(columns[columns < outs], -1)
    steps = _order(sample, isa, form).steps.sum(0) * [way.span for way in WAYS]
    return float(steps @ np.array([way.time for way in WAYS]) / max(1, steps.sum()))


class Order(NamedTuple):
    """The words of packed panels by way, before they are written. `vectors`: (address of the first word,
    bytes between words) of each, in `memory`. `order` [vectors, words + WAYS]: words sorted by way, then the
    steps of each way."""

    memory: tuple[np.ndarray, ...]
    sizes: PanelSizes
    vectors: list[tuple[int, int]]
    order: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        return self.order[:, -len(WAYS) :]

    def vector_bytes(self, lanes: int) -> np.ndarray:
        """The bytes that `write` writes for each vector, [panels, vectors]."""
        return (self.steps @ [w.parts for w in WAYS]).reshape(-1, self.sizes.width // lanes) * lanes * WORD

    def write(self, memory: int, panel: int, bias: np.ndarray) -> None:
        """Write the words to the address `memory`, panels `panel` bytes apart. `bias`, i32 [vectors, lanes],
        is added to: see `write_words`."""
        order, sizes = self.order, self.vector_bytes(bias.shape[1])
        numbers = np.array((order.shape[1] - len(WAYS), bias.shape[1] * WORD, 0, 0))
        tables = np.arange(len(order))[:, None] * [order.strides[0], bias.strides[0]]
        tables += [order.ctypes.data, bias.ctypes.data]
        targets = memory + np.arange(len(sizes))[:, None] * panel + np.cumsum(sizes, 1) - sizes
        write, shape, table = native_function("write_words"), numbers.ctypes.data, tables.ctypes.data
        for n, ((first, numbers[2]), target) in enumerate(zip(self.vectors, targets.flat, strict=True)):
            write(first, int(target), shape, table + n * tables.strides[0])


def _order(weights: np.ndarray, isa: Target, form: Format) -> Order:
    """Pack weights [G, runs..., depth, O], and choose the way of each word."""
    filling, sizes = pack_panels(weights, isa, form)
    packed = np.zeros(filling.nbytes, np.int8)
    filling.fill(packed)
    depth, outs = weights.shape[-2:]
    words = form.words(depth) * int(np.prod(weights.shape[1:-2]))
    size = isa.lanes * WORD
    zeros = np.zeros(size, np.int8)
    full = outs // sizes.width
    vectors = list(list_vectors(packed.reshape(len(weights), -1), sizes, full, size, zeros.ctypes.data))
    order_words = native_function("order_words")
    orders = np.zeros((len(vectors), words + len(WAYS)), np.int64)
    numbers = np.array((words, size, 0, size + max(_BLOCK, size // 2)))
    room = np.zeros((words + 1) * int(numbers[3]) + words * 2 * 8, np.uint8)
    shape, order, memory_at = (a.ctypes.data for a in (numbers, orders, room))
    for n, (first, numbers[2]) in enumerate(vectors):
        order_words(first, order + n * orders.strides[0], shape, memory_at)
    return Order((packed, zeros), sizes, vectors, orders)


def list_panels(weights: np.ndarray, isa: Target, form: Format) -> Listed:
    """Pack weights [G, runs..., depth, O]."""
    packed = _order(weights, isa, form)
    sizes = packed.vector_bytes(isa.lanes)
    memory = np.zeros((len(sizes), int(sizes.sum(1).max(initial=0))), np.int8)
    bias = np.zeros((len(packed.vectors), isa.lanes), np.int32)
    packed.write(memory.ctypes.data, memory.shape[1], bias)
    panel, group = memory.shape[1], memory.size // len(weights)
    run, word = np.divmod(packed.order[:, : -len(WAYS)], max(1, form.words(weights.shape[-2])))
    words, steps = (run << RUN_BITS) + word * WORD, np.ascontiguousarray(packed.steps)
    return Listed(memory.reshape(-1), packed.sizes._replace(panel=panel, group=group), words, steps, bias)


def list_vectors(
    packed: np.ndarray, sizes: PanelSizes, full: int, size: int, zeros: int
) -> Iterator[tuple[int, int]]:
    """Yield (address of the first word, bytes between words) for each vector of `size` bytes of packed panels
    [G, bytes]. A last panel yields as many vectors as a full one; the missing ones are zeros at the address
    `zeros`."""
    for group in packed:
        address = group.ctypes.data
        for width in (sizes.width,) * full + (sizes.last,) * bool(sizes.last):
            line = width * WORD
            yield from ((address + v, line) for v in range(0, line, size))
            yield from ((zeros, 0) for _ in range(line, sizes.width * WORD, size))
            address += sizes.panel * width // sizes.width


#: The module of the native functions, and their names.
STEPS, FUNCTIONS = "ovjit.tiles.narrow_steps", ("order_words", "write_words")


@functools.cache
def kernel(function: str) -> Kernel:
    """The kernel of a native function."""
    from ovjit.codegen.routines import routines

    def intrinsics(isa: Target) -> dict[str, Any]:
        from ovjit.codegen.cpu import weaving

        return weaving.ordering(isa)

    return routines(function, (function,), STEPS, intrinsics, function.replace("_", " "))


@functools.cache
def native_function(name: str) -> Callable[[int, int, int, int], int]:
    return weave.native(kernel(name))
