"""Depthwise convolution: a filter for each channel, vectors of channels, a few pixels of a row in registers.

    y[n, i, j, c] = epilogue(bias[c] + sum over (a, b) of x[n, i*sh + a*dh, j*sw + b*dw, c] * w[a, b, c])

The kernel is printed for one window (kh, kw, sw, dw), so that an input column that several pixels of a row
read is loaded once. The input has a zero halo. A chunk is a range of output rows.

Of bytes, a column of up to four rows is put together to a word for each channel, which one instruction
multiplies by the filter's column of four i8: a quarter of the multiplications, or a third for 3x3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.plan import Constants, Planner, aligned_bytes, ceil_div, split
from ovjit.compiler.races import Piece, Rows
from ovjit.graph.dtypes import numpy_dtype
from ovjit_ops.convolution.cpu_convolution import TiledConvolution

#: Pixels of a row that are computed together.
PIXELS = {"avx512": 6, "avx2": 4, "generic": 4}


def depthwise_kernel(
    name: str, epilogue: Epilogue, window: tuple[int, int, int, int], pixels: int, dtype: str, acc: str
) -> Kernel:
    kh, kw, sw, dw = window
    frame = Frame().pointers("x", "w", "b", "y")
    for n, operand in enumerate(epilogue.operands):
        frame.pointers(f"e{n}")
        if not operand.shared:
            frame.integers(f"e{n}_n", f"e{n}_h", f"e{n}_w")
    frame.integers("x_n", "x_i", "x_a", "x_w", "y_n", "y_h", "y_w", "oh", "ow", "c", "rows", "per_chunk")
    body = epilogue.body or Body([acc], [epilogue.out], [], ["x0"])
    lines, constants = body.source("")
    result = body.result_names(constants)[0]
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):"]
    src += [f"    # {line}" for line in epilogue.text().splitlines()]
    src += [frame.prologue(), *(f"    {k} = {e}" for k, e in constants.values())]
    src += [f"    byte{i} = const_i32({8 * i})" for i in (1, 2, 3) if acc == "i32"]
    for n, operand in enumerate(epilogue.operands):
        if operand.kind == "number":
            src += [f"    x{n + 1} = splat_{operand.dtype}(e{n})"]
    src += ["    row = chunk * per_chunk", "    stop = imin(row + per_chunk, rows)", "    while row < stop:"]
    src += ["        img = row // oh", "        i = row % oh", "        source = x + img * x_n + i * x_i"]
    src += ["        target = y + img * y_n + i * y_h"]
    for n, operand in enumerate(epilogue.operands):
        if not operand.shared:
            src += [f"        r{n} = e{n} + img * e{n}_n + i * e{n}_h"]
    src += ["        k = 0", "        while k < c:", "            left = c - k"]
    words = word_rows(kh, acc)
    block = f"w + k * {len(words) * kw * 4}"
    src += [
        f"            w{a}_{b} = load_{acc}({block} + {a * kw + b} * VL * 4)"
        for a in range(len(words))
        for b in range(kw)
    ]
    src += [f"            first = load_{acc}(b + k * 4)"]
    for n, operand in enumerate(epilogue.operands):
        if operand.kind == "channel":
            src += [f"            x{n + 1} = loadm_{operand.dtype}(e{n} + k * {SIZE[operand.dtype]}, left)"]
    src += ["            j = 0"]
    for count in (pixels, 1):
        step = [f"while j + {count} <= ow:", f"    p = source + j * x_step + k * {SIZE[dtype]}"]
        # pixels are stepped to from one address: of separate products LLVM makes more sums than registers
        step += [f"    q = target + j * y_w + k * {SIZE[epilogue.out]}"]
        for n, operand in enumerate(epilogue.operands):
            if operand.kind in ("pixel", "scalar"):
                at = f" + k * {SIZE[operand.dtype]}" if operand.kind == "pixel" else ""
                step += [f"    q{n} = r{n} + j * e{n}_w{at}"]
        step += [f"    acc{m} = first" for m in range(count)]
        for a, tap_rows in enumerate(words):
            for column in sorted({m * sw + b * dw for m in range(count) for b in range(kw)}):
                loads = [f"loadm_{dtype}(p + {row} * x_a + {column} * x_w, left)" for row in tap_rows]
                step += [f"    v = {loads[0]}" if acc == "f32" else f"    v = cast_i32({loads[0]})"]
                step += [f"    v = or_(v, shl(cast_i32({x}), byte{i}))" for i, x in enumerate(loads[1:], 1)]
                for m in range(count):
                    b, rest = divmod(column - m * sw, dw)
                    if rest == 0 and 0 <= b < kw:
                        product = "fma(v, {w}, {y})" if acc == "f32" else "dot_bytes({y}, v, {w})"
                        step += [f"    acc{m} = {product.format(w=f'w{a}_{b}', y=f'acc{m}')}"]
        for m in range(count):
            step += [f"    x0 = acc{m}"]
            for n, operand in enumerate(epilogue.operands):
                if operand.kind == "pixel":
                    step += [f"    x{n + 1} = loadm_{operand.dtype}(q{n} + {m} * e{n}_w, left)"]
                elif operand.kind == "scalar":
                    step += [f"    x{n + 1} = splat_{operand.dtype}(q{n} + {m} * e{n}_w)"]
            step += ["    " + line for line in lines]
            step += [f"    storem_{epilogue.out}(q + {m} * y_w, {result}, left)"]
        step += [f"    j += {count}"]
        src += [" " * 12 + line for line in step]
    src += ["            k += VL", "        row += 1", "    return 0", ""]
    source = "\n".join(src).replace("x_step", f"({sw} * x_w)")
    return Kernel(name, source, frame)


def word_rows(kh: int, acc: str) -> list[range]:
    """The filter's rows whose taps are in one word: one, or four bytes."""
    each = 1 if acc == "f32" else 4
    return [range(a, min(a + each, kh)) for a in range(0, kh, each)]


