"""Targets: what machine code can be made for, each a record that compilation is given.

A record says what kernels, plans and packed weights depend on. Nothing here asks what this machine is: code
for any target can be printed in any process. `ovjit.codegen.cpu.host` tells which of them this CPU is.
`ovjit.codegen.cpu.neon` has the instructions that are AArch64's alone.
"""

from __future__ import annotations

from collections.abc import Collection

from ovjit.codegen.cpu.machine import AARCH64, X86_64
from ovjit.codegen.cpu.neon import shapes as neon
from ovjit.records import NamedTuple

#: Bytes of a cache line, and bytes after which addresses share a set of a first-level cache, which holds 8 to
#: 12 lines. All targets have these: plans and packed weights are the same on CPUs of one target.
CACHE_LINE, SET_BYTES = 64, 4096

#: What LLVM avoids for any AArch64: right behind a load or store, some Cortex-A53 (Raspberry Pi 3) may get a
#: wrong product and sum of 64 bits (erratum 835769). Of 1,005 kernels 935 had that, some 8 times each.
_AVOIDED = ("fix-cortex-a53-835769",)


class Shapes(NamedTuple):
    """How many results kernels keep in registers at a time."""

    #: heights of tiles of products: the full one, then what covers the rest of a chunk. Every height costs
    #: some 40 ms of compilation; with 10 and 2 as well nothing but the last tile of a chunk was faster
    tiles: tuple[int, ...]
    #: heights of tiles of four vectors: accumulators, weights and a pixel have to fit the registers
    recurrent: tuple[int, ...]
    #: rows of plain products, with as many accumulators as registers leave room for
    plain: int
    #: pixels of a row that depthwise convolutions compute together, where a vector may be masked
    pixels: int
    #: the same of f32 without masks: a sum is a chain of multiply-adds, four keep half of AVX2's units busy
    whole_pixels: tuple[int, ...]
    #: the same where the code has a part of the taps: a single pixel waits for each of its many sums
    parted: tuple[int, ...]


class Target(NamedTuple):
    """An instruction set, and what a CPU has besides. `lanes`: f32 lanes of a vector."""

    name: str
    machine: str  # the architecture
    lanes: int
    tile_vectors: int  # vectors of a row of a tile's accumulators
    shapes: Shapes
    cpu: str = ""  # LLVM's name of the CPU that passes and code generation see, whatever CPU is there
    features: tuple[str, ...] = ()  # CPU features that the machine must have
    extras: tuple[str, ...] = ()  # those of EXTRA that code may use besides

    @property
    def is_arm(self) -> bool:
        return self.machine == AARCH64

    @property
    def llvm_features(self) -> str:
        """The features beyond its CPU's that LLVM is told of."""
        return ",".join(f"+{f}" for f in (*(_AVOIDED if self.is_arm else ()), *self.extras))


#: What came with AVX2; a virtual machine may hide some, which code would use.
_HASWELL = ("fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe")
_AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# Code for the exact CPU was tried for AVX-512. Of 45 kernels, sapphirerapids, icelake-server and znver4 have
# 0.98 to 1.09 of the instructions, 1.00 in the median. Each would need its own file.
TARGETS = {
    one.name: one
    for one in (
        Target(
            "avx512", X86_64, 16, 2,
            Shapes((14, 7, 4, 1), (6, 3, 1), 12, 6, (6, 1), (8, 6, 4, 2, 1)),
            "x86-64-v4", (*_AVX512, *_HASWELL),
        ),
        Target(
            "avx2", X86_64, 8, 2,
            Shapes((6, 3, 1), (2, 1), 6, 4, (8, 4, 1), (8, 4, 2, 1)),
            "haswell", ("avx2", *_HASWELL),
        ),
        Target(
            "neon", AARCH64, 4, 2,
            Shapes(
                neon.TILES, neon.RECURRENT, neon.PLAIN, neon.PIXELS, neon.WHOLE_PIXELS, neon.PARTED,
            ),
            "", ("neon",),
        ),
        Target(
            "generic", X86_64, 4, 2,
            Shapes((4, 2, 1), (2, 1), 2, 4, (4, 1), (4, 2, 1)),
        ),
    )
}  # fmt: skip

#: Features of a CPU beyond an instruction set's own that LLVM text may depend on, see `has_features`, and the
#: instruction set whose code they are for.
EXTRA = {
    "avx512bf16": "avx512", "avx512vnni": "avx512", "avxvnni": "avx2",
    "amx-bf16": "avx512", "amx-int8": "avx512",
    "lse": "neon", "dotprod": "neon", "i8mm": "neon", "bf16": "neon", "fp16fml": "neon",
}  # fmt: skip
#: Those of a matrix unit, which are used after a test (`ovjit.codegen.cpu.amx_test`).
MATRIX = frozenset(("amx-bf16", "amx-int8"))


def target_of(name: str, features: Collection[str] = (), machine: str = "") -> Target:
    """A target by its name, on a CPU that has these of EXTRA, too. `machine`: the architecture of `generic`,
    which is for any."""
    found = TARGETS[name]
    extras = tuple(f for f, of in EXTRA.items() if of == name and f in features)
    return found._replace(extras=extras, machine=machine if machine and not found.features else found.machine)


def without_matrix_unit(target: Target) -> Target:
    """The target, whose products are left to vectors."""
    return target._replace(extras=tuple(f for f in target.extras if f not in MATRIX))


def has_features(target: Target, features: Collection[str]) -> bool:
    """True when code for `target` may use these features of the CPU. ValueError for one that is not known."""
    unknown = set(features) - {*EXTRA, *target.features}
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: text that depends on it has to be told apart, see EXTRA")
    return {*target.features, *target.extras}.issuperset(features)
