"""Sizes that only shrink: tests of an operation's name outside of its room, long functions, large classes.

A number here is what there is. Whoever makes it smaller lowers it; nothing may raise it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support import ROOT
from tests.support.house import without_collections

#: What an operation is is said in its record; what is looked for in a graph, by a rule's pattern.
NAME_TEST = re.compile(r"op\.name\)? *(==|!=|in\b|not in\b)")
#: Folder -> how many tests of operations' names its code has.
NAME_TESTS = {"ovjit/rewrite": 8, "ovjit": 18}
#: Storage types of weights that NumPy lacks, and the files that name one beside their record.
STORED = {"nf4", "f4e2m1"}
NAMING = {
    "ovjit/api/tensors/types.py": "attributes of Type, for type checkers",
    "ovjit/readers/ir/writer.py": "types that OpenVINO does not store as f16",
    "ovjit/readers/onnx/tensor.py": "how ONNX rounds to a type",
    "ovjit/readers/onnx/tensors.py": "the number of a type in files",
    "ovjit_ops/elementwise/small_floats.py": "how OpenVINO rounds to a type",
}
#: Lines of code that a class has at most.
MOST_LINES_OF_A_CLASS = 300
#: The rooms of the compiler and the runtime. A target's folder and a system's module are named by it alone.
CORE = "graph rewrite compiler planning codegen tiles execution storage disk"
NAMED_BY_FOLDER = ("neon", "gpu", "systems")
#: Lines of code and branches that a function has at most, and which have more, with the reason.
MOST_LINES, MOST_BRANCHES = 60, 20
MORE_BRANCHES = {"_assign": "every inference takes this way: two calls more would be 2 % of a small one"}
#: What makes a function a kernel's source. Kernels are printed as one function, with its loops and registers:
#: so many have more than MOST_LINES lines or MOST_BRANCHES branches, and the longest so many lines.
#: Those of texts walk an automaton: a state's cases are the branches of one loop.
KERNEL_SOURCES = {"kernel", "inline", "routine", "block_routine", "rows"}
LARGE_KERNELS, LONGEST_KERNEL = 17, 122
#: What is a branch. `and` and `or` are one for each further operand.
BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.match_case)


def code(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text()


def definitions() -> Iterator[tuple[Any, int]]:
    """All functions and classes, and their lines of code."""
    for _, text in code("ovjit", "ovjit_ops"):
        lines = [0 if not line.strip() or line.strip().startswith("#") else 1 for line in text.splitlines()]
        for node in statements(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first = node.body[0]
                said = ast.get_docstring(node, clean=False) is not None
                notes = sum(lines[first.lineno - 1 : first.end_lineno]) if said else 0
                yield node, sum(lines[node.lineno - 1 : node.end_lineno]) - notes


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements of a tree, with handlers and cases: definitions are nowhere else."""
    for field in ("body", "orelse", "handlers", "cases", "finalbody"):
        for node in getattr(tree, field, ()):
            yield node
            yield from statements(node)


def branches(node: ast.AST) -> int:
    """Those of a function, without what it defines."""
    count = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            count += isinstance(child, BRANCHES) + branches(child)
            count += len(child.values) - 1 if isinstance(child, ast.BoolOp) else 0
    return count


class Sizes(NamedTuple):
    """`functions`: (name, whether it is a kernel's source, lines, branches); `classes`: (name, lines)."""

    functions: list[tuple[str, bool, int, int]]
    classes: list[tuple[str, int]]


@pytest.fixture(scope="module")
def sizes() -> Sizes:
    found = Sizes([], [])
    with without_collections():
        for node, lines in definitions():
            if isinstance(node, ast.ClassDef):
                found.classes.append((node.name, lines))
                continue
            made = {getattr(getattr(d, "func", d), "id", "") for d in node.decorator_list}
            found.functions.append((node.name, bool(made & KERNEL_SOURCES), lines, branches(node)))
    return found


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


def test_storage_types_are_named_in_their_record() -> None:
    """Other files ask the record: a new format of weights is one row, and its packing."""
    naming = set()
    for path, text in code("ovjit", "ovjit_ops"):
        for node in ast.walk(ast.parse(text)) if any(name in text for name in STORED) else ():
            words = str(node.value).split() if isinstance(node, ast.Constant) else ()
            if len(words) < 20 and not STORED.isdisjoint(words):  # else a docstring
                naming.add(path)
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") in STORED:
                naming.add(path)
    assert naming == {*NAMING, "ovjit/graph/dtypes.py"}


def test_no_two_files_of_the_core_have_one_name() -> None:
    paths = [path for room in CORE.split() for path in (ROOT / "ovjit" / room).rglob("*.py")]
    names = Counter(p.name for p in paths if p.parent.name not in NAMED_BY_FOLDER and p.stem != "__init__")
    assert len(names) > 150
    assert not [name for name, count in names.items() if count > 1]


def test_no_class_has_become_large(sizes: Sizes) -> None:
    assert not [row for row in sizes.classes if row[1] > MOST_LINES_OF_A_CLASS]


def test_no_function_is_long_or_has_many_branches(sizes: Sizes) -> None:
    found = [row for row in sizes.functions if not row[1]]
    assert not [row for row in found if row[2] > MOST_LINES]
    many = {name for name, _, _, count in found if count > MOST_BRANCHES}
    assert many == set(MORE_BRANCHES), many ^ set(MORE_BRANCHES)


def test_no_kernel_has_become_large(sizes: Sizes) -> None:
    large = sorted(
        (lines, count, name)
        for name, is_kernel, lines, count in sizes.functions
        if is_kernel and (lines > MOST_LINES or count > MOST_BRANCHES)
    )
    assert len(large) <= LARGE_KERNELS, large
    assert large[-1][0] <= LONGEST_KERNEL, large[-1]
