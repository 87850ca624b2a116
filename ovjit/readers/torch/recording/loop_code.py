"""Code of functions in which loops over ranges are recorded, and where functions are that change."""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovjit.readers.torch.recording.loop_exits import LIST, Renamed, left_by, remove_exits
from ovjit.readers.torch.recording.redirected import (
    before_call,
    code_of,
    functions_that_run,
    functions_with,
    redirect,
)

#: What rewritten functions call the names of `rolled` that they use, their loop and what it is over.
MODULE, _LOOP, _WALK = "_ovjit_rolled", "_ovjit_loop", "_ovjit_walk"
_TEMPLATE = """
{walk} = ()
if {walk}.is_open:
    {loop} = {module}.Recorded({walk}, (), locals())
    while {loop}.is_trial: pass
    {loop}.begin()
else:
    for _ in {walk}.plain():
        pass
"""
#: Python's functions that make what a loop is over, and what `rolled` has in their places.
_WALKS = {"range": "Range", "reversed": "Reversed", "enumerate": "Enumerated", "zip": "Zipped"}

#: Methods of tensors that give what a loop is over.
_METHODS = {"unbind": "Unbound"}
#: Python's functions of a list that a loop has lengthened, and what `rolled` has in their places.
_FOLDS = {"len": "length", "sum": "total", "max": "largest", "min": "smallest"}


def functions_of(frame: Any) -> list[Any]:
    """The functions that a frame may run. Code within a function may belong to many: the collector knows
    them, but for what the program has frozen."""
    code = frame.f_code
    near = [*functions_with(code), *(f for f in _functions_near(frame) if f.__code__ is code)]
    if near and not code.co_flags & inspect.CO_NESTED:
        return near
    return [*functions_that_run(code), *near]


def _functions_near(frame: Any) -> Iterator[Any]:
    """Functions of a frame's object's class, its module, and what calls it."""
    arguments = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[:1]]
    for value in arguments:
        for owner in type(value).__mro__:
            yield from _functions_in(owner)
    outer = before_call(frame)
    for values in (frame.f_globals, outer.f_locals if outer is not None else {}):
        for value in list(values.values()):
            yield from _functions_in(value)


def _functions_in(value: Any, within: bool = True) -> Iterator[Any]:
    """A function, and those that it wraps; the functions of a class."""
    if isinstance(value, (staticmethod, classmethod, types.MethodType)):
        value = value.__func__
    if isinstance(value, types.FunctionType):
        yield value
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                if within and isinstance(cell.cell_contents, types.FunctionType):
                    yield from _functions_in(cell.cell_contents, False)
    elif isinstance(value, type) and within:
        for inner in list(vars(value).values()):
            if not isinstance(inner, type):
                yield from _functions_in(inner)


class Change(ast.NodeTransformer):
    """Changes what is on some lines of a function, to code that uses `names` as the variable `module`."""

    module = ""
    #: Changes of a function are applied by ascending order: branches first, whose bodies may have loops.
    order = 0

    def __init__(self, lines: set[int]):
        self.lines = lines
        self.any = False

    def visit_FunctionDef(self, node: Any) -> Any:
        return node  # a function of its own

    visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = visit_FunctionDef


@contextlib.contextmanager
def apply_changes(lines_by_function: Mapping[Any, set[int]], kind: type[Change], names: Any) -> Iterator[int]:
    """Functions run with what is on their lines changed, also those that run changed by others already. Gives
    the number of those that have changed."""
    with contextlib.ExitStack() as stack:
        count = 0
        for function, lines in lines_by_function.items():
            for each in stack.enter_context(redirect([function])):
                code = _rewrite(function, [*each.changes, (kind, lines)])
                if code is not None:
                    count += 1
                    cells = {**(each.rewritten[-1][1] if each.rewritten else {}), kind.module: names}
                    stack.enter_context(each.apply_change((kind, lines), code, cells))
        yield count


def _rewrite(function: Any, changes: Sequence[tuple[type[Change], set[int]]]) -> Any:
    """The code of a function after changes; None where the last one changes nothing in it."""
    try:
        text, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(text)))
    except (OSError, TypeError, SyntaxError):
        return None
    ast.increment_lineno(tree, first - 1)
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return None
    remove_exits(definition, {line for kind, lines in changes if kind is Loops for line in lines})
    result = [kind(lines) for kind, lines in changes]
    for change in sorted(result, key=lambda change: change.order):
        change.generic_visit(definition)
    if not result[-1].any:
        return None
    definition.decorator_list = []
    old_code = code_of(function)
    free = (*old_code.co_freevars, *dict.fromkeys(kind.module for kind, _ in changes))
    code = compile(_within(definition, free), old_code.co_filename, "exec", dont_inherit=True)
    return _code_of(code, definition.name, free)


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
    return code if set(code.co_freevars) <= set(free) else None


