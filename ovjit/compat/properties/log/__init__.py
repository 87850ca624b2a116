"""The level of logging."""

from ovjit.api.run.property_values import Level, Property, instance_of

level = Property("LOG_LEVEL", instance_of(Level))

__all__ = ["Level", "level"]
