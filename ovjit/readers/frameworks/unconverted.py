"""Operators that TensorFlow's exporter leaves as they are, and where: ovjit has rules for them.

The exporter refuses some uses, and writes wrong ONNX for others. Operators that are left are in a domain of
their own, as ONNX may have another one of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import frexp
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.frameworks.names import MARKED
from ovjit.readers.frameworks.tables import KEYS
from ovjit.readers.onnx.attributes import reads

#: Element types that tf2onnx lacks or replaces by another: their numbers in TensorFlow, and in ONNX.
NARROW_TYPES = {14: 16, 25: 17}
#: The numbers of strings, and of f32, f16 and f64 in ONNX.
TEXT, FLOATS = 8, (1, 10, 11)
#: A test of a graph and its node.
Where = Callable[[Any, Any], bool]


def _always(context: Any, node: Any) -> bool:
    return True


def _never(context: Any, node: Any) -> bool:
    return False


def _is_open(*operands: int) -> Where:
    """A test: some operand is not constant; with no `operands`, some after the first."""
    return lambda context, node: any(
        not node.inputs[i].is_const() for i in operands or range(1, len(node.input))
    )


def _has(name: str, *values: Any) -> Where:
    """A test: an attribute has one of the values."""
    return lambda context, node: node.get_attr_value(name) in values


def _is_cast(context: Any, node: Any) -> bool:
    """True for operands that the exporter compares as integers: text, and floats of types that it lacks."""
    return context.get_dtype(node.input[0]) in (TEXT, *NARROW_TYPES.values())


def _loses_letters(context: Any, node: Any) -> bool:
    """True for an einsum equation in which the exporter may confuse two letters, or two element types."""
    equation = node.get_attr_value("equation")
    return equation != equation.lower() or _is_cast(context, node)


def _has_open_filters(context: Any, node: Any) -> bool:
    """True if the rank of the images or filters, or a channel count of the filters, is unknown."""
    images, filters = (context.get_shape(name) for name in node.input[:2])
    return images is None or filters is None or min(filters[2:]) < 1


def _has_open_images(context: Any, node: Any) -> bool:
    """True if the rank of the images, or a dimension other than the batch, is unknown."""
    images = context.get_shape(node.input[0])
    return images is None or min(images[1:]) < 1


def _leaves_rows_open(context: Any, node: Any) -> bool:
    """True if the exporter may crop a transposed convolution differently from TensorFlow.

    That is the case for padding other than SAME, for unknown shapes, and for windows smaller than strides.
    """
    windows, strides = context.get_shape(node.input[1]), node.get_attr_value("strides")
    is_open = windows is None or context.get_shape(node.input[2]) is None
    return is_open or node.get_attr_value("padding") != b"SAME" or min(windows[:-2]) < max(strides)


def _is_doubled(context: Any, node: Any) -> bool:
    """True if known sizes of images are resized by powers of two, without `align_corners`."""
    shape = context.get_shape(node.input[0])
    if shape is None or _has("align_corners", 1)(context, node) or not node.inputs[1].is_const():
        return False
    pairs = zip(shape[1:3], node.inputs[1].get_tensor_value(), strict=True)
    return all(old > 0 and frexp(new / old)[0] == 0.5 for old, new in pairs)


#: The exporter selects by products with 0 and 1, which infinities and NaN spoil.
#: ONNX's ScatterND does not add updates of one place; its OneHot counts negative indices from the end. Of
#: AdjustSaturation the exporter mixes channels, and of integers that FloorDiv divides it makes others. It
#: loses empty segments, and rows of negative numbers. It resizes by scales, which lose rows, and takes areas
#: for their nearest pixels. Of diagonals it may lose dimensions.
_NAMES = (
    "AdjustSaturation Atan2 Bincount ComplexAbs DenseBincount FFT RFFT RFFT2D FakeQuantWithMinMaxArgs "
    "FakeQuantWithMinMaxVars FloorDiv FloorMod TruncateDiv InvertPermutation MatrixDiag MatrixDiagV2 "
    "MatrixDiagV3 MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixSetDiagV3 NonMaxSuppressionV2 "
    "NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 OneHot ResizeArea ResizeBicubic ScatterNd "
    "Select SelectV2 SegmentSum SegmentProd SegmentMax SegmentMin SegmentMean SparseFillEmptyRows "
    "SparseSegmentSum SparseSegmentMean SparseSegmentSqrtN SparseSegmentSumWithNumSegments "
    "SparseSegmentMeanWithNumSegments SparseSegmentSqrtNWithNumSegments SparseToDense UnsortedSegmentSum "
    "UnsortedSegmentProd UnsortedSegmentMax UnsortedSegmentMin"
).split()

#: Operators that the exporter knows -> where they are left.
LEFT: Mapping[str, Where] = {
    **dict.fromkeys(_NAMES, _always),
    **dict.fromkeys(("BatchToSpaceND", "Roll", "StridedSlice", "Transpose"), _is_open()),
    **dict.fromkeys(("Equal", "NotEqual"), _is_cast),
    "Einsum": _loses_letters,
    # the exporter gives scales, which are not exact: corners are not aligned, or other pixels are the
    # nearest. TensorFlow's result is of f32
    "ResizeBilinear": lambda context, node: (
        context.get_dtype(node.input[0]) != FLOATS[0] or _has("align_corners", 1)(context, node)
    ),
    "ResizeNearestNeighbor": lambda context, node: not _is_doubled(context, node),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _has("is_training", 1)),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), _leaves_rows_open),
    "DepthwiseConv2dNative": _has_open_filters,
    "ExtractImagePatches": _has_open_images,
}


def handlers(
    rules: Collection[str], more: Collection[str], exporter_handlers: Mapping[str, Any]
) -> dict[str, Any]:
    """The handlers that replace the exporter's own, by the names of operators.

    `rules` are the operators that ovjit has rules for, `more` those for which the caller has some.
    `exporter_handlers` are the exporter's handlers.
    """
    unhandled = {name for name in rules if name not in exporter_handlers} | {*more}
    result: dict[str, Any] = dict.fromkeys(LEFT, (_left_or_mapped, []))
    result |= {"Conv3D": (_in_groups, []), "LookupTableFindV2": (_leave_with_contents, [])}
    result |= dict.fromkeys(("AvgPool", "AvgPool3D", "MaxPool", "MaxPoolV2", "MaxPool3D"), (_in_floats, []))
    return result | dict.fromkeys(unhandled, (_leave, []))


def mark(graph: Any) -> None:
    """Move unconverted operators to their domain, and clear the names of outputs that nothing reads."""
    read = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    for node in graph.node:
        domain, _, name = node.op_type.rpartition(".")
        if domain == MARKED:
            node.domain, node.op_type = domain, name
            node.output[:] = [name if name in read else "" for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                mark(attribute.g)


def _leave(context: Any, node: Any, name: str, args: Any) -> Any:
    # the exporter may copy it, which loses a domain
    node.type = f"{MARKED}.{node.type}"
    return node


def _left_or_mapped(context: Any, node: Any, name: str, args: Any) -> Any:
    """Keep the operator unconverted if its tests say so, else let the exporter convert it."""
    from tf2onnx.handler import tf_op

    if LEFT.get(node.type, _never)(context, node):
        return _leave(context, node, name, args)
    function, options = tf_op.create_mapping(context.opset, {})[node.type]
    if options.get("onnx_op"):
        options = {**options, "tf_op": node.type}
        node.type = options["onnx_op"]
    return function(context, node, **options)


def _leave_with_contents(context: Any, node: Any, name: str, args: Any) -> Any:
    """Keep a table lookup unconverted, with the table as its attributes."""
    if not node.get_attr(KEYS):
        raise UnsupportedError(f"{node.name}: the contents of the table are not known")
    context.replace_inputs(node, list(node.input[1:]))
    return _leave(context, node, name, args)


def _in_floats(context: Any, node: Any, name: str, args: Any) -> Any:
    """Convert operands of types other than floats to f32, or i32 and i64 to f64. The exporter's own casts
    would also affect other readers of the operand."""
    kind = context.get_dtype(node.output[0])
    if kind not in FLOATS:
        compute_type = FLOATS[2 if kind in (6, 7) else 0]
        operand = context.insert_new_node_on_input(node, "Cast", node.input[0], to=compute_type)
        result = context.insert_new_node_on_output("Cast", node.output[0], to=kind)
        for value, dtype, like in ((operand, compute_type, operand.input), (result, kind, node.output)):
            context.set_dtype(value.output[0], dtype)
            context.copy_shape(like[0], value.output[0])
        context.set_dtype(node.output[0], compute_type)
    return _left_or_mapped(context, node, name, args)


def _in_groups(context: Any, node: Any, name: str, args: Any) -> Any:
    """A grouped 3-D convolution; the exporter assumes one group."""
    images, filters = (context.get_shape(value) for value in node.input[:2])
    result = _left_or_mapped(context, node, name, args)
    if images and filters and images[-1] > 0 and filters[-2] > 0:
        node.set_attr("group", images[-1] // filters[-2])
    return result
