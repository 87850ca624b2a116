"""Random nodes that resize, pad, cut, gather, scatter, reshape and split texts, and transforms of signals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.support.onnx.samples import F, Rng, Sample, dims, flip, pick, some, values


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


#: What patterns and the texts for them are made of.
LETTERS = list("abkKs1_ .-\nſ\u212aé€😀")
ATOMS = [".", *("\\" + c for c in "dwsDWSbBAz.-"), "\\pL", "\\PN", "\\p{Lu}", "\\P{^L}", "^", "$",
         "\\Qa.\\E", "\\x41", "\\x{e9}", "\\101", "\\n", "\\C"]  # fmt: skip
MEMBERS = ["a-k", "é-€", "0-9", "\\d", "\\W", "[:alpha:]", "[:^space:]", "_", "😀", ".", "\\n", "k"]


def pattern(rng: Rng, depth: int = 2) -> str:
    """An expression in RE2's syntax."""
    ways = []
    for _ in range(1 + flip(rng)):
        parts = []
        for _ in range(int(rng.integers(1, 4))):
            kind = rng.random()
            if depth and kind < 0.25:
                opening = pick(rng, "(", "(?:", "(?i:", "(?s:", "(?m:", "(?-i:", "(?i)(")
                part = f"{opening}{pattern(rng, depth - 1)})"
            elif kind < 0.4:
                part = pick(rng, *ATOMS)
            elif kind < 0.6:
                part = (
                    f"[{pick(rng, '', '^')}{''.join(pick(rng, *MEMBERS) for _ in range(rng.integers(1, 4)))}]"
                )
            else:
                part = pick(rng, *LETTERS)
                part = f"\\{part}" if part in ".-" else part
            parts.append(part + pick(rng, "", "", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?"))
        ways.append("".join(parts))
    return "|".join(ways)


def texts(rng: Rng) -> Sample:
    if flip(rng):
        words = ["".join(rng.choice(LETTERS, int(rng.integers(0, 6)))) for _ in range(50)]
        x = np.array(words, object).reshape(pick(rng, (50,), (5, 10)))
        return Sample("RegexFullMatch", [x], {"pattern": pattern(rng)}, 20)
    shape = dims(rng, 1, 3, zeros=False)
    words = ["".join(rng.choice(list("ab, é"), int(rng.integers(1, 12)))) for _ in range(math.prod(shape))]
    x = np.array(words, object).reshape(shape)
    mark = pick(rng, "", ",", ", ", "aa", "aba", "é")
    attributes = some(rng, delimiter=mark, maxsplit=int(rng.integers(1, 4)))
    return Sample("StringSplit", [x], attributes, 20, 2)


FAMILIES = {
    f.__name__: f
    for f in (
        resizes,
        pads,
        slices,
        scatters,
        shapes,
        signals,
        texts,
    )
}
