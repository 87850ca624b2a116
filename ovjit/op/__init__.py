"""The ends of a graph as classes: Constant, Parameter, Result; and what else OpenVINO keeps in `op`."""

from ovjit.api.ends import Constant, Parameter, Result

__all__ = ["Constant", "Parameter", "Result"]
