"""3x3 convolutions of stride 1 by Winograd's minimal filtering, F(4x4) and F(2x2).

    y = A' [ (G w G') * (B' x B) ] A      for tiles of m x m outputs, n = m + 2, * elementwise

as three steps: input tiles into n*n planes [plane][tile][channel], one matrix product for each plane by the
tile kernel, and planes back into m x m pixels with bias and epilogue. F(4x4) needs a quarter of the
multiplications of the direct way, F(2x2) four ninths; their weights are 4 and 1.8 times as large, so which
way is fastest depends on the shape: `best_way` has the model.

Tensors of bf16 are read and written as such. F(2x2) then has its planes in bf16 too, where channels are
even, and multiplies them by the dot instruction: sums of four elements lose a bit, which hardly shows in what
networks answer (their errors are 0.8 - 1.2 times those of the direct way). F(4x4) would lose four bits: its
planes are f32.

Accuracy in f32, against float64 on random data, as a part of the output's scale: direct 1e-6, F(2x2) 1e-6,
F(4x4) 1e-5; the stated bound is 1e-4. EXECUTION_MODE_HINT=ACCURACY keeps to the direct way.

The matrices are those of Lavin and Gray (2015), for the points 0, 1, -1, (2, -2,) infinity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit import debug
from ovjit.codegen.cpu.ir import Epilogue, Operand
from ovjit.codegen.cpu.isa import Isa, host_isa
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.options import options
from ovjit.compiler.plan import Constants, Filling, Planner, ceil_div, element_size, split
from ovjit.compiler.views import Layout, channels_last
from ovjit.graph.graph import Value
from ovjit.graph.shapes import is_static
from ovjit.tiles.driver import tile_kernel
from ovjit.tiles.formats import BF16, F32, WORD, Format
from ovjit.tiles.lowering import Weights, tile_format
from ovjit.tiles.micro import TABLE
from ovjit.tiles.pack import PanelSizes, pack_bias, panel_sizes, tile_width
from ovjit_ops.convolution.cpu_convolution import TiledConvolution

MATRICES: dict[int, dict[str, list[list[float]]]] = {
    2: {
        "B": [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        "G": [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        "A": [[1, 1, 1, 0], [0, 1, -1, -1]],
    },
    4: {
        "B": [
            [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
        ],
        "G": [
            [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
        ],
        "A": [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    },
}  # fmt: skip

#: Where a thread's scratch holds its tables, and the line of zeros (or the dump) behind them.
TABLE_BYTES = 2048


def transform(b: Any, rows: Sequence[Sequence[float]], values: Sequence[Any]) -> list[Any]:
    """LLVM vectors: each row's combination of `values`."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import vector as simd

    vt = values[0].type
    out = []
    for row in rows:
        total = None
        for factor, value in sorted(zip(row, values, strict=True), key=lambda p: abs(p[0]) != 1):
            if factor == 0:
                continue
            if total is None:
                one = ir.Constant(vt, [float(factor)] * vt.count)
                total = value if factor == 1 else b.fneg(value) if factor == -1 else b.fmul(value, one)
            elif factor == 1:
                total = b.fadd(total, value)
            elif factor == -1:
                total = b.fsub(total, value)
            else:
                one = ir.Constant(vt, [float(factor)] * vt.count)
                total = simd.call_intrinsic(b, f"llvm.fma.{simd.suffix(vt)}", vt, [value, one, total])
        out.append(total)
    return out


def square_transform(b: Any, matrix: Sequence[Sequence[float]], grid: list[list[Any]]) -> list[list[Any]]:
    """matrix @ grid @ matrix.T of a grid of vectors."""
    columns = [transform(b, matrix, [row[j] for row in grid]) for j in range(len(grid[0]))]
    return [transform(b, matrix, [column[i] for column in columns]) for i in range(len(matrix))]


def run_square_transform(matrix: Sequence[Sequence[float]], grid: np.ndarray) -> np.ndarray:
    """The same in NumPy, for a grid [n, n, lanes] of f32."""
    m = np.array(matrix)
    return np.einsum("ia,abl,jb->ijl", m, grid.astype(np.float64), m).astype(np.float32)


