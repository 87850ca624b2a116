"""This user's key: it authenticates native code from a disk for this user only.

32 random bytes, made on first use, in the file `key` (mode 0600) of the user's configuration folder. The
environment variable OVJIT_KEY, 64 hexadecimal digits or more, takes precedence, so that a fleet can share
one. If neither is available, or OVJIT_CACHE=0 forbids files, the key lives as long as the process.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time

from ovjit.disk.folders import READ, Untrusted, check_owner, private_folder, user_folder, write_new
from ovjit.disk.notice import warn_once
from ovjit.forks import ForkLock
from ovjit.out_of_memory import is_shortage
from ovjit.records import NamedTuple

KEY_BYTES = 32
_PATIENCE_SECONDS = 1.0  # maximum wait for a key that another process is writing


class UserKey(NamedTuple):
    """The key's bytes, whether other processes of this user find the same key, and whether this process will
    always use it."""

    value: bytes
    lasting: bool
    final: bool = True


_lock = ForkLock("key")
_keys: dict[str, UserKey] = {}  # folder -> what was found there; "" -> this process's own key


def user_key(explicit: bytes | str | None = None) -> bytes:
    """`explicit` (bytes, or hexadecimal digits), else this user's key. See `find_key`."""
    return find_key(explicit).value


def find_key(explicit: bytes | str | None = None) -> UserKey:
    """The given key, else OVJIT_KEY, else the user's file, else one of this process, with one warning.

    Raises ValueError only for an invalid `explicit` key: less than 32 bytes, or not hexadecimal.
    """
    if explicit is not None:
        return UserKey(_parse(explicit), True)
    variable = os.environ.get("OVJIT_KEY")
    if variable:
        try:
            return UserKey(_parse(variable), True)
        except ValueError as error:
            # The user's own key would not be the one that other machines share.
            warn_once("OVJIT_KEY", f"OVJIT_KEY is ignored: {error}. {_CONSEQUENCE}")
            return _passing_key()
    try:
        folder = user_folder("config")
    except (OSError, RuntimeError) as error:
        warn_once("key", f"no key for compiled code: {error}. {_CONSEQUENCE}", error)
        return _passing_key()
    entry = _keys.get(folder)
    if entry is not None:
        return entry
    writing = os.environ.get("OVJIT_CACHE") != "0"
    with _lock.lock:
        entry = _keys.get(folder)
        if entry is None:
            try:
                entry = UserKey(_load_or_create(folder, writing), True)
            except FileNotFoundError:
                if not writing:
                    return _passing_key()  # OVJIT_CACHE=0 requests it, so there is no warning
                warn_once("key", f"no key for compiled code: {folder} cannot be made. {_CONSEQUENCE}")
                entry = _passing_key()
            except OSError as error:
                warn_once("key", f"no key for compiled code: {error}. {_CONSEQUENCE}", error)
                entry = _passing_key()
                if is_shortage(error):
                    return entry._replace(final=False)
            _keys[folder] = entry
    return entry


_CONSEQUENCE = "Code that this process stores will be compiled again by others; OVJIT_KEY can give a key."


def _parse(explicit: bytes | str) -> bytes:
    if isinstance(explicit, str):
        try:
            explicit = bytes.fromhex(explicit)
        except ValueError:
            raise ValueError("a key given as text must be hexadecimal digits") from None
    if len(explicit) < KEY_BYTES:
        raise ValueError(f"a key needs at least {KEY_BYTES} bytes; the given key has {len(explicit)}")
    return bytes(explicit)


def _passing_key() -> UserKey:
    return _keys.setdefault("", UserKey(os.urandom(KEY_BYTES), False))


def _load_or_create(folder: str, writing: bool) -> bytes:
    """The key in the user's folder. A missing one is created if `writing`."""
    path = os.path.join(folder, "key")
    if writing or os.path.lexists(folder):
        private_folder(folder, ours=True)
    try:
        return _read(path)
    except FileNotFoundError:
        if not writing:
            raise
    _create(folder, path)
    return _read(path)  # perhaps that of another process, which came first


def _read(path: str) -> bytes:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        descriptor = os.open(path, READ)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Untrusted(f"{path} is not a regular file")
            check_owner(path, status, 0o077)
            key = os.read(descriptor, KEY_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(key) == KEY_BYTES:
            return key
        # Only without hard links can a key be seen before all of it is written.
        if len(key) > KEY_BYTES or time.monotonic() > deadline:
            raise OSError(f"{path} is not a key of {KEY_BYTES} bytes; remove the file, and a new key is made")
        time.sleep(0.01)


def _create(folder: str, path: str) -> None:
    """Store a new key at `path` unless one exists: the complete file is linked there, and the first link
    wins."""
    draft = os.path.join(folder, f".key-{os.urandom(8).hex()}.tmp")
    key = os.urandom(KEY_BYTES)
    try:
        write_new(draft, key)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except (OSError, NotImplementedError):  # a file system without hard links
            with contextlib.suppress(FileExistsError):
                write_new(path, key)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)