class Depthwise(TiledConvolution):
    """GroupConvolution with one input and one output channel in each group."""

    channel_axis = 1
    odd = 0  # words go along rows

    def make_kernel(self, names: str) -> Kernel:
        kh, kw = ([1, *self.kernel_size])[-2:]
        sw = (self.attrs["strides"] or (1,))[-1]
        dw = (self.attrs["dilations"] or (1,))[-1]
        name = f"depthwise_{self.data.dtype}_{kh}x{kw}_{self.isa.name}{'_' + names if names else ''}"
        return depthwise_kernel(
            name, self.epilogue, (kh, kw, sw, dw), PIXELS[self.isa.name], self.data.dtype, self.form.acc
        )

    def pack(self, constants: Constants) -> None:
        self.place_operands(constants)
        lanes = self.isa.lanes
        kh, kw = ([1, *self.kernel_size])[-2:]
        blocks, words = ceil_div(self.groups, lanes), len(word_rows(kh, self.form.acc))
        each, dtype = (4, np.int8) if self.form.acc == "i32" else (1, np.float32)
        memory = aligned_bytes(blocks * words * kw * lanes * 4).view(dtype)
        packed = memory.reshape(blocks, words, kw, lanes, each)
        by_channel = np.zeros((blocks * lanes, words * each, kw), dtype)
        by_channel[: self.groups, :kh] = self.filters.reshape(self.groups, kh, kw)
        split_up = by_channel.reshape(blocks, lanes, words, each, kw)
        packed[...] = split_up.transpose(0, 2, 4, 1, 3)  # block, row of words, column, channel, tap in a word
        self.weights_at = constants.place(packed, (self, "weights")).offset
        bias = np.zeros(blocks * lanes, numpy_dtype(self.form.acc))
        bias[: self.groups] = 0 if self.bias is None else self.bias
        self.bias_at = constants.place(bias, (self, "bias")).offset

    def plan(self, planner: Planner) -> None:
        shape, out = planner.shape(self.data), planner.shape(self.out)
        strides, dilations, begin, _ = self.window(shape[2:])
        x = planner.with_halo(self.data, self.halo(shape[2:]))
        y = planner.channels_last_output(self.out, over=self.over(planner, x))
        if not y.count:
            return
        flat = len(shape) == 3
        x_h, x_w = (0, x.strides[2]) if flat else x.strides[2:]
        sh, dh, ph = (1, 1, 0) if flat else (strides[0], dilations[0], begin[0])
        oh, ow = (1, out[2]) if flat else out[2:]
        taps = int(np.prod(self.kernel_size))
        rows = out[0] * oh
        per_chunk = split(rows, ow * self.groups * taps)
        values: dict[str, Any] = {
            "x": x.ptr + (-ph * x_h - begin[-1] * x_w),
            "w": planner.constants.at(self.weights_at), "b": planner.constants.at(self.bias_at),
            "y": y.ptr, "x_n": x.strides[0], "x_i": sh * x_h, "x_a": dh * x_h, "x_w": x_w, "oh": oh, "ow": ow,
            "c": self.groups, "rows": rows, "per_chunk": per_chunk,
        }  # fmt: skip
        axes = (0, None, 2) if flat else (0, 2, 3)
        values |= dict(zip(("y_n", "y_h", "y_w"), self.along(y, axes), strict=True))
        operands, read = self.operand_values(planner, axes)
        values |= operands
        reads = [x, *read]
        y_n, y_h, y_w = (values[name] for name in ("y_n", "y_h", "y_w"))
        row = Piece(y.ptr, (y_n, y_h), (ow, self.groups), (y_w, y.itemsize), y.itemsize)
        touches = Rows((out[0], oh), per_chunk, (), [row])
        chunks, flops = ceil_div(rows, per_chunk), 2.0 * y.count * taps
        planner.step(self.kernel, values, chunks, reads, [y], flops, touches=touches)


def is_depthwise(group: Group) -> bool:
    """True for [G, 1, 1, ...] filters of at most 49 taps: more would not be registers but code."""
    assert group.anchor is not None
    shape = group.anchor.inputs[1].shape
    return (
        group.anchor.op.name == "GroupConvolution"
        and tuple(shape[1:3]) == (1, 1)
        and int(np.prod(shape[3:])) <= 49
        and shape[0] >= host_isa().lanes // 2
    )
