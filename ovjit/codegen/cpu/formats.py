"""Formats of tiles: element types of pixels and weights, and the instruction that multiplies and adds them.

A tile's depth is counted in words of 4 bytes: one f32, two bf16 or four 8-bit integers of a pixel. One
instruction multiplies a word by a word of weights in each lane, and adds the products to the lane's
accumulator. Driver, address tables, panels and epilogues only depend on words, so a format is a row of data.

| format | pixel | weights | accumulator | depth of a word | instruction |
|--------|-------|---------|-------------|-----------------|-------------|
| f32    | f32   | f32     | f32         | 1               | vfmadd      |
| bf16   | bf16  | bf16    | f32         | 2               | vdpbf16ps (AVX512-BF16) |
| u8i8   | u8    | i8      | i32         | 4               | vpdpbusd (AVX512-VNNI, AVX-VNNI) |
| u8i8   | u8    | i8      | i32         | 4               | vpmaddubsw, vpmaddwd: see `ovjit.tiles.narrow` |
| u8i8   | u8    | i8      | i32         | 4               | two vpmaddwd |
| i16    | i16   | i16     | i32         | 2               | vpmaddwd |
| amx_bf16 | bf16 | bf16   | f32         | 2               | tdpbf16ps (AMX), 16 words at once |
| amx_u8i8 | u8  | i8      | i32         | 4               | tdpbusd (AMX), 16 words at once |

On NEON, two words of a pixel are loaded at a time. Instructions multiply by one lane of them (`by_lane`), two
pixels by two channels (`by_pairs`), or the two parts of a vector (`by_halves`):

| f32    | f32   | f32     | f32         | 1               | fmla        |
| bf16   | bf16  | bf16    | f32         | 2               | bfmmla (bf16; of one row bfdot) |
| f16    | f16   | f16     | f32         | 2               | fmlal, fmlal2 (fp16fml) |
| u8i8   | u8    | i8      | i32         | 4               | usmmla (i8mm; of one row sudot) |
| u8i8   | u8    | i8      | i32         | 4               | sdot (dotprod) of pixels less 128: `flips` |

Without dotprod, products of bytes take as many instructions as products of f32, so models compute in f32.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ovjit.codegen.cpu.targets import TARGETS, Target, has_features
from ovjit.graph.converted import Converted, Unmade
from ovjit.graph.dtypes import FULL
from ovjit.records import NamedTuple

#: The instruction sets of CPUs.
CPU_ISAS = tuple(name for name, target in TARGETS.items() if not target.is_gpu)
#: Bytes of a word.
WORD = 4
#: The sign of each byte of two words, as an i64.
SIGNS = -0x7F7F7F7F7F7F7F80
#: Speed of a matrix unit relative to vector instructions, including the overhead around products. Its peak is
#: 16. With chunks sized for that, small layers were a single chunk, and one of two threads was idle.
_MATRIX_RATE = 8
#: Words of depth that a matrix unit multiplies at once, and those of a step of tiles with words in pairs.
UNIT_STEP, PAIRED_STEP = 16, 4


class Format(NamedTuple):
    """`a`, `w`, `acc`: element types of pixels, weights and accumulators. `group`: elements of a word.

    `madd`: the name of acc + a * w of words (`ovjit.codegen.cpu.vector.multiply_words`), which takes
    `products` multiplying instructions. `features`: required CPU features. `isas`: its instruction sets.
    `listed`: words of weights are permuted, see `ovjit.tiles.narrow`. `flips`: 128 is subtracted from bytes
    of pixels when they are loaded, and sums begin with 128 times the weights' sum. `more`: further products
    like `madd`, by name: see `by_pairs` and `by_halves`. `step`: words of depth that are multiplied at once,
    if several, by a matrix unit (`ovjit.tiles.matrix`) or in pairs; panels are padded with zeros to a
    multiple. `paired`: the driver copies two pixels side by side, flipped where the format has it. Two words
    of each channel are adjacent in panels, too, if the format `has_matrix`: see `by_pairs`.
    """

    name: str
    a: str
    w: str
    acc: str
    group: int
    madd: str
    features: tuple[str, ...] = ()
    isas: tuple[str, ...] = CPU_ISAS
    products: int = 1
    listed: bool = False
    flips: bool = False
    more: tuple[tuple[str, str], ...] = ()
    step: int = 1
    paired: bool = False

    def padded_words(self, words: Any) -> Any:
        """`words`, rounded up to a multiple of `step`."""
        return -(-words // self.step) * self.step

    @property
    def has_matrix(self) -> bool:
        """Whether an instruction multiplies two pixels by two channels."""
        return "matrix" in dict(self.more)

    @property
    def widens(self) -> bool:
        """Whether tall tiles multiply in f32 what the driver has widened."""
        return "wide" in dict(self.more)

    @property
    def on_unit(self) -> bool:
        """Whether a matrix unit multiplies."""
        return self.step == UNIT_STEP

    def words(self, depth: int) -> int:
        """Words of `depth` adjacent elements of a pixel."""
        return -(-depth // self.group)

    @property
    def rate(self) -> int:
        """The approximate number of products relative to f32 in the same time."""
        return self.group // self.products * (_MATRIX_RATE if self.on_unit else 1)


F32 = Format("f32", "f32", "f32", "f32", 1, "fma")
BF16 = Format("bf16", "bf16", "bf16", "f32", 2, "dpbf16ps", ("avx512bf16",), ("avx512",))
U8I8 = Format("u8i8", "u8", "i8", "i32", 4, "dot_bytes", ("avx512vnni",), ("avx512",))
_SHORT = U8I8._replace(features=("avxvnni",), isas=("avx2",))
_WIDENED = U8I8._replace(features=(), isas=("avx512", "avx2"), products=2)
#: For Winograd planes of bytes only (`ovjit_ops/convolution/cpu_winograd.py`). A graph's products of i16 are
#: not summed in i32.
I16 = Format("i16", "i16", "i16", "i32", 2, "dot_halves", isas=("avx512", "avx2"))
_NEON = ("neon",)
_BF16_NEON = BF16._replace(madd="bfdot", more=(("matrix", "bfmmla"),), features=("bf16",), isas=_NEON)
_F16_NEON = Format("f16", "f16", "f16", "f32", 2, "fmlal", ("fp16fml",), _NEON, 2, more=(("high", "fmlal2"),))
_UNSIGNED = U8I8._replace(more=(("matrix", "usmmla"),), features=("i8mm",), isas=_NEON)
_SIGNED = U8I8._replace(madd="sdot", features=("dotprod",), isas=_NEON, flips=True)
#: For weights that are not constant, so that the initial sums of `flips` are unknown.
UNFLIPPED = _SIGNED._replace(madd="dot_bytes", flips=False)
#: By the matrix unit AMX (`ovjit.codegen.cpu.amx`). Results for bytes have the same bits as with vectors,
#: those for bf16 do not.
AMX = tuple(
    form._replace(name=f"amx_{form.name}", features=(feature,), isas=("avx512",), step=UNIT_STEP)
    for form, feature in ((BF16, "amx-bf16"), (U8I8, "amx-int8"))
)
#: Formats in order of preference.
FORMATS = (F32, BF16, U8I8, _SHORT, _WIDENED, _BF16_NEON, _F16_NEON, _UNSIGNED, _SIGNED)
_HALVES = (BF16.a, _F16_NEON.a)


def float_types(isa: Target) -> tuple[str, ...]:
    """The floating-point types in which products are computed without upcasting: f32, f64, and the 16-bit
    types that the target has a format for, or any of them on a GPU."""
    return (*FULL, *(half for half in _HALVES if isa.is_gpu or find_format(half, half, isa)))


def unpacked_types(isa: Target) -> tuple[str, ...]:
    """The types of `float_types` to which compressed weights are unpacked: on CPUs without f16, which is only
    a storage type of weights."""
    return tuple(kind for kind in float_types(isa) if isa.is_gpu or kind != _F16_NEON.a)


def emulates_bf16(isa: Target) -> bool:
    """Whether a requested bf16 precision is emulated on a CPU without bf16 instructions. True where OpenVINO
    emulates it. Elsewhere f32 is as fast and more accurate."""
    return isa.name in BF16.isas


def find_format(a: str, w: str, isa: Target) -> Format | None:
    """The format for pixels of type `a` and weights of type `w`; None if the target has none."""
    fitting = (f for f in FORMATS if (f.a, f.w) == (a, w) and isa.name in f.isas)
    return next((f for f in fitting if has_features(isa, f.features)), None)


@functools.cache
def features_of(name: str) -> frozenset[str]:
    """The CPU features that formats with this name may use."""
    forms = [f for f in (*FORMATS, *AMX, I16) if f.name == name]
    return frozenset(f for form in forms for f in form.features)


def matrix_format(form: Format, isa: Target) -> Format:
    """The format of the target's matrix unit for the same types; `form` without one."""
    fitting = (f for f in AMX if (f.a, f.w) == (form.a, form.w) and isa.name in f.isas)
    return next((f for f in fitting if has_features(isa, f.features)), form)


