"""Random nodes of com.microsoft, a function for each family of operators: generator -> Sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.onnx.samples import F, Rng, Sample, dims, flip, pick, some, values

MS = "com.microsoft"


def _ms(op: str, inputs: list[Any], attributes: dict[str, Any], outputs: int = 1, **more: Any) -> Sample:
    return Sample(op, inputs, attributes, 17, outputs, domain=MS, **more)


def _scale(rng: Rng, shape: Any = ()) -> np.ndarray:
    return np.asarray(rng.uniform(0.01, 0.2, shape), F)


def ms_elementwise(rng: Rng) -> Sample:
    op = pick(
        rng,
        "Gelu",
        "FastGelu",
        "BiasGelu",
        "QuickGelu",
        "Trilu",
        "Pad",
        "Inverse",
        "CDist",
    )
    shape = dims(rng, 1, zeros=False)
    x = values(rng, shape)
    if op == "FastGelu":
        return _ms(op, [x, values(rng, shape[-1:]) if flip(rng) else None], {}, tolerance=2e-4, free=(1,))
    if op == "BiasGelu":
        return _ms(op, [x, values(rng, shape[-1:])], {}, free=(1,))
    if op == "QuickGelu":
        return _ms(op, [x], some(rng, alpha=1.3))
    if op == "Trilu":
        x = values(rng, dims(rng, 2, zeros=False))
        return _ms(
            op, [x, np.array(int(rng.integers(-2, 3)), np.int64)], some(rng, upper=int(flip(rng))), free=(1,)
        )
    if op == "Pad":
        mode = pick(rng, "constant", "edge", "reflect")
        size = [int(rng.integers(0, d)) for d in shape * 2]
        return _ms(
            op,
            [x, np.array(size, np.int64), np.array([2.5], F) if flip(rng) else None],
            some(rng, mode=mode),
            free=(1, 2),
        )
    if op == "Inverse":
        m = int(rng.integers(1, 5))
        return _ms(
            op,
            [values(rng, (*dims(rng, 0, 3, zeros=False), m, m)) + 4 * np.eye(m, dtype=F)],
            {},
            tolerance=1e-3,
        )
    if op == "CDist":
        k = int(rng.integers(1, 5))
        return _ms(
            op,
            [values(rng, (3, k)), values(rng, (4, k))],
            {"metric": pick(rng, "sqeuclidean", "euclidean")},
            tolerance=2e-4,
        )
    return _ms(op, [x, values(rng, shape), values(rng, shape)], {})
    return _ms(op, [x], {})


def ms_products(rng: Rng) -> Sample:
    op = pick(rng, "FusedMatMul", "TransposeMatMul", "FusedGemm", "FusedConv", "NhwcMaxPool")
    m, k, n = (int(v) for v in rng.integers(1, 6, 3))
    if op in ("FusedMatMul", "TransposeMatMul"):
        ta, tb = int(flip(rng)), int(flip(rng))
        batch = dims(rng, 0, 3, zeros=False)
        a, b = (k, m) if ta else (m, k), (n, k) if tb else (k, n)
        at = {"transA": ta, "transB": tb, **some(rng, alpha=0.5)}
        if op == "FusedMatMul" and len(batch) == 1 and flip(rng):
            at["transBatchA"] = at["transBatchB"] = 1
            a, b = (a[0], batch[0], a[1]), (b[0], batch[0], b[1])
        else:
            a, b = (*batch, *a), (*(batch if flip(rng) else ()), *b)
        return _ms(op, [values(rng, a), values(rng, b)], at, free=(1,), tolerance=1e-4)
    if op == "FusedGemm":
        ta, tb = int(flip(rng)), int(flip(rng))
        c = values(rng, pick(rng, (m, n), (n,), (1, n), (m, 1))) if flip(rng, 0.7) else None
        act = pick(
            rng,
            "Relu",
            "Sigmoid",
            "Tanh",
            "LeakyRelu",
            "HardSigmoid",
            "Elu",
            "Softsign",
            "Softplus",
            "ThresholdedRelu",
        )
        at = {"transA": ta, "transB": tb, "activation": act, **some(rng, alpha=0.5, beta=2.0)}
        if act in ("LeakyRelu", "Elu", "ThresholdedRelu"):
            at.update(activation_alpha=0.3)
        elif act == "HardSigmoid":
            at.update(activation_alpha=0.3, activation_beta=0.4)
        return _ms(
            op,
            [values(rng, (k, m) if ta else (m, k)), values(rng, (n, k) if tb else (k, n)), c],
            at,
            free=(1, 2),
            tolerance=1e-4,
        )
    if op == "NhwcMaxPool":
        x = values(rng, (1, 6, 7, 3), pick(rng, np.int8, np.uint8))
        return _ms(
            op,
            [x],
            {
                "kernel_shape": [2, 3],
                **some(rng, strides=[2, 1], pads=[1, 1, 0, 1], ceil_mode=int(flip(rng))),
            },
        )
    group = pick(rng, 1, 2)
    kernel = [int(v) for v in rng.integers(1, 4, 2)]
    act = pick(rng, "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid", None)
    at = {
        "group": group,
        **some(rng, strides=[2, 1], pads=[int(v) for v in rng.integers(0, 2, 4)], kernel_shape=kernel),
    }
    if act:
        at["activation"] = act
    params = {"LeakyRelu": [0.2], "Clip": [-1.0, 2.0], "HardSigmoid": [0.3, 0.4]}.get(act)
    if params:
        at["activation_params"] = params
    x, w = values(rng, (1, 2 * group, 6, 7)), values(rng, (3 * group, 2, *kernel))
    s, p = at.get("strides", [1, 1]), at.get("pads", [0] * 4)
    out = [(d + p[i] + p[i + 2] - kernel[i]) // s[i] + 1 for i, d in enumerate((6, 7))]
    z = values(rng, (1, 3 * group, *out)) if flip(rng, 0.3) else None
    return _ms(
        op,
        [x, w, values(rng, (3 * group,)) if flip(rng) or z is not None else None, z],
        at,
        free=(1, 2),
        tolerance=1e-4,
    )


def ms_norms(rng: Rng) -> Sample:
    op = pick(
        rng,
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "EmbedLayerNormalization",
        "QEmbedLayerNormalization",
        "SimplifiedLayerNormalization",
        "GatedRMSNorm",
    )
    b, s, h = (int(v) for v in rng.integers(1, 5, 3))
    h = 2 * h
    x = values(rng, (b, s, h))
    if op == "SimplifiedLayerNormalization":
        a = {"axis": pick(rng, -1, 2), **some(rng, epsilon=0.01)}
        return Sample(op, [x, values(rng, (h,))], a, 17, 1, free=(1,), tolerance=2e-4)
    if op == "GatedRMSNorm":
        return _ms(
            op,
            [x, values(rng, (h,)), values(rng, (b, s, h))],
            some(rng, epsilon=0.01, activation=pick(rng, "silu", "sigmoid")),
            tolerance=2e-4,
        )
    if "Skip" in op:
        skip = values(rng, pick(rng, (b, s, h), (b, s, h), (s, h), (1, s, h)))
        bias = values(rng, (h,)) if flip(rng) else None
        beta = [values(rng, (h,)) if flip(rng, 0.7) else None] if op == "SkipLayerNormalization" else []
        outputs = pick(rng, 1, 4)
        return _ms(
            op,
            [x, skip, values(rng, (h,)), *beta, bias],
            some(rng, epsilon=0.01),
            outputs,
            free=(2, 3, 4),
            tolerance=2e-4,
            unchecked=(1, 2),
        )
    ids = rng.integers(0, 7, (b, s)).astype(np.int32)
    seg = rng.integers(0, 2, (b, s)).astype(np.int32) if flip(rng, 0.7) else None
    mask = (rng.random((b, s)) < 0.7).astype(np.int32) if flip(rng) else None
    if op == "EmbedLayerNormalization":
        places = rng.integers(0, 6, pick(rng, (b, s), (1, s))).astype(np.int32) if flip(rng, 0.3) else None
        inputs = [
            ids,
            seg,
            values(rng, (7, h)),
            values(rng, (6, h)),
            values(rng, (2, h)) if seg is not None else None,
            values(rng, (h,)),
            values(rng, (h,)),
            mask,
            places,
        ]
        return _ms(
            op,
            inputs,
            some(rng, epsilon=0.01, mask_index_type=pick(rng, 0, 1)),
            pick(rng, 1, 2, 3),
            free=(2, 3, 4, 5, 6),
            tolerance=2e-4,
        )
    kind = pick(rng, np.uint8, np.int8)

    def q(*shape: int) -> np.ndarray:
        return values(rng, shape, kind)

    inputs = [ids, seg, q(7, h), q(6, h), q(2, h) if seg is not None else None, q(h), q(h), mask]
    has = seg is not None
    inputs += [_scale(rng), _scale(rng), _scale(rng) if has else None, _scale(rng), _scale(rng)]
    inputs += [q(), q(), q() if has else None, q(), q()]
    return _ms(
        op,
        [np.asarray(v) if v is not None else None for v in inputs],
        some(rng, epsilon=0.01),
        2,
        tolerance=2e-4,
    )


def ms_quantised(rng: Rng) -> Sample:
    op = pick(
        rng,
        "QLinearAdd",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearLeakyRelu",
        "QLinearSoftmax",
        "QLinearGlobalAveragePool",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearWhere",
        "QGemm",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QuantizeLinear",
        "DequantizeLinear",
        "QLinearConv",
    )
    kind: Any = pick(rng, np.uint8, np.int8)
    shape = dims(rng, 1, zeros=False)

    def q(*size: int, of: Any = None) -> np.ndarray:
        return np.asarray(values(rng, size, of or kind))

    def zero() -> Any:
        return q() if flip(rng, 0.8) else None

    x = q(*shape)
    m, k, n = (int(v) for v in rng.integers(1, 6, 3))
    if op in ("QLinearAdd", "QLinearMul"):
        other = q(*[d if flip(rng, 0.7) else 1 for d in shape])
        return _ms(
            op,
            [x, _scale(rng), zero(), other, _scale(rng), zero(), _scale(rng), zero()],
            {},
            steps=1,
            free=(1, 2, 3, 4, 5, 6, 7),
        )
    if op in ("QLinearSigmoid", "QLinearLeakyRelu"):
        a = some(rng, alpha=0.3) if op == "QLinearLeakyRelu" else {}
        return _ms(op, [x, _scale(rng), zero(), _scale(rng), q()], a, steps=1, constants=(1, 2, 3, 4))
    if op == "QLinearSoftmax":
        a = {"opset": pick(rng, 11, 13), **some(rng, axis=int(rng.integers(-len(shape), len(shape))))}
        return _ms(
            op,
            [
                x,
                _scale(rng),
                zero(),
                F(1 / 255).reshape(()),
                np.asarray(0 if kind == np.uint8 else -128, kind),
            ],
            a,
            steps=1,
            constants=(1, 2, 3, 4),
        )
    if op == "QLinearGlobalAveragePool":
        last = int(flip(rng))
        x = q(2, 4, 5, 3)
        return _ms(
            op,
            [x, _scale(rng), q(), _scale(rng), q()],
            some(rng, channels_last=last),
            steps=1,
            free=(1, 2, 3, 4),
        )
    if op == "QLinearAveragePool":
        last = int(flip(rng))
        x = q(1, 6, 7, 3) if last else q(1, 3, 6, 7)
        a = {
            "kernel_shape": [2, 3],
            **some(
                rng,
                strides=[2, 1],
                pads=[1, 1, 0, 1],
                count_include_pad=int(flip(rng)),
                ceil_mode=int(flip(rng)),
            ),
        }
        if last:
            a["channels_last"] = 1
        return _ms(op, [x, _scale(rng), zero(), _scale(rng), zero()], a, steps=1, constants=(1, 2, 3, 4))
    if op == "QLinearConcat":
        axis = int(rng.integers(-len(shape), len(shape)))
        parts: list[Any] = [_scale(rng), q()]
        for _ in range(int(rng.integers(1, 4))):
            size = list(shape)
            size[axis] = int(rng.integers(1, 4))
            parts += [q(*size), _scale(rng), q()]
        return _ms(op, parts, {"axis": axis}, steps=1, constants=(0, 1, 3, 4, 6, 7, 9, 10))
    if op == "QLinearWhere":
        inputs = [rng.random(shape) < 0.5, x, _scale(rng), q(), q(*shape), _scale(rng), q(), _scale(rng), q()]
        return _ms(op, inputs, {}, steps=1, constants=(2, 3, 5, 6, 7, 8))
    if op == "QGemm":
        ta, tb = int(flip(rng)), int(flip(rng))
        per = flip(rng)
        other: Any = pick(rng, np.int8, kind)
        inputs = [
            q(*((k, m) if ta else (m, k))),
            _scale(rng),
            q(),
            q(*((n, k) if tb else (k, n)), of=other),
            _scale(rng, (n,) if per else ()),
            q(*((n,) if per else ()), of=other),
            q(*pick(rng, (n,), (1, n), (m, n)), of=np.int32) if flip(rng) else None,
        ]
        if flip(rng):
            inputs += [_scale(rng) * 4, q()]
        return _ms(
            op,
            inputs,
            {"transA": ta, "transB": tb, **some(rng, alpha=0.5)},
            steps=1,
            constants=(1, 2, 4, 5, 7, 8),
            free=(3, 6),
            tolerance=1e-4,
        )
    if op == "MatMulIntegerToFloat":
        other = pick(rng, np.int8, kind)
        per = flip(rng)
        inputs = [
            q(m, k),
            q(k, n, of=other),
            _scale(rng),
            _scale(rng, (n,) if per else ()),
            q() if flip(rng) else None,
            q(*((n,) if per else ()), of=other) if flip(rng) else None,
            values(rng, (n,)) if flip(rng) else None,
        ]
        return _ms(op, inputs, {}, free=(1, 2, 3, 4, 5, 6), tolerance=1e-4)
    if op == "DynamicQuantizeMatMul":
        per = flip(rng)
        other = pick(rng, np.int8, np.uint8)
        inputs = [
            values(rng, (m, k)),
            q(k, n, of=other),
            _scale(rng, (n,) if per else ()),
            q(*((n,) if per else ()), of=other) if flip(rng) else None,
            values(rng, (n,)) if flip(rng) else None,
        ]
        return _ms(op, inputs, {}, free=(1, 2, 3, 4), tolerance=1e-4)
    if op in ("QuantizeLinear", "DequantizeLinear"):
        kind = pick(rng, np.uint8, np.int8, np.int16, np.uint16)
        axis = int(rng.integers(0, len(shape)))
        size: tuple[int, ...] = (shape[axis],) if flip(rng) else ()
        a = {"axis": axis} if size else {}
        s, z = _scale(rng, size), q(*size, of=kind)
        return _ms(
            op,
            [values(rng, shape) if op == "QuantizeLinear" else q(*shape, of=kind), s, z],
            a,
            steps=1,
            free=(1, 2),
        )
    kernel = [int(v) for v in rng.integers(1, 4, 2)]
    group = pick(rng, 1, 2)
    w = q(3 * group, 2, *kernel, of=pick(rng, kind, np.int8))
    per = flip(rng)
    last = int(flip(rng))
    x = q(1, 6, 7, 2 * group) if last else q(1, 2 * group, 6, 7)
    wz = np.zeros((3 * group,) if per else (), w.dtype) if w.dtype == np.int8 else q(of=w.dtype)
    inputs = [x, _scale(rng), q(), w, _scale(rng, (3 * group,) if per else ()), wz, _scale(rng) * 4, q()]
    inputs.append(q(3 * group, of=np.int32) if flip(rng) else None)
    a = {
        "group": group,
        **some(rng, strides=[2, 1], pads=[int(v) for v in rng.integers(0, 2, 4)], channels_last=last),
    }
    if last:
        a["channels_last"] = 1
    return _ms(op, inputs, a, steps=1, constants=(1, 2, 3, 4, 5, 6, 7, 8))


def ms_blocks(rng: Rng) -> Sample:
    """Weights in blocks of few bits."""
    op = pick(rng, "MatMulNBits", "MatMulNBits", "GatherBlockQuantized", "MatMulBnb4")
    n, block = int(rng.integers(1, 7)), pick(rng, 16, 32)
    k = pick(rng, block, 2 * block, block + 8, 3 * block)
    if op == "MatMulNBits":
        bits = pick(rng, 4, 4, 8, 2)
        blocks = -(-k // block)
        packed = rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
        scales = values(rng, (n * blocks,) if flip(rng) else (n, blocks), scale=0.1)
        zero = None
        if flip(rng):
            per = -(-blocks * bits // 8)
            zero = rng.integers(0, 256, (n * per,) if scales.ndim == 1 else (n, per)).astype(np.uint8)
            if flip(rng, 0.3):
                zero = rng.uniform(0, 15, scales.shape).astype(F)
        bias = values(rng, (n,)) if flip(rng, 0.3) else None
        order = (
            np.sort(rng.integers(0, blocks, k)).astype(np.int32)
            if flip(rng, 0.1) and bits == 4 and k == blocks * block
            else None
        )
        a = {"N": n, "K": k, "bits": bits, "block_size": block, **some(rng, accuracy_level=pick(rng, 0, 1))}
        return _ms(
            op,
            [values(rng, (*dims(rng, 1, 3, zeros=False), k)), packed, scales, zero, order, bias],
            a,
            constants=(1, 2, 3, 4, 5),
            tolerance=1e-3,
        )
    if op == "MatMulBnb4":
        packed = rng.integers(0, 256, (n * k + 1) // 2).astype(np.uint8)
        absmax = np.abs(values(rng, (-(-n * k // block),)))
        a = {"N": n, "K": k, "block_size": block, "quant_type": pick(rng, 0, 1)}
        return _ms(op, [values(rng, (3, k)), packed, absmax], a, constants=(1, 2), tolerance=1e-3)
    bits = pick(rng, 4, 8)
    rows = 5
    data = rng.integers(0, 256, (rows, k * bits // 8)).astype(np.uint8)
    blocks = -(-k // block)
    scales = values(rng, (rows, blocks))
    zero = rng.integers(0, 256, (rows, -(-blocks * bits // 8))).astype(np.uint8) if flip(rng) else None
    ids = rng.integers(0, rows, dims(rng, 1, 3, zeros=False)).astype(np.int64)
    a = {"gather_axis": 0, "quantize_axis": 1, "block_size": block, "bits": bits}
    return _ms(op, [data, ids, scales, zero], a, constants=(0, 2, 3), tolerance=1e-4)


def ms_attention(rng: Rng) -> Sample:
    op = pick(rng, "Attention", "Attention", "MultiHeadAttention", "MultiHeadAttention", "QAttention")
    b, s, heads, size = int(rng.integers(1, 3)), int(rng.integers(1, 5)), pick(rng, 1, 2, 4), pick(rng, 2, 4)
    h = heads * size
    a: dict[str, Any] = {
        "num_heads": heads,
        **some(rng, unidirectional=int(flip(rng, 0.3)), scale=pick(rng, 0.3, None)),
    }
    if op in ("Attention", "QAttention"):
        past = int(rng.integers(1, 4)) if flip(rng, 0.3) else 0
        total = s + past
        mask = None
        if flip(rng):
            mask = pick(rng, *(["raw", "raw3"] if past else ["raw", "raw3", "end", "ends"]))
            mask = {
                "raw": lambda: (rng.random((b, total)) < 0.7).astype(np.int32),
                "raw3": lambda: (rng.random((b, s, total)) < 0.7).astype(np.int32),
                "end": lambda: rng.integers(1, s + 1, b).astype(np.int32),
                "ends": lambda: np.concatenate([rng.integers(1, s + 1, b), np.zeros(b)]).astype(np.int32),
            }[mask]()
            if mask.ndim > 1:
                mask[..., 0] = 1
        state = values(rng, (2, b, heads, past, size)) if past else None
        outputs = 2 if past or flip(rng, 0.3) else 1
        if op == "QAttention":
            kind: Any = pick(rng, np.uint8, np.int8)
            wkind: Any = pick(rng, np.uint8, np.int8)
            inputs = [
                values(rng, (b, s, 6), kind),
                values(rng, (6, 3 * h), wkind),
                values(rng, (3 * h,)),
                _scale(rng),
                _scale(rng),
                mask,
                values(rng, (), kind) if flip(rng) else None,
                values(rng, (), wkind) if flip(rng) else None,
                state,
            ]
            a.pop("scale", None)
            return _ms(
                op,
                [None if v is None else np.asarray(v) for v in inputs],
                a,
                outputs,
                constants=(1, 2, 3, 4, 6, 7),
                tolerance=1e-3,
            )
        vs = size
        if flip(rng, 0.2) and not past:
            vs = size + 1
            a["qkv_hidden_sizes"] = [h, h, heads * vs]
            outputs = 1
        wide = 2 * h + heads * vs
        bias = values(rng, (wide,))  # ONNX Runtime 1.31 ends the process without
        extra = values(rng, (pick(rng, 1, b), pick(rng, 1, heads), s, total)) if flip(rng, 0.3) else None
        if flip(rng, 0.2):
            a["mask_filter_value"] = -5000.0
        return _ms(
            op,
            [values(rng, (b, s, 6)), values(rng, (6, wide)), bias, mask, state, extra],
            a,
            outputs,
            free=(1, 2),
            tolerance=1e-3,
        )
    t = s if flip(rng) else int(rng.integers(1, 6))
    how = pick(rng, "plain", "plain", "plain", "cross", "kv", "qkv", "past")
    vs = size if how != "plain" or flip(rng) else size + 1
    past = 0
    q: Any = values(rng, (b, s, h), scale=1)
    k: Any = values(rng, (b, t, h), scale=1)
    v: Any = values(rng, (b, t, heads * vs), scale=1)
    pk = pv = None
    if how == "cross":
        k, v = values(rng, (b, heads, t, size)), values(rng, (b, heads, t, size))
    elif how == "kv":
        k, v = values(rng, (b, t, heads, 2, size)), None
    elif how == "qkv":
        q, k, v, t = values(rng, (b, s, heads, 3, size)), None, None, s
    elif how == "past":
        past = int(rng.integers(1, 4))
        pk, pv = values(rng, (b, heads, past, size)), values(rng, (b, heads, past, size))
    total = t + past
    if t != s:  # ONNX Runtime hides nothing from the last row then
        a.pop("unidirectional", None)
    bias = values(rng, (2 * h + heads * vs,)) if flip(rng) and how in ("plain", "past", "cross") else None
    mask = None
    if flip(rng, 0.4):
        shape = pick(rng, (b,), (b, total), (b, s, total))
        mask = (
            rng.integers(1, total + 1, b).astype(np.int32)
            if shape == (b,)
            else (rng.random(shape) < 0.7).astype(np.int32)
        )
        if mask.ndim > 1:
            mask[..., 0] = 1
    extra = values(rng, (pick(rng, 1, b), pick(rng, 1, heads), s, total)) if flip(rng, 0.3) else None
    outputs = 3 if how == "past" or (how == "plain" and flip(rng, 0.3)) else 1
    return _ms(op, [q, k, v, bias, mask, extra, pk, pv], a, outputs, free=(3,), tolerance=1e-3)


def ms_decoders(rng: Rng) -> Sample:
    op = pick(
        rng,
        "GroupQueryAttention",
        "GroupQueryAttention",
        "RotaryEmbedding",
        "DecoderMaskedMultiHeadAttention",
        "MRotaryEmbedding",
    )
    b, heads, size = int(rng.integers(1, 3)), 4, 16
    if op == "DecoderMaskedMultiHeadAttention":
        past = int(rng.integers(1, 4))
        h = heads * size
        q = values(rng, (b, 1, h))
        if flip(rng):
            k = v = values(rng, (b, heads, past, size))
            return _ms(op, [q, k, v], {"num_heads": heads}, 1, tolerance=1e-3)
        inputs = [
            q,
            values(rng, (b, 1, h)),
            values(rng, (b, 1, h)),
            None,
            None,
            values(rng, (b, heads, past, size)),
            values(rng, (b, heads, past, size)),
        ]
        return _ms(op, inputs, {"num_heads": heads}, 3, tolerance=1e-3)
    turned = pick(rng, size, size, 8)
    angles = np.outer(np.arange(16), 1 / 10 ** (np.arange(turned // 2) / 8))
    cos, sin = np.cos(angles).astype(F), np.sin(angles).astype(F)
    if op == "MRotaryEmbedding":
        s = int(rng.integers(1, 5))
        ids = rng.integers(0, 16, (3, b, s)).astype(np.int64)
        angles = np.outer(np.arange(16), 1 / 10 ** (np.arange(8) / 8))
        cos, sin = np.cos(angles).astype(F), np.sin(angles).astype(F)
        return _ms(
            op,
            [values(rng, (b, heads, s, size)), ids, cos, sin],
            {
                "mrope_section": [2, 3, 3],
                **some(rng, interleaved=int(flip(rng)), mrope_layout=int(flip(rng))),
            },
            tolerance=1e-4,
        )
    if op == "RotaryEmbedding":
        s = int(rng.integers(1, 5))
        flat = flip(rng)
        x = values(rng, (b, s, heads * size) if flat else (b, heads, s, size))
        ids = (
            np.array([int(rng.integers(0, 8))], np.int64)
            if flip(rng)
            else rng.integers(0, 16, (b, s)).astype(np.int64)
        )
        a = some(rng, interleaved=int(flip(rng)), scale=1.0)
        if turned != size:
            a.update(num_heads=heads, rotary_embedding_dim=turned)
        elif flip(rng):
            a.update(num_heads=heads)
        return _ms(op, [x, ids, cos, sin], a, tolerance=1e-4, free=(2, 3))
    groups = pick(rng, 4, 2, 1)
    first = flip(rng)
    s = int(rng.integers(1, 6)) if first else 1
    past = 0 if first else int(rng.integers(1, 6))
    total = s + past
    packed = flip(rng, 0.4)
    q = values(rng, (b, s, (heads + 2 * groups) * size if packed else heads * size), scale=1)
    k, v = (None, None) if packed else (values(rng, (b, s, groups * size), scale=1) for _ in range(2))
    buffer = past
    pk, pv = (
        (values(rng, (b, groups, buffer, size)) for _ in range(2)) if not first or flip(rng) else (None, None)
    )
    lengths = np.full(b, total - 1, np.int32)
    if first and b > 1 and flip(rng):
        lengths[0] = int(rng.integers(0, total))
    a = {
        "num_heads": heads,
        "kv_num_heads": groups,
        **some(
            rng,
            scale=pick(rng, 0.2, None),
            softcap=pick(rng, 5.0, None),
            local_window_size=pick(rng, None, 2, 3),
            smooth_softmax=pick(rng, None, None, 1),
        ),
    }
    if lengths.min() + 1 < total:  # rows of padding see nothing in a window
        a.pop("local_window_size", None)
    rotary = flip(rng)
    if rotary:
        a.update(do_rotary=1, **some(rng, rotary_interleaved=int(flip(rng))))
    ids = None
    if rotary and flip(rng, 0.3):
        ids = np.broadcast_to(np.arange(past, total), (b, s)).astype(np.int64)
    extra = values(rng, (pick(rng, 1, b), pick(rng, 1, heads), s, total)) if flip(rng, 0.2) else None
    sink = values(rng, (heads,)) if flip(rng, 0.15) else None
    inputs = [
        q,
        k,
        v,
        pk,
        pv,
        lengths,
        np.array(total, np.int32),
        cos if rotary else None,
        sin if rotary else None,
        ids,
        extra,
        sink,
    ]
    outputs = 3
    if flip(rng, 0.2) and lengths.min() + 1 == total:  # scores of filling are what was in memory there
        outputs, a["qk_output"] = 4, pick(rng, 1, 2)
    elif flip(rng, 0.25):  # a quantised cache
        bits, by_channel = pick(rng, 4, 8), flip(rng)
        kind: Any = np.int8 if bits == 8 else np.uint8
        shape = (b, groups, past, size * bits // 8)
        least, end = (-128, 128) if bits == 8 else (0, 256)
        inputs[3:5] = (rng.integers(least, end, shape).astype(kind) for _ in range(2))
        inputs += [_scale(rng, (1, groups, 1, size) if by_channel else (1,)) for _ in range(2)]
        name = "PER_CHANNEL" if by_channel else "PER_TENSOR"
        a.update(kv_cache_bit_width=bits, k_quant_type=name, v_quant_type=name)
    return _ms(op, inputs, a, outputs, tolerance=1e-3, free=(7, 8))


def ms_layers(rng: Rng) -> Sample:
    op = pick(
        rng,
        "ConvTransposeWithDynamicPads",
        "GridSample",
        "GatherND",
        "Range",
        "MoE",
        "CausalConvWithState",
        "DynamicQuantizeLSTM",
    )
    if op == "DynamicQuantizeLSTM":
        t, b, i, h = (int(v) for v in rng.integers(1, 5, 4))
        d = pick(rng, 1, 2)
        kind: Any = pick(rng, np.int8, np.uint8)
        per = flip(rng)
        size = (d, 4 * h) if per else (d,)
        zeros = np.zeros(size, kind)
        inputs = [
            values(rng, (t, b, i)),
            values(rng, (d, i, 4 * h), kind),
            values(rng, (d, h, 4 * h), kind),
            values(rng, (d, 8 * h)) if flip(rng) else None,
            None,
            None,
            None,
            None,
            _scale(rng, size) / 8,
            zeros,
            _scale(rng, size) / 8,
            zeros,
        ]
        return _ms(
            op,
            inputs,
            {"hidden_size": h, "direction": "forward" if d == 1 else "bidirectional"},
            3,
            constants=(1, 2, 3, 8, 9, 10, 11),
            tolerance=0.05,
        )
    if op == "ConvTransposeWithDynamicPads":
        return _ms(
            op,
            [
                values(rng, (1, 2, 4, 5)),
                values(rng, (2, 3, 3, 2)),
                rng.integers(0, 2, 4).astype(np.int64),
                values(rng, (3,)) if flip(rng) else None,
            ],
            some(rng, strides=[2, 1]),
            free=(1, 2, 3),
            tolerance=1e-4,
        )
    if op == "GridSample":
        return _ms(
            op,
            [values(rng, (2, 2, 4, 5)), rng.uniform(-1.3, 1.3, (2, 3, 4, 2)).astype(F)],
            some(
                rng,
                mode=pick(rng, "bilinear", "nearest", "bicubic"),
                padding_mode=pick(rng, "zeros", "border", "reflection"),
                align_corners=int(flip(rng)),
            ),
            tolerance=2e-4,
        )
    if op == "GatherND":
        return _ms(op, [values(rng, (3, 4, 2)), rng.integers(0, 3, (2, 3, 2)).astype(np.int64)], {})
    if op == "Range":
        return _ms(op, [np.array(v, np.int64) for v in pick(rng, (0, 7, 2), (5, -4, -2))], {}, free=(0, 1, 2))
    if op == "MoE":
        rows, h, inter, experts = int(rng.integers(1, 5)), 4, 6, 3
        a = {
            "k": pick(rng, 1, 2),
            "activation_type": pick(rng, "relu", "gelu", "silu", "identity"),
            **some(rng, normalize_routing_weights=int(flip(rng))),
        }
        inputs = [
            values(rng, (rows, h)),
            values(rng, (rows, experts)),
            values(rng, (experts, inter, h)),
            values(rng, (experts, inter)) if flip(rng) else None,
            values(rng, (experts, h, inter)),
            values(rng, (experts, h)) if flip(rng) else None,
        ]
        return _ms(op, inputs, a, tolerance=1e-3)
    c, k = 3, int(rng.integers(2, 5))
    inputs = [
        values(rng, (2, c, 5)),
        values(rng, (c, 1, k)),
        values(rng, (c,)) if flip(rng) else None,
        values(rng, (2, c, k - 1)) if flip(rng) else None,
    ]
    return _ms(op, inputs, some(rng, activation=pick(rng, "silu", "none")), 2, free=(1, 2), tolerance=1e-4)


FAMILIES: dict[str, Callable[[Rng], Sample]] = {
    f.__name__: f
    for f in (
        ms_elementwise,
        ms_products,
        ms_norms,
        ms_quantised,
        ms_blocks,
        ms_attention,
        ms_decoders,
        ms_layers,
    )
}
