"""A process that holds one engine and does what it is told, and the parent's side of it.

    python -m bench.worker ENGINE

Commands come as lines of JSON on stdin, answers go as lines of JSON to what was stdout; anything that the
engine prints goes to stderr. Between two commands the process sleeps in a read, so that of several workers
only the one that has been spoken to is running.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that an answer may take.
PATIENCE = 600


class WorkerError(Exception):
    """What went wrong in a worker, in its own words."""


class Worker:
    """The parent's side: one process with one engine. Use it in a `with` statement."""

    def __init__(self, engine: str, environment: dict[str, str] | None = None):
        self.engine = engine
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", engine],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        """End the process; one that does not end by itself is killed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have the worker run command `do` and return its answer. Raises WorkerError."""
        self.tell(do, **arguments)
        return self.hear()

    def tell(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `hear` says how it ended

    def hear(self) -> Any:
        import select

        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.process.kill()
            raise WorkerError(f"{self.engine}: no answer in {PATIENCE} s")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.engine}: the process ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.engine}: {answer['error']}")
        return answer["result"]


class Commands:
    """The worker's side: every public method is a command."""

    def __init__(self, name: str):
        from bench import engines

        self._engines = engines
        began = time.perf_counter()
        self._engine = engines.open_engine(name)
        self._import_s = time.perf_counter() - began
        self._run: Any = None
        self._queue: Any = None
        self._calls: dict[str, Any] = {}

    def load(
        self, paths: dict[str, str], inputs: str, threads: int, cache: str | None = None
    ) -> dict[str, float]:
        """Compile a model and run it once on the arrays of the file `inputs` (.npz). Returns the times."""
        import numpy as np

        with np.load(inputs, allow_pickle=False) as arrays:
            self._inputs = [arrays[k] for k in arrays.files]
        began = time.perf_counter()
        self._engine.load(paths, threads, cache)
        compiled = time.perf_counter()
        self._run = self._engine.give(self._inputs)
        self._run()
        return {
            "import_s": self._import_s,
            "compile_s": compiled - began,
            "first_ms": 1e3 * (time.perf_counter() - compiled),
        }

    def run(self, seconds: float, least: int = 5, warm: int = 2) -> list[int]:
        """Infer for `seconds`, at least `least` times, after `warm` uncounted times. Nanoseconds of each."""
        run, clock = self._run, time.perf_counter_ns
        for _ in range(warm):
            run()
        times: list[int] = []
        end = clock() + int(seconds * 1e9)
        now = clock()
        while now < end or len(times) < least:
            run()
            now, before = clock(), now
            times.append(now - before)
        return times

    def load_queue(self, paths: dict[str, str], inputs: str, threads: int) -> dict[str, Any]:
        """Compile a model for `run_queue`. Returns the numbers of streams and jobs, and a job's memory."""
        import numpy as np

        from bench.throughput import Queue

        with np.load(inputs, allow_pickle=False) as arrays:
            self._queue = Queue(self._engine, paths, [arrays[k] for k in arrays.files], threads)
        return self._queue.told

    def run_queue(self, seconds: float) -> list[float]:
        """Keep the queue full for `seconds`: nanoseconds for one inference."""
        return [self._queue.run(seconds)]

    def answers(self, file: str) -> None:
        """Write the outputs of the last inference to `file` (.npz)."""
        import numpy as np

        np.savez(file, *self._engine.results())

    def profile(self, paths: dict[str, str], threads: int) -> dict[str, Any]:
        return self._engine.profile(paths, threads, self._inputs)

    def least_ms(self, paths: dict[str, str], threads: int) -> float:
        return self._engine.least_ms(paths, threads, self._inputs)

    def memory(self) -> float:
        return self._engines.peak_memory()

    def version(self) -> str:
        return self._engine.version

    def prepare_calls(
        self, paths: dict[str, str], inputs: str, config: dict[str, Any], jobs: int
    ) -> list[str]:
        """Compile a model for `calls`. Returns the kinds of calls there are."""
        import numpy as np

        from bench.call_kinds import make_calls

        with np.load(inputs, allow_pickle=False) as arrays:
            given = [arrays[k] for k in arrays.files]
        compiled = self._engine.core.compile_model(paths["xml"], "CPU", {**config, **self._engine.hints})
        self._calls = make_calls(self._engine.module, compiled, given, jobs)
        return list(self._calls)

    def calls(self, kind: str, seconds: float, least: int = 20, pause: float = 0) -> list[float]:
        """Time calls of one kind for `seconds`: nanoseconds per item of each call. This thread sleeps for
        `pause` seconds before each."""
        call, items = self._calls[kind]
        clock = time.perf_counter_ns
        for _ in range(3):
            call()
        times: list[float] = []
        end = clock() + int(seconds * 1e9)
        now = clock()
        while now < end or len(times) < least:
            if pause:
                time.sleep(pause)
                now = clock()
            call()
            now, before = clock(), now
            times.append((now - before) / items)
        return times


def main() -> int:
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        try:
            if commands is None:
                commands = Commands(sys.argv[1])
            answer = {"result": getattr(commands, do)(**request)}
        except Exception as error:
            text = str(error).strip()
            answer = {"error": f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
