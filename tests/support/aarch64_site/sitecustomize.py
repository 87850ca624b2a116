"""What Python on emulated AArch64 begins with: `tests/support/aarch64.py` puts this folder on its path.

Programs that Python starts are of this machine, so that for Python itself there is a script. Where a compiler
listens (`tests/support/aarch64_compiler.py`), kernels are asked of it.
"""

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

if os.environ.get("OVJIT_AARCH64_PYTHON"):
    sys.executable = os.environ["OVJIT_AARCH64_PYTHON"]


class _Asking(MetaPathFinder):
    """Has kernels compiled elsewhere once their module is imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "ovjit.codegen.kernel":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            from tests.support.aarch64_compiler import ask

            own = module.Kernel.content
            module.Kernel.content = lambda kernel, isa: ask(kernel, isa) or own(kernel, isa)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("OVJIT_AARCH64_COMPILER"):
    sys.meta_path.insert(0, _Asking())
