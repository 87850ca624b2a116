"""Matrix products of two non-constant tensors: the right-hand side is packed at run time.

    out[b, m, n] = sum over k of a[b, m, k] * b[b, k, n]

Two steps: B into weight panels (as `pack_panels` does for constants), then the tile driver with one
group for each matrix. Batch dimensions are merged where strides allow; else one pair of steps for each index
of the outer ones.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import F32, WORD, Format
from ovjit.codegen.cpu.ir import Operand
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.codegen.transpose import transpose, transpose_words
from ovjit.graph.graph import Value
from ovjit.graph.shapes import Dim, Interval, bounds
from ovjit.planning.copies import fill_kernel, plan_fill
from ovjit.planning.fuse import Group, is_number
from ovjit.planning.launch import launch
from ovjit.planning.lower import Lowering, place_constants
from ovjit.planning.plan import ALIGNMENT, Constants, Planner, ceil_div
from ovjit.planning.views import DIMS, Layout, View, product
from ovjit.records import NamedTuple
from ovjit.tiles.lowering import Tiled, tile_format
from ovjit.tiles.pack import PanelSizes, panel_sizes, tile_width
from ovjit.tiles.sharing import Weights
from ovjit_ops.matmul.cpu_few import FEW, few_rows_kernel, plan_few

#: Type -> ways to read words of 4 bytes: "near", columns are adjacent; "apart", they are strided; "last", K
#: ends within the word.
WAYS = {"f32": ("near", "apart")} | dict.fromkeys(("bf16", "f16", "i8"), ("near", "apart", "last"))
#: Bytes of matrices that are packed before they are multiplied, and maximum of steps into which they divide a
#: batch.
PACKED_BYTES, MOST_STEPS = 1 << 20, 32
#: Exceeds any number of columns.
ALL = 1 << 30


@inline
def suits(way, x_n, size):
    """True if words may be read in this way."""
    return x_n == size if way == "near" else x_n != size if way == "apart" else True


@inline
def pair(low, high):
    return cast[u32](low) | (cast[u32](high) << const[u32](16))


@inline
def one_of(p, x_n, count, rows, way):
    """A byte of each of `count` columns of the row at p, as u32: a vector load if `way` is "near", else a
    gather by `x_n`. Zeros if `rows`, the number of remaining rows, is 0 or less."""
    return cast[u32](
        loadm[u8](p, count) if way == "near" else gather[u8](p, x_n, min(count, max(rows, 0) * ALL))
    )


@inline
def four(p, x_k, x_n, count, rows, way):
    """A u32 of each of `count` columns: the bytes of four rows, `x_k` bytes apart, of which `rows` exist."""
    return (
        one_of(p, x_n, count, rows, way)
        | (one_of(p + x_k, x_n, count, rows - 1, way) << const[u32](8))
        | (one_of(p + 2 * x_k, x_n, count, rows - 2, way) << const[u32](16))
        | (one_of(p + 3 * x_k, x_n, count, rows - 3, way) << const[u32](24))
    )


@inline
def words(p, x_k, x_n, count, rows, T, way):
    """A vector of words at p, of which `count` columns and `rows` rows exist."""
    return (
        four(p, x_k, x_n, count, rows, way) if T == "i8" else
        (loadm[T](p, count) if way == "near" else gather[T](p, x_n, count)) if T == "f32"
        else pair(loadm[u16](p, count), loadm[u16](p + x_k, count)) if way == "near"
        else pair(gather[u16](p, x_n, count), gather[u16](p + x_k, x_n, count)) if way == "apart"
        else cast[u32](gather[u16](p, x_n, count))
    )  # fmt: skip


@kernel(over="... n/width", x="... k n", y="... words")
def pack_panels(x: Tensor, y: Tensor, panel, *, T, group, width, lanes):
    """[..., K, N] with any strides -> panels of words, each `panel` bytes. An item is a panel of a matrix.

    A word of f32 is an element; one of bf16 has two neighbours along K, one of bytes four, which are 0 where
    there are none.
    """
    for first, source, target in items(x, y):
        count = x.size.n - first
        target += first // width * panel
        i = 0
        for way in WAYS[T]:
            for full in (True, False):
                while (
                    suits(way, x.stride.n, WORD // group)
                    and (count > lanes if full else count <= lanes)
                    and i + (0 if way == "last" else group - 1) < x.size.k
                ):
                    for v in static_range(0, width if full else lanes, lanes):
                        word = words(
                            x.at(source, n=v), x.stride.k, x.stride.n, count - v, x.size.k - i, T, way
                        )
                        store["f32" if T == "f32" else u32](target + v * WORD, word)
                    source += x.stride.k * group
                    target += (width if full else lanes) * WORD
                    i += group


@functools.cache
def pack_kernel(isa: Target, form: Format) -> Kernel:
    """The kernel of `pack_panels` for panels of a format."""
    width = tile_width(isa)
    name = f"pack_panels_{form.name}_{width}"
    return pack_panels.kernel(name, T=form.w, group=form.group, width=width, lanes=isa.lanes)


@kernel(over="... n/width", x="... k n", y="... words")
def transpose_panels(x: Tensor, y: Tensor, panel, depth, *, width, lanes):
    """Pack panels of columns whose `depth` words are adjacent. Zeros fill the last panel up: products of what
    lay there before would not be read, but denormal numbers would make them up to five times as slow."""
    for first, source, target in items(x, y):
        count = x.size.n - first
        target += first // width * panel
        columns = width
        if count <= lanes:
            columns = lanes
        step = columns * WORD
        for v in range(count // VL * VL, columns, VL):
            for k in range(depth):
                store[i32](target + k * step + v * WORD, const[i32](0))
        for v in range(0, min(count, width), VL):
            for k in range(0, depth, VL):
                transpose(
                    x.at(source + k * WORD, n=v), x.stride.n, count - v, target + k * step + v * WORD,
                    step, depth - k,
                )  # fmt: skip


@functools.cache
def transposed_panels_kernel(isa: Target) -> Kernel:
    """The kernel of `transpose_panels` for the CPU's width of panels."""
    width = tile_width(isa)
    name = f"transpose_panels_{width}"
    return transpose_panels.kernel(name, transpose_words, "transpose i32", width=width, lanes=isa.lanes)


