"""Intrinsics of the matrix unit AMX: eight tile registers of 16 rows of 64 bytes.

    tile_begin(words)                configure all tiles as 16 x 64 bytes, but rows of `a` with 1 to 16 words,
                                     and `b` with as many rows; tiles are then 0
    tile_end()                       release the registers
    tile_load_<t>(p, step)           load row r of tile t from p + r * step
    tile_store_<t>(p, step)          store row r of tile t to p + r * step
    tile_multiply_<c>_<a>_<b>()      c += a * b, by the instruction of a format

`a` has a row of words of depth for each row of `c`. `b` has a row for each word of depth, of 16 words, one
per column. A word is two bf16 or four bytes.

| format | instruction | arithmetic |
|--------|-------------|------------|
| bf16   | tdpbf16ps   | see `multiply_bf16` |
| u8i8   | tdpbusd     | exact, modulo 2 ** 32 |

A kernel configures the tiles itself and releases them before it returns. Other code does not use them.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

#: Rows of a tile, and bytes of a row.
ROWS, ROW_BYTES = 16, 64
#: The tiles of four blocks of sums, two blocks of rows, and two blocks of columns.
SUMS, LEFT, RIGHT = (0, 1, 2, 3), (4, 5), (6, 7)
_TILES = 8


#: Bytes of a word of depth. ldtilecfg reads the bytes of a row of tile t at `_WIDTHS` + 2 * t, and the number
#: of its rows at `_HEIGHTS` + t.
_WORD, _WIDTHS, _HEIGHTS = 4, 16, 48


def _configuration() -> list[int]:
    """The 64 bytes for ldtilecfg: palette 1, all tiles with their full size."""
    config = [0] * 64
    config[0] = 1
    for tile in range(_TILES):
        config[_WIDTHS + 2 * tile], config[_HEIGHTS + tile] = ROW_BYTES, ROWS
    return config


# --- arithmetic


def _odd_sum(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x + y of f64, rounded to odd, so that a second rounding to f32 is correct."""
    total = x + y
    part = total - x
    error = (x - (total - part)) + (y - part)
    bits = np.ascontiguousarray(total).view(np.int64)
    inexact = (error != 0) & np.isfinite(error) & ((bits & 1) == 0)
    step = np.where((error > 0) == (total > 0), 1, -1)
    return np.where(inexact, bits + step, bits).view(np.float64)


