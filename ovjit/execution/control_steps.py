"""The runner's control steps: repeat a body, or run one of two bodies, without Python and its lock.

A control step is a row of a table whose kernel is `repeat` or `branch`. The leader calls it between two
ranges of other rows, as

    function(job, args, pool, step) -> 0

It leads the body's own job (`lead`). So helpers join a body's steps as they join all others, and bodies may
have control steps themselves. `args` is the row's block of integers: the index of the step's record in the
job, then the arguments below. A place is a base of the job and an offset. The record has the addresses of the
bodies' jobs, then for each output of a body the address that the last iteration wrote.

Carried values are not copied. A result that becomes a parameter is written to two places alternately, or to
its slot of a concatenation.
"""

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import i32, i64, ld, st, u8
from ovjit.execution.layout import *
from ovjit.execution.runner_parts import begin_run, copy_bytes, lead_body, put_addresses, put_count, stop_job
from ovjit.execution.runner_words import *

#: Arguments of `repeat`. COUNT: base, offset and size of the number of iterations (size 0: the offset is the
#: number, -1 for no end). GO: base and offset of the condition (base -1: true). LIMIT: capacity in iterations
#: (-1: any); exceeding it is an error with STRICT. COUNTER: the body's base for the counter (-1: none), its
#: size, base and offset. AGAIN: the output that is the condition, or -1. DONE: base (-1: none) and offset
#: for the final number of iterations.
(
    R_RECORD, R_COUNT, R_COUNT_AT, R_COUNT_SIZE, R_GO, R_GO_AT, R_LIMIT, R_STRICT, R_COUNTER, R_COUNTER_SIZE,
    R_COUNTER_BASE, R_COUNTER_AT, R_AGAIN, R_INPUTS, R_CARRIED, R_OUTPUTS, R_LASTS, R_DONE, R_DONE_AT,
) = range(19)  # fmt: skip
R_ROWS = 20
#: The rows that follow: inputs (body's base, base, offset, step), carried (body's base, base, offset,
#: output), outputs (body's base, base, offset, step, other base or -1, its offset), lasts (output, base or -1
#: and offset of the value without any iteration, base, offset, bytes).
INPUT_WORDS, CARRIED_WORDS, OUTPUT_WORDS, LAST_WORDS = 4, 4, 6, 6

#: Words of the arguments of `branch`: the condition's place, then for each of the two bodies how many rows it
#: has; then their rows (body's base, base, offset).
B_RECORD, B_GO, B_GO_AT, B_THEN, B_ELSE = range(5)
B_ROWS = 6
BRANCH_WORDS = 3


@inline
def next_parts(inputs, n_inputs, outputs, n_outputs, bases, outer):
    """Advance sliced inputs and concatenated outputs by a part, and swap the places of carried results."""
    for k in range(n_inputs):
        row = inputs + k * INPUT_WORDS * 8
        at = ld(row, 3)
        if at != 0:
            st[i64](bases + ld(row, 0) * 8, ld(bases, ld(row, 0)) + at)
    for k in range(n_outputs):
        row = outputs + k * OUTPUT_WORDS * 8
        at = ld(row, 3)
        if at != 0:
            st[i64](bases + ld(row, 0) * 8, ld(bases, ld(row, 0)) + at)
        elif ld(row, 4) >= 0:
            here = ld(outer, ld(row, 1)) + ld(row, 2)
            there = ld(outer, ld(row, 4)) + ld(row, 5)
            if ld(bases, ld(row, 0)) == here:
                here = there
            st[i64](bases + ld(row, 0) * 8, here)


@inline
def give_lasts(lasts, n, job, record, outer, done):
    """Copy the last iteration's results to the outputs. Without any iteration: the initial values, or
    zeros."""
    k = 0
    while k < n and aload(job + ABORT * 8) == 0:
        row = lasts + k * LAST_WORDS * 8
        to = ld(outer, ld(row, 3)) + ld(row, 4)
        size = ld(row, 5)
        source = 0
        if done > 0:
            source = ld(record, 1 + ld(row, 0))
        elif ld(row, 1) >= 0:
            source = ld(outer, ld(row, 1)) + ld(row, 2)
        if source == 0:
            for i in range(size):
                st[u8](to + i, 0)
        elif source != to:
            copy_bytes(to, source, size)
        k += 1


