"""The words (intrinsics) of kernels: one declaration each, with arguments, result and NumPy implementation.

    maximum = word("max_(v, v) -> v", np.maximum)
    load = word("load_T(p) -> V", meanings.load)

A kernel's function is never called: its source is printed as the kernel's text. A declaration begins with the
word's name in that text. `load_T` is `load[f32](p)` in a kernel and `load_f32(p)` in its text. Types are

    i p n    int64: a number, an address (offsets are bytes), a number of lanes or elements
    v, mask  vectors of any one element type, and of booleans
    V, x     a vector and a number of the element type T: f32 f64 f16 bf16 i8 .. u64 boolean
    I, L, d  vectors of i32 and of i64, an f64
    W, A     four registers of each lane: words of 4 bytes, and sums of products of the element type T
    E, G64   eight elements of each lane, and a lane's part of sums of 64 columns

f16 and bf16 are f32 in registers; boolean is a mask (i1). The LLVM code of each word is in
`ovjit.codegen.cpu.vector.BODIES` under the declared name: this module is imported where llvmlite is not.

Words are a language, which files of kernels import as a whole, with its decorators:
`from ovjit.codegen.kernel_language import *`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ovjit.codegen import meanings
from ovjit.codegen.memory import SIZE
from ovjit.codegen.tensors import Ptr, Tensor
from ovjit.codegen.warps import COLUMNS
from ovjit.errors import KernelSourceError
from ovjit.records import NamedTuple

__all__ = [
    "Each", "Ptr", "SIZE", "Table", "Tensor", "VL", "Word", "absolute", "add_halves", "add_pairs", "applied",
    "arrive",
    "await_copies", "await_group", "await_leaders", "await_phase", "await_space", "begin_barrier", "bits",
    "blend", "block_memory", "block_warps", "boolean", "cast", "ceil", "chunk", "commit_copies", "const",
    "copy_async", "copy_box", "copy_pixels", "copy_strips", "count_of", "dot_bytes", "dot_halves",
    "dot_pairs", "dot_signed", "erf", "evens", "exp", "exp_below_zero", "expect_copies", "f32", "f64",
    "finish", "floor", "fma", "fold_1", "fold_2", "fold_4", "fold_8", "gather", "grid_warp", "grid_warps",
    "hadd", "halves_high", "halves_low", "hand", "hmax", "hmin", "hmul", "hor", "i16", "i32", "i64", "inf",
    "items", "join_eight", "join_sums", "lane", "lane_numbers", "ld", "leave_registers", "libm_cos",
    "libm_exp", "libm_log", "libm_sin", "load", "load_eight", "load_fragment", "loadm", "log", "look_up",
    "maximum",
    "meet_block", "meet_grid", "minimum", "mma", "multiply_group", "not_below", "now", "pack_sums",
    "part_of_eight", "part_of_group", "part_of_sums", "permute", "placed", "prefetch", "prefetch_l2",
    "read_elements", "read_shared", "read_tiles", "read_turned", "registers", "rint", "scatter", "scratch",
    "select", "share", "share_elements", "share_sums", "shared_memory", "shr_halves", "sigmoid", "splat",
    "spread", "sqrt", "st", "start_followers", "static_range", "store", "store_eight", "storem", "strided",
    "strided_store", "sum_pairs", "take", "take_registers", "tanh", "thirds", "tile_begin", "tile_end",
    "tile_load", "tile_multiply", "tile_store", "to_int", "trunc", "trunc_int", "turned_pairs", "u16", "u32",
    "u8", "udiv", "urem", "vectors", "warp_barrier", "warp_number", "zero_group", "zero_sums",
    "zip_bytes_high", "zip_bytes_low", "zip_halves_high", "zip_halves_low",
]  # fmt: skip

inf = float("inf")


class Word:
    """A word; `word[T]` is its form for an element type. `printed`: its name in a kernel's text."""

    def __init__(self, name: str, printed: str = ""):
        self.name = name
        self.printed = printed or name

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(
            f"{self.name}() is an intrinsic of kernels: the function that uses it is printed and cannot "
            "be called"
        )

    def __getitem__(self, dtype: Any) -> Any:
        return self


