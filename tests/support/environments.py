"""Environments of their own for programs whose packages this one does not have."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

from tests.support.run import command


def new_environment(folder: Path) -> Path:
    """The Python of a new environment that has what this one has, for more to be installed."""
    venv.create(folder, with_pip=True)
    site = next((folder / "lib").glob("python3.*")) / "site-packages"
    here = [p for p in sys.path if p.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(here) + "\n")
    return folder / "bin" / "python"


def install(python: Path, *packages: str, alone: bool = False) -> None:
    """Packages from PyPI, without what they need if they are to come `alone`."""
    done = command(python, "-m", "pip", "install", "-q", *(["--no-deps"] if alone else []), *packages)
    assert done.returncode == 0, done.stderr[-2000:]
