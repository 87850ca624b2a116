"""Products of two pixels with two channels (usmmla, bfmmla), by LLVM's models of cores, for shapes of tiles.

    python -m bench.aarch64_pairs [llvm-mca] [--cores neoverse-v1] [--shapes 12x2 8x3 6x4 4x6]

The loops are written here, so that no compiler's order and no spill is in the figures: each sum has a
register, and what is fewer of pixels and weights stays in registers while the other one streams. Pixels are
put side by side as they are loaded (`ld1`), or are so in memory; two words of a channel are put side by side
(`zip`), or are so in their panel.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, product

from bench import command

#: Core -> the matrix products that it starts in a cycle by LLVM's description of it.
CORES = {"neoverse-v1": 4, "neoverse-v2": 4, "neoverse-n2": 2}
#: Instruction -> how it names its sums and its factors.
KINDS = {"usmmla": ("4s", "16b"), "bfmmla": ("4s", "8h")}
REGISTERS = 32
#: Two words of depth at a time, twice in an iteration.
STEPS = 2


def pixels(register: int, pair: int, step: int, pairs: int, packed: bool) -> list[str]:
    """Two words of two pixels."""
    if packed:
        return [f"ldr q{register}, [x2, #{16 * (step * pairs + pair)}]"]
    first = f"ldr d{register}, [x{3 + 2 * pair}, x1]"
    return [first, f"add x30, x{4 + 2 * pair}, x1", f"ld1 {{v{register}.d}}[1], [x30]"]


def weights(two: Sequence[int], spare: int, vector: int, step: int, vectors: int, packed: bool) -> list[str]:
    """Two words of two channels in each of two registers."""
    first, second = two
    if packed:
        at = 32 * (step * vectors + vector)
        return [f"ldr q{first}, [x0, #{at}]", f"ldr q{second}, [x0, #{at + 16}]"]
    at, other = (16 * (2 * step * vectors + part * vectors + vector) for part in (0, 1))
    return [
        f"ldr q{spare}, [x0, #{at}]", f"ldr q{first}, [x0, #{other}]",
        f"zip2 v{second}.4s, v{spare}.4s, v{first}.4s", f"zip1 v{first}.4s, v{spare}.4s, v{first}.4s",
    ]  # fmt: skip


def loop(name: str, rows: int, vectors: int, packed_weights: bool, packed_pixels: bool) -> Iterator[str]:
    """An iteration over four words of depth."""
    sums, factors = KINDS[name]
    pairs = rows // 2
    free = range(rows * vectors, REGISTERS)

    def multiply(pair: int, half: int, pixel: int, weight: int) -> str:
        return f"{name} v{pairs * half + pair}.{sums}, v{pixel}.{factors}, v{weight}.{factors}"

    for step in range(STEPS):
        if pairs <= 2 * vectors:
            held, others = free[:pairs], cycle(free[pairs:])
            for pair in range(pairs):
                yield from pixels(held[pair], pair, step, pairs, packed_pixels)
            for v in range(vectors):
                two = next(others), next(others)
                yield from weights(two, next(others), v, step, vectors, packed_weights)
                yield from (multiply(p, 2 * v + i, held[p], two[i]) for p in range(pairs) for i in (0, 1))
        else:
            held, others = free[: 2 * vectors], cycle(free[2 * vectors :])
            for v in range(vectors):
                two = held[2 * v], held[2 * v + 1]
                yield from weights(two, next(others), v, step, vectors, packed_weights)
            for pair in range(pairs):
                pixel = next(others)
                yield from pixels(pixel, pair, step, pairs, packed_pixels)
                yield from (multiply(pair, half, pixel, held[half]) for half in range(2 * vectors))
        if not packed_pixels:
            yield "add x1, x1, #8"
    if packed_pixels:
        yield f"add x2, x2, #{16 * STEPS * pairs}"
    yield f"add x0, x0, #{32 * STEPS * vectors}"
    yield from ("prfm pldl2keep, [x29]", "add x29, x29, x28", "subs x27, x27, #1", "b.ne .L")


def rate(program: str, core: str, lines: Sequence[str]) -> float:
    """The products of a loop over those that the core could start in its cycles."""
    times = 1000
    done = subprocess.run(
        [program, "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", f"-iterations={times}", "-mattr=+i8mm,+bf16",
         "-all-views=false", "-summary-view"],
        input="\n".join(lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if found is None:
        raise SystemExit(f"{program}: {done.stderr[-1000:]}")
    products = sum(line.split()[0] in KINDS for line in lines)
    return products * times / CORES[core] / int(found[1])


def main(argv: Sequence[str] | None = None) -> int:
    parser = command.parser("aarch64_pairs", __doc__, json=False)
    parser.add_argument("program", nargs="?", default="llvm-mca")
    parser.add_argument("--cores", nargs="+", default=list(CORES), choices=list(CORES))
    parser.add_argument("--shapes", nargs="+", default=["12x2", "8x3", "6x4", "4x6"], metavar="ROWSxVECTORS")
    given = parser.parse_args(argv)
    if shutil.which(given.program) is None:
        raise SystemExit(f"there is no {given.program}: it comes with LLVM (Debian's llvm)")
    ways = {
        "neither": (False, False),
        "weights": (True, False),
        "pixels": (False, True),
        "both": (True, True),
    }
    print("| core | instruction | tile |", " | ".join(ways), "|")
    print("|---" * (3 + len(ways)), end="|\n")
    for core, name, shape in product(given.cores, KINDS, given.shapes):
        rows, vectors = map(int, shape.split("x"))
        loops = ([*loop(name, rows, vectors, *map(bool, way))] for way in ways.values())
        rates = " | ".join(f"{rate(given.program, core, lines):.2f}" for lines in loops)
        print(f"| {core} | {name} | {rows}x{4 * vectors} | {rates} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
