"""All locks of ovjit, and the order in which a thread may take them.

`ORDER` declares every lock. A thread that holds one may only take locks that stand further down. A fork takes
those marked `forks`, in this order, so that no lock is held in the child by a thread that it does not have.
The locks of other packages that `forks.py` names come last.

If OVJIT_CHECK=1 when a lock is made, taking it out of order raises LockOrder. So does an import under a lock
marked `alone`: modules have locks, too, whose holders may be waiting for a fork.

`import ovjit` imports this module, so `threading` is imported with the first lock.
"""

from __future__ import annotations

import sys
from typing import Any

from ovjit import debug
from ovjit.errors import OvjitError
from ovjit.records import NamedTuple


class LockOrder(OvjitError):
    """A lock was taken out of order, so two threads may wait for each other for ever. Raised with
    OVJIT_CHECK=1."""


class Rank(NamedTuple):
    """A kind of lock: its name and what it guards. `forks`: held during a fork. `alone`: no import under it.
    `nests`: an object's lock may be taken under that of the object that owns it. `handed`: one thread takes
    it and another releases it, so it has no order."""

    name: str
    guards: str
    forks: bool = False
    alone: bool = False
    nests: bool = False
    handed: bool = False


ORDER = (
    Rank("request", "who runs a request; it goes along with the inference", handed=True),
    Rank("pipeline", "the chat and the sequences of a pipeline that generates text"),
    Rank("tokenizer", "the options and the models of a pipeline's tokenizer"),
    Rank("recorder", "the thread that records a module of PyTorch", forks=True),
    Rank("graph", "existing graphs: edits, copies and captures", forks=True),
    Rank("handles", "models that travel between processes: what is loaded"),
    Rank("model", "a compiled model: programs, plans, tables, bodies", nests=True),
    Rank("results", "the results and callback of a request"),
    Rank("pools", "the pools of workers"),
    Rank("pool", "the start and the end of a pool's workers"),
    Rank("words", "memory and words of a tokenizer's node, while it runs"),
    Rank("turn", "which thread of this process compiles a kernel"),
    Rank("late writes", "models that are kept after their first inference"),
    Rank("cache", "the kernel cache: its folder and its claims"),
    Rank("cards", "the CUDA driver and the cards that are open"),
    Rank("ptx", "the PTX of this process's kernels"),
    Rank("key", "this user's key"),
    Rank("compiler", "Numba, LLVM and shipped code while they make code", forks=True, alone=True),
    Rank("loader", "object code that is loaded", forks=True, alone=True),
    Rank("collector", "the thresholds of Python's collector"),
    Rank("registry", "the operations that are known"),
    Rank("counts", "how many kernels were compiled and taken from the cache"),
    Rank("syntax", "Python's parser of syntax trees"),
    Rank("blocks", "memory of jobs, which finalizers give back under any lock"),
)

_POSITIONS = {rank.name: position for position, rank in enumerate(ORDER)}

#: The locks that are held over a fork, by name, as far as their modules are imported.
over_forks: dict[str, Any] = {}


def lock(name: str) -> Any:
    """A `threading.Lock` of a kind in ORDER."""
    import threading

    return _make(name, threading.Lock())


def rlock(name: str) -> Any:
    """A `threading.RLock` of a kind in ORDER. Forks know it from now on if the kind says so."""
    import threading

    result = _make(name, threading.RLock())
    if ORDER[_POSITIONS[name]].forks:
        over_forks[name] = result
    return result


def in_order() -> list[Any]:
    """The locks that a fork holds, in their order."""
    return [over_forks[name] for name in sorted(over_forks, key=_POSITIONS.__getitem__)]


def _make(name: str, plain: Any) -> Any:
    rank = ORDER[_POSITIONS[name]]
    if not debug.is_on("OVJIT_CHECK") or rank.handed:
        return plain
    _watch_imports()
    return Checked(plain, rank)


# --- under OVJIT_CHECK


class Checked:
    """A lock that checks the order. It is for tests: Ctrl-C between its functions may leave it locked."""

    __slots__ = ("__weakref__", "_plain", "index", "rank")

    def __init__(self, plain: Any, rank: Rank):
        self._plain = plain
        self.rank = rank
        self.index = _POSITIONS[rank.name]

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        locks = _held_locks()
        if blocking and all(other is not self for other in locks):
            for other in locks:
                if other.index > self.index or (other.index == self.index and not self.rank.nests):
                    raise LockOrder(
                        f"the lock {self.rank.name!r} ({self.rank.guards}) is taken under "
                        f"{other.rank.name!r} ({other.rank.guards}), which comes later in ovjit.locks.ORDER: "
                        f"take {self.rank.name!r} first, or let go of {other.rank.name!r}"
                    )
        got: bool = self._plain.acquire(blocking, timeout)
        if got:
            locks.append(self)
        return got

    def release(self) -> None:
        self._plain.release()
        locks = _held_locks()
        for i in reversed(range(len(locks))):
            if locks[i] is self:
                del locks[i]
                break

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def locked(self) -> bool:
        return bool(self._plain.locked())

    def _is_owned(self) -> bool:
        return bool(self._plain._is_owned())


_registry: dict[str, Any] = {}


def _held_locks() -> list[Checked]:
    """The checked locks that this thread holds, in the order in which it took them."""
    local = _registry["local"]
    locks: list[Checked] | None = getattr(local, "locks", None)
    if locks is None:
        locks = local.locks = []
    return locks


def _watch_imports() -> None:
    """Once: watch imports of modules that are not loaded yet. An audit hook cannot be removed."""
    if "local" not in _registry:
        import threading

        _registry["local"] = threading.local()
        sys.addaudithook(_on_event)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "import":
        for lock in _held_locks():
            if lock.rank.alone:
                raise LockOrder(
                    f"{arguments[0]!r} is imported under the lock {lock.rank.name!r} ({lock.rank.guards}): "
                    "the import may wait for a thread that forks, which waits for this lock. Import it before"
                )
