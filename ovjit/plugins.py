"""Packages that add to ovjit, by entry points: operations (group `ovjit.ops`), ONNX operators (`ovjit.onnx`).

The built-in packages are not looked up, since ovjit may lie on the path without metadata.
"""

from __future__ import annotations

import os
import sys


def import_others(group: str, own: str) -> None:
    """Import every package that an installed distribution announces in `group`, except the package `own`."""
    if not announced(group, own):
        return
    from importlib.metadata import entry_points

    for entry in entry_points(group=group):
        if entry.value.partition(":")[0] != own:
            entry.load()


def announced(group: str, own: str) -> bool:
    """Whether the metadata of some distribution announces another package than `own` in `group`. True where
    the path has more than folders. It takes a tenth of the time that importlib.metadata takes."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except NotADirectoryError:
            return True
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                        text = file.read()
                except (OSError, ValueError):
                    continue
                if group in text and _announces(text, group, own):
                    return True
    return False


def _announces(text: str, group: str, own: str) -> bool:
    """Whether an `entry_points.txt` has another package than `own` in `group`."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[] ")
        elif section == group and "=" in line:
            if line.partition("=")[2].partition(":")[0].strip() != own:
                return True
    return False
