"""Say a thing once per process, in the log `ovjit`, however often it happens."""

from __future__ import annotations

from ovjit import logs

_said: set[str] = set()


def warn_once(topic: str, message: str) -> None:
    """Log `message` as a warning unless `topic` has been warned of in this process."""
    if topic in _said:
        return
    _said.add(topic)
    logs.warning("%s", message)
