"""The object code that comes with ovjit is what the sources give, and nothing depends on it."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import ovjit
from bench import hybrids, transformers
from ovjit import debug, genai
from ovjit.codegen import loading, shipped, texts
from ovjit.codegen.cpu import jit
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import EXTRA, TARGETS, Target, has_features, target_of
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.versions import file_digest
from ovjit.data import DIGITS_XML
from ovjit.disk.kernel_cache import KernelCache
from ovjit.readers.ir.writer import to_bytes
from ovjit.storage import kept_models
from ovjit.tiles import winograd
from ovjit.tools import ship, ship_files
from ovjit.tools.groups import kernels_of
from tests.support.run import printed

DATA = DIGITS_XML.parent
GENAI = Path(__file__).parents[1] / "genai" / "data"
AGAIN = "python -m ovjit.tools.ship"


def all_shipped(isa: str, kind: str = "kernels") -> dict[str, bytes]:
    made_for = shipped.generators(TARGETS[isa].machine)
    stamp = made_for if kind == "kernels" else shipped.printers()
    try:
        return shipped.Archive((DATA / shipped.file_name(TARGETS[isa], kind)).read_bytes(), stamp).all()
    except ValueError:
        raise AssertionError(f"the code generators have changed since: {AGAIN}") from None


@pytest.mark.parametrize("name", ship.TABLES)
def test_tables_are_those_of_the_sources(name: str) -> None:
    assert (DATA / name).read_bytes() == ship.TABLES[name](), f"{name} is out of date: {AGAIN} --texts"


def made_again(isa: str, extra: tuple[str, ...], some: str, groups: int | None) -> ship.Contents:
    """What the sources give, by a process that takes itself for another CPU; `some` picks kernels of the
    first groups. Flags of the environment are no part of what is shipped."""
    program = (
        f"import sys; from ovjit.tools import ship; ship.PICK, ship.GROUPS = {some!r}, {groups}; "
        "sys.exit(ship.main(sys.argv[1:]))"
    )
    with pytest.MonkeyPatch.context() as patch:
        for flag in debug.FLAGS.values():
            if flag.changes_program:
                patch.delenv(flag.name, raising=False)
        return ship.made_by_process(isa, extra, [], ["-c", program])


def check_equal(isa: str, extra: tuple[str, ...], some: str = "", groups: int | None = None) -> set[str]:
    packed = (DATA / shipped.file_name(TARGETS[isa])).read_bytes()
    again = made_again(isa, extra, some, groups)
    made = {key: content for group in again.kernels for key, content in group.items()}
    have, printed = all_shipped(isa), all_shipped(isa, "printed")
    cut = len(packed) > ship.MOST - (1 << 18)  # the last ones may have been left out
    assert made and (cut or made.keys() <= have.keys()), AGAIN
    python = shipped.Archive(packed, shipped.generators(TARGETS[isa].machine)).python
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        for key in made.keys() & have.keys():
            assert have[key] == made[key], f"{isa} {extra}: {AGAIN}"
    for group in again.printed:
        for key, content in group.items():
            assert printed[key] == content, f"{isa} {extra}: {AGAIN}"
    return set(made)


@pytest.mark.parametrize("isa", list(ship.VARIANTS))
def test_some_of_it_is_what_the_sources_give(isa: str) -> None:
    """Of two groups for this machine's instruction set, of one for the others."""
    groups = 1 + (isa == host_target().name)
    assert len(check_equal(isa, ship.VARIANTS[isa][-1], "runner conv_f32 softmax_f32 relu_f32", groups)) > 4


@pytest.mark.parametrize("isa", list(ship.VARIANTS))
def test_what_every_model_needs_is_there(isa: str) -> None:
    """For each set of features. A first start that lacks one of them imports the compiler."""
    have = all_shipped(isa)
    for extra in ship.VARIANTS[isa]:
        target = target_of(isa, extra)
        missing = [k.name for k in ship._always(target) if k.content_key(target) not in have]
        assert not missing, f"{isa} {extra}: {missing} are not shipped: {AGAIN}"


