"""Hints for a GPU device."""

from __future__ import annotations

from ovjit.api.run.property_values import Priority, Property, instance_of, integer

#: How much a GPU may be slowed down, by the names of priorities.
ThrottleLevel = Priority

available_device_mem = Property("AVAILABLE_DEVICE_MEM_SIZE", integer)
enable_large_allocations = Property("GPU_ENABLE_LARGE_ALLOCATIONS", instance_of(bool))
enable_lora_operation = Property("GPU_ENABLE_LORA_OPERATION", instance_of(bool))
host_task_priority = Property("GPU_HOST_TASK_PRIORITY", instance_of(Priority))
queue_priority = Property("GPU_QUEUE_PRIORITY", instance_of(Priority))
queue_throttle = Property("GPU_QUEUE_THROTTLE", instance_of(Priority))

__all__ = [
    "ThrottleLevel", "available_device_mem", "enable_large_allocations", "enable_lora_operation",
    "host_task_priority", "queue_priority", "queue_throttle",
]  # fmt: skip
