"""What OpenVINO keeps in `op.util`: variables."""

from ovjit.api.model.variables import Variable, VariableInfo

__all__ = ["Variable", "VariableInfo"]
