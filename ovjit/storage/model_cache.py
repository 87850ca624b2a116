"""The model cache (CACHE_DIR): one blob for every compilation, found by a hash of all inputs.

A file's name is the hash of its blob's header: the graph's content down to its weights' bytes, properties,
versions, CPU. A file is used only if this user's key authenticates it and its header is the requested one.
Anything else, and any fault of the disk, means a compilation and at most one warning.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.disk import store
from ovjit.disk.folders import Untrusted, check_owner, private_folder, write_whole
from ovjit.disk.keys import find_key
from ovjit.disk.notice import warn_once
from ovjit.graph.graph import Graph
from ovjit.graph.ports import PortInfo
from ovjit.hashes import sha256
from ovjit.storage.blob import Imported, Merge, Moved, header_for, load_container, save_blob, sections_of
from ovjit.storage.container import BlobError, Container, code_in, container_parts
from ovjit.storage.encryption import MARK, PROPERTY, decrypt, encrypt
from ovjit.storage.graph_format import parse
from ovjit.storage.kept_memory import KeptMemory
from ovjit.storage.mapped import read_file
from ovjit.storage.origins import Elsewhere, known_digest

if TYPE_CHECKING:
    from ovjit.compiler.options import Memory

MAX_BYTES = 16 << 30
#: Estimated maximum bytes of a blob besides packed weights.
_BESIDE = 32 << 20


def cached_model(
    folder: str, graph: Graph, inputs: Sequence[PortInfo], outputs: Sequence[PortInfo],
    settings: dict[str, Any], merge: Merge, make: Callable[[Memory | None], Any],
    on_stored: Callable[[str], None] | None = None,
) -> Imported:  # fmt: skip
    """The model in `folder` for this graph and all properties in `settings`, else the result of `make`, which
    is then stored.

    Packed weights are written to the file directly: the argument of `make` allocates their memory. `merge`:
    as for `load_blob`. `on_stored` is called with the name of the blob, if one is stored."""
    key = find_key(settings.get("OVJIT_KEY") or None)
    ends = tuple(inputs), tuple(outputs)
    try:
        folder = os.path.abspath(os.path.expanduser(folder))
        private_folder(folder, ours=False)
        source = known_digest(graph, folder, key.value, key.lasting)
        header = header_for(source, *ends, settings)
    except (OSError, TypeError, ValueError) as error:
        warn_once(f"models {folder}", f"compiled models are not kept in {folder}: {error}", error)
        return Imported(make(None), *ends, settings, False)
    # encrypted models have other names, so that they do not replace plain ones
    name = name_of(header + MARK if settings.get(PROPERTY) else header)
    path = store.path_of(folder, store.BLOBS, name)
    mapped = bool(settings["ENABLE_MMAP"])
    imported = load_checked(path, lambda there: there == header, key.value, merge, mapped, settings)
    is_stored = imported is not None
    if imported is None:
        room = KeptMemory(folder, lambda size: _has_room(folder, size))
        plain = key.lasting and not settings.get(PROPERTY) and settings.get("card") is None
        try:
            imported = Imported(make(room.give if plain else None), *ends, settings, False)
            is_stored = key.lasting and _keep(path, imported, source, key.value, room)
        finally:
            room.drop()
    if is_stored and on_stored is not None:
        on_stored(name)
    return imported


def name_of(header: bytes) -> str:
    """The name in the cache of the blob with this header."""
    return sha256(header).hexdigest()[:40]


def load_named(folder: str, name: str, key: bytes, merge: Merge, use_mmap: bool) -> Imported | None:
    """The cached model of this name. None if it does not exist, or if its header has another name."""
    path = store.path_of(folder, store.BLOBS, name)
    return load_checked(path, lambda there: name_of(there) == name, key, merge, use_mmap)


def load_checked(
    path: str, is_its: Callable[[bytes], bool], key: bytes, merge: Merge, use_mmap: bool,
    settings: Mapping[str, Any] | None = None, file: np.ndarray | None = None,
) -> Imported | None:  # fmt: skip
    """The cached model at `path`. None if it does not exist, if this user's key does not authenticate it, or
    if `is_its(header)` is false. `file`: as for `load_container`."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted("it is not a regular file")
        check_owner(path, status)  # other writers could truncate it while it is mapped
        container = Container(decrypt(read_file(path, use_mmap), settings or {}))
        if not is_its(container.sections["header"]):
            raise BlobError("the file is the cached blob of another model")
        reason = container.why_foreign(key)
        if reason:
            raise BlobError(reason)
        imported = load_container(container, merge, file)
        main = imported.executable.main
        of_cpu = imported.config.get("card") is None
        if imported.used and of_cpu and not main.static and not (settings or {}).get(PROPERTY):
            from ovjit.storage import plans

            plans.find(path, container.code, key, imported.executable)
        store.touch(path, status, store.BLOBS)
        return imported
    except (FileNotFoundError, Moved):
        return None
    except (OSError, BlobError, MemoryError) as why:
        warn_once(f"read {os.path.dirname(path)}", f"the cached model {path} is compiled again: {why}", why)
        return None


