"""Primitives that compute each element alone. Operands have one shape; numbers broadcast."""

from __future__ import annotations

from ovjit.readers.jax.rule_language import *
from ovjit.readers.numerics import special
from ovjit.readers.numerics.bits import FORMATS, bits_of, next_after, real_of, reinterpret_bits
from ovjit.readers.rows import Rule

#: Primitive -> operation of one operand with the same meaning.
UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "ceil": "Ceiling", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "erf_inv": "ErfInv",
    "exp": "Exp", "floor": "Floor", "is_finite": "IsFinite", "log": "Log", "logistic": "Sigmoid",
    "neg": "Negative", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan",
    "tanh": "Tanh",
}  # fmt: skip
#: ... of two operands.
BINARY = {
    "add": "Add", "add_any": "Add", "sub": "Subtract",
    "pow": "Power", "eq": "Equal", "ne": "NotEqual", "lt": "Less", "le": "LessEqual",
    "gt": "Greater", "ge": "GreaterEqual",
}  # fmt: skip
#: ... of numbers, and of truth values.
LOGICAL = {"and": ("BitwiseAnd", "LogicalAnd"), "or": ("BitwiseOr", "LogicalOr"),
           "max": ("Maximum", "LogicalOr"), "min": ("Minimum", "LogicalAnd"),
           "xor": ("BitwiseXor", "LogicalXor"), "not": ("BitwiseNot", "LogicalNot")}  # fmt: skip
#: Primitives that are about where and how something is computed.
SAME = ("copy", "copy_p", "device_put", "layout_constraint", "name", "optimization_barrier", "pbroadcast",
        "pvary", "random_clone", "reshard", "sharding_constraint", "stop_gradient")  # fmt: skip


def _unary(op: str) -> Rule:
    return lambda n: n(op, n[0])


def _binary(op: str) -> Rule:
    """The rule of a binary operation `op`. An exponent may have another type."""
    return lambda n: n(op, n[0], n.convert(n[1], n.dtype(n[0])))


def _logical(ops: tuple[str, str]) -> Rule:
    return lambda n: n(ops[n.is_bool(n[0])], *n.inputs)


primitives({name: _unary(op) for name, op in UNARY.items()})
primitives({name: _binary(op) for name, op in BINARY.items()})
primitives({name: _logical(ops) for name, ops in LOGICAL.items()})


@primitive(*SAME)
def same(n: JaxNode) -> Any:
    return list(n.inputs)


@primitive("erfc")
def erfc(n: JaxNode) -> Any:
    """erfc in f32 or f64. The argument is recorded, as Gelu is expressed by erfc."""
    result = n.convert(special.erfc(n, n.upcast(n[0])), n.dtype(n[0]))
    n.reader.of_erfc[result.node] = n[0]
    return result


@primitive("mul")
def mul(n: JaxNode) -> Any:
    """A product; x / 2 * erfc(-x / sqrt(2)) becomes Gelu(x)."""
    for half, other in ((n[0], n[1]), (n[1], n[0])):
        argument = n.reader.of_erfc.get(other.node)
        x = None if argument is None else _scaled_by(n, half, 0.5)
        scaled_argument = None if argument is None or x is None else _scaled_by(n, argument, math.sqrt(0.5))
        if x is not None and scaled_argument is not None and _operands(scaled_argument, "Negative") == [x]:
            return n("Gelu", x, approximation_mode="ERF", opset=7)
    return n("Multiply", n[0], n[1])


def _operands(value: Output, name: str) -> list[Output]:
    """The operands of the operation `name` that made a value; none if another one did."""
    node = value.node
    return node.input_values() if node.get_type_name() == name else []


def _scaled_by(n: JaxNode, value: Output, factor: float) -> Output | None:
    """x if the value is x * factor, up to the precision of 16-bit floats; else None."""
    pair = _operands(value, "Multiply")
    for x, other in (pair, pair[::-1]) if pair else ():
        number = n.value(other)
        if number is not None and number.size == 1 and math.isclose(number.item(), factor, rel_tol=4e-3):
            return x
    return None