def test_edits_of_modules_that_the_stamp_covers_change_no_key() -> None:
    """So files of the same kernels get a new stamp after such an edit, and are still found."""
    kernel = winograd.filter_kernel(4)
    assert kernel._intrinsics is not None
    assert file_digest(kernel._intrinsics) == ""
    assert file_digest(made_again) != ""


def test_reused_code_is_compared_with_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some kernels, by a checksum of the code."""
    isa, kernel = host_target(), next(iter(ship._always(host_target())))
    code = kernel.content(isa)
    assert ship._object_code(kernel, isa, None) == code
    monkeypatch.setattr(ship, "COMPARED", 1)
    assert ship._object_code(kernel, isa, code) == code
    with pytest.raises(SystemExit, match=f"{kernel.name} .*without --reuse"):
        ship._object_code(kernel, isa, code + b"x")
    monkeypatch.setattr(ship, "COMPARED", 1 << 40)  # no checksum is a multiple
    assert ship._object_code(kernel, isa, code + b"x") == code + b"x"


def test_present_code_is_that_of_the_file() -> None:
    name = host_target().name
    assert ship.present_code(DATA, name) == all_shipped(name)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("isa", list(ship.VARIANTS))
def test_all_of_it_is_what_the_sources_give(isa: str) -> None:
    made = [check_equal(isa, extra) for extra in ship.VARIANTS[isa]]
    assert set().union(*made) >= set(all_shipped(isa))


@pytest.fixture(scope="module")
def common() -> list[Kernel]:
    """The kernels for this CPU that most models need."""
    return [kernel for group in itertools.islice(ship.groups(host_target()), 2) for kernel in group.kernels]


def test_object_code_is_the_same_bytes(monkeypatch: pytest.MonkeyPatch, common: list[Kernel]) -> None:
    isa = host_target()
    checked = missing = 0
    for kernel in common[::40]:
        if isa.extras in ship.VARIANTS[isa.name] and (isa.name, isa.extras) not in ship.FEW:
            missing += kernel.content_key(isa) not in all_shipped(isa.name)
        monkeypatch.delenv("OVJIT_SHIPPED", raising=False)
        one = kernel.compile(isa)
        monkeypatch.setenv("OVJIT_SHIPPED", "0")
        assert one == kernel.compile(isa), kernel
        checked += 1
    assert checked > 8
    assert missing <= checked // 8, "more is left out than files without room for all should leave out"


def test_pipelines_need_only_frequent_kernels(
    common: list[Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the first tokens, with what a tokenizer, a detokenizer and a paged decoder compile at run time."""
    needed, addresses = set[Kernel](), loading.addresses

    def noted(kernels, *arguments):
        needed.update(kernels := list(kernels))
        return addresses(kernels, *arguments)

    monkeypatch.setattr(loading, "addresses", noted)
    monkeypatch.setattr(kept_models, "folder", lambda: None)
    folder, isa = tmp_path / "llama", host_target()
    shutil.copytree(GENAI, folder)
    sizes = transformers.Sizes(layers=1, wide=128, heads=2, shared=1, inner=192, words=300)
    model = transformers.llama(transformers.Net(ovjit, "llama"), sizes)
    ovjit.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    genai.LLMPipeline(folder, "CPU").generate("the weather is", max_new_tokens=3)
    frequent = {kernel.content_key(isa) for kernel in common}
    missing = sorted(kernel.name for kernel in needed if kernel.content_key(isa) not in frequent)
    assert len(needed) > 40 and not missing, f"{missing}: python -m ovjit.tools.groups --frequent"


