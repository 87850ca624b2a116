"""`python -m ovjit shim`: the name openvino in a virtual environment, and nothing left of it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support import ROOT

ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def python(tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    packages = Path(np.__file__).parents[1]
    site = next((tmp_path / "env" / "lib").glob("python3.*")) / "site-packages"
    for name in ("numpy", "numpy.libs", "ml_dtypes"):  # what the modules that are imported here need
        if (packages / name).exists():
            (site / name).symlink_to(packages / name)
    return tmp_path / "env" / "bin" / "python"


def call(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=100, env=ENVIRONMENT
    )


def files(python: Path) -> set[str]:
    return {
        str(p)
        for p in python.parent.parent.rglob("*")
        if "__pycache__" not in p.parts or "openvino" in str(p)
    }


def pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", *arguments)


PROGRAM = """
import importlib.metadata as metadata
import openvino as ov
import openvino.runtime, openvino.properties.hint, openvino._pyopenvino
import ovjit
assert ov is ovjit
assert metadata.version("openvino") == "2026.4.1" and ov.__version__.startswith("2026.4.1-")
assert ov.get_version() == ov.__version__
print([e.value for e in metadata.entry_points(group="console_scripts") if e.name == "ovc"])
"""


def test_install_and_remove(python):
    before = files(python)
    assert call(python, "-m", "ovjit", "shim", "install").returncode == 0
    assert call(python, "-m", "ovjit", "shim", "install").returncode == 0  # again: the same
    answer = call(python, "-c", PROGRAM)
    assert answer.stdout == "['openvino.tools.ovc.main:main']\n", answer.stderr
    assert call(python.parent / "ovc", "--help").returncode == 0
    assert call(python, "-m", "ovjit", "shim", "remove").returncode == 0
    assert files(python) == before
    gone = call(python, "-c", "import openvino")
    assert "No module named 'openvino'" in gone.stderr
    again = call(python, "-m", "ovjit", "shim", "remove")
    assert again.returncode == 2 and "no shim" in again.stderr


def test_pip_takes_it_for_openvino(python, tmp_path):
    call(python, "-m", "ovjit", "shim", "install")
    name, info = "needs_openvino-1.0-py3-none-any.whl", "needs_openvino-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / name, "w") as wheel:
        wheel.writestr("needs_openvino.py", "import openvino\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: needs_openvino\nVersion: 1.0\n"
                       "Requires-Dist: openvino>=2024.6\n")  # fmt: skip
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(
            f"{info}/RECORD", f"needs_openvino.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"
        )
    installed = pip(python, "install", "--no-index", str(tmp_path / name))
    assert installed.returncode == 0, installed.stderr
    checked = pip(python, "check")
    assert checked.returncode == 0, checked.stdout
    assert call(python, "-c", "import needs_openvino, openvino; openvino.opset13").returncode == 0
    removed = pip(python, "uninstall", "-y", "openvino")  # the other way to take it away
    assert removed.returncode == 0, removed.stderr
    assert call(python, "-c", "import openvino").returncode == 1


def test_where_it_is_refused(python):
    if sys.prefix == sys.base_prefix:
        pytest.skip("the tests run outside of a virtual environment")
    outside = call(os.path.realpath(sys.executable), "-m", "ovjit", "shim", "install")
    assert outside.returncode == 2 and "not in a virtual environment" in outside.stderr
    real = call(sys.executable, "-m", "ovjit", "shim", "install")  # here the real one is installed
    assert real.returncode == 2 and "is installed in this environment" in real.stderr
    assert call(sys.executable, "-c", "import openvino; print(openvino.__file__)").stdout.count("ovjit") == 0
    folder = python.parent.parent / "lib" / f"python3.{sys.version_info[1]}" / "site-packages" / "openvino"
    folder.mkdir()
    (folder / "__init__.py").write_text("someone = 'else'\n")
    other = call(python, "-m", "ovjit", "shim", "install")
    assert other.returncode == 2 and "a package openvino already exists" in other.stderr
    assert (folder / "__init__.py").read_text() == "someone = 'else'\n"
