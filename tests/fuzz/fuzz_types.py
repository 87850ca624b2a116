"""Random graphs of 2 to 12 operations in every plain element type, with integers at the ends of their range,
NaN, infinities, signed zeros and subnormal numbers, against NumPy: compiled, and in the interpreter.

NumPy's answer is computed twice: in f64 throughout, and rounded to the element type after every operation.
Kernels may do either, so what differs between the two says how far from them an answer may be. Integers and
booleans, where both agree, are exact.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import ovjit
from ovjit import opset15 as o
from ovjit.graph.interp import evaluate
from tests.fuzz import fuzzing

INTEGERS = "i8 u8 i16 u16 i32 u32 i64 u64".split()
#: Relative errors of single operations that are allowed.
FLOATS = {"f16": 4e-3, "bf16": 3e-2, "f32": 3e-5, "f64": 1e-11}
DTYPES: dict[str, Any] = {
    "boolean": np.dtype(bool), "f16": np.dtype(np.float16), "f32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16), "f64": np.dtype(np.float64),
    **{name: np.dtype({"i": "int", "u": "uint"}[name[0]] + name[1:]) for name in INTEGERS},
}  # fmt: skip
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 1e-300, 65504.0, 3e38, 2.5, -0.5, 1.5]
#: Cases of one process, which keeps their kernels.
LIFE = 1500

Array = np.ndarray
Attrs = dict[str, Any]


class Rule(NamedTuple):
    """One operation: kinds of its first input (f, i, b), whether the second is of its type, too; what it is
    built of, and NumPy's answer. `to`: the element type of the answer, "" for that of the input."""

    kinds: str
    arity: int
    build: Callable[..., Any]
    answer: Callable[..., Array]
    draw: Callable[[_Maker, tuple[int, ...], str], Attrs | None] | None = None
    to: str = ""


