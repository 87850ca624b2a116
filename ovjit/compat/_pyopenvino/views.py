"""Classes of OpenVINO's native module that users only get as results."""

from __future__ import annotations

from typing import Any

from ovjit.api.model.rt_info import RTMap


class Iterator:
    """The iterator class of OpenVINO's containers. Here containers return Python's own iterators."""

    def __init__(self, *args: Any):
        raise TypeError("Iterator: No constructor defined! See iter()")

    def __iter__(self) -> Iterator:
        return self


class _ConstRTMapView(RTMap):
    """Read-only runtime information."""

    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError("this runtime information is read-only")