@primitive("div", "rem")
def divide(n: JaxNode) -> Any:
    """A quotient or a remainder. Those of integers are cut off towards zero; by 0 they are -1 and x."""
    x, y = n.inputs
    is_real, divisor = n.is_real(x), n.value(y)
    result = n("Mod", x, y) if n.op_type == "rem" else n("Divide", x, y, m_pythondiv=is_real)
    if is_real or (divisor is not None and divisor.all()):
        return result
    bits = x if n.op_type == "rem" else n("BitwiseNot", n.like(x, 0))
    return n("Select", n("Equal", y, n.like(y, 0)), bits, result)


@primitive("integer_pow")
def integer_pow(n: JaxNode) -> Any:
    if n.params["y"] == 2:
        return n("Multiply", n[0], n[0])
    return n("Power", n[0], n.like(n[0], n.params["y"]))


@primitive("round")
def round_(n: JaxNode) -> Any:
    even = int(n.params["rounding_method"]) == 1
    return n("Round", n[0], mode="half_to_even" if even else "half_away_from_zero")


@primitive("clamp")
def clamp(n: JaxNode) -> Any:
    low, x, high = n.inputs
    return n("Minimum", n("Maximum", x, low), high)


@primitive("select_n")
def select_n(n: JaxNode) -> Any:
    """Select elements of the cases by the number in the first operand; false is 0."""
    which, cases = n[0], n.inputs[1:]
    if n.is_bool(which):
        return n("Select", which, cases[1], cases[0])
    result = cases[-1]
    for i in reversed(range(len(cases) - 1)):
        result = n("Select", n("LessEqual", which, n.like(which, i)), cases[i], result)
    return result


@primitive("convert_element_type")
def convert_element_type(n: JaxNode) -> Any:
    return convert(n, n[0], element_type(n.params["new_dtype"]))


def convert(n: JaxNode, x: Output, target: str) -> Output:
    """A tensor in another type. An integer type has 0 for NaN, and its ends for numbers beyond them."""
    if target == "boolean" and not n.is_bool(x):
        return n("NotEqual", x, n.like(x, 0))
    if not n.is_real(x) or ELEMENT_TYPES[target].is_real:
        return n.convert(x, target)
    x = n.upcast(x)
    low, high = value_range(target)
    lost_bits = max(0, int(high).bit_length() - 1 - FORMATS[n.dtype(x)].fraction)
    top = int(high) >> lost_bits << lost_bits  # the largest number of the real type that fits
    number = n("Select", n("NotEqual", x, x), n.like(x, 0), x)
    result = n.convert(n("Clamp", number, min=float(low), max=float(top)), target)
    return (
        result if top == high else n("Select", n("Greater", x, n.like(x, top)), n.like(result, high), result)
    )


@primitive("shift_left", "shift_right_arithmetic", "shift_right_logical")
def shift(n: JaxNode) -> Any:
    """Shifts. A logical one of signed integers is done on their bits as unsigned ones."""
    x, kind = n[0], n.dtype(n[0])
    if n.op_type == "shift_left":
        return n("BitwiseLeftShift", x, n[1])
    other = kind.replace("i", "u") if n.op_type == "shift_right_logical" else kind.replace("u", "i")
    if other == kind:
        return n("BitwiseRightShift", x, n[1])
    result = n("BitwiseRightShift", reinterpret_bits(n, x, other), n.convert(n[1], other))
    return reinterpret_bits(n, result, kind)


@primitive("mulhi")
def multiply_high(n: JaxNode) -> Any:
    """The upper half of the bits of products, in integers of twice the width."""
    kind, bits = n.dtype(n[0]), ELEMENT_TYPES[n.dtype(n[0])].bits
    if bits > 32:
        return _multiply_high_words(n, *n.inputs)
    product = n("Multiply", *(n.convert(value, f"{kind[0]}64") for value in n.inputs))
    return n.convert(n("BitwiseRightShift", product, n.like(product, bits)), kind)


