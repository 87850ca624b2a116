"""Recurrent layers on GPUs: a launch for each phase of each step, all in one CUDA graph.

A warp computes the sums of all gates for some hidden units of some sequences. Its lanes lie along the depth
of the product h R^T, whose weights are read where the model has them. Then lane j has unit j, and the gates
are computed. The states of a step are written to the output of all steps, where the next step reads them: no
warp overwrites what another one still reads. Lengths mean what they do on CPUs (`cpu_recurrent`).
"""

from __future__ import annotations

import functools

import numpy as np

from ovjit.codegen.kernel_language import *
from ovjit.planning.lower import Constants, NotNative, Planner, launch, place_constants
from ovjit.planning.views import View
from ovjit_ops.recurrent.cpu_recurrent import LayerLowering, Phase, clear, keep, phases_of
from ovjit_ops.recurrent.step import KINDS, Step

#: Hidden units and sequences of an item: a row of weights is read once for all its sequences.
UNITS, ROWS = 4, 2


@inline
def count_steps(lengths, row, steps, ragged):
    """The number of steps of a sequence, at most `steps`."""
    count = steps
    if ragged:
        count = min(max(ld[i64](lengths.at(b=row)), 0), steps)
    return count


@kernel(over="b d", y="b d t k:1", h0="b d k:1", ho="b d k:1", c0="b d k:1", co="b d k:1", lengths="b")
def begin_layer(
    y: Tensor, h0: Tensor, ho: Tensor, c0: Tensor, co: Tensor, lengths: Tensor, reverse, *, has_c, ragged
):
    """Initialise the last states, and store zeros behind the ends of sequences. Error 1: a sequence that is
    read from its end has an invalid length."""
    hidden = h0.size.k
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
    """The sums over lanes of c[i, g, u], in lane u."""
    lane = lane_numbers[i32]()
    total = const[f32](0)
    for u in static_range(units):
        total = select(lane == const[i32](u), spread[f32](hadd[f32](c[i, g, u])), total)
    return total


@inline
def find_rows(p, q, t, live, x, h0, y, middle, lengths, row, d, n, back, *, ragged, from_middle, rows):
    """Set for each sequence of an item: its number q, its number of steps, the index t of step n, the address
    of its previous state, and p[i], that of the row that is multiplied."""
    for i in static_range(rows):
        q[i] = min(row + i, x.size.b - 1)
        live[i] = count_steps(lengths, q[i], x.size.t, ragged)
        t[i] = min(n, max(live[i] - 1, 0))
        earlier = max(t[i] - 1, 0)
        if back == 1:
            t[i] = max(live[i] - 1 - n, 0)
            earlier = min(t[i] + 1, x.size.t - 1)
        p[i, "h"] = h0.at(b=q[i], d=d)
        if n > 0:
            p[i, "h"] = y.at(b=q[i], d=d, t=earlier)
        p[i] = p[i, "h"]
        if from_middle:
            p[i] = middle.at(b=q[i], d=d)


@inline
def store_state(there, state, width, is_too_long):
    """Store a last state: 0 for a sequence that is longer than the data."""
    last = state
    if is_too_long == 1:
        last = const[f32](0)
    storem[f32](there, last, width)


