"""Native Col2Im: what windows hold is added up where they lay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ovjit.codegen.elementwise import NATIVE_TYPES
from ovjit.codegen.function import kernel
from ovjit.codegen.tensors import Raw, Share
from ovjit.codegen.words import *
from ovjit.errors import check
from ovjit.forks import made_once
from ovjit.graph.windows import full_attribute
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import Planner, ceil_div, split
from ovjit.planning.races import Piece, Rows
from ovjit.planning.views import placed_values, product, row_major


def window_counts(size: Sequence[Any], kernel: Sequence[Any], attrs: dict[str, Any]) -> list[Any]:
    """How many windows there are along each side of a picture."""
    out = []
    for i in range(2):
        window = (kernel[i] - 1) * attrs["dilations"][i] + 1
        rest = size[i] + attrs["pads_begin"][i] + attrs["pads_end"][i] - window
        check(rest >= 0, f"the window of {window} is larger than the padded size {size[i]}")
        out.append(rest // attrs["strides"][i] + 1)
    return out


def full_settings(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of Col2Im with an entry for each side."""
    rows = (("strides", 1, 1), ("dilations", 1, 1), ("pads_begin", 0, 0), ("pads_end", 0, 0))
    return {n: full_attribute(attrs[n], 2, n, default, low) for n, default, low in rows}


class Sizes(NamedTuple):
    """Rows and columns of the image, taps and windows; how these move on along the image, and bytes between
    them in x."""

    h: int
    w: int
    taps: int
    windows: int
    down: int
    down_tap: int
    up: int
    x_tap: int
    x_window: int


class PlacesOf(NamedTuple):
    """Places of windows, how they are apart, what stands before them, and bytes between them in x."""

    outer: int
    inner: int
    outer_step: int
    inner_step: int
    left: int
    x_outer: int
    x_inner: int


@kernel(sizes=Raw(Sizes), places=Raw(PlacesOf), of=Raw(Share))
def add_columns(x: Ptr, y: Ptr, sizes, places, of, *, T):
    """A chunk is a range of planes [h, w], of which `taps` * `windows` rows are added to: row window * down +
    tap * down_tap - up. Along a row the same for what is `inner` and `outer`: windows and taps, or the other
    way round, whichever lie side by side."""
    for item in share(of.items, of.per_chunk):
        p = placed(item, x)
        plane = y + item * (sizes.h * sizes.w * SIZE[T])
        zero = const[T](0)
        for i in range(0, sizes.h * sizes.w, VL):
            storem[T](plane + i * SIZE[T], zero, sizes.h * sizes.w - i)
        for tap in range(sizes.taps):
            for window in range(sizes.windows):
                row = window * sizes.down + tap * sizes.down_tap - sizes.up
                if row >= 0 and row < sizes.h:
                    source = p + tap * sizes.x_tap + window * sizes.x_window
                    target = plane + row * (sizes.w * SIZE[T])
                    for k in range(places.outer):
                        begin = k * places.outer_step - places.left
                        first = 0
                        if begin < 0:
                            first = (places.inner_step - 1 - begin) // places.inner_step
                        end = min(
                            places.inner, (sizes.w - begin + places.inner_step - 1) // places.inner_step
                        )
                        s = source + k * places.x_outer
                        q = target + begin * SIZE[T]
                        i = first
                        if places.x_inner == SIZE[T] and places.inner_step == 1:
                            while i + VL <= end:
                                v = load[T](q + i * SIZE[T]) + load[T](s + i * SIZE[T])
                                store[T](q + i * SIZE[T], v)
                                i += VL
                            if i < end:
                                v = loadm[T](q + i * SIZE[T], end - i) + loadm[T](s + i * SIZE[T], end - i)
                                storem[T](q + i * SIZE[T], v, end - i)
                        else:
                            y_inner = places.inner_step * SIZE[T]
                            while i < end:
                                v = gather[T](q + i * y_inner, y_inner, end - i)
                                v = v + gather[T](s + i * places.x_inner, places.x_inner, end - i)
                                scatter[T](q + i * y_inner, y_inner, v, end - i)
                                i += VL


class Columns(Lowering):
    """Col2Im for windows of known size."""

    takes = (NATIVE_TYPES - {"f16", "bf16"}, None)
    constant_inputs = 1
    kernel = made_once(lambda self: add_columns(T=self.out.dtype))

    def plan(self, planner: Planner) -> None:
        attrs = full_settings(self.node.attrs)
        kh, kw = kernel_size = [int(v) for v in planner.shape_value(self.node.inputs[2]).reshape(-1)]
        (sh, sw), (dh, dw), (top, left) = (attrs[name] for name in ("strides", "dilations", "pads_begin"))
        x = planner.view(self.node.inputs[0])
        y = planner.row_major_output(self.node.output)
        h, w = y.shape[-2:]
        rows, columns = window_counts((h, w), kernel_size, attrs)
        check(x.shape[-2] == y.shape[-3] * (kh * kw), f"{x.shape} are no windows of {kh}x{kw} of {y.shape}")
        check(x.shape[-1] == rows * columns, f"{y.shape} has {rows}x{columns} windows, not {x.shape[-1]}")
        if y.count:
            s_r, s_c = x.strides[-2:]
            extents, along = list(y.shape[:-2]), [*x.strides[:-2], s_r * (kh * kw)]
            taps, windows = (kw, dw, s_r), (columns, sw, s_c)
            # what lies side by side in both is walked in vectors
            inner, outer = (taps, windows) if s_r == x.itemsize and dw == 1 else (windows, taps)
            items = product(extents)
            per_chunk = split(items, kh * kw * rows * columns * x.itemsize + h * w)
            values = {
                "x": x.ptr, "y": y.ptr, "h": h, "w": w, "taps": kh, "windows": rows, "down": sh,
                "down_tap": dh, "up": top, "x_tap": s_r * kw, "x_window": s_c * columns, "outer": outer[0],
                "inner": inner[0], "outer_step": outer[1], "inner_step": inner[1], "left": left,
                "x_outer": outer[2], "x_inner": inner[2], "items": items, "per_chunk": per_chunk,
            }  # fmt: skip
            values |= placed_values(extents, x=along)
            plane = h * w * y.itemsize
            touches = Rows(
                extents, per_chunk,
                [Piece(x.ptr, along, (kh * kw, x.shape[-1]), (s_r, s_c), x.itemsize)],
                [Piece(y.ptr, row_major(extents, plane), (h * w,), (y.itemsize,), y.itemsize)],
            )  # fmt: skip
            chunks, flops = ceil_div(items, per_chunk), product(x.shape)
            planner.step(self.kernel, values, chunks, [x], [y], flops, touches=touches)
