"""Options of torch.compile(..., options={...}) by OpenVINO's names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ovjit.errors import OvjitError
from ovjit.readers.torch.pytorch import torch
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


#: What switches an option on and off, by its text in small letters.
SWITCHES = {"true": True, "1": True, "false": False, "0": False, "none": False, "": False}


def read(options: Mapping[str, Any] | None) -> Options:
    """Parse options. Raises OvjitError for an unknown one, and for a value of a wrong type."""
    options = dict(options or {})
    unknown = sorted(options.keys() - KNOWN)
    if unknown:
        raise OvjitError(
            f"the backend 'openvino' has no option {unknown[0]!r}; supported options are {sorted(KNOWN)}"
        )
    config = dict(_of_kind(options, "config", Mapping, "a dict of properties") or {})
    if is_on(options, "model_caching") and "CACHE_DIR" not in config:
        config["CACHE_DIR"] = options.get("cache_dir") or "./cache"
    return Options(
        str(options.get("device") or "CPU"), config, is_on(options, "aot_autograd"),
        frozenset(map(_normalize_disabled, _read_operators(options, "disabled_ops"))),
        tuple(map(_find_decomposable, _read_operators(options, "decompositions"))),
    )  # fmt: skip


def is_on(options: Mapping[str, Any], name: str) -> bool:
    """Whether a boolean option is on. Raises OvjitError for another value."""
    value = SWITCHES.get(str(options.get(name)).lower())
    if value is None:
        raise OvjitError(f"the option {name} is True or False, not {options[name]!r}")
    return value


def _of_kind(options: Mapping[str, Any], name: str, kind: Any, says: str) -> Any:
    value = options.get(name)
    if value is not None and not isinstance(value, kind):
        raise OvjitError(f"the option {name} is {says}, not {value!r}")
    return value


def _read_operators(options: Mapping[str, Any], name: str) -> list[Any]:
    """Operators of a list, or of a text such as "[aten::sin, aten::cos]"."""
    value = _of_kind(options, name, (str, Collection), "a list of operators") or ()
    return re.findall(r"[^\s,;'\"()\[\]{}]+", value) if isinstance(value, str) else list(value)


def _normalize_disabled(name: Any) -> str:
    """ "aten::add" for "aten.add" and "add", "aten::add.Tensor" for "torch.ops.aten.add.Tensor". Raises
    OvjitError for a name that PyTorch does not have."""
    space, _, function = str(name).rpartition(".")
    return function if space == "_operator" else ".".join(_names("disabled_ops", name))


def _names(option: str, name: Any) -> list[str]:
    """An operator's name with its namespace, and an overload if one is given."""
    parts = str(name).removeprefix("torch.ops.").replace("::", ".").split(".")
    space, operator, *overload = parts if len(parts) > 1 else ["aten", *parts]
    packet = getattr(getattr(torch.ops, space), operator, None)
    if packet is None or overload and overload[0] not in packet.overloads():
        raise OvjitError(f"the option {option} contains {str(name)!r}, which is not a PyTorch operator")
    return [f"{space}::{operator}", *overload]


def _find_decomposable(name: Any) -> Any:
    """An operator that PyTorch can decompose. Raises OvjitError for another one."""
    from torch._decomp import get_decompositions

    full, *overload = _names("decompositions", name)
    space, operator = full.split("::")
    op = getattr(getattr(torch.ops, space), operator)
    op = getattr(op, overload[0]) if overload else op
    if not get_decompositions([op]):
        raise OvjitError(f"the option decompositions contains {str(name)!r}, which PyTorch cannot decompose")
    return op
