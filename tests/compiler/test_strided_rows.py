"""Elementwise work on operands that are not contiguous where the result is: images with their colours
adjacent, transposed, and with a mean and a scale for each colour.

Oracle: NumPy. Results are exact: the numbers are small integers. Memory ends at, or begins behind, pages that
must not be touched, so that a read beyond a row ends the (child) process.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.support.guard_pages import BEFORE, BEHIND
from tests.support.run import printed

SEED = 20261120
TYPES = {
    "u8": np.uint8, "i8": np.int8, "u16": np.uint16, "i16": np.int16, "f16": np.float16,
    "bf16": ml_dtypes.bfloat16, "i32": np.int32, "f32": np.float32, "i64": np.int64, "boolean": np.bool_,
}  # fmt: skip
SHAPES = [
    (1, h, w, c) for h, w, c in (
        (1, 1, 1), (1, 16, 3), (2, 15, 3), (3, 17, 3), (2, 33, 2), (4, 40, 4), (3, 47, 5), (5, 64, 1),
        (40, 7, 3), (9, 100, 3), (6, 16, 16), (7, 18, 15),
    )
]  # fmt: skip


def images(dtype: str, planar: bool, side: str) -> None:
    """Every shape once, behind `guard_pages`: pixels of `dtype`, minus a mean and times a scale, as planes or
    in place."""
    from ovjit.graph.graph import Builder
    from tests.support import guard_pages

    rng = np.random.default_rng(SEED)
    for shape in SHAPES:
        channels = shape[3]
        pixels = rng.integers(0, 2 if dtype == "boolean" else 100, shape).astype(TYPES[dtype])
        mean, scale = (rng.integers(1, 9, (1, channels, 1, 1)).astype(np.float32) for _ in "ms")
        order = (0, 3, 1, 2)
        b = Builder()
        x = b.add("Parameter", (), {"shape": shape, "element_type": dtype}).output
        y = b.add("Convert", [x], {"destination_type": "f32"}).output
        y = b.add("Transpose", [y, b.constant(np.array(order, np.int64))]).output
        y = b.add("Subtract", [y, b.constant(mean)]).output
        y = b.add("Multiply", [y, b.constant(scale)]).output
        want = (pixels.astype(np.float32).transpose(order) - mean) * scale
        if not planar:
            y = b.add("Transpose", [y, b.constant(np.array((0, 2, 3, 1), np.int64))]).output
            want = want.transpose(0, 2, 3, 1)
        (got,) = guard_pages.run_guarded(b.finish([y]), [[pixels]], side)
        message = f"{dtype} {shape}, planar: {planar}, seed {SEED}"
        np.testing.assert_array_equal(got[0], want, err_msg=message)
        print(message, flush=True)


@pytest.mark.parametrize("side", [BEHIND, BEFORE])
def test_images(side: str) -> None:
    """In one process for both forms: its start takes as long as they do."""
    program = f"""
from tests.support import guard_pages
from tests.compiler.test_strided_rows import TYPES, images
guard_pages.install({side!r})
for dtype in TYPES:
    for planar in (True, False):
        images(dtype, planar, {side!r})
"""
    assert len(printed("-c", program).splitlines()) == len(SHAPES) * len(TYPES) * 2