def _flush_subnormals(x: np.ndarray) -> np.ndarray:
    """f32 with subnormals flushed to zeros of their sign."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def multiply_bf16(sums: np.ndarray, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """tdpbf16ps: f32 sums [rows, columns] plus bf16 [rows, words, 2] times [words, columns, 2].

    Even and odd elements of depth each have a chain of multiply-adds, which begins with zero. The chains are
    added to each other, then to the sum. All operations round to nearest even; subnormal inputs and results
    are zeros.
    """
    a, b = (
        _flush_subnormals((x.astype(np.uint32) << 16).view(np.float32)).astype(np.float64) for x in (lhs, rhs)
    )
    chains = np.zeros((*sums.shape, 2), np.float32)
    with np.errstate(all="ignore"):
        for k in range(a.shape[1]):
            sums_of_pair = _odd_sum(a[:, None, k] * b[None, k], chains.astype(np.float64))
            chains = _flush_subnormals(sums_of_pair.astype(np.float32))
        return _flush_subnormals(_flush_subnormals(sums) + _flush_subnormals(chains[..., 0] + chains[..., 1]))


def multiply_bytes(sums: np.ndarray, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """tdpbusd: i32 sums [rows, columns] plus u8 [rows, words, 4] times i8 [words, columns, 4]."""
    products = np.einsum("mkg,kng->mn", lhs.astype(np.int64), rhs.astype(np.int64))
    return (sums + products).astype(np.int32)


def _python_begin(words: Any, depth: int) -> None:
    """Sets up the Python interpreter's registers. `tiles`: the registers; `depth`: the words of a row of
    `a`."""
    words.__dict__.update(tiles=np.zeros((_TILES, ROWS, ROW_BYTES), np.uint8), depth=depth)


def _python_load(tile: int, words: Any, p: int, step: int) -> None:
    row_bytes = words.depth * _WORD if tile in LEFT else ROW_BYTES
    for r in range(words.depth if tile in RIGHT else ROWS):
        words.tiles[tile, r, :row_bytes] = words.memory.at(p + r * step, row_bytes).view(np.uint8)


def _python_store(tile: int, words: Any, p: int, step: int) -> None:
    for r, row in enumerate(words.tiles[tile]):
        words.memory.at(p + r * step, ROW_BYTES)[:] = row


def multiply_tiles(name: str, sums: np.ndarray, lhs: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """The product of a format, on tiles as bytes [16, 64]."""
    if name == "bf16":
        a, b = (x.view(np.uint16).reshape(ROWS, ROWS, 2) for x in (lhs, rhs))
        product = multiply_bf16(sums.view(np.float32), a, b)
    else:
        signed = rhs.view(np.int8).reshape(ROWS, ROWS, 4)
        product = multiply_bytes(sums.view(np.int32), lhs.reshape(ROWS, ROWS, 4), signed)
    return np.ascontiguousarray(product).view(np.uint8)


def _python_multiply(name: str, c: int, a: int, b: int, words: Any) -> None:
    tiles = words.tiles
    tiles[c] = multiply_tiles(name, tiles[c], tiles[a], tiles[b])


# --- LLVM


def intrinsics(name: str) -> dict[str, Any]:
    """The intrinsics, with the products of format `name`."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import types
    from ovjit.codegen.cpu.intrinsics import make
    from ovjit.codegen.cpu.types import signature
    from ovjit.codegen.cpu.vector_types import call_intrinsic, pointer

    byte, none = ir.IntType(8), ir.VoidType()
    instruction = {"bf16": "tdpbf16ps", "u8i8": "tdpbusd"}[name]

    def word(title: str, arity: int, body: Any, in_python: Any) -> None:
        intrinsic = make(title, signature(types.void, *[types.int64] * arity), body)
        intrinsic.in_python = in_python
        intrinsics_by_name[title] = intrinsic

    def begin(b: Any, words: Any) -> None:
        kind = ir.VectorType(byte, 64)
        buffer = b.alloca(kind)
        config = ir.Constant(kind, _configuration())
        rows = b.trunc(words, byte)
        width = b.mul(rows, byte(_WORD))
        sizes = {_WIDTHS + 2 * tile: width for tile in LEFT} | {_HEIGHTS + tile: rows for tile in RIGHT}
        for at, value in sizes.items():
            config = b.insert_element(config, value, ir.IntType(32)(at))
        b.store(config, buffer)
        call_intrinsic(b, "llvm.x86.ldtilecfg", none, [b.bitcast(buffer, byte.as_pointer())])

    def move(way: str, tile: int) -> Any:
        def body(b: Any, p: Any, step: Any) -> None:
            call_intrinsic(b, f"llvm.x86.{way}", none, [byte(tile), pointer(b, p, byte), step])

        return body

    intrinsics_by_name: dict[str, Any] = {}
    word("tile_begin", 1, begin, _python_begin)
    word("tile_end", 0, lambda b: call_intrinsic(b, "llvm.x86.tilerelease", none, []), lambda words: None)
    for tile in range(_TILES):
        load, store = functools.partial(_python_load, tile), functools.partial(_python_store, tile)
        word(f"tile_load_{tile}", 2, move("tileloadd64", tile), load)
        if tile in SUMS:
            word(f"tile_store_{tile}", 2, move("tilestored64", tile), store)
    for c in SUMS:
        tiles = c, LEFT[c // 2], RIGHT[c % 2]

        def product(b: Any, tiles: tuple[int, ...] = tiles) -> None:
            call_intrinsic(b, f"llvm.x86.{instruction}", none, [byte(tile) for tile in tiles])

        title = "_".join(map(str, ("tile_multiply", *tiles)))
        word(title, 0, product, functools.partial(_python_multiply, name, *tiles))
    return intrinsics_by_name
