"""Random elementwise nodes, reductions, products and quantisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import defs, helper

from tests.support.onnx.samples import F, Rng, Sample, dims, flip, pick, some, spread, values
from tests.support.onnx.samples_layers import window


def unary(rng: Rng) -> Sample:
    real = [
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "Ceil",
        "Cos",
        "Cosh",
        "Erf",
        "Exp",
        "Floor",
        "Log",
        "Neg",
        "Reciprocal",
        "Round",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Sqrt",
        "Tan",
        "Tanh",
        "Relu",
        "Softplus",
        "Softsign",
        "Elu",
        "Selu",
        "Celu",
        "LeakyRelu",
        "ThresholdedRelu",
        "HardSigmoid",
        "HardSwish",
        "Mish",
        "Gelu",
        "Shrink",
        "IsNaN",
        "IsInf",
        "Identity",
        "Swish",
    ]
    op = pick(rng, *real)
    dtype = F
    if op in ("Abs", "Neg", "Sign", "Relu") and flip(rng):
        dtype = pick(rng, np.int32, np.int64, np.int8, np.float64)
    x = values(rng, dims(rng), dtype)
    if dtype == F and x.size and flip(rng, 0.2):
        x.reshape(-1)[0] = pick(rng, np.nan, np.inf, -np.inf, 0)
    a: dict[str, Any] = {}
    if op in ("Elu", "Celu", "LeakyRelu", "ThresholdedRelu", "Swish"):
        a = some(rng, alpha=float(rng.uniform(0.1, 2)))
    elif op == "Selu":
        a = some(rng, alpha=1.3, gamma=float(rng.uniform(0.5, 2)))
    elif op == "HardSigmoid":
        a = some(rng, alpha=0.3, beta=0.4)
    elif op == "Gelu":
        a = some(rng, approximate=pick(rng, "none", "tanh"))
    elif op == "Shrink":
        a = some(rng, bias=0.3, lambd=0.7)
    elif op == "IsInf":
        a = some(rng, detect_negative=int(flip(rng)), detect_positive=int(flip(rng)))
    opset = 24 if op == "Swish" else pick(rng, 20, 21, 22) if op == "Gelu" else pick(rng, 18, 20, 22)
    return Sample(op, [x], a, opset)


def binary(rng: Rng) -> Sample:
    op = pick(
        rng,
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Mod",
        "PRelu",
        "Equal",
        "Greater",
        "Less",
        "GreaterOrEqual",
        "LessOrEqual",
        "And",
        "Or",
        "Xor",
        "Min",
        "Max",
        "Sum",
        "Mean",
        "Where",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Clip",
    )
    dtype: Any = pick(rng, F, F, np.int32, np.int64, np.float64, np.uint8)
    shape = dims(rng)
    a: dict[str, Any] = {}
    opset = pick(rng, 13, 15, 17, 18, 21)
    if op in ("And", "Or", "Xor"):
        dtype = np.bool_
    if op in ("PRelu", "Sum", "Mean"):
        dtype = F
    if op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        opset, dtype = 18, pick(rng, np.int32, np.uint8, np.int64)
    x, y = values(rng, shape, dtype), values(rng, spread(rng, shape), dtype)
    if op == "PRelu":
        y = values(rng, spread(rng, shape), dtype)
        x = values(rng, shape, dtype)
        return Sample(op, [x, y], a, opset, free=(1,))
    if flip(rng) and op not in ("Clip", "Where", "Pow", "Mod", "BitShift", "PRelu"):
        x, y = y, x
    if op == "BitShift":
        dtype = pick(rng, np.uint8, np.uint32, np.uint64)
        x, y = values(rng, shape, dtype), (values(rng, spread(rng, shape), dtype) % 8).astype(dtype)
        a = {"direction": pick(rng, "LEFT", "RIGHT")}
    if op in ("Div", "Mod"):
        y = np.where(y == 0, 3, y).astype(dtype)
        if np.dtype(dtype).kind == "i" and op == "Div":  # no negative quotients that are cut both ways
            pass
    if op == "Mod" and (np.dtype(dtype).kind == "f" or flip(rng)):
        a = {"fmod": 1}
    if op == "Pow":
        base: Any = pick(rng, F, np.int32, np.int64, np.float64)
        power: Any = pick(rng, F, np.int32, np.int64)
        x = np.abs(values(rng, shape, base)) if base in (F, np.float64) else values(rng, shape, base) % 6
        y = values(rng, spread(rng, shape), power) % 4
        x, y = x.astype(base), y.astype(power)
    inputs = [x, y]
    if op in ("Min", "Max", "Sum", "Mean"):
        inputs = [values(rng, spread(rng, shape), dtype) for _ in range(int(rng.integers(1, 5)))]
    if op == "Where":
        inputs = [values(rng, spread(rng, shape), np.bool_), x, y]
    if op == "Clip":
        low, high = values(rng, (), dtype), values(rng, (), dtype)
        inputs = [x, low if flip(rng, 0.7) else None, high if flip(rng, 0.7) else None]
    return Sample(op, inputs, a, opset, free=(0, 1, 2))


def cast(rng: Rng) -> Sample:
    types = [
        np.float32,
        np.float64,
        np.float16,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.uint8,
        np.uint16,
        np.uint32,
        np.uint64,
        np.bool_,
    ]
    source, target = pick(rng, *types), pick(rng, *types)
    x = values(rng, dims(rng), source, 20)
    if np.dtype(target).kind == "u" and np.dtype(source).kind == "f":
        x = np.abs(x)
    if flip(rng):
        return Sample("CastLike", [x, values(rng, (1,), target)], {}, pick(rng, 15, 19, 21))
    return Sample(
        "Cast", [x], {"to": helper.np_dtype_to_tensor_dtype(np.dtype(target))}, pick(rng, 9, 13, 19, 21)
    )


def reductions(rng: Rng) -> Sample:
    op = pick(
        rng,
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceSumSquare",
    )
    opset = pick(rng, 11, 13, 18, 20)
    shape = dims(rng, 1)
    dtype: Any = pick(rng, F, F, np.int32, np.int64, np.float64)
    x = values(rng, shape, dtype)
    if op == "ReduceLogSumExp" and np.dtype(dtype).kind == "i":
        x = x.astype(F)
    if op == "ReduceLogSum":
        x = np.abs(x) + np.asarray(1, dtype)
    if op == "ReduceProd" and np.dtype(dtype).kind != "f":
        x = (x % 3).astype(dtype)
    rank = len(shape)
    axes = rng.choice(rank, int(rng.integers(0 if flip(rng, 0.2) else 1, rank + 1)), replace=False)
    axes = [int(v) - (rank if flip(rng, 0.3) else 0) for v in axes]
    a = some(rng, keepdims=int(flip(rng)))
    late = opset >= 18 or (op == "ReduceSum" and opset >= 13)
    inputs: list[Any] = [x]
    if late:
        a.update(some(rng, noop_with_empty_axes=int(flip(rng))))
        if flip(rng, 0.8):
            inputs.append(np.array(axes, np.int64))
    elif axes and flip(rng, 0.8):
        a["axes"] = axes
    return Sample(op, inputs, a, opset, constants=(1,), tolerance=1e-4)


def choices(rng: Rng) -> Sample:
    op = pick(rng, "ArgMax", "ArgMin", "TopK", "Unique", "CumSum", "NonZero", "OneHot", "Hardmax", "CumProd")
    shape = dims(rng, 1, zeros=False)
    rank = len(shape)
    axis = int(rng.integers(-rank, rank))
    opset = pick(rng, 12, 13, 21)
    dtype: Any = pick(rng, F, np.int32, np.int64, np.float64)
    x = values(rng, shape, dtype)
    if flip(rng):
        x = (x % 3).astype(dtype)
    if op in ("ArgMax", "ArgMin"):
        return Sample(
            op,
            [x.astype(F)],
            some(rng, axis=axis, keepdims=int(flip(rng)), select_last_index=int(flip(rng))),
            opset,
        )
    if op == "TopK":
        k = int(rng.integers(0, shape[axis] + 1))
        return Sample(
            op,
            [x, np.array([k], np.int64)],
            {"axis": axis, **some(rng, largest=int(flip(rng)), sorted=1)},
            opset,
            2,
            free=(1,),
        )
    if op == "Unique":
        return Sample(
            op, [x.astype(pick(rng, F, np.int64))], some(rng, axis=axis, sorted=int(flip(rng))), opset, 4
        )
    if op == "CumSum":
        return Sample(
            op,
            [x, np.array(axis, pick(rng, np.int32, np.int64))],
            some(rng, exclusive=int(flip(rng)), reverse=int(flip(rng))),
            pick(rng, 11, 14),
            free=(1,),
        )
    if op == "CumProd":
        return Sample(
            op,
            [x.astype(F), np.array(axis, np.int64)],
            some(rng, exclusive=int(flip(rng)), reverse=int(flip(rng))),
            26,
            free=(1,),
        )
    if op == "NonZero":
        return Sample(op, [x], {}, opset)
    if op == "Hardmax":
        return Sample(op, [x.astype(F)], some(rng, axis=axis), pick(rng, 11, 13))
    depth = int(rng.integers(1, 6))
    ids = rng.integers(-depth - 1, depth + 2, shape).astype(pick(rng, np.int64, np.int32, F))
    pair = values(rng, (2,), pick(rng, F, np.int32, np.int64))
    d = np.array(depth if flip(rng) else [depth], pick(rng, np.int64, np.int32, F))
    return Sample(op, [ids, d, pair], some(rng, axis=int(rng.integers(-rank - 1, rank + 1))), 11, free=(1, 2))


def products(rng: Rng) -> Sample:
    op = pick(rng, "MatMul", "Gemm", "Einsum", "MatMulInteger")
    m, k, n = (int(v) for v in rng.integers(1, 6, 3))
    dtype: Any = pick(rng, F, F, np.int32, np.int64, np.float64)
    if op == "MatMul":
        batch = dims(rng, 0, 3)
        a, b = (*spread(rng, batch), m, k), (*spread(rng, batch), k, n)
        if flip(rng, 0.15):
            a = (k,)
        if flip(rng, 0.15):
            b = (k,)
        return Sample(op, [values(rng, a, dtype), values(rng, b, dtype)], {}, 13, free=(0, 1), tolerance=1e-4)
    if op == "Gemm":
        ta, tb = int(flip(rng)), int(flip(rng))
        c = values(rng, pick(rng, (m, n), (n,), (1, n), (m, 1), (1,), ())) if flip(rng, 0.7) else None
        inputs = [values(rng, (k, m) if ta else (m, k)), values(rng, (n, k) if tb else (k, n)), c]
        a_ = {"transA": ta, "transB": tb, **some(rng, alpha=0.5, beta=2.0)}
        return Sample(
            op, inputs, a_, pick(rng, 7 if c is not None else 11, 11, 13), free=(1, 2), tolerance=1e-4
        )
    if op == "Einsum":
        equation, letters = pick(
            rng,
            ("ij,jk->ik", None),
            ("bij,bjk->bik", None),
            ("...ij,...jk->...ik", None),
            ("ii->i", None),
            ("ij->ji", None),
            ("i,j->ij", None),
            ("bhid,bhjd->bhij", None),
            ("ij,ij->", None),
            ("ij->i", None),
            ("ijk,ilm,njm,nlk,abc->", None),
            ("bn,bnd->bd", None),
            ("ij,jk,kl->il", None),
            ("...->...", None),
            ("ij,jk", None),
            ("ii", None),
        )
        sizes = {c: int(rng.integers(1, 4)) for c in "abcdefghijklmnopqrstuvwxyz"}
        dots = dims(rng, 0, 3, zeros=False)
        inputs = []
        for term in equation.split("->")[0].split(","):
            shape: tuple[int, ...] = ()
            if "..." in term:
                shape = dots
                term = term.replace("...", "")
            inputs.append(values(rng, (*shape, *(sizes[c] for c in term))))
        return Sample(op, inputs, {"equation": equation}, 12, free=(0, 1), tolerance=1e-4)
    da, db = pick(rng, np.uint8, np.int8), pick(rng, np.uint8, np.int8)
    za = pick(rng, None, values(rng, (), da))
    zb = pick(rng, None, values(rng, (), db), values(rng, (n,), db))
    return Sample(op, [values(rng, (m, k), da), values(rng, (k, n), db), za, zb], {}, 10, free=(1, 2, 3))


def quantised(rng: Rng) -> Sample:
    op = pick(
        rng,
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
    )
    kind: Any = pick(rng, np.uint8, np.int8)
    shape = dims(rng, 1, zeros=False)
    axis = int(rng.integers(-len(shape), len(shape)))
    if op == "DynamicQuantizeLinear":
        return Sample(op, [values(rng, shape)], {}, 11, 3, steps=1)
    if op in ("QuantizeLinear", "DequantizeLinear"):
        opset = pick(rng, 10, 13, 19, 21)
        kind = pick(rng, np.uint8, np.int8, *((np.int16, np.uint16) if opset == 21 else ()))
        per = flip(rng) and opset >= 13
        a = {"axis": axis} if per else {}
        sizes: tuple[int, ...] = (shape[axis],) if per else ()
        if opset == 21 and flip(rng, 0.4):
            block = int(rng.integers(1, shape[axis] + 1))
            a = {"axis": axis, "block_size": block}
            blocked = list(shape)
            blocked[axis] = -(-shape[axis] // block)
            sizes = tuple(blocked)
        scale = (np.abs(values(rng, sizes)) + F(0.05)).astype(F)
        zero = values(rng, sizes, kind) if flip(rng, 0.7) else None
        if op == "QuantizeLinear":
            kinds = {np.uint8: 2, np.int8: 3, np.int16: 5, np.uint16: 4}
            if zero is None and opset >= 21:
                a.update(some(rng, output_dtype=kinds[kind]))
            return Sample(op, [values(rng, shape, scale=20), scale, zero], a, opset, free=(1, 2), steps=1)
        x = values(rng, shape, np.int32) if zero is None and flip(rng, 0.3) else values(rng, shape, kind)
        return Sample(op, [x, scale, zero], a, opset, free=(1, 2))
    wide: Any = pick(rng, np.uint8, np.int8)
    if op == "QLinearMatMul":
        m, k, n = (int(v) for v in rng.integers(1, 6, 3))
        per = flip(rng)
        other: Any = pick(rng, kind, np.int8)
        inputs = [
            values(rng, (m, k), kind),
            F(0.05),
            np.asarray(values(rng, (), kind)),
            values(rng, (k, n), other),
            (np.abs(values(rng, (n,) if per else ())) * F(0.05) + F(0.01)).astype(F),
            values(rng, (n,) if per else (), other),
            F(0.3),
            values(rng, (), kind),
        ]
        return Sample(op, [np.asarray(v) for v in inputs], {}, 10, free=(1, 2, 3, 4, 5, 6, 7), steps=1)
    kernel = [int(v) for v in rng.integers(1, 4, 2)]
    a = window(rng, (6, 7), kernel)
    group = pick(rng, 1, 2)
    if group > 1:
        a["group"] = group
    x = values(rng, (1, 2 * group, 6, 7), kind)
    if op == "ConvInteger":
        w = values(rng, (3 * group, 2, *kernel), wide)
        zx = values(rng, (), kind) if flip(rng) else None
        zw = values(rng, pick(rng, (), (3 * group,)), wide) if flip(rng) and zx is not None else None
        return Sample(op, [x, w, zx, zw], a, 10, free=(1, 2, 3))
    w = values(rng, (3 * group, 2, *kernel), pick(rng, kind, np.int8))
    per = flip(rng)
    ws = (np.abs(values(rng, (3 * group,) if per else ())) * F(0.05) + F(0.01)).astype(F)
    wz = (
        (np.zeros(3 * group, w.dtype) if per else values(rng, (), w.dtype))
        if w.dtype == np.int8
        else values(rng, (), w.dtype)
    )
    bias = values(rng, (3 * group,), np.int32) if flip(rng) else None
    inputs = [
        x,
        np.asarray(F(0.05)),
        values(rng, (), kind),
        w,
        ws,
        wz,
        np.asarray(F(0.4)),
        values(rng, (), kind),
        bias,
    ]
    return Sample(op, inputs, a, 10, free=(1, 2, 3, 4, 5, 6, 7, 8), steps=1)


def gates(rng: Rng) -> Sample:
    """Bits, gates, losses and linear attention."""
    ops = ("Not", "BitwiseNot", "BitCast", "SwiGLU", "Dropout", "LinearAttention")
    ops += ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss")
    op = pick(rng, *(name for name in ops if defs.has(name)))
    shape = dims(rng)
    if op == "Not":
        return Sample(op, [rng.random(shape) < 0.5], {}, 7)
    if op == "BitwiseNot":
        kinds = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
        return Sample(op, [values(rng, shape, pick(rng, *kinds))], {}, 18)
    if op == "BitCast":
        kinds = pick(rng, (np.int8, np.uint8), (np.int16, np.uint16), (np.int32, np.uint32))
        old, new = pick(rng, kinds, kinds[::-1])
        to = helper.np_dtype_to_tensor_dtype(np.dtype(new))
        return Sample(op, [values(rng, shape, old)], {"to": to}, 26)
    if op == "SwiGLU":
        return Sample(op, [values(rng, shape), values(rng, shape)], some(rng, alpha=1.7), 28, free=(1,))
    if op == "Dropout":  # that leaves everything
        ratio = np.asarray(0.4, F) if flip(rng) else None
        return Sample(op, [values(rng, shape), ratio], {}, pick(rng, 12, 13, 22), pick(rng, 1, 2), free=(1,))
    if op == "LinearAttention":
        batch, length, groups, depth, width = (int(v) for v in rng.integers(1, 4, 5))
        heads, rule = groups * pick(rng, 1, 2), pick(rng, "linear", "gated", "delta", "gated_delta")
        inputs = [
            *(values(rng, (batch, length, size), scale=0.5)
              for size in (heads * depth, groups * depth, groups * width)),
            values(rng, (batch, groups, depth, width)) if flip(rng) else None,
            -np.abs(values(rng, (batch, length, groups * pick(rng, 1, depth)))) if "gated" in rule else None,
            rng.random((batch, length, groups)).astype(F) if "delta" in rule else None,
        ]  # fmt: skip
        a = {"q_num_heads": heads, "kv_num_heads": groups, "update_rule": rule, **some(rng, scale=0.3)}
        return Sample(op, inputs, a, 27, 2, tolerance=1e-4)
    classes = int(rng.integers(2, 5))
    batch, rest = int(rng.integers(1, 4)), dims(rng, 0, 3, zeros=False)
    x = values(rng, (batch, classes, *rest))
    target = rng.integers(0, classes, (batch, *rest)).astype(pick(rng, np.int32, np.int64))
    weight = rng.random(classes).astype(F) + F(0.1) if flip(rng) else None
    a = some(rng, reduction=pick(rng, "none", "mean", "sum"), ignore_index=pick(rng, None, 0))
    outputs = pick(rng, 1, 2) if op == "SoftmaxCrossEntropyLoss" else 1
    return Sample(op, [x, target, weight], a, pick(rng, 12, 13, 22), outputs, free=(2,), tolerance=1e-4)


FAMILIES = {
    f.__name__: f
    for f in (
        unary,
        binary,
        cast,
        reductions,
        choices,
        products,
        quantised,
        gates,
    )
}
