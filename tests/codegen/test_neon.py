"""Code for AArch64, printed on whatever machine this is: its instructions, and that registers suffice."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter

import pytest

from bench import aarch64_model
from ovjit.codegen import shipped
from ovjit.codegen.cpu import atomics, jit
from ovjit.codegen.cpu.formats import (
    F32,
    Format,
    available_formats,
    find_format,
    matrix_format,
    paired_format,
    tile_heights,
    unit_format,
)
from ovjit.codegen.cpu.ir import Epilogue, body_of
from ovjit.codegen.cpu.neon import shapes
from ovjit.codegen.cpu.targets import Target, target_of
from ovjit.codegen.transpose import transpose_blocks_kernel
from ovjit.execution.runner import native_kernels
from ovjit.tiles.driver import tile_kernel
from ovjit.tiles.tile import make_tile
from tests.support.sweeps import some

#: A CPU of the first years, one of 2018, one of 2022: what they have beside NEON.
FIRST = target_of("neon")
DOT = target_of("neon", ("lse", "dotprod"))
ALL = target_of("neon", ("lse", "dotprod", "i8mm", "bf16", "fp16fml"))


PRODUCTS = r"\t(?:fmlal?2?|bfdot|[us]*dot|bfmmla|usmmla)\t"


def instructions(text: str) -> Counter:
    return Counter(re.findall(r"^\t([a-z]\w*)", text, re.M))


def code_of(body: str, isa: Target, extra=None) -> str:
    """The assembly of a kernel of these lines."""
    lines = "".join(f"    {line}\n" for line in body.split("; "))
    source = f"@njit(nogil=True)\ndef kernel(a, b, c, p):\n{lines}"
    return jit.assembly(source, "ovjit_test_neon", isa, extra)


def inner_loop(isa: Target, form: Format, rows: int, blocked: bool = False) -> str:
    """The block of a tile that multiplies most."""
    tile = make_tile(isa, rows, 2, Epilogue(None, [], form.acc), form, blocked)
    given = ", ".join(["a"] * tile.arity)
    text = code_of(f"tile_of({given}); return 0", isa, {"tile_of": tile})
    blocks = re.split(r"^(?=\.LBB)", text, flags=re.M)
    return max(blocks, key=lambda block: len(re.findall(PRODUCTS, block)))


# --- products

#: Types, CPU, products by a lane, and products of matrices, which tiles of several pixels have.
TILES = {
    "f32": ("f32", "f32", FIRST, r"fmla\tv\d+\.4s, v\d+\.4s, v\d+\.s\[[0-3]\]", ""),
    "bf16": ("bf16", "bf16", ALL, r"bfdot\tv\d+\.4s, v\d+\.8h, v\d+\.2h\[[01]\]", "bfmmla"),
    "bytes": ("u8", "i8", ALL, r"sudot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[[01]\]", "usmmla"),
    "bytes without i8mm": ("u8", "i8", DOT, r"sdot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[[01]\]", ""),
}


@pytest.mark.parametrize(
    ("what", "rows"), [(w, r) for w in TILES for r in (shapes.REALS if w == "f32" else shapes.TILES)]
)
def test_tiles_multiply_by_lanes_and_spill_nothing(what: str, rows: int) -> None:
    a, w, isa, pattern, matrix = TILES[what]
    form = find_format(a, w, isa)
    assert form is not None
    loop = inner_loop(isa, form, rows)
    found, all_ = len(re.findall(pattern, loop)), instructions(loop)
    assert "[sp" not in loop, loop
    if matrix and rows > 1:
        # half of the products, and two words of two channels or pixels put together: of all that multiplies
        # 10 instructions for 24 products of a full tile
        assert all_[matrix] == 2 * 2 * rows and not found, loop
        assert all_["zip1"] + all_["zip2"] == 4 * 2 and all_["ld1"] == 2 * (rows // 2), loop
        assert sum(all_.values()) <= 2 * 2 * rows + 3 * rows + 24, loop
        return
    assert found == 4 * 2 * rows, f"{found} by a lane\n{loop}"  # words x vectors x pixels
    assert not {"dup", "ld1r", "mul", "umull", "smull"} & set(all_), loop
    # two or four words of each pixel at once, two vectors of weights at once, and little besides
    loads = rows if what == "f32" else 2 * rows
    assert all_["ldr"] + all_["ldp"] <= loads + 4, loop
    flips = form.flips * 2 * rows
    assert (all_["eor"], all_["fmov"]) == (flips, flips), loop  # by integer units
    assert sum(all_.values()) - found <= loads + 11 + rows * (what != "f32") + 2 * flips, loop


def test_heights_follow_the_format() -> None:
    """A full tile of f32 leaves registers for the weights of four words."""
    forms = {what: find_format(a, w, isa) for what, (a, w, isa, *_) in TILES.items()}
    found = {what: tile_heights(ALL, form) for what, form in forms.items() if form}
    assert found.pop("f32") == (11, 8, 4, 1) and {*found.values()} == {(12, 8, 4, 1)}
    pairs = {tile_heights(ALL, paired_format(form)) for form in forms.values() if form and form is not F32}
    assert pairs == {(12, 8, 4, 2)}, "two pixels lie side by side"


@pytest.mark.parametrize("rows", (12, 8, 4, 2))
def test_bytes_that_are_copied_are_flipped_before(rows: int) -> None:
    """Without i8mm: the loop has the products, half a load for two words of a pixel, and no signs."""
    form = find_format("u8", "i8", DOT)
    assert form is not None and form.flips
    loop = inner_loop(DOT, paired_format(form), rows)
    all_ = instructions(loop)
    found = len(re.findall(r"sdot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[[0-3]\]", loop))
    assert found == 4 * 2 * rows and "[sp" not in loop, loop
    assert not {"eor", "fmov", "dup", "ext", "ins"} & set(all_), loop
    assert all_["ldr"] + all_["ldp"] <= rows + 8, loop
    assert sum(all_.values()) - found <= rows + 8 + 10, loop


@pytest.mark.parametrize("rows", (12, 8, 4, 2))
@pytest.mark.parametrize("what", ["bf16", "bytes"])
def test_tiles_of_pairs_multiply_what_they_load(what: str, rows: int) -> None:
    """Two words of two pixels, and of two channels, lie side by side: nothing puts them so."""
    a, w, isa, _, matrix = TILES[what]
    form = find_format(a, w, isa)
    assert form is not None and not form.paired
    loop = inner_loop(isa, paired_format(form), rows)
    all_ = instructions(loop)
    assert all_[matrix] == 2 * 2 * rows and "[sp" not in loop, loop
    assert not {"zip1", "zip2", "ld1", "ins", "dup"} & set(all_), loop
    assert all_["ldr"] + all_["ldp"] <= rows + 8, loop
    assert sum(all_.values()) <= 2 * 2 * rows + rows + 8 + 12, loop


@pytest.mark.parametrize("rows", shapes.TILES)
def test_tiles_of_f16_add_in_f32_by_lanes(rows: int) -> None:
    form = find_format("f16", "f16", ALL)
    assert form is not None and find_format("f16", "f16", DOT) is None
    loop = inner_loop(ALL, form, rows)
    all_ = instructions(loop)
    by_lane = re.findall(r"fmlal2?\tv\d+\.4s, v\d+\.4h, v\d+\.h\[[0-3]\]", loop)
    assert len(by_lane) == 4 * 2 * 2 * rows and "[sp" not in loop, loop
    # what puts a word's first elements into one vector, and the second into another
    assert all_["uzp1"] + all_["uzp2"] + 2 * all_["ld2"] == 2 * 4 and not all_["dup"], loop
    assert sum(all_.values()) - len(by_lane) <= 3 * rows + 24, loop


@pytest.mark.long
@pytest.mark.skipif(shutil.which("llvm-mca") is None, reason="there is no llvm-mca")
def test_loops_reach_the_rate_of_cores_by_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Reals and bytes whose pixels are copied. LLVM describes the newer two cores since release 17."""
    said = subprocess.run(["llvm-mca", "--version"], capture_output=True, text=True, check=True).stdout
    release = int(re.search(r"version (\d+)", said)[1])  # type: ignore[index]
    aarch64_model.main([])
    _, _, *rows = (line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines())
    rates = {(core, form): float(rate) for core, form, *_, rate, _, _, _ in rows}
    assert {core for core, form in rates if form == "f32"} == {*aarch64_model.CORES}
    for (core, form), rate in rates.items():
        if form == "f32" or (form == "u8i8 in pairs" and (release >= 17 or core != "neoverse-v1")):
            assert rate >= (0.95 if form == "f32" else 0.9), (core, form)
    assert all(row[-1] == "0" for row in rows), "a loop spills"


