"""What type checkers find under the names of OpenVINO's modules, made when a wheel is built.

At run time `ovjit.preprocess` is an alias of `ovjit.compat.preprocess`, which type checkers cannot know. The
wheel therefore has a package of stubs beside ovjit, "partial" as PEP 561 calls it: a line for each module.
"""

from __future__ import annotations

import pathlib
import re
import runpy
import shutil
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Stubs(BuildHookInterface):
    """Adds `ovjit-stubs` to a wheel, and to an environment in which ovjit is editable."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self.made = pathlib.Path(tempfile.mkdtemp())
        for path, text in stubs(pathlib.Path(self.root)).items():
            (self.made / path).parent.mkdir(parents=True, exist_ok=True)
            (self.made / path).write_text(text)
        kind = "force_include_editable" if version == "editable" else "force_include"
        build_data.setdefault(kind, {})[str(self.made)] = "ovjit-stubs"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self.made)


def has_getattr(file: pathlib.Path) -> bool:
    """Whether the module says itself what its names are."""
    return re.search(r"^(def __getattr__\(|__getattr__\b)", file.read_text(), re.M) is not None


def stubs(root: pathlib.Path) -> dict[str, str]:
    """path below `ovjit-stubs` -> its text."""
    found = {"py.typed": "partial\n"}
    for name, target in runpy.run_path(str(root / "ovjit" / "compat" / "__init__.py"))["NAMES"].items():
        base = root.joinpath(*target.split("."))
        files = sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
        for file in files:
            module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            path = name.replace(".", "/") + file.as_posix().removeprefix(base.as_posix())
            text = f"from {module} import *\n"
            if has_getattr(file):
                text += f"from {module} import __getattr__ as __getattr__\n"
            found[f"{path.removeprefix('ovjit/')}i"] = text
    return found
