"""Native Fourier transforms of any length, vectors across signals.

A chunk takes as many signals as a vector has lanes (or several times as many) and transforms each in its own
lane: Stockham's algorithm between two halves of the scratch memory, in stages of radix 4, 2, 3, 5 and any
other prime. With n elements left in each of s interleaved parts, a stage of radix r makes of a part's

    a_j = x[p + j n/r]      b_k = (sum over j of a_j w_r^(j k)) w_n^(p k)       w_m = exp(-2 pi i / m)

A signal alone would leave the lanes empty: a long one is seen as a matrix [n1, n2], whose columns are
transformed, multiplied by w_n^(k1 j2), then its rows, which makes element k1 + n1 k2.

The inverse is the transform with real and imaginary parts exchanged, before and after. Real signals have no
imaginary part to load; a result that is real has none to store, and is loaded from half of its transform.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.cpu.isa import host_isa
from ovjit.codegen.elementwise import SIZE
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Host, Lowering, place_constants
from ovjit.compiler.plan import Planner, ceil_div, split
from ovjit.compiler.views import View, product
from ovjit_ops.fourier.axes import checked_frames, transform_axes

#: Stages of a transform at most: 2^40 elements.
STAGES = 40
#: A prime factor above this makes the transform one of the reference's, as its stage takes r^2 steps.
LARGEST_PRIME = 1000
#: A longer signal is the reference's too: it has a twiddle for every element.
LONGEST = 1 << 26
#: Signals from this length on are split in two dimensions when there are too few to fill a vector's lanes.
SPLIT_FROM = 64
#: And from this one on in any case: the lanes' scratch memory would outgrow the caches.
SPLIT_ALWAYS = 4096
#: How the elements are loaded: complex, real, or from the half that a real signal's transform needs.
COMPLEX, REAL, HALF = "complex", "real", "half"


@functools.cache
def factors(n: int) -> tuple[int, ...]:
    """The radices of the stages, 4 before 2, then primes as they rise."""
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
    """(twiddles of all stages as [cos, sin] pairs, where each stage's begin in pairs).

    A stage has w_n^(p k) for every p and k = 1 .. r - 1; a radix that has no code of its own has the roots
    w_r^j before them.
    """
    parts, starts, at, left = [], [], 0, n
    for r in factors(n):
        starts.append(at)
        angles = np.outer(np.arange(left // r), np.arange(1, r)).reshape(-1) / left
        if r > 5:
            angles = np.concatenate([np.arange(r) / r, angles])
        turns = -2j * np.pi * angles
        pairs = np.exp(turns)
        parts.append(np.stack([pairs.real, pairs.imag], 1))
        at += len(pairs)
        left //= r
    table = np.concatenate(parts) if parts else np.zeros((1, 2))
    return np.ascontiguousarray(table, np.float32 if dtype == "f32" else np.float64), tuple(starts)


@functools.cache
def fft_kernel(dtype: str, loading: str, real_out: bool, windowed: bool, turned: bool) -> Kernel:
    """`turned`: results are multiplied by a table [n, 2, lanes] before they are stored."""
    size = SIZE[dtype]
    frame = Frame().pointers("x", "y", "table", "scale")
    frame.pointers(*(["window"] if windowed else []), *(["turns"] if turned else []))
    frame.integers("n", "n_in", "n_out", "lanes", "blocks", "items", "per_chunk", "stages")
    frame.integers("x_n", "x_l", "x_re", "x_im", "y_n", "y_l", "y_re", "y_im")
    for d in range(2):
        frame.integers(f"outer{d}", f"x_{d}", f"y_{d}")
    read = frame.prologue()
    slots = sum(1 + pointer for _, pointer in frame.fields)
    for i in range(STAGES):
        frame.integers(f"radix{i}", f"start{i}")
    pair = f"2 * VL * {size}"
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", read]
    src += [f"    zero = const_{dtype}(0)", f"    factor = splat_{dtype}(scale)", f"    width = {pair}"]
    src += [
        "    item = chunk * per_chunk",
        "    stop = imin(item + per_chunk, items)",
        "    while item < stop:",
    ]
    src += ["        j = (item % blocks) * VL", "        rest = item // blocks", "        m = lanes - j"]
    src += ["        p = x + (rest // outer1) * x_0 + (rest % outer1) * x_1 + j * x_l"]
    src += ["        q = y + (rest // outer1) * y_0 + (rest % outer1) * y_1 + j * y_l"]
    src += ["        a = scratch", "        b = scratch + n * width"]
    src += _load(dtype, loading, windowed)
    src += ["        left = n", "        parts = 1", "        i = 0", "        while i < stages:"]
    src += [
        f"            r = ld(args, {slots} + 2 * i)",
        f"            tw = table + ld(args, {slots + 1} + 2 * i) * {2 * size}",
    ]
    src += [
        "            each = left // r",
        "            hop = each * parts * width",
        "            out = parts * width",
    ]
    src += _stages(dtype)
    src += ["            t = a", "            a = b", "            b = t", "            left = each"]
    src += ["            parts = parts * r", "            i += 1"]
    src += _store(dtype, real_out, turned)
    src += ["        item += 1", "    return 0", ""]
    words = [
        loading,
        *(["window"] if windowed else []),
        *(["turned"] if turned else []),
        *(["real"] if real_out else []),
    ]
    return Kernel(f"fft_{dtype}_{'_'.join(words)}", "\n".join(src), frame)


def _load(dtype: str, loading: str, windowed: bool) -> list[str]:
    """Elements into scratch, real parts then imaginary ones, zeros behind the end of the signal."""
    size = SIZE[dtype]
    out = [
        "        k = 0",
        "        while k < n:",
        "            at = k",
        "            re = zero",
        "            im = zero",
    ]
    if loading == HALF:
        out += ["            if k > n // 2:", "                at = n - k"]
    out += ["            if at < n_in:", f"                if x_l == {size}:"]
    parts = ("re",) if loading == REAL else ("re", "im")
    out += [f"                    {part} = loadm_{dtype}(p + at * x_n + x_{part}, m)" for part in parts]
    out += ["                else:"]
    out += [f"                    {part} = gather_{dtype}(p + at * x_n + x_{part}, x_l, m)" for part in parts]
    if loading == HALF:
        out += ["            if k > n // 2:", "                im = sub(zero, im)"]
        out += ["            t = re", "            re = im", "            im = t"]  # it is always an inverse
    if windowed:
        out += [f"            re = mul(re, splat_{dtype}(window + k * {size}))"]
    out += [
        f"            store_{dtype}(a + k * width, re)",
        f"            store_{dtype}(a + k * width + width // 2, im)",
    ]
    return [*out, "            k += 1"]


def _store(dtype: str, real_out: bool, turned: bool) -> list[str]:
    size = SIZE[dtype]
    out = [
        "        k = 0",
        "        while k < n_out:",
        f"            re = mul(load_{dtype}(a + k * width), factor)",
    ]
    out += [f"            im = mul(load_{dtype}(a + k * width + width // 2), factor)"]
    if turned:
        out += [
            f"            w = turns + (k * 2 * lanes + j) * {size}",
            f"            c = loadm_{dtype}(w, m)",
        ]
        out += [
            f"            s = loadm_{dtype}(w + lanes * {size}, m)",
            "            t = sub(mul(re, c), mul(im, s))",
        ]
        out += ["            im = fma(re, s, mul(im, c))", "            re = t"]
    if real_out:  # real and imaginary parts were exchanged
        out += ["            re = im"]
    parts = ("re",) if real_out else ("re", "im")
    out += [f"            if y_l == {size}:"]
    out += [f"                storem_{dtype}(q + k * y_n + y_{part}, {part}, m)" for part in parts]
    out += ["            else:"]
    out += [f"                scatter_{dtype}(q + k * y_n + y_{part}, y_l, {part}, m)" for part in parts]
    return [*out, "            k += 1"]


def _stages(dtype: str) -> list[str]:
    """One stage: for every p and every part the butterfly of its radix."""
    out: list[str] = []
    for word, r in (("if", 4), ("elif", 2), ("elif", 3), ("elif", 5)):
        out += [f"            {word} r == {r}:", *_butterfly(dtype, r)]
    return [*out, "            else:", *_any_radix(dtype)]


def _butterfly(dtype: str, r: int) -> list[str]:
    """Loops over p and the parts, with the sums of radix r written out."""
    size = SIZE[dtype]
    out = ["k = 0", "while k < each:"]
    for i in range(1, r):
        at = f"tw + (k * {r - 1} + {i - 1}) * {2 * size}"
        out += [f"    c{i} = splat_{dtype}({at})", f"    s{i} = splat_{dtype}({at} + {size})"]
    out += [
        "    u = a + k * parts * width",
        f"    v = b + k * {r} * parts * width",
        "    o = 0",
        "    while o < parts:",
    ]
    for i in range(r):
        out += [
            f"        x{i} = load_{dtype}(u + {i} * hop)",
            f"        y{i} = load_{dtype}(u + {i} * hop + width // 2)",
        ]
    out += ["        " + line for line in _SUMS[r](dtype)]
    out += [f"        store_{dtype}(v, b0)", f"        store_{dtype}(v + width // 2, d0)"]
    for i in range(1, r):
        out += [f"        store_{dtype}(v + {i} * out, sub(mul(b{i}, c{i}), mul(d{i}, s{i})))"]
        out += [f"        store_{dtype}(v + {i} * out + width // 2, fma(b{i}, s{i}, mul(d{i}, c{i})))"]
    out += ["        u += width", "        v += width", "        o += 1", "    k += 1"]
    return [" " * 16 + line for line in out]


def _sums2(dtype: str) -> list[str]:
    return ["b0 = add(x0, x1)", "d0 = add(y0, y1)", "b1 = sub(x0, x1)", "d1 = sub(y0, y1)"]


def _sums4(dtype: str) -> list[str]:
    """b1 = (x0 - x2) - i (x1 - x3), b3 the same with + i"""
    return [
        "e0 = add(x0, x2)", "f0 = add(y0, y2)", "e1 = sub(x0, x2)", "f1 = sub(y0, y2)",
        "e2 = add(x1, x3)", "f2 = add(y1, y3)", "e3 = sub(x1, x3)", "f3 = sub(y1, y3)",
        "b0 = add(e0, e2)", "d0 = add(f0, f2)", "b2 = sub(e0, e2)", "d2 = sub(f0, f2)",
        "b1 = add(e1, f3)", "d1 = sub(f1, e3)", "b3 = sub(e1, f3)", "d3 = add(f1, e3)",
    ]  # fmt: skip


def _odd_sums(r: int, dtype: str) -> list[str]:
    """Odd radices by the symmetry of their roots: a_j + a_(r-j) meets cosines, a_j - a_(r-j) sines."""
    half = (r - 1) // 2
    out = []
    for j in range(1, half + 1):
        out += [f"e{j} = add(x{j}, x{r - j})", f"f{j} = add(y{j}, y{r - j})"]
        out += [f"g{j} = sub(x{j}, x{r - j})", f"h{j} = sub(y{j}, y{r - j})"]
    for name, first, even in (("b0", "x0", "e"), ("d0", "y0", "f")):
        out += [f"{name} = {first}", *(f"{name} = add({name}, {even}{j})" for j in range(1, half + 1))]
    for k in range(1, half + 1):
        out += ["re = x0", "im = y0", f"sr = const_{dtype}(0)", f"si = const_{dtype}(0)"]
        for j in range(1, half + 1):
            c, s = math.cos(2 * math.pi * j * k / r), math.sin(2 * math.pi * j * k / r)
            out += [f"re = fma(const_{dtype}({c!r}), e{j}, re)", f"im = fma(const_{dtype}({c!r}), f{j}, im)"]
            out += [f"sr = fma(const_{dtype}({s!r}), h{j}, sr)", f"si = fma(const_{dtype}({s!r}), g{j}, si)"]
        out += [
            f"b{k} = add(re, sr)",
            f"d{k} = sub(im, si)",
            f"b{r - k} = sub(re, sr)",
            f"d{r - k} = add(im, si)",
        ]
    return out


_SUMS: dict[int, Callable[[str], list[str]]] = {
    2: _sums2,
    3: functools.partial(_odd_sums, 3),
    4: _sums4,
    5: functools.partial(_odd_sums, 5),
}


def _any_radix(dtype: str) -> list[str]:
    """r sums of r products each, with the roots from the table."""
    size = SIZE[dtype]
    text = f"""roots = tw + r * {2 * size}
k = 0
while k < each:
    o = 0
    while o < parts:
        u = a + (k * parts + o) * width
        v = b + (k * r * parts + o) * width
        g = 0
        while g < r:
            re = zero
            im = zero
            h = 0
            e = 0
            t = u
            while h < r:
                c = splat_{dtype}(tw + e * {2 * size})
                s = splat_{dtype}(tw + e * {2 * size} + {size})
                xr = load_{dtype}(t)
                xi = load_{dtype}(t + width // 2)
                re = fma(xr, c, sub(re, mul(xi, s)))
                im = fma(xr, s, fma(xi, c, im))
                t += hop
                e += g
                if e >= r:
                    e -= r
                h += 1
            if g > 0:
                w = roots + (k * (r - 1) + g - 1) * {2 * size}
                c = splat_{dtype}(w)
                s = splat_{dtype}(w + {size})
                xr = sub(mul(re, c), mul(im, s))
                im = fma(re, s, mul(im, c))
                re = xr
            store_{dtype}(v, re)
            store_{dtype}(v + width // 2, im)
            v += out
            g += 1
        o += 1
    k += 1"""
    return [" " * 16 + line for line in text.splitlines()]


class Signals(NamedTuple):
    """Where a transform's elements lie: base view, byte strides of an element, of a lane, of the outer
    dimensions, and byte offsets of real and imaginary part."""

    view: View
    n: int
    lane: int
    outer: tuple[int, int]
    re: int
    im: int


def split_length(n: int) -> tuple[int, int] | None:
    """Two factors of n that are as equal as can be, None where there are none of 8 or more."""
    for a in range(math.isqrt(n), 7, -1):
        if n % a == 0:
            return a, n // a
    return None


class Fourier(Lowering):
    """DFT, IDFT, RDFT, IRDFT and STFT of f32 and f64."""

    def __init__(self, group: Group):
        super().__init__(group)
        self.node = group.last
        self.kind = self.node.op.name
        self.out = self.node.output
        self.dtype = self.out.dtype
        self.size = SIZE[self.dtype]
        kinds = {
            "DFT": [(COMPLEX, False, False)], "IDFT": [(COMPLEX, False, False)],
            "RDFT": [(REAL, False, False), (COMPLEX, False, False)],
            "IRDFT": [(COMPLEX, False, False), (HALF, True, False)],
            "STFT": [(REAL, False, True)],
        }  # fmt: skip
        self.kernels = tuple(
            fft_kernel(self.dtype, loading, real, windowed, turned)
            for loading, real, windowed in kinds[self.kind]
            for turned in (False, True)
            if not turned or not windowed
        ) + (fft_kernel(self.dtype, COMPLEX, self.kind == "IRDFT", False, False),)

    def pack(self, constants: Any) -> None:
        place_constants(constants, self.node.inputs)

    def plan(self, planner: Planner) -> None:
        known = [planner.types[v].value for v in self.node.inputs[1:]]
        if any(k is None for k in known):
            Host(self.group).plan(planner)
            return
        shape = planner.shape(self.node.inputs[0])
        lead = shape if self.kind == "RDFT" else shape[:-1]
        sizes = known[1].reshape(-1).tolist() if len(known) > 1 else None
        axes, signal, _ = transform_axes(self.kind, lead, known[0].reshape(-1).tolist(), sizes)
        lengths = [n for n in signal if isinstance(n, int)]
        if not product(planner.shape(self.out)) or not axes or not all(fits(n) for n in lengths):
            Host(self.group).plan(planner)
            return
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
        self._deliver(planner, view)

    def _deliver(self, planner: Planner, view: View) -> None:
        planner.copy_step(view, planner.output(self.out))

    def _transform(
        self, planner: Planner, view: View, axis: int, n: int, n_out: int, loading: str, real_out: bool
    ) -> View:
        """One axis transformed: a view of new memory in which the other dimensions are adjacent."""
        size, inverse = self.size, self.kind[0] == "I"
        others = [a for a in range(len(view.shape) - (loading != REAL)) if a != axis]
        lanes = product([view.shape[a] for a in others])
        n_in = view.shape[axis]
        scale = 1 / n if inverse else 1.0
        direct = self._in_place(planner, view, axis, others, n_out, loading, real_out)
        if direct is not None:
            first, target, made, lanes, outer = direct
            self._pass(
                planner, first, target, n, n_in, n_out, lanes, outer, scale, inverse, loading, real_out
            )
            return made
        comps = () if loading == REAL else (len(view.shape) - 1,)
        if lanes >= host_isa().lanes // 2 or not (split_length(n) and n >= SPLIT_FROM):
            # the other dimensions adjacent, so that lanes are loaded in one piece
            order = (axis, *comps, *others)
            source = self._arranged(planner, view, order)
            per = lanes * size
            first = Signals(source, per * (1 if loading == REAL else 2), size, (0, 0), 0, per)
        else:
            source = self._arranged(planner, view, (*others, axis, *comps))
            per = size * (1 if loading == REAL else 2)
            first = Signals(source, per, n_in * per, (0, 0), 0, size)
        made, target = self._result(planner, view, axis, others, lanes, n_out, real_out)
        pair = split_length(n)
        long = n > SPLIT_ALWAYS or lanes < host_isa().lanes // 2
        if pair and n >= SPLIT_FROM and long and loading == COMPLEX and n_in >= n:
            self._split(planner, first, target, pair, lanes, scale, inverse)
        else:
            self._pass(planner, first, target, n, n_in, n_out, lanes, 1, scale, inverse, loading, real_out)
        return made

    def _in_place(
        self, planner: Planner, view: View, axis: int, others: Sequence[int], n_out: int, loading: str,
        real_out: bool,
    ) -> tuple[Signals, Signals, View, int, int] | None:  # fmt: skip
        """A pass that reads the view as it lies: dimensions behind the axis are lanes, those before it outer.

        Gives (source, target, its view, lanes, outer); None where strides do not allow it.
        """
        behind = [a for a in others if a > axis]
        before = [a for a in others if a < axis]
        size = self.size
        per = size if loading == REAL else 2 * size
        lanes, outer = (product([view.shape[a] for a in part]) for part in (behind, before))
        if lanes < host_isa().lanes or not _one_run(view, behind) or not _one_run(view, before):
            return None
        if view.strides[behind[-1]] != per or (loading != REAL and view.strides[-1] != size):
            return None
        lead, tail = [view.shape[a] for a in before], [view.shape[a] for a in behind]
        memory = planner.allocate([*lead, n_out, *([] if real_out else [2]), *tail], size)
        k = len(lead)
        order = [*range(k + 1), *range(k + (1 if real_out else 2), len(memory.shape))]
        made = memory.permute([*order, *([] if real_out else [k + 1])])
        step = view.strides[before[-1]] if before else 0
        source = Signals(view, view.strides[axis], per, (0, step), 0, size)
        each = lanes * size * (1 if real_out else 2)
        target = Signals(memory, each, size, (0, n_out * each), 0, lanes * size)
        return source, target, made, lanes, outer

    def _arranged(self, planner: Planner, view: View, order: Sequence[int]) -> View:
        """The view's elements row-major in this order of dimensions; itself where they lie so."""
        shape = [view.shape[a] for a in order]
        permuted = view.permute(order)
        if permuted.is_contiguous:
            return permuted
        made = planner.allocate(shape, self.size)
        planner.copy_step(permuted, made)
        return made

    def _result(
        self,
        planner: Planner,
        view: View,
        axis: int,
        others: Sequence[int],
        lanes: int,
        n_out: int,
        real: bool,
    ) -> tuple[View, Signals]:
        """New memory [n, 2, lanes] (without the 2 when real), as a view in the order of the dimensions."""
        rest = [view.shape[a] for a in others]
        shape = [n_out, *([] if real else [2]), *rest]
        memory = planner.allocate(shape, self.size)
        back = [0] * (len(others) + 1)
        for i, a in enumerate(others):
            back[a] = i + (1 if real else 2)
        back[axis] = 0
        made = memory.permute([*back, *([] if real else [1])])
        per = lanes * self.size
        return made, Signals(memory, per * (1 if real else 2), self.size, (0, 0), 0, per)

    def _split(
        self, planner: Planner, x: Signals, y: Signals, pair: tuple[int, int], lanes: int, scale: float,
        inverse: bool,
    ) -> None:  # fmt: skip
        """A transform of n1 n2 elements by its columns and then its rows, for every signal on its own."""
        n1, n2 = pair
        size = self.size
        between = planner.allocate((lanes, n1, 2, n2), size)
        turns = np.exp(-2j * np.pi * np.outer(np.arange(n1), np.arange(n2)) / (n1 * n2))
        table = np.stack([turns.real, turns.imag], 1).astype(
            np.float32 if self.dtype == "f32" else np.float64
        )
        columns = x._replace(n=x.n * n2, lane=x.n, outer=(0, x.lane))
        middle = Signals(between, 2 * n2 * size, size, (0, n1 * 2 * n2 * size), 0, n2 * size)
        self._pass(planner, columns, middle, n1, n1, n1, n2, lanes, 1.0, inverse, COMPLEX, False, table)
        rows = Signals(between, size, 2 * n2 * size, (0, n1 * 2 * n2 * size), 0, n2 * size)
        target = y._replace(n=y.n * n1, lane=y.n, outer=(0, y.lane))
        self._pass(planner, rows, target, n2, n2, n2, n1, lanes, scale, inverse, COMPLEX, False)

    def _pass(
        self, planner: Planner, x: Signals, y: Signals, n: int, n_in: int, n_out: int, lanes: int, outer: int,
        scale: float, inverse: bool, loading: str, real_out: bool, turns: np.ndarray | None = None,
        window: View | None = None,
    ) -> None:  # fmt: skip
        kernel = fft_kernel(self.dtype, loading, real_out, window is not None, turns is not None)
        table, starts = stage_tables(n, self.dtype)
        numbers = planner.data.view(np.full(1, scale, table.dtype), self.dtype)
        twiddles = planner.data.view(table, self.dtype)
        radices = factors(n)
        width = host_isa().lanes
        blocks = ceil_div(lanes, width)
        items = blocks * outer
        per_chunk = split(items, n * width * (8 + 4 * len(radices)))
        exchanged = inverse and loading == COMPLEX
        out_exchanged = inverse and not real_out
        values: dict[str, Any] = {
            "x": x.view.ptr, "y": y.view.ptr, "table": twiddles.ptr, "scale": numbers.ptr, "n": n,
            "n_in": min(n_in, n), "n_out": n_out, "lanes": lanes, "blocks": blocks, "items": items,
            "per_chunk": per_chunk, "stages": len(radices), "x_n": x.n, "x_l": x.lane,
            "x_re": x.im if exchanged else x.re, "x_im": x.re if exchanged else x.im, "y_n": y.n,
            "y_l": y.lane,
            "y_re": y.im if out_exchanged else y.re, "y_im": y.re if out_exchanged else y.im,
            "outer0": 1, "outer1": outer,
            "x_0": x.outer[0], "x_1": x.outer[1], "y_0": y.outer[0], "y_1": y.outer[1],
        }  # fmt: skip
        reads = [x.view]
        if turns is not None:
            values["turns"] = planner.data.view(turns, self.dtype).ptr
        if window is not None:
            values["window"] = window.ptr
            reads.append(window)
        for i in range(STAGES):
            values[f"radix{i}"], values[f"start{i}"] = (radices[i], starts[i]) if i < len(radices) else (1, 0)
        planner.need_scratch(n * 4 * width * self.size)
        flops = 5.0 * n * math.log2(max(n, 2)) * lanes * outer
        planner.step(kernel, values, ceil_div(items, per_chunk), reads, [y.view], flops)


class Frames(Fourier):
    """STFT: the frames are loaded where they lie in the signal, and multiplied by the window."""

    def plan(self, planner: Planner) -> None:
        known = [planner.types[v].value for v in self.node.inputs[2:]]
        if any(k is None for k in known):
            Host(self.group).plan(planner)
            return
        n, step = (int(k.reshape(-1)[0]) for k in known)
        signal = planner.contiguous(self.node.inputs[0])
        window = planner.contiguous(self.node.inputs[1])
        length = signal.shape[-1]
        checked_frames(n, step, window.shape[0], length)
        step = min(step, length)  # one frame, however far the next would be
        if not product(planner.shape(self.out)) or not fits(n):
            Host(self.group).plan(planner)
            return
        if window.shape[0] < n:
            padded = planner.data.view(
                np.zeros(n, np.float32 if self.dtype == "f32" else np.float64), self.dtype
            )
            whole = planner.allocate((n,), self.size)
            planner.copy_step(padded, whole)
            planner.copy_step(window, whole.slice(0, (n - window.shape[0]) // 2, window.shape[0]))
            window = whole
        batch = product(signal.shape[:-1])
        frames, bins = 1 + (length - n) // step, n // 2 + 1
        size = self.size
        source = Signals(signal, size, step * size, (0, length * size), 0, 0)
        memory = planner.allocate((batch, bins, 2, frames), size)
        target = Signals(memory, 2 * frames * size, size, (0, bins * 2 * frames * size), 0, frames * size)
        self._pass(planner, source, target, n, n, bins, frames, batch, 1.0, False, REAL, False, None, window)
        turned = self.node.attrs["transpose_frames"]
        made = memory.permute((0, 1, 3, 2) if turned else (0, 3, 1, 2))
        if len(signal.shape) == 1:
            made = View(made.buffer, made.shape[1:], made.strides[1:], size, made.offset)
        self._deliver(planner, made)


def _one_run(view: View, axes: Sequence[int]) -> bool:
    """True when these dimensions lie behind each other like one."""
    pairs = zip(axes, axes[1:], strict=False)
    return all(view.strides[a] == view.strides[b] * view.shape[b] for a, b in pairs)


def fits(n: int) -> bool:
    """True for lengths that are not too long, with prime factors that are small enough."""
    return 0 < n <= LONGEST and max(factors(n), default=1) <= LARGEST_PRIME


def lower_fourier(group: Group) -> Lowering | None:
    """Native for f32 and f64; halves are upcast before."""
    node = group.last
    if node.output.dtype not in ("f32", "f64") or node.inputs[0].shape is None:
        return None
    return (Frames if node.op.name == "STFT" else Fourier)(group)
