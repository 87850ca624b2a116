"""Code of functions in which loops over ranges are recorded, and where such functions are found."""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator, Sequence
from typing import Any

#: What rewritten functions call the names of `rolled` that they use, their loop, and its range.
MODULE, _LOOP, _RANGE = "_ovjit_rolled", "_ovjit_loop", "_ovjit_range"
_TEMPLATE = f"""
{_RANGE} = ()
if {MODULE}.is_open({_RANGE}):
    {_LOOP} = {MODULE}.Recorded({_RANGE}, (), locals())
else:
    for _ in range(*{_RANGE}):
        pass
"""


def functions_near(frame: Any) -> Iterator[Any]:
    """Functions that a frame may run: of its object's class, its module, and what calls it."""
    arguments = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[:1]]
    for value in arguments:
        for owner in type(value).__mro__:
            yield from _functions_of(owner)
    outer = frame.f_back
    for values in (frame.f_globals, outer.f_locals if outer is not None else {}):
        for value in list(values.values()):
            yield from _functions_of(value)


def _functions_of(value: Any, within: bool = True) -> Iterator[Any]:
    """A function, and those that it wraps; the functions of a class."""
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        value = value.__func__
    if isinstance(value, types.FunctionType):
        yield value
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                if within and isinstance(cell.cell_contents, types.FunctionType):
                    yield from _functions_of(cell.cell_contents, False)
    elif isinstance(value, type) and within:
        for inner in list(vars(value).values()):
            if not isinstance(inner, type):
                yield from _functions_of(inner)


def rewritten(function: Any, lines: set[int]) -> Any:
    """The code of a function that has the loops recorded which begin on `lines`; None where there is none."""
    try:
        text, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(text)))
    except (OSError, TypeError, SyntaxError):
        return None
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return None
    change = _Loops(lines)
    change.generic_visit(definition)
    if not change.any:
        return None
    definition.decorator_list = []
    own = function.__code__
    code = compile(_within(definition, own.co_freevars), own.co_filename, "exec", dont_inherit=True)
    return _code_of(code, definition.name, own.co_freevars)


def _within(definition: ast.FunctionDef, free: Sequence[str]) -> ast.Module:
    """A function within one that has its free variables."""
    arguments = ast.arguments([], [ast.arg(name) for name in free], None, [], [], None, [])
    outer = ast.FunctionDef("_outer", arguments, [definition], [], None)
    if sys.version_info >= (3, 12):
        outer.type_params = []
    return ast.fix_missing_locations(ast.Module([outer], []))


def _code_of(code: Any, name: str, free: Sequence[str]) -> Any:
    """The code of the function in the function in a module. None where it has other free variables."""
    for level in ("_outer", name):
        code = next(c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == level)
    return code if code.co_freevars == free else None


class _Loops(ast.NodeTransformer):
    """Replaces `for name in range(...)`."""

    def __init__(self, lines: set[int]):
        self.lines = lines
        self.any = False

    def visit_FunctionDef(self, node: Any) -> Any:
        return node  # a function of its own

    visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = visit_FunctionDef

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        of = node.iter
        is_range = isinstance(of, ast.Call) and isinstance(of.func, ast.Name) and of.func.id == "range"
        if not is_range or not {node.lineno, of.lineno} & self.lines or not isinstance(node.target, ast.Name):
            return node
        if node.orelse or not all(map(_stays, node.body)):
            return node
        assert isinstance(of, ast.Call)
        self.any = True
        changed = {name for part in node.body for name in _changed(part)}
        own = _own(node.body) | {node.target.id}
        names = sorted(changed - own)
        bounds, choice = _parsed(_TEMPLATE, node)
        assert isinstance(bounds, ast.Assign) and isinstance(choice, ast.If)
        bounds.value = ast.Tuple(of.args, ast.Load())
        begin = choice.body[0]
        assert isinstance(begin, ast.Assign) and isinstance(begin.value, ast.Call)
        begin.value.args[1] = ast.Tuple([ast.Constant(name) for name in names], ast.Load())
        put = "\n".join(f"if {name!r} in {_LOOP}.state: {name} = {_LOOP}.state[{name!r}]" for name in names)
        choice.body += _parsed(f"{node.target.id} = {_LOOP}.index\n{put}", node)
        choice.body += copy.deepcopy(node.body)
        lost = "\n".join(f"{name} = {MODULE}.LOST" for name in sorted(own))
        choice.body += _parsed(f"{_LOOP}.end(locals())\n{put}\n{lost}", node)
        plain = choice.orelse[0]
        assert isinstance(plain, ast.For)
        plain.target, plain.body = node.target, node.body
        return [bounds, choice]


def _parsed(text: str, place: ast.stmt) -> list[ast.stmt]:
    """Statements on the line of another one."""
    made = ast.parse(text)
    for node in ast.walk(made):
        ast.copy_location(node, place)
    return made.body


def _own(body: Sequence[ast.stmt]) -> set[str]:
    """Names that each iteration assigns before it reads them."""
    found: set[str] = set()
    read: set[str] = set()
    for part in body:
        names = [node for node in ast.walk(part) if isinstance(node, ast.Name)]
        read |= {name.id for name in names if isinstance(name.ctx, ast.Load)}
        if isinstance(part, ast.Assign):
            stored = {name.id for name in names if isinstance(name.ctx, ast.Store)}
            found |= stored - read
        elif isinstance(part, ast.AugAssign) and isinstance(part.target, ast.Name):
            read.add(part.target.id)
        else:
            read |= {name.id for name in names}
    return found


def _stays(part: ast.AST) -> bool:
    """Whether a statement does not leave the loop."""
    leaving = (ast.Break, ast.Continue, ast.Return, ast.Yield, ast.YieldFrom, ast.Await)
    return not any(isinstance(inner, leaving) for inner in ast.walk(part))


def _changed(part: ast.AST) -> Iterator[str]:
    """Names that a statement assigns, or whose tensors or lists it changes."""
    for node in ast.walk(part):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            base = node.value
            while isinstance(base, ast.Subscript):
                base = base.value
            if isinstance(base, ast.Name):
                yield base.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            base, method = node.func.value, node.func.attr
            in_place = method.endswith("_") and not method.startswith("_")
            if isinstance(base, ast.Name) and (method == "append" or in_place):
                yield base.id