def _away(x: Array) -> Array:
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def _integers(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """0 where an integer is divided by 0."""

    def divided(x: Array, y: Array) -> Array:
        if x.dtype.kind == "f":
            return function(x, y)
        return np.where(y == 0, 0, function(x, np.where(y == 0, 1, y))).astype(x.dtype)

    return divided


def _divide(x: Array, y: Array) -> Array:
    return np.true_divide(x, y) if x.dtype.kind == "f" else np.floor_divide(x, y)


def _power(x: Array, y: Array) -> Array:
    return np.power(np.abs(x), y) if x.dtype.kind == "f" else np.power(x, y)


def _whole(x: Array, to: str) -> Array:
    """Of finite numbers in the range of all integers."""
    return np.trunc(np.clip(np.where(np.isnan(x), 0, x), 0, 100)).astype(DTYPES[to])


def _like(x: Any, number: int) -> Any:
    """A number of the element type of a node."""
    return o.convert(o.constant(number), x.get_element_type())


def _build_whole(x: Any, to: str) -> Any:
    return o.convert(o.clamp(o.select(o.is_nan(x), _like(x, 0), x), 0.0, 100.0), to)


def _build_pad(x: Any, begin: list[int], end: list[int], mode: str) -> Any:
    return o.pad(x, begin, end, mode, _like(x, 0) if mode == "constant" else None)


def _product(m: _Maker, shape: tuple[int, ...], kind: str) -> Attrs | None:
    return {} if len(shape) >= 2 and kind in ("f32", "f64") else None


def _sum(x: Array, axes: list[int], keep: bool) -> Array:
    return np.sum(x, tuple(axes), dtype=x.dtype, keepdims=keep)


def _softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _padded(x: Array, begin: list[int], end: list[int], mode: str) -> Array:
    return np.pad(x, list(zip(begin, end, strict=True)), mode)  # type: ignore[call-overload]


_erf = np.vectorize(math.erf, otypes=[np.float64])
_UNARY: dict[str, tuple[str, Any, Any]] = {
    "relu": ("fi", o.relu, lambda x: np.where(x < 0, np.zeros_like(x), x)),
    "abs": ("fi", o.abs, np.abs),
    "negative": ("fi", o.negative, np.negative),
    "sign": ("fi", o.sign, np.sign),
    "sigmoid": ("f", o.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "tanh": ("f", o.tanh, np.tanh),
    "exp": ("f", o.exp, np.exp),
    "log": ("f", o.log, np.log),
    "sqrt": ("f", o.sqrt, np.sqrt),
    "floor": ("f", o.floor, np.floor),
    "ceiling": ("f", o.ceiling, np.ceil),
    "even": ("f", lambda x: o.round(x, "half_to_even"), np.rint),
    "away": ("f", lambda x: o.round(x, "half_away_from_zero"), _away),
    "erf": ("f", o.erf, _erf),
    "sin": ("f", lambda x: o.sin(o.clamp(x, -9.0, 9.0)), lambda x: np.sin(np.clip(x, -9, 9))),
    "atan": ("f", o.atan, np.arctan),
    "softplus": ("f", o.softplus, lambda x: np.logaddexp(x, 0)),
    "hswish": ("f", o.hswish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "elu": ("f", lambda x: o.elu(x, 0.5), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    "clamp": ("fi", lambda x: o.clamp(x, 1.0, 5.0), lambda x: np.clip(x, 1, 5)),
    "not": ("i", o.bitwise_not, np.invert),
    "logical_not": ("b", o.logical_not, np.logical_not),
}
_BINARY: dict[str, tuple[str, Any, Any]] = {
    "add": ("fi", o.add, np.add),
    "subtract": ("fi", o.subtract, np.subtract),
    "multiply": ("fi", o.multiply, np.multiply),
    "divide": ("fi", o.divide, _integers(_divide)),
    "floor_mod": ("i", o.floor_mod, _integers(np.mod)),
    "mod": ("i", o.mod, _integers(np.fmod)),
    "maximum": ("fi", o.maximum, np.maximum),
    "minimum": ("fi", o.minimum, np.minimum),
    "squared_difference": ("fi", o.squared_difference, lambda x, y: (x - y) * (x - y)),
    "and": ("i", o.bitwise_and, np.bitwise_and),
    "or": ("i", o.bitwise_or, np.bitwise_or),
    "xor": ("i", o.bitwise_xor, np.bitwise_xor),
    "logical_and": ("b", o.logical_and, np.logical_and),
    "logical_or": ("b", o.logical_or, np.logical_or),
    "logical_xor": ("b", o.logical_xor, np.logical_xor),
}
_COMPARE: dict[str, tuple[str, Any, Any]] = {
    "equal": ("fib", o.equal, np.equal),
    "not_equal": ("fib", o.not_equal, np.not_equal),
    "less": ("fi", o.less, np.less),
    "less_equal": ("fi", o.less_equal, np.less_equal),
    "greater": ("fi", o.greater, np.greater),
    "greater_equal": ("fi", o.greater_equal, np.greater_equal),
}
_TESTS: dict[str, tuple[str, Any, Any]] = {
    "is_nan": ("f", o.is_nan, np.isnan),
    "is_inf": ("f", o.is_inf, np.isinf),
    "is_finite": ("f", o.is_finite, np.isfinite),
}
_REDUCE: dict[str, tuple[str, Any, Any]] = {
    "reduce_sum": ("fi", o.reduce_sum, _sum),
    "reduce_prod": ("fi", o.reduce_prod, lambda x, a, k: np.prod(x, tuple(a), dtype=x.dtype, keepdims=k)),
    "reduce_max": ("fi", o.reduce_max, lambda x, a, k: np.max(x, tuple(a), keepdims=k)),
    "reduce_min": ("fi", o.reduce_min, lambda x, a, k: np.min(x, tuple(a), keepdims=k)),
    "reduce_mean": ("f", o.reduce_mean, lambda x, a, k: np.mean(x, tuple(a), keepdims=k)),
    "reduce_l1": ("f", o.reduce_l1, lambda x, a, k: _sum(np.abs(x), a, k)),
    "reduce_l2": ("f", o.reduce_l2, lambda x, a, k: np.sqrt(_sum(x * x, a, k))),
    "reduce_any": ("b", o.reduce_logical_or, lambda x, a, k: np.any(x, tuple(a), keepdims=k)),
    "reduce_all": ("b", o.reduce_logical_and, lambda x, a, k: np.all(x, tuple(a), keepdims=k)),
}


class _Maker:
    """Draws a case, and knows the types and shapes of its values."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng([20261124, seed])
        self.shapes: list[tuple[int, ...]] = []
        self.types: list[str] = []
        rank = self.number(0, 1, 2, 2, 3, 4)
        sizes = [self.number(1, 2, 3, 5, 7, 16, 17, 33) for _ in range(rank)]
        self.inputs = []
        types = [str(self.rng.choice(list(DTYPES))) for _ in range(2)]
        for _ in range(self.number(1, 2, 3)):
            lead = self.number(0, 0, 0, *range(rank + 1))
            shape = tuple(1 if self.rng.random() < 0.2 else d for d in sizes[lead:])
            special = bool(self.rng.random() < 0.6)
            self.inputs.append({"shape": shape, "type": str(self.rng.choice(types)), "special": special})
            self.note(shape, self.inputs[-1]["type"])

    def number(self, *choices: int) -> int:
        return int(self.rng.choice(choices))

    def note(self, shape: tuple[int, ...], kind: str) -> None:
        self.shapes.append(shape)
        self.types.append(kind)

    def axes(self, shape: tuple[int, ...]) -> Attrs | None:
        if not shape or 0 in shape:
            return None
        axes = self.rng.permutation(len(shape))[: self.number(1, 1, 2, 4)]
        return {"axes": [int(a) for a in axes], "keep": bool(self.rng.integers(2))}

    def axis(self, shape: tuple[int, ...]) -> Attrs | None:
        return {"axis": self.number(*range(len(shape)))} if shape and 0 not in shape else None

    def propose(self) -> dict[str, Any] | None:
        at = len(self.shapes) - 1 - int(min(self.rng.geometric(0.5) - 1, len(self.shapes) - 1))
        name = str(self.rng.choice(NAMES, p=WEIGHTS))
        rule, shape, kind = RULES[name], self.shapes[at], self.types[at]
        if _kind(kind) not in rule.kinds:
            return None
        attrs = rule.draw(self, shape, kind) if rule.draw else {}
        if attrs is None:
            return None
        reads = [at]
        if rule.arity == 2:
            others = [i for i, t in enumerate(self.types) if t == kind and _fit(self.shapes[i], shape)]
            reads.append(self.number(*others))
            if self.rng.random() < 0.5:
                reads.reverse()
        return {"op": name, "in": reads, "attrs": attrs}

    def add(self, nodes: list[dict[str, Any]]) -> None:
        """A further operation, whose answer is not too large."""
        for _ in range(50):
            node = self.propose()
            if node is None:
                continue
            reads = [np.zeros(self.shapes[i], _wide(self.types[i])) for i in node["in"]]
            with np.errstate(all="ignore"):
                made = RULES[node["op"]].answer(*reads, **node["attrs"])
            if made.size > 20_000 or made.ndim > 5:
                continue
            nodes.append(node)
            self.note(made.shape, _type_of(node, self.types))
            return


def _kind(name: str) -> str:
    return {"b": "b", "i": "i", "u": "i", "f": "f"}["f" if name == "bf16" else name[0]]


def _wide(name: str) -> Any:
    return np.dtype(np.float64) if _kind(name) == "f" else DTYPES[name]


def _type_of(node: dict[str, Any], types: list[str]) -> str:
    return node["attrs"].get("to") or RULES[node["op"]].to or types[node["in"][0]]


def _fit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


def _slice(m: _Maker, shape: tuple[int, ...], kind: str) -> Attrs | None:
    axis = m.axis(shape)
    return axis and {
        "first": m.number(-9, -3, -1, 0, 1, 2), "last": m.number(-40, -9, -1, 2, 5, 40),
        "step": m.number(-3, -2, -1, 1, 2, 3), **axis,
    }  # fmt: skip


def _sliced(x: Array, first: int, last: int, step: int, axis: int) -> Array:
    size = x.shape[axis]
    low, high = (0, size) if step > 0 else (-1, size - 1)
    begin = min(max(first + size if first < 0 else first, 0), high)  # backwards, 0 is the least
    end = min(max(last + size if last < 0 else last, low), high)
    return np.take(x, np.arange(begin, end, step), axis)


def _take(x: Array, index: list[int], axis: int) -> Array:
    return np.take(x, [i % x.shape[axis] for i in index], axis)


def _index(m: _Maker, shape: tuple[int, ...], kind: str) -> Attrs | None:
    axis = m.axis(shape)
    if axis is None:
        return None
    size = shape[axis["axis"]]
    return {"index": [int(i) for i in m.rng.integers(-size, size, m.number(0, 1, 2, 5))], **axis}


def _pads(m: _Maker, shape: tuple[int, ...], kind: str) -> Attrs | None:
    if 0 in shape or not shape:
        return None
    mode = str(m.rng.choice(["constant", "edge", "reflect", "symmetric"]))
    most = [min(2, d - (mode == "reflect")) for d in shape]
    begin, end = ([int(m.rng.integers(0, d + 1)) for d in most] for _ in range(2))
    return {"begin": begin, "end": end, "mode": mode}


RULES: dict[str, Rule] = {
    **{name: Rule(kinds, 1, build, answer) for name, (kinds, build, answer) in _UNARY.items()},
    **{name: Rule(kinds, 2, build, answer) for name, (kinds, build, answer) in _BINARY.items()},
    **{name: Rule(k, 2, build, answer, to="boolean") for name, (k, build, answer) in _COMPARE.items()},
    **{name: Rule(k, 1, build, answer, to="boolean") for name, (k, build, answer) in _TESTS.items()},
    **{
        name: Rule(
            kinds, 1, lambda x, axes, keep, build=build: build(x, axes, keep),
            lambda x, axes, keep, answer=answer: answer(x, axes, keep), lambda m, s, k: m.axes(s),
        )
        for name, (kinds, build, answer) in _REDUCE.items()
    },
    "power": Rule(
        "f", 2, lambda x, y: o.power(o.abs(x), y), _power,
    ),
    "square": Rule(
        "i", 1, lambda x, to_the: o.power(x, _like(x, to_the)),
        lambda x, to_the: np.power(x, x.dtype.type(to_the)), lambda m, s, k: {"to_the": m.number(0, 1, 2, 3)},
    ),
    "shift": Rule(
        "i", 1, lambda x, by: o.bitwise_right_shift(x, _like(x, by)),
        lambda x, by: x >> x.dtype.type(by), lambda m, s, k: {"by": m.number(0, 1, 3, 7)},
    ),
    "convert": Rule(
        "ib", 1, lambda x, to: o.convert(x, to), lambda x, to: x.astype(_wide(to)),
        lambda m, s, k: {"to": str(m.rng.choice(list(DTYPES)))},
    ),
    "whole": Rule(
        "f", 1, _build_whole, _whole, lambda m, s, k: {"to": str(m.rng.choice(INTEGERS))},
    ),
    "float": Rule(
        "f", 1, lambda x, to: o.convert(x, to), lambda x, to: x,
        lambda m, s, k: {"to": str(m.rng.choice(list(FLOATS)))},
    ),
    "softmax": Rule("f", 1, o.softmax, _softmax, lambda m, s, k: m.axis(s)),
    "cum_sum": Rule(
        "fi", 1, lambda x, axis: o.cum_sum(x, axis), lambda x, axis: np.cumsum(x, axis, dtype=x.dtype),
        lambda m, s, k: m.axis(s),
    ),
    "sort": Rule(
        "fi", 1, lambda x, axis, size: o.topk(x, size, axis, "min", "value").output(0),
        lambda x, axis, size: np.sort(x, axis),
        lambda m, s, k: (a := m.axis(s)) and {**a, "size": s[a["axis"]]},
    ),
    "transpose": Rule(
        "fib", 1, lambda x, order: o.transpose(x, o.constant(np.array(order, np.int64))) if order else x,
        lambda x, order: x.transpose(order),
        lambda m, s, k: {"order": [int(i) for i in m.rng.permutation(len(s))]} if s else None,
    ),
    "flat": Rule("fib", 1, lambda x: o.reshape(x, [-1], False), lambda x: x.reshape(-1)),
    "slice": Rule(
        "fib", 1, lambda x, first, last, step, axis: o.slice(x, [first], [last], [step], [axis]),
        _sliced, _slice,
    ),
    "gather": Rule(
        "fib", 1,
        lambda x, index, axis: o.gather(x, o.constant(ovjit.Tensor(np.array(index, np.int64))), axis),
        _take, _index,
    ),
    "pad": Rule(
        "fib", 1, _build_pad, _padded, _pads,
    ),
    "tile": Rule(
        "fib", 1, lambda x, times: o.tile(x, times), lambda x, times: np.tile(x, times),
        lambda m, s, k: {"times": [m.number(1, 1, 2, 3) for _ in s]} if s else None,
    ),
    "roll": Rule(
        "fib", 1, lambda x, by, axis: o.roll(x, [by], [axis]), lambda x, by, axis: np.roll(x, by, axis),
        lambda m, s, k: (a := m.axis(s)) and {"by": m.number(-40, -3, 1, 2), **a},
    ),
    "stack": Rule(
        "fib", 1, lambda x, axis: o.concat([x, x, x], axis), lambda x, axis: np.concatenate([x, x, x], axis),
        lambda m, s, k: m.axis(s),
    ),
    "select": Rule(
        "fib", 2, lambda x, y: o.select(o.not_equal(x, y), x, y), lambda x, y: np.where(x != y, x, y),
    ),
    "matmul": Rule(
        "f", 1, lambda x: o.matmul(x, x, False, True),
        lambda x: np.matmul(x, np.swapaxes(x, -1, -2)), _product,
    ),
}  # fmt: skip
NAMES = list(RULES)
_LIKELY = {"convert": 6, "float": 3, "whole": 2, "select": 3}
WEIGHTS = np.array([_LIKELY.get(name, 1) for name in NAMES], float)
WEIGHTS /= WEIGHTS.sum()


def make(seed: int) -> dict[str, Any]:
    maker, nodes = _Maker(seed), list[dict[str, Any]]()
    for _ in range(maker.number(*range(2, 13))):
        maker.add(nodes)
    first = len(maker.inputs)
    read = {i for node in nodes for i in node["in"]}
    ends = [i for i in range(first, first + len(nodes)) if i not in read or maker.rng.random() < 0.2]
    return {"seed": seed, "inputs": maker.inputs, "nodes": nodes, "outputs": ends}


def arrays_of(case: dict[str, Any]) -> list[Array]:
    out = []
    for i, item in enumerate(case["inputs"]):
        rng = np.random.default_rng([case["seed"], i])
        shape, name, dtype = tuple(item["shape"]), item["type"], DTYPES[item["type"]]
        if name == "boolean":
            array = rng.integers(0, 2, shape).astype(bool)
        elif _kind(name) == "i":
            info = np.iinfo(dtype)
            array = rng.integers(max(info.min, -9), 10, shape).astype(dtype)
            ends = [info.min, info.max, info.max - 1, info.max // 2 + 1, 0, 1, (1 << 53) + 1 & info.max]
            if item["special"]:
                array = np.where(rng.random(shape) < 0.3, rng.choice(np.array(ends, dtype), shape), array)
        else:
            array = rng.normal(0, 2, shape)
            if item["special"]:
                array = np.where(rng.random(shape) < 0.15, rng.choice(SPECIAL, shape), array)
            with np.errstate(all="ignore"):
                array = np.asarray(array).astype(dtype)
        out.append(np.asarray(array))
    return out


def model_of(case: dict[str, Any]) -> ovjit.Model:
    inputs = [
        o.parameter(list(item["shape"]), ovjit.Type.__dict__[item["type"]], name=f"x{i}")
        for i, item in enumerate(case["inputs"])
    ]
    values: list[Any] = list(inputs)
    for node in case["nodes"]:
        made = RULES[node["op"]].build(*(values[i] for i in node["in"]), **node["attrs"])
        values.append(made)
    ends = [o.result(values[i]) for i in case["outputs"]]
    return ovjit.Model(ends, inputs, "types")


def answers(case: dict[str, Any], rounded: bool) -> list[Array]:
    """NumPy's answers for every value, in f64, and rounded to their types if asked for."""
    types = [item["type"] for item in case["inputs"]]
    values = [a.astype(_wide(t)) for a, t in zip(arrays_of(case), types, strict=True)]
    for node in case["nodes"]:
        made = np.asarray(RULES[node["op"]].answer(*(values[i] for i in node["in"]), **node["attrs"]))
        types.append(_type_of(node, types))
        if rounded or _kind(types[-1]) != "f":
            made = made.astype(DTYPES[types[-1]])
        values.append(made.astype(_wide(types[-1])))
    return values


def check(case: dict[str, Any]) -> str:
    with np.errstate(all="ignore"):
        wide, near = answers(case, False), answers(case, True)
        try:
            model = model_of(case)
        except RuntimeError as error:
            return f"is not built: {error}"
        arrays = arrays_of(case)
        for way in (_compiled, _interpreted):
            try:
                got = way(model, arrays)
            except Exception as error:
                return f"{way.__name__}: {type(error).__name__}: {error}"
            for k, i in enumerate(case["outputs"]):
                wrong = _difference(got[k], wide[i], near[i], case, i)
                if wrong:
                    return f"{way.__name__}, value {i}: {wrong}"
    return ""


def _compiled(model: ovjit.Model, arrays: list[Array]) -> list[Array]:
    compiled = ovjit.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    results = compiled([_tensor(a) for a in arrays])
    return [_values(results[i], port) for i, port in enumerate(compiled.outputs)]


def _tensor(array: Array) -> Any:
    if array.dtype == DTYPES["bf16"]:
        return ovjit.Tensor(array.view(np.uint16), list(array.shape), ovjit.Type.bf16)
    return ovjit.Tensor(array)


def _values(array: Array, port: Any) -> Array:
    return array.view(DTYPES["bf16"]) if port.element_type == ovjit.Type.bf16 else array


def _interpreted(model: ovjit.Model, arrays: list[Array]) -> list[Array]:
    return evaluate(model._graph(), arrays)


def _difference(got: Array, wide: Array, near: Array, case: dict[str, Any], i: int) -> str:
    if got.shape != wide.shape:
        return f"the shape is {got.shape}, not {wide.shape}"
    if wide.dtype.kind != "f":
        known, same = wide == near, got == wide
    else:
        x = got.astype(np.float64)
        most = _error(case, i)
        finite = np.abs(wide[np.isfinite(wide)])
        scale = np.abs(wide) + min(1e3, finite.max(initial=1.0))
        room = 4 * np.abs(wide - near) + most * scale
        known = np.abs(wide - near) <= 0.05 * np.abs(wide) + 8 * most * scale
        known |= wide == near
        known |= np.isnan(wide) & np.isnan(near)
        same = (np.abs(x - wide) <= room) | (x == wide) | np.isnan(x) & np.isnan(wide)
        same |= x == near
    bad = known & ~same
    if not bad.any():
        return ""
    at = tuple(int(v[0]) for v in np.nonzero(bad))
    says = f"{got[at]} at {list(at)} instead of {wide[at]} or {near[at]}"
    return f"{int(bad.sum())} of {bad.size} differ, {says}"


def _error(case: dict[str, Any], i: int) -> float:
    """The relative error of the widest rounding on the way to a value."""
    first = len(case["inputs"])
    types = [item["type"] for item in case["inputs"]]
    errors = [FLOATS.get(t, 0.0) for t in types]
    for node in case["nodes"][: i - first + 1]:
        types.append(_type_of(node, types))
        errors.append(max(FLOATS.get(types[-1], 0.0), *(errors[k] for k in node["in"])))
    return errors[i]


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if len(case["outputs"]) > 1:
        yield from ({**case, "outputs": [i]} for i in case["outputs"])
    first = len(case["inputs"])
    last = max(case["outputs"])
    if last < first + len(case["nodes"]) - 1:
        yield {**case, "nodes": case["nodes"][: last - first + 1]}
    for i in range(first, last):
        yield {**case, "nodes": case["nodes"][: i - first + 1], "outputs": [i]}


#: The part of a case that findings show.
SHOWN = "model_of(case)._graph()"

if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