def _intrinsic(name: str, count: int, body: Callable, in_python: Callable) -> Any:
    """An intrinsic of `count` int64s, and what it means: `in_python(words, arguments...)`."""
    from numba.core import types
    from numba.core.typing.templates import signature

    from ovjit.codegen.cpu import vector as simd

    made = simd._make(name, signature(types.void, *[types.int64] * count), body)
    made.in_python = in_python
    return made


def make_input_transform(isa: Isa, m: int, elem: str, to: str) -> Any:
    """winograd_in(table, k, out, plane, left): n*n pixel addresses -> n*n planes, `plane` bytes apart, from
    channel k on. `elem`, `to`: the types of pixels and planes."""
    from ovjit.codegen.cpu import vector as simd

    n = m + 2

    def body(b: Any, table: Any, k: Any, out: Any, plane: Any, left: Any) -> None:
        import llvmlite.ir as ir

        i64 = ir.IntType(64)

        def load(at: int) -> Any:
            address = b.load(b.gep(simd.pointer(b, table, i64), [i64(at)]), align=8)
            return simd.load_vector(b, b.add(address, from_k), elem, isa.lanes, left)

        from_k = b.mul(k, i64(simd.SIZE[elem]))
        grid = [[load(i * n + j) for j in range(n)] for i in range(n)]
        result = square_transform(b, MATRICES[m]["B"], grid)
        start = b.add(out, b.mul(k, i64(simd.SIZE[to])))
        for i in range(n):
            for j in range(n):
                simd.store_vector(b, b.add(start, b.mul(plane, i64(i * n + j))), result[i][j], to, left)

    def in_python(words: Any, table: int, k: int, out: int, plane: int, left: int) -> None:
        grid = np.array([words["loadm_f32"](words["ld"](table, at) + k, left) for at in range(n * n)])
        result = run_square_transform(MATRICES[m]["B"], grid.reshape(n, n, -1))
        for at, value in enumerate(result.reshape(n * n, -1)):
            words["storem_f32"](out + k + plane * at, value, left)

    return _intrinsic("winograd_in", 5, body, in_python)


