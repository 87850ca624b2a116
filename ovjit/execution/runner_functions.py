"""The runner's native functions: walk a plan's table, lead a job, help with one.

`ovjit.execution.runner` has the algorithm, `ovjit.execution.layout` the layout of the shared memory.
"""

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import i64, ld, st, udiv, urem
from ovjit.execution.control_steps import branch as branch
from ovjit.execution.control_steps import repeat as repeat
from ovjit.execution.iteration_steps import iterate as iterate
from ovjit.execution.layout import *
from ovjit.execution.python_steps import from_python as from_python
from ovjit.execution.runner_parts import *
from ovjit.execution.runner_words import *


@routine
def walk(job, generation, scratch, slot):
    """Execute the table together with the job's other threads. The thread of slot 0 leads. Helpers return at
    the job's end."""
    perf = ld(job, PERF)
    busy = ld(job, BUSY)
    threads = ld(job, THREADS)
    flush = ld(job, FLUSH)
    control = 0
    if flush != 0:
        control = no_denormals()
    # in this order: a late thread that sees a later table sees that table's counters too, and claims nothing
    steps = aload(job + STOP_AT * 8)
    table = aload(job + TABLE * 8)
    bases = aload(job + BASES * 8)
    counters = aload(job + COUNTERS * 8)
    groups = max(1, threads // GROUP)
    stride = 16
    home = 0
    if groups > 1:
        stride = CACHE_LINE * (1 + groups)
        home = urem(udiv(slot, GROUP), groups)
    s = ld(job, AT)
    open_since = s  # the first step that may not be complete
    alive = 1
    while s < steps and alive == 1:
        row = table + s * STEP_BYTES
        over = counters + s * stride
        if slot == 0 and perf != 0:
            st[i64](perf + s * 16, ld(perf, 2 * s) + now())
        group = 0
        while group < groups and alive == 1:
            claim = over
            begin = 0
            chunks = ld(row, STEP_CHUNKS)
            if groups > 1:
                part = home + group
                if part >= groups:
                    part -= groups
                claim = over + CACHE_LINE * (1 + part)
                begin = udiv(chunks * part, groups)
                chunks = udiv(chunks * (part + 1), groups) - begin
            middle = chunks
            if chunks <= IN_HALVES:
                middle = (chunks + 1) >> 1
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
                    if aload(job + ABORT * 8) == 0:
                        start = 0
                        if busy != 0:
                            start = now()
                        code = call4(ld(row, STEP_KERNEL), bases, ld(row, STEP_ARGS), begin + chunk, scratch)
                        if busy != 0:  # before the chunk counts as done: afterwards the job may be over
                            mine = busy + (s * threads + slot) * BUSY_WORDS * 8
                            if ld(mine, BUSY_FROM) == 0:
                                st[i64](mine + BUSY_FROM * 8, start)
                            st[i64](mine + BUSY_TO * 8, now())
                            st[i64](mine + BUSY_CHUNKS * 8, ld(mine, BUSY_CHUNKS) + 1)
                        if code != 0:
                            cas(job + ERROR * 8, 0, code | (s << 32))
                            astore(job + ABORT * 8, 1)
                    finished = aadd(claim + 8, 1) + 1
                    if groups > 1 and (finished & 0xFFFFFFFF) == chunks:
                        aadd(over + 8, chunks)
            group += 1
        if ld(row, STEP_GOES_ON) == 0 or s + 1 == steps:
            spins = 0
            while open_since <= s and alive == 1:
                word = aload(counters + open_since * stride + 8)
                if word == (generation << 32) + ld(table + open_since * STEP_BYTES, STEP_CHUNKS):
                    open_since += 1
                    continue
                if (word >> 32) != generation:
                    alive = 0
                    break
                spins += 1
                if spins < SPIN_IN_STEP:
                    pause()
                else:
                    give_way()
        if slot == 0 and perf != 0:
            st[i64](perf + s * 16 + 8, ld(perf, 2 * s + 1) + now())
        s += 1
    if flush != 0:
        float_control(control)
    return alive


@routine
def lead(job, pool, arena, unused):
    """Run the job on this thread; free workers help. The leader runs control steps, and leads the jobs of
    their bodies. Helpers join these as they join this job."""
    st[i64](ld(job, BASES), arena)
    scratch = arena + ld(job, SCRATCH)
    st[i64](job + STARTED * 8, now())
    flush = ld(job, FLUSH)
    control = 0
    if flush != 0:
        control = no_denormals()
    perf = ld(job, PERF)
    threads = ld(job, THREADS)
    steps = ld(job, STEPS)
    table = ld(job, TABLE)
    bases = ld(job, BASES)
    s = ld(job, FIRST)
    while s < steps:
        stop = min(ld(table + s * STEP_BYTES, STEP_NEXT), steps)
        if threads <= 1:
            while s < stop:
                row = table + s * STEP_BYTES
                chunks = ld(row, STEP_CHUNKS)
                kernel_address = ld(row, STEP_KERNEL)
                args = ld(row, STEP_ARGS)
                add_time(perf, s, 0)
                for c in range(chunks):
                    code = call4(kernel_address, bases, args, c, scratch)
                    if code != 0:
                        astore(job + ERROR * 8, code | (s << 32))
                        astore(job + ABORT * 8, 1)
                        break
                add_time(perf, s, 1)
                s += 1
                if aload(job + ABORT * 8) != 0:
                    break
        elif s < stop:
            generation = (ld(job, GENERATION) + 1) & 0x7FFFFFFF
            counters = ld(job, COUNTERS)
            fresh = generation << 32
            st[i64](job + AT * 8, s)
            st[i64](job + STOP_AT * 8, stop)
            groups = max(1, threads // GROUP)
            lines = 1
            stride = 16
            if groups > 1:
                lines = 1 + groups
                stride = CACHE_LINE
            at = counters + s * lines * stride
            while at < counters + stop * lines * stride:
                astore(at, fresh)
                astore(at + 8, fresh)
                at += stride
            s = stop
            astore(job + SLOTS * 8, fresh + 1)
            astore(job + GENERATION * 8, generation)
            for slot in range(OPEN_SLOTS):
                if aload(pool + (OPEN + slot) * 8) == 0:
                    if cas(pool + (OPEN + slot) * 8, 0, job) == 1:
                        break
            if slot < OPEN_SLOTS:
                st[i64](pool + PATIENT * 8, 0)
                aadd(pool + WAKE * 8, 1)
                if aload(pool + SPINNERS * 8) < threads - 1:
                    wake_workers(pool, threads - 1)
            call4(ld(pool, WALK_AT), job, generation, scratch, 0)
            if slot < OPEN_SLOTS:
                astore(pool + (OPEN + slot) * 8, 0)
            astore(job + GENERATION * 8, (generation + 1) & 0x7FFFFFFF)
        if aload(job + ABORT * 8) != 0:
            break
        if s < steps:
            row = table + s * STEP_BYTES
            add_time(perf, s, 0)
            call4(ld(row, STEP_KERNEL), job, ld(row, STEP_ARGS), pool, s)
            add_time(perf, s, 1)
            s += 1
            if aload(job + ABORT * 8) != 0:
                break
    if flush != 0:
        float_control(control)
    st[i64](job + ENDED * 8, now())
    return ld(job, ERROR)


@inline
def take_queued(pool):
    """Take the first job of the queue, and leadership. 0 if the queue is empty or all streams are in use."""
    job = 0
    if aload(pool + HEAD * 8) != 0 and aload(pool + LEADERS * 8) < ld(pool, STREAMS):
        lock(pool + LOCK * 8)
        head = ld(pool, HEAD)
        if head != 0 and ld(pool, LEADERS) < ld(pool, STREAMS):
            job = head
            st[i64](pool + HEAD * 8, ld(head, NEXT))
            if ld(head, NEXT) == 0:
                st[i64](pool + TAIL * 8, 0)
            st[i64](job + LEADS * 8, 1)
            aadd(pool + LEADERS * 8, 1)
        astore(pool + LOCK * 8, 0)
        if aload(pool + HEAD * 8) != 0 and aload(pool + SPINNERS * 8) == 0:
            if aload(pool + LEADERS * 8) < ld(pool, STREAMS):
                aadd(pool + WAKE * 8, 1)
                wake_workers(pool, 1)
    return job


@inline
def post(job, queue, pool):
    """Push a finished job to its completion queue and spin briefly. Returns a job that this worker must
    finish itself if no waiter claimed it, else 0."""
    unclaimed = 0
    st[i64](job + NEXT * 8, 0)
    lock(queue + DONE_LOCK * 8)
    tail = ld(queue, DONE_TAIL)
    if tail == 0:
        astore(queue + DONE_HEAD * 8, job)
    else:
        st[i64](tail + NEXT * 8, job)
    st[i64](queue + DONE_TAIL * 8, job)
    astore(queue + DONE_LOCK * 8, 0)
    aadd(queue + COUNT * 8, 1)
    if aload(queue + DONE_SLEEPERS * 8) > 0:
        wake_at(queue + COUNT * 8, 1)
    spins = 0
    if ld(job, ENDED) - ld(job, STARTED) > LONG_JOB:
        spins = SPIN_POST - SPIN_POST // 8
    calm = is_calm(pool, now())
    if calm == 0:
        spins = SPIN_POST
    while spins < SPIN_POST and aload(queue + DONE_HEAD * 8) != 0 and aload(queue + DONE_WAITERS * 8) == 0:
        pause()
        spins += 1
    if aload(queue + DONE_WAITERS * 8) == 0:
        unclaimed = take_finished(queue)
    return unclaimed


@routine
def work(pool, arena, arena_size, resume):
    """The worker loop. `resume`: 0, or a job for which Python has just enlarged the arena; leadership is
    still held. Returns the address of a job that needs Python: its callback is due, or it needs a larger
    arena (then its state is QUEUED). Returns STOPPED at the end."""
    job = resume
    woken = 0
    eager = 0  # wake-ups until the next nap
    while True:
        if job == 0:
            wakes = aload(pool + WAKE * 8)
            if woken == 1 and ld(pool, PATIENT) != 0:
                if eager > 0:
                    eager -= 1
                elif now() < aload(pool + CALM_AT * 8):
                    sleep_on(pool + NAP * 8, 0, NAP_TIME)
                    before = wakes
                    wakes = aload(pool + WAKE * 8)
                    if wakes == before and aload(pool + HEAD * 8) != 0:  # its caller does other things
                        eager = EAGER_WAKES
            woken = 0
            if aload(pool + STOP * 8) != 0:
                return STOPPED
            job = take_queued(pool)
        if job != 0:
            if ld(job, ARENA_SIZE) > arena_size or ld(job, NOTIFY) == IN_PYTHON:
                return job
            astore(job + STATE * 8, RUNNING)
            call4(ld(pool, LEAD_AT), job, pool, arena, 0)
            st[i64](job + LEADS * 8, 0)
            aadd(pool + LEADERS * 8, -1)
            if ld(job, NOTIFY) != 0:
                if ld(job, NOTIFY) == POST:
                    queue = ld(job, COMPLETIONS)
                    job = post(job, queue, pool)
                    if job == 0:
                        continue
                if aload(pool + HEAD * 8) != 0:
                    call_worker(pool)
                return job
            tell_over(job)
            job = 0
            continue
        helped = 0
        crowded = 0
        i = 0
        while i < OPEN_SLOTS:
            job = aload(pool + (OPEN + i) * 8)
            i += 1
            if job == 0:
                continue
            aadd(job + ACTIVE * 8, 1)
            generation = aload(job + GENERATION * 8)
            slots = aload(job + SLOTS * 8)
            if (slots >> 32) == generation and (slots & 0xFFFFFFFF) < ld(job, THREADS):
                if cas(job + SLOTS * 8, slots, slots + 1) == 1:
                    scratch = ld(ld(job, BASES), 0) + ld(job, SCRATCH)
                    scratch += (slots & 0xFFFFFFFF) * ld(job, SCRATCH_SIZE)
                    helped = 1
                    call4(ld(pool, WALK_AT), job, generation, scratch, slots & 0xFFFFFFFF)
            elif (slots >> 32) == generation:
                crowded = 1
            aadd(job + ACTIVE * 8, -1)
        job = 0
        if helped == 1:
            continue
        # more spinning threads than cores would slow down the working ones
        at = now()
        calm = is_calm(pool, at)
        if crowded == 0 and calm == 1:
            aadd(pool + SPINNERS * 8, 1)
            spins = 0
            while spins < SPIN_BEFORE_SLEEP and aload(pool + WAKE * 8) == wakes:
                pause()
                spins += 1
                if spins & (LOOK - 1) == 0:
                    before = at
                    at = now()
                    gap = notice_gap(pool, before, at)
                    if gap == 1:
                        spins = SPIN_BEFORE_SLEEP
            aadd(pool + SPINNERS * 8, -1)
            if ld(pool, PATIENT) == 1 and aload(pool + WAKE * 8) != wakes:
                at = now()
                limit = at + PATIENCE
                while at < limit:
                    for _ in range(LOOK // 2):
                        pause()
                    at = now()
        if aload(pool + WAKE * 8) == wakes:
            aadd(pool + SLEEPERS * 8, 1)
            at = now()
            sleep_on(pool + WAKE * 8, wakes, 3_600_000_000_000)
            count_awake(pool)
            woken = 1
            since = aload(pool + WOKEN_AT * 8)
            if since >= at:  # else it was not put to sleep, or was not woken by this
                at = now()
                notice_gap(pool, since, at)
    return STOPPED


@routine
def submit(pool, job, notify, queue):
    """Put the job in the pool's queue. Wakes a worker unless the queue has another job: a worker was woken
    for that one, and wakes the next one or takes both. A thread that takes it instead wakes one later."""
    st[i64](job + NOTIFY * 8, notify)
    st[i64](job + COMPLETIONS * 8, queue)
    st[i64](job + ABORT * 8, 0)
    st[i64](job + ERROR * 8, 0)
    latency = ld(job, ENDED) - ld(job, STARTED)
    st[i64](job + LATENCY * 8, latency)
    st[i64](job + NEXT * 8, 0)
    st[i64](job + OWNER * 8, 0)
    st[i64](job + LEADS * 8, 0)
    astore(job + STATE * 8, QUEUED)
    lock(pool + LOCK * 8)
    tail = ld(pool, TAIL)
    if tail == 0:
        st[i64](pool + HEAD * 8, job)
    else:
        st[i64](tail + NEXT * 8, job)
    st[i64](pool + TAIL * 8, job)
    astore(pool + LOCK * 8, 0)
    patient = 0
    if (notify == SILENT or notify == POST) and latency > 0 and latency < BRIEF_JOB:
        patient = 1
        if queue != 0:
            patient = 2
    st[i64](pool + PATIENT * 8, patient)
    aadd(pool + WAKE * 8, 1)  # spinning workers look at the queue again
    if tail == 0 and aload(pool + SPINNERS * 8) == 0:
        wake_workers(pool, 1)
    return 0


@routine
def wait(job, ns, pool, arena):
    """Wait for the job's end. Returns 1, or 0 after `ns` nanoseconds. With an `arena` of the job's size, this
    thread runs the job if no worker has begun it."""
    over = is_over(job)
    if over == 1:
        return 1
    if arena != 0 and aload(job + STATE * 8) == QUEUED:
        claimed = claim_queued(pool, job)
        if claimed == 1:
            call4(ld(pool, LEAD_AT), job, pool, arena, 0)
            give_up_lead(pool, job)
            tell_over(job)
            return 1
    start = now()
    calm = is_calm(pool, start)
    if calm == 1:
        spins = SPIN_WAIT
        latency = ld(job, LATENCY)
        if ld(job, THREADS) <= 1 and aload(pool + LEADERS * 8) <= 1:
            if latency > 0 and latency < BRIEF_JOB:
                spins = SPIN_BRIEF
        for _ in range(spins):
            over = is_over(job)
            if over == 1:
                return 1
            pause()
    at = now()
    notice_gap(pool, start, at)
    aadd(job + WAITERS * 8, 1)
    limit = at + ns
    remaining = ns
    while remaining > 0:
        state = aload(job + STATE * 8)
        if state == IDLE or state >= DONE:
            break
        sleep_on(job + STATE * 8, state, remaining)
        remaining = limit - now()
    over = is_over(job)
    aadd(job + WAITERS * 8, -1)
    return over


@routine
def finish(job, unused, unused2, unused3):
    """Mark a job as done whose callback Python has run."""
    if job != 0:
        tell_over(job)
    return 0


@routine
def wake(address, count, unused, unused2):
    """Wake up to `count` threads that sleep on the address."""
    wake_at(address, count)
    return 0


@routine
def publish(address, value, unused, unused2):
    """Write an int64 after all earlier and before all later writes of this thread.

    Plain writes of Python may become visible in another order on CPUs other than x86-64."""
    astore(address, value)
    return aload(address)


@routine
def release(pool, job, unused, unused2):
    """Give up leadership of a job that was run in Python, if it is held."""
    if ld(job, LEADS) != 0:
        give_up_lead(pool, job)
    return 0


@routine
def pop(queue, wait, who, pool):
    """Take a job out of a completion queue and make `who` its OWNER. `wait`: in the low 32 bits the ns to
    wait, above them 31 bits of COUNT, which the caller read before it found that it has to wait. Returns 0
    after that time, or once COUNT differs: a job was posted, or `wake_all` called."""
    aadd(queue + DONE_WAITERS * 8, 1)
    ns = wait & 0xFFFFFFFF
    spins = 0
    limit = 0
    job = 0
    while True:
        if aload(queue + DONE_HEAD * 8) != 0:
            job = take_finished(queue)
            if job != 0:
                st[i64](job + OWNER * 8, who)
                break
        count = aload(queue + COUNT * 8)
        if ns == 0 or (count & 0x7FFFFFFF) != wait >> 32:
            break
        spins += 1
        if spins == 1:
            at = now()
            limit = at + ns
            calm = is_calm(pool, at)
            if calm == 0:
                spins = SPIN_WAIT
        if spins < SPIN_WAIT:
            pause()
            continue
        remaining = limit - now()
        if remaining <= 0:
            break
        aadd(queue + DONE_SLEEPERS * 8, 1)
        if aload(queue + DONE_HEAD * 8) == 0:
            sleep_on(queue + COUNT * 8, count, remaining)
        aadd(queue + DONE_SLEEPERS * 8, -1)
    aadd(queue + DONE_WAITERS * 8, -1)
    return job


@routine
def wake_all(queue, unused, unused2, unused3):
    """Wake all threads that wait at a completion queue."""
    aadd(queue + COUNT * 8, 1)
    if aload(queue + DONE_SLEEPERS * 8) > 0:
        wake_at(queue + COUNT * 8, 1 << 30)
    return 0


@routine
def steal(pool, job, who, arena):
    """Take a job that no worker has begun out of the queue, and make `who` its OWNER. Returns 1, or 0 if that
    fails. With an `arena` the job is run too; without one this thread has leadership, and ENDED is 0 until
    the job has run."""
    claimed = claim_queued(pool, job)
    if claimed == 0:
        return 0
    st[i64](job + OWNER * 8, who)
    if arena != 0:
        call4(ld(pool, LEAD_AT), job, pool, arena, 0)
        give_up_lead(pool, job)
    return 1
