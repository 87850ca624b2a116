"""Weights that native code packs: the bytes that NumPy packs, whatever they are stored in."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit import os_threads
from ovjit.codegen.cpu.host import host_target
from ovjit.errors import OvjitError
from ovjit.graph.dtypes import flush_subnormals, numpy_dtype
from ovjit.planning import constants
from ovjit.planning.constants import Constants, Filling, in_threads
from ovjit.tiles import weave, winograd
from ovjit.tiles.pack import tile_width
from tests.support.sweeps import in_turn

SEED = 20261123
WIDTH = tile_width(host_target())


@pytest.mark.parametrize("size", weave.WORD_SIZES)
@pytest.mark.parametrize("panels, words", [(1, 1), (1, 16), (3, 37), (2, 512), (5, 7)])
def test_words_in_their_places(size: int, panels: int, words: int) -> None:
    rng = np.random.default_rng([SEED, size, panels, words])
    wider = rng.integers(0, 256, (panels * WIDTH, words * size + 24), np.uint8)
    for rows in (wider[:, : words * size], np.ascontiguousarray(wider[:, 8 : 8 + words * size])):
        memory = np.full(rows.size + 128, 7, np.uint8)
        weave.weave(rows, memory[64:-64], WIDTH, size)
        want = rows.reshape(panels, WIDTH, words, size).transpose(0, 2, 1, 3).reshape(-1)
        np.testing.assert_array_equal(memory[64:-64], want, err_msg=f"seed {SEED}")
        assert (memory[:64] == 7).all() and (memory[-64:] == 7).all()


def test_what_is_done_to_words() -> None:
    rng = np.random.default_rng(SEED)
    rows = rng.integers(0, 256, (WIDTH, 4 * 33), np.uint8)
    rows.view(np.float32)[:, :3] = np.float32([1e-40, -1e-40, -0.0])
    rows.view(np.float32)[:, 3] = np.nan
    made = np.empty((33, WIDTH), np.uint32)
    weave.weave(rows, made, WIDTH, 4, weave.SPREAD, 0x88888888)
    words = rows.view(np.uint32).T ^ np.uint32(0x88888888)
    nibbles = [words >> np.uint32(4 * i) & np.uint32(15) for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    want = sum(n << np.uint32(4 * i) for i, n in enumerate(nibbles))
    np.testing.assert_array_equal(made, want, err_msg=f"seed {SEED}")
    weave.weave(rows, made, WIDTH, 4, weave.FLUSH)
    plain = np.ascontiguousarray(rows.view(np.float32).T)
    assert flush_subnormals(plain)
    np.testing.assert_array_equal(made, plain.view(np.uint32), err_msg=f"seed {SEED}")


@pytest.mark.parametrize("m", winograd.MATRICES)
@pytest.mark.parametrize("outs, channels", [(WIDTH, 256), (2 * WIDTH + 1, 240), (3, 5)])
def test_transformed_filters(m: int, outs: int, channels: int) -> None:
    rng = np.random.default_rng([SEED, m, outs, channels])
    filters = rng.standard_normal((outs, channels, 3, 3)).astype(np.float32)
    filters[1, 1] = 1e-41
    rest = -(-(outs % WIDTH) // host_target().lanes) * host_target().lanes
    made = np.full(((m + 2) ** 2, channels * (outs // WIDTH * WIDTH + rest)), 7, np.float32)
    winograd.fill_planes(made, filters, m, "f32", 1, WIDTH, rest)
    g = np.array(winograd.MATRICES[m]["G"])
    want = np.einsum("ij,ocjk,lk->ilco", g, filters.astype(np.float64), g).reshape(len(made), channels, outs)
    for first in range(0, outs, WIDTH):
        wide = WIDTH if first + WIDTH <= outs else rest
        panel = made[:, channels * first :][:, : channels * wide].reshape(len(made), channels, wide)
        padded = np.zeros(panel.shape)
        padded[..., : outs - first] = want[..., first : first + WIDTH]
        padded[abs(padded) < 1.2e-38] = 0
        np.testing.assert_allclose(panel, padded, rtol=1e-7, atol=1e-14, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("m", winograd.MATRICES)
@pytest.mark.parametrize("kind, group, source", [("bf16", 2, "f32"), ("bf16", 2, "bf16"), ("f32", 1, "bf16")])
def test_transformed_filters_of_halves(monkeypatch, m: int, kind: str, group: int, source: str) -> None:
    """Native code is NumPy's way, but for the order of sums: near 0, or where it decides a rounding."""
    rng, outs, channels = np.random.default_rng([SEED, m, group]), 2 * WIDTH + 1, 240
    filters = rng.standard_normal((outs, channels, 3, 3)).astype(numpy_dtype(source))
    filters[1, 1], filters[2, 2] = 1e-41, np.nan
    rest = -(-1 // host_target().lanes) * host_target().lanes
    shape = (m + 2) ** 2, channels * (2 * WIDTH + rest)
    native, plain = (np.full(shape, 7, numpy_dtype(kind)) for _ in range(2))
    used: list[int] = []
    transform = winograd._transform
    monkeypatch.setattr(winograd, "_transform", lambda *args: used.append(1) or transform(*args))
    winograd.fill_planes(native, filters, m, kind, group, WIDTH, rest)
    assert used
    monkeypatch.setattr(winograd, "_NATIVE_BYTES", 1 << 40)
    winograd.fill_planes(plain, filters, m, kind, group, WIDTH, rest)
    actual, desired = native.astype(np.float64), plain.astype(np.float64)
    ulp = 2.0**-7 if kind == "bf16" else 2.0**-22
    np.testing.assert_allclose(actual, desired, rtol=ulp, atol=1e-14, err_msg=f"seed {SEED}")
    assert np.mean(abs(actual - desired) > 1e-14) < 1e-3, f"seed {SEED}"


def test_bytes_and_pairs_of_four_words() -> None:
    rng = np.random.default_rng(SEED)
    rows = rng.integers(0, 256, (WIDTH, 4 * 33), np.uint8)
    spread, made = np.empty((33, WIDTH), np.uint32), np.empty((33, WIDTH), np.uint32)
    weave.weave(rows, spread, WIDTH, 4, weave.SPREAD)
    for change, size in ((weave.BYTES, 1), (weave.PAIRS, 2)):
        weave.weave(rows, made, WIDTH, 4, change)
        want = spread.view(np.uint8).reshape(33, -1, 4, 4 // size, size).swapaxes(2, 3).reshape(33, -1)
        np.testing.assert_array_equal(made.view(np.uint8), want, err_msg=f"seed {SEED}")


def test_subnormal_halves() -> None:
    rng = np.random.default_rng(SEED)
    rows = rng.integers(0, 256, (WIDTH, 4 * 33), np.uint8)
    rows.view(np.uint16)[:, :6] = [0x0001, 0x807F, 0x0080, 0x8000, 0x7FC1, 0x8001]
    made = np.empty((33, WIDTH), np.uint32)
    weave.weave(rows, made, WIDTH, 4, weave.FLUSH_HALVES)
    words = rows.view(np.uint16)
    want = np.where(words & 0x7F80, words, words & 0x8000).view(np.uint32).T
    np.testing.assert_array_equal(made, want, err_msg=f"seed {SEED}")


@pytest.mark.parametrize(
    "rows, panels, width, message",
    [
        ((WIDTH + 1, 8), (WIDTH + 1) * 8, WIDTH, "cannot be packed in panels"),
        ((WIDTH, 6), WIDTH * 6, WIDTH, "cannot be packed in panels"),
        ((WIDTH, 8), WIDTH * 4, WIDTH, "bytes of panels"),
    ],
)
def test_sizes_are_checked(rows, panels, width, message) -> None:
    with pytest.raises(OvjitError, match=message):
        weave.weave(np.zeros(rows, np.uint8), np.zeros(panels, np.uint8), width, 4)


def stored_weights(kind: str, outs: int, depth: int, group: int, rng: np.random.Generator):
    """[outs, depth] as `kind`, with a scale for each group."""
    blocks = (outs, depth // group, group)
    if kind == "f16":
        return ops.convert(ops.constant(rng.standard_normal((outs, depth)).astype(np.float16)), "f32")
    if kind in ("u4", "i4", "nf4", "f4e2m1"):
        raw = rng.integers(0, 256, outs * depth // 2, np.uint8)
        whole = ov.op.Constant(ov.Tensor(raw, ov.Shape(list(blocks)), getattr(ov.Type, kind)))
    elif kind.startswith("f8"):
        whole = ops.convert(ops.constant(rng.standard_normal(blocks).astype(np.float32)), kind)
        whole = ops.constant(ov.compile_model(ov.Model([whole], []), "CPU")([])[0])
    else:
        low, high = (-128, 128) if kind == "i8" else (0, 256)
        whole = ops.constant(rng.integers(low, high, blocks).astype(np.int8 if kind == "i8" else np.uint8))
    made = ops.convert(whole, "f32")
    if kind in ("u8", "u4"):
        zero = rng.integers(0, 16, (*blocks[:2], 1)).astype(np.uint8)
        made = ops.subtract(made, ops.convert(ops.constant(zero), "f32"))
    scale = rng.uniform(0.5, 1, (*blocks[:2], 1)).astype(np.float16).astype(np.float32)
    made = ops.multiply(made, ops.constant(scale))
    return ops.reshape(made, ops.constant(np.array([outs, depth])), False)


CASES = [
    *((kind, outs, depth, group) for kind in ("u8", "i8", "u4", "i4", "f8e4m3", "nf4", "f4e2m1")
      for outs, depth, group in ((96, 704, 32), (1025, 64, 64), (256, 264, 24), (300, 231 * 2, 22))),
    ("f16", 1031, 1024, 1024), ("f16", 1024, 1025, 1025),
]  # fmt: skip


@pytest.mark.parametrize(
    "case, mode", in_turn(list(itertools.product(CASES, ["PERFORMANCE", "ACCURACY"])), 3)
)
def test_packed_bytes_are_the_same(case, mode, monkeypatch, tmp_path) -> None:
    """By quantized rows and without, with groups that are filled up and a last panel that is not full. By
    default every third pair of a mode and a case, which leaves out no mode and no type."""
    kind, outs, depth, group = case
    seed = [SEED, outs, depth]
    memory, calls = [], []
    native = weave.weave
    monkeypatch.setattr(weave, "weave", lambda *a: calls.append(a) or native(*a))
    x = ops.parameter([-1, depth], np.float32)
    weights = stored_weights(kind, outs, depth, group, np.random.default_rng(seed))
    path = tmp_path / "model.xml"  # a file's numbers of 4 bits are packed from its bytes
    ov.save_model(ov.Model([ops.matmul(x, weights, False, True)], [x]), path, compress_to_fp16=False)
    for worth in (1, 1 << 60):
        monkeypatch.setattr(weave, "WORTH", worth)
        model = ov.Core().read_model(path)
        config = {"EXECUTION_MODE_HINT": mode, "INFERENCE_PRECISION_HINT": "f32"}
        memory.append(ov.compile_model(model, "CPU", config)._executable.program.memory.copy())
    assert memory[0].size >= outs * depth // 2
    assert calls or group % 8 or depth % 4, "none by native code"
    np.testing.assert_array_equal(memory[0], memory[1], err_msg=f"seed {seed}")


@pytest.mark.parametrize("hint", ["f32", "bf16"])
@pytest.mark.parametrize("outs, depth", [(520, 515), (77, 1024), (512, 512)])
def test_packed_reals_are_the_same(outs, depth, hint, monkeypatch) -> None:
    seed = [SEED, outs, depth]
    weights = np.random.default_rng(seed).standard_normal((outs, depth), np.float32)
    weights[::7, ::5] = [1e-39]
    weights[1::7, ::5] = -1e-39
    memory = []
    for worth in (1, 1 << 60):
        monkeypatch.setattr(weave, "WORTH", worth)
        x = ops.parameter([-1, depth], np.float32)
        model = ov.Model([ops.matmul(x, ops.constant(weights), False, True)], [x])
        compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        memory.append(compiled._executable.program.memory.copy())
    np.testing.assert_array_equal(memory[0], memory[1], err_msg=f"seed {seed}")


def test_tasks_in_threads(monkeypatch) -> None:
    """Each runs once; the first error comes when none runs any more; without threads the caller runs them."""
    done: list[int] = []
    size = 1 << 22
    for start in (os_threads.start, None):
        if start is None:
            monkeypatch.setattr(
                os_threads, "start", lambda *a: (_ for _ in ()).throw(RuntimeError("no thread"))
            )
        done.clear()
        in_threads([(size if i % 2 else 1, lambda i=i: done.append(i)) for i in range(20)])
        assert sorted(done) == list(range(20))

    def fail() -> None:
        raise ValueError("seven")

    before = threading.active_count()
    with pytest.raises(ValueError, match="seven"):
        in_threads([(size, fail if i == 7 else lambda: None) for i in range(20)])
    assert threading.active_count() == before


def test_packing_in_background(monkeypatch) -> None:
    """Threads write large constants while the caller goes on. They are complete when the context ends, and
    its errors come from there; after an error of the caller no task begins."""
    monkeypatch.setattr(constants.cores, "usable_cores", lambda: (2, "test"))
    gate, began = threading.Event(), threading.Event()
    array = np.arange(1 << 22, dtype=np.float32)

    def wait(memory: np.ndarray) -> None:
        began.set()
        assert gate.wait(60)
        np.copyto(memory.view(np.float32), array)

    with constants.pack_in_background():
        one, other = Constants(), Constants()
        one.add(Filling(array.nbytes, wait))
        other.add(Filling(array.nbytes, wait))
        memories = [one.materialize(in_background=True), other.materialize(in_background=True)]
        assert began.wait(60)
        gate.set()
    for memory in memories:
        np.testing.assert_array_equal(memory[: array.nbytes].view(np.float32), array)

    def fail(memory: np.ndarray) -> None:
        raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"), constants.pack_in_background():
        one = Constants()
        one.add(Filling(array.nbytes, fail))
        one.materialize(in_background=True)
    with pytest.raises(KeyError), constants.pack_in_background():
        one = Constants()
        one.add(Filling(array.nbytes, wait))
        one.materialize(in_background=True)
        raise KeyError
    assert not [thread for thread in threading.enumerate() if thread.name == "ovjit-packing"]
