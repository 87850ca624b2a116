"""The names that OpenVINO's Python layer takes from its native part, for programs that take them from there
too.

Everything that `ovjit` has is here, submodules included, as the same objects; and below them what has no
other public place.
"""

from __future__ import annotations

import importlib
from typing import Any

import ovjit
from ovjit.alias import install

#: module -> the names that are defined in it and have no place at the top
_NAMES = {
    "ovjit.api.model.custom": "AttributeVisitor",
    "ovjit.api.model.node": "DescriptorTensor",
    "ovjit.api.run.variable_state": "VariableState",
    "ovjit.compat._pyopenvino.views": "Iterator _ConstRTMapView",
    "ovjit.compat.frontend.extensions": "ConversionExtension ConversionExtensionBase "
    "DecoderTransformationExtension NodeContext ProgressReporterExtension TelemetryExtension "
    "_ConversionExtension _IDecoder",
    "ovjit.compat.frontend.failures": "GeneralFailure InitializationFailure NotImplementedFailure "
    "OpConversionFailure OpValidationFailure",
    "ovjit.compat.frontend.frontend": "FrontEnd FrontEndManager InputModel Place",
    "ovjit.compat.utils.node_factory": "NodeFactory",
}
_PLACES = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = (
    "_offline_transformations", "experimental", "frontend", "layout_helpers", "op", "passes", "preprocess",
    "properties", "util",
)  # fmt: skip

install("ovjit._pyopenvino", "ovjit")


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"ovjit._pyopenvino.{name}")
    if name.startswith("__"):
        raise AttributeError(f"module 'ovjit._pyopenvino' has no attribute {name!r}")
    return getattr(ovjit, name)


def __dir__() -> list[str]:
    return sorted({*_PLACES, *_MODULES, *(name for name in dir(ovjit) if not name.startswith("__"))})
