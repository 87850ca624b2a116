"""Any thread may plan for any shapes: what a lowering keeps while it plans is not another thread's."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import ovjit as ov
import ovjit_ops
from ovjit.compiler import program
from ovjit.engine import compile_graph
from ovjit.graph.graph import Builder
from ovjit.graph.shapes import ANY
from ovjit.planning.lower import Lowering
from tests.support import paged_op
from tests.support.run import run_job
from tests.support.threads import run_threads, start_and_join

SEED = 20261125


def test_threads_plan_different_shapes_at_once() -> None:
    """Products pack by their columns, concatenations place their parts: both depend on the shape planned."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY, ANY), "element_type": "f32"}).output
    y = b.add("Parameter", (), {"shape": (ANY, ANY), "element_type": "f32"}).output
    values = [b.add("Relu", [x]).output]
    for _ in range(6):
        product = b.add("MatMul", [x, y]).output
        values.append(b.add("Relu", [product]).output)
    executable = compile_graph(b.finish([b.add("Concat", values, {"axis": 1}).output]), {})
    wrong: list[str] = []

    def infer(seed: int) -> None:
        rng = np.random.default_rng([SEED, seed])
        job = executable.new_job()
        for _ in range(12):
            m, k, n = (int(v) for v in rng.integers(1, 70, 3))
            a = rng.standard_normal((m, k)).astype(np.float32)
            c = rng.standard_normal((k, n)).astype(np.float32)
            run_job(job, [a, c])
            want = np.concatenate([np.maximum(a, 0)] + [np.maximum(a @ c, 0)] * 6, 1)
            if not np.allclose(job.outputs[0], want, atol=1e-4):
                wrong.append(f"{(m, k, n)} seed {SEED}")

    run_threads([threading.Thread(target=infer, args=(i,)) for i in range(4)], interval=1e-5)
    assert not wrong


def classes(base: type) -> Iterator[type]:
    for one in base.__subclasses__():
        yield one
        yield from classes(one)


def test_lowerings_do_not_change_while_they_plan() -> None:
    """A lowering serves all threads: what it needs for one plan is an argument. `planner` is one of each
    method that belongs to planning."""
    for found in pkgutil.walk_packages(ovjit_ops.__path__, "ovjit_ops."):
        importlib.import_module(found.name)
    changed, seen = [], 0
    for one in set(classes(Lowering)):
        for name, method in vars(one).items():
            if not inspect.isfunction(method) or "planner" not in inspect.signature(method).parameters:
                continue
            seen += 1
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
                stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                if stored and isinstance(node.value, ast.Name) and node.value.id == "self":
                    changed.append(f"{one.__name__}.{name} sets {node.attr}")
    assert seen > 100 and not changed, changed


def test_threads_plan_paged_attention_at_once() -> None:
    """Each thread has its own request and caches. Results are those of a call alone, to the bit."""
    compiled = ov.Core().compile_model(paged_op.model(ov), "CPU", {"KV_CACHE_PRECISION": "f32"})
    rng = np.random.default_rng(SEED)
    calls = [[(0, int(n), list(range(4)))] for n in rng.integers(1, 100, 12)]
    data = [paged_op.rows_of(rng, rows[0][1]) for rows in calls]
    wrong: list[str] = []
    made: list[list[np.ndarray]] = [[] for _ in range(4)]

    def infer(number: int) -> None:
        try:
            run = paged_op.Run.of(ov, compiled)
            made[number] = [run(rows, given)[0] for rows, given in zip(calls, data, strict=True)]
        except Exception as error:
            wrong.append(repr(error))

    run_threads([threading.Thread(target=infer, args=(i,)) for i in range(4)], interval=1e-5)
    assert not wrong, (SEED, wrong)
    alone = paged_op.Run.of(ov, compiled)
    for i, (rows, given) in enumerate(zip(calls, data, strict=True)):
        want = alone(rows, given)[0]
        assert all(np.array_equal(found[i], want) for found in made), (SEED, i)


