"""Sizes that only shrink: tests of an operation's name outside of its room, long functions, large classes.

A number here is what there is. Whoever makes it smaller lowers it; nothing may raise it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support import ROOT

#: What an operation is is said in its record; what is looked for in a graph, by a rule's pattern.
NAME_TEST = re.compile(r"op\.name\)? *(==|!=|in\b|not in\b)")
#: Folder -> how many tests of operations' names its code has.
NAME_TESTS = {"ovjit/rewrite": 18, "ovjit": 17}
#: Classes of more than 300 lines, and why they are one.
LARGE_CLASSES = {
    "Model": "OpenVINO's class, with its methods",
    "InferRequest": "OpenVINO's class, with its methods",
    "Node": "OpenVINO's class, with its methods",
    "Tensor": "OpenVINO's class, with its methods",
    "Call": "one method for each kind of argument",
}
#: The rooms of the compiler and the runtime. A target's folder and a system's module are named by it alone.
CORE = "graph rewrite compiler planning codegen tiles execution storage disk"
NAMED_BY_FOLDER = ("neon", "systems")
#: Functions of more than 60 lines in ovjit and ovjit_ops: most are kernels, whose loops are one function.
LONG_FUNCTIONS, LONGEST = 28, 102


def code(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def definitions(kind: type | tuple[type, ...]) -> Iterator[tuple[str, int]]:
    """(name, lines) of all definitions of a kind."""
    for _, text in code("ovjit", "ovjit_ops"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, kind):
                yield node.name, node.end_lineno - node.lineno + 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("folder", NAME_TESTS)
def test_names_of_operations_are_tested_no_more_often(folder: str) -> None:
    inner = [f"{f}/" for f in NAME_TESTS if f.startswith(f"{folder}/")]
    found = [
        f"{path}: {line.strip()}"
        for path, text in code(folder)
        for line in text.splitlines()
        if not path.startswith(tuple(inner)) and NAME_TEST.search(line)
    ]
    assert len(found) <= NAME_TESTS[folder], "\n".join(found)


def test_no_two_files_of_the_core_have_one_name() -> None:
    paths = [path for room in CORE.split() for path in (ROOT / "ovjit" / room).rglob("*.py")]
    names = Counter(p.name for p in paths if p.parent.name not in NAMED_BY_FOLDER and p.stem != "__init__")
    assert len(names) > 150
    assert not [name for name, count in names.items() if count > 1]


def test_no_class_has_become_large() -> None:
    large = {name for name, lines in definitions(ast.ClassDef) if lines > 300}
    assert large <= set(LARGE_CLASSES), large - set(LARGE_CLASSES)


def test_no_function_has_become_long() -> None:
    long = sorted((lines, name) for name, lines in definitions(ast.FunctionDef) if lines > 60)
    assert len(long) <= LONG_FUNCTIONS, long
    assert long[-1][0] <= LONGEST, long[-1]
