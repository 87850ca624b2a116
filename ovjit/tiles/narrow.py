"""Weights of 8 bits taken apart so that sums of their products fit 16 bits, for CPUs without VNNI.

`vpmaddubsw` multiplies bytes and adds pairs of products, cut off at 16 bits. A sum of products with data of 0
to 255 fits where its positive weights add up to no more than `MOST`, and its negative ones likewise. So

    weights = kept + rest

where every such sum of `kept` fits. Panels hold what is kept; `span` adjacent words of a pixel are added in
16 bits before they are widened to 32. The rest, mostly little and seldom, is a list of words for each vector
of channels. Every lane of such a word takes its four bytes from anywhere in two windows of adjacent words
(`vpshufb` of each, which gives 0 where a byte is the other's, and `vpor`), so that channels whose rest is at
different depths share it. `BIN` words of the rest, of any windows, are added in 16 bits, too.

Channels that leave much could share vectors: sorted so, quantized ResNet-50's words take 0.987 of the time
that `TIMES` and `BIN_TIME` make of them, SqueezeNet's 0.984, weights whose tails differ much from channel to
channel 0.95. Channels stay where they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ovjit.codegen.cpu.isa import Isa
from ovjit.tiles.formats import WORD, Format
from ovjit.tiles.pack import PanelSizes, pack_panels, tile_width

#: The weights of one sign in a sum of 16 bits: 255 times as much fits.
MOST = 128
#: Words of the rest that are added in 16 bits.
BIN = 2
#: Windows that a word of the rest takes its bytes from.
SOURCES = 2
#: The choice of a byte that is another window's: `vpshufb` makes it 0.
NONE = -128
#: Words of a window, where runs are so long.
WINDOW = 4
#: Where the bytes of a rest go in a lane, the greatest first: a pair has a great one and a little one.
SLOTS = (0, 2, 3, 1)
#: Panels that tell what a format costs.
SAMPLED = 3
#: Words of each that are looked at.
SAMPLED_WORDS = 256
#: span -> the time of a word for one vector of channels, in halves of a multiply-add of f32; 0: bytes that
#: are widened. (Zen 3, one thread: the loops alone, operands in the first-level cache.)
TIMES = {0: 3.0, 1: 2.0, 2: 1.7}
#: That of a bin: what convolutions with a rest take longer than such without.
BIN_TIME = 6.9


class Rest(NamedTuple):
    """What is added to panels.

    `words`: int8 [bins, BIN, SOURCES + 1, lanes, 4]: which byte of each window a weight is multiplied with,
    or `NONE`, and the weights. `places` [bins, BIN, SOURCES]: the first word of each window, counted over the
    runs. `firsts`: the first bin of each vector of each panel, and the end.
    """

    words: np.ndarray
    places: np.ndarray
    firsts: np.ndarray

    def most(self, vectors: int) -> int:
        """The bins of one panel, at most."""
        ends = self.firsts[::vectors]
        return int((ends[1:] - ends[:-1]).max(initial=0))


def window_words(words: int) -> int:
    """The words of a window in runs of so many: a power of two that fits."""
    return min(WINDOW, 1 << (words.bit_length() - 1))


def best_span(weights: np.ndarray, isa: Isa, form: Format) -> int:
    """The words that should be added in 16 bits for weights [G, runs..., depth, O]; 0: bytes are widened."""
    times = span_times(weights, isa, form)
    return min(times, key=lambda span: times[span])


def span_times(weights: np.ndarray, isa: Isa, form: Format) -> dict[int, float]:
    """span -> the time of a word of weights [G, runs..., depth, O] with its rest, as in `TIMES`."""
    width, (depth, outs) = tile_width(isa), weights.shape[-2:]
    panels = max(1, outs // width)
    chosen = np.unique(np.linspace(0, panels - 1, SAMPLED).astype(int))
    columns = (chosen[:, None] * width + np.arange(width)).reshape(-1)
    deep = weights[:1].reshape(1, -1, depth, outs)[:, : -(-SAMPLED_WORDS // form.words(depth))]
    sample = deep[:, :, : SAMPLED_WORDS * form.group].take(columns[columns < outs], -1)
    times = dict(TIMES)
    for span in (1, 2):
        if form.words(depth) % span:
            del times[span]
            continue
        memory, rest = split_panels(sample, isa, form, span)
        times[span] += BIN_TIME * len(rest.words) * isa.lanes * WORD / memory.size
    return times


def split_panels(weights: np.ndarray, isa: Isa, form: Format, span: int) -> tuple[np.ndarray, Rest]:
    """[G, runs..., depth, O] -> (the panels that are kept, as `pack_panels` makes them, the rest)."""
    filling, sizes = pack_panels(weights, isa, form)
    memory = np.zeros(filling.nbytes, np.int8)
    filling.fill(memory)
    words = form.words(weights.shape[-2]) * int(np.prod(weights.shape[1:-2]))
    found = []
    run = form.words(weights.shape[-2])
    for number, panels in _panels(memory, words, weights.shape, sizes, isa):
        left = np.zeros_like(panels)
        _cut(panels, left, span)
        vectors = np.moveaxis(left, 2, 1)  # panel, vector, word, lanes, 4
        panel, vector, place, entries = _gathered(vectors, run)
        found.append(((number + panel) * isa.tile_vectors + vector, place, entries))
    section, place, entries = (np.concatenate(part) for part in zip(*found, strict=True))
    groups, panels_each = weights.shape[0], -(-weights.shape[-1] // sizes.width)
    return memory, _binned(section, place, entries, groups * panels_each * isa.tile_vectors)


def _gathered(left: np.ndarray, run: int) -> tuple[np.ndarray, ...]:
    """The words of a rest [panels, vectors, words, lanes, 4] whose bytes come from windows, in runs of `run`
    words: (panel, vector, first words of the windows, int8 [n, SOURCES + 1, lanes, 4] of choices and
    weights)."""
    panels, vectors, words, lanes, each = left.shape
    size = window_words(run)
    starts = np.minimum(np.arange(0, run, size), run - size)
    part = np.arange(run) // size  # of a word: its window
    within = np.arange(run) - starts[part]
    panel, vector, word, lane, byte = np.nonzero(left)
    amount = left[panel, vector, word, lane, byte]
    window = word // run * len(starts) + part[word % run]
    choice = within[word % run] * each + byte
    windows = words // run * len(starts)
    # the windows that are used at all, in order, are taken together
    used, use = np.unique((panel * vectors + vector) * windows + window, return_inverse=True)
    section, window = np.divmod(used, windows)
    within = np.arange(len(used)) - np.searchsorted(section, section)
    joint = np.cumsum(within % SOURCES == 0) - 1
    source = (within % SOURCES)[use]
    key = joint[use] * lanes + lane
    order = np.lexsort((-np.abs(amount.astype(np.int16)), key))
    key, choice, amount, source = key[order], choice[order], amount[order], source[order]
    first = np.r_[True, key[1:] != key[:-1]] if len(key) else np.zeros(0, bool)
    rank = np.arange(len(key)) - np.flatnonzero(first)[np.cumsum(first) - 1]
    most = -(-SOURCES * size * each // len(SLOTS))  # words of windows that are taken together
    number, inverse = np.unique(key // lanes * most + rank // len(SLOTS), return_inverse=True)
    entries = np.full((len(number), SOURCES + 1, lanes, each), NONE, np.int8)
    entries[:, SOURCES] = 0
    slot = np.array(SLOTS)[rank % len(SLOTS)]
    entries[inverse, source, key % lanes, slot] = choice
    entries[inverse, SOURCES, key % lanes, slot] = amount
    begins = np.flatnonzero(within % SOURCES == 0)[number // most]
    ends = np.searchsorted(joint, number // most, "right") - 1
    places = window // len(starts) * run + starts[window % len(starts)]
    place = places[np.minimum(begins[:, None] + np.arange(SOURCES), ends[:, None])]
    section = section[begins]
    return section // vectors, section % vectors, place, entries


def _panels(memory: np.ndarray, words: int, shape: tuple, sizes: PanelSizes, isa: Isa) -> list:
    """Views [panels, words, vectors, lanes, 4] of the packed memory, with the number of the first panel."""
    full, rest = divmod(shape[-1], sizes.width)
    found = []
    for g, group in enumerate(memory.reshape(shape[0], -1)):
        first = g * (full + bool(rest))
        split = full * sizes.panel
        for at, count, width, part in (
            (first, full, sizes.width, group[:split]), (first + full, 1, sizes.last, group[split:])
        ):  # fmt: skip
            if part.size:
                found.append((at, part.reshape(count, words, width // isa.lanes, isa.lanes, WORD)))
    return found


def _cut(kept: np.ndarray, left: np.ndarray, span: int) -> None:
    """Move to `left` [..., words, vectors, lanes, 4] what sums over `span` words and pairs of bytes have too
    much; `left` is 0 before."""
    lead, (words, *each) = kept.shape[:-4], kept.shape[-4:]
    shape = (*lead, words // span, span, *each[:-1], 2, 2)
    kept, left = kept.reshape(shape), left.reshape(shape)
    axis = len(lead) + 1
    for sign in (1, -1):
        size = np.maximum(kept, 0) if sign > 0 else -np.minimum(kept, 0)  # of -128: 128 as u8
        halves = size.view(np.uint16)[..., 0]
        sums = ((halves & 255) + (halves >> 8)).sum(axis, dtype=np.uint16)
        where = np.nonzero(sums > MOST)
        over = sums[where].astype(np.int16) - MOST
        for word in reversed(range(span)):
            for byte in (1, 0):
                at = (*where[:axis], word, *where[axis:], byte)
                taken = np.minimum(over, size.view(np.uint8)[at])
                left[at] += (sign * taken).astype(np.int8)
                kept[at] -= (sign * taken).astype(np.int8)
                over -= taken


def _binned(section: np.ndarray, place: np.ndarray, entries: np.ndarray, sections: int) -> Rest:
    """Words [n, SOURCES + 1, lanes, 4] of `section`s in bins."""
    parts = []
    while len(section):  # a word of the rest may itself have too much
        more = entries.copy()
        more[:, SOURCES] = 0
        _cut(entries[:, SOURCES:, None], more[:, SOURCES:, None], 1)
        parts.append((section, place, entries))
        again = more[:, SOURCES].any((1, 2))
        section, place, entries = section[again], place[again], more[again]
    if parts:
        section, place, entries = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(section, kind="stable")
    bins = _filled(section[order], place[order], entries[order], BIN)
    done = []
    size = BIN
    while True:
        fits = _fits(bins[2])
        done.append([part[fits] for part in bins])
        if fits.all():
            break
        size //= 2
        section, place, entries = (part[~fits] for part in bins)
        used = entries[:, :, SOURCES].any((2, 3))
        section = np.repeat(section, BIN).reshape(used.shape)[used]
        bins = _filled(section, place[used], entries[used], size)
    section, place, entries = (np.concatenate(part) for part in zip(*done, strict=True))
    order = np.argsort(section, kind="stable")
    firsts = np.searchsorted(section[order], np.arange(sections + 1))
    return Rest(entries[order], place[order].astype(np.int64), firsts.astype(np.int64))


def _filled(section: np.ndarray, place: np.ndarray, entries: np.ndarray, size: int) -> list[np.ndarray]:
    """Bins of `BIN` words of which `size` are taken in order from entries, sorted by section; the others
    are 0, at the place of the first."""
    counts = np.unique(section, return_counts=True)[1]
    bins = -(-counts // size)
    within = np.arange(len(section)) - np.repeat(np.cumsum(counts) - counts, counts)
    number = np.repeat(np.cumsum(bins) - bins, counts) + within // size
    total = int(bins.sum())
    sections, places = np.zeros(total, section.dtype), np.zeros((total, BIN, SOURCES), place.dtype)
    words = np.zeros((total, BIN, *entries.shape[1:]), np.int8)
    first = within % size == 0
    sections[number] = section
    places[number[first]] = place[first][:, None]
    places[number, within % size] = place
    words[number, within % size] = entries
    return [sections, places, words]


def _fits(bins: np.ndarray) -> np.ndarray:
    """Whether the sums of bins [n, BIN, SOURCES + 1, lanes, 4] fit."""
    weights = bins[:, :, SOURCES]
    pairs = weights.astype(np.int16).reshape(*weights.shape[:-1], 2, 2)
    sums = [np.maximum(pairs * sign, 0).sum((1, -1)) for sign in (1, -1)]
    return np.all((sums[0] <= MOST) & (sums[1] <= MOST), axis=(1, 2))

