"""One file with the bytecode of many modules, beside Python's own: imports without a look at each file.

A first compilation imports some 170 modules. To find, check and open their files takes a tenth of its time.
The file is valid for one state of the sources (`source_files`), and is written when a process ends that had
to look at many files. It has the modules that processes have imported, as far as Python has written their
bytecode. Other modules, and other kinds of installations (archives, programs, bytecode alone), are imported
as usual.
"""

from __future__ import annotations

import atexit
import marshal
import mmap
import os
import sys
from binascii import crc32
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER, spec_from_file_location
from types import CodeType
from typing import Any

from ovjit import collector, source_files
from ovjit.source_files import SUM

PACKAGES = source_files.OWN
NAME = "modules"
#: A process that has imported so many modules from files of their own writes the file anew when it ends.
MANY = 16
#: Bytes before the code in a .pyc file: magic number, flags, the time and the size of the source.
_HEADER = 16

#: The ending of a file with bytecode in the folder __pycache__; "" if it has another name or folder.
_CACHED = f".{sys.implementation.cache_tag}.pyc"
if sys.pycache_prefix is not None or sys.flags.optimize or sys.implementation.cache_tag is None:
    _CACHED = ""

#: name of a module -> its source, whether it is a package, where its code begins and ends. A checksum of the
#: code follows it.
Places = dict[str, tuple[str, bool, int, int]]


class CachedLoader(SourceFileLoader):
    """Python's own loader of a source file, but for where the bytecode comes from. Damaged code is that of
    the source."""

    def __init__(self, name: str, path: str, code: memoryview, finder: _Finder | None = None):
        super().__init__(name, path)
        self.code, self._finder = code, finder

    def get_code(self, fullname: str) -> CodeType | None:
        if self._finder is not None and not self._finder.is_whole(fullname):
            self._finder.forget(fullname)
            return super().get_code(fullname)
        code: CodeType = marshal.loads(self.code)
        return code


class _Finder:
    """Finds the modules that `content` has at `entries`. `is_damaged`: some of them have been forgotten."""

    def __init__(self, content: memoryview, entries: Places):
        self.content, self.entries = content, entries
        self.is_damaged = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        entry = self.entries.get(name)
        if entry is None:
            return None
        file, is_package, begin, end = entry
        loader = CachedLoader(name, file, self.content[begin:end], self)
        folder, _, base = file.rpartition(os.sep)
        folders = [folder] if is_package else None
        spec = spec_from_file_location(name, file, loader=loader, submodule_search_locations=folders)
        if spec is not None and _CACHED:  # importlib takes a third of an import's own time to name it
            spec.cached = os.sep.join((folder, "__pycache__", base[:-3] + _CACHED))
        return spec

    def is_whole(self, name: str) -> bool:
        """Whether the code of a module is as it was written."""
        entry = self.entries.get(name)
        if entry is None:
            return False
        _, _, begin, end = entry
        return crc32(self.content[begin:end]) == int.from_bytes(self.content[end : end + SUM], "little")

    def forget(self, name: str) -> None:
        """Leave out a module, whose code is damaged."""
        self.entries.pop(name, None)
        self.is_damaged = True


_is_installed = False


def install() -> None:
    """Import modules from the file from now on, if there is one of the sources as they are."""
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    path = source_files.place_beside("ovjit", NAME)
    if path is None:
        return
    finder = _read(path)
    if finder is not None:
        sys.meta_path.insert(0, finder)
    if not sys.dont_write_bytecode and os.access(os.path.dirname(path), os.W_OK):
        atexit.register(_write_if_many, path, finder)


def imports_from_file() -> AbstractContextManager[None]:
    """A context for imports: they come from the file, and collections are rare."""
    install()
    return collector.seldom(imports_only=True)


def _made_of() -> list[Any] | None:
    """The state that a cache file is valid for; None if the sources cannot be inspected.

    Inspecting them takes 3 ms, so it is called only if a file exists or is written.
    """
    state = source_files.package_state(*PACKAGES)
    folders = None if state is None else [source_files.folder_of(package) for package in PACKAGES]
    return None if folders is None else [state, *folders, MAGIC_NUMBER, sys.version]


def _read(path: str) -> _Finder | None:
    try:
        with source_files.open_trusted(path) as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        begin = 8 + int.from_bytes(content[:8], "little")
        made_of, entries, end = marshal.loads(source_files.check_sum(content[8:begin]))
        is_complete = len(content) == begin + end and made_of == _made_of()
        return _Finder(content[begin:], entries) if is_complete else None
    except (OSError, ValueError, EOFError, TypeError):
        return None  # not there, damaged, of another user, or of other files


def _write_if_many(path: str, finder: _Finder | None) -> None:
    """Write the file if many modules that this process has imported were not in it, and have bytecode, or if
    some of it was damaged."""
    cached = {} if finder is None else finder.entries
    is_damaged = finder is not None and finder.is_damaged
    parts: dict[tuple[str, str, bool], bytes | memoryview] = {}
    for name, module in list(sys.modules.items()):
        spec = module.__spec__ if name.partition(".")[0] in PACKAGES and name not in cached else None
        if spec is None or spec.name != name:  # an alias' second name: as a module of its own it would be two
            continue
        if type(spec.loader) in (SourceFileLoader, CachedLoader) and spec.origin is not None:
            code = _bytecode(spec.origin, spec.cached)
            if code is not None:
                parts[name, spec.origin, spec.submodule_search_locations is not None] = code
    made_of = _made_of() if is_damaged or len(parts) >= MANY else None
    if made_of is None:
        return
    if finder is not None:
        intact = {name: at for name, at in cached.items() if finder.is_whole(name)}
        parts |= {(name, *at[:2]): finder.content[at[2] : at[3]] for name, at in intact.items()}
    source_files.write(path, _packed(made_of, parts))


def _packed(made_of: list[Any], parts: Mapping[tuple[str, str, bool], bytes | memoryview]) -> bytes:
    entries: Places = {}
    content: list[bytes | memoryview] = []
    end = 0
    for (name, path, is_package), code in parts.items():
        entries[name] = (path, is_package, end, end + len(code))
        end += len(code) + SUM
        content += code, crc32(code).to_bytes(SUM, "little")
    index = source_files.with_sum(marshal.dumps([made_of, entries, end]))
    return b"".join([len(index).to_bytes(8, "little"), index, *content])


def _bytecode(path: str, cached: str | None) -> bytes | None:
    """The code in a .pyc file, if it is of the source as it is, and was compiled of it where it is."""
    try:
        status = os.stat(path)
        with open(cached or "", "rb") as file:
            content = file.read()
        header = (content[:4], *(int.from_bytes(content[at : at + 4], "little") for at in (4, 8, 12)))
        expected = (MAGIC_NUMBER, 0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
        code = content[_HEADER:]
        return code if header == expected and marshal.loads(code).co_filename == path else None
    except (OSError, ValueError, EOFError, TypeError):
        return None
