"""Operators of TensorFlow that its exporter does not know, and leaves in the ONNX model under their names.

Those of Paddle are in paddle_nodes.
"""

from __future__ import annotations

from ovjit.readers.choices import one_of
from ovjit.readers.frameworks.diagonals import DIAGONALS
from ovjit.readers.frameworks.layers import LAYERS
from ovjit.readers.frameworks.names import MARKED
from ovjit.readers.frameworks.paddle_nodes import CELLS, DOMAIN, LEFT
from ovjit.readers.frameworks.resizing import KERNELS, RESIZING
from ovjit.readers.frameworks.segments import SEGMENTS
from ovjit.readers.frameworks.tables import find_in_table
from ovjit.readers.numerics import matrices, special
from ovjit.readers.numerics.bits import reinterpret_bits
from ovjit.readers.numerics.cumulative import running
from ovjit.readers.onnx import choices
from ovjit.readers.onnx.rule_language import *

#: The number of i32 in attributes, which the exporter writes as ONNX's.
_INT32 = 6


def known_operators(framework: str) -> Mapping[str, Rule]:
    """The rules for operators that an exporter leaves unconverted, by name in the framework's domain."""
    domain, rules = {"tf": (MARKED, TENSORFLOW), "paddle": (DOMAIN, LEFT)}[framework]
    return {f"{domain}.{name}": _check_first(domain, rule) for name, rule in rules.items()}


choices.declare_choices(MARKED, {choices.ANY: {
    "align": one_of("LEFT_RIGHT RIGHT_LEFT LEFT_LEFT RIGHT_RIGHT"),
    "data_format": one_of("NHWC NCHW NDHWC NCDHW"),
    "kernel_type": one_of(KERNELS),
    "padding": one_of("SAME VALID EXPLICIT"),
}})  # fmt: skip
choices.declare_choices(DOMAIN, {"rnn": {"mode": one_of(CELLS)}, "unique": {"dtype": one_of("int32 int64")}})


def _check_first(domain: str, rule: Rule) -> Rule:
    """Wrap a rule: attributes are checked against their allowed values first."""

    def checking_rule(n: OnnxNode) -> Any:
        choices.check_choices(domain, n.op_type, n.attributes)
        return rule(n)

    return checking_rule


def _unless_zero(function: Callable[[OnnxNode], Output]) -> Rule:
    """A rule that returns 0 where the first operand is 0, even if the second one is NaN or infinite."""

    def rule(n: OnnxNode) -> Output:
        result = function(n)
        return n("Select", n("Equal", n[0], n.like(n[0], 0)), n.like(result, 0), result)

    return rule


def _log1p(n: OnnxNode, x: Output) -> Output:
    return n.convert(special.log1p(n, n.upcast(x)), n.dtype(x))


def _normal_quantile(n: OnnxNode, x: Output) -> Output:
    """sqrt(2) erfinv(2 x - 1)"""
    twice = n("Subtract", n("Multiply", x, n.like(x, 2)), n.like(x, 1))
    return n("Multiply", n("ErfInv", twice), n.like(x, 2**0.5))


def _l2_loss(n: OnnxNode) -> Output:
    total = n("ReduceSum", n("Multiply", n[0], n[0]), list(range(n.rank(n[0]))), keep_dims=False)
    return n("Multiply", total, n.like(total, 0.5))


def _linspace(n: OnnxNode) -> Output:
    """`count` numbers from a start to an end, both included."""
    start, end = n[0], n[1]
    count = n.convert(n.scalar(n[2]), "f64")
    last = n("Maximum", n("Subtract", count, n.const(1, "f64")), n.const(1, "f64"))
    steps = n("Divide", n("Range", 0.0, count, 1.0, output_type="f64"), last)
    steps = n.fold(n.convert(steps, n.dtype(start)))
    return n("Add", start, n("Multiply", n("Subtract", end, start), steps))


def _bucketize(n: OnnxNode) -> Output:
    """Bucket index of each element: the number of boundaries that are less than or equal to it."""
    bounds = n.const(np.array(n.require("boundaries"), np.float32))
    x = n.convert(n[0], "f32")
    return n("Bucketize", x, bounds, output_type="i32", with_right_bound=False)


def _scatter(n: OnnxNode) -> Output:
    """Scatter with addition into zeros; the exporter's operator would keep the last of several updates of an
    element."""
    zeros = n.broadcast(n.like(n[1], 0), n[2])
    return n("ScatterNDUpdate", zeros, n[0], n[1], reduction="sum", opset=15)


