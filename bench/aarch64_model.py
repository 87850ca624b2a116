"""The inner loops of AArch64's tiles by LLVM's models of cores: `python -m bench.aarch64_model [llvm-mca]`.

A model's figures, for want of hardware: `llvm-mca` schedules the instructions of the loop on its description
of a core. It knows nothing of caches, and of branches only what they take. For each core and format: the
cycles of one iteration, the multiply-adds that the core could start in them, and which part of these it does.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from ovjit.codegen.cpu import jit
from ovjit.codegen.cpu.formats import Format, find_format
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.neon import shapes
from ovjit.codegen.cpu.targets import EXTRA, Target, target_of
from ovjit.tiles.tile import make_tile

#: Core -> the vector instructions of multiply-adds that it starts in a cycle by LLVM's description of it.
CORES = {"cortex-a72": 1, "neoverse-n1": 2, "neoverse-v1": 4, "apple-m1": 3}
#: Instructions that a core decodes in a cycle, where LLVM's description has fewer (3): by Arm's manual.
DECODED = {"neoverse-n1": 4}
#: What each of them has beside NEON.
HAVE = {
    "cortex-a72": (), "neoverse-n1": ("lse", "dotprod"), "neoverse-v1": ("lse", "dotprod", "i8mm", "bf16"),
    "apple-m1": ("lse", "dotprod"),
}  # fmt: skip
_TYPES = (("f32", "f32"), ("u8", "i8"), ("bf16", "bf16"))
_PRODUCTS = re.compile(r"\t(?:fmlal?2?|bfdot|[us]*dot|bfmmla|[us]*mmla)\t")


def inner_loop(isa: Target, form: Format, rows: int) -> str:
    """The block that multiplies most, of the full tile of a format."""
    tile = make_tile(isa, rows, isa.tile_vectors, Epilogue(None, [], form.acc), form)
    given = ", ".join(["a"] * tile.arity)
    source = f"@njit(nogil=True)\ndef kernel(a, b, c, p):\n    tile_of({given})\n    return 0\n"
    text = jit.assembly(source, "ovjit_model", isa, {"tile_of": tile})
    blocks = re.split(r"^(?=\.LBB)", text, flags=re.M)
    return max(blocks, key=lambda block: len(_PRODUCTS.findall(block)))


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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.aarch64_model")
    parser.add_argument("program", nargs="?", default="llvm-mca")
    program = parser.parse_args(argv).program
    if shutil.which(program) is None:
        raise SystemExit(f"there is no {program}: it comes with LLVM (Debian's llvm)")
    head = ("core", "format", "tile", "instruction", "of them", "of all", "cycles", "of the core's rate",
            "by its manual's decoder", "spills")  # fmt: skip
    print("|", " | ".join(head), "|")
    print("|---" * len(head), end="|\n")
    for core, rate in CORES.items():
        isa = target_of("neon", [f for f in EXTRA if f in HAVE[core]])
        for a, w in _TYPES:
            form = find_format(a, w, isa)
            if form is None:
                continue
            loop = inner_loop(isa, form, shapes.TILES[0])
            names = _PRODUCTS.findall(loop)
            count = len(names)
            each = cycles(program, core, loop, isa)
            real = cycles(program, core, loop, isa, DECODED[core]) if core in DECODED else each
            size = len(re.findall(r"^\t[a-z]", loop, re.M))
            shape = f"{shapes.TILES[0]}x{isa.tile_vectors * isa.lanes}"
            row = (core, form.name, shape, names[0].strip(), count, size, f"{each:.1f}",
                   f"{count / rate / each:.2f}", f"{count / rate / real:.2f}", loop.count("[sp"))  # fmt: skip
            print("|", " | ".join(map(str, row)), "|")
    return 0


if __name__ == "__main__":
    sys.exit(main())
