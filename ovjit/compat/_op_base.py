"""The base of operations written in Python, where OpenVINO keeps it."""

from ovjit.api.model.custom import Op
from ovjit.api.model.node import Node, Output

#: The class below Op in OpenVINO's native part; here they are one.
OpBase = Op

__all__ = ["Node", "Op", "OpBase", "Output"]