class Declared(NamedTuple):
    """A word of kernels' texts: its name, the types of its arguments and of its result ("" for none)."""

    name: str
    arguments: tuple[str, ...]
    result: str
    meaning: Callable[..., Any]

    @property
    def of_elements(self) -> bool:
        """Whether the word has a form for each element type."""
        return self.name.endswith("_T")

    @property
    def on_machine(self) -> bool:
        """Whether the NumPy implementation depends on the number of lanes, or accesses memory."""
        return self.of_elements or "p" in self.arguments


#: Declared name -> word.
WORDS: dict[str, Declared] = {}
_DECLARATION = re.compile(r"(\w+)\(([\w, ]*)\)(?: -> (\w+))?")


def _on_gpus(*arguments: Any) -> Any:
    raise TypeError("a word of GPUs alone has no meaning in NumPy")


def word(declaration: str, meaning: Callable[..., Any] = _on_gpus) -> Any:
    """Declare a word. Returns the object that kernels name."""
    match = _DECLARATION.fullmatch(declaration)
    assert match is not None, declaration
    name, arguments, result = match.groups("")
    WORDS[name] = Declared(name, tuple(arguments.split(", ")) if arguments else (), result, meaning)
    return Word(name.removesuffix("_T"))


#: Beginnings of the names of words that are functions of the C library.
_OF_LIBM = ("libm_", "seldom_")


def find(name: str) -> tuple[Declared, str]:
    """(the word with this name in a text, its element type or ""). Raises KernelSourceError if it is
    unknown."""
    if name in WORDS:
        return WORDS[name], ""
    operation, _, elem = name.rpartition("_")
    if elem not in SIZE or f"{operation}_T" not in WORDS:
        raise KernelSourceError(f"there is no word {name!r} for kernels{suggest(name, _texts())}")
    return WORDS[f"{operation}_T"], elem


def is_word(name: str) -> bool:
    """Whether a text may call this name."""
    operation, _, elem = name.rpartition("_")
    typed = elem in SIZE and (f"{operation}_T" in WORDS or operation.startswith(_OF_LIBM))
    return name in WORDS or typed


def _texts() -> Iterator[str]:
    for name in WORDS:
        stem = name.removesuffix("_T")
        yield from (f"{stem}_{elem}" for elem in SIZE) if stem != name else (name,)


def suggest(name: str, candidates: Iterable[str]) -> str:
    """The end of an error's sentence: the candidate that is most like `name`, or "" if none is."""
    import difflib  # slow to import, and only for errors

    near = difflib.get_close_matches(name, list(candidates), 1)
    return f"; the nearest one is {near[0]!r}" if near else ""


class Table(int):
    """`Table(n)`: default value of a parameter that is a table of n int64s in the argument block."""


class Each(NamedTuple):
    """Default value of a parameter `e` with an argument e[i] for each item i of one of the kernel's
    constants.

    Each item also has int64s e[i, name] for each name in `more`, or for each item of the constant `along`.
    Items whose attribute `unless` is true do not have these int64s."""

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


#: The number of lanes of a vector, and the implicit arguments of a kernel.
VL: Any = Word("VL")
chunk: Any = Word("chunk")
scratch: Any = Word("scratch")

# loops, of the printers
share, static_range, vectors = (Word(name) for name in ("share", "static_range", "vectors"))
placed = Word("placed")
items: Any = Word("items")
applied, registers = Word("applied"), Word("registers")
# of rows (`template`)
finish, count_of = Word("finish"), Word("count_of")

