"""PyTorch's functions under others for as long as a module is recorded, and what is asked beside a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_ABSENT = object()


@contextlib.contextmanager
def patched(*rows: tuple[Any, str, Any]) -> Iterator[None]:
    """Give classes and modules other attributes, rows of (owner, name, value). They get back what they had,
    and lose what they did not have themselves."""
    before = []
    try:
        for owner, name, value in rows:
            before.append((owner, name, vars(owner).get(name, _ABSENT)))
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            if value is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """What is asked here does not become part of a trace; numbers are Python's."""
    import torch

    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)
