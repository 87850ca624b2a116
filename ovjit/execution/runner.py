"""The native runner: one loop that walks any program's table, and the worker loop around it.

A program is a table of steps; every step calls one kernel for each of its chunks:

    kernel(bases, args, chunk, scratch) -> 0, or an error code

`bases` holds the addresses of arena, constants, inputs and outputs; `args` is the step's block of
integers; which chunk computes what is fixed by the table, so results do not depend on who runs it.
Threads claim chunks, and a step is over when all its chunks are done, not when all threads have
arrived: a thread that was put off by the operating system holds up nobody who has work. Threads of even
slots claim the first half of the chunks first, those of odd slots the second. Chunks go along the rows of
a tensor: so of two threads each finds in its own cache what it wrote a step before. Both go forward, as
kernels do that fetch the weights of the next chunk ahead.

A claim is a compare-and-swap on (generation, next chunk). A thread that comes late to a job that is
over therefore claims nothing, whatever the job's memory is used for by then. That memory must only stay
mapped while `ACTIVE` is not 0: `streams.py` sees to it.

Everything is int64 in memory shared by all threads. The layouts are the constants below.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from ovjit.codegen.cpu.objects import entry_address, function
from ovjit.codegen.kernel import Frame, Kernel
from ovjit.codegen.kernel import addresses as load_kernels
from ovjit.compiler.steps import STEP_ARGS as STEP_ARGS
from ovjit.compiler.steps import STEP_CHUNKS as STEP_CHUNKS
from ovjit.compiler.steps import STEP_GOES_ON as STEP_GOES_ON
from ovjit.compiler.steps import STEP_KERNEL as STEP_KERNEL
from ovjit.compiler.steps import STEP_NEXT as STEP_NEXT
from ovjit.compiler.steps import STEP_WORDS as STEP_WORDS
from ovjit.execution import control_steps, trip_steps

#: So many chunks are claimed in halves, two counts in a claim's low word; more from the first one on.
IN_HALVES = 0xFFFF

#: A job, the block of integers that one inference is. STATE is slept on. FIRST and STEPS: what `lead` runs;
#: AT and STOP_AT: the stretch of it that threads walk now; CONTROLS: addresses of the control steps' records;
#: ROOT: the job around all bodies; NESTED: where in the arena the bodies' begins.
(
    STATE, ERROR, TABLE, STEPS, BASES, GENERATION, COUNTERS, ABORT, PERF, THREADS, STARTED, ENDED, NOTIFY,
    WAITERS, ACTIVE, NEXT, SLOTS, SCRATCH, SCRATCH_SIZE, ARENA_SIZE, BOX, FIRST, OWNER, LEADS, AT, STOP_AT,
    CONTROLS, ROOT, NESTED, BUSY, FLUSH,
) = range(31)  # fmt: skip
#: OWNER is the thread that has taken the job to bring it to its end, written in the same stroke as it is
#: taken: an interrupt may come before Python knows. LEADS is 1 while the job counts among its pool's LEADERS.
#: BUSY: 0, or where threads write down what they did, for each step and then slot: when the first chunk was
#: begun, when the last one ended (ns), how many there were. FLUSH is 1 where denormal numbers are zeros to
#: all threads, as long as they work at this job.
BUSY_FROM, BUSY_TO, BUSY_CHUNKS = range(3)
BUSY_WORDS = 3
JOB_WORDS = 32
IDLE, QUEUED, RUNNING, DONE = range(4)

#: A pool: what its workers share. WAKE is slept on.
WAKE, SLEEPERS, STOP, LOCK, HEAD, TAIL, LEADERS, STREAMS, OPEN = range(9)
LEAD_AT, WALK_AT = 60, 61  # addresses of the functions of these names
SPINNERS = 62  # workers that look out for work: nobody needs to be woken for what they will see
OPEN_SLOTS = 16  # jobs that want helpers, from word OPEN on
POOL_WORDS = 64

#: What NOTIFY asks for at the end of a job: nothing; that the worker goes to Python; that Python runs the job
#: (it has host steps); that the job is put into its BOX.
SILENT, CALL_BACK, IN_PYTHON, MAIL = range(4)

#: A box: jobs that are over and whose callbacks are due. A thread that waits at the box takes them; where
#: there is none, the worker that brings a job goes to Python itself. COUNT is slept on.
COUNT, BOX_LOCK, BOX_HEAD, BOX_TAIL, BOX_WAITERS, BOX_SLEEPERS = range(6)
BOX_WORDS = 8

#: What a worker's native loop returns besides the address of a job that Python must look at.
STOPPED = 0

SPIN_BEFORE_SLEEP = 6_000  # pauses of an idle worker after work, some 100 us
SPIN_IN_STEP = 4_000  # pauses at a step's end before other processes are let through
SPIN_MAIL = 4_000  # pauses of a worker that has mailed a job, until somebody comes: the GIL takes longer
LONG_JOB = 500_000  # ns: after such a job it waits an eighth of that
SPIN_WAIT = 1_000  # pauses of a caller before it sleeps

#: walk(job, generation, scratch, slot): go through the table with the other threads of the job. The thread of
#: slot 0 leads; the others leave when the job is over.
WALK = """@njit(nogil=True)
def kernel(job, generation, scratch, slot):
    perf = ld(job, {PERF})
    busy = ld(job, {BUSY})
    threads = ld(job, {THREADS})
    flush = ld(job, {FLUSH})
    control = 0
    if flush != 0:
        control = no_denormals()
    # in this order: a late thread that sees a later table sees that table's counters too, and claims nothing
    steps = aload(job + {STOP_AT} * 8)
    table = aload(job + {TABLE} * 8)
    bases = aload(job + {BASES} * 8)
    counters = aload(job + {COUNTERS} * 8)
    s = ld(job, {AT})
    open_since = s  # the first step that may not be over
    alive = 1
    while s < steps and alive == 1:
        row = table + s * {step_bytes}
        chunks = ld(row, {STEP_CHUNKS})
        claim = counters + s * 16
        middle = chunks
        if chunks <= {IN_HALVES}:
            middle = (chunks + 1) >> 1
        if slot == 0 and perf != 0:
            st_i64(perf + s * 16, ld(perf, 2 * s) + now())
        while True:
            word = aload(claim)
            if (word >> 32) != generation:
                alive = 0
                break
            first = word & 0xFFFFFFFF
            second = 0
            if middle < chunks:
                second = first >> 16
                first = first & 0xFFFF
            if first < middle and (slot & 1 == 0 or middle + second >= chunks):
                chunk = first
                claimed = word + 1
            elif middle + second < chunks:
                chunk = middle + second
                claimed = word + 0x10000
            else:
                break
            if cas(claim, word, claimed) == 1:
                if aload(job + {ABORT} * 8) == 0:
                    began = 0
                    if busy != 0:
                        began = now()
                    code = call4(ld(row, {STEP_KERNEL}), bases, ld(row, {STEP_ARGS}), chunk, scratch)
                    if busy != 0:  # before the chunk counts as done: afterwards the job may be over
                        mine = busy + (s * threads + slot) * {BUSY_WORDS} * 8
                        if ld(mine, {BUSY_FROM}) == 0:
                            st_i64(mine + {BUSY_FROM} * 8, began)
                        st_i64(mine + {BUSY_TO} * 8, now())
                        st_i64(mine + {BUSY_CHUNKS} * 8, ld(mine, {BUSY_CHUNKS}) + 1)
                    if code != 0:
                        cas(job + {ERROR} * 8, 0, code | (s << 32))
                        astore(job + {ABORT} * 8, 1)
                aadd(claim + 8, 1)
        if ld(row, {STEP_GOES_ON}) == 0 or s + 1 == steps:
            spins = 0
            while open_since <= s and alive == 1:
                word = aload(counters + open_since * 16 + 8)
                if word == (generation << 32) + ld(table + open_since * {step_bytes}, {STEP_CHUNKS}):
                    open_since += 1
                    continue
                if (word >> 32) != generation:
                    alive = 0
                    break
                spins += 1
                if spins < {SPIN_IN_STEP}:
                    pause()
                else:
                    give_way()
        if slot == 0 and perf != 0:
            st_i64(perf + s * 16 + 8, ld(perf, 2 * s + 1) + now())
        s += 1
    if flush != 0:
        float_control(control)
    return alive
