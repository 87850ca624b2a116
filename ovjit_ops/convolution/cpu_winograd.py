"""Convolutions of 3x3, 3x1 and 1x3 taps and stride 1 by Winograd's minimal filtering, F(4) and F(2).

    y = A' [ (G w G') * (B' x B) ] A      for tiles of m x m outputs, n = m + 2, * elementwise

in three steps: input tiles into n*n planes [plane][tile][channel]; one matrix product for each plane by the
tile kernel; planes back into m x m pixels with bias and epilogue. Large images are processed in bands of
rows, which reuse the memory of one band's planes. The slices of a volume are images, if the window is one
slice deep. F(4x4) needs a quarter of the direct algorithm's multiplications, F(2x2) four ninths. Their
weights are 4 and 1.8 times as large, so the fastest algorithm depends on the shape: `best_way` has the model.

Windows of three taps along one axis have tiles of m outputs along it, in f32. A sequence is an image of one
column. F(4) then needs half of the multiplications, and twice the weights. The pixels of a dilated window are
an ordinary window among those that are `dilation` apart; all these interleaved images are in one step.

Tensors of bf16 are read and written as bf16. If the number of channels is even, F(2x2) also has planes in
bf16, for the dot instruction. Sums of four elements lose a bit: networks' errors are 0.8 - 1.2 times those of
the direct algorithm. F(4x4) would lose four bits, so its planes are f32.

Bytes that are multiplied without VNNI have planes of 16 bits and matrices of integers (`WHOLE`). Results are
exact. Sums of F(4x4) may exceed 32 bits, which keep their residues modulo 2**32. The result is 576 = 9 * 64
times the convolution. It is multiplied by the inverse of 9 modulo 2**32 and shifted right by 6 bits, which is
exact if the convolution itself fits 26 bits. `possible_ways` decides that by the weights.

Accuracy in f32, against float64 on random data, relative to the output's scale: direct 1e-6, F(2x2) 1e-6,
F(4x4) 1e-5; the documented bound is 1e-4. EXECUTION_MODE_HINT=ACCURACY selects the direct algorithm.

The matrices are those of Lavin and Gray (2015), for the points 0, 1, -1, (2, -2,) infinity.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit import debug
from ovjit.codegen import trace as t
from ovjit.codegen.cpu.formats import BF16, F32, I16, WORD, Format, matrix_format
from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.cpu.targets import CACHE_LINE
from ovjit.codegen.kernel_language import *
from ovjit.codegen.trace import Recorder, Tracer
from ovjit.graph.dtypes import all_finite, numpy_dtype
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import Dim, Interval, is_static
from ovjit.graph.symbolic import sym_max, sym_min
from ovjit.planning.chunks import CHUNK_WORK
from ovjit.planning.fuse import Group
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering, Shapes, Versions
from ovjit.planning.plan import Constants, Filling, Planner, ceil_div, element_size
from ovjit.planning.views import Layout, View, row_major
from ovjit.tiles.driver import tile_kernel
from ovjit.tiles.epilogues import OPERANDS
from ovjit.tiles.lowering import tile_format
from ovjit.tiles.narrow import WIDENED, word_time
from ovjit.tiles.pack import pack_bias, panel_sizes, tile_width
from ovjit.tiles.sharing import Weights
from ovjit.tiles.sizes import TABLE, WAYS
from ovjit.tiles.winograd import WHOLE, fill_planes, matrices_of, plane_shape
from ovjit_ops.convolution.cpu_convolution import TiledConvolution, as_images

#: Maximum bytes of the planes of a band, which should stay in a cache.
BAND = 4_000_000
#: Bands of images of open size have so many times the bytes. Those of 34 MB take 1.00 of the time: ResNet-18
#: at 600 x 800, one thread of a Zen 3.
OPEN_BANDS = 8
#: m -> the largest |sum of products| for which F(m x m) of integers is exact.
MOST_SUMS = {m: (2**31 - 1) // (form.divisor & -form.divisor) for m, form in WHOLE.items()}
#: For images of open size: maximum bytes of the planes of weights by m, and the pixels of a side that is
#: large in any case. Planes are in memory beside the weights of the direct algorithm. They have 1.8 (m = 2)
#: or 4 times as many bytes.
MOST_PLANES, LARGE = {2: 80_000_000, 4: 20_000_000}, 64
#: Maximum images of interleaved pixels that a dilated convolution of images, and of lines, is computed in.
MOST_PARTS, MOST_LINE_PARTS = 16, 32
#: Bytes of the tables in a thread's scratch. The line of zeros (or the dump) follows them.
TABLE_BYTES = 2048


def transform(rows: Sequence[Sequence[float]], values: Sequence[Tracer]) -> list[Tracer]:
    """rows @ values, in traced arithmetic. What several rows need is computed once."""
    matrix, values = _with_sums(rows, values)
    products = _pairs_of_rows(matrix, values)
    return [products[i] if i in products else combination(row, values) for i, row in enumerate(matrix)]


def _with_sums(
    rows: Sequence[Sequence[float]], values: Sequence[Tracer]
) -> tuple[list[list[float]], list[Tracer]]:
    """A matrix and values with the same product. Two values become their sum and difference if all of three
    or more rows use them by factors of one magnitude."""
    matrix, values = [list(row) for row in rows], list(values)
    for i, j in itertools.combinations(range(len(values)), 2):
        used = [row for row in matrix if row[i] or row[j]]
        if len(used) > 2 and all(abs(row[i]) == abs(row[j]) for row in used):
            values[i], values[j] = values[i] + values[j], values[i] - values[j]
            for row in used:
                row[i], row[j] = (row[i], 0) if row[i] == row[j] else (0, row[i])
    return matrix, values


def _pairs_of_rows(matrix: Sequence[Sequence[float]], values: Sequence[Tracer]) -> dict[int, Tracer]:
    """The products of pairs of rows whose factors differ only in signs. With p for the terms of equal sign
    and q for those of opposite sign, the two products are p + q and p - q."""
    products = dict[int, Tracer]()
    for i, j in itertools.combinations(range(len(matrix)), 2):
        pairs = list(zip(matrix[i], matrix[j], strict=True))
        equal = [x if x == y else 0 for x, y in pairs]
        opposite = [x if x == -y else 0 for x, y in pairs]
        differs = any(abs(x) != abs(y) for x, y in pairs)
        if differs or not (any(equal) and any(opposite)) or sum(map(bool, matrix[i])) < 3:
            continue
        scale = max(map(abs, opposite))
        if {abs(x) for x in opposite} == {0, scale}:
            opposite = [x / scale for x in opposite]
        else:
            scale = 1
        same, other = combination(equal, values), combination(opposite, values)
        products[i], products[j] = (combination([1, factor], [same, other]) for factor in (scale, -scale))
    return products


def combination(factors: Sequence[float], values: Sequence[Tracer]) -> Tracer:
    """The sum of products of factors, not all zero, and values."""
    total: Any = None
    for factor, value in sorted(zip(factors, values, strict=True), key=lambda p: (abs(p[0]) != 1, p[0] != 1)):
        if factor == 0:
            continue
        if total is None:
            total = value if factor == 1 else -value if factor == -1 else value * factor
        elif abs(factor) == 1:
            total = total + value if factor == 1 else total - value
        else:
            total = t.fma(value, factor, total)
    return total


@functools.cache
def tile_transform(tile: tuple[int, int], name: str, source: str = "f32", to: str = "f32") -> Body:
    """M @ grid @ N.T of the grid of a tile, with the matrices of its height and width: floats in f32,
    integers in i32 modulo 2**32. Results of the matrix A of integers are divided by their divisor."""
    kind = "f32" if to == "f32" else "i32"
    recorder, divided = Recorder(), kind == "i32" and name == "A"
    rows, columns = (WHOLE[m].A if divided else matrices_of(m)[name] for m in tile)
    n, width = len(rows[0]), len(columns[0])
    grid = [
        [t.cast(recorder.input(f"x{i * width + j}", source), kind) for j in range(width)] for i in range(n)
    ]
    half = [transform(rows, [row[j] for row in grid]) for j in range(width)]
    results = [v for i in range(len(rows)) for v in transform(columns, [column[i] for column in half])]
    results = [t.cast(divide_exactly(v, WHOLE[tile[0]].divisor) if divided else v, to) for v in results]
    return Body([source] * n * width, [to] * len(results), recorder.lines, [v.name for v in results])


def divide_exactly(value: Any, divisor: int) -> Any:
    """value / divisor, which leaves no remainder, of numbers in i32 that are known modulo 2**32."""
    power = divisor & -divisor
    odd = divisor // power
    if odd > 1:
        inverse = pow(odd, -1, 1 << 32)
        value = value * (inverse - (inverse >> 31 << 32))
    return value >> power.bit_length() - 1


@kernel(over="img th rh tw rw", x="img c:1 h w", v="p img th rh tw rw c:1")
def into_planes(x: Tensor, v: Tensor, ph, pw, dh, dw, *, T, to, tile, grid, transform):
    """Transform the tiles of x to planes, one for each element of `grid`. The first tile begins `ph` rows and
    `pw` columns before x. The rows of a tile are `dh` apart, and its columns `dw`: `rh` and `rw` count the
    images of interleaved pixels. Pixels outside of the image are read from a line of zeros. T, to: the types
    of pixels and planes."""
    pixel, results = registers()
    zeros = scratch + TABLE_BYTES
    for k in range(0, x.size.c, VL):
        store[f32](zeros + k * 4, const[f32](0.0))
    for img, row, first_row, column, first_column, planes in items(v):
        top = row * tile[0] * dh + first_row - ph
        left = column * tile[1] * dw + first_column - pw
        for i in range(grid[0]):
            for j in range(grid[1]):
                r = top + i * dh
                s = left + j * dw
                address = zeros
                if r >= 0 and r < x.size.h and s >= 0 and s < x.size.w:
                    address = x.at(img=img, h=r, w=s)
                st[i64](scratch + (i * grid[1] + j) * 8, address)
        for k in range(0, x.size.c, VL):
            valid = x.size.c - k
            offset = k * SIZE[T]
            for at in static_range(grid[0] * grid[1]):
                pixel[at] = loadm[T](ld(scratch, at) + offset, valid)
            results = applied(transform, *pixel)
            target = planes + k * SIZE[to]
            for at in static_range(grid[0] * grid[1]):
                storem[to](target, results[at], valid)
                target += v.stride.p


@kernel(over="img th rh tw rw", v="img th rh tw rw p c:1", y="img c:1 h w")
def into_pixels(
    v: Tensor, b: Ptr, y: Tensor, dh, dw, e=OPERANDS, *, tile, grid, acc, transform, operands, body, out,
):  # fmt: skip
    """Transform planes to the pixels of y of each tile. Pixels outside of the image are written to a dump.
    Row 1 of the table has the addresses of pixels, the following rows those of operands."""
    total, results, o = registers()
    dump = scratch + TABLE_BYTES
    for img, row, first_row, column, first_column, planes in items(v):
        top = row * tile[0] * dh + first_row
        left = column * tile[1] * dw + first_column
        for i in range(tile[0]):
            for j in range(tile[1]):
                r = top + i * dh
                s = left + j * dw
                table = scratch + (i * tile[1] + j) * 8
                if r < y.size.h and s < y.size.w:
                    st[i64](table + TABLE * 8, y.at(img=img, h=r, w=s))
                else:
                    r = 0
                    s = 0
                    st[i64](table + TABLE * 8, dump)
                for number, operand in enumerate(operands):
                    if not operand.shared:
                        base = e[number] + img * e[number, "n"] + r * e[number, "h"] + s * e[number, "w"]
                        st[i64](table + operand.where * TABLE * 8, base)
        for k in range(0, y.size.c, VL):
            valid = y.size.c - k
            source = planes + k * 4
            for at in static_range(grid[0] * grid[1]):
                total[at] = loadm[acc](source, valid)
                source += v.stride.p
            results = applied(transform, *total)
            offset = load[acc](b + k * 4)
            for number, operand in enumerate(operands, 1):
                if operand.kind == "number":
                    o[number] = splat[operand.dtype](e[number - 1])
                elif operand.kind == "channel":
                    o[number] = loadm[operand.dtype](e[number - 1] + k * SIZE[operand.dtype], valid)
            for pixel in static_range(tile[0] * tile[1]):
                for number, operand in enumerate(operands, 1):
                    if operand.kind == "scalar":
                        o[number] = splat[operand.dtype](ld(scratch, operand.where * TABLE + pixel))
                    elif operand.kind == "pixel":
                        base = ld(scratch, operand.where * TABLE + pixel) + k * SIZE[operand.dtype]
                        o[number] = loadm[operand.dtype](base, valid)
                result = applied(body, results[pixel] + offset, *o)
                storem[out](ld(scratch, TABLE + pixel) + k * SIZE[out], result, valid)


@functools.cache
def input_kernel(tile: tuple[int, int], grid: tuple[int, int], elem: str, to: str) -> Kernel:
    name = f"winograd_input_{elem}_{to}_{tile[0]}x{tile[1]}"
    types = (elem, to) if to == I16.a else ()
    forward = tile_transform(tile, "B", *types)
    return into_planes.kernel(name, T=elem, to=to, tile=tile, grid=grid, transform=forward)


def output_kernel(
    tile: tuple[int, int], grid: tuple[int, int], epilogue: Epilogue, names: str, acc: str
) -> Kernel:
    name = f"winograd_output_{epilogue.out}_{tile[0]}x{tile[1]}" + (f"_{names}" if names else "")
    constants = epilogue.constants(acc)
    back = tile_transform(tile, "A", acc, acc)
    return into_pixels.kernel(name, tile=tile, grid=grid, acc=acc, transform=back, **constants)


def plane_form(m: int, form: Format, channels: int) -> Format:
    """The format in which F(m x m) multiplies planes, if the direct algorithm uses `form`."""
    if _in_halves(form):
        return I16
    return form if m == 2 and form.products == 1 and channels % form.group == 0 else F32


def _in_halves(form: Format) -> bool:
    """Whether planes of bytes are multiplied as i16: without VNNI that takes no longer."""
    return form.acc == "i32" and form.products > 1


def possible_ways(form: Format, channels: int, sums: int) -> tuple[int, ...]:
    """The supported m of F(m x m), for filters of so many channels. `sums`: a bound of |sum of products| for
    bytes."""
    if _in_halves(form):
        return tuple(m for m, most in MOST_SUMS.items() if channels % I16.group == 0 and sums <= most)
    return tuple(_TRANSFORMS) if form in (F32, BF16) or form.a == "f16" else ()


#: Cycles of a tile, by format, for a word of a pixel times a panel of two vectors. For bytes: per unit of the
#: times in `sizes.WAYS`.
_CYCLES = {"f32": 1 / 0.9, "bf16": 1.08 / 0.95, "f16": 2.1, "u8i8": 1.25, "i16": 1.4}
#: The time of a word of bf16 on targets with slow dot products.
_SLOW = 2.0
#: Bytes of weights per cycle: between the rates of a large cache and of memory.
_BYTES = {"f32": 5.5, "bf16": 6.3, "f16": 6.3, "u8i8": 5.5}
#: Cost of a last panel of one vector, relative to one of two.
_NARROW = 0.55
#: m -> cycles of both transforms, for each vector of a tile of m x m outputs, and of m outputs.
_TRANSFORMS = {2: 110.0, 4: 280.0}
_LINE_TRANSFORMS = {2: 30.0, 4: 50.0}
#: Bytes of planes that stay in a core's cache; bytes per cycle of the other planes; cycles of two more steps,
#: and of the first access to planes.
_KEPT, _MOVED, _STEPS = 1e6, 12.0, 10_000.0
#: The same of one more image of interleaved pixels, for tiles of m x m outputs, and of m outputs.
_PART, _LINE_PART = 10_000.0, 2_500.0


def best_way(
    images: int, oh: int, ow: int, channels: int, outs: int, lanes: int, ways: Sequence[int],
    form: Format = F32, word: float = 1.0, slices: int = 1, dilations: Sequence[int] = (1, 1),
    kernel: Sequence[int] = (3, 3),
) -> int:  # fmt: skip
    """0 for the direct algorithm in `form`, 2 or 4 for F(2x2) or F(4x4): the fastest one by the model.
    `ways`: the m that are possible (`possible_ways`). `kernel`: the taps along the height and the width.
    `word`: the time of a word in `form`, if that depends on the weights (`narrow.word_time`) or the target.
    `slices`: those of a filter, if the images are slices of volumes. `dilations`: those along the images.

    Times are in cycles of one core. Products: two vector multiply-adds a cycle at 0.9 of that (bf16: 0.95 of
    1.85 dot products). A tile of few rows waits for its own results, 4 cycles a step. Weights mostly arrive
    in parallel with the products. Planes that do not stay in the cache are written and read again.

    Measured 2026 on one Zen 5 core: 79 shapes, each algorithm, with a full and with an empty cache; networks
    are between these. Shapes of six networks and of few channels are among them. The chosen algorithm takes 5
    % (f32) and 3 % (bf16) longer than the fastest, the mean of all. Bytes without VNNI: one Zen 3 core, 24
    shapes, 1 % longer; and 13 with weights that leave a remainder and with others.
    """
    height = 14

    full, remainder = divmod(outs, 2 * lanes)
    panels = full + (_NARROW if 0 < remainder <= lanes else 1 if remainder else 0)

    def products(rows: int, depth: int, matrices: int, form: Format = F32, word: float = 1.0) -> float:
        remainder = rows % height
        steps = rows - remainder + (max(remainder, 4) if remainder else 0)
        compute = matrices * steps * depth * panels * _CYCLES[form.name] * word
        weights = matrices * depth * outs * WORD / rate
        return max(compute, weights) + 0.3 * min(compute, weights)

    rate = _BYTES[form.name]
    times = {0: products(images * oh * ow, math.prod(kernel) * slices * form.words(channels), 1, form, word)}
    for m in ways:
        cycles, part = (_LINE_TRANSFORMS[m], _LINE_PART) if 1 in kernel else (_TRANSFORMS[m], _PART)
        tile, grid = plane_shape(m, kernel)
        matrices = math.prod(grid)
        sizes = zip((oh, ow), tile, dilations, strict=True)
        tiles = images * math.prod(d * tiles_along(n, each, d) for n, each, d in sizes)
        vectors = ceil_div(channels, lanes) + ceil_div(outs, lanes)
        planes = plane_form(m, form, channels)
        words = planes.words(channels)
        size = tiles * matrices * (words + outs) * WORD
        times[m] = products(tiles, slices * words, matrices, planes, word if planes is form else 1.0)
        times[m] += tiles * vectors * cycles
        times[m] += 2 * max(0.0, size - _KEPT) / _MOVED + _STEPS + part * (math.prod(dilations) - 1)
    return min(times, key=lambda way: times[way])


def tiles_along(outs: int, m: int, dilation: int) -> int:
    """The maximum number of tiles of m outputs that are `dilation` apart, along one axis."""
    return ceil_div(ceil_div(outs, dilation), m)


def _split_tiles(view: View, axis: int, th: int, dh: int, tw: int, dw: int) -> View:
    """Split the axis of a band's tiles into rows and columns of tiles, and images of interleaved pixels."""
    return view.split(axis, th * dh, tw * dw).split(axis, th, dh).split(axis + 2, tw, dw)


