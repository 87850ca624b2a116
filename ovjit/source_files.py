"""The state of a package's source files: a cheap stand-in for their bytes.

What is made of the files can be kept beside Python's own bytecode of the package, with the same trust. It is
good for one state of them: what differs in a name, size or time makes it void.
"""

from __future__ import annotations

import functools
import marshal
import os
import sys
from importlib.util import cache_from_source, find_spec
from typing import Any


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
    from ovjit.hashes import sha256

    state = [source_files(package) for package in packages]
    return None if None in state else sha256(repr(state).encode()).hexdigest()


def read_kept(package: str, name: str) -> Any:
    """What was kept under this name of the package's files as they are; None when nothing was."""
    place = _place(package, name)
    if place is None:
        return None
    try:
        with open(place, "rb") as file:
            state, value = marshal.loads(file.read())
        return value if state == _state(package) else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


def keep(package: str, name: str, value: Any) -> None:
    """Keep what was made of the package's files, of Python's own plain types."""
    place = _place(package, name)
    if place is None or sys.dont_write_bytecode:
        return
    draft = f"{place}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(draft, "wb") as file:
            file.write(marshal.dumps([_state(package), value]))
        os.replace(draft, place)
    except OSError:
        return  # a folder that nobody may write to: it is made each time


def _place(package: str, name: str) -> str | None:
    spec = find_spec(package)
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        return None  # in a zip archive, say
    try:
        return cache_from_source(os.path.join(os.path.dirname(spec.origin), f"{name}.py"))
    except NotImplementedError:
        return None


def _state(package: str) -> list[Any]:
    return [sys.version, source_files(package)]
