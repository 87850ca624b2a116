"""Complex operators of TensorFlow as operators of real and imaginary parts."""

from __future__ import annotations

from ovjit.readers.tensorflow_graphs.graph_rewriter import *

#: Operators that move elements, or are linear with real factors.
PART_BY_PART.update((
    "Add", "AddN", "AddV2", "BatchToSpaceND", "BroadcastTo", "Concat", "ConcatV2", "Cumsum", "DiagPart",
    "DynamicPartition", "DynamicStitch", "EnsureShape", "ExpandDims", "Fill", "Gather", "GatherNd",
    "GatherV2", "MatrixBandPart", "MatrixDiag", "MatrixDiagPart", "MatrixDiagPartV3", "MatrixDiagV3",
    "MatrixSetDiag", "MatrixSetDiagV3", "Mean", "MirrorPad", "Neg", "Pack", "Pad", "PadV2", "Reshape",
    "ReverseSequence", "ReverseV2", "Roll", "ScatterNd", "SegmentSum", "Select", "SelectV2", "Slice",
    "SpaceToBatchND", "Split", "SplitV", "Squeeze", "StridedSlice", "Sub", "Sum", "TensorScatterAdd",
    "TensorScatterUpdate", "Tile", "Transpose", "Unpack", "UnsortedSegmentSum", "ZerosLike",
))  # fmt: skip


def _as_pair(value: Value) -> Pair:
    return value if isinstance(value, Pair) else Pair(value, tf.zeros_like(value))


def product(a: Pair, b: Pair, by: Callable[[Any, Any], Any] = tf.multiply) -> Pair:
    return Pair(by(a.real, b.real) - by(a.imag, b.imag), by(a.real, b.imag) + by(a.imag, b.real))


def square_of_size(a: Pair) -> Any:
    return a.real * a.real + a.imag * a.imag


def quotient(a: Pair, b: Pair) -> Pair:
    size = square_of_size(b)
    result = product(a, conjugate(b))
    return Pair(result.real / size, result.imag / size)


def reciprocal(a: Pair) -> Pair:
    size = square_of_size(a)
    return Pair(a.real / size, -a.imag / size)


def conjugate(a: Pair) -> Pair:
    return Pair(a.real, -a.imag)


def _size(a: Pair) -> Any:
    return tf.sqrt(square_of_size(a))


def _angle(a: Pair) -> Any:
    return tf.atan2(a.imag, a.real)


def _polar(size: Any, angle: Any) -> Pair:
    return Pair(size * tf.cos(angle), size * tf.sin(angle))


def exponential(a: Pair) -> Pair:
    return _polar(tf.exp(a.real), a.imag)


def logarithm(a: Pair) -> Pair:
    return Pair(tf.math.log(_size(a)), _angle(a))


def _root(a: Pair) -> Pair:
    return _polar(tf.sqrt(_size(a)), _angle(a) * 0.5)


def _power(a: Pair, b: Pair) -> Pair:
    """exp(b log(a)); 0 where a is 0."""
    result, zero = exponential(product(b, logarithm(a))), tf.equal(square_of_size(a), 0)
    return Pair(*(tf.where(zero, tf.zeros_like(part), part) for part in result))


def _sinh(a: Pair) -> Pair:
    return Pair(tf.sinh(a.real) * tf.cos(a.imag), tf.cosh(a.real) * tf.sin(a.imag))


def _cosh(a: Pair) -> Pair:
    return Pair(tf.cosh(a.real) * tf.cos(a.imag), tf.sinh(a.real) * tf.sin(a.imag))


def _sin(a: Pair) -> Pair:
    return Pair(tf.sin(a.real) * tf.cosh(a.imag), tf.cos(a.real) * tf.sinh(a.imag))


def _cos(a: Pair) -> Pair:
    return Pair(tf.cos(a.real) * tf.cosh(a.imag), -tf.sin(a.real) * tf.sinh(a.imag))


def _sigmoid(a: Pair) -> Pair:
    result = exponential(Pair(-a.real, -a.imag))
    return reciprocal(Pair(result.real + 1, result.imag))


#: Operators of complex operands alone.
FUNCTIONS: dict[str, Callable[..., Value]] = {
    "Real": lambda a: a.real,
    "Imag": lambda a: a.imag,
    "ComplexAbs": _size,
    "Abs": _size,
    "Angle": _angle,
    "Conj": conjugate,
    "Mul": product,
    "RealDiv": quotient,
    "Div": quotient,
    "Reciprocal": reciprocal,
    "Inv": reciprocal,
    "Square": lambda a: product(a, a),
    "Exp": exponential,
    "Log": logarithm,
    "Sqrt": _root,
    "Rsqrt": lambda a: reciprocal(_root(a)),
    "Pow": _power,
    "Sinh": _sinh,
    "Cosh": _cosh,
    "Tanh": lambda a: quotient(_sinh(a), _cosh(a)),
    "Sin": _sin,
    "Cos": _cos,
    "Tan": lambda a: quotient(_sin(a), _cos(a)),
    "Sigmoid": _sigmoid,
    "Equal": lambda a, b: tf.logical_and(tf.equal(a.real, b.real), tf.equal(a.imag, b.imag)),
    "NotEqual": lambda a, b: tf.logical_or(tf.not_equal(a.real, b.real), tf.not_equal(a.imag, b.imag)),
    "OnesLike": lambda a: Pair(tf.ones_like(a.real), tf.zeros_like(a.imag)),
    "Where": lambda a: tf.where(tf.not_equal(square_of_size(a), 0)),
    "MatMul": lambda a, b: product(a, b, tf.matmul),
    "BatchMatMul": lambda a, b: product(a, b, tf.matmul),
    "BatchMatMulV2": lambda a, b: product(a, b, tf.matmul),
    "SquaredDifference": lambda a, b: _squared_difference(a, b),
    "Xdivy": lambda a, b: _unless_zero(a, quotient(a, b)),
    "Xlogy": lambda a, b: _unless_zero(a, product(a, logarithm(b))),
    "DivNoNan": lambda a, b: _unless_zero(b, quotient(a, b)),
    "MulNoNan": lambda a, b: _unless_zero(b, product(a, b)),
}


