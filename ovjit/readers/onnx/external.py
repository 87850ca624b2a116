"""Data of tensors in files beside the model: only regular files inside its folder, and only bytes that are
there."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.errors import ModelError
from ovjit.readers.files.weights import load_weights, mapped_or_read

_KEYS = frozenset(("location", "offset", "length", "checksum"))
_NUMBER = re.compile(r"[0-9]{1,19}")


class ExternalData:
    """Reads the data files of one model.

    `model` is the model's path, None if it was given as bytes. `contents` may give files by their location. A
    file is read if it lies in the model's folder, or in the folder of the file that the model links to. A
    model and its data may be links into a store, as in a Hugging Face cache. Neither ".." nor a link may lead
    out. Each file is opened once, and mapped from 1 MiB on if `use_mmap`.
    """

    def __init__(self, model: Any = None, contents: Mapping[str, Any] | None = None, use_mmap: bool = True):
        self._model = None if model is None else os.path.abspath(os.fsdecode(model))
        self._contents = contents or {}
        self._use_mmap = use_mmap
        self._files: dict[str, np.ndarray] = {}
        self.cut: dict[bytes, np.ndarray] = {}  # as `tensors.Outside` says

    @property
    def has_files(self) -> bool:
        """True when data of other files have been read."""
        return bool(self._files)

    def __call__(self, tensor: Any, size: int) -> np.ndarray:
        """The `size` bytes of a tensor's data, read-only. Raises ModelError for whatever does not fit."""
        entries = read_entries(tensor)
        location = entries.get("location", "")
        offset = _number(entries.get("offset", "0"), "offset")
        if "length" in entries and _number(entries["length"], "length") != size:
            raise ModelError(
                f"a tensor's external data have {entries['length'][:20]} bytes, but the tensor needs {size}"
            )
        data = self._files.get(location)
        if data is None:
            data = self._files[location] = self._load(location)
        if offset + size > data.size:
            raise ModelError(
                f"a tensor's external data, {size} bytes at offset {offset}, are outside of the "
                f"{data.size} bytes of {location[:200]!r}"
            )
        return data[offset : offset + size]

    def _load(self, location: str) -> np.ndarray:
        if location in self._contents:
            return load_weights(self._contents[location])
        if self._model is None:
            raise ModelError(
                f"a tensor's data are in {location[:200]!r}, but the model was given without a path: "
                "give the path, or the contents as weights={location: bytes}"
            )
        path = self._find(location)
        try:
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"invalid external data: {location[:200]!r} cannot be opened: {error}"
            ) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise ModelError(f"the external data {location[:200]!r} are not a regular file")
        with os.fdopen(descriptor, "rb") as file:
            if status.st_nlink > 1:
                raise ModelError(
                    f"the external data {location[:200]!r} are a hard link, which is not accepted: copy "
                    "the file"
                )
            return mapped_or_read(file, path, self._use_mmap)

    def _find(self, location: str) -> str:
        """The real path of a location. Raises ModelError if it is not inside the model's folder."""
        assert self._model is not None
        parts = location.split("/")
        if (
            not location
            or "\0" in location
            or "\\" in location
            or os.path.isabs(location)
            or ".." in parts
            or re.match("[A-Za-z]:", location)
        ):
            raise ModelError(
                f"the external data's location {location[:200]!r} is not accepted: it is "
                "outside of the model's folder"
            )
        folder = os.path.dirname(self._model)
        real = os.path.realpath(os.path.join(folder, location))
        homes = (os.path.realpath(folder), os.path.dirname(os.path.realpath(self._model)))
        if not any(real.startswith(home.rstrip(os.sep) + os.sep) for home in homes):
            raise ModelError(
                f"the external data's location {location[:200]!r} is not accepted: it resolves to "
                f"{real[:200]!r}, outside of the model's folder {homes[0][:200]!r}"
            )
        return real


def read_entries(tensor: Any) -> dict[str, str]:
    """The entries of a tensor's `external_data`. Raises ModelError for unknown and repeated keys."""
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KEYS:
            raise ModelError(f"external data have the unknown key {entry.key[:40]!r}")
        if entry.key in entries:
            raise ModelError(f"external data have the key {entry.key!r} twice")
        entries[entry.key] = entry.value
    return entries


def _number(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ModelError(f"the {what} of external data should be a non-negative number, not {text[:40]!r}")
    return int(text)
