"""The inputs of machine code besides a kernel's source: versions, and the code generators."""

from __future__ import annotations

import functools
import importlib
import marshal
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from ovjit.codegen.cpu import machine
from ovjit.codegen.module_texts import GENERATORS, has_own_file, module_code, module_text
from ovjit.errors import OvjitError
from ovjit.hashes import sha256
from ovjit.source_digests import modules_digest, package_digest, source_digest
from ovjit.source_files import keep, read_kept


@functools.cache
def versions() -> tuple[str, str]:
    """The versions of Numba and llvmlite, without importing Numba."""
    return installed_version("numba"), installed_version("llvmlite")


@functools.cache
def installed_version(package: str) -> str:
    """A package's version, from the name of its metadata folder: importing importlib.metadata takes 15 ms."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        site = os.path.dirname(os.path.dirname(spec.origin))
        names = os.listdir(site) if os.path.isdir(site) else []
        folders = [f for f in names if f.startswith(f"{package}-") and f.endswith(".dist-info")]
        if len(folders) == 1:
            return folders[0][len(package) + 1 : -len(".dist-info")]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:  # an executable built without metadata
        with machine.needing(package):
            return importlib.import_module(package).__version__


@functools.cache
def code_digest() -> str:
    """A digest of the code generators, as another version of ovjit generates other code from the same source.

    It covers all modules of `GENERATORS`, so that new ones cannot be forgotten. Comments and docstrings do
    not change it (`ovjit.source_digests`).
    """
    digest = sha256()
    for package in GENERATORS:
        digest.update(_digest_of(package).encode())
    return digest.hexdigest()


def printing_digests() -> list[str] | None:
    """Digests of the packages that printed sources depend on: those with the printer, with kernels, or with
    values that kernels read. None for an installation without sources, where reading them takes seconds."""
    digests = [package_digest(package) for package in PRINTING_PACKAGES]
    return None if None in digests else [digest for digest in digests if digest is not None]


#: Packages of `ovjit` with kernels, or with values that kernels read. Only their files are read; nothing is
#: imported.
_ROOMS = ("codegen", "tiles", "graph", "planning", "execution")
PRINTING_PACKAGES = (*(f"ovjit.{room}" for room in _ROOMS), "ovjit_ops")


def _digest_of(package: str) -> str:
    """The digest of a package, however it is installed."""
    digest = package_digest(package)
    if digest is None:
        cached = read_kept(package, _KEPT)
        if isinstance(cached, str):
            return cached
        digest = modules_digest(_packed_modules(package))
        keep(package, _KEPT, digest)
    return digest


_KEPT = "digest_of_packed_sources"


def _packed_modules(package: str, folder: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield (path in the package, content) of all modules of a package in an archive, or without sources."""
    import pkgutil

    spec = find_spec(package)
    assert spec is not None
    yield f"{folder}__init__.py", _content(package)
    for _, name, is_package in pkgutil.iter_modules(spec.submodule_search_locations):
        if is_package:
            yield from _packed_modules(f"{package}.{name}", f"{folder}{name}/")
        else:
            yield f"{folder}{name}.py", _content(f"{package}.{name}")


def _content(module: str) -> bytes:
    """The module's source, or its bytecode if there is no source."""
    text = module_text(module)
    if text is not None:
        return text.encode()
    code = module_code(module)
    if code is None:
        raise OvjitError(
            f"the source of {module!r} cannot be read, so the kernels that it made in the "
            "cache cannot be identified"
        )
    return marshal.dumps(code)


def file_digest(function: Callable | None) -> str:
    """A digest of the file that defines a kernel's own intrinsics; "" without a function, and for files that
    `code_digest` covers."""
    if function is None:
        return ""
    module = function.__globals__.get("__name__", "")
    if f"{module}.".startswith(tuple(f"{package}." for package in GENERATORS)):
        return ""
    return _hash_file(function.__code__.co_filename, module, has_own_file(function.__globals__))


@functools.cache
def _hash_file(path: str, module: str, own_file: bool) -> str:
    if own_file:
        try:
            with open(path, "rb") as file:
                return source_digest(file.read()).hex()
        except (FileNotFoundError, NotADirectoryError):
            pass  # in an archive
    try:
        return source_digest(_content(module)).hex()
    except (OvjitError, ImportError, ValueError):  # defined in a notebook: the kernel's key identifies it
        return path
