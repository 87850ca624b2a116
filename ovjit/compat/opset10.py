"""Builders of the operations of opset 10, see `ovjit.api.model.builders`."""

from ovjit.api.model.builders import opset_functions

__getattr__, __dir__ = opset_functions(__name__, 10)
