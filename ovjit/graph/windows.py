"""Windows that slide over spatial dimensions: padding and output extents, for convolution and pooling.

All functions take one entry per spatial dimension. Extents may be dynamic (Interval) in `output_extents`.
`resolve_pads` needs concrete ones, as at planning or in a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.shapes import Dim, bounds, dim
from ovjit.graph.symbolic import sym_max, sym_min

#: The words of attributes (`Op.words`), of pooling in capitals; the second rounding is that of versions from
#: opset 14 on.
AUTO_PADS = "ov::op::PadType: explicit same_lower same_upper valid"
POOLING_AUTO_PADS = "ov::op::PadType: EXPLICIT SAME_LOWER SAME_UPPER VALID"
ROUNDINGS = "ov::op::RoundingType: FLOOR CEIL", "ov::op::RoundingType: FLOOR CEIL CEIL_TORCH"
#: Maximum extent of a window that attributes give: references loop over it.
LARGEST = (1 << 31) - 1


#: Attribute of a convolution -> its name in OpenVINO's error about a wrong number of entries.
_ALL_AND_ONLY = {
    "strides": "Strides", "dilations": "Dilations", "output_padding": "Output padding",
    "pads_begin": "Pads begin and end", "pads_end": "Pads begin and end",
}  # fmt: skip


def full_attribute(
    value: Sequence[int], rank: int, name: str, default: int, low: int, pool: bool = False
) -> tuple[int, ...]:
    """`value` with one entry per spatial dimension; an empty one means `default` everywhere.

    Raises ModelError when the length is wrong or an entry is below `low`, in OpenVINO's words for
    convolutions, or for pooling.
    """
    value = tuple(value) or (default,) * rank
    if len(value) == rank and min(value, default=low) >= low:
        return value
    if pool:
        whose = "kernel size" if name == "dilations" else "input size - 2"
        says = f"Expected {name} size to be equal to {whose}. Got: {len(value)}"
    else:
        says = f"{_ALL_AND_ONLY[name]} should be defined for all and only spatial dimensions."
    entries = f"{name} {list(value)}"
    check(len(value) == rank, f"{says} {entries} should have {rank} entries, one per spatial dimension")
    zero = ""
    if 0 in value and name in ("strides", "dilations"):
        kind = "Strides" if name == "strides" else "Kernel dilations" if pool else "Filter dilations"
        zero = f"{kind} has zero dimension(s). Strides{{{', '.join(map(str, value))}}} "
    check(all(v >= low for v in value), f"{zero}{name} {list(value)} should not be below {low}")
    return value


def resolve_pads(
    auto_pad: str, extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int], pads_begin: Sequence[int], pads_end: Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...]]:  # fmt: skip
    """The actual padding: (before, after), per dimension."""
    if auto_pad == "explicit":
        return tuple(pads_begin), tuple(pads_end)
    if auto_pad == "valid":
        return (0,) * len(extents), (0,) * len(extents)
    before, after = [], []
    for extent, k, s, d in zip(extents, kernel, strides, dilations, strict=True):
        outputs = -(-extent // s)
        total = sym_max(0, (outputs - 1) * s + (k - 1) * d + 1 - extent)
        smaller = total // 2
        before.append(smaller if auto_pad == "same_upper" else total - smaller)
        after.append(total - before[-1])
    return tuple(before), tuple(after)


def _torch(windows: int, end: int, stride: int) -> int:
    """PyTorch's `ceil_mode`: drops a last window that begins after the input's `end`."""
    return windows - ((windows - 1) * stride >= end)


def _same_up(extent: int, stride: int, window: int) -> int:
    """Windows of auto_pad=same_* where a remainder shorter than a stride is rounded up. This adds one window
    to the rule if the last one ends before the input does."""
    windows = -(-extent // stride)
    return windows + (windows > 0 and (windows - 1) * stride + window < extent)


def output_extents(
    auto_pad: str, extents: Sequence[Dim], kernel: Sequence[Dim], strides: Sequence[int],
    dilations: Sequence[int], pads_begin: Sequence[int], pads_end: Sequence[int], rounding: str = "floor",
) -> tuple[Dim, ...]:  # fmt: skip
    """The number of windows per dimension. Raises ModelError if a window exceeds the padded input."""
    out: list[Dim] = []
    for i, (extent, k, s, d) in enumerate(zip(extents, kernel, strides, dilations, strict=True)):
        window = (k - 1) * d + 1
        if auto_pad in ("same_upper", "same_lower"):
            if rounding == "ceil" and isinstance(window, int):
                lo, hi = bounds(extent)
                out.append(dim(_same_up(lo, s, window), None if hi is None else _same_up(hi, s, window)))
            else:
                out.append((extent + (s - 1)) // s)
            continue
        begin, end = (0, 0) if auto_pad == "valid" else (pads_begin[i], pads_end[i])
        padded = extent + (begin + end)
        largest = bounds(padded)[1]
        check(
            largest is None or bounds(window)[0] <= largest,
            f"Kernel after dilation has size (dim: {window}) larger than the data shape after padding (dim: "
            f"{padded}) at axis {i}.",
        )
        steps = padded - window
        if rounding != "floor":
            steps = steps + (s - 1)
        windows = steps // s + 1
        if rounding == "ceil_torch":
            (lo, hi), (fewest, most) = bounds(extent + begin), bounds(windows)
            windows = dim(_torch(fewest, lo, s), None if most is None or hi is None else _torch(most, hi, s))
        out.append(windows)
    return tuple(out)


def pad_spatial(
    x: np.ndarray, value: object, begin: Sequence[int], outputs: Sequence[int], kernel: Sequence[int],
    strides: Sequence[int], dilations: Sequence[int],
) -> np.ndarray:  # fmt: skip
    """x [N, C, *spatial], padded with `value` (or cut) to the extent that the windows read."""
    lead = x.ndim - len(outputs)
    shape = list(x.shape)
    source: list[slice] = [slice(None)] * x.ndim
    target: list[slice] = [slice(None)] * x.ndim
    for i, (b, o, k, s, d) in enumerate(zip(begin, outputs, kernel, strides, dilations, strict=True), lead):
        shape[i] = sym_max(0, (o - 1) * s + (k - 1) * d + 1)
        used = sym_max(0, sym_min(x.shape[i], shape[i] - b))
        source[i], target[i] = slice(0, used), slice(b, b + used)
    out = np.full(shape, value, dtype=x.dtype)
    out[tuple(target)] = x[tuple(source)]
    return out


def taps(kernel: Sequence[int], outputs: Sequence[int], strides: Sequence[int], dilations: Sequence[int]):
    """Yields (tap index, slices) such that padded[..., *slices] holds that tap of every window."""
    for index in product(*map(range, kernel)):
        yield (
            index,
            tuple(
                slice(i * d, i * d + (o - 1) * s + 1 if o else i * d, s)
                for i, o, s, d in zip(index, outputs, strides, dilations, strict=True)
            ),
        )


def shown_pads(attrs: Mapping[str, Any], extents: Sequence[Dim], kernel: Sequence[Dim]) -> dict[str, Any]:
    """The pads that `auto_pad` results in, as OpenVINO reports them: 0 along dynamic dimensions."""
    if attrs["auto_pad"] == "explicit":
        return {}
    ones, before, after = (1,) * len(kernel), [], []
    moves = zip(extents, kernel, attrs["strides"] or ones, attrs.get("dilations") or ones, strict=True)
    for extent, size, stride, dilation in moves:
        one: Any = ((0,), (0,))
        if isinstance(extent, int) and isinstance(size, int):
            one = resolve_pads(attrs["auto_pad"], [extent], [size], [stride], [dilation], [0], [0])
        before.append(one[0][0])
        after.append(one[1][0])
    return {"pads_begin": tuple(before), "pads_end": tuple(after)}


def pool_window(rank: int, attrs: dict[str, Any]) -> dict[str, Any]:
    """kernel, strides, dilations, pads, auto_pad and rounding, checked, one entry per spatial dimension."""
    kernel = tuple(attrs["kernel"])
    check(len(kernel) == rank, f"kernel {list(kernel)} should have {rank} entries, one per spatial dimension")
    check(min(kernel, default=1) > 0, f"kernel {list(kernel)} should not be below 1")
    check(max(kernel, default=1) <= LARGEST, f"kernel {list(kernel)} should not be above {LARGEST}")
    window = window_attributes(rank, attrs, pool=True)
    return {"kernel": kernel, **window, "rounding": attrs["rounding_type"]}


def transposed_pads(
    extents: Sequence[int], kernel: Sequence[int], outputs: Sequence[int] | None, attrs: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(crop at the beginning, output extents) of a transposed convolution.

    `outputs`: the value of the input `output_shape`, or None. If it is given and auto_pad is same_*, it
    determines the crop; same_upper crops more at the beginning.
    """
    rank = len(extents)
    window = window_attributes(rank, attrs)
    extra = full_attribute(attrs["output_padding"], rank, "output_padding", 0, 0)
    auto_pad = window["auto_pad"]
    explicit = auto_pad == "explicit"
    begins, sizes = [], []
    for i in range(rank):
        full = (extents[i] - 1) * window["strides"][i] + (kernel[i] - 1) * window["dilations"][i] + 1
        begin, end = (window["pads_begin"][i], window["pads_end"][i]) if explicit else (0, 0)
        if outputs is None:
            size = full - begin - end + extra[i]
        else:
            size = outputs[i]
            if auto_pad.startswith("same"):
                total = sym_max(0, full - size + extra[i])
                begin = total - total // 2 if auto_pad == "same_upper" else total // 2
        check(size >= 0, f"the padding leaves no element of spatial dimension {i}")
        begins.append(begin)
        sizes.append(size)
    return tuple(begins), tuple(sizes)


