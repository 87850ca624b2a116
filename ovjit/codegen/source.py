"""A function's definition in its file as a syntax tree, its parameters, and functions of printed texts.

`inspect` gives both but takes longer. It tokenises the remainder of the file to find a function's end, and
makes objects for every possible part of a signature.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import math
import os
import textwrap
import tokenize
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovjit.codegen.module_texts import advice, has_own_file, is_registered, lines_of
from ovjit.errors import NoSource
from ovjit.forks import ForkLock
from ovjit.out_of_memory import as_memory_errors
from ovjit.records import NamedTuple

_parsing = ForkLock("syntax")


class Parameter(NamedTuple):
    """A parameter. Missing annotations and defaults are None. Annotations are texts in modules that postpone
    their evaluation."""

    name: str
    annotation: Any
    keyword_only: bool
    default: Any


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """The parameters of a function without *args and **options, in order."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    notes, defaults = function.__annotations__, function.__defaults__ or ()
    values = dict(zip(names[code.co_argcount - len(defaults) :], defaults, strict=False))
    values.update(function.__kwdefaults__ or {})
    return [
        Parameter(name, notes.get(name), i >= code.co_argcount, values.get(name))
        for i, name in enumerate(names)
    ]


def parse_source(text: str) -> ast.Module:
    """The syntax tree of a text, by one thread at a time.

    Python 3.11 has a global recursion counter for trees under construction, and raises SystemError if two
    threads parse at once.
    """
    with _parsing.lock:
        return ast.parse(text)


def definition(function: Callable[..., Any]) -> ast.FunctionDef:
    """The syntax tree of a function's definition. Raises NoSource, an OvjitError, if there is no source."""
    code = function.__code__
    if is_registered(code.co_filename) or has_own_file(function.__globals__):
        lines = linecache.getlines(code.co_filename, function.__globals__)
        if not lines and os.path.isfile(code.co_filename):  # the answer of linecache to missing memory, too
            with as_memory_errors(f"read {code.co_filename}"), tokenize.open(code.co_filename) as file:
                lines = file.readlines()
    else:
        lines = lines_of(function)
    if not lines:
        raise NoSource(advice(function))
    try:
        text = "".join(_block(lines, code.co_firstlineno - 1))
        function_definition = parse_source(textwrap.dedent(text) if text[:1].isspace() else text).body[0]
    except (SyntaxError, LookupError):  # a string or bracket continues at a smaller indentation
        block = inspect.getblock(lines[code.co_firstlineno - 1 :])
        function_definition = parse_source(textwrap.dedent("".join(block))).body[0]
    assert isinstance(function_definition, ast.FunctionDef)
    return function_definition


def _block(lines: Sequence[str], first: int) -> Sequence[str]:
    """The lines of the function whose first decorator or `def` is in line `first`.

    It ends before the first line after `def` with the same or smaller indentation that is neither a comment
    nor closes a bracket. If that line is inside of a statement, the result is not valid source.
    """
    margin = len(lines[first]) - len(lines[first].lstrip())
    inside = False
    for at in range(first, len(lines)):
        text = lines[at].lstrip()
        if not text or text[0] in "#)]}" or len(lines[at]) - len(text) > margin:
            continue
        if inside:
            return lines[first:at]
        inside = text.startswith("def ")
    return lines[first:]


def define_functions(
    text: str, file: str, lanes: int, words: Mapping[str, Any], extra: Mapping[str, Any] | None = None,
    word: Callable[[Any], Any] = lambda one: one,
    njit: Callable[..., Any] = lambda **_: lambda function: function,
) -> dict[str, Callable[..., Any]]:  # fmt: skip
    """name -> function of the text that ovjit's printers made of a kernel. Its global names are `word` of
    those in `extra`, else in `words`. The text is registered under the name `file`, so that errors show the
    line. `njit` is the functions' decorator."""
    extra = extra or {}
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    names: dict[str, Any] = {"njit": njit, "float_nan": math.nan, "float_inf": math.inf, "VL": lanes}
    predefined = {*names, "__builtins__"}
    exec(compile(text, file, "exec"), names)
    defined = {name: getattr(f, "py_func", f) for name, f in names.items() if name not in predefined}
    for name in {name for f in defined.values() for name in f.__code__.co_names}:
        if name in extra:
            names[name] = word(extra[name])
        elif name not in names and not hasattr(builtins, name):
            names[name] = word(words[name])
    return defined
