"""Random windows, resizing, norms and products of OpenVINO's opsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino.opset8 as o8
import openvino.opset12 as o12
import openvino.opset13 as o13
import openvino.opset16 as o16

from tests.support.onnx.samples import F, Rng, dims, flip, pick, spread, values
from tests.support.opsets.opset_samples import Inputs


def windows(rng: Rng, i: Inputs) -> Any:
    n = pick(rng, 1, 2, 2, 3)
    size = [int(v) for v in rng.integers(5, 10, n)]
    k = [int(v) for v in rng.integers(1, 4, n)]
    s = [int(v) for v in rng.integers(1, 4, n)]
    d = [int(v) for v in rng.integers(1, 3, n)]
    pb, pe = ([int(rng.integers(0, v)) for v in k] for _ in range(2))
    auto = pick(rng, "explicit", "explicit", "valid", "same_upper", "same_lower")
    c, out, g = int(rng.integers(1, 4)), int(rng.integers(1, 4)), pick(rng, 1, 2)
    op = pick(rng, "conv", "group", "back", "groupback", "avg", "max", "avg16")
    if auto.startswith("same"):
        s = [min(a, b) for a, b in zip(s, k, strict=True)]
    if op == "conv":
        return o13.convolution(i.real(1, c, *size), i(values(rng, (out, c, *k))), s, pb, pe, d, auto)
    if op == "group":
        w = i(values(rng, (g, out, c, *k)), True)
        return o13.group_convolution(i.real(1, c * g, *size), w, s, pb, pe, d, auto)
    if op in ("back", "groupback"):
        extra = [int(rng.integers(0, v)) for v in s]
        shape = None
        if auto != "explicit" or flip(rng, 0.2):
            shape = i.const([(a - 1) * b + e for a, b, e in zip(size, s, k, strict=True)], np.int64)
        if op == "back":
            x, w = i.real(1, c, *size), i(values(rng, (c, out, *k)), True)
            return o13.convolution_backprop_data(x, w, s, shape, pb, pe, d, auto, extra)
        x, w = i.real(1, c * g, *size), i(values(rng, (g, c, out, *k)), True)
        return o13.group_convolution_backprop_data(x, w, s, shape, pb, pe, d, auto, extra)
    # with "ceil" the CPU device gives NaN or the lowest number for windows behind the image
    rounding = pick(rng, "floor", "ceil_torch")
    if op == "max":
        return openvino.opset14.max_pool(i.real(1, c, *size), s, d, pb, pe, k, rounding, auto, "i64", 0)
    # rounded up, the CPU device divides by elements behind the padding
    exclude = flip(rng) or rounding != "floor"
    if op == "avg":
        return openvino.opset14.avg_pool(i.real(1, c, *size), s, pb, pe, k, exclude, rounding, auto)
    return o16.avg_pool(i.real(1, c, *size), s, d, pb, pe, k, exclude, rounding, auto)


def resizing(rng: Rng, i: Inputs) -> Any:
    n = pick(rng, 1, 2, 2, 3)
    shape = [1, int(rng.integers(1, 3)), *(int(v) for v in rng.integers(2, 7, n))]
    mode = pick(rng, "nearest", "linear", "linear_onnx", "cubic", "bilinear_pillow", "bicubic_pillow")
    axes = list(range(2, 2 + n))
    if mode.endswith("pillow") and n != 2:
        mode = "linear"
    if mode == "linear_onnx" and n == 1:
        mode = "nearest"
    by = pick(rng, "sizes", "scales")
    target = (
        i.const([int(v) for v in rng.integers(1, 12, n)], np.int64)
        if by == "sizes"
        else i.const([pick(rng, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0) for _ in range(n)], F)
    )
    pads = (
        [int(v) for v in rng.integers(0, 2, 2 + n)] if flip(rng, 0.2) and not mode.endswith("pillow") else [0]
    )
    return openvino.opset11.interpolate(
        i.real(*shape),
        target,
        mode,
        by,
        pads,
        pads,
        pick(rng, "half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "align_corners"),
        pick(rng, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple"),
        False,
        pick(rng, -0.75, -0.5),
        i.const(axes, np.int64),
    )


def norms(rng: Rng, i: Inputs) -> Any:
    shape = (2, 2 * int(rng.integers(1, 3)), *dims(rng, 0, 3, zeros=False))
    rank = len(shape)
    axes = [int(a) for a in np.sort(rng.permutation(rank)[: int(rng.integers(1, rank + 1))])]
    op = pick(
        rng, "l2", "mvn", "grn", "lrn", "bn", "group", "softmax", "log", "reduce", "reduce", "fq", "logical"
    )
    x = i.real(*shape) if op not in ("fq", "grn", "lrn", "group", "reduce", "logical") else None
    if op == "l2":
        return o13.normalize_l2(x, i.const(axes, np.int64), pick(rng, 1e-3, 0.5), pick(rng, "add", "max"))
    if op == "mvn":
        return o13.mvn(
            x,
            i.const(axes, np.int64),
            flip(rng),
            pick(rng, 1e-3, 0.1),
            pick(rng, "inside_sqrt", "outside_sqrt"),
        )
    if op == "grn":
        return o13.grn(i.real(2, 3, 4, 5), 0.1)
    if op == "lrn":
        return o13.lrn(i.real(2, 5, 3, 4), i.const([1], np.int64), 0.1, 0.5, 2.0, pick(rng, 1, 3, 5))
    c = shape[1]
    if op == "bn":
        stats = [i(values(rng, (c,))) for _ in range(3)]
        return o13.batch_norm_inference(x, *stats, i(np.abs(values(rng, (c,))) + F(0.1)), 0.01)
    if op == "group":
        return o12.group_normalization(
            i.real(2, c, 3, 2), i(values(rng, (c,))), i(values(rng, (c,))), pick(rng, 1, 2, c), 0.01
        )
    if op == "softmax":
        return o8.softmax(x, int(rng.integers(-rank, rank)))
    if op == "log":
        return o13.log_softmax(x, int(rng.integers(-rank, rank)))
    if op == "logical":
        kind = pick(rng, "reduce_logical_and", "reduce_logical_or")
        return getattr(o13, kind)(i(values(rng, shape, np.bool_), False), i.const(axes, np.int64), flip(rng))
    if op == "reduce":
        kind = pick(rng, "sum", "mean", "max", "min", "prod", "l1", "l2")
        return getattr(o13, f"reduce_{kind}")(
            i(values(rng, shape, pick(rng, F, np.int32) if kind in ("sum", "max", "min") else F), False),
            i(np.array(axes)),
            flip(rng),
        )
    i.opened = False  # the CPU device does not round where shapes are open
    x = i.real(*shape)
    low = values(rng, pick(rng, (), (1, c) + (1,) * (rank - 2)))
    wide = np.abs(values(rng, low.shape)) + F(0.5)
    return o13.fake_quantize(x, i(low), i(low + wide), i(low), i(low + wide * 2), pick(rng, 2, 16, 255, 256))


def products(rng: Rng, i: Inputs) -> Any:
    m, k, n = (int(v) for v in rng.integers(1, 6, 3))
    op = pick(rng, "matmul", "matmul", "einsum", "sdpa", "sdpa", "inverse", "eltwise", "eltwise")
    if op == "matmul":
        batch = dims(rng, 0, 3, zeros=False)
        ta, tb = flip(rng), flip(rng)
        a = (*spread(rng, batch), *((k, m) if ta else (m, k)))
        b = (*spread(rng, batch), *((n, k) if tb else (k, n)))
        a = (k,) if flip(rng, 0.15) else a
        b = (k,) if flip(rng, 0.15) else b
        return o13.matmul(i.real(*a), i(values(rng, b)), ta, tb)
    if op == "einsum":
        text = pick(
            rng,
            "ij,jk->ik",
            "bij,bkj->bik",
            "ij->ji",
            "ij->i",
            "ij,ij->",
            "i,j->ij",
            "abc,bd->acd",
            "ij,jk,kl->il",
            "...ij,...jk->...ik",
        )
        sizes = {c: int(rng.integers(1, 4)) for c in "abcdijkl"}
        terms = text.split("->")[0].split(",")
        extra = (2,)
        inputs = [
            i.real(*(extra if "..." in t else ()), *(sizes[c] for c in t.replace("...", ""))) for t in terms
        ]
        return o13.einsum(inputs, text)
    if op == "inverse":
        return openvino.opset14.inverse(i(values(rng, (2, k, k)) + 5 * np.eye(k, dtype=F), False), False)
    if op == "eltwise":
        name = pick(
            rng,
            "add",
            "subtract",
            "multiply",
            "divide",
            "power",
            "maximum",
            "minimum",
            "mod",
            "floor_mod",
            "squared_difference",
            "equal",
            "less",
            "greater_equal",
            "prelu",
        )
        dtype: Any = pick(rng, F, F, np.int32)
        shape = dims(rng, 1, zeros=False)
        x, y = values(rng, shape, dtype), values(rng, spread(rng, shape), dtype)
        if name in ("divide", "mod", "floor_mod"):
            y = np.where(y == 0, 3, y).astype(dtype)
            if dtype == np.int32:  # the CPU device cuts negative quotients off, against pythondiv
                x, y = np.abs(x), np.abs(y)
        if name == "power":
            x, y = np.abs(x), np.abs(y) % 4
        if name == "prelu":
            return o13.prelu(i.real(2, 3, 4), i(values(rng, pick(rng, (3,), (1,)))))
        return getattr(o13, name)(i(x, False), i(y, False), "NUMPY")
    b, h, s, t, d = 2, 2, m, n, pick(rng, 4, 8)
    q, key, v = (
        i.real(b, h, s, d, scale=1),
        i.real(b, h, t, d, scale=1),
        i.real(b, h, t, pick(rng, d, 3), scale=1),
    )
    causal = flip(rng, 0.3)
    if causal or flip(rng, 0.3):
        return o13.scaled_dot_product_attention(q, key, v, causal=causal)
    shape = pick(rng, (s, t), (b, 1, s, t), (b, h, s, t), (1, 1, 1, t), (t,))
    mask = values(rng, shape) if flip(rng) else rng.random(shape) < 0.7
    if mask.dtype == np.bool_:
        mask[..., 0] = True
    scale = i(np.array(0.3, F)) if flip(rng) else None
    return o13.scaled_dot_product_attention(q, key, v, i(mask, False), scale, causal=False)


FAMILIES = {f.__name__: f for f in (windows, resizing, norms, products)}
