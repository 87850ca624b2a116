"""The options of this platform, from vLLM's `additional_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.generation.paged import Options

#: Element types of caches.
CACHES = ("f32", "bf16", "f16", "u8", "u4")
#: vLLM's `kv_cache_dtype`, where nothing else says what caches are.
_OF_VLLM = {"auto": "f32", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def parse_options(config: Mapping[str, Any], kv_cache_dtype: str = "auto") -> Options:
    """Checked options. ValueError names an option that is unknown, or a value that is none of its."""
    unknown = sorted(set(config) - set(Options._fields))
    if unknown:
        raise ValueError(
            f"additional_config has unknown keys {', '.join(map(repr, unknown))}; supported keys: "
            f"{', '.join(Options._fields)}"
        )
    weights = config.get("weights", 0)
    if weights not in (0, 4, 8) or isinstance(weights, bool):
        raise ValueError(
            f"additional_config: weights should be 8 or 4 bits, or 0 to keep them as stored; not {weights!r}"
        )
    group = config.get("group", 128)
    if type(group) is not int or group < 16 or group % 16:
        raise ValueError(f"additional_config: group should be a positive multiple of 16, not {group!r}")
    kind = config.get("kv_cache") or _OF_VLLM.get(str(kv_cache_dtype))
    if kind not in CACHES:
        requested = config.get("kv_cache") or kv_cache_dtype
        raise ValueError(
            f"caches of {requested!r} are not supported: additional_config's kv_cache is one of "
            f"{', '.join(CACHES)}, vLLM's kv_cache_dtype one of {', '.join(_OF_VLLM)}"
        )
    properties = config.get("properties", {})
    if not isinstance(properties, Mapping) or not all(isinstance(name, str) for name in properties):
        raise ValueError(f"additional_config: properties should be a dict by name, not {properties!r:.80}")
    return Options(weights, group, kind, dict(properties))
