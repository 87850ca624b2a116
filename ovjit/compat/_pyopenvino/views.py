"""Classes that OpenVINO's native part has for itself, and that are seen only as what others return."""

from __future__ import annotations

from typing import Any

from ovjit.api.model.rt_info import RTMap


class Iterator:
    """What iterating over a container gives there; here containers give Python's own iterators."""

    def __init__(self, *args: Any):
        raise TypeError("Iterator: No constructor defined! See iter()")

    def __iter__(self) -> Iterator:
        return self


class _ConstRTMapView(RTMap):
    """Runtime information that is only to be read."""

    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError("this runtime information is read-only")
