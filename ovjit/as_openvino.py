"""`import ovjit.as_openvino`: after it, `import openvino` and its submodules are ovjit.

Programs written for OpenVINO then run unchanged: `openvino`, `openvino.runtime`, `openvino.properties.hint`
and so on are the same module objects as `ovjit`, `ovjit.runtime` ... A missing submodule is a
ModuleNotFoundError, as for a package that is not installed. Raises ImportError if the real package has been
imported already, since two engines under one name would conflict. Packages that are linked to OpenVINO's
native library raise an ImportError that says so.
"""

from __future__ import annotations

import os
import sys

import ovjit
import ovjit.tools
from ovjit import native_packages
from ovjit.alias import install, install_names
from ovjit.version import openvino_version, stand_in_for_openvino


def _add_tools() -> None:
    """`openvino.tools` is a package that other distributions extend. Modules in an `openvino/tools` on the
    path, such as the benchmark_app of the real package, are found after ovjit's own tools."""
    for folder in sys.path:
        tools = os.path.join(folder, "openvino", "tools")
        if tools not in ovjit.tools.__path__ and os.path.isdir(tools):
            ovjit.tools.__path__.append(tools)


_real = sys.modules.get("openvino")
if _real is not None and _real is not ovjit:
    raise ImportError(
        "the real openvino is already imported, from "
        f"{getattr(_real, '__file__', None) or 'an unknown file'}: import ovjit.as_openvino before it, "
        "or run the program with python -m ovjit run"
    )
install("openvino", "ovjit")
install_names({"openvino_genai": "ovjit.genai"})
native_packages.install()
sys.modules["openvino"] = ovjit
# programs choose by OpenVINO's version; ovjit's own is in ovjit.version
stand_in_for_openvino()
ovjit.__version__ = openvino_version()
_add_tools()
