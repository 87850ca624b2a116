"""Convolutions and matrix products by the tile kernel: the driver around it, packing, and plans.

Pixels (N x OH x OW of a convolution, rows of a matrix product) are numbered through; a chunk is a range of
pixels times a range of weight panels. For every tile of pixels the driver writes their addresses into a
small table, which all panels then share. Panels:

    weights [panel][taps][k][width]     width = 2 vectors; the last panel has 1 when that is enough

so that the tile reads weights in one stream.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.isa import Isa, host_isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Constants, Panels, Planner, aligned_bytes, ceil_div, overwritable
from ovjit.compiler.views import Layout, Ptr, View, channels_last
from ovjit.graph.graph import Value
from ovjit.graph.shapes import Interval
from ovjit.tiles.micro import TABLE, make_tile
from ovjit_ops.common.windows import resolve_pads
from ovjit_ops.movement.sink_shuffle import channel_shuffle

#: Tile heights for each instruction set: the full one, then what covers the rest of a chunk. Every height
#: costs some 40 ms of compilation; with 10 and 2 as well nothing but the last tile of a chunk was faster.
ROWS = {"avx512": (14, 7, 4, 1), "avx2": (6, 3, 1), "generic": (4, 2, 1)}
#: Weights that one chunk should touch, so that they stay in a core's second-level cache.
PANEL_BYTES = 384 * 1024
#: Floating-point operations of one chunk, some 4 us.
CHUNK_FLOPS = 1_000_000
MOST_CHUNKS = 32
#: Inputs of at most so many channels are read plane by plane, which saves turning them.
PLANAR_CHANNELS = 4


def tile_width(isa: Isa | None = None) -> int:
    """Channels of a full panel."""
    isa = isa or host_isa()
    return isa.tile_vectors * isa.lanes


def pack_panels(weights: np.ndarray, isa: Isa) -> tuple[np.ndarray, int, int]:
    """[G, depth, O] -> (packed bytes, bytes of a full panel, bytes of a group)."""
    groups, depth, outs = weights.shape
    width = tile_width(isa)
    last = outs % width
    last_width = 0 if last == 0 else isa.lanes if last <= isa.lanes else width
    full = outs // width
    group_floats = depth * (full * width + last_width)
    memory = aligned_bytes(groups * group_floats * 4).view(np.float32)
    out = memory.reshape(groups, group_floats)
    for g in range(groups):
        body = out[g, : depth * full * width].reshape(full, depth, width)
        body[...] = weights[g, :, : full * width].reshape(depth, full, width).transpose(1, 0, 2)
        if last:
            tail = out[g, depth * full * width :].reshape(depth, last_width)
            tail[:, :last] = weights[g, :, full * width :]
            tail[:, last:] = 0
    return memory, depth * width * 4, group_floats * 4


def pack_bias(bias: np.ndarray, groups: int, isa: Isa) -> np.ndarray:
    """[G * O] -> one padded row of panels for each group."""
    outs = bias.size // groups
    panels = ceil_div(outs, tile_width(isa))
    memory = aligned_bytes(groups * panels * tile_width(isa) * 4).view(np.float32).reshape(groups, -1)
    memory[...] = 0
    memory[:, :outs] = bias.reshape(groups, outs)
    return memory.reshape(-1)


@functools.lru_cache(512)
def _frame(operands: str) -> Frame:
    """`operands` has one letter an epilogue operand: p pixel, s scalar (both by pixel), c channel."""
    frame = Frame().pointers("x", "w", "b", "y")
    for i, kind in enumerate(operands):
        frame.pointers(f"e{i}")
        if kind != "c":
            frame.integers(f"e{i}_n", f"e{i}_h", f"e{i}_w", f"e{i}_g")
    frame.integers("y_g", "c_g", "b_step")
    frame.integers("x_n", "x_h", "x_w", "y_n", "y_h", "y_w", "oh", "ow", "pixels", "x_g", "w_g", "w_panel")
    frame.integers("outs", "panels", "n1", "s1", "n2", "s2", "k")
    return frame.integers("px_per", "px_blocks", "pn_per", "pn_blocks", "ahead_step", "tile_ahead")


def tile_kernel(name: str, epilogue: Epilogue, isa: Isa) -> Kernel:
    """The driver for one epilogue. Everything else about the problem is in its arguments."""
    rows = ROWS[isa.name]
    letters = "".join({"pixel": "p", "scalar": "s", "channel": "c"}[o.kind] for o in epilogue.operands)
    frame = _frame(letters)
    width = tile_width(isa)
    out = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    out += [f"    # {line}" for line in epilogue.text().splitlines()]
    out += [frame.prologue()]
    out += [
        "    px_block = chunk % px_blocks",
        "    rest = chunk // px_blocks",
        "    group = rest // pn_blocks",
        "    first_panel = (rest % pn_blocks) * pn_per",
        "    stop_panel = imin(first_panel + pn_per, panels)",
        "    p = px_block * px_per",
        "    stop = imin(p + px_per, pixels)",
        "    img = p // (oh * ow)",
        "    i = (p % (oh * ow)) // ow",
        "    j = p % ow",
        "    x += group * x_g",
        "    w += group * w_g",
        "    y += group * y_g",
        *(f"    e{n} += group * e{n}_g" for n, o in enumerate(epilogue.operands) if o.kind != "channel"),
    ]
    # addresses go on by a pixel's stride and are worked out anew where a row ends
    walked = [("x", 0), ("y", 1)]
    walked += [(f"e{n}", o.where) for n, o in enumerate(epilogue.operands) if o.kind != "channel"]
    fresh = [f"{name}_at = {name} + img * {name}_n + i * {name}_h + j * {name}_w" for name, _ in walked]
    out += ["    " + line for line in fresh]
    out += [
        "    while p < stop:",
        f"        rows = imin({rows[0]}, stop - p)",
        "        m = 0",
        f"        while m < {rows[0]}:",
        *(f"            st_i64(scratch + {row * TABLE * 8} + m * 8, {name}_at)" for name, row in walked),
    ]
    advance = ["j += 1", *(f"{name}_at += {name}_w" for name, _ in walked)]
    advance += ["if j == ow:", "    j = 0", "    i += 1"]
    advance += ["    if i == oh:", "        i = 0", "        img += 1"]
    advance += ["    " + line for line in fresh]
    out += ["            m += 1", "            if m < rows:", *(" " * 16 + line for line in advance)]
    out += [" " * 8 + line for line in advance]
    out += ["        # this tile's share of the weights that come next",
            f"        ahead = w + pn_per * w_panel + (p // {rows[0]}) * tile_ahead"]  # fmt: skip
    out += [
        "        c = first_panel",
        "        while c < stop_panel:",
        f"            valid = outs - c * {width}",
    ]
    bias = "b + (group * panels + c) * b_step"
    channels = "".join(f", e{n}" for n, o in enumerate(epilogue.operands) if o.kind == "channel")
    call = (
        f"(scratch, w + c * w_panel, {bias}, n1, s1, n2, s2, k, group * c_g + c * {width}, valid, "
        f"ahead + c * w_panel, ahead_step{channels})"
    )
    for vectors, condition in ((isa.tile_vectors, f"if valid > {isa.lanes}:"), (1, "else:")):
        out += [f"            {condition}"]
        for n, size in enumerate(rows):
            test = "else:" if n == len(rows) - 1 else f"{'if' if n == 0 else 'elif'} rows > {rows[n + 1]}:"
            out += [f"                {test}", f"                    tile_{size}_{vectors}{call}"]
    out += ["            c += 1", f"        p += {rows[0]}", "    return 0", ""]

    def intrinsics(target: Isa) -> dict[str, Any]:
        return {
            f"tile_{r}_{v}": make_tile(target, r, v, epilogue) for r in rows for v in (isa.tile_vectors, 1)
        }

    return Kernel(name, "\n".join(out), frame, intrinsics, epilogue.text())


class Tiled(Lowering):
    """A group whose anchor is a sum over taps and depth with constant weights [G, depth, O].

    Subclasses set `weights`, `groups`, `outs`, `channel_axis` and plan by `emit`.
    """

    groups = 1
    outs: int
    channel_axis: int

    def __init__(self, group: Group, kind: str):
        super().__init__(group)
        self.isa = host_isa()
        self.out = group.last.output
        skip = self._take_bias()
        body = group.make_body(skip)
        self.operands = group.operands_after(skip)
        kinds = [self._kind(v) for v in self.operands]
        self.epilogue = Epilogue(body, kinds, self.out.dtype)
        names = "_".join(n.op.name.lower() for n in group.body[skip:][:4])
        self.kind = kind
        self.kernel = self.make_kernel(names)
        self.kernels = (self.kernel,)
        self._w = self._b = 0

    def make_kernel(self, names: str) -> Kernel:
        rows, width = ROWS[self.isa.name][0], tile_width(self.isa)
        name = f"{self.kind}_f32_{rows}x{width}_{self.isa.name}{'_' + names if names else ''}"
        return tile_kernel(name, self.epilogue, self.isa)

    def along(self, view: View, axes: Sequence[int | None]) -> list[int]:
        """The byte strides of `view` for the axes that stand for N, OH, OW; None: 0."""
        return [0 if a is None else view.strides[a] for a in axes]

    def _take_bias(self) -> int:
        """A constant added first, one per channel, starts the accumulators. Returns how many nodes."""
        self.bias: np.ndarray | None = None
        assert self.group.anchor is not None
        value = self.group.anchor.outputs[0]
        if not self.group.body or self.group.body[0].op.name != "Add":
            return 0
        node = self.group.body[0]
        if sum(v is value for v in node.inputs) != 1 or node.output.shape != value.shape:
            return 0
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        array = other.constant
        if array is None or array.dtype != np.float32:
            return 0
        rank = len(value.shape)
        shape = (1,) * (rank - array.ndim) + array.shape
        channels = self.groups * self.outs
        if any(d != 1 for a, d in enumerate(shape) if a != self.channel_axis % rank):
            return 0
        self.bias = np.broadcast_to(array.reshape(-1), (channels,))
        return 1

    def _kind(self, value: Value) -> str:
        rank = len(self.out.shape)
        shape = (1,) * (rank - len(value.shape)) + tuple(value.shape)
        axis = self.channel_axis % rank
        if shape[axis] == 1 and self.out.shape[axis] != 1:
            return "scalar"
        others = [d for a, d in enumerate(shape) if a != axis]
        return "channel" if all(d == 1 for d in others) else "pixel"

    def arranged(self) -> tuple[np.ndarray, Sequence[int], Sequence[int]] | None:
        """The model's constant that holds the weights, the dimensions to see it in, and their order in
        `matrix`; None where the matrix is not a mere rearrangement."""
        return None

    def matrix(self) -> np.ndarray:
        """The weights as [G, depth, O]."""
        arranged = self.arranged()
        if arranged is None:
            raise NotImplementedError
        weights, dims, order = arranged
        return weights.reshape(dims).transpose(order).reshape(self.groups, -1, self.outs)

    def pack(self, constants: Constants) -> None:
        for value in self.operands:
            if value.constant is not None:
                constants.view(value.constant, value.dtype)
        matrix, arranged = self.matrix(), self.arranged()
        packed, self.panel_bytes, self.group_bytes = pack_panels(matrix, self.isa)
        self._w = constants.place(packed, (self, "weights")).offset
        if arranged is not None:
            width = tile_width(self.isa)
            last = self.group_bytes // 4 // max(matrix.shape[1], 1) - self.outs // width * width
            weights, dims, order = arranged
            constants.note_panels(weights, Panels(self._w, matrix.shape, (width, last), dims, order))
        self.pack_bias(constants)

    def pack_bias(self, constants: Constants) -> None:
        """The bias as panels; without one, a panel of zeros that all panels share."""
        if self.bias is not None:
            self._b = constants.place(pack_bias(self.bias, self.groups, self.isa), (self, "bias")).offset
        else:
            zeros = np.zeros(tile_width(self.isa), np.float32)
            self._b = constants.place(zeros, "zero panel").offset
        self.bias_step = 0 if self.bias is None else tile_width(self.isa) * 4

    def operand_view(self, planner: Planner, value: Value, kind: str) -> View:
        """The operand broadcast to the output's shape; channels adjacent where the kernel loads vectors."""
        view = planner.view(value)
        rank = len(self.out.shape)
        axis = self.channel_axis % max(rank, 1) - (rank - len(view.shape))
        if kind != "scalar" and axis >= 0 and view.shape[axis] > 1 and view.strides[axis] != view.itemsize:
            order = [a for a in range(len(view.shape)) if a != axis] + [axis]
            view = planner.copy(value, Layout(order))
        return view.expand(planner.shape(self.out))

    def operand_values(
        self, planner: Planner, axes: Sequence[int | None], part: Callable[[View], View] = lambda view: view
    ) -> tuple[dict[str, Any], list[View]]:
        """Addresses and strides of the epilogue's operands along `axes` (N, OH, OW and perhaps the group), by
        the names that kernels have for them; and the views that are read."""
        values: dict[str, Any] = {}
        reads = []
        for i, (value, operand) in enumerate(zip(self.operands, self.epilogue.operands, strict=True)):
            view = self.operand_view(planner, value, operand.kind)
            if operand.kind != "channel":
                view = part(view)
                strides = self.along(view, axes)
                values |= {f"e{i}_{letter}": stride for letter, stride in zip("nhwg", strides, strict=False)}
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
        return overwritable(views, read)

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
        origin: int = 0,
        part: Callable[[View], View] = lambda view: view,
        weights: Ptr | None = None,
        group_axis: int | None = None,
        more: Sequence[View] = (),
    ) -> None:
        """Add the step. `images` = (N, OH, OW), `strides` the byte strides of x for them, `axes` the axes of
        y (and of operands) they stand for, `taps` = (n1, s1, n2, s2, k), `origin` x's first byte from its
        element 0.

        `part` picks what this step computes of y and the operands. Groups lie along the channels, or along
        `group_axis` of y. `weights`: where they are when they are not constants; `more` views that are read.
        """
        n, oh, ow = images
        pixels = n * oh * ow
        if pixels == 0 or self.outs == 0:
            return
        rows, width = ROWS[self.isa.name][0], tile_width(self.isa)
        panels = ceil_div(self.outs, width)
        depth = taps[0] * taps[2] * taps[4]
        flops = 2.0 * pixels * depth * self.outs * self.groups
        pn_per = max(1, min(panels, PANEL_BYTES // max(self.panel_bytes, 1)))
        pn_blocks = ceil_div(panels, pn_per)
        wanted = min(MOST_CHUNKS, max(1, flops // CHUNK_FLOPS))
        px_blocks = max(1, min(ceil_div(pixels, rows), ceil_div(int(wanted), pn_blocks * self.groups)))
        px_per = ceil_div(ceil_div(pixels, rows), px_blocks) * rows
        px_blocks = ceil_div(pixels, px_per)

        # all tiles together prefetch each panel of the next block once
        ahead_step = ceil_div(width * 4, ceil_div(pixels, rows))

        values: dict[str, Any] = {
            "x": x.ptr + origin, "w": planner.constants.at(self._w) if weights is None else weights,
            "b": planner.constants.at(self._b), "y": y.ptr, "oh": oh, "ow": ow, "pixels": pixels,
            "x_g": x_group, "w_g": self.group_bytes, "w_panel": self.panel_bytes,
            "outs": self.outs, "panels": panels, "px_per": px_per, "px_blocks": px_blocks, "pn_per": pn_per,
            "pn_blocks": pn_blocks, "ahead_step": ahead_step, "tile_ahead": ahead_step * depth,
        }  # fmt: skip
        values |= dict(zip(("n1", "s1", "n2", "s2", "k"), taps, strict=True))
        values |= dict(zip(("x_n", "x_h", "x_w"), strides, strict=True))
        along = (*axes, group_axis)
        values |= dict(zip(("y_n", "y_h", "y_w", "y_g"), self.along(y, along), strict=True))
        values["c_g"] = self.outs if group_axis is None else 0
        values["b_step"] = self.bias_step
        operands, read = self.operand_values(planner, along, part)
        values |= operands
        reads = [x, *more, *read]
        planner.need_scratch(self.epilogue.table_rows * TABLE * 8)
        planner.step(self.kernel, values, px_blocks * pn_blocks * self.groups, reads, [y], flops)
        planner.steps[-1].bytes += self.group_bytes * self.groups


class TiledConvolution(Tiled):
    """Convolution and GroupConvolution of one or two spatial dimensions."""

    channel_axis = 1

    def __init__(self, group: Group):
        anchor = group.anchor
        assert anchor is not None
        self.data = anchor.inputs[0]
        weights = anchor.inputs[1].constant
        assert weights is not None
        self.constant = weights
        self.weights = weights if anchor.op.name == "GroupConvolution" else weights[None]
        self.groups, self.outs, self.channels, *kernel = self.weights.shape
        self.kernel_size = kernel
        self.attrs = anchor.attrs
        groups = channel_shuffle(self.data)
        #: 1x1 convolutions read shuffled channels where they lie: `shuffle` runs of equal length
        self.shuffle = 0
        if groups and set(kernel) == {1} and self.channels % groups == 0:
            self.shuffle = groups
            self.data = self.data.node.inputs[0]
        super().__init__(group, "conv")

    @property
    def planar(self) -> bool:
        """True when the input is read as the user gives it, NCHW: few channels, not turned by anybody yet."""
        return (
            self.data.node.op.name == "Parameter"
            and self.groups == 1
            and 1 < self.channels <= PLANAR_CHANNELS
            and len(self.kernel_size) == 2
            and self.kernel_size[1] > 1
            and set(self.attrs["dilations"]) <= {1}
        )

    def arranged(self) -> tuple[np.ndarray, Sequence[int], Sequence[int]]:
        rank = len(self.kernel_size)
        if self.planar:
            return self.constant, self.weights.shape, (0, 2, 3, 4, 1)  # C, taps, O
        if self.shuffle:
            runs = (self.groups, self.outs, self.channels // self.shuffle, self.shuffle)
            return self.constant, runs, (0, 3, 2, 1)
        return self.constant, self.weights.shape, (0, *range(3, 3 + rank), 2, 1)  # G, taps, C, O

    def window(self, extents: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
        """(strides, dilations, pads before, pads after) for these spatial extents."""
        rank = len(self.kernel_size)
        strides = list(self.attrs["strides"]) or [1] * rank
        dilations = list(self.attrs["dilations"]) or [1] * rank
        begin, end = resolve_pads(
            self.attrs["auto_pad"], extents, self.kernel_size, strides, dilations,
            self.attrs["pads_begin"] or (0,) * rank, self.attrs["pads_end"] or (0,) * rank,
        )  # fmt: skip
        return strides, dilations, list(begin), list(end)

    def halo(self, extents: Sequence[int]) -> list[tuple[int, int]]:
        """The zero border of the input: what the last window really reads may be less than the padding."""
        _, _, begin, end = self.window(extents)
        return [(0, 0), (0, 0), *zip(map(int, begin), map(int, end), strict=True)]

    def wishes(self) -> list[tuple[Value, Layout]]:
        if self.planar:
            return []
        shape = self.data.shape
        extents = [64 if isinstance(d, Interval) else d for d in shape[2:]]
        return [(self.data, channels_last(len(shape), self.halo(extents)))]

    def prefers(self, layouts: dict[Value, Layout]) -> Layout | None:
        return channels_last(len(self.out.shape))

    def plan(self, planner: Planner) -> None:
        shape = planner.shape(self.data)
        out_shape = planner.shape(self.out)
        strides, dilations, begin, _ = self.window(shape[2:])
        size = SIZE["f32"]
        if self.planar:
            halo = self.halo(shape[2:])
            x = (
                planner.copy(self.data, Layout(range(4), halo))
                if any(map(any, halo))
                else planner.contiguous(self.data)
            )
            y = planner.channels_last_output(self.out)
            kh, kw = self.kernel_size
            _, x_c, x_h, x_w = x.strides
            self.emit(
                planner, x, y, (out_shape[0], *out_shape[2:]),
                (x.strides[0], strides[0] * x_h, strides[1] * x_w), (0, 2, 3),
                (self.channels, x_c, kh, x_h, kw), 0, -begin[0] * x_h - begin[1] * x_w,
            )  # fmt: skip
            return
        x = planner.with_halo(self.data, self.halo(shape[2:]))
        y = planner.channels_last_output(self.out, over=self.over(planner, x))
        if len(shape) == 3:  # one spatial dimension: a row
            kh, (kw,) = 1, self.kernel_size
            x_h, x_w = 0, x.strides[2]
            sh, (sw,), dh, (dw,), ph, (pw,) = 1, strides, 1, dilations, 0, begin
            axes: tuple[int | None, ...] = (0, None, 2)
            images: tuple[int, ...] = (out_shape[0], 1, out_shape[2])
        else:
            kh, kw = self.kernel_size
            x_h, x_w = x.strides[2:]
            (sh, sw), (dh, dw), (ph, pw) = strides, dilations, begin
            axes = (0, 2, 3)
            images = (out_shape[0], *out_shape[2:])
        x_group = self.channels * size
        if self.shuffle:
            run = self.channels // self.shuffle
            apart = x.shape[1] // self.shuffle * size
            taps = (self.shuffle, apart, 1, 0, run)
            x_group = run * size
        elif dw == 1 and x_w == self.channels * size and self.groups == 1:
            taps = (kh, dh * x_h, 1, 0, kw * self.channels)
        else:
            taps = (kh, dh * x_h, kw, dw * x_w, self.channels)
        self.emit(
            planner, x, y, images, (x.strides[0], sh * x_h, sw * x_w), axes, taps,
            x_group, -ph * x_h - pw * x_w,
        )  # fmt: skip


def lower_convolution(group: Group) -> Lowering | None:
    """A tiled convolution where data and filters are f32, the filters constant, in 1 or 2 dimensions."""
    anchor = group.anchor
    assert anchor is not None
    filters = anchor.inputs[1].constant
    if (
        filters is None
        or filters.dtype != np.float32
        or len(anchor.inputs[0].shape) not in (3, 4)
        or not filters.size
    ):
        return None
    from ovjit_ops.convolution.cpu_depthwise import Depthwise, is_depthwise

    if is_depthwise(group):
        return Depthwise(group)
    from ovjit_ops.convolution.cpu_winograd import Winograd, winograd_way

    way = winograd_way(group)
    return Winograd(group, way) if way else TiledConvolution(group)


class TiledMatMul(Tiled):
    """MatMul with a constant right-hand matrix: every row of the left one is a pixel."""

    channel_axis = -1

    def __init__(self, group: Group):
        anchor = group.anchor
        assert anchor is not None
        self.data = anchor.inputs[0]
        weights = anchor.inputs[1].constant
        assert weights is not None
        self.constant = weights
        self.turned = bool(anchor.attrs["transpose_b"])
        if self.turned:
            weights = weights.swapaxes(-1, -2)
        depth, self.outs = weights.shape[-2:]
        self.weights = weights.reshape(depth, self.outs)
        self.transposed = bool(anchor.attrs["transpose_a"]) and len(self.data.shape) > 1
        super().__init__(group, "matmul")

    def arranged(self) -> tuple[np.ndarray, Sequence[int], Sequence[int]]:
        return self.constant, self.constant.shape[-2:], (1, 0) if self.turned else (0, 1)

    def plan(self, planner: Planner) -> None:
        x = planner.view(self.data)
        depth = self.weights.shape[0]
        if self.transposed:
            rank = len(x.shape)
            x = planner.copy(self.data, Layout((*range(rank - 2), rank - 1, rank - 2)))
            x = x.permute((*range(rank - 2), rank - 1, rank - 2))
        elif x.strides and x.shape[-1] > 1 and x.strides[-1] != x.itemsize:
            x = planner.contiguous(self.data)
        lead = x.shape[:-1]
        y = planner.channels_last_output(self.out, -1)
        missing = 3 - len(lead)  # the leading dimensions stand for N, OH, OW
        images = (1,) * missing + tuple(lead)
        strides = (0,) * missing + x.strides[: len(lead)]
        axes = (None,) * missing + tuple(range(len(lead)))
        self.emit(planner, x, y, images, strides, axes, (1, 0, 1, 0, depth), 0)


def lower_matmul(group: Group) -> Lowering | None:
    """Tiled where the right-hand side is one constant f32 matrix and the left-hand side has 1 to 4
    dimensions; else packed while running."""
    from ovjit_ops.matmul.cpu_products import lower_product

    anchor = group.anchor
    assert anchor is not None
    b = anchor.inputs[1].constant
    rank = len(anchor.inputs[0].shape)
    one_matrix = b is not None and b.ndim >= 2 and b.size and b.size == b.shape[-1] * b.shape[-2]
    if not one_matrix or b.dtype != np.float32 or not 1 <= rank <= 4 or len(anchor.output.shape) != rank:  # type: ignore[union-attr]
        return lower_product(group)
    return TiledMatMul(group)