def _multiply_high_words(n: JaxNode, a: Output, b: Output) -> Output:
    """The upper half of the bits of products of 64 bits, by products of their words of 32 bits. As unsigned
    numbers, negative factors are 2^64 larger, which adds the other factor to the upper half."""

    def low(value: Output) -> Output:
        return n("BitwiseAnd", value, n.like(value, 0xFFFFFFFF))

    def high(value: Output) -> Output:
        return n("BitwiseRightShift", value, n.like(value, 32))

    x, y = (reinterpret_bits(n, value, "u64") for value in (a, b))
    middle = n("Add", n("Multiply", high(x), low(y)), high(n("Multiply", low(x), low(y))))
    other = n("Add", n("Multiply", low(x), high(y)), low(middle))
    result = n("Add", n("Multiply", high(x), high(y)), n("Add", high(middle), high(other)))
    result = reinterpret_bits(n, result, n.dtype(a))
    if n.dtype(a) == "i64":
        for sign, factor in ((a, b), (b, a)):
            zero = n.like(a, 0)
            result = n("Subtract", result, n("Select", n("Less", sign, zero), factor, zero))
    return result


@primitive("population_count", "clz")
def count_bits(n: JaxNode) -> Any:
    """Counts bits that are 1 (population_count), or zeros before the first 1 (clz), by bit-parallel sums."""
    kind = n.dtype(n[0])
    if ELEMENT_TYPES[kind].bits <= 32:
        return _count_bits_of_word(n, n[0])
    # of 64 bits, by the high and the low word
    x = reinterpret_bits(n, n[0], "u64")
    low = n.convert(n("BitwiseAnd", x, n.like(x, 0xFFFFFFFF)), "u32")
    high = n.convert(n("BitwiseRightShift", x, n.like(x, 32)), "u32")
    of_high, of_low = _count_bits_of_word(n, high), _count_bits_of_word(n, low)
    if n.op_type == "clz":
        of_low = n("Select", n("Equal", high, n.like(high, 0)), of_low, n.like(of_low, 0))
    return n.convert(n("Add", of_high, of_low), kind)


def _count_bits_of_word(n: JaxNode, value: Any) -> Any:
    kind = n.dtype(value)
    width = ELEMENT_TYPES[kind].bits
    modulus = n.const(1 << width)
    x = n("FloorMod", n.convert(value, "i64"), modulus)
    if n.op_type == "clz":  # ones from the first 1 on
        for step in (1, 2, 4, 8, 16):
            x = n("BitwiseOr", x, n("Divide", x, n.const(1 << step)))
    for step in (1, 2, 4, 8, 16):
        mask = sum(((1 << step) - 1) << bit for bit in range(0, 32, 2 * step))
        high = n("BitwiseAnd", n("Divide", x, n.const(1 << step)), n.const(mask))
        x = n("Add", n("BitwiseAnd", x, n.const(mask)), high)
    return n.convert(n("Subtract", n.const(width), x) if n.op_type == "clz" else x, kind)


@primitive("bitcast_convert_type")
def bitcast(n: JaxNode) -> Any:
    """Bits as another type. An element of a wider type is several elements of a further last dimension,
    lowest bits first."""
    x, kind = n[0], element_type(n.params["new_dtype"])
    old, new = (ELEMENT_TYPES[k].bits for k in (n.dtype(x), kind))
    if old == new or min(old, new) < 8:
        return reinterpret_bits(n, x, kind)
    wide_type, narrow_type = f"u{max(old, new)}", f"u{min(old, new)}"
    steps = np.arange(0, max(old, new), min(old, new))
    if old > new:
        bits = n.unsqueeze(reinterpret_bits(n, x, wide_type), [n.rank(x)])
        pieces = n("BitwiseRightShift", bits, n.const(steps, wide_type))
        pieces = n("BitwiseAnd", pieces, n.const((1 << new) - 1, wide_type))
        return reinterpret_bits(n, n.convert(pieces, narrow_type), kind)
    pieces = n.convert(reinterpret_bits(n, x, narrow_type), wide_type)
    pieces = n("BitwiseLeftShift", pieces, n.const(steps, wide_type))
    return reinterpret_bits(n, n("ReduceSum", pieces, [-1], keep_dims=False), kind)


def read_in_f64(name: str, function: Callable[..., Any]) -> None:
    """Register the rule `name`: a function of one or several operands, computed in f64."""
    primitive(name)(lambda n: n.convert(function(n, *(n.convert(v, "f64") for v in n.inputs)), n.dtype(n[0])))


