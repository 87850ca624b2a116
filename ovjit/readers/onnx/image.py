"""Sampling, cropping and regions of images. Resizing is in `resize`."""

from __future__ import annotations

from ovjit.readers.numerics.interpolation import sample
from ovjit.readers.onnx.rule_language import *

_END = (1 << 63) - 1


@onnx_op("ImageScaler")
def image_scaler(n: OnnxNode) -> Any:
    """ImageScaler of opset 1: x * scale, plus a number for each channel."""
    x = n[0]
    bias = np.asarray(n.require("bias"), np.float32).reshape(1, -1, 1, 1)
    return n("Add", n("Multiply", x, n.like(x, n.attr("scale", 1.0))), n.like(x, bias))


@onnx_op("Crop")
def crop(n: OnnxNode) -> Any:
    """Crop of opset 1: removes the borders (left, top, right, bottom), or keeps `scale` (height, width) from
    the first two."""
    x, border, size = n[0], n.require("border"), n.attr("scale")
    if len(border) != 4 or min(border) < 0 or (size and len(size) != 2):
        raise ModelError(f"the border {border[:8]} or the scale {(size or [])[:8]} of a crop is not valid")
    x_begin, y_begin, x_border, y_border = border
    ends = [y_begin + size[0], x_begin + size[1]] if size else [-y_border or _END, -x_border or _END]
    return n("Slice", x, [y_begin, x_begin], ends, [1, 1], [2, 3])


@onnx_op("GridSample", 16)
def grid_sample(n: OnnxNode) -> Any:
    modes = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest", "bicubic": "bicubic",
             "cubic": "bicubic"}  # fmt: skip
    mode, padding, aligned = n.attr("mode"), n.attr("padding_mode"), bool(n.attr("align_corners"))
    if (rank := n.rank(n[0])) != 4:
        if modes[mode] == "bicubic":
            raise UnsupportedError("cubic sampling of volumes is not supported")
        n.check_count(1 << rank - 2, "samples of volumes", MOST_NODES)
        return sample(n, n[0], n[1], mode == "nearest", padding, aligned)
    return n("GridSample", n[0], n[1], align_corners=aligned, mode=modes[mode], padding_mode=padding)


@onnx_op("AffineGrid", 20)
def affine_grid(n: OnnxNode) -> Any:
    """(x, y, 1) theta^T for the coordinates of all pixels, in [-1, 1]: [N, H, W, 2]; [N, D, H, W, 3] of
    (x, y, z, 1) for volumes. The standard's function is wrong for one image."""
    theta, size, kind = n[0], n.convert(n[1], "i64"), n.dtype(n[0])
    lengths = n.shape(theta) or (ANY, ANY), n.shape(size) or (ANY,)
    sides = lengths[0][1] if type(lengths[0][1]) is int else lengths[1][0] - 2
    if not isinstance(sides, int) or sides not in (2, 3):
        raise UnsupportedError("the number of rows of theta is unknown, or neither 2 nor 3")
    extents = [n("Gather", size, [2 + i], 0) for i in range(sides)]
    columns = []
    for i, extent in enumerate(extents):
        count, steps = n.convert(extent, kind), n.convert(n.upto(extent), kind)
        one, two = n.like(steps, 1), n.like(steps, 2)
        if n.attr("align_corners"):  # of a single pixel the last corner, as in ONNX Runtime
            last = n("Subtract", count, one)
            before = n("Divide", n("Multiply", n("Subtract", last, steps), two), n("Maximum", last, one))
            value = n("Subtract", one, before)
        else:
            value = n("Subtract", n("Divide", n("Add", n("Multiply", steps, two), one), count), one)
        columns.append(n.reshape(value, [1] * i + [-1] + [1] * (sides - i)))
    pixels = n.concat(extents, 0)
    shape = n.concat([pixels, n.const([1])], 0)
    parts = [n.broadcast(v, shape) for v in (*columns[::-1], n.like(theta, 1))]
    rows = n.reshape(n.concat(parts, sides), [-1, sides + 1])
    products = n("MatMul", rows, theta, transpose_a=False, transpose_b=True)
    return n.reshape(products, n.concat([n.dim_of(theta, 0), pixels, n.const([sides])], 0))


@onnx_op("RoiAlign", 10)
def roi_align(n: OnnxNode) -> Any:
    half = n.version >= 16 and n.attr("coordinate_transformation_mode") == "half_pixel"
    if n.attr("mode") == "max":
        return _largest_weighted(n, half)
    attrs = n.attrs(
        "sampling_ratio", "spatial_scale", "mode", pooled_h="output_height", pooled_w="output_width"
    )
    attrs["aligned_mode"] = "half_pixel_for_nn" if half else "asymmetric"
    return n("ROIAlign", n[0], n[1], n.convert(n[2], "i64"), **attrs, opset=9)


