"""Predicates of kernels that have code for GPUs. Needs no llvmlite: lowerings call it for each group."""

from __future__ import annotations

import functools
import re

from ovjit.codegen.kernel import Kernel

#: Words that only kernels of CPUs use, without their element types.
CPU_WORDS = frozenset(
    "fold_1 fold_2 fold_4 fold_8 halves_low halves_high look_up zip_bytes_low zip_bytes_high zip_halves_low "
    "zip_halves_high".split()
)
_CALL = re.compile(r"\b([a-z]\w*)\(")
#: The functions of the C library, and code for rare arguments, that GPUs have (`library`).
LIBRARY = frozenset(
    "seldom_sin_f32 seldom_cos_f32 seldom_tan_f32 seldom_fmod_f32 libm_pow_f32 libm_exp_f32 libm_exp_f64 "
    "libm_log_f32 libm_log_f64".split()
)
#: Beginnings of the names of other such functions, and of words of matrix units.
_OF_CPUS = ("libm_", "seldom_", "tile_")


def has_gpu_code(kernel: Kernel) -> bool:
    """True if each word of a kernel's source has code for a thread of a warp, and it has no words of its own,
    which are LLVM code for CPUs."""
    return kernel._intrinsics is None and has_gpu_words(kernel.source)


@functools.lru_cache(1024)
def has_gpu_words(source: str) -> bool:
    """True if each word of a kernel's source, or of a part of one, has code for a thread of a warp."""
    names = set(_CALL.findall(source)) - LIBRARY
    return not any(name.startswith(_OF_CPUS) or _base_name(name) in CPU_WORDS for name in names)


def _base_name(name: str) -> str:
    """A word's name without its element type."""
    return name if name in CPU_WORDS else name.rpartition("_")[0]