"""

#: lead(job, pool, arena, _): run the job on this thread, helpers joining when free. Control steps are
#: the leader's: it leads the jobs of the bodies in them, which helpers then find as they found this one.
LEAD = """@njit(nogil=True)
def kernel(job, pool, arena, unused):
    st_i64(ld(job, {BASES}), arena)
    scratch = arena + ld(job, {SCRATCH})
    st_i64(job + {STARTED} * 8, now())
    flush = ld(job, {FLUSH})
    control = 0
    if flush != 0:
        control = no_denormals()
    perf = ld(job, {PERF})
    threads = ld(job, {THREADS})
    steps = ld(job, {STEPS})
    table = ld(job, {TABLE})
    bases = ld(job, {BASES})
    s = ld(job, {FIRST})
    while s < steps:
        stop = imin(ld(table + s * {step_bytes}, {STEP_NEXT}), steps)
        if threads <= 1:
            while s < stop:
                row = table + s * {step_bytes}
                chunks = ld(row, {STEP_CHUNKS})
                kernel_address = ld(row, {STEP_KERNEL})
                args = ld(row, {STEP_ARGS})
                if perf != 0:
                    st_i64(perf + s * 16, ld(perf, 2 * s) + now())
                c = 0
                while c < chunks:
                    code = call4(kernel_address, bases, args, c, scratch)
                    if code != 0:
                        astore(job + {ERROR} * 8, code | (s << 32))
                        astore(job + {ABORT} * 8, 1)
                        break
                    c += 1
                if perf != 0:
                    st_i64(perf + s * 16 + 8, ld(perf, 2 * s + 1) + now())
                s += 1
                if aload(job + {ABORT} * 8) != 0:
                    break
        elif s < stop:
            generation = (ld(job, {GENERATION}) + 1) & 0x7FFFFFFF
            counters = ld(job, {COUNTERS})
            fresh = generation << 32
            st_i64(job + {AT} * 8, s)
            st_i64(job + {STOP_AT} * 8, stop)
            while s < stop:
                astore(counters + s * 16, fresh)
                astore(counters + s * 16 + 8, fresh)
                s += 1
            astore(job + {SLOTS} * 8, fresh + 1)
            astore(job + {GENERATION} * 8, generation)
            slot = 0
            while slot < {OPEN_SLOTS}:
                if aload(pool + ({OPEN} + slot) * 8) == 0:
                    if cas(pool + ({OPEN} + slot) * 8, 0, job) == 1:
                        break
                slot += 1
            if slot < {OPEN_SLOTS}:
                aadd(pool + {WAKE} * 8, 1)
                if aload(pool + {SLEEPERS} * 8) > 0 and aload(pool + {SPINNERS} * 8) < threads - 1:
                    wake(pool + {WAKE} * 8, threads - 1)
            call4(ld(pool, {WALK_AT}), job, generation, scratch, 0)
            if slot < {OPEN_SLOTS}:
                astore(pool + ({OPEN} + slot) * 8, 0)
            astore(job + {GENERATION} * 8, (generation + 1) & 0x7FFFFFFF)
        if aload(job + {ABORT} * 8) != 0:
            break
        if s < steps:
            row = table + s * {step_bytes}
            if perf != 0:
                st_i64(perf + s * 16, ld(perf, 2 * s) + now())
            call4(ld(row, {STEP_KERNEL}), job, ld(row, {STEP_ARGS}), pool, s)
            if perf != 0:
                st_i64(perf + s * 16 + 8, ld(perf, 2 * s + 1) + now())
            s += 1
            if aload(job + {ABORT} * 8) != 0:
                break
    if flush != 0:
        float_control(control)
    st_i64(job + {ENDED} * 8, now())
    return ld(job, {ERROR})
