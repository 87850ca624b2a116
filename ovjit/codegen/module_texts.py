"""The source of a module: from its loader, from a file next to it, or from the package's data.

Kernels are compiled from the source of their functions. Some installations have no sources: only bytecode, or
a single executable with all modules. For these, `ovjit/data/texts.xz` has the sources of the modules with
kernels, and of those that generate code from them. `python -m ovjit.tools.ship` writes it. A source is only
used if it compiles to the module's bytecode.
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
from ovjit.out_of_memory import unless_short
from ovjit.source_files import package_data

#: The packages that generate kernels and code.
GENERATORS = ("ovjit.codegen", "ovjit.tiles")
FILE = "texts.xz"
#: Maximum lines of decorators. A function's first line is that of `def` for Nuitka, of the first decorator
#: for Python.
_DECORATORS = 20
_LEVELS = (sys.flags.optimize, *(level for level in (0, 1, 2) if level != sys.flags.optimize))


def has_own_file(names: dict[str, Any]) -> bool:
    """Whether a module, given by its globals, was loaded from a source file. True also for notebook cells and
    interactive input."""
    if hasattr(sys, "_MEIPASS") or "__compiled__" in names:
        return False  # PyInstaller and Nuitka: file names are those at build time
    file = names.get("__file__")
    return not isinstance(file, str) or not file.endswith(".pyc")


def is_registered(path: str) -> bool:
    """Whether the program has given `linecache` the source itself, as for code made at run time."""
    entry = linecache.cache.get(path)
    return entry is not None and len(entry) == 4 and entry[1] is None


def lines_of(function: Callable[..., Any]) -> list[str]:
    """The lines of the module of a function, for modules without a source file. Raises NoSource if no source
    of this function is found."""
    for text in _candidates(function.__globals__, function.__code__.co_filename):
        if _is_of(text, function):
            return text.splitlines(keepends=True)
    raise NoSource(advice(function))


def module_text(name: str) -> str | None:
    """The source of a module by its name; None if there is none that matches its bytecode."""
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        return None
    text = _load_source(spec.loader, name)
    if text is not None:
        return text
    text = shipped_texts().get(name)
    code = module_code(name)
    if text is None or code is None:
        return text
    return text if any(_compile(text, level) == code for level in _LEVELS) else None


def module_code(name: str) -> CodeType | None:
    """The bytecode of a module by its name; None without one."""
    spec = find_spec(name)
    get_code = getattr(spec.loader, "get_code", None) if spec is not None else None
    try:
        return get_code(name) if get_code is not None else None
    except (ImportError, OSError):
        return None


@functools.cache
def shipped_texts() -> dict[str, str]:
    """module -> shipped source."""
    import json

    try:
        import lzma

        return json.loads(lzma.decompress(package_data(FILE)))
    except unless_short(OSError, ImportError):
        return {}


def pack(texts: dict[str, str]) -> bytes:
    """The content of texts.xz for these sources (module -> source)."""
    import json
    import lzma

    return lzma.compress(json.dumps(texts, sort_keys=True).encode(), preset=9 | lzma.PRESET_EXTREME)


def _candidates(names: dict[str, Any], path: str) -> Iterator[str]:
    """Yield possible sources of a module. `names`: its globals. `path`: its file, according to Python."""
    module, loader, file = names.get("__name__", ""), names.get("__loader__"), names.get("__file__")
    text = _load_source(loader, module)
    if text is not None:
        yield text
    if module in shipped_texts():
        yield shipped_texts()[module]
    beside = [] if not isinstance(file, str) else [os.path.splitext(file)[0] + ".py"]
    for candidate in (*beside, path):
        if os.path.isabs(candidate):  # never a file of the current folder
            try:
                import tokenize

                with tokenize.open(candidate) as opened:
                    yield opened.read()
            except (OSError, SyntaxError, UnicodeDecodeError):
                continue


def _load_source(loader: Any, module: str) -> str | None:
    if not hasattr(loader, "get_source"):
        return None
    try:
        return loader.get_source(module)
    except (ImportError, OSError, UnicodeDecodeError):
        return None


def _is_of(text: str, function: Callable[..., Any]) -> bool:
    """Whether the function was compiled from this source. Nuitka's functions have no bytecode: their names
    and first line are compared."""
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
    """The bytecode of all functions in a module's source. It does not depend on the file's path."""
    code = _compile(text, level)
    functions: set[CodeType] = set()
    waiting = [code] if code is not None else []
    while waiting:
        inner = [one for one in waiting.pop().co_consts if isinstance(one, CodeType)]
        functions.update(inner)
        waiting += inner
    return functions


def _compile(text: str, level: int) -> CodeType | None:
    try:
        return compile(text, "<text>", "exec", dont_inherit=True, optimize=level)
    except (SyntaxError, ValueError):
        return None


def advice(function: Callable[..., Any]) -> str:
    """The error message: which file must be shipped to have the function's source."""
    names, path = function.__globals__, function.__code__.co_filename
    module, file = names.get("__name__", "?"), os.path.basename(path)
    about = f"{function.__qualname__!r} of module {module!r} is compiled from its source"
    if not has_own_file(names) and module.partition(".")[0] in ("ovjit", "ovjit_ops"):
        return (
            f"{about}, which is missing, and ovjit/data/{FILE} has no source of this bytecode: ship the "
            ".py files of ovjit, or write that file anew (python -m ovjit.tools.ship --texts)"
        )
    if path.startswith("<"):
        return f"{about}, and interactive code or exec has none: write the function into a file"
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
