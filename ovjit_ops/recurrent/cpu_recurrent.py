"""Native recurrent layers: one chunk computes all steps of a block of sequences in one direction.

A step of a block of sequences is

    hp = h R^T                     by tiles: outer loop over panels of weights, inner loop over rows
    h', C' = gates(xp + hp, h, C)  in vectors along the hidden dimension

A GRU without `linear_before_reset` does both twice, as r h is needed before its product. Between them, sums
are in the thread's scratch memory, in the first-level cache. Panels are four vectors wide: with one or two
sequences, the usual case, a tile of two vectors is bound by the latency of additions. For many sequences,
tiles of AVX-512 are two vectors wide, with a height that divides the block well: weights come from the
second-level cache, and a tile of six rows needs them faster than that.

Each row of a tile has its own address, so sequences of different lengths, read from their ends in the reverse
direction, are computed together. In that direction, a length outside of 0 to the number of steps is error 1.
Forwards, such a sequence has all steps, or none, and its last states are 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import BF16, F32, WORD, Format, find_format
from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel_language import *
from ovjit.codegen.trace import Recorder, Tracer
from ovjit.graph.graph import Value
from ovjit.planning.lower import Constants, Lowering, NotNative, Planner, View, ceil_div, launch
from ovjit.planning.plan import Filling
from ovjit.records import NamedTuple
from ovjit.tiles.pack import fill_panels
from ovjit.tiles.sizes import TABLE
from ovjit_ops.recurrent.step import KINDS, Step, directions, make_step

#: The reason of copies of weights.
PACKED = "weights are packed for the kernel"
#: Vectors of a panel, see `Shapes.recurrent`.
VECTORS = 4
#: Minimum sequences of a block for narrow tiles, and the maximum rows and the vectors of these, for AVX-512.
#: On AVX2, tiles of 4 to 6 rows by two vectors took 0.96 to 1.06 of the time of 2 rows by four.
MANY, HIGH, NARROW = 7, 14, 2
#: Maximum tiles of a block. Their address tables are at the start of the scratch memory.
MOST_TILES = 4
_TABLES = MOST_TILES * 2 * TABLE * 8

tile = Word("tile")
#: Types of arguments that each phase has: PANELS, an address with byte strides of directions and panels;
#: EACH, an integer.
PANELS: Any = Each("phases", "d p")
EACH: Any = Each("phases", pointers=False)


class Phase(NamedTuple):
    """One product and the gates that read it. `first`, `stop`: rows of the recurrent weights, in units of the
    hidden size. `body`: the gates, traced.

    `inputs` of the body: ("s", 2) the sums at offset hidden size x 2 of the row, ("x", 2) the input products
    there, "h" and "c" states, "a" attention. `outputs`: "h", "c", ("s", 1) the sums, "m" the row that the
    next product reads.
    """

    first: int
    stop: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    body: Body


def make_phase(
    first: int, stop: int, inputs: str, outputs: str, function: Callable[..., tuple[Tracer, ...]]
) -> Phase:
    """A phase. `inputs`, `outputs`: space-separated names such as s2."""
    read, written = (tuple((n[0], int(n[1:] or 0)) for n in names.split()) for names in (inputs, outputs))
    recorder = Recorder()
    results = function(*(recorder.input(f"x{i}", "f32") for i in range(len(read))))
    types = ["f32"] * len(read), ["f32"] * len(results)
    return Phase(first, stop, read, written, Body(*types, recorder.lines, [value.name for value in results]))


def phases_of(step: Step) -> tuple[Phase, ...]:
    """The products of a step, each with the gates that read it."""
    if step.kind == "RNN":
        return (make_phase(0, 1, "s0 x0", "h", lambda s, x: (step.gate(0, s + x),)),)
    if step.kind == "LSTM":

        def lstm(f: Any, xf: Any, i: Any, xi: Any, c: Any, xc: Any, o: Any, xo: Any, old: Any) -> tuple:
            return step.lstm(f + xf, i + xi, c + xc, o + xo, old)

        return (make_phase(0, 4, "s0 x0 s1 x1 s2 x2 s3 x3 c", "h c", lstm),)
    more = " a" if step.kind == "AUGRU" else ""
    if step.linear_before_reset:

        def reset_after(z: Any, xz: Any, r: Any, xr: Any, n: Any, xn: Any, h: Any, *a: Any) -> tuple:
            reset = step.gate(0, r + xr)
            return (step.mix(step.gate(0, z + xz), step.gate(1, xn + reset * n), h, *a),)

        return (make_phase(0, 3, f"s0 x0 s1 x1 s2 x2 h{more}", "h", reset_after),)

    def reset_before(z: Any, xz: Any, r: Any, xr: Any, h: Any) -> tuple:
        return step.gate(0, z + xz), step.gate(0, r + xr) * h

    def mix(n: Any, xn: Any, z: Any, h: Any, *a: Any) -> tuple:
        return (step.mix(z, step.gate(1, n + xn), h, *a),)

    return (
        make_phase(0, 2, "s0 x0 s1 x1 h", "s0 m", reset_before),
        make_phase(2, 3, f"s2 x2 s0 h{more}", "h", mix),
    )


class Tiles(NamedTuple):
    """Vectors of a panel, and heights of tiles."""

    vectors: int
    heights: tuple[int, ...]


def blocks_of(batch: Any, turns: int, rows: int) -> tuple[Any, Any]:
    """(sequences of a block, number of blocks). The sequences of a block share reads of weights. `turns`: the
    number of directions. Blocks times directions is even if possible, for two threads."""
    blocks = ceil_div(batch, MOST_TILES * rows)
    if turns * blocks % 2 and batch >= 2 * rows:
        blocks += 1
    block = ceil_div(batch, blocks)
    return block, ceil_div(batch, block)


def tiles_for(batch: Any, turns: int, isa: Target) -> Tiles:
    """The tiles for a batch: narrow ones if blocks are known to have at least MANY sequences."""
    rows = isa.shapes.recurrent
    if isa.name == "avx512" and isinstance(batch, int) and batch >= MANY:
        block, _ = blocks_of(batch, turns, rows[0])
        if block >= MANY:
            return Tiles(NARROW, (ceil_div(block, ceil_div(block, HIGH)),))
    return Tiles(VECTORS, rows)


def pack_recurrent(weights: np.ndarray, width: int, form: Format) -> Filling:
    """[D, outs, H] -> [D][panel][word][width][elements of a word], padded with zeros."""
    count, outs, depth = weights.shape
    size = count * ceil_div(outs, width) * form.words(depth) * width * WORD
    last = width if outs % width else 0
    columns = weights.swapaxes(1, 2)
    return Filling.by(size, columns, fill_panels, kind=form.w, width=width, last=last, group=form.group)


@inline
def keep(first, last, count, hidden):
    """Initialise the last state of a sequence with its first one, or with 0 if it has no steps."""
    for j in range(0, hidden, VL):
        old = loadm[f32](first + j * 4, hidden - j)
        if count == 0:
            old = const[f32](0.0)
        storem[f32](last + j * 4, old, hidden - j)


@inline
def clear(y, y_t, count, steps, hidden):
    """Store zeros to rows `count` to `steps` - 1 of y, which are `hidden` f32 wide and `y_t` bytes apart."""
    for n in range(count, steps):
        for j in range(0, hidden, VL):
            storem[f32](y + n * y_t + j * 4, const[f32](0.0), hidden - j)


@inline
def fill_tables(source, step, sums, size, count, height):
    """Write the address tables of `count` rows and their sums, one table per `height` rows. The last row is
    repeated to fill its table."""
    row = 0
    while row < count:
        table = scratch + row // height * (2 * TABLE * 8)
        for m in range(height):
            st[i64](table + m * 8, source + row * step)
            st[i64](table + TABLE * 8 + m * 8, sums + row * size)
            if row + 1 < count and m + 1 < height:
                row += 1
        row += 1


@inline
def multiply(weights, bias, words, channel, outs, first, stop, heights):
    """Multiply the tiles of the block's sequences by one panel of so many words of depth."""
    table = scratch
    for row in range(first, stop, heights[0]):
        remaining = min(heights[0], stop - row)
        valid = outs - channel
        for k, height in enumerate(heights):
            if height == heights[-1] or remaining > heights[k + 1]:
                tile[height](table, weights, bias, 1, 0, 1, 0, words, channel, valid, weights, 0)
                break
        table += 2 * TABLE * 8


