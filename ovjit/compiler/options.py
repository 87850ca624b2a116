"""What a compilation may do, for lowerings to ask: set while a program is being made."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple


class Options(NamedTuple):
    """`exact`: no algorithm that trades accuracy for speed (EXECUTION_MODE_HINT=ACCURACY)."""

    exact: bool = False


_DEFAULT = Options()
_current: contextvars.ContextVar[Options] = contextvars.ContextVar("ovjit_options", default=_DEFAULT)


def options() -> Options:
    """The options of the compilation under way."""
    return _current.get()


@contextlib.contextmanager
def compiling(chosen: Options) -> Iterator[None]:
    """Lowerings made inside see `chosen`."""
    token = _current.set(chosen)
    try:
        yield
    finally:
        _current.reset(token)
