"""The base of lowerings that run as tiles, convolutions and matrix products: epilogue, packing and steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import (
    F32,
    UNFLIPPED,
    WORD,
    Format,
    find_format,
    matrix_format,
    paired_format,
    tile_heights,
    widened_format,
)
from ovjit.codegen.cpu.targets import CACHE_LINE, Target
from ovjit.codegen.kernel import Kernel
from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Value
from ovjit.graph.traced import as_found_number, identity, is_traced_number
from ovjit.planning.constants import PackedRows
from ovjit.planning.fuse import Group
from ovjit.planning.plan import Constants, Panels, Planner, ceil_div
from ovjit.planning.touches import Accesses, Piece
from ovjit.planning.views import Ptr, View
from ovjit.tiles.driver import tile_kernel
from ovjit.tiles.driver_choice import driver_kernel
from ovjit.tiles.epilogues import Summed
from ovjit.tiles.narrow import list_panels
from ovjit.tiles.pack import pack_bias, pack_panels, tile_width
from ovjit.tiles.rounding import reach_of
from ovjit.tiles.sharing import Division, Sharing, Weights
from ovjit.tiles.sizes import BLOCK, JOINING, PAIRED_CHANNELS, PAIRED_WORDS, TABLE

#: Bytes of weights up to which consecutive chunks share pixels, rather than panels. A core's cache keeps all
#: the weights, and the core reads pixels that it has written itself. With chunks by panel ShuffleNet, whose
#: groups are panels, took 1.2 times as long at 2 threads.
KEPT_WEIGHTS = 1 << 19
#: Words of depth above which a matrix product sums in blocks, for accuracy.
LONG_SUM = 4096


class Tiled(Summed):
    """A group whose anchor is a sum over taps and depth with weights [G, runs, depth, O].

    Subclasses set `data`, `groups`, `outs` and `channel_axis`, and plan by `emit`. No attribute depends on
    the input shapes.
    """

    data: Value
    #: The element type of the weights.
    weight_type: str
    #: Indices that select the weights of each group, see `Picks`.
    picks: Value | None = None
    #: Bytes of a line of a pixel's window, if lines are gathered before they are multiplied; else 0.
    gathered = 0
    #: Whether each chunk unpacks its panels.
    unpacks = False

    def __init__(self, group: Group, kind: str):
        super().__init__(group)
        self.form = self.choose_form()
        if self.form.products > 1 and self.form.acc == "i32" and self.takes_lists():
            self.form = self.form._replace(listed=True)
        if self.form.flips and not self.takes_lists():
            self.form = UNFLIPPED
        skip = self.make_epilogue()
        names = "_".join(n.op.name.lower() for n in group.body[skip:][:4])
        self.kind = kind
        self.kernel = self.make_kernel(names)
        #: The kernel for sums of more than `LONG_SUM` words, or None if no shape has such.
        self.blocked: Kernel | None = None
        long = self.sum_words is None or self.sum_words > LONG_SUM
        if long and self.form.acc == "f32" and self.form.step == 1:
            self.blocked = self.make_blocked(f"{self.kernel.name}_blocks")
            self.kernels = (self.blocked, *(() if self.sum_words else self.kernels))

    @property
    def joins(self) -> bool:
        """True if the tile narrows several vectors of sums to bytes at once."""
        return self.target.name in JOINING and (self.form.a, self.form.w) == ("u8", "i8")

    def reach(self) -> np.ndarray | None:
        """The smallest and largest possible sums, [2, channels]; None if the weights are computed."""
        arranged = self.arrange_weights()
        if arranged is None or not isinstance(arranged[0], np.ndarray):
            return None
        matrix, bias = self.matrix(), np.int64(0) if self.bias is None else self.bias.astype(np.int64)
        return reach_of(matrix) + bias

    @property
    def sum_words(self) -> int | None:
        """Words of the sum over one run of adjacent elements; None if it depends on shapes. Windows are
        short."""
        return 0

    def choose_form(self) -> Format:
        """The format of the tiles, by the element types of the operands."""
        form = find_format(self.data.dtype, self.weight_type, self.target)
        assert form is not None  # `tile_format` has been checked before
        if not self.suits_matrices(form):
            return widened_format(form, self.target)
        paired = paired_format(form)
        if paired is not form and self._suits_pairs(form):
            return paired
        return widened_format(matrix_format(form, self.target), self.target)

    def _suits_pairs(self, form: Format) -> bool:
        """Whether it pays to copy pixels in pairs: with many channels, and weights packed at compilation.
        Requires an even number of words in a run."""
        if self.gathered or self.unpacks or self.picks is not None:
            return False  # weights that chunks unpack are not arranged before
        arranged = self.arrange_weights()
        if arranged is None:
            return False
        _, dims, order = arranged
        *runs, depth, outs = (dims[axis] for axis in order)
        words = form.words(depth)
        is_shallow = words * math.prod(runs) // max(1, self.groups) <= PAIRED_WORDS
        return is_shallow and outs >= PAIRED_CHANNELS and words % 2 == 0

    def suits_matrices(self, form: Format) -> bool:
        """Whether a matrix unit may multiply. Requires weights that are packed at compilation."""
        return self.arrange_weights() is not None

    def takes_lists(self) -> bool:
        """Whether words of bytes are sorted, see `narrow`. Requires constant weights."""
        arranged = self.arrange_weights()
        return arranged is not None and isinstance(arranged[0], np.ndarray)

    @property
    def tile_pixels(self) -> int:
        """Pixels (rows) of a full tile."""
        if not self.form.on_unit:
            return tile_heights(self.target, self.form)[0]
        from ovjit.tiles.matrix import PIXELS

        return PIXELS

    def make_kernel(self, names: str) -> Kernel:
        rows, width = self.tile_pixels, tile_width(self.target)
        name = f"{self.kind}_{self.form.name}_{rows}x{width}_{self.target.name}{'_' + names if names else ''}"
        picked = self.picks is not None
        return driver_kernel(
            name, self.epilogue, self.target, self.form, picked=picked, gathered=self.gathered > 0
        )

    def make_blocked(self, name: str) -> Kernel:
        """The kernel that sums in blocks."""
        return tile_kernel(
            name, self.epilogue, self.target, self.form, blocked=True, picked=self.picks is not None
        )

    def arrange_weights(self) -> tuple[np.ndarray | Converted, Sequence[int], Sequence[int]] | None:
        """The model's constant with the weights, the dimensions to view it in, and their order in `matrix`.
        None if `matrix` is not a permuted view of a constant."""
        return None

    #: Number of runs of adjacent elements in the depth of `matrix`.
    runs = 1

    def matrix(self) -> np.ndarray:
        """The weights as [G, runs..., depth of a run, O], before conversion; a view of the model's constant
        if possible."""
        arranged = self.arrange_weights()
        if arranged is None:
            raise NotImplementedError
        weights, dims, order = arranged
        stored: np.ndarray = weights.source if isinstance(weights, Converted) else weights
        permuted = stored.reshape(dims).transpose(order)
        is_grouped = permuted.ndim > 2 and (permuted.shape[0], permuted.shape[-1]) == (self.groups, self.outs)
        if self.form.group == 1 and is_grouped:
            return permuted  # words are elements, so runs may begin anywhere
        return permuted.reshape(self.groups, self.runs, -1, self.outs)

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        matrix, arranged = self.matrix(), self.arrange_weights()
        if self.form.listed:
            self.pack_lists(constants, matrix)
            return
        weights = None if arranged is None else arranged[0]
        converted = weights if isinstance(weights, Converted) else None
        packed, sizes = pack_panels(matrix, self.target, self.form, converted)
        key = self.of_node("weights", self.form.name, self.form.paired)
        if arranged is not None:  # the same weights in the same arrangement are placed once
            source = (id(weights.source), *weights.through) if isinstance(weights, Converted) else id(weights)
            key = ("panels", self.form.name, self.form.paired, source, *map(tuple, arranged[1:]))
        at = constants.add(packed, key).offset
        if arranged is not None and self.form is F32 and isinstance(weights, np.ndarray):
            _, dims, order = arranged
            shape = (self.groups, math.prod(matrix.shape[1:-1]), self.outs)
            constants.note_panels(weights, Panels(at, shape, (sizes.width, sizes.last), dims, order))
            if tuple(dims) == weights.shape and tuple(order) == (1, 0):
                last = sizes.last or sizes.width
                constants.note_rows(weights, PackedRows(at, WORD, shape[1], sizes.panel, sizes.width, last))
        first = self.bias
        if self.form.flips:  # data are 128 less than they are
            first = 128 * _sums(matrix, None if converted is None else converted.convert).reshape(-1)
            first = first if self.bias is None else first + self.bias
        self.weights = Weights(self.groups, self.outs, sizes, at, *self.pack_bias(constants, first))

    def pack_lists(self, constants: Constants, matrix: np.ndarray) -> None:
        """Pack weights whose words are sorted by way, see `narrow`."""
        listed = list_panels(matrix, self.target, self.form)
        if self.bias is not None:
            listed.bias.reshape(self.groups, -1)[:, : self.outs] += self.bias.reshape(self.groups, self.outs)
        parts = listed._asdict()
        names = ("memory", "word_offsets", "steps", "bias")
        at, offsets, steps, bias = (constants.add(parts[name], (self, name)).offset for name in names)
        step, runs = tile_width(self.target) * WORD, math.prod(matrix.shape[1:-2])
        self.weights = Weights(self.groups, self.outs, listed.sizes, at, bias, step, (offsets, steps, runs))

    def pack_bias(self, constants: Constants, bias: np.ndarray | None) -> tuple[int, int]:
        """Pack the bias. Returns the offset and the bytes of a panel; without a bias, those of one panel of
        zeros that all panels share (0 bytes)."""
        if bias is None:
            zeros = np.zeros(tile_width(self.target), numpy_dtype(self.form.acc))
            return constants.add(zeros, "zero panel").offset, 0
        panels = pack_bias(bias, self.groups, self.target)
        return constants.add(panels, (self, "bias")).offset, tile_width(self.target) * WORD

    #: Bytes of the stored weights, if tiles unpack them.
    stored: int | None = None

    def unpacking(self, planner: Planner) -> dict[str, Any]:
        """The kernel's arguments for weights that it unpacks, see `ovjit.tiles.compressed`."""
        return {}

    def emit(
        self,
        planner: Planner,
        x: View,
        y: View,
        images: Sequence[int],
        strides: Sequence[int],
        axes: Sequence[int | None],
        taps: Sequence[int],
        x_group: int,
        weights: Weights,
        origin: int = 0,
        part: Callable[[View], View] = lambda view: view,
        group_axis: int | None = None,
        more: Sequence[View] = (),
        plain: bool = False,
        lines: tuple[int, int] = (0, 0),
    ) -> None:
        """Add the step.

        `images` = (N, OH, OW); `strides` are the byte strides of x for them; `axes` are their axes of y (and
        of operands); `taps` = (n1, s1, n2, s2, words); `origin` is x's first byte from its element 0.

        `part` selects this step's part of y and the operands. Groups lie along the channels, or along
        `group_axis` of y. `more`: views that are read; `plain`: without the epilogue's operands. `lines`: the
        number of gathered lines, and the bytes from one to the next.
        """
        n, oh, ow = images
        pixels = n * oh * ow
        groups, outs, sizes = weights.groups, weights.outs, weights.sizes
        rows = pixels * groups
        if outs == 0 or (not is_traced_number(rows) and rows == 0):
            return  # a traced plan has the step, with 0 chunks for 0 rows
        width = sizes.width
        words = taps[0] * taps[2] * taps[4]
        division = self._division(planner, weights, pixels, words, plain)

        at = weights.at if isinstance(weights.at, Ptr) else planner.constants.at(weights.at)
        # computed weights have a dimension of groups, and so have the data that they are multiplied with
        by_pixels = plain or (at is not weights.at and sizes.group * groups <= KEPT_WEIGHTS)
        run = division.panel_chunks * groups if by_pixels else division.pixel_chunks
        values: dict[str, Any] = {
            "x": x.ptr + origin, "w": at,
            "b": planner.constants.at(weights.bias), "y": y.ptr, "oh": oh, "ow": ow, "pixels": pixels,
            "x_g": x_group, "w_g": sizes.group, "w_panel": sizes.panel,
            "outs": outs, "panels": ceil_div(outs, width), "by_pixels": int(by_pixels), "run": run,
            "b_step": weights.bias_step, "outs_g": outs if group_axis is None else 0,
            **division._asdict(),
        }  # fmt: skip
        along = (*axes, group_axis)
        values |= _named("n1 s1 n2 s2 k", taps) | _named("x_n x_h x_w", strides)
        values |= _named("y_n y_h y_w y_g", self.along(y, along))
        values |= {} if weights.picks is None else weights.picks._asdict()
        operands, read = ({}, []) if plain else self.operand_values(planner, along, part)
        values |= operands
        values |= self._beside_tables(planner, weights, plain, division.panels_per_chunk, words, lines)
        kernel = self.kernel
        if self.blocked is not None and words > LONG_SUM and not plain:
            kernel = self.blocked
            values |= {"n2": ceil_div(words, BLOCK), "s2": BLOCK * WORD}
        reads = [x, *more, *read]
        touches = _track_writes(y, values, (n, oh, ow), width)
        flops = 2.0 * pixels * words * self.form.group * outs * groups
        planner.step(kernel, values, division.chunks(groups), reads, [y], flops, touches=touches)
        planner.steps[-1].bytes += sizes.group * groups if self.stored is None else self.stored

    def _division(self, planner: Planner, weights: Weights, pixels: Any, words: Any, even: bool) -> Division:
        """The partition into chunks. Equal layers share the result."""
        numbers = identity((weights.groups, weights.outs, pixels, words, *weights.sizes))
        key = ("tiles", self.target.name, self.form.group, self.form.rate, self.unpacks, even, numbers)
        sharing = Sharing(self.target, self.form, self.tile_pixels, self.unpacks, even)
        return planner.shared(key, lambda: sharing.division(weights, pixels, words))

    def _beside_tables(
        self, planner: Planner, weights: Weights, plain: bool, panels: Any, words: Any, lines: tuple[int, int]
    ) -> dict[str, Any]:
        """Reserve scratch memory after the address tables: unpacked panels, positions of sorted words,
        gathered lines. `panels`: those of a chunk. Returns the kernel's arguments for it."""
        rows = 2 if plain else self.epilogue.table_rows
        scratch = rows * TABLE * 8
        if self.form.on_unit:
            from ovjit.tiles.matrix import scratch_bytes

            scratch = scratch_bytes(rows, words)
        values = self.unpacking(planner)
        if values:
            scratch += panels * weights.sizes.panel
        if weights.lists is not None:
            offsets, steps, runs = weights.lists
            values |= {"word_offsets": planner.constants.at(offsets), "steps": planner.constants.at(steps)}
            values["runs"] = runs
            scratch += (panels * self.target.tile_vectors * words + runs) * 8
        if self.gathered:
            stored = (lines[0] - 1) * self.gathered + 2 * self.target.lanes
            packed = (ceil_div(stored, CACHE_LINE) + 1) * CACHE_LINE  # without the one between: 1.03 times
            values |= {"lines": lines[0], "line_step": lines[1], "line": self.gathered, "packed": packed}
            scratch += self.tile_pixels * packed
        if self.form.paired:
            scratch += self.tile_pixels * self.form.padded_words(words) * WORD
        if self.form.widens:
            # an odd number of cache lines, so that rows lie in different sets of the cache
            pitch = (2 * ceil_div(words, CACHE_LINE // WORD) + 1) * CACHE_LINE
            values |= {"wide_at": scratch, "wide_pitch": pitch}
            scratch += self.tile_pixels * pitch
        planner.need_scratch(scratch)
        return values


def _named(names: str, values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names.split(), values, strict=True))


def _track_writes(
    y: View, values: dict[str, Any], images: Sequence[int], width: int
) -> Callable[[int], tuple[Accesses, Accesses]]:
    """The bytes of y that each chunk of a step with these arguments writes, for the proof that chunks do not
    overlap."""
    size = y.itemsize

    def touches(chunk: int) -> tuple[Accesses, Accesses]:
        numbers = {name: as_found_number(number) for name, number in values.items()}
        block, chunk_of_others = divmod(chunk, numbers["run"])[:: 1 if numbers["by_pixels"] else -1]
        panel, group = chunk_of_others % numbers["panel_chunks"], chunk_of_others // numbers["panel_chunks"]
        each, outs = numbers["pixels_per_chunk"], numbers["panels_per_chunk"] * width
        pixel = np.arange(block * each, min((block + 1) * each, numbers["pixels"]))
        first, last = panel * outs, min((panel + 1) * outs, numbers["outs"])
        along_y = (*(numbers[f"y_{letter}"] for letter in "nhw"),)
        at = y.ptr + group * (numbers["y_g"] + numbers["outs_g"] * size) + first * size
        piece = Piece(at, along_y, (last - first,), (size,), size)
        return [], [(y.buffer, piece.offsets(np.unravel_index(pixel, tuple(map(as_found_number, images)))))]

    return touches


def _sums(matrix: np.ndarray, convert: Callable[[np.ndarray], np.ndarray] | None) -> np.ndarray:
    """The sums of weights [G, runs..., k, O] over runs and depth, i32 [G, O]."""
    groups = (group if convert is None else convert(group) for group in matrix)
    return np.stack([group.sum(tuple(range(group.ndim - 1)), dtype=np.int32) for group in groups])


def tile_format(data: Value, weights: Value, target: Target) -> Format | None:
    """The format in which the target multiplies these element types; None if it has none."""
    return find_format(data.dtype, weights.dtype, target)
