"""Operators that make tensors."""

from __future__ import annotations

from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.values import is_complex


def _kind(n: Call, dtype: Any, number: Any = 0.0) -> str:
    if dtype is not None:
        return element_type(dtype)
    if isinstance(number, (Output, Number)):
        kind = n.dtype(n.tensor(number))
        return DEFAULT_REAL if ELEMENT_TYPES[kind].is_real else kind
    return "boolean" if isinstance(number, bool) else "i64" if isinstance(number, int) else DEFAULT_REAL


def _fill(n: Call, x: Any, size: Any, dtype: Any, number: Any) -> Any:
    """A tensor filled with `number`. `x` is a tensor with the type, or the size itself."""
    if size is None:
        size, x = x, None
    if isinstance(x, (Output, Complex)) and dtype is None:
        return _like(n, x, n.fill(number, size, n.dtype(x.pair if isinstance(x, Complex) else x)))
    return _typed(n, n.fill(number, size, _kind(n, dtype, number)), dtype)


def _typed(n: Call, values: Output, dtype: Any) -> Any:
    """Values of a complex dtype become Complex; others are returned unchanged."""
    return n.complex_of(values) if dtype is not None and is_complex(dtype) else values


def _like(n: Call, x: Any, values: Output) -> Any:
    """Real values become a Complex if `x` is one."""
    return n.complex_of(values) if isinstance(x, Complex) else values


def _filled_like(n: Call, x: Any, number: Any, dtype: Any) -> Any:
    if isinstance(x, Complex):
        x = n.part(x, 0)
        if dtype is None:
            return n.complex_of(n.alike(x, number))
    return _typed(n, n.alike(x, number, None if dtype is None else element_type(dtype)), dtype)


@aten("copy")
def copy(n: Call, x: Any, src: Any) -> Any:
    """`src` in the type and shape of `x`."""
    if isinstance(x, Complex):
        pair = src.pair if isinstance(src, Complex) else n.complex_of(n.tensor(src)).pair
        return Complex(n("Broadcast", pair, n.shape_of(x.pair)))
    result = n.to_type(n.tensor(src), n.dtype(x))
    is_same = is_static(n.shape(x)) and n.shape(result) == n.shape(x)
    return result if is_same else n("Broadcast", result, n.shape_of(x))


