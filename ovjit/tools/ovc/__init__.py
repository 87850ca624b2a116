"""`convert_model`, and `ovc`, the same as a command."""

from ovjit.tools.ovc.convert import convert_model

__all__ = ["convert_model"]
