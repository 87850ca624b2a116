"""Native Col2Im: adds the columns of windows up to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.codegen.elementwise import NATIVE_TYPES
from ovjit.codegen.kernel_language import *
from ovjit.errors import check
from ovjit.forks import made_once
from ovjit.graph.windows import window_attributes
from ovjit.planning.lower import Lowering, Planner, launch, product
from ovjit.records import NamedTuple


def window_counts(size: Sequence[Any], kernel: Sequence[Any], attrs: dict[str, Any]) -> list[Any]:
    """The number of windows along each side of a picture. Raises ModelError if the window exceeds the padded
    size."""
    out = []
    for i in range(2):
        window = (kernel[i] - 1) * attrs["dilations"][i] + 1
        room = size[i] + attrs["pads_begin"][i] + attrs["pads_end"][i] - window
        check(room >= 0, f"the window of {window} is larger than the padded size {size[i]}")
        out.append(room // attrs["strides"][i] + 1)
    return out


class Steps(NamedTuple):
    """Rows of the image per window (`down`) and per tap (`down_tap`), and the padding above (`up`). Elements
    per step of the `outer` and `inner` loop along a row, and the padding before (`left`)."""

    down: int
    down_tap: int
    up: int
    outer: int
    inner: int
    left: int


@kernel(over="...", x="... tap window outer inner", y="... h w:1", steps=Steps)
def add_columns(x: Tensor, y: Tensor, steps, *, T):
    """Sum the columns of windows into the image (Col2Im). An item is a plane [h, w]: its row window * down +
    tap * down_tap - up gets the elements of a window and a tap. Along a row, `outer` and `inner` are windows
    and taps, or the reverse: the contiguous one is `inner`."""
    width = y.size.w
    inner_step = steps.inner
    for p, plane in items(x, y):
        zero = const[T](0)
        for i in range(0, y.size.h * width, VL):
            storem[T](plane + i * SIZE[T], zero, y.size.h * width - i)
        for tap in range(x.size.tap):
            for window in range(x.size.window):
                row = window * steps.down + tap * steps.down_tap - steps.up
                if row >= 0 and row < y.size.h:
                    source = x.at(p, tap=tap, window=window)
                    target = plane + row * (width * SIZE[T])
                    for k in range(x.size.outer):
                        begin = k * steps.outer - steps.left
                        first = 0
                        if begin < 0:
                            first = (inner_step - 1 - begin) // inner_step
                        end = min(x.size.inner, (width - begin + inner_step - 1) // inner_step)
                        s = x.at(source, outer=k)
                        q = target + begin * SIZE[T]
                        i = first
                        if x.stride.inner == SIZE[T] and inner_step == 1:
                            while i + VL <= end:
                                v = load[T](q + i * SIZE[T]) + load[T](s + i * SIZE[T])
                                store[T](q + i * SIZE[T], v)
                                i += VL
                            if i < end:
                                v = loadm[T](q + i * SIZE[T], end - i) + loadm[T](s + i * SIZE[T], end - i)
                                storem[T](q + i * SIZE[T], v, end - i)
                        else:
                            step = inner_step * SIZE[T]
                            while i < end:
                                v = gather[T](q + i * step, step, end - i)
                                v = v + gather[T](s + i * x.stride.inner, x.stride.inner, end - i)
                                scatter[T](q + i * step, step, v, end - i)
                                i += VL


class Columns(Lowering):
    """Col2Im of windows of known size. Not for f16 and bf16."""

    takes = (NATIVE_TYPES - {"f16", "bf16"}, None)
    constant_inputs = 1
    kernel = made_once(lambda self: add_columns(T=self.out.dtype))

    def plan(self, planner: Planner) -> None:
        attrs = window_attributes(2, self.node.attrs)
        kh, kw = kernel_size = [int(v) for v in planner.shape_value(self.node.inputs[2]).reshape(-1)]
        (sh, sw), (dh, dw), (top, left) = (attrs[name] for name in ("strides", "dilations", "pads_begin"))
        x = planner.view(self.node.inputs[0])
        y = planner.row_major_output(self.node.output)
        h, w = y.shape[-2:]
        rows, columns = window_counts((h, w), kernel_size, attrs)
        check(
            x.shape[-2] == y.shape[-3] * (kh * kw),
            f"{x.shape} does not hold windows of {kh}x{kw} of {y.shape}",
        )
        check(x.shape[-1] == rows * columns, f"{y.shape} has {rows}x{columns} windows, not {x.shape[-1]}")
        if not y.count:
            return
        s_r, s_c = x.strides[-2:]
        taps, windows = (kw, s_r), (columns, s_c)
        # dimensions that are contiguous in both are processed in vectors
        taps_inside = s_r == x.itemsize and dw == 1
        inner, outer = (taps, windows) if taps_inside else (windows, taps)
        shape = (*y.shape[:-2], kh, rows, outer[0], inner[0])
        steps = (*x.strides[:-2], s_r * (kh * kw), s_r * kw, s_c * columns, outer[1], inner[1])
        source = x.as_strided(shape, steps)
        along = (sw, dw) if taps_inside else (dw, sw)
        launch(
            planner, self.kernel, {"x": source, "y": y}, ("y",), steps=Steps(sh, dh, top, *along, left),
            work=kh * kw * rows * columns * x.itemsize + h * w, flops=product(x.shape),
        )  # fmt: skip