@inline
def begin_state(first, last, rounded, count, hidden, A):
    """`keep` of a state that is multiplied. If that is done in another type than f32, round it to the row
    `rounded`, with a zero after it that fills up a word."""
    keep(first, last, count, hidden)
    if A != "f32":
        st[A](rounded + (hidden - 1) // 2 * 4 + 2, 0.0)
        for j in range(0, hidden, VL):
            storem[A](rounded + j * SIZE[A], loadm[f32](last + j * 4, hidden - j), hidden - j)


@inline
def apply_gates(phase, p, py, attention, hidden, A):
    """Apply a phase's gates to a sequence. `p`: addresses of its numbers. A new state is also stored to
    py, and to p["m"] as what is multiplied, if that has another type than f32."""
    x, results = registers()
    for k, operand in enumerate(phase.inputs):
        if operand[0] == "a":
            x[k] = splat[f32](attention)
    for j in range(0, hidden, VL):
        for k, (name, at) in enumerate(phase.inputs):
            if name != "a":
                x[k] = loadm[f32](p[name] + hidden * (4 * at) + j * 4, hidden - j)
        results = applied(phase.body, *x)
        for k, (name, at) in enumerate(phase.outputs):
            if name == "m" or (name == "h" and A != "f32"):
                storem[A](p["m"] + j * SIZE[A], results[k], hidden - j)
            if name != "m":
                storem[f32](p[name] + hidden * (4 * at) + j * 4, results[k], hidden - j)
            if name == "h":
                storem[f32](py + j * 4, results[k], hidden - j)


class Memory(NamedTuple):
    """Layout of scratch memory: offset of sums, bytes of a row of them, offset of intermediate rows, bytes of
    a row of them, which are multiplied."""

    sums: int
    row: int
    middle: int
    factors: int


class LayerKind(NamedTuple):
    """Constants of `all_steps`: whether there are cell states, and sequences of different lengths; heights of
    tiles, and their columns; the type in which states are multiplied."""

    has_c: bool
    ragged: bool
    heights: tuple[int, ...]
    width: int
    A: str


@inline
def find_row(p, x, ho, co, memory, source, state, cell, row, t, first, hidden, *, layer):
    """Set p to a sequence's addresses: input products of step t, sums, intermediate row, states."""
    p["x"] = x.at(source, b=row, t=t)
    p["s"] = scratch + memory.sums + (row - first) * memory.row
    p["m"] = scratch + memory.middle + (row - first) * memory.factors
    p["h"] = ho.at(state, b=row)
    if layer.has_c:
        p["c"] = co.at(cell, b=row)


@inline
def refuse_long(lengths, steps, ho, co, state, cell, first, stop, hidden, *, layer):
    """Set the last states of sequences that are longer than the data to 0."""
    for row in range(first, stop):
        if ld[i64](lengths.at(b=row)) > steps:
            keep(ho.at(state, b=row), ho.at(state, b=row), 0, hidden)
            if layer.has_c:
                keep(co.at(cell, b=row), co.at(cell, b=row), 0, hidden)


@kernel(
    over="d b/block", x="b t d gates:1", h0="b d k:1", y="b d t k:1", ho="b d k:1", c0="b d k:1",
    co="b d k:1", att="b t one", lengths="b", memory=Memory,
)  # fmt: skip
def all_steps(
    x: Tensor, h0: Tensor, y: Tensor, ho: Tensor, c0: Tensor, co: Tensor, att: Tensor, lengths: Tensor, block,
    reverse, memory, w=PANELS, b=PANELS, panels=EACH, outs=EACH, first_sum=EACH, *, phases, layer,
):  # fmt: skip
    """All steps of a block of sequences in one direction. `reverse`: a bit per direction, 1 for reverse. For
    each phase: weights, bias, the numbers of panels and of sums, and the offset of its sums."""
    p, weights_at, bias_at = registers()
    steps = x.size.t
    hidden = h0.size.k
    for d, first in items():
        stop = min(first + block, x.size.b)
        back = (reverse >> d) & 1
        source = x.at(d=d)
        target = y.at(d=d)
        state = ho.at(d=d)
        if layer.has_c:
            cell = co.at(d=d)
        for i in static_range(len(phases)):
            weights_at[i] = w[i] + d * w[i, "d"]
            bias_at[i] = b[i] + d * b[i, "d"]
        longest = 0
        for row in range(first, stop):
            count = steps
            if layer.ragged:
                count = ld[i64](lengths.at(b=row))
                if back == 1 and (count < 0 or count > steps):
                    return 1
                count = max(count, 0)
            longest = max(longest, min(count, steps))
            clear(y.at(target, b=row), y.stride.t, count, steps, hidden)
            if layer.has_c:
                keep(c0.at(b=row, d=d), co.at(cell, b=row), count, hidden)
            rounded = scratch + memory.middle + (row - first) * memory.factors
            begin_state(h0.at(b=row, d=d), ho.at(state, b=row), rounded, count, hidden, layer.A)
        for n in range(longest):
            for i, phase in enumerate(phases):
                # the sums: fill the address tables of all rows, then multiply the tiles panel by panel
                sums_of = scratch + memory.sums + first_sum[i]
                if layer.A != "f32" or (i and ("m", 0) in phases[i - 1].outputs):
                    between = scratch + memory.middle
                    fill_tables(between, memory.factors, sums_of, memory.row, stop - first, layer.heights[0])
                else:
                    states = ho.at(state, b=first)
                    fill_tables(states, ho.stride.b, sums_of, memory.row, stop - first, layer.heights[0])
                for panel in range(panels[i]):
                    weights = weights_at[i] + panel * w[i, "p"]
                    bias = bias_at[i] + panel * b[i, "p"]
                    words = memory.factors // 4
                    multiply(weights, bias, words, panel * layer.width, outs[i], first, stop, layer.heights)
                # the gates, for each sequence that has this step
                for row in range(first, stop):
                    count = steps
                    if layer.ragged:
                        count = ld[i64](lengths.at(b=row))
                    if n < count:
                        t = n
                        if back == 1:
                            t = count - 1 - n
                        find_row(p, x, ho, co, memory, source, state, cell, row, t, first, hidden)
                        py = y.at(target, b=row, t=t)
                        apply_gates(phase, p, py, att.at(b=row, t=t), hidden, layer.A)
        if layer.ragged:
            refuse_long(lengths, steps, ho, co, state, cell, first, stop, hidden)


@functools.lru_cache(64)
def steps_kernel(step: Step, ragged: bool, isa: Target, tiles: Tiles, form: Format) -> Kernel:
    """The kernel of a kind of layer with its activations. Sizes and directions are arguments. `form`: of the
    products."""
    has_c, (vectors, heights) = KINDS[step.kind].states == 2, tiles

    def intrinsics(target: Target) -> dict[str, Any]:
        from ovjit.tiles.tile import make_tile  # where the kernel is compiled

        return {f"tile_{r}": make_tile(target, r, vectors, Epilogue(None), form) for r in heights}

    low = "" if form is F32 else f"_{form.name}"
    layer = LayerKind(has_c, ragged, heights, vectors * isa.lanes, form.a)
    name = f"{step.kind.lower()}_steps_{isa.name}{'_ragged' if ragged else ''}{low}"
    key = f"tiles {heights} x {vectors}{low}"
    return all_steps.kernel(name, intrinsics, key, phases=phases_of(step), layer=layer)


class LayerLowering(Lowering):
    """A recurrent layer: its inputs by role, and outputs in new memory with adjacent elements."""

    #: Roles of inputs that plans do not read by rows.
    packed = ""

    def set_up(self) -> None:
        attrs = self.node.attrs
        self.step = make_step(attrs["kind"], attrs)
        self.turns = directions(attrs["direction"])
        self.named = dict(zip(attrs["roles"], self.node.inputs, strict=True))
        self.hidden = int(attrs["hidden_size"])

    def plan(self, planner: Planner) -> None:
        read = {role: value for role, value in self.named.items() if role not in self.packed}
        views = {role: self._rows(planner, value) for role, value in read.items()}
        outs = [planner.allocate(planner.shape(v), 4) for v in self.node.outputs]
        if views["x"].shape[0]:
            self.plan_steps(planner, views, outs)
        for value, out in zip(self.node.outputs, outs, strict=True):
            if value.index in self.group.used:
                planner.alias_or_copy(value, out)

    def plan_steps(self, planner: Planner, views: dict[str, View], outs: list[View]) -> None:
        """Add the steps of a batch that is not empty."""
        raise NotImplementedError

    def _rows(self, planner: Planner, value: Value) -> View:
        """A view of `value` whose last dimension is adjacent, by a copy if necessary."""
        view = planner.view(value)
        is_adjacent = view.shape[-1] <= 1 or view.strides[-1] == view.itemsize
        return view if is_adjacent else planner.contiguous(value)


class RecurrentSteps(LayerLowering):
    """All steps of a layer. Recurrent weights that are no constants are packed by steps before it."""

    packed = "rb"

    def set_up(self) -> None:
        super().set_up()
        self.phases = phases_of(self.step)
        lengths = self.named.get("l")
        fits = lengths is None or lengths.dtype == "i64"
        recurrent = self.named["r"]
        form = find_format(recurrent.dtype, recurrent.dtype, self.target)
        constant = recurrent.constant is not None
        if (
            self.named["x"].dtype != "f32"
            or not fits
            or form not in (F32, BF16)
            or not (form is F32 or constant)
        ):
            raise NotNative
        self.form: Format = form
        self.tiles = tiles_for(self.named["x"].shape[0], len(self.turns), self.target)
        self.width = self.tiles.vectors * self.target.lanes
        self.kernel = steps_kernel(self.step, lengths is not None, self.target, self.tiles, form)

    def pack(self, constants: Constants) -> None:
        for role, value in self.named.items():
            if value.constant is not None and role not in "rb":
                constants.view(value.constant, value.dtype)
        recurrent, hidden_bias = (self.named[n].constant if n in self.named else None for n in "rb")
        width, turns = self.width, len(self.turns)
        #: Of each phase: offsets of weights and bias among the constants; None if they are computed at run
        #: time.
        self.offsets: list[tuple[int | None, int | None]] = []
        for i, phase in enumerate(self.phases):
            outs, weights, sums = (phase.stop - phase.first) * self.hidden, None, None
            if recurrent is not None:
                part = recurrent[:, phase.first * self.hidden : phase.stop * self.hidden]
                weights = constants.add(pack_recurrent(part, width, self.form), (self, "weights", i)).offset
            if "b" not in self.named or hidden_bias is not None:
                bias = np.zeros((turns, ceil_div(outs, width) * width), np.float32)
                if hidden_bias is not None:
                    bias[:, outs - self.hidden : outs] = hidden_bias
                sums = constants.add(bias, (self, "bias", i)).offset
            self.offsets.append((weights, sums))

    def _pack_weights(self, planner: Planner, phase: Phase) -> View:
        """Add steps that pack a phase's weights at run time, as `pack_recurrent` packs constants."""
        rows, width, turns = planner.view(self.named["r"]), self.width, len(self.turns)
        first, outs = phase.first * self.hidden, (phase.stop - phase.first) * self.hidden
        full, last = outs // width, outs % width
        packed = planner.allocate((turns, ceil_div(outs, width), self.hidden, width), 4)
        if full:
            panels = rows.slice(1, first, full * width).as_shape((turns, full, width, self.hidden))
            planner.copy_step(panels.permute((0, 1, 3, 2)), packed.slice(1, 0, full), PACKED)
        if last:
            panel = packed.slice(1, full, 1)
            tail = rows.slice(1, first + full * width, last).as_shape((turns, 1, last, self.hidden))
            planner.copy_step(tail.permute((0, 1, 3, 2)), panel.slice(3, 0, last), PACKED)
            self._clear(planner, panel.slice(3, last, width - last))
        return packed

    def _place_bias(self, planner: Planner, phase: Phase) -> View:
        """Add steps that store a phase's bias: zeros, then the bias inside the reset gate's product."""
        outs = (phase.stop - phase.first) * self.hidden
        bias = planner.allocate((len(self.turns), ceil_div(outs, self.width) * self.width), 4)
        self._clear(planner, bias)
        target = bias.slice(1, outs - self.hidden, self.hidden)
        planner.copy_step(planner.view(self.named["b"]), target, PACKED)
        return bias

    def _clear(self, planner: Planner, target: View) -> None:
        zeros = planner.data.view(np.zeros(1, np.float32), "f32")
        planner.copy_step(zeros.expand(target.shape), target, PACKED)

    def plan_steps(self, planner: Planner, views: dict[str, View], outs: list[View]) -> None:
        x, hidden = views["x"], self.hidden
        batch, steps, _ = x.shape
        turns, gates, width = len(self.turns), KINDS[self.step.kind].gates, self.width
        block, _ = blocks_of(batch, turns, self.target.shapes.recurrent[0])
        sums = ceil_div(gates * hidden * 4, 64) * 64
        words = self.form.words(hidden)
        memory = Memory(_TABLES, sums, _TABLES + block * sums, words * WORD)
        planner.need_scratch(memory.middle + block * memory.factors)
        strides = (*x.strides[:2], gates * hidden * 4, 4)
        x = View(x.buffer, (batch, steps, turns, gates * hidden), strides, 4, x.offset)
        named = {"h": "h0", "c": "c0", "a": "att", "l": "lengths"}
        tensors = {"x": x} | {named[role]: v for role, v in views.items() if role != "x"}
        tensors |= zip(("y", "ho", "co"), outs, strict=False)
        values: dict[str, Any] = {"block": block, "memory": memory}
        values["reverse"] = sum(back << d for d, back in enumerate(self.turns))
        for i, phase in enumerate(self.phases):
            count = (phase.stop - phase.first) * hidden
            panels = ceil_div(count, width)
            at = [
                make(planner, phase) if offset is None else planner.constants.at(offset)
                for offset, make in zip(self.offsets[i], (self._pack_weights, self._place_bias), strict=True)
            ]
            values |= {
                f"w{i}": at[0], f"b{i}": at[1],
                f"w{i}_d": panels * words * width * WORD, f"w{i}_p": words * width * WORD,
                f"panels{i}": panels, f"outs{i}": count, f"b{i}_d": panels * width * 4, f"b{i}_p": width * 4,
                f"first_sum{i}": phase.first * hidden * 4,
            }  # fmt: skip
        flops = 2.0 * batch * steps * turns * gates * hidden * hidden
        writes = ("y", "ho", "co")[: len(outs)]
        launch(planner, self.kernel, tensors, writes, work=inf, flops=flops, **values)  # a chunk for each
