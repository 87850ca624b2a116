"""Properties of the AUTO device, which here always means the CPU."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.api.run.property_values import Property, SchedulePolicy, instance_of
from ovjit.compat.properties.declare import declare

__all__ = ["SchedulePolicy"]

__getattr__: Callable[[str], Property] = declare(__name__, "", {
    instance_of(bool): "device_bind_buffer enable_runtime_fallback enable_startup_fallback",
    instance_of(dict): "devices_utilization_threshold",
    instance_of(str): "low_power_device",
    instance_of(dict, str): "perf_curve_table",
    instance_of(SchedulePolicy): "schedule_policy",
})  # fmt: skip
