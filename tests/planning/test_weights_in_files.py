"""Weights of files: converted where they are packed, and not resident beside what has been packed of them."""

from __future__ import annotations

import gc
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.codegen.cpu.formats import BF16
from ovjit.codegen.cpu.host import host_target
from ovjit.graph.converted import Converted
from ovjit.planning.constants import release_pages
from ovjit.tiles import weave
from ovjit.tiles.lowering import Tiled
from ovjit.tiles.pack import pack_panels, tile_width

SEED = 20261121
WIDE, LAYERS = 512, 3


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers of [512, 512], the last of which has the first one's weights, and a table of f16."""
    rng = np.random.default_rng(SEED)
    x = ops.parameter([-1, WIDE], np.float32)
    weights = [ops.constant(rng.standard_normal((WIDE, WIDE), np.float32) / 16) for _ in range(LAYERS)]
    y = x
    for w in (*weights, weights[0]):
        y = ops.tanh(ops.matmul(y, w, False, True))
    half = ops.constant(rng.standard_normal((WIDE, WIDE)).astype(np.float16) / 16)
    y = ops.matmul(y, ops.convert(half, "f32"), False, False)
    out = tmp_path_factory.mktemp("weights") / "model.xml"
    ov.save_model(ov.Model([y], [x]), out, compress_to_fp16=False)
    return out


def compiled(model, hint: str):
    return ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})


