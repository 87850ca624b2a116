"""torchvision's operators."""

from __future__ import annotations

from ovjit.readers.torch.rule_language import *


@aten("torchvision::nms")
def nms(n: Call, x: Output, scores: Output, iou_threshold: float) -> Output:
    """Indices of the boxes that non-maximum suppression keeps, best first. Scores may be 0 or negative."""
    boxes, ranks = n.unsqueeze(x, [0]), n.unsqueeze(scores, [0, 1])
    most = n.scalar(n.dim_of(scores, 0))
    thresholds = n.const(float(iou_threshold), "f32"), n.const(-math.inf, "f32")
    selection = n.all("NonMaxSuppression", boxes, ranks, most, *thresholds,
                 box_encoding="corner", sort_result_descending=False, output_type="i64")  # fmt: skip
    count = selection[2]
    rows = n("Slice", selection[0], n.const([0]), count, n.const([1]), n.const([0]))
    return n("Gather", rows, n.const(2), 1)


@aten("torchvision::roi_align")
def roi_align(
    n: Call, x: Output, rois: Output, spatial_scale: float, pooled_height: int, pooled_width: int,
    sampling_ratio: int, aligned: bool = False,
) -> Output:  # fmt: skip
    batch = n.convert(n("Gather", rois, n.const(0), 1), "i64")
    corners, scale = n.cut(rois, 1, 1, 5), n.known_number(spatial_scale)
    if scale is None:  # one that the model computes
        corners, scale = n("Multiply", corners, n.tensor(spatial_scale, n.dtype(corners))), 1.0
    return n(
        "ROIAlign", x, corners, batch, pooled_h=int(pooled_height), pooled_w=int(pooled_width),
        sampling_ratio=max(int(sampling_ratio), 0), spatial_scale=float(scale), mode="avg",
        aligned_mode="half_pixel_for_nn" if aligned else "asymmetric",
    )  # fmt: skip


@aten("torchvision::ps_roi_align")
def ps_roi_align(
    n: Call, x: Output, rois: Output, spatial_scale: float, pooled_height: int, pooled_width: int,
    sampling_ratio: int,
) -> list[Output | None]:  # fmt: skip
    """Position-sensitive RoiAlign: each output position reads its own channels, the diagonal of all channels
    at all positions."""
    size = pooled_height, pooled_width
    all_channels = roi_align(n, x, rois, spatial_scale, *size, sampling_ratio, aligned=True)
    bins = pooled_height * pooled_width
    flat = n("Reshape", all_channels, [0, -1, bins * bins], special_zero=True)
    diagonal = n("Gather", flat, n.const(np.arange(bins) * (bins + 1)), 2)
    return [n("Reshape", diagonal, [0, 0, *size], special_zero=True), None]


@aten("torchvision::roi_pool")
def roi_pool(
    n: Call, x: Output, rois: Output, spatial_scale: float, pooled_height: int, pooled_width: int
) -> list[Output | None]:
    """Maxima of bins. Corners are scaled before rounding, in their own type, as in torchvision."""
    scaled = n("Multiply", n.cut(rois, 1, 1, 5), n.tensor(spatial_scale, n.dtype(rois)))
    regions = n.to_type(n("Concat", n.cut(rois, 1, 0, 1), scaled, axis=1), n.dtype(x))
    size = [int(pooled_height), int(pooled_width)]
    return [n("ROIPooling", x, regions, output_size=size, spatial_scale=1.0, method="max"), None]


def _bins(n: Call, begin: Output, end: Output, bins: int, size: Any, last: Any) -> tuple[Output, Output]:
    """(mask [regions, bins, size] of the positions of an axis in each bin, number of positions). `last`: the
    maximum of bins' ends."""
    kind = n.dtype(begin)
    length = n("Maximum", n("Subtract", end, begin), n.const(1.0, kind))
    step = n("Divide", length, n.const(float(bins), kind))
    index = np.arange(bins + 1)[None]
    first, after = (
        n(rounds, n("Multiply", step, n.const(part, kind)))
        for rounds, part in (("Floor", index[:, :-1]), ("Ceiling", index[:, 1:]))
    )
    low, high = n.const(0.0, kind), n.tensor(last, kind)
    first, after = (n("Minimum", n("Maximum", n("Add", v, begin), low), high) for v in (first, after))
    at = n.convert(n.arange(size), kind)
    inside = n(
        "LogicalAnd", n("GreaterEqual", at, n.unsqueeze(first, [2])), n("Less", at, n.unsqueeze(after, [2]))
    )
    return n.convert(inside, kind), n("Maximum", n("Subtract", after, first), low)


@aten("torchvision::ps_roi_pool")
def ps_roi_pool(
    n: Call, x: Output, rois: Output, spatial_scale: float, pooled_height: int, pooled_width: int
) -> list[Output | None]:
    """Means of bins, each of its own channels, by a product with the masks of `_bins`."""
    kind = n.dtype(x)
    scaled = n("Multiply", n.cut(rois, 1, 1, 5), n.tensor(spatial_scale, n.dtype(rois)))
    x_begin, y_begin, x_end, y_end = (
        n.cut(n("Round", scaled, mode="half_away_from_zero"), 1, i, i + 1) for i in range(4)
    )
    height, width = n.size(x, 2), n.size(x, 3)
    last = [n("Subtract", n.index(v), n.const(1)) for v in (height, width)]
    rows, heights = _bins(n, y_begin, y_end, pooled_height, height, n.convert(last[0], n.dtype(rois)))
    columns, widths = _bins(n, x_begin, x_end, pooled_width, width, n.convert(last[1], n.dtype(rois)))
    batch = n.convert(n("Gather", rois, n.const(0), 1), "i64")
    split = n.to_shape(x, [n.size(x, 0), -1, pooled_height, pooled_width, height, width])
    region_maps = n("Gather", split, batch, 0)
    by_row = n("MatMul", n.unsqueeze(n.convert(rows, kind), [1, 3, 4]), region_maps)
    sums = n("MatMul", by_row, n.unsqueeze(n.convert(columns, kind), [1, 2, 5]))
    area = n("Multiply", n.unsqueeze(heights, [1, 3]), n.unsqueeze(widths, [1, 2]))
    divisor = n.convert(n("Maximum", area, n.const(1.0, n.dtype(area))), kind)
    return [n("Divide", n("Squeeze", sums, [4, 5]), divisor), None]


@aten("torchvision::deform_conv2d")
def deform_conv2d(
    n: Call, x: Output, weight: Output, offset: Output, mask: Any = None, bias: Any = None, stride_h: int = 1,
    stride_w: int = 1, pad_h: int = 0, pad_w: int = 0, dilation_h: int = 1, dilation_w: int = 1,
    groups: int = 1, offset_groups: int = 1, use_mask: Any = True,
) -> Output:  # fmt: skip
    inputs = [x, offset, weight, *([mask] if use_mask else [])]
    out = n("DeformableConvolution", *inputs, strides=[stride_h, stride_w], pads_begin=[pad_h, pad_w],
            pads_end=[pad_h, pad_w], dilations=[dilation_h, dilation_w], group=groups,
            deformable_group=offset_groups, bilinear_interpolation_pad=True)  # fmt: skip
    return n.bias(out, bias, 4)