def make_output_transform(isa: Isa, m: int, epilogue: Epilogue) -> Any:
    """winograd_out(table, planes, plane, bias, channel, left, shared operands...): planes -> m*m pixels.

    The table's row 1 has the addresses of the pixels, the rows from 2 on those of pixel operands.
    """
    from ovjit.codegen.cpu import vector as simd

    n = m + 2

    def body(
        b: Any, table: Any, planes: Any, plane: Any, bias: Any, channel: Any, left: Any, *channels: Any
    ) -> None:
        import llvmlite.ir as ir

        i64 = ir.IntType(64)
        start = b.add(planes, b.mul(channel, i64(4)))

        def load(at: int) -> Any:
            return simd.load_vector(b, b.add(start, b.mul(plane, i64(at))), "f32", isa.lanes, left)

        grid = [[load(i * n + j) for j in range(n)] for i in range(n)]
        result = square_transform(b, MATRICES[m]["A"], grid)
        offset = simd.load_vector(b, b.add(bias, b.mul(channel, i64(4))), "f32", isa.lanes)

        def address(row: int, pixel: int, elem: str) -> Any:
            base = b.load(b.gep(simd.pointer(b, table, i64), [i64(row * TABLE + pixel)]), align=8)
            return b.add(base, b.mul(channel, i64(simd.SIZE[elem])))

        def load_shared(o: Operand) -> Any:
            base = channels[o.where]
            if o.kind == "number":
                return simd.splat(b, base, o.dtype, isa.lanes)
            here = b.add(base, b.mul(channel, i64(simd.SIZE[o.dtype])))
            return simd.load_vector(b, here, o.dtype, isa.lanes, left)

        shared = {o.where: load_shared(o) for o in epilogue.operands if o.shared}
        for pixel in range(m * m):
            loaded = []
            for o in epilogue.operands:
                if o.shared:
                    loaded.append(shared[o.where])
                elif o.kind == "pixel":
                    loaded.append(
                        simd.load_vector(b, address(o.where, pixel, o.dtype), o.dtype, isa.lanes, left)
                    )
                else:
                    base = b.load(b.gep(simd.pointer(b, table, i64), [i64(o.where * TABLE + pixel)]), align=8)
                    loaded.append(simd.splat(b, base, o.dtype, isa.lanes))
            value = b.fadd(result[pixel // m][pixel % m], offset)
            value = epilogue.emit_ir(b, value, loaded, isa.lanes)
            simd.store_vector(b, address(1, pixel, epilogue.out), value, epilogue.out, left)

    def in_python(
        words: Any, table: int, planes: int, plane: int, bias: int, channel: int, left: int, *channels: int
    ) -> None:
        grid = [words["loadm_f32"](planes + channel * 4 + plane * at, left) for at in range(n * n)]
        result = run_square_transform(MATRICES[m]["A"], np.array(grid).reshape(n, n, -1))
        offset = words["load_f32"](bias + channel * 4)

        def load(o: Operand, pixel: int) -> Any:
            base = channels[o.where] if o.shared else words["ld"](table, o.where * TABLE + pixel)
            if o.kind in ("number", "scalar"):
                return words[f"splat_{o.dtype}"](base)
            return words[f"loadm_{o.dtype}"](base + channel * simd.SIZE[o.dtype], left)

        for pixel, value in enumerate(result.reshape(m * m, -1)):
            value = value + offset
            if epilogue.body is not None:
                value = words.body(epilogue.body, [value, *(load(o, pixel) for o in epilogue.operands)])
            place = words["ld"](table, TABLE + pixel) + channel * simd.SIZE[epilogue.out]
            words[f"storem_{epilogue.out}"](place, value, left)

    return _intrinsic("winograd_out", 6 + epilogue.shared_operands, body, in_python)


@functools.cache
def input_kernel(m: int, elem: str, to: str) -> Kernel:
    """Chunks are ranges of tiles. Pixels outside of the image are a line of zeros. `elem`, `to`: the types of
    pixels and planes."""
    n = m + 2
    frame = Frame().pointers("x", "v")
    frame.integers("x_n", "x_h", "x_w", "h", "w", "ph", "pw", "th", "tw", "c", "tiles", "plane", "per_chunk")
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += [f"    zeros = scratch + {TABLE_BYTES}", "    nothing = const_f32(0.0)", "    k = 0"]
    src += ["    while k < c:", "        store_f32(zeros + k * 4, nothing)", "        k += VL"]
    src += [
        "    tile = chunk * per_chunk",
        "    stop = imin(tile + per_chunk, tiles)",
        "    while tile < stop:",
    ]
    src += ["        img = tile // (th * tw)", "        rest = tile % (th * tw)"]
    src += [f"        top = (rest // tw) * {m} - ph", f"        left = (rest % tw) * {m} - pw"]
    src += ["        i = 0", f"        while i < {n}:", "            j = 0", f"            while j < {n}:"]
    src += ["                r = top + i", "                s = left + j", "                address = zeros"]
    src += ["                if r >= 0 and r < h and s >= 0 and s < w:"]
    src += ["                    address = x + img * x_n + r * x_h + s * x_w"]
    src += [f"                st_i64(scratch + (i * {n} + j) * 8, address)", "                j += 1"]
    src += ["            i += 1", "        k = 0", "        while k < c:"]
    planes = f"v + tile * c * {element_size(to)}"
    src += [f"            winograd_in(scratch, k, {planes}, plane, c - k)", "            k += VL"]
    src += ["        tile += 1", "    return 0", ""]

    def intrinsics(isa: Isa) -> dict[str, Any]:
        return {"winograd_in": make_input_transform(isa, m, elem, to)}

    key = f"winograd_in {m} {elem} {to}"
    return Kernel(f"winograd_input_{elem}_{to}_{m}x{m}", "\n".join(src), frame, intrinsics, key)


def output_kernel(m: int, epilogue: Epilogue, names: str) -> Kernel:
    """Chunks are ranges of tiles. Pixels outside of the image go to a dump."""
    frame = Frame().pointers("v", "b", "y")
    for i, operand in enumerate(epilogue.operands):
        frame.pointers(f"e{i}")
        if not operand.shared:
            frame.integers(f"e{i}_n", f"e{i}_h", f"e{i}_w")
    frame.integers(
        "y_n", "y_h", "y_w", "oh", "ow", "th", "tw", "c", "tiles", "tile_bytes", "plane", "per_chunk"
    )
    channels = "".join(f", e{i}" for i, o in enumerate(epilogue.operands) if o.shared)
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    src += [f"    # {line}" for line in epilogue.text().splitlines()]
    src += [frame.prologue(), f"    dump = scratch + {TABLE_BYTES}"]
    src += [
        "    tile = chunk * per_chunk",
        "    stop = imin(tile + per_chunk, tiles)",
        "    while tile < stop:",
    ]
    src += ["        img = tile // (th * tw)", "        rest = tile % (th * tw)"]
    src += [f"        top = (rest // tw) * {m}", f"        left = (rest % tw) * {m}"]
    src += ["        i = 0", f"        while i < {m}:", "            j = 0", f"            while j < {m}:"]
    src += [
        "                r = top + i",
        "                s = left + j",
        f"                at = scratch + (i * {m} + j) * 8",
    ]
    src += ["                if r < oh and s < ow:"]
    src += [f"                    st_i64(at + {TABLE * 8}, y + img * y_n + r * y_h + s * y_w)"]
    src += ["                else:", "                    r = top", "                    s = left"]
    src += [f"                    st_i64(at + {TABLE * 8}, dump)"]
    for i, operand in enumerate(epilogue.operands):
        if not operand.shared:
            address = f"e{i} + img * e{i}_n + r * e{i}_h + s * e{i}_w"
            src += [f"                st_i64(at + {operand.where * TABLE * 8}, {address})"]
    src += ["                j += 1", "            i += 1", "        k = 0", "        while k < c:"]
    src += [
        f"            winograd_out(scratch, v + tile * tile_bytes, plane, b, k, c - k{channels})",
        "            k += VL",
    ]
    src += ["        tile += 1", "    return 0", ""]

    def intrinsics(isa: Isa) -> dict[str, Any]:
        return {"winograd_out": make_output_transform(isa, m, epilogue)}

    name = f"winograd_output_{epilogue.out}_{m}x{m}" + (f"_{names}" if names else "")
    return Kernel(name, "\n".join(src), frame, intrinsics, f"winograd_out {m} {epilogue.text()}")


def plane_form(m: int, form: Format, channels: int) -> Format:
    """The format in which F(m x m) multiplies planes, where the direct way would be in `form`."""
    return form if m == 2 and channels % form.group == 0 else F32


#: Cycles for each pixel's word times a panel of two vectors, by the tile of a format.
_CYCLES = {"f32": 1 / 0.9, "bf16": 1.08 / 0.95}
#: Bytes of weights that come in a cycle: between what comes from a large cache and from memory.
_BYTES = {"f32": 5.5, "bf16": 6.3}
#: What a last panel of one vector costs, beside one of two.
_NARROW = 0.55
#: Cycles for each vector of a tile in the two transforms.
_TRANSFORMS = {2: 110.0, 4: 280.0}
#: Bytes of planes that stay in a core's cache, how many of the others are moved in a cycle, and the cycles
#: that two steps more take, and their first touch of planes.
_KEPT, _MOVED, _STEPS = 1e6, 12.0, 10_000.0


def best_way(images: int, oh: int, ow: int, channels: int, outs: int, lanes: int, form: Format = F32) -> int:
    """0 for the direct way in `form`, 2 or 4 for F(2x2) or F(4x4): the least of the modelled times.

    In cycles of one core. Products: two vector multiply-adds a cycle at 0.9 of that (bf16: 0.95 of 1.85 dot
    products); a tile of few rows waits for its own results, 4 cycles a step. Weights come mostly in parallel
    with the products. Planes that do not stay in the cache are written and read again. Measured 2026 on one
    Zen 5 core: 79 shapes, those of six networks and few channels among them, each way, with everything in
    the cache and with nothing there, between which networks are. What is chosen takes 5 % and 3 % longer
    than the fastest way, f32 and bf16, the mean of all.
    """
    height = 14

    full, rest = divmod(outs, 2 * lanes)
    panels = full + (_NARROW if 0 < rest <= lanes else 1 if rest else 0)

    def products(rows: int, depth: int, matrices: int, form: Format = F32) -> float:
        rest = rows % height
        steps = rows - rest + (max(rest, 4) if rest else 0)
        compute = matrices * steps * depth * panels * _CYCLES[form.name]
        weights = matrices * depth * outs * WORD / rate
        return max(compute, weights) + 0.3 * min(compute, weights)

    rate = _BYTES[form.name]
    times = {0: products(images * oh * ow, 9 * form.words(channels), 1, form)}
    for m, cycles in _TRANSFORMS.items():
        tiles = images * ceil_div(oh, m) * ceil_div(ow, m)
        vectors = ceil_div(channels, lanes) + ceil_div(outs, lanes)
        planes = plane_form(m, form, channels)
        words = planes.words(channels)
        size = tiles * (m + 2) ** 2 * (words + outs) * WORD
        times[m] = products(tiles, words, (m + 2) ** 2, planes) + tiles * vectors * cycles
        times[m] += 2 * max(0.0, size - _KEPT) / _MOVED + _STEPS
    return min(times, key=lambda way: times[way])


#: Channels of filters that are transformed at once: more do not stay in the second-level cache, and take five
#: times as long.
_FILLED = 32


class Winograd(TiledConvolution):
    """A 3x3 convolution by F(m x m)."""

    def __init__(self, group: Group, m: int):
        self.m = m
        super().__init__(group)

    def choose_form(self) -> Format:
        return plane_form(self.m, super().choose_form(), self.channels)

    def make_kernel(self, names: str) -> Kernel:
        self.input_kernel = input_kernel(self.m, self.data.dtype, self.form.a)
        self.output_kernel = output_kernel(self.m, self.epilogue, names)
        rows, width = self.isa.tile_rows, tile_width(self.isa)
        name = f"conv_{self.form.name}_{rows}x{width}_{self.isa.name}"
        return tile_kernel(name, Epilogue(None), self.isa, self.form)

    @property
    def kernels(self) -> Sequence[Kernel]:
        return (self.input_kernel, self.kernel, self.output_kernel)

    @kernels.setter
    def kernels(self, value: Sequence[Kernel]) -> None:
        pass

    def wishes(self) -> list[tuple[Value, Layout]]:
        return [(self.data, channels_last(len(self.data.shape)))]

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        planes = (self.m + 2) ** 2
        sizes = panel_sizes(self.form.words(self.channels), self.outs, self.isa)
        filling = Filling(planes * sizes.group, functools.partial(self._fill, sizes))
        at = constants.place(filling, (self, "weights")).offset
        zeros = constants.place(np.zeros(tile_width(self.isa), np.float32), "zero panel").offset
        # the output transform adds the bias
        self.weights = Weights(planes, self.outs, sizes, at, zeros, 0)
        bias = self.bias if self.bias is not None else np.zeros(self.outs, np.float32)
        self.bias_at = constants.place(pack_bias(bias, 1, self.isa), (self, "bias")).offset

    def _fill(self, sizes: PanelSizes, memory: np.ndarray) -> None:
        """The transformed filters G w G' as panels, a matrix of them for each plane."""
        g = np.array(MATRICES[self.m]["G"])
        out = memory.view(self.form.weight_dtype).reshape(len(g), len(g), -1)
        n, channels, group = len(g), self.channels, self.form.group
        for first in range(0, self.outs, sizes.width):
            some = self.filters[0][first : first + sizes.width]  # O, C, 3, 3
            wide = sizes.width if len(some) == sizes.width else sizes.last
            for c in range(0, channels, _FILLED):
                part = some[:, c : c + _FILLED]
                depth = part.shape[1]
                panel = np.zeros((3, 3, depth, wide))
                panel[..., : len(part)] = part.transpose(2, 3, 1, 0)
                half = (g @ panel.reshape(3, -1)).reshape(n, 3, -1)
                whole = (g @ half).reshape(n, n, depth // group, group, wide)
                at = channels * first + c * wide
                out[..., at : at + depth * wide] = whole.swapaxes(-1, -2).reshape(n, n, -1)

    def plan(self, planner: Planner) -> None:
        m, planes = self.m, (self.m + 2) ** 2
        n, c, h, w = planner.shape(self.data)
        _, _, oh, ow = planner.shape(self.out)
        _, _, (ph, pw), _ = self.window((h, w))
        th, tw = ceil_div(oh, m), ceil_div(ow, m)
        tiles = n * th * tw
        x = planner.with_halo(self.data, [(0, 0)] * 4)
        y = planner.channels_last_output(self.out, over=self.over(planner))
        if not y.count:
            return
        size = element_size(self.form.a)
        v = planner.allocate((planes, tiles, c), size)
        products = planner.allocate((tiles, planes, self.outs), 4)
        lanes = self.isa.lanes
        planner.need_scratch(TABLE_BYTES + ceil_div(max(c, self.outs), lanes) * lanes * 4)
        per_chunk = split(tiles, c * planes * 2)
        values: dict[str, Any] = {
            "x": x.ptr, "v": v.ptr, "x_n": x.strides[0], "x_h": x.strides[2], "x_w": x.strides[3],
            "h": h, "w": w, "ph": ph, "pw": pw, "th": th, "tw": tw, "c": c, "tiles": tiles,
            "plane": tiles * c * size, "per_chunk": per_chunk,
        }  # fmt: skip
        planner.step(self.input_kernel, values, ceil_div(tiles, per_chunk), [x], [v], 8.0 * v.count)
        self.multiply(planner, v, products, tiles, planes)
        per_chunk = split(tiles, self.outs * planes * 2)
        values = {
            "v": products.ptr, "b": planner.constants.at(self.bias_at), "y": y.ptr,
            "oh": oh, "ow": ow, "th": th, "tw": tw, "c": self.outs, "tiles": tiles,
            "tile_bytes": planes * self.outs * 4, "plane": self.outs * 4, "per_chunk": per_chunk,
        }  # fmt: skip
        axes = (0, 2, 3)
        values |= dict(zip(("y_n", "y_h", "y_w"), self.along(y, axes), strict=True))
        operands, read = self.operand_values(planner, axes)
        values |= operands
        reads = [products, *read]
        planner.need_scratch(self.epilogue.table_rows * TABLE * 8)
        planner.step(self.output_kernel, values, ceil_div(tiles, per_chunk), reads, [y], 8.0 * products.count)

    def multiply(self, planner: Planner, v: Any, products: Any, tiles: int, planes: int) -> None:
        """One matrix product for each plane: the planes are the groups of the tile driver."""
        y = products.reshape((tiles, planes * self.outs))
        taps = (1, 0, 1, 0, self.form.words(self.channels))
        self.emit(
            planner, v, y, (1, 1, tiles), (0, 0, v.strides[1]), (None, None, 0), taps,
            v.strides[0], self.weights, plain=True,
        )  # fmt: skip


def winograd_way(group: Group) -> int:
    """Which way suits the group's convolution: 0 (direct), 2 or 4."""
    assert group.anchor is not None
    node = group.anchor
    data, filters = node.inputs[0], node.inputs[1]
    form = tile_format(data, filters)
    if (
        form not in (F32, BF16)
        or node.op.name != "Convolution"
        or tuple(filters.shape[2:]) != (3, 3)
        or options().exact
    ):
        return 0
    if set(node.attrs["strides"]) - {1} or set(node.attrs["dilations"]) - {1} or not is_static(data.shape):
        return 0
    forced = debug.flag("OVJIT_WINOGRAD")  # for measurements
    if forced:
        return int(forced)
    outs, channels = filters.shape[:2]
    lanes = host_isa().lanes
    if channels < lanes or outs < lanes:
        return 0
    n, _, oh, ow = node.output.shape
    return best_way(n, oh, ow, channels, outs, lanes, form)