"""

#: Tell whoever waits that the job is over.
_FINISH = """
    st_i64(job + {OWNER} * 8, 0)
    astore(job + {STATE} * 8, {DONE})
    if aload(job + {WAITERS} * 8) > 0:
        wake(job + {STATE} * 8, 1 << 30)
"""

#: work(pool, arena, arena_size, after): a worker's life. `after` is a job that Python has just dealt with
#: (leadership is still held for it), or 0. Returns the address of a job that Python must look at: one
#: whose callback is due, or that needs a larger arena (then its state is QUEUED); STOPPED at the end.
WORK = (
    """@njit(nogil=True)
def kernel(pool, arena, arena_size, resume):
    job = resume
    while True:
        if job == 0:
            seen = aload(pool + {WAKE} * 8)
            if aload(pool + {STOP} * 8) != 0:
                return {STOPPED}
            if aload(pool + {HEAD} * 8) != 0 and aload(pool + {LEADERS} * 8) < ld(pool, {STREAMS}):
                while cas(pool + {LOCK} * 8, 0, 1) == 0:
                    pause()
                head = ld(pool, {HEAD})
                if head != 0 and ld(pool, {LEADERS}) < ld(pool, {STREAMS}):
                    job = head
                    st_i64(pool + {HEAD} * 8, ld(head, {NEXT}))
                    if ld(head, {NEXT}) == 0:
                        st_i64(pool + {TAIL} * 8, 0)
                    st_i64(job + {LEADS} * 8, 1)
                    aadd(pool + {LEADERS} * 8, 1)
                astore(pool + {LOCK} * 8, 0)
                if aload(pool + {HEAD} * 8) != 0 and aload(pool + {SPINNERS} * 8) == 0:
                    if aload(pool + {SLEEPERS} * 8) > 0 and aload(pool + {LEADERS} * 8) < ld(pool, {STREAMS}):
                        aadd(pool + {WAKE} * 8, 1)
                        wake(pool + {WAKE} * 8, 1)
        if job != 0:
            if ld(job, {ARENA_SIZE}) > arena_size or ld(job, {NOTIFY}) == {IN_PYTHON}:
                return job
            astore(job + {STATE} * 8, {RUNNING})
            call4(ld(pool, {LEAD_AT}), job, pool, arena, 0)
            st_i64(job + {LEADS} * 8, 0)
            aadd(pool + {LEADERS} * 8, -1)
            if ld(job, {NOTIFY}) != 0:
                if ld(job, {NOTIFY}) == {MAIL}:
                    box = ld(job, {BOX})
                    st_i64(job + {NEXT} * 8, 0)
                    while cas(box + {BOX_LOCK} * 8, 0, 1) == 0:
                        pause()
                    tail = ld(box, {BOX_TAIL})
                    if tail == 0:
                        astore(box + {BOX_HEAD} * 8, job)
                    else:
                        st_i64(tail + {NEXT} * 8, job)
                    st_i64(box + {BOX_TAIL} * 8, job)
                    astore(box + {BOX_LOCK} * 8, 0)
                    aadd(box + {COUNT} * 8, 1)
                    if aload(box + {BOX_SLEEPERS} * 8) > 0:
                        wake(box + {COUNT} * 8, 1)
                    spins = 0
                    if ld(job, {ENDED}) - ld(job, {STARTED}) > {LONG_JOB}:
                        spins = {SPIN_MAIL} - {SPIN_MAIL} // 8
                    while (
                        spins < {SPIN_MAIL}
                        and aload(box + {BOX_HEAD} * 8) != 0
                        and aload(box + {BOX_WAITERS} * 8) == 0
                    ):
                        pause()
                        spins += 1
                    if aload(box + {BOX_WAITERS} * 8) > 0:
                        job = 0
                        continue
                    while cas(box + {BOX_LOCK} * 8, 0, 1) == 0:
                        pause()
                    job = ld(box, {BOX_HEAD})
                    if job != 0:
                        astore(box + {BOX_HEAD} * 8, ld(job, {NEXT}))
                        if ld(job, {NEXT}) == 0:
                            st_i64(box + {BOX_TAIL} * 8, 0)
                    astore(box + {BOX_LOCK} * 8, 0)
                    if job == 0:
                        continue
                if aload(pool + {HEAD} * 8) != 0:
                    aadd(pool + {WAKE} * 8, 1)
                    if aload(pool + {SLEEPERS} * 8) > 0 and aload(pool + {SPINNERS} * 8) == 0:
                        wake(pool + {WAKE} * 8, 1)
                return job