def _keep(path: str, imported: Imported, source: str, key: bytes, room: KeptMemory) -> bool:
    """Write the compiled model to `path`. Returns whether that was possible. `source`: the digest of its
    graph. `room`: may have the memory of its packed weights."""
    folder = os.path.dirname(path)
    try:
        if imported.config.get(PROPERTY):
            blob = save_blob(imported.executable, imported.inputs, imported.outputs, imported.config, source)
            write_whole(path, encrypt(blob, imported.config))
        else:
            write_plain(path, imported, source, key, room)
        prune(folder, MAX_BYTES)
        return True
    except (OSError, BlobError, MemoryError) as error:
        warn_once(f"write {folder}", f"compiled models are not kept in {folder}: {error}", error)
        return False


def write_plain(path: str, imported: Imported, source: str, key: bytes, room: KeptMemory) -> None:
    """Write the blob in parts, without a copy. The graph's weights in a mapped file stay there."""
    mapped = Elsewhere() if imported.config["ENABLE_MMAP"] else None
    sections = sections_of(imported.executable, mapped)
    sections["header"] = header_for(source, imported.inputs, imported.outputs, imported.config)
    main = imported.executable.main
    placed = room.is_memory(main.program.memory)
    parts = container_parts(sections, key, *(("packed", room.read) if placed else ()))
    if placed:
        head, summed, gap, _, *tail = parts
        room.keep(path, (head, summed, gap), tail)
    else:
        write_whole(path, *parts, lasting=False)  # a file that a power cut damaged is not authentic
    if not main.static and imported.config.get("card") is None:
        from ovjit.storage import plans

        plans.keep_traced(path, code_in(parts[0]), key, imported.executable)


def _has_room(folder: str, size: int) -> bool:
    """Whether the disk has room for `size` bytes and the rest of a blob."""
    try:
        disk = os.statvfs(folder)
    except (OSError, AttributeError):
        return False
    return size + size // 8 + _BESIDE <= disk.f_bavail * disk.f_frsize


def prune(folder: str | os.PathLike[str], max_bytes: int = MAX_BYTES, max_age: float | None = None) -> int:
    """Remove models unused for `max_age` seconds, then the least recently used ones until `max_bytes` remain.

    Returns the bytes freed. Files that are no cached models are left alone. Raises OSError when the folder
    cannot be listed.
    """
    return store.evict(folder, *store.MODELS, limit=max_bytes, max_age=max_age)


def entries(folder: str | os.PathLike[str]) -> list[store.Entry]:
    """The models in a folder, the most recently used first; files that are no whole blobs are left out.

    Raises OSError when the folder cannot be listed.
    """
    return store.entries(folder, store.BLOBS, _about)


def _about(path: str) -> dict[str, str] | None:
    """Facts from the header of a blob; None for a file that is not a whole blob."""
    with contextlib.suppress(OSError, BlobError, LookupError, TypeError, AttributeError):
        header = parse(Container(read_file(path, True)).sections["header"], "header")
        about = {name: str(header["machine"][name]) for name in ("ovjit", "numba", "isa")}
        return {**about, "name": str(header["name"])}
    return None