@pytest.mark.parametrize("models", [1, 3], ids=["one model", "several"])
def test_plans_are_made_in_parallel(models, monkeypatch) -> None:
    """Every thread is in the midst of its plan at the same time: none waits for another one's."""
    threads = 3
    executables = []
    for _ in range(models):
        b = Builder()
        x = b.add("Parameter", (), {"shape": (ANY, ANY), "element_type": "f32"}).output
        y = b.add("MatMul", [b.add("Relu", [x]).output, x], {"transpose_b": True}).output
        executables.append(compile_graph(b.finish([b.add("Concat", [y, y], {"axis": 1}).output]), {}))
    meeting = threading.Barrier(threads)
    real = program.concrete_types

    def meet(graph, shapes):
        meeting.wait(30)
        types = real(graph, shapes)
        meeting.wait(30)
        return types

    monkeypatch.setattr(program, "concrete_types", meet)
    failed: list[BaseException] = []
    tables = {}

    def plan(i: int) -> None:
        try:
            tables[i] = executables[i % models].table(((4 + i, 3),))
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=plan, args=(i,), daemon=True) for i in range(threads)]
    start_and_join(workers)
    assert not failed, failed
    monkeypatch.undo()
    for i, table in tables.items():
        a = np.random.default_rng([SEED, i]).standard_normal((4 + i, 3)).astype(np.float32)
        job = executables[i % models].new_job()
        run_job(job, [a])
        assert job._table is table
        np.testing.assert_allclose(job.outputs[0], np.tile(np.maximum(a, 0) @ a.T, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("open_shape", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(1, 64, 112, 112), (3, 128, 768), (7, 4096, 5), (2, 1 << 18), (1 << 19,), (300_007,), (100_003, 3)],
)
def test_long_rows_are_shared_out(shape, open_shape) -> None:
    """Whatever the extents, and if they are lists: a row that merges to one is cut into parts that threads
    claim. What parts of 64 elements leave is a step of its own."""
    b = Builder()
    declared = (ANY, *shape[1:]) if open_shape else shape
    x = b.add("Parameter", (), {"shape": declared, "element_type": "f32"}).output
    job = compile_graph(b.finish([b.add("Sigmoid", [x], {}).output]), {}).new_job()
    data = np.random.default_rng(5).standard_normal(shape, np.float32)
    run_job(job, [data])
    np.testing.assert_allclose(job.outputs[0], 1 / (1 + np.exp(-data)), rtol=1e-5, err_msg="seed 5")
    step, *rest = job._table.plan.steps
    assert step.chunks > 4 and [s.chunks for s in rest] in ([], [1])


@pytest.mark.parametrize("dims", [(4, ANY), (ANY, ANY), (ANY,), (ANY, 64), (ANY, 768)])
def test_open_rows_are_cut_alike_by_traces(dims, monkeypatch) -> None:
    """Plans that a trace makes cut rows as those made anew do, whatever dimension is open."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    b = Builder()
    x = b.add("Parameter", (), {"shape": dims, "element_type": "f32"}).output
    job = compile_graph(b.finish([b.add("Sigmoid", [x], {}).output]), {}).new_job()
    for extents in ((3, 100), (5, 300), (1, 300), (7, 5000), (31, 8191), (2, 70_001)):
        wanted = extents[-len(dims) :]
        shape = tuple(d if isinstance(d, int) else e for d, e in zip(dims, wanted, strict=True))
        data = np.random.default_rng(6).standard_normal(shape, np.float32)
        run_job(job, [data])
        np.testing.assert_allclose(job.outputs[0], 1 / (1 + np.exp(-data)), rtol=1e-5, err_msg=f"{shape}")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rows", [(2, 3), (0, 3), (2, 0), (0, 0)])
def test_products_and_sums_are_put_into_a_concatenation(rows, axis) -> None:
    """What is written row by row beside its place is copied there, also where it has no elements."""
    b = Builder()
    parts = []
    for _ in rows:
        x = b.add("Parameter", (), {"shape": (ANY, 5), "element_type": "f64"}).output
        w = b.constant(np.random.default_rng(SEED).standard_normal((5, 5)))
        product = b.add("MatMul", [x, w]).output
        along = b.constant(np.int64(1))
        parts += [product, b.add("CumSum", [x, along], {"exclusive": False, "reverse": False}).output]
    made = [b.add("Concat", parts[i : i + 2], {"axis": 1}).output for i in (0, 2)]
    joined = b.add("Concat", parts[::2] if axis == 0 else made, {"axis": 0}).output
    job = compile_graph(b.finish([joined]), {}).new_job()
    given = [np.random.default_rng([SEED, n]).standard_normal((n, 5)) for n in rows]
    run_job(job, given)
    weights = np.random.default_rng(SEED).standard_normal((5, 5))
    wanted = [a @ weights if axis == 0 else np.hstack([a @ weights, a.cumsum(1)]) for a in given]
    np.testing.assert_allclose(job.outputs[0], np.concatenate(wanted), 1e-9, 1e-9, err_msg=f"seed {SEED}")
