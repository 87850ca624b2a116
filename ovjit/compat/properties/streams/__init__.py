"""The number of streams."""

from ovjit.api.run.property_values import Num, Property, integer

num = Property("NUM_STREAMS", lambda value: value if isinstance(value, Num) else Num(integer(value)))

__all__ = ["Num", "num"]
