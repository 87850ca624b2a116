"""Plans for open shapes are kept beside the blob that they belong to, and belong to no other."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest

import ovjit
from ovjit import engine, opset8
from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.targets import target_of
from ovjit.disk import kernel_cache as storage
from ovjit.disk import notice
from ovjit.readers.ir.writer import to_bytes
from ovjit.storage import kept_models, late_writes, origins, plans
from tests.support.run import printed

SEED = 11


@pytest.fixture
def kept(monkeypatch, tmp_path) -> pathlib.Path:
    """Where models are kept unasked in this test."""
    monkeypatch.setattr(storage, "_default", storage.KernelCache(tmp_path / "cache"))
    monkeypatch.setattr(notice, "_topics", {})
    monkeypatch.setattr(origins, "SETTLED_SECONDS", 0.0)
    monkeypatch.setenv("OVJIT_SKIP", "trace_ahead")  # traced plans are in the blob: test_traced_ahead.py
    monkeypatch.setattr(late_writes, "write_later", lambda executable, write: write(executable))
    for name in kept_models._WATCHING:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "models"


def write(path: pathlib.Path, seed: int = SEED) -> np.ndarray:
    """softmax(a @ w + b) over any number of rows of 64; returns w."""
    w = np.random.default_rng(seed).normal(size=(64, 24)).astype(np.float32)
    a = opset8.parameter([-1, 64], np.float32, name="a")
    b = opset8.parameter([-1, 24], np.float32, name="b")
    y = opset8.softmax(opset8.add(opset8.matmul(a, opset8.constant(w), False, False), b), 1, name="y")
    xml, weights = to_bytes(ovjit.Model([y], [a, b]))
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(weights)
    return w


def rows(count: int, others: int | None = None) -> list[np.ndarray]:
    """Inputs with so many rows; `others`: those of b, which may be 1."""
    rng = np.random.default_rng(count)
    shapes = (count, 64), (count if others is None else others, 24)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def right(result: np.ndarray, x: list[np.ndarray], w: np.ndarray) -> bool:
    total = x[0].astype(np.float64) @ w + x[1]
    e = np.exp(total - total.max(1, keepdims=True))
    return bool(np.abs(result - e / e.sum(1, keepdims=True)).max() < 1e-5)


def files(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The only blob in a folder, and the plans beside it."""
    (blob,) = folder.glob("*.blob")
    return blob, blob.with_suffix(".plans")


def planned(compiled: ovjit.CompiledModel) -> bool:
    """Whether the compiler had to make plans for a model that came from a blob."""
    return compiled._executable.program._compiled is not None


@pytest.mark.parametrize("named", [False, True], ids=["unasked", "CACHE_DIR"])
def test_a_known_shape_is_not_planned_again(named: bool, kept, tmp_path) -> None:
    w = write(tmp_path / "m.xml")
    folder = tmp_path / "named" if named else kept
    config = {"CACHE_DIR": str(folder)} if named else {}
    x = rows(3)
    first = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", config)
    blob, beside = files(folder)
    assert not beside.exists()
    want = first(x)[0]
    assert right(want, x, w) and beside.exists()
    again = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", config)
    assert again(x)[0].tobytes() == want.tobytes() and not planned(again)
    for count in (4, 5, 7):  # what the trace is a function of
        x = rows(count)
        assert again(x)[0].tobytes() == first(x)[0].tobytes(), count
        assert right(again(x)[0], x, w), count
    assert not planned(again) and first._executable.program.traces.total == 1


def test_kernels_with_the_same_code_go_by_several_names(kept, tmp_path) -> None:
    """A convolution and a product are one kernel: a blob has it once, and plans know it by both names."""
    w = np.random.default_rng(SEED).normal(size=(24, 64)).astype(np.float32)
    image = opset8.parameter([-1, 64, 5, 5], np.float32)
    row = opset8.parameter([-1, 64], np.float32)
    filters = opset8.constant(w[:, :, None, None])
    outputs = [
        opset8.convolution(image, filters, [1, 1], [0, 0], [0, 0], [1, 1]),
        opset8.matmul(row, opset8.constant(w), False, True),
    ]
    ovjit.save_model(ovjit.Model(outputs, [image, row]), tmp_path / "m.xml", False)
    rng = np.random.default_rng(SEED + 1)
    x = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 64, 5, 5), (3, 64))]
    first = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    kernels = {kernel.symbol(): kernel.name for kernel in first._executable.program.kernels}
    want = list(first(x).values())
    traced = {s.kernel.name for trace in first._executable.program.traces for s in trace.steps}
    assert traced - set(kernels.values()), (traced, kernels)  # or this test is of nothing
    again = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    assert [y.tobytes() for y in again(x).values()] == [y.tobytes() for y in want] and not planned(again)
    assert np.abs(want[1] - x[1] @ w.T).max() < 1e-4
    profiled = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", {"PERF_COUNT": True})
    request = profiled.create_infer_request()
    request.infer(x)
    assert traced <= {step.exec_type for step in request.get_profiling_info()}


