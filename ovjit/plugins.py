"""Packages that add to ovjit, by entry points: operations (group `ovjit.ops`), ONNX operators (`ovjit.onnx`),
readers of model formats (`ovjit.readers`).

The built-in packages are not looked up, since ovjit may lie on the path without metadata.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any

from ovjit.errors import OvjitError
from ovjit.out_of_memory import unless_short


def load_others(group: str, package: str) -> list[Any]:
    """Import what installed distributions register for `group`, except `package` and modules in it.
    Returns the modules or objects that the entry points name. OvjitError if one cannot be imported."""
    if not announces_other(group, package):
        return []
    from importlib.metadata import entry_points

    others = []
    for entry in entry_points(group=group):
        try:
            others += [] if _is_within(entry.value, package) else [entry.load()]
        except (Exception, SystemExit) as error:
            what = f"{entry.value} ({group}) cannot be imported ({type(error).__name__}: {error}"[:600]
            raise OvjitError(f"the plug-in {what}): update or uninstall its package") from error
    return others


def _is_within(value: str, package: str) -> bool:
    """True if an entry point's value, "module" or "module:object", is about `package` or a module in it."""
    module = value.partition(":")[0].strip()
    return module == package or module.startswith(package + ".")


def announces_other(group: str, package: str) -> bool:
    """True if the metadata of a distribution registers another package than `package` for `group`, or if the
    path has entries other than folders. It takes a tenth of the time of importlib.metadata."""
    folders: list[tuple[str, int]] = []
    for folder in sys.path:
        try:
            status, path = os.stat(folder or "."), os.path.abspath(folder)
        except (OSError, ValueError):  # also if the current folder has been removed
            continue
        if not stat.S_ISDIR(status.st_mode):
            return True
        folders.append((path, status.st_mtime_ns))
    return any(_announces(text, group, package) for text in _about_ovjit(tuple(folders)))


@functools.lru_cache(1)
def _about_ovjit(folders: Sequence[tuple[str, int]]) -> list[str]:
    """The texts of all `entry_points.txt` in these folders that name groups of ovjit, cached by the folders'
    modification times. An ONNX file needs two groups."""
    texts = []
    for folder, _ in folders:
        try:
            names = os.listdir(folder)
        except unless_short(OSError):
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                path = os.path.join(folder, name, "entry_points.txt")
                if os.access(path, os.R_OK):  # most have none: an exception would take as long as a file
                    try:
                        with open(path, "rb", buffering=0) as file:
                            content = file.readall()
                        if b"ovjit." in content:
                            texts.append(content.decode())
                    except unless_short(OSError, ValueError):
                        continue
    return texts


def _announces(text: str, group: str, package: str) -> bool:
    """Whether an `entry_points.txt` registers another package than `package` for `group`."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == group and "=" in line and not _is_within(line.partition("=")[2], package):
            return True
    return False
