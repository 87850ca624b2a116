"""PyInstaller's hook for ovjit: all modules, their texts, data and metadata.

Kernels are compiled from the texts of their functions. So modules are collected as sources beside their
bytecode: ovjit's own, those of installed packages that bring operations, and whatever of the program imports
what makes a function a kernel.
"""

from __future__ import annotations

import importlib.metadata
import os

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

_BOTH = "pyz+py"
_PACKAGES = ("ovjit", "ovjit_ops")
#: Modules that make a function a kernel, or a part of one.
_KERNELS = ("ovjit.codegen.function", "ovjit.codegen.template", "ovjit.codegen.parts")
#: A program that has no use for them does not get them with ovjit.
excludedimports = [
    "matplotlib", "mlserver", "onnxruntime", "openvino", "prometheus_client", "ray", "rich", "starlette",
    "torch", "triton_python_backend_utils",
]  # fmt: skip

hiddenimports = [
    name
    for package in _PACKAGES
    for name in collect_submodules(package, filter=lambda name: not name.startswith("ovjit._pyinstaller"))
]
module_collection_mode = dict.fromkeys(_PACKAGES, _BOTH)
datas = collect_data_files("ovjit")
for _distribution in ("ovjit", "numba", "llvmlite", "onnx"):
    try:
        datas += copy_metadata(_distribution)
    except importlib.metadata.PackageNotFoundError:
        pass  # it only lies on the path
_GROUPS = ("ovjit.ops", "ovjit.onnx", "ovjit.readers")
for _entry in (e for group in _GROUPS for e in importlib.metadata.entry_points(group=group)):
    _package = _entry.module.partition(".")[0]
    if _package not in _PACKAGES:
        hiddenimports += [_entry.module, *collect_submodules(_package)]
        module_collection_mode[_package] = _BOTH
        if _entry.dist is not None:
            datas += copy_metadata(_entry.dist.name)


def hook(hook_api) -> None:
    """Collect the sources of what of the program has kernels of its own."""
    graph = hook_api.module_graph
    for module in _KERNELS:
        node = graph.find_node(module)
        for user in graph.incoming(node) if node is not None else ():
            name, file = getattr(user, "identifier", ""), getattr(user, "filename", None)
            if user is None or not file or name.partition(".")[0] in _PACKAGES:
                continue
            if type(user).__name__ == "Script":
                hook_api.add_datas([(file, os.curdir)])
            else:
                hook_api.set_module_collection_mode(name, _BOTH)
