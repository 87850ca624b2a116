"""A model in a server: loads a folder or file, names inputs and outputs, and runs requests on threads.

In: arrays by name, from any number of threads or from an event loop. Out: a future of the outputs by name for
each request. Threads take requests from one line. Each of them has an InferRequest, and so has each session
of a model with state (`Sessions`). Every future is completed: with outputs, an `InvalidRequest`, or the error
of the inference.

A signal handler may raise an exception on the main thread, at any bytecode. `submit` raises it, whether the
request is in line already or not. Other requests get their own outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

import numpy as np

from ovjit.errors import ModelError, OvjitError
from ovjit.integrations.protocol import Port, check_inputs, output_indices, ports, to_protocol
from ovjit.integrations.sessions import BY_REQUEST, BY_SESSION, Open, Session, Sessions, Work, check_session
from ovjit.records import NamedTuple

#: Suffixes of models. If there are several files of a name, the first suffix is used.
SUFFIXES = (".blob", ".xml", ".onnx")
_Settle = Callable[[Any, "BaseException | None"], None]


class Answer(NamedTuple):
    """`outputs` by name; `waited` and `ran`: seconds in line, and of the inference."""

    outputs: dict[str, np.ndarray]
    waited: float
    ran: float


def find_model(location: str | Path, version: str | None = None) -> Path:
    """The model file at `place`: this file, or the one in this folder or in its folder `version` (by default
    the highest number). Raises ModelError, with the folder's content, if there is not exactly one."""
    path = Path(location)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(f"the model {str(path)!r} does not exist")
    if version and (path / version).is_dir():
        path = path / version
    elif not _candidates(path):
        numbered = [p for p in path.iterdir() if p.is_dir() and p.name.isdecimal()]
        if numbered and not version:
            path = max(numbered, key=lambda p: int(p.name))
    files = _candidates(path)
    stems = {p.stem for p in files}
    if len(stems) > 1 and "model" in stems:
        files = [p for p in files if p.stem == "model"]
        stems = {"model"}
    if len(stems) != 1:
        names = ", ".join(sorted(p.name for p in files)) or "no .blob, .xml or .onnx file"
        raise ModelError(
            f"{str(path)!r} should hold one model, but it holds {names}: give the path of the file"
        )
    return min(files, key=lambda p: SUFFIXES.index(p.suffix.lower()))


def _candidates(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES]


class _Item:
    """A request: its inputs, the indices of the requested outputs, and the function that receives these or an
    error, from any thread. Of several outcomes the first counts."""

    __slots__ = ("arrays", "end", "output_indices", "submitted")

    def __init__(self, arrays: list[np.ndarray], output_indices: list[int], end: _Settle):
        self.arrays, self.output_indices, self.end = arrays, output_indices, end
        self.submitted = time.perf_counter()


def _settle_future(
    answer: Future[Answer] | asyncio.Future[Answer], result: Answer | None, error: BaseException | None
) -> None:
    """Complete a future of either kind with its answer or the error."""
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(cast(Answer, result))