def _fake_quantize(n: OnnxNode) -> Output:
    """Fake quantization to a range that is shifted so that 0 is one of its levels."""
    levels = 2 ** int(n.attr("num_bits", 8)) - 1 - int(bool(n.attr("narrow_range", 0)))
    x = n[0]
    args = n.op_type == "FakeQuantWithMinMaxArgs"
    low, high = (
        [n.like(x, n.attr(name, v)) for name, v in (("min", -6.0), ("max", 6.0))] if args else n.inputs[1:3]
    )
    step = n("Divide", n("Subtract", high, low), n.like(low, levels))
    zero = n("Round", n("Divide", n("Negative", low), step), mode="half_away_from_zero")
    zero = n("Clamp", zero, min=0.0, max=float(levels))
    ends = (
        n("Negative", n("Multiply", zero, step)),
        n("Multiply", n("Subtract", n.like(zero, levels), zero), step),
    )
    return n("FakeQuantize", x, *ends, *ends, levels=levels + 1)


def _shapes(n: OnnxNode) -> list[Output]:
    """The shapes of all operands."""
    kind = n.data_type("out_type", _INT32)
    return [n("ShapeOf", value, output_type=kind) for value in n.inputs]


def _running_log_sum(n: OnnxNode) -> Output:
    """log(sum(exp(x))) of the elements up to each one, or from it on (`reverse`); without itself if
    `exclusive`."""
    x, back = n[0], bool(n.attr("reverse", 0))
    axis = int(n.static(1, "the axis").reshape(())) % n.rank(x)
    result = n.convert(running(n, n.upcast(x), axis, partial(special.log_add, n), back), n.dtype(x))
    if not n.attr("exclusive", 0):
        return result
    first, last = n.slice(result, axis, 0, 1), n.slice(result, axis, -1)
    edge = n.broadcast(n.like(x, -np.inf), n("ShapeOf", last if back else first, output_type="i64"))
    interior = n.slice(result, axis, 1) if back else n.slice(result, axis, 0, -1)
    return n.concat([interior, edge] if back else [edge, interior], axis)


def _histogram(n: OnnxNode) -> Output:
    """Counts values in bins of equal width; values outside the range count in the first or last bin."""
    x, count = n.reshape(n[0], [-1]), int(n.static(2, "the number of steps").reshape(()))
    low, high = n.all("Split", n[1], n.const(0), num_splits=2)
    step = n("Divide", n.convert(n("Subtract", high, low), "f64"), n.const(float(count), "f64"))
    above = n.convert(n("Subtract", n("Maximum", x, low), low), "f64")
    bin_index = n("Clamp", n("Divide", above, step), min=0.0, max=count - 1.0)
    zeros = n.const(np.zeros(count, np.int32))
    ones = n.broadcast(n.const(1, "i32"), n("ShapeOf", x, output_type="i64"))
    index = n.convert(bin_index, "i64")
    result = n("ScatterElementsUpdate", zeros, index, ones, n.const(0), reduction="sum", opset=12)
    return n.convert(result, n.data_type("dtype", _INT32))


def _greatest(n: OnnxNode) -> Output:
    return n("ReduceMax", n[0], [-1], keep_dims=True)


def _saturate(n: OnnxNode) -> Output:
    """AdjustSaturation: the distances of all channels to the greatest one are multiplied, so that it and the
    hue stay."""
    top = _greatest(n)
    gap = n("Subtract", top, n("ReduceMin", n[0], [-1], keep_dims=True))
    # the saturation is gap / top, of which more than 1 is not possible
    most = n("Clamp", n("Multiply", n[1], n("Divide", gap, top)), min=0.0, max=1.0)
    factor = n("Divide", n("Multiply", most, top), gap)
    factor = n("Select", n("Equal", gap, n.like(gap, 0)), n.like(gap, 0), factor)
    return n("Subtract", top, n("Multiply", n("Subtract", top, n[0]), factor))


