"""What a build adds to a wheel: its bill of materials, the sources of kernels (for installations that keep
bytecode alone), and what type checkers find under OpenVINO's names.

At run time `ovjit.preprocess` is an alias of `ovjit.compat.preprocess`, and `ovjit.Core` is imported when it
is first used. Type checkers know neither. The wheel therefore has a package of stubs beside ovjit, "partial"
as PEP 561 calls it: a line for each module, and one for each name of the package itself.
"""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import runpy
import shutil
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface):
    """Adds `ovjit-stubs` to a wheel, and to an environment in which ovjit is editable; to a wheel its bill of
    materials (`sbom.py`)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.made = self.bills = self.texts = pathlib.Path(tempfile.mkdtemp())
        for path, text in stubs(pathlib.Path(self.root)).items():
            (self.made / path).parent.mkdir(parents=True, exist_ok=True)
            (self.made / path).write_text(text)
        kind = "force_include_editable" if version == "editable" else "force_include"
        build_data.setdefault(kind, {})[str(self.made)] = "ovjit-stubs"
        if version != "editable":
            texts = self.kernel_sources()
            build_data[kind][texts] = "ovjit/data/texts.xz"
            build_data["sbom_files"].append(self.bill(texts))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self.made)
        for folder in (self.bills, self.texts):
            shutil.rmtree(folder, ignore_errors=True)

    def kernel_sources(self) -> str:
        """Write the sources of modules with kernels, and return the file's path."""
        sys.path.insert(0, self.root)
        try:
            write_sources = importlib.import_module("ovjit.tools.kernel_sources").write_sources
        finally:
            sys.path.remove(self.root)
        self.texts = pathlib.Path(tempfile.mkdtemp())
        return str(write_sources(self.texts))

    def bill(self, *further: str) -> str:
        """The path of the wheel's bill of materials. `further`: files of `ovjit/data` that the build
        makes."""
        about = self.metadata
        make = runpy.run_path(str(pathlib.Path(self.root) / ".ci" / "sbom.py"))["bill"]
        text = make(
            pathlib.Path(self.root), about.core.name, about.version, about.core.dependencies,
            about.core.optional_dependencies, [pathlib.Path(path) for path in further],
        )  # fmt: skip
        self.bills = pathlib.Path(tempfile.mkdtemp())
        path = self.bills / f"{about.core.name}.cdx.json"
        path.write_text(text)
        return str(path)


def has_getattr(file: pathlib.Path) -> bool:
    """Whether the module says itself what its names are."""
    return re.search(r"^(def __getattr__\(|__getattr__\b)", file.read_text(), re.M) is not None


def stubs(root: pathlib.Path) -> dict[str, str]:
    """path below `ovjit-stubs` -> its text."""
    texts = {"py.typed": "partial\n", "__init__.pyi": package(root)}
    texts |= {"genai/__init__.pyi": genai(root), "onnxruntime/__init__.pyi": onnxruntime(root)}
    for name, target in runpy.run_path(str(root / "ovjit" / "compat" / "__init__.py"))["NAMES"].items():
        base = root.joinpath(*target.split("."))
        files = sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
        for file in files:
            module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            path = name.replace(".", "/") + file.as_posix().removeprefix(base.as_posix())
            text = f"from {module} import *\n"
            if number := re.fullmatch(r"ovjit\.compat\.opset(\d+)", module):
                text = builders(int(number[1]))
            elif has_getattr(file):
                text += f"from {module} import __getattr__ as __getattr__\n"
            texts[f"{path.removeprefix('ovjit/')}i"] = text
    return texts


def builders(opset: int) -> str:
    """The stub of an opset's module: its builders return nodes. Those of other classes are written out."""
    lines = [
        "from collections.abc import Callable",
        "from ovjit.api.model import builders as _builders",
        "from ovjit.api.model.node import Node as _Node",
        f"constant = _builders.{'constant' if opset < 13 else 'constant_13'}",
        "parameter = _builders.parameter",
        "result = _builders.result",
    ]
    for since, name in ((1, "tensor_iterator"), (5, "loop"), (8, "if_op")):
        if opset >= since:
            lines.append(f"from ovjit.api.model.subgraphs import {name} as {name}")
    lines.append("def __getattr__(name: str) -> Callable[..., _Node]: ...")
    return "\n".join(lines) + "\n"


def read_names(file: pathlib.Path) -> dict[str, str]:
    """The table `_NAMES` of a package: module -> the names that it defines."""
    for node in ast.parse(file.read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name) and target.id == "_NAMES":
            names: dict[str, str] = ast.literal_eval(node.value)
            return names
    raise ValueError(f"{file} has no _NAMES")


def import_names(rows: Iterable[tuple[str, str]], package: str = "") -> list[str]:
    """Write the lines that import names. `rows`: (module, its names); `package` is put in front of each
    module."""
    pairs = [(module, name) for module, names in rows for name in names.split()]
    return [f"from {package}{module} import {name} as {name}" for module, name in pairs]


def genai(root: pathlib.Path) -> str:
    """The stub of `ovjit.genai`, which imports a name's module when the name is first used."""
    tables = read_names(root / "ovjit" / "genai" / "__init__.py").items()
    lines = ["__version__: str", "def get_version() -> str: ...", *import_names(tables, "ovjit.genai.")]
    return "\n".join(lines) + "\n"


def onnxruntime(root: pathlib.Path) -> str:
    """The stub of `ovjit.onnxruntime`, which puts the names of two tables into the package."""
    tables = runpy.run_path(str(root / "ovjit" / "onnxruntime" / "surface.py"))
    rows = [*tables["SHARED"].items(), *tables["PACKAGE"].items()]
    lines = ["__version__: str", *import_names(rows, "ovjit.onnxruntime.")]
    return "\n".join(lines) + "\n"


def package(root: pathlib.Path) -> str:
    """The stub of `ovjit` itself: its names by where they are defined, and its modules."""
    lines = ["from ovjit.version import __version__ as __version__, get_version as get_version"]
    lines += import_names(read_names(root / "ovjit" / "__init__.py").items())
    compat = runpy.run_path(str(root / "ovjit" / "compat" / "__init__.py"))["NAMES"]
    modules = ["errors", "tools", *(name[6:] for name in compat if name.count(".") == 1)]
    lines += [f"from ovjit import {name} as {name}" for name in modules]
    return "\n".join(lines) + "\n"
