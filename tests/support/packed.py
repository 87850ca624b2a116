"""ovjit as it is installed without sources: bytecode alone, or modules in an archive."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from ovjit.tools.kernel_sources import write_sources
from tests.support import ROOT

PACKAGES = ("ovjit", "ovjit_ops")
_NOT_COPIED = shutil.ignore_patterns("__pycache__")


def copied(folder: Path) -> Path:
    """Both packages in a folder, with the texts of their sources as they are now."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=_NOT_COPIED)
    write_sources(folder / "ovjit" / "data")
    return folder


def bytecode_alone(folder: Path) -> Path:
    """Compile all modules below a folder to files beside them, and take the sources away."""
    assert compileall.compile_dir(folder, quiet=1, legacy=True, stripdir=str(folder))
    for path in folder.rglob("*.py"):
        path.unlink()
    return folder


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    return archive


def start(place: Path, program: str, cache: Path | str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program that finds ovjit at `place`."""
    head = f"import sys; sys.path.insert(0, {str(place)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", head + program], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OVJIT_CACHE": str(cache), **env}, cwd=place.parent,
    )  # fmt: skip
