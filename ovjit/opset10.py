"""Builders of the operations of opset 10, see `ovjit.api.builders`."""

from ovjit.api.builders import opset_functions

__getattr__, __dir__ = opset_functions(__name__, 10)
