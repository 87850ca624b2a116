"""The logger `ovjit`, for modules that are imported by every process: `logging` takes milliseconds to import.

If `logging` was never imported, its level is still WARNING, so lower levels are dropped.
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

    getattr(logging.getLogger("ovjit"), level)(message, *args, stacklevel=3, **options)
