"""Native Fourier transforms of any length. Each lane of a vector has its own signal.

A chunk transforms one or more vectors of signals. The method is Stockham's algorithm between two buffers in
scratch memory, in stages of radix 4, 2, 3, 5 and of any other prime. With n elements left in each of s
interleaved parts, a stage of radix r computes for a part

    a_j = x[p + j n/r]      b_k = (sum over j of a_j w_r^(j k)) w_n^(p k)       w_m = exp(-2 pi i / m)

A few signals would leave lanes unused. So a long signal is treated as a matrix [n1, n2]. Its columns are
transformed and multiplied by w_n^(k1 j2), and then its rows, which gives element k1 + n1 k2.

The inverse is the transform with real and imaginary parts exchanged, before and after. The imaginary parts of
real signals are neither loaded nor stored. A real result is computed from half of its transform.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import numpy_dtype
from ovjit.planning.lower import Group, Lowering, NotNative, Planner, View, launch, product
from ovjit.records import NamedTuple
from ovjit_ops.fourier.axes import checked_frames, transform_axes

#: Maximum stages of a transform: 2^40 elements.
STAGES = 40
_STEPS = Table(2 * STAGES)
#: A transform with a larger prime factor runs by the reference: a stage takes r^2 steps per part.
LARGEST_PRIME = 1000
#: A longer signal runs by the reference, too: the table has a twiddle per element.
LONGEST = 1 << 26
#: Signals of at least this length are split in two dimensions if there are fewer than half a vector of them.
SPLIT_FROM = 64
#: Longer signals are always split: the lanes' scratch memory would exceed the caches.
SPLIT_ALWAYS = 4096
#: The form of the input: complex, real, or the half of a transform that determines a real signal.
COMPLEX, REAL, HALF = "complex", "real", "half"


@functools.cache
def factors(n: int) -> tuple[int, ...]:
    """The radices of the stages: 4 before 2, 3 and 5, then other primes in ascending order."""
    out = []
    for r in (4, 2, 3, 5):
        while n % r == 0:
            out.append(r)
            n //= r
    r = 7
    while n > 1:
        if r * r > n:
            r = n
        while n % r == 0:
            out.append(r)
            n //= r
        r += 2
    return tuple(out)


@functools.lru_cache(256)
def stage_tables(n: int, dtype: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """(twiddles of all stages as [cos, sin] pairs, index of the first pair of each stage).

    A stage has w_n^(p k) for every p and k = 1 .. r - 1. For a radix above 5, the roots w_r^j precede them.
    """
    parts, starts, at, remaining = [], [], 0, n
    for r in factors(n):
        starts.append(at)
        angles = np.outer(np.arange(remaining // r), np.arange(1, r)).reshape(-1) / remaining
        if r > 5:
            angles = np.concatenate([np.arange(r) / r, angles])
        turns = -2j * np.pi * angles
        pairs = np.exp(turns)
        parts.append(np.stack([pairs.real, pairs.imag], 1))
        at += len(pairs)
        remaining //= r
    table = np.concatenate(parts) if parts else np.zeros((1, 2))
    return np.ascontiguousarray(table, numpy_dtype(dtype)), tuple(starts)


@inline
def load_signal(p, a, n, n_in, x_n, x_l, x_im, window, width, m, T, loading, windowed):
    """Load `m` signals, one a lane, to `a` as [n, real and imaginary part, lanes], of `width` bytes for each
    n. Signals begin at p; x_n, x_l and x_im are the bytes between elements, lanes and parts. Elements from
    `n_in` on are zeros. `loading`: REAL signals, or the HALF of a symmetric spectrum. If `windowed`, they are
    multiplied by `window`."""
    zero = const[T](0)
    for k in range(n):
        at = k
        if loading == HALF and k > n // 2:
            at = n - k
        re = zero
        im = zero
        if at < n_in:
            if x_l == SIZE[T]:
                re = loadm[T](p + at * x_n, m)
                if loading != REAL:
                    im = loadm[T](p + at * x_n + x_im, m)
            else:
                re = gather[T](p + at * x_n, x_l, m)
                if loading != REAL:
                    im = gather[T](p + at * x_n + x_im, x_l, m)
        if loading == HALF:  # always an inverse
            if k > n // 2:
                im = zero - im
            one = re
            re = im
            im = one
        if windowed:
            re = re * splat[T](window + k * SIZE[T])
        store[T](a + k * width, re)
        store[T](a + k * width + width // 2, im)


@inline
def four(xr, xi, er, ei, fr, fi, br, bi):
    """The butterfly of radix 4: sums and differences only."""
    for g in static_range(2):
        er[g] = xr[g] + xr[g + 2]
        ei[g] = xi[g] + xi[g + 2]
        fr[g] = xr[g] - xr[g + 2]
        fi[g] = xi[g] - xi[g + 2]
    br[0] = er[0] + er[1]
    bi[0] = ei[0] + ei[1]
    br[2] = er[0] - er[1]
    bi[2] = ei[0] - ei[1]
    br[1] = fr[0] + fi[1]
    bi[1] = fi[0] - fr[1]
    br[3] = fr[0] - fi[1]
    bi[3] = fi[0] + fr[1]


@inline
def butterflies(a, b, tw, each, parts, hop, out, width, radix, T):
    """A stage of radix 2, 3, 4 or 5 from the signals at `a` to `b`: `each` butterflies of `parts` vectors
    each. `tw`: the stage's twiddles. `hop`, `out`: bytes between the inputs, and between the outputs, of a
    butterfly. A complex vector takes `width` bytes, real parts first."""
    xr, xi, er, ei, fr, fi, br, bi, c, s = registers()
    zero = const[T](0)
    for k in range(each):
        for g in static_range(1, radix):
            c[g] = splat[T](tw + (k * (radix - 1) + (g - 1)) * (2 * SIZE[T]))
            s[g] = splat[T](tw + (k * (radix - 1) + (g - 1)) * (2 * SIZE[T]) + SIZE[T])
        u = a + k * parts * width
        v = b + k * radix * parts * width
        for _o in range(parts):
            for g in static_range(radix):
                xr[g] = load[T](u + g * hop)
                xi[g] = load[T](u + g * hop + width // 2)
            if radix == 2:
                br[0] = xr[0] + xr[1]
                bi[0] = xi[0] + xi[1]
                br[1] = xr[0] - xr[1]
                bi[1] = xi[0] - xi[1]
            elif radix == 4:
                four(xr, xi, er, ei, fr, fi, br, bi)
            else:  # roots are symmetric: cosines multiply x_g + x_(r-g), sines x_g - x_(r-g)
                br[0] = xr[0]
                bi[0] = xi[0]
                for g in static_range(1, (radix + 1) // 2):
                    er[g] = xr[g] + xr[radix - g]
                    ei[g] = xi[g] + xi[radix - g]
                    fr[g] = xr[g] - xr[radix - g]
                    fi[g] = xi[g] - xi[radix - g]
                    br[0] = br[0] + er[g]
                    bi[0] = bi[0] + ei[g]
                for h in static_range(1, (radix + 1) // 2):
                    re = xr[0]
                    im = xi[0]
                    sr = zero
                    si = zero
                    for g in static_range(1, (radix + 1) // 2):
                        re = fma(const[T](math.cos(2 * math.pi * g * h / radix)), er[g], re)
                        im = fma(const[T](math.cos(2 * math.pi * g * h / radix)), ei[g], im)
                        sr = fma(const[T](math.sin(2 * math.pi * g * h / radix)), fi[g], sr)
                        si = fma(const[T](math.sin(2 * math.pi * g * h / radix)), fr[g], si)
                    br[h] = re + sr
                    bi[h] = im - si
                    br[radix - h] = re - sr
                    bi[radix - h] = im + si
            store[T](v, br[0])
            store[T](v + width // 2, bi[0])
            for g in static_range(1, radix):
                store[T](v + g * out, fma(br[g], c[g], -(bi[g] * s[g])))
                store[T](v + g * out + width // 2, fma(br[g], s[g], bi[g] * c[g]))
            u += width
            v += width


@inline
def long_sums(a, b, tw, each, parts, hop, out, width, r, T):
    """A stage of another radix r: r sums of r products, with roots from the table. Other arguments as in
    `butterflies`."""
    zero = const[T](0)
    for k in range(each):
        for o in range(parts):
            u = a + (k * parts + o) * width
            v = b + (k * r * parts + o) * width
            for g in range(r):
                re = zero
                im = zero
                e = 0
                t = u
                for _h in range(r):
                    cos = splat[T](tw + e * (2 * SIZE[T]))
                    sin = splat[T](tw + e * (2 * SIZE[T]) + SIZE[T])
                    one = load[T](t)
                    other = load[T](t + width // 2)
                    re = fma(one, cos, fma(-other, sin, re))
                    im = fma(one, sin, fma(other, cos, im))
                    t += hop
                    e += g
                    if e >= r:
                        e -= r
                if g > 0:
                    w = tw + (r + k * (r - 1) + g - 1) * (2 * SIZE[T])
                    cos = splat[T](w)
                    sin = splat[T](w + SIZE[T])
                    one = fma(re, cos, -(im * sin))
                    im = fma(re, sin, im * cos)
                    re = one
                store[T](v, re)
                store[T](v + width // 2, im)
                v += out


@inline
def store_signal(
    a, q, n_out, y_n, y_l, y_im, turns, scale, lanes, j, width, m, T, real_out, twiddled
):  # fmt: skip
    factor = splat[T](scale)
    for k in range(n_out):
        re = load[T](a + k * width) * factor
        im = load[T](a + k * width + width // 2) * factor
        if twiddled:
            w = turns + (k * 2 * lanes + j) * SIZE[T]
            cos = loadm[T](w, m)
            sin = loadm[T](w + lanes * SIZE[T], m)
            one = fma(re, cos, -(im * sin))
            im = fma(re, sin, im * cos)
            re = one
        if real_out:  # real and imaginary parts are exchanged
            re = im
        store_spaced(q + k * y_n, y_l, re, m, T)
        if not real_out:
            store_spaced(q + k * y_n + y_im, y_l, im, m, T)


class FftTables(NamedTuple):
    """Roots of unity, the factor of results, a window, and twiddles of a split transform."""

    table: Ptr
    scale: Ptr
    window: Ptr
    turns: Ptr


@kernel(over="o lane/VL", x="o n part lane", y="o bin side lane", tables=FftTables)
def fft(
    x: Tensor, y: Tensor, tables, n, stages, steps=_STEPS, *, T, loading, real_out, windowed, twiddled,
):  # fmt: skip
    """Transforms of n elements, of which x has the first ones, zero-padded. x and y have real and imaginary
    parts, or real parts only. `twiddled`: results are multiplied by the table [n, 2, lanes] at `turns`."""
    width = 2 * VL * SIZE[T]
    for _, j, p, q in items(x, y):
        m = x.size.lane - j
        a = scratch
        b = scratch + n * width
        load_signal(
            p, a, n, x.size.n, x.stride.n, x.stride.lane, x.stride.part, tables.window, width, m, T, loading,
            windowed,
        )  # fmt: skip
        remaining = n
        parts = 1
        for i in range(stages):
            r = ld(steps, 2 * i)
            tw = tables.table + ld(steps, 2 * i + 1) * (2 * SIZE[T])
            each = remaining // r
            hop = each * parts * width
            out = parts * width
            for radix in (4, 2, 3, 5):
                if r == radix:
                    butterflies(a, b, tw, each, parts, hop, out, width, radix, T)
            if r > 5:
                long_sums(a, b, tw, each, parts, hop, out, width, r, T)
            t = a
            a = b
            b = t
            remaining = each
            parts = parts * r
        store_signal(
            a, q, y.size.bin, y.stride.bin, y.stride.lane, y.stride.side, tables.turns, tables.scale,
            x.size.lane, j, width, m, T, real_out, twiddled,
        )  # fmt: skip


def split_length(n: int) -> tuple[int, int] | None:
    """The two factors of n that are closest to each other; None if the smaller one is below 8."""
    for a in range(math.isqrt(n), 7, -1):
        if n % a == 0:
            return a, n // a
    return None


class Fourier(Lowering):
    """DFT, IDFT, RDFT and IRDFT of f32 and f64."""

    constant_inputs = None

    def set_up(self) -> None:
        self.kind = self.node.op.name
        self.dtype = self.out.dtype
        self.size = SIZE[self.dtype]
        kinds = {
            "DFT": [(COMPLEX, False, False)], "IDFT": [(COMPLEX, False, False)],
            "RDFT": [(REAL, False, False), (COMPLEX, False, False)],
            "IRDFT": [(COMPLEX, False, False), (HALF, True, False)],
            "STFT": [(REAL, False, True)],
        }  # fmt: skip
        self.kernels = tuple(
            fft(T=self.dtype, loading=loading, real_out=real, windowed=windowed, twiddled=twiddled)
            for loading, real, windowed in kinds[self.kind]
            for twiddled in (False, True)
            if not twiddled or not windowed
        )
        last = {"loading": COMPLEX, "real_out": self.kind == "IRDFT"}
        self.kernels += (fft(T=self.dtype, **last, windowed=False, twiddled=False),)

    def plan(self, planner: Planner) -> None:
        numbers = [planner.shape_value(v) for v in self.node.inputs[1:]]
        shape = planner.shape(self.node.inputs[0])
        lead = shape if self.kind == "RDFT" else shape[:-1]
        sizes = numbers[1].reshape(-1).tolist() if len(numbers) > 1 else None
        axes, signal, _ = transform_axes(self.kind, lead, numbers[0].reshape(-1).tolist(), sizes)
        lengths = [int(n) for n in signal if isinstance(n, int)]  # specialized: the radices depend on them
        if not product(planner.shape(self.out)) or not axes or not all(fits(n) for n in lengths):
            raise NotNative
        view = planner.view(self.node.inputs[0])
        passes = list(zip(axes, lengths, strict=True))
        if self.kind == "RDFT":
            passes = [passes[-1], *passes[:-1]]
        for i, (axis, n) in enumerate(passes):
            loading, real_out, n_out = COMPLEX, False, n
            if self.kind == "RDFT" and i == 0:
                loading, n_out = REAL, n // 2 + 1
            if self.kind == "IRDFT" and i == len(passes) - 1:
                loading, real_out = HALF, True
            view = self._transform(planner, view, axis, n, n_out, loading, real_out)
        self._copy_to_output(planner, view)

    def _copy_to_output(self, planner: Planner, view: View) -> None:
        planner.copy_step(view, planner.output(self.out), "")

    def _transform(
        self, planner: Planner, view: View, axis: int, n: int, n_out: int, loading: str, real_out: bool
    ) -> View:
        """Transform one axis. Returns a view of new memory."""
        inverse = self.kind[0] == "I"
        others = [a for a in range(len(view.shape) - (loading != REAL)) if a != axis]
        lanes = product([view.shape[a] for a in others])
        n_in = view.shape[axis]
        scale = 1 / n if inverse else 1.0
        direct = self._in_place(planner, view, axis, others, n_out, loading, real_out)
        if direct is not None:
            first, target, result = direct
            self._pass(planner, first, target, n, scale, inverse, loading, real_out)
            return result
        comps, parts = ((), 1) if loading == REAL else ((len(view.shape) - 1,), 2)
        if lanes >= self.target.lanes // 2 or not (split_length(n) and n >= SPLIT_FROM):
            # the other dimensions are made contiguous, so that lanes are loaded as a vector
            first = self._arrange(planner, view, (axis, *comps, *others)).as_shape((1, n_in, parts, lanes))
        else:
            source = self._arrange(planner, view, (*others, axis, *comps))
            first = source.as_shape((1, lanes, n_in, parts)).permute((0, 2, 3, 1))
        result, target = self._result(planner, view, (), axis, others, n_out, real_out)
        pair = split_length(n)
        long = n > SPLIT_ALWAYS or lanes < self.target.lanes // 2
        if pair and n >= SPLIT_FROM and long and loading == COMPLEX and n_in >= n:
            self._split(planner, first, target, pair, scale, inverse)
        else:
            self._pass(planner, first, target, n, scale, inverse, loading, real_out)
        return result

    def _in_place(
        self, planner: Planner, view: View, axis: int, others: Sequence[int], n_out: int, loading: str,
        real_out: bool,
    ) -> tuple[View, View, View] | None:  # fmt: skip
        """The pass that reads the view in place: dimensions after the axis are lanes, those before it the
        outer loop.

        Returns (source, target, target in the order of dimensions); None if strides do not allow it.
        """
        inner = [a for a in others if a > axis]
        before = [a for a in others if a < axis]
        size = self.size
        per = size if loading == REAL else 2 * size
        lanes, outer = (product([view.shape[a] for a in part]) for part in (inner, before))
        if lanes < self.target.lanes or not _are_contiguous(view, inner) or not _are_contiguous(view, before):
            return None
        if view.strides[inner[-1]] != per or (loading != REAL and view.strides[-1] != size):
            return None
        result, target = self._result(planner, view, before, axis, inner, n_out, real_out)
        step = view.strides[before[-1]] if before else 0
        strides = (step, view.strides[axis], size, per)
        shape = (outer, view.shape[axis], per // size, lanes)
        return View(view.buffer, shape, strides, size, view.offset), target, result

    def _arrange(self, planner: Planner, view: View, order: Sequence[int]) -> View:
        """The view with its dimensions in this order, row-major: a copy if it is not contiguous in it."""
        shape = [view.shape[a] for a in order]
        permuted = view.permute(order)
        if permuted.is_contiguous:
            return permuted
        copy = planner.allocate(shape, self.size)
        planner.copy_step(permuted, copy, "rows of the kernel are contiguous")
        return copy

    def _result(
        self, planner: Planner, view: View, before: Sequence[int], axis: int, inner: Sequence[int],
        n_out: int, real: bool,
    ) -> tuple[View, View]:  # fmt: skip
        """New memory [before, n_out, 2, behind], without the 2 if `real`. Returns it as a view in the order
        of dimensions, and as [outer, n_out, 1 or 2, lanes]."""
        lying = [*before, axis, *([] if real else [len(view.shape)]), *inner]
        extents = {a: view.shape[a] for a in (*before, *inner)} | {axis: n_out, len(view.shape): 2}
        memory = planner.allocate([extents[a] for a in lying], self.size)
        result = memory.permute([lying.index(a) for a in sorted(lying)])
        outer, lanes = (product([extents[a] for a in part]) for part in (before, inner))
        return result, memory.as_shape((outer, n_out, 1 if real else 2, lanes))

    def _split(
        self, planner: Planner, x: View, y: View, pair: tuple[int, int], scale: float, inverse: bool
    ) -> None:
        """Add the steps of transforms of n1 n2 elements: columns, then rows. The lanes are those of one
        signal."""
        n1, n2 = pair
        between = planner.allocate((x.shape[3], n1, 2, n2), self.size)
        turns = np.exp(-2j * np.pi * np.outer(np.arange(n1), np.arange(n2)) / (n1 * n2))
        table = np.stack([turns.real, turns.imag], 1).astype(numpy_dtype(self.dtype))
        self._pass(planner, _columns(x, n1, n2), between, n1, 1.0, inverse, COMPLEX, False, table)
        rows, target = between.permute((0, 3, 2, 1)), _columns(y, n2, n1)
        self._pass(planner, rows, target, n2, scale, inverse, COMPLEX, False)

    def _pass(
        self, planner: Planner, x: View, y: View, n: int, scale: float, inverse: bool, loading: str,
        real_out: bool, turns: np.ndarray | None = None, window: View | None = None,
    ) -> None:  # fmt: skip
        """Add the step that transforms x [outer, elements, real and imaginary part, lanes] into y."""
        kernel = fft(
            T=self.dtype, loading=loading, real_out=real_out, windowed=window is not None,
            twiddled=turns is not None,
        )  # fmt: skip
        table, starts = stage_tables(n, self.dtype)
        data, radices = planner.data, factors(n)
        if inverse and loading == COMPLEX:  # exchange both parts
            x = x.slice(2, 1, 2, -1)
        if inverse and not real_out:
            y = y.slice(2, 1, 2, -1)
        tables: list[Any] = [
            data.view(table, self.dtype).ptr,
            data.view(np.full(1, scale, table.dtype), self.dtype).ptr,
            None if window is None else window.ptr,
            None if turns is None else data.view(turns, self.dtype).ptr,
        ]
        stages = [(radices[i], starts[i]) if i < len(radices) else (1, 0) for i in range(STAGES)]
        steps = {f"steps{i}": number for i, number in enumerate(chain.from_iterable(stages))}
        outer, n_in, _, lanes = x.shape
        planner.need_scratch(n * 4 * self.target.lanes * self.size)
        launch(
            planner, kernel, {"x": x.slice(1, 0, min(n_in, n)), "y": y}, ("y",), n=n, stages=len(radices),
            work=n * self.target.lanes * (8 + 4 * len(radices)), reads=[] if window is None else [window],
            flops=int(5.0 * n * math.log2(max(n, 2))) * lanes * outer, tables=FftTables(*tables), **steps,
        )  # fmt: skip


class Frames(Fourier):
    """STFT: frames are loaded from the signal in place, and multiplied by the window."""

    def plan(self, planner: Planner) -> None:
        n, step = (int(planner.shape_value(v).reshape(-1)[0]) for v in self.node.inputs[2:])
        signal = planner.contiguous(self.node.inputs[0])
        window = planner.contiguous(self.node.inputs[1])
        length = signal.shape[-1]
        checked_frames(n, step, window.shape[0], length)
        step = min(step, length)  # a larger step also gives one frame
        if not product(planner.shape(self.out)) or not fits(n):
            raise NotNative
        if window.shape[0] < n:
            padded = planner.data.view(np.zeros(n, numpy_dtype(self.dtype)), self.dtype)
            full_window = planner.allocate((n,), self.size)
            planner.copy_step(padded, full_window, "")
            planner.copy_step(window, full_window.slice(0, (n - window.shape[0]) // 2, window.shape[0]), "")
            window = full_window
        batch = product(signal.shape[:-1])
        frames, bins = 1 + (length - n) // step, n // 2 + 1
        size = self.size
        strides = (length * size, size, size, step * size)
        source = View(signal.buffer, (batch, n, 1, frames), strides, size, signal.offset)
        memory = planner.allocate((batch, bins, 2, frames), size)
        self._pass(planner, source, memory, n, 1.0, False, REAL, False, None, window)
        transposed = self.node.attrs["transpose_frames"]
        result = memory.permute((0, 1, 3, 2) if transposed else (0, 3, 1, 2))
        if len(signal.shape) == 1:
            result = View(result.buffer, result.shape[1:], result.strides[1:], size, result.offset)
        self._copy_to_output(planner, result)


def _columns(signals: View, n1: int, n2: int) -> View:
    """Signals [1, n1 n2, 2, lanes] as matrices [lanes, n1, 2, n2]."""
    _, each, part, lane = signals.strides
    shape = (signals.shape[3], n1, 2, n2)
    return signals.as_strided(shape, (lane, each * n2, part, each))


def _are_contiguous(view: View, axes: Sequence[int]) -> bool:
    """True if these dimensions, slowest first, can be merged into one: none has a gap after it."""
    pairs = zip(axes, axes[1:], strict=False)
    return all(view.strides[a] == view.strides[b] * view.shape[b] for a, b in pairs)


def fits(n: int) -> bool:
    """Whether the length and its prime factors are within the limits."""
    return 0 < n <= LONGEST and max(factors(n), default=1) <= LARGEST_PRIME


def lower_fourier(group: Group) -> Lowering | None:
    """The lowering of f32 and f64; None for other types. f16 and bf16 are converted to f32 before."""
    node = group.last
    if node.output.dtype not in ("f32", "f64") or node.inputs[0].shape is None:
        return None
    return (Frames if node.op.name == "STFT" else Fourier)(group)
