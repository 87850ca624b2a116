"""The runner's native function for loops whose iterations have different plans: its arguments and its source.

All arguments are in arrays of int64, which `Iterations` (`ovjit.execution.iterations`) keeps alive. A value
of the body has a *slot*: its address, its rank and its dimensions.
"""

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import i32, i64, ld, st, u8
from ovjit.execution.layout import *
from ovjit.execution.runner_parts import begin_run, copy_bytes, put_count
from ovjit.execution.runner_words import *

#: Return values: the loop is over; Python must run the next iteration; time is up; the job is cancelled; a
#: concatenation has no room, or parts of different shapes.
OVER, PYTHON_NEXT, TIME_UP, CANCELLED, FULL, UNEVEN = range(6)

#: Run-time extents are clamped to this, as in `ovjit.planning.partition`.
FARTHEST = 1 << 55

#: Words of a slot, and the most dimensions.
SLOT_WORDS, MOST_RANK = 10, 8

#: Arguments. COUNT: -1 for no end. GO: the condition's slot, or -1. COUNTER: address of the counter, or 0,
#: and its size. TURN: which of two places gets the next results. WORK: Python runs iterations with more work.
(
    T_PARTS, T_PARTS_AT, T_COUNT, T_DONE, T_COUNTER, T_COUNTER_SIZE, T_GO, T_CARRIED, T_CARRIED_AT, T_SLICED,
    T_SLICED_AT, T_KEPT, T_KEPT_AT, T_SLOTS, T_SPARE, T_TURN, T_ROOT, T_EVALUATE, T_ARENA, T_WORK, T_GOES_ON,
) = range(21)  # fmt: skip
#: A part of a body: its job and that job's bases; rows of run-time extents, of inputs and of outputs; its
#: leaves (dimensions of inputs), now and at planning, with their bounds; its traces, and the index of the
#: plan's trace (0: none).
(
    P_JOB, P_BASES, P_EXTENTS, P_EXTENTS_AT, P_INPUTS, P_INPUTS_AT, P_LEAVES, P_NOW, P_BEFORE, P_LOW, P_HIGH,
    P_TRACES, P_TRACES_AT, P_TRACE, P_OUTPUTS, P_OUTPUTS_AT,
) = range(16)  # fmt: skip
PART_WORDS = 16
#: Rows: extents (slot of the numbers, offset and size in bytes, slot that gets them; for a valid prefix, the
#: slot of its buffer, else -1, and the dimension's position), inputs (slot, base, first leaf), outputs (slot,
#: base, two places, their bytes, bytes of an element).
EXTENT_ROW, INPUT_ROW, OUTPUT_ROW, PATCH_ROW = 6, 3, 6, 3
#: A trace in one memory: what `evaluate` takes, the table that it fills, and where it finds chunks and
#: results. Rows 0: a plan for the leaves at `whole` alone. Patches: numbers among the constants (address,
#: bytes, which value). Shapes: which of the results each output's dimensions begin with.
(
    C_ROWS, C_COUNT, C_WHOLE, C_MEMORY, C_TABLE, C_STEPS, C_CHUNKS, C_RESULTS, C_DIMS, C_SCRATCH, C_CONSTANTS,
    C_DATA, C_PATCHES, C_PATCHES_AT, C_SHAPES_AT,
) = range(15)  # fmt: skip
TRACE_WORDS = 15
#: Rows: carried (parameter's slot, result's slot), sliced (slot, bytes from part to part), kept (slot, place,
#: its bytes, bytes used, elements along the first axis, bytes of an element, then a part's dimensions).
CARRIED_ROW, SLICED_ROW, KEPT_ROW, K_DIMS = 2, 2, 14, 6


@inline
def write_extents(part, slots):
    """Write run-time extents to the dimensions of the part's empty inputs."""
    row = ld(part, P_EXTENTS_AT)
    end = row + ld(part, P_EXTENTS) * EXTENT_ROW * 8
    while row < end:
        at = ld(slots + ld(row, 0) * SLOT_WORDS * 8, 0) + ld(row, 1)
        number = 0
        if ld(row, 2) == 4:
            number = int(ld[i32](at))
        else:
            number = ld[i64](at)
        number = max(min(number, FARTHEST), -FARTHEST)
        slot = slots + ld(row, 3) * SLOT_WORDS * 8
        if ld(row, 4) < 0:
            st[i64](slot + 24, max(number, 0))
            st[i64](slot + 32, max(-number, 0))
        else:
            copy_slot(slot, slots + ld(row, 4) * SLOT_WORDS * 8)
            st[i64](slot + ld(row, 5), number)
        row += EXTENT_ROW * 8


@inline
def copy_slot(to, source):
    for i in range(SLOT_WORDS):
        st[i64](to + i * 8, ld(source, i))


