"""Numbers that are no tensors: dimensions, arithmetic of Python's, and what changes a tensor's type."""

from __future__ import annotations

import operator

from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.values import as_f32

#: Python's operators and functions by the names of FX graphs and scripts: the function, and the operation.
ARITHMETIC: dict[str, tuple[Callable[..., Any], str]] = {
    "add": (operator.add, "Add"), "sub": (operator.sub, "Subtract"), "mul": (operator.mul, "Multiply"),
    "floordiv": (operator.floordiv, "floordiv"), "mod": (operator.mod, "FloorMod"),
    "truediv": (operator.truediv, "truediv"), "pow": (operator.pow, "Power"), "eq": (operator.eq, "Equal"),
    "ne": (operator.ne, "NotEqual"), "lt": (operator.lt, "Less"), "le": (operator.le, "LessEqual"),
    "gt": (operator.gt, "Greater"), "ge": (operator.ge, "GreaterEqual"), "sym_max": (max, "Maximum"),
    "sym_min": (min, "Minimum"), "max": (max, "Maximum"), "min": (min, "Minimum"),
    "and_": (operator.and_, "LogicalAnd"), "or_": (operator.or_, "LogicalOr"),
    "xor": (operator.xor, "LogicalXor"),
}  # fmt: skip
_UNARY: dict[str, tuple[Callable[..., Any], str]] = {
    "neg": (operator.neg, "Negative"), "abs": (abs, "Abs"), "pos": (operator.pos, "pos"),
    "ceil": (math.ceil, "Ceiling"), "floor": (math.floor, "Floor"), "trunc": (math.trunc, "trunc"),
    "round": (round, "Round"), "sym_int": (int, "int"), "sym_float": (float, "float"),
    "sym_not": (operator.not_, "LogicalNot"), "not_": (operator.not_, "LogicalNot"),
    "sqrt": (math.sqrt, "Sqrt"), "_sym_sqrt": (math.sqrt, "Sqrt"), "log": (math.log, "Log"),
}  # fmt: skip
_COMPARISONS = frozenset("Equal NotEqual Less LessEqual Greater GreaterEqual".split())
#: Connectives of integers work on their bits.
_BITWISE = {"LogicalAnd": "BitwiseAnd", "LogicalOr": "BitwiseOr", "LogicalXor": "BitwiseXor"}
#: The names that these have in scripts.
_SCRIPTED = {
    "floordiv": "floordiv", "mod": "remainder", "truediv": "div", "and_": "__and__", "or_": "__or__",
    "xor": "__xor__", "not_": "__not__",
}  # fmt: skip


def python_number(name: str) -> bool:
    return name in ARITHMETIC or name in _UNARY or name in ("sym_sum", "sym_ite")


def compute(n: Call, name: str, *values: Any) -> Any:
    """Apply a Python operator to numbers; static ones are computed now."""
    if name == "sym_sum":  # of a list
        return reduce(lambda a, b: compute(n, "add", a, b), values[0])
    if name == "sym_ite":  # condition, then, else
        condition = n.known_number(values[0])
        if condition is not None:
            return values[1] if condition else values[2]
        return Number(n("Select", n.tensor(values[0], "boolean"), *n.same_kind(values[1:])))
    if name == "round" and len(values) == 2:
        return _round(n, *values)
    function, op = (ARITHMETIC if len(values) > 1 else _UNARY)[name]
    constants = [n.known_number(v) for v in values]
    if None not in constants:
        return function(*constants)
    if len(values) == 1:
        return _unary(n, op, n.tensor(values[0]))
    keys = [v.key if isinstance(v, Number) else None for v in values]
    if op in _COMPARISONS and keys[0] is not None and keys[0] == keys[1]:  # the same dimension, of any length
        return function(0, 0)
    a, b = n.same_kind(values)
    if op == "truediv":
        return Number(n("Divide", n.convert(a, "f64"), n.convert(b, "f64")))
    if op == "floordiv":
        return Number(n.also("floor_divide", a, b) if n.is_real(a) else n("Divide", a, b, m_pythondiv=True))
    if op in _BITWISE and n.dtype(a) != "boolean":
        op = _BITWISE[op]
    return Number(n(op, a, b))


