"""OpenVINO's Python inference API as a pure-Python just-in-time runtime over Numba.

Names are handed out when they are first used, so that `import ovjit` costs next to nothing and imports
neither NumPy nor Numba.
"""

from __future__ import annotations

import importlib
from typing import Any

from ovjit import forks as _forks  # noqa: F401  before every module that registers for forks
from ovjit import injected as _injected
from ovjit.alias import install_names as _install_names
from ovjit.compat import NAMES as _COMPAT
from ovjit.version import __version__ as __version__
from ovjit.version import get_version as get_version

#: module -> the public names that are defined in it, and what the API asks for of what stands above it
_NAMES = {
    "ovjit.api.model.batch": "get_batch set_batch",
    "ovjit.api.model.custom": "Extension Op OpExtension TensorVector",
    "ovjit.api.run.compiled": "CompiledModel",
    "ovjit.api.run.remote": "RemoteContext RemoteTensor VAContext VASurfaceTensor",
    "ovjit.compat.ovc": "convert_model",
    "ovjit.compat.utils.data_helpers.wrappers": "tensor_from_file",
    "ovjit.api.run.core": "Core Version _unpickle compile_model read_model shutdown",
    "ovjit.api.tensors.dimension": "Dimension Symbol",
    "ovjit.api.tensors.layout": "Layout",
    "ovjit.api.model.model": "Model",
    "ovjit.api.model.node": "ConstOutput DiscreteTypeInfo Input Node Output",
    "ovjit.api.run.profiling": "ProfilingInfo",
    "ovjit.api.run.queue": "AsyncInferQueue",
    "ovjit.api.run.request": "InferRequest",
    "ovjit.api.model.rt_info": "OVAny RTMap",
    "ovjit.api.tensors.shapes": "PartialShape",
    "ovjit.api.tensors.tensor": "Tensor",
    "ovjit.api.tensors.types": "Type",
    "ovjit.api.tensors.vectors": "AxisSet AxisVector Coordinate CoordinateDiff Shape Strides",
    "ovjit.tools.compare": "compare",
    "ovjit.codegen.compiling": "progress",
    "ovjit.readers.ir.reader": "_model_of",
    "ovjit.readers.ir.writer": "_model_bytes save_model serialize",
}
_MODULES = {"errors", "tools", *(name[6:] for name in _COMPAT if name.count(".") == 1)}
_install_names(_COMPAT)
_injected.inject(
    model_bytes=lambda: __getattr__("_model_bytes"), model_of=lambda: __getattr__("_model_of"),
    compiled_of=lambda: __getattr__("_unpickle"),
)  # fmt: skip
_PLACES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted((*(name for name in _PLACES if name[0] != "_"), "get_version"))

_archive = getattr(__spec__.loader, "archive", None) if __spec__ is not None else None
if _archive is not None:  # a wheel that was not installed
    from ovjit.zipped import install as _install

    _install(_archive)


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        from ovjit.module_cache import imports_from_file

        with imports_from_file():
            value = getattr(importlib.import_module(_PLACES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"ovjit.{name}")
    raise AttributeError(f"module 'ovjit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})