def _hue_saturation_value(n: OnnxNode) -> Output:
    top = _greatest(n)
    gap = n("Subtract", top, n("ReduceMin", n[0], [-1], keep_dims=True))
    red, green, blue = n.all("Split", n[0], n.const(-1), num_splits=3)
    zero = n.like(gap, 0)

    def turn(a: Output, b: Output, sixths: int) -> Output:
        share = n("Divide", n("Subtract", a, b), n("Multiply", gap, n.like(gap, 6)))
        return n("Add", share, n.like(gap, sixths / 6))

    hue = n("Select", n("Equal", green, top), turn(blue, red, 2), turn(red, green, 4))
    hue = n("Select", n("Equal", red, top), turn(green, blue, 0), hue)
    hue = n("Select", n("Greater", gap, zero), hue, zero)
    hue = n("Select", n("Less", hue, zero), n("Add", hue, n.like(hue, 1)), hue)
    saturation = n("Select", n("Greater", top, zero), n("Divide", gap, top), zero)
    return n("Concat", hue, saturation, top, axis=-1)


def _red_green_blue(n: OnnxNode) -> Output:
    hue, saturation, value = n.all("Split", n[0], n.const(-1), num_splits=3)
    sixths = n("Abs", n("Subtract", n("Multiply", hue, n.like(hue, 6)), n.like(n[0], [3, 2, 4])))
    pure = n("Add", n("Multiply", sixths, n.like(sixths, [1, -1, -1])), n.like(sixths, [-1, 2, 2]))
    grey = n("Subtract", n("Clamp", pure, min=0.0, max=1.0), n.like(pure, 1))
    return n("Multiply", n("Add", n("Multiply", grey, saturation), n.like(grey, 1)), value)


#: How many axes the Fourier transforms are along, by the ends of their names.
_AXES = {"FFT": 1, "FFT2D": 2, "FFT3D": 3}
#: What stands before these ends -> the operation. Complex numbers are pairs, along a last dimension of 2.
_TRANSFORMS = {"": "DFT", "I": "IDFT", "R": "RDFT", "IR": "IRDFT"}


def _transform(op: str, count: int) -> Rule:
    """The rule of a Fourier transform `op` along the last `count` axes. Transforms from or to real numbers
    have their length as an operand."""

    def rule(n: OnnxNode) -> Output:
        axes = n.const(np.arange(-count, 0))
        return n(op, n[0], axes, *([n.convert(n[1], "i64")] if len(n) > 1 else []))

    return rule


def _part(index: int) -> Rule:
    return lambda n: n("Gather", n[0], n.const(index), n.const(-1))


_COMPLEX: dict[str, Rule] = {
    "Real": _part(0),
    "Imag": _part(1),
    "ComplexAbs": lambda n: n("ReduceL2", n[0], [-1], keep_dims=False),
    "Complex": lambda n: n("Concat", *(n.unsqueeze(v, [-1]) for v in n.inputs), axis=-1),
    "Conj": lambda n: n("Multiply", n[0], n.like(n[0], [1, -1])),
    **{
        before + end: _transform(op, count)
        for before, op in _TRANSFORMS.items()
        for end, count in _AXES.items()
    },
}
#: Operators that have pairs as results, and those that take them.
_MAKES_PAIRS = {name for name in _COMPLEX if name not in ("Real", "Imag", "ComplexAbs") and name[:2] != "IR"}
_TAKES_PAIRS = {name for name in _COMPLEX if name != "Complex" and name[0] != "R" or name == "Real"}


def check_pairs(graph: Any) -> None:
    """UnsupportedError if an operator that is not about complex numbers takes some, or they are an output."""
    result = {out: node.op_type for node in graph.node for out in node.output if node.op_type in _MAKES_PAIRS}
    wrong = [(result[out.name], "an output of the model") for out in graph.output if out.name in result]
    for node in graph.node:
        producers = [result[name] for name in node.input if name in result]
        wrong += [
            (kind, f"an operand of {node.op_type}") for kind in producers if node.op_type not in _TAKES_PAIRS
        ]
    if wrong:
        listed = "; ".join(f"the result of {kind} is {use}" for kind, use in sorted(set(wrong)))
        raise UnsupportedError(f"Complex numbers are not supported here: {listed}")


def _floor_div(n: OnnxNode) -> Output:
    """floor(a / b); OpenVINO's quotient of integers is that already."""
    result = n("Divide", n[0], n[1], m_pythondiv=True)
    return n("Floor", result) if n.is_real(n[0]) else result


def _truncate_div(n: OnnxNode) -> Output:
    """a / b, rounded towards zero."""
    result = n("Divide", n[0], n[1], m_pythondiv=False)
    if not n.is_real(n[0]):
        return result
    return n("Select", n("Less", result, n.like(result, 0)), n("Ceiling", result), n("Floor", result))


def _near(n: OnnxNode) -> Output:
    gap = n("Abs", n("Subtract", n[0], n[1]))
    return n("Less", gap, n.like(gap, n.attr("tolerance", 1e-5)))


