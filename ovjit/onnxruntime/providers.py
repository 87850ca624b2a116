"""Execution providers: the CPU's is there, all others are reported as ONNX Runtime reports missing ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ovjit.onnxruntime.choices import OrtHardwareDeviceType
from ovjit.onnxruntime.failures import STATE
from ovjit.onnxruntime.values import OrtMemoryInfo, cpu_memory_info
from ovjit.version import ONNXRUNTIME

CPU = "CPUExecutionProvider"
_AVAILABLE = [CPU]
_ALL = [
    f"{name}ExecutionProvider"
    for name in (
        "Tensorrt CUDA MIGraphX OpenVINO Dnnl VitisAI QNN Nnapi VSINPU Js CoreML Dml Rknpu WebNN WebGpu "
        "Xnnpack CANN Azure CPU"
    ).split()
]


def get_available_providers() -> list[str]:
    """The providers that sessions can use."""
    return list(_AVAILABLE)


def get_all_providers() -> list[str]:
    """The providers whose names ONNX Runtime knows, the preferred first."""
    return list(_ALL)


def _is_provider(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], dict)
    )


def _pairs(providers: Any, options: Any) -> list[tuple[str, dict[Any, Any]]]:
    """(name, options) of each provider. ValueError for other forms."""
    if not isinstance(providers, Sequence):
        raise ValueError("'providers' should be a sequence.")
    if options is None:
        if not all(map(_is_provider, providers)):
            raise ValueError("'providers' values must be either strings or (string, dict) tuples.")
        return [(p, {}) if isinstance(p, str) else p for p in providers]
    if not isinstance(options, Sequence):
        raise ValueError("'provider_options' should be a sequence.")
    if len(providers) != len(options):
        raise ValueError("'providers' and 'provider_options' should be the same length if both are given.")
    if not all(isinstance(provider, str) for provider in providers):
        raise ValueError("Only string values for 'providers' are supported if 'provider_options' is given.")
    if not all(isinstance(entries, dict) for entries in options):
        raise ValueError("'provider_options' values must be dicts.")
    return list(zip(providers, options, strict=True))


def choose_providers(providers: Any, options: Any) -> dict[str, dict[str, str]]:
    """{name: options} of the providers that a session has. Missing ones get a warning. Raises ValueError for
    other forms and RuntimeError for names that are none."""
    requested: dict[str, dict[str, str]] = {}
    if providers is not None:
        for name, entries in _pairs(providers, options):
            if name not in _AVAILABLE:
                warnings.warn(
                    f"Specified provider '{name}' is not in available provider names.Available providers: "
                    f"'{', '.join(_AVAILABLE)}'",
                    stacklevel=5,
                )
            if name in requested:
                warnings.warn(f"Duplicate provider '{name}' encountered, ignoring.", stacklevel=5)
                continue
            requested[name] = {str(key): str(value) for key, value in entries.items()}
    for name in requested:
        if name not in _ALL:
            raise RuntimeError(f"Unknown Provider Type: {name}")
    return {CPU: {}}


class OrtHardwareDevice:
    """A processor."""

    type, vendor_id, device_id, vendor = OrtHardwareDeviceType.CPU, 0, 0, ""
    metadata: dict[str, str] = {}


class OrtEpDevice:
    """The CPU with its provider."""

    ep_name, ep_vendor, device = CPU, "Microsoft", OrtHardwareDevice()
    ep_options: dict[str, str] = {}

    @property
    def ep_metadata(self) -> dict[str, str]:
        return {"version": ONNXRUNTIME}

    def memory_info(self, kind: Any) -> OrtMemoryInfo:
        return cpu_memory_info()


for _class in (OrtHardwareDevice, OrtEpDevice):
    _class.__module__ = STATE

_DEVICES = [OrtEpDevice()]


def get_ep_devices() -> list[OrtEpDevice]:
    """The devices of all providers: the CPU."""
    return list(_DEVICES)
