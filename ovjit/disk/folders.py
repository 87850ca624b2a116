"""Folders that only this user may write to.

Native code is read from them. So a folder must be a real folder (no symbolic link), belong to the effective
user, and be closed to writes of group and others. Users who may write to a folder *above* it can still
replace it. The files are therefore authenticated as well (`sealed.py`).
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

#: Flags for reading: symbolic links are not followed, and a planted FIFO does not block.
READ = os.O_RDONLY
for _flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
    READ |= getattr(os, _flag, 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Untrusted(PermissionError):
    """A folder or file that another user could have written."""

    def __init__(self, reason: str):
        super().__init__(reason)

    def __str__(self) -> str:
        return str(self.args[0])


def user_folder(kind: str) -> str:
    """The path of ovjit's folder of a `kind`, "cache" or "config", for this user; it need not exist.

    The path is that of platformdirs. Its import takes longer than loading a small model, so the rule for
    Linux is implemented here. Raises FileNotFoundError for a user without a home.
    """
    if not sys.platform.startswith("linux"):
        import platformdirs

        find = platformdirs.user_cache_dir if kind == "cache" else platformdirs.user_config_dir
        path = find("ovjit", False)
    else:
        root = os.environ.get(f"XDG_{kind.upper()}_HOME", "")
        path = os.path.join(root if os.path.isabs(root) else _home(kind), "ovjit")
    if not os.path.isabs(path):
        raise FileNotFoundError(f"no home folder for the {kind}: set HOME")
    return path


def _home(kind: str) -> str:
    """The user's folder of a `kind`; "" without a home. A missing home is never created, not even for
    root."""
    home = os.environ.get("HOME")
    if home is None:
        home = os.path.expanduser("~")
    return os.path.join(home, f".{kind}") if os.path.isabs(home) and os.path.isdir(home) else ""


def check_private(path: str) -> None:
    """Raise Untrusted unless only this user may write to the folder `path`, OSError if it is not a folder."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        raise Untrusted(f"{path} is a symbolic link")
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{path} is not a folder")
    check_owner(path, status)


def check_owner(path: str, status: os.stat_result, forbidden: int = 0o022) -> None:
    """Raise Untrusted unless `path` is this user's and has none of the `forbidden` permission bits."""
    if not hasattr(os, "geteuid"):
        return  # Windows: profiles are private, and mode bits have no meaning
    if status.st_uid != os.geteuid():
        raise Untrusted(
            f"{path} belongs to user {status.st_uid}, but this process runs as user {os.geteuid()}"
        )
    if status.st_mode & forbidden:
        raise Untrusted(f"{path} is accessible to other users (mode {stat.S_IMODE(status.st_mode):04o})")


def private_folder(path: str, ours: bool) -> None:
    """Create the folder `path` and missing parents (mode 0700), or check the existing folder.

    `ours`: ovjit has chosen the path. Then root refuses a path inside another user's home, where `sudo` with
    an unchanged HOME would leave files that the user cannot remove. Raises OSError; Untrusted is one.
    """
    if ours and hasattr(os, "geteuid") and os.geteuid() == 0:
        _check_root_owns_above(path)
    try:
        check_private(path)
    except FileNotFoundError:
        _make(path)
        check_private(path)


def write_new(path: str, *parts: Any, lasting: bool = True) -> None:
    """Write a new file of these bytes-like parts, which only this user can read. It is flushed to the disk
    before the return. Without `lasting` it is not flushed: its readers check whether it is whole.

    Raises FileExistsError for an existing path, and OSError, without leaving a file, if a write fails.
    """
    descriptor = os.open(path, _CREATE, 0o600)
    try:
        try:
            write_parts(descriptor, *parts)
            if lasting:
                os.fsync(descriptor)  # otherwise a power cut may leave the name without the content
        finally:
            os.close(descriptor)
    except BaseException:
        os.unlink(path)
        raise


def write_parts(descriptor: int, *parts: Any) -> None:
    """Write all of these bytes-like parts at the current position of the file."""
    for part in parts:
        remaining = memoryview(part)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]


def draft_in(folder: str) -> str:
    """A temporary path for a file, which is renamed when it is whole."""
    return os.path.join(folder, f".ovjit-{os.urandom(8).hex()}.tmp")