def test_programs_for_another_target_are_kept(kept, monkeypatch, tmp_path) -> None:
    """Their kernels' names are of that target. Other properties make another blob."""
    lesser = target_of("generic", (), machine.name())
    monkeypatch.setattr(engine, "without_matrix_unit", lambda target: lesser)
    w = write(tmp_path / "m.xml")
    x = rows(3)
    for config in ({"OVJIT_MATRIX_UNIT": False}, {}):
        first = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", config)
        want = first(x)[0]
        assert right(want, x, w) and (first._executable.program.context.target is lesser) is bool(config)
        again = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", config)
        assert again(x)[0].tobytes() == want.tobytes() and not planned(again), config
    assert len(list(kept.glob("*.blob"))) == len(list(kept.glob("*.plans"))) == 2


def test_plans_that_are_new_join_those_that_are_kept(kept, tmp_path) -> None:
    w = write(tmp_path / "m.xml")
    ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")(rows(3))
    _, beside = files(kept)
    small = beside.read_bytes()
    second = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    x = rows(5, 1)  # which broadcasts, and no guard lets through
    want = second(x)[0]
    assert right(want, x, w) and planned(second) and len(beside.read_bytes()) > len(small)
    third = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    assert third(x)[0].tobytes() == want.tobytes()
    assert right(third(rows(3))[0], rows(3), w)
    assert not planned(third)


