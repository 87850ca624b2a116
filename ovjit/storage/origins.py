"""Files that weights were read from, and their digests.

A model read from a file is hashed to look it up among cached models. While a file's device, inode, size and
times are unchanged, its bytes are, too. A sealed record in the cache folder then replaces the hash. Its name
derives from all these properties; its content is the digest.

A store through a shared mapping changes a file's times only at the first write to a page since the file was
mapped; on tmpfs it never does. So a record is made only on file systems with known behaviour, and only while
the file is not open for writing. The system proves that by granting a lease. It grants leases to the file's
owner only, so other users' weights are hashed each time.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import Any

import numpy as np

from ovjit.disk import sealed, store
from ovjit.disk.folders import READ
from ovjit.disk.notice import warn_once
from ovjit.file_maps import map_file
from ovjit.graph.graph import Graph
from ovjit.hashes import sha256_for
from ovjit.records import NamedTuple
from ovjit.storage.graph_format import Arrays, digest_of, dump, encode_graph, raw_bytes

#: Minimum bytes for a record. Fewer are hashed faster than a record is read.
WORTH_BYTES = 1 << 20
#: A file changed so recently may change again within the same tick of its clock.
SETTLED_SECONDS = 2.0


#: File systems that set a file's times when a mapped page is first written to.
_TELLING = frozenset(("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "xfs"))


class Origin(NamedTuple):
    """The file that an array was read from, and its state when it was opened. `path` is not a symbolic
    link."""

    path: str
    state: tuple[int, ...]

    def is_unchanged(self) -> bool:
        """True while the path names the same file and nothing has been written to it."""
        try:
            return file_state(os.stat(self.path)) == self.state
        except OSError:
            return False

    def is_settled(self) -> bool:
        """True when a change from now on would be seen in the file's times."""
        return max(self.state[-2:]) < (time.time() - SETTLED_SECONDS) * 1e9 and self._has_no_writer()

    def _has_no_writer(self) -> bool:
        """True if the file is not open or mapped for writing, and later writes will show."""
        if _file_system(self.state[0]) not in _TELLING:
            return False
        import fcntl
        import signal

        try:
            descriptor = os.open(self.path, READ)
            try:
                # a process that opens it at this moment waits; the signal that would report it is ignored
                fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            finally:
                os.close(descriptor)
        except (OSError, AttributeError):  # a writer, another's file, another operating system
            return False
        return True


def _file_system(device: int) -> str:
    """The type of the file system with this device number; "" if it is unknown."""
    if not hasattr(os, "major"):  # Windows
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split()
                if fields[2] == number:
                    return fields[fields.index("-") + 1]
    except (OSError, LookupError, ValueError):
        pass
    return ""


def file_state(status: os.stat_result) -> tuple[int, ...]:
    """Device, inode, size, and the times of the last change of the content (mtime) and of anything (ctime),
    in ns.

    Programs can set mtime back, but not ctime.
    """
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


_origins: dict[int, tuple[weakref.ref[np.ndarray], Origin]] = {}


def remember_origin(array: np.ndarray, path: Any, status: os.stat_result) -> None:
    """`array` holds all bytes of the file at `path`, whose state is `status`."""
    if not status.st_ino or array.nbytes != status.st_size:
        return
    number = id(array)
    reference = weakref.ref(array, lambda _: _origins.pop(number, None))
    _origins[number] = reference, Origin(os.path.realpath(os.fsdecode(path)), file_state(status))


def origin_of(array: np.ndarray) -> tuple[Origin, int] | None:
    """The file that has the array's bytes, and their offset; None for other memory."""
    base = array.base
    record = _origins.get(id(base))
    if record is None or record[0]() is not base or not array.flags.c_contiguous:
        return None
    assert isinstance(base, np.ndarray)
    return record[1], array.ctypes.data - base.ctypes.data


def place_in(array: np.ndarray, origin: Origin) -> int | None:
    """The offset in the file `origin` of the first element of an array, a view of the file in any order. None
    for other memory."""
    record = _origins.get(id(array.base))
    if record is None or record[0]() is not array.base or record[1] != origin:
        return None
    assert isinstance(array.base, np.ndarray)
    return array.ctypes.data - array.base.ctypes.data


#: Smaller arrays of a graph are stored in the blob, even if they are in a file.
SMALLEST = 4096


class Elsewhere:
    """The places of a graph's arrays that are in a file, for `graph_format.Arrays`. It is the file of the
    first such array, if it is unchanged and has no writer."""

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self._looked = False

    def __call__(self, array: np.ndarray) -> tuple[str, int] | None:
        location = origin_of(array) if array.nbytes >= SMALLEST else None
        if location is None:
            return None
        if not self._looked:
            self._looked = True
            if location[0].is_settled() and location[0].is_unchanged():
                self.origin = location[0]
        return ("file", location[1]) if location[0] == self.origin else None


def bytes_of(origin: Origin, mapped: bool = True) -> np.ndarray | None:
    """The bytes of a file, `mapped` or read; None if it has changed."""
    try:
        descriptor = os.open(origin.path, READ)
        try:
            status = os.fstat(descriptor)
            if file_state(status) != origin.state:
                return None
            if mapped:
                content = np.frombuffer(map_file(descriptor), np.uint8)
            else:
                with open(descriptor, "rb", closefd=False) as file:
                    content = np.frombuffer(file.read(), np.uint8)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return None
    remember_origin(content, origin.path, status)
    return content


def known_digest(graph: Graph, folder: str, key: bytes, lasting: bool) -> str:
    """`digest_of` the graph, from a record in `folder` if there is one for the files' state.

    Writes a missing record if the key is `lasting`. Raises TypeError as `encode_graph` does.
    """
    arrays = Arrays()
    tables = dump(encode_graph(graph, arrays))
    spans = [origin_of(array) for array in arrays.parts]
    files = {span[0] for span in spans if span is not None}
    spared = sum(a.nbytes for a, span in zip(arrays.parts, spans, strict=True) if span is not None)
    if spared < WORTH_BYTES or not all(file.is_unchanged() for file in files):
        return digest_of(tables, arrays)
    name = sha256_for(sum(array.nbytes for array in arrays.parts) - spared)(tables)
    for array, span in zip(arrays.parts, spans, strict=True):
        if span is None:
            name.update(raw_bytes(array).data)
        else:
            name.update(dump([*span[0].state, span[1], array.nbytes]))
    label = name.hexdigest()[:40]
    recorded = read_record(folder, store.SOURCES, label, key)
    if recorded is not None:
        return recorded
    result = digest_of(tables, arrays)
    if lasting and all(file.is_settled() and file.is_unchanged() for file in files):
        write_record(folder, store.SOURCES, label, result, key)
    return result


def read_record(folder: str, space: store.Namespace, label: str, key: bytes) -> str | None:
    """The text of the sealed record `label`; None without an authentic one."""
    path = store.path_of(folder, space, label)
    try:
        return store.read(path, space, label, key).decode()
    except FileNotFoundError:
        return None
    except (OSError, sealed.Damaged) as error:
        warn_once(
            f"hashes {folder}", f"{path} is not used, the model's weights are hashed again: {error}", error
        )
        return None


def write_record(folder: str, space: store.Namespace, label: str, text: str, key: bytes) -> None:
    """Write a text as the sealed record `label`. A failure is one warning."""
    try:
        store.write(store.path_of(folder, space, label), space, label, text.encode(), key)
    except OSError as error:
        warn_once(f"write {folder}", f"compiled models are not kept in {folder}: {error}", error)
