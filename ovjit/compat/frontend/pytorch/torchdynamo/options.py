"""Options of torch.compile(..., options={...}) by OpenVINO's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ovjit.errors import OvjitError
from ovjit.records import NamedTuple

KNOWN = frozenset(
    "device config aot_autograd model_caching cache_dir disabled_ops decompositions testing".split()
)


class Options(NamedTuple):
    """`config` are properties for compile_model; `disabled_ops` run in eager mode: operators with all their
    overloads, "aten::add", or one overload, "aten::add.Tensor"."""

    device: str
    config: dict[str, Any]
    aot_autograd: bool
    disabled_ops: frozenset[str]
    decompositions: tuple[Any, ...]


def _is_on(value: Any) -> bool:
    return bool(value) and str(value).lower() not in ("false", "0")


def read(given: Mapping[str, Any] | None, devices: list[str]) -> Options:
    """Options as they were given. Raises OvjitError for one that is not known and for a missing device."""
    given = dict(given or {})
    unknown = sorted(given.keys() - KNOWN)
    if unknown:
        raise OvjitError(
            f"the backend 'openvino' has no option {unknown[0]!r}; supported options are {sorted(KNOWN)}"
        )
    device = str(given.get("device") or "CPU")
    if device.split(":")[0] not in {*devices, "AUTO", "HETERO", "MULTI", "BATCH"}:
        raise OvjitError(
            f"Specified device {device} is not in the list of OpenVINO Available Devices: {devices}"
        )
    config = dict(given.get("config") or {})
    if _is_on(given.get("model_caching")) and "CACHE_DIR" not in config:
        config["CACHE_DIR"] = given.get("cache_dir") or "./cache"
    return Options(
        device, config, _is_on(given.get("aot_autograd")), _operators(given.get("disabled_ops") or ()),
        tuple(given.get("decompositions") or ()),
    )  # fmt: skip


def _operators(given: Any) -> frozenset[str]:
    """The operators of a list, or of a text such as "[aten::sin, aten::cos]". Raises OvjitError for a name
    that PyTorch does not have."""
    names = re.findall(r"[^\s,;'\"()\[\]{}]+", given) if isinstance(given, str) else given
    return frozenset(map(_operator, names))


def _operator(name: Any) -> str:
    """ "aten::add" for "aten.add" and "add", "aten::add.Tensor" for "torch.ops.aten.add.Tensor"."""
    import torch

    parts = str(name).removeprefix("torch.ops.").replace("::", ".").split(".")
    if parts[0] == "_operator":
        return parts[-1]
    space, operator, *overload = parts if len(parts) > 1 else ["aten", *parts]
    found = getattr(getattr(torch.ops, space), operator, None)
    if found is None or overload and overload[0] not in found.overloads():
        raise OvjitError(f"the option disabled_ops contains {str(name)!r}, which is not a PyTorch operator")
    return ".".join((f"{space}::{operator}", *overload))
