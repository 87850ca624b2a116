"""Reading PyTorch modules: `convert_model` traces or exports them, see `ovjit.readers.torch`."""

from __future__ import annotations

import ovjit.compat.frontend.extensions as extensions
from ovjit.compat.frontend.pytorch.module_extension import ModuleExtension


class ConversionExtension(extensions.ConversionExtension):
    """How an operator of PyTorch is converted."""

    framework = "PyTorch"


class OpExtension(extensions.OpExtension):
    """An operator of PyTorch that is an operation of OpenVINO's."""

    framework = "PyTorch"


__all__ = ["ConversionExtension", "ModuleExtension", "OpExtension"]