def _largest_weighted(n: OnnxNode, half: bool) -> Output:
    """RoiAlign with mode "max": the largest product of a pixel and its bilinear weight in each bin.
    OpenVINO's ROIAlign has the largest interpolated sample instead."""
    kind, x, rois = n.dtype(n[0]), n.upcast(n[0]), n.upcast(n[1])
    height, width = (n.dim_of(x, i) for i in (2, 3))
    sizes = [int(n.attr(name)) for name in ("output_height", "output_width")]
    rows, columns = (_sample_bins(n, rois, i, side, sizes[i], half) for i, side in enumerate((height, width)))
    pixels = n.reshape(n.channels_last(x), n("Concat", [-1], n.dim_of(x, 1), axis=0))
    batches = n.unsqueeze(n.convert(n[2], "i64"), [1, 2])
    first_row = n("Multiply", batches, height)
    best: Output | None = None
    for row, row_weight in rows.taps:
        for column, column_weight in columns.taps:
            begin = n("Multiply", n("Add", first_row, n.unsqueeze(row, [2])), width)
            chosen = n("Gather", pixels, n("Add", begin, n.unsqueeze(column, [1])), 0, opset=8)
            weight = n("Multiply", n.unsqueeze(row_weight, [2]), n.unsqueeze(column_weight, [1]))
            value = n("Multiply", chosen, n.unsqueeze(weight, [3]))  # [regions, rows, columns, channels]
            best = value if best is None else n("Maximum", best, value)
    is_sample = n("LogicalAnd", n.unsqueeze(rows.is_sample, [2]), n.unsqueeze(columns.is_sample, [1]))
    best = n("Select", n.unsqueeze(is_sample, [3]), best, n.like(x, -np.inf))
    bin_shape = [n.dim_of(rois, 0), [sizes[0]], rows.most, [sizes[1]], columns.most, n.dim_of(x, 1)]
    bins = n.reshape(best, n("Concat", *bin_shape, axis=0))
    largest = n.transpose(n("ReduceMax", bins, [2, 4], keep_dims=False), [0, 3, 1, 2])
    some = n("Greater", largest, n.like(largest, -np.inf))  # regions of no size have no samples
    return n.convert(n("Select", some, largest, n.like(largest, 0)), kind)


class _BinSamples(NamedTuple):
    """The samples of regions along one side, [regions, bins * samples]: two pixels each, i64, and their
    weights; whether there is such a sample; the most samples of a bin, [1]."""

    taps: list[tuple[Output, Output]]
    is_sample: Output
    most: Output


def _sample_bins(n: OnnxNode, rois: Output, side: int, extent: Output, bins: int, half: bool) -> _BinSamples:
    """Sample points of the bins along one side of regions. `side`: 0 for y, 1 for x."""
    scale, ratio = n.like(rois, n.attr("spatial_scale", 1.0)), int(n.attr("sampling_ratio", 0))
    start, end = (
        n("Subtract", n("Multiply", n("Gather", rois, i, 1, opset=8), scale), n.like(rois, 0.5 * half))
        for i in (1 - side, 3 - side)
    )
    size = n("Subtract", end, start)
    size = size if half else n("Maximum", size, n.like(size, 1))
    each = n("Divide", size, n.like(size, bins))
    if ratio > 0:
        count, most = n.like(size, [ratio]), n.const([ratio])
    else:
        count = n("Ceiling", each)
        indices = n("Concat", n.convert(count, "i64"), [1], axis=0)
        most = n("ReduceMax", indices, [0], keep_dims=True)
    numbers = n.unsqueeze(n.convert(n.upto(most), n.dtype(rois)), [0, 1])
    start, each, count = (n.unsqueeze(v, [1, 2]) for v in (start, each, count))
    step = n("Divide", n("Multiply", n("Add", numbers, n.like(numbers, 0.5)), each), count)
    begin = n("Add", start, n("Multiply", n.like(each, np.arange(bins)[None, :, None]), each))
    shape = n("Concat", n.dim_of(rois, 0), [-1], axis=0)
    coordinates = n.reshape(n("Add", begin, step), shape)
    is_sample = n("LogicalAnd", n("Less", numbers, count), n.const(np.ones((1, bins, 1), bool)))
    reach = n.convert(extent, n.dtype(rois))
    last = n("Subtract", reach, n.like(reach, 1))
    is_after = n("GreaterEqual", coordinates, n.like(coordinates, -1))
    inside = n.convert(n("LogicalAnd", is_after, n("LessEqual", coordinates, reach)), n.dtype(rois))
    coordinates = n("Minimum", n("Maximum", coordinates, n.like(coordinates, 0)), last)
    low = n("Floor", coordinates)
    high = n("Minimum", n("Add", low, n.like(low, 1)), last)
    far = n("Subtract", coordinates, low)
    near = n("Subtract", n.like(far, 1), far)
    taps = [(n.convert(at, "i64"), n("Multiply", w, inside)) for at, w in ((low, near), (high, far))]
    every = n.reshape(n.broadcast(is_sample, n("Concat", n.dim_of(rois, 0), [bins], most, axis=0)), shape)
    return _BinSamples(taps, every, most)


@onnx_op("MaxRoiPool")
def max_roi_pool(n: OnnxNode) -> Any:
    size = list(n.require("pooled_shape"))
    return n("ROIPooling", n[0], n[1], output_size=size, method="max", **n.attrs("spatial_scale"))


@onnx_op("NonMaxSuppression", 10)
def non_max_suppression(n: OnnxNode) -> Any:
    def scalar(index: int, default: float, kind: str) -> Output:
        if not n.has(index):
            return n.const(default, kind)
        return n.scalar(n.convert(n[index], kind))

    # OpenVINO drops boxes that overlap as much as the threshold, the standard those that overlap more
    threshold = n("Multiply", scalar(3, 0.0, "f32"), n.const(1 + 2.0**-23))
    threshold = n("Add", threshold, n.const(np.float32(2.0**-126)))
    inputs = n[0], n[1], scalar(2, 0, "i64"), threshold, scalar(4, -math.inf, "f32")
    corners = "center" if n.attr("center_point_box") else "corner"
    how = {"box_encoding": corners, "sort_result_descending": False, "output_type": "i64"}
    return n("NonMaxSuppression", *inputs, **how, opset=9)
