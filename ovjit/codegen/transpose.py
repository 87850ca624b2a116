"""Copies that transpose the dimension of adjacent elements with another one.

    y[i0, i1, i2, a, b] = x[i0, i1, i2, b, a]      a adjacent in x, b adjacent in y

Blocks of lanes x lanes elements (half as many of 8 bytes) are loaded row by row, transposed in registers by
log2(side) rounds of shuffles, and stored row by row. Chunks are ranges of cache lines along a, times the
outer dimensions.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.function import kernel
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.memory import SIZE
from ovjit.codegen.words import VL, Tensor, Word, items

#: Bytes of an element -> the type that copies use for it.
ELEMENTS = {8: "i64", 4: "i32", 2: "i16", 1: "u8"}


def interleave_sizes(isa: Target) -> tuple[int, ...]:
    """The bytes of elements whose rows can be interleaved in registers: those with masked loads and
    stores."""
    if isa.is_gpu:
        return ()
    return (4, 2, 1) if isa.name == "avx512" else (4,)


#: A block in registers has lanes / PARTS rows and columns: a vector has half as many elements of 8 bytes.
PARTS = {"i64": 2, "i32": 1, "i16": 1, "u8": 1}


def transpose_rows(b: Any, rows: list[Any]) -> list[Any]:
    """The transpose of a square block: lane j of row i becomes lane i of row j.

    x86 has these shuffles since SSE, LLVM recognises them, and CPUs execute each in a cycle. Elements are
    interleaved within pieces of 16 bytes, then whole pieces are exchanged.
    """
    import llvmlite.ir as ir

    from ovjit.codegen.cpu.vector_types import lane_indices

    n, kind = len(rows), rows[0].type.element
    bits = kind.width if isinstance(kind, ir.IntType) else 32
    size = min(128 // bits, n)
    pieces = [range(first, first + size) for first in range(0, n, size)]
    both = [*pieces, *(range(n + piece.start, n + piece.stop) for piece in pieces)]

    def shuffle(x: Any, y: Any, lanes: list[int]) -> Any:
        return b.shuffle_vector(x, y, lane_indices(*lanes))

    half = size // 2
    interleaved = [
        [lane for piece in pieces for j in piece[part * half :][:half] for lane in (j, n + j)]
        for part in range(2)
    ]
    chosen = [[lane for piece in both[part::2] for lane in piece] for part in range(2)]
    columns = []
    for piece in pieces:
        square = [rows[i] for i in piece]
        for _ in range(size.bit_length() - 1):
            both_halves = zip(square[:half], square[half:], strict=True)
            square = [shuffle(x, y, lanes) for x, y in both_halves for lanes in interleaved]
        columns.append(square)
    out = []
    for pieces_of_row in zip(*columns, strict=True):  # each has pieces of every `size`th column
        vectors = list(pieces_of_row)
        for _ in range(len(pieces).bit_length() - 1):
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
            vectors = [shuffle(x, y, lanes) for lanes in chosen for x, y in pairs]
        out.append(vectors)
    return [out[j % size][j // size] for j in range(n)]


def transpose_bytes(b: Any, x: Any, x_b: Any, y: Any, y_a: Any) -> None:
    """Transpose a block of 4 x 4 bytes. Rows interleave to one register of 128 bits, by 3 shuffles. NEON
    widens vectors of 4 bytes to 16 bits and narrows them again, in 16 instructions."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu.vector_types import lane_indices, pointer

    side, word = 4, ir.IntType(32)
    words, register = ir.VectorType(word, side), ir.VectorType(ir.IntType(8), side**2)
    rows = []
    for i in range(side):
        row = b.load(pointer(b, b.add(x, b.mul(x_b, x_b.type(i))), word), align=1)
        low = b.insert_element(ir.Constant(words, ir.Undefined), row, word(0))
        rows.append(b.bitcast(low, register))
    interleaved = lane_indices(*(lane for j in range(side * 2) for lane in (j, side**2 + j)))
    even, odd = (b.shuffle_vector(rows[i], rows[i + 2], interleaved) for i in range(2))
    block = b.bitcast(b.shuffle_vector(even, odd, interleaved), words)
    for j in range(side):
        target = pointer(b, b.add(y, b.mul(y_a, y_a.type(j))), word)
        b.store(b.extract_element(block, word(j)), target, align=1)


