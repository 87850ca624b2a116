"""Replacements for functions of Python, `math`, NumPy and PyTorch that keep sizes as tensors of the trace.

`shadow_functions` puts them into the user's modules instead of the functions that return Python numbers.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import inspect
import math
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.recording.redirected import others_in
from ovjit.readers.torch.tracing.asked_numbers import data_of, numbers_in
from ovjit.readers.torch.tracing.size_values import Parts, is_of_sizes


def tensor_of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`torch.tensor` for recorded code: `torch.tensor([h, w])` keeps traced sizes. Other tensors are copies
    of the trace's constants, so that writes do not change these."""
    data, name = data_of(function, args, kwargs), function.__name__
    if not any(map(is_of_sizes, numbers_in(data))):
        result = function(*args, **kwargs)
        return result if name in ("as_tensor", "asarray") else result.clone()
    kind = kwargs.get("dtype") or (args[1] if name == "as_tensor" and len(args) > 1 else None)
    if kind is None and name == "new_tensor":
        kind = args[0].dtype
    if kind is None:
        reals = any(
            v.is_floating_point() if hasattr(v, "dim") else isinstance(v, float) for v in numbers_in(data)
        )
        kind = torch.get_default_dtype() if reals else torch.int64
    return _stack_numbers(data, kind)


def _stack_numbers(data: Any, kind: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return torch.stack([_stack_numbers(part, kind) for part in data])
    return data.to(kind) if isinstance(data, torch.Tensor) else torch.scalar_tensor(data, dtype=kind)


class _IntType(type):
    def __call__(cls, *args: Any, **named: Any) -> Any:
        if len(args) == 1 and is_of_sizes(args[0]):
            return _round_by(args[0], "trunc")
        if args and _is_symbol(args[0]):
            return sys.modules["torch"].sym_int(args[0])
        return builtins.int(*args, **named)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.int) or (is_of_sizes(value) and not value.is_floating_point())


class _Int(int, metaclass=_IntType):
    """`int` for recorded code."""


class _FloatType(type):
    def __call__(cls, *args: Any) -> Any:
        if args and _is_symbol(args[0]):
            return sys.modules["torch"].sym_float(args[0])
        return args[0].double() if args and is_of_sizes(args[0]) else builtins.float(*args)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.float) or (is_of_sizes(value) and value.is_floating_point())


class _Float(float, metaclass=_FloatType):
    """`float` for recorded code."""


def _is_symbol(value: Any) -> bool:
    """Whether the value is a symbolic number of torch.export."""
    return isinstance(value, (torch.SymInt, torch.SymFloat))


def _round_by(value: Any, how: str) -> Any:
    """The integer of a size: integers are unchanged, floats are rounded by `how`."""
    return getattr(torch, how)(value).to(torch.int64) if value.is_floating_point() else value


def _round(value: Any, digits: int | None = None) -> Any:
    if not is_of_sizes(value):
        return builtins.round(value) if digits is None else builtins.round(value, digits)
    if digits is None or not value.is_floating_point():
        return _round_by(value, "round")
    return (value.double() * 10.0**digits).round() / 10.0**digits


def _power(base: Any, exponent: Any, modulus: Any = None) -> Any:
    """`pow` for recorded code."""
    numbers = base, exponent, modulus
    if modulus is None or not any(map(is_of_sizes, numbers)):
        return builtins.pow(base, exponent) if modulus is None else builtins.pow(*numbers)
    return base**exponent % modulus


def _sorted(items: Any, **named: Any) -> Any:
    """`sorted` for recorded code: a network of comparisons of pairs, which holds for any order."""
    values = list(items)
    if "key" in named or not any(map(is_of_sizes, values)) or not all(map(_is_number, values)):
        return builtins.sorted(values, **named)
    smaller, larger = _extreme("minimum", min), _extreme("maximum", max)
    for last in range(len(values) - 1, 0, -1):
        for i in range(last):
            values[i], values[i + 1] = smaller(*values[i : i + 2]), larger(*values[i : i + 2])
    return values[::-1] if named.get("reverse") else values


def _truths(original: Callable[..., Any], combined: str) -> Callable[..., Any]:
    """`any` or `all` for recorded code."""

    def function(items: Any) -> Any:
        open_ones = []
        for item in items:
            if is_of_sizes(item):
                open_ones.append(item != 0)
            elif original((item,)) is (original is any):
                return original is any
        return functools.reduce(getattr(torch, combined), open_ones) if open_ones else original(())

    return function


