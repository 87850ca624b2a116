"""Compiled models of files, kept automatically beside the kernels, so that a second start need not compile
them.

It works like CACHE_DIR, in the folder of the kernel cache, for models that are given by file name. A blob's
name derives from the file's bytes, those of its weights (or the state of a large file, as in `origins`), all
properties, the machine, and the files of ovjit, see `file_models.Source`. The header has the same name under
the user's key, so no file can replace another.

Packed weights are kept in the kernels' form, packed straight into the file (`kept_memory`) and mapped, if the
disk has room. Otherwise those of mapped files stay in their files and are packed at every start (`by_file`).
A missing or wrong file means a compilation as before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import debug
from ovjit.disk import store
from ovjit.disk.folders import private_folder, write_whole
from ovjit.disk.kernel_cache import default_cache
from ovjit.disk.keys import find_key
from ovjit.disk.notice import warn_once
from ovjit.storage.origins import bytes_of

if TYPE_CHECKING:
    from ovjit.storage.blob import Imported, Merge
    from ovjit.storage.file_models import Source
    from ovjit.storage.kept_memory import KeptMemory

#: Maximum bytes of all kept models. Beyond it the least recently used are removed.
MAX_BYTES = 2 << 30
#: Maximum bytes of a blob without packed weights.
LARGEST = 32 << 20
#: Maximum bytes of packed weights in a blob. Stored weights need not be packed at each start.
LARGEST_PACKED = 512 << 20
#: Packed weights are stored if the disk has this many times as many bytes free.
_FREE = 16
_FOLDER = "models"
_WATCHING = ("OVJIT_DEBUG", "OVJIT_DUMP", "OVJIT_CHECK", "OVJIT_COMPARE", "OVJIT_INTERP")


def folder() -> str | None:
    """The folder of kept models. None if none are kept: without a kernel cache, or with a variable of
    `_WATCHING`, which observes compilations."""
    kernels = default_cache().path
    if kernels is None or any(map(debug.flag, _WATCHING)):
        return None
    return os.path.join(kernels, _FOLDER)


def find(source: Source, settings: Mapping[str, Any], merge: Merge) -> Imported | None:
    """The kept model of this file with these properties; None if there is none."""
    from ovjit.storage.blob import KEPT
    from ovjit.storage.graph_format import parse
    from ovjit.storage.model_cache import load_checked

    where, key = folder(), find_key(settings.get("OVJIT_KEY") or None)
    if where is None or not key.lasting:
        return None

    def is_its(header: bytes) -> bool:
        return parse(header, "header")["source"] == KEPT + source.label

    path = store.path_of(where, store.BLOBS, source.label)
    if not os.path.exists(path):
        return None
    mapped = bool(settings["ENABLE_MMAP"])
    weights = source.weights
    file = np.zeros(0, np.uint8) if weights is None else bytes_of(weights) if mapped else None
    if file is None:  # the file has changed, or may not be mapped
        return None
    return load_checked(path, is_its, key.value, merge, mapped, None, file)


@contextlib.contextmanager
def compiling(source: Source | None, settings: Mapping[str, Any]) -> Iterator[KeptMemory | None]:
    """Yields the memory for the packed weights of a compilation of the file. It is in the file of the future
    kept model, and is passed to the compiler and to `keep`. None if nothing will be kept."""
    where = folder()
    settled = source is not None and all(origin.is_settled() for origin in source.origins)
    if where is None or not settled or not find_key(settings.get("OVJIT_KEY") or None).lasting:
        yield None
        return
    from ovjit.storage.kept_memory import KeptMemory

    kept = KeptMemory(where, lambda size: _has_room(where, size), ours=True)
    try:
        yield kept
    finally:
        kept.drop()


def keep(
    source: Source, again: Callable[[], Source | None], made: Imported, room: KeptMemory | None = None
) -> None:
    """Keep the compiled form of the file, if it is small and the file has not changed: `again` checks that.
    `room`: as `compiling` gave it. A failure is silent, since the caller did not request it."""
    from ovjit.storage import by_file, model_cache
    from ovjit.storage.blob import KEPT, header_for
    from ovjit.storage.container import BlobError, code_in, container_parts

    where, key = folder(), find_key(made.config.get("OVJIT_KEY") or None)
    main = made.executable.main
    if where is None or not key.lasting or not _is_whole(main):
        return
    placed = room is not None and room.is_memory(main.program.memory)
    whole = placed or _has_room(where, main.program.memory.nbytes)
    if not (whole or _is_small(main)):
        return
    try:
        sections = by_file.sections(made.executable, source.weights, whole)
        header = header_for(KEPT + source.label, made.inputs, made.outputs, made.config)
        first = ("packed", room.read) if room is not None and placed else ()
        blob = container_parts({**sections, "header": header}, key.value, *first)
        settled = all(origin.is_settled() and origin.is_unchanged() for origin in source.origins)
        beside = sum(map(len, blob)) - (len(sections["packed"]) if whole else 0)
        if beside > LARGEST or not settled or again() != source:
            return
        path = store.path_of(where, store.BLOBS, source.label)
        _write(path, blob, room if placed else None)
        if whole and not main.static:
            from ovjit.storage import plans

            plans.keep_traced(path, code_in(blob[0]), key.value, made.executable)
        model_cache.prune(where, MAX_BYTES)
    except (BlobError, TypeError, MemoryError):  # the model has content that blobs cannot store
        pass
    except OSError as error:
        warn_once(f"write {where}", f"compiled models are not kept in {where}: {error}")


def _write(path: str, blob: Sequence[Any], room: KeptMemory | None) -> None:
    """Write the parts of a blob to a file: to that of `room`, which has the packed weights, or to a new
    one."""
    if room is not None:
        head, summed, gap, _, *behind = blob
        room.keep(path, (head, summed, gap), behind)
        return
    private_folder(os.path.dirname(path), ours=True)
    write_whole(path, *blob, lasting=False)


def prune(max_bytes: int | None = None, max_age: float | None = None) -> int:
    """As `model_cache.prune`, for the kept models."""
    from ovjit.storage import model_cache

    kernels = default_cache().path
    if kernels is None:
        return 0
    with contextlib.suppress(OSError):  # none was ever kept
        limit = MAX_BYTES if max_bytes is None else max_bytes
        return model_cache.prune(os.path.join(kernels, _FOLDER), limit, max_age)
    return 0


def _is_whole(executable: Any) -> bool:
    """Whether the model is a single program. With graph breaks it is assembled from several at run time, and
    a blob would save little."""
    return getattr(executable.program, "constants", None) is not None and not executable.is_cut


def _is_small(executable: Any) -> bool:
    """Whether the constants that are in no model file are small enough to be stored."""
    constants = executable.program.constants
    return constants.size - sum(size for _, size, *_ in constants.of_files) <= LARGEST


def _has_room(where: str, size: int) -> bool:
    """Whether `size` bytes of packed weights may be stored."""
    if not hasattr(os, "statvfs"):
        return False
    if size > LARGEST_PACKED:
        return False
    kernels = os.path.dirname(where)
    try:
        disk = os.statvfs(where if os.path.isdir(where) else kernels)
    except OSError:
        return False
    return size * _FREE <= disk.f_bavail * disk.f_frsize