@inline
def put_done(args, outer, done):
    """Store the number of iterations, if an output wants it."""
    if ld(args, R_DONE) >= 0:
        st[i64](ld(outer, ld(args, R_DONE)) + ld(args, R_DONE_AT), done)


@routine
def repeat(job, args, pool, step):
    """Run a body repeatedly. `args`: R_RECORD and the following."""
    record = ld(ld(job, CONTROLS), ld(args, R_RECORD))
    body = ld(record, 0)
    outer = ld(job, BASES)
    bases = ld(body, BASES)
    root = ld(job, ROOT)
    arena = ld(outer, 0) + ld(job, NESTED)
    count = ld(args, R_COUNT_AT)
    size = ld(args, R_COUNT_SIZE)
    if size == 4:
        count = int(ld[i32](ld(outer, ld(args, R_COUNT)) + count))
    elif size == 8:
        count = ld[i64](ld(outer, ld(args, R_COUNT)) + count)
    limit = ld(args, R_LIMIT)
    go = 1
    if ld(args, R_GO) >= 0:
        go = int(ld[u8](ld(outer, ld(args, R_GO)) + ld(args, R_GO_AT)))
    counter = 0
    if ld(args, R_COUNTER) >= 0:
        counter = ld(outer, ld(args, R_COUNTER_BASE)) + ld(args, R_COUNTER_AT)
        st[i64](bases + ld(args, R_COUNTER) * 8, counter)
    counter_size = ld(args, R_COUNTER_SIZE)
    inputs = args + R_ROWS * 8
    n_inputs = ld(args, R_INPUTS)
    carried = inputs + n_inputs * INPUT_WORDS * 8
    n_carried = ld(args, R_CARRIED)
    outputs = carried + n_carried * CARRIED_WORDS * 8
    n_outputs = ld(args, R_OUTPUTS)
    lasts = outputs + n_outputs * OUTPUT_WORDS * 8
    n_lasts = ld(args, R_LASTS)
    again = ld(args, R_AGAIN)
    put_addresses(inputs, n_inputs, INPUT_WORDS, bases, outer)
    put_addresses(carried, n_carried, CARRIED_WORDS, bases, outer)
    put_addresses(outputs, n_outputs, OUTPUT_WORDS, bases, outer)
    begin_run(body)
    done = 0
    while go != 0 and (count < 0 or done < count):
        if limit >= 0 and done >= limit:
            if ld(args, R_STRICT) != 0:
                stop_job(job, PAST_END, step)
            break
        if aload(root + ABORT * 8) != 0:
            astore(job + ABORT * 8, 1)
            break
        put_count(counter, counter_size, done)
        good = lead_body(job, body, pool, arena, step)
        if good == 0:
            break
        done += 1
        for k in range(n_outputs):
            st[i64](record + (k + 1) * 8, ld(bases, ld(outputs + k * OUTPUT_WORDS * 8, 0)))
        for k in range(n_carried):
            row = carried + k * CARRIED_WORDS * 8
            st[i64](bases + ld(row, 0) * 8, ld(record, 1 + ld(row, 3)))
        next_parts(inputs, n_inputs, outputs, n_outputs, bases, outer)
        if again >= 0:
            go = int(ld[u8](ld(record, 1 + again)))
    put_done(args, outer, done)
    give_lasts(lasts, n_lasts, job, record, outer, done)
    return 0


@routine
def branch(job, args, pool, step):
    """Run one of two bodies. `args`: B_RECORD and the following."""
    record = ld(ld(job, CONTROLS), ld(args, B_RECORD))
    outer = ld(job, BASES)
    arena = ld(outer, 0) + ld(job, NESTED)
    rows = args + B_ROWS * 8
    body = ld(record, 0)
    n = ld(args, B_THEN)
    if ld[u8](ld(outer, ld(args, B_GO)) + ld(args, B_GO_AT)) == 0:
        body = ld(record, 1)
        rows += n * BRANCH_WORDS * 8
        n = ld(args, B_ELSE)
    bases = ld(body, BASES)
    put_addresses(rows, n, BRANCH_WORDS, bases, outer)
    begin_run(body)
    if aload(ld(job, ROOT) + ABORT * 8) != 0:
        astore(job + ABORT * 8, 1)
        return 0
    lead_body(job, body, pool, arena, step)
    return 0
