"""The meaning of a tile in NumPy, for kernels that run in Python (`OVJIT_INTERP=kernels`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.memory import SIZE
from ovjit.graph.dtypes import numpy_dtype
from ovjit.tiles.sizes import BLOCK, TABLE, WAYS


def run_tile(
    rows: int, vectors: int, epilogue: Epilogue, form: Format, blocked: bool, widens: bool, words: Any,
    table: int, weights: int, bias: int, n1: int, s1: int, n2: int, s2: int, k: int, channel: int,
    valid: int, ahead: int, ahead_step: int, *more: int,
) -> None:  # fmt: skip
    """The intrinsic `tile_<rows>_<vectors>` on `words`, an `ovjit.execution.numpy_words.Words`."""
    lanes, memory = words.lanes, words.memory
    width = vectors * lanes
    shared = more[len(more) - epilogue.shared_operands :]

    def entry(row: int, m: int) -> int:
        return int(memory.at(table + (row * TABLE + m) * 8, 8).view(np.int64)[0])

    first = memory.at(bias, width * WORD, lanes * WORD).view(numpy_dtype(form.acc)).astype(np.float64)
    acc = np.tile(first, (rows, 1))
    pixels = [entry(0, m) for m in range(rows)]
    if form.listed:
        _add_sorted_words(acc, form, words, pixels, weights, *more[:2])
    elif form.paired:
        _add_pairs(acc, form, words, pixels[0], weights, form.padded_words(n1 * n2 * k) // 2)
    else:
        _add_products(acc, form, blocked, widens, words, pixels, weights, (n1, s1, n2, s2, k))
    sums = acc.astype(numpy_dtype(form.acc))
    results = []  # stored after all reads: rows may be repeated
    for m in range(rows):
        for v in range(vectors):
            remaining = valid - v * lanes

            def load(o: Any, base: int, v: int = v, remaining: int = remaining) -> np.ndarray:
                if o.kind in ("number", "scalar"):
                    return words[f"splat_{o.dtype}"](base)
                return words[f"loadm_{o.dtype}"](base + (channel + v * lanes) * SIZE[o.dtype], remaining)

            bases = [shared[o.where] if o.shared else entry(o.where, m) for o in epilogue.operands]
            operands = [load(o, base) for o, base in zip(epilogue.operands, bases, strict=True)]
            value = sums[m, v * lanes : (v + 1) * lanes]
            if epilogue.body is not None:
                value = words.body(epilogue.body, [value, *operands])
            address = entry(1, m) + (channel + v * lanes) * SIZE[epilogue.out]
            results.append((address, value, remaining))
    for address, value, remaining in results:
        words[f"storem_{epilogue.out}"](address, value, remaining)


def _elements(words: Any, address: int, count: int, dtype: str, align: int) -> np.ndarray:
    """The elements of `count` words, in f64."""
    data = words.memory.at(address, count * WORD, align)
    if dtype == "bf16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return data.view(numpy_dtype(dtype)).astype(np.float64)


def _add_products(
    acc: np.ndarray, form: Format, blocked: bool, widens: bool, words: Any, pixels: list[int], weights: int,
    taps: tuple[int, ...],
) -> None:  # fmt: skip
    """acc [pixels, channels] += the products of all taps (n1, s1, n2, s2, depth). `widens`: pixels are
    adjacent f32, two for a word."""
    n1, s1, n2, s2, k = taps
    width, align = acc.shape[1], words.lanes * WORD
    for i in range(n1):
        for j in range(n2):
            depth = min(k - j * BLOCK, BLOCK) if blocked else k
            if depth <= 0:
                continue
            w = _elements(words, weights, depth * width, form.w, align).reshape(depth, width, form.group)
            for m, pixel in enumerate(pixels):
                if widens:
                    at = j * s2 if blocked else (i * n2 + j) * k * WORD
                    x = _elements(words, pixel + 2 * at, 2 * depth, "f32", WORD)
                else:
                    x = _elements(words, pixel + i * s1 + j * s2, depth, form.a, SIZE[form.a])
                x = x - 128 if form.flips else x
                acc[m] += np.einsum("kg,kng->n", x.reshape(depth, form.group), w)
            weights += depth * width * WORD


def _add_pairs(acc: np.ndarray, form: Format, words: Any, pixels: int, weights: int, count: int) -> None:
    """As `_add_products`, for `count` pairs of words. The two words of a pixel are adjacent. So are those of
    a channel if the format multiplies pairs of channels."""
    rows, width = acc.shape
    align = words.lanes * WORD
    x = _elements(words, pixels, 2 * count * rows, "i8" if form.flips else form.a, align)
    w = _elements(words, weights, 2 * count * width, form.w, align)
    if form.has_matrix:
        w = w.reshape(count, width, 2, form.group)
    else:
        w = w.reshape(count, 2, width, form.group).swapaxes(1, 2)
    acc += np.einsum("smpg,snpg->mn", x.reshape(count, rows, 2, form.group), w)


def _add_sorted_words(
    acc: np.ndarray, form: Format, words: Any, pixels: list[int], weights: int, offsets: int, steps: int
) -> None:
    """As `_add_products`, for words that are sorted by way (`ovjit.tiles.narrow`)."""
    lanes = words.lanes
    counts = words.memory.at(steps, 8 * len(WAYS) * (acc.shape[1] // lanes), 8).view(np.int64).tolist()
    for number, count in enumerate(counts):
        v, way = number // len(WAYS) * lanes, WAYS[number % len(WAYS)]
        for _ in range(count):
            stored = _elements(words, weights, way.parts * lanes, form.w, lanes * WORD)
            words_of_way = stored.reshape(-1, way.span, lanes, form.group)
            for n in range(way.span):
                offset = int(words.memory.at(offsets, 8, 8).view(np.int64)[0])
                for m, pixel in enumerate(pixels):
                    x = _elements(words, pixel + offset, 1, form.a, SIZE[form.a])
                    if way.moves_signs:  # the data are signed then, and the weights are not
                        flipped = x.astype(np.uint8) ^ words_of_way[1, n].astype(np.int8).view(np.uint8)
                        of_word = (flipped.view(np.int8) * (words_of_way[0, n] % 256)).sum(-1)
                    else:
                        of_word = (x * words_of_way[0, n]).sum(-1)
                    acc[m, v : v + lanes] += of_word
                offsets += 8
            weights += way.parts * lanes * WORD
