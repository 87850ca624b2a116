"""Weights and biases in the order in which tiles read them.

    weights [panel][run][word][width][group]     width: 2 vectors; 1 in the last panel if that suffices
            [panel][run][two words][width][2][group]        for `paired` formats

A tile reads them as one stream. A run is a range of adjacent elements of a pixel, for example all channels of
a tap. If its depth is not a multiple of the format's group, the last word is padded with zeros. Subnormal
weights become zeros: a multiplication by a subnormal takes a hundred times as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.targets import Target
from ovjit.graph.converted import Arranged, Converted, Unmade
from ovjit.graph.dtypes import flush_subnormals, from_numpy, numpy_dtype
from ovjit.planning.chunks import ceil_div
from ovjit.planning.constants import Filling, aligned_bytes, release_pages
from ovjit.records import NamedTuple
from ovjit.tiles import weave

#: Bytes of panels that are written at a time, so that later passes find them in the second-level cache.
_PACKED = 1 << 19
#: Bytes that one call of native code packs. A thread may have to wait for the GIL after each call.
_WOVEN = 1 << 23


def tile_width(isa: Target) -> int:
    """Channels of a full panel."""
    return isa.tile_vectors * isa.lanes


class PanelSizes(NamedTuple):
    """Channels of a full panel and of the last one; bytes of a full panel and of all panels of a group."""

    width: int
    last: int
    panel: int
    group: int


def panel_sizes(words: int, outs: int, isa: Target) -> PanelSizes:
    """The sizes of the panels for `outs` channels of `words` words of depth."""
    width = tile_width(isa)
    remainder = outs % width
    last = -(-remainder // isa.lanes) * isa.lanes  # of one vector, or of as many as a full panel has
    return PanelSizes(width, last, words * width * WORD, words * (outs // width * width + last) * WORD)


def pack_panels(
    weights: np.ndarray, isa: Target, form: Format, converted: Converted | None = None
) -> tuple[Filling, PanelSizes]:
    """Plan the packing of weights [G, runs..., k, O]. Returns the filling of packed words, and their sizes.

    The weights are read when the panels are written. So a view of the model's weights, in any order, is not
    copied before. `converted`: the conversion to the format's type, which is applied part by part.
    """
    groups, *runs, depth, outs = weights.shape
    words = form.padded_words(math.prod(runs) * form.words(depth))
    sizes = panel_sizes(words, outs, isa)

    order: dict[str, Any] = {"width": sizes.width, "last": sizes.last, "group": form.group}
    if form.paired and form.has_matrix:
        order["paired"] = True
    if converted is not None and converted.through != (weights.dtype,):
        order["through"] = [from_numpy(dtype) for dtype in converted.through]
    return Filling.by(groups * sizes.group, weights, fill_panels, kind=form.w, **order), sizes


def fill_panels(
    memory: np.ndarray, source: np.ndarray, kind: str, width: int, last: int, group: int,
    paired: bool = False, through: Sequence[str] = (),
) -> None:  # fmt: skip
    """Write the panels of all groups, of element type `kind`, from source [G, runs..., k, O], after
    conversion `through` these element types."""
    converted = Converted(source, list(map(numpy_dtype, through))) if through else None
    for target, weights in zip(memory.view(numpy_dtype(kind)).reshape(len(source), -1), source, strict=True):
        _fill_group(target, weights, width, last, group, converted, paired)


def _fill_group(
    target: np.ndarray, weights: np.ndarray, width: int, last: int, group: int,
    converted: Converted | None = None, paired: bool = False,
) -> None:  # fmt: skip
    """Write the panels of one group, from weights [runs..., k, O]. `group`: elements of depth per word.
    `converted`: see `pack_panels`; `paired`: see `Format`."""
    *runs, depth, outs = weights.shape
    rows = _words_of(weights, target, width, group, converted)
    if depth % group:
        weights = np.pad(weights, (*[(0, 0)] * len(runs), (0, -depth % group), (0, 0)))
    each = (*runs, -(-depth // group))
    full, remainder = divmod(outs, width)
    words = target.size // (full * width + last) // group
    split, used = words * full * width * group, math.prod(each)
    source = weights.reshape(*each, group, outs)
    panels_of = target[:split].reshape(full, words, width, group)
    panels_of[:, used:] = 0
    body = panels_of[:, :used].reshape(full, *each, width, group)
    panels = source[..., : full * width].reshape(*each, group, full, width)
    panels = np.moveaxis(panels, (-2, -1), (0, -2))
    some = max(1, _PACKED // max(1, math.prod(each) * width * group * target.itemsize))
    if used < words:
        rows = None
    for first in range(0, full, some):
        part = body[first : first + some]
        if rows is not None:
            of_part = rows[first * width : (first + len(part)) * width]
            _weave_reals(of_part, part, width, converted)
        else:
            of_part = panels[first : first + some]
            np.copyto(part, of_part if converted is None else converted.convert(of_part))
            flush_subnormals(panels_of[first : first + some])
        if paired:
            _pair_words(panels_of[first : first + some], width)
        release_pages(of_part)
    if remainder:
        tail = target[split:].reshape(words, last, group)
        tail[used:] = 0
        filled = tail[:used].reshape(*each, last, group)
        of_tail = np.swapaxes(source[..., full * width :], -1, -2)
        filled[..., :remainder, :] = of_tail if converted is None else converted.convert(of_tail)
        filled[..., remainder:, :] = 0
        flush_subnormals(tail)
        if paired:
            _pair_words(tail, last)


def _pair_words(panels: np.ndarray, width: int) -> None:
    """Reorder lines of words in place: [words, width] -> [words / 2, width, 2]."""
    lines = panels.reshape(-1).view(np.uint32).reshape(-1, 2, width)
    lines[...] = lines.swapaxes(1, 2).copy().reshape(lines.shape)


#: Element types that native code rounds to bf16.
_ROUNDED = frozenset((np.dtype(np.float32), np.dtype(np.float16)))


def _words_of(
    weights: np.ndarray, target: np.ndarray, width: int, group: int, converted: Converted | None
) -> np.ndarray | None:
    """A view [outs, depth] of the weights [runs..., k, O] for native code, before conversion. None if they
    are few, or if the elements of a word are not adjacent."""
    *runs, depth, outs = weights.shape
    plain = math.prod(runs) == 1 and group * target.itemsize == WORD and not depth % group
    if not plain or target.nbytes < weave.WORTH or not weave.weaves(WORD, width):
        return None
    matrix = weights.reshape(depth, outs)
    if not outs or matrix.strides[0] != matrix.itemsize or matrix.strides[1] < depth * matrix.itemsize:
        return None
    return matrix.T if converted is not None or weights.dtype == target.dtype else None


def _weave_reals(rows: np.ndarray, part: np.ndarray, width: int, converted: Converted | None) -> None:
    """Write panels from rows, after conversion by `converted`. Subnormals become zeros."""
    kind = from_numpy(part.dtype)
    change = {"f32": weave.FLUSH, "bf16": weave.FLUSH_HALVES}.get(kind, weave.AS_THEY_ARE)
    if converted is not None:
        once = converted.through == (part.dtype,) and rows.dtype in _ROUNDED
        if once and kind == "bf16" and weave.rounds(rows.shape[1]):
            rounded = np.empty(rows.shape, np.uint16)
            weave.round_rows(rows, rounded)
            rows, change = rounded, weave.AS_THEY_ARE
        else:
            rows = converted.convert(rows)
    weave.weave(rows.view(np.uint8), part, width, WORD, change)


class Woven(NamedTuple):
    """Parameters for packing stored integers by native code: bytes of a word, bits of a stored element, the
    change of words (a constant of `weave`), and a mask that is xor-ed with each four bytes."""

    size: int
    bits: int
    change: int = weave.AS_THEY_ARE
    mask: int = 0


def find_sign_mask(integers: np.ndarray | Unmade, bits: int) -> int:
    """`Woven.mask` for integers: maps signed 4-bit integers to 0 to 15, as they are packed."""
    signed = isinstance(integers, Arranged) and integers.stored_type == "i4"
    return 0x88888888 * signed if bits == 4 else 0


def fill_later(
    integers: np.ndarray | Unmade,
    width: int,
    panel: int,
    arrange: Callable[[np.ndarray], np.ndarray],
    woven: Woven | None = None,
) -> Filling:
    """The filling of panels that `arrange(columns)` makes from columns of integers [K, N].

    A panel has `width` columns and `panel` bytes. Panels are made when their memory is filled, some at a
    time. `woven`: how native code makes the same full panels, if each column is stored contiguously."""
    depth, outs = integers.shape
    some = max(1, _PACKED // max(1, depth * width)) * width
    size = ceil_div(outs, width) * panel
    table = integers if isinstance(integers, Arranged) and integers.by_rows else None
    rows = None if table is None or size < weave.WORTH else _stored_rows(table, width, panel // width, woven)
    if rows is not None and woven is not None and not outs % width:
        how = {"width": width, "size": woven.size, "change": woven.change, "mask": woven.mask}
        return Filling.by(size, rows, fill_woven, **how)

    def fill(memory: np.ndarray) -> None:
        done = 0
        if rows is not None and woven is not None:
            done = outs // width * width
            words = memory[: done // width * panel]
            fill_woven(words, rows[:done], width, woven.size, woven.change, woven.mask)
        matrix = np.asarray(integers) if table is None else table
        for first in range(done, outs, some):
            end = min(first + some, outs)
            part = matrix.columns(first, end) if isinstance(matrix, Arranged) else matrix[:, first:end]
            arranged = arrange(part)
            destination = memory[first // width * panel : ceil_div(end, width) * panel]
            np.copyto(destination.view(arranged.dtype).reshape(arranged.shape), arranged)

    source = integers.source if isinstance(integers, Unmade) else integers
    return Filling(size, fill, source)


def fill_woven(memory: np.ndarray, source: np.ndarray, width: int, size: int, change: int, mask: int) -> None:
    """Write full panels of `width` columns from rows [columns, bytes] with words of `size` bytes, see
    `Woven`."""
    some = max(1, _WOVEN // max(1, source.shape[1] * width)) * width
    for first in range(0, len(source), some):
        part = source[first : first + some]
        destination = memory[first * source.shape[1] :][: part.size]
        weave.weave(part, destination, width, size, change, mask)
        release_pages(part)


def _stored_rows(integers: Any, width: int, length: int, woven: Woven | None) -> np.ndarray | None:
    """The stored rows of `length` bytes, one per column of a panel. None if the integers are stored
    otherwise, or if native code cannot pack panels of this width."""
    if woven is None or not isinstance(integers, Arranged) or not weave.weaves(woven.size, width):
        return None
    stored = integers.stored_rows()
    if stored is None or stored[1] != woven.bits or stored[0].shape[1] != length or length % woven.size:
        return None
    return stored[0]


class Spread(NamedTuple):
    """The filling of per-group numbers in panels, and the bytes of a panel."""

    numbers: Filling
    panel: int


def spread_out(values: np.ndarray | Converted, kind: type | np.dtype, width: int, added: int = 0) -> Spread:
    """Rearrange values [groups, O] to [panels, groups, width] of the type `kind`, padded with zeros. `added`
    is added to all values."""
    groups, outs = values.shape
    panels, (full, remainder) = ceil_div(outs, width), divmod(outs, width)

    def fill(memory: np.ndarray) -> None:
        source = values.source if isinstance(values, Converted) and values.is_exact else np.asarray(values)
        source = source + added if added else source
        destination = memory.view(kind).reshape(panels, groups, width)
        full_panels = source[:, : full * width].reshape(groups, full, width)
        np.copyto(destination[:full], full_panels.transpose(1, 0, 2), casting="unsafe")
        if remainder:
            destination[full, :, :remainder] = source[:, full * width :]
            destination[full, :, remainder:] = 0

    panel = groups * width * np.dtype(kind).itemsize
    return Spread(Filling(panels * panel, fill), panel)


def pack_bias(bias: np.ndarray, groups: int, isa: Target) -> np.ndarray:
    """Pad a bias [G * O], of the accumulators' type, to whole panels for each group."""
    outs = bias.size // groups
    panels = ceil_div(outs, tile_width(isa))
    memory = aligned_bytes(groups * panels * tile_width(isa) * WORD).view(bias.dtype).reshape(groups, -1)
    memory[...] = 0
    memory[:, :outs] = bias.reshape(groups, outs)
    return memory.reshape(-1)
