"""Elementwise operations with rows of a few elements: operands are expanded, so that loops are longer."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from tests.support.sweeps import some

SEED = 20261126


def operand_shapes(rng: np.random.Generator) -> tuple[list[int], list[list[int]]]:
    """The shape of a result with short rows, and three that broadcast to it."""
    rank = int(rng.integers(2, 5))
    last = int(rng.choice([1, 2, 3, 4, 5, 7, 13, 15, 17]))
    shape = [*(int(rng.choice([1, 2, 5, 8, 30, 64, 97, 120])) for _ in range(rank - 1)), last]
    shape[int(rng.integers(0, rank - 1))] = int(rng.choice([40, 200, 256, 1000]))
    while np.prod(shape) > 400_000:
        shape[int(np.argmax(shape))] //= 2
    shapes = [[d if rng.random() < 0.6 else 1 for d in shape] for _ in range(3)]
    shapes[0] = shape
    drop = int(rng.integers(0, rank))
    shapes[2] = shapes[2][drop:]
    return shape, [shapes[i] for i in rng.permutation(3)]


@pytest.mark.parametrize("case", some(range(60), 20))
def test_operands_of_short_rows(case: int) -> None:
    """On two threads, parameters and constants, of 1 to 8 bytes, beside NumPy; exact."""
    rng = np.random.default_rng((SEED, case))
    shape, shapes = operand_shapes(rng)
    dtype = str(rng.choice(["f32", "i32", "i64", "u8"]))
    arrays = [rng.integers(0, 9, s).astype(numpy_dtype(dtype)) for s in shapes]
    b, given = Builder(), []
    values = []
    for array in arrays:
        if rng.random() < 0.3:
            values.append(b.constant(array))
        else:
            values.append(b.add("Parameter", (), {"shape": array.shape, "element_type": dtype}).output)
            given.append(array)
    product = b.add("Multiply", values[:2]).output
    executable = compile_graph(b.finish([b.add("Add", [product, values[2]]).output]), {"threads": 2})
    job = executable.new_job()
    for i, array in enumerate(given):
        job.set_input(i, array)
    where = f"seed {(SEED, case)}: {dtype} {shapes}"
    for _ in range(2):
        job.run()
        np.testing.assert_array_equal(job.outputs[0], arrays[0] * arrays[1] + arrays[2], err_msg=where)


@pytest.mark.parametrize(
    "shapes, copies",
    [
        (((20000, 3), (3,)), 1),  # the row is cut, and the operand repeated to a part of it
        (((28, 30, 40, 3), (1, 30, 40, 1)), 1),  # a mask of pixels, for several images
        (((1, 64, 64, 3), (1, 1, 1, 3)), 1),
        (((100, 1, 4), (1, 80, 4)), 1),  # pairs of boxes: the first ones, repeated to 20 of the second
        (((20000, 3), (20000, 1)), 0),  # read once only
        (((20000, 3), (20000, 3)), 0),  # nothing is to be expanded
        (((64, 8, 32), (1, 8, 1)), 0),  # rows are long
    ],
    ids=str,
)
def test_what_is_expanded(shapes: tuple[tuple[int, ...], ...], copies: int) -> None:
    b = Builder()
    values = [b.add("Parameter", (), {"shape": s, "element_type": "f32"}).output for s in shapes]
    program = compile_graph(b.finish([b.add("Multiply", values).output]), {}).program
    steps = program.plan(shapes).steps
    assert sum(step.kernel.name == "copy_i32" for step in steps) == copies
