"""The kernel cache: object code by content address, one sealed file per kernel, shared by processes.

A file appears whole (written beside and renamed) and only ever changes into another whole one, so that
readers need no lock. What is read will run, so it counts only when this user's key authenticates it under the
address asked for; damage is a miss. The state of the disk never raises: the caller compiles instead.

The folder is OVJIT_CACHE, else the user's cache folder; OVJIT_CACHE=0 keeps nothing and writes no file.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ovjit.disk import sealed
from ovjit.disk.folders import READ, evict, files_in, private_folder, unused_for, user_folder, write_whole
from ovjit.disk.keys import find_key
from ovjit.disk.notice import warn_once
from ovjit.forks import ForkLock
from ovjit.hashes import sha256
from ovjit.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1 << 30
_KIND = b"OVJITKRN"
_SUFFIX = ".kernel"
_NAMES = r".*\.kernel"
_CLAIMS = ".ovjit-claims"  # empty; bytes of it are locked
_ADDRESS = r"[0-9A-Za-z_]{8,128}"
_LARGEST = 256 << 20  # no kernel is; what is planted may be
_LONGEST_TEXT = 4096
_TOUCH_SECONDS = 24 * 3600  # "last used" is kept to the day, so that reading seldom writes
_PUTS_PER_EVICTION = 64


class Entry(NamedTuple):
    """One kernel in the cache. `about` was not authenticated: text for people."""

    key: str
    bytes: int
    last_used: float  # seconds since the epoch, to the day
    about: Mapping[str, str]


class _Store(NamedTuple):
    folder: str
    key: bytes


class KernelCache:
    """Compiled kernels in one folder. Methods may be called from any thread and process."""

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_bytes: int = MAX_BYTES):
        """`folder` None: OVJIT_CACHE, or the user's cache folder. Looks at no file before the first use."""
        self.max_bytes = max_bytes
        self._named = folder if folder is not None else os.environ.get("OVJIT_CACHE") or None
        self._disabled = folder is None and self._named == "0"
        self._store: _Store | None = None
        self._tried = False
        self._claims: int | None = None  # the descriptor of what claims lock, -1 for none
        # Processes that store little begin somewhere in the cycle, so that some of them come to its end.
        self._puts = os.getpid() % _PUTS_PER_EVICTION
        self._written = 0

    @property
    def folder(self) -> Path | None:
        """Where the kernels are; None when they are not kept (switched off, or no folder can be trusted)."""
        path = self.path
        from pathlib import Path

        return Path(path) if path else None

    @property
    def path(self) -> str | None:
        """`folder` as text, which takes no import."""
        store = self._ready()
        return store.folder if store else None

    def get(self, key: str) -> bytes | None:
        """The object code put under `key`, None when there is none that is whole and authentic."""
        _check_address(key)
        store = self._ready()
        if store is None:
            return None
        path = f"{store.folder}/{key}{_SUFFIX}"
        try:
            record = _read_entry(path)
            return sealed.unseal(_KIND, key, record, store.key)
        except FileNotFoundError:
            return None
        except (OSError, sealed.Damaged, MemoryError) as error:
            warn_once(f"read {store.folder}", f"the cached kernel {path} is compiled again: {error}")
            return None

    def put(self, key: str, code: bytes, about: Mapping[str, str] | None = None) -> bool:
        """Keep `code` under `key`; `about` says what it is. False, and one warning, when it can't be kept."""
        _check_address(key)
        store = self._ready()
        if store is None or len(code) > min(self.max_bytes, _LARGEST):
            return False
        import json  # only those that store or list pay for it

        text = json.dumps({"ovjit": __version__, **(about or {})}, sort_keys=True)
        if len(text) > _LONGEST_TEXT:
            text = "{}"
        record = sealed.seal(_KIND, key, code, store.key, text)
        try:
            private_folder(store.folder, ours=self._named is None)  # it may have been removed, or swapped
            # No flush: a file damaged by a power cut is not authentic, and is made again.
            write_whole(os.path.join(store.folder, f"{key}{_SUFFIX}"), record, lasting=False)
        except (OSError, MemoryError) as error:
            warn_once(f"write {store.folder}", f"compiled kernels are not kept in {store.folder}: {error}")
            return False
        self._puts += 1
        self._written += len(record)
        if self._puts % _PUTS_PER_EVICTION == 0 or self._written > self.max_bytes // 8:
            self._written = 0
            self._evict(self.max_bytes, self.max_bytes - self.max_bytes // 8, None)
        return True

    def claim(self, key: str) -> contextlib.AbstractContextManager[Any] | None:
        """What to hold while the code for `key` is made: None when another process holds it. Where there is
        no folder to claim things in, everybody has everything."""
        _check_address(key)
        store = self._ready()
        if store is None:
            return contextlib.nullcontext()
        with _lock.lock:
            if self._claims is None:
                self._claims = _open_claims(store.folder)
        return claim_byte(self._claims, int(sha256(key.encode()).hexdigest()[:12], 16))

    def prune(self, max_bytes: int | None = None, max_age: float | None = None) -> int:
        """Remove what was not used for `max_age` seconds, then the least recently used beyond `max_bytes`
        (None: the cache's own bound). Returns the bytes freed."""
        limit = self.max_bytes if max_bytes is None else max_bytes
        return self._evict(limit, limit, max_age)

    def entries(self) -> list[Entry]:
        """What is kept, the most recently used first; files that are no kernels are left out."""
        store = self._ready()
        if store is None:
            return []
        try:
            files = list(files_in(store.folder, _NAMES))
        except OSError as error:
            _not_listed(store.folder, error)
            return []
        found = []
        for path, status in files:
            name = os.path.basename(path)
            if name.endswith(_SUFFIX):
                with contextlib.suppress(OSError, sealed.Damaged):
                    about = _about(path)
                    found.append(Entry(name[: -len(_SUFFIX)], status.st_size, status.st_mtime, about))
        return sorted(found, key=lambda entry: (-entry.last_used, entry.key))

    def _ready(self) -> _Store | None:
        if not self._tried:
            with _lock.lock:
                if not self._tried:
                    self._store = self._open()
                    self._tried = True
        return self._store

    def _open(self) -> _Store | None:
        if self._disabled:
            return None
        try:
            if self._named is None:
                folder = user_folder("cache")
            else:
                folder = os.path.abspath(os.path.expanduser(self._named))
            private_folder(folder, ours=self._named is None)
        except (OSError, RuntimeError, ValueError) as error:
            advice = "Name a folder of your own with OVJIT_CACHE, or 0 for none."
            warn_once(f"open {self._named}", f"compiled kernels are not kept on disk: {error}. {advice}")
            return None
        key = find_key()
        # Data sealed with a temporary key cannot be used later. The missing key has been reported.
        return _Store(folder, key.value) if key.lasting else None

    def _evict(self, limit: int, target: int, max_age: float | None) -> int:
        """When over `limit` bytes are kept, remove the least recently used until at most `target` are."""
        store = self._ready()
        if store is None:
            return 0
        try:
            return evict(store.folder, _NAMES, limit, target, max_age)
        except OSError as error:
            _not_listed(store.folder, error)
            return 0


def _open_claims(folder: str) -> int:
    try:
        return os.open(f"{folder}/{_CLAIMS}", os.O_RDWR | os.O_CREAT | READ, 0o600)
    except OSError:  # a read-only folder: others cannot put anything there either
        return -1


@contextlib.contextmanager
def _released(descriptor: int, byte: int) -> Iterator[None]:
    import fcntl

    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)


