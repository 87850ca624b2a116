"""The state of a package's source files: a cheap stand-in for their bytes."""

from __future__ import annotations

import functools
import os
from importlib.util import find_spec


def source_files(package: str) -> list[tuple[str, int, int]] | None:
    """(path in the package, bytes, time of the last change) of every .py file.

    None where they are not simply in a folder.
    """
    spec = find_spec(package)
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        return None
    top = os.path.dirname(spec.origin)
    out = []
    folders = [top]
    while folders:
        with os.scandir(folders.pop()) as items:
            for item in items:
                if item.name.endswith(".py"):
                    status = item.stat()
                    out.append((item.path[len(top) :], status.st_size, status.st_mtime_ns))
                elif item.name != "__pycache__" and item.is_dir():
                    folders.append(item.path)
    return sorted(out)


@functools.cache
def package_state(*packages: str) -> str | None:
    """A hash of the state of all source files of these packages."""
    import hashlib

    state = [source_files(package) for package in packages]
    return None if None in state else hashlib.sha256(repr(state).encode()).hexdigest()