def _slice(n: OnnxNode) -> Output:
    """StridedSlice: entries of begin, end and strides as in Python, with a bit of each mask for each
    entry."""
    count = n.static_shape(n[1], "the number of slices")[0]
    names = ("begin_mask", "end_mask", "new_axis_mask", "shrink_axis_mask", "ellipsis_mask")
    bits = {name: int(n.attr(name, 0)) for name in names}
    masks: dict[str, Any] = {name: [value >> i & 1 for i in range(count)] for name, value in bits.items()}
    return n("StridedSlice", *n.inputs[:4], **masks)


def _truth(n: OnnxNode) -> Output:
    """The truth value of a tensor: a scalar is not 0, another one is not empty."""
    if n.rank(n[0]):
        size = n("ReduceProd", n.shape_of(n[0]), [0], keep_dims=False)
        return n("NotEqual", size, n.const(0))
    return n("NotEqual", n[0], n.like(n[0], 0))


def _rank(n: OnnxNode) -> Output:
    shape = n.shape(n[0])
    if shape is not None:
        return n.const(len(shape), "i32")
    return n.convert(n.scalar(n("ShapeOf", n("ShapeOf", n[0], output_type="i64"), output_type="i64")), "i32")


def _select(n: OnnxNode) -> Output:
    """Select elements of two tensors by a condition, which may also have one element per row."""
    condition, rank = n[0], n.rank(n[1]) if n.op_type == "Select" else 0
    if rank > 1 and n.rank(condition) == 1:
        condition = n.along(condition, 0, rank)
    return n("Select", condition, n[1], n[2])


def _one_hot(n: OnnxNode) -> Output:
    indices = n[0] if n.dtype(n[0]) in ("i32", "i64") else n.convert(n[0], "i64")
    return n("OneHot", indices, n[1], n[2], n[3], axis=int(n.attr("axis", -1)), opset=1)


def _joint_shape(n: OnnxNode) -> Output:
    """The shape to which tensors of two shapes are broadcast."""
    counts = [n.shape_of(shape) for shape in n.inputs]
    most = n("Maximum", *counts)
    first, second = (
        n("Concat", n.broadcast(n.like(shape, 1), n("Subtract", most, count)), shape, axis=0)
        for shape, count in zip(n.inputs, counts, strict=True)
    )
    return n("Select", n("Equal", first, n.like(first, 1)), second, first)


def _is_among_first(n: OnnxNode) -> Output:
    """InTopK: whether fewer than k scores of a row exceed that of its class, which must be finite."""
    scores, classes = n[0], n.convert(n[1], "i64")
    count = n.dim_of(scores, 1)
    is_valid = n("LogicalAnd", n("GreaterEqual", classes, n.like(classes, 0)), n("Less", classes, count))
    column = n.unsqueeze(n("Select", is_valid, classes, n.like(classes, 0)), [1])
    own_score = n("GatherElements", scores, column, axis=1)
    greater = n("ReduceSum", n.convert(n("Greater", scores, own_score), "i64"), [1], keep_dims=False)
    finite = n("IsFinite", n("Squeeze", own_score, [1]))
    return n("LogicalAnd", n("LogicalAnd", is_valid, finite), n("Less", greater, n.convert(n[2], "i64")))


def _largest(n: OnnxNode) -> list[Output]:
    """The k largest or smallest elements along an axis, and their indices."""
    mode = "max" if n.attr("is_max_k", 1) else "min"
    return n.top_k(n[0], n.require("k"), n.attr("reduction_dimension", -1), mode, "i32")


def _slope(function: Callable[[OnnxNode, Output], Output]) -> Rule:
    """The rule of a gradient operator: `function` of the forward result and its gradient."""
    return lambda n: n("Multiply", n[1], function(n, n[0]))


