"""Native RandomUniform and Multinomial, with the streams of `generators`, in blocks.

Each block of Philox follows from the seeds and its index. The Mersenne Twister is sequential and has one
chunk.
"""

from __future__ import annotations

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.graph.dtypes import HALVES
from ovjit.planning.lower import Lowering, NotNative, Planner, View, launch

#: Numbers of a stream that are drawn at once; Philox yields four per counter.
BLOCK = 256
#: Numbers of the state of the Mersenne Twister.
STATE = 624
#: bits of the mantissa
MANTISSA = {"f32": 23, "f64": 52, "f16": 10, "bf16": 7}
_MASK = 0xFFFFFFFF
#: (element type, torch) -> mask of a number's bits that form a float from 0 to 1.
_LOW = {(T, torch): (1 << n + torch) - 1 for T, n in MANTISSA.items() for torch in (False, True)}


@kernel
def seeds_of_now(seeds: Ptr, number):
    """Store two seeds that differ for each inference and node."""
    st[i64](seeds, now() ^ number << 40)
    st[i64](seeds + 8, seeds ^ number)


@inline
def philox(drawn, seed, counter, lanes, first):
    """Draw BLOCK numbers of Philox. `first`: the index of the first group of four numbers."""
    m = const[i64](_MASK)
    for k in range(0, BLOCK // 4, VL):
        at = lanes + spread[i64](first + k)
        n_low = at & m
        n_high = (at >> const[i64](32)) & m
        c_low = spread[i64](counter & _MASK)
        c_high = spread[i64]((counter >> 32) & _MASK)
        for r in static_range(10):
            a = n_low * const[i64](0xD2511F53)
            b = c_low * const[i64](0xCD9E8D57)
            k_low = (seed + r * 0x9E3779B9) & _MASK
            n_low = ((b >> const[i64](32)) & m) ^ n_high ^ spread[i64](k_low)
            n_high = b & m
            k_high = ((seed >> 32) + r * 0xBB67AE85) & _MASK
            c_low = ((a >> const[i64](32)) & m) ^ c_high ^ spread[i64](k_high)
            c_high = a & m
        p = drawn + k * 16
        strided_store[i32](p, 16, cast[i32](n_low), VL)
        strided_store[i32](p + 4, 16, cast[i32](n_high), VL)
        strided_store[i32](p + 8, 16, cast[i32](c_low), VL)
        strided_store[i32](p + 12, 16, cast[i32](c_high), VL)


@inline
def draw_mersenne(drawn, state, first, count):
    """Draw `count` numbers of MT19937, from number `first` of its state on."""
    i = urem(first, STATE)
    for k in range(count):
        here = i
        i = i + 1
        if i == STATE:
            i = 0
        far = here + 397
        if far >= STATE:
            far = far - STATE
        y = (ld[u32](state + here * 4) & 0x80000000) | (ld[u32](state + i * 4) & 0x7FFFFFFF)
        y = ld[u32](state + far * 4) ^ (y >> 1) ^ ((y & 1) * 0x9908B0DF)
        st[u32](state + here * 4, y)
        y = y ^ (y >> 11)
        y = y ^ ((y << 7) & 0x9D2C5680)
        y = y ^ ((y << 15) & 0xEFC60000)
        st[u32](drawn + k * 4, y ^ (y >> 18))


@inline
def rest_of(high, low, span):
    """The remainder of an unsigned number of 64 bits, given as two of 32 bits, by `span`."""
    result = low
    if high == 0:
        result = low % span
    elif span < 0x80000000:
        result = (high % span * 0x1_0000_0000 + low) % span
    else:
        result = high % span
        for k in range(32):
            if result >= span - result:  # doubling may overflow
                result = result - (span - result)
            else:
                result = result + result
            result += (low >> (31 - k)) & 1
            if result == span:
                result = 0
    return result


@inline
def round_to(v, T):
    """v, rounded to T."""
    result = v
    if T in HALVES:
        store[T](scratch, v)
        result = load[T](scratch)
    return result


@inline
def put_reals(q, drawn, count, first, span, T, torch):
    """Store `count` drawn numbers as floats in [first, first + span)."""
    for k in range(0, count, VL):
        if T == "f64":
            pair = load[i64](drawn + k * 8)
            pair = ((pair & const[i64](_MASK)) << const[i64](32)) | (
                (pair >> const[i64](32)) & const[i64](_MASK)
            )
            unit = cast[f64](pair & const[i64](_LOW[T, torch])) * const[f64](1 / (_LOW[T, torch] + 1))
        else:
            bits = load[i32](drawn + k * 4) & const[i32](_LOW[T, torch])
            unit = cast[f32](bits) * const[f32](1 / (_LOW[T, torch] + 1))
        if T == "f32" and not torch:
            unit = fma(unit, span, first)
        elif T == "f16" and torch:
            unit = unit * span + first
        else:
            unit = round_to(unit * span, T)
            unit = unit + first
        storem[T](q + k * SIZE[T], unit, count - k)


@inline
def put_numbers(q, drawn, count, least, length):
    """Store `count` drawn numbers as i32 in [least, least + length). The quotient of f64 is exact enough."""
    span = cast[f64](spread[i64](length))
    first = cast[f64](spread[i64](least))
    for k in range(0, count, VL):
        unit = cast[f64](load[i32](drawn + k * 4))
        unit = select(unit < const[f64](0.0), unit + const[f64](4294967296.0), unit)
        unit = first + (unit - floor(unit / span) * span)
        storem[i32](q + k * 4, cast[i32](unit), count - k)


@inline
def put_wide(q, drawn, count, words, least, end, far, T, torch):
    """Store `count` drawn numbers, each of `words` words of the stream, as integers in [least, end). `far`: 1
    if end - least exceeds i64."""
    length = end - least
    length_low = length & _MASK
    borrow = 0
    if (end & _MASK) < (least & _MASK):
        borrow = 1
    length_high = ((end >> 32) - (least >> 32) - borrow) & _MASK
    for k in range(count):
        a = ld[u32](drawn + k * words * 4) + 0
        b = 0
        if words == 2 and torch:
            b = a
            a = ld[u32](drawn + k * 8 + 4) + 0
        elif words == 2:
            b = ld[u32](drawn + k * 8 + 4) + 0
        if far == 0:
            a = rest_of(b, a, length)
            st[T](q + k * SIZE[T], least + a)
        else:  # the sum of 64 bits, as two of 32 bits
            base = least
            if b > length_high or (b == length_high and a >= length_low):
                base = least + least - end
            a = a + (base & _MASK)
            st[u32](q + k * 8, a & _MASK)
            st[u32](q + k * 8 + 4, (b + ((base >> 32) & _MASK) + (a >> 32)) & _MASK)


@kernel(over="n/each", seeds="", low="", high="", y="n:1")
def uniform(seeds: Tensor, low: Tensor, high: Tensor, y: Tensor, each, *, T, torch):
    """Numbers in [low, high), see `ovjit_ops.random.random.uniform`. An item has the numbers of a block, or
    half of them if a number may take two of the stream. Returns 1 for an empty range of integers."""
    drawn = scratch + 256
    state = drawn + BLOCK * 4
    seed = ld[i64](seeds) + 0
    counter = ld[i64](seeds + 8) + 0
    for k in range(VL):
        st[i64](scratch + k * 8, k)
    lanes = load[i64](scratch)
    if torch:
        last = seed & _MASK
        for i in range(STATE):
            if i > 0:
                last = ((last ^ (last >> 30)) * 1812433253 + i) & _MASK
            st[u32](state + i * 4, last)
    words = 2 if T in ("f64", "i64") else 1  # numbers of the stream per element
    if T in MANTISSA:
        first = splat[T](low)
        span = round_to(splat[T](high) - first, T)
    else:
        least = ld[T](low) + 0
        end = ld[T](high) + 0
        if end <= least:
            return 1
        if T == "i64" and torch and max(least, end) <= _MASK:
            words = 1
        far = 0  # 1: end - least exceeds i64
        if least < 0 and end > 0x7FFFFFFFFFFFFFFF + least:
            far = 1
        length = end - least
    for start, q in items(y):
        if torch:
            draw_mersenne(drawn, state, start * words, each * words)
        else:
            philox(drawn, seed, counter, lanes, start * words // 4)
        count = min(y.size.n - start, each)
        if T in MANTISSA:
            put_reals(q, drawn, count, first, span, T, torch)
        elif T == "i32":
            put_numbers(q, drawn, count, least, length)
        else:
            put_wide(q, drawn, count, words, least, end, far, T, torch)
    return 0


@kernel(over="row", probs="row c:1", units="row n", masses="row c:1", sums="row c:1", y="row n")
def chosen_classes(
    probs: Tensor, units: Tensor, masses: Tensor, sums: Tensor, y: Tensor, *, T, index, replace, logs
):
    """Select classes by numbers from 0 to 1: the first class at which the cumulative probability reaches the
    number."""
    classes = probs.size.c
    count = y.size.n
    for _, p, u, weights, cumulative, q in items(probs, units, masses, sums, y):
        for i in range(0, classes, VL):
            v = loadm[T](p + i * SIZE[T], classes - i)
            v = v if T == "f64" else cast[f64](v)
            storem[f64](weights + i * 8, libm_exp[f64](v) if logs else v, classes - i)
        for k in range(count):
            if k == 0 or not replace:
                total = 0.0
                for i in range(classes):
                    total += ld[f64](weights + i * 8)
                    st[f64](cumulative + i * 8, total)
                whole_sum = splat[f64](cumulative + (classes - 1) * 8)
                for i in range(0, classes, VL):
                    part = loadm[f64](cumulative + i * 8, classes - i) / whole_sum
                    storem[f64](cumulative + i * 8, part, classes - i)
            unit = ld[f64](units.at(u, n=k)) + 0.0
            low = 0
            high = classes
            while low < high:
                middle = (low + high) >> 1
                if ld[f64](cumulative + middle * 8) < unit:
                    low = middle + 1
                else:
                    high = middle
            low = min(low, classes - 1)
            st[index](y.at(q, n=k), low)
            if not replace:
                st[f64](weights + low * 8, 0.0)


def block_of(itemsize: int) -> int:
    """The number of elements of `itemsize` bytes that are made from BLOCK random numbers."""
    return BLOCK // 2 if itemsize == 8 else BLOCK


class Drawn(Lowering):
    """Operations that draw uniform numbers from two seeds. If both seeds are 0, each inference has new
    ones."""

    def set_up(self) -> None:
        attrs = self.node.attrs
        seeds = np.array([attrs["global_seed"], attrs["op_seed"]], np.uint64)
        self.seeds = seeds.view(np.int64) if seeds.any() else None
        self.torch = attrs.get("alignment") == "pytorch"
        self.kernel = uniform(T=self.drawn_type(), torch=self.torch)
        self.kernels = (self.kernel, *([] if seeds.any() else [seeds_of_now()]))

    def drawn_type(self) -> str:
        return self.node.output.dtype

    def draw(self, planner: Planner, low: View, high: View, out: View) -> None:
        """Add the step that fills `out` with numbers in [low, high)."""
        if self.seeds is None:
            seeds = planner.allocate((2,), 8)
            number = len(planner.steps)
            planner.step(self.kernels[1], {"seeds": seeds.ptr, "number": number}, 1, [], [seeds])
        else:
            seeds = planner.data.view(self.seeds, "i64")
        if not out.count:
            return
        planner.need_scratch(256 + (BLOCK + STATE) * 4)
        launch(
            planner, self.kernel, {"seeds": seeds, "low": low, "high": high, "y": out.as_shape((out.count,))},
            ("y",), each=block_of(out.itemsize), work=20 * BLOCK, flops=20 * out.count, one_chunk=self.torch,
        )  # fmt: skip


class Uniform(Drawn):
    def plan(self, planner: Planner) -> None:
        low, high = (planner.contiguous(v) for v in self.node.inputs[1:])
        self.draw(planner, low, high, planner.row_major_output(self.node.output))


class Classes(Drawn):
    """Multinomial."""

    def set_up(self) -> None:
        super().set_up()
        data, attrs = self.node.inputs[0], self.node.attrs
        self.choice = chosen_classes(
            T=data.dtype, index=self.out.dtype, replace=attrs["with_replacement"], logs=attrs["log_probs"]
        )
        self.kernels = (*self.kernels, self.choice)

    def drawn_type(self) -> str:
        return "f64"

    def plan(self, planner: Planner) -> None:
        (batch, classes), count = planner.shape(self.node.inputs[0]), planner.shape(self.out)[1]
        if not classes or (not self.node.attrs["with_replacement"] and count > classes):
            raise NotNative  # the reference raises the error
        probs = planner.contiguous(self.node.inputs[0])
        out = planner.row_major_output(self.out)
        units, masses, sums = (planner.allocate(s, 8) for s in ((batch * count,), *[(batch, classes)] * 2))
        low, high = (planner.data.view(np.array([v], np.float64), "f64") for v in (0, 1))
        self.draw(planner, low, high, units)
        tensors = {"probs": probs, "units": units.as_shape((batch, count)), "masses": masses, "sums": sums}
        launch(planner, self.choice, tensors | {"y": out}, ("masses", "sums", "y"), work=4 * classes)