def _work_of_tile(planes: View, first: int) -> int:
    """The work of a transform for a tile of `planes`, whose tiles are the five dimensions from `first` on.
    At least so much that there are two chunks, if not for more time: with a single one, or many short ones,
    two threads would not find the pixels that they have written."""
    tiles = math.prod(planes.shape[first : first + 5])
    return sym_max(2 * (planes.count // sym_max(1, tiles)), 2 * CHUNK_WORK // sym_max(1, tiles))


def as_planes(view: View, volume: int | None) -> View:
    """As `as_images`, and sequences as images of one column."""
    return view.split(2, view.shape[2], 1) if len(view.shape) == 3 else as_images(view, volume)


class Winograd(TiledConvolution):
    """A convolution of 3x3, 3x1 or 1x3 taps by F(m), or one of volumes that is 3x3 in each slice of the
    filters. Slices of volumes are transformed as images; a product adds those under the slices of a filter.
    Sequences are images of one column."""

    def __init__(self, group: Group, m: int):
        self.m = m
        self.taps = image_kernel(group.node)
        self.tile, self.grid = plane_shape(m, self.taps)
        super().__init__(group)

    def choose_form(self) -> Format:
        return plane_form(self.m, super().choose_form(), self.channels)

    def suits_matrices(self, form: Format) -> bool:
        return False  # it is not chosen where there is a matrix unit

    def make_kernel(self, names: str) -> Kernel:
        self.input_kernel = input_kernel(self.tile, self.grid, self.data.dtype, self.form.a)
        self.output_kernel = output_kernel(self.tile, self.grid, self.epilogue, names, self.form.acc)
        rows, width = self.tile_pixels, tile_width(self.target)
        name = f"conv_{self.form.name}_{rows}x{width}_{self.target.name}"
        return tile_kernel(name, Epilogue(None, [], self.form.acc), self.target, self.form)

    @property
    def kernels(self) -> Sequence[Kernel]:
        return (self.input_kernel, self.kernel, self.output_kernel)

    @kernels.setter
    def kernels(self, value: Sequence[Kernel]) -> None:
        pass

    def halo(self, extents: Sequence[int], outs: Sequence[int]) -> list[tuple[int, int]]:
        """Zero slices of a volume. The transform itself supplies zeros around images."""
        halo = [(0, 0)] * len(self.data.shape)
        if len(halo) == 5:
            halo[2] = super().halo(extents, outs)[2]
        return halo

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        planes = math.prod(self.grid)
        filters = self.filters.reshape(self.outs, self.channels, -1, *self.taps)
        sizes = panel_sizes(filters.shape[2] * self.form.words(self.channels), self.outs, self.target)
        filling = Filling.by(
            planes * sizes.group, filters, fill_planes, m=self.m,
            kind=self.form.w, group=self.form.group, width=sizes.width, last=sizes.last,
        )  # fmt: skip
        at = constants.add(filling, self.of_node("weights", self.form.name, self.m)).offset
        zeros = constants.add(np.zeros(tile_width(self.target), np.float32), "zero panel").offset
        # the output transform adds the bias
        self.weights = Weights(planes, self.outs, sizes, at, zeros, 0)
        none = np.zeros(self.outs, numpy_dtype(self.form.acc))
        bias = self.bias if self.bias is not None else none
        self.bias_at = constants.add(pack_bias(bias, 1, self.target), (self, "bias")).offset

    def plan(self, planner: Planner) -> None:
        planes = math.prod(self.grid)
        shape, out = planner.shape(self.data), planner.shape(self.out)
        halo = self.halo(shape[2:], out[2:])
        if len(shape) == 3:
            shape, out = (*shape, 1), (*out, 1)
        x = planner.with_halo(self.data, halo)
        # a step per volume: the stride between slices may differ from that between volumes
        volumes = range(shape[0]) if len(shape) == 5 else (None,)
        c, size, (dh, dw) = shape[1], element_size(self.form.a), _dilations(self.node)
        before, n, out_slices = self._slices(halo, shape, out)
        th, tw = (tiles_along(*each) for each in zip(out[-2:], self.tile, (dh, dw), strict=True))
        bands = self.bands(n, th, dh * dw * tw, planes * (c * size + self.outs * 4))
        # y may not overwrite an operand that later bands read
        y = planner.channels_last_output(self.out, over=self.over(planner, *[x] * (bands > 1)))
        if not y.count:
            return
        # where planes are an odd number of lines apart, a tile's elements do not share a set of the cache
        most = dh * ceil_div(th, bands) * dw * tw
        plane_bytes = CACHE_LINE * (2 * ceil_div(n * most * c * size, 2 * CACHE_LINE) + 1)
        space = planner.allocate((planes, plane_bytes), 1)
        room = planner.allocate((out_slices, most, planes, self.outs), 4)
        lanes = self.target.lanes
        planner.need_scratch(TABLE_BYTES + ceil_div(max(c, self.outs), lanes) * lanes * 4)
        planner.need_scratch(self.epilogue.table_rows * TABLE * 8)
        for volume, band in itertools.product(volumes, range(bands)):
            first = th * band // bands
            count = th * (band + 1) // bands - first
            tiles = dh * count * dw * tw
            dims = (planes, n, tiles, c)
            v = View(space.buffer, dims, (plane_bytes, *row_major(dims, size)[1:]), size)
            dims = (out_slices, tiles, planes, self.outs)
            products = View(room.buffer, dims, row_major(dims, 4), 4)
            split = (count, dh, tw, dw)
            images = as_planes(x, volume).slice(0, -before, n)
            self._plan_input(planner, images, _split_tiles(v, 2, *split), first, shape[2:])
            self.multiply(planner, v, products, shape[2:], out[2:], before)
            self._plan_output(planner, volume, _split_tiles(products, 1, *split), first, y)

    def _plan_input(
        self, planner: Planner, images: View, planes: View, first: int, extents: Sequence[int]
    ) -> None:
        """Add the step that transforms the tiles of a band, from the row `first` of tiles on."""
        pads = self.window(extents[: len(self.kernel_size)])[2]
        pad_h, pad_w = pads[-2:] if len(pads) > 1 else (*pads, 0)
        dh, dw = _dilations(self.node)
        launch(
            planner, self.input_kernel, {"x": images, "v": planes}, ("v",),
            work=_work_of_tile(planes, 1), flops=8.0 * planes.count, ph=pad_h - first * self.tile[0] * dh,
            pw=pad_w, dh=dh, dw=dw,
        )  # fmt: skip

    def _plan_output(self, planner: Planner, volume: int | None, products: View, first: int, y: View) -> None:
        """Add the step that transforms the products of a band and writes its rows of y."""
        dh, dw = _dilations(self.node)
        step = self.tile[0] * dh
        rows = sym_min(products.shape[1] * step, as_planes(y, volume).shape[2] - first * step)

        def pixels(view: View) -> View:
            return as_planes(view, volume).slice(2, first * step, rows)

        operands, read = self.operand_values(planner, (0, 2, 3), pixels)
        launch(
            planner, self.output_kernel, {"v": products, "y": pixels(y)}, ("y",), reads=read, disjoint=False,
            work=_work_of_tile(products, 0), flops=8.0 * products.count,
            b=planner.constants.at(self.bias_at), dh=dh, dw=dw, **operands,
        )  # fmt: skip

    def _slices(
        self, halo: Sequence[tuple[int, int]], shape: Sequence[int], out: Sequence[int]
    ) -> tuple[int, int, int]:
        """(zero slices before a volume's own, slices with all zero ones, slices of the output). Images are
        slices of one volume."""
        if len(shape) == 4:
            return 0, shape[0], out[0]
        before, after = halo[2]
        return before, before + shape[2] + after, out[2]

    def bands(self, images: int, height: int, width: int, tile: int) -> int:
        """The number of bands of rows for images of `height` x `width` tiles with `tile` bytes of planes
        each. A band reads all weights, so its planes should not have fewer bytes than these.

        The steps depend on this number, so a plan serves only one. For a dynamic number of tiles it is
        therefore a power of two, and 1 for most images."""
        most_bytes = max(BAND, self.weights.sizes.group * self.weights.groups)
        size = images * height * width * tile
        if is_static(self.data.shape):
            height = max(1, height)
            return ceil_div(height, ceil_div(height, max(1, size // most_bytes)))
        bands = next(1 << i for i in itertools.count() if size <= OPEN_BANDS * most_bytes << i)
        return bands if bands <= height else int(height)

    def multiply(
        self, planner: Planner, v: View, products: View, extents: Sequence[int], sizes: Sequence[int],
        before: int,
    ) -> None:  # fmt: skip
        """Add the steps of one matrix product per plane: planes are the groups of the tile driver. Slices of
        a volume that read data with the same slices of the filters share a step. `before`: the zero slices
        before a volume's own."""
        out_slices, tiles, planes, outs = products.shape
        y = products.as_shape((out_slices * tiles, planes * outs))
        words, tile = self.form.words(self.channels), v.strides[2]
        if len(extents) == 2:
            taps = (1, 0, 1, 0, words)
            self.emit(
                planner, v, y, (1, 1, out_slices * tiles), (0, 0, tile), (None, None, 0), taps, v.strides[0],
                self.weights, plain=True,
            )  # fmt: skip
            return
        strides, dilations, begin, _ = self.window(extents)
        slice_bytes = tiles * tile
        slabs = self._slabs(0, extents, sizes) or [(0, sizes[0], self.taps_of(extents, sizes)[0])]
        for first, count, (low, high) in slabs:
            rows = y.slice(0, first * tiles, count * tiles).split(0, count, tiles)
            taps = (high - low + 1, dilations[0] * slice_bytes, 1, 0, words)
            origin = (first * strides[0] + low * dilations[0] - begin[0] + before) * slice_bytes
            self.emit(
                planner, v, rows, (1, count, tiles), (0, strides[0] * slice_bytes, tile), (None, 0, 1), taps,
                v.strides[0], self.weights.after(low * words), origin, plain=True,
            )  # fmt: skip


class WinogradIfLarge(Versions):
    """A convolution of images of open size: by F(m x m) from `least` pixels on, direct below."""

    def __init__(self, group: Group, m: int, least: int):
        super().__init__(group, (Winograd(group, m), TiledConvolution(group)))
        self.m, self.least = m, least

    def _version(self, pixels: Sequence[Dim]) -> Lowering:
        """The version for an output of these extents. A dynamic one counts as its minimum."""
        sizes = [d.lo if isinstance(d, Interval) else d for d in pixels]
        dilations = _dilations(self.node)
        # tiles at the border compute pixels outside of the image
        tiled = all(size >= (self.m + 1) * d for size, d in zip(sizes[-2:], dilations, strict=True))
        large = tiled and math.prod(sizes) >= self.least
        return self.versions[0 if large else 1]

    def input_layouts(self, shape: Shapes) -> list[tuple[Value, Layout]]:
        return self._version(shape(self.out)[2:]).input_layouts(shape)

    def output_layout(self, layouts: dict[Value, Layout]) -> Layout | None:
        return self.versions[0].output_layout(layouts)

    def ways(self, planner: Planner) -> Sequence[Lowering]:
        return (self._version(planner.shape(self.out)[2:]),)


def winograd_way(group: Group) -> tuple[int, int]:
    """(m, least) if F(m x m) should compute the group's convolution, from `least` pixels of an image on. (0,
    0) for the direct algorithm. `least` is 0 if the size of images is known. For a dynamic number of images
    the choice is that for one image."""
    data, out = group.node.inputs[0], group.node.output
    form, ways = _possible(group)
    if not ways:
        return 0, 0
    choose = _chooser(group, form, ways)
    if not is_static(data.shape[2:]):
        return _open_way(group, ways, choose)
    forced = debug.flag("OVJIT_WINOGRAD")  # for measurements
    if forced:
        return int(forced) if int(forced) in ways else 0, 0
    *slices, oh, ow = (*out.shape[2:], 1) if len(out.shape) == 3 else out.shape[2:]
    n = (1 if isinstance(data.shape[0], Interval) else data.shape[0]) * math.prod(slices)
    return choose(n, oh, ow), 0


def _open_way(group: Group, ways: Sequence[int], choose: Callable[[int, int, int], int]) -> tuple[int, int]:
    """`winograd_way` for images of open size: the largest m whose planes may be in memory."""
    filters = group.node.inputs[1]
    words = math.prod(filters.shape[:-2])
    m = max((m for m in ways if words * (m + 2) ** 2 * WORD <= MOST_PLANES[m]), default=0)
    side = next((side for side in range(m + 1, LARGE) if choose(1, side, side) >= m), 0) if m else 0
    return (m, side * side) if side else (0, 0)


def _possible(group: Group) -> tuple[Format, tuple[int, ...]]:
    """(the format of the direct algorithm, the m of F(m x m) that can compute the group's convolution)."""
    node = group.node
    data, filters = node.inputs[0], node.inputs[1]
    target, options = group.context
    form = tile_format(data, filters, target)
    assert form is not None
    none: tuple[Format, tuple[int, ...]] = form, ()
    outs, channels, *spatial = filters.shape
    kernel = image_kernel(node)
    if node.op.name != "Convolution" or kernel not in ((3, 3), (3, 1), (1, 3)):
        return none
    if kernel != (3, 3) and (form is not F32 or len(spatial) > 2 or not is_static(data.shape)):
        return none
    most_parts = MOST_LINE_PARTS if 1 in kernel else MOST_PARTS
    if set(node.attrs["strides"][-2:]) - {1} or math.prod(_dilations(node)) > most_parts:
        return none
    if min(outs, channels) < target.lanes or (options.exact and form in (F32, BF16)):
        return none
    if matrix_format(form, target) is not form:
        return none  # on a matrix unit, products take less time than the transforms
    if not all_finite(filters.constant):
        return none  # all pixels of a tile would become NaN
    return form, possible_ways(form, channels, _largest_sum(filters) if _in_halves(form) else 0)


def _dilations(node: Node) -> tuple[int, int]:
    """The dilations along the height and the width of images; 1 along an axis of a single tap."""
    spread = [*(node.attrs["dilations"] or [1] * (len(node.output.shape) - 2)), 1]
    spread = spread[:2] if len(node.output.shape) == 3 else spread[-3:-1]
    height, width = (d if taps > 1 else 1 for d, taps in zip(spread, image_kernel(node), strict=True))
    return height, width


def image_kernel(node: Node) -> tuple[int, int]:
    """The taps along the height and the width of images. A sequence is an image of one column."""
    spatial = node.inputs[1].shape[2:]
    height, width = spatial[-2:] if len(spatial) > 1 else (*spatial, 1)
    return height, width


def _largest_sum(filters: Value) -> int:
    """A bound of |sum of data times weights| for data of 0 to 255 and filters [O, ...] of i8."""
    weights = filters.constant
    if not isinstance(weights, np.ndarray):
        return 255 * 128 * math.prod(filters.shape[1:])  # integers of few bits
    rows = weights.reshape(len(weights), -1)
    positive = np.maximum(rows, 0).sum(1, dtype=np.int64)
    negative = positive - rows.sum(1, dtype=np.int64)
    return 255 * int(np.maximum(positive, negative).max(initial=0))


def _chooser(group: Group, form: Format, ways: Sequence[int]) -> Callable[[int, int, int], int]:
    """(images, height and width of the output) -> the algorithm."""
    filters, target = group.node.inputs[1], group.context.target
    outs, channels, *spatial = filters.shape
    slices, dilations = math.prod(spatial[:-2]), _dilations(group.node)

    @functools.cache
    def time() -> float:
        assert filters.constant is not None
        matrix = filters.constant.reshape(outs, channels, 3 * slices, 3).transpose(2, 3, 1, 0)
        return word_time(matrix.reshape(1, len(matrix), -1, outs), target, form)  # rows of a window are runs

    def choose(images: int, oh: int, ow: int) -> int:
        lanes = target.lanes
        best = functools.partial(
            best_way, images, oh, ow, channels, outs, lanes, ways, form, slices=slices, dilations=dilations,
            kernel=image_kernel(group.node),
        )  # fmt: skip
        if form.products == 1:
            return best(word=_SLOW if target.slow_dots and form is BF16 else 1.0)
        if not isinstance(filters.constant, np.ndarray):
            return best(word=WIDENED)
        times = [way.time for way in WAYS]
        way = best(word=max(times))
        return way if way == best(word=min(times)) else best(word=time())

    return choose
