"""Targets: one record for each instruction set that code can be generated for.

A record has everything that kernels, plans and packed weights depend on. Code for any target can be generated
in any process: nothing here depends on this machine. `ovjit.codegen.cpu.host` has this machine's target.
`ovjit.codegen.cpu.neon` has the instructions that only AArch64 has.
"""

from __future__ import annotations

from collections.abc import Collection

from ovjit.codegen.cpu.machine import AARCH64, NVPTX, X86_64
from ovjit.codegen.cpu.neon import shapes as neon
from ovjit.records import NamedTuple

#: Bytes of a cache line, and the distance in bytes of addresses that map to the same set of a first-level
#: cache (8 to 12 lines). Equal for all targets: plans and packed weights are the same on all CPUs of a
#: target.
CACHE_LINE, SET_BYTES = 64, 4096

#: LLVM's workaround for all AArch64 CPUs: directly after a load or store, some Cortex-A53 (Raspberry Pi 3)
#: may compute a wrong 64-bit multiply-add (erratum 835769). 935 of 1,005 kernels had such code, about 8 times
#: each.
_AVOIDED = ("fix-cortex-a53-835769",)


class Shapes(NamedTuple):
    """Register blocking: the numbers of results that kernels keep in registers."""

    #: heights of tiles of products: the full one, and smaller ones for the remainder of a chunk. A height
    #: costs about 40 ms of compilation. Additional heights of 10 and 2 only made the last tile of a chunk
    #: faster
    tiles: tuple[int, ...]
    #: heights of tiles with rows of four vectors: accumulators, weights and a pixel must fit the registers
    recurrent: tuple[int, ...]
    #: rows of a tile of plain products: accumulators fill the registers
    plain: int
    #: pixels of a row that depthwise convolutions compute at once, if a vector may be masked
    pixels: int
    #: the same for f32 without masks: sums are chains of multiply-adds, and four keep half of AVX2's units
    #: busy
    whole_pixels: tuple[int, ...]
    #: the same for code with a part of the taps, where a single pixel's sum is a long dependency chain
    parted: tuple[int, ...]
    #: heights of tiles of products of f32 and of bf16, if others than `tiles`
    reals: tuple[int, ...] = ()
    bf16: tuple[int, ...] = ()


class Target(NamedTuple):
    """An instruction set with optional CPU features. `lanes`: f32 lanes of a vector."""

    name: str
    machine: str  # the architecture
    lanes: int
    tile_vectors: int  # vectors of a row of a tile's accumulators
    shapes: Shapes
    cpu: str = ""  # LLVM's CPU name for passes and code generation, for all CPUs of the target
    features: tuple[str, ...] = ()  # required CPU features
    #: multiply-adds or bytes of a chunk, if another number than that of CPUs (`ovjit.planning.chunks`)
    chunk_work: int = 0
    slow_dots: bool = False  # see SLOW_DOTS
    extras: tuple[str, ...] = ()  # optional features, of EXTRA, that code may use

    @property
    def is_gpu(self) -> bool:
        return self.machine == NVPTX

    @property
    def is_arm(self) -> bool:
        return self.machine == AARCH64

    @property
    def llvm_features(self) -> str:
        """LLVM's feature string: features beyond those of `cpu`."""
        return ",".join(f"+{f}" for f in (*(_AVOIDED if self.is_arm else ()), *self.extras))


#: Features that came with AVX2 and that code uses. A virtual machine may hide some of them.
_HASWELL = ("fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe")
_AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# Code for the exact CPU was tried for AVX-512. Of 45 kernels, sapphirerapids, icelake-server and znver4 have
# 0.98 to 1.09 of the instructions, 1.00 in the median. Each would need its own file.
TARGETS = {
    one.name: one
    for one in (
        Target(
            "avx512", X86_64, 16, 2,
            # 8 rows of bf16, in one lower tile, take 0.6 of the time where `vdpbf16ps` has half the rate
            Shapes((14, 7, 4, 1), (6, 3, 1), 12, 6, (6, 1), (8, 6, 4, 2, 1), bf16=(14, 8, 4, 1)),
            "x86-64-v4", (*_AVX512, *_HASWELL),
        ),
        Target(
            "avx2", X86_64, 8, 2,
            Shapes((6, 4, 1), (2, 1), 6, 4, (8, 4, 1), (8, 4, 2, 1)),
            "haswell", ("avx2", *_HASWELL),
        ),
        Target(
            "neon", AARCH64, 4, 2,
            Shapes(
                neon.TILES, neon.RECURRENT, neon.PLAIN, neon.PIXELS, neon.WHOLE_PIXELS, neon.PARTED,
                neon.REALS,
            ),
            "", ("neon",),
        ),
        Target(
            "generic", X86_64, 4, 2,
            Shapes((4, 2, 1), (2, 1), 2, 4, (4, 1), (4, 2, 1)),
        ),
        # NVIDIA GPUs (`ovjit.codegen.gpu`): a vector is a warp, and no kernel has tiles of CPUs
        Target(
            "cuda", NVPTX, 32, 2,
            Shapes((4, 2, 1), (2, 1), 8, 4, (4, 1), (4, 2, 1)),
            "sm_80", ("ptx80",), chunk_work=8_000,
        ),
    )
}  # fmt: skip

#: Optional CPU feature that code may depend on (`has_features`) -> the instruction set that it extends.
EXTRA = {
    "avx512bf16": "avx512", "avx512vnni": "avx512", "avxvnni": "avx2",
    "amx-bf16": "avx512", "amx-int8": "avx512",
    "lse": "neon", "dotprod": "neon", "i8mm": "neon", "bf16": "neon", "fp16fml": "neon",
}  # fmt: skip
#: Not a CPU feature: vector instructions for dot products of bf16 take four times as long as multiply-adds of
#: f32, for twice the products. So those of Intel's cores with a matrix unit, which hypervisors may hide.
SLOW_DOTS = "slow-dots"
#: Optional features of cards that code may depend on: early starts, and blocks of warps.
CARD_FEATURES = ("sm_90", "sm_90a")
#: The features of a matrix unit. They are used only if the unit passes a test (`ovjit.codegen.cpu.amx_test`).
MATRIX = frozenset(("amx-bf16", "amx-int8"))


def target_of(name: str, features: Collection[str] = (), machine: str = "") -> Target:
    """The target with this name and these optional features. `machine`: the architecture of `generic`, which
    exists for all."""
    base = TARGETS[name]
    extras = tuple(f for f, of in EXTRA.items() if of == name and f in features)
    machine = machine if machine and not base.features else base.machine
    return base._replace(extras=extras, machine=machine, slow_dots=SLOW_DOTS in features)


def without_matrix_unit(target: Target) -> Target:
    """The target without the features of its matrix unit."""
    return target._replace(extras=tuple(f for f in target.extras if f not in MATRIX))


def has_features(target: Target, features: Collection[str]) -> bool:
    """True if code for `target` may use these CPU features. Raises ValueError for an unknown one."""
    unknown = set(features) - {*EXTRA, *target.features}
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: source that depends on it needs its own kernel key, see EXTRA"
        )
    return {*target.features, *target.extras}.issuperset(features)
