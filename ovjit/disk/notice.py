"""Say a thing once per process, in the log `ovjit`, however often it happens."""

from __future__ import annotations

from ovjit import logs

#: topic -> what the thread that was first put there
_topics: dict[str, object] = {}


def warn_once(topic: str, message: str, error: BaseException | None = None) -> None:
    """Log `message` as a warning unless `topic` has been warned of in this process.

    `error`: what it is about. A TimeoutError of a signal's handler is raised again: it is not of a file.
    Those of the operating system have a number.
    """
    if isinstance(error, TimeoutError) and error.errno is None:
        raise error
    mine = object()
    if _topics.setdefault(topic, mine) is mine:
        logs.warning("%s", message)