def sorted_items(n: Call, items: Any, reverse: bool = False) -> list[Any]:
    """Sort texts or numbers. Dynamic numbers are sorted by a network of comparisons."""
    values = list(items)
    constants = [v if isinstance(v, str) else n.known_number(v) for v in values]
    if None not in constants:
        return sorted(constants, reverse=reverse)
    for last in range(len(values) - 1, 0, -1):
        for i in range(last):
            pair = values[i : i + 2]
            values[i], values[i + 1] = (compute(n, name, *pair) for name in ("sym_min", "sym_max"))
    return values[::-1] if reverse else values


def _round(n: Call, value: Any, digits: Any) -> Any:
    """round(value, digits)"""
    decimals = n.known_int(0 if digits is None else digits, "the digits to round to")
    constant = n.known_number(value)
    if constant is not None:
        return round(constant) if digits is None else round(constant, decimals)
    if digits is None:
        return _unary(n, "Round", n.tensor(value))
    value_f64 = n.convert(n.tensor(value), "f64")
    scaled = n("Multiply", value_f64, n.like(value_f64, 10.0**decimals))
    return Number(n("Divide", n("Round", scaled, mode="half_to_even"), n.like(value_f64, 10.0**decimals)))


def _unary(n: Call, op: str, value: Output) -> Any:
    real = n.is_real(value)
    if op in ("int", "trunc", "float"):
        return Number(n.convert(value, "f64" if op == "float" else "i64"))
    if op == "pos":
        return Number(value)
    if op in ("Ceiling", "Floor", "Round"):
        out = value if not real else n("Round", value, mode="half_to_even") if op == "Round" else n(op, value)
        return Number(n.convert(out, "i64"))
    if op in ("Sqrt", "Log") and not real:
        value = n.convert(value, "f64")
    if op == "LogicalNot":
        value = n.tensor(value, "boolean")
    return Number(n(op, value))


def _add_both_forms(name: str, python: str) -> None:
    """Register a Python operator for the overloads of numbers, such as aten::add.int."""
    for overload in ("int", "float", "int_float", "float_int", "Scalar", "bool", "Scalars"):
        if overload != "Scalar" or name not in _OF_TENSORS:
            row = f"{name}.{overload}"
            aten(row)(lambda n, a, b=None, other=None: compute(n, python, a, b if other is None else other))


#: Operators whose overload "Scalar" is about a tensor and a number.
_OF_TENSORS = frozenset("add sub mul div eq ne lt le gt ge pow remainder __and__ __or__ __xor__".split())


for _python in ("add", "sub", "mul", "eq", "ne", "lt", "le", "gt", "ge", "pow", "floordiv", "mod", "truediv",
                "and_", "or_", "xor"):  # fmt: skip
    _add_both_forms(_SCRIPTED.get(_python, _python), _python)


@aten(*(f"{name}.{kind}" for name in ("ceil", "floor", "round") for kind in ("int", "float", "Scalar")))
def to_whole(n: Call, a: Any) -> Any:
    return compute(n, n.op.removeprefix("aten::"), a)


@aten("size.int", "sym_size.int")
def size(n: Call, x: Any, dim: Any) -> Any:
    value, rank, _ = n.unwrap(x)
    return n.size(value, n.axis(n.known_int(dim, "the dimension"), rank))


@aten("size", "sym_size")
def sizes(n: Call, x: Any) -> Any:
    value, rank, _ = n.unwrap(x)
    return n.sizes(value)[:rank]


@aten("Int", "IntImplicit", "Float", "FloatImplicit", "Bool", "ScalarImplicit", "item",
      "_local_scalar_dense", "is_nonzero")  # fmt: skip
def to_number(n: Call, x: Any) -> Any:
    """A tensor of one element as a number."""
    kind = {"aten::Int": int, "aten::IntImplicit": int, "aten::Float": float, "aten::FloatImplicit": float,
            "aten::Bool": bool, "aten::is_nonzero": bool}.get(n.op)  # fmt: skip
    constant = n.known_number(x)
    if constant is not None:
        return kind(constant) if kind else constant
    value = n.scalar(n.tensor(x))
    is_integer = kind is None and n.dtype(value) not in ("boolean", "dynamic") and not n.is_real(value)
    if kind is int or is_integer:  # Python has one type of integers
        value = n.convert(value, "i64")
    elif kind is float and not n.is_real(value):
        value = n.convert(value, "f32")
    elif kind is bool:
        value = n.to_type(value, "boolean")
    return Number(value)


