"""Records of model file -> cached model, so that the file need not be read to find the model.

The model cache finds a blob by the content of the graph. For that the file must be read, which takes more
than half of a warm start. A sealed record names the blob of a file. The record's name derives from the file's
bytes, those of its weights, all properties, the machine, and the files of ovjit itself. Large files are
identified by their state, as in `origins`. A file without a record is read and looked up as before. ONNX
files with external data never get a record.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.codegen.versions import installed_version
from ovjit.disk import store
from ovjit.disk.folders import READ, private_folder
from ovjit.disk.keys import find_key
from ovjit.hashes import content_hash, sha256
from ovjit.records import NamedTuple
from ovjit.source_files import package_state
from ovjit.storage.blob import Imported, Merge, compiling, machine, portable
from ovjit.storage.graph_format import dump
from ovjit.storage.origins import WORTH_BYTES, Origin, file_state, read_record, write_record


class Source(NamedTuple):
    """The identity of a file: the name of its record, the large files that are identified by their state
    only, the one of them that has the weights, and the bytes of the file and its weights."""

    label: str
    origins: tuple[Origin, ...]
    weights: Origin | None = None
    size: int = 0


def source_of(path: str, settings: Mapping[str, Any]) -> Source | None:
    """Identity of the model file at `path` and its weights; None if it is not recorded.

    Other formats are not recorded, and nothing is if ovjit's own files cannot be inspected. The label covers
    the version of NumPy too: it folds constants.
    """
    ours = package_state("ovjit", "ovjit_ops")
    ending = os.path.splitext(path)[1].lower()
    if ours is None or ending not in (".xml", ".onnx"):
        return None
    origins = []
    weights = None
    size = 0
    try:
        reader = installed_version("onnx") if ending == ".onnx" else ""  # it has the bodies of functions
        versions = [ours, reader, np.__version__]
        name = sha256(dump([*versions, machine(), portable(settings), compiling(settings)]))
        for file in (path, path[:-4] + ".bin"):
            if file != path and (ending != ".xml" or not os.path.isfile(file)):
                continue
            real = os.path.realpath(file)  # stores of downloaded models give links to them
            descriptor = os.open(real, READ)
            try:
                status = os.fstat(descriptor)
                size += status.st_size
                if status.st_size < WORTH_BYTES:
                    content = os.read(descriptor, WORTH_BYTES)
                    name.update(dump(["content", content_hash(content)]))
                else:
                    origin = Origin(real, file_state(status))
                    origins.append(origin)
                    weights = origin if file != path or ending == ".onnx" else None
                    name.update(dump(["state", *origin.state]))
            finally:
                os.close(descriptor)
    except (OSError, ValueError, TypeError, ImportError):
        return None
    return Source(name.hexdigest()[:40], tuple(origins), weights, size)


def find(source: Source, settings: Mapping[str, Any], merge: Merge) -> Imported | None:
    """The cached model that was compiled of this file, None when none is known."""
    from ovjit.storage.model_cache import load_named

    folder, key = _folder_and_key(settings)
    if folder is None:
        return None
    blob = read_record(folder, store.FILES, source.label, key.value)
    if blob is None:
        return None
    return load_named(folder, blob, key.value, merge, bool(settings["ENABLE_MMAP"]))


def note(source: Source, path: str, settings: Mapping[str, Any], blob: str) -> None:
    """Record that the file, if it is still what it was, was compiled to the cached model of this name."""
    folder, key = _folder_and_key(settings)
    if folder is None or not key.lasting or source_of(path, settings) != source:
        return
    if all(origin.is_settled() and origin.is_unchanged() for origin in source.origins):
        write_record(folder, store.FILES, source.label, blob, key.value)


def _folder_and_key(settings: Mapping[str, Any]) -> tuple[str | None, Any]:
    key = find_key(settings.get("OVJIT_KEY") or None)
    try:
        folder = os.path.abspath(os.path.expanduser(settings["CACHE_DIR"]))
        private_folder(folder, ours=False)
    except (OSError, ValueError):
        return None, key  # the model cache itself says why
    return folder, key
