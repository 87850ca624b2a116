"""What machine code depends on besides a kernel's text: versions, and the code generators themselves."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from ovjit.hashes import sha256
from ovjit.source_files import keep, read_kept


@functools.cache
def versions() -> tuple[str, str]:
    """The versions of Numba and llvmlite, without importing Numba."""
    return installed("numba"), installed("llvmlite")


@functools.cache
def installed(package: str) -> str:
    """A package's version, by the name of its metadata's folder: importing importlib.metadata takes 15 ms."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        site = os.path.dirname(os.path.dirname(spec.origin))
        names = os.listdir(site) if os.path.isdir(site) else []
        found = [f for f in names if f.startswith(f"{package}-") and f.endswith(".dist-info")]
        if len(found) == 1:
            return found[0][len(package) + 1 : -len(".dist-info")]
    from importlib.metadata import version

    return version(package)


@functools.cache
def code_digest() -> str:
    """A hash of the code generators themselves: another ovjit makes other kernels from the same text.

    Every module of `ovjit.codegen` and `ovjit.tiles` is in it, so that a new one cannot be forgotten. Each
    package's is kept for the state of its files: to read and to hash them takes 3 ms.
    """
    digest = sha256()
    for package in ("ovjit.codegen", "ovjit.tiles"):
        one = read_kept(package, _DIGEST)
        if not isinstance(one, str):
            one = package_digest(package)
            keep(package, _DIGEST, one)
        digest.update(one.encode())
    return digest.hexdigest()


_DIGEST = "digest_of_sources"


def package_digest(package: str) -> str:
    """A hash of the names and bytes of every module in a package and its packages."""
    digest = sha256()
    for name, content in sorted(_modules(package)):
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


def _modules(package: str) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of every module in a package and its packages, in a zip archive as well."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    folder = os.path.dirname(spec.origin)
    if os.path.isdir(folder):
        for here, _, names in os.walk(folder):
            for name in names:
                if name.endswith(".py"):
                    with open(os.path.join(here, name), "rb") as file:
                        yield name, file.read()
        return
    import pkgutil  # for zip archives alone

    yield "__init__.py", _read(spec.loader, spec.origin)
    for _, name, is_package in pkgutil.iter_modules(spec.submodule_search_locations):
        if is_package:
            yield from _modules(f"{package}.{name}")
        else:
            module = find_spec(f"{package}.{name}")
            assert module is not None and module.origin is not None
            yield f"{name}.py", _read(module.loader, module.origin)


def _read(loader: Any, path: str) -> bytes:
    if not hasattr(loader, "get_data"):
        raise ImportError(f"{path} can't be read, so nobody can tell which kernels of the cache are its")
    return loader.get_data(path)


def file_digest(function: Callable | None) -> str:
    """A hash of the file that makes a kernel's own intrinsics."""
    if function is None:
        return ""
    return _hash_file(function.__code__.co_filename, function.__globals__.get("__loader__"))


@functools.cache
def _hash_file(path: str, loader: Any) -> str:
    try:
        with open(path, "rb") as file:
            return sha256(file.read()).hexdigest()
    except OSError:
        pass
    try:
        return sha256(_read(loader, path)).hexdigest()
    except (OSError, ImportError):  # made in a notebook: the key has to tell
        return path
