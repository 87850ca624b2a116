"""GridSample: samples the data at the points of a grid.

    data [N, C, H, W]  grid [N, OH, OW, 2] of x, y from -1 to 1  ->  [N, C, OH, OW]

Every output is a weighted sum of 1, 4 or 16 taps: the elements around the point. Elements outside are zeros,
or those of the nearest border or of the reflection.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Bool, TensorType, Word, op
from ovjit.graph.shapes import ANY, compatible, merge
from ovjit_ops.common.values import real, round_to_type, widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS
from ovjit_ops.image import cpu_grid_sample
from ovjit_ops.image.resampling import cubic_weights

MODES = ("bilinear", "bicubic", "nearest")
PADDINGS = ("zeros", "border", "reflection")
_A = -0.75


def unnormalize(v: np.ndarray, extent: int, align: bool) -> np.ndarray:
    """The index of coordinates -1 ... 1 in `extent` elements, as a float."""
    if align:
        return (v + 1) * v.dtype.type((extent - 1) / 2)
    return ((v + 1) * v.dtype.type(extent) - 1) * v.dtype.type(0.5)


def inside(index: np.ndarray, extent: int, align: bool, padding: str) -> tuple[np.ndarray, np.ndarray]:
    """(indices in range, whether the element counts). `index`: integers as floats; NaN gives 0."""
    counts = np.ones(index.shape, bool)
    if padding == "zeros":
        counts = (index >= 0) & (index <= extent - 1)
    elif padding == "reflection":
        if align:
            period = max(2 * (extent - 1), 1)
            index = index - np.floor(index / period) * period
            index = np.where(index > extent - 1, period - index, index)
        else:
            period = 2 * extent
            index = index - np.floor(index / period) * period
            index = np.where(index > extent - 1, period - 1 - index, index)
    clipped = np.clip(np.nan_to_num(index, nan=0.0), 0, extent - 1)
    return clipped.astype(np.int64), counts


def _grid_sample(data: np.ndarray, grid: np.ndarray, **attrs: Any) -> np.ndarray:
    align, mode, padding = (attrs[name] for name in cpu_grid_sample.SETTINGS)
    n, channels, height, width = data.shape
    out_shape = (n, channels, *grid.shape[1:3])
    if not data.size:
        return np.zeros(out_shape, data.dtype)
    floats = data if mode == "nearest" else real(data)
    grid = grid.astype(np.float64) if data.dtype == np.float64 else widen_floats(grid)
    x, y = unnormalize(grid[..., 0], width, align), unnormalize(grid[..., 1], height, align)
    if mode == "nearest":
        rows: list[tuple[np.ndarray, Any]] = [(np.rint(y), None)]
        columns: list[tuple[np.ndarray, Any]] = [(np.rint(x), None)]
    else:
        fx, fy = np.floor(x), np.floor(y)
        if mode == "bilinear":
            rows = [(fy, 1 - (y - fy)), (fy + 1, y - fy)]
            columns = [(fx, 1 - (x - fx)), (fx + 1, x - fx)]
        else:
            rows = [(fy + k - 1, w) for k, w in enumerate(cubic_weights(y - fy, _A))]
            columns = [(fx + k - 1, w) for k, w in enumerate(cubic_weights(x - fx, _A))]
    out = np.zeros(out_shape, floats.dtype)
    image = np.arange(n)[:, None, None]
    for row, row_weight in rows:
        i, above = inside(row, height, align, padding)
        for column, column_weight in columns:
            j, beside = inside(column, width, align, padding)
            part = floats[image, :, i, j]  # [n, oh, ow, c]
            part = np.moveaxis(np.where((above & beside)[..., None], part, floats.dtype.type(0)), 3, 1)
            if row_weight is None:
                out = out + part
            else:
                out += part * (row_weight * column_weight).astype(floats.dtype)[:, None]
    return out if mode == "nearest" else round_to_type(out, data.dtype)


@op(
    "GridSample",
    opset=9,
    types=NUMBERS,
    native=FULL,
    lower=".cpu_grid_sample:GridSample.of",
    ulp=64,  # of the coordinates, which are f32, times the difference between neighbours
)
class GridSample:
    """The data at the points of the grid."""

    words = {
        "mode": f"op::v9::GridSample::InterpolationMode: {' '.join(MODES)}",
        "padding_mode": PADDINGS,
    }

    def infer(
        data, grid, *, align_corners: Bool = False, mode: Word = "bilinear", padding_mode: Word = "zeros"
    ):
        says = "The element type of the grid input tensor must be a floating point type."
        check(grid.dtype in (*REALS, "dynamic"), f"{says} The type is {grid.dtype}")
        for x, what in ((data, "data"), (grid, "grid")):
            says = f"The supported shape of the {'input data' if what == 'data' else what} tensor is 4D."
            check(x.rank in (None, 4), f"{says} The shape is {x}")
        batch, channels = data.shape[:2] if data.shape is not None else (ANY, ANY)
        size = grid.shape[1:3] if grid.shape is not None else (ANY, ANY)
        if grid.shape is not None:
            says = "The last dimension of grid tensor's shape has to be equal to 2."
            check(compatible(grid.shape[3], 2), f"{says} The shape is {grid}")
            both = merge(batch, grid.shape[0])
            says = "The batch dimension in the input data tensor's shape doesn't match the batch dimension "
            check(both is not None, f"{says}in the grid tensor's shape. The shapes are {data} and {grid}")
            batch = both
        return TensorType(data.dtype, (batch, channels, *size))

    ref = _grid_sample
