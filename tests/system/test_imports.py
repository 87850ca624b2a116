"""Modules import one way, late imports included: what a folder may know is what stands before it.

What is not counted is the plug-in hook: `ovjit/graph/op.py` imports packages of operations by the names that
`op_index.py` and entry points give; `ovjit_ops` is one of them. What `ovjit.__getattr__` gives is for users.
"""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import ROOT


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for package in ("ovjit", "ovjit_ops"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that may run, functions' bodies among them; not what is for type checkers alone."""
    left = [node]
    while left:
        children = [child for child in ast.iter_child_nodes(left.pop()) if not is_for_types(child)]
        yield from children
        left += children


def imports(name: str, path: pathlib.Path, known: dict[str, pathlib.Path]) -> dict[str, int]:
    """module -> line, of all of the project that the file imports: by statements, or names in calls."""
    out: dict[str, int] = {}

    def add(target: str, line: int) -> None:
        if target in known:
            out.setdefault(target, line)

    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in run_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            base = base if node.level else node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                add(inner if inner in known else base, node.lineno)
        elif isinstance(node, ast.Call):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and str(argument.value).count(".") > 1:
                    add(str(argument.value), node.lineno)  # of `import_module`, say
    out.pop(name, None)
    return out


@pytest.fixture(scope="module")
def graph() -> dict[str, dict[str, int]]:
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def shortest_circle(graph: dict[str, dict[str, int]]) -> list[str]:
    """The modules of a shortest circle, the first one again at the end; [] where there is none."""
    best: list[str] = []
    for start in graph:
        came_from = dict.fromkeys(graph[start], start)
        front = list(came_from)
        while front and start not in came_from:
            behind = []
            for name in front:
                for target in graph[name]:
                    if target not in came_from:
                        came_from[target] = name
                        behind.append(target)
            front = behind
        if start in came_from:
            circle = [start]
            while len(circle) == 1 or circle[-1] != start:
                circle.append(came_from[circle[-1]])
            if not best or len(circle) < len(best):
                best = circle[::-1]
    return best


def told(graph: dict[str, dict[str, int]], circle: list[str]) -> str:
    steps = zip(circle, circle[1:], strict=False)
    return "".join(f"\n  {a} imports {b} in line {graph[a][b]}" for a, b in steps)


def test_no_circle(graph) -> None:
    circle = shortest_circle(graph)
    assert not circle, f"a circle of {len(circle) - 1} modules:{told(graph, circle)}"


#: folder -> folders of which it knows nothing.
STRANGERS = {
    "ovjit.disk": (
        "ovjit.api", "ovjit.codegen", "ovjit.compiler", "ovjit.execution", "ovjit.graph", "ovjit.storage",
        "ovjit_ops",
    ),
    "ovjit.storage": (
        "ovjit.api", "ovjit.readers", "ovjit.tools",
    ),
    "ovjit.execution": (
        "ovjit.api", "ovjit.readers", "ovjit.storage", "ovjit.tools",
    ),
    "ovjit.compiler": (
        "ovjit.api", "ovjit.execution", "ovjit.readers", "ovjit.storage", "ovjit.tiles", "ovjit.tools",
        "ovjit_ops",
    ),
    "ovjit.planning": (
        "ovjit.api", "ovjit.compat", "ovjit.compiler", "ovjit.execution", "ovjit.readers", "ovjit.storage",
        "ovjit.tiles", "ovjit.tools", "ovjit_ops",
    ),
    "ovjit.rewrite": (
        "ovjit.api", "ovjit.compat", "ovjit.execution", "ovjit.planning", "ovjit.readers", "ovjit.storage",
        "ovjit.tiles", "ovjit.tools", "ovjit_ops",
    ),
    "ovjit.tiles": (
        "ovjit.api", "ovjit.compat", "ovjit.compiler", "ovjit.execution", "ovjit.storage", "ovjit_ops",
    ),
    "ovjit.graph": (
        "ovjit.api", "ovjit.codegen", "ovjit.compat", "ovjit.compiler", "ovjit.execution", "ovjit.planning",
        "ovjit.rewrite", "ovjit.storage", "ovjit_ops",
    ),
    "ovjit.api": (
        "ovjit.compat", "ovjit.integrations", "ovjit.tools",
    ),
    "ovjit.readers": (
        "ovjit.integrations", "ovjit.tools",
    ),
    "ovjit.codegen": (
        "ovjit.api", "ovjit.compat", "ovjit.compiler", "ovjit.execution", "ovjit.planning", "ovjit.rewrite",
        "ovjit.storage", "ovjit.tiles", "ovjit_ops",
    ),
    "ovjit_ops": (
        "ovjit.api", "ovjit.execution", "ovjit.readers", "ovjit.storage", "ovjit.tools",
    ),
}  # fmt: skip
#: Reached by entry points alone.
PLUG_INS = ("ovjit.readers.onnx_contrib",)


@pytest.mark.parametrize("folder", STRANGERS)
def test_folders_know_what_stands_before_them(graph, folder) -> None:
    wrong = [
        f"{name} imports {target} in line {line}"
        for name, targets in graph.items()
        if name == folder or name.startswith(folder + ".")
        for target, line in targets.items()
        if any(target == other or target.startswith(other + ".") for other in STRANGERS[folder])
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("folder", PLUG_INS)
def test_plug_ins_are_imported_by_nobody(graph, folder) -> None:
    wrong = [
        f"{name} imports {target} in line {line}"
        for name, targets in graph.items()
        if not name.startswith(folder)
        for target, line in targets.items()
        if target.startswith(folder)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


#: Who stands above all others: what users start, and OpenVINO's modules, which have all that `ovjit` has.
ABOVE = ("ovjit.__main__", "ovjit.as_openvino", "ovjit.compat", "ovjit.integrations", "ovjit.tools", "ovjit")
#: (file, what it names) -> why that is no reach upwards.
NO_REACH = {
    ("ovjit.codegen.versions", "ovjit.tiles"): "its sources are part of a hash",
    ("ovjit.codegen.module_texts", "ovjit.tiles"): "its sources are kept",
}


def reaches(name: str, tree: ast.Module, known: dict[str, pathlib.Path]) -> Iterator[str]:
    """How a module gets at what stands above it, other than by an import of a module: by the package itself,
    by a module's name in a text, or by attributes that it sets of what it has imported."""
    imported: set[str] = set()
    for node in run_nodes(tree):
        if isinstance(node, ast.Import) and any(alias.name == "ovjit" for alias in node.names):
            yield f"line {node.lineno}: import ovjit, which has everything"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("ovjit", "ovjit_ops"):
            imported |= {alias.asname or alias.name for alias in node.names}
            wrong = [a.name for a in node.names if node.module == "ovjit" and f"ovjit.{a.name}" not in known]
            if wrong:
                yield f"line {node.lineno}: from ovjit import {', '.join(wrong)}, which are handed out late"
    for node in run_nodes(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
            reach = "." in node.value and stands_above(name, node.value)  # `ovjit_ops` is a plug-in's name
            if reach and (name, node.value) not in NO_REACH:
                yield f"line {node.lineno}: {node.value!r} by its name"
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                if target.value.id in imported:
                    yield f"line {node.lineno}: sets {ast.unparse(target)}, which is another module's"


def stands_above(name: str, other: str) -> bool:
    """Whether the room of `other` is a stranger to that of `name`."""

    def within(module: str, folder: str) -> bool:
        return module == folder or module.startswith(folder + ".")

    return any(
        within(name, room) and any(within(other, stranger) for stranger in strangers)
        for room, strangers in STRANGERS.items()
    )


def test_nothing_reaches_upwards_by_other_ways() -> None:
    known = modules()
    wrong = [
        f"{name}, {reach}"
        for name, path in known.items()
        if not any(name == top or (name.startswith(top + ".") and top != "ovjit") for top in ABOVE)
        for reach in reaches(name, ast.parse(path.read_text()), known)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_reaches_are_seen() -> None:
    known = {"ovjit.api.run.core": ROOT, "ovjit.api.run.compiled": ROOT, "ovjit.debug": ROOT}
    made = """
from ovjit import debug, Core
from ovjit.api.run.compiled import CompiledModel
def late():
    import ovjit
    return ovjit.Core, find("ovjit.api.run.core")
CompiledModel._importer = late
"""
    found = list(reaches("ovjit.storage.blob", ast.parse(made), known))
    assert [what.partition(":")[0] for what in found] == ["line 2", "line 5", "line 7", "line 6"], found


def test_a_circle_is_found_and_named() -> None:
    made = {"a": {"b": 1, "d": 5}, "b": {"c": 2}, "c": {"a": 3}, "d": {"e": 1}, "e": {}}
    assert sorted(shortest_circle(made)[:-1]) == ["a", "b", "c"]
    assert "b imports c in line 2" in told(made, shortest_circle(made))
    made["c"] = {}
    assert shortest_circle(made) == []


PLAIN = """
import sys, ovjit
from ovjit.data import DIGITS_XML
ovjit.compile_model(str(DIGITS_XML))
print(sorted({"ovjit.rewrite.quantization", "ovjit.rewrite.compression",
              "ovjit.readers.ir.subgraphs", "ovjit_ops.convolution.cpu_transposed"} & set(sys.modules)))
"""


def test_a_network_of_floats_does_without_the_modules_of_others() -> None:
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
