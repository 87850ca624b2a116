"""Locks and imports that a fork must not interrupt.

At a fork, another thread of the parent may hold a lock, and the child does not have that thread. Locks of
single objects are too many to wait for: the child gets new ones. So the data under such a lock must be
complete before they are stored by one assignment; the child then has either all of them or none. A few locks
guard work that cannot be replaced (`locks.ORDER` marks them). They are held during a fork, as are those of
Numba and llvmlite.

One handler takes all of these locks in one order, independent of the order of imports. A module that another
thread is importing would stay incomplete in the child. So a fork waits for imports of ovjit, without holding
a lock. It checks again once it has the locks, and starts over if another import has begun.

Other packages hold locks during a fork, too. Handlers are called in the reverse order of registration, so
those of modules that were imported after ovjit have taken their locks by now. The threads that this handler
waits for may need `logging`'s lock. It is released until all of ovjit's locks are taken, so that it comes
after them in every thread.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# `import ovjit` imports this module, so that it registers first: threads and weak references come with locks


class ForkLock:
    """Holds a reentrant lock that is free in a forked child: `with fork_lock.lock: ...`. `name`: its kind in
    `locks.ORDER`.

    It is no context manager itself. Ctrl-C may come at the end of a Python function that has taken a lock,
    and the lock would never be released. Between CPython's own lock and the body of a `with` it cannot.
    """

    __slots__ = ("__weakref__", "_name", "lock")

    def __init__(self, name: str) -> None:
        import weakref

        from ovjit import locks

        self._name = name
        self.lock = locks.rlock(name)
        _registry.setdefault("locks", weakref.WeakSet()).add(self)

    def _renew(self) -> None:
        from ovjit import locks

        # the thread that forked goes on with those it holds itself
        if not self.lock._is_owned():
            self.lock = locks.rlock(self._name)


class made_once:
    """A property that is computed at its first use. It is `functools.cached_property` without the lock that
    Python up to 3.11 has for all objects, which a forked child may find locked for ever. Two threads may both
    compute it; both get the value that was stored first."""

    def __init__(self, make: Callable[[Any], Any]):
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        return instance.__dict__.setdefault(self._name, self._make(instance))


def members(weak_set: Any) -> list[Any]:
    """The members of a WeakSet. Other threads may add to it at the same time, which would break an iteration
    over it."""
    return [member for reference in weak_set.data.copy() if (member := reference()) is not None]


#: "locks": a WeakSet of all locks, once the first exists.
_registry: dict[str, Any] = {}

#: Thread -> the locks that its fork has taken. Written before they are taken: Ctrl-C may come between.
_locks_by_thread: dict[int, list[Any]] = {}

#: Whose imports a fork waits for. A user's own may wait for a lock that is held over the fork.
_OURS = ("ovjit", "ovjit_ops", "numba", "llvmlite", "numpy", "ml_dtypes", "onnx")

#: Modules of the standard library that hold a lock over a fork, once their import has registered it, with its
#: place. A fork waits for their imports, too. A module that sees the end of a fork but not its begin would
#: release an untaken lock.
_HOLDING = {"logging": "_lock", "concurrent.futures.thread": "_global_shutdown_lock"}

#: Locks of other packages that come after ours, in this order: (module, path to the lock). Finalizers call
#: LLVM from any thread.
_FOREIGN = (
    ("numba.core.compiler_lock", "global_compiler_lock._lock"), ("llvmlite.binding.ffi", "lib._lock._lock"),
)  # fmt: skip

#: How often a fork begins anew because imports begin while it waits.
_ATTEMPTS = 100


def _before_fork() -> None:
    import _thread

    mine = _mine()
    notified = {name for name in _HOLDING if name not in _EARLIER and _is_taken(name)}
    logging: Any = None
    if not {"logging"} & (_EARLIER | mine):
        # imported now, it cannot come while we wait and let go of what it was not asked to take; the thread
        # that imports it needs the lock, which its handler may have taken for this fork already
        depth = _lend(getattr(sys.modules.get("logging"), "_lock", None))
        _wait_for(["logging"])
        logging = getattr(sys.modules.get("logging"), "_lock", None)
        for _ in range(max(depth, 1) if logging is not None else 0):
            logging.acquire()
        notified.add("logging")
    locks = _locks_by_thread[_thread.get_ident()] = []
    lent = 0
    try:
        lent = _lend(logging)
        for _ in range(_ATTEMPTS):  # one import leads to the next
            if going_on := _going_on(mine):
                _wait_for(going_on)
                continue
            _take(locks)
            if not _going_on(mine):
                break
            _let_go(locks)
        else:
            _take(locks)
    finally:
        for _ in range(lent):
            logging.acquire()
    for name in _HOLDING.keys() - notified - _EARLIER:
        module = sys.modules.get(name)
        if module is not None and not _is_coming(module):  # it came while we waited, and will let go of it
            getattr(module, _HOLDING[name]).acquire(blocking=False)


def _lend(lock: Any) -> int:
    """Release an RLock that this thread may own. Returns how often it was acquired."""
    count = 0
    while lock is not None and lock._is_owned():
        lock.release()
        count += 1
    return count


def _take(locks: list[Any]) -> None:
    """Take all locks that are held during a fork, except those that this thread holds already."""
    # a module that this thread is importing itself has made no locks yet
    in_order = getattr(sys.modules.get("ovjit.locks"), "in_order", tuple)
    for lock in [*in_order(), *filter(None, map(_find_lock, _FOREIGN))]:
        if not lock._is_owned():
            locks.append(lock)
            lock.acquire()


def _let_go(locks: list[Any]) -> None:
    while locks:
        lock = locks.pop()
        if lock._is_owned():
            lock.release()


def _find_lock(path: tuple[str, str]) -> Any:
    value: Any = sys.modules.get(path[0])
    for name in path[1].split("."):
        value = getattr(value, name, None)
    return value if hasattr(value, "_is_owned") else None


def _after_fork() -> None:
    import _thread

    _let_go(_locks_by_thread.pop(_thread.get_ident(), []))


def _after_fork_in_child() -> None:
    _after_fork()
    _locks_by_thread.clear()
    for holder in list(_registry.get("locks", ())):
        holder._renew()
    _forget_imports()


def _is_taken(name: str) -> bool:
    """Whether the lock of a module in _HOLDING is taken, which means that its handler was called."""
    lock = getattr(sys.modules.get(name), _HOLDING[name], None)
    if lock is None:
        return False
    is_owned: bool = lock._is_owned() if hasattr(lock, "_is_owned") else lock.locked()
    return is_owned


def _going_on(mine: set[str]) -> list[str]:
    """Modules that other threads are importing."""
    return [
        name for name, module in sys.modules.copy().items()
        if (name.partition(".")[0] in _OURS or name in _HOLDING) and _is_coming(module) and name not in mine
    ]  # fmt: skip


def _is_coming(module: Any) -> bool:
    """Whether a thread is importing this module."""
    coming: bool = getattr(getattr(module, "__spec__", None), "_initializing", False)
    return coming


def _wait_for(names: list[str]) -> None:
    from importlib import import_module

    for name in names:
        try:
            result = import_module(name)  # returns when the other thread is done
        except Exception:
            continue  # that thread will hear of it
        for _ in range(_ATTEMPTS):  # or where imports wait for each other, which end all the same
            if not _is_coming(result):
                break
            time.sleep(0.001)


def _mine() -> set[str]:
    """The modules that this thread is importing."""
    names = set()
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            names.add(frame.f_globals.get("__name__", ""))
        frame = frame.f_back  # type: ignore[assignment]
    return names


def _forget_imports() -> None:
    """In a child: forget modules that a thread of the parent was importing, so that they are imported again.
    Their own locks, which that thread holds for ever, are CPython's. If these do not look as expected,
    nothing is done."""
    import _thread
    from importlib import _bootstrap

    me, mine = _thread.get_ident(), _mine()
    module_locks = getattr(_bootstrap, "_module_locks", {})
    for name, reference in list(module_locks.items()):
        owner = getattr(reference(), "owner", None)
        if owner is None or owner == me:
            continue
        module_locks.pop(name, None)
        if _is_coming(sys.modules.get(name)):
            # a package anew has none of its modules as attributes but those that are imported anew
            for part in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                if part not in mine:
                    del sys.modules[part]


if hasattr(os, "register_at_fork"):
    #: Those of _HOLDING that are called after us before a fork, and take their locks themselves.
    _wait_for([name for name in _HOLDING if name in sys.modules])
    _EARLIER = {name for name in _HOLDING if name in sys.modules}
    # registered before all others of ovjit, and so called last, and first when the fork is over
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