def window_attributes(rank: int, attrs: Mapping[str, Any], pool: bool = False) -> dict[str, Any]:
    """strides, dilations, pads_begin, pads_end, checked, one entry per spatial dimension; and auto_pad, if
    the operation has it."""
    rows = (("strides", 1), ("dilations", 1), ("pads_begin", 0), ("pads_end", 0))
    window = {name: full_attribute(attrs.get(name, ()), rank, name, low, low, pool) for name, low in rows}
    return window | ({"auto_pad": attrs["auto_pad"]} if "auto_pad" in attrs else {})


def resolve_window(attrs: Mapping[str, Any], extents: Sequence[int], kernel: Sequence[int]) -> Any:
    """(strides, dilations, padding before, padding after) of a node, whose attributes inference has checked;
    one entry per spatial dimension each."""
    ones, zeros = (1,) * len(kernel), (0,) * len(kernel)
    steps = attrs["strides"] or ones, attrs["dilations"] or ones
    pads = attrs["pads_begin"] or zeros, attrs["pads_end"] or zeros
    return *steps, *resolve_pads(attrs["auto_pad"], extents, kernel, *steps, *pads)


#: (first, count, taps) of a part of the output along a dimension: all of it reads data with the taps from the
#: first to the last of `taps`.
Slab = tuple[int, int, tuple[int, int]]