def _is_number(value: Any) -> bool:
    return type(value) in (builtins.int, builtins.float) or is_of_sizes(value)


def _length(value: Any) -> Any:
    """`len` for recorded code."""
    if isinstance(value, Parts):
        return value.number()
    is_traced = isinstance(value, torch.Tensor) and torch.jit.is_tracing()
    return value.size(0) if is_traced and value.dim() else len(value)


def _extreme(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """`max` or `min` for recorded code."""

    def function(*args: Any, **named: Any) -> Any:
        if len(args) == 1 and not isinstance(args[0], torch.Tensor):
            items = list(args[0])
            if not items or not all(_is_number(v) or _is_symbol(v) for v in items):
                return original(items, **named)
            args = tuple(items)
        key = named.pop("key", None) or _itself
        keys = list(map(key, args))
        if any(map(_is_symbol, keys)) and key is _itself:
            return functools.reduce(getattr(torch, f"sym_{name[:3]}"), args)
        if not any(map(is_of_sizes, keys)) or not all(map(_is_number, args)):
            return original(args if len(args) > 1 else [*args], key=key, **named)
        if key is _itself:
            return functools.reduce(getattr(torch, name), map(_as_size_tensor, args))
        best, value = keys[0], _as_size_tensor(args[0])
        for other, item in zip(keys[1:], args[1:], strict=True):
            better = other > best if name == "maximum" else other < best
            best, value = torch.where(better, other, best), torch.where(better, item, value)
        return value

    return function


def _itself(value: Any) -> Any:
    return value


def _as_size_tensor(value: Any) -> Any:
    """A number as a tensor of 64 bits, integer or float."""
    if isinstance(value, torch.Tensor):
        return value
    return torch.full((), value, dtype=torch.int64 if isinstance(value, builtins.int) else torch.float64)


#: PyTorch's names of functions of `math` and NumPy, of reals, where they are others.
_OTHER_NAMES = {"fabs": "abs", "radians": "deg2rad", "degrees": "rad2deg", "rint": "round",
                "arctan2": "atan2"}  # fmt: skip
_REAL = (
    "sqrt", "log", "log2", "log10", "log1p", "exp", "expm1", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "hypot", "atan2", "fmod", "pow",
    "copysign", *_OTHER_NAMES,
)  # fmt: skip


def _in_double(name: str) -> Callable[..., Any]:
    """PyTorch's function `name`, applied to numbers as f64."""
    function = getattr(torch, _OTHER_NAMES.get(name, name))
    return lambda *values: function(*(_as_size_tensor(v).double() for v in values))


def _fold(combined: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: functools.reduce(combined, values)


def _math() -> Any:
    """The module `math` for recorded code."""

    def wrap(name: str) -> Callable[..., Any]:
        original, recorded = getattr(math, name), _math_functions()[name]

        def function(*args: Any, **named: Any) -> Any:
            if len(args) == 1 and _is_symbol(args[0]) and hasattr(torch, f"_sym_{name}"):
                return getattr(torch, f"_sym_{name}")(*args)
            return recorded(*args, **named) if any(map(is_of_sizes, args)) else original(*args, **named)

        return function

    return SimpleNamespace(**{**vars(math), **{name: wrap(name) for name in _math_functions()}})


@functools.cache
def _math_functions() -> dict[str, Callable[..., Any]]:
    """Replacements of `math` functions that accept traced sizes."""

    def of_integers(name: str) -> Callable[..., Any]:
        return lambda *values: functools.reduce(getattr(torch, name), map(_as_size_tensor, values))

    def log(value: Any, *base: Any) -> Any:
        reals = [_as_size_tensor(v).double().log() for v in (value, *base)]
        return reals[0] / reals[1] if base else reals[0]

    def is_close(a: Any, b: Any, *, rel_tol: float = 1e-9, abs_tol: float = 0.0) -> Any:
        one, other = (_as_size_tensor(v).double() for v in (a, b))
        limit = torch.maximum(one.abs(), other.abs()) * rel_tol
        return (one - other).abs() <= torch.maximum(limit, _as_size_tensor(float(abs_tol)))

    rows = {name: _in_double(name) for name in _REAL if hasattr(math, name)}
    rows |= {name: functools.partial(_round_by, how=name) for name in ("floor", "ceil", "trunc")}
    rows |= {"isqrt": lambda value: _as_size_tensor(value).double().sqrt().floor().to(torch.int64)}
    return rows | {
        "log": log, "isclose": is_close, "gcd": of_integers("gcd"), "lcm": of_integers("lcm"),
    }  # fmt: skip


class _NumPy:
    """`numpy` for recorded code."""

    def __getattr__(self, name: str) -> Any:
        original = getattr(np, name)
        recorded = _numpy_functions().get(name)
        if recorded is None:
            return original

        def function(*args: Any, **named: Any) -> Any:
            numbers = list(numbers_in(args))
            if not any(map(is_of_sizes, numbers)):
                return original(*args, **named)
            of_lists = isinstance(original, np.ufunc) and any(isinstance(v, (list, tuple)) for v in args)
            return original(*args, **named) if named or of_lists else recorded(*numbers)

        return function


@functools.cache
def _numpy_functions() -> dict[str, Callable[..., Any]]:
    """Replacements of NumPy functions of numbers and lists that accept traced sizes."""
    rows = {name: _in_double(name) for name in (*_REAL, "floor", "ceil", "trunc") if hasattr(np, name)}
    largest, smallest = _fold(_extreme("maximum", max)), _fold(_extreme("minimum", min))
    rows |= {"max": largest, "maximum": largest, "min": smallest, "minimum": smallest}
    rows |= {"amax": largest, "amin": smallest, "abs": operator.abs, "absolute": operator.abs}
    rows |= {"floor_divide": operator.floordiv, "mod": operator.mod, "remainder": operator.mod,
             "power": operator.pow, "multiply": operator.mul, "add": operator.add,
             "subtract": operator.sub, "divide": operator.truediv,
             "true_divide": operator.truediv}  # fmt: skip
    rows |= {"clip": lambda value, least, most: smallest(largest(value, least), most)}
    rows |= {"mean": lambda *values: functools.reduce(operator.add, values) / len(values)}
    rows |= {"round": _in_double("rint"), "sign": torch.sign}
    return rows | {"prod": _fold(operator.mul), "sum": _fold(operator.add)}


#: Where code gives a type of Python's as that of elements.
_PYTHONS_TYPE = re.compile(r"\bdtype\s*=\s*(int|float)\b")


class _Torch:
    """Stands for the module `torch` in recorded code, whose `int` and `float` are classes of this module:
    `dtype=int` becomes torch.int64."""

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(torch, name)
        if isinstance(attribute, type) or not callable(attribute):
            return attribute
        types = {_Int: torch.int64, _Float: torch.float64}

        def function(*args: Any, **named: Any) -> Any:
            if named.get("dtype") in types:
                named["dtype"] = types[named["dtype"]]
            return attribute(*args, **named)

        return function


def _names_types(module: Any) -> bool:
    """Whether the code of a module has `dtype=int` or `dtype=float`."""
    try:
        return _PYTHONS_TYPE.search(inspect.getsource(module)) is not None
    except (OSError, TypeError):
        return False


@contextlib.contextmanager
def shadow_functions(files: set[str], *roots: Any) -> Iterator[None]:
    """Context manager: functions in these files, and functions that only `roots` have, use this module's
    replacements of Python's and NumPy's functions."""
    numpy = _NumPy()
    rows = {"int": (int, _Int), "float": (float, _Float), "round": (round, _round), "math": (math, _math()),
            "max": (max, _extreme("maximum", max)), "min": (min, _extreme("minimum", min)),
            "sorted": (sorted, _sorted), "pow": (pow, _power), "any": (any, _truths(any, "logical_or")),
            "all": (all, _truths(all, "logical_and")),
            "torch": (sys.modules["torch"], _Torch()), "len": (len, _length), "np": (np, numpy),
            "numpy": (np, numpy)}  # fmt: skip
    # vars, as modules that are imported late are imported where their attributes are asked for
    every = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    modules = [m for m in every if vars(m).get("__file__") in files]
    if len({m.__file__ for m in modules}) < len(files):  # code that is typed has no file
        modules.append(sys.modules["__main__"])
    replacements = [
        (module, {
            name: replacement for name, (original, replacement) in rows.items()
            if vars(module).get(name, getattr(builtins, name, None)) is original
            and (name != "torch" or _names_types(module))
        })
        for module in {id(vars(m)): m for m in modules}.values()
    ]  # fmt: skip
    with others_in(replacements, *roots):
        yield