def test_sums_in_blocks_spill_nothing_in_their_loop() -> None:
    assert "[sp" not in inner_loop(FIRST, F32, shapes.REALS[0], blocked=True)


def test_formats_follow_what_the_cpu_has() -> None:
    assert find_format("u8", "i8", FIRST) is None and find_format("bf16", "bf16", FIRST) is None
    assert find_format("f32", "f32", FIRST) is F32
    forms = [find_format("u8", "i8", isa) for isa in (DOT, ALL)]
    assert [form is not None and form.flips for form in forms] == [True, False]
    assert forms[1] is not None
    kernel = tile_kernel("t", Epilogue(None, [], "i32"), ALL, forms[1])
    made = instructions(kernel.assembly(ALL))
    assert made["sudot"] and made["usmmla"]


def test_no_format_is_of_a_matrix_unit() -> None:
    """Attention and products ask for one on every CPU."""
    for isa in (FIRST, DOT, ALL, target_of("generic", machine="aarch64")):
        forms = available_formats(isa)
        assert F32 in forms and not any(form.on_unit or paired_format(form).on_unit for form in forms)
        assert [matrix_format(form, isa) for form in forms] == [*forms]
        assert not any(unit_format(kind, isa) for kind in ("f32", "bf16", "f16"))


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("kinds", some([["channel"], ["pixel"], ["number"], ["scalar"]], 2))
def test_tiles_with_operands(kinds: list[str], blocked: bool) -> None:
    """What is behind the loops, with names of its own."""
    epilogue = Epilogue(body_of(lambda x, y: x + y, 2), kinds)
    made = instructions(tile_kernel("t", epilogue, FIRST, F32, blocked).assembly(FIRST))
    assert made["fmla"] and made["fadd"]