def claim_byte(descriptor: int, byte: int) -> contextlib.AbstractContextManager[Any] | None:
    """A lock on one byte of a file, which need not be there; None when another process has it. The system
    releases what a process held when it ends."""
    try:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except (BlockingIOError, PermissionError):
        return None
    except (ImportError, OSError, ValueError):  # another system, a folder without locks, no descriptor
        return contextlib.nullcontext()
    return _released(descriptor, byte)


_lock = ForkLock("cache")
_default: KernelCache | None = None


def default_cache() -> KernelCache:
    """The cache of this process, made at the first call from what OVJIT_CACHE says then."""
    global _default
    if _default is None:
        with _lock.lock:
            if _default is None:
                _default = KernelCache()
    return _default


def _check_address(key: str) -> None:
    if not re.fullmatch(_ADDRESS, key):
        raise ValueError(f"{key!r} is no content address: 8 to 128 letters, digits and _")


def _read_entry(path: str) -> bytes:
    descriptor = os.open(path, READ)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise sealed.Damaged("it is not a regular file")
        if status.st_size > _LARGEST:
            raise sealed.Damaged(f"it has {status.st_size} bytes")
        record = os.read(descriptor, status.st_size)
        if unused_for(status) > _TOUCH_SECONDS:
            with contextlib.suppress(OSError):  # a read-only folder serves as well
                os.utime(descriptor if os.utime in os.supports_fd else path)
    finally:
        os.close(descriptor)
    return record


def _not_listed(folder: str, error: OSError) -> None:
    warn_once(f"list {folder}", f"the kernel cache {folder} can't be listed: {error}")


def _about(path: str) -> dict[str, str]:
    import json

    descriptor = os.open(path, READ)
    try:
        beginning = os.read(descriptor, sealed.HEAD_BYTES + _LONGEST_TEXT)
    finally:
        os.close(descriptor)
    try:
        about = json.loads(sealed.read_about(_KIND, beginning) or "{}")
    except (ValueError, RecursionError) as error:
        raise sealed.Damaged(str(error)) from None
    return {str(name): str(value) for name, value in about.items()} if isinstance(about, dict) else {}
