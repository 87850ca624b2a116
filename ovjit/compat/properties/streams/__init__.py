"""The number of streams."""

from __future__ import annotations

from typing import Any

from ovjit.api.run.property_values import Num, Property, integer


def _num(value: Any) -> Num:
    return value if isinstance(value, Num) else Num(integer(value))


num = Property("NUM_STREAMS", _num)

__all__ = ["Num", "num"]