def unit_format(kind: str, isa: Target) -> Format | None:
    """The format in which a matrix unit multiplies two tensors of this type; None without one."""
    form = find_format(kind, kind, isa)
    form = form and matrix_format(form, isa)
    return form if form is not None and form.on_unit else None


def paired_format(form: Format) -> Format:
    """The format with pixels in pairs; `form` if pixels are best read where they are."""
    return form._replace(paired=True, step=PAIRED_STEP) if form.has_matrix or form.flips else form


def widened_format(form: Format, isa: Target) -> Format:
    """The format for CPUs with slow dot products of bf16, with multiply-adds of f32: see `WideTile`."""
    return form._replace(more=(("wide", "fma"),)) if isa.slow_dots and form == BF16 else form


def tile_heights(isa: Target, form: Format) -> tuple[int, ...]:
    """The heights of tiles of a format, see `Shapes.tiles`. With pixels in pairs they are rounded up to even
    numbers."""
    heights = {"f32": isa.shapes.reals, "bf16": isa.shapes.bf16}.get(form.a) or isa.shapes.tiles
    return tuple(height + height % 2 for height in heights) if form.paired else heights


def wide_heights(isa: Target, form: Format) -> tuple[int, ...]:
    """The heights of tiles whose pixels are widened. Lower ones take no longer with dot products."""
    return tile_heights(isa, form)[:2] if form.widens else ()


