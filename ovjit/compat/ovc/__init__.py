"""`convert_model`, and `ovc`, the same as a command."""

from ovjit.compat.ovc.convert import convert_model

__all__ = ["convert_model"]