@pytest.mark.parametrize("stored", ["f32", "u8", "i4"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_decoders_need_nothing_else(name: str, stored: str) -> None:
    """As files have them, in all formats of their weights."""
    shared = 3 if name == "llama" else 6
    sizes = transformers.Sizes(layers=2, wide=384, heads=6, shared=shared, inner=768, words=640)
    made = getattr(transformers, name)(transformers.Net(ovjit, name, stored), sizes)
    xml, weights = to_bytes(made)
    isa, read = host_target(), ovjit.Core().read_model(xml, ovjit.Tensor(np.frombuffer(weights, np.uint8)))
    for precision, needed in kernels_of(read._graph(), isa).items():
        missing = [k.name for k in needed if shipped.find(k.content_key(isa), isa) is None]
        assert len(needed) > 15 and not missing, f"{precision}: {missing}; {AGAIN}"


@pytest.mark.skipif(host_target().name == "neon", reason="not shipped for this instruction set")
@pytest.mark.parametrize("name", ["mamba", "delta"])
def test_decoders_with_states_need_nothing_else(name: str) -> None:
    isa = host_target()
    needed = kernels_of(hybrids.build(ovjit, name)._graph(), isa)["f32"]
    missing = [k.name for k in needed if shipped.find(k.content_key(isa), isa) is None]
    assert len(needed) > 15 and not missing, f"{missing}; {AGAIN}"


#: Steps below zero of the ranges of what may be negative, and of what is not.
SIGNED, UNSIGNED = 128, 0


class Quantised:
    """Layers as NNCF writes them. No two ranges are equal, so that kernels read their ends."""

    step = 0.0117

    def real(self, *shape: int) -> np.ndarray:
        return np.linspace(0.01, 0.02, int(np.prod(shape))).astype(np.float32).reshape(shape)

    def ranged(self, x: ovjit.Node, below: int = SIGNED) -> ovjit.Node:
        """FakeQuantize with 256 levels, a new number apart."""
        self.step *= 1.013
        ends = [np.asarray(level * np.float32(self.step), np.float32) for level in (-below, 255 - below)]
        return ovjit.opset13.fake_quantize(x, *ends, *ends, 256)

    def weights(self, *shape: int) -> ovjit.Node:
        """i8 times a scale for each of the first dimension."""
        o, scales = ovjit.opset13, self.real(shape[0], *[1] * (len(shape) - 1))
        return o.multiply(o.convert(o.constant(np.ones(shape, np.int8)), "f32"), scales)

    def conv(self, x: ovjit.Node, ins: int, outs: int, size: int = 1, stride: int = 1) -> ovjit.Node:
        o, pads = ovjit.opset13, [size // 2] * 2
        y = o.convolution(x, self.weights(outs, ins, size, size), [stride] * 2, pads, pads, [1, 1])
        return o.add(y, self.real(1, outs, 1, 1))

    def linear(self, x: ovjit.Node, ins: int, outs: int) -> ovjit.Node:
        o = ovjit.opset13
        return o.add(o.matmul(x, self.weights(outs, ins), False, True), self.real(outs))


def quantised_network() -> ovjit.Model:
    """A ResNet in 8 bits, of sizes that no shipped layer has."""
    o, q = ovjit.opset13, Quantised()
    image = o.parameter([1, 3, 96, 96], np.float32)
    x = q.ranged(o.relu(q.conv(q.ranged(image), 3, 48, 7, 2)), UNSIGNED)
    x = o.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
    for ins, outs, stride in ((48, 96, 2), (96, 96, 1), (96, 160, 2)):
        y = q.ranged(o.relu(q.conv(x, ins, 48)), UNSIGNED)
        y = q.ranged(o.relu(q.conv(y, 48, 48, 3, stride)), UNSIGNED)
        short = x if ins == outs else q.ranged(q.conv(x, ins, outs, 1, stride))
        x = q.ranged(o.relu(o.add(q.ranged(q.conv(y, 48, outs)), short)), UNSIGNED)
    mean = q.ranged(o.reduce_mean(x, np.array([2, 3]), False), UNSIGNED)
    return ovjit.Model([o.softmax(q.linear(mean, 160, 30), 1)], [image], "quantised")


def test_a_quantised_network_needs_nothing_else() -> None:
    xml, weights = to_bytes(quantised_network())
    isa, read = host_target(), ovjit.Core().read_model(xml, ovjit.Tensor(np.frombuffer(weights, np.uint8)))
    for precision, needed in kernels_of(read._graph(), isa).items():
        missing = [k.name for k in needed if shipped.find(k.content_key(isa), isa) is None]
        assert len(needed) > 10 and not missing, f"{precision}: {missing}; {AGAIN}"


def check_least(kernels: list[Kernel], isa: Target, step: int) -> None:
    """Of each kind of kernel one: what its key leaves out of a CPU's features is not in its code either."""
    chosen: dict[tuple[str, ...], tuple[Kernel, Target]] = {}
    for kernel in kernels:
        least = shipped.needed_by(kernel.source, kernel.key, kernel.form, isa)
        chosen[(kernel.name.partition("_")[0], kernel.form, *least.extras)] = kernel, least
    assert len(chosen) > 20
    for kernel, least in list(chosen.values())[::step]:
        made = [
            jit.object_code(kernel.source, kernel.symbol(isa), one, kernel.intrinsics(one), shipped.SYMBOL)
            for one in (isa, least)
        ]
        assert made[0] == made[1], (kernel, least.extras)


def test_code_is_the_same_with_features_that_its_text_does_not_name(common: list[Kernel]) -> None:
    check_least(common, target_of(host_target().name, EXTRA), 6)


@pytest.mark.long
@pytest.mark.parametrize("name", ["avx512", "neon"])
def test_code_of_other_cpus_is_the_same_with_features_that_its_text_does_not_name(name: str) -> None:
    isa = target_of(name, EXTRA)
    check_least(ship.kernels(isa), isa, 1)


FIRST = """
import sys, numpy as np, ovjit as ov
from ovjit.data import digits
xml, images, _ = digits()
print(np.array(ov.compile_model(xml)(images[:8])[0]).tobytes().hex(),
      *(name in sys.modules for name in ("numba", "llvmlite")))
"""


def first_start(tmp_path: Path, **env: str) -> list[str]:
    return printed("-c", FIRST, OVJIT_CACHE=str(tmp_path / "cache"), **env).split()


def test_a_first_start_compiles_little_and_answers_the_same(tmp_path: Path) -> None:
    again, *loaded = first_start(tmp_path / "a")
    assert loaded == ["False", "False"]
    without, *loaded = first_start(tmp_path / "b", OVJIT_SHIPPED="0")
    assert loaded == ["True", "True"] and again == without


def key(i: int) -> str:
    return f"{i:040x}"


def test_what_others_made_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = shipped.generators()
    content = ship_files.pack([{key(1): b"text"}], stamp)
    assert shipped.Archive(content, stamp).all() == {key(1): b"text"}
    with pytest.raises(ValueError, match="other code generators"):
        shipped.Archive(bytes(32) + content[32:], stamp)
    monkeypatch.setattr(shipped, "installed_version", lambda package: "0.1")
    shipped.generators.cache_clear()
    try:
        with pytest.raises(ValueError, match="other code generators"):
            shipped.Archive(content, shipped.generators())
    finally:
        monkeypatch.undo()
        shipped.generators.cache_clear()


@pytest.fixture
def one_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship_files, "DICTIONARIES", 1)
    monkeypatch.setattr(ship_files, "DICTIONARY", 1)
    monkeypatch.setattr(ship_files, "FIRST", 1)


def test_pieces_are_unpacked_as_somebody_asks(one_dictionary: None) -> None:
    rng = np.random.default_rng(7)
    stamp = rng.bytes(32)
    first = {key(5 * i): rng.bytes(30_000 * (i + 1)) for i in range(6)}
    second = {key(3): first[key(10)], key(2**160 - 1): b"", key(1): b"wide" * 9}
    packed = ship_files.pack([first, second], stamp)
    found = shipped.Archive(packed, stamp)
    for missing in (key(2), key(4), key(2**159), "no such key"):
        assert found.find(missing) is None, missing
    assert not found._unpacked
    for one in (key(0), key(1), key(15), key(2**160 - 1), key(3)):
        before = len(found._unpacked)
        assert found.find(one) == (first | second)[one], one
        assert len(found._unpacked) - before <= 2, "a content and its dictionary"
    assert found.all() == first | second
    for end in (len(packed) // 2, len(packed) - 1, 40, 8):
        with pytest.raises((EOFError, ValueError)):
            shipped.Archive(packed[:end], stamp)
    assert shipped.Archive(ship_files.pack([], stamp), stamp).find(key(0)) is None


@pytest.mark.parametrize("together", [1, 1 << 17])
def test_pieces_continue_dictionaries_of_what_resembles_them(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship_files, "DICTIONARIES", 3)
    rng = np.random.default_rng(3)
    bases = [rng.bytes(40_000) for _ in range(3)]
    alike = {key(i): bases[i % 3][i * 100 :] + bytes([i]) for i in range(60)}
    packed = ship_files.pack([{}, alike], bytes(32), together=together)
    found = shipped.Archive(packed, bytes(32))
    assert found.all() == alike
    assert len(packed) < 3 * (ship_files.DICTIONARY + 40_000) + 60 * 200 < 60 * 40_000 // 7


def test_damaged_pieces_are_not_used(one_dictionary: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    contents = {key(i): rng.bytes(3_000) for i in range(5)}
    packed = bytearray(ship_files.pack([contents], bytes(32)))
    packed[-100] ^= 4
    found = shipped.Archive(bytes(packed), bytes(32))
    monkeypatch.delenv("OVJIT_SHIPPED", raising=False)
    monkeypatch.delenv("OVJIT_JIT", raising=False)
    monkeypatch.setattr(shipped, "_archive", lambda isa, kind: found)
    lost = [one for one in contents if shipped.find(one, host_target()) is None]
    assert len(lost) == 1
    with pytest.raises(shipped.Damaged):
        found.find(lost[0])
    assert all(found.find(one) == contents[one] for one in contents if one not in lost)


def test_what_is_too_much_is_left_out_from_the_end(one_dictionary: None) -> None:
    rng = np.random.default_rng(9)
    groups = [{key(i): bytes(100) + rng.bytes(40_000)} for i in range(1, 6)]
    whole = ship_files.pack(groups, bytes(32))
    kept = shipped.Archive(ship_files.pack(groups, bytes(32), len(whole)), bytes(32)).all()
    assert len(kept) == 5
    for most, count in ((len(whole) - 1, 4), (len(whole) - 41_000, 3), (1, 2)):
        packed = ship_files.pack(groups, bytes(32), most)
        kept = shipped.Archive(packed, bytes(32)).all()
        assert len(kept) == count and key(1) in kept, "and in one that cannot be less, the dictionaries"
        assert len(packed) <= most or count == 2
        assert all(groups[int(one, 16) - 1][one] == content for one, content in kept.items())


def test_texts_that_came_with_ovjit_are_not_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = ("@njit\n", [("x", True), ("n", False)], {"t0": ("t", True)})
    place = texts.place_of("a function", 1)
    packed = ship_files.pack([{place.key: json.dumps(made).encode()}], shipped.printers())
    monkeypatch.setattr(shipped, "_archive", lambda isa, kind: shipped.Archive(packed, shipped.printers()))
    cache = KernelCache(tmp_path)
    monkeypatch.setattr(texts, "default_cache", lambda: cache)
    assert texts.find_or_print(place, "f", lambda: pytest.fail("printed")) == made
    assert not cache.entries()  # what came with ovjit is on the disk already
    other = texts.place_of("a function", 2)
    assert other.key != place.key and texts.find_or_print(other, "f", lambda: made) == made


def test_no_file_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "file_name", lambda isa, kind: "no_such_file.xz")
    shipped._archive.cache_clear()
    try:
        x = ovjit.opset8.parameter([5], np.float32)
        y = ovjit.compile_model(ovjit.Model([ovjit.opset8.cosh(x)], [x], "m"))(np.zeros(5, np.float32))[0]
        assert y.tolist() == [1] * 5
    finally:
        shipped._archive.cache_clear()


def test_features_that_text_depends_on_are_told_apart() -> None:
    with pytest.raises(ValueError, match="see EXTRA"):
        has_features(TARGETS["avx512"], ("amx-tile",))