"""
    + "\n".join("        " + line for line in _FINISH.splitlines())
    + """
            job = 0
            continue
        helped = 0
        crowded = 0
        i = 0
        while i < {OPEN_SLOTS}:
            job = aload(pool + ({OPEN} + i) * 8)
            i += 1
            if job == 0:
                continue
            aadd(job + {ACTIVE} * 8, 1)
            generation = aload(job + {GENERATION} * 8)
            slots = aload(job + {SLOTS} * 8)
            if (slots >> 32) == generation and (slots & 0xFFFFFFFF) < ld(job, {THREADS}):
                if cas(job + {SLOTS} * 8, slots, slots + 1) == 1:
                    scratch = ld(ld(job, {BASES}), 0) + ld(job, {SCRATCH})
                    scratch += (slots & 0xFFFFFFFF) * ld(job, {SCRATCH_SIZE})
                    helped = 1
                    call4(ld(pool, {WALK_AT}), job, generation, scratch, slots & 0xFFFFFFFF)
            elif (slots >> 32) == generation:
                crowded = 1
            aadd(job + {ACTIVE} * 8, -1)
        job = 0
        if helped == 1:
            continue
        # one that is too many would only take a core from those who work
        aadd(pool + {SPINNERS} * 8, 1)
        spins = 0
        while crowded == 0 and spins < {SPIN_BEFORE_SLEEP} and aload(pool + {WAKE} * 8) == seen:
            pause()
            spins += 1
        aadd(pool + {SPINNERS} * 8, -1)
        if aload(pool + {WAKE} * 8) == seen:
            aadd(pool + {SLEEPERS} * 8, 1)
            sleep_on(pool + {WAKE} * 8, seen, 3600000000000)
            aadd(pool + {SLEEPERS} * 8, -1)
    return {STOPPED}
