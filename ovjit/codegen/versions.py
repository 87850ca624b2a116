"""The inputs of machine code besides a kernel's source: versions, and the code generators."""

from __future__ import annotations

import functools
import importlib
import marshal
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from ovjit.codegen.cpu import machine
from ovjit.codegen.module_texts import has_own_file
from ovjit.errors import OvjitError
from ovjit.hashes import sha256
from ovjit.source_files import keep, read_kept


@functools.cache
def versions() -> tuple[str, str]:
    """The versions of Numba and llvmlite, without importing Numba."""
    return installed("numba"), installed("llvmlite")


@functools.cache
def installed(package: str) -> str:
    """A package's version, from the name of its metadata folder: importing importlib.metadata takes 15 ms."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        site = os.path.dirname(os.path.dirname(spec.origin))
        names = os.listdir(site) if os.path.isdir(site) else []
        found = [f for f in names if f.startswith(f"{package}-") and f.endswith(".dist-info")]
        if len(found) == 1:
            return found[0][len(package) + 1 : -len(".dist-info")]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:  # an executable built without metadata
        with machine.needing(package):
            return importlib.import_module(package).__version__


@functools.cache
def code_digest() -> str:
    """A hash of the code generators, as another version of ovjit generates other code from the same source.

    It covers all modules of `ovjit.codegen` and `ovjit.tiles`, so that new ones cannot be forgotten. Each
    package's hash is cached with the state of its files, since reading and hashing them takes 3 ms.
    """
    digest = sha256()
    for package in ("ovjit.codegen", "ovjit.tiles"):
        digest.update(_kept_digest(package).encode())
    return digest.hexdigest()


def printing_digests() -> list[str] | None:
    """Hashes of the packages that printed sources depend on: those with the printer, with kernels, or with
    values that kernels read. Reading them takes 20 ms, once for each state of their files. None for an
    installation without sources, where it would take seconds."""
    for package in _PRINTING:
        spec = find_spec(package)
        if spec is None or not (spec.origin or "").endswith(".py") or not os.path.isfile(spec.origin or ""):
            return None
    return [_kept_digest(package) for package in _PRINTING]


def _kept_digest(package: str) -> str:
    one = read_kept(package, _DIGEST)
    if not isinstance(one, str):
        one = package_digest(package)
        keep(package, _DIGEST, one)
    return one


_DIGEST = "digest_of_sources"
#: Packages of `ovjit` with kernels, or with values that kernels read. Only their files are read; nothing is
#: imported.
_ROOMS = ("codegen", "tiles", "graph", "planning", "execution")
_PRINTING = (*(f"ovjit.{room}" for room in _ROOMS), "ovjit_ops")


def package_digest(package: str) -> str:
    """A hash of the names and contents of all modules in a package and its subpackages."""
    digest = sha256()
    for name, content in sorted(_modules(package)):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


def _modules(package: str) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, content) of all modules in a package and its subpackages, however they are
    installed."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    if spec.origin.endswith(".py") and os.path.isfile(spec.origin):
        for here, _, names in os.walk(os.path.dirname(spec.origin)):
            for name in names:
                if name.endswith(".py"):
                    with open(os.path.join(here, name), "rb") as file:
                        yield name, file.read()
        return
    import pkgutil  # for archives, and for bytecode without sources

    yield "__init__.py", _content(package)
    for _, name, is_package in pkgutil.iter_modules(spec.submodule_search_locations):
        if is_package:
            yield from _modules(f"{package}.{name}")
        else:
            yield f"{name}.py", _content(f"{package}.{name}")


def _content(module: str) -> bytes:
    """The module's source, or its bytecode if there is no source."""
    from ovjit.codegen.module_texts import module_code, module_text

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
    """A hash of the file that defines a kernel's own intrinsics; "" without a function."""
    if function is None:
        return ""
    module = function.__globals__.get("__name__")
    return _hash_file(function.__code__.co_filename, module, has_own_file(function.__globals__))


@functools.cache
def _hash_file(path: str, module: str, own_file: bool) -> str:
    if own_file:
        try:
            with open(path, "rb") as file:
                return sha256(file.read()).hexdigest()
        except OSError:
            pass  # in an archive
    try:
        return sha256(_content(module)).hexdigest()
    except (OvjitError, ImportError, ValueError):  # defined in a notebook: the kernel's key identifies it
        return path
