"""Compiled models for workers in other processes. Each process loads a model once, regardless of how many
tasks use it.

In: a compiled model. Out: a handle of a few hundred bytes that can be pickled. Called in any process, it
returns the compiled model there. The handle refers to a file, or an object in a cluster's store, which has
the blob.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ovjit.disk.folders import replacing
from ovjit.errors import ModelError
from ovjit.forks import ForkLock
from ovjit.storage.mapped import read_file

#: The models that this process has loaded: (digest, device) -> compiled model, as long as somebody has it.
_loaded: weakref.WeakValueDictionary[tuple[str, str], Any] = weakref.WeakValueDictionary()
#: Those among them that stay for further tasks, the last used one at the end.
_recent: OrderedDict[tuple[str, str], Any] = OrderedDict()
#: How many stay, though no task has them.
MOST_RECENT = 4
_lock = ForkLock("handles")


class Shipped:
    """`source()` returns the blob: bytes, a memoryview or a path. `digest`: the SHA-256 of the blob's bytes,
    which are compared with it."""

    def __init__(self, source: Callable[[], Any], digest: str, device: str = "CPU"):
        self.source, self.digest, self.device = source, digest, device
        self._own_model: Any = None  # the model, in the process that has shipped it

    @classmethod
    def of(cls, compiled: Any, store: Callable[[bytes], Callable[[], Any]]) -> Shipped:
        """A handle for the model's blob in `store`. This process uses the model itself."""
        blob = compiled.export_model().getvalue()
        shipped = cls(store(blob), hashlib.sha256(blob).hexdigest())
        shipped._own_model = compiled
        with _lock.lock:
            _loaded[shipped._key()] = compiled
        return shipped

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_own_model": None}

    def _key(self) -> tuple[str, str]:
        return self.digest, self.device

    def __call__(self) -> Any:
        """The compiled model in this process. Raises ModelError if the blob no longer exists, or is another
        one than the one that was shipped."""
        if self._own_model is not None:
            return self._own_model
        key = self._key()
        compiled = _loaded.get(key)
        if compiled is None or next(reversed(_recent), None) != key:
            with _lock.lock:
                compiled = _loaded.get(key)
                if compiled is None:
                    import ovjit

                    compiled = _loaded[key] = ovjit.Core().import_model(self._blob(), self.device)
                _recent[key] = compiled
                _recent.move_to_end(key)
                while len(_recent) > MOST_RECENT:
                    _recent.popitem(last=False)
        return compiled

    def _blob(self) -> Any:
        """The bytes of the model that was shipped. Raises ModelError for others."""
        source = self.source()
        blob = read_file(source, True) if isinstance(source, str) else source
        digest = hashlib.sha256(blob).hexdigest()
        if digest != self.digest:
            raise ModelError(
                f"{self.source!r} has other bytes than the model that was shipped: their SHA-256 is "
                f"{digest[:16]}..., not {self.digest[:16]}... Ship the model again"
            )
        return blob

    def __repr__(self) -> str:
        return f"<Shipped {self.digest[:12]} from {self.source!r}>"


class _File:
    """A blob in a file that all workers can read."""

    def __init__(self, path: str):
        self.path = path

    def __call__(self) -> str:
        if not os.path.exists(self.path):
            raise ModelError(
                f"the compiled model's file {self.path!r} does not exist: it is deleted with the handle "
                "in the process that shipped it, and is on that machine only; give ship() a folder "
                "that all workers can read"
            )
        return self.path

    def __repr__(self) -> str:
        return repr(self.path)


def ship(compiled: Any, folder: str | os.PathLike[str] | None = None) -> Shipped:
    """A compiled model as an argument of tasks (process pools, joblib, Dask), which call it:
    `model()(inputs)`.

    The blob is written once, to `folder` or the machine's folder for temporary files. Every worker maps this
    file, so weights are in memory once. A file outside of `folder` is deleted with the handle.
    """

    def store(blob: bytes) -> _File:
        digest = hashlib.sha256(blob).hexdigest()[:16]
        if folder is not None:
            target = Path(folder, f"ovjit-{digest}.blob")
            if not _has(target, blob):
                with replacing(target) as file:
                    file.write(blob)
            return _File(str(target.resolve()))
        descriptor, name = tempfile.mkstemp(".blob", f"ovjit-{digest}-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(blob)
        except BaseException:
            os.unlink(name)
            raise
        return _File(name)

    shipped = Shipped.of(compiled, store)
    if folder is None:
        assert isinstance(shipped.source, _File)
        weakref.finalize(shipped, _remove, shipped.source.path, os.getpid())
    return shipped


def _has(path: Path, blob: bytes) -> bool:
    """Whether a file has these bytes."""
    try:
        return path.stat().st_size == len(blob) and path.read_bytes() == blob
    except OSError:
        return False


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        try:
            os.remove(path)
        except OSError:
            pass