# memory: the vector at p; `m` of its first n lanes, the others 0
load = word("load_T(p) -> V", meanings.load)
loadm = word("loadm_T(p, n) -> V", meanings.loadm)
store = word("store_T(p, V)", meanings.store)
storem = word("storem_T(p, V, n)", meanings.storem)
# the elements p, p + stride, ... (first n lanes)
gather = word("gather_T(p, i, n) -> V", meanings.gather)
scatter = word("scatter_T(p, i, V, n)", meanings.scatter)
# the same with fast paths for likely strides: contiguous elements, stride 0, and bytes or 16-bit words of 2,
# 3 or 4 channels; stores: contiguous elements
strided = word("strided_T(p, i, n) -> V", meanings.gather)
strided_store = word("strided_store_T(p, i, V, n)", meanings.scatter)
# elements p[i] for an i32 vector of indices, all of which must be valid
take = word("take_T(p, I) -> V", meanings.take)
# elements 0, 2, 4, ... of the 2 VL elements at p; elements 0, 3, 6, ... of the 3 VL
evens = word("evens_T(p) -> V", meanings.evens)
thirds = word("thirds_T(p) -> V", meanings.thirds)
# entry i of a table of int64s; one element
ld = word("ld(p, i) -> i", meanings.ld)
word("ld_T(p) -> x", meanings.load_scalar)
st = word("st_T(p, x)", meanings.store_scalar)
# prefetches the cache line of an address, valid or not; `l2`: into the second-level cache only
prefetch = word("prefetch(p)", meanings.prefetch)
prefetch_l2 = word("prefetch_l2(p)", meanings.prefetch)

# one number in all lanes: the element at p, a run-time number, a constant of the source
splat = word("splat_T(p) -> V", meanings.splat)
spread = word("spread_T(x) -> V", meanings.spread)
const = word("const_T(number) -> V", meanings.spread)

# conversions: saturating; unchecked, truncated or rounded; i32 to 8 bits, saturating
cast = word("cast_T(v) -> V", meanings.cast)
trunc_int = word("trunc_int_T(v) -> V", meanings.trunc_int)
# truncated; the integer type's minimum for NaN and for values that do not fit
word("trunc_or_min_T(v) -> V", meanings.trunc_or_min)
word("round_int_T(v) -> V", meanings.round_int)
word("saturate_T(v) -> V", meanings.saturate)
# bits reinterpreted; v as 2 VL f16, two per lane: their first or last half, as f32
bits = word("bits_T(v) -> V", meanings.bits)
halves_low = word("halves_low_T(v) -> V", meanings.halves_low)
halves_high = word("halves_high_T(v) -> V", meanings.halves_high)
# the first n lanes of a, the others of b; one lane; lanes i % lanes of v (f32 and i32)
blend = word("blend_T(n, V, V) -> V", meanings.blend)
lane = word("lane_T(V, i) -> x", meanings.lane)
permute = word("permute_T(V, I) -> V", meanings.permute)
turned_pairs = word("turned_pairs(v) -> v", meanings.turned_pairs)
# groups of 2 n lanes, their halves added: n sums of v, then n sums of w (f32 and i32)
fold_1 = word("fold_1(v, v) -> v", meanings.folds[1])
fold_2 = word("fold_2(v, v) -> v", meanings.folds[2])
fold_4 = word("fold_4(v, v) -> v", meanings.folds[4])
fold_8 = word("fold_8(v, v) -> v", meanings.folds[8])
# the lanes combined, in a fixed order
hadd = word("hadd_T(V) -> x", meanings.across(np.add))
hmul = word("hmul_T(V) -> x", meanings.across(np.multiply))
hmax = word("hmax_T(V) -> x", meanings.across(np.maximum))
hmin = word("hmin_T(V) -> x", meanings.across(np.minimum))
hand = word("hand_T(V) -> x", meanings.across(np.bitwise_and))
hor = word("hor_T(V) -> x", meanings.across(np.bitwise_or))

