"""Pixels of a few bytes become planes, a vector of pixels at a time."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.transpose import interleave_sizes
from ovjit.engine import compile_graph
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from tests.support.run import run

SEED = 20261130


@pytest.mark.parametrize("dtype", ["u8", "i8"])
@pytest.mark.parametrize("channels", [2, 3, 4, 8, 9])
def test_pixels_become_planes(channels: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images with sizes that vectors and blocks divide and others; of cut ones, whose rows have gaps, with
    other dimensions around them."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    shapes: list[tuple[tuple[int, ...], int]] = [((1, 64, 96), 96), ((2, 37, 41), 41), ((1, 20, 50), 33)]
    for shape, columns in [*shapes, ((1, 1, 5), 5), ((1, 128, 16), 16), ((3, 2048, 2), 1)]:
        x = rng.integers(0, 120, (*shape, channels)).astype(numpy_dtype(dtype))
        b = Builder()
        value = b.add("Parameter", (), {"shape": x.shape, "element_type": dtype}).output
        bounds = [b.constant(np.array(v)) for v in ([0], [columns], [1], [2])]
        cut = b.add("Slice", [value, *bounds]).output
        planes = b.add("Transpose", [cut, b.constant(np.array([0, 3, 1, 2]))]).output
        executable = compile_graph(b.finish([planes]), {})
        (got,) = run(executable, [x])
        where = f"{dtype} {x.shape} up to {columns}, seed {SEED}"
        np.testing.assert_array_equal(got, x[:, :, :columns].transpose(0, 3, 1, 2), err_msg=where)
        kernels = [step.kernel.name for step in executable.program.plan((x.shape,)).steps]
        if (
            columns == shape[2]
            and columns > 5
            and 3 <= channels <= 8
            and 1 in interleave_sizes(host_target())
        ):
            assert f"unweave_u8_{channels}" in kernels, where