class ServedModel:
    """A compiled model that runs `jobs` requests at once (0: the model's optimal number).

    `batches`: the server concatenates requests along the first dimension, so a first dimension of 1 is made
    dynamic. `ov`: the module with OpenVINO's API, by default ovjit. Thread-safe. It must be closed (`close`).

    `state`: whose the values of a model's variables are. "sessions": of the session that a request names (its
    `Session`); at most `sessions` exist, and one ends if it is idle for `session_seconds`. "request": of one
    request, at whose begin they are reset. By default a model with variables is refused.
    """

    def __init__(
        self,
        model: str | Path,
        config: Mapping[str, Any] | None = None,
        jobs: int = 0,
        batches: bool = False,
        version: str | None = None,
        ov: Any = None,
        state: str | None = None,
        sessions: int = 64,
        session_seconds: float = 600.0,
    ):
        _check_state(state, sessions, session_seconds)
        if ov is None:
            import ovjit as ov
        self.path = find_model(model, version)
        settings = {"PERFORMANCE_HINT": "THROUGHPUT", **(config or {})}
        core = ov.Core()
        if self.path.suffix.lower() == ".blob":
            self.compiled = core.import_model(self.path.read_bytes(), "CPU", dict(config or {}))
        else:
            read = core.read_model(str(self.path))
            if batches:
                _open_batch(ov, read)
            self.compiled = core.compile_model(read, "CPU", settings)
        variables = [one.name for one in self.compiled.create_infer_request().query_state()]
        #: Whose the values of variables are; None for models without.
        self.state = _state_of(self.path, variables, state, batches)
        self.inputs: list[Port] = ports(self.compiled.inputs, "input")
        self.outputs: list[Port] = ports(self.compiled.outputs, "output")
        if batches:
            _check_batches(self.path, self.inputs, self.outputs)
        self._closed = False
        self._sessions: Sessions | None = None
        self.jobs = jobs or int(self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        try:
            self._start()
            if self.state == BY_SESSION:
                self._sessions = Sessions(self._line, sessions, session_seconds)
        except RuntimeError as error:
            self.close()
            raise OvjitError(
                f"no thread can be started to serve the model {self.path.name}: {error}; raise the "
                "limit of this user's processes and threads (ulimit -u, pids.max)"
            ) from error

    def submit(
        self,
        arrays: Mapping[str, np.ndarray],
        output_names: Sequence[str] | None = None,
        session: Session | None = None,
    ) -> Future[Answer]:
        """Run the model on inputs by name. Returns a future of the outputs in `output_names`, all by default.
        `session`: that of a model with state. Raises InvalidRequest at once if the inputs do not fit.
        The arrays are not copied, so they must not be changed until the future is done."""
        answer: Future[Answer] = Future()

        def settle(result: Answer | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if answer.running() or answer.set_running_or_notify_cancel():
                with contextlib.suppress(InvalidStateError):
                    _settle_future(answer, result, error)

        self._enter(_Item(*self.check(arrays, output_names, session), settle), session)
        return answer

    def _enter(self, item: _Item, session: Session | None) -> None:
        """Put a request in line."""
        if self._closed:
            raise OvjitError(f"the model {self.path.name} has been unloaded")
        if self._sessions is not None:
            assert session is not None  # `check` has refused the others
            self._sessions.submit(item, session)
            return
        if self._process != os.getpid():  # a forked child, which has none of the threads
            self._start()
        self._line.put((None, item, self.state is not None))
        if self._closed:
            self._finish()  # it may have come after the end of the line

    def check(
        self,
        arrays: Mapping[str, np.ndarray],
        output_names: Sequence[str] | None = None,
        session: Session | None = None,
    ) -> tuple[list[np.ndarray], list[int]]:
        """The inputs in the model's order, and the indices of the wanted outputs. Raises InvalidRequest as
        `submit` does."""
        if self.state is not None:
            check_session(self.state, session)
        return check_inputs(arrays, self.inputs), output_indices(output_names, self.outputs)

    async def infer(
        self,
        arrays: Mapping[str, np.ndarray],
        output_names: Sequence[str] | None = None,
        session: Session | None = None,
    ) -> Answer:
        """`submit` for an event loop."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()

        def deliver(result: Answer | None, error: BaseException | None) -> None:
            if not answer.done():  # it may have been cancelled
                _settle_future(answer, result, error)

        def settle(result: Answer | None, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller is waiting
                loop.call_soon_threadsafe(deliver, result, error)

        self._enter(_Item(*self.check(arrays, output_names, session), settle), session)
        return await answer

    def __call__(
        self,
        arrays: Mapping[str, np.ndarray],
        output_names: Sequence[str] | None = None,
        session: Session | None = None,
    ) -> dict[str, np.ndarray]:
        """Run the model and wait."""
        return self.submit(arrays, output_names, session).result().outputs

    def close(self) -> None:
        """Finish the submitted requests, then end. Later submissions raise OvjitError."""
        self._closed = True
        if self._sessions is not None:
            self._sessions.close()
        for _ in self._threads:
            self._line.put(None)
        self._finish()

    # -- the threads that compute

    def _start(self) -> None:
        """Begin a line, and start the threads that take from it."""
        self._process = os.getpid()
        self._line: SimpleQueue[Work | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(self._line,), name=f"ovjit-serving-{i}", daemon=True)
            for i in range(self.jobs)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, line: SimpleQueue[Work | None]) -> None:
        sessionless = Open(0)  # has the InferRequest for items without a session
        while (work := line.get()) is not None:
            self._run(sessionless, *work)
            del work

    def _run(self, sessionless: Open, session: Open | None, item: _Item, resets: bool) -> None:
        owner = session or sessionless
        try:
            request = owner.request = owner.request or self.compiled.create_infer_request()
            if resets:
                request.reset_state()
            self._compute(request, item)
            if resets and session is None:
                request.reset_state()  # nothing of a client stays
        except BaseException as raised:
            is_error = isinstance(raised, Exception)
            item.end(None, raised if is_error else OvjitError(f"the inference was interrupted: {raised!r}"))
        if session is not None and self._sessions is not None:
            self._sessions.end_turn(session)

    def _compute(self, request: Any, item: _Item) -> None:
        """Run an item on an InferRequest, and give it the outputs."""
        started = time.perf_counter()
        request.infer(item.arrays, share_inputs=True, share_outputs=True)
        ended = time.perf_counter()
        outputs = {}
        for i in item.output_indices:
            tensor, port = request.get_output_tensor(i), self.outputs[i]
            values = tensor.bytes_data if port.datatype == "BYTES" else np.array(tensor.data)
            outputs[port.name] = to_protocol(values, port)
        item.end(Answer(outputs, started - item.submitted, ended - started), None)

    def _finish(self) -> None:
        """Wait until the threads have ended. Requests that came after the end of the line are refused."""
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join()
        with contextlib.suppress(Empty):
            while True:
                work = self._line.get(block=False)
                if work is not None:
                    work[1].end(None, OvjitError(f"the model {self.path.name} has been unloaded"))
        self._line.put(None)  # one of the threads may be the caller, in a future's callback


def _check_state(state: str | None, sessions: int, seconds: float) -> None:
    """Raise OvjitError for settings of sessions that mean nothing."""
    if state not in (None, BY_SESSION, BY_REQUEST):
        raise OvjitError(f"the state should be {BY_SESSION!r} or {BY_REQUEST!r}, not {state!r}")
    if isinstance(sessions, bool) or not isinstance(sessions, int) or sessions < 1:
        raise OvjitError(f"the number of sessions should be a positive integer, not {sessions!r}")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e9:
        raise OvjitError(f"session_seconds should be a positive number, not {seconds!r}")


def _state_of(path: Path, variables: Sequence[str], state: str | None, batches: bool) -> str | None:
    """The scope of the values of these variables, "request" or "session" as `state` says. None without
    variables. Raises ModelError if clients would read the values of other clients."""
    if not variables:
        return None
    names = ", ".join(repr(name) for name in variables[:4]) + (", ..." if len(variables) > 4 else "")
    if state is None:
        raise ModelError(
            f"{path.name} has state (variables {names}), which would go from one client to the next: serve "
            f"it with the state {BY_SESSION!r}, where each sequence_id has values of its own, or with "
            f"{BY_REQUEST!r}, where they are reset at the begin of each request"
        )
    if batches:
        raise ModelError(
            f"{path.name} has state (variables {names}), and rows of a batch would share it: disable batching"
        )
    return state


def _open_batch(ov: Any, model: Any) -> None:
    """Make the first dimension of inputs dynamic if it is 1."""
    shapes = {}
    for port in model.inputs:
        partial = port.get_partial_shape()
        if partial.rank.is_dynamic or len(partial) == 0:
            continue
        if partial[0].is_static and partial[0].get_length() == 1:
            shapes[port] = ov.PartialShape([ov.Dimension(), *list(partial)[1:]])
    if shapes:
        try:
            model.reshape(shapes)
        except RuntimeError as error:
            raise ModelError(
                f"the model's first dimension cannot be made dynamic for batching: {error}"
            ) from error


def _check_batches(path: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Raise ModelError unless requests can be concatenated along the first dimension, and outputs split along
    it."""
    for what, ports_of_side in (("input", inputs), ("output", outputs)):
        for port in ports_of_side:
            if not port.shape or port.shape[0] != -1:
                raise ModelError(
                    f"batching needs a dynamic first dimension, but {what} {port.name!r} of {path.name} "
                    f"has the shape {port.partial}: reshape the model, or disable batching"
                )
            if what == "input" and -1 in port.shape[1:]:
                raise ModelError(
                    "batching needs requests that differ only in the first dimension, but input "
                    f"{port.name!r} of {path.name} has the shape {port.partial}: reshape the model, or "
                    "disable batching"
                )
