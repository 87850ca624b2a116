"""Hints for a GPU device."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.api.run.property_values import Priority, Property, instance_of, integer
from ovjit.compat.properties.declare import declare

#: How much a GPU may be slowed down, by the names of priorities.
ThrottleLevel = Priority

__all__ = ["ThrottleLevel"]

__getattr__: Callable[[str], Property] = declare(__name__, "GPU_", {
    instance_of(bool): "enable_large_allocations enable_lora_operation",
    instance_of(Priority): "host_task_priority queue_priority queue_throttle",
    integer: "available_device_mem=AVAILABLE_DEVICE_MEM_SIZE",
})  # fmt: skip