@inline
def take_inputs(part, slots, bases, leaves):
    """Write the addresses of the part's inputs to `bases`, and their dimensions to `leaves`."""
    row = ld(part, P_INPUTS_AT)
    end = row + ld(part, P_INPUTS) * INPUT_ROW * 8
    while row < end:
        slot = slots + ld(row, 0) * SLOT_WORDS * 8
        st[i64](bases + ld(row, 1) * 8, ld(slot, 0))
        to = leaves + ld(row, 2) * 8
        for i in range(ld(slot, 1)):
            st[i64](to + i * 8, ld(slot, 2 + i))
        row += INPUT_ROW * 8


@inline
def same_plan(part, leaves, n):
    """The trace of the part's current plan if the leaves are unchanged; 0 if another plan is needed; -1 if a
    leaf is out of bounds."""
    trace = ld(part, P_TRACE)
    for i in range(n):
        number = ld(leaves, i)
        if number < ld(ld(part, P_LOW), i) or number > ld(ld(part, P_HIGH), i):
            trace = -1
            break
        if number != ld(ld(part, P_BEFORE), i):
            trace = 0
    return trace


@inline
def traced_plan(part, leaves, n, evaluate):
    """The first of the part's traces that serves these leaves, after writing its plan; 0 if none does."""
    trace = 0
    row = ld(part, P_TRACES_AT)
    end = row + ld(part, P_TRACES) * TRACE_WORDS * 8
    while row < end and trace == 0:
        numbers = ld(row, C_WHOLE)
        if ld(row, C_ROWS) == 0:
            trace = row
            for i in range(n):
                if ld(leaves, i) != ld(numbers, i):
                    trace = 0
        else:
            for i in range(n):
                st[i64](numbers + i * 8, ld(leaves, i))
            bad = call4(evaluate, ld(row, C_ROWS), ld(row, C_COUNT), numbers, ld(row, C_MEMORY))
            if bad == 0:
                trace = row
                for i in range(ld(row, C_STEPS)):
                    at = ld(row, C_TABLE) + i * STEP_BYTES + STEP_CHUNKS * 8
                    st[i64](at, ld(ld(row, C_CHUNKS), i))
                for i in range(ld(row, C_PATCHES)):
                    patch = ld(row, C_PATCHES_AT) + i * PATCH_ROW * 8
                    if ld(patch, 1) == 4:
                        st[i32](ld(patch, 0), ld(numbers, ld(patch, 2)))
                    else:
                        st[i64](ld(patch, 0), ld(numbers, ld(patch, 2)))
        row += TRACE_WORDS * 8
    return trace


@inline
def fits(part, trace, slots, work, memory):
    """Write the plan's output dimensions to the slots. Returns 1; 0 if the outputs or the arena do not
    fit."""
    results = ld(trace, C_RESULTS)
    dims = ld(trace, C_DIMS)
    good = 1
    if ld(results, dims + 1) > work or ld(trace, C_SCRATCH) + ld(results, dims) > memory:
        good = 0
    row = ld(part, P_OUTPUTS_AT)
    end = row + ld(part, P_OUTPUTS) * OUTPUT_ROW * 8
    shape = ld(trace, C_SHAPES_AT)
    while row < end and good == 1:
        slot = slots + ld(row, 0) * SLOT_WORDS * 8
        size = ld(row, 5)
        for i in range(ld(slot, 1)):
            number = ld(results, ld(shape, 0) + i)
            if number > 0 and size > ld(row, 4) // number:
                good = 0
                break
            size = size * number
            st[i64](slot + (2 + i) * 8, number)
        shape += 8
        row += OUTPUT_ROW * 8
    return good


@inline
def take_plan(part, trace, job, bases, leaves, n):
    """Make the part's job use a trace's plan."""
    st[i64](job + TABLE * 8, ld(trace, C_TABLE))
    st[i64](job + STEPS * 8, ld(trace, C_STEPS))
    st[i64](job + SCRATCH * 8, ld(trace, C_SCRATCH))
    st[i64](bases + 8, ld(trace, C_CONSTANTS))
    st[i64](bases + 16, ld(trace, C_DATA))
    for i in range(n):
        st[i64](ld(part, P_BEFORE) + i * 8, ld(leaves, i))
    st[i64](part + P_TRACE * 8, trace)


@inline
def place_outputs(part, slots, bases, turn):
    """Write the addresses of the part's outputs in this iteration to `bases` and slots."""
    row = ld(part, P_OUTPUTS_AT)
    end = row + ld(part, P_OUTPUTS) * OUTPUT_ROW * 8
    while row < end:
        at = ld(row, 2 + turn)
        st[i64](bases + ld(row, 1) * 8, at)
        st[i64](slots + ld(row, 0) * SLOT_WORDS * 8, at)
        row += OUTPUT_ROW * 8


