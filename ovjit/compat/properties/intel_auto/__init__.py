"""Properties of the AUTO device, which here always means the CPU."""

from __future__ import annotations

from ovjit.api.run.property_values import Property, SchedulePolicy, instance_of

device_bind_buffer = Property("DEVICE_BIND_BUFFER", instance_of(bool))
devices_utilization_threshold = Property("DEVICES_UTILIZATION_THRESHOLD", instance_of(dict))
enable_runtime_fallback = Property("ENABLE_RUNTIME_FALLBACK", instance_of(bool))
enable_startup_fallback = Property("ENABLE_STARTUP_FALLBACK", instance_of(bool))
low_power_device = Property("LOW_POWER_DEVICE", instance_of(str))
perf_curve_table = Property("PERF_CURVE_TABLE", instance_of(dict, str))
schedule_policy = Property("SCHEDULE_POLICY", instance_of(SchedulePolicy))

__all__ = [
    "SchedulePolicy", "device_bind_buffer", "devices_utilization_threshold", "enable_runtime_fallback",
    "enable_startup_fallback", "low_power_device", "perf_curve_table", "schedule_policy",
]  # fmt: skip
