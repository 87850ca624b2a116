"""The text of a module: from its loader, from a file beside it, or from the package's data.

Kernels are compiled from the text of their functions, and not every installation has sources: there may be
bytecode alone, or one program that has all modules in it. What ovjit itself then needs comes with it as
`ovjit/data/texts.xz`, which `python -m ovjit.tools.ship` writes: the modules that have kernels, and those
that make code of them. A text counts only where it is the one that the module's bytecode was made of.
"""

from __future__ import annotations

import functools
import linecache
import os
import sys
from collections.abc import Callable, Collection, Iterator
from importlib.util import find_spec
from types import CodeType
from typing import Any

from ovjit.errors import NoSource
from ovjit.source_files import package_data

#: The packages whose texts make kernels and the code of them.
GENERATORS = ("ovjit.codegen", "ovjit.tiles")
FILE = "texts.xz"
#: Nuitka counts from the line of `def`, Python from the first decorator's.
_DECORATORS = 20
_LEVELS = (sys.flags.optimize, *(level for level in (0, 1, 2) if level != sys.flags.optimize))


def has_own_file(names: dict[str, Any]) -> bool:
    """Whether a module, told by its names, was read from a file of sources, so that this is its text; as a
    notebook's cell is, and what is typed in."""
    if hasattr(sys, "_MEIPASS") or "__compiled__" in names:
        return False  # PyInstaller and Nuitka: the names of files say where they were
    file = names.get("__file__")
    return not isinstance(file, str) or not file.endswith(".pyc")


def is_registered(path: str) -> bool:
    """Whether the program has given `linecache` the source itself, as for code made at run time."""
    entry = linecache.cache.get(path)
    return entry is not None and len(entry) == 4 and entry[1] is None


def lines_of(function: Callable[..., Any]) -> list[str]:
    """The lines of the module that has the function, which is none with a file of sources of its own.
    NoSource where there is no text of this function."""
    for text in _candidates(function.__globals__, function.__code__.co_filename):
        if _is_of(text, function):
            return text.splitlines(keepends=True)
    raise NoSource(advice(function))


def module_text(name: str) -> str | None:
    """The text of a module by its name, None where there is none for its bytecode."""
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return None
    text = _loaded(spec.loader, name)
    if text is not None:
        return text
    text = shipped_texts().get(name)
    code = module_code(name)
    if text is None or code is None:
        return text
    return text if any(_compiled(text, level) == code for level in _LEVELS) else None


def module_code(name: str) -> CodeType | None:
    """The bytecode of a module by its name; None where it has none."""
    spec = find_spec(name)
    get_code = getattr(spec.loader, "get_code", None) if spec is not None else None
    try:
        return get_code(name) if get_code is not None else None
    except (ImportError, OSError):
        return None


@functools.cache
def shipped_texts() -> dict[str, str]:
    """module -> text, of what came with ovjit."""
    import json

    try:
        import lzma

        return json.loads(lzma.decompress(package_data(FILE)))
    except (OSError, ImportError):
        return {}


def pack(texts: dict[str, str]) -> bytes:
    """The file with these texts by their modules."""
    import json
    import lzma

    return lzma.compress(json.dumps(texts, sort_keys=True).encode(), preset=9 | lzma.PRESET_EXTREME)


def _candidates(names: dict[str, Any], path: str) -> Iterator[str]:
    """Texts that may be those of a module with these names, of which Python says that it was at `path`."""
    module, loader, file = names.get("__name__", ""), names.get("__loader__"), names.get("__file__")
    text = _loaded(loader, module)
    if text is not None:
        yield text
    if module in shipped_texts():
        yield shipped_texts()[module]
    beside = [] if not isinstance(file, str) else [os.path.splitext(file)[0] + ".py"]
    for place in (*beside, path):
        if os.path.isabs(place):  # never a file of the current folder
            try:
                import tokenize

                with tokenize.open(place) as opened:
                    yield opened.read()
            except (OSError, SyntaxError, UnicodeDecodeError):
                continue


def _loaded(loader: Any, module: str) -> str | None:
    if not hasattr(loader, "get_source"):
        return None
    try:
        return loader.get_source(module)
    except (ImportError, OSError, UnicodeDecodeError):
        return None


def _is_of(text: str, function: Callable[..., Any]) -> bool:
    """Whether the function was made of this text. Nuitka's have no bytecode: names and the line tell."""
    code = function.__code__
    if "__compiled__" not in function.__globals__:
        return any(code in _functions(text, level) for level in _LEVELS)
    return any(
        one.co_name == code.co_name
        and set(one.co_varnames) == set(code.co_varnames)
        and 0 <= code.co_firstlineno - one.co_firstlineno < _DECORATORS
        for one in _functions(text, 0)
    )


@functools.lru_cache(maxsize=64)
def _functions(text: str, level: int) -> Collection[CodeType]:
    """The bytecode of all functions in a module's text; it is equal wherever its file was."""
    code = _compiled(text, level)
    found: set[CodeType] = set()
    waiting = [code] if code is not None else []
    while waiting:
        inner = [one for one in waiting.pop().co_consts if isinstance(one, CodeType)]
        found.update(inner)
        waiting += inner
    return found


def _compiled(text: str, level: int) -> CodeType | None:
    try:
        return compile(text, "<text>", "exec", dont_inherit=True, optimize=level)
    except (SyntaxError, ValueError):
        return None


def advice(function: Callable[..., Any]) -> str:
    """What to ship, so that there is a text of the function."""
    names, path = function.__globals__, function.__code__.co_filename
    module, file = names.get("__name__", "?"), os.path.basename(path)
    about = f"{function.__qualname__!r} of module {module!r} becomes machine code by its text"
    if not has_own_file(names) and module.partition(".")[0] in ("ovjit", "ovjit_ops"):
        return (
            f"{about}, which is neither there nor in ovjit/data/{FILE} as its bytecode has it: ship the .py "
            "files of ovjit, or write that file anew (python -m ovjit.tools.ship --texts)"
        )
    if path.startswith("<"):
        return f"{about}, and what is typed in, or made by exec, has none: write the function into a file"
    if hasattr(sys, "_MEIPASS"):
        how = (
            f"give PyInstaller --add-data {file}:. if it is the program itself, else "
            f"module_collection_mode={{{module!r}: 'pyz+py'}} in the spec file"
        )
    elif "__compiled__" in names:
        inner = file if module == "__main__" else module.replace(".", "/") + ".py"
        how = f"give Nuitka --include-data-files={file}={inner}, or put it beside the program"
    else:
        how = f"ship {file} beside the module, as the function was compiled from it"
    return f"{about}, which is nowhere: {how}"
