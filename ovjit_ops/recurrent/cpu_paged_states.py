"""The kernels of paged states: a chunk has one head, or some channels, of one sequence.

It copies the state to scratch memory as f32, updates it there token by token, and copies it to the blocks
that keep states. Sequences and heads are independent, so that chunks have no order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ovjit.codegen import approx
from ovjit.codegen.cpu.ir import body_of
from ovjit.codegen.kernel_language import *
from ovjit.graph.symbolic import sym_min
from ovjit.planning.lower import Lowering
from ovjit.planning.plan import ALIGNMENT, NotNative, Planner, ceil_div
from ovjit_ops.attention.cpu_paged_numbers import fill

EXP = body_of(approx.exp_f32)
#: Element types of state tables.
STORED = ("f32", "f16", "bf16")
#: Channels of a convolution in a chunk.
CHANNELS = 256


#: i32 lists: begins of the sequences' tokens, block indices, begins of the sequences' blocks, past lengths,
#: and intervals of kept states.
LISTS = Raw("*begins *entries *ends *past *interval")


@kernel(lists=LISTS)
def states_guard(lists, done: Ptr, sequences, tokens, listed, blocks, *, all_kept):
    """Check all indices of tokens and blocks, and the number of blocks of each sequence. Returns 14 or 15,
    the keys of `FAULTS`, for invalid lists. `all_kept`: each state to keep needs a block. `blocks`: blocks of
    the table."""
    if ld[i32](lists.begins) != 0 or ld[i32](lists.ends) != 0:
        return 14
    for s in range(sequences):
        first = ld[i32](lists.begins + s * 4) + 0
        end = ld[i32](lists.begins + s * 4 + 4) + 0
        at = ld[i32](lists.ends + s * 4) + 0
        stop = ld[i32](lists.ends + s * 4 + 4) + 0
        if end < first or stop < at or end > tokens or stop > listed:
            return 14
        if ld[i32](lists.past + s * 4) < 0 or (end > first and stop - at < 2):
            return 15
        if all_kept:
            every = ld[i32](lists.interval + s * 4) + 0
            if every > 0 and end > first:
                done_of = (ld[i32](lists.past + s * 4) + 0) % every + end - first
                if (done_of + every - 1) // every > stop - at - 1:
                    return 15
    for i in range(listed):
        index = ld[i32](lists.entries + i * 4) + 0
        if index < 0 or index >= blocks:
            return 15
    if ld[i32](lists.begins + sequences * 4) != tokens:
        return 14
    st[i64](done, 0)


@inline
def block_of_state(lists, s, t, last):
    """The block that keeps the state after token t of sequence s, or -1. `last`: the position of the last
    state's block if there is no interval; 0: it is not kept."""
    first = ld[i32](lists.begins + s * 4) + 0
    end = ld[i32](lists.begins + s * 4 + 4) + 0
    at = ld[i32](lists.ends + s * 4) + 0
    span = ld[i32](lists.ends + s * 4 + 4) - at
    every = ld[i32](lists.interval + s * 4) + 0
    number = last
    boundary = 0
    if every > 0:
        done = t - first + 1 + (ld[i32](lists.past + s * 4) + 0) % every
        number = (done + every - 1) // every
        if done % every == 0:
            boundary = 1
    block = -1
    if number > 0 and number < span and (boundary == 1 or t == end - 1):
        block = ld[i32](lists.entries + (at + number) * 4) + 0
    return block


#: Value heads, value heads per key head, elements of a value, elements of a key, and the row stride in bytes
#: of a state in scratch memory.
STATE_SHAPE = Raw("heads group value_size size row")


@inline
def unit_row(p, to, size, eps, factor, unit):
    """Write `size` elements of a row times `factor` to `to`, padded with zeros to whole vectors. `unit`:
    normalized to length 1 first."""
    scale = factor
    if unit:
        acc = const[f32](0.0)
        for j in range(0, size, VL):
            x = loadm[f32](p + j * 4, size - j)
            acc = fma(x, x, acc)
        scale = factor / sqrt(spread[f32](hadd[f32](acc)) + splat[f32](eps))
    for j in range(0, size, VL):
        store[f32](to + j * 4, loadm[f32](p + j * 4, size - j) * scale)