class Loops(Change):
    """Replaces loops that begin on `lines`, and lists that are made by one."""

    module = MODULE
    order = 1

    def __init__(self, lines: set[int]):
        super().__init__(lines)
        self._lists: list[ast.stmt] = []  # what makes the lists of a statement
        self._grown: set[str] = set()  # names of what changed loops lengthen, or is made of it
        self._depth = 0  # in how many changed loops a statement is: loops there may be over their numbers

    def visit_Assign(self, node: Any) -> Any:
        """A list that a loop makes is made before the statement that it is in."""
        self._lists, outer = [], self._lists
        node = self.generic_visit(node)
        before, self._lists = self._lists, outer
        for target, value in _target_pairs(node) if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name) and self._is_over(value):
                self._grown.add(target.id)
        return [*before, node]

    visit_Return = visit_Expr = visit_AugAssign = visit_Assign

    def visit_ListComp(self, node: ast.ListComp) -> Any:
        part = node.generators[0]
        if len(node.generators) > 1 or part.ifs or part.is_async or not self._is_over(part.iter):
            return node
        self.any = True
        name = f"{LIST}{node.lineno}_{node.col_offset}"
        names = {v.id: f"{name}_{v.id}" for v in ast.walk(part.target) if isinstance(v, ast.Name)}
        target, element = (Renamed(names).visit(v) for v in (part.target, node.elt))
        start, append = parse_at(f"{name} = []\n{name}.append(0)", node)
        assert isinstance(append, ast.Expr) and isinstance(append.value, ast.Call)
        append.value.args = [element]
        loop = ast.copy_location(ast.For(target, part.iter, [append], []), part.iter)
        self._lists += [start, *self.visit_For(loop)]
        self._grown.add(name)
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`len(parts)` and `sum(parts)` of what such a loop has made, and on the lines `x.shape.numel()` and
        `x.tolist()`."""
        function = node.func
        fold = _FOLDS.get(function.id) if isinstance(function, ast.Name) and node.args else None
        if fold is not None and isinstance(node.args[0], ast.GeneratorExp):
            result = ast.ListComp(node.args[0].elt, node.args[0].generators)
            node.args[0] = ast.copy_location(result, node.args[0])
        self.generic_visit(node)
        is_unbound = fold is not None and self._is_unbound(node.args[0])
        if fold is not None and (is_unbound or self._is_grown(node.args[0])):
            self.any = True
            node.func = ast.copy_location(_own_name(fold), function)
            node.args[0] = _walk(node.args[0]) if is_unbound else node.args[0]
        elif isinstance(function, ast.Attribute) and function.attr == "numel" and node.lineno in self.lines:
            self.any = True
            node.func, node.args = ast.copy_location(_own_name("product"), function), [function.value]
        elif _is_method(node, "tolist") and node.lineno in self.lines:
            assert isinstance(function, ast.Attribute)
            self.any = True
            node.func, node.args = ast.copy_location(_own_name("listed"), function), [function.value]
        return node

    def _is_grown(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Attribute) and node.func.attr == "listed"
        return isinstance(node, ast.Name) and node.id in self._grown

    def _is_unbound(self, node: ast.expr) -> bool:
        return _is_method(node) and node.lineno in self.lines

    def _is_over(self, node: ast.expr) -> bool:
        """Whether a loop over this changes: it is on the lines, or over what such a loop has made."""
        names = (node.id for node in ast.walk(node) if isinstance(node, ast.Name))
        return node.lineno in self.lines or not self._grown.isdisjoint(names)

    def visit_For(self, node: ast.For) -> Any:
        is_over = self._depth > 0 or node.lineno in self.lines or self._is_over(node.iter)
        self._depth += is_over
        self.generic_visit(node)
        self._depth -= is_over
        is_over = is_over or self._is_over(node.iter)
        body, exit_flag = left_by(node.body)
        if not is_over or node.orelse or not all(map(_stays, body)):
            return node
        self.any = True
        self._grown |= {name for part in body for name in extended_lists(part)}
        targets = {v.id for v in ast.walk(node.target) if isinstance(v, ast.Name)}
        apply_changes = {name for part in body for name in _changed_names(part)}
        local_names = _assigned_first(body) | targets
        names = sorted(apply_changes - local_names)
        at = f"{node.lineno}_{node.col_offset}"  # loops may be in loops
        loop, lost = f"{_LOOP}{at}", f"{MODULE}.LOST"
        walk, choice = parse_at(_TEMPLATE.format(module=MODULE, loop=loop, walk=f"{_WALK}{at}"), node)
        assert isinstance(walk, ast.Assign) and isinstance(choice, ast.If)
        walk.value = _walk(node.iter)
        begin, trial = choice.body[:2]
        assert (
            isinstance(trial, ast.While)
            and isinstance(begin, ast.Assign)
            and isinstance(begin.value, ast.Call)
        )
        begin.value.args[1] = ast.Tuple([ast.Constant(name) for name in names], ast.Load())
        put = "\n".join(f"if {name!r} in {loop}.state: {name} = {loop}.state[{name!r}]" for name in names)
        item = parse_at(f"_ = {loop}.item", node)[0]
        assert isinstance(item, ast.Assign)
        item.targets = [copy.deepcopy(node.target)]
        once = [item, *parse_at(put, node), *body]
        trial.body = copy.deepcopy([*once, *parse_at(f"{loop}.end_trial(locals())", node)])
        choice.body += copy.deepcopy(once)
        forget = "\n".join(f"{name} = {lost}" for name in sorted(local_names))
        choice.body += parse_at(f"{loop}.end(locals(), {exit_flag})\n{put}\n{forget}", node)
        plain = choice.orelse[0]
        assert isinstance(plain, ast.For)
        plain.target, plain.body = node.target, node.body
        return [walk, choice]


def _target_pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield the targets of an assignment with their values: `a, b = c, d` has two."""
    for target in node.targets:
        value = node.value
        if (
            isinstance(target, ast.Tuple)
            and isinstance(value, ast.Tuple)
            and len(target.elts) == len(value.elts)
        ):
            yield from zip(target.elts, value.elts, strict=True)
        else:
            yield target, value


