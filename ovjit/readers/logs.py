"""Records that other packages log while they convert."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def drop_records(loggers: tuple[str, ...], drops: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Context manager in which loggers drop records for which `drops` holds. Those of other threads stay."""
    caller = threading.get_ident()

    def keeps(record: logging.LogRecord) -> bool:
        return threading.get_ident() != caller or not drops(record)

    filtered = [logging.getLogger(name) for name in loggers]
    for logger in filtered:
        logger.addFilter(keeps)
    try:
        yield
    finally:
        for logger in filtered:
            logger.removeFilter(keeps)