"""
)

#: submit(pool, job, _, _): put the job in the pool's queue and wake a worker.
SUBMIT = """@njit(nogil=True)
def kernel(pool, job, unused, unused2):
    st_i64(job + {NEXT} * 8, 0)
    st_i64(job + {OWNER} * 8, 0)
    st_i64(job + {LEADS} * 8, 0)
    astore(job + {STATE} * 8, {QUEUED})
    while cas(pool + {LOCK} * 8, 0, 1) == 0:
        pause()
    tail = ld(pool, {TAIL})
    if tail == 0:
        st_i64(pool + {HEAD} * 8, job)
    else:
        st_i64(tail + {NEXT} * 8, job)
    st_i64(pool + {TAIL} * 8, job)
    astore(pool + {LOCK} * 8, 0)
    aadd(pool + {WAKE} * 8, 1)
    if aload(pool + {SLEEPERS} * 8) > 0 and aload(pool + {SPINNERS} * 8) == 0:
        wake(pool + {WAKE} * 8, 1)
    return 0
"""

#: steal(pool, job, who, _): take a job that no worker has begun out of the queue, leadership with it; 1 or 0.
#: It is OWNER's then, and ENDED is 0 until it has run.
STEAL = """@njit(nogil=True)
def kernel(pool, job, who, unused):
    taken = 0
    while cas(pool + {LOCK} * 8, 0, 1) == 0:
        pause()
    if aload(pool + {LEADERS} * 8) < ld(pool, {STREAMS}):
        before = 0
        here = ld(pool, {HEAD})
        while here != 0 and here != job:
            before = here
            here = ld(here, {NEXT})
        if here == job:
            after = ld(job, {NEXT})
            if before == 0:
                astore(pool + {HEAD} * 8, after)
            else:
                st_i64(before + {NEXT} * 8, after)
            if after == 0:
                st_i64(pool + {TAIL} * 8, before)
            aadd(pool + {LEADERS} * 8, 1)
            st_i64(job + {LEADS} * 8, 1)
            st_i64(job + {OWNER} * 8, who)
            st_i64(job + {ENDED} * 8, 0)
            astore(job + {STATE} * 8, {RUNNING})
            taken = 1
    astore(pool + {LOCK} * 8, 0)
    return taken