@kernel(
    over="b/rows d k/units", x="b t d gates:1", h0="b d k:1", y="b d t k:1", ho="b d k:1", co="b d k:1",
    r="d outs depth:1", bias="d w:1", att="b t one", lengths="b", middle="b d k:1", update="b d k:1",
)  # fmt: skip
def one_phase(
    x: Tensor, h0: Tensor, y: Tensor, ho: Tensor, co: Tensor, r: Tensor, bias: Tensor, att: Tensor,
    lengths: Tensor, middle: Tensor, update: Tensor, n, reverse, *, phase, gates, ragged, biased,
    from_middle, rows, units,
):  # fmt: skip
    """Phase `phase` of step n. `middle`: rows that the next phase multiplies; `update`: its first gate.
    `biased`: the last gate's sum has a bias. `from_middle`: this phase multiplies the rows of `middle`."""
    c, p, q, t, weights, live, operands, results = registers()
    hidden = h0.size.k
    for row, d, unit in items():
        width = min(hidden - unit, units)
        for u in static_range(units):  # units and sequences that are not there repeat the last one
            weights[u] = r.at(d=d, outs=phase.first * hidden + unit + min(u, width - 1))
        find_rows(p, q, t, live, x, h0, y, middle, lengths, row, d, n, (reverse >> d) & 1)
        add_products(c, p, weights, r.stride.outs, hidden)
        for i in static_range(rows):
            for k, (name, gate) in enumerate(phase.inputs):
                if name == "a":
                    operands[k] = splat[f32](att.at(b=q[i], t=t[i]))
                elif name == "x":
                    operands[k] = loadm[f32](x.at(b=q[i], t=t[i], d=d) + (gate * hidden + unit) * 4, width)
                elif name == "h":
                    operands[k] = loadm[f32](p[i, "h"] + unit * 4, width)
                elif name == "c":
                    operands[k] = loadm[f32](co.at(b=q[i], d=d) + unit * 4, width)
                elif gate < phase.first:
                    operands[k] = loadm[f32](update.at(b=q[i], d=d) + unit * 4, width)
                else:
                    operands[k] = sum_of_gate(c, i, gate - phase.first)
                    if biased and gate == phase.stop - 1:
                        operands[k] = operands[k] + loadm[f32](bias.at(d=d) + unit * 4, width)
            results = applied(phase.body, *operands)
            if row + i < x.size.b and n < live[i]:
                is_too_long = 0
                if ragged:
                    if ld[i64](lengths.at(b=q[i])) > x.size.t and n == x.size.t - 1:
                        is_too_long = 1
                for k, (name, _) in enumerate(phase.outputs):
                    if name == "h":
                        storem[f32](y.at(b=q[i], d=d, t=t[i]) + unit * 4, results[k], width)
                        store_state(ho.at(b=q[i], d=d) + unit * 4, results[k], width, is_too_long)
                    if name == "c":
                        store_state(co.at(b=q[i], d=d) + unit * 4, results[k], width, is_too_long)
                    if name == "m":
                        storem[f32](middle.at(b=q[i], d=d) + unit * 4, results[k], width)
                    if name == "s":
                        storem[f32](update.at(b=q[i], d=d) + unit * 4, results[k], width)


@functools.lru_cache(64)
def phase_kernels(step: Step, ragged: bool, biased: bool) -> tuple[Kernel, tuple[tuple[Phase, Kernel], ...]]:
    """The kernel that begins a layer, and those of the phases of its steps."""
    has_c, phases = KINDS[step.kind].states == 2, phases_of(step)
    kernels, from_middle = [], False
    for i, phase in enumerate(phases):
        name = f"{step.kind.lower()}_phase{i}{'_ragged' if ragged else ''}{'_biased' if biased else ''}"
        one = one_phase.kernel(
            name, phase=phase, gates=phase.stop - phase.first, ragged=ragged, biased=biased,
            from_middle=from_middle, rows=ROWS, units=UNITS,
        )  # fmt: skip
        kernels.append((phase, one))
        from_middle = ("m", 0) in phase.outputs
    return begin_layer(has_c=has_c, ragged=ragged), tuple(kernels)


class GpuRecurrentSteps(LayerLowering):
    """All steps of a layer in f32."""

    takes = (("f32", "i64"),)

    def set_up(self) -> None:
        super().set_up()
        if any((v.dtype == "i64") != (role == "l") for role, v in self.named.items()):
            raise NotNative
        self.begin, self.phases = phase_kernels(self.step, "l" in self.named, "b" in self.named)
        self.kernels = (self.begin, *(one for _, one in self.phases))

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)

    def plan_steps(self, planner: Planner, views: dict[str, View], outs: list[View]) -> None:
        x, hidden = views["x"], self.hidden
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
        ways = {"reverse": sum(back << d for d, back in enumerate(self.turns))}
        written: tuple[str, ...] = ("ho", "co") if "c" in views else ("ho",)
        tensors = {**states, "y": y, "lengths": lengths}
        launch(planner, self.begin, tensors, ("y", *written), work=inf, disjoint=False, **ways)
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
        for n in range(steps):
            for phase, one in self.phases:
                each = phase.stop - phase.first
                launch(
                    planner, one, tensors, ("y", *written), work=hidden * each * UNITS * ROWS, disjoint=False,
                    flops=flops * each, n=n, rows=ROWS, units=UNITS, **ways,
                )  # fmt: skip
