"""Random nodes of ai.onnx, a function for each family of operators: generator -> Sample."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper

Rng = np.random.Generator
F = np.float32
_NAMES = {np.dtype(t): n for t, n in ((np.float32, TensorProto.FLOAT), (np.int64, TensorProto.INT64))}


class Sample(NamedTuple):
    """One node: inputs that are None are left out."""

    op: str
    inputs: list[Any]
    attributes: dict[str, Any]
    opset: int = 21
    outputs: int = 1
    constants: Collection[int] = ()  #: inputs that are constants
    free: Collection[int] = ()  #: inputs that may be constants
    tolerance: float = 2e-5
    steps: int = 0  #: how far integers may be off
    domain: str = ""
    unchecked: Collection[int] = ()  #: outputs whose values are not compared


def pick(rng: Rng, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def flip(rng: Rng, chance: float = 0.5) -> bool:
    return bool(rng.random() < chance)


def dims(rng: Rng, low: int = 0, high: int = 5, most: int = 5, zeros: bool = True) -> tuple[int, ...]:
    shape = rng.integers(1, most + 1, int(rng.integers(low, high)))
    if zeros and flip(rng, 0.05) and len(shape):
        shape[int(rng.integers(len(shape)))] = 0
    return tuple(int(d) for d in shape)


def values(rng: Rng, shape: Any, dtype: Any = F, scale: float = 2.0) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape) * scale).astype(dtype)
    if dtype.kind == "u":
        return np.asarray(rng.integers(0, 60, shape)).astype(dtype)
    return np.asarray(rng.integers(-30, 30, shape)).astype(dtype)


def some(rng: Rng, **maybe: Any) -> dict[str, Any]:
    """Each attribute is given or left to its default."""
    return {k: v for k, v in maybe.items() if v is not None and flip(rng, 0.7)}


def spread(rng: Rng, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts with `shape`."""
    out = [d if flip(rng, 0.7) else 1 for d in shape]
    return tuple(out[int(rng.integers(0, len(out) + 1)) if flip(rng, 0.3) else 0 :])


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


def _window(rng: Rng, size: tuple[int, ...], kernel: list[int], pool: bool = False) -> dict[str, Any]:
    n = len(size)
    a = some(
        rng,
        strides=[int(v) for v in rng.integers(1, 4, n)],
        dilations=[int(v) for v in rng.integers(1, 3, n)],
    )
    how = pick(rng, "pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID", "none")
    if how == "pads":
        a["pads"] = [int(rng.integers(0, k if not pool else max(k, 1))) for k in kernel] * 1 + [
            int(rng.integers(0, k)) for k in kernel
        ]
    elif how != "none":
        a["auto_pad"] = how
        if how != "VALID":  # what a window smaller than its step leaves out is said nowhere
            a["strides"] = [min(s, k) for s, k in zip(a.get("strides", [1] * n), kernel, strict=True)]
            a.pop("dilations", None)
    return a


def convolutions(rng: Rng) -> Sample:
    n = pick(rng, 1, 2, 2, 3)
    kernel = [int(v) for v in rng.integers(1, 4, n)]
    size = tuple(int(v) for v in rng.integers(5, 10, n))
    group = pick(rng, 1, 1, 2, 3)
    per, out_per = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    batch = int(rng.integers(1, 3))
    a = _window(rng, size, kernel)
    if group > 1:
        a["group"] = group
    if flip(rng):
        a["kernel_shape"] = kernel
    op = pick(rng, "Conv", "ConvTranspose")
    bias = values(rng, (group * out_per,)) if flip(rng) else None
    x = values(rng, (batch, group * per, *size))
    if op == "Conv":
        w = values(rng, (group * out_per, per, *kernel))
        return Sample(op, [x, w, bias], a, pick(rng, 11, 22), free=(1, 2), tolerance=1e-4)
    w = values(rng, (group * per, out_per, *kernel))
    strides = a.get("strides", [1] * n)
    if flip(rng, 0.4):
        a["output_padding"] = [int(rng.integers(0, s)) for s in strides]
    elif flip(rng, 0.2):
        a.pop("auto_pad", None)
        a.pop("pads", None)
        a.pop("dilations", None)
        a["output_shape"] = [
            (d - 1) * s + k + int(rng.integers(-1, 1)) for d, s, k in zip(size, strides, kernel, strict=True)
        ]
        a["output_shape"] = [max(v, 1) for v in a["output_shape"]]
        if flip(rng):
            a["auto_pad"] = pick(rng, "SAME_UPPER", "SAME_LOWER")
    return Sample(op, [x, w, bias], a, pick(rng, 11, 22), free=(1, 2), tolerance=1e-4)


