"""BinaryConvolution: a convolution of signs.

Positive data count as 1, others as -1. Padding counts as the sign of `pad_value`. Filters are bits, of which
0 stands for -1. The operation is expanded to a Convolution of f32. OpenVINO's CPU plugin no longer supports
it in 2026, so the specification is the only reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Ints, Single, TensorType, Word, op
from ovjit.graph.shapes import compatible, is_static
from ovjit.graph.windows import AUTO_PADS, output_extents, resolve_pads, window_attributes
from ovjit_ops.common.checks import check_type, dims
from ovjit_ops.convolution.convolution import convolve, shown_window
from ovjit_ops.elementwise.arithmetic import NUMBERS


def _padding(shape: Sequence[int], kernel: Sequence[int], attrs: dict[str, Any]) -> tuple[Any, Any]:
    return resolve_pads(extents=shape[2:], kernel=kernel, **window_attributes(2, attrs))


@op("BinaryConvolution", opset=1)
class BinaryConvolution:
    """The sum over a window of products of signs, 1 or -1."""

    words = {
        "auto_pad": AUTO_PADS,
        "mode": "op::v1::BinaryConvolution::BinaryConvolutionMode: xnor-popcount",
    }
    show = shown_window

    def infer(
        data,
        filters,
        *,
        strides: Ints,
        pads_begin: Ints,
        pads_end: Ints,
        dilations: Ints,
        mode: Word,
        pad_value: Single,
        auto_pad: Word = "explicit",
    ):
        window = window_attributes(2, locals())
        check_type(data, NUMBERS)
        check_type(filters, ("u1", "boolean", *NUMBERS), "filters")
        (n, c, *extents), weights = dims(data, 4, "data"), dims(filters, 4, "filters")
        check(0 not in weights[2:], f"the kernel of {filters} has a dimension of 0")
        check(
            compatible(c, weights[1]),
            f"Data batch channel count ({c}) does not match filter input channel count ({weights[1]}).",
        )
        out = output_extents(extents=extents, kernel=weights[2:], **window)
        return TensorType(data.dtype, (n, weights[0], *out))

    def ref(data, filters, **attrs):
        if filters.ndim != 4:
            raise InferenceError("filters of packed bits should be constant, and the data's shape static")
        begin, end = _padding(data.shape, filters.shape[2:], attrs)
        outside = 1 if attrs["pad_value"] > 0 else -1
        signs = np.where(data > 0, np.float32(1), np.float32(-1))
        padded = np.pad(signs, ((0, 0), (0, 0), *zip(begin, end, strict=True)), constant_values=outside)
        weights = np.where(filters > 0, np.float32(1), np.float32(-1))
        moved = {**attrs, "pads_begin": (), "pads_end": (), "auto_pad": "explicit"}
        return convolve(padded, weights[None], moved).astype(data.dtype)

    def expand(w, node, inputs):
        """BinaryConvolution(x, bits) -> Convolution(Pad(Select(x > 0, 1, -1)), signs)"""
        data, filters = inputs
        same = node.attrs["auto_pad"].startswith("same")  # the padding depends on the extents
        if data.shape is None or filters.constant is None or (same and not is_static(data.shape[2:])):
            return None
        begin, end = _padding(data.shape, filters.shape[2:], node.attrs)
        floats = data if data.dtype == "f32" else w("Convert", data, destination_type="f32")
        one, minus = (w.b.constant(np.array(v, np.float32)) for v in (1, -1))
        x = w("Select", w("Greater", floats, 0.0), one, minus)
        if any(begin) or any(end):
            outside = w.b.constant(np.array(1 if node.attrs["pad_value"] > 0 else -1, np.float32))
            x = w("Pad", x, (0, 0, *begin), (0, 0, *end), outside, pad_mode="constant")
        signs = w.b.constant(np.where(filters.constant > 0, np.float32(1), np.float32(-1)))
        moves = {k: node.attrs[k] for k in ("strides", "dilations")}
        out = w("Convolution", x, signs, pads_begin=(0, 0), pads_end=(0, 0), **moves)
        return [out if data.dtype == "f32" else w("Convert", out, destination_type=data.dtype)]
