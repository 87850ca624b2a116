"""The store of ovjit's files: one table of namespaces, one way to read and write, one listing, one eviction.

    the kernel cache's folder     *.kernel, and in models/ *.blob *.plans
    a folder named by CACHE_DIR   *.blob *.plans *.file *.source

All but blobs are sealed records (`sealed.py`), each under the name that its reader expects. Blobs have
another form (`ovjit.storage.container`), under the same key. A file is written under a temporary name and
renamed. It is only replaced by another whole file, so readers need no lock. A file of another version is not
authentic under the name that this version expects, and is evicted later.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ovjit.disk import sealed
from ovjit.disk.folders import READ, check_owner, unused_for, write_whole
from ovjit.records import NamedTuple

_HOUR, _DAY = 3600, 24 * 3600


class Namespace(NamedTuple):
    """One kind of content. `suffix` of its files; `kind`: the 8 bytes with which they begin.

    `largest`: maximum bytes of a record. `used`: resolution of the time of last use in seconds, so that reads
    seldom write. `names`: a pattern. `lasting`: flushed to the disk. `owned`: files that other users may
    write to are refused, although they are authenticated.
    """

    suffix: str
    kind: bytes
    largest: int
    used: float = _HOUR
    names: str = "[0-9a-f]{40}"
    lasting: bool = True
    owned: bool = False


#: Object code, printed sources, and the index of operations if it cannot be beside the bytecode. Not flushed:
#: a file that a power cut damaged is not authentic, and is made again.
KERNELS = Namespace(".kernel", b"OVJITKRN", 256 << 20, _DAY, ".*", lasting=False)
#: Compiled models.
BLOBS = Namespace(".blob", b"OVJITBLB", 0, owned=True)
#: Plans for dynamic shapes, beside the blob of their model.
PLANS = Namespace(".plans", b"OVJITPLN", 8 << 20, lasting=False, owned=True)
#: The name of the blob to which a model file was compiled.
FILES = Namespace(".file", b"OVJITFIL", 4096)
#: The digest of a model that was read from files.
SOURCES = Namespace(".source", b"OVJITSRC", 4096)
#: The content of a folder of compiled models.
MODELS = (BLOBS, PLANS, FILES, SOURCES)


class Entry(NamedTuple):
    """A stored kernel or model. `about` is text for display, and not authenticated."""

    key: str
    bytes: int
    last_used: float  # seconds since the epoch, in the resolution of the namespace
    about: Mapping[str, str]


def path_of(folder: str, space: Namespace, name: str) -> str:
    return f"{folder}/{name}{space.suffix}"


def read(path: str, space: Namespace, label: str, key: bytes) -> bytes:
    """The content of the sealed record at `path`, which was written under `label`.

    Raises FileNotFoundError, another OSError, or `sealed.Damaged` for content that is not authentic.
    """
    descriptor = os.open(path, READ)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise sealed.Damaged("it is not a regular file")
        if space.owned:
            check_owner(path, status)
        if status.st_size > space.largest:
            raise sealed.Damaged(f"it has {status.st_size} bytes")
        content = sealed.unseal(space.kind, label, os.read(descriptor, status.st_size), key)
        touch(descriptor if os.utime in os.supports_fd else path, status, space)
    finally:
        os.close(descriptor)
    return content


def write(path: str, space: Namespace, label: str, content: bytes, key: bytes, about: str = "") -> int:
    """Write a sealed record to `path` atomically. Returns its bytes. Raises OSError."""
    record = sealed.seal(space.kind, label, content, key, about)
    write_whole(path, record, lasting=space.lasting)
    return len(record)


def touch(file: Any, status: os.stat_result, space: Namespace) -> None:
    """Record that a file (a path or a descriptor) has been used now."""
    if unused_for(status) > space.used:
        with contextlib.suppress(OSError):  # the folder may be read-only
            os.utime(file)


#: Pattern of temporary names. It is compiled at use, since a warm start does not need it.
_DRAFT = r"\.ovjit-[0-9a-f]+\.tmp"
_DRAFT_SECONDS = 3600  # older temporary files are from killed processes


def _files(folder: str | os.PathLike[str], *spaces: Namespace) -> Iterator[tuple[str, os.stat_result]]:
    """The files of these namespaces, and temporary files. Other files in a folder are neither counted nor
    removed."""
    names = "|".join(f"{space.names}{re.escape(space.suffix)}" for space in spaces)
    with os.scandir(folder) as items:
        for item in items:
            if re.fullmatch(names, item.name) or re.fullmatch(_DRAFT, item.name):
                with contextlib.suppress(FileNotFoundError):
                    if item.is_file(follow_symlinks=False):
                        yield item.path, item.stat(follow_symlinks=False)


def entries(
    folder: str | os.PathLike[str], space: Namespace, about: Callable[[str], Mapping[str, str] | None]
) -> list[Entry]:
    """The files of a namespace, the most recently used first. `about(path)` describes a file; None excludes
    it. Raises OSError if the folder cannot be listed."""
    result = []
    for path, status in _files(folder, space):
        text = about(path) if path.endswith(space.suffix) else None
        if text is not None:
            name = os.path.basename(path).removesuffix(space.suffix)
            result.append(Entry(name, status.st_size, status.st_mtime, text))
    return sorted(result, key=lambda entry: (-entry.last_used, entry.key))


def read_about(path: str, space: Namespace, longest: int) -> str:
    """The text about the sealed record at `path`, not authenticated. Raises OSError, `sealed.Damaged`."""
    descriptor = os.open(path, READ)
    try:
        return sealed.read_about(space.kind, os.read(descriptor, sealed.HEAD_BYTES + longest))
    finally:
        os.close(descriptor)


def evict(
    folder: str | os.PathLike[str],
    *spaces: Namespace,
    limit: int,
    target: int | None = None,
    max_age: float | None = None,
) -> int:
    """Remove old drafts, and files of these namespaces that were not used for `max_age` seconds. Then, when
    over `limit` bytes are left, remove the least recently used ones until at most `target` are (by default
    `limit`).

    Returns the bytes that are freed. Raises OSError where the folder cannot be listed.
    """
    files: list[tuple[float, int, str]] = []
    freed = 0
    for path, status in _files(folder, *spaces):
        draft = path.endswith(".tmp")
        age = unused_for(status)
        if age > _DRAFT_SECONDS if draft else max_age is not None and age > max_age:
            freed += _remove(path, status.st_size)
        elif not draft:
            files.append((age, status.st_size, path))
    total = sum(size for _, size, _ in files)
    target = limit if target is None else target
    for _, size, path in sorted(files, reverse=True) if total > limit else ():
        if total <= target:
            break
        total -= size
        freed += _remove(path, size)
    return freed


def _remove(path: str, size: int) -> int:
    try:
        os.unlink(path)
    except OSError:
        return 0  # another process was quicker, or the folder is read-only
    return size