def resident(file: Path) -> int:
    """The bytes of mapped files of that name that this process has resident."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(file.name)
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.parametrize("hint", ["f32", "bf16"])
def test_answers_are_those_of_weights_in_memory(path, hint, monkeypatch) -> None:
    """The same bits whether weights are converted at once or when they are packed; and each packed once."""
    made = []
    array = Converted.array
    monkeypatch.setattr(Converted, "array", lambda self: made.append(self) or array(self))
    lazy = compiled(ov.Core().read_model(path), hint)
    program = lazy._executable.program
    constants = [n.attrs["value"] for n in program.graph.nodes if n.op.name == "Constant"]
    count = sum(isinstance(c, Converted) for c in constants)
    in_bf16 = lazy.get_property("INFERENCE_PRECISION_HINT") == ov.Type.bf16  # f32 on CPUs without AVX-512
    assert count > LAYERS if in_bf16 else count == 1
    assert not made, "somebody asked for a copy"
    places = {low.weights.at for low in program.lowerings if isinstance(low, Tiled)}
    assert len(places) == LAYERS + 1
    core = ov.Core()
    core.set_property({"ENABLE_MMAP": False})
    monkeypatch.setattr("ovjit.graph.converted.stays", lambda array: False)
    eager = compiled(core.read_model(path), hint)
    x = np.random.default_rng(SEED).standard_normal((5, WIDE)).astype(np.float32)
    np.testing.assert_array_equal(lazy(x)[0], eager(x)[0], err_msg=f"seed {SEED}")


def test_a_converted_constant_that_is_read_as_it_is(path) -> None:
    """A reader that packs nothing gets the rounded numbers, at open and at static shapes."""
    rng = np.random.default_rng(SEED)
    table = rng.standard_normal((256, 256), np.float32)
    held = np.frombuffer(table.tobytes(), np.float32).reshape(table.shape)  # memory of another owner
    converted = Converted(held, [np.dtype("float16"), np.dtype("float32")])
    from ovjit.engine import compile_graph
    from ovjit.graph.graph import Builder
    from ovjit.graph.shapes import Interval

    for rows in (256, Interval(1, None)):
        b = Builder()
        x = b.add("Parameter", (), {"shape": (rows, 256), "element_type": "f32"}).output
        constant = b.constant(converted)
        out = b.add("Add", [x, constant]).output
        job = compile_graph(b.finish([out, constant]), {}).new_job()
        job.set_input(0, table)
        job.run()
        rounded = table.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(job.outputs[0], table + rounded, err_msg=f"seed {SEED}")
        np.testing.assert_array_equal(job.outputs[1], rounded, err_msg=f"seed {SEED}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")
@pytest.mark.parametrize("hint", ["f32", "bf16"])
def test_packed_weights_are_not_resident_twice(path, hint) -> None:
    model = ov.Core().read_model(path)
    file = path.with_suffix(".bin")
    whole = sum(n.data.sum() for n in model.get_ops() if n.get_type_name() == "Constant")
    gc.collect()  # maps of models before this one
    size, before = file.stat().st_size, resident(file)
    assert before > 0.9 * size
    ready = compiled(model, hint)
    assert resident(file) < before - 0.7 * size
    again = sum(n.data.sum() for n in model.get_ops() if n.get_type_name() == "Constant")
    assert whole == again, "the model's own constants have changed"
    assert ready(np.ones((2, WIDE), np.float32))[0].shape == (2, WIDE)


def test_pages_of_other_memory_stay() -> None:
    """Ordinary arrays, views of them, and pieces smaller than a page are left alone."""
    square = np.arange(1 << 16).reshape(256, 256)
    for array in (square, square.T[3:], square[:0], np.frombuffer(b"abc" * 9999, np.uint8)):
        before = array.copy()
        release_pages(array)
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("kind", ["private", "shared", "anonymous"])
def test_what_was_written_to_a_mapping_stays(kind, tmp_path) -> None:
    """The only copy of what was written to a private mapping are its pages."""
    square = np.random.default_rng(SEED).standard_normal((256, 256), np.float32)
    if kind == "anonymous":
        mapped = np.frombuffer(mmap.mmap(-1, square.nbytes), np.float32).reshape(square.shape)
    else:
        np.zeros_like(square).tofile(tmp_path / "weights")
        mode = {"private": "c", "shared": "r+"}[kind]
        mapped = np.memmap(tmp_path / "weights", np.float32, mode, shape=square.shape)
    mapped[:] = square
    x = ops.parameter([2, 256], np.float32)
    product = ops.matmul(x, ops.constant(mapped, shared_memory=True), False, False)
    ov.compile_model(ov.Model([product], [x]), "CPU")
    np.testing.assert_array_equal(mapped, square, err_msg=f"seed {SEED}")


def test_panels_of_bf16_are_the_same_bytes() -> None:
    """Packed from f32 as from a copy in bf16, on any CPU; an odd depth, and matrices of a batch."""
    import ml_dtypes

    rng = np.random.default_rng(SEED)
    weights = rng.standard_normal((2, 1, 37, 41), np.float32).swapaxes(-1, -2)
    converted = Converted(weights, [np.dtype(ml_dtypes.bfloat16)])
    made = []
    for given, by in ((weights, converted), (converted.array(), None)):
        filling, _ = pack_panels(given, host_target(), BF16, by)
        memory = np.zeros(filling.nbytes, np.uint8)
        filling.fill(memory)
        made.append(memory)
    np.testing.assert_array_equal(*made, err_msg=f"seed {SEED}")
    assert made[0].any()


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_rows_are_rounded_to_bf16_as_numpy_does(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Native code writes the panels of rows: NaN, infinities, numbers between two of bf16, subnormals."""
    import ml_dtypes

    rng = np.random.default_rng(SEED)
    bf16 = np.dtype(ml_dtypes.bfloat16)
    real = rng.standard_normal((512, 1024)).astype(np.float32)
    real[:64] = rng.integers(0, 1 << 32, (64, 1024), np.uint64).astype(np.uint32).view(np.float32)
    real[64:96] *= np.float32(1e-38)
    real[96, :4] = [np.inf, -np.inf, np.nan, -0.0]
    with np.errstate(over="ignore", invalid="ignore"):
        rows = real.astype(bf16 if stored == "bfloat16" else stored)
    converted = Converted(rows.T, [np.dtype(np.float32), bf16])
    assert converted.through == (bf16,) or stored == "float32"
    converted = Converted(rows.T, [bf16])
    made, woven, wove = [], [], weave.weave
    monkeypatch.setattr(weave, "weave", lambda *given: woven.append(given) or wove(*given))
    with np.errstate(invalid="ignore"):
        rounded = np.ascontiguousarray(rows.astype(bf16).T)
    for given, by in ((rows.T, converted), (rounded, None)):
        filling, _ = pack_panels(given.reshape(1, 1, 1024, 512), host_target(), BF16, by)
        memory = np.zeros(filling.nbytes, np.uint8)
        filling.fill(memory)
        made.append(memory)
        assert bool(woven) or not weave.weaves(4, tile_width(host_target()))
    np.testing.assert_array_equal(*made, err_msg=f"seed {SEED}")