def slabs_of_taps(extent: int, outs: int, kernel: int, stride: int, dilation: int, pad: int) -> list[Slab]:
    """The parts of an output along one dimension whose windows read elements, not padding, with the same
    taps. Windows that read padding alone have one tap. Traced numbers get guards on the order of the parts.
    """
    # where a tap begins to read elements, and where it no longer does
    begins = [-((t * dilation - pad) // stride) for t in range(kernel)]
    ends = [-((t * dilation - pad - extent) // stride) for t in range(kernel)]
    starts: list[int] = [0]
    for at in sorted(at for at in (*begins, *ends) if 0 < at and at < outs):
        if at > starts[-1]:
            starts.append(at)
    slabs: list[Slab] = []
    for at, end in zip(starts, [*starts[1:], outs], strict=True):
        low = min(kernel - 1, sum(at < begin for begin in begins))
        high = max(low, kernel - 1 - sum(end <= at for end in ends))
        if slabs and slabs[-1][2] == (low, high):
            at = slabs.pop()[0]
        slabs.append((at, end - at, (low, high)))
    return slabs


def taps_that_meet(
    extent: int, outs: int, kernel: int, stride: int, dilation: int, pad: int
) -> tuple[int, int]:
    """(first, last) tap along one dimension that reads an element, not padding, for any window position."""
    reach = (outs - 1) * stride  # distance between a tap's first and last position
    first = sym_min(sym_max(0, -((reach - pad) // dilation)), sym_max(0, pad // dilation), kernel - 1)
    return first, sym_min(kernel - 1, sym_max(first, (extent + pad - 1) // dilation))
