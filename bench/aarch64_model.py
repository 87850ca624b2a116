"""The inner loops of AArch64's tiles by LLVM's models of cores: `python -m bench.aarch64_model [llvm-mca]`.

    python -m bench.aarch64_model llvm-mca --shapes 12x2 8x2 5x4        rows x vectors of other tiles
    python -m bench.aarch64_model llvm-mca --loops                      transposes, conversions, running sums

A model's figures, for want of hardware: `llvm-mca` schedules the instructions of the loop on its description
of a core. It knows nothing of caches, and of branches only what they take. For each core and format: the
cycles of one iteration, the part of them that its products alone would take, and how many pairs of numbers it
multiplies in a cycle.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from bench import command
from ovjit.codegen.cpu import jit
from ovjit.codegen.cpu.formats import Format, find_format, paired_format, tile_heights
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import EXTRA, Target, target_of
from ovjit.codegen.transpose import make_transpose
from ovjit.tiles.tile import make_tile

CORES = ("cortex-a72", "neoverse-n1", "neoverse-v1", "apple-m1")
#: Instructions that a core decodes in a cycle, where LLVM's description has fewer (3): by Arm's manual.
DECODED = {"neoverse-n1": 4}
#: What each of them has beside NEON.
HAVE = {
    "cortex-a72": (), "neoverse-n1": ("lse", "dotprod"),
    "neoverse-v1": ("lse", "dotprod", "i8mm", "bf16", "fp16fml"),
    "apple-m1": ("lse", "dotprod", "fp16fml"),
}  # fmt: skip
_TYPES = (("f32", "f32"), ("u8", "i8"), ("bf16", "bf16"), ("f16", "f16"))
#: Instruction -> pairs of numbers that it multiplies.
_PAIRS = {"fmla": 4, "fmlal": 4, "fmlal2": 4, "sdot": 16, "sudot": 16, "usmmla": 32, "bfdot": 8, "bfmmla": 16}
#: Loop -> its elements in an iteration, the element type of `transpose`, and its lines. a: iterations; b, p:
#: addresses of the source and the target; c: bytes between rows.
_TRANSPOSED = "transpose(b + i * {side} * {size}, c, {side}, p + i * {side} * c, c, {side})"
_ROW = "v = load_f32(b + i * 16); {}"
LOOPS = {
    **{
        f"transpose {elem}": (side * side, elem, _TRANSPOSED.format(side=side, size=size))
        for elem, side, size in (("u8", 4, 1), ("i16", 4, 2), ("i32", 4, 4), ("i64", 2, 8))
    },
    **{
        f"convert f32 to {to}": (4, "", _ROW.format(f"store_{to}(p + i * {size * 4}, {value})"))
        for to, size, value in (
            ("u8", 1, "cast_u8(trunc_or_min_i32(v))"), ("i32", 4, "trunc_or_min_i32(v)"),
            ("i64", 8, "trunc_or_min_i64(v)"),
        )
    },
    "running sum f32": (4, "", _ROW.format("total = add(total, v); store_f32(p + i * 16, total)")),
}  # fmt: skip
_PRODUCTS = re.compile(r"\t(?:fmlal?2?|bfdot|[us]*dot|bfmmla|[us]*mmla)\t")


def inner_loop(isa: Target, form: Format, rows: int) -> str:
    """The block that multiplies most, of the full tile of a format."""
    tile = make_tile(isa, rows, isa.tile_vectors, Epilogue(None, [], form.acc), form)
    given = ", ".join(["a"] * tile.arity)
    source = f"@njit(nogil=True)\ndef kernel(a, b, c, p):\n    tile_of({given})\n    return 0\n"
    text = jit.assembly(source, "ovjit_model", isa, {"tile_of": tile})
    blocks = re.split(r"^(?=\.LBB)", text, flags=re.M)
    return max(blocks, key=lambda block: len(_PRODUCTS.findall(block)))


def other_loop(isa: Target, name: str) -> str:
    """The block of one of LOOPS."""
    _, elem, lines = LOOPS[name]
    extra = {"transpose": make_transpose(isa, elem)} if elem else None
    source = "@njit(nogil=True)\ndef kernel(a, b, c, p):\n    total = const_f32(0)\n    for i in range(a):\n"
    source += "".join(f"        {line}\n" for line in lines.split("; ")) + "    return 0\n"
    text = jit.assembly(source, "ovjit_model", isa, extra)
    blocks = re.split(r"^(?=\.LBB)", text, flags=re.M)
    return next(one for one in blocks if re.search(rf"\tb\..*\t{re.escape(one.partition(':')[0])}\n", one))


def print_loops(program: str) -> None:
    """A table: for each core the cycles of an iteration."""
    print("| loop | elements | instructions |", " | ".join(CORES), "|")
    print("|---" * (3 + len(CORES)), end="|\n")
    isa = target_of("neon")
    for name, (elements, *_) in LOOPS.items():
        loop = other_loop(isa, name)
        size = len(re.findall(r"^\t[a-z]", loop, re.M))
        each = (cycles(program, core, loop, isa, DECODED.get(core, 0)) for core in CORES)
        print("|", " | ".join([name, str(elements), str(size), *(f"{one:.1f}" for one in each)]), "|")


def cycles(program: str, core: str, loop: str, isa: Target, decoded: int = 0) -> float:
    """The cycles of one iteration, of many; so many instructions `decoded` in one, or as LLVM has it."""
    times = 1000
    lines = [line for line in loop.splitlines() if line.startswith("\t") and "//" not in line]
    done = subprocess.run(
        [program, "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", f"-iterations={times}",
         f"-mattr={','.join(f'+{f}' for f in isa.extras)}", f"-dispatch={decoded}", "-all-views=false",
         "-summary-view"],
        input="\n".join(lines), capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if found is None:
        raise SystemExit(f"{program}: {done.stderr[-1000:]}")
    return int(found[1]) / times


def line(program: str, core: str, isa: Target, form: Format, rows: int) -> tuple[object, ...]:
    """A row of the table."""
    loop = inner_loop(isa, form, rows)
    names = [name.strip() for name in _PRODUCTS.findall(loop)]
    alone = "".join(f"{one}\n" for one in loop.splitlines() if _PRODUCTS.match(one))
    least = cycles(program, core, alone, isa)  # LLVM's releases describe some cores otherwise
    each = cycles(program, core, loop, isa)
    real = cycles(program, core, loop, isa, DECODED[core]) if core in DECODED else each
    size = len(re.findall(r"^\t[a-z]", loop, re.M))
    pairs = sum(_PAIRS[name] for name in names)
    return (
        core, form.name + " in pairs" * form.paired, f"{rows}x{isa.tile_vectors * isa.lanes}", names[0],
        len(names), size, f"{each:.1f}",
        f"{least / each:.2f}", f"{least / real:.2f}", f"{pairs / real:.1f}",
        loop.count("[sp"),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = command.parser("aarch64_model", __doc__, json=False)
    parser.add_argument("program", nargs="?", default="llvm-mca")
    parser.add_argument("--shapes", nargs="+", metavar="ROWSxVECTORS")
    parser.add_argument("--loops", action="store_true", help="of other kernels than products")
    arguments = parser.parse_args(argv)
    program = arguments.program
    if shutil.which(program) is None:
        raise SystemExit(f"there is no {program}: it comes with LLVM (Debian's llvm)")
    if arguments.loops:
        print_loops(program)
        return 0
    head = ("core", "format", "tile", "instruction", "of them", "of all", "cycles", "of the core's rate",
            "by its manual's decoder", "pairs a cycle", "spills")  # fmt: skip
    print("|", " | ".join(head), "|")
    print("|---" * len(head), end="|\n")
    for core in CORES:
        isa = target_of("neon", [f for f in EXTRA if f in HAVE[core]])
        found = filter(None, (find_format(*pair, isa) for pair in _TYPES))
        for form in dict.fromkeys(each for one in found for each in (one, paired_format(one))):
            for shape in arguments.shapes or [f"{tile_heights(isa, form)[0]}x{isa.tile_vectors}"]:
                rows, vectors = map(int, shape.split("x"))
                if (form.name == "f16" and vectors > 2) or (form.paired and rows % 2):
                    continue  # tiles of f16 put one or two vectors' halves together
                row = line(program, core, isa._replace(tile_vectors=vectors), form, rows)
                print("|", " | ".join(map(str, row)), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
