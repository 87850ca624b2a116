"""Recurrent layers on GPUs, with the products of all inputs before them.

A warp computes the sums of all gates for some hidden units of a sequence. Its lanes lie along the depth of
the product h R^T. Then lane j has unit j, and the gates are computed. The states of a step are written to the
output of all steps, where the next step reads them: no warp overwrites what another one still reads. Lengths
mean what they do on CPUs (`cpu_recurrent`).

All steps are one launch where the weights of a warp's units stay in its registers. `block_layer`: the warps
of a block have all units of a sequence, and meet after each phase of a step. `grid_layer`: all warps of the
launch, which run at a time, have all units, and take all sequences. Other layers, and many sequences of large
ones, have a launch for each phase of each step (`one_phase`), all in one CUDA graph.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.codegen.warps import WARPS
from ovjit.planning.chunks import ceil_div
from ovjit.planning.lower import Constants, NotNative, Planner, launch, place_constants
from ovjit.planning.views import View
from ovjit.records import NamedTuple
from ovjit_ops.recurrent.cpu_recurrent import LayerLowering, Phase, clear, keep, phases_of
from ovjit_ops.recurrent.step import KINDS, Step

#: Lanes of a vector on GPUs, and warps that share its units: four of each of 132 multiprocessors.
LANES, AT_ONCE = 32, 528
#: Hidden units and sequences of an item: a row of weights is read once for all its sequences.
UNITS, ROWS = 4, 2
#: Warps of a block that has all units of a sequence, at most, and its weights in registers of a thread; the
#: same of a warp among those of a launch, and its units and sequences.
BLOCK_WARPS, BLOCK_WEIGHTS = 8, 96
GRID_WEIGHTS, MOST_UNITS, MOST_SEQUENCES = 128, 8, 16
#: Axes of the tensors of phases. All but x, att and lengths are contiguous.
TENSORS = {
    "x": "b t d gates:1", "h0": "b d k:1", "y": "b d t k:1", "ho": "b d k:1", "co": "b d k:1",
    "r": "d outs depth:1", "bias": "d w:1", "att": "b t one", "lengths": "b", "middle": "b d k:1",
    "update": "b d k:1",
}  # fmt: skip


@inline
def count_steps(lengths, row, steps, ragged):
    """The number of steps of a sequence, at most `steps`."""
    count = steps
    if ragged:
        count = min(max(ld[i64](lengths.at(b=row)), 0), steps)
    return count


@kernel(over="b d", y="b d t k:1", h0="b d k:1", ho="b d k:1", c0="b d k:1", co="b d k:1", lengths="b")
def begin_layer(
    y: Tensor, h0: Tensor, ho: Tensor, c0: Tensor, co: Tensor, lengths: Tensor, counter: Ptr, reverse, *,
    has_c, ragged, counts,
):  # fmt: skip
    """Initialise the last states, and the counter if steps have one, and store zeros after the ends of
    sequences. Error 1: a sequence that is read from its end has an invalid length."""
    hidden = h0.size.k
    if counts:
        st[i32](counter, 0)
    for row, d in items():
        count = count_steps(lengths, row, y.size.t, ragged)
        clear(y.at(b=row, d=d), y.stride.t, count, y.size.t, hidden)
        keep(h0.at(b=row, d=d), ho.at(b=row, d=d), count, hidden)
        if has_c:
            keep(c0.at(b=row, d=d), co.at(b=row, d=d), count, hidden)
        if ragged:
            if (reverse >> d) & 1 == 1 and count != ld[i64](lengths.at(b=row)):
                return 1


@inline
def add_products(c, p, weights, step, hidden, *, gates, units, rows):
    """Set c[i, g, u] to the products of the rows at p[i] with the weights of gate g and unit u, along the
    lanes."""
    w, v = registers()
    for i, g, u in np.ndindex(rows, gates, units):
        c[i, g, u] = const[f32](0)
    for j in range(0, hidden, VL):
        for i in static_range(rows):
            v[i] = loadm[f32](p[i] + j * 4, hidden - j)
        for g, u in np.ndindex(gates, units):
            w[0] = loadm[f32](weights[u] + g * hidden * step + j * 4, hidden - j)
            for i in static_range(rows):
                c[i, g, u] = fma(v[i], w[0], c[i, g, u])


@inline
def sum_of_gate(c, i, g, *, units):
    """The sums over lanes of c[i, g, u], in lane u. In each turn, lanes exchange the half of their values
    that others go on with."""
    s = registers()
    lane = lane_numbers[i32]()
    for u in static_range(LANES):
        s[u] = c[i, g, u] if u < units else const[f32](0)
    for turn in static_range(5):
        other = lane ^ const[i32](1 << turn)
        is_odd = (lane & const[i32](1 << turn)) != const[i32](0)
        for k in static_range(max(1, LANES >> (turn + 1))):
            if k << (turn + 1) < units:
                sent = select(is_odd, s[2 * k], s[2 * k + 1])
                s[k] = select(is_odd, s[2 * k + 1], s[2 * k]) + permute[f32](sent, other)
    return s[0]


@inline
def find_rows(row, back, *, p, q, t, live, at, x, h0, y, middle, lengths, d, n, ragged, from_middle, rows):
    """Set for each sequence of an item: its number q, its number of steps, the index t of step n, the offset
    `at` of its states, the address of its previous state, and p[i], that of the row that is multiplied."""
    hidden = h0.size.k
    for i in static_range(rows):
        q[i] = min(row + i, x.size.b - 1)
        live[i] = count_steps(lengths, q[i], x.size.t, ragged)
        t[i] = min(n, max(live[i] - 1, 0))
        earlier = max(t[i] - 1, 0)
        if back == 1:
            t[i] = max(live[i] - 1 - n, 0)
            earlier = min(t[i] + 1, x.size.t - 1)
        at[i] = (q[i] * x.size.d + d) * hidden * 4
        p[i, "h"] = h0 + at[i]
        if n > 0:
            p[i, "h"] = y + at[i] * x.size.t + earlier * hidden * 4
        p[i] = p[i, "h"]
        if from_middle:
            p[i] = middle + at[i]


@inline
def store_state(there, state, width, is_too_long):
    """Store a last state: 0 for a sequence that is longer than the data."""
    last = state
    if is_too_long == 1:
        last = const[f32](0)
    storem[f32](there, last, width)


@inline
def finish_row(
    i, is_there, *, c, p, q, t, live, at, x, y, ho, co, bias, att, lengths, middle, update, d, unit, width, n,
    hidden, phase, ragged, biased, units,
):  # fmt: skip
    """Apply a phase's gates to the sums of sequence q[i], and store its results if `is_there`."""
    operands, results = registers()
    for k, (name, gate) in enumerate(phase.inputs):
        if name == "a":
            operands[k] = splat[f32](att.at(b=q[i], t=t[i]))
        elif name == "x":
            operands[k] = loadm[f32](x.at(b=q[i], t=t[i], d=d) + (gate * hidden + unit) * 4, width)
        elif name == "h":
            operands[k] = loadm[f32](p[i, "h"] + unit * 4, width)
        elif name == "c":
            operands[k] = loadm[f32](co + at[i] + unit * 4, width)
        elif gate < phase.first:
            operands[k] = loadm[f32](update + at[i] + unit * 4, width)
        else:
            operands[k] = sum_of_gate(c, i, gate - phase.first)
            if biased and gate == phase.stop - 1:
                operands[k] = operands[k] + loadm[f32](bias + (d * hidden + unit) * 4, width)
    results = applied(phase.body, *operands)
    if is_there and n < live[i]:
        is_too_long = 0
        if ragged:
            if ld[i64](lengths.at(b=q[i])) > x.size.t and n == x.size.t - 1:
                is_too_long = 1
        for k, (name, _) in enumerate(phase.outputs):
            if name == "h":
                storem[f32](y + at[i] * x.size.t + (t[i] * hidden + unit) * 4, results[k], width)
                store_state(ho + at[i] + unit * 4, results[k], width, is_too_long)
            if name == "c":
                store_state(co + at[i] + unit * 4, results[k], width, is_too_long)
            if name == "m":
                storem[f32](middle + at[i] + unit * 4, results[k], width)
            if name == "s":
                storem[f32](update + at[i] + unit * 4, results[k], width)