@inline
def may_keep(first, end, slots):
    """OVER if this iteration's parts fit the concatenations, the rows up to `end`; else FULL or UNEVEN."""
    status = OVER
    row = first
    while row < end and status == OVER:
        slot = slots + ld(row, 0) * SLOT_WORDS * 8
        size = ld(row, 5)
        for i in range(ld(slot, 1)):
            number = ld(slot, 2 + i)
            if i > 0 and ld(row, 4) >= 0 and number != ld(row, K_DIMS + i):
                status = UNEVEN
                break
            size = size * number
        if status == OVER and ld(row, 3) + size > ld(row, 2):
            status = FULL
        row += KEPT_ROW * 8
    return status


@inline
def keep(first, end, slots):
    """Append this iteration's parts to the concatenations."""
    row = first
    while row < end:
        slot = slots + ld(row, 0) * SLOT_WORDS * 8
        size = ld(row, 5)
        for i in range(ld(slot, 1)):
            size = size * ld(slot, 2 + i)
            st[i64](row + (K_DIMS + i) * 8, ld(slot, 2 + i))
        copy_bytes(ld(row, 1) + ld(row, 3), ld(slot, 0), size)
        st[i64](row + 24, ld(row, 3) + size)
        st[i64](row + 32, max(ld(row, 4), 0) + ld(slot, 2))
        row += KEPT_ROW * 8


@inline
def carry(state, slots):
    """Set the next iteration's inputs: carried results, and the next slices."""
    carried = ld(state, T_CARRIED_AT)
    spare = ld(state, T_SPARE)
    n = ld(state, T_CARRIED)
    for k in range(n):
        source = slots + ld(carried, k * CARRIED_ROW + 1) * SLOT_WORDS * 8
        copy_slot(spare + k * SLOT_WORDS * 8, source)
    for k in range(n):
        to = slots + ld(carried, k * CARRIED_ROW) * SLOT_WORDS * 8
        copy_slot(to, spare + k * SLOT_WORDS * 8)
    row = ld(state, T_SLICED_AT)
    end = row + ld(state, T_SLICED) * SLICED_ROW * 8
    while row < end:
        slot = slots + ld(row, 0) * SLOT_WORDS * 8
        st[i64](slot, ld(slot, 0) + ld(row, 1))
        row += SLICED_ROW * 8


@routine
def iterate(state, pool, arena, deadline):
    """Run iterations, with the arguments from T_PARTS on. Returns OVER or a following status."""
    slots = ld(state, T_SLOTS)
    count = ld(state, T_COUNT)
    done = ld(state, T_DONE)
    turn = ld(state, T_TURN)
    counter = ld(state, T_COUNTER)
    rows = ld(state, T_KEPT_AT)
    end_rows = rows + ld(state, T_KEPT) * KEPT_ROW * 8
    go_slot = slots + ld(state, T_GO) * SLOT_WORDS * 8
    go = ld(state, T_GOES_ON)
    while go != 0 and (count < 0 or done < count):
        if aload(ld(state, T_ROOT) + ABORT * 8) != 0:
            return CANCELLED
        if now() > deadline:
            return TIME_UP
        put_count(counter, ld(state, T_COUNTER_SIZE), done)
        part = ld(state, T_PARTS_AT)
        last = part + ld(state, T_PARTS) * PART_WORDS * 8
        while part < last:
            job = ld(part, P_JOB)
            bases = ld(part, P_BASES)
            leaves = ld(part, P_NOW)
            n = ld(part, P_LEAVES)
            write_extents(part, slots)
            take_inputs(part, slots, bases, leaves)
            trace = same_plan(part, leaves, n)
            if trace < 0:
                return PYTHON_NEXT
            if trace == 0:
                st[i64](part + P_TRACE * 8, 0)
                trace = traced_plan(part, leaves, n, ld(state, T_EVALUATE))
                if trace == 0:
                    return PYTHON_NEXT
                good = fits(part, trace, slots, ld(state, T_WORK), ld(state, T_ARENA))
                if good == 0:
                    return PYTHON_NEXT
                take_plan(part, trace, job, bases, leaves, n)
            place_outputs(part, slots, bases, turn)
            begin_run(job)
            call4(ld(pool, LEAD_AT), job, pool, arena, 0)
            if aload(job + ABORT * 8) != 0:
                return PYTHON_NEXT
            part += PART_WORDS * 8
        if ld(state, T_GO) >= 0:
            for i in range(ld(go_slot, 1)):
                if ld(go_slot, 2 + i) != 1:
                    return PYTHON_NEXT
        status = may_keep(rows, end_rows, slots)
        if status != OVER:
            return status
        keep(rows, end_rows, slots)
        if ld(state, T_GO) >= 0:
            go = int(ld[u8](ld(go_slot, 0)))
        carry(state, slots)
        done += 1
        turn = 1 - turn
        st[i64](state + T_DONE * 8, done)
        st[i64](state + T_TURN * 8, turn)
        st[i64](state + T_GOES_ON * 8, go)
    return OVER
