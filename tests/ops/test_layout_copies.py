"""Copies between layouts: dimensions turned in blocks, at every size around the vector width."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from ovjit.graph.interp import evaluate
from tests.support.run import run_job
from tests.support.sweeps import some

SEED = 20261123


@pytest.mark.parametrize(
    "order", [(0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 3, 2), (2, 0, 1, 3)], ids=str
)
@pytest.mark.parametrize("dtype", ["f32", "i32"])
def test_transposes_are_exact(order: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(SEED)
    b = Builder()
    x = b.add("Parameter", (), {"shape": (b_any := [_open()] * 4), "element_type": dtype}).output
    assert b_any
    y = b.add("Transpose", [x, b.constant(np.array(order, np.int64))]).output
    job = compile_graph(b.finish([y]), {}).new_job()
    many = [(1, 17, 15, 33), (3, 31, 2, 18), (1, 3, 40, 41)]
    for shape in [(1, 1, 1, 1), (2, 3, 5, 7), (1, 16, 16, 16), *many, (2, 0, 3, 4)]:
        array = rng.integers(-1000, 1000, shape).astype(np.float32 if dtype == "f32" else np.int32)
        run_job(job, [array])
        np.testing.assert_array_equal(job.outputs[0], array.transpose(order), err_msg=f"{shape} seed {SEED}")


@pytest.mark.parametrize("dtype", ["f32", "i64", "i8"])
@pytest.mark.parametrize("mode", ["blocks_first", "depth_first"])
def test_blocks_of_columns_are_woven(mode: str, dtype: str) -> None:
    """DepthToSpace and SpaceToDepth of blocks that have a kernel and of one that has none, of a plain input
    and of a part of one, on two threads."""
    rng = np.random.default_rng(SEED)
    b, arrays, outputs = Builder(), [], []
    for block, spatial in ((2, (3, 17)), (3, (2, 8)), (8, (2, 9)), (9, (1, 3)), (2, (33,)), (2, (3, 2, 7))):
        many = block ** len(spatial)
        wide = (2, 3, *(d * block for d in spatial))
        for name, shape in (("DepthToSpace", (2, 3 * many, *spatial)), ("SpaceToDepth", wide)):
            array = rng.integers(-100, 100, shape).astype(numpy_dtype(dtype))
            arrays.append(array)
            x = b.add("Parameter", (), {"shape": shape, "element_type": dtype}).output
            half = b.add("Slice", [x, *(b.constant(np.array([v], np.int64)) for v in (1, 2, 1, 0))]).output
            outputs += [b.add(name, [v], {"block_size": block, "mode": mode}).output for v in (x, half)]
    graph = b.finish(outputs)
    job = compile_graph(graph, {"threads": 2}).new_job()
    run_job(job, arrays)
    for i, (got, want) in enumerate(zip(job.outputs, evaluate(graph, arrays), strict=True)):
        np.testing.assert_array_equal(got, want, err_msg=f"output {i}, seed {SEED}")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["f32", "i64", "u8"])
def test_short_rows_are_tiled_in_steps(dtype: str, threads: int) -> None:
    """Targets on both sides of the sizes from which steps are planned; rows of up to 256 bytes and longer."""
    rng = np.random.default_rng(SEED)
    cases = [
        ((35, 9, 4), (3, 3, 3)), ((15, 54, 1, 5), (2, 2, 2, 1)), ((68, 8, 32, 2), (2, 3, 1, 1)),
        ((40, 3), (9, 8, 7)), ((3, 5), (2, 2)), ((60, 70), (3, 2)), ((1, 1, 7), (64, 64, 1)),
        ((0, 3), (4, 5)),
    ]  # fmt: skip
    b, arrays, outputs = Builder(), [], []
    for shape, repeats in cases:
        arrays.append(rng.integers(0, 100, shape).astype(numpy_dtype(dtype)))
        x = b.add("Parameter", (), {"shape": shape, "element_type": dtype}).output
        outputs.append(b.add("Tile", [x, b.constant(np.array(repeats, np.int64))]).output)
    job = compile_graph(b.finish(outputs), {"threads": threads}).new_job()
    run_job(job, arrays)
    for got, array, (shape, repeats) in zip(job.outputs, arrays, cases, strict=True):
        np.testing.assert_array_equal(got, np.tile(array, repeats), err_msg=f"{shape} {repeats}, seed {SEED}")


@pytest.mark.parametrize("checked", [False, True], ids=["native", "in Python"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("dtype", some(["u8", "f16"], 1))
def test_rows_of_small_elements_are_copied(dtype: str, dynamic: bool, checked: bool, monkeypatch) -> None:
    """Parts of an image, rows of all remainders, and joined rows, on two threads."""
    if checked:
        monkeypatch.setenv("OVJIT_INTERP", "kernels")
    monkeypatch.setenv("OVJIT_CHECK", "1")  # no two threads write the same bytes
    rng = np.random.default_rng(SEED)
    image = rng.integers(0, 255, (2, 9, 200, 3)).astype(numpy_dtype(dtype))
    rows = rng.integers(0, 255, (6, 407)).astype(image.dtype)
    b = Builder()
    shapes = [(_open(), *v.shape[1:]) if dynamic else v.shape for v in (image, rows)]
    x, y = (b.add("Parameter", (), {"shape": shape, "element_type": dtype}).output for shape in shapes)

    def part(value, *cuts: tuple[int, int, int, int]):
        given = (b.constant(np.array(each, np.int64)) for each in zip(*cuts, strict=True))
        return b.add("Slice", [value, *given]).output

    begins = ((1, 9, 1, 1), (11, 190, 1, 2)), ((0, 8, 2, 1), (0, 100, 1, 2)), ((0, 9, 1, 1), (3, 200, 1, 2))
    outputs = [part(x, *cuts) for cuts in begins]
    lengths = (*range(1, 36), 63, 64, 65, 127, 128, 129, 256, 257, 403)
    outputs += [part(y, (1, 6, 1, 0), (3, 3 + n, 1, 1)) for n in lengths]
    outputs.append(part(y, (5, 0, -2, 0), (0, 300, 1, 1)))
    outputs.append(b.add("Concat", [y, part(y, (0, 6, 1, 0), (5, 406, 1, 1)), y], {"axis": 1}).output)
    graph = b.finish(outputs)
    executable = compile_graph(graph, {"threads": 2})
    job = executable.new_job()
    run_job(job, (image, rows))
    for i, (got, want) in enumerate(zip(job.outputs, evaluate(graph, [image, rows]), strict=True)):
        np.testing.assert_array_equal(got, want, err_msg=f"output {i}, seed {SEED}")
    kernels = {s.kernel.name for s in executable.program.plan((image.shape, rows.shape)).steps}
    assert kernels == {"copy_u8" if dtype == "u8" else "copy_i16"}


def _open():
    from ovjit.graph.shapes import ANY

    return ANY