def pools(rng: Rng) -> Sample:
    op = pick(
        rng,
        "MaxPool",
        "MaxPool",
        "AveragePool",
        "AveragePool",
        "LpPool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
    )
    n = pick(rng, 1, 2, 2, 3)
    size = tuple(int(v) for v in rng.integers(5, 10, n))
    x = values(rng, (int(rng.integers(1, 3)), int(rng.integers(1, 4)), *size))
    if op.startswith("Global"):
        return Sample(op, [x], {"p": pick(rng, 1, 2, 3)} if op == "GlobalLpPool" else {}, pick(rng, 11, 22))
    kernel = [int(v) for v in rng.integers(1, 4, n)]
    a = {"kernel_shape": kernel, **_window(rng, size, kernel, True)}
    opset = pick(rng, 12, 19, 22)
    if op == "AveragePool":
        a.update(some(rng, count_include_pad=int(flip(rng)), ceil_mode=int(flip(rng))))
        if opset < 19:
            a.pop("dilations", None)
    elif op == "LpPool":
        opset = pick(rng, 11, 18, 22)
        a.update(some(rng, p=pick(rng, 1, 2, 3)))
        if opset < 18:
            a.pop("dilations", None)
        else:
            a.update(some(rng, ceil_mode=int(flip(rng))))
    else:
        a.update(some(rng, ceil_mode=int(flip(rng))))
        if flip(rng):
            a.update(some(rng, storage_order=int(flip(rng))))
            return Sample(op, [x], a, opset, 2)
        if flip(rng, 0.2):
            x = values(rng, x.shape, pick(rng, np.int8, np.uint8))
    return Sample(op, [x], a, opset)


def norms(rng: Rng) -> Sample:
    op = pick(
        rng,
        "BatchNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "LRN",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "LpNormalization",
        "Softmax",
        "LogSoftmax",
    )
    shape = (int(rng.integers(1, 3)), 2 * int(rng.integers(1, 4)), *dims(rng, 1, 4, zeros=False))
    c, rank = shape[1], len(shape)
    x = values(rng, shape)
    if op == "BatchNormalization":
        opset = pick(rng, 7, 9, 14, 15)
        a = some(rng, epsilon=0.01, momentum=0.5)
        if opset == 7:
            a.update(some(rng, spatial=1))
        if opset >= 14:
            a.update(some(rng, training_mode=0))
        stats = [values(rng, (c,)), values(rng, (c,)), values(rng, (c,)), np.abs(values(rng, (c,))) + F(0.1)]
        return Sample(op, [x, *stats], a, opset, free=(1, 2, 3, 4))
    if op == "InstanceNormalization":
        return Sample(
            op,
            [x, values(rng, (c,)), values(rng, (c,))],
            some(rng, epsilon=0.01),
            pick(rng, 6, 22),
            free=(1, 2),
            tolerance=2e-4,
        )
    axis = int(rng.integers(-rank, rank))
    if op in ("LayerNormalization", "RMSNormalization"):
        rest = shape[axis:] if axis < 0 else shape[axis:]
        scale = values(rng, rest)
        a = {"axis": axis, **some(rng, epsilon=0.01)}
        if op == "RMSNormalization":
            return Sample(op, [x, scale], a, 23, free=(1,), tolerance=2e-4)
        bias = values(rng, rest) if flip(rng) else None
        return Sample(op, [x, scale, bias], a, 17, pick(rng, 1, 3), free=(1, 2), tolerance=5e-4)
    if op == "GroupNormalization":
        groups = pick(rng, 1, 2, c)
        opset = pick(rng, 18, 21)
        m = groups if opset == 18 else c
        return Sample(
            op,
            [x, values(rng, (m,)), values(rng, (m,))],
            {"num_groups": groups, **some(rng, epsilon=0.01)},
            opset,
            free=(1, 2),
            tolerance=2e-4,
        )
    if op == "LRN":
        x = values(rng, (shape[0], c, 3, 4))
        return Sample(op, [x], {"size": pick(rng, 1, 3, 5), **some(rng, alpha=0.1, beta=0.5, bias=2.0)}, 13)
    if op == "MeanVarianceNormalization":
        x = values(rng, (*shape[:2], 3, 4))
        return Sample(op, [x], some(rng, axes=[0, 2, 3] if flip(rng) else [1, -1]), 13, tolerance=2e-4)
    if op == "LpNormalization":
        return Sample(op, [x], some(rng, axis=axis, p=pick(rng, 1, 2)), pick(rng, 1, 22))
    return Sample(op, [x], some(rng, axis=axis), pick(rng, 11, 13))


