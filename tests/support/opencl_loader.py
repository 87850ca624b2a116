"""An OpenCL loader that finds no platform. OpenVINO's GPU plugin needs one to be loaded at all."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

#: What every function returns: CL_PLATFORM_NOT_FOUND_KHR.
NOT_FOUND = -1001
NAME = "libOpenCL.so.1"


def make_loader(folder: Path) -> Path | None:
    """The folder with the library; None without a compiler, binutils or OpenVINO's plugin."""
    spec = find_spec("openvino")
    plugin = None if spec is None else Path(spec.origin or "").parent / "libs/libopenvino_intel_gpu_plugin.so"
    if plugin is None or not plugin.exists() or not shutil.which("cc") or not shutil.which("nm"):
        return None
    listed = ["nm", "-D", "--undefined-only", "--with-symbol-versions", str(plugin)]
    text = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    versions: dict[str, list[str]] = defaultdict(list)
    for name, version in re.findall(r" U (cl[A-Z]\w+)@+(\w+\.\d)", text):
        versions[version].append(name)
    source, script = "", ""
    for version, names in sorted(versions.items()):
        script += f"{version} {{ global: {' '.join(f'{name};' for name in names)} }};\n"
        for name in names:
            pointer = name == "clGetExtensionFunctionAddressForPlatform"
            kind, value = ("void *", 0) if pointer else ("int ", NOT_FOUND)
            source += f"{kind}{name}() {{ return {value}; }}\n"
    (folder / "loader.c").write_text(source)
    (folder / "versions").write_text(script)
    options = [f"-Wl,-soname,{NAME}", f"-Wl,--version-script={folder / 'versions'}"]
    line = ["cc", "-shared", "-fPIC", "-w", folder / "loader.c", "-o", folder / NAME, *options]
    subprocess.run(line, check=True)
    return folder
