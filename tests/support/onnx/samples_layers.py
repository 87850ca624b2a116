"""Random nodes that layers of networks are: windows, norms, recurrence, detection, attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.onnx.samples import F, Rng, Sample, dims, flip, pick, some, values


def window(rng: Rng, size: tuple[int, ...], kernel: list[int], pool: bool = False) -> dict[str, Any]:
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
    a = window(rng, size, kernel)
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
    a = {"kernel_shape": kernel, **window(rng, size, kernel, True)}
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
        if d == 2 and flip(rng, 0.3):
            a["activations"] = [*one[:-1], "Softsign", *one]
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


FAMILIES = {
    f.__name__: f
    for f in (
        convolutions,
        pools,
        norms,
        recurrent,
        detection,
        attention,
    )
}
