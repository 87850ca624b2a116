"""What OpenVINO keeps in `op.util`: variables."""

from ovjit.api.state import Variable, VariableInfo

__all__ = ["Variable", "VariableInfo"]
