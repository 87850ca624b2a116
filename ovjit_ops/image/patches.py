"""Patches of pictures, and pictures of patches: ExtractImagePatches, Col2Im, ReorgYolo."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Ints, TensorType, Word, op
from ovjit.graph.shapes import ANY, Interval, compatible, is_static
from ovjit.graph.symbolic import sym_int
from ovjit.graph.windows import AUTO_PADS, output_extents, pad_spatial, resolve_pads, taps, window_attributes
from ovjit.rewrite.writer import not_negative
from ovjit_ops.common.checks import check_type, dims
from ovjit_ops.common.dims import divide_dim
from ovjit_ops.common.values import length, shape_value
from ovjit_ops.elementwise.arithmetic import NUMBERS, cases
from ovjit_ops.image.cpu_columns import window_counts

MOST_TAPS = 64  # taps of a patch that is written out as slices


def _window(attrs: dict[str, Any]) -> dict[str, Any]:
    for name in ("sizes", "strides", "rates"):
        check(len(attrs[name]) == 2, f"{name} {list(attrs[name])} should have 2 entries")
        check(min(attrs[name]) > 0, f"{name} {list(attrs[name])} should be positive")
    pad = attrs["auto_pad"]
    check(pad != "explicit", "auto_pad should be valid, same_upper or same_lower")
    return {
        "auto_pad": pad,
        "kernel": attrs["sizes"],
        "strides": attrs["strides"],
        "dilations": attrs["rates"],
        "pads_begin": (0, 0),
        "pads_end": (0, 0),
    }


@op("ExtractImagePatches", opset=3, types=NUMBERS, words={"auto_pad": AUTO_PADS})
class ExtractImagePatches:
    """Patches of a picture [N, C, H, W], each as a column of channels [N, sizes * C, OH, OW]."""

    def infer(image, *, sizes: Ints, strides: Ints, rates: Ints, auto_pad: Word):
        window = _window(locals())
        n, c, *extents = dims(image, 4, "the picture")
        return TensorType(image.dtype, (n, c * math.prod(sizes), *output_extents(extents=extents, **window)))

    def ref(image, **attrs):
        window = _window(attrs)
        outputs = output_extents(extents=image.shape[2:], **window)
        assert is_static(outputs)
        begin, _ = resolve_pads(extents=image.shape[2:], **window)
        kernel, strides, rates = window["kernel"], window["strides"], window["dilations"]
        padded = pad_spatial(image, 0, begin, outputs, kernel, strides, rates)
        parts = [padded[(...,) + slices] for _, slices in taps(kernel, outputs, strides, rates)]
        return np.concatenate(parts, 1)

    def expand(w, node, inputs):
        """ExtractImagePatches(x) -> Concat of slices of Pad(x), one for each tap of a patch"""
        (x,) = inputs
        window = _window(node.attrs)
        kernel, strides, rates = window["kernel"], window["strides"], window["dilations"]
        if x.shape is None or math.prod(kernel) > MOST_TAPS or 0 in (*x.shape, *node.output.shape):
            return None
        outputs, begin, end = [], [], []
        for extent, k, s, d in zip(w.shape(x)[2:], kernel, strides, rates, strict=True):
            reach = (k - 1) * d + 1
            if window["auto_pad"] == "valid":
                outputs.append(not_negative((extent - reach) // s + 1))
                continue
            outputs.append((extent + s - 1) // s)
            missing = not_negative((outputs[-1] - 1) * s + reach - extent)
            begin.append((missing + int(window["auto_pad"] == "same_lower")) // 2)
            end.append(missing - begin[-1])
        if begin and (begin, end) != ([0, 0], [0, 0]):
            x = w("Pad", x, (0, 0, *begin), (0, 0, *end), pad_mode="constant")
        parts = []
        for at in np.ndindex(*kernel):
            first = [i * d for i, d in zip(at, rates, strict=True)]
            last = [i + o * s for i, o, s in zip(first, outputs, strides, strict=True)]
            parts.append(w("Slice", x, first, last, strides, (2, 3)))
        return [parts[0] if len(parts) == 1 else w("Concat", *parts, axis=1)]

    samples = cases(
        ((1, 1, 10, 10), {"sizes": (3, 3), "strides": (5, 5), "rates": (1, 1), "auto_pad": "valid"}),
        ((2, 3, 9, 8), {"sizes": (2, 3), "strides": (1, 2), "rates": (2, 1), "auto_pad": "same_upper"}),
        ((1, 2, 7, 7), {"sizes": (4, 4), "strides": (3, 3), "rates": (1, 1), "auto_pad": "same_lower"}),
        ((1, 17, 5, 5), {"sizes": (1, 1), "strides": (2, 2), "rates": (1, 1), "auto_pad": "valid"}),
        ((1, 1, 6, 6), {"sizes": (3, 3), "strides": (1, 1), "rates": (2, 2), "auto_pad": "same_upper"}),
    )


@op("Col2Im", opset=15, types=NUMBERS, native=FULL, lower=".cpu_columns:Columns.of")
class Col2Im:
    """Columns [N, C * kernel, windows] added up to a picture [N, C, *output_size]."""

    def infer(
        data, output_size, kernel_size, *, strides: Ints = (1, 1), dilations: Ints = (1, 1),
        pads_begin: Ints = (0, 0), pads_end: Ints = (0, 0),
    ):  # fmt: skip
        check_type(data, NUMBERS)
        attrs = window_attributes(2, locals())
        size, kernel = (
            None if values is None else [sym_int(v) for v in values]  # numbers that do not overflow
            for values in (shape_value(output_size, "output_size"), shape_value(kernel_size, "kernel_size"))
        )
        for x, what in ((output_size, "output_size"), (kernel_size, "kernel_size")):
            check(length(x) in (None, 2), f"{what} should have 2 entries, not {x}")
        check(data.rank in (None, 2, 3), f"the data should have 2 or 3 dimensions, not {data}")
        for values, what in ((size, "output_size"), (kernel, "kernel_size")):
            check(values is None or min(values) > 0, f"{what} {values} should be positive")
        if data.shape is None:
            return TensorType(data.dtype, None)
        channels: Any = ANY
        rows = data.shape[-2]
        if kernel is not None and not isinstance(rows, Interval):
            taps_ = math.prod(kernel)
            check(rows % taps_ == 0, f"{rows} rows are not a multiple of the kernel's {taps_} elements")
            channels = rows // taps_
        if kernel is not None and size is not None:
            windows = math.prod(window_counts(size, kernel, attrs))
            check(compatible(data.shape[-1], windows), f"{windows} windows need as many columns, not {data}")
        spatial = [ANY, ANY] if size is None else size
        return TensorType(data.dtype, (*data.shape[:-2], channels, *spatial))

    def ref(data, output_size, kernel_size, **attrs):
        attrs = window_attributes(2, attrs)
        size, kernel = [int(v) for v in output_size], [int(v) for v in kernel_size]
        columns = window_counts(size, kernel, attrs)
        lead, channels = data.shape[:-2], data.shape[-2] // math.prod(kernel)
        parts = data.reshape(*lead, channels, *kernel, *columns)
        reach = [
            max(b + s, (o - 1) * st + (k - 1) * d + 1)
            for b, s, o, st, k, d in zip(
                attrs["pads_begin"], size, columns, attrs["strides"], kernel, attrs["dilations"], strict=True
            )
        ]
        out = np.zeros((*lead, channels, *reach), data.dtype)
        for (i, j), slices in taps(kernel, columns, attrs["strides"], attrs["dilations"]):
            out[(...,) + slices] += parts[..., i, j, :, :]
        top, left = attrs["pads_begin"]
        return np.ascontiguousarray(out[..., top : top + size[0], left : left + size[1]])


@op("ReorgYolo", opset=2, types=NUMBERS)
class ReorgYolo:
    """Blocks of s x s pixels as channels, in Darknet's order: [N, C * s * s, H / s, W / s]."""

    def infer(data, *, stride: Ints):
        check(len(stride) in (1, 2) and len(set(stride)) == 1, f"stride {list(stride)} should be one number")
        (s,) = set(stride)
        check(s > 0, f"stride {s} should be positive")
        n, c, h, w = dims(data, 4, "the data")
        divide_dim(c, s * s, "channels")
        return TensorType(data.dtype, (n, c * (s * s), divide_dim(h, s, "rows"), divide_dim(w, s, "columns")))

    def ref(data, *, stride):
        n, c, h, w = data.shape
        s = stride[0]
        split = data.reshape(n, c // (s * s), h, s, w, s).transpose(0, 3, 5, 1, 2, 4)
        return np.ascontiguousarray(split).reshape(n, c * s * s, h // s, w // s)

    def expand(write, node, inputs):
        """ReorgYolo(x) -> Reshape(Transpose(Reshape(x)))"""
        (x,) = inputs
        if x.shape is None:
            return None
        n, c, h, w = write.shape(x)
        s = node.attrs["stride"][0]
        split = write("Reshape", x, (n, c // (s * s), h, s, w, s), special_zero=False)
        transposed = write("Transpose", split, (0, 3, 5, 1, 2, 4))
        return [write("Reshape", transposed, (n, c * s * s, h // s, w // s), special_zero=False)]

    samples = cases(
        ((1, 4, 4, 6), {"stride": (2,)}),
        ((2, 8, 8, 4), {"stride": (2,)}),
        ((1, 9, 6, 3), {"stride": (3,)}),
        ((1, 17, 5, 5), {"stride": (1,)}),
    )
