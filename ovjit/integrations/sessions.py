"""Models with state in a server, whose values of variables belong to sessions.

A session is a sequence of requests with one `sequence_id`, as in the protocol's sequence extension. It has an
InferRequest of its own, and thereby values of its own. Its requests run one after another, in the order in
which they came. Requests of different sessions run at the same time, and are never batched.

One thread (`_lead`) has all tables. Other threads put messages into its queue, which no exception of a
signal's handler can leave half changed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any

from ovjit.errors import OvjitError
from ovjit.integrations.limits import InvalidRequest, Overloaded, show
from ovjit.records import NamedTuple

#: Whose state a model's variables are: of a sequence of requests, or of each request.
BY_SESSION, BY_REQUEST = "sessions", "request"
#: Characters of a session's id.
_LONGEST_ID = 256


class Session(NamedTuple):
    """The session of a request: its id, and whether this is its first and its last request."""

    id: int | str
    start: bool = False
    end: bool = False


def sequence_of(parameters: Mapping[str, Any] | None) -> Session | None:
    """The session that a request's parameters `sequence_id`, `sequence_start` and `sequence_end` name. None
    without an id, which 0 and "" mean, too. Raises InvalidRequest."""
    values = parameters or {}
    identity = values.get("sequence_id")
    ends = {}
    for name in ("sequence_start", "sequence_end"):
        value = values.get(name)
        if value is not None and not isinstance(value, bool) and value not in (0, 1):
            raise InvalidRequest(f"{name} should be true or false, not {show(value)}")
        ends[name] = bool(value)
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, (int, str))):
        raise InvalidRequest(f"sequence_id should be an integer or a string, not {show(identity)}")
    if not identity:
        if any(ends.values()):
            raise InvalidRequest(
                "sequence_start and sequence_end need a sequence_id, which is not 0 or empty"
            )
        return None
    if isinstance(identity, int) and not 0 < identity < 1 << 64:
        raise InvalidRequest(f"sequence_id should be between 1 and 2^64 - 1, not {show(identity)}")
    if isinstance(identity, str) and len(identity) > _LONGEST_ID:
        raise InvalidRequest(f"sequence_id should have at most {_LONGEST_ID} characters")
    return Session(identity, ends["sequence_start"], ends["sequence_end"])


def check_session(state: str | None, named: Session | None) -> None:
    """Raise InvalidRequest unless a request for a model with this kind of `state` may name this session."""
    if state == BY_SESSION and named is None:
        raise InvalidRequest(
            "the model has state, so each request names its session: pass the parameters sequence_id, "
            "sequence_start (true in the first request) and sequence_end (true in the last one)"
        )
    if state == BY_REQUEST and named is not None:
        raise InvalidRequest(
            "this server resets the model's state for each request, so a request names no session: omit "
            "sequence_id, or serve the model with the state 'sessions'"
        )


class Open:
    """A session: its requests that have not begun, and its InferRequest once one has."""

    __slots__ = ("busy", "ending", "id", "request", "used", "waiting")

    def __init__(self, identity: int | str):
        self.id = identity
        self.waiting: deque[tuple[Any, Session]] = deque()
        self.request: Any = None
        self.busy = False
        self.ending = False
        self.used = 0.0


#: A session or None, a request, and whether the values of variables are reset before it.
Work = tuple[Open | None, Any, bool]


class Sessions:
    """Puts the requests of a model with state into the queue `requests`, one at a time of each session.

    At most `max_sessions` sessions exist at a time. One without a request for `idle_seconds` ends. The thread
    that has computed a request of a session calls `end_turn`.
    """

    def __init__(self, requests: SimpleQueue[Work | None], max_sessions: int, idle_seconds: float):
        self._requests = requests
        self._max_sessions, self._idle_seconds = max_sessions, idle_seconds
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        #: Sessions by id, the one that was used last at the end. Those that end are no longer here.
        self._sessions: OrderedDict[int | str, Open] = OrderedDict()
        self._live: set[Open] = set()  # sessions, also those that end
        self._thread = threading.Thread(target=self._lead, name="ovjit-sessions", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """The number of sessions."""
        return len(self._live)

    def submit(self, item: Any, named: Session) -> None:
        """Run an item of a session. Its `end` gets InvalidRequest if the session has not begun, or has ended,
        and Overloaded if there are too many sessions."""
        self._inbox.put((item, named))

    def end_turn(self, session: Open) -> None:
        """Allow the session's next item to run."""
        self._inbox.put(session)

    def close(self) -> None:
        """Wait until all that was submitted has run."""
        self._inbox.put(None)
        self._thread.join()

    # -- the thread that has the tables

    def _lead(self) -> None:
        closed = False
        while not closed or any(session.busy or session.waiting for session in self._live):
            try:
                message = self._inbox.get(timeout=self._until_idle())
            except Empty:
                message = ()
            if message is None:
                closed = True
            elif isinstance(message, Open):
                self._over(message)
            elif message:
                item, named = message
                try:
                    self._admit(item, named)
                except Exception as error:
                    item.end(None, error)
            self._drop_idle()
        self._sessions.clear()
        with contextlib.suppress(Empty):
            while True:  # what came while the model was unloaded
                message = self._inbox.get(block=False)
                if isinstance(message, tuple):
                    message[0].end(None, OvjitError("the model has been unloaded"))

    def _until_idle(self) -> float | None:
        """Seconds until the next session may be idle for too long. None without sessions."""
        oldest = next(iter(self._sessions.values()), None)
        if oldest is None:
            return None
        # a busy one is looked at again after `idle_seconds`
        return max(oldest.used + self._idle_seconds - time.monotonic(), 0.0) + 0.001

    def _drop_idle(self) -> None:
        """End the sessions that were idle for too long."""
        while self._sessions:
            session = next(iter(self._sessions.values()))
            if session.used + self._idle_seconds > time.monotonic():
                return
            if session.busy:
                self._touch(session)
                continue
            del self._sessions[session.id]
            self._live.remove(session)

    def _touch(self, session: Open) -> None:
        session.used = time.monotonic()
        if self._sessions.get(session.id) is session:
            self._sessions.move_to_end(session.id)

    def _admit(self, item: Any, named: Session) -> None:
        self._drop_idle()
        session = self._sessions.get(named.id)
        if session is None:
            if not named.start:
                raise InvalidRequest(
                    f"the session {show(named.id)} has not begun, has ended, or was idle for "
                    f"{self._idle_seconds:g} seconds: begin one with sequence_start"
                )
            if len(self._live) >= self._max_sessions:
                raise Overloaded(
                    f"{len(self._live)} sessions are open, the maximum of this server: retry later, and end "
                    "sessions with sequence_end"
                )
            session = self._sessions[named.id] = Open(named.id)
            self._live.add(session)
        session.waiting.append((item, named))
        self._touch(session)
        if named.end:
            session.ending = True
            del self._sessions[named.id]  # a later request with this id begins another session
        self._next(session)

    def _next(self, session: Open) -> None:
        """Put the session's next item into the queue, unless one is there or runs."""
        if session.waiting and not session.busy:
            session.busy = True
            item, named = session.waiting.popleft()
            self._requests.put((session, item, named.start))

    def _over(self, session: Open) -> None:
        session.busy = False
        self._touch(session)
        self._next(session)
        if session.ending and not session.busy:
            self._live.remove(session)
            session.request = None
