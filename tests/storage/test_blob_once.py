"""Weights are in a blob once: as kernels read them, or as the graph has them."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ovjit
from ovjit import opset13
from ovjit.codegen.cpu.host import host_target
from ovjit.execution.runner import native_kernel
from ovjit.graph.converted import Unmade
from ovjit.planning.constants import Recipe
from ovjit.storage.arrangements import Layouts
from ovjit.storage.container import BlobError, Container, write_container
from ovjit.storage.graph_format import dump, parse
from ovjit.storage.panels import inverse_of, panel_bytes, unpack
from ovjit.storage.scaled import find_factors, restore
from ovjit.tiles import weave
from ovjit.tiles.pack import fill_panels, fill_woven
from tests.support import forged

SEED = 20261128
STRANGER = bytes(range(32))


def normal(*shape: int) -> np.ndarray:
    return (np.random.default_rng([SEED, *shape]).normal(size=shape) / 30).astype(np.float32)


def winograd() -> ovjit.Model:
    """Convolutions of 3 x 3, whose transformed filters have no inverse, and one of 1 x 1."""
    a = opset13.parameter([1, 128, 28, 28], np.float32, name="a")
    ones = [1, 1]
    x = opset13.convolution(a, opset13.constant(normal(256, 128, 1, 1)), ones, [0, 0], [0, 0], ones)
    for _ in range(2):
        weights = opset13.constant(normal(256, 256, 3, 3))
        x = opset13.relu(opset13.convolution(x, weights, ones, ones, ones, ones))
    return ovjit.Model([x], [a], "winograd")


def product(weights: ovjit.Output, outs: int) -> ovjit.Model:
    a = opset13.parameter([2, 1024], np.float32, name="a")
    return ovjit.Model([opset13.matmul(a, weights, False, True)], [a], f"product of {outs}")


def halves() -> ovjit.Model:
    """Weights in f16, which are packed as f32 or f16."""
    return product(opset13.convert(opset13.constant(normal(1000, 1024).astype(np.float16)), "f32"), 1000)


def open_shape() -> ovjit.Model:
    a = opset13.parameter([-1, 1024], np.float32, name="a")
    y = opset13.matmul(a, opset13.constant(normal(1056, 1024)), False, True)
    return ovjit.Model([y], [a], "open")


def integers() -> ovjit.Model:
    """Compressed weights of 8 bits."""
    rng = np.random.default_rng(SEED)
    whole = opset13.constant(rng.integers(0, 256, (1280, 1024), dtype=np.uint8))
    scaled = opset13.multiply(
        opset13.subtract(opset13.convert(whole, "f32"), opset13.constant(np.float32(128))),
        opset13.constant(np.full((1280, 1), 0.001, np.float32)),
    )
    return product(scaled.output(0), 1280)


def nibbles() -> ovjit.Model:
    """Compressed weights of 4 bits, with signs, in groups of 64."""
    rng = np.random.default_rng(SEED)
    tensor = ovjit.Tensor(
        rng.integers(0, 256, 2560 * 512, dtype=np.uint8), ovjit.Shape([2560, 16, 64]), ovjit.Type.i4
    )
    scaled = opset13.multiply(
        opset13.convert(opset13.constant(tensor), "f32"),
        opset13.constant(np.abs(normal(2560, 16, 1)) + np.float32(0.001)),
    )
    shape = opset13.constant(np.array([2560, 1024]))
    return product(opset13.reshape(scaled, shape, False).output(0), 2560)


def few_integers() -> ovjit.Model:
    """Compressed weights of 8 bits, too few for native packing."""
    rng = np.random.default_rng(SEED)
    scaled = opset13.multiply(
        opset13.convert(opset13.constant(rng.integers(-128, 128, (192, 1024), dtype=np.int8)), "f32"),
        opset13.constant(np.full((192, 1), 0.001, np.float32)),
    )
    return product(scaled.output(0), 192)


def recurrent() -> ovjit.Model:
    a = opset13.parameter([2, 16, 64], np.float32, name="a")
    zeros = opset13.constant(np.zeros((2, 1, 256), np.float32))
    lengths = opset13.constant(np.full(2, 16, np.int32))
    weights = [opset13.constant(normal(*shape)) for shape in ((1, 1024, 64), (1, 1024, 256), (1, 1024))]
    x = opset13.lstm_sequence(a, zeros, zeros, lengths, *weights, 256, "forward")
    return ovjit.Model([x.output(0)], [a], "recurrent")


def scaled(taps: int = 1) -> ovjit.Model:
    """Convolutions whose outputs have factors, which the compiler multiplies their weights by."""
    a = x = opset13.parameter([1, 256, 9, 9], np.float32, name="a")
    pads = [taps // 2, taps // 2]
    for i in range(4):
        weights = opset13.constant(normal(256, 256, taps, taps) * np.float32(i + 1))
        x = opset13.convolution(x, weights, [1, 1], pads, pads, [1, 1])
        x = opset13.multiply(x, opset13.constant(1 + abs(normal(1, 256, 1, 1))))
        x = opset13.relu(x)
    return ovjit.Model([x], [a], "scaled")


def scaled_planes() -> ovjit.Model:
    """Convolutions whose filters are multiplied by factors, then transformed."""
    return scaled(3)


CASES: dict[str, Callable[[], ovjit.Model]] = {
    build.__name__: build
    for build in (
        winograd,
        halves,
        open_shape,
        integers,
        nibbles,
        few_integers,
        recurrent,
        scaled,
        scaled_planes,
    )
}


def compile_one(name: str, mapped: bool, folder: Path, precision: str = "f32") -> ovjit.CompiledModel:
    """A model in memory, or of a mapped file."""
    core, model = ovjit.Core(), CASES[name]()
    if mapped:
        ovjit.save_model(model, folder / "m.xml", compress_to_fp16=False)
        model = core.read_model(folder / "m.xml")
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})


def bytes_of(name: str) -> int:
    """The bytes of the weights of a model."""
    nodes = CASES[name]().get_ops()
    return sum(op.get_data().nbytes if op.get_element_type() != ovjit.Type.i4 else op.get_byte_size()
               for op in nodes if op.get_type_name() == "Constant")  # fmt: skip


@pytest.fixture(scope="module", params=itertools.product(sorted(CASES), (True, False)), ids=str)
def exported(request, tmp_path_factory) -> tuple[str, int, ovjit.CompiledModel, bytes]:
    """A model of a mapped file or in memory: its name, the bytes of its weights, the compiled model, and its
    blob."""
    name, mapped = request.param
    model = compile_one(name, mapped, tmp_path_factory.mktemp("once"))
    return name, bytes_of(name), model, model.export_model().getvalue()


def feed(name: str) -> np.ndarray:
    shapes = {"winograd": (1, 128, 28, 28), "recurrent": (2, 16, 64)}
    shapes |= dict.fromkeys(("scaled", "scaled_planes"), (1, 256, 9, 9))
    return normal(*shapes.get(name, (2, 1024)))


def test_weights_are_there_once(exported) -> None:
    name, size, model, content = exported
    assert len(content) < (1.1 if name != "scaled_planes" else 1.15) * size + 120_000
    table = parse(Container(memoryview(content)).sections["program"], "program").get("memory")
    planes = name in ("winograd", "scaled_planes")
    assert (table is not None) == planes or name == "halves"
    again = ovjit.Core().import_model(content, "CPU")
    assert again.get_property("LOADED_FROM_CACHE")
    x = feed(name)
    assert again(x)[0].tobytes() == model(x)[0].tobytes()
    assert again.export_model().getvalue() == content
    before, after = model._executable.graph, again._executable.graph
    for mine, other in zip(before.nodes, after.nodes, strict=True):
        for key, value in mine.attrs.items():
            if isinstance(value, (np.ndarray, Unmade)):
                np.testing.assert_array_equal(np.asarray(other.attrs[key]), np.asarray(value), strict=True)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("name, most", [("winograd", 1.02), ("scaled_planes", 1.55)])
def test_filters_in_bf16(name: str, most: float, mapped: bool, tmp_path: Path) -> None:
    """Planes of rounded filters are computed from the graph's; of rounded products from these."""
    model = compile_one(name, mapped, tmp_path, "bf16")
    content = model.export_model().getvalue()
    assert len(content) < most * bytes_of(name) + 120_000
    x = feed(name)
    assert ovjit.Core().import_model(content, "CPU")(x)[0].tobytes() == model(x)[0].tobytes()