@kernel(over="b/rows d k/units", **TENSORS)
def one_phase(
    x: Tensor, h0: Tensor, y: Tensor, ho: Tensor, co: Tensor, r: Tensor, bias: Tensor, att: Tensor,
    lengths: Tensor, middle: Tensor, update: Tensor, n, reverse, *, phase, gates, ragged, biased,
    from_middle, rows, units,
):  # fmt: skip
    """Phase `phase` of step n. `middle`: rows that the next phase multiplies; `update`: its first gate.
    `biased`: the last gate's sum has a bias. `from_middle`: this phase multiplies the rows of `middle`."""
    c, p, q, t, weights, live, at = registers()
    hidden = h0.size.k
    outs = r.size.outs
    for row, d, unit in items():
        width = min(hidden - unit, units)
        for u in static_range(units):  # units and sequences that are not there repeat the last one
            weights[u] = r + ((d * outs + phase.first * hidden + unit + min(u, width - 1)) * hidden) * 4
        find_rows(row, (reverse >> d) & 1)
        add_products(c, p, weights, hidden * 4, hidden)
        for i in static_range(rows):
            finish_row(i, row + i < x.size.b)


@inline
def load_slice(p, j, *, hidden):
    """Vector j of a row."""
    v = registers()
    if (j + 1) * LANES <= hidden:
        v[0] = load[f32](p + j * LANES * 4)
    else:
        v[0] = loadm[f32](p + j * LANES * 4, hidden - j * LANES)
    return v[0]


