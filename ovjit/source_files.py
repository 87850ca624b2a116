"""The state of a package's files: a cheap replacement for their bytes.

Data derived from the files can be kept beside Python's own bytecode of the package, with the same trust. If
that folder is read-only, they are kept in the kernel cache. They are valid for one state of the files: a
changed name, size or time makes them void.

A package has its files in a folder (with sources, or bytecode alone), in a zip archive, or in a program made
by PyInstaller or Nuitka.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import stat
import sys
from binascii import crc32
from importlib.util import cache_from_source, find_spec
from typing import Any

#: ovjit's packages.
OWN = ("ovjit", "ovjit_ops")
#: A file's path in the package, its bytes, and the time of its last change.
State = list[tuple[str, int, int]]


def source_files(package: str) -> State | None:
    """The state of every module of a package; of an archive or a program, as one file.

    None where the modules are in nothing that can be looked at.
    """
    spec = find_spec(package)
    if spec is None or not spec.origin:
        return None
    archive = _single_file(spec)
    if archive:
        try:
            status = os.stat(archive)
        except OSError:
            return None
        return [(archive, status.st_size, status.st_mtime_ns)]
    return _in_folder(os.path.dirname(spec.origin)) if os.path.isfile(spec.origin) else None


def _single_file(spec: Any) -> str | None:
    """The one file that all modules of a package are in: the zip archive, or the program; None where each
    has its own."""
    archive = getattr(spec.loader, "archive", None)
    if isinstance(archive, str):
        return archive
    if hasattr(sys, "_MEIPASS"):  # a program that PyInstaller made
        return sys.executable
    result = getattr(sys.modules.get(spec.name), "__compiled__", None)  # a program or a library of Nuitka's
    return getattr(result, "extension_filename", None) or getattr(result, "process_exe", None)


def folder_of(package: str) -> str:
    """The folder of the package `package`, which has files besides its modules."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return os.path.dirname(spec.origin)


def _in_folder(top: str) -> State:
    out = []
    folders = [top]
    while folders:
        with os.scandir(folders.pop()) as items:
            for item in items:
                if item.name.endswith((".py", ".pyc")):
                    status = item.stat()
                    out.append((item.path[len(top) :], status.st_size, status.st_mtime_ns))
                elif item.name != "__pycache__" and item.is_dir():
                    folders.append(item.path)
    return sorted(out)


def package_data(name: str) -> bytes:
    """A file of `ovjit.data`, without importing that package. Raises OSError, or ImportError where it is not
    there."""
    spec: Any = find_spec("ovjit.data")
    if spec is None or spec.origin is None or not hasattr(spec.loader, "get_data"):
        raise ImportError("the package ovjit.data is missing from this installation")
    content: bytes = spec.loader.get_data(os.path.join(os.path.dirname(spec.origin), name))
    return content


@functools.cache
def package_state(*packages: str) -> str | None:
    """A hash of the state of all files of these packages, as a process first sees them."""
    from ovjit.hashes import content_hash

    state = [source_files(package) for package in packages]
    # version 0: equal states have equal bytes, in an eighth of the time of `repr`
    return None if None in state else content_hash(marshal.dumps(state, 0))


def read_kept(package: str, name: str) -> Any:
    """Returns the value kept under this name for the package's current files; None if there is none."""
    path = place_beside(package, name)
    if path is not None:
        try:
            with open_trusted(path) as file:
                content = check_sum(file.read())
            state, value = marshal.loads(content)
            if state == _state(package):
                return value
        except (OSError, ValueError, EOFError, TypeError):
            pass  # not there, damaged, of others, or of other files: the cache may have it
    content = _cache().get(_address(package, name))
    return None if content is None else marshal.loads(content)[1]  # authenticated, under its state's address


def keep(package: str, name: str, value: Any) -> None:
    """Keep what was made of the package's files, of Python's own plain types."""
    path = None if sys.dont_write_bytecode else place_beside(package, name)
    content = marshal.dumps([_state(package), value])
    if path is None or not write(path, with_sum(content)):
        _cache().write(_address(package, name), content, {"name": f"{name} of {package}"})


#: Bytes of a checksum.
SUM = 4


def with_sum(content: bytes | memoryview) -> bytes:
    """Bytes after their checksum, which `check_sum` compares."""
    return b"".join((crc32(content).to_bytes(SUM, "little"), content))


def check_sum(content: bytes | memoryview) -> bytes | memoryview:
    """The bytes after a checksum. Raises ValueError if they are damaged."""
    if crc32(content[SUM:]) != int.from_bytes(content[:SUM], "little"):
        raise ValueError("damaged: the checksum differs")
    return content[SUM:]


def open_trusted(path: str) -> Any:
    """A file beside Python's bytecode, opened for reading. Raises PermissionError where its writer could not
    have written the sources, as Python executes it like them: it has to belong to this user, to root or to
    the owner of the sources, and other users may write to it only if they may write to the sources, too."""
    descriptor = os.open(path, _READ)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{path} is not a regular file")
        if hasattr(os, "geteuid"):  # Windows has no such modes
            source, folder = os.stat(__file__), os.stat(os.path.dirname(__file__))
            if status.st_uid not in (0, os.geteuid(), source.st_uid, folder.st_uid):
                raise PermissionError(f"{path} belongs to user {status.st_uid}")
            if status.st_mode & 0o022 & ~(source.st_mode | folder.st_mode):
                raise PermissionError(f"{path} may be written by others")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


_READ = os.O_RDONLY
for _flag in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"):
    _READ |= getattr(os, _flag, 0)


def write(path: str, content: bytes) -> bool:
    """Write a file at once or not at all, with the permissions of the sources, as Python writes bytecode.
    False for a read-only folder."""
    draft = f"{path}.{os.urandom(8).hex()}"
    try:
        mode = os.stat(os.path.dirname(__file__)).st_mode & 0o777 | 0o700
        os.makedirs(os.path.dirname(path), mode, exist_ok=True)
        descriptor = os.open(draft, _WRITE, os.stat(__file__).st_mode & 0o666 | 0o200)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):  # a full disk leaves a part
            os.unlink(draft)
        return False
    return True


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
for _flag in ("O_CLOEXEC", "O_BINARY"):
    _WRITE |= getattr(os, _flag, 0)


def place_beside(package: str, name: str) -> str | None:
    """The file of this name beside the package's bytecode; None for an archive and a program."""
    spec = find_spec(package)
    if spec is None or not spec.origin or _single_file(spec) or not os.path.isfile(spec.origin):
        return None
    try:
        return cache_from_source(os.path.join(os.path.dirname(spec.origin), f"{name}.py"))
    except NotImplementedError:
        return None


def _cache() -> Any:
    from ovjit.disk.kernel_cache import (
        default_cache,  # which imports more than is needed where there is a folder
    )

    return default_cache()


def _address(package: str, name: str) -> str:
    from ovjit.hashes import sha256

    return "of_files_" + sha256(repr([package, name, _state(package)]).encode()).hexdigest()[:40]


def _state(package: str) -> list[Any]:
    """The state that a kept value of a package is valid for. For a part of ovjit it is that of all files: a
    process needs it anyway, and looks at them once."""
    is_own = package.partition(".")[0] in OWN
    return [sys.version, package_state(*OWN) if is_own else source_files(package)]
