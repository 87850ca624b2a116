"""ovjit in a zip archive on the path, as a wheel that was not installed: its bytecode is kept.

Python compiles every module of an archive at each start, which takes seconds. An installation keeps bytecode
in `__pycache__`; an archive cannot, so the kernel cache does, for one state of the archive. What it gives is
authenticated, as machine code is. Where nothing can be kept, that is said.
"""

from __future__ import annotations

import marshal
import os
import sys
import zipimport
from types import CodeType

from ovjit.hashes import sha256

_PACKAGES = ("ovjit", "ovjit_ops")
_FORM = 1  # of what is kept


class KeptImporter(zipimport.zipimporter):
    """Imports what is below one folder of an archive; bytecode comes from the kernel cache, once it is
    there."""

    def __init__(self, path: str):
        super().__init__(path)
        self._codes: dict[str, tuple[str, CodeType]] = {}  # what is about to be imported

    def get_filename(self, fullname: str) -> str:
        """Returns the module's path, for which Python's own importer would compile the module."""
        return self._module(fullname)[0]

    def get_code(self, fullname: str) -> CodeType:
        """The bytecode of the module."""
        code = self._module(fullname)[1]
        self._codes.pop(fullname, None)
        return code

    def _module(self, fullname: str) -> tuple[str, CodeType]:
        code = self._codes.get(fullname)
        if code is None:
            code = self._codes[fullname] = self._keep(fullname)
        return code

    def _keep(self, fullname: str) -> tuple[str, CodeType]:
        from ovjit.disk.kernel_cache import default_cache

        address = _address(self.archive, fullname)
        content = default_cache().get(address)
        if content is not None:
            path, code = marshal.loads(content)
            return path, code
        result = super().get_filename(fullname), super().get_code(fullname)
        default_cache().write(address, marshal.dumps(result), {"name": f"the bytecode of {fullname}"})
        return result


def _address(archive: str, module: str) -> str:
    status = os.stat(archive)
    parts = (_FORM, sys.version, sys.flags.optimize, archive, status.st_size, status.st_mtime_ns, module)
    return "bytecode_" + sha256(repr(parts).encode()).hexdigest()[:40]


def install(archive: str) -> None:
    """Import ovjit's modules from this archive by kept bytecode from now on."""
    from ovjit.disk.kernel_cache import default_cache
    from ovjit.disk.notice import warn_once

    if default_cache().path is None:
        warn_once(
            f"zipped {archive}",
            f"ovjit runs from the archive {archive} without a cache, so every start compiles its "
            "modules again: install it, or set OVJIT_CACHE to a folder",
        )
        return
    tops = tuple(os.path.join(archive, package) for package in _PACKAGES)

    def hook(path: str) -> KeptImporter:
        if not any(path == top or path.startswith(top + os.sep) for top in tops):
            raise zipimport.ZipImportError(f"{path!r} is not an archive of ovjit")
        return KeptImporter(path)

    sys.path_hooks.insert(0, hook)
    for path in list(sys.path_importer_cache):
        if path.startswith(tops):
            del sys.path_importer_cache[path]