def test_strangers_compile_the_same_model(exported, caplog) -> None:
    name, _, model, content = exported
    sections = Container(memoryview(content)).sections
    with caplog.at_level(logging.WARNING, "ovjit"):
        stranger = ovjit.Core().import_model(write_container(sections, STRANGER), "CPU")
    assert "another user's key" in caplog.text
    x = feed(name)
    assert stranger(x)[0].tobytes() == model(x)[0].tobytes()


@pytest.mark.parametrize("mapped", [False, True])
def test_changed_weights_are_refused(mapped: bool, exported, tmp_path: Path) -> None:
    _, _, _, content = exported
    for kind in ("packed", "weights"):
        if forged.place_of(content, kind)[1] < 1 << 20:
            continue
        changed = forged.forge(content, kind, "rectangle", random.Random(SEED))
        path = tmp_path / f"{kind}.blob"
        path.write_bytes(changed)
        with pytest.raises(BlobError, match=f"forged: the tag of its section '{kind}'"):
            model = ovjit.Core().import_model(path if mapped else changed, "CPU")
            assert model._executable.graph  # weights that no import packs are read with the graph


def test_rows_of_strangers_are_checked(exported) -> None:
    """Numbers of a rearrangement, changed one after the other: refused, or another model's weights."""
    _, _, _, content = exported
    sections = dict(Container(memoryview(content)).sections)
    tables = parse(sections["graph"], "graph")
    rows = [v.get("a") or v.get("p") for n in tables["nodes"] for v in n[5].values() if type(v) is dict]
    refused = tried = 0
    panels, *factors = next((row[4:] for row in rows if row and len(row) > 4), [()])
    for part in (*(panels or ()), *factors):
        for place, before in enumerate(part):
            for value in (-1, before + 1, 2**31, 2**63, 1.5, None, [1]):
                part[place] = value
                forgery = write_container({**sections, "graph": dump(tables)}, STRANGER)
                part[place] = before
                tried += 1
                try:
                    ovjit.Core().import_model(forgery, "CPU")
                except RuntimeError as error:
                    assert "blob" in str(error)
                    refused += 1
    assert refused >= tried * 0.9, (refused, tried)


