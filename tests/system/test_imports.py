"""Modules import one way, late imports included: what a folder may know is what stands before it.

What is not counted is the plug-in hook: `ovjit/graph/op.py` imports packages of operations by the names that
`op_index.py` and entry points give; `ovjit_ops` is one of them. What `ovjit.__getattr__` gives is for users.
"""

from __future__ import annotations

import ast
import functools
import pathlib
from collections.abc import Iterator

import pytest

from tests.support import ROOT
from tests.support.house import without_collections
from tests.support.run import printed


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for package in ("ovjit", "ovjit_ops"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def parsed(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.fixture(scope="module", autouse=True)
def no_collections() -> Iterator[None]:
    """Trees end with these tests."""
    with without_collections():
        yield
        parsed.cache_clear()
        run_nodes.cache_clear()


def is_for_types(node: ast.AST) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return getattr(test, "id", None) == "TYPE_CHECKING" or getattr(test, "attr", None) == "TYPE_CHECKING"


@functools.cache
def run_nodes(node: ast.AST) -> list[ast.AST]:
    """All nodes that may run, functions' bodies among them; not what is for type checkers alone."""
    left, found = [node], []
    while left:
        children = [n for n in ast.iter_child_nodes(left.pop()) if n._fields and not is_for_types(n)]
        found += children
        left += children
    return found


def imports(name: str, path: pathlib.Path, known: dict[str, pathlib.Path]) -> dict[str, int]:
    """module -> line, of all of the project that the file imports: by statements, or names in calls."""
    out: dict[str, int] = {}

    def add(target: str, line: int) -> None:
        if target in known:
            out.setdefault(target, line)

    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in run_nodes(parsed(path)):
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


def test_no_module_waits_for_the_package_that_it_is_in() -> None:
    """`from ovjit.compat.preprocess import steps`, in that package, waits until the package is imported. If a
    thread imports the package meanwhile and waits for the module, Python gives one of them half a module."""
    found = {}
    for name, path in modules().items():
        inner = [node for node in parsed(path).body if isinstance(node, ast.ImportFrom) and node.module]
        for node in inner:
            package = ROOT / str(node.module).replace(".", "/") / "__init__.py"
            if node.module != "ovjit" and name.startswith(f"{node.module}.") and package.exists():
                own = (n.module for n in parsed(package).body if isinstance(n, ast.ImportFrom))
                if any(str(module).startswith(f"{node.module}.") for module in own):
                    found[name] = node.module
    assert not found


#: Modules that compile kernels, or have those compiled that are nowhere.
COMPILES = ("ovjit.codegen.compiling", "ovjit.codegen.cpu.jit", "ovjit.codegen.loading")
#: Rooms of the readers of formats. Others ask `ovjit.readers.registry`.
FORMATS = tuple(
    f"ovjit.readers.{room}"
    for room in "checkpoint frameworks gguf ir jax onnx onnx_contrib tflite torch".split()
)
#: room of a reader -> rooms that stand on it: they import it, and are of no use without it.
STANDS_ON = {
    "ovjit.readers.checkpoint": (),
    "ovjit.readers.frameworks": (),
    "ovjit.readers.gguf": ("ovjit.readers.checkpoint",),
    "ovjit.readers.jax": ("ovjit.compat.frontend.jax", "ovjit.readers.numerics_contrib.jax_functions"),
    "ovjit.readers.onnx": (
        "ovjit.as_onnxruntime", "ovjit.compat.frontend.onnx_graph", "ovjit.compat.frontend.onnx_model",
        "ovjit.onnxruntime", "ovjit.readers.frameworks", "ovjit.readers.onnx_contrib",
    ),
    "ovjit.readers.onnx_contrib": (),
    "ovjit.readers.tflite": (),
    "ovjit.readers.torch": (
        "ovjit.compat.frontend.pytorch", "ovjit.compat.torch",
        "ovjit.readers.numerics_contrib.torch_spectra",
    ),
}  # fmt: skip
#: folder -> folders of which it knows nothing.
STRANGERS = {
    "ovjit.disk": (
        "ovjit.api", "ovjit.codegen", "ovjit.compiler", "ovjit.execution", "ovjit.graph", "ovjit.storage",
        "ovjit_ops",
    ),
    "ovjit.storage": (
        "ovjit.api", "ovjit.readers", "ovjit.tools",
    ),
    "ovjit.engine": (
        "ovjit.api", "ovjit.readers", "ovjit.storage", "ovjit.tools",
    ),
    "ovjit.execution": (
        *COMPILES,
        "ovjit.api", "ovjit.compiler", "ovjit.engine", "ovjit.readers", "ovjit.rewrite", "ovjit.storage",
        "ovjit.tiles", "ovjit.tools",
    ),
    "ovjit.compiler": (
        "ovjit.api", "ovjit.engine", "ovjit.execution", "ovjit.readers", "ovjit.storage", "ovjit.tiles",
        "ovjit.tools",
        "ovjit_ops",
    ),
    "ovjit.planning": (
        *COMPILES,
        "ovjit.api", "ovjit.compat", "ovjit.compiler", "ovjit.engine", "ovjit.execution", "ovjit.readers",
        "ovjit.storage",
        "ovjit.tiles", "ovjit.tools", "ovjit_ops",
    ),
    "ovjit.rewrite": (
        *COMPILES,
        "ovjit.api", "ovjit.compat", "ovjit.engine", "ovjit.execution", "ovjit.planning", "ovjit.readers",
        "ovjit.storage",
        "ovjit.tiles", "ovjit.tools", "ovjit_ops",
    ),
    "ovjit.tiles": (
        "ovjit.api", "ovjit.compat", "ovjit.compiler", "ovjit.engine", "ovjit.execution", "ovjit.storage",
        "ovjit_ops",
    ),
    "ovjit.graph": (
        "ovjit.api", "ovjit.codegen", "ovjit.compat", "ovjit.compiler", "ovjit.engine", "ovjit.execution",
        "ovjit.planning",
        "ovjit.rewrite", "ovjit.storage", "ovjit_ops",
    ),
    "ovjit.api": (
        *FORMATS, "ovjit.compat", "ovjit.integrations", "ovjit.tools",
    ),
    "ovjit.api.tensors": ("ovjit.api.model", "ovjit.api.run"),
    "ovjit.api.model": ("ovjit.api.run",),
    "ovjit.build": (
        "ovjit.api.run", "ovjit.compat", "ovjit.engine", "ovjit.integrations", "ovjit.readers", "ovjit.tools",
    ),
    "ovjit.compat.frontend.frontend": FORMATS,
    "ovjit.compat.frontend.input_model": FORMATS,
    "ovjit.compat.ovc.convert_impl": FORMATS,
    "ovjit.readers": (
        "ovjit.api", "ovjit.integrations", "ovjit.tools",
    ),
    "ovjit.readers.registry": FORMATS,
    **{
        room: tuple(
            other for other in FORMATS if other != room and room not in STANDS_ON.get(other, ())
        )
        for room in FORMATS
    },
    "ovjit.codegen": (
        "ovjit.api", "ovjit.compat", "ovjit.compiler", "ovjit.engine", "ovjit.execution", "ovjit.planning",
        "ovjit.rewrite",
        "ovjit.storage", "ovjit.tiles", "ovjit_ops",
    ),
    "ovjit_ops": (
        *COMPILES,
        "ovjit.api", "ovjit.engine", "ovjit.execution", "ovjit.readers", "ovjit.storage", "ovjit.tools",
    ),
}  # fmt: skip
#: Rooms that readers stand on: how Models are made, facts of operations, and rewrite rules.
BELOW_READERS = ("ovjit.build", "ovjit.graph", "ovjit.readers", "ovjit.rewrite")
#: (module of a reader, what it imports of another room) -> why it does.
READERS_REACH = {
    ("ovjit.readers.files.weights", "ovjit.storage.origins"): "blobs name the files of weights",
    ("ovjit.readers.ir.reader", "ovjit.compat.preprocess"): "ports of version 10 are converted by its steps",
    ("ovjit.readers.ir.writer", "ovjit.disk.folders"): "files are replaced as a whole",
    ("ovjit.readers.onnx.checks", "ovjit.disk.notice"): "a warning appears once",
    ("ovjit.readers.onnx.scope", "ovjit.disk.notice"): "a warning appears once",
    ("ovjit.readers.onnx_contrib.trees", "ovjit_ops.ensembles.trees"): "one rule for both",
    ("ovjit.readers.torch.fusions.activations", "ovjit_ops.normalization.recognize"): "one rule for both",
}


def test_readers_make_models_by_one_room(graph) -> None:
    """Of the rooms, readers import `BELOW_READERS` alone; the loose modules of `ovjit` are for all."""
    reaches = {
        (name, target)
        for name, targets in graph.items()
        if is_within(name, "ovjit.readers")
        for target in targets
        if not is_within(target, *BELOW_READERS) and (target.count(".") > 1 or target.startswith("ovjit_ops"))
    }
    assert reaches == READERS_REACH.keys()


#: Reached by their names alone, in registries and entry points.
PLUG_INS = (
    "ovjit.readers.numerics_contrib", "ovjit.readers.onnx_contrib", "ovjit.readers.tensorflow_graphs",
)  # fmt: skip


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


def is_within(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


#: The room that follows sizes and masks through Python code, the module that calls its one function, and what
#: it knows of `ovjit`.
RECORDING, RECORDING_DOOR = "ovjit.readers.torch.recording", "ovjit.readers.torch.recordings"
RECORDING_KNOWS = (
    "ovjit.errors", "ovjit.readers.torch.pytorch", "ovjit.readers.torch.scripts.shared_memory",
    "ovjit.readers.torch.tracing", "ovjit.readers.torch.values", "ovjit.records",
)  # fmt: skip


def test_recording_of_python_code_is_a_room_behind_one_function(graph) -> None:
    """`test_walls.py` converts modules without the room."""
    known = {name: [t for t in targets if t.startswith(f"{RECORDING}.")] for name, targets in graph.items()}
    outside = {name: targets for name, targets in known.items() if targets and not is_within(name, RECORDING)}
    assert outside == {RECORDING_DOOR: [f"{RECORDING}.recordings"]}
    imported = [
        [alias.name for alias in node.names]
        for node in run_nodes(parsed(modules()[RECORDING_DOOR]))
        if isinstance(node, ast.ImportFrom) and is_within(str(node.module), RECORDING)
    ]
    assert imported == [["recordings"]]
    further = {
        (name, target)
        for name, targets in graph.items()
        for target in targets
        if is_within(name, RECORDING) and not is_within(target, RECORDING, *RECORDING_KNOWS)
    }
    assert not further


@functools.cache
def first_imports(tree: ast.AST) -> list[ast.AST]:
    """The nodes that run when a module is imported: not the bodies of functions."""
    left, found = [tree], []
    while left:
        children = [
            node
            for node in ast.iter_child_nodes(left.pop())
            if not is_for_types(node) and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        found += children
        left += children
    return found


@pytest.fixture(scope="module")
def importers() -> dict[str, set[str]]:
    """module -> modules that import it when they are imported; a module imports the packages it is in."""
    known = modules()
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, path in known.items():
        targets = {name.rpartition(".")[0]}
        for node in first_imports(parsed(path)):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                targets |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        for target in targets & known.keys():
            found[target].add(name)
    return found


@pytest.mark.parametrize("room", STANDS_ON)
def test_only_rooms_that_stand_on_a_reader_need_it(importers, room) -> None:
    """The rest is imported without the reader's folder: `test_walls.py` tries it."""
    reached = {name for name in importers if is_within(name, room)}
    front = list(reached)
    while front:
        new = importers[front.pop()] - reached
        reached |= new
        front += new
    wrong = [name for name in reached if not is_within(name, room, *STANDS_ON[room])]
    assert not wrong, sorted(wrong)


#: Folders above all others: the users' entry points, and OpenVINO's modules, which have everything that
#: `ovjit` has.
ABOVE = (
    "ovjit.__main__", "ovjit.as_onnxruntime", "ovjit.as_openvino", "ovjit.compat", "ovjit.integrations",
    "ovjit.tools", "ovjit",
)  # fmt: skip
#: (file, what it names) -> why that is no reach upwards.
NO_REACH = {
    ("ovjit.codegen.versions", "ovjit.tiles"): "its sources are part of a hash",
    ("ovjit.codegen.module_texts", "ovjit.tiles"): "its sources are kept",
    ("ovjit.api.model.builders", "sys.modules"): "the module that asks for builders",
    ("ovjit.api.arguments", "sys.modules"): "packages of others, if they are there",
    ("ovjit.forks", "sys.modules"): "what is being imported while a process forks",
    ("ovjit.hashes", "import_module"): "modules of Python's own",
    ("ovjit.codegen.versions", "import_module"): "packages of others, for their versions",
    ("ovjit.codegen.routines", "import_module"): "modules that callers name by texts, checked there",
    ("ovjit.graph.op", "import_module"): "the plug-in hook",
    ("ovjit.alias", "import_module"): "aliases of OpenVINO's names",
    ("ovjit_ops.everything", "import_module"): "its own package's modules",
    ("ovjit.readers.onnx.registry", "import_module"): "the plug-in hook of ONNX's domains",
    ("ovjit.readers.onnx.registry", "ovjit.readers.onnx_contrib"): "the plug-in hook of ONNX's domains",
    ("ovjit.readers.registry", "import_module"): "the plug-in hook of readers",
    ("ovjit.forks", "import_module"): "what another thread is importing while a process forks",
    ("ovjit.source_files", "sys.modules"): "whether a package is a compiled program",
}


def reaches(name: str, tree: ast.Module, known: dict[str, pathlib.Path]) -> Iterator[str]:
    """How a module gets at what stands above it, other than by an import of a module: by the package itself,
    by a module's name in a text or parts of one, by the table of modules, or by attributes that it sets of
    what it has imported."""
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
        for said in _looked_up(name, node):
            yield f"line {node.lineno}: {said}"
        for target in _set_by(node):
            root = target
            while isinstance(root, (ast.Attribute, ast.Subscript)):
                root = root.value
            if isinstance(root, ast.Name) and root.id in imported:
                yield f"line {node.lineno}: sets {ast.unparse(target)}, which is another module's"


def _looked_up(name: str, node: ast.AST) -> Iterator[str]:
    """Modules that are looked up by names that are made while the program runs."""
    if isinstance(node, ast.Call) and node.args and not isinstance(node.args[0], ast.Constant):
        given, called = node.args[0], node.func
        word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if word in ("import_module", "__import__") and (name, "import_module") not in NO_REACH:
            begins = given.values[0] if isinstance(given, ast.JoinedStr) else None
            package = str(begins.value).rpartition(".")[0] if isinstance(begins, ast.Constant) else ""
            if not package.startswith(("ovjit.", "ovjit_ops")) or stands_above(name, package):
                yield f"{ast.unparse(node)} may be any module"
        if word == "get" and isinstance(called, ast.Attribute) and _is_table(called.value):
            if (name, "sys.modules") not in NO_REACH:
                yield f"{ast.unparse(node)} may be any module"
    if isinstance(node, ast.Subscript) and _is_table(node.value):
        if not isinstance(node.slice, ast.Constant) and (name, "sys.modules") not in NO_REACH:
            yield f"{ast.unparse(node)} may be any module"


def _is_table(node: ast.AST) -> bool:
    """True for `sys.modules`."""
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.modules"


def _set_by(node: ast.AST) -> list[ast.expr]:
    """What a node sets attributes of: by an assignment, `setattr` or its `vars`."""
    if isinstance(node, ast.Assign):
        return [t for t in node.targets if isinstance(t, ast.Attribute)]
    if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        return [node.target] if isinstance(node.target, ast.Attribute) else []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "vars"):
        return node.args[:1]
    return []


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
        for reach in reaches(name, parsed(path), known)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_reaches_are_seen() -> None:
    known = {"ovjit.api.run.core": ROOT, "ovjit.api.run.compiled": ROOT, "ovjit.debug": ROOT}
    made = """
from ovjit import debug, Core
from ovjit.api.run.compiled import CompiledModel
def late(room):
    import ovjit
    return ovjit.Core, find("ovjit.api.run.core")
CompiledModel._importer = late
setattr(CompiledModel, "_importer", late)
CompiledModel.kinds.all += [1]
vars(CompiledModel).update(importer=late)
import_module(f"ovjit.api.{late}")
import_module(late)
sys.modules[late].Core
sys.modules.get(late)
import_module(f"ovjit.execution.{late}")
sys.modules.get("numpy")
"""
    found = list(reaches("ovjit.storage.blob", ast.parse(made), known))
    lines = [what.partition(":")[0] for what in found]
    assert sorted(lines) == sorted(f"line {n}" for n in (2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)), found


#: Who asks what this machine is: what compiles or loads for it, and what tells users of it.
KNOW_THE_HOST = (
    "ovjit.api.run.properties_table", "ovjit.codegen.kernel", "ovjit.codegen.loading", "ovjit.codegen.texts",
    "ovjit.engine", "ovjit.storage.blob", "ovjit.tiles.weave",
)  # fmt: skip


def test_targets_are_passed_and_not_asked_for(graph) -> None:
    """Rewriting, planning, lowering and printing are for the target that they are given."""
    users = {name for name, targets in graph.items() if "ovjit.codegen.cpu.host" in targets}
    assert {name for name in users if not name.startswith("ovjit.tools.")} == set(KNOW_THE_HOST)
    for name, path in modules().items():
        nodes = run_nodes(parsed(path))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        assert "contextvars" not in names, name


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
              "ovjit.readers.ir.subgraphs", "ovjit_ops.convolution.cpu_transposed",
              "ovjit_ops.pooling.cpu_pool_indices", "ovjit_ops.normalization.cpu_lrn",
              "ovjit.tiles.matrix"} & set(sys.modules)))
