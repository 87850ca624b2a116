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
#: cache line of its own behind the step's. There the second word counts the chunks of finished parts. A
#: thread goes on to other groups' parts when its own is claimed. Sixteen threads and more would wait for the
#: line of one pair of words (`bench.many_cores`).
GROUP = 8


def groups_of(threads: int) -> int:
    """How many groups the threads of a job form."""
    return max(1, threads // GROUP)


def counter_bytes(threads: int) -> int:
    """The bytes of a step's counters."""
    groups = groups_of(threads)
    return 16 if groups == 1 else CACHE_LINE * (1 + groups)


#: A job, the block of integers that one inference is. STATE is slept on. FIRST and STEPS: what `lead` runs;
#: AT and STOP_AT: the stretch of it that threads walk now; CONTROLS: addresses of the control steps' records;
#: ROOT: the job around all bodies; NESTED: where in the arena the bodies' begins.
(
    STATE, ERROR, TABLE, STEPS, BASES, GENERATION, COUNTERS, ABORT, PERF, THREADS, STARTED, ENDED, NOTIFY,
    WAITERS, ACTIVE, NEXT, SLOTS, SCRATCH, SCRATCH_SIZE, ARENA_SIZE, COMPLETIONS, FIRST, OWNER, LEADS, AT,
    STOP_AT, CONTROLS, ROOT, NESTED, BUSY, FLUSH,
) = range(31)  # fmt: skip
#: OWNER is the thread that has taken the job to finish it. It is written in the same atomic operation, since
#: an interrupt may come before Python knows. LEADS is 1 while the job counts among its pool's LEADERS. BUSY
#: is 0, or the address where threads record their work for each step and slot: begin of the first chunk, end
#: of the last one (ns), number of chunks. FLUSH is 1 if all threads flush denormal numbers while they work at
#: this job.
BUSY_FROM, BUSY_TO, BUSY_CHUNKS = range(3)
BUSY_WORDS = 3
JOB_WORDS = 32
IDLE, QUEUED, RUNNING, DONE = range(4)

#: A pool: what its workers share. WAKE is slept on.
WAKE, SLEEPERS, STOP, LOCK, HEAD, TAIL, LEADERS, STREAMS, OPEN = range(9)
LEAD_AT, WALK_AT = 60, 61  # addresses of the functions of these names
SPINNERS = 62  # spinning workers; they will see new work, so no wake-up is needed
OPEN_SLOTS = 16  # jobs that want helpers, from word OPEN on
POOL_WORDS = 64

#: Actions that NOTIFY requests at the end of a job: none; the worker calls Python; Python runs the job (it
#: has host steps); the job is posted to its COMPLETIONS.
SILENT, CALL_BACK, IN_PYTHON, POST = range(4)

#: A completion queue: jobs that are over and whose callbacks are due. A thread that waits there pops them;
#: where there is none, the worker that posts a job goes to Python itself. COUNT is slept on.
COUNT, DONE_LOCK, DONE_HEAD, DONE_TAIL, DONE_WAITERS, DONE_SLEEPERS = range(6)
DONE_WORDS = 8

#: What a worker's native loop returns besides the address of a job that Python must look at.
STOPPED = 0

SPIN_BEFORE_SLEEP = 6_000  # pauses of an idle worker after work, some 100 us
SPIN_IN_STEP = 4_000  # pauses at a step's end before other processes are let through
SPIN_POST = 4_000  # pauses of a worker that has posted a job and waits for a taker: the GIL takes longer
LONG_JOB = 500_000  # ns: after such a job it waits an eighth of that
SPIN_WAIT = 1_000  # pauses of a caller before it sleeps

STEP_BYTES = STEP_WORDS * 8

#: Error codes beside those of kernels: an error in a body; an iteration beyond the last part of a sliced
#: input.
IN_BODY, PAST_END = 1000, 1001
