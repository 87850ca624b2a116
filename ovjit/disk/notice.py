"""Say a thing once per process, in the log `ovjit`, however often it happens."""

from __future__ import annotations

from ovjit import logs

#: topic -> what the thread that was first put there
_topics: dict[str, object] = {}


def warn_once(topic: str, message: str) -> None:
    """Log `message` as a warning unless `topic` has been warned of in this process."""
    mine = object()
    if _topics.setdefault(topic, mine) is mine:
        logs.warning("%s", message)


def raise_time_limit(error: BaseException) -> None:
    """Raise a TimeoutError of a signal's handler again, where other errors count as failed accesses to a
    file. Those of the operating system have a number."""
    if isinstance(error, TimeoutError) and error.errno is None:
        raise error
