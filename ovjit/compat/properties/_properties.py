"""The class of a property's name."""

from ovjit.api.run.property_values import Property

__all__ = ["Property"]
