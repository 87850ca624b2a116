"""The logger `ovjit`, for modules that are imported by every process: `logging` takes milliseconds to import.

It has a level of its own, WARNING unless a program sets another: a root logger at INFO is about the program's
lines. If `logging` was never imported, lower levels are dropped.
"""

from __future__ import annotations

import sys
from typing import Any


def debug(message: str, *args: Any, **options: Any) -> None:
    if "logging" in sys.modules:
        _say("debug", message, *args, **options)


def info(message: str, *args: Any, **options: Any) -> None:
    if "logging" in sys.modules:
        _say("info", message, *args, **options)


def warning(message: str, *args: Any, **options: Any) -> None:
    _say("warning", message, *args, **options)


def _say(level: str, message: str, *args: Any, **options: Any) -> None:
    import logging

    logger = logging.getLogger("ovjit")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
    getattr(logger, level)(message, *args, stacklevel=3, **options)
