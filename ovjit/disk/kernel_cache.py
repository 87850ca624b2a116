"""The kernel cache: object code by content address, shared by processes: a file of `store.py` per kernel.

What is read will run, so it counts only when this user's key authenticates it under the
address asked for; damage is a miss. The state of the disk never raises: the caller compiles instead.

The folder is OVJIT_CACHE, else the user's cache folder; OVJIT_CACHE=0 keeps nothing and writes no file.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ovjit.disk import sealed, store
from ovjit.disk.folders import READ, private_folder, user_folder
from ovjit.disk.keys import find_key
from ovjit.disk.notice import warn_once
from ovjit.forks import ForkLock
from ovjit.hashes import sha256
from ovjit.out_of_memory import is_shortage
from ovjit.records import NamedTuple
from ovjit.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

_T = TypeVar("_T")
MAX_BYTES = 1 << 30
_CLAIMS = ".ovjit-claims"  # empty; bytes of it are locked
_ADDRESS = r"[0-9A-Za-z_]{8,128}"
_LONGEST_TEXT = 4096
_PUTS_PER_EVICTION = 64


class _Opened(NamedTuple):
    folder: str
    key: bytes


class KernelCache:
    """Compiled kernels in one folder. Methods may be called from any thread and process."""

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_bytes: int = MAX_BYTES):
        """`folder` None: OVJIT_CACHE, or the user's cache folder. Looks at no file before the first use."""
        self.max_bytes = max_bytes
        self._named = folder if folder is not None else os.environ.get("OVJIT_CACHE") or None
        self._disabled = folder is None and self._named == "0"
        self._opened: _Opened | None = None
        self._tried = False
        self._claims: int | None = None  # the descriptor of what claims lock, -1 for none
        # Processes that store little begin somewhere in the cycle, so that some of them come to its end.
        self._puts = os.getpid() % _PUTS_PER_EVICTION
        self._written = 0

    @property
    def folder(self) -> Path | None:
        """Folder of the kernels; None if the cache is switched off or no folder can be trusted."""
        path = self.path
        from pathlib import Path

        return Path(path) if path else None

    @property
    def path(self) -> str | None:
        """`folder` as a str."""
        opened = self._open_once()
        return opened.folder if opened else None

    def get(self, key: str) -> bytes | None:
        """The object code that was written under `key`; None if it is missing, incomplete or not
        authentic."""
        _check_address(key)
        opened = self._open_once()
        if opened is None:
            return None
        path = store.path_of(opened.folder, store.KERNELS, key)
        try:
            return store.read(path, store.KERNELS, key, opened.key)
        except FileNotFoundError:
            return None
        except (OSError, sealed.Damaged, MemoryError) as error:
            warn_once(f"read {opened.folder}", f"the cached kernel {path} is compiled again: {error}", error)
            return None

    def write(self, key: str, code: bytes, about: Mapping[str, str] | None = None) -> bool:
        """Store `code` under `key`. `about`: a description. Returns False, with one warning, if that
        fails."""
        _check_address(key)
        opened = self._open_once()
        if opened is None or len(code) > min(self.max_bytes, store.KERNELS.largest):
            return False
        import json  # only those that store or list pay for it

        text = json.dumps({"ovjit": __version__, **(about or {})}, sort_keys=True)
        if len(text) > _LONGEST_TEXT:
            text = "{}"
        folder = opened.folder
        try:
            private_folder(folder, ours=self._named is None)  # it may have been removed, or swapped
            path = store.path_of(folder, store.KERNELS, key)
            size = store.write(path, store.KERNELS, key, code, opened.key, text)
        except (OSError, MemoryError) as error:
            warn_once(f"write {folder}", f"compiled kernels are not kept in {folder}: {error}", error)
            return False
        self._puts += 1
        self._written += size
        if self._puts % _PUTS_PER_EVICTION == 0 or self._written > self.max_bytes // 8:
            self._written = 0
            self._evict(self.max_bytes, self.max_bytes - self.max_bytes // 8, None)
        return True

    def claim(self, key: str) -> contextlib.AbstractContextManager[Any] | None:
        """Claims the compilation of `key`: returns a context manager, or None if another process holds it.
        Without a folder there are no claims, and every call succeeds."""
        _check_address(key)
        opened = self._open_once()
        if opened is None:
            return contextlib.nullcontext()
        with _lock.lock:
            if self._claims is None:
                self._claims = _open_claims(opened.folder)
        return claim_byte(self._claims, int(sha256(key.encode()).hexdigest()[:12], 16))

    def prune(self, max_bytes: int | None = None, max_age: float | None = None) -> int:
        """Remove what was not used for `max_age` seconds, then the least recently used beyond `max_bytes`
        (None: the cache's own bound). Returns the bytes freed."""
        limit = self.max_bytes if max_bytes is None else max_bytes
        return self._evict(limit, limit, max_age)

    def entries(self) -> list[store.Entry]:
        """Lists the stored kernels, the most recently used first; other files are left out."""
        return self._in_folder(lambda folder: store.entries(folder, store.KERNELS, _about), [])

    def _open_once(self) -> _Opened | None:
        if not self._tried:
            with _lock.lock:
                if not self._tried:
                    self._opened, self._tried = self._open()
        return self._opened

    def _open(self) -> tuple[_Opened | None, bool]:
        """The folder and the key, and whether that is final."""
        if self._disabled:
            return None, True
        try:
            if self._named is None:
                folder = user_folder("cache")
            else:
                folder = os.path.abspath(os.path.expanduser(self._named))
            private_folder(folder, ours=self._named is None)
        except (OSError, RuntimeError, ValueError) as error:
            advice = "Name a folder of your own with OVJIT_CACHE, or 0 for none."
            warn_once(
                f"open {self._named}", f"compiled kernels are not kept on disk: {error}. {advice}", error
            )
            return None, not is_shortage(error)
        key = find_key()
        # Data sealed with a temporary key cannot be used later. The missing key has been reported.
        return _Opened(folder, key.value) if key.lasting else None, key.final

    def _evict(self, limit: int, target: int, max_age: float | None) -> int:
        """If more than `limit` bytes are stored, remove the least recently used files until at most `target`
        bytes remain."""
        how: dict[str, Any] = {"limit": limit, "target": target, "max_age": max_age}
        return self._in_folder(lambda folder: store.evict(folder, store.KERNELS, **how), 0)

    def _in_folder(self, use: Callable[[str], _T], otherwise: _T) -> _T:
        """Call `use` with the cache's folder. Returns `otherwise` without one, and if it cannot be listed."""
        opened = self._open_once()
        if opened is None:
            return otherwise
        try:
            return use(opened.folder)
        except OSError as error:
            text = f"the kernel cache {opened.folder} can't be listed: {error}"
            warn_once(f"list {opened.folder}", text, error)
            return otherwise


def _open_claims(folder: str) -> int:
    try:
        return os.open(f"{folder}/{_CLAIMS}", os.O_RDWR | os.O_CREAT | READ, 0o600)
    except OSError:  # a read-only folder: others cannot put anything there either
        return -1


@contextlib.contextmanager
def _release(descriptor: int, byte: int) -> Iterator[None]:
    """Context manager that unlocks a byte of the file at its end."""
    import fcntl

    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)