def damaged(content: bytes) -> bytes:
    at = len(content) - 40
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("how", ["damaged", "cut", "another's", "open to others"])
def test_other_plans_are_not_used(how: str, kept, tmp_path) -> None:
    w = write(tmp_path / "m.xml")
    write(tmp_path / "other.xml", SEED + 1)
    ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")(rows(3))
    blob, beside = files(kept)
    good = beside.read_bytes()
    if how == "another's":  # genuine, and of the same kernels and shapes
        shutil.move(blob, tmp_path / "blob")
        ovjit.Core().compile_model(tmp_path / "other.xml", "CPU")(rows(3))
        other, others = files(kept)
        shutil.move(tmp_path / "blob", blob)
        beside.write_bytes(others.read_bytes())
        other.unlink()
    elif how == "open to others":
        beside.chmod(0o666)
    else:
        beside.write_bytes(damaged(good) if how == "damaged" else good[: len(good) // 2])
    again = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    assert right(again(rows(3))[0], rows(3), w) and planned(again)
    assert beside.read_bytes() == good and beside.stat().st_mode & 0o077 == 0
    assert not planned_anew(tmp_path / "m.xml")


def planned_anew(path: pathlib.Path) -> bool:
    compiled = ovjit.Core().compile_model(path, "CPU")
    compiled(rows(3))
    return planned(compiled)


def test_a_trace_survives_its_facts(kept, tmp_path) -> None:
    """What is read back makes the words that the compiler's own trace makes, for many shapes."""
    write(tmp_path / "m.xml")
    first = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    first(rows(3))
    again = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU")
    again(rows(3))
    (mine,), (theirs,) = first._executable.program.traces, again._executable.program.traces
    facts, others = mine.facts(), theirs.facts()
    assert facts is not None and others is not None and facts.keys() == others.keys()
    assert all(np.array_equal(fact, others[name]) for name, fact in facts.items())
    for count in (1, 2, 3, 9, 40):
        one, other = (trace.at(((count, 64), (count, 24))) for trace in (mine, theirs))
        assert (one is None) == (other is None), count
        if one is not None and other is not None:
            assert one.block.tolist() == other.block.tolist(), count
            assert one.chunks.tolist() == other.chunks.tolist(), count
            assert (one.output_shapes, one.arena_size) == (other.output_shapes, other.arena_size), count


def test_encrypted_models_have_no_plans_beside_them(kept, tmp_path) -> None:
    write(tmp_path / "m.xml")

    def turned(text: str) -> str:
        return text[::-1]

    config = {"CACHE_DIR": str(tmp_path / "named"), "CACHE_ENCRYPTION_CALLBACKS": [turned, turned]}
    for _ in "ab":
        ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", config)(rows(3))
    assert list((tmp_path / "named").glob("*.blob")) and not list((tmp_path / "named").glob("*.plans"))


START = """
import sys, numpy as np, ovjit
compiled = ovjit.Core().compile_model(sys.argv[1], "CPU")
compiled([np.zeros((3, 64), np.float32), np.zeros((3, 24), np.float32)])
from ovjit.storage import late_writes
late_writes.finish()
print(*sorted(name for name in sys.modules if name.startswith(("ovjit", "ovjit_ops", "numba", "llvmlite"))))
"""


def test_a_start_with_open_shapes_needs_no_planner(tmp_path) -> None:
    write(tmp_path / "m.xml")
    unset = dict.fromkeys(kept_models._WATCHING)
    first, again = (
        set(printed("-c", START, tmp_path / "m.xml", **unset, OVJIT_CACHE=str(tmp_path / "cache")).split())
        for _ in "ab"
    )
    spared = {"ovjit_ops", "ovjit.planning.plan", "ovjit.compiler.program", "ovjit.codegen.function"}
    assert spared <= first and not again & spared
    assert plans.__name__ in again


def write_cache(path: pathlib.Path, batch: int) -> None:
    """The cumulative rows of a variable that grows by what each step brings, in two layers. Of an open batch
    (-1), what it begins with follows from the input's shape."""
    a = opset8.parameter([batch, -1, 8], np.float32, name="a")
    outputs, sinks = [], []
    first = opset8.constant(np.array([0]))
    many = opset8.constant(np.array([1])) if batch == 1 else opset8.gather(opset8.shape_of(a), first, first)
    for layer in ("one", "two"):
        shape = opset8.concat([many, opset8.constant(np.array([0, 8]))], 0)
        nothing = opset8.broadcast(opset8.constant(np.float32(0)), shape)
        value = ovjit.opset6.read_value(nothing, layer, np.float32, ovjit.PartialShape([batch, -1, 8]))
        both = opset8.concat([value, opset8.multiply(a, opset8.constant(np.float32(2)))], 1)
        sinks.append(ovjit.opset6.assign(both, layer))
        outputs.append(opset8.softmax(opset8.add(both, opset8.constant(np.float32(1))), 2))
    xml, weights = to_bytes(ovjit.Model([opset8.result(y) for y in outputs], sinks, [a]))
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(weights)


@pytest.mark.parametrize("batch", [1, -1])
def test_plans_of_variables_that_grow_are_kept(batch: int, kept, tmp_path) -> None:
    """Plans of one process for a cache with capacity are not made again by a later one: neither for the first
    step nor those after it, nor where the cache exceeds its capacity, nor for its initial value."""
    write_cache(tmp_path / "m.xml", batch)
    steps = [np.random.default_rng(SEED).normal(size=(1, n, 8)).astype(np.float32) for n in (5, 1, 1, 3, 900)]

    def answers() -> tuple[list[bytes], bool]:
        compiled = ovjit.Core().compile_model(tmp_path / "m.xml", "CPU", {"CACHE_DIR": str(tmp_path / "d")})
        request = compiled.create_infer_request()
        results = (request.infer([x]) for x in steps)
        got = [b"".join(made[i].tobytes() for i in range(2)) for made in results]
        programs = plans._programs(compiled._executable)
        assert len(programs) == 2
        return got, any(getattr(program, "_compiled", True) is not None for program in programs)

    first, _ = answers()
    again, anew = answers()
    assert again == first and not anew
    rows = np.concatenate(steps, 1).astype(np.float64) * 2 + 1
    e = np.exp(rows - rows.max(2, keepdims=True))
    want = (e / e.sum(2, keepdims=True)).astype(np.float32)
    got = np.frombuffer(first[-1], np.float32).reshape(2, *want.shape)
    assert np.abs(got - want).max() < 1e-5