def write_whole(path: str, *parts: Any, lasting: bool = True) -> None:
    """Write or replace the file at `path` atomically, as `write_new` does. Raises OSError."""
    draft = draft_in(os.path.dirname(path))
    write_new(draft, *parts, lasting=lasting)
    try:
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def write_unnamed(path: str, *parts: Any) -> None:
    """Write or replace the file at `path` atomically, as `write_whole` does without `lasting`. Where the
    system has files without a name, it has none before it is complete: if the process ends before, no file
    remains. Raises OSError."""
    folder = os.path.dirname(path)
    draft = draft_in(folder)
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):  # another operating or file system
        write_whole(path, *parts, lasting=False)
        return
    try:
        write_parts(descriptor, *parts)
        # with a `src_dir_fd`, Python follows the link to the file
        os.link(f"/proc/self/fd/{descriptor}", draft, src_dir_fd=descriptor, follow_symlinks=True)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Context: a file that replaces `path` when the block ends without an exception and the content is on the
    disk. Otherwise `path` is unchanged, and no other file remains. A path that is not a file, such as a pipe,
    is written directly. Raises OSError."""
    with replacing_together(path) as (file,):
        yield file


@contextlib.contextmanager
def replacing_together(*paths: str | os.PathLike[str]) -> Iterator[list[IO[bytes]]]:
    """Context: as `replacing`, of several files that belong together.

    While the others are replaced, the last one is away, and other writers wait. So a reader that opens the
    last one, then the others, and then finds the last one unchanged at its path has files of one writer.
    """
    drafts: dict[str, str | os.PathLike[str]] = {}
    try:
        with contextlib.ExitStack() as stack:
            files: list[IO[bytes]] = []
            for path in paths:
                if os.path.exists(path) and not os.path.isfile(path):
                    files.append(stack.enter_context(open(path, "wb")))
                    continue
                draft = draft_in(os.path.dirname(path))
                drafts[draft] = path
                # its mode is by the umask, which a process cannot read without changing it for all threads
                files.append(stack.enter_context(os.fdopen(os.open(draft, _CREATE, 0o666), "wb")))
            yield files
            for file in files:
                file.flush()
                if not isinstance(file.name, (str, os.PathLike)):  # a draft, opened by its descriptor
                    os.fsync(file.fileno())
        with _only_writer([*drafts]):
            try:
                _put_in_place([*drafts.items()])
            except OSError:
                raise
            except BaseException:  # of a signal
                _put_in_place([*drafts.items()])
                raise
    except BaseException:
        for draft in drafts:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
        raise


def _put_in_place(drafts: list[tuple[str, str | os.PathLike[str]]]) -> None:
    """Rename temporary files (draft, path) to their paths, the last one at the end; until then, no file has
    its path. Drafts that no longer exist are skipped."""
    if not drafts:
        return
    *others, (draft, path) = drafts
    before = f"{draft}.old"
    if others := [row for row in others if os.path.exists(row[0])]:
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, before)
        try:
            for row in others:
                os.replace(*row)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.replace(before, path)
            raise
    if os.path.exists(draft):
        os.replace(draft, path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(before)


@contextlib.contextmanager
def _only_writer(drafts: Sequence[str]) -> Iterator[None]:
    """Context manager: no other thread or process is in a block for several drafts in the folder of the last
    one. Does not wait for one that stays there for 10 s, nor on a file system without locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            descriptor = os.open(os.path.dirname(drafts[-1]) if len(drafts) > 1 else "", os.O_RDONLY)
            stack.callback(os.close, descriptor)
            stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)  # a fork may have the descriptor, too
            for _ in range(2000):
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.005)
        yield


def _make(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # another process has created it
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent == path:
            raise
        _make(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def _check_root_owns_above(path: str) -> None:
    parent = os.path.dirname(path)
    while parent != os.path.dirname(parent):  # in a container "/" may have an unknown owner
        try:
            owner = os.stat(parent).st_uid
        except FileNotFoundError:
            owner = 0
        if owner != 0:
            raise Untrusted(f"{parent} belongs to user {owner}: files of root are not written there")
        parent = os.path.dirname(parent)


_CLOCK_SECONDS = 24 * 3600  # maximum difference of the clocks of machines that share a folder


def unused_for(status: os.stat_result) -> float:
    """Seconds since a file of a cache was used. Infinite if its time is a day or more in the future: then the
    clock was ahead, and the file has not been used since the clock was set back."""
    age = time.time() - status.st_mtime
    return age if age > -_CLOCK_SECONDS else math.inf
