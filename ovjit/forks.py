"""What a fork must not catch half done: locks of single objects, and imports.

A thread of the parent may hold a lock at the moment of a fork, and the child does not have that thread.
Locks of single objects are too many to be waited for before a fork, and some are held while a model compiles;
so the child gets them anew. What such a lock guards must be made first and then stored in one stroke: the
child then has all of it or nothing.

A module that another thread is importing would for ever be half there in the child, and whoever imports it
would wait for that thread. Imports of ours are late and take milliseconds, so a fork waits for them.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# `import ovjit` imports this module, so that it registers first: threads and weak references come with locks


class ForkLock:
    """Holds a reentrant lock that nobody has in a forked child: `with fork_lock.lock: ...`.

    It is no context manager itself: Ctrl-C may come at the end of a Python function that has taken a lock,
    and nobody would let go of it. Between CPython's own lock and the body of a `with` it cannot.
    """

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        import threading
        import weakref

        self.lock = threading.RLock()
        _kept.setdefault("locks", weakref.WeakSet()).add(self)


class made_once:
    """A property that is computed when it is first asked for: `functools.cached_property` without the lock
    that it has up to Python 3.11, one for all objects, which a forked child may find taken for ever.
    Two threads that ask at once may both compute it."""

    def __init__(self, make: Callable[[Any], Any]):
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._make(instance)
        return value


#: "locks": a WeakSet of all that there are, once there is one.
_kept: dict[str, Any] = {}


def _after_fork() -> None:
    for holder in list(_kept.get("locks", ())):
        # the thread that forked goes on with those it holds itself
        if not holder.lock._is_owned():
            holder.lock = type(holder.lock)()


#: Whose imports a fork waits for. A user's own may wait for a lock that is held over the fork.
_OURS = ("ovjit", "ovjit_ops", "numba", "llvmlite", "numpy", "ml_dtypes", "onnx")


#: Modules that hold a lock over a fork: a name that they have once they have said so, and the lock's.
_HOLDING = {
    "logging": ("LogRecord", "_lock"),
    "concurrent.futures.thread": ("_WorkItem", "_global_shutdown_lock"),
}


#: (what takes locks that are held over a fork, what lets go of them), of modules that register after this
#: one and so have taken them already. The modules that are imported may want them: Numba's call LLVM.
lending: list[tuple[Callable[[], None], Callable[[], None]]] = []


def _before_fork() -> None:
    """Wait for imports. Modules that are imported ask for loggers, and `logging`, when it was imported after
    this module, holds its lock over a fork and has taken it already: it is lent to them meanwhile. A module
    with such a lock that is imported only now is told of the end of this fork, not of its beginning: its
    lock is taken for it."""
    told, mine = _holding(), _mine()
    for _ in range(8):  # one import leads to the next
        going_on = _going_on(mine)
        if not going_on:
            break
        lock = getattr(sys.modules.get("logging"), "_lock", None)
        lent = lock if lock is not None and lock._is_owned() else None
        if lent is not None:
            lent.release()
        for _, let_go in lending:
            let_go()
        try:
            _wait_for(going_on)
        finally:
            for take, _ in lending:
                take()
            if lent is not None:  # the last one, as before: who compiles may say so
                lent.acquire()
    for name in _holding() - told:
        getattr(sys.modules[name], _HOLDING[name][1]).acquire()


def _holding() -> set[str]:
    return {name for name, (mark, _) in _HOLDING.items() if hasattr(sys.modules.get(name), mark)}


def _going_on(mine: set[str]) -> list[str]:
    """Modules that other threads are importing."""
    return [
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in _OURS
        and getattr(getattr(module, "__spec__", None), "_initializing", False)
        and name not in mine
    ]


def _wait_for(names: list[str]) -> None:
    from importlib import import_module

    for name in names:
        try:
            import_module(name)  # returns when the other thread is done
        except Exception:
            pass  # that thread will hear of it


def _mine() -> set[str]:
    """The modules that this very thread is importing."""
    names = set()
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            names.add(frame.f_globals.get("__name__", ""))
        frame = frame.f_back  # type: ignore[assignment]
    return names


if hasattr(os, "register_at_fork"):
    # registered before all others of ovjit, and so called last, when their locks are held
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