def available_formats(isa: Target) -> tuple[Format, ...]:
    """The formats of a target, one per pair of element types."""
    formats = (find_format(f.a, f.w, isa) for f in FORMATS)
    return tuple(dict.fromkeys(f for f in formats if f is not None))


# --- rows that are quantized at run time: see `ovjit.tiles.dynamic`

#: Instruction set -> CPU features that dynamic quantization requires.
FEATURES = {"avx512": ("avx512vnni",), "neon": ("dotprod",)}
#: Groups of activations have a multiple of this many elements.
GROUP_STEP = 16
#: Elements of a super-block of a file: groups of rows if their weights' scales are integers times a factor.
SUPER = 256


#: Maximum bits of integers for which the sum of four products with bytes fits 16 bits: 2 * 2 * 63 * 127.
PAIR_BITS = 6
#: Maximum number of words of bytes whose products are summed in 16 bits.
MOST_SUMS = 8


def quantizes_rows(isa: Target) -> bool:
    """Whether a target has the instructions for products of dynamically quantized rows."""
    return isa.name in FEATURES and has_features(isa, FEATURES[isa.name])


def quantizes_blocks(isa: Target, bits: int) -> bool:
    """Whether a target has the instructions for products of quantized rows with weights in a file's blocks,
    whose integers have `bits` bits. `vpmaddubsw` suffices for unsigned ones of up to PAIR_BITS, and with
    `vpsignb`, which AVX-512 lacks, for signed bytes."""
    by_pairs = bits <= PAIR_BITS and isa.name in ("avx2", "avx512")
    return quantizes_rows(isa) or by_pairs or (bits == 8 and isa.name == "avx2")


def summed_words(peak: int, size: int) -> int:
    """Words of bytes of at most `peak` whose products with rows are summed in 16 bits: a part of a group of
    `size` elements."""
    words = 1
    while words < MOST_SUMS and 2 * words * 2 * peak * 127 < 1 << 15 and not size % (2 * words * WORD):
        words *= 2
    return words


def quantizes_levels(isa: Target) -> bool:
    """Whether a target has the instructions for products of quantized rows with codes of a file's blocks,
    whose levels are signed bytes."""
    return quantizes_rows(isa) or isa.name == "avx2"