@inline
def run_phase(
    w, c, p, q, t, live, at, x, h0, y, ho, co, r, bias, att, lengths, middle, update, first, stop, d, unit, n,
    back, loads, *, which, phase, from_middle, ragged, biased, units, slices,
    hidden,
):  # fmt: skip
    """Phase number `which` of step n for the sequences from `first` to `stop`. `loads`: 1 if the weights are
    loaded first, in `slices` vectors of each row; else they are in registers."""
    width = min(hidden - unit, units)
    if loads == 1:
        outs = r.size.outs
        for g, u in np.ndindex(phase.stop - phase.first, units):
            weights = r + ((d * outs + (phase.first + g) * hidden + unit + min(u, width - 1)) * hidden) * 4
            for j in static_range(slices):
                w[which, g, u, j] = load_slice(weights, j)
    for row in range(first, stop):
        find_rows(row, back, rows=1)
        for g, u in np.ndindex(phase.stop - phase.first, units):
            c[0, g, u] = const[f32](0)
        for j in static_range(slices):
            v = load_slice(p[0], j)
            for g, u in np.ndindex(phase.stop - phase.first, units):
                c[0, g, u] = fma(v, w[which, g, u, j], c[0, g, u])
        finish_row(0, 1 == 1)


@inline
def begin_weights(w, *, phases, units, slices):
    """Set the registers of the weights, w[phase, gate, unit, vector of a slice], to zero."""
    for k, (phase, _) in enumerate(phases):
        for g, u, j in np.ndindex(phase.stop - phase.first, units, slices):
            w[k, g, u, j] = const[f32](0)


@kernel(over="b d", **TENSORS)
def block_layer(
    x: Tensor, h0: Tensor, y: Tensor, ho: Tensor, co: Tensor, r: Tensor, bias: Tensor, att: Tensor,
    lengths: Tensor, middle: Tensor, update: Tensor, reverse, *, phases, ragged, biased, units, slices, warps,
    hidden,
):  # fmt: skip
    """All steps of a sequence in one direction. `phases`: pairs of a phase of a step and whether it
    multiplies the rows of `middle`."""
    w, c, p, q, t, live, at = registers()
    step = block_warps(warps, 1) * units
    begin_weights(w)
    for row, d in items():
        for n in range(x.size.t):
            loads = 0
            if n == 0 or step < hidden:
                loads = 1
            for which, (phase, from_middle) in enumerate(phases):
                for unit in range(warp_number() * units, hidden, step):
                    run_phase(
                        w, c, p, q, t, live, at, x, h0, y, ho, co, r, bias, att, lengths, middle, update, row,
                        row + 1, d, unit, n, (reverse >> d) & 1, loads,
                        which=which, phase=phase, from_middle=from_middle,
                    )  # fmt: skip
                meet_block()


