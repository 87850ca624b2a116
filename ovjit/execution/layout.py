"""The layout of memory that the native runner and Python share: a job, a pool and a completion queue.

Every field is an int64; a constant here is its index. `ovjit.execution.runner` has the algorithm.
"""

from __future__ import annotations

from ovjit.codegen.cpu.targets import CACHE_LINE as CACHE_LINE
from ovjit.planning.plan_steps import STEP_ARGS as STEP_ARGS
from ovjit.planning.plan_steps import STEP_CHUNKS as STEP_CHUNKS
from ovjit.planning.plan_steps import STEP_GOES_ON as STEP_GOES_ON
from ovjit.planning.plan_steps import STEP_KERNEL as STEP_KERNEL
from ovjit.planning.plan_steps import STEP_NEXT as STEP_NEXT
from ovjit.planning.plan_steps import STEP_WORDS as STEP_WORDS

#: Steps with at most so many chunks are claimed in two ranges, with a count for each in a claim's low word.
#: Steps with more chunks are claimed from the first one on.
IN_HALVES = 0xFFFF

#: Counters of a step: two words, chunks that are claimed and chunks that are done. Threads of a large job
#: form groups of this many, slot by slot. Each group has a part of a step's chunks, with both words in a
#: cache line of its own after the step's. There the second word counts the chunks of finished parts. A
#: thread goes on to other groups' parts when its own is claimed. Sixteen threads and more would wait for the
#: line of one pair of words (`bench.many_cores`).
GROUP = 8


def groups_of(threads: int) -> int:
    """The number of groups that the threads of a job form."""
    return max(1, threads // GROUP)


def counter_bytes(threads: int) -> int:
    """Bytes of a step's counters."""
    groups = groups_of(threads)
    return 16 if groups == 1 else CACHE_LINE * (1 + groups)


#: Fields of a job. Waiters sleep on STATE. FIRST and STEPS: range of steps that `lead` runs; AT and STOP_AT:
#: the part of it that threads execute now; CONTROLS: addresses of the control steps' records; ROOT: the
#: outermost job; NESTED: offset of the bodies' memory in the arena.
(
    STATE, ERROR, TABLE, STEPS, BASES, GENERATION, COUNTERS, ABORT, PERF, THREADS, STARTED, ENDED, NOTIFY,
    WAITERS, ACTIVE, NEXT, SLOTS, SCRATCH, SCRATCH_SIZE, ARENA_SIZE, COMPLETIONS, FIRST, OWNER, LEADS, AT,
    STOP_AT, CONTROLS, ROOT, NESTED, BUSY, FLUSH, LATENCY,
) = range(32)  # fmt: skip
#: OWNER: the thread that must finish the job, or ~ that thread while it calls back. It is written when the
#: job is taken, under the queue's lock, since an interrupt may come before Python gets the result. LEADS: 1
#: while the job counts among its pool's LEADERS. BUSY: 0, or the address of a record per step and slot: begin
#: of the first chunk, end of the last one (ns), number of chunks. FLUSH: 1 if threads flush denormal numbers
#: while they run this job. LATENCY: ns of the run before, written when the job is queued.
BUSY_FROM, BUSY_TO, BUSY_CHUNKS = range(3)
BUSY_WORDS = 3
JOB_WORDS = 32
#: States of a job. DONE and FAILED are of one that has ended; FAILED: ERROR or ABORT is set. The outcome is
#: one word, as a second one may be read too early on CPUs other than x86-64.
IDLE, QUEUED, RUNNING, DONE, FAILED = range(5)

#: Fields of a pool. SLEEPERS: in the low half the idle workers that sleep on WAKE, in the high half those
#: that have been woken and are on their way, so that none is woken twice.
SLEEPERS, STOP, LOCK, HEAD, TAIL, LEADERS, STREAMS, OPEN = range(1, 9)
#: In a cache line of their own, as spinning workers read them all the time. PATIENT: whether the job that was
#: queued last is brief, so that its caller probably comes back to run it: 1 if it is the only one of its
#: caller, 2 for one of a queue's. Workers nap on NAP, where nothing wakes them.
WAKE, PATIENT, NAP = 24, 25, 26
LEAD_AT, WALK_AT = 60, 61  # addresses of the functions of these names
#: WOKEN_AT: the time (ns of `now`) of the last wake-up of workers. CALM_AT: the time before which no thread
#: spins, since other processes have kept a thread from a core. BUSY_FOR: how long that was ordered for last.
WOKEN_AT, CALM_AT, BUSY_FOR = 57, 58, 59
SPINNERS = 62  # spinning workers; they will see new work, so no wake-up is needed
OPEN_SLOTS = 16  # jobs that want helpers, from word OPEN on
POOL_WORDS = 64

#: Actions that NOTIFY requests at the end of a job: none; the worker calls Python; Python runs the job (it
#: has host steps); the job is posted to its COMPLETIONS.
SILENT, CALL_BACK, IN_PYTHON, POST = range(4)

#: Fields of a completion queue: finished jobs whose callbacks are due. A waiting thread pops them. Without
#: one, the worker that posts a job enters Python itself. Waiters sleep on COUNT.
COUNT, DONE_LOCK, DONE_HEAD, DONE_TAIL, DONE_WAITERS, DONE_SLEEPERS = range(6)
DONE_WORDS = 8

#: Return value of `work` after STOP. Other values are addresses of jobs that need Python.
STOPPED = 0

PATIENCE = 2_000  # ns after which a spinning worker takes a brief job that is the only one of its caller
#: On a busy machine a worker that is woken for a brief job naps for so many ns before it looks. Until then
#: its caller runs this job and later ones, without a system call. If the job is still there, and no other
#: came, the worker does not nap at the next wake-ups, so many.
NAP_TIME, EAGER_WAKES = 200_000, 16
SPIN_BEFORE_SLEEP = 6_000  # pauses of an idle worker after work, about 100 us
SPIN_IN_STEP = 4_000  # pauses at a step's end before the thread yields to other processes
SPIN_POST = 4_000  # pauses of a worker that has posted a job and waits for a taker
LONG_JOB = 500_000  # ns: after such a job the worker waits an eighth of the job's time
SPIN_WAIT = 1_000  # pauses of a caller before it sleeps
#: The same for a job on one thread, alone in its pool, whose last run took less than so many ns. A wake-up
#: takes a third of that.
SPIN_BRIEF, BRIEF_JOB = 6_000, 100_000
#: Pauses between two looks at the clock, and the ns between them, or for a wake-up, that only another process
#: explains: the slices of schedulers are longer, interrupts and the wake-up of a virtual core are shorter.
LOOK, GAP = 64, 1_000_000
#: ns for which no thread spins then. What spins on a busy machine has used its share when work comes, and
#: waits for whole slices of the others. Each time that the machine is busy again at once, twice as long.
SHORT_BUSY, LONG_BUSY = 1_000_000_000, 32_000_000_000

STEP_BYTES = STEP_WORDS * 8

#: Error codes beside those of kernels: an error in a body; an iteration beyond the last part of a sliced
#: input.
IN_BODY, PAST_END = 1000, 1001
