"""Properties of devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovjit.api.run.property_values import Capability, DeviceType, ListProperty, Property, instance_of
from ovjit.compat.properties.declare import declare

Type = DeviceType


class PCIInfo:
    """The address of a device on the PCI bus. The CPU is not on it."""

    domain = bus = device = function = 0

    def __init__(self, domain: int = 0, bus: int = 0, device: int = 0, function: int = 0):
        self.domain, self.bus, self.device, self.function = domain, bus, device, function

    def __repr__(self) -> str:
        return f"{{domain: {self.domain} bus: {self.bus} device: {self.device} function: {self.function}}}"


class Priorities:
    """The kind of the property `priorities`: names of devices, the first of which is preferred."""


def _join(names: Any) -> str:
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"Incorrect passed value: {name} , expected string values.")
    return "".join(name + "," for name in names)


def _per_device(values: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for value in values:
        if not isinstance(value, dict):
            raise TypeError(f"Incorrect passed value: {value}, expected a dictionary")
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"Incorrect passed key in value: {name}, expected string")
        merged.update(value)
    return merged


__all__ = ["Capability", "PCIInfo", "Priorities", "Type", "priorities", "properties"]

priorities = ListProperty("MULTI_DEVICE_PRIORITIES", _join)
properties = ListProperty("DEVICE_PROPERTIES", _per_device)
__getattr__: Callable[[str], Property] = declare(__name__, "DEVICE_", {
    None: "architecture capabilities=OPTIMIZATION_CAPABILITIES full_name=FULL_DEVICE_NAME gops luid pci_info "
    "thermal type uuid",
    instance_of(str): "id",
})  # fmt: skip
