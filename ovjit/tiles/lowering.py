"""What runs as tiles: lowerings of convolutions and matrix products share their epilogue, packing and steps
here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.cpu.formats import F32, UNFLIPPED, WORD, Format, find_format, matrix_format
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.words import Each
from ovjit.graph.converted import Converted
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder, Node, Value
from ovjit.graph.traced import identity, is_traced_number, least, most, whole
from ovjit.planning.constants import PackedRows
from ovjit.planning.copies import CACHE_LINE
from ovjit.planning.fuse import Group, is_number
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Constants, Panels, Planner, ceil_div, in_place_candidates
from ovjit.planning.races import Piece, Places
from ovjit.planning.views import Layout, Ptr, View
from ovjit.tiles.driver import tile_kernel
from ovjit.tiles.in_python import BLOCK, TABLE
from ovjit.tiles.matrix import PIXELS as MATRIX_PIXELS
from ovjit.tiles.matrix import driver_kernel, scratch_bytes
from ovjit.tiles.narrow import list_panels
from ovjit.tiles.pack import PanelSizes, pack_bias, pack_panels, tile_width
from ovjit.tiles.rounding import Rounding, holds_all, one_rounding, reach_of, rounded_body, rounds_near
from ovjit.tiles.rows import row_step
from ovjit.tiles.stores import JOINING

#: Weights that one chunk should touch, so that they stay in a core's second-level cache.
PANEL_BYTES = 384 * 1024
#: Floating-point operations of one chunk for each lane of a vector, some 4 us: see `Format.rate`. What a tile
#: takes besides, its table and its epilogue, is worth so many of a lane.
CHUNK_FLOPS, TILE_FLOPS = 62_500, 800
MOST_CHUNKS = 32
#: Pixels that a panel is unpacked for, at least, where there are so many: chunks have fewer panels instead.
#: For 64 pixels in four ranges, unpacking took a third of the time of a product of depth 512 on AVX2.
UNPACKED_FOR = 128
#: Weights up to which chunks go from pixels to pixels and not from panel to panel: a core keeps them all, and
#: finds the pixels that it has written itself. ShuffleNet, whose groups are panels, took 1.2 times as long at
#: 2 threads.
KEPT_WEIGHTS = 1 << 19
#: Tiles of a matrix unit that a range of pixels has at least, rather than fewer panels.
FULL_TILES = 8
#: Pixels up to which weights are not prefetched.
FEW_PIXELS = 4
#: Words above which a matrix product sums in blocks. Below, one chain is as good as what others do.
LONG_SUM = 4096
#: A kernel's parameter for the epilogue's operands: addresses, and the bytes from image to image, row to row
#: and column to column, as `Tiled.operand_values` gives them.
OPERANDS: Any = Each("operands", "n h w", unless="shared")


class Weights(NamedTuple):
    """Packed weights: `groups` matrices of `outs` channels, at `at` (an offset among the constants, or an
    address); and the bias that starts the accumulators, `bias_step` bytes a panel (0: one for all)."""

    groups: int
    outs: int
    sizes: PanelSizes
    at: int | Ptr
    bias: int
    bias_step: int
    lists: tuple[int, int, int] | None = None  # where the places and steps of `narrow.Listed` are; its runs
    picks: Picks | None = None

    def after(self, words: int) -> Weights:
        """Those behind the first `words` of each panel, where all are of one width."""
        nothing = not is_traced_number(words) and words == 0
        return self if nothing else self._replace(at=self.at + words * self.sizes.width * WORD)


class Picks(NamedTuple):
    """Which of `kinds` matrices a group is multiplied with: at `picks`, `picks_g` bytes from group to group,
    and a panel of zeros for indices that name none."""

    picks: Ptr
    picks_g: int
    kinds: int
    none: Ptr


class Tiled(Lowering):
    """A group whose anchor is a sum over taps and depth with weights [G, runs, depth, O].

    Subclasses set `data`, `groups`, `outs`, `channel_axis` and plan by `emit`. Nothing here belongs to a
    shape.
    """

    groups = 1
    outs: int
    channel_axis: int
    data: Value
    #: The element type of the weights.
    weight_type: str
    #: Indices that name the weights of each group, see `Picks`.
    picks: Value | None = None
    #: Bytes of the lines of a pixel's window that are put together before they are multiplied; 0: none are.
    gathered = 0
    #: By channel, what sums begin with; None: 0.
    bias: np.ndarray | None = None
    #: Whether each chunk unpacks its panels.
    unpacks = False

    def __init__(self, group: Group, kind: str):
        super().__init__(group)
        self.form = self.choose_form()
        if self.form.products > 1 and self.form.acc == "i32" and self.takes_lists():
            self.form = self.form._replace(listed=True)
        if self.form.flips and not self.takes_lists():
            self.form = UNFLIPPED
        skip = self._take_bias()
        nodes, sums = group.body[skip:], group.nodes[skip].outputs[0]
        reach = self.reach() if nodes and self.joins else None
        most = math.inf if reach is None else float(np.abs(reach).max(initial=0))
        body = group.make_body(skip, near=bool(nodes) and rounds_near(nodes, sums, most))
        self.operands = group.operands_after(skip)
        rounding = None if reach is None else self._one_rounding(nodes, sums, reach)
        if rounding is not None:
            body = rounded_body(self.out.dtype)
            self.bias, made = rounding.first, Builder()
            shape = [1] * len(self.out.shape)
            shape[self.channel_axis] = -1
            self.operands = [made.constant(x.reshape(shape)) for x in rounding[1:]]
        kinds = [self._kind(v) for v in self.operands]
        self.epilogue = Epilogue(body, kinds, self.out.dtype)
        names = "_".join(n.op.name.lower() for n in group.body[skip:][:4])
        self.kind = kind
        self.kernel = self.make_kernel(names)
        #: The kernel for sums of more than `LONG_SUM` words, where there may be such.
        self.blocked: Kernel | None = None
        long = self.sum_words is None or self.sum_words > LONG_SUM
        if long and self.form.acc == "f32" and self.form.step == 1:
            self.blocked = self.make_blocked(f"{self.kernel.name}_blocks")
            self.kernels = (self.blocked, *(() if self.sum_words else self.kernels))

    @property
    def joins(self) -> bool:
        """True where the tile makes bytes of several vectors of sums at once."""
        return self.target.name in JOINING and (self.form.a, self.form.w) == ("u8", "i8")

    def reach(self) -> np.ndarray | None:
        """[2, channels]: what sums may come to, from and to; None where weights are computed."""
        arranged = self.arranged()
        if arranged is None or not isinstance(arranged[0], np.ndarray):
            return None
        matrix, bias = self.matrix(), np.int64(0) if self.bias is None else self.bias.astype(np.int64)
        return reach_of(matrix) + bias

    def _one_rounding(self, nodes: Sequence[Node], sums: Value, reach: np.ndarray) -> Rounding | None:
        """The constants by which one multiply-add rounds, see `ovjit.tiles.rounding`."""
        if [node.op.name for node in nodes] != ["Convert", "Quantize"] or nodes[0].inputs[0] is not sums:
            return None
        if not holds_all(nodes[1]):
            return None
        channels, axes = (self.groups * self.outs,), self.out.shape
        factor, zero = (v.constant for v in nodes[1].inputs[1:])
        if factor is None or zero is None or not axes or axes[self.channel_axis] != channels[0]:
            return None
        if not (self._of_channels(factor) and self._of_channels(zero)):
            return None
        factor, zero = (np.broadcast_to(x.reshape(-1), channels) for x in (factor, zero))
        bias = np.zeros(channels, np.int32) if self.bias is None else self.bias
        least = int(np.iinfo(numpy_dtype(nodes[1].attrs["element_type"])).min)
        return one_rounding(reach, bias, factor, zero, least)

    @property
    def sum_words(self) -> int | None:
        """The words that a sum over one run of adjacent elements has; None where shapes tell. Windows are
        short."""
        return 0

    def choose_form(self) -> Format:
        """The format of the tiles: that of the operands' types."""
        form = find_format(self.data.dtype, self.weight_type, self.target)
        assert form is not None  # `tile_format` has been checked before
        return matrix_format(form, self.target) if self.suits_matrices(form) else form

    def suits_matrices(self, form: Format) -> bool:
        """Whether a matrix unit may multiply: of weights that are packed at compilation, of any depth."""
        return self.arranged() is not None

    def takes_lists(self) -> bool:
        """Whether words of bytes are put into an order, see `narrow`: of weights that can be looked at."""
        arranged = self.arranged()
        return arranged is not None and isinstance(arranged[0], np.ndarray)

    @property
    def tile_pixels(self) -> int:
        """The pixels of a full tile."""
        return MATRIX_PIXELS if self.form.step > 1 else self.target.shapes.tiles[0]

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

    def along(self, view: View, axes: Sequence[int | None]) -> list[int]:
        """The byte strides of `view` for the axes that stand for N, OH, OW; None: 0."""
        return [0 if a is None else view.strides[a] for a in axes]

    def _take_bias(self) -> int:
        """A constant added first, one per channel, starts the accumulators, where nothing else reads the sums
        without it. Returns how many nodes."""
        self.bias = None
        value = self.node.outputs[0]
        if not self.group.body or self.group.body[0].op.name != "Add":
            return 0
        node = self.group.body[0]
        readers = [v is value for n in self.group.body for v in n.inputs]
        if sum(readers) != 1 or node.output.shape != value.shape:
            return 0
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        array = other.constant
        kept = ("f32", "bf16", "f16") if self.form.acc == "f32" else (self.form.acc,)
        if array is None or other.dtype not in kept:
            return 0
        if not self._of_channels(array):
            return 0
        channels = self.groups * self.outs
        self.bias = np.broadcast_to(array.reshape(-1).astype(numpy_dtype(self.form.acc)), (channels,))
        return 1

    def _of_channels(self, array: np.ndarray) -> bool:
        """True for a constant that differs along the channels alone."""
        rank = len(self.node.outputs[0].shape)
        shape = (1,) * (rank - array.ndim) + array.shape
        return all(d == 1 for a, d in enumerate(shape) if a != self.channel_axis % max(rank, 1))

    def _kind(self, value: Value) -> str:
        """How the epilogue reads `value`, see `Operand`."""
        if is_number(value):
            return "number"
        rank = len(self.out.shape)
        if not rank:
            return "scalar"
        shape = (1,) * (rank - len(value.shape)) + tuple(value.shape)
        axis = self.channel_axis % rank
        if shape[axis] == 1 and self.out.shape[axis] != 1:
            return "scalar"
        others = [d for a, d in enumerate(shape) if a != axis]
        return "channel" if all(d == 1 for d in others) else "pixel"

    def arranged(self) -> tuple[np.ndarray | Converted, Sequence[int], Sequence[int]] | None:
        """The model's constant that holds the weights, the dimensions to see it in, and their order in
        `matrix`; None where the matrix is not a mere rearrangement."""
        return None

    #: How many runs of adjacent elements the depth of `matrix` has.
    runs = 1

    def matrix(self) -> np.ndarray:
        """The weights as [G, runs..., depth of a run, O]: a view of the model's where that can be, not yet
        converted."""
        arranged = self.arranged()
        if arranged is None:
            raise NotImplementedError
        weights, dims, order = arranged
        given: np.ndarray = weights.source if isinstance(weights, Converted) else weights
        seen = given.reshape(dims).transpose(order)
        whole = seen.ndim > 2 and (seen.shape[0], seen.shape[-1]) == (self.groups, self.outs)
        if self.form.group == 1 and whole:
            return seen  # words are elements: where runs begin does not matter
        return seen.reshape(self.groups, self.runs, -1, self.outs)

    def place_operands(self, constants: Constants) -> None:
        for value in self.operands:
            if value.constant is not None:
                constants.view(value.constant, value.dtype)

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        matrix, arranged = self.matrix(), self.arranged()
        if self.form.listed:
            self.pack_lists(constants, matrix)
            return
        weights = None if arranged is None else arranged[0]
        converted = weights if isinstance(weights, Converted) else None
        packed, sizes = pack_panels(matrix, self.target, self.form, converted)
        key: tuple = (self, "weights")
        if arranged is not None:  # the same weights in the same arrangement are placed once
            source = (id(weights.source), *weights.through) if isinstance(weights, Converted) else id(weights)
            key = ("panels", self.form.name, source, *map(tuple, arranged[1:]))
        at = constants.place(packed, key).offset
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
        """The weights in an order of their own, see `narrow`."""
        listed = list_panels(matrix, self.target, self.form)
        if self.bias is not None:
            listed.bias.reshape(self.groups, -1)[:, : self.outs] += self.bias.reshape(self.groups, self.outs)
        parts = listed._asdict()
        names = ("memory", "places", "steps", "bias")
        at, places, steps, bias = (constants.place(parts[name], (self, name)).offset for name in names)
        step, runs = tile_width(self.target) * WORD, math.prod(matrix.shape[1:-2])
        self.weights = Weights(self.groups, self.outs, listed.sizes, at, bias, step, (places, steps, runs))

    def pack_bias(self, constants: Constants, bias: np.ndarray | None) -> tuple[int, int]:
        """The bias as panels (offset, bytes of one); without one, a panel of zeros that all panels share."""
        if bias is None:
            zeros = np.zeros(tile_width(self.target), numpy_dtype(self.form.acc))
            return constants.place(zeros, "zero panel").offset, 0
        panels = pack_bias(bias, self.groups, self.target)
        return constants.place(panels, (self, "bias")).offset, tile_width(self.target) * WORD

    #: Bytes of the weights where they are not stored as tiles read them.
    stored: int | None = None

    def unpacking(self, planner: Planner) -> dict[str, Any]:
        """What the kernel is told of weights that it unpacks, see `ovjit.tiles.compressed`."""
        return {}

    def operand_view(self, planner: Planner, value: Value, kind: str) -> View:
        """The operand broadcast to the output's shape; channels adjacent where the kernel loads vectors."""
        own = None if value in planner.types else value.constant  # made by `_one_rounding`
        view = planner.view(value) if own is None else planner.constants.view(own, value.dtype)
        if kind == "number":
            return view
        rank = len(self.out.shape)
        axis = self.channel_axis % max(rank, 1) - (rank - len(view.shape))
        shape = planner.shape(self.out)
        if kind != "scalar" and axis >= 0 and shape and shape[self.channel_axis] > 1:
            order = [a for a in range(len(view.shape)) if a != axis] + [axis]
            if view.shape[axis] == 1:  # an open dimension: what was to be a vector is one element
                view = planner.copy(value, Layout(order), axis, shape[self.channel_axis])
            elif view.strides[axis] != view.itemsize:
                view = planner.copy(value, Layout(order))
        return view.expand(shape)

    def operand_values(
        self, planner: Planner, axes: Sequence[int | None], part: Callable[[View], View] = lambda view: view
    ) -> tuple[dict[str, Any], list[View]]:
        """Addresses and strides of the epilogue's operands along `axes` (N, OH, OW and perhaps the group), by
        the names that kernels have for them; and the views that are read."""

        def along(view: View) -> tuple[View, dict[str, int]]:
            view = part(view)
            return view, dict(zip("nhwg", self.along(view, axes), strict=False))

        return self._operand_values(planner, along)

    def operand_rows(self, planner: Planner) -> tuple[dict[str, Any], list[View]]:
        """Addresses of the epilogue's operands, and the bytes from row to row of those that have rows."""

        def along(view: View) -> tuple[View, dict[str, int]]:
            step = row_step(view)
            if step is None:
                flat = planner.allocate(view.shape, view.itemsize)
                planner.copy_step(view, flat)
                view, step = flat, flat.shape[-1] * flat.itemsize
            return view, {"w": step}

        return self._operand_values(planner, along)

    def _operand_values(
        self, planner: Planner, along: Callable[[View], tuple[View, dict[str, int]]]
    ) -> tuple[dict[str, Any], list[View]]:
        """`along`: what is read of an operand that has pixels, and its strides by their letters."""
        values: dict[str, Any] = {}
        reads = []
        for i, (value, operand) in enumerate(zip(self.operands, self.epilogue.operands, strict=True)):
            view = self.operand_view(planner, value, operand.kind)
            if not operand.shared:
                view, strides = along(view)
                values |= {f"e{i}_{letter}": stride for letter, stride in strides.items()}
            values[f"e{i}"] = view.ptr
            reads.append(view)
        return values, reads

    def over(self, planner: Planner, *read: View) -> list[View]:
        """Operands that the output may be written over: read where it writes, and not among `read`."""
        views = [
            planner.view(v)
            for v, o in zip(self.operands, self.epilogue.operands, strict=True)
            if o.kind == "pixel"
        ]
        return in_place_candidates(views, read)

    def _blocks(self, weights: Weights, pixels: int, panels: int, words: int) -> tuple[int, int, int, int]:
        """How chunks share the work: pixels of one and how many ranges of pixels there are, panels of one and
        how many ranges of panels."""
        rows = self.tile_pixels
        panel_bytes = weights.sizes.panel
        pn_per = most(1, least(panels, PANEL_BYTES // most(panel_bytes, 1)))
        if self.unpacks:
            pn_per = most(1, least(pn_per, panels // MOST_CHUNKS))
        pn_blocks = ceil_div(panels, pn_per)
        # Equal shares of pixels for two and four threads gain, by count, 0.3 to 1.4 % of quantized networks
        # at two threads. They lose as much and more at eight and sixteen. of one lane: the last panel may
        # have one vector, but then takes little less
        vectors, rate = self.target.tile_vectors, self.form.rate
        tile_flops = 2.0 * rows * vectors * words * self.form.group + TILE_FLOPS * rate
        flops = ceil_div(pixels, rows) * panels * weights.groups * tile_flops
        wanted = least(MOST_CHUNKS, most(1, whole(flops // (CHUNK_FLOPS * rate))))
        others = pn_blocks * most(1, weights.groups)
        if self.form.step > 1:  # the last tile of a range has fewer pixels: ranges of panels have no such
            pn_blocks = most(pn_blocks, least(panels, ceil_div(wanted * FULL_TILES * rows, pixels)))
            pn_per = ceil_div(panels, pn_blocks)
            pn_blocks = ceil_div(panels, pn_per)
            others = pn_blocks * most(1, weights.groups)
        px_blocks = most(1, least(ceil_div(pixels, rows), ceil_div(wanted, others)))
        if self.unpacks:
            px_blocks = least(px_blocks, ceil_div(pixels, UNPACKED_FOR))
        px_per = most(1, ceil_div(ceil_div(pixels, rows), px_blocks)) * rows
        return px_per, ceil_div(pixels, px_per), pn_per, pn_blocks

    def _shares(self, weights: Weights, pixels: int, words: int) -> tuple[Any, ...]:
        """The flops of a step, what `_blocks` gives, the bytes that a word and a tile fetch ahead, and how
        many chunks there are."""
        rows, width = self.tile_pixels, weights.sizes.width
        flops = 2.0 * pixels * words * self.form.group * weights.outs * weights.groups
        blocks = self._blocks(weights, pixels, ceil_div(weights.outs, width), words)
        # All tiles together prefetch each panel of the next block once. Few rows read weights at the speed of
        # memory. Further requests then disturb the CPU's own prefetching (5 to 10 % at 1 row).
        ahead_step = ceil_div(width * WORD, most(1, ceil_div(pixels, rows)))
        ahead_step = ahead_step * least(1, pixels // (FEW_PIXELS + 1))
        return flops, *blocks, ahead_step, ahead_step * words, blocks[1] * blocks[3] * weights.groups

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
            return  # a trace has the step, of no chunks where there are no rows
        width = sizes.width
        words = taps[0] * taps[2] * taps[4]
        numbers = identity((groups, outs, pixels, words, *sizes))
        key = ("tiles", self.target.name, self.form.group, self.form.rate, self.unpacks, numbers)
        shares = planner.shared(key, lambda: self._shares(weights, pixels, words))  # of equal layers
        flops, px_per, px_blocks, pn_per, pn_blocks, ahead_step, tile_ahead, chunks = shares

        at = weights.at if isinstance(weights.at, Ptr) else planner.constants.at(weights.at)
        # computed weights lie in groups, and so does what they are multiplied with
        by_pixels = at is not weights.at and sizes.group * groups <= KEPT_WEIGHTS
        run = pn_blocks * groups if by_pixels else px_blocks
        values: dict[str, Any] = {
            "x": x.ptr + origin, "w": at,
            "b": planner.constants.at(weights.bias), "y": y.ptr, "oh": oh, "ow": ow, "pixels": pixels,
            "x_g": x_group, "w_g": sizes.group, "w_panel": sizes.panel,
            "outs": outs, "panels": ceil_div(outs, width), "px_per": px_per, "by_pixels": int(by_pixels),
            "run": run, "pn_per": pn_per, "pn_blocks": pn_blocks, "ahead_step": ahead_step,
            "tile_ahead": tile_ahead,
        }  # fmt: skip
        values |= dict(zip(("n1", "s1", "n2", "s2", "k"), taps, strict=True))
        values |= dict(zip(("x_n", "x_h", "x_w"), strides, strict=True))
        along = (*axes, group_axis)
        values |= dict(zip(("y_n", "y_h", "y_w", "y_g"), self.along(y, along), strict=True))
        values |= {} if weights.picks is None else weights.picks._asdict()
        values["c_g"] = outs if group_axis is None else 0
        values["b_step"] = weights.bias_step
        operands, read = ({}, []) if plain else self.operand_values(planner, along, part)
        values |= operands
        rows = 2 if plain else self.epilogue.table_rows
        tables = scratch_bytes(rows, words) if self.form.step > 1 else rows * TABLE * 8
        values |= self._beside_tables(planner, weights, tables, pn_per, words, lines)
        kernel = self.kernel
        if self.blocked is not None and words > LONG_SUM and not plain:
            kernel = self.blocked
            values |= {"n2": ceil_div(words, BLOCK), "s2": BLOCK * WORD}
        size = y.itemsize

        def touches(chunk: int) -> tuple[Places, Places]:
            block, rest = divmod(chunk, run)[:: 1 if by_pixels else -1]
            panel, group = rest % pn_blocks, rest // pn_blocks
            pixel = np.arange(block * px_per, min((block + 1) * px_per, pixels))
            first, last = panel * pn_per * width, min((panel + 1) * pn_per * width, outs)
            along_y = (*(values[f"y_{letter}"] for letter in "nhw"),)
            at = y.ptr + group * (values["y_g"] + values["c_g"] * size) + first * size
            return [], [(y.buffer, Piece(at, along_y, (last - first,), (size,), size).places(
                np.unravel_index(pixel, (n, oh, ow))))]  # fmt: skip

        reads = [x, *more, *read]
        planner.step(kernel, values, chunks, reads, [y], flops, touches=touches)
        planner.steps[-1].bytes += sizes.group * groups if self.stored is None else self.stored

    def _beside_tables(
        self, planner: Planner, weights: Weights, tables: Any, pn_per: Any, words: Any, lines: tuple[int, int]
    ) -> dict[str, Any]:
        """The arguments for what lies behind the `tables` in scratch memory: panels of unpacked weights,
        places of words in lists, lines that are gathered. Asks for that memory."""
        values, scratch = self.unpacking(planner), tables
        if values:
            scratch += pn_per * weights.sizes.panel
        if weights.lists is not None:
            places, steps, runs = weights.lists
            values |= {"places": planner.constants.at(places), "steps": planner.constants.at(steps)}
            values["runs"] = runs
            scratch += (pn_per * self.target.tile_vectors * words + runs) * 8
        if self.gathered:
            stored = (lines[0] - 1) * self.gathered + 2 * self.target.lanes
            packed = (ceil_div(stored, CACHE_LINE) + 1) * CACHE_LINE  # without the one between: 1.03 times
            values |= {"lines": lines[0], "line_step": lines[1], "line": self.gathered, "packed": packed}
            scratch += self.target.shapes.tiles[0] * packed
        planner.need_scratch(scratch)
        return values


def _sums(matrix: np.ndarray, convert: Callable[[np.ndarray], np.ndarray] | None) -> np.ndarray:
    """[G, O]: the sums of weights [G, runs..., k, O], in i32."""
    groups = (group if convert is None else convert(group) for group in matrix)
    return np.stack([group.sum(tuple(range(group.ndim - 1)), dtype=np.int32) for group in groups])


def tile_format(data: Value, weights: Value, target: Target) -> Format | None:
    """The format in which the target multiplies such values, None where it has none."""
    return find_format(data.dtype, weights.dtype, target)
