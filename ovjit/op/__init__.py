"""The ends of a graph as classes: Constant, Parameter, Result; and what else OpenVINO keeps in `op`."""

from ovjit.api.model.boundary import Constant, Parameter, Result
from ovjit.api.model.variables import assign, read_value

__all__ = ["Constant", "Parameter", "Result", "assign", "read_value"]