class Stored(NamedTuple):
    """The storage of weights. `bits` of an integer. `zero`: the common zero point, None if groups have their
    own. `scale`: the type of scales. `signed`: bytes are stored as signed, 128 less, and multiplied as such
    (NEON's sdot, AVX2's vpsignb). `low`: the type of minima, which are added; "" without. `small`: bytes
    are below 128. `sums`: words whose products are summed in 16 bits first, if no instruction sums four.
    `inner`: elements of a group whose scale and minimum are multiplied as integers; 0 without. `levels`: the
    factor of the bytes that codes are looked up for; 0: codes are the integers themselves. `words`: those of
    a row's group that has code of its own; 0: other groups. `shared`: several groups of rows, whose sums are
    added before they are scaled, are in a group of weights."""

    bits: int
    zero: int | None
    scale: str
    signed: bool = False
    low: str = ""
    small: bool = False
    sums: int = 0
    inner: int = 0
    levels: float = 0.0
    words: int = 0
    shared: bool = False

    @property
    def name(self) -> str:
        zero = "z" if self.zero is None else str(self.zero) if self.zero else "m" if self.low else ""
        pairs = f"_p{self.sums}{f'_{self.inner}' if self.inner else ''}" if self.sums else ""
        kind = "l" if self.levels else "i" if self.less else "u"
        groups = f"_{'some_' if self.shared else ''}of_{self.words}" if self.words else ""
        return f"{kind}{self.bits}{zero}_{self.scale}{pairs}{groups}"

    @property
    def less(self) -> int:
        """The number that is subtracted from integers and zeros when they are stored: 128 or 0."""
        return 128 if self.signed and self.bits == 8 and not self.small else 0

    @property
    def common_zero(self) -> int:
        """The zero point of all groups, of integers as they are stored: sums begin with minus it times the
        sums of rows' bytes."""
        return 0 if self.low or self.zero is None else self.zero - self.less

    @property
    def scales_sums(self) -> bool:
        """Whether sums of rows' bytes are multiplied by the rows' scales: those that minima, or the zeros of
        several groups, are multiplied with."""
        return bool(self.low) or (self.shared and self.zero is None)

    @property
    def is_centred(self) -> bool:
        """Whether sums in 16 bits begin with minus the zero point times the sums of rows' bytes."""
        return bool(self.inner and self.zero)

    @property
    def together(self) -> int:
        """Words of four integers that are stored together: 1 for 8 bits, 2 for 4 bits, else 4."""
        return {8: 1, 4: 2}.get(self.bits, 4)

    @property
    def keeps_integers(self) -> bool:
        """Whether only scales and minima are unpacked: two words of 4 bits take less time than a copy."""
        return self.bits == 4 and not self.sums and not self.levels

    @property
    def as_bytes(self) -> Stored:
        """The storage after unpacking to bytes, with scales in f32."""
        if self.keeps_integers:
            return self._replace(scale="f32")
        return self._replace(bits=8, scale="f32", small=True, levels=0.0)


def how_stored(
    integers: np.ndarray | Unmade, scale: np.ndarray | Unmade, zero: np.ndarray | None, bits: int,
    isa: Target, size: int = GROUP_STEP,
) -> Stored:  # fmt: skip
    """The storage of packed weights for a target, and for rows in groups of `size` elements. Raises
    ValueError for zeros that are not bytes."""
    signed = integers.dtype.kind == "i"
    one: int | None = 128 if signed else 0
    if zero is not None:
        zeros = distinct(zero) + 128 * signed
        if not ((zeros == np.rint(zeros)) & (zeros >= 0) & (zeros <= 255)).all():
            raise ValueError("zero points should be 8-bit integers")
        one = int(zeros.flat[0]) if zeros.size and (zeros == zeros.flat[0]).all() else None
        one = one if one in (0, 8, 128) else None  # each common zero needs a kernel of its own
    by_signs = signed and bits == 8 and isa.name == "avx2"
    in_pairs = quantizes_blocks(isa, bits) and not quantizes_rows(isa)
    pairs = in_pairs and (by_signs or bits <= PAIR_BITS)  # sums of unsigned bytes do not fit 16 bits
    sums = summed_words((1 << bits) - 1, size) if pairs else 0
    return Stored(bits, one, "f16" if fit_f16(scale) else "f32", isa.is_arm or by_signs, sums=sums)


def distinct(values: np.ndarray) -> np.ndarray:
    """A view of broadcast values without their repetitions."""
    return values[tuple(slice(None) if step else slice(1) for step in values.strides)]


def fit_f16(values: np.ndarray | Unmade) -> bool:
    """Whether f16 represents all values exactly."""
    if isinstance(values, Converted) and values.is_exact and values.source.dtype == np.float16:
        return not (values.source.view(np.uint16) & _F16_SPECIAL == _F16_SPECIAL).any()
    array = distinct(np.asarray(values))
    if array.dtype == np.float32 and (array.view(np.uint32) & _BELOW_F16).any():
        return False
    half = np.clip(array, -65504, 65504).astype(np.float16).astype(np.float32)
    return bool((half == array).all())


#: The exponent bits of infinities and NaN in f16, and the low fraction bits of f32 that f16 lacks.
_F16_SPECIAL, _BELOW_F16 = np.uint16(0x7C00), np.uint32(0x1FFF)