def _squared_difference(a: Pair, b: Pair) -> Pair:
    """(a - b) conj(a - b)"""
    result = square_of_size(Pair(a.real - b.real, a.imag - b.imag))
    return Pair(result, tf.zeros_like(result))


def _unless_zero(a: Pair, pair: Pair) -> Pair:
    zero = tf.equal(square_of_size(a), 0)
    return Pair(*(tf.where(zero, tf.zeros_like(part), part) for part in pair))


def _transpose_operands(op: Any, operands: list[Pair]) -> list[Pair]:
    """The operands of a product, transposed as its attributes require."""
    names = (("transpose_a", "transpose_b"), ("adj_x", "adj_y"))["adj_x" in op.node_def.attr]
    result = []
    for value, name in zip(operands, names, strict=True):
        if op.get_attr(name):
            value = Pair(*map(tf.linalg.matrix_transpose, value))
            value = conjugate(value) if name.startswith("adj") else value
        result.append(value)
    return result


def _rule_of(function: Callable[..., Value]) -> Rule:
    def rule(builder: Rebuilder, op: Any, inputs: list[Value]) -> Any:
        if not any(isinstance(value, Pair) for value in inputs):
            return NotImplemented
        operands = [_as_pair(value) for value in inputs]
        return [function(*(_transpose_operands(op, operands) if "MatMul" in op.type else operands))]

    return rule


RULES.update({name: _rule_of(function) for name, function in FUNCTIONS.items()})


@rule("Const")
def _constant(builder: Rebuilder, op: Any, inputs: list[Value]) -> Any:
    if not op.outputs[0].dtype.is_complex:
        return NotImplemented
    value = tf.make_ndarray(op.get_attr("value"))
    return [Pair(tf.constant(value.real), tf.constant(value.imag))]


@rule("Complex")
def _of_parts(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    """The parts broadcast to one shape."""
    real, imag = inputs
    if real.shape.is_fully_defined() and real.shape == imag.shape:
        return [Pair(real, imag)]
    return [Pair(real + tf.zeros_like(imag), imag + tf.zeros_like(real))]


@rule("Cast")
def _cast(builder: Rebuilder, op: Any, inputs: list[Value]) -> Any:
    target, value = op.outputs[0].dtype, inputs[0]
    if target.is_complex:
        return [Pair(*(tf.cast(part, target.real_dtype) for part in _as_pair(value)))]
    return [tf.cast(value.real, target)] if isinstance(value, Pair) else NotImplemented


@rule("Shape", "Rank", "Size", "ShapeN")
def _shape(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    attributes = {name: value for name, value in op.node_def.attr.items() if name != "T"}
    parts = [value.real if isinstance(value, Pair) else value for value in inputs]
    return builder.same(op, parts, {**attributes, "T": _type_of(parts[0])})


def _type_of(tensor: Any) -> Any:
    from tensorflow.core.framework import attr_value_pb2

    return attr_value_pb2.AttrValue(type=tensor.dtype.as_datatype_enum)


@rule("Prod")
def _product(builder: Rebuilder, op: Any, inputs: list[Value]) -> Any:
    """The product of all elements: magnitudes are multiplied, angles added."""
    value, axes = inputs
    if not isinstance(value, Pair):
        return NotImplemented
    keep = op.get_attr("keep_dims")
    size = tf.reduce_prod(_size(value), axes, keepdims=keep)
    return [_polar(size, tf.reduce_sum(_angle(value), axes, keepdims=keep))]


@rule("ConjugateTranspose")
def _conjugate_transpose(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    value, order = inputs
    if isinstance(value, Pair):
        return [Pair(tf.transpose(value.real, order), -tf.transpose(value.imag, order))]
    return [tf.transpose(value, order)]


@rule(*(f"{before}FFT{count}" for before in ("", "I", "R", "IR") for count in ("", "2D", "3D")))
def _transform(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    """Fourier transforms stay operators of complex numbers, between those that join and take their parts."""
    joined_value = tf.complex(*inputs[0]) if isinstance(inputs[0], Pair) else inputs[0]
    result = builder.same(op, [joined_value, *inputs[1:]], dict(op.node_def.attr))[0]
    return [Pair(tf.math.real(result), tf.math.imag(result)) if result.dtype.is_complex else result]