@kernel(over="", **TENSORS)
def grid_layer(
    x: Tensor, h0: Tensor, y: Tensor, ho: Tensor, co: Tensor, r: Tensor, bias: Tensor, att: Tensor,
    lengths: Tensor, middle: Tensor, update: Tensor, counter: Ptr, reverse, requested, *, phases, ragged,
    biased, units, slices, warps, hidden,
):  # fmt: skip
    """All steps of all sequences, by `requested` warps: those of the units of both directions. `counter`: of
    `meet_grid`."""
    w, c, p, q, t, live, at = registers()
    count = grid_warps(requested, warps)
    groups = (hidden + units - 1) // units
    begin_weights(w)
    for n in range(x.size.t):
        loads = 0
        if n == 0 or count < requested:
            loads = 1
        for which, (phase, from_middle) in enumerate(phases):
            for item in range(grid_warp(), requested, count):
                d = item // groups
                run_phase(
                    w, c, p, q, t, live, at, x, h0, y, ho, co, r, bias, att, lengths, middle, update, 0,
                    x.size.b, d, (item - d * groups) * units, n, (reverse >> d) & 1, loads, which=which,
                    phase=phase, from_middle=from_middle,
                )  # fmt: skip
            meet_grid(counter)


class Team(NamedTuple):
    """The warps that compute all steps of a layer: units of a warp, vectors of their rows of weights, warps
    of a block, and whether all warps of the launch belong to it, or those of a block."""

    units: int
    slices: int
    warps: int
    is_grid: bool

    @classmethod
    def of(cls, gates: int, hidden: int, turns: int) -> Team | None:
        """The team of a layer; None if the weights of a unit do not fit a warp's registers."""
        slices, units = ceil_div(hidden, LANES), ceil_div(hidden, BLOCK_WARPS)
        if gates * units * slices <= BLOCK_WEIGHTS:
            return cls(units, slices, ceil_div(hidden, units), False)
        sizes = [u for u in range(1, MOST_UNITS + 1) if gates * u * slices <= GRID_WEIGHTS]
        enough = (u for u in sizes if turns * ceil_div(hidden, u) <= AT_ONCE)
        return cls(next(enough, sizes[-1]), slices, WARPS, True) if sizes else None


@functools.lru_cache(64)
def layer_kernels(
    step: Step, ragged: bool, biased: bool, team: Team | None, hidden: int
) -> tuple[Kernel, Kernel | None, tuple[tuple[Phase, Kernel], ...]]:
    """The kernel that begins a layer, that of all steps by a team, and those of the phases of a step."""
    has_c, phases = KINDS[step.kind].states == 2, phases_of(step)
    words = f"{'_ragged' if ragged else ''}{'_biased' if biased else ''}"
    kinds: dict[str, Any] = {"ragged": ragged, "biased": biased}
    kernels, multiplied, from_middle = [], [], False
    for i, phase in enumerate(phases):
        one = one_phase.kernel(
            f"{step.kind.lower()}_phase{i}{words}", phase=phase, gates=phase.stop - phase.first,
            from_middle=from_middle, rows=ROWS, units=UNITS, **kinds,
        )  # fmt: skip
        kernels.append((phase, one))
        multiplied.append((phase, from_middle))
        from_middle = ("m", 0) in phase.outputs
    begin = begin_layer(has_c=has_c, ragged=ragged, counts=team is not None and team.is_grid)
    if team is None:
        return begin, None, tuple(kernels)
    units, slices, warps, is_grid = team
    blocks = "all_blocks" if is_grid else "a_block"
    name = f"{step.kind.lower()}_layer_{hidden}_of_{blocks}{words}"
    of_team = (grid_layer if is_grid else block_layer).kernel(
        name,
        phases=tuple(multiplied),
        units=units,
        slices=slices,
        hidden=hidden,
        warps=warps,
        **kinds,
    )
    return begin, of_team, tuple(kernels)


