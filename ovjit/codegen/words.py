"""The words of kernels that are functions (`function`, `template`), so that editors and linters know them.

A kernel's function is never called: its source is printed as a kernel's text. What the words of the text mean
is in `ovjit.codegen.cpu.vector` (LLVM) and `ovjit.execution.numpy_words` (NumPy). They are a language, which
files of kernels import as a whole: `from ovjit.codegen.words import *`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ovjit.codegen.memory import SIZE
from ovjit.codegen.tensors import Ptr, Tensor

__all__ = [
    "SIZE", "VL", "Each", "Ptr", "Table", "Tensor", "Word", "absolute", "add_pairs", "applied", "bits",
    "blend", "boolean", "cast", "ceil", "chunk", "const", "count_of", "dot_bytes", "dot_pairs", "dot_signed",
    "erf", "evens", "exp", "exp_below_zero", "f32", "f64", "finish", "floor", "fma", "gather", "hadd",
    "halves_high", "halves_low", "hand", "hmax", "hmin", "hmul", "hor", "i16", "i32", "i64", "inf",
    "items", "lane", "ld", "libm_cos", "libm_exp", "libm_log", "libm_sin", "load", "loadm", "log",
    "look_up", "maximum", "minimum", "not_below", "now", "permute", "placed", "prefetch", "prefetch_l2",
    "registers", "rint", "scatter", "scratch", "select", "share", "shr_halves", "sigmoid", "splat",
    "spread", "sqrt", "st", "static_range", "store", "storem", "strided", "strided_store", "sum_pairs",
    "take", "tanh", "tile_begin", "tile_end", "tile_load", "tile_multiply", "tile_store", "trunc",
    "trunc_int", "turned_pairs", "u16", "u32", "u8", "udiv", "urem", "vectors",
    "walked", "whole", "zip_bytes_high", "zip_bytes_low", "zip_halves_high", "zip_halves_low",
]  # fmt: skip

inf = float("inf")


class Word:
    """A word; `word[T]` is the one for an element type. `printed`: its name in a kernel's text."""

    def __init__(self, name: str, printed: str = ""):
        self.name = name
        self.printed = printed or name

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(
            f"{self.name}() is a word of kernels: the function that uses it is printed, not called"
        )

    def __getitem__(self, dtype: Any) -> Any:
        return self


class Table(int):
    """How many int64s the argument block has for the parameter of which it is the default."""


class Each(NamedTuple):
    """The default of a parameter `e` with an argument e[i] for each item i of one of the kernel's constants.

    Each item also has int64s e[i, name] for each name in `more`, or item of the constant `along`. Items
    whose attribute `unless` is true have none."""

    constant: str
    more: str = ""
    unless: str = ""
    pointers: bool = True
    along: str = ""

    def fields(self, name: str, constants: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
        """(argument, whether it is a pointer) of the parameter `name`."""
        names = constants[self.along] if self.along else self.more.split()
        for i, item in enumerate(constants[self.constant]):
            yield f"{name}{i}", self.pointers
            if not (self.unless and getattr(item, self.unless)):
                yield from ((f"{name}{i}_{more}", False) for more in names)


#: The number of lanes of a vector, and what a kernel is called with.
VL: Any = Word("VL")
chunk: Any = Word("chunk")
scratch: Any = Word("scratch")

# loops
share, static_range, vectors = (Word(name) for name in ("share", "static_range", "vectors"))
placed, walked = Word("placed"), Word("walked")
items: Any = Word("items")
applied, registers = Word("applied"), Word("registers")
# of rows (`template`)
store, finish, count_of = (Word(name) for name in ("store", "finish", "count_of"))
# memory
load, loadm, storem, gather, scatter, take, evens = (
    Word(name) for name in ("load", "loadm", "storem", "gather", "scatter", "take", "evens")
)
strided, strided_store = Word("strided"), Word("strided_store")
ld, st, prefetch, prefetch_l2 = Word("ld"), Word("st"), Word("prefetch"), Word("prefetch_l2")
# vectors of one number
splat, spread, const = Word("splat"), Word("spread"), Word("const")
# lanes
cast, trunc_int, bits, blend, lane, permute = (
    Word(name) for name in ("cast", "trunc_int", "bits", "blend", "lane", "permute")
)
turned_pairs = Word("turned_pairs")
hadd, hmul, hmax, hmin, hand, hor = (Word(name) for name in ("hadd", "hmul", "hmax", "hmin", "hand", "hor"))
# lane by lane
maximum, minimum = Word("maximum", "max_"), Word("minimum", "min_")
absolute = Word("absolute", "abs_")
fma, sqrt, floor, ceil, trunc, rint = (
    Word(name) for name in ("fma", "sqrt", "floor", "ceil", "trunc", "rint")
)
select, whole = Word("select"), Word("whole")
dot_bytes, dot_signed = Word("dot_bytes"), Word("dot_signed")
dot_pairs, add_pairs, sum_pairs = (Word(name) for name in ("dot_pairs", "add_pairs", "sum_pairs"))
# bytes
look_up, zip_bytes_low, zip_bytes_high = (
    Word(name) for name in ("look_up", "zip_bytes_low", "zip_bytes_high")
)
zip_halves_low, zip_halves_high = Word("zip_halves_low"), Word("zip_halves_high")
shr_halves, halves_low, halves_high = (Word(name) for name in ("shr_halves", "halves_low", "halves_high"))
# of int64s that are not negative: `//` and `%` in half the time
udiv, urem = Word("udiv"), Word("urem")
now = Word("now")
exp, log, tanh, erf, sigmoid = (Word(name) for name in ("exp", "log", "tanh", "erf", "sigmoid"))
exp_below_zero, not_below = (Word(name) for name in ("exp_below_zero", "not_below"))
libm_cos, libm_sin, libm_exp, libm_log = (
    Word(name) for name in ("libm_cos", "libm_sin", "libm_exp", "libm_log")
)

# of the matrix unit: see `ovjit.codegen.cpu.amx`
tile_begin, tile_end = Word("tile_begin"), Word("tile_end")
tile_load, tile_store, tile_multiply = (Word(name) for name in ("tile_load", "tile_store", "tile_multiply"))

# element types
f32, f64, i16, i32, i64, u8, u16, u32 = "f32", "f64", "i16", "i32", "i64", "u8", "u16", "u32"
boolean = "boolean"