def _walk(iterable: ast.expr) -> ast.expr:
    """Wrap the iterable of a loop in the classes of `rolled`: `enumerate(x)` is Enumerated(Items(x))."""
    name, arguments, named = "Items", [iterable], []
    if isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name):
        name = _WALKS.get(iterable.func.id, name)
        named = iterable.keywords if name != "Items" else []
        if name == "Range":
            arguments = [_Lengths().visit(copy.deepcopy(each)) for each in iterable.args]
        elif name != "Items":
            arguments = list(map(_walk, iterable.args))
    elif _is_method(iterable):
        assert isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Attribute)
        name = _METHODS[iterable.func.attr]
        arguments, named = [iterable.func.value, *iterable.args], iterable.keywords
    return ast.copy_location(ast.Call(_own_name(name), arguments, named), iterable)


def _is_method(node: ast.expr, *names: str) -> bool:
    """Whether this calls a method of one of these names, or of `_METHODS`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    return node.func.attr in (names or _METHODS)


class _Lengths(ast.NodeTransformer):
    """Makes each `len(x)` a number that may be open."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "len":
            node.func = ast.copy_location(_own_name("length"), node.func)
        return node


def _own_name(name: str) -> ast.expr:
    return ast.Attribute(ast.Name(MODULE, ast.Load()), name, ast.Load())


def parse_at(text: str, location: ast.stmt | ast.expr) -> list[ast.stmt]:
    """Statements on the line of another one, or of an expression."""
    result = ast.parse(text)
    for node in ast.walk(result):
        ast.copy_location(node, location)
    return result.body


def _assigned_first(body: Sequence[ast.stmt]) -> set[str]:
    """Names that each iteration assigns before it reads them."""
    assigned: set[str] = set()
    read: set[str] = set()
    for part in body:
        names = [node for node in ast.walk(part) if isinstance(node, ast.Name)]
        read |= {name.id for name in names if isinstance(name.ctx, ast.Load)}
        if isinstance(part, ast.Assign):
            stored = {name.id for name in names if isinstance(name.ctx, ast.Store)}
            assigned |= stored - read
        elif isinstance(part, ast.AugAssign) and isinstance(part.target, ast.Name):
            read.add(part.target.id)
        else:
            read |= {name.id for name in names}
    return assigned


def _stays(part: ast.AST) -> bool:
    """Whether a statement does not leave the loop."""
    leaving = (ast.Break, ast.Continue, ast.Return, ast.Yield, ast.YieldFrom, ast.Await)
    return not any(isinstance(inner, leaving) for inner in ast.walk(part))


def _changed_names(part: ast.AST) -> Iterator[str]:
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
            if isinstance(base, ast.Name) and in_place:
                yield base.id
    yield from extended_lists(part)


def extended_lists(part: ast.AST) -> Iterator[str]:
    """Names of lists to which a statement adds an item."""
    for node in ast.walk(part):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            base = node.func.value
            if isinstance(base, ast.Name) and node.func.attr in ("append", "insert", "extend"):
                yield base.id
        elif isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(inner, ast.List) for inner in ast.walk(node.value)):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
