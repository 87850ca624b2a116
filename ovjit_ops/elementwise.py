"""Elementwise operations, one row each.

`scalar` is the body for one element, in the vocabulary of `ovjit.codegen.trace`; it makes the fused
kernels and the epilogues of tiles. `ref` is the same in NumPy: the specification. Binary operations
broadcast as NumPy does (`auto_broadcast="numpy"`), or not at all ("none").
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ovjit.codegen import trace as t
from ovjit.errors import ModelError, check
from ovjit.graph.op import DType, Float, Op, Str, TensorType, register
from ovjit.graph.shapes import broadcast

NUMBERS = "f32 f64 f16 bf16 i8 i16 i32 i64 u8 u16 u32 u64".split()
REALS = "f32 f64 f16 bf16".split()
INTS = "i8 i16 i32 i64 u8 u16 u32 u64".split()


def samples_for(arity: int, domain: tuple[float, float]) -> Callable:
    """Samples of every shape that matters: around the vector width, broadcast, scalar, empty."""
    lo, hi = domain

    def array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        from ovjit.graph.dtypes import numpy_dtype

        if dtype == "boolean":
            return rng.random(shape) < 0.5
        low = max(lo, 0) if dtype[0] == "u" else lo
        return rng.uniform(low, hi, shape).astype(numpy_dtype(dtype))

    def samples(rng: np.random.Generator, dtype: str = "f32"):
        shapes = [((n,),) * arity for n in (1, 7, 8, 15, 16, 17, 33, 1000)]
        shapes += [((),) * arity, ((0, 3),) * arity, ((2, 3, 4, 5),) * arity]
        if arity == 2:
            shapes += [((3, 17), (17,)), ((3, 17), (3, 1)), ((3, 1), (1, 17)), ((2, 3, 5, 7), (3, 1, 1)), ((), (5,))]
        for shape in shapes:
            yield [array(rng, s, dtype) for s in shape], {}

    return samples


def unary(
    name: str,
    ref: Callable,
    scalar: Callable,
    *,
    opset: int = 1,
    types: list[str] = NUMBERS,
    domain: tuple[float, float] = (-8, 8),
    infer: Callable | None = None,
    ulp: float = 4,
    **options: object,
) -> Op:
    """Register y = f(x)."""

    def infer_same(x: TensorType) -> TensorType:
        check(x.dtype in types or x.dtype == "dynamic", f"takes {' '.join(types)}, not {x.dtype}")
        return TensorType(x.dtype, x.shape)

    return register(
        Op(name, opset, infer or infer_same, ref, scalar=scalar, samples=samples_for(1, domain),
           ulp=ulp, types=types, **options)  # type: ignore[arg-type]
    )  # fmt: skip


def binary(
    name: str,
    ref: Callable,
    scalar: Callable,
    *,
    opset: int = 1,
    types: list[str] = NUMBERS,
    result: str | None = None,
    domain: tuple[float, float] = (-8, 8),
    ulp: float = 2,
    **options: object,
) -> Op:
    """Register z = f(x, y) with broadcasting; `result` is the element type of z where not that of x."""

    def infer(x: TensorType, y: TensorType, *, auto_broadcast: Str = "numpy") -> TensorType:
        return TensorType(result or common_dtype(x, y, types), broadcast_types(x, y, auto_broadcast))

    return register(
        Op(name, opset, infer, lambda x, y, auto_broadcast="numpy": ref(x, y), scalar=scalar,
           samples=samples_for(2, domain), ulp=ulp, types=types, **options)  # type: ignore[arg-type]
    )  # fmt: skip


def common_dtype(x: TensorType, y: TensorType, types: list[str]) -> str:
    """The element type that `x` and `y` share. Raises ModelError when they differ."""
    for operand in (x, y):
        check(operand.dtype in (*types, "dynamic"), f"takes {' '.join(types)}, not {operand.dtype}")
    check(
        x.dtype == y.dtype or "dynamic" in (x.dtype, y.dtype),
        f"the inputs have different element types, {x.dtype} and {y.dtype}; insert a Convert",
    )
    return y.dtype if x.dtype == "dynamic" else x.dtype


def broadcast_types(x: TensorType, y: TensorType, rule: str):
    rule = rule.lower()
    if rule == "none" and x.shape is not None and y.shape is not None:
        check(len(x.shape) == len(y.shape), f"shapes {x} and {y} differ and auto_broadcast is none")
    if rule not in ("none", "numpy"):
        raise ModelError(f"auto_broadcast should be numpy or none, not {rule!r}")
    return broadcast(x.shape, y.shape)


def _integer_divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, 0, x // np.where(y == 0, 1, y)).astype(x.dtype)


binary("Add", np.add, lambda x, y: x + y)
binary("Subtract", np.subtract, lambda x, y: x - y)
binary("Multiply", np.multiply, lambda x, y: x * y)
binary("Maximum", np.maximum, lambda x, y: t.maximum(x, y))
binary("Minimum", np.minimum, lambda x, y: t.minimum(x, y))
unary("Relu", lambda x: np.maximum(x, 0), lambda x: t.maximum(x, 0))
unary("Abs", np.abs, lambda x: t.absolute(x), builder={"": "absolute"})
unary("Exp", np.exp, lambda x: t.exp(x), types=REALS)
unary("Sigmoid", lambda x: 1 / (1 + np.exp(-x)), lambda x: 1 / (1 + t.exp(-x)), types=REALS)
