"""Digests of source files that ignore comments and docstrings.

Shipped kernels, printed sources and the index of operations are valid for one digest of the packages that
they were made from. A digest covers the syntax trees of all modules, without docstrings. It does not depend
on Python's version.

Parsing all sources takes more than a second. `ovjit/data/syntax.bin` therefore maps the contents of files to
their digests. A file that it lacks, such as one whose comment has changed since, is parsed.
`python -m ovjit.tools.ship --texts` writes it.
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from ovjit.hashes import sha256
from ovjit.out_of_memory import is_shortage, unless_short
from ovjit.source_files import keep, package_data, read_kept

FILE = "syntax.bin"
#: Bytes of each of the two digests of an entry.
SIZE = 12
_KEPT = "digest_of_sources"
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
#: Fields that do not change what code does, or that only some versions of Python set.
_IGNORED = frozenset(("ctx", "kind", "type_comment", "type_ignores"))


def package_digest(package: str) -> str | None:
    """The digest of all modules in a package and its subpackages. It is kept for the state of the package's
    files, since reading them takes milliseconds. None if the package has no source files of its own."""
    digest = read_kept(package, _KEPT)
    if not isinstance(digest, str):
        modules = list(source_modules(package))
        if not modules:
            return None
        digest = modules_digest(modules)
        keep(package, _KEPT, digest)
    return digest


def modules_digest(modules: Iterable[tuple[str, bytes]]) -> str:
    """The digest of these modules: (file name, source)."""
    digest = sha256()
    for name, source in sorted(modules):
        digest.update(name.encode() + b"\0" + source_digest(source))
    return digest.hexdigest()


def source_modules(package: str) -> Iterator[tuple[str, bytes]]:
    """Yield (path in the package, source) of all modules of a package in a folder."""
    spec = find_spec(package)
    if spec is None or not (spec.origin or "").endswith(".py") or not os.path.isfile(spec.origin or ""):
        return
    top = os.path.dirname(spec.origin or "")
    for folder, _, names in os.walk(top, onerror=_raise_shortage):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    yield os.path.relpath(path, top).replace(os.sep, "/"), file.read()


def _raise_shortage(error: OSError) -> None:
    """Raise what is no state of a folder, whose modules would be missing."""
    if is_shortage(error):
        raise error


def source_digest(source: bytes) -> bytes:
    """The digest of a module's source, by the table of shipped digests or by parsing."""
    return _table().get(_hash(source)) or parse_digest(source)


def parse_digest(source: bytes) -> bytes:
    """The digest of a module's syntax tree; of its bytes if it cannot be parsed."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return _hash(source)
    parts: list[str] = []
    _append(tree, parts)
    return _hash("\0".join(parts).encode())


def table_content(sources: Iterable[bytes]) -> bytes:
    """The content of the table for these sources."""
    return b"".join(sorted(_hash(source) + parse_digest(source) for source in set(sources)))


@functools.cache
def _table() -> dict[bytes, bytes]:
    try:
        content = package_data(FILE)
    except unless_short(OSError, ImportError):
        return {}
    return {content[i : i + SIZE]: content[i + SIZE : i + 2 * SIZE] for i in range(0, len(content), 2 * SIZE)}


def _hash(content: bytes) -> bytes:
    return sha256(content).digest()[:SIZE]


def _append(value: Any, parts: list[str]) -> None:
    """Append a syntax tree to `parts`, so that different trees give different lists. Empty fields are left
    out, because newer versions of Python have more fields."""
    if isinstance(value, ast.AST):
        parts.append(f"({type(value).__name__}")
        for field in value._fields:
            child = getattr(value, field, None)
            if field == "body" and isinstance(value, _WITH_DOCSTRING) and child and _is_docstring(child[0]):
                child = child[1:]
            if field not in _IGNORED and child is not None and child != []:
                parts.append(field)
                _append(child, parts)
        parts.append(")")
    elif isinstance(value, list):
        parts.append("[")
        for item in value:
            _append(item, parts)
        parts.append("]")
    else:
        parts.append(repr(value))


def _is_docstring(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