"""

#: wait(job, ns, _, _): 1 when the job is over, 0 when ns have passed.
WAIT = """@njit(nogil=True)
def kernel(job, ns, unused, unused2):
    spins = 0
    while spins < {SPIN_WAIT}:
        state = aload(job + {STATE} * 8)
        if state == {DONE} or state == {IDLE}:
            return 1
        pause()
        spins += 1
    aadd(job + {WAITERS} * 8, 1)
    limit = now() + ns
    left = ns
    done = 0
    while left > 0:
        state = aload(job + {STATE} * 8)
        if state == {DONE} or state == {IDLE}:
            done = 1
            break
        sleep_on(job + {STATE} * 8, state, left)
        left = limit - now()
    state = aload(job + {STATE} * 8)
    if state == {DONE} or state == {IDLE}:
        done = 1
    aadd(job + {WAITERS} * 8, -1)
    return done
"""

#: finish(job, _, _, _): as a worker ends a job whose callback Python has run.
FINISH = (
    "@njit(nogil=True)\ndef kernel(job, unused, unused2, unused3):\n    if job == 0:\n        return 0\n"
    + _FINISH
    + "    return 0\n"
)

_NAMES = {k: v for k, v in globals().items() if k.isupper() and isinstance(v, int)}


#: take(box, ns, who, _): the address of a job out of the box, whose OWNER is then who; 0 when ns have passed,
#: or after a kick.
TAKE = """@njit(nogil=True)
def kernel(box, ns, who, unused):
    aadd(box + {BOX_WAITERS} * 8, 1)
    seen = aload(box + {COUNT} * 8)
    spins = 0
    limit = 0
    job = 0
    while True:
        if aload(box + {BOX_HEAD} * 8) != 0:
            while cas(box + {BOX_LOCK} * 8, 0, 1) == 0:
                pause()
            job = ld(box, {BOX_HEAD})
            if job != 0:
                astore(box + {BOX_HEAD} * 8, ld(job, {NEXT}))
                if ld(job, {NEXT}) == 0:
                    st_i64(box + {BOX_TAIL} * 8, 0)
            astore(box + {BOX_LOCK} * 8, 0)
            if job != 0:
                st_i64(job + {OWNER} * 8, who)
                break
        if ns == 0 or (spins > 0 and aload(box + {COUNT} * 8) != seen):
            break
        spins += 1
        if spins < {SPIN_WAIT}:
            pause()
            continue
        if limit == 0:
            limit = now() + ns
        left = limit - now()
        if left <= 0:
            break
        aadd(box + {BOX_SLEEPERS} * 8, 1)
        if aload(box + {BOX_HEAD} * 8) == 0:
            sleep_on(box + {COUNT} * 8, seen, left)
        aadd(box + {BOX_SLEEPERS} * 8, -1)
    aadd(box + {BOX_WAITERS} * 8, -1)
    return job
"""

#: kick(box, _, _, _): let all who wait at the box look around.
KICK = """@njit(nogil=True)
def kernel(box, unused, unused2, unused3):
    aadd(box + {COUNT} * 8, 1)
    if aload(box + {BOX_SLEEPERS} * 8) > 0:
        wake(box + {COUNT} * 8, 1 << 30)
    return 0
"""

#: wake(address, count, _, _): wake whoever sleeps on that address.
WAKE_UP = """@njit(nogil=True)
def kernel(address, count, unused, unused2):
    wake(address, count)
    return 0
