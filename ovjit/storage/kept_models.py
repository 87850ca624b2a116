"""Compiled models of files, kept automatically beside the kernels, so that a second start need not compile
them.

It works like CACHE_DIR, in the folder of the kernel cache, for models that are given by file name. A blob's
name derives from the file's bytes, those of its weights (or the state of a large file, as in `origins`), all
properties, the machine, and the files of ovjit, see `file_models.Source`. The header has the same name under
the user's key, so no file can replace another.

A kept model is small: the plan, code, and constants that no function can make again from the mapped file.
Packed weights are made again at each start (`by_file`). A model that is too large is compressed, or, with
more bytes of other constants, not kept. It is written after the first inference (`late_writes`). A missing or
wrong file means a compilation as before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import debug
from ovjit.disk import store
from ovjit.disk.folders import private_folder, write_unnamed
from ovjit.disk.kernel_cache import default_cache
from ovjit.disk.keys import find_key
from ovjit.disk.notice import warn_once
from ovjit.storage.origins import bytes_of

if TYPE_CHECKING:
    from ovjit.storage.blob import Imported, Merge
    from ovjit.storage.file_models import Source

#: Maximum bytes of all kept models. Beyond it the least recently used are removed.
MAX_BYTES = 256 << 20
#: A kept model has at most one of so many parts of the bytes of the model's files.
SHARE = 10
#: Maximum bytes of a kept model whose files have fewer than `SHARE` times as many.
SMALLEST = 1 << 20
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


def may_keep(source: Source | None, settings: Mapping[str, Any]) -> bool:
    """Whether the model of this file may be kept once it is compiled. False if the file may still change
    unnoticed."""
    settled = source is not None and all(origin.is_settled() for origin in source.origins)
    return settled and folder() is not None and find_key(settings.get("OVJIT_KEY") or None).lasting


def keep_later(source: Source, again: Callable[[], Source | None], compiled: Imported) -> None:
    """Keep the compiled form of the file after its first inference, as `keep` does. Its memory is not held
    until then."""
    from ovjit.storage import by_file, late_writes
    from ovjit.storage.blob import Imported as Form

    model, inputs, outputs, config, _ = compiled
    main = model.main
    if not _is_whole(main) or len(by_file.table_of(main.program, source.weights)[0]) > _most_bytes(source):
        return

    def write(executable: Any) -> None:
        keep(source, again, Form(executable, inputs, outputs, config, False))

    late_writes.write_later(model, write)


def keep(source: Source, again: Callable[[], Source | None], compiled: Imported) -> None:
    """Keep the compiled form of the file, if it is small and the file has not changed: `again` checks that.
    A failure is silent, since the caller did not request it."""
    from ovjit.storage import by_file, model_cache
    from ovjit.storage.blob import KEPT, encode_start, header_for, sections_of
    from ovjit.storage.container import BlobError, code_in, container_parts, write_container

    where, key = folder(), find_key(compiled.config.get("OVJIT_KEY") or None)
    if where is None or not key.lasting:
        return
    try:
        if source.weights is None:  # no mapped file
            sections = sections_of(compiled.executable, once=True, loaded=True)
        else:
            sections = by_file.sections(compiled.executable, source.weights, encode_start)
        sections["header"] = header_for(KEPT + source.label, *compiled[1:4])
        blob = container_parts(sections, key.value)
        if sum(map(len, blob)) > _most_bytes(source):  # compressed, it takes longer to read
            blob = [write_container(sections, key.value)]
        settled = all(origin.is_settled() and origin.is_unchanged() for origin in source.origins)
        if sum(map(len, blob)) > _most_bytes(source) or not settled or again() != source:
            return
        path = store.path_of(where, store.BLOBS, source.label)
        private_folder(where, ours=True)
        write_unnamed(path, *blob)
        if not compiled.executable.main.static:
            from ovjit.storage import plans

            plans.keep_traced(path, code_in(blob[0]), key.value, compiled.executable)
        model_cache.prune(where, MAX_BYTES)
    except (BlobError, TypeError, MemoryError):  # the model has content that blobs cannot store
        pass
    except OSError as error:
        warn_once(f"write {where}", f"compiled models are not kept in {where}: {error}", error)


def _most_bytes(source: Source) -> int:
    """Maximum bytes of the kept model of this file."""
    return max(source.size // SHARE, SMALLEST)


def prune(max_bytes: int | None = None, max_age: float | None = None) -> int:
    """As `model_cache.prune`, for the models in the default cache."""
    from ovjit.storage import model_cache

    kernels = default_cache().path
    limit = MAX_BYTES if max_bytes is None else max_bytes
    with contextlib.suppress(OSError):  # none was ever kept
        return 0 if kernels is None else model_cache.prune(os.path.join(kernels, _FOLDER), limit, max_age)
    return 0


def _is_whole(executable: Any) -> bool:
    """Whether the model is a single program. With graph breaks it is assembled from several at run time, and
    a blob would save little."""
    return getattr(executable.program, "constants", None) is not None and not executable.is_cut