# lane by lane; operators on vectors are these words (`cpu.vector.OPERATORS`)
word("add(v, v) -> v", np.add)
word("sub(v, v) -> v", np.subtract)
word("mul(v, v) -> v", np.multiply)
word("div(v, v) -> v", meanings.divide)
word("neg(v) -> v", np.negative)
word("and_(v, v) -> v", np.bitwise_and)
word("or_(v, v) -> v", np.bitwise_or)
word("xor(v, v) -> v", np.bitwise_xor)
word("not_(v) -> v", np.invert)
word("shl(v, v) -> v", np.left_shift)
word("shr(v, v) -> v", np.right_shift)
word("lt(v, v) -> mask", np.less)
word("le(v, v) -> mask", np.less_equal)
word("gt(v, v) -> mask", np.greater)
word("ge(v, v) -> mask", np.greater_equal)
word("eq(v, v) -> mask", np.equal)
word("ne(v, v) -> mask", np.not_equal)
maximum = word("max_(v, v) -> v", np.maximum)
minimum = word("min_(v, v) -> v", np.minimum)
absolute = word("abs_(v) -> v", np.abs)
fma = word("fma(v, v, v) -> v", meanings.fma)
# x y + z in one rounding of the exact value, or exactly where that is representable, on all targets
word("exact_fma(v, v, v) -> v", meanings.exact_fma)
# integers; y is not negative
word("whole_power(v, v) -> v", np.power)
sqrt = word("sqrt(v) -> v", np.sqrt)
word("rcp(v) -> v", np.reciprocal)
floor = word("floor(v) -> v", np.floor)
ceil = word("ceil(v) -> v", np.ceil)
trunc = word("trunc(v) -> v", np.trunc)
rint = word("rint(v) -> v", np.rint)
select = word("select(mask, v, v) -> v", np.where)

# bytes and 16-bit words in lanes of i32. dot_bytes: acc + the products of four u8 of v and four i8 of w
dot_bytes = word("dot_bytes(v, v, v) -> v", meanings.dot_bytes)
# acc + products of four i8 of each
dot_signed = word("dot_signed(v, v, v) -> v", meanings.dot_signed)
# sums of two products of u8 and i8 as i16, two in a lane; they must fit
dot_pairs = word("dot_pairs(v, v) -> v", meanings.dot_pairs)
# acc + the two products of i16 in each lane
dot_halves = word("dot_halves(v, v, v) -> v", meanings.dot_halves)
# on pairs of i16: elementwise sum; v + the sum of each lane's pair in w; arithmetic shift right by w
add_pairs = word("add_pairs(v, v) -> v", meanings.add_pairs)
sum_pairs = word("sum_pairs(v, v) -> v", meanings.sum_pairs)
shr_halves = word("shr_halves(v, v) -> v", meanings.shift_halves)
# byte shuffle: for each byte of v (0 to 15), that byte of the table's 16 bytes at the same position
look_up = word("look_up(v, v) -> v", meanings.look_up)
# interleaves the first or last 8 of each 16 bytes of v and w, by 1 or 2 bytes
zip_bytes_low = word("zip_bytes_low(v, v) -> v", meanings.zip_bytes_low)
zip_bytes_high = word("zip_bytes_high(v, v) -> v", meanings.zip_bytes_high)
zip_halves_low = word("zip_halves_low(v, v) -> v", meanings.zip_halves_low)
zip_halves_high = word("zip_halves_high(v, v) -> v", meanings.zip_halves_high)

# int64s; udiv and urem are // and % of numbers that are not negative, in half the time
word("imin(i, i) -> i", min)
word("imax(i, i) -> i", max)
udiv = word("udiv(i, i) -> i", meanings.udiv)
urem = word("urem(i, i) -> i", meanings.urem)
# a float as int64: truncated, saturating, NaN gives 0
to_int = word("to_int(d) -> i", meanings.to_int)
# nanoseconds of the monotonic clock
now = word("now() -> i", time.monotonic_ns)

# printed in place (`trace`)
exp, log, tanh, erf, sigmoid = (Word(name) for name in ("exp", "log", "tanh", "erf", "sigmoid"))
exp_below_zero, not_below = (Word(name) for name in ("exp_below_zero", "not_below"))
# the C library's functions, lane by lane: libm_<name>_T(v). Texts also have seldom_<name>_T(mask, v.., w):
# the function in lanes where the mask is true, else w, with a branch past the call
libm_cos, libm_sin, libm_exp, libm_log = (
    Word(name) for name in ("libm_cos", "libm_sin", "libm_exp", "libm_log")
)

