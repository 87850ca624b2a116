"""TensorFlow's operators that resize images, [images, rows, columns, channels]."""

from __future__ import annotations

from ovjit.readers.numerics.interpolation import elements_around, nearness, weighted_sums
from ovjit.readers.numerics.interpolation import inside as within
from ovjit.readers.onnx.rule_language import *

#: The places between two pixels for which bicubic weights are in a table.
_PLACES = 1024


def _bilinear(n: OnnxNode) -> Output:
    """Bilinear interpolation: rows and columns by integer positions, with aligned corners, pixel centres, or
    neither."""
    corners, centers = bool(n.attr("align_corners", 0)), bool(n.attr("half_pixel_centers", 0))
    coordinate_mode = "align_corners" if corners else "half_pixel" if centers else "asymmetric"
    return n(
        "Interpolate", n.convert(n[0], "f32"), n[1], n.const(np.array([1, 2], np.int32)),
        mode="linear_onnx", shape_calculation_mode="sizes", antialias=False, opset=11,
        coordinate_transformation_mode=coordinate_mode, pads_begin=[0, 0, 0, 0], pads_end=[0, 0, 0, 0],
    )  # fmt: skip


def _scale(n: OnnxNode, length: Output, count: Output) -> Output:
    """Pixels of the image per pixel of the result."""
    long, short = n.convert(length, "f32"), n.convert(count, "f32")
    plain = n("Divide", long, short)
    if not n.attr("align_corners", 0):
        return plain
    one = n.like(long, 1)
    between = n("Subtract", short, one)
    aligned = n("Divide", n("Subtract", long, one), n("Maximum", between, one))
    return n("Select", n("Greater", between, n.like(between, 0)), aligned, plain)


def _sum_by_weights(n: OnnxNode, x: Output, axis: int, indices: Output, weights: Output) -> Output:
    """Weighted sums of pixels along an axis: `indices` and `weights` become a matrix [pixels of the result,
    pixels of the image]."""
    pixels = n("Gather", x, n.fold(indices), axis)
    each = n.unsqueeze(weights, [2, 3] if axis == 1 else [2])
    return n("ReduceSum", n("Multiply", pixels, n.fold(each)), [axis + 1], keep_dims=False)


def _clamp_indices(n: OnnxNode, indices: Output, length: Output) -> Output:
    last = n("Subtract", length, n.like(length, 1))
    return n("Maximum", n("Minimum", indices, last), n.like(indices, 0))


def _cubic_weights(n: OnnxNode, length: Output, count: Output) -> tuple[Output, Output]:
    """(indices, weights) of four pixels per pixel of the result. With pixel centres, those beyond the edge
    have no weight; else the edge repeats."""
    centers = bool(n.attr("half_pixel_centers", 0))
    a = -0.5 if centers else -0.75
    x = np.arange(_PLACES + 1) / np.float32(_PLACES)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    table = np.stack([far, near, near[::-1], far[::-1]], 1).astype(np.float32)
    at, scale = n.convert(n.upto(count), "f32"), _scale(n, length, count)
    half = n.like(at, 0.5 if centers else 0)
    at = n("Subtract", n("Multiply", n("Add", at, half), scale), half)
    first = n("Floor", at)
    between = n("Multiply", n("Subtract", at, first), n.like(at, _PLACES))
    weights = n("Gather", n.const(table), n.convert(n("Round", between, mode="half_to_even"), "i64"), 0)
    unbounded = n("Add", n.unsqueeze(n.convert(first, "i64"), [1]), n.const([[-1, 0, 1, 2]]))
    indices = _clamp_indices(n, unbounded, length)
    if centers:
        weights = n("Select", n("Equal", indices, unbounded), weights, n.like(weights, 0))
        weights = n("Divide", weights, n("ReduceSum", weights, [1], keep_dims=True))
    return indices, weights


def _area_weights(n: OnnxNode, length: Output, count: Output) -> tuple[Output, Output]:
    """The share of each pixel of the image in each pixel of the result. The edge repeats."""
    scale = _scale(n, length, count)
    numbers = n.upto(count)
    start, end = (
        n.unsqueeze(n("Multiply", n.convert(v, "f32"), scale), [1])
        for v in (numbers, n("Add", numbers, n.like(numbers, 1)))
    )
    most = n("Add", n.convert(n("Ceiling", scale), "i64"), n.const(1))
    unbounded = n("Add", n.convert(n("Floor", start), "i64"), n.unsqueeze(n.upto(most), [0]))
    pixel = n.convert(unbounded, "f32")
    until = n("Minimum", n("Add", pixel, n.like(pixel, 1)), end)
    part = n("Maximum", n("Subtract", until, n("Maximum", pixel, start)), n.like(pixel, 0))
    return _clamp_indices(n, unbounded, length), n("Divide", part, scale)