def test_the_runner_is_not_there_if_it_is_shipped(exported) -> None:
    _, _, _, content = exported
    rows = parse(Container(memoryview(content)).sections["program"], "program")["kernels"]
    shipped = native_kernel("runner").find_shipped(host_target()) is not None
    assert any(row[1] == "runner" for row in rows) == (not shipped)


@pytest.mark.parametrize("seed", range(30))
def test_layouts_are_found_by_content(seed: int) -> None:
    """Random panels and permutations of f32, bit by bit; a changed element has no layout."""
    rng = np.random.default_rng([SEED, seed])
    shape = 16 * rng.integers(1, 4, rng.integers(2, 4))
    array = rng.standard_normal(shape, np.float32)
    array.flat[rng.integers(array.size)] = -0.0
    order = rng.permutation(array.ndim)
    permuted = np.ascontiguousarray(array.transpose(order))
    outs = permuted.shape[-1]
    width = int(rng.choice((16, outs)))
    panels = permuted.reshape(-1, *permuted.shape[-2:])
    if seed % 2:  # one group
        panels = permuted.reshape(1, -1, outs)
    packed = panels.reshape(*panels.shape[:2], outs // width, width).transpose(0, 2, 1, 3).reshape(-1).copy()
    row = Layouts((16,)).row_of(array, packed.view(np.uint8))
    assert row is not None, seed
    panel_bytes(row, 4, array.size)
    assert unpack(packed, row).tobytes() == array.tobytes(), seed
    place = rng.integers(1, array.size)
    packed[place] = 0.0 if packed[place] == 0 else -packed[place]
    changed = Layouts((16,)).row_of(array, packed.view(np.uint8))
    assert changed is None, (seed, place)


@pytest.mark.parametrize("seed", range(20))
def test_products_are_divided_exactly(seed: int) -> None:
    rng = np.random.default_rng([SEED, seed])
    shape = (int(rng.integers(1, 40)), int(rng.integers(8, 50)), *rng.integers(1, 4, 2))
    weights = rng.standard_normal(shape, np.float32)
    weights[rng.random(shape) < 0.1] = 0
    factors = rng.uniform(0.01, 100, (shape[0], 1, 1, 1)).astype(np.float32)
    products = weights * factors
    found = find_factors(weights, products)
    assert found is not None, seed
    assert restore(products.reshape(-1), *found).tobytes() == weights.tobytes(), seed
    other = products.copy()
    other.flat[rng.integers(other.size)] += 1
    assert find_factors(weights, other) is None, seed


def test_factors_of_other_rows_are_refused() -> None:
    with pytest.raises(BlobError, match="factors of weights"):
        restore(np.ones(8, np.float32), np.ones(3, np.float32), np.full(4, 0x88, np.uint8))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("mask", [0, 0x88888888])
@pytest.mark.parametrize("change", [weave.AS_THEY_ARE, weave.SPREAD, weave.BYTES, weave.PAIRS])
def test_woven_rows_are_restored(size: int, mask: int, change: int) -> None:
    rng = np.random.default_rng([SEED, size, change])
    source = rng.integers(0, 256, (64 * 3, 640), dtype=np.uint8)
    recipe = Recipe(fill_woven, {"width": 64, "size": size, "change": change, "mask": mask})
    memory = np.empty(source.nbytes, np.uint8)
    fill_woven(memory, source, **recipe.arguments)
    row = inverse_of(recipe, source, memory.nbytes)
    assert panel_bytes(row, 1, source.size) == memory.nbytes
    assert np.array_equal(unpack(memory, row), source.reshape(-1)), SEED


@pytest.mark.parametrize("seed", range(40))
def test_panels_are_restored(seed: int) -> None:
    """Random views of weights, in groups of elements too. Those with padded words have no inverse."""
    rng = np.random.default_rng([SEED, seed])
    groups, runs, depth, outs = (int(n) for n in rng.integers(1, (4, 5, 12, 70)))
    group, kind = (1, "f32") if seed % 2 else (4, "i8")
    order = rng.permutation(4)
    shape = np.array((groups, runs, depth, outs))
    stored = rng.integers(-100, 100, shape[order]).astype(np.float32 if kind == "f32" else np.int8)
    source = stored.transpose(np.argsort(order))
    width, last = 32, -(-(outs % 32) // 16) * 16
    recipe = Recipe(fill_panels, {"kind": kind, "width": width, "last": last, "group": group})
    words = runs * -(-depth // group) * group
    nbytes = groups * words * (outs // width * width + last) * stored.itemsize
    memory = np.empty(nbytes, np.uint8)
    fill_panels(memory, source, **recipe.arguments)
    row = inverse_of(recipe, source, nbytes)
    assert (row is None) == bool(depth % group), (SEED, seed)
    if row is not None:
        found = unpack(memory.view(stored.dtype), row)
        assert np.array_equal(found, stored.reshape(-1)), (SEED, seed)
        if group == 1:
            earlier = [row[0], row[1][:2], *row[2:]]  # as before format 3
            assert panel_bytes(earlier, 4, stored.size) == nbytes
            assert np.array_equal(unpack(memory.view(stored.dtype), earlier), found), (SEED, seed)


@pytest.mark.parametrize("row", [[[2**62, 0], [1, 1], [0, 0]], [[2**62, 0, 1], [1, 0, 1], [0], [0]]])
def test_rows_without_elements_are_refused(row: list) -> None:
    with pytest.raises(BlobError, match="out of range"):
        panel_bytes(row, 1, 0)


def test_exports_have_the_bytes_that_were_verified(exported, tmp_path: Path) -> None:
    _, _, _, content = exported
    if "memory" not in parse(Container(memoryview(content)).sections["program"], "program"):
        pytest.skip("no constant is packed again")
    path = tmp_path / "m.blob"
    path.write_bytes(content)
    model = ovjit.Core().import_model(path, "CPU")
    with open(path, "r+b") as file:  # mapped
        file.seek(forged.place_of(content, "packed")[0])
        file.write(b"\x55" * 64)
    assert model.export_model().getvalue() == content