def resizes(rng: Rng) -> Sample:
    opset = pick(rng, 10, 11, 13, 18, 19)
    n = pick(rng, 1, 2, 2, 3)
    shape = (1, int(rng.integers(1, 3)), *(int(v) for v in rng.integers(2, 7, n)))
    x = values(rng, shape)
    if flip(rng, 0.1):
        x = values(rng, shape, np.uint8)
    mode = (
        pick(rng, "nearest", "linear", "cubic") if n == 2 and opset > 10 else pick(rng, "nearest", "linear")
    )
    scales = np.array([1, 1, *(pick(rng, 0.5, 0.6, 1, 1.5, 2, 2.3, 3) for _ in range(n))], F)
    if opset == 10 and flip(rng):
        name, version = ("Upsample", pick(rng, 7, 9))
        scales = np.maximum(scales, 1)
        if version == 7:
            return Sample(
                name, [x.astype(F)], {"mode": pick(rng, "nearest", "linear"), "scales": scales.tolist()}, 7
            )
        return Sample(name, [x.astype(F), scales], {"mode": pick(rng, "nearest", "linear")}, 9, free=(1,))
    a: dict[str, Any] = {"mode": mode}
    if opset == 10:
        return Sample("Resize", [x.astype(F), scales], a, 10, free=(1,))
    how = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    if opset >= 19:
        how.append("half_pixel_symmetric")
    if flip(rng, 0.1):
        how = ["tf_crop_and_resize"]
    a.update(some(rng, coordinate_transformation_mode=pick(rng, *how)))
    if mode == "nearest":
        a.update(
            some(rng, nearest_mode=pick(rng, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"))
        )
    elif mode == "cubic":
        a.update(some(rng, cubic_coeff_a=-0.5, exclude_outside=int(flip(rng))))
    roi = None
    if a.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        a.update(some(rng, extrapolation_value=3.0))
        roi = np.array([*[0] * (n + 2), *[1] * (n + 2)], F)
        roi[2 : 2 + n], roi[4 + n :] = rng.uniform(0, 0.4, n), rng.uniform(0.5, 1.2, n)
    if opset >= 18 and mode != "nearest":
        a.update(some(rng, antialias=int(flip(rng, 0.3))))
    sizes = np.array([*shape[:2], *(int(v) for v in rng.integers(1, 12, n))], np.int64)
    if opset >= 18 and flip(rng, 0.3):
        axes = list(range(2, n + 2))
        a["axes"] = axes
        scales, sizes = scales[2:], sizes[2:]
        roi = None if roi is None else np.concatenate([roi[2 : n + 2], roi[n + 4 :]])
        if flip(rng):
            a["keep_aspect_ratio_policy"] = pick(rng, "stretch", "not_larger", "not_smaller")
    by_size = flip(rng) or "keep_aspect_ratio_policy" in a or roi is not None
    empty = np.zeros(0, F) if opset < 13 else None
    inputs = [x, roi if roi is not None else empty, empty if by_size else scales]
    if by_size:
        inputs.append(sizes)
    rounding = int(x.dtype == np.uint8)  # integers are cut off or rounded, the standard does not say
    return Sample("Resize", inputs, a, opset, free=(1, 2, 3), constants=(1,), tolerance=1e-4, steps=rounding)


def pads(rng: Rng) -> Sample:
    opset = pick(rng, 2, 11, 13, 18, 19, 21)
    shape = dims(rng, 1, zeros=False)
    rank = len(shape)
    mode = pick(rng, "constant", "constant", "reflect", "edge", "wrap" if opset >= 19 else "edge")
    least = 0 if mode == "wrap" else -1  # what is cut off and goes round: ONNX Runtime's own order
    x = values(rng, shape, F if opset == 2 else pick(rng, F, np.int32, np.int64, np.float64))
    low = [
        int(rng.integers(max(least, 1 - d), d))
        if mode != "constant"
        else int(rng.integers(-min(2, d - 1), 4))
        for d in shape
    ]
    high = [int(rng.integers(0, d)) if mode != "constant" else int(rng.integers(0, 4)) for d in shape]
    a: dict[str, Any] = some(rng, mode=mode) if mode == "constant" else {"mode": mode}
    if opset == 2:
        return Sample("Pad", [x], {**a, "pads": low + high, **some(rng, value=2.5)}, 2)
    inputs: list[Any] = [x, np.array(low + high, np.int64)]
    if flip(rng):
        inputs.append(np.array(3, x.dtype))
    if opset >= 18 and flip(rng):
        axes = rng.permutation(rank)[: int(rng.integers(1, rank + 1))]
        inputs[1] = np.array([low[i] for i in axes] + [high[i] for i in axes], np.int64)
        inputs = [
            *inputs,
            *[None] * (3 - len(inputs)),
            np.array([i - (rank if flip(rng) else 0) for i in axes], np.int64),
        ]
    return Sample("Pad", inputs, a, opset, free=(1, 2, 3))


def slices(rng: Rng) -> Sample:
    op = pick(
        rng, "Slice", "Split", "Gather", "GatherElements", "GatherND", "Compress", "Trilu", "ReverseSequence"
    )
    shape = dims(rng, 1, zeros=False)
    rank = len(shape)
    axis = int(rng.integers(-rank, rank))
    x = values(rng, shape, pick(rng, F, np.int32, np.int64, np.bool_))
    kind = pick(rng, np.int64, np.int32)
    if op == "Slice":
        count = int(rng.integers(1, rank + 1))
        axes = [int(v) for v in rng.permutation(rank)[:count]]
        starts = [int(rng.integers(-shape[i] - 2, shape[i] + 2)) for i in axes]
        stops = [pick(rng, int(rng.integers(-shape[i] - 2, shape[i] + 2)), 2**31 - 1) for i in axes]
        if flip(rng, 0.2):
            return Sample(op, [x], {"axes": axes, "starts": starts, "ends": stops}, 9)
        steps = [pick(rng, 1, 1, 2, -1, -2, 3) for _ in axes]
        stops = [-(2**31) + 1 if s < 0 and flip(rng) else e for s, e in zip(steps, stops, strict=True)]
        axes = [i - rank if flip(rng, 0.3) else i for i in axes]
        parts: list[Any] = [np.array(v, kind) for v in (starts, stops, axes, steps)]
        if axes == list(range(count)) and flip(rng):
            parts[2] = None
        if flip(rng, 0.3):
            parts.pop() if all(s == 1 for s in steps) else None
        return Sample(op, [x, *parts], {}, pick(rng, 10, 13), free=(1, 2, 3, 4))
    if op == "Split":
        opset = pick(rng, 2, 11, 13, 18)
        size = shape[axis]
        if flip(rng) or size == 1:
            cut = int(rng.integers(0, size + 1))
            lengths = [cut, size - cut]
            if opset < 13:
                return Sample(op, [x], {"axis": axis, "split": lengths}, opset, 2)
            return Sample(op, [x, np.array(lengths, np.int64)], {"axis": axis}, opset, 2, free=(1,))
        count = int(rng.integers(1, size + 1))
        if opset < 18 and size % count:
            count = size
        if opset == 18 and (count - 1) * -(-size // count) >= size:
            count = 1
        a = {"axis": axis, **({"num_outputs": count} if opset == 18 else {})}
        return Sample(op, [x], a, opset, count)
    if op == "Gather":
        ids = rng.integers(-shape[axis], shape[axis], dims(rng, 0, 3)).astype(kind)
        return Sample(
            op,
            [x, ids],
            some(rng, axis=axis) if flip(rng) else {"axis": axis},
            pick(rng, 1, 11, 13),
            free=(0, 1),
        )
    if op == "GatherElements":
        other = tuple(
            int(rng.integers(1, d + 1)) if i != axis % rank else int(rng.integers(1, 5))
            for i, d in enumerate(shape)
        )
        return Sample(
            op,
            [x, rng.integers(-shape[axis], shape[axis], other).astype(kind)],
            {"axis": axis},
            13,
            free=(1,),
        )
    if op == "GatherND":
        batch = int(rng.integers(0, rank))
        last = int(rng.integers(1, rank - batch + 1))
        ids = np.stack(
            [rng.integers(-shape[batch + i], shape[batch + i], (*shape[:batch], 3)) for i in range(last)], -1
        )
        return Sample(
            op, [x, ids.astype(np.int64)], {"batch_dims": batch} if batch or flip(rng) else {}, 13, free=(1,)
        )
    if op == "Compress":
        if flip(rng):
            keep = rng.random(int(rng.integers(1, shape[axis] + 1))) < 0.5
            return Sample(op, [x, keep], {"axis": axis}, pick(rng, 9, 11), free=(1,))
        return Sample(
            op, [x, rng.random(int(rng.integers(1, x.size + 1))) < 0.5], {}, pick(rng, 9, 11), free=(1,)
        )
    if op == "Trilu":
        shape = dims(rng, 2, zeros=False)
        x = values(rng, shape)
        return Sample(
            op,
            [x, np.array(int(rng.integers(-3, 4)), np.int64) if flip(rng) else None],
            some(rng, upper=int(flip(rng))),
            14,
            free=(1,),
        )
    shape = (int(rng.integers(1, 5)), int(rng.integers(1, 5)), *dims(rng, 0, 3, zeros=False))
    batch = int(rng.integers(2))
    lengths = rng.integers(1, shape[1 - batch] + 1, shape[batch]).astype(np.int64)
    return Sample(
        "ReverseSequence",
        [values(rng, shape), lengths],
        {"batch_axis": batch, "time_axis": 1 - batch},
        10,
        free=(1,),
    )


def scatters(rng: Rng) -> Sample:
    op = pick(rng, "Scatter", "ScatterElements", "ScatterND", "TensorScatter")
    shape = dims(rng, 1, zeros=False)
    rank = len(shape)
    axis = int(rng.integers(-rank, rank))
    dtype: Any = pick(rng, F, np.int32, np.int64)
    x = values(rng, shape, dtype)
    opset = pick(rng, 11, 16, 18)
    reduction = (
        {}
        if opset == 11
        else {"reduction": "none"}
        if opset < 16
        else some(
            rng, reduction=pick(rng, *(["none", "add", "mul"] + (["max", "min"] if opset == 18 else [])))
        )
    )
    if op in ("Scatter", "ScatterElements"):
        other = tuple(int(rng.integers(1, d + 1)) for d in shape)
        line = np.argsort(
            rng.random((*other[: axis % rank], shape[axis], *other[axis % rank + 1 :])), axis=axis
        )
        ids = np.take(line, np.arange(other[axis]), axis=axis)
        if flip(rng):
            ids = ids - shape[axis]
        if reduction.get("reduction", "none") != "none":
            ids = rng.integers(-shape[axis], shape[axis], other)
        a = {"axis": axis, **(reduction if op == "ScatterElements" else {})}
        return Sample(
            op,
            [x, ids.astype(pick(rng, np.int64, np.int32)), values(rng, other, dtype)],
            a,
            9 if op == "Scatter" else opset,
            free=(1,),
        )
    last = int(rng.integers(1, rank + 1))
    places = rng.permutation(int(np.prod(shape[:last])))[:3]
    ids = np.stack(np.unravel_index(places, shape[:last]), -1)
    if flip(rng, 0.3):
        ids = ids - np.array(shape[:last])
    return Sample(
        "ScatterND",
        [x, ids.astype(np.int64), values(rng, (len(places), *shape[last:]), dtype)],
        reduction,
        opset,
        free=(1,),
    )


def shapes(rng: Rng) -> Sample:
    op = pick(
        rng,
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Concat",
        "DepthToSpace",
        "SpaceToDepth",
        "Flatten",
        "Tile",
        "Expand",
        "Shape",
        "Size",
        "ConstantOfShape",
        "EyeLike",
        "Range",
        "Col2Im",
        "CenterCropPad",
        "AffineGrid",
        "Det",
    )
    shape = dims(rng, 1)
    rank = len(shape)
    axis = int(rng.integers(-rank, rank))
    x = values(rng, shape, pick(rng, F, np.int32, np.int64, np.bool_))
    if op == "Reshape":
        flat = [int(d) for d in shape]
        if len(flat) > 1 and flip(rng):
            i = int(rng.integers(len(flat) - 1))
            flat[i : i + 2] = [flat[i] * flat[i + 1]]
        else:
            flat = [*flat, 1]
        for i, d in enumerate(flat):
            if i < rank and d == shape[i] and flip(rng, 0.3):
                flat[i] = 0
        if flip(rng) and x.size:
            flat[int(rng.integers(len(flat)))] = -1
        a = some(rng, allowzero=int(flip(rng, 0.2)))
        return Sample(op, [x, np.array(flat, np.int64)], a if a else {}, pick(rng, 14, 19, 21), free=(1,))
    if op == "Squeeze":
        shape = tuple(1 if flip(rng) else d for d in dims(rng, 1, zeros=False))
        ones = [
            i - (len(shape) if flip(rng) else 0) for i, d in enumerate(shape) if d == 1 and flip(rng, 0.7)
        ]
        x = values(rng, shape)
        if flip(rng) or not ones:
            return Sample(op, [x], {} if not ones or flip(rng) else {"axes": ones}, 11)
        return Sample(op, [x, np.array(ones, np.int64)], {}, 13, free=(1,))
    if op == "Unsqueeze":
        count = int(rng.integers(1, 3))
        axes = [int(v) - (rank + count if flip(rng) else 0) for v in rng.permutation(rank + count)[:count]]
        if flip(rng):
            return Sample(op, [x], {"axes": axes}, 11)
        return Sample(op, [x, np.array(axes, np.int64)], {}, 13, free=(1,))
    if op == "Transpose":
        return Sample(op, [x], some(rng, perm=[int(v) for v in rng.permutation(rank)]), 13)
    if op == "Concat":
        parts = []
        for _ in range(int(rng.integers(1, 4))):
            other = list(shape)
            other[axis] = int(rng.integers(0, 4))
            parts.append(values(rng, tuple(other)))
        return Sample(op, parts, {"axis": axis}, pick(rng, 4, 11, 13), free=(0, 1, 2))
    if op == "DepthToSpace":
        b = pick(rng, 1, 2, 3)
        return Sample(
            op,
            [values(rng, (1, b * b * 2, 3, 2))],
            {"blocksize": b, **some(rng, mode=pick(rng, "DCR", "CRD"))},
            13,
        )
    if op == "SpaceToDepth":
        b = pick(rng, 1, 2, 3)
        return Sample(op, [values(rng, (2, 2, 3 * b, 2 * b))], {"blocksize": b}, 13)
    if op == "Flatten":
        return Sample(op, [x], some(rng, axis=int(rng.integers(-rank, rank + 1))), pick(rng, 11, 13))
    if op == "Tile":
        return Sample(
            op, [x, rng.integers(0 if flip(rng, 0.1) else 1, 4, rank).astype(np.int64)], {}, 13, free=(1,)
        )
    if op == "Expand":
        target = [d if flip(rng) or d != 1 else int(rng.integers(1, 4)) for d in shape]
        target = [1 if flip(rng, 0.3) else d for d in target]
        if flip(rng):
            target = [int(rng.integers(1, 4)), *target]
        return Sample(op, [x, np.array(target, np.int64)], {}, 13, free=(1,))
    if op == "Shape":
        return Sample(op, [x], some(rng, start=int(rng.integers(-6, 6)), end=int(rng.integers(-6, 6))), 15)
    if op == "Size":
        return Sample(op, [x], {}, 13)
    if op == "ConstantOfShape":
        v = (
            helper.make_tensor("v", TensorProto.FLOAT, [1], [2.5])
            if flip(rng)
            else helper.make_tensor("v", TensorProto.INT64, [1], [7])
        )
        return Sample(op, [np.array(shape, np.int64)], some(rng, value=v), pick(rng, 9, 20), free=(0,))
    if op == "EyeLike":
        x = values(rng, (int(rng.integers(1, 5)), int(rng.integers(1, 5))))
        return Sample(op, [x], some(rng, k=int(rng.integers(-2, 3)), dtype=pick(rng, 1, 7, 11)), 9)
    if op == "Range":
        dtype: Any = pick(rng, F, np.int32, np.int64, np.float64)
        return Sample(
            op,
            [np.array(v, dtype) for v in pick(rng, (0, 7, 2), (5, -4, -2), (3, 3, 1), (1, 9, 3))],
            {},
            11,
            free=(0, 1, 2),
        )
    if op == "Col2Im":
        x = values(rng, (1, 2 * 4, 9))
        return Sample(op, [x, np.array([4, 4], np.int64), np.array([2, 2], np.int64)], {}, 18, free=(1, 2))
    if op == "CenterCropPad":
        x = values(rng, (5, 6, 3))
        if flip(rng):
            return Sample(
                op,
                [x, rng.integers(2, 9, 2).astype(np.int64)],
                {"axes": pick(rng, [0, 1], [1, -1], [-1, 0])},
                18,
                free=(1,),
            )
        return Sample(op, [x, rng.integers(2, 9, 3).astype(np.int64)], {}, 18, free=(1,))
    if op == "AffineGrid":
        if flip(rng):
            return Sample(
                op,
                [values(rng, (2, 2, 3)), np.array([2, 3, 4, 5], np.int64)],
                some(rng, align_corners=int(flip(rng))),
                20,
                free=(1,),
            )
        return Sample(
            op,
            [values(rng, (2, 3, 4)), np.array([2, 3, 4, 5, 3], np.int64)],
            some(rng, align_corners=int(flip(rng))),
            20,
            free=(1,),
        )
    m = int(rng.integers(1, 5))
    return Sample(op, [values(rng, (*dims(rng, 0, 3), m, m))], {}, 11, tolerance=1e-4)


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
    a = _window(rng, (6, 7), kernel)
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


def recurrent(rng: Rng) -> Sample:
    op = pick(rng, "LSTM", "GRU", "RNN")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    direction = pick(rng, "forward", "reverse", "bidirectional")
    d = 2 if direction == "bidirectional" else 1
    t, b, i, h = (int(v) for v in rng.integers(1, 5, 4))
    layout = 0  # ONNX Runtime has no other, and the standard's evaluator is wrong with it
    x = values(rng, (b, t, i) if layout else (t, b, i), scale=1)
    w, r = values(rng, (d, gates * h, i), scale=0.7), values(rng, (d, gates * h, h), scale=0.7)
    bias = values(rng, (d, 2 * gates * h)) if flip(rng, 0.7) else None
    lengths = rng.integers(1, t + 1, b).astype(np.int32) if flip(rng, 0.4) else None
    state = (b, d, h) if layout else (d, b, h)
    h0 = values(rng, state) if flip(rng, 0.5) else None
    a: dict[str, Any] = {
        "hidden_size": h,
        "direction": direction,
        **some(rng, clip=float(rng.uniform(0.5, 3)) if flip(rng, 0.3) else None),
    }
    if layout:
        a["layout"] = 1
    inputs = [x, w, r, bias, lengths, h0]
    if flip(rng, 0.3):
        one = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[op]
        f = pick(
            rng,
            "Relu",
            "Tanh",
            "Sigmoid",
            "HardSigmoid",
            "LeakyRelu",
            "Affine",
            "Softsign",
            "Softplus",
            "Elu",
        )
        one[-1] = f
        a["activations"] = one * d
        if f == "Affine" or (f in ("LeakyRelu", "Elu", "HardSigmoid") and flip(rng)):
            count = sum(v in ("LeakyRelu", "Elu", "HardSigmoid", "Affine") for v in a["activations"])
            a["activation_alpha"] = [0.3] * count
            if f in ("HardSigmoid", "Affine"):
                a["activation_beta"] = [0.2] * count
    if op == "GRU":
        a.update(some(rng, linear_before_reset=int(flip(rng))))
    if op == "LSTM":
        inputs.append(values(rng, state) if flip(rng, 0.5) else None)
        inputs.append(values(rng, (d, 3 * h)) if flip(rng, 0.2) else None)
        a.update(some(rng, input_forget=int(flip(rng, 0.3)) or None))
    return Sample(op, inputs, a, pick(rng, 14, 22), 3 if op == "LSTM" else 2, free=(1, 2, 3), tolerance=1e-4)


def detection(rng: Rng) -> Sample:
    op = pick(rng, "NonMaxSuppression", "GridSample", "RoiAlign", "MaxRoiPool", "MaxUnpool", "DeformConv")
    if op == "NonMaxSuppression":
        b, c, n = (int(v) for v in rng.integers(1, 4, 3))
        n *= 4
        corner = rng.random((b, n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.05, 0.6, (b, n, 2))], -1).astype(F)
        if flip(rng, 0.3):
            boxes = boxes[..., [2, 3, 0, 1]]
        extra: list[Any] = [
            np.array([pick(rng, 1, 3, 20)], np.int64),
            np.array([pick(rng, 0.1, 0.5)], F),
            np.array([pick(rng, 0.0, 0.3)], F),
        ]
        extra = extra[: int(rng.integers(1, 4))]
        return Sample(
            op,
            [boxes, rng.random((b, c, n)).astype(F), *extra],
            some(rng, center_point_box=int(flip(rng, 0.3))),
            pick(rng, 10, 11),
            free=(2, 3, 4),
        )
    if op == "GridSample":
        opset = pick(rng, 16, 20)
        modes = ("bilinear", "nearest", "bicubic") if opset == 16 else ("linear", "nearest", "cubic")
        x = values(rng, (2, 2, 4, 5))
        grid = rng.uniform(-1.3, 1.3, (2, 3, 4, 2)).astype(F)
        return Sample(
            op,
            [x, grid],
            some(
                rng,
                mode=pick(rng, *modes),
                padding_mode=pick(rng, "zeros", "border", "reflection"),
                align_corners=int(flip(rng)),
            ),
            opset,
            tolerance=2e-4,
        )
    if op == "RoiAlign":
        opset = pick(rng, 10, 16)
        rois = np.concatenate([rng.uniform(0, 4, (3, 2)), rng.uniform(4, 9, (3, 2))], 1).astype(F)
        a = some(
            rng,
            output_height=3,
            output_width=2,
            sampling_ratio=pick(rng, 0, 2),
            spatial_scale=pick(rng, 1.0, 0.5),
        )
        if opset == 16:
            a.update(some(rng, coordinate_transformation_mode=pick(rng, "half_pixel", "output_half_pixel")))
        return Sample(op, [values(rng, (2, 2, 8, 9)), rois, np.array([0, 1, 1], np.int64)], a, opset)
    if op == "MaxRoiPool":
        rois = np.concatenate(
            [[[0], [1], [1]], rng.integers(0, 4, (3, 2)), rng.integers(4, 8, (3, 2))], 1
        ).astype(F)
        return Sample(
            op,
            [values(rng, (2, 2, 8, 9)), rois],
            {"pooled_shape": [2, 3], **some(rng, spatial_scale=1.0)},
            11,
        )
    if op == "MaxUnpool":
        x = values(rng, (1, 1, 2, 3))
        ids = np.sort(rng.permutation(24)[:6]).reshape(1, 1, 2, 3).astype(np.int64)
        return Sample(op, [x, ids], {"kernel_shape": [2, 2], "strides": [2, 2]}, 11)
    kernel = [int(v) for v in rng.integers(1, 4, 2)]
    a = {}
    groups, off = pick(rng, 1, 2), pick(rng, 1, 2)
    a = some(
        rng,
        strides=[int(v) for v in rng.integers(1, 3, 2)],
        pads=[int(v) for v in rng.integers(0, 2, 4)],
        dilations=[int(v) for v in rng.integers(1, 3, 2)],
    )
    s, p, d = a.get("strides", [1, 1]), a.get("pads", [0] * 4), a.get("dilations", [1, 1])
    out = [(n + p[i] + p[i + 2] - d[i] * (kernel[i] - 1) - 1) // s[i] + 1 for i, n in enumerate((7, 8))]
    k = kernel[0] * kernel[1]
    a.update(group=groups, offset_group=off)
    inputs = [
        values(rng, (1, 4, 7, 8)),
        values(rng, (4, 4 // groups, *kernel)),
        values(rng, (1, 2 * k * off, *out), scale=0.7),
    ]
    inputs.append(values(rng, (4,)) if flip(rng) else None)
    inputs.append(rng.random((1, k * off, *out)).astype(F) if flip(rng) else None)
    return Sample(op, inputs, a, 19, free=(1, 3), tolerance=1e-4)


def signals(rng: Rng) -> Sample:
    op = pick(rng, "DFT", "STFT", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix")
    if op.endswith("Window"):
        return Sample(
            op,
            [np.array(int(rng.integers(2, 12)), np.int64)],
            some(rng, periodic=int(flip(rng)), output_datatype=1),
            17,
            free=(0,),
        )
    if op == "MelWeightMatrix":
        return Sample(
            op,
            [np.array(v, np.int64) for v in (8, 64, 16000)] + [np.array(v, F) for v in (0, 8000)],
            {},
            17,
            free=(0, 1, 2, 3, 4),
        )
    if op == "DFT":
        opset = pick(rng, 17, 20)
        shape = (int(rng.integers(1, 3)), int(rng.integers(1, 9)), int(rng.integers(1, 5)), pick(rng, 1, 2))
        a = some(rng, inverse=int(flip(rng)))
        length = np.array(int(rng.integers(1, 10)), np.int64) if flip(rng, 0.4) else None
        if shape[-1] == 1 and flip(rng) and not a.get("inverse"):
            a["onesided"] = 1
        axis = pick(rng, 1, 2, -2, -3)
        if opset == 17:
            return Sample(
                op, [values(rng, shape), length], {**a, "axis": axis % 4}, 17, free=(1,), tolerance=1e-4
            )
        return Sample(
            op,
            [values(rng, shape), length, np.array(axis, np.int64) if flip(rng) else None],
            a,
            20,
            free=(1, 2),
            tolerance=1e-4,
        )
    n = int(rng.integers(4, 9))
    x = values(rng, (2, 40, 1))
    window = np.abs(values(rng, (n,))) if flip(rng) else None
    length = np.array(n, np.int64) if window is None or flip(rng) else None
    return Sample(
        op,
        [x, np.array(int(rng.integers(1, 5)), np.int64), window, length],
        some(rng, onesided=int(flip(rng))),
        17,
        free=(1, 2, 3),
        tolerance=1e-4,
    )


def attention(rng: Rng) -> Sample:
    """Attention and RotaryEmbedding of ai.onnx."""
    b, h, kv, s, t, d = (
        int(rng.integers(1, 3)),
        4,
        pick(rng, 4, 2, 1),
        int(rng.integers(1, 5)),
        int(rng.integers(1, 6)),
        4,
    )
    if flip(rng, 0.3):
        x = values(rng, (b, s, h * d)) if flip(rng) else values(rng, (b, h, s, d))
        turned = pick(rng, 0, 2)
        half = (turned or d) // 2
        a = some(rng, interleaved=int(flip(rng)))
        if turned:
            a["rotary_embedding_dim"] = turned
        if x.ndim == 3:
            a["num_heads"] = h
        if flip(rng):
            return Sample(
                "RotaryEmbedding",
                [
                    x,
                    values(rng, (8, half)),
                    values(rng, (8, half)),
                    rng.integers(0, 8, (b, s)).astype(np.int64),
                ],
                a,
                23,
            )
        return Sample("RotaryEmbedding", [x, values(rng, (b, s, half)), values(rng, (b, s, half))], a, 23)
    flat = flip(rng)
    v_d = pick(rng, d, 3)

    def make(heads: int, length: int, size: int) -> np.ndarray:
        return values(rng, (b, length, heads * size) if flat else (b, heads, length, size), scale=1)

    a = some(rng, is_causal=int(flip(rng)), scale=pick(rng, 0.3, None), softcap=pick(rng, 2.0, None))
    if flat:
        a.update(q_num_heads=h, kv_num_heads=kv)
    past = int(rng.integers(1, 4)) if flip(rng, 0.4) else 0
    mask = None
    if flip(rng):
        shape = pick(rng, (s, t + past), (b, 1, s, t + past), (b, h, s, t + past), (1, 1, s, t + past))
        mask = values(rng, shape) if flip(rng) else rng.random(shape) < 0.7
        if mask.dtype == np.bool_:
            mask[..., 0] = True
    inputs = [make(h, s, d), make(kv, t, d), make(kv, t, v_d), mask]
    outputs = 1
    if past:
        inputs += [values(rng, (b, kv, past, d)), values(rng, (b, kv, past, v_d))]
        outputs = 3
    if flip(rng, 0.2):
        outputs = 4
        a.update(some(rng, qk_matmul_output_mode=pick(rng, 0, 1, 2, 3)))
    return Sample("Attention", inputs, a, pick(rng, 23, 24), outputs, tolerance=2e-4)


FAMILIES: dict[str, Callable[[Rng], Sample]] = {
    f.__name__: f
    for f in (
        unary,
        binary,
        cast,
        reductions,
        choices,
        convolutions,
        pools,
        norms,
        resizes,
        pads,
        slices,
        scatters,
        shapes,
        products,
        quantised,
        recurrent,
        detection,
        signals,
        attention,
    )
}