@aten("prim::NumToTensor", "tensor", "scalar_tensor", "as_tensor", "_to_tensor")
def to_tensor(n: Call, x: Any, dtype: Any = None) -> Any:
    if isinstance(x, (list, tuple)):
        x = _stack_numbers(n, x)
    elif isinstance(x, complex):
        return n.cast(Complex(n.const([x.real, x.imag], "f32")), dtype)
    elif isinstance(x, Stacked):
        x = n.to_type(x.rows, "f32") if n.dtype(x.rows) == "f64" else x.rows
    elif isinstance(x, (int, float)) and not isinstance(x, bool):
        x = n.const(x, None if isinstance(x, int) else "f32" if dtype is None else "f64")
    else:
        x = n.tensor(x)
    if n.op == "aten::scalar_tensor" and dtype is None:
        return n.to_type(x, "f32")
    return n.cast(x, dtype)


def _stack_numbers(n: Call, values: Any) -> Output:
    if any(isinstance(v, (list, tuple)) for v in values):
        return n("Concat", *(n.unsqueeze(_stack_numbers(n, v), [0]) for v in values), axis=0)
    constants = [n.known_number(v) for v in values]
    if None not in constants:
        return n.const(constants)
    parts = [n.reshape(v, [1]) for v in n.same_kind(values)]
    return n("Concat", *parts, axis=0)


@aten("to", "_to_copy", "type_as", "to_dtype", "view.dtype", "prims::convert_element_type")
def to(n: Call, x: Any, dtype: Any = None, other: Any = None) -> Any:
    """A tensor in another type: `dtype`, or the type of the tensor `other`."""
    if n.op == "aten::view":
        raise UnsupportedError("reinterpreting the bytes of a tensor as this type is not supported")
    if other is not None:
        if isinstance(other, Complex):
            return x if isinstance(x, Complex) else n.complex_of(n.tensor(x, n.dtype(other.pair)))
        return n.to_type(n.tensor(x), n.dtype(other))
    return n.cast(x, dtype)


@aten("float", "double", "half", "bfloat16", "int", "long", "bool", "char", "short", "byte")
def to_named(n: Call, x: Any) -> Any:
    kinds = {"float": "f32", "double": "f64", "half": "f16", "bfloat16": "bf16", "int": "i32", "long": "i64",
             "bool": "boolean", "char": "i8", "short": "i16", "byte": "u8"}  # fmt: skip
    return n.to_type(n.tensor(x), kinds[n.op.removeprefix("aten::")])


@aten("_assert_async", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range",
      "sym_constrain_range_for_size", "_functional_assert_async", "_functional_sym_constrain_range",
      "_print", "warn", "prim::RaiseException", "_functional_assert_scalar", "_check_is_size")  # fmt: skip
def nothing(n: Call, x: Any) -> None:
    """Ignore operators that only check, print, warn or raise."""
    return None


def _items(x: Any) -> Any:
    """Return the tensor of a `Stacked` list, whose first axis is the items. Other values are unchanged."""
    return x.rows if isinstance(x, Stacked) else x


#: Operators that are one expression.
aten_rows({
    "floordiv": lambda n, a, b: compute(n, "floordiv", a, b),
    "neg.int neg.float neg.Scalar": lambda n, a: compute(n, "neg", a),
    "__not__": lambda n, x: compute(n, "not_", x),
    "sqrt.int sqrt.float": lambda n, a: compute(n, "sqrt", a),
    "_shape_as_tensor": lambda n, x: n.shape_of(x),
    "numel sym_numel": lambda n, x: n.count(x),
    "len": lambda n, x: len(x) if isinstance(x, (list, tuple, dict, str)) else n.size(_items(x), 0),
    "is_floating_point": lambda n, x: not isinstance(x, Complex) and n.is_real(x),
    "is_complex": lambda n, x: isinstance(x, Complex),
    # a weight of 16 or 8 bits in f32
    "ovjit::stored": lambda n, x: as_f32(n.tensor(x)),
    "dim ndimension": lambda n, x: n.unwrap(x)[1],
})  # fmt: skip