# of the matrix unit: see `ovjit.codegen.cpu.amx`
tile_begin, tile_end = Word("tile_begin"), Word("tile_end")
tile_load, tile_store, tile_multiply = (Word(name) for name in ("tile_load", "tile_store", "tile_multiply"))

# of GPUs alone: the warp's shared memory, copies to it, a barrier, fragments of factors, their products, and
# sums by way of the shared memory. `tests.support.gpu_words` has their meanings, which check lanes' order
lane_numbers = word("lane_numbers_T() -> V")
shared_memory = word("shared_memory(n) -> p")
warp_barrier = word("warp_barrier()")
copy_async = word("copy_async(p, I, p, L, I)")
commit_copies = word("commit_copies()")
await_copies = word("await_copies(n)")
read_tiles = word("read_tiles(p, I) -> W")
mma = word("mma_T(W, W, n, A) -> A")
zero_sums = word("zero_sums_T() -> A")
share_sums = word("share_sums_T(p, I, A, n)")
read_shared = word("read_shared_T(p) -> V")
share_elements = word("share_elements_T(p, I, V)")
read_elements = word("read_elements_T(p, I) -> V")
# one register of sums; sums of four registers; two fragments of sums as rows of the next product; a fragment
# of columns from tiles whose rows lie along the depth
part_of_sums = word("part_of_sums_T(A, n) -> V")
join_sums = word("join_sums_T(V, V, V, V) -> A")
pack_sums = word("pack_sums_T(A, A) -> W")
read_turned = word("read_turned(p, I) -> W")
# 16 bytes of each lane as a fragment; sums of pairs of elements of 2 bytes
load_fragment = word("load_fragment(p, L, mask) -> W")
add_halves = word("add_halves_T(I, I) -> I")

# of blocks of several warps on GPUs: their shared memory, barriers, copies
# to it, products of groups of warps, and eight adjacent elements of each lane
block_memory = word("block_memory(n, n) -> p")
warp_number = word("warp_number() -> i")
begin_barrier = word("begin_barrier(p, n)")
meet_block = word("meet_block()")
# teams of warps without shared memory: all warps of a block, of which a multiprocessor has room for some, or
# of a launch; the number of a warp in it
block_warps = word("block_warps(n, n) -> i")
grid_warps = word("grid_warps(n, n) -> i")
grid_warp = word("grid_warp() -> i")
meet_grid = word("meet_grid(p)")
arrive = word("arrive(p)")
expect_copies = word("expect_copies(p, n)")
await_phase = word("await_phase(p, n)")
await_space = word("await_space(p, n)")
copy_strips = word("copy_strips(p, p, n, n, n, p)")
copy_box = word("copy_box(p, p, n, n, n, n, n, n, p)")
copy_pixels = word(f"copy_pixels(p, p, {', '.join(['n'] * 17)}, p)")
start_followers = word("start_followers()")
await_leaders = word("await_leaders()")
take_registers = word("take_registers(n)")
leave_registers = word("leave_registers(n)")
load_eight = word("load_eight_T(p, L, mask) -> E")
store_eight = word("store_eight_T(p, L, E, mask)")
part_of_eight = word("part_of_eight_T(E, n) -> V")
join_eight = word("join_eight_T(V, V, V, V, V, V, V, V) -> E")
# the same for a number of columns: multiply_group[128, f16](...)
zero_group, multiply_group = Word("zero_group"), Word("multiply_group")
await_group, part_of_group = Word("await_group"), Word("part_of_group")
for _n in COLUMNS:
    word(f"zero_group_{_n}_T() -> G{_n}")
    word(f"multiply_group_{_n}_T(p, p, G{_n}) -> G{_n}")
    word(f"await_group_{_n}_T(G{_n}, n) -> G{_n}")
    word(f"part_of_group_{_n}_T(G{_n}, n) -> V")

# element types
f32, f64, i16, i32, i64, u8, u16, u32 = "f32", "f64", "i16", "i32", "i64", "u8", "u16", "u32"
boolean = "boolean"