def make_transpose(isa: Target, elem: str) -> Any:
    """The intrinsic transpose(x, x_b, nb, y, y_a, na): a block of at most na rows and nb columns."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import types
    from ovjit.codegen.cpu import vector as simd
    from ovjit.codegen.cpu.intrinsics import make
    from ovjit.codegen.cpu.types import signature

    lanes = isa.lanes // PARTS[elem]
    i64 = ir.IntType(64)

    def body(b: Any, x: Any, x_b: Any, nb: Any, y: Any, y_a: Any, na: Any) -> None:
        if lanes != 4 or elem != "u8":
            by_rows(b, x, x_b, nb, y, y_a, na)
            return
        is_part = b.or_(*(b.icmp_signed("<", n, i64(lanes)) for n in (na, nb)))
        with b.if_else(is_part) as (part, full):
            with part:
                by_rows(b, x, x_b, nb, y, y_a, na)
            with full:
                transpose_bytes(b, x, x_b, y, y_a)

    def by_rows(b: Any, x: Any, x_b: Any, nb: Any, y: Any, y_a: Any, na: Any) -> None:
        # The shuffles are shared by full and partial blocks, as they take LLVM the most time.
        fewer = b.select(b.icmp_signed("<", na, nb), na, nb)
        is_whole = b.icmp_signed(">=", fewer, i64(lanes))
        ways = []
        with b.if_else(is_whole) as (full, part):
            with full:
                rows = [simd.load_vector(b, b.add(x, b.mul(i64(i), x_b)), elem, lanes) for i in range(lanes)]
                ways.append((b.block, rows))
            with part:
                last = b.sub(nb, i64(1))
                rows = []
                for i in range(lanes):
                    row = b.select(b.icmp_signed("<", i64(i), last), i64(i), last)
                    rows.append(simd.load_vector(b, b.add(x, b.mul(row, x_b)), elem, lanes, na))
                ways.append((b.block, rows))
        loaded = []
        for each in range(lanes):
            phi = b.phi(rows[each].type)
            for block, values in ways:
                phi.add_incoming(values[each], block)
            loaded.append(phi)
        columns = transpose_rows(b, loaded)
        with b.if_else(is_whole) as (full, part):
            with full:
                for j, row in enumerate(columns):
                    simd.store_vector(b, b.add(y, b.mul(y_a, i64(j))), row, elem)
            with part:
                for j, row in enumerate(columns):
                    with b.if_then(b.icmp_signed("<", i64(j), na)):
                        simd.store_vector(b, b.add(y, b.mul(y_a, i64(j))), row, elem, nb)

    transpose = make("transpose", signature(types.void, *[types.int64] * 6), body)
    transpose.in_python = functools.partial(run_transpose, elem)
    return transpose


def transpose_words(isa: Target, elem: str = "i32") -> dict[str, Any]:
    """The word of kernels that transpose elements of this type."""
    return {"transpose": make_transpose(isa, elem)}


def run_transpose(elem: str, words: Any, x: int, x_b: int, nb: int, y: int, y_a: int, na: int) -> None:
    """The intrinsic `transpose` in Python. `words`: an `ovjit.execution.numpy_words.Words`."""
    lanes = words.lanes // PARTS[elem]
    na, nb = min(na, lanes), min(nb, lanes)
    rows = [words[f"loadm_{elem}"](x + min(i, nb - 1) * x_b, na) for i in range(words.lanes)]
    for j in range(min(na, lanes)):
        words[f"storem_{elem}"](y + y_a * j, np.array([row[j] for row in rows]), nb)


transpose, interleave = Word("transpose"), Word("interleave")


@kernel(over="i0 i1 i2 a/side", x="i0 i1 i2 b a:1", y="i0 i1 i2 a b:1")
def transpose_blocks(x: Tensor, y: Tensor, side, *, elem):
    """An item has `side` elements along a. It is transposed along b in squares of this side, so that a cache
    line is read, and written, at once. Outer axes are named: with `...`, LLVM keeps an incremented address
    for each row of a square, which is slower."""
    for _, _, _, first, p, q in items(x, y):
        rows = y.size.a - first
        for k0 in range(0, y.size.b, side):
            for a in range(0, min(side, rows), VL // PARTS[elem]):
                for k in range(k0, min(k0 + side, y.size.b), VL // PARTS[elem]):
                    transpose(
                        x.at(p + a * SIZE[elem], b=k), x.stride.b, y.size.b - k,
                        y.at(q + k * SIZE[elem], a=a), y.stride.a, rows - a,
                    )  # fmt: skip


@functools.cache
def transpose_blocks_kernel(size: int) -> Kernel:
    """The transposing kernel for elements of `size` bytes."""
    elem = ELEMENTS[size]

    def intrinsics(isa: Target) -> dict[str, Any]:
        return transpose_words(isa, elem)

    return transpose_blocks.kernel(f"transpose_{elem}", intrinsics, f"transpose {elem}", elem=elem)


def make_interleave(isa: Target, elem: str, rows: int, back: bool) -> Any:
    """The intrinsic interleave(x, apart, y, left): y[j * rows + i] = x[i][j] for the first `left` j of a
    vector, with rows of x `apart` bytes from each other. `back`: the inverse, x[i][j] = y[j * rows + i]."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import types
    from ovjit.codegen.cpu import vector as simd
    from ovjit.codegen.cpu.intrinsics import make
    from ovjit.codegen.cpu.types import signature
    from ovjit.codegen.cpu.vector_types import lane_indices

    lanes = isa.lanes
    i64 = ir.IntType(64)

    def shuffle(b: Any, one: Any, other: Any, lanes: list[int]) -> Any:
        return b.shuffle_vector(one, other, lane_indices(*lanes))

    def concatenate(b: Any, vectors: list[Any]) -> Any:
        """Concatenate vectors."""
        together = vectors[0]
        for i, vector in enumerate(vectors[1:], 1):
            widened = shuffle(b, vector, vector, [j % lanes for j in range(i * lanes)])
            together = shuffle(b, together, widened, list(range((i + 1) * lanes)))
        return together

    def weave(b: Any, x: Any, stride: Any, y: Any, count: Any) -> None:
        together = concatenate(b, [
            simd.load_vector(b, b.add(x, b.mul(stride, i64(i))), elem, lanes, count) for i in range(rows)
        ])  # fmt: skip
        order = [j % rows * lanes + j // rows for j in range(rows * lanes)]
        simd.store_vector(b, y, shuffle(b, together, together, order), elem, b.mul(count, i64(rows)))

    def unweave(b: Any, x: Any, stride: Any, y: Any, count: Any) -> None:
        several, size = b.mul(count, i64(rows)), simd.SIZE[elem]
        together = concatenate(b, [
            simd.load_vector(b, b.add(y, i64(first * size)), elem, lanes, b.sub(several, i64(first)))
            for first in range(0, rows * lanes, lanes)
        ])  # fmt: skip
        for i in range(rows):
            row = shuffle(b, together, together, [j * rows + i for j in range(lanes)])
            simd.store_vector(b, b.add(x, b.mul(stride, i64(i))), row, elem, count)

    how = unweave if back else weave
    interleave = make("interleave", signature(types.void, *[types.int64] * 4), how)
    interleave.in_python = functools.partial(run_unweave if back else run_interleave, elem, rows)
    return interleave


def run_interleave(elem: str, rows: int, words: Any, x: int, step: int, y: int, n: int) -> None:
    """The intrinsic `interleave` in Python; `words` as in `run_transpose`."""
    lanes = words.lanes
    loaded = np.stack([words[f"loadm_{elem}"](x + i * step, n) for i in range(rows)], axis=1).reshape(-1)
    size = loaded.itemsize
    for first in range(0, rows * lanes, lanes):
        words[f"storem_{elem}"](y + first * size, loaded[first : first + lanes], n * rows - first)


def run_unweave(elem: str, rows: int, words: Any, x: int, step: int, y: int, n: int) -> None:
    """The intrinsic `interleave` with `back`, in Python."""
    lanes, size = words.lanes, {element: size for size, element in ELEMENTS.items()}[elem]
    firsts = range(0, rows * lanes, lanes)
    loaded = np.concatenate([words[f"loadm_{elem}"](y + first * size, n * rows - first) for first in firsts])
    for i in range(rows):
        words[f"storem_{elem}"](x + i * step, loaded[i::rows], n)


@kernel(over="...", x="... r n:1", y="... n r:1")
def interleave_rows(x: Tensor, y: Tensor, *, size, rows):
    """Items are pixels: interleave `rows` rows of adjacent elements to pixels of `rows` elements, or back."""
    for p, q in items(x, y):
        for j in range(0, x.size.n, VL):
            interleave(p + j * size, x.stride.r, q + j * size * rows, x.size.n - j)


@functools.cache
def interleave_kernel(size: int, rows: int, back: bool = False) -> Kernel:
    """The kernel that interleaves `rows` rows of elements of `size` bytes; with `back`, its inverse."""
    elem = ELEMENTS[size]

    def intrinsics(isa: Target) -> dict[str, Any]:
        return {"interleave": make_interleave(isa, elem, rows, back)}

    name = f"{'unweave' if back else 'interleave'}_{elem}_{rows}"
    return interleave_rows.kernel(name, intrinsics, name.replace("_", " "), size=size, rows=rows)