"""


def test_a_network_of_floats_does_without_the_modules_of_others() -> None:
    assert printed("-c", PLAIN).strip() == "[]"


FROM_BLOB = """
import sys, numpy, ovjit
ovjit.Core().import_model({path!r}, "CPU")(numpy.ones((1, 2), "f"))
print(sorted({{"numpy.typing", "ovjit.api.model.custom", "ovjit.api.model.model_forms",
               "ovjit.api.model.model", "ovjit.api.run.profiling", "ovjit.compiler.program",
               "ovjit.planning.plan", "ovjit.planning.parametric"}} & set(sys.modules)))
"""


def test_a_start_from_a_blob_does_without_what_edits_and_compiles_models(tmp_path) -> None:
    import numpy as np

    import ovjit
    from ovjit import opset13 as ops

    x = ops.parameter([1, 2], np.float32, name="x")
    compiled = ovjit.compile_model(ovjit.Model([ops.relu(x)], [x], "m"), "CPU")
    (tmp_path / "m.blob").write_bytes(compiled.export_model().getvalue())
    assert printed("-c", FROM_BLOB.format(path=str(tmp_path / "m.blob"))).strip() == "[]"


ONNX = """
import sys, ovjit
before = set(sys.modules)
ovjit.Core().read_model({path!r})
print(sorted(name for name in set(sys.modules) - before if name.startswith("ovjit.data")
             or name.startswith("ovjit.readers.onnx.") and name.rpartition(".")[2] in {families!r}))
"""


def test_an_onnx_file_is_read_with_the_families_of_its_operators_alone(tmp_path) -> None:
    import onnx
    from onnx import helper

    from ovjit.readers.onnx.registry import FAMILIES

    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Selu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    program = ONNX.format(path=str(path), families=sorted(FAMILIES))
    assert printed("-c", program).strip() == "['ovjit.readers.onnx.math']"


def test_every_record_names_a_lowering_that_is_there() -> None:
    from ovjit.graph.op import all_ops

    named = [record for record in all_ops() if isinstance(record.lower, str)]
    assert len(named) > 50 and all(callable(record.lowering()) for record in named)
