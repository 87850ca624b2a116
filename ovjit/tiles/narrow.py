"""Weights of 8 bits, ordered so that sums of their products fit 16 bits, for CPUs without VNNI.

`vpmaddubsw` multiplies unsigned bytes by signed bytes and adds pairs of products, saturated at 16 bits. Sums
fit for all data if a word of four bytes of depth is added in one of these ways:

- unchanged: a sum of products with data of 0 to 255 fits if its positive weights add up to no more than
  `MOST`, and its negative ones likewise;
- *turned*: |w| is the unsigned byte, and an exclusive or maps the data x to

      x - 128 where w >= 0,  127 - x where w < 0          (from -128 to 127)

  so that |w| times them is w x, minus `128 w` or `127 w`, which starts the sum. One word fits with any
  weights, two if |w| adds up to no more than `MOST_TURNED`.

Integers may be added in any order. So each vector of channels has its words in the order of `WAYS`, which are
the tile's loops, and a list of their offsets in a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.targets import Target
from ovjit.records import NamedTuple
from ovjit.tiles.pack import PanelSizes, pack_panels, tile_width


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
_TWO, _ONE, _TWO_TURNED, _TURNED = range(len(WAYS))
#: The time of a word whose bytes are widened first, see `vector.dot_bytes`.
WIDENED = 3.0
#: The weights of one sign in a sum of 16 bits: 255 times as much fits.
MOST = 128
#: The sizes of the weights in a sum of turned words: 128 times as much fits, and one is not told from 256.
MOST_TURNED = 255
#: Bits of a place that are a byte's number in a run.
RUN_BITS = 32
#: How far away words look for another one to be added with.
FAR = 24
#: Panels that tell what weights cost.
SAMPLED = 3
#: Words of each that are looked at.
SAMPLED_WORDS = 256


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
    words = form.words(weights.shape[-2]) * int(np.prod(weights.shape[1:-2]))
    full, rest = divmod(weights.shape[-1], sizes.width)
    panels = full + bool(rest)
    vectors = weights.shape[0] * panels * isa.tile_vectors
    given = np.zeros((vectors, words, isa.lanes, WORD), np.int8)
    for g, group in enumerate(packed.reshape(weights.shape[0], -1)):
        split, at = full * sizes.panel, g * panels * isa.tile_vectors
        for count, width, part in ((full, sizes.width, group[:split]), (1, sizes.last, group[split:])):
            if part.size:
                each = np.moveaxis(part.reshape(count, words, width // isa.lanes, isa.lanes, WORD), 2, 1)
                given[at : at + len(each) * each.shape[1]] = each.reshape(-1, *given.shape[1:])
                at += len(each) * each.shape[1]
    places, steps = _ordered(given.reshape(vectors, words, -1))
    size = int((steps @ [way.parts for way in WAYS]).reshape(-1, isa.tile_vectors).sum(1).max(initial=0))
    memory = np.zeros((vectors // isa.tile_vectors, size * isa.lanes * WORD), np.int8)
    bias = np.zeros((vectors, isa.lanes), np.int32)
    for number, vector in enumerate(given):
        panel, v = divmod(number, isa.tile_vectors)
        if v == 0:
            left = memory[panel]
        left = left[_write(vector[places[number]], steps[number], left, bias[number]) :]
    sizes = sizes._replace(panel=memory.shape[1], group=panels * memory.shape[1])
    run, word = np.divmod(places.astype(np.int64), max(1, form.words(weights.shape[-2])))
    places = (run << RUN_BITS) + word * WORD
    return Listed(memory.reshape(-1), sizes, places, steps.astype(np.int64), bias)


def _write(vector: np.ndarray, steps: np.ndarray, to: np.ndarray, bias: np.ndarray) -> int:
    """One vector of words in their order, [words, lanes, 4]; how many bytes it takes."""
    at = first = 0
    for way, count in zip(WAYS, steps, strict=True):
        stop = first + count * way.span
        some = vector[first:stop].reshape(count, 1, way.span, *vector.shape[1:])
        if way.turned:
            below = some < 0
            bias += (some * np.where(below, np.int16(127), np.int16(128))).sum((0, 1, 2, -1), dtype=np.int32)
            flips = np.where(below, np.int8(0x7F), np.int8(-0x80))
            some = np.concatenate([np.abs(some), flips], 1)  # of -128: 128 as u8
        to[at : at + some.size] = some.reshape(-1)
        at, first = at + some.size, stop
    return at


def _ordered(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places, steps) of vectors [vectors, words, bytes]."""
    positive, negative = (_pair_sums(size) for size in (np.maximum(vectors, 0), -np.minimum(vectors, 0)))
    of_signs, of_all = np.concatenate([positive, negative], -1), positive + np.minimum(negative, ~positive)
    fits = of_signs.max(-1, initial=0) <= MOST
    way, key = np.where(fits, _ONE, _TURNED), np.tile(2 * np.arange(vectors.shape[1]), (len(vectors), 1))

    def pair(sums: np.ndarray, most: int, left: np.ndarray, one: np.ndarray, number: int) -> None:
        for vector, first, second in _pairs(sums, most, left, one):
            way[vector, first] = way[vector, second] = number
            key[vector, second] = key[vector, first] + 1

    pair(of_signs, MOST, fits, fits, _TWO)
    heavy = ~fits
    pair(of_all, MOST_TURNED, heavy, heavy, _TWO_TURNED)
    heavy = way == _TURNED
    pair(of_all, MOST_TURNED, heavy | (way == _ONE), heavy, _TWO_TURNED)
    steps = np.stack([(way == n).sum(1) // each.span for n, each in enumerate(WAYS)], 1)
    return np.argsort(way * (2 * vectors.shape[1]) + key, 1), steps


def _pair_sums(size: np.ndarray) -> np.ndarray:
    """The sums of adjacent bytes without a sign, 255 where they are more."""
    halves = size.view(np.uint16)
    return np.minimum((halves & 255) + (halves >> 8), 255).astype(np.uint8)


def _pairs(
    sums: np.ndarray, most: int, left: np.ndarray, one: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(vectors, words, other words) of pairs that can be added. Words are `left` [vectors, words], `one` of
    the two is one of these, and the `sums` [vectors, words, bytes] of both are no more than `most` together,
    as they are each."""
    left = left.copy()
    # eight bytes at once, of which what is `most` and `255 - most` together is 255
    some = sums.view(np.uint64)
    more = (sums + np.uint8(255 - most)).view(np.uint64) if most < 255 else some
    high, low = np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F)
    for far in range(1, min(FAR, left.shape[1])):
        here, there = slice(None, -far), slice(far, None)
        asked = left[:, here] & left[:, there] & (one[:, here] | one[:, there])
        vector, first = np.nonzero(asked)
        if len(vector) * 4 > asked.size:  # what is adjacent is read faster than what is picked
            a, b = some[:, here], more[:, there]
        else:
            a, b = some[vector, first], more[vector, first + far]
        mean = (a & b) + (((a ^ b) >> np.uint64(1)) & low)
        suit = (np.bitwise_or.reduce(mean, -1) & high) == 0
        if suit.ndim == 1:
            asked[vector, first] = suit
        else:
            asked &= suit
        early = np.arange(asked.shape[1]) // far % 2 == 0
        for part in (early, ~early):  # so no word is taken twice
            vector, first = np.nonzero(asked & part & left[:, here] & left[:, there])
            left[vector, first] = left[vector, first + far] = False
            yield vector, first, first + far
