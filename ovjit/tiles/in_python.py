"""What a tile means, in NumPy: the micro-kernel's arguments and its sums, for kernels that Python runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.elementwise import SIZE
from ovjit.graph.dtypes import numpy_dtype
from ovjit.tiles.formats import WORD, Format
from ovjit.tiles.narrow import BIN, SOURCES

#: int64 entries of one row of the address table: rows of it are input, output, pixel operands.
TABLE = 16
#: Words of a block: see `make_tile`.
BLOCK = 1024


def run_tile(
    rows: int, vectors: int, epilogue: Epilogue, form: Format, blocked: bool, words: Any,
    table: int, weights: int, bias: int, n1: int, s1: int, n2: int, s2: int, k: int, channel: int,
    valid: int, ahead: int, ahead_step: int, *more: int,
) -> None:  # fmt: skip
    """The intrinsic `tile_<rows>_<vectors>` on `words`, an `ovjit.execution.numpy_words.Words`."""
    lanes, memory = words.lanes, words.memory
    width = vectors * lanes
    shared = more[len(more) - epilogue.shared_operands :]

    def entry(row: int, m: int) -> int:
        return int(memory.at(table + (row * TABLE + m) * 8, 8).view(np.int64)[0])

    def elements(address: int, count: int, dtype: str, align: int) -> np.ndarray:
        data = memory.at(address, count * WORD, align)
        if dtype == "bf16":
            return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return data.view(numpy_dtype(dtype)).astype(np.float64)

    first = memory.at(bias, width * WORD, lanes * WORD).view(numpy_dtype(form.acc)).astype(np.float64)
    acc = np.tile(first, (rows, 1))
    pixels = [entry(0, m) for m in range(rows)]
    at = weights
    for i in range(n1):
        for j in range(n2):
            depth = min(k - j * BLOCK, BLOCK) if blocked else k
            if depth <= 0:
                continue
            w = elements(at, depth * width, form.w, lanes * WORD).reshape(depth, width, form.group)
            for m, pixel in enumerate(pixels):
                x = elements(pixel + i * s1 + j * s2, depth, form.a, SIZE[form.a]).reshape(depth, form.group)
                acc[m] += np.einsum("kg,kng->n", x, w)
            at += depth * width * WORD
    if form.span:
        rest, places, *bins = more[: 2 + vectors]
        for v, count in enumerate(bins):
            for _ in range(count * BIN):
                count_of_words = (SOURCES + 1) * lanes
                few = elements(rest, count_of_words, form.w, lanes * WORD).reshape(-1, lanes, form.group)
                offsets = memory.at(places, 8 * SOURCES, 8).view(np.int64)
                for m, pixel in enumerate(pixels):
                    for offset, choices in zip(offsets.tolist(), few.astype(int), strict=False):
                        x = elements(pixel + offset, form.window, form.a, SIZE[form.a])
                        chosen = np.where(choices < 0, 0, x[choices % len(x)])
                        acc[m, v * lanes : (v + 1) * lanes] += (chosen * few[SOURCES]).sum(-1)
                rest += count_of_words * WORD
                places += 8 * SOURCES
    sums = acc.astype(numpy_dtype(form.acc))
    results = []  # stored behind all reads: rows may be repeated
    for m in range(rows):
        for v in range(vectors):
            left = valid - v * lanes

            def load(o: Any, base: int, v: int = v, left: int = left) -> np.ndarray:
                if o.kind in ("number", "scalar"):
                    return words[f"splat_{o.dtype}"](base)
                return words[f"loadm_{o.dtype}"](base + (channel + v * lanes) * SIZE[o.dtype], left)

            bases = [shared[o.where] if o.shared else entry(o.where, m) for o in epilogue.operands]
            operands = [load(o, base) for o, base in zip(epilogue.operands, bases, strict=True)]
            value = sums[m, v * lanes : (v + 1) * lanes]
            if epilogue.body is not None:
                value = words.body(epilogue.body, [value, *operands])
            place = entry(1, m) + (channel + v * lanes) * SIZE[epilogue.out]
            results.append((place, value, left))
    for place, value, left in results:
        words[f"storem_{epilogue.out}"](place, value, left)