def claim_byte(descriptor: int, byte: int) -> contextlib.AbstractContextManager[Any] | None:
    """Lock one byte of a file, which may be beyond its end. None if another process has the lock. The system
    releases locks of processes that end."""
    try:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):
        return None
    except (ImportError, OSError, ValueError):  # another system, a folder without locks, no descriptor
        return contextlib.nullcontext()
    return _release(descriptor, byte)


_lock = ForkLock("cache")
_default: KernelCache | None = None


def default_cache() -> KernelCache:
    """The cache of this process, created at the first call for the folder in OVJIT_CACHE."""
    global _default
    if _default is None:
        with _lock.lock:
            if _default is None:
                _default = KernelCache()
    return _default


def _check_address(key: str) -> None:
    if not re.fullmatch(_ADDRESS, key):
        raise ValueError(f"{key!r} is not a content address: 8 to 128 letters, digits and _")


def _about(path: str) -> dict[str, str] | None:
    """Reads the description of a kernel as name -> text; None if the file is not a kernel."""
    import json

    try:
        about = json.loads(store.read_about(path, store.KERNELS, _LONGEST_TEXT) or "{}")
    except (OSError, ValueError, RecursionError):
        return None
    return {str(name): str(value) for name, value in about.items()} if isinstance(about, dict) else {}