def pack_kernels(isa: Target, form: Format) -> tuple[Kernel, ...]:
    """The kernels that `plan_panels` may launch."""
    fills = (fill_kernel(WORD),) if form.on_unit else ()
    return pack_kernel(isa, form), transposed_panels_kernel(isa), *fills


def plan_panels(planner: Planner, x: View, form: Format, depth: Dim | None = None) -> tuple[View, PanelSizes]:
    """Add the steps that pack matrices [..., K, N]. Returns a view of the packed matrices, and the sizes of
    their panels. `depth`: the model's K, if it may be a dynamic dimension."""
    *batch, k, n = x.shape
    words = form.words(k)
    sizes = panel_sizes(form.padded_words(words), n, planner.target)
    sizes = sizes._replace(group=ceil_div(sizes.group, ALIGNMENT) * ALIGNMENT)
    packed = planner.allocate((*batch, sizes.group // WORD), WORD)
    if isinstance(depth, Interval) and form.on_unit:
        plan_fill(planner, packed)  # to fill only the last words would specialise the plan to K
    elif (padded := form.padded_words(words)) != words:
        for ends in [packed] if planner.open else _ends(packed, words, padded, n, sizes):
            plan_fill(planner, ends)
    if n == 1:  # the stride of a single column is arbitrary: that of adjacent columns has a faster kernel
        x = x.as_strided(x.shape, (*x.strides[:-1], x.itemsize))
    packer, turner, *_ = pack_kernels(planner.target, form)
    by_columns = x.strides[-2] == x.itemsize != x.strides[-1] and (form.group == 1 or k % form.group == 0)
    packing, depths = (turner, {"depth": words}) if by_columns else (packer, {})
    launch(
        planner, packing, {"x": x, "y": packed}, ("y",), work=k * sizes.width, width=sizes.width,
        panel=sizes.panel, disjoint=False, **depths,
    )  # fmt: skip
    return packed, sizes


def _ends(packed: View, words: int, padded: int, outs: int, sizes: PanelSizes) -> Iterator[View]:
    """The padding between `words` of depth and `padded`, which is whole steps of a matrix unit: a view for
    the full panels, and one for a narrower last panel. The caller fills it with zeros."""
    batch, full = packed.shape[:-1], outs // sizes.width
    for panels, width, at in ((full, sizes.width, 0), (1 if outs % sizes.width else 0, sizes.last, full)):
        if panels:
            shape = (*batch, panels, (padded - words) * width)
            strides = (*packed.strides[:-1], sizes.panel, WORD)
            offset = packed.offset + at * sizes.panel + words * width * WORD
            yield View(packed.buffer, shape, strides, WORD, offset)


class _Matrices(NamedTuple):
    """The matrices of a step: `size` from number `first` on at this index of the outer dimensions. A size of
    0: all of them."""

    at: Sequence[int]
    first: int = 0
    size: int = 0

    def of(self, view: View) -> View:
        """The matrices of [batch..., rows, columns] as [groups, rows, columns]."""
        offset = view.offset + sum(i * s for i, s in zip(self.at, view.strides, strict=False))
        inner = view.shape[len(self.at) : -2]
        stride = view.strides[len(view.shape) - 3] if inner else 0
        shape, strides = (product(inner), *view.shape[-2:]), (stride, *view.strides[-2:])
        matrices = View(view.buffer, shape, strides, view.itemsize, offset)
        return matrices.slice(0, self.first, self.size) if self.size else matrices


class Product(Tiled):
    """MatMul of two tensors with constant or computed right-hand side, any number of batch dimensions."""

    channel_axis = -1

    def __init__(self, group: Group):
        anchor = group.node
        self.data, right = anchor.inputs
        self.weight_type = right.dtype
        super().__init__(group, "matmul")
        self.kernels = (*self.kernels, *pack_kernels(self.target, self.form))
        self.pads = (self.data, right) if self.form.group > 1 else ()
        #: The kernel for few rows of the left-hand side.
        self.few_rows: Kernel | None = None
        shape = self.data.shape
        self.permutes = bool(anchor.attrs["transpose_a"]) and len(shape) > 1
        rows = shape[-1 if self.permutes else -2] if len(shape) > 1 else 1
        if self.swaps:
            rows = self.out.shape[-1]
        if self.is_vector_product or (self.form is F32 and bounds(rows)[0] <= FEW):
            self.few_rows = few_rows_kernel(self, "_".join(n.op.name.lower() for n in group.body[:4]))
            self.kernels = (*self.kernels, self.few_rows)

    @property
    def depth(self) -> Dim:
        shape = self.data.shape
        return shape[-2 if self.permutes else -1]

    @property
    def sum_words(self) -> int | None:
        return None if isinstance(self.depth, Interval) else self.form.words(self.depth)

    def suits_matrices(self, form: Format) -> bool:
        """False for a dynamic depth: it may be long, and long sums are made in blocks, with vectors."""
        return not isinstance(self.depth, Interval)

    def _take_bias(self) -> int:
        self.bias = None  # stays an operand: its panels are not known before the shape is
        return 0

    @property
    def is_vector_product(self) -> bool:
        """True for matrices times a one-dimensional tensor. The latter is then the only row of the product,
        and the matrices are its right-hand side."""
        return self.form is F32 and len(self.node.inputs[1].shape) == 1 < len(self.data.shape)

    @property
    def swaps(self) -> bool:
        """True for transposed matrices times few columns, with nothing fused. The columns can then be the
        rows of the product, and the matrices its right-hand side: to transpose these takes longer."""
        a, b = (v.shape for v in self.node.inputs)
        alone = self.form is F32 and not (self.group.body or self.group.prologue)
        if not alone or not self.permutes or not all(2 <= len(shape) <= DIMS + 2 for shape in (a, b)):
            return False
        (k, m), n = a[-2:], b[-2 if self.node.attrs["transpose_b"] else -1]
        if isinstance(n, int) and n <= FEW:
            return n > 0
        # a copy that transposes takes twice as long as one to panels
        return isinstance(k, int) and isinstance(m, int) and isinstance(n, int) and n * (k + 2 * m) < m * k

    def _operands(self, planner: Planner) -> tuple[View, View, View]:
        """The sides as [..., m, k] and [..., k, n], and the output; with `swaps`, all of them transposed, if
        rows of the matrices are adjacent."""
        data, right = self.node.inputs
        a, order = planner.view(data), matrix_order(len(right.shape))
        if self.swaps and a.shape[-1] > FEW and a.strides[-1] == a.itemsize:
            transposed = bool(self.node.attrs["transpose_b"])
            b = planner.with_layout(right, Layout(sorted(order) if transposed else order))
            b = b if transposed else b.permute(order)
            y, order = planner.row_major_output(self.out), matrix_order(len(self.out.shape))
            y = (y if y.shape[-1] == 1 else planner.instead(y, Layout(order))).permute(order)
            return b, a, View(y.buffer, y.shape, (*y.strides[:-1], y.itemsize), y.itemsize, y.offset)
        sides = [self._matrix(planner, i, len(v.shape) > 1 and self.node.attrs[f"transpose_{'ab'[i]}"], -i)
                 for i, v in enumerate((data, right))]  # fmt: skip
        y = planner.channels_last_output(self.out, -1) if self.out.shape else planner.output(self.out)
        return sides[0], sides[1], y

    def _kind(self, value: Value) -> str:
        """With a one-dimensional right-hand side, the output's last dimension is the rows, not the
        columns."""
        row = len(self.node.inputs[1].shape) == 1 and not is_number(value) and not self.is_vector_product
        return "scalar" if row else super()._kind(value)

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        place_constants(constants, self.node.inputs)
        self.zeros, _ = self.pack_bias(constants, self.bias)

    def plan(self, planner: Planner) -> None:
        ra, rb = len(self.node.inputs[0].shape), len(self.node.inputs[1].shape)
        a, b, y = self._operands(planner)
        if not y.count:
            return
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        batch = y.shape[: len(y.shape) - (ra > 1) - (rb > 1)]
        missing = ([-2] if ra == 1 else []) + ([-1] if rb == 1 else [])

        def full(view: View) -> View:
            """y or an operand as [batch..., m, n]."""
            if -1 in missing:
                view = view.insert(len(view.shape), stride=view.itemsize)
            return view.insert(len(view.shape) - 1) if -2 in missing else view

        a, b = a.expand((*batch, m, k)), b.expand((*batch, k, n))
        if self.is_vector_product:
            self._plan_vector_product(planner, b, a, y)
            return
        if self.few_rows is not None and m <= FEW and plan_few(self, self.few_rows, planner, a, b, y):
            return
        operands = [full(self.operand_view(planner, v, o.kind)) for v, o in self._pixel_operands()]
        order, grouped = self._walk(batch, [v.strides[: len(batch)] for v in (a, b, full(y), *operands)])
        order += [len(batch), len(batch) + 1]
        a, b, lead = a.permute(order), b.permute(order), [batch[i] for i in order[: len(batch) - grouped]]
        for index in np.ndindex(*lead):
            groups = _Matrices(index).of(a).shape[0]
            for first, size in self._parts_of(planner, groups, k, n):
                step = _Matrices(index, first, size)
                rows, right, out = step.of(a), step.of(b), step.of(full(y).permute(order))
                packed, sizes = plan_panels(planner, right, self.form)
                weights = Weights(rows.shape[0], n, sizes, packed.ptr, self.zeros, 0)
                self.emit(
                    planner, rows, out, (1, 1, m), (0, 0, rows.strides[1]), (None, None, 1),
                    (1, 0, 1, 0, self.form.words(k)), rows.strides[0], weights, 0,
                    lambda v, step=step: step.of(full(v).permute(order)), 0, [packed],  # type: ignore[misc]
                )  # fmt: skip

    def _parts_of(self, planner: Planner, groups: Any, k: Any, n: Any) -> list[tuple[int, int]]:
        """(first, number) of the matrices that are packed before they are multiplied, so that the
        second-level cache keeps them. (0, 0) for all."""
        if planner.open or not all(type(d) is int for d in (groups, k, n)):
            return [(0, 0)]
        each = max(1, PACKED_BYTES // max(1, self.form.words(k) * n * WORD))
        if not each < groups <= MOST_STEPS * each:
            return [(0, 0)]
        return [(first, min(each, groups - first)) for first in range(0, groups, each)]

    def _plan_vector_product(self, planner: Planner, row: View, matrix: View, y: View) -> None:
        """Add the step for the product of a one-dimensional tensor, given as [..., k, 1], and matrices [...,
        m, k]."""
        assert self.few_rows is not None
        order = matrix_order(len(row.shape))
        if plan_few(self, self.few_rows, planner, row.permute(order), matrix.permute(order), y):
            return
        column = planner.contiguous(self.data)
        if not self.node.attrs["transpose_a"]:
            column = column.permute(order)
        done = plan_few(self, self.few_rows, planner, row.permute(order), column, planner.instead(y))
        assert done  # nothing has gaps

    def _walk(self, batch: Sequence[int], strides: list[Sequence[int]]) -> tuple[list[int], int]:
        """(order of the batch dimensions, how many of the last ones can be merged in all operands).

        There is a step for each index of the other dimensions. Dynamic dimensions come last if that adds no
        steps. The number of steps then depends on fewer of them, or on none.
        """
        plain = [*range(len(batch))]
        grouped = _last_group(batch, strides)
        opened = [i for i in plain if isinstance(self.out.shape[i], Interval)]
        outer = plain[: len(batch) - grouped]
        if set(opened).isdisjoint(outer):
            return plain, grouped
        order = [i for i in plain if i not in opened] + opened
        last_group = _last_group([batch[i] for i in order], [[s[i] for i in order] for s in strides])
        looped = order[: len(batch) - last_group]
        more = product([batch[i] for i in looped]) - product([batch[i] for i in outer])
        if more > 0 or (more == 0 and not set(opened).isdisjoint(looped)):
            return plain, grouped
        return order, last_group

    def _pixel_operands(self) -> list[tuple[Value, Operand]]:
        return [(v, o) for v, o in zip(self.operands, self.epilogue.operands, strict=True) if not o.shared]

    def _matrix(self, planner: Planner, which: int, transpose: bool, vector_axis: int) -> View:
        """An input as [..., rows, columns]. `vector_axis`: a one-dimensional one is a row (0) or a column
        (-1). The left-hand side is copied if its depth is not adjacent."""
        value = self.node.inputs[which]
        rank = len(value.shape)
        if rank == 1:
            view = planner.with_layout(value, Layout((0,), [(0, self._odd(planner.shape(value)[0]))]))
            return view.insert(0) if vector_axis == 0 else view.insert(1, stride=view.itemsize)
        view = planner.view(value)
        if which == 0 and not self.is_vector_product:
            depth = rank - 2 if transpose else rank - 1
            halo = [(0, 0)] * rank
            halo[depth] = (0, self._odd(view.shape[depth]))
            view = planner.with_layout(value, Layout([a for a in range(rank) if a != depth] + [depth], halo))
        return view.permute(matrix_order(rank)) if transpose else view

    def _odd(self, depth: int) -> int:
        """The number of zeros that fill the depth up to whole words."""
        return -depth % self.form.group


def matrix_order(rank: int) -> tuple[int, ...]:
    """The order of dimensions with the last two exchanged, which transposes matrices."""
    return (*range(rank - 2), rank - 1, rank - 2)


def _last_group(batch: Sequence[int], strides: Sequence[Sequence[int]]) -> int:
    """Number of trailing batch dimensions that the strides of all operands allow to merge."""
    count = min(1, len(batch))
    while count < len(batch):
        outer, inner = len(batch) - count - 1, len(batch) - count
        if any(s[outer] != s[inner] * batch[inner] for s in strides):
            break
        count += 1
    return count


def lower_product(group: Group) -> Lowering | None:
    """The tiled product if the target has a format of tiles for the types, else `PlainProduct`; on GPUs
    `lower_on_gpu`."""
    anchor = group.node
    a, b = anchor.inputs
    if not a.shape or not b.shape or tile_format(a, b, group.context.target) is None:
        if group.context.target.is_gpu and a.shape and b.shape:
            from ovjit_ops.matmul.gpu_choice import lower_on_gpu

            return lower_on_gpu(group)
        from ovjit_ops.matmul.cpu_plain import PlainProduct

        return PlainProduct.of(group)
    return Product(group)
