"""Figures of the product's rooms: code lines, names, docstrings, and imports for types.

`python -m tests.support.house` prints them beside the limits in `tests/system/house.json`; `--write` lowers
limits to the figures, and adds new rooms. It raises none: a limit that must grow for a feature is edited by
hand, with the reason in the commit.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

LIMITS = ROOT / "tests" / "system" / "house.json"
FIGURES = (
    "code_lines",
    "dialect_names",
    "participle_functions",
    "riddle_docstrings",
    "modules_in_type_circles",
)

#: Words that say nothing of a value's meaning, so none may be the whole name of a new binding.
BANNED_NAMES = frozenset(
    "made found given known whole place places wide rest kept own wanted behind turned seen apart held "
    "said asked theirs told noted halves untold unlogged taken put gone left many few sure rough began "
    "stood lies lay counted spoiled meant".split()
)  # fmt: skip
#: A function is a verb phrase: a participle alone does not say whether it does a thing or gives its result.
PARTICIPLE = re.compile(r"_?[a-z]+(ed|en|wn|ept|old|eld|ound|ade|ought|orn|lain)")
#: Nouns, adjectives and verbs of the field that look like participles.
NO_PARTICIPLES = frozenset(
    "seed feed speed need shed embed bed token open even seven ten then when screen children hidden "
    "golden broken threshold fold scaffold hold old cold bold gold field world unfold background round "
    "bound sound ground named typed indexed packed batched fused sorted shared "
    "widen soften flatten unflatten exceed aten searchsorted".split()
)  # fmt: skip
#: Names that the APIs of OpenVINO, PyTorch and Numba or Python's locks dictate, by room.
DICTATED = {
    "ovjit": {"locked"},
    "ovjit/api": {"shutdown"},
    "ovjit/codegen": {"codegen"},
    "ovjit/compat": {"deprecated", "place", "supported"},
    "ovjit/readers/torch": {"left"},
}
#: Sides: where a file names one of these, too, `left` is the other one.
SIDES = frozenset(("right", "top"))
#: Docstrings that are riddles: they begin with a question's word, or are in the project's old dialect.
RIDDLE = re.compile(
    r"^(What|Where|Who|Whoever|Which|How|That which)\b|\bin the place of\b|\bone behind (the )?an?other\b"
    r"|\b(is|are) told\b|\bnobody\b|\bsomebody\b"
)


def room_of(path: Path) -> str:
    """The room of a file: a folder of `ovjit`, of `ovjit/readers`, or of `ovjit_ops`; else the package."""
    parts = path.relative_to(ROOT).parts[:-1]
    depth = 3 if parts[:2] == ("ovjit", "readers") else 2
    return "/".join(parts[:depth])


def sources() -> Iterator[tuple[Path, str]]:
    for package in ("ovjit", "ovjit_ops"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collection inside: to visit the million objects of trees takes longer than to parse them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@functools.cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(text) for path, text in sources()}


@functools.cache
def nodes_of(tree: ast.Module) -> list[ast.AST]:
    return list(ast.walk(tree))


def forget_trees() -> None:
    """Free all trees: garbage collections of later tests would visit them."""
    trees.cache_clear()
    nodes_of.cache_clear()


def count_code_lines(text: str, docstrings: list[ast.Expr]) -> int:
    """The lines that are not blank, not a comment, and in none of the docstrings."""
    code = [bool(line.strip()) and not line.lstrip().startswith("#") for line in text.splitlines()]
    for node in docstrings:
        code[node.lineno - 1 : node.end_lineno] = [False] * ((node.end_lineno or 0) - node.lineno + 1)
    return sum(code)


#: (names, of which functions, docstrings) of a file.
Parts = tuple[list[str], list[str], list[ast.Expr]]


def parts_of(tree: ast.Module) -> Parts:
    """All names that are bound in a file, those of functions among them, and its docstrings."""
    names: list[str] = []
    functions: list[str] = []
    docstrings: list[ast.Expr] = []
    for node in nodes_of(tree):
        kind = type(node)
        if kind in (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module):
            if kind is not ast.Module:
                (names if kind is ast.ClassDef else functions).append(node.name)
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    docstrings.append(first)
        elif kind is ast.arg:
            names.append(node.arg)
        elif kind is ast.Name and type(node.ctx) is ast.Store:
            names.append(node.id)
        elif kind is ast.Attribute and type(node.ctx) is ast.Store:
            names.append(node.attr)
    return names + functions, functions, docstrings


def is_participle(name: str) -> bool:
    return PARTICIPLE.fullmatch(name) is not None and name.strip("_") not in NO_PARTICIPLES


def is_riddle(docstring: ast.Expr) -> bool:
    """True if the first line says neither what a thing is nor what it does."""
    assert isinstance(docstring.value, ast.Constant)
    return RIDDLE.search(str(docstring.value.value).strip().partition("\n")[0]) is not None


@functools.cache
def import_graph() -> dict[str, set[str]]:
    """module -> modules of the product that it imports, for types as well."""
    names = {}
    for path in trees():
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        targets = graph.setdefault(name, set())
        for node in nodes_of(trees()[path]):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names if alias.name in names)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) + 1 - node.level] if node.level else []
                home = ".".join([*base, *filter(None, [node.module])])
                for alias in node.names:
                    inner = f"{home}.{alias.name}"
                    targets.update({inner if inner in names else home} & names.keys())
        targets.discard(name)
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one module (Tarjan's algorithm, without recursion)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components = []
    for root in graph:
        work = [] if root in order else [(root, iter(sorted(graph[root])))]
        if work:
            order[root] = low[root] = len(order)
            stack.append(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in order:
                    order[target] = low[target] = len(order)
                    stack.append(target)
                    work.append((target, iter(sorted(graph[target]))))
                    break
                if target in stack:
                    low[node] = min(low[node], order[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    at = stack.index(node)
                    components.append(set(stack[at:]))
                    del stack[at:]
    return [component for component in components if len(component) > 1]


@functools.cache
def figures() -> dict[str, dict[str, int]]:
    """room -> its figures."""
    rooms: dict[str, Counter[str]] = {}
    for path, text in sources():
        names, functions, docstrings = parts_of(trees()[path])
        dictated = DICTATED.get(room_of(path), set()) | (set() if SIDES.isdisjoint(names) else {"left"})
        names = [name for name in names if name not in dictated]
        functions = [name for name in functions if name not in dictated]
        room = rooms.setdefault(room_of(path), Counter())
        room["code_lines"] += count_code_lines(text, docstrings)
        room["dialect_names"] += sum(name.strip("_") in BANNED_NAMES for name in names)
        room["participle_functions"] += sum(
            is_participle(name) and name.strip("_") not in BANNED_NAMES for name in functions
        )
        room["riddle_docstrings"] += sum(map(is_riddle, docstrings))
    for module in set().union(*circles(import_graph())):
        path = ROOT / Path(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        rooms[room_of(file)]["modules_in_type_circles"] += 1
    return {name: {figure: room[figure] for figure in FIGURES} for name, room in sorted(rooms.items())}


def room_imports() -> dict[str, list[str]]:
    """room -> the rooms that it imports, at run time or for types."""
    rooms: dict[str, set[str]] = {}

    def room_of_module(module: str) -> str:
        path = ROOT / Path(*module.split("."))
        return room_of(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))

    for module, targets in import_graph().items():
        room = rooms.setdefault(room_of_module(module), set())
        room |= {room_of_module(target) for target in targets}
    return {name: sorted(targets - {name}) for name, targets in sorted(rooms.items())}


def limits() -> dict[str, dict[str, dict[str, int]] | dict[str, list[str]]]:
    return json.loads(LIMITS.read_text())


def write_limits() -> None:
    """Lower the limits to the figures, and take rooms that there are no more out."""
    old = limits() if LIMITS.exists() else {"figures": {}, "imports": {}}
    figure_limits = {
        room: {f: min(n, old["figures"].get(room, {}).get(f, n)) for f, n in row.items()}
        for room, row in figures().items()
    }
    allowed = {
        room: sorted(set(targets) & set(old["imports"].get(room, targets)))
        for room, targets in room_imports().items()
    }
    rows = {
        kind: "{\n"
        + ",\n".join(f"  {json.dumps(room)}: {json.dumps(row)}" for room, row in part.items())
        + "\n }"
        for kind, part in (("figures", figure_limits), ("imports", allowed))
    }
    LIMITS.write_text("{\n" + ",\n".join(f' "{kind}": {text}' for kind, text in rows.items()) + "\n}\n")


def main(arguments: list[str]) -> int:
    if "--write" in arguments:
        write_limits()
    rows = limits()["figures"]
    print(f"{'room':28}" + "".join(f"{figure:>26}" for figure in FIGURES))
    for room, row in figures().items():
        print(f"{room:28}" + "".join(f"{row[f]:>16} of {rows.get(room, {}).get(f, 0):>6}" for f in FIGURES))
    totals = {f: sum(row[f] for row in figures().values()) for f in FIGURES}
    print(f"{'all':28}" + "".join(f"{totals[f]:>26}" for f in FIGURES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
