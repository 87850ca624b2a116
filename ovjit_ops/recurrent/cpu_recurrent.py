"""Native recurrent layers: one chunk makes all steps of some sequences in one direction.

A step of a block of sequences is

    hp = h R^T                     by tiles, panels of weights outside, rows of the block inside
    h', C' = gates(xp + hp, h, C)  in vectors along the hidden dimension

A GRU without `linear_before_reset` does both twice, as r h is needed before its product. Sums lie in the
thread's scratch memory between the two and stay in the first-level cache. Panels are four vectors wide: with
one or two sequences, which is the usual case, a tile of two vectors waits for its own additions.

Every row of a tile has an address of its own, so that sequences of different lengths, read from their ends in
the reverse direction, go side by side. A length that is not from 0 to the number of steps is error code 1.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.cpu.isa import Isa, host_isa
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.codegen.trace import Recorder, Tracer
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import Constants, Planner, aligned_bytes, ceil_div
from ovjit.compiler.views import View, plain
from ovjit.tiles.micro import TABLE, make_tile
from ovjit_ops.recurrent.step import KINDS, Step, directions, make_step

#: Tile heights for panels of `VECTORS` vectors; accumulators, weights and a pixel have to fit the registers.
ROWS = {"avx512": (6, 3, 1), "avx2": (2, 1), "generic": (2, 1)}
VECTORS = 4
#: Tiles of a block at most: their tables of addresses lie at the start of the scratch memory.
MOST_TILES = 4
_TABLES = MOST_TILES * 2 * TABLE * 8


class Phase:
    """One product and what follows: rows `first` to `stop` of the recurrent weights (in units of the hidden
    size), and the gates as a traced body.

    `inputs` says what the body reads: "s2" the sum at hidden size x 2 of the row, "x2" the product there,
    "h", "c" states, "a" attention. `outputs` where its results go: "h", "c", or "s1" to the sums; "m" the
    row that the next product reads.
    """

    def __init__(
        self, first: int, stop: int, inputs: Sequence[str], outputs: Sequence[str], function: Callable
    ):
        self.first, self.stop = first, stop
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        recorder = Recorder()
        given = [recorder.input(f"x{i}", "f32") for i in range(len(self.inputs))]
        made: tuple[Tracer, ...] = function(*given)
        self.body = Body(
            ["f32"] * len(given), ["f32"] * len(made), recorder.lines, [value.name for value in made]
        )

    def lines(self, prefix: str) -> tuple[list[str], list[tuple[str, str]], list[str]]:
        """(instructions, constants as (name, expression), results), with names that begin with `prefix`."""
        lines, constants = self.body.source("")
        results = self.body.result_names(constants)

        def own(text: str) -> str:
            return re.sub(r"\b([txk]\d+)\b", rf"{prefix}\1", text)

        return (
            [own(x) for x in lines],
            [(own(k), e) for k, e in constants.values()],
            [own(r) for r in results],
        )


def phases_of(step: Step) -> list[Phase]:
    """The products of a step and the gates behind each."""
    if step.kind == "RNN":
        return [Phase(0, 1, ["s0", "x0"], ["h"], lambda s, x: (step.gate(0, s + x),))]
    if step.kind == "LSTM":

        def lstm(f: Any, xf: Any, i: Any, xi: Any, c: Any, xc: Any, o: Any, xo: Any, old: Any) -> tuple:
            return step.lstm(f + xf, i + xi, c + xc, o + xo, old)

        return [Phase(0, 4, ["s0", "x0", "s1", "x1", "s2", "x2", "s3", "x3", "c"], ["h", "c"], lstm)]
    more = ["a"] if step.kind == "AUGRU" else []
    if step.linear_before_reset:

        def reset_after(z: Any, xz: Any, r: Any, xr: Any, n: Any, xn: Any, h: Any, *a: Any) -> tuple:
            reset = step.gate(0, r + xr)
            return (step.mix(step.gate(0, z + xz), step.gate(1, xn + reset * n), h, *a),)

        return [Phase(0, 3, ["s0", "x0", "s1", "x1", "s2", "x2", "h", *more], ["h"], reset_after)]

    def reset_before(z: Any, xz: Any, r: Any, xr: Any, h: Any) -> tuple:
        return step.gate(0, z + xz), step.gate(0, r + xr) * h

    def mixed(n: Any, xn: Any, z: Any, h: Any, *a: Any) -> tuple:
        return (step.mix(z, step.gate(1, n + xn), h, *a),)

    return [
        Phase(0, 2, ["s0", "x0", "s1", "x1", "h"], ["s0", "m"], reset_before),
        Phase(2, 3, ["s2", "x2", "s0", "h", *more], ["h"], mixed),
    ]


def panel_width(isa: Isa) -> int:
    return VECTORS * isa.lanes


def pack_recurrent(weights: np.ndarray, isa: Isa) -> np.ndarray:
    """[D, outs, H] -> [D][panel][H][width], the last panel filled up with zeros."""
    count, outs, depth = weights.shape
    width = panel_width(isa)
    panels = ceil_div(outs, width)
    memory = aligned_bytes(count * panels * depth * width * 4).view(np.float32)
    target = memory.reshape(count, panels, depth, width)
    padded = np.pad(weights, ((0, 0), (0, panels * width - outs), (0, 0)))
    target[...] = padded.reshape(count, panels, width, depth).swapaxes(-1, -2)
    return memory


@functools.lru_cache(64)
def steps_kernel(step: Step, ragged: bool, isa: Isa) -> Kernel:
    """The kernel of one kind of layer with its activations; sizes and directions are arguments."""
    phases = phases_of(step)
    has_c, attention = KINDS[step.kind].states == 2, step.kind == "AUGRU"
    frame = Frame().pointers("xp", "h0", "y", "ho")
    frame.pointers(*(f"w{i}" for i in range(len(phases))), *(f"b{i}" for i in range(len(phases))))
    frame.integers("x_b", "x_t", "x_d", "h0_b", "h0_d", "y_b", "y_d", "y_t", "ho_b", "ho_d")
    if has_c:
        frame.pointers("c0", "co").integers("c0_b", "c0_d", "co_b", "co_d")
    if attention:
        frame.pointers("att").integers("a_b", "a_t")
    if ragged:
        frame.pointers("lengths").integers("l_b")
    frame.integers("steps", "hidden", "batch", "block", "blocks", "reversed", "sums_at", "sums", "mid_at")
    for i in range(len(phases)):
        frame.integers(f"w{i}_d", f"w{i}_p", f"p{i}", f"o{i}", f"b{i}_d", f"b{i}_p", f"f{i}")
    rows, width = ROWS[isa.name], panel_width(isa)
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    inlined = [phase.lines(f"p{i}_") for i, phase in enumerate(phases)]
    src += [f"    {name} = {text}" for _, constants, _ in inlined for name, text in constants]
    src += [
        "    zero = const_f32(0.0)",
        "    d = chunk // blocks",
        "    first = (chunk % blocks) * block",
        "    stop = imin(first + block, batch)",
        "    back = (reversed >> d) & 1",
        "    xp += d * x_d",
        "    h0 += d * h0_d",
        "    y += d * y_d",
        "    ho += d * ho_d",
    ]
    src += ["    c0 += d * c0_d", "    co += d * co_d"] if has_c else []
    for i in range(len(phases)):
        src += [f"    w{i} += d * w{i}_d", f"    b{i} += d * b{i}_d"]
    # what is behind the end of each sequence, and its states when it has no steps
    src += ["    b = first", "    longest = 0", "    while b < stop:", "        count = steps"]
    if ragged:
        src += ["        count = ld_i64(lengths + b * l_b)"]
        src += ["        if count < 0 or count > steps:", "            return 1"]
    src += ["        longest = imax(longest, count)", "        n = count", "        while n < steps:"]
    src += _row("            ", ["storem_f32(y + b * y_b + n * y_t + j * 4, zero, hidden - j)"])
    src += ["            n += 1"]
    keep = ["old = loadm_f32(h0 + b * h0_b + j * 4, hidden - j)"]
    keep += ["if count == 0:", "    old = zero", "storem_f32(ho + b * ho_b + j * 4, old, hidden - j)"]
    if has_c:
        keep += ["old = loadm_f32(c0 + b * c0_b + j * 4, hidden - j)"]
        keep += ["if count == 0:", "    old = zero", "storem_f32(co + b * co_b + j * 4, old, hidden - j)"]
    src += _row("        ", keep) + ["        b += 1"]
    src += ["    n = 0", "    while n < longest:"]
    for i, (phase, (lines, _, results)) in enumerate(zip(phases, inlined, strict=True)):
        src += _product(i, "m" in phases[i - 1].outputs if i else False, rows, width)
        src += _gates(phase, lines, results, f"p{i}_", ragged)
    src += ["        n += 1", "    return 0", ""]

    def intrinsics(target: Isa) -> dict[str, Any]:
        tall = ROWS[target.name]
        return {f"tile_{r}": make_tile(target, r, VECTORS, Epilogue(None)) for r in tall}

    name = f"{step.kind.lower()}_steps_{isa.name}{'_ragged' if ragged else ''}"
    return Kernel(name, "\n".join(src), frame, intrinsics, f"tiles {rows} x {VECTORS}")


def _row(indent: str, lines: Sequence[str]) -> list[str]:
    """The lines for every vector j along the hidden dimension."""
    return [
        f"{indent}j = 0",
        f"{indent}while j < hidden:",
        *(f"{indent}    {x}" for x in lines),
        f"{indent}    j += VL",
    ]


def _product(i: int, middle: bool, rows: Sequence[int], width: int) -> list[str]:
    """Sums of phase i: addresses of all rows into the tables, then panel after panel over the tiles."""
    source = "scratch + mid_at + (b - first) * hidden * 4" if middle else "ho + b * ho_b"
    out = ["        b = first", "        while b < stop:", f"            tile = (b - first) // {rows[0]}"]
    out += ["            table = scratch + tile * " + str(2 * TABLE * 8), "            m = 0"]
    out += [f"            while m < {rows[0]}:", f"                st_i64(table + m * 8, {source})"]
    out += [
        f"                st_i64(table + {TABLE * 8} + m * 8, scratch + sums_at + (b - first) * sums + f{i})"
    ]
    out += [
        "                m += 1",
        "                if b + 1 < stop:",
        f"                    if m < {rows[0]}:",
    ]
    out += ["                        b += 1", "            b += 1"]
    out += [
        "        panel = 0",
        f"        while panel < p{i}:",
        "            b = first",
        "            table = scratch",
    ]
    out += ["            while b < stop:", f"                left = imin({rows[0]}, stop - b)"]
    call = (f"(table, w{i} + panel * w{i}_p, b{i} + panel * b{i}_p, 1, 0, 1, 0, hidden, panel * {width}, "
            f"o{i} - panel * {width}, w{i} + panel * w{i}_p, 0)")  # fmt: skip
    for n, size in enumerate(rows):
        last = n == len(rows) - 1
        test = "else:" if last else f"{'if' if n == 0 else 'elif'} left > {rows[n + 1]}:"
        out += [f"                {test}", f"                    tile_{size}{call}"]
    out += [
        f"                b += {rows[0]}",
        f"                table += {2 * TABLE * 8}",
        "            panel += 1",
    ]
    return out


def _gates(
    phase: Phase, lines: Sequence[str], results: Sequence[str], prefix: str, ragged: bool
) -> list[str]:
    """The body of a phase for every sequence of the block that still goes on."""
    out = ["        b = first", "        while b < stop:", "            count = steps"]
    out += ["            count = ld_i64(lengths + b * l_b)"] if ragged else []
    out += ["            if n < count:", "                t = n", "                if back == 1:"]
    out += ["                    t = count - 1 - n"]
    out += ["                px = xp + b * x_b + t * x_t", "                py = y + b * y_b + t * y_t"]
    out += [
        "                ps = scratch + sums_at + (b - first) * sums",
        "                ph = ho + b * ho_b",
    ]
    out += ["                pc = co + b * co_b"] if "c" in phase.inputs else []
    if "m" in phase.outputs:
        out += ["                pm = scratch + mid_at + (b - first) * hidden * 4"]
    body = []
    for k, name in enumerate(phase.inputs):
        target = f"{prefix}x{k}"
        if name == "a":
            out += [f"                {target} = splat_f32(att + b * a_b + t * a_t)"]
            continue
        body += [f"{target} = loadm_f32({_place(name)} + j * 4, hidden - j)"]
    body += lines
    for name, result in zip(phase.outputs, results, strict=True):
        body += [f"storem_f32({_place(name)} + j * 4, {result}, hidden - j)"]
        body += [f"storem_f32(py + j * 4, {result}, hidden - j)"] if name == "h" else []
    return [*out, *_row("                ", body), "            b += 1"]


def _place(name: str) -> str:
    if name in ("h", "c", "m"):
        return f"p{name}"
    return f"p{name[0]} + hidden * {4 * int(name[1:])}"


class RecurrentSteps(Lowering):
    """All steps of a layer, with constant recurrent weights."""

    def __init__(self, group: Group):
        super().__init__(group)
        assert group.anchor is not None
        self.node = group.anchor
        attrs = self.node.attrs
        self.step = make_step(attrs["kind"], attrs)
        self.turns = directions(attrs["direction"])
        self.named = dict(zip(attrs["roles"], self.node.inputs, strict=True))
        self.hidden = int(attrs["hidden_size"])
        self.isa = host_isa()
        self.phases = phases_of(self.step)
        lengths = self.named.get("l")
        self.kernel = steps_kernel(self.step, lengths is not None, self.isa)
        self.kernels = (self.kernel,)

    def pack(self, constants: Constants) -> None:
        for role, value in self.named.items():
            if value.constant is not None and role not in "rb":
                constants.view(value.constant, value.dtype)
        recurrent = self.named["r"].constant
        assert recurrent is not None
        width = panel_width(self.isa)
        self.places: list[tuple[int, int]] = []
        for i, phase in enumerate(self.phases):
            part = recurrent[:, phase.first * self.hidden : phase.stop * self.hidden]
            weights = constants.place(pack_recurrent(part, self.isa), (self, "weights", i)).offset
            bias = np.zeros((len(self.turns), ceil_div(part.shape[1], width) * width), np.float32)
            if "b" in self.named and self.named["b"].constant is not None:
                behind = slice(part.shape[1] - self.hidden, part.shape[1])
                bias[:, behind] = self.named["b"].constant
            self.places.append((weights, constants.place(bias, (self, "bias", i)).offset))

    def plan(self, planner: Planner) -> None:
        view = {role: self._rows(planner, value) for role, value in self.named.items() if role not in "rb"}
        x, h0 = view["x"], view["h"]
        outs = [self._output(planner, i) for i in range(len(self.node.outputs))]
        y, ho = outs[0], outs[1]
        batch, steps, hidden = x.shape[0], x.shape[1], self.hidden
        if not batch:
            return
        turns, gates = len(self.turns), KINDS[self.step.kind].gates
        rows, width = ROWS[self.isa.name][0], panel_width(self.isa)
        # sequences of a block share the weights they read; an even number of blocks suits two threads
        blocks = ceil_div(batch, MOST_TILES * rows)
        if turns * blocks % 2 and batch >= 2 * rows:
            blocks += 1
        block = ceil_div(batch, blocks)
        blocks = ceil_div(batch, block)
        sums = ceil_div(gates * hidden * 4, 64) * 64
        mid_at = _TABLES + block * sums
        planner.need_scratch(mid_at + block * hidden * 4)
        values: dict[str, Any] = {
            "xp": x.ptr, "h0": h0.ptr, "y": y.ptr, "ho": ho.ptr, "x_b": x.strides[0], "x_t": x.strides[1],
            "x_d": gates * hidden * 4, "h0_b": h0.strides[0], "h0_d": h0.strides[1], "y_b": y.strides[0],
            "y_d": y.strides[1], "y_t": y.strides[2], "ho_b": ho.strides[0], "ho_d": ho.strides[1],
            "steps": steps, "hidden": hidden, "batch": batch, "block": block, "blocks": blocks,
            "reversed": sum(back << d for d, back in enumerate(self.turns)), "sums_at": _TABLES, "sums": sums,
            "mid_at": mid_at,
        }  # fmt: skip
        reads = list(view.values())
        if "c" in view:
            c0, co = view["c"], outs[2]
            values |= {"c0": c0.ptr, "co": co.ptr, "c0_b": c0.strides[0], "c0_d": c0.strides[1],
                       "co_b": co.strides[0], "co_d": co.strides[1]}  # fmt: skip
        if "a" in view:
            values |= {"att": view["a"].ptr, "a_b": view["a"].strides[0], "a_t": view["a"].strides[1]}
        if "l" in view:
            values |= {"lengths": view["l"].ptr, "l_b": view["l"].strides[0]}
        for i, phase in enumerate(self.phases):
            count = (phase.stop - phase.first) * hidden
            panels = ceil_div(count, width)
            weights, bias = self.places[i]
            values |= {
                f"w{i}": planner.constants.at(weights), f"b{i}": planner.constants.at(bias),
                f"w{i}_d": panels * hidden * width * 4, f"w{i}_p": hidden * width * 4, f"p{i}": panels,
                f"o{i}": count, f"b{i}_d": panels * width * 4, f"b{i}_p": width * 4,
                f"f{i}": phase.first * hidden * 4,
            }  # fmt: skip
        flops = 2.0 * batch * steps * turns * gates * hidden * hidden
        planner.step(self.kernel, values, turns * blocks, reads, outs, flops)
        for value, made in zip(self.node.outputs, outs, strict=True):
            if value.index in self.group.used:
                planner.alias_or_copy(value, made)

    def _output(self, planner: Planner, index: int) -> View:
        """Memory of its own for an output: rows of adjacent elements."""
        value = self.node.outputs[index]
        shape = planner.shape(value)
        return planner.allocate(shape, 4, plain(len(shape)))

    def _rows(self, planner: Planner, value: Any) -> View:
        """A view whose last dimension is adjacent."""
        view = planner.view(value)
        adjacent = view.shape[-1] <= 1 or view.strides[-1] == view.itemsize
        return view if adjacent else planner.contiguous(value)


def lower_steps(group: Group) -> Lowering | None:
    """Native for f32 where the recurrent weights are constants and lengths are i64."""
    assert group.anchor is not None
    node = group.anchor
    named = dict(zip(node.attrs["roles"], node.inputs, strict=True))
    constant = all(named[role].constant is not None for role in "rb" if role in named)
    lengths = named.get("l")
    fits = lengths is None or lengths.dtype == "i64"
    return RecurrentSteps(group) if constant and fits and named["x"].dtype == "f32" else None
