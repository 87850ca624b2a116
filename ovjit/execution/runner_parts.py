"""Inlined parts of the runner's functions."""

from ovjit.codegen.parts import inline
from ovjit.codegen.words import i32, i64, ld, st, u8
from ovjit.execution.layout import *
from ovjit.execution.runner_words import *


@inline
def lock(word):
    """Acquire the spin lock at `word`. Storing 0 releases it."""
    while cas(word, 0, 1) == 0:
        pause()


@inline
def wake_workers(pool, most):
    """Wake up to `most` workers that sleep and were not woken by another thread."""
    while True:
        word = aload(pool + SLEEPERS * 8)
        woken = min(word & 0xFFFFFFFF, most)
        if woken == 0:
            break
        if cas(pool + SLEEPERS * 8, word, word - woken + (woken << 32)) == 1:
            astore(pool + WOKEN_AT * 8, now())
            wake_at(pool + WAKE * 8, woken)
            break


@inline
def count_awake(pool):
    """After a worker's sleep: it is no sleeper, and none that has been woken."""
    while True:
        word = aload(pool + SLEEPERS * 8)
        fewer = word - 1
        if word >> 32 != 0:
            fewer = word - (1 << 32)
        if cas(pool + SLEEPERS * 8, word, fewer) == 1:
            break


@inline
def call_worker(pool):
    """Announce new work: wakes a worker unless one is spinning."""
    aadd(pool + WAKE * 8, 1)
    if aload(pool + SPINNERS * 8) == 0:
        wake_workers(pool, 1)


@inline
def is_calm(pool, at):
    """1 if threads may spin at this time, else 0."""
    calm = 0
    if at >= aload(pool + CALM_AT * 8):
        calm = 1
    return calm


@inline
def notice_gap(pool, before, at):
    """Whether a thread that spun, or was woken, was off its core between these times. Then no thread spins
    for a while."""
    gap = 0
    if at - before > GAP:
        gap = 1
        calm_at = aload(pool + CALM_AT * 8)
        length = SHORT_BUSY
        if at - calm_at < aload(pool + BUSY_FOR * 8):
            length = min(2 * aload(pool + BUSY_FOR * 8), LONG_BUSY)
        if at >= calm_at:  # else another thread has noticed it
            astore(pool + BUSY_FOR * 8, length)
            astore(pool + CALM_AT * 8, at + length)
    return gap


@inline
def tell_over(job):
    """Mark the job as done and wake its waiters."""
    st[i64](job + OWNER * 8, 0)
    state = DONE
    if ld(job, ERROR) != 0 or aload(job + ABORT * 8) != 0:
        state = FAILED
    astore(job + STATE * 8, state)
    if aload(job + WAITERS * 8) > 0:
        wake_at(job + STATE * 8, 1 << 30)


@inline
def is_over(job):
    """1 if the job has ended or was not started, else 0."""
    state = aload(job + STATE * 8)
    over = 0
    if state == IDLE or state >= DONE:
        over = 1
    return over


@inline
def claim_queued(pool, job):
    """Take this job out of the pool's queue, with leadership. Returns 1, or 0 if a worker has begun it or all
    streams are in use."""
    claimed = 0
    lock(pool + LOCK * 8)
    if aload(pool + LEADERS * 8) < ld(pool, STREAMS):
        before = 0
        here = ld(pool, HEAD)
        while here != 0 and here != job:
            before = here
            here = ld(here, NEXT)
        if here == job:
            after = ld(job, NEXT)
            if before == 0:
                astore(pool + HEAD * 8, after)
            else:
                st[i64](before + NEXT * 8, after)
            if after == 0:
                st[i64](pool + TAIL * 8, before)
            aadd(pool + LEADERS * 8, 1)
            st[i64](job + LEADS * 8, 1)
            st[i64](job + ENDED * 8, 0)
            astore(job + STATE * 8, RUNNING)
            claimed = 1
    astore(pool + LOCK * 8, 0)
    return claimed


@inline
def give_up_lead(pool, job):
    """Give up leadership of a job. Queued jobs may wait for it."""
    st[i64](job + LEADS * 8, 0)
    aadd(pool + LEADERS * 8, -1)
    if aload(pool + HEAD * 8) != 0:
        call_worker(pool)


@inline
def take_finished(queue):
    """Take the oldest job out of a completion queue; 0 if it is empty."""
    lock(queue + DONE_LOCK * 8)
    first = ld(queue, DONE_HEAD)
    if first != 0:
        astore(queue + DONE_HEAD * 8, ld(first, NEXT))
        if ld(first, NEXT) == 0:
            st[i64](queue + DONE_TAIL * 8, 0)
    astore(queue + DONE_LOCK * 8, 0)
    return first


@inline
def add_time(perf, s, end):
    """If the job is profiled, add the current time to the begin (`end` 0) or end (`end` 1) of step s."""
    if perf != 0:
        st[i64](perf + s * 16 + end * 8, ld(perf, 2 * s + end) + now())


@inline
def put_addresses(rows, n, words, bases, outer):
    """Set n bases of a body. A row of `words` int64s has: base of the body, base and offset in the outer
    job."""
    for k in range(n):
        row = rows + k * words * 8
        st[i64](bases + ld(row, 0) * 8, ld(outer, ld(row, 1)) + ld(row, 2))


@inline
def begin_run(job):
    """Clear what ended a job's last run."""
    astore(job + ERROR * 8, 0)
    astore(job + ABORT * 8, 0)


@inline
def stop_job(job, error, step):
    """End a job's run at a step, with this error."""
    astore(job + ERROR * 8, error | (step << 32))
    astore(job + ABORT * 8, 1)


@inline
def put_count(counter, size, done):
    """Store the number of an iteration, in `size` bytes, for a body that reads it."""
    if counter != 0:
        if size == 4:
            st[i32](counter, done)
        else:
            st[i64](counter, done)


@inline
def lead_body(job, body, pool, arena, step):
    """Lead a body's job. Returns 1 if it succeeds. An error in the body becomes an error of this job."""
    good = 1
    call4(ld(pool, LEAD_AT), body, pool, arena, 0)
    if aload(body + ABORT * 8) != 0:
        if ld(body, ERROR) != 0:
            astore(job + ERROR * 8, IN_BODY | (step << 32))
        astore(job + ABORT * 8, 1)
        good = 0
    return good


@inline
def copy_bytes(to, source, n):
    """Copy n bytes, eight at a time."""
    i = 0
    while i + 8 <= n:
        st[i64](to + i, ld[i64](source + i))
        i += 8
    while i < n:
        st[u8](to + i, ld[u8](source + i))
        i += 1