read_in_f64("lgamma", special.log_gamma)
read_in_f64(
    "digamma",
    lambda n, x: n("Select", n("Equal", x, n.like(x, 0)), n.like(x, math.nan), special.digamma(n, x)),
)
read_in_f64("bessel_i0e", lambda n, x: special.bessel_i(n, x, 0, True))
read_in_f64("bessel_i1e", lambda n, x: special.bessel_i(n, x, 1, True))


@primitive("cbrt")
def cbrt(n: JaxNode) -> Any:
    """The cube root. An exponent of 16 bits is too far from 1/3."""
    x = n.upcast(n[0])
    result = n("Multiply", n("Sign", x), n("Power", n("Abs", x), n.like(x, 1 / 3)))
    return n.convert(result, n.dtype(n[0]))


@primitive("lt_to", "le_to")
def total_order(n: JaxNode) -> Any:
    """`lt` or `le` in the total order, in which NaN is greater than all numbers."""
    a, b = n[0], n[1]
    if n.op_type == "le_to":
        a, b = b, a
    less = n("Less", a, b)
    if n.is_real(a):
        less = n("LogicalOr", less, n("LogicalAnd", n("NotEqual", b, b), n("Equal", a, a)))
    return n("LogicalNot", less) if n.op_type == "le_to" else less


@primitive("reduce_precision")
def reduce_precision(n: JaxNode) -> Any:
    """Round to a number of mantissa bits, by bit operations. Exponents beyond the given bits become infinity
    or 0."""
    kind = n.dtype(n[0])
    form, mantissa_bits = FORMATS[kind], int(n.params["mantissa_bits"])
    exponent, dropped_bits = int(n.params["exponent_bits"]), form.fraction - mantissa_bits
    x = n[0]
    if dropped_bits > 0:
        bits, unit = bits_of(n, n("Abs", x)), n.const(1 << dropped_bits)
        odd = n("BitwiseAnd", n("Divide", bits, unit), n.const(1))
        bits = n("Add", bits, n("Add", odd, n.const((1 << (dropped_bits - 1)) - 1)))
        rounded = real_of(n, n("Multiply", n("Divide", bits, unit), unit), kind)
        changes = n("LogicalAnd", n("IsFinite", x), n("NotEqual", x, n.like(x, 0)))  # -0 stays
        x = n("Select", changes, n("Multiply", n("Sign", x), rounded), x)
    bias = (1 << (exponent - 1)) - 1
    if bias < form.bias:
        size = n("Abs", x)
        beyond = n("GreaterEqual", size, n.like(x, 2.0 ** (bias + 1)))
        x = n("Select", beyond, n("Multiply", n("Sign", x), n.like(x, math.inf)), x)
        x = n("Select", n("Less", size, n.like(x, 2.0 ** (1 - bias))), n("Multiply", x, n.like(x, 0)), x)
    return x


@primitive("platform_index")
def platform_index(n: JaxNode) -> Any:
    """The index of the branch for the CPU among those for several platforms, else of the default one."""
    platforms = list(n.params["platforms"])
    for index, names in enumerate(platforms):
        if names is None or "cpu" in names:
            return n.const(index, n.out().dtype)
    raise UnsupportedError(f"the function is not available for the CPU, only for {platforms}")


#: Operators that are one expression.
primitives({
    "nextafter": lambda n: next_after(n, n[0], n[1]),
    "square": lambda n: n("Multiply", n[0], n[0]),
    "rsqrt": lambda n: n("Divide", n.like(n[0], 1), n("Sqrt", n[0])),
    "exp2": lambda n: n("Power", n.like(n[0], 2), n[0]),
    "log1p": lambda n: n.convert(special.log1p(n, n.upcast(n[0])), n.dtype(n[0])),
    "expm1": lambda n: n.convert(special.expm1(n, n.upcast(n[0])), n.dtype(n[0])),
    "add_n": lambda n: reduce(lambda a, b: n("Add", a, b), n.inputs),
    "atan2": lambda n: n.convert(special.atan2(n, n.upcast(n[0]), n.upcast(n[1])), n.dtype(n[0])),
})  # fmt: skip
