"""Reading PyTorch modules: `convert_model` traces or exports them, see `ovjit.readers.torch`."""

from ovjit.compat.frontend.pytorch.module_extension import ModuleExtension
from ovjit.compat.frontend.pytorch.operator_extensions import ConversionExtension, OpExtension

__all__ = ["ConversionExtension", "ModuleExtension", "OpExtension"]