@aten("arange", "arange.start", "arange.start_step")
def arange(n: Call, x: Any, start: Any = None, end: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    first, last = (0, x if end is None else end) if "start" not in n.overload else (x, end)
    numbers = [0 if v is None else v for v in (first, last)] + [1 if step is None else step]
    constants = [n.known_number(v) for v in numbers]
    if None not in constants:
        is_integer = all(isinstance(v, int) for v in constants)
        kind = element_type(dtype) if dtype is not None else "i64" if is_integer else DEFAULT_REAL
        count = max(0, int(np.ceil((constants[1] - constants[0]) / constants[2])))
        n.check_count(count, "the length of a range")
        if not is_integer and not ELEMENT_TYPES[kind].is_real:
            import torch

            return n.const(torch.arange(*constants, dtype=torch.int64).numpy(), kind)
        result = constants[0] + constants[2] * np.arange(count, dtype=np.int64 if is_integer else np.float64)
        return n.const(result, kind)
    values = [n.tensor(v) for v in numbers]
    is_integer = not any(n.is_real(v) for v in values)
    kind = element_type(dtype) if dtype is not None else "i64" if is_integer else DEFAULT_REAL
    work = "i64" if is_integer else "f64"
    if not is_integer and not ELEMENT_TYPES[kind].is_real:
        return n.convert(_whole_steps(n, *(n.scalar(n.convert(v, work)) for v in values)), kind)
    ends = [n.scalar(n.convert(v, work)) for v in values]
    return n.convert(n("Range", *ends, output_type=work), kind)


def _whole_steps(n: Call, start: Output, end: Output, step: Output) -> Output:
    """Return integers from `start` in steps of `step`, both truncated to integers: as many as the float range
    has elements, or, before PyTorch 2.14, as the range of the truncated numbers has."""
    first, stop, each = (n.convert(number, "i64") for number in (start, end, step))
    if torch.arange(1, 2.5, dtype=torch.int64).numel() == 1:
        return n("Range", first, stop, each, output_type="i64")
    count = n("Ceiling", n("Divide", n("Subtract", end, start), step))
    indices = n.arange(n.convert(n("Maximum", count, n.like(count, 0)), "i64"))
    return n("Add", first, n("Multiply", indices, each))


@aten("linspace", "logspace")
def linspace(n: Call, x: Any, end: Any, steps: Any, base: float = 10.0, dtype: Any = None) -> Any:
    """start + i * (end - start) / (steps - 1); one step is the start, without a division by 0. Ends of
    integer results are cut to integers first."""
    kind = _kind(n, dtype)
    a, b = n.tensor(x, "f64"), n.tensor(end, "f64")
    if kind[0] in "iu":
        a, b = (n.convert(n.convert(v, "i64"), "f64") for v in (a, b))
    indices = n.convert(n.arange(steps), "f64")
    gaps = n.tensor(n.compute("Maximum", n.compute("Subtract", steps, 1), 1), "f64")
    result = n("Add", a, n("Multiply", indices, n("Divide", n("Subtract", b, a), gaps)))
    if n.op == "aten::logspace":
        result = n("Power", n.const(float(base), "f64"), result)
    result = n.to_type(result, kind)
    return n.complex_of(result) if dtype is not None and is_complex(dtype) else result


#: Factors of cos(0), cos(t) and cos(2t) of the windows that are sums of cosines.
_COSINES = {"hann_window": (0.5, -0.5, 0.0), "blackman_window": (0.42, -0.5, 0.08)}


def _window(n: Call, name: str, length: Any, periodic: bool, alpha: float, beta: Any) -> Output:
    """A window function of dynamic length, evaluated at phases from 0 to 1."""
    if name == "kaiser_window":
        raise UnsupportedError("the length of this window should be known when the model is read")
    most = n.compute("Maximum", n.compute("Subtract", length, 0 if periodic else 1), 1)
    phase = n("Divide", n.convert(n.arange(length), "f64"), n.tensor(most, "f64"))
    if name == "bartlett_window":
        centered = n("Subtract", n("Multiply", phase, n.like(phase, 2)), n.like(phase, 1))
        result = n("Subtract", n.like(phase, 1), n("Abs", centered))
    else:
        first, *harmonics = _COSINES.get(name, (alpha, -(0.46 if beta is None else beta), 0.0))
        result = n.like(phase, first)
        for i, factor in enumerate(harmonics):
            cosine = n("Cos", n("Multiply", phase, n.like(phase, 2 * math.pi * (i + 1))))
            result = n("Add", result, n("Multiply", cosine, n.like(phase, factor)))
    return n("Select", n("Equal", n.index(length), n.const(1)), n.like(result, 1), result)


@aten("eye")
def eye(n: Call, x: Any, m: Any = None, dtype: Any = None) -> Output:
    kind = _kind(n, dtype)
    rows, columns = n.one(x), n.one(x if m is None else m)
    return n("Eye", n.scalar(rows), n.scalar(columns), n.const(0), output_type=kind)


@aten("hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window")
def window(n: Call, x: Any, periodic: Any = True, alpha: float = 0.54, beta: Any = None,
           dtype: Any = None) -> Output:  # fmt: skip
    """A window function; one of static length is evaluated by PyTorch."""
    name = n.op.removeprefix("aten::")
    length = n.known_number(x)
    if length is None:
        return n.to_type(_window(n, name, x, bool(periodic), alpha, beta), _kind(n, dtype))
    extra: dict[str, Any] = {}
    if name == "hamming_window":
        extra = {"alpha": alpha, "beta": 0.46 if beta is None else beta}
    elif name == "kaiser_window" and beta is not None:
        extra = {"beta": beta}
    result = getattr(torch, name)(length, periodic=bool(periodic), dtype=torch.float64, **extra)
    return n.const(result.numpy(), _kind(n, dtype))


@aten("vander")
def vander(n: Call, x: Output, N: Any = None, increasing: bool = False) -> Output:
    count = n.size(x, 0) if N is None else N
    exponents = n.arange(count)
    if not increasing:
        exponents = n("Subtract", n.index(n.compute("Subtract", count, 1)), exponents)
    return n.also("pow", n.unsqueeze(x, [1]), n.unsqueeze(exponents, [0]))


#: Operators that are one expression.
aten_rows({
    "full new_full": lambda n, x, fill_value, size=None, dtype=None: _fill(n, x, size, dtype, fill_value),
    "ones new_ones": lambda n, x, size=None, dtype=None: _fill(n, x, size, dtype, 1.0),
    "zeros new_zeros empty new_empty empty_permuted empty_strided new_empty_strided":
        lambda n, x, size=None, dtype=None: _fill(n, x, size, dtype, 0.0),
    "zeros_like empty_like zero": lambda n, x, dtype=None: _filled_like(n, x, 0, dtype),
    "ones_like": lambda n, x, dtype=None: _filled_like(n, x, 1, dtype),
    "full_like": lambda n, x, fill_value, dtype=None: _filled_like(n, x, fill_value, dtype),
    "fill": lambda n, x, value: n.alike(x, value),
})  # fmt: skip