"""

#: release(pool, job, _, _): whoever has run the job in Python no longer leads, if he did.
RELEASE = """@njit(nogil=True)
def kernel(pool, job, unused, unused2):
    if ld(job, {LEADS}) == 0:
        return 0
    st_i64(job + {LEADS} * 8, 0)
    aadd(pool + {LEADERS} * 8, -1)
    aadd(pool + {WAKE} * 8, 1)
    if aload(pool + {SLEEPERS} * 8) > 0 and aload(pool + {SPINNERS} * 8) == 0:
        wake(pool + {WAKE} * 8, 1)
    return 0
"""

#: The runner's functions by the kernel that has them: what every inference needs, what queues and threads
#: need, and what control flow needs. A process compiles or loads those that it comes to.
TEMPLATES = {
    "runner": {"walk": WALK, "lead": LEAD},
    "runner_queues": {
        "work": WORK, "submit": SUBMIT, "wait": WAIT, "finish": FINISH, "wake": WAKE_UP, "release": RELEASE,
        "take": TAKE, "kick": KICK, "steal": STEAL,
    },
    "runner_control": control_steps.TEMPLATES,
    "runner_trips": trip_steps.TEMPLATES,
}  # fmt: skip
_HOME = {function: kernel for kernel, functions in TEMPLATES.items() for function in functions}


def _intrinsics(isa: Any) -> dict[str, Any]:
    from ovjit.codegen.cpu import atomics

    return atomics.intrinsics()


@functools.cache
def native_kernel(name: str = "runner") -> Kernel:
    """One of the runner's kernels, with several functions: compiled once ever, cached and loaded like all
    others. The first function is its `kernel`."""
    texts = [
        text if i == 0 else text.replace("def kernel(", f"def {function}(")
        for i, (function, text) in enumerate(TEMPLATES[name].items())
    ]
    names = _NAMES if name != "runner_trips" else _NAMES | trip_steps.NAMES
    source = "\n".join(texts).format(step_bytes=STEP_WORDS * 8, **control_steps.NAMES, **names)
    return Kernel(name, source, Frame(), _intrinsics)


def native_kernels() -> tuple[Kernel, ...]:
    """All kernels of the runner."""
    return tuple(map(native_kernel, TEMPLATES))


class Native:
    """The runner's functions as Python callables, each loaded with its kernel when it is first asked for."""

    walk: Callable[[int, int, int, int], int]
    lead: Callable[[int, int, int, int], int]
    work: Callable[[int, int, int, int], int]
    submit: Callable[[int, int, int, int], int]
    wait: Callable[[int, int, int, int], int]
    finish: Callable[[int, int, int, int], int]
    wake: Callable[[int, int, int, int], int]
    release: Callable[[int, int, int, int], int]
    take: Callable[[int, int, int, int], int]
    kick: Callable[[int, int, int, int], int]
    steal: Callable[[int, int, int, int], int]
    trips: Callable[[int, int, int, int], int]

    def __getattr__(self, name: str) -> Callable[[int, int, int, int], int]:
        if name not in _HOME:
            raise AttributeError(name)
        native(_HOME[name])
        return vars(self)[name]


_native = Native()
#: name -> address of the runner's functions that are loaded
_addresses: dict[str, int] = {}
#: Functions that may take long and give up the GIL; for the others, giving it up costs more than they do.
_LONG = ("walk", "lead", "work", "wait", "take", "trips")


def native(*needed: str) -> Native:
    """The runner, those of its kernels loaded that are needed. The first call ever may compile them."""
    for name in needed:
        if next(iter(TEMPLATES[name])) not in _addresses:
            kernel = native_kernel(name)
            load_kernels((kernel,))
            symbol = kernel.symbol()
            addresses = {
                text: entry_address(symbol, text if i else "kernel") for i, text in enumerate(TEMPLATES[name])
            }
            # All of them before any is called: whoever takes a job must not be interrupted while he gets hold
            # of the function that brings it to its end.
            vars(_native).update({text: function(at, 4, text in _LONG) for text, at in addresses.items()})
            _addresses.update(addresses)  # last: interrupted on the way here, the next call does it again
    return _native


def address_of(name: str) -> int:
    """The address of one of the runner's functions."""
    native(_HOME[name])
    return _addresses[name]


def clock() -> int:
    """The runner's clock, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
