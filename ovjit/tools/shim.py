"""`python -m ovjit shim install`: installs a small distribution named openvino in this virtual environment.

In programs that other programs start, `import openvino` then imports ovjit, without an import of ovjit
before. `importlib.metadata` and `pip` report an installed openvino, of the release whose API ovjit has. `shim
remove` or `pip uninstall openvino` remove it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from ovjit.errors import OvjitError
from ovjit.tools.terminal import reporting
from ovjit.version import OPENVINO

#: The content of the distribution's file `INSTALLER`.
INSTALLER = "ovjit-shim"
_DIST_INFO = f"openvino-{OPENVINO}.dist-info"

_PACKAGE = '''\
"""ovjit in the place of openvino, put here by `python -m ovjit shim install`."""

import sys

try:
    import ovjit
except ModuleNotFoundError:
    sys.path.append({folder!r})
    import ovjit

del sys.modules[__name__]  # the next import makes this name ovjit's own module
import ovjit.as_openvino
'''
_METADATA = """\
Metadata-Version: 2.1
Name: openvino
Version: {version}
Summary: The name openvino for ovjit, a just-in-time runtime with OpenVINO's Python API
License: Apache-2.0
Requires-Python: >=3.10
{requires}"""
_WHEEL = "Wheel-Version: 1.0\nGenerator: ovjit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_ENTRY_POINTS = "[console_scripts]\novc = openvino.tools.ovc.main:main\n"
_SCRIPT = """\
#!{python}
import sys

from openvino.tools.ovc.main import main

sys.exit(main())
"""


class ShimError(OvjitError):
    """The shim cannot be installed here, or is not installed."""


@reporting(ShimError)
def main(argv: Sequence[str] | None = None) -> int:
    """Run `install` or `remove`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="ovjit shim", description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=("install", "remove"))
    action = parser.parse_args(argv).action
    print(install() if action == "install" else remove())
    return 0


def install() -> str:
    """Install the distribution into the current virtual environment. Returns a message that says so.

    Raises ShimError outside of a virtual environment, and if another openvino is installed.
    """
    if sys.prefix == sys.base_prefix:
        raise ShimError(
            "this Python is not in a virtual environment: make one (python -m venv) and run its python"
        )
    _refuse_real()
    site, scripts = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("scripts"))
    if not os.access(site, os.W_OK):
        raise ShimError(f"{str(site)!r} is not writable")
    _delete_files(site)
    folder = str(Path(__file__).resolve().parents[2])
    texts = {
        site / "openvino" / "__init__.py": _PACKAGE.format(folder=folder),
        site / _DIST_INFO / "METADATA": _METADATA.format(version=OPENVINO, requires=_requirement()),
        site / _DIST_INFO / "WHEEL": _WHEEL,
        site / _DIST_INFO / "INSTALLER": INSTALLER + "\n",
        site / _DIST_INFO / "top_level.txt": "openvino\n",
        site / _DIST_INFO / "entry_points.txt": _ENTRY_POINTS,
    }
    script = scripts / "ovc"
    if not script.exists():
        texts[script] = _SCRIPT.format(python=sys.executable)
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if script in texts:
        script.chmod(0o755)
    record = [_record(path, site) for path in texts]
    (site / _DIST_INFO / "RECORD").write_text("\n".join([*record, f"{_DIST_INFO}/RECORD,,", ""]))
    return f"openvino {OPENVINO} is ovjit in {sys.prefix}"


def remove() -> str:
    """Remove the distribution. Returns a message that says so. Raises ShimError if it is not installed."""
    site = Path(sysconfig.get_path("purelib"))
    if not _delete_files(site):
        raise ShimError(f"{str(site)!r} contains no shim")
    return f"openvino is no longer ovjit in {sys.prefix}"


def _refuse_real() -> None:
    for distribution in importlib.metadata.distributions(name="openvino"):
        if (distribution.read_text("INSTALLER") or "").strip() != INSTALLER:
            raise ShimError(
                f"openvino {distribution.version} is installed in this environment: uninstall it first, "
                "as both would have the name openvino"
            )
    spec = importlib.util.find_spec("openvino")
    origin = getattr(spec, "origin", None)
    if spec is not None and origin is not None and "shim install" not in Path(origin).read_text("utf-8"):
        raise ShimError(f"a package openvino already exists in {origin!r}: uninstall it first")


def _requirement() -> str:
    """The shim requires ovjit if ovjit is installed. If it is only on the path, there is no requirement."""
    try:
        return f"Requires-Dist: ovjit>={importlib.metadata.version('ovjit')}\n"
    except importlib.metadata.PackageNotFoundError:
        return ""


def _record(path: Path, site: Path) -> str:
    content = path.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{os.path.relpath(path, site)},sha256={digest},{len(content)}"


def _delete_files(site: Path) -> bool:
    """Delete the files of a shim of any release. Returns whether there were any."""
    deleted = False
    for info in site.glob("openvino-*.dist-info"):
        installer = info / "INSTALLER"
        if not installer.is_file() or installer.read_text().strip() != INSTALLER:
            continue
        deleted = True
        lines = (info / "RECORD").read_text().splitlines() if (info / "RECORD").is_file() else []
        for line in lines:
            path = site / line.rsplit(",", 2)[0]
            if path.is_file():
                path.unlink()
            if path.suffix == ".py":
                shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
        shutil.rmtree(info, ignore_errors=True)
        package = site / "openvino"
        if package.is_dir() and not any(package.iterdir()):
            package.rmdir()
    return deleted
