"""Functions that run as others in the thread that records a module, and as they are in every other thread.

A function of a user's gets code that calls one of two functions, which have its own code. That of other
threads has the variables of its module, that of the recording thread others for some of these. Neither the
module nor the function's closure changes. Code that begins in another thread goes on when the recording has
ended: what it calls is in its constants.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ovjit.readers.torch.tracing.recorder import alone, is_recording

#: Code that is called otherwise than a function: it stays as it is.
_LATER = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
#: The constant instead of which the code of a function has what it calls.
_CALLED = "ovjit: what this function calls"


#: Variables of a module that Python itself reads, without asking a class of tables.
_OF_MODULES = "__builtins__", "__name__", "__package__", "__spec__", "__path__", "__file__", "__loader__"


class _Globals(dict[str, Any]):
    """A module's globals with replacements. Writes are stored here until `write_through`."""

    def __init__(self, plain: dict[str, Any], others: Mapping[str, Any]):
        module_names = {name: plain[name] for name in _OF_MODULES if name in plain}
        self.plain, self.others = plain, {**module_names, **others}
        super().__init__(self.others)

    def __missing__(self, name: str) -> Any:
        return self.plain[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.plain

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default

    def write_through(self) -> None:
        """Copy the functions' writes to the module's variables."""
        for name, value in self.items():
            if self.others.get(name, self) is not value:
                self.plain[name] = value


class Redirected:
    """A function that uses other globals in the recording thread, and its own elsewhere.

    `tables` are the variables that stand for those of its module, the innermost last."""

    def __init__(self, function: Any):
        self.function = function
        self.code = function.__code__
        self.original = _with_globals(function, function.__globals__)
        self.tables: list[_Globals] = []
        self.replacement = self.original

    def call(self, *args: Any, **named: Any) -> Any:
        return (self.replacement if is_recording() else self.original)(*args, **named)

    @contextlib.contextmanager
    def sees(self, names: _Globals) -> Iterator[None]:
        """Run with other variables."""
        before = self.replacement
        self.tables.append(names)
        self.replacement = _with_globals(self.original, names)
        try:
            yield
        finally:
            self.tables.pop()
            self.replacement = before


#: Functions that are redirected now.
_redirected: dict[Any, Redirected] = {}


@contextlib.contextmanager
def redirect(functions: Iterable[Any]) -> Iterator[list[Redirected]]:
    """Context manager that redirects functions to others; functions that cannot be redirected are skipped."""
    with alone(), contextlib.ExitStack() as undo:
        result = []
        for function in functions:
            each = _redirected.get(function)
            if each is None:
                if function.__code__.co_flags & _LATER:
                    continue
                each = Redirected(function)
                code = _forwarding_code(each)
                function.__code__ = code
                _redirected[function] = each
                undo.callback(_undo, each, code)
            result.append(each)
        yield result


def _undo(each: Redirected, code: Any) -> None:
    if each.function.__code__ is code:
        each.function.__code__ = each.code
    _redirected.pop(each.function, None)


@contextlib.contextmanager
def others_in(modules: Iterable[tuple[Any, Mapping[str, Any]]], *roots: Any) -> Iterator[None]:
    """Context manager: functions of Python modules use replaced globals, given per module. `roots`: the
    recorded objects, which may have functions that the modules lack."""
    with contextlib.ExitStack() as stack:
        for module, others in modules:
            if not others:
                continue
            table = vars(module)
            tables = (each.tables[-1] for each in _redirected.values() if each.tables)
            below = next((each.others for each in tables if each.plain is table), {})
            names = _Globals(table, {**below, **others})
            stack.callback(names.write_through)
            for each in stack.enter_context(redirect(_functions_of(table, *roots))):
                stack.enter_context(each.sees(names))
        yield


#: How many objects are looked at for functions.
_MOST_OBJECTS = 200_000


def _functions_of(table: dict[str, Any], *roots: Any) -> list[Any]:
    """The functions whose globals are those of a module, found from its variables and from `roots`."""
    functions = []
    visited = {id(table)}
    queue = [*table.values(), *roots]
    while queue and len(visited) < _MOST_OBJECTS:
        value = queue.pop()
        if id(value) in visited or not gc.is_tracked(value):
            continue
        visited.add(id(value))
        if type(value) is types.FunctionType:
            functions.append(value)
            queue += (value.__closure__, value.__defaults__, vars(value))
        elif isinstance(value, type):
            is_own = value.__module__ == table.get("__name__") or value in map(type, roots)
            queue += vars(value).values() if is_own else ()
        elif not isinstance(value, types.ModuleType) and not (type(value) is dict and "__spec__" in value):
            queue += gc.get_referents(value)
    targets = {id(f) for each in _redirected.values() for f in (each.replacement, each.original)}
    return list({f: None for f in functions if f.__globals__ is table and id(f) not in targets})


def _with_globals(function: Any, table: dict[str, Any]) -> Any:
    """A function with the same code and closure, and other globals."""
    result = types.FunctionType(
        function.__code__, table, function.__name__, function.__defaults__, function.__closure__
    )
    result.__kwdefaults__ = function.__kwdefaults__
    result.__qualname__, result.__module__ = function.__qualname__, function.__module__
    result.__dict__.update(function.__dict__)
    return result


def _forwarding_code(each: Redirected) -> Any:
    """Code with the signature and free variables of a function, which calls its replacement."""
    code = each.code
    flags = inspect.CO_VARARGS, inspect.CO_VARKEYWORDS, inspect.CO_GENERATOR
    has_args, has_kwargs, generates = (bool(code.co_flags & flag) for flag in flags)
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + has_args + has_kwargs]
    counts = code.co_posonlyargcount, code.co_argcount, code.co_kwonlyargcount
    plain = _template(names, *counts, has_args, has_kwargs, generates, code.co_freevars)
    constants = tuple(each if value == _CALLED else value for value in plain.co_consts)
    named = {"co_qualname": code.co_qualname} if sys.version_info >= (3, 11) else {}
    return plain.replace(
        co_consts=constants, co_name=code.co_name, co_filename=code.co_filename,
        co_firstlineno=code.co_firstlineno, **named,
    )  # fmt: skip


@functools.lru_cache(1024)
def _template(
    names: tuple[str, ...], only: int, count: int, keywords: int, has_args: bool, has_kwargs: bool,
    generates: bool, free: tuple[str, ...],
) -> Any:  # fmt: skip
    positional, by_name = list(names[:count]), names[count : count + keywords]
    others = names[count + keywords :]
    signature = positional[:only] + (["/"] if only else []) + positional[only:]
    arguments = list(positional)
    if has_args:
        signature.append(f"*{others[0]}")
        arguments.append(f"*{others[0]}")
    elif by_name:
        signature.append("*")
    signature += by_name
    arguments += [f"{name}={name}" for name in by_name]
    if has_kwargs:
        signature.append(f"**{others[-1]}")
        arguments.append(f"**{others[-1]}")
    call = f"{_CALLED!r}.call({', '.join(arguments)})"
    call = f"(yield from {call})" if generates else call
    reads = f"        if 0: {', '.join(free)}\n" if free else ""
    outer = ", ".join(free)
    text = f"def _outer({outer}):\n    def _inner({', '.join(signature)}):\n{reads}        return {call}\n"
    code = compile(text, "<ovjit>", "exec", dont_inherit=True)
    for level in ("_outer", "_inner"):
        code = next(c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == level)
    return code
