"""Operators on images: resizing, blocks of pixels and of batches, Fourier transforms."""

from __future__ import annotations

from ovjit.readers.tflite.layouts import first_order
from ovjit.readers.tflite.rule_language import *


@tflite_op("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(n: LiteNode) -> Any:
    """ResizeBilinear or ResizeNearestNeighbor, with aligned corners, pixel centres, or neither."""
    corners, centers = bool(n.option("AlignCorners", False)), bool(n.option("HalfPixelCenters", False))
    if corners and centers:
        raise ModelError(
            f"If half_pixel_centers attribute of the node {n.op_type} is True, the attribute align_corners "
            "must be False."
        )
    near = n.op_type == "RESIZE_NEAREST_NEIGHBOR"
    coordinate_mode = "align_corners" if corners else "half_pixel" if centers else "asymmetric"
    nearest = "round_prefer_floor"
    if near:
        nearest = "round_prefer_ceil" if corners else "floor"
        coordinate_mode = "tf_half_pixel_for_nn" if centers else coordinate_mode
    first = n.reader.layouts.find(n[0])
    x = n[0] if first is None else first
    result = n(
        "Interpolate", x, n[1], n.const(np.array([1, 2] if first is None else [2, 3], np.int32)),
        mode="nearest" if near else "linear_onnx", shape_calculation_mode="sizes",
        coordinate_transformation_mode=coordinate_mode, nearest_mode=nearest, antialias=False,
        pads_begin=[0, 0, 0, 0], pads_end=[0, 0, 0, 0], cube_coeff=-0.75, opset=11,
    )  # fmt: skip
    return result if first is None else n.last(result)


@tflite_op("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def blocks(n: LiteNode) -> Any:
    op = "DepthToSpace" if n.op_type == "DEPTH_TO_SPACE" else "SpaceToDepth"
    return n.last(n(op, n.first(n[0]), block_size=n.option("BlockSize"), mode="blocks_first"))


@tflite_op("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND")
def batches(n: LiteNode) -> Any:
    """(block sizes, pads or crops [dimensions, 2]) of the dimensions after the batch; each may be
    computed."""
    x, rank = n[0], n.rank(n[0])
    count = n.count_of_axes(n[1], "the size of blocks")
    ends = n.static_shape(n[2], "the shape of pads and crops")
    trailing = rank - 1 - count
    if trailing < 0 or ends != (count, 2):
        raise ModelError(f"{count} sizes of blocks and pads of the shape {ends} do not match rank {rank}")
    first = n.reader.layouts.find(x)

    def extend(values: Output, fill: int) -> Output:
        around = [n.const([fill]), n.const([fill] * trailing)]
        row = n.concat([around[0], n.convert(values, "i64"), around[1]], 0)
        return n.fold(row if first is None else n("Gather", row, first_order(rank), 0))

    pads = [extend(n("Gather", n[2], column, 1), 0) for column in range(2)]
    op = "SpaceToBatch" if n.op_type == "SPACE_TO_BATCH_ND" else "BatchToSpace"
    result = n(op, x if first is None else first, extend(n[1], 1), *pads)
    return result if first is None else n.last(result)


@tflite_op("RFFT2D")
def rfft_2d(n: LiteNode) -> Any:
    """The spectrum of real numbers along the last two axes; a complex number is a pair along a last axis."""
    return n("RDFT", n[0], n.const([-2, -1]), n.convert(n[1], "i64"))


@tflite_op("COMPLEX_ABS", "REAL", "IMAG")
def complex_part(n: LiteNode) -> Any:
    """Real part, imaginary part or magnitude of complex numbers, which are pairs [..., 2]."""
    if n.scope.graph.tensors[n.row.inputs[0]].dtype != "complex64":
        raise UnsupportedError("complex64 input is needed")
    if n.op_type != "COMPLEX_ABS":
        return n("Gather", n[0], 0 if n.op_type == "REAL" else 1, -1)
    return n("ReduceL2", n[0], n.const([-1]), keep_dims=False)