@inline
def copy_state(p, p_row, to, to_row, rows, size, P, T):
    """Copy the `rows` rows of a state of element type P to element type T."""
    for r in range(rows):
        for j in range(0, size, VL):
            number = loadm[P](p + r * p_row + j * SIZE[P], size - j)
            storem[T](to + r * to_row + j * SIZE[T], number, size - j)


@inline
def next_token(state, key, query, v, y, decay, learn, shape, delta):
    """Update a state with a token, and store its output at y. See `paged_states`; `decay` is the decay,
    `learn` the factor of the change."""
    acc, change = registers()
    for r in range(0, shape.value_size, 4):
        line = state + r * shape.row
        for i in static_range(4):
            change[i] = splat[f32](v + min(r + i, shape.value_size - 1) * 4)
            acc[i] = const[f32](0.0)
        if delta:
            for j in range(0, shape.size, VL):
                number = load[f32](key + j * 4)
                for i in static_range(4):
                    acc[i] = fma(load[f32](line + i * shape.row + j * 4) * decay, number, acc[i])
            for i in static_range(4):
                change[i] = change[i] - spread[f32](hadd[f32](acc[i]))
                acc[i] = const[f32](0.0)
        for i in static_range(4):
            change[i] = change[i] * learn
        for j in range(0, shape.size, VL):
            number = load[f32](key + j * 4)
            queried = load[f32](query + j * 4)
            for i in static_range(4):
                at = line + i * shape.row + j * 4
                new = fma(number, change[i], load[f32](at) * decay)
                store[f32](at, new)
                acc[i] = fma(new, queried, acc[i])
        for i in static_range(4):
            if r + i < shape.value_size:
                storem[f32](y + (r + i) * 4, spread[f32](hadd[f32](acc[i])), 1)


#: Addresses of tokens, gates, learning rates, state table, output, and epsilons of the norms of q and k.
STATE_TENSORS = Raw("*q *k *v *gate *beta *table *y *eps")


