"""RoPE: rotary position embedding, as OpenVINO's plugins write it to files.

The first `rotary_ndims` elements of each head are rotated:

    out = x cos + [-second half, first half] sin

Exporters write the same as slices, a negation and a concatenation. Some rotate adjacent pairs instead.
"""

from __future__ import annotations

import numpy as np

from ovjit.errors import UnsupportedError, check
from ovjit.graph.dtypes import FULL
from ovjit.graph.op import Bool, Int, TensorType, op
from ovjit.graph.shapes import ANY, Dim, broadcast, compatible
from ovjit_ops.attention.recognize_rope import out_of_pairs, recognize_turned
from ovjit_ops.common.checks import check_same_type, check_type
from ovjit_ops.common.values import in_f32
from ovjit_ops.elementwise.arithmetic import REALS

#: Attributes of model-specific variants, which are not implemented.
OTHERS = (
    "output_trans0213", "is_interleaved", "is_chatglm", "support_2d_rope", "support_3d_rope", "is_qwen",
    "use_rope_cache", "is_ltx_video", "head_cnt", "head_size", "gather_position_arg_id", "order",
)  # fmt: skip


@op("RoPE", opset=1, types=REALS, plugin=True, ulp=16)
class RoPE:
    """x rotated by the angles of its positions, given as cosines and sines."""

    def infer(
        data, cos, sin, *, rotary_ndims: Int, slice_start: Int = 0, slice_stop: Int = 0,
        input_trans0213: Bool = False, output_trans0213: Bool = False, is_interleaved: Bool = False,
        is_chatglm: Bool = False, support_2d_rope: Bool = False, support_3d_rope: Bool = False,
        is_qwen: Bool = False, use_rope_cache: Bool = False, is_ltx_video: Bool = False, head_cnt: Int = 0,
        head_size: Int = 0, gather_position_arg_id: Int = 0, order: Int = 0,
    ):  # fmt: skip
        attrs = locals()
        unsupported = [name for name in OTHERS if attrs[name]]
        if unsupported:
            raise UnsupportedError(f"RoPE with {', '.join(unsupported)} is not supported")
        check_type(data, REALS)
        for name, x in (("cos", cos), ("sin", sin)):
            check_same_type(x, data, name)
        if data.shape is None:
            return TensorType(data.dtype, None)
        check(len(data.shape) == 4, f"data should have four dimensions, not {data}")
        width: Dim = data.shape[-1]
        if slice_stop:
            fits = 0 <= slice_start < slice_stop and (not isinstance(width, int) or slice_stop <= width)
            check(fits, f"the slice {slice_start}:{slice_stop} is outside of {data}")
            width = slice_stop - slice_start
        check(rotary_ndims > 0 and rotary_ndims % 2 == 0, f"rotary_ndims {rotary_ndims} should be even")
        check(
            not isinstance(width, int) or rotary_ndims <= width,
            f"rotary_ndims {rotary_ndims} exceeds the width {width}",
        )
        a, b, c, _ = data.shape
        lead: tuple[Dim, ...] = (a, c, b) if input_trans0213 else (a, b, c)
        if cos.shape is not None and sin.shape is not None:
            rotated = broadcast((*lead, rotary_ndims), cos.shape, sin.shape) or ()
            check(len(rotated) == 4, f"{cos} and {sin} do not match {data}")
            if width == rotary_ndims:
                lead = rotated[:3]
            else:  # the remaining elements are not broadcast
                same = all(compatible(d, e) for d, e in zip(rotated[:3], lead, strict=True))
                may_rotate_all = compatible(width, rotary_ndims)
                check(
                    same or may_rotate_all,
                    f"{cos} and {sin} are broadcast, which needs a rotation of all elements of {data}",
                )
                if may_rotate_all:  # the width decides whether they are broadcast
                    lead = tuple([d if d == e else ANY for d, e in zip(rotated[:3], lead, strict=True)])
        elif width == rotary_ndims:
            lead = (ANY, ANY, ANY)
        return TensorType(data.dtype, (*lead, width if width is not None else ANY))

    @in_f32
    def ref(x, cos, sin, *, rotary_ndims, slice_start=0, slice_stop=0, input_trans0213=False, **others):
        if slice_stop:
            x = x[..., slice_start:slice_stop]
        if input_trans0213:
            x = x.transpose(0, 2, 1, 3)
        rotated, remainder = x[..., :rotary_ndims], x[..., rotary_ndims:]
        half = rotary_ndims // 2
        across = np.concatenate([-rotated[..., half:], rotated[..., :half]], -1)
        rotated = rotated * cos + across * sin
        return np.concatenate([rotated, remainder], -1) if remainder.shape[-1] else rotated

    def expand(w, node, inputs):
        """RoPE(x, cos, sin) -> Concat(x' cos + Concat(-second, first) sin, rest)"""
        attrs = node.attrs
        x, cos, sin = inputs
        if x.shape is None or not isinstance(x.shape[-1], int):
            return None  # slices would accept a width that is too small

        if attrs["slice_stop"]:
            x = w.part(x, attrs["slice_start"], attrs["slice_stop"], -1)
        if attrs["input_trans0213"]:
            x = w("Transpose", x, (0, 2, 1, 3))
        width = attrs["rotary_ndims"]
        rotated = w.part(x, 0, width, -1)
        across = w("RotateHalf", rotated, pairs=False)
        out = w("Add", w("Multiply", rotated, cos), w("Multiply", across, sin))
        if x.shape[-1] == width:
            return [out]
        return [w("Concat", out, w.part(x, width, 1 << 30, -1), axis=-1)]


@op(
    "RotateHalf", opset=1, types=REALS, internal=True, native=FULL, epilogue=True, prologue=True,
    rules=[recognize_turned, out_of_pairs], rules_for=["Concat"], lower=".cpu_rotate_half:lower_rotate_half",
)  # fmt: skip
class RotateHalf:
    """[-second half, first half] of the last axis. `pairs`: [-x1, x0] of each pair of neighbours along it."""

    def infer(data, *, pairs: Bool):
        width = data.shape[-1] if data.shape else 0
        check(not isinstance(width, int) or width % 2 == 0, f"the last dimension of {data} should be even")
        return TensorType(data.dtype, data.shape)

    def ref(x, *, pairs):
        last = x.shape[-1] // 2
        parts = x.reshape(*x.shape[:-1], *((last, 2) if pairs else (2, last)))
        first, second = (np.take(parts, i, -1 if pairs else -2) for i in (0, 1))
        return np.stack([-second, first], -1 if pairs else -2).reshape(x.shape)