def _nearest(n: OnnxNode) -> Output:
    """Nearest-neighbour interpolation. Positions are computed in f32, which decides between two that are
    equally near."""
    result, sizes = n[0], n.convert(n[1], "i64")
    centers, corners = bool(n.attr("half_pixel_centers", 0)), bool(n.attr("align_corners", 0))
    for axis in (1, 2):
        length, count = n.dim_of(n[0], axis), n("Gather", sizes, [axis - 1], 0)
        at = n.convert(n.upto(count), "f32")
        at = n("Add", at, n.like(at, 0.5)) if centers else at
        at = n("Multiply", at, _scale(n, length, count))
        at = n("Round", at, mode="half_away_from_zero") if corners else n("Floor", at)
        result = n("Gather", result, n.fold(_clamp_indices(n, n.convert(at, "i64"), length)), axis)
    return result


def _by_weights(n: OnnxNode) -> Output:
    weights = _cubic_weights if n.op_type == "ResizeBicubic" else _area_weights
    result, sizes = n.convert(n[0], "f32"), n.convert(n[1], "i64")
    for axis in (1, 2):
        count = n("Gather", sizes, [axis - 1], 0)
        result = _sum_by_weights(n, result, axis, *weights(n, n.dim_of(n[0], axis), count))
    return result


def _lanczos(lobes: int) -> Callable[[OnnxNode, Output], Output]:
    def weights(n: OnnxNode, x: Output) -> Output:
        turn = n("Multiply", x, n.like(x, math.pi))
        wave = n("Multiply", n("Sin", turn), n("Sin", n("Divide", turn, n.like(x, lobes))))
        result = n("Divide", n("Multiply", wave, n.like(x, lobes)), n("Multiply", turn, turn))
        result = n("Select", n("LessEqual", x, n.like(x, 1e-3)), n.like(x, 1), result)
        return n("Select", n("LessEqual", x, n.like(x, lobes)), result, n.like(x, 0))

    return weights


#: Weights of pixels by their distance, and the distance from which on they are 0.
KERNELS: dict[str, tuple[float, Callable[[OnnxNode, Output], Output]]] = {
    "lanczos3": (3, _lanczos(3)), "lanczos5": (5, _lanczos(5)),
    "triangle": (1, lambda n, x: nearness(n, x, None)), "keyscubic": (2, lambda n, x: nearness(n, x, -0.5)),
}  # fmt: skip


def _scale_and_translate(n: OnnxNode) -> Output:
    """ScaleAndTranslate: weighted sums of the pixels around each position of the result."""
    result, sizes = n.convert(n[0], "f32"), n.convert(n[1], "i64")
    radius, kernel = KERNELS[n.attr("kernel_type", "lanczos3")]
    for axis in (0, 1):
        count, scale, offset = (n("Gather", value, [axis], 0) for value in (sizes, n[2], n[3]))
        length = n.dim_of(n[0], axis + 1)
        one = n.like(scale, 1)
        step = n("Divide", one, scale)
        support = n("Maximum", step, one) if n.attr("antialias", 1) else one
        at = n.convert(n.upto(count), "f32")
        at = n("Multiply", n("Subtract", n("Add", at, n.like(at, 0.5)), offset), step)
        coordinates = n("Subtract", at, n.like(at, 0.5))
        reach = n("Ceiling", n("Multiply", support, n.like(support, radius)))
        pixels = elements_around(n, coordinates, reach)
        index, is_inside = within(n, pixels, n.convert(length, "f32"))
        off = n("Abs", n("Subtract", pixels, n.unsqueeze(coordinates, [1])))
        weights = n("Select", is_inside, kernel(n, n("Divide", off, support)), n.like(off, 0))
        total = n("ReduceSum", weights, [1], keep_dims=True)
        inside = n(
            "LogicalAnd", n("GreaterEqual", at, n.like(at, 0)), n("LessEqual", at, n.convert(length, "f32"))
        )
        counts = n("LogicalAnd", n.unsqueeze(inside, [1]), n("NotEqual", total, n.like(total, 0)))
        weights = n("Select", counts, n("Divide", weights, total), n.like(weights, 0))
        result = weighted_sums(n, result, axis + 1, index, weights)
    return result


RESIZING: dict[str, Rule] = {
    "ScaleAndTranslate": _scale_and_translate,
    "ResizeBilinear": _bilinear,
    "ResizeNearestNeighbor": _nearest,
    **dict.fromkeys(("ResizeBicubic", "ResizeArea"), _by_weights),
}