class GpuRecurrentSteps(LayerLowering):
    """All steps of a layer in f32."""

    takes = (("f32", "i64"),)

    def set_up(self) -> None:
        super().set_up()
        if any((v.dtype == "i64") != (role == "l") for role, v in self.named.items()):
            raise NotNative
        gates, batch = KINDS[self.step.kind].gates, self.named["x"].shape[0]
        self.team = Team.of(gates, self.hidden, len(self.turns))
        self.begin, self.of_team, self.phases = layer_kernels(
            self.step, "l" in self.named, "b" in self.named, self.team, self.hidden
        )
        phases = [one for _, one in self.phases]
        if self.team is not None and (not self.team.is_grid or isinstance(batch, int) and self._fits(batch)):
            phases = []
        self.kernels = (self.begin, *([] if self.of_team is None else [self.of_team]), *phases)

    def _fits(self, batch: Any) -> bool:
        """True if a team takes so many sequences."""
        return self.team is not None and (not self.team.is_grid or batch <= MOST_SEQUENCES)

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)

    def plan_steps(self, planner: Planner, views: dict[str, View], outs: list[View]) -> None:
        x, hidden = views["x"], self.hidden
        views |= {role: planner.contiguous(self.named[role]) for role in "hrb" if role in views}
        batch, steps, _ = x.shape
        gates, turns = KINDS[self.step.kind].gates, len(self.turns)
        x = View(
            x.buffer, (batch, steps, turns, gates * hidden), (*x.strides[:2], gates * hidden * 4, 4), 4,
            x.offset,
        )  # fmt: skip
        y, ho = outs[:2]
        unused = views["h"]  # of the right shape, and not written
        states = {"h0": views["h"], "ho": ho, "c0": views.get("c", unused), "co": (*outs, unused)[2]}
        lengths = views["l"] if "l" in views else View(x.buffer, (batch,), (0,), 4, x.offset)
        ways: dict[str, Any] = {"reverse": sum(back << d for d, back in enumerate(self.turns))}
        written: tuple[str, ...] = ("ho", "co") if "c" in views else ("ho",)
        tensors = {**states, "y": y, "lengths": lengths}
        counter = planner.allocate((1,), 4)
        launch(
            planner, self.begin, tensors, ("y", *written), work=inf, disjoint=False, counter=counter, **ways
        )
        further = {
            "x": x, "r": views["r"],
            "bias": views.get("b", View(x.buffer, (turns, hidden), (0, 4), 4, x.offset)),
            "att": views.get("a", View(x.buffer, (batch, steps, 1), (0, 0, 4), 4, x.offset)),
            "middle": unused, "update": unused,
        }  # fmt: skip
        if len(self.phases) > 1:
            further |= {n: planner.allocate(ho.shape, 4) for n in ("middle", "update")}
            written += ("middle", "update")
        tensors = {n: v for n, v in (tensors | further).items() if n != "c0"}
        flops = 2.0 * batch * turns * hidden * hidden
        team = self.team
        if team is not None and self.of_team is not None and self._fits(batch):
            requested = {"counter": counter, "requested": turns * ceil_div(hidden, team.units)}
            launch(
                planner, self.of_team, tensors, ("y", *written), work=inf, disjoint=False,
                flops=flops * gates * steps, **ways, **(requested if team.is_grid else {}),
            )  # fmt: skip
            return
        for n in range(steps):
            for phase, one in self.phases:
                each = phase.stop - phase.first
                launch(
                    planner, one, tensors, ("y", *written), work=hidden * each * UNITS * ROWS, disjoint=False,
                    flops=flops * each, n=n, rows=ROWS, units=UNITS, **ways,
                )  # fmt: skip