# --- words

V, W, X = "v = load_f32(p)", "w = load_f32(p + 16)", "x = load_i32(p + 32)"
WORDS = {
    "minimum and maximum": (f"{V}; {W}; store_f32(p, max_(min_(v, w), v))", FIRST, {"fmin": 1, "fmax": 1}),
    "multiply and add": (f"{V}; {W}; store_f32(p, fma(v, w, v))", FIRST, {"fmla": 1}),
    "reciprocals": (f"{V}; store_f32(p, rcp(v))", FIRST, {"frecpe": 1, "frecps": 1, "fdiv": 0}),
    "f16 to f32": ("v = load_f16(p); store_f32(p, v)", FIRST, {"fcvtl": 1}),
    "f32 to f16": (f"{V}; store_f16(p, v)", FIRST, {"fcvtn": 1}),
    "f32 to bf16": (f"{V}; store_bf16(p, v)", ALL, {"bfcvtn": 1}),
    "f32 to bf16 by integers": (f"{V}; store_bf16(p, v)", FIRST, {"bfcvtn": 0}),
    "f32 to i32": (f"{V}; store_i32(p, cast_i32(v))", FIRST, {"fcvtzs": 1, "fcmgt": 0}),
    "f32 to i32, or its minimum": (
        f"{V}; store_i32(p, trunc_or_min_i32(v))", FIRST, {"fcvtzs": 1, "fcmgt": 1, "fcmge": 0, "frintz": 0},
    ),
    "f16 to i64, or its minimum": (
        "v = load_f16(p); store_i64(p, trunc_or_min_i64(v))", ALL, {"fcvtl": 2, "fcvtl2": 1, "fcvtzs": 2},
    ),
    "f32 to u8, rounded": (f"{V}; store_u8(p, round_int_u8(v))", FIRST, {"fcvtnu": 1, "frintx": 0}),
    "bytes by a table": (f"{X}; store_i32(p, look_up(x, x))", FIRST, {"tbl": 1}),
    "lanes by a vector": (f"{V}; {X}; store_f32(p, permute_f32(v, x))", FIRST, {"tbl": 1}),
    "products of bytes": (f"{X}; store_i32(p, dot_bytes(x, x, x))", ALL, {"usdot": 1}),
    "products of bytes without i8mm": (f"{X}; store_i32(p, dot_bytes(x, x, x))", DOT, {"sdot": 3}),
    "products of bytes without either": (
        f"{X}; store_i32(p, dot_bytes(x, x, x))", FIRST, {"smull": 2, "smull2": 2},
    ),
    "sums of pairs": (f"{X}; store_i32(p, sum_pairs(x, x))", FIRST, {"saddlp": 0, "sadalp": 1}),
}  # fmt: skip


