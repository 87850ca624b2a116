"""Options of torch.compile(..., options={...}) by OpenVINO's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.errors import OvjitError
from ovjit.records import NamedTuple

KNOWN = frozenset(
    "device config aot_autograd model_caching cache_dir disabled_ops decompositions testing".split()
)


class Options(NamedTuple):
    """`config` are properties for compile_model; `disabled_ops` run in eager mode."""

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
        raise OvjitError(f"this backend has no option {unknown[0]!r}: {sorted(KNOWN)} are known")
    device = str(given.get("device") or "CPU")
    if device.split(":")[0] not in {*devices, "AUTO", "HETERO", "MULTI", "BATCH"}:
        raise OvjitError(
            f"Specified device {device} is not in the list of OpenVINO Available Devices: {devices}"
        )
    config = dict(given.get("config") or {})
    if _is_on(given.get("model_caching")) and "CACHE_DIR" not in config:
        config["CACHE_DIR"] = given.get("cache_dir") or "./cache"
    disabled = given.get("disabled_ops") or ()
    names = [disabled] if isinstance(disabled, str) else disabled
    return Options(
        device, config, _is_on(given.get("aot_autograd")), frozenset(map(_plain, names)),
        tuple(given.get("decompositions") or ()),
    )  # fmt: skip


def _plain(name: Any) -> str:
    """ "torch.ops.aten.add.Tensor", "aten.add.Tensor" and "aten::add" as "aten::add"."""
    text = str(name).removeprefix("torch.ops.").replace("::", ".")
    return "::".join(text.split(".")[:2])
