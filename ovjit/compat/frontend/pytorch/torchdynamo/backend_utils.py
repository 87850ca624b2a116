"""Options of torch.compile by the names of OpenVINO's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ovjit.compat.frontend.pytorch.torchdynamo.options import is_on


def _reader(name: str, default: Any = None) -> Callable[[Mapping[str, Any] | None], Any]:
    """A function that returns the value of an option; without a default, whether it is on."""
    if default is None:
        return lambda options: is_on(options or {}, name)
    return lambda options: (options or {}).get(name, default)


_is_testing = _reader("testing")
_get_aot_autograd = _reader("aot_autograd")
_get_model_caching = _reader("model_caching")
_get_device = _reader("device", "CPU")
_get_config = _reader("config", {})
_get_decompositions = _reader("decompositions", [])
_get_disabled_ops = _reader("disabled_ops", [])


def _get_cache_dir(options: Mapping[str, Any] | None) -> str:
    """The folder for compiled models: CACHE_DIR of the option `config`, else the option `cache_dir`."""
    return (_get_config(options) or {}).get("CACHE_DIR") or (options or {}).get("cache_dir", "./cache")