@pytest.mark.parametrize("what", WORDS)
def test_words_are_neons_instructions(what: str) -> None:
    body, isa, wanted = WORDS[what]
    text = code_of(f"{body}; return 0", isa)
    found = instructions(text)
    assert {name: found[name] for name in wanted} == wanted, text
    assert "\tbl\t" not in text and "[sp" not in text, text


def test_blocks_of_bytes_are_interleaved_in_one_register() -> None:
    """Four rows of four bytes: nothing is widened to 16 bits, but in parts of blocks."""
    text = transpose_blocks_kernel(1).assembly(FIRST)
    blocks = re.split(r"^(?=\.LBB)", text, flags=re.M)
    (block,) = (block for block in blocks if re.search(r"zip1\tv\d+\.16b", block))
    found = instructions(block)
    assert found["zip1"] == 3 and found["ldr"] == 4 and found["str"] + found["st1"] == 4, block
    assert not {"zip2", "uzp1", "ushll", "ldrb", "strb"} & set(found), block


# --- what threads share

ATOMICS = {
    "loads acquire": ("return aload(p)", {"ldar": 1}, {"ldar": 1}),
    "stores release": ("astore(p, a); return 0", {"stlr": 1}, {"stlr": 1}),
    "swaps": ("return cas(p, a, b)", {"ldaxr": 1, "stlxr": 1}, {"casal": 1}),
    "additions": ("return aadd(p, a)", {"ldaxr": 1, "stlxr": 1}, {"ldaddal": 1}),
}


@pytest.mark.parametrize("what", ATOMICS)
def test_atomics_say_their_order(what: str) -> None:
    body, plainly, by_one = ATOMICS[what]
    for isa, wanted in ((FIRST, plainly), (DOT, by_one)):
        found = instructions(code_of(body, isa, atomics.intrinsics()))
        assert {name: found[name] for name in wanted} == wanted, found
        assert not {"ldxr", "stxr", "cas", "casa", "casl", "ldadd"} & set(found), found


def test_what_else_the_runner_does() -> None:
    text = code_of("pause(); return no_denormals()", FIRST, atomics.intrinsics())
    found = instructions(text)
    assert (found["yield"], found["mrs"], found["msr"]) == (1, 1, 1) and "FPCR" in text.upper()
    assert found["isb"] == 1, "yield alone takes no time on a core of one thread"
    assert re.search(r"orr\t\w+, \w+, #0x1000000", text), text
    text = code_of("sleep_on(p, a, b); return 0", FIRST, atomics.intrinsics())
    assert re.search(r"mov\tw0, #98", text) and "bl\tsyscall" in text, text


def test_the_runner_is_compiled_for_it() -> None:
    """Its object is for what the CPU has, though it multiplies nothing."""
    kernel = native_kernels()[0]
    assert shipped.needed_by(kernel.source, kernel.key, kernel.form, ALL).extras == ("lse",)
    assert kernel.content_key(ALL) == kernel.content_key(DOT) != kernel.content_key(FIRST)
    text = kernel.assembly(ALL)
    found = instructions(text)
    assert found["casal"] and found["ldaddal"] and found["ldar"] and found["stlr"] and found["isb"]
    assert not {"ldxr", "stxr", "ldaxr"} & set(found)


def test_no_product_and_sum_follows_an_access_of_memory() -> None:
    """For Cortex-A53's erratum 835769. Addresses of tensors are such sums."""
    after = r"\t(?:ld|st|prfm)\S*\t.*\n"
    text = tile_kernel("t", Epilogue(None, [], F32.acc), FIRST, F32).assembly(FIRST)
    assert re.search(after + r"\tnop\n\tm(?:add|sub)\tx", text)
    for one in (text, *(kernel.assembly(FIRST) for kernel in native_kernels())):
        found = re.search(after + r"\t(?:m|sm|um)(?:add|sub)l?\tx", one)
        assert not found, found