@kernel(tensors=STATE_TENSORS, lists=LISTS, shape=STATE_SHAPE)
def paged_states(tensors, lists, shape, *, delta, unit, T):
    """A state [value, key] of one head: s = decay s + change k^T, y = s q. With `delta`, the change is beta
    (v - decay s k), the decay exp(gate). Without it, the change is beta v, the decay exp(gate beta). `T`: the
    table's element type."""
    s = chunk // shape.heads
    h = chunk % shape.heads
    key_heads = shape.heads // shape.group
    block = shape.value_size * shape.size * SIZE[T]
    first = ld[i32](lists.begins + s * 4) + 0
    end = ld[i32](lists.begins + s * 4 + 4) + 0
    if end <= first:
        return 0
    source = ld[i32](lists.entries + (ld[i32](lists.ends + s * 4) + 0) * 4) + 0
    key = scratch
    query = scratch + shape.row
    state = scratch + 2 * shape.row
    for r in range(shape.value_size + 4):
        fill(state + r * shape.row, 0, shape.row // 4, 0.0)
    copy_state(
        tensors.table + (source * shape.heads + h) * block, shape.size * SIZE[T], state, shape.row,
        shape.value_size, shape.size, T, "f32",
    )  # fmt: skip
    factor = const[f32](1.0)
    if delta:
        factor = factor / sqrt(cast[f32](spread[i32](shape.size)))
    for t in range(first, end):
        offset = (t * key_heads + h // shape.group) * shape.size * 4
        unit_row(tensors.q + offset, query, shape.size, tensors.eps, factor, unit)
        unit_row(tensors.k + offset, key, shape.size, tensors.eps + 4, const[f32](1.0), unit)
        learn = splat[f32](tensors.beta + (t * shape.heads + h) * 4)
        if delta:
            decay = applied(EXP, splat[f32](tensors.gate + (t * shape.heads + h) * 4))
        else:
            decay = applied(EXP, splat[f32](tensors.gate + h * 4) * learn)
        out = (t * shape.heads + h) * shape.value_size * 4
        next_token(state, key, query, tensors.v + out, tensors.y + out, decay, learn, shape, delta)
        to = block_of_state(lists, s, t, 1 if delta else 0)
        if to >= 0:
            copy_state(
                state, shape.row, tensors.table + (to * shape.heads + h) * block, shape.size * SIZE[T],
                shape.value_size, shape.size, "f32", T,
            )  # fmt: skip


#: Addresses of the tokens, the table of last tokens, the weights of taps, the bias, and the output.
WINDOW_TENSORS = Raw("*x *table *weights *bias *y")
#: Channels, taps, chunks per sequence, elements of the bias, channels per chunk, and lanes of a row in
#: scratch memory.
WINDOW_SHAPE = Raw("channels taps parts added each lanes")


@kernel(tensors=WINDOW_TENSORS, lists=LISTS, shape=WINDOW_SHAPE)
def paged_windows(tensors, lists, shape, *, T):
    """The weighted sum of the last `shape.taps` tokens, for each channel of a chunk. `T`: the table's element
    type."""
    s = chunk // shape.parts
    start = chunk % shape.parts * shape.each
    first = ld[i32](lists.begins + s * 4) + 0
    end = ld[i32](lists.begins + s * 4 + 4) + 0
    if end <= first:
        return 0
    source = ld[i32](lists.entries + (ld[i32](lists.ends + s * 4) + 0) * 4) + 0
    row = shape.lanes * 4
    for c in range(start, min(start + shape.each, shape.channels), VL):
        part = min(start + shape.each, shape.channels) - c
        for i in range(shape.taps):
            at = (source * shape.channels + c) * shape.taps + i
            store[f32](scratch + i * row, gather[T](tensors.table + at * SIZE[T], shape.taps * SIZE[T], part))
            number = gather[f32](tensors.weights + (c * shape.taps + i) * 4, shape.taps * 4, part)
            store[f32](scratch + (shape.taps + i) * row, number)
        for t in range(first, end):
            acc = const[f32](0.0)
            if shape.added > 0:
                acc = loadm[f32](tensors.bias + c * 4, part)
            for i in range(shape.taps):
                number = loadm[f32](tensors.x + (t * shape.channels + c) * 4, part)
                if i < shape.taps - 1:
                    number = load[f32](scratch + (i + 1) * row)
                store[f32](scratch + i * row, number)
                acc = fma(number, load[f32](scratch + (shape.taps + i) * row), acc)
            storem[f32](tensors.y + (t * shape.channels + c) * 4, acc, part)
            to = block_of_state(lists, s, t, 1)
            if to >= 0:
                for i in range(shape.taps):
                    at = (to * shape.channels + c) * shape.taps + i
                    scatter[T](
                        tensors.table + at * SIZE[T], shape.taps * SIZE[T], load[f32](scratch + i * row), part
                    )


def _lists(planner: Planner, inputs: Any) -> tuple[dict[str, Any], list[Any]]:
    """The arguments of `LISTS`, and their views."""
    views = [planner.contiguous(v) for v in inputs]
    names = ("begins", "entries", "ends", "past", "interval")
    return dict(zip(names, (v.ptr for v in views), strict=True)), views


class PagedStatesGuard(Lowering):
    """The check of all lists, in one step with one chunk."""

    takes = (("i32",), ("i32",), ("i32",), ("i32",), ("i32",), None)

    def set_up(self) -> None:
        self.kernel = states_guard(all_kept=bool(self.node.attrs["all_kept"]))

    def plan(self, planner: Planner) -> None:
        lists, views = _lists(planner, self.node.inputs[:5])
        table_sizes = [planner.shape(v)[0] for v in self.node.inputs[6:]]
        done = planner.row_major_output(self.node.output)
        values = lists | {
            "done": done.ptr, "sequences": views[3].shape[0], "listed": views[1].shape[0],
            "tokens": planner.shape(self.node.inputs[5])[0],
            "blocks": sym_min(*table_sizes) if len(table_sizes) > 1 else table_sizes[0],
        }  # fmt: skip
        planner.step(self.kernel, values, 1, views, [done])


class _States(Lowering):
    """Base class of the lowerings of states."""

    takes: Sequence[Collection[str] | None] = (("f32",),)
    constant_inputs = None
    #: The index of the input with the table.
    at = 0

    @property
    def element_type(self) -> str:
        """The element type of the table."""
        return self.node.inputs[self.at].dtype

    def _table(self, planner: Planner) -> Any:
        """The caller's table, written in place. Raises NotNative if it is not contiguous."""
        view = planner.view(self.node.inputs[self.at])
        if not view.is_contiguous:
            raise NotNative
        planner.written_inputs.add(view.buffer)
        return view


class Windows(_States):
    """PagedCausalConv1D."""

    takes = (("f32",), STORED, ("f32",), ("f32",), None)
    at = 1

    def set_up(self) -> None:
        self.kernel = paged_windows(T=self.element_type)

    def plan(self, planner: Planner) -> None:
        lists, views = _lists(planner, self.node.inputs[4:9])
        x, weights, bias = (planner.contiguous(self.node.inputs[i]) for i in (0, 2, 3))
        table, y = self._table(planner), planner.row_major_output(self.node.output)
        channels, taps = table.shape[1:]
        lanes, parts = self.target.lanes, ceil_div(channels, CHANNELS)
        planner.need_scratch(2 * taps * lanes * 4)
        values = lists | {
            "x": x.ptr, "table": table.ptr, "weights": weights.ptr, "bias": bias.ptr, "y": y.ptr,
            "channels": channels, "taps": taps, "parts": parts, "added": bias.shape[0], "each": CHANNELS,
            "lanes": lanes,
        }  # fmt: skip
        chunks, work = views[3].shape[0] * parts, 2.0 * taps * channels * x.shape[0]
        planner.step(self.kernel, values, chunks, [*views, x, weights, bias], [y, table], work)


class _Matrices(_States):
    """States [value, key] of each head."""

    #: The indices of the inputs query, key, value, gate and learning rate; whether it is a delta rule.
    order: Sequence[int]
    delta: bool

    def set_up(self) -> None:
        unit = self.delta and bool(self.node.attrs["unit"])
        self.kernel = paged_states(delta=self.delta, unit=unit, T=self.element_type)

    def pack(self, constants: Any) -> None:
        super().pack(constants)
        attrs = self.node.attrs
        self.eps = constants.add(np.array([attrs["q_eps"], attrs["k_eps"]], np.float32), "eps").offset

    def plan(self, planner: Planner) -> None:
        lists, views = _lists(planner, self.node.inputs[6:11])
        q, k, v, gate, beta = (planner.contiguous(self.node.inputs[i]) for i in self.order)
        table, y = self._table(planner), planner.row_major_output(self.node.output)
        heads, value_size, size = table.shape[1:]
        lanes = self.target.lanes
        row = ceil_div(ceil_div(size, lanes) * lanes * 4, ALIGNMENT) * ALIGNMENT
        planner.need_scratch((value_size + 6) * row + ALIGNMENT)
        values = lists | {
            "q": q.ptr, "k": k.ptr, "v": v.ptr, "gate": gate.ptr, "beta": beta.ptr, "table": table.ptr,
            "y": y.ptr, "eps": planner.constants.at(self.eps),
            "heads": heads, "group": heads // q.shape[1], "value_size": value_size, "size": size, "row": row,
        }  # fmt: skip
        work = 6.0 * v.shape[0] * heads * value_size * size
        reads = [*views, q, k, v, gate, beta]
        planner.step(self.kernel, values, views[3].shape[0] * heads, reads, [y, table], work)


class Deltas(_Matrices):
    """PagedGatedDeltaNet."""

    takes = (*[("f32",)] * 3, STORED, ("f32",), ("f32",), None)
    at, order, delta = 3, (0, 1, 2, 4, 5), True


class Spaces(_Matrices):
    """PagedSelectiveSSM."""

    takes = (*[("f32",)] * 5, STORED, None)
    at, order, delta = 5, (4, 2, 3, 0, 1), False


def lower_paged_states(group: Any) -> Lowering | None:
    """The lowering of a PagedStates."""
    return {"window": Windows, "delta": Deltas, "space": Spaces}[group.node.attrs["what"]].of(group)