TENSORFLOW: dict[str, Rule] = {
    **_COMPLEX,
    **DIAGONALS,
    **LAYERS,
    **RESIZING,
    **SEGMENTS,
    **dict.fromkeys(("Select", "SelectV2"), _select),
    "Einsum": lambda n: n("Einsum", *n.tensors(), equation=n.require("equation")),
    "Equal": lambda n: n("Equal", n[0], n[1]),
    "NotEqual": lambda n: n("NotEqual", n[0], n[1]),
    "Atan2": lambda n: n.convert(special.atan2(n, n.upcast(n[0]), n.upcast(n[1])), n.dtype(n[0])),
    "OneHot": _one_hot,
    "ToBool": _truth,
    "Transpose": lambda n: n("Transpose", n[0], n[1]),
    "FloorDiv": _floor_div,
    "FloorMod": lambda n: n("FloorMod", n[0], n[1]),
    "TruncateDiv": _truncate_div,
    "ApproximateEqual": _near,
    "StridedSlice": _slice,
    "Roll": lambda n: n("Roll", n[0], n[1], n[2]),
    "CheckNumericsV2": lambda n: n.same(n[0]),
    "ScatterNd": _scatter,
    "ShapeN": _shapes,
    "CumulativeLogsumexp": _running_log_sum,
    "HistogramFixedWidth": _histogram,
    "AdjustSaturation": _saturate,
    "RGBToHSV": _hue_saturation_value,
    "HSVToRGB": _red_green_blue,
    "FakeQuantWithMinMaxArgs": _fake_quantize,
    "FakeQuantWithMinMaxVars": _fake_quantize,
    "FakeQuantWithMinMaxVarsPerChannel": _fake_quantize,
    "Erfc": special.in_f64(special.erfc),
    "Lgamma": special.in_f64(special.log_gamma),
    "Digamma": special.in_f64(special.digamma),
    "Erfinv": lambda n: n("ErfInv", n[0]),
    "Ndtri": special.in_f64(_normal_quantile),
    "BesselI0": special.in_f64(lambda n, x: special.bessel_i(n, x, 0, False)),
    "BesselI1": special.in_f64(lambda n, x: special.bessel_i(n, x, 1, False)),
    "BesselI0e": special.in_f64(lambda n, x: special.bessel_i(n, x, 0, True)),
    "BesselI1e": special.in_f64(lambda n, x: special.bessel_i(n, x, 1, True)),
    "Expm1": lambda n: n.convert(special.expm1(n, n.upcast(n[0])), n.dtype(n[0])),
    "Log1p": lambda n: _log1p(n, n[0]),
    "Xlogy": _unless_zero(lambda n: n("Multiply", n[0], n("Log", n[1]))),
    "Xlog1py": _unless_zero(lambda n: n("Multiply", n[0], _log1p(n, n[1]))),
    "Xdivy": _unless_zero(lambda n: n("Divide", n[0], n[1])),
    "MulNoNan": lambda n: n(
        "Select", n("Equal", n[1], n.like(n[1], 0)), n.like(n[0], 0), n("Multiply", n[0], n[1])
    ),
    "Inv": lambda n: n("Divide", n.like(n[0], 1), n[0]),
    **dict.fromkeys(("TruncateMod", "Mod"), lambda n: n("Mod", n[0], n[1])),
    "EuclideanNorm": lambda n: n("ReduceL2", n[0], n[1], keep_dims=bool(n.attr("keep_dims", 0))),
    "L2Loss": _l2_loss,
    "LinSpace": _linspace,
    "Cholesky": lambda n: matrices.lower_factor(n, n[0]),
    "MatrixInverse": lambda n: matrices.inverse(n, n[0], n.attr("adjoint", 0)),
    "MatrixSolve": lambda n: n("MatMul", matrices.inverse(n, n[0], n.attr("adjoint", 0)), n[1]),
    "MatrixTriangularSolve": lambda n: n(
        "MatMul",
        matrices.inverse_of_triangle(n, n[0], n.attr("lower", 1), transposed=n.attr("adjoint", 0)),
        n[1],
    ),
    "BroadcastArgs": _joint_shape,
    "InTopKV2": _is_among_first,
    "ApproxTopK": _largest,
    "TanhGrad": _slope(lambda n, y: n("Subtract", n.like(y, 1), n("Multiply", y, y))),
    "SigmoidGrad": _slope(lambda n, y: n("Multiply", y, n("Subtract", n.like(y, 1), y))),
    "Bucketize": _bucketize,
    "Cross": lambda n: matrices.cross(n, n[0], n[1], n.rank(n[0]) - 1),
    "Bitcast": lambda n: reinterpret_bits(n, n[0], n.data_type("type")),
    "Rank": _rank,
    "LookupTableFindV2": find_in_table,
    "Snapshot": lambda n: n.same(n[0]),
    "PreventGradient": lambda n: n.same(n[0]),
    "LowerBound": lambda n: n("SearchSorted", n[0], n[1], right_mode=False, output_type="i32"),
    "UpperBound": lambda n: n("SearchSorted", n[0], n[1], right_mode=True, output_type="i32"),
}
