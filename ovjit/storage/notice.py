"""Say a thing once per process, in the log `ovjit`, however often it happens."""

from __future__ import annotations

_said: set[str] = set()


def warn_once(topic: str, message: str) -> None:
    """Log `message` as a warning unless `topic` has been warned of in this process."""
    if topic in _said:
        return
    _said.add(topic)
    import logging  # milliseconds that a process without trouble does not pay

    logging.getLogger("ovjit").warning("%s", message)
