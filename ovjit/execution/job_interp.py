"""Provisional engine: the Executable/Job interface over the NumPy interpreter, with one Python worker thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ovjit.errors import Cancelled, InferenceError
from ovjit.graph import dtypes, shapes
from ovjit.graph.graph import Graph
from ovjit.graph.interp import evaluate

_tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_worker: threading.Thread | None = None
_worker_lock = threading.Lock()


def _submit(task: Callable[[], None]) -> None:
    global _worker
    with _worker_lock:
        if _worker is None or not _worker.is_alive():
            _worker = threading.Thread(target=_work, name="ovjit-worker", daemon=True)
            _worker.start()
    _tasks.put(task)


def _work() -> None:
    while True:
        task = _tasks.get()
        task()
        del task


class Row(NamedTuple):
    """One row of a profile."""

    name: str
    node_type: str
    exec_type: str
    status: str
    real_ns: int
    cpu_ns: int


class Executable:
    """A graph that is ready to run."""

    def __init__(self, graph: Graph, config: dict[str, Any]):
        self.graph = graph
        self.config = config

    def new_job(self) -> Job:
        return Job(self)


class Job:
    """One inference at a time on its own inputs and outputs."""

    def __init__(self, executable: Executable):
        self.executable = executable
        graph = executable.graph
        self.inputs: list[np.ndarray | None] = [None] * len(graph.inputs)
        self.outputs: list[np.ndarray] = [
            np.zeros([shapes.bounds(d)[0] if isinstance(d, int) else 0 for d in v.shape], dtypes.numpy_dtype(v.dtype))
            for v in graph.outputs
        ]
        self._targets: list[np.ndarray | None] = [None] * len(graph.outputs)
        self.on_done: Callable[[Job], None] | None = None
        self.error: BaseException | None = None
        self.latency_ns = 0
        self.busy = False
        self._rows: list[Row] = []
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._running = 0  # starts whose on_done has not returned
        self._cancelled = False

    def set_input(self, i: int, array: np.ndarray) -> None:
        self.inputs[i] = array

    def set_output(self, i: int, array: np.ndarray | None) -> None:
        self._targets[i] = array
        if array is not None:
            self.outputs[i] = array
        else:
            self.outputs[i] = self.outputs[i].copy()

    def run(self) -> None:
        self._cancelled = False
        self._execute()
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def start(self, notify: bool) -> None:
        with self._lock:
            self._running += 1
            self.busy = True
            self.error = None
            self._cancelled = False
        _submit(lambda: self._run_async(notify))

    def _run_async(self, notify: bool) -> None:
        self._execute()
        self.busy = False
        if notify and self.on_done is not None:
            self.on_done(self)
        with self._lock:
            self._running -= 1
            self._idle.notify_all()

    def wait(self, timeout_ms: int | None = None) -> bool:
        with self._lock:
            done = self._idle.wait_for(
                lambda: self._running == 0, None if timeout_ms is None else timeout_ms / 1000
            )
        if done and self.error is not None:
            error, self.error = self.error, None
            raise error
        return done

    def cancel(self) -> None:
        if self.busy:
            self._cancelled = True

    def profile(self) -> list[Row]:
        if self._rows:
            return list(self._rows)
        return [Row(n.name, n.op.name, "ref", "NOT_RUN", 0, 0) for n in self.executable.graph.nodes]

    def _execute(self) -> None:
        start = last = time.perf_counter_ns()
        rows: list[Row] = []

        def observe(node: Any, outputs: Any) -> None:
            nonlocal last
            if self._cancelled:
                raise Cancelled("the inference was cancelled")
            now = time.perf_counter_ns()
            rows.append(Row(node.name, node.op.name, "ref", "EXECUTED", now - last, now - last))
            last = now

        try:
            graph = self.executable.graph
            results = evaluate(graph, [a for a in self.inputs if a is not None], observe)
            if self._cancelled:
                raise Cancelled("the inference was cancelled")
            for i, result in enumerate(results):
                own = self.outputs[i]
                if own.shape == result.shape and own.dtype == result.dtype:
                    own[...] = result
                elif self._targets[i] is not None:
                    raise InferenceError(f"output {i} has the shape {list(result.shape)}, not {list(own.shape)}")
                else:
                    self.outputs[i] = np.array(result, order="C")
            self.error = None
        except BaseException as error:
            self.error = error
        if self.executable.config.get("PERF_COUNT"):
            self._rows = rows
        self.latency_ns = time.perf_counter_ns() - start
