"""Weights of 8 bits, ordered so that sums of their products fit 16 bits, for CPUs without VNNI.

`vpmaddubsw` multiplies unsigned bytes by signed bytes and adds pairs of products, saturated at 16 bits. Sums
fit for all data if a word of four bytes of depth is added in one of these ways:

- unchanged: a sum of products with data of 0 to 255 fits if its positive weights add up to no more than
  128, and its negative ones likewise;
- *turned*: |w| is the unsigned byte, and an exclusive or maps the data x to

      x - 128 where w >= 0,  127 - x where w < 0          (from -128 to 127)

  so that |w| times them is w x, minus `128 w` or `127 w`, which starts the sum. One word fits with any
  weights, two if |w| adds up to no more than 255.

Integers may be added in any order. So each vector of channels has its words in the order of `WAYS`, which are
the tile's loops, and a list of their offsets in a pixel. Native code finds the order and writes the words
(`ovjit.tiles.narrow_steps`): each word is added with the first one behind it that fits.
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

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel


class Way(NamedTuple):
    """How words are added: `span` of them in 16 bits, before they are widened to 32. `time`: the time of a
    word for one vector of channels, in units of half a multiply-add of f32."""

    span: int
    turned: bool
    time: float

    @property
    def parts(self) -> int:
        """Vectors that are read for `span` words: weights, and how data are flipped."""
        return self.span * (1 + self.turned)


#: The loops of a tile, in order. (Loops alone, one thread, operands in the first-level cache: Zen 3. What is
#: turned: a Xeon, between its proportions to what is not and to what is widened first.)
WAYS = (Way(2, False, 1.7), Way(1, False, 2.0), Way(2, True, 2.2), Way(1, True, 2.7))
#: The time of a word whose bytes are widened first, see `vector.dot_bytes`.
WIDENED = 3.0
#: Bits of a place that are a byte's number in a run.
RUN_BITS = 32
#: Panels, and words of each, that tell the time of all.
SAMPLED, SAMPLED_WORDS = 3, 256
#: The bytes that native code adds up at a time.
_BLOCK = 16


class Listed(NamedTuple):
    """Panels whose vectors have the order of `WAYS`.

    `memory`: for each vector, each way and each step of it, [span][lanes][4] weights, then how data are
    flipped if they are; a panel begins `sizes.panel` bytes behind another. `places` [vectors, words]: the
    number of each word's run, shifted by RUN_BITS, and its first byte in it; `steps` [vectors, WAYS]. `bias`
    [vectors, lanes]: what turned words lack. All panels have as many vectors there, of which the last one may
    not use all.
    """

    memory: np.ndarray
    sizes: PanelSizes
    places: np.ndarray
    steps: np.ndarray
    bias: np.ndarray


def word_time(weights: np.ndarray, isa: Target, form: Format) -> float:
    """The time of a word of weights [G, runs..., depth, O], as in `WAYS`."""
    width, (depth, outs) = tile_width(isa), weights.shape[-2:]
    panels = max(1, outs // width)
    chosen = np.unique(np.linspace(0, panels - 1, SAMPLED).astype(int))
    columns = (chosen[:, None] * width + np.arange(width)).reshape(-1)
    deep = weights[:1].reshape(1, -1, depth, outs)[:, : -(-SAMPLED_WORDS // form.words(depth))]
    sample = deep[:, :, : SAMPLED_WORDS * form.group].take(columns[columns < outs], -1)
    listed = list_panels(sample, isa, form)
    steps = listed.steps.sum(0) * [way.span for way in WAYS]
    return float(steps @ np.array([way.time for way in WAYS]) / max(1, steps.sum()))


def list_panels(weights: np.ndarray, isa: Target, form: Format) -> Listed:
    """The panels of weights [G, runs..., depth, O]."""
    filling, sizes = pack_panels(weights, isa, form)
    packed = np.zeros(filling.nbytes, np.int8)
    filling.fill(packed)
    depth, outs = weights.shape[-2:]
    words = form.words(depth) * int(np.prod(weights.shape[1:-2]))
    size = isa.lanes * WORD
    zeros = np.zeros(size, np.int8)
    full = outs // sizes.width
    vectors = list(_vectors(packed.reshape(len(weights), -1), sizes, full, size, zeros.ctypes.data))
    order_words, write_words = (_function(name) for name in FUNCTIONS)
    orders = np.zeros((len(vectors), words + len(WAYS)), np.int64)
    numbers = np.array((words, size, 0, size + max(_BLOCK, size // 2)))
    room = np.zeros((words + 1) * int(numbers[3]) + words * 2 * 8, np.uint8)
    shape, order, memory_at = (a.ctypes.data for a in (numbers, orders, room))
    for n, (first, numbers[2]) in enumerate(vectors):
        order_words(first, order + n * orders.strides[0], shape, memory_at)
    places, steps = orders[:, :words], orders[:, words:]
    parts = (steps @ [way.parts for way in WAYS]).reshape(-1, isa.tile_vectors) * size
    memory = np.zeros((len(parts), int(parts.sum(1).max(initial=0))), np.int8)
    bias = np.zeros((len(vectors), isa.lanes), np.int32)
    tables = np.zeros(2, np.int64)
    targets = np.arange(len(parts))[:, None] * memory.shape[1] + np.cumsum(parts, 1) - parts
    target, lacking, table = (a.ctypes.data for a in (memory, bias, tables))
    for n, ((first, numbers[2]), at) in enumerate(zip(vectors, targets.flat, strict=True)):
        tables[:] = order + n * orders.strides[0], lacking + n * bias.strides[0]
        write_words(first, target + int(at), shape, table)
    sizes = sizes._replace(panel=memory.shape[1], group=len(parts) // len(weights) * memory.shape[1])
    run, word = np.divmod(places, max(1, form.words(depth)))
    places = (run << RUN_BITS) + word * WORD
    return Listed(memory.reshape(-1), sizes, places, np.ascontiguousarray(steps), bias)


def _vectors(
    packed: np.ndarray, sizes: PanelSizes, full: int, size: int, zeros: int
) -> Iterator[tuple[int, int]]:
    """(address of its first word, bytes from word to word) of each vector of `size` bytes in packed panels
    [G, bytes]. A last panel has as many vectors as a full one: those beyond its own are zeros at the
    address `zeros`."""
    for group in packed:
        address = group.ctypes.data
        for width in (sizes.width,) * full + (sizes.last,) * bool(sizes.last):
            line = width * WORD
            yield from ((address + v, line) for v in range(0, line, size))
            yield from ((zeros, 0) for _ in range(line, sizes.width * WORD, size))
            address += sizes.panel * width // sizes.width


#: The native functions, as `ovjit.tiles.narrow_steps` has them.
FUNCTIONS = ("order_words", "write_words")


@functools.cache
def kernel(function: str) -> Kernel:
    """The kernel of one of them."""
    from ovjit.codegen.routines import routines

    def module() -> Any:
        from ovjit.tiles import narrow_steps

        return narrow_steps

    def intrinsics(isa: Target) -> dict[str, Any]:
        from ovjit.codegen.cpu import weaving

        return weaving.ordering(isa)

    return routines(function, (function,), module, intrinsics, function.replace("_", " "))


@functools.cache
def _function(name: str) -> Callable[[int, int, int, int], int]:
    return weave.native(kernel(name))
