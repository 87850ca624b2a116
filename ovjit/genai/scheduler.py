"""SchedulerConfig: settings of batches and of the memory of keys and values."""

from __future__ import annotations

from typing import Any

from ovjit.errors import OvjitError
from ovjit.genai.enums import AggregationMode, KVCrushAnchorPointMode, SparseAttentionMode
from ovjit.genai.fields import BOOL, REAL, SIZE, Instance, Optional, Settings


def _print_fields(name: str, values: dict[str, Any]) -> str:
    """The fields, one a line."""
    lines = []
    for field, value in values.items():
        if isinstance(value, Settings):
            lines.append(f"{value.to_string()}\n")
        elif isinstance(value, float):
            lines.append(f"  {field}: {value:.6g}\n")
        else:
            text = "unset" if value is None else getattr(value, "name", None) or str(value).lower()
            lines.append(f"  {field}: {text}\n")
    return f"{name} {{ \n" + "".join(lines) + " }"


class KVCrushConfig(Settings):
    """Settings of KVCrush: `budget` in blocks, 0 for none."""

    _fields = {
        "budget": (0, SIZE), "rng_seed": (0, SIZE),
        "anchor_point_mode": (KVCrushAnchorPointMode.RANDOM, Instance(KVCrushAnchorPointMode)),
    }  # fmt: skip

    def __init__(self, budget: int = 0,
                 anchor_point_mode: KVCrushAnchorPointMode = KVCrushAnchorPointMode.RANDOM,
                 rng_seed: int = 0):  # fmt: skip
        super().__init__()
        self.budget, self.anchor_point_mode, self.rng_seed = budget, anchor_point_mode, rng_seed

    def to_string(self) -> str:
        """The fields, one a line."""
        return _print_fields("KVCrushConfig", self._values)


class AdaptiveRKVConfig(Settings):
    """Settings of Adaptive R-KV."""

    _fields = {"attention_mass": (0.9, REAL), "window_size": (8, SIZE)}

    def __init__(self, attention_mass: float = 0.9, window_size: int = 8):
        super().__init__()
        self.attention_mass, self.window_size = attention_mass, window_size


class CacheEvictionConfig(Settings):
    """Settings of cache eviction, in tokens: those at the begin and at the end that stay, and the most that
    are kept. RuntimeError if a size is 0, or if nothing is between them."""

    _fields = {
        "aggregation_mode": (AggregationMode.NORM_SUM, Instance(AggregationMode)),
        "apply_rotation": (False, BOOL), "snapkv_window_size": (8, SIZE),
        "kvcrush_config": (None, Instance(KVCrushConfig)),
        "adaptive_rkv_config": (None, Instance(AdaptiveRKVConfig)),
    }  # fmt: skip

    def __init__(self, start_size: int = 32, recent_size: int = 128, max_cache_size: int = 672,
                 aggregation_mode: AggregationMode = AggregationMode.NORM_SUM, apply_rotation: bool = False,
                 snapkv_window_size: int = 8, kvcrush_config: KVCrushConfig | None = None):  # fmt: skip
        super().__init__()
        sizes = {"start_size": start_size, "recent_size": recent_size, "max_cache_size": max_cache_size}
        self.__dict__["_sizes"] = {name: SIZE.assign(value) for name, value in sizes.items()}
        for name, value in self._sizes.items():
            if not value:
                raise OvjitError(f"CacheEvictionConfig.{name} must be non-zero")
        if max_cache_size <= start_size + recent_size:
            raise OvjitError(
                "CacheEvictionConfig.max_cache_size must be larger than CacheEvictionConfig.start_size + "
                "CacheEvictionConfig.recent_size"
            )
        self.aggregation_mode, self.apply_rotation = aggregation_mode, apply_rotation
        self.snapkv_window_size = snapkv_window_size
        self.kvcrush_config = kvcrush_config or KVCrushConfig()
        self.adaptive_rkv_config = AdaptiveRKVConfig()

    def __copy__(self) -> CacheEvictionConfig:
        other = type(self)(**self._sizes)
        other._values.update(self._values)
        return other

    def get_start_size(self) -> int:
        return self._sizes["start_size"]

    def get_recent_size(self) -> int:
        return self._sizes["recent_size"]

    def get_max_cache_size(self) -> int:
        return self._sizes["max_cache_size"]

    def get_evictable_size(self) -> int:
        """Tokens between those that stay."""
        return self.get_max_cache_size() - self.get_start_size() - self.get_recent_size()

    def to_string(self) -> str:
        """The fields, one a line."""
        values = {**self._sizes, "evictable_size": self.get_evictable_size(), **self._values}
        del values["adaptive_rkv_config"], values["_sizes"]
        return _print_fields("CacheEvictionConfig", values)


class SparseAttentionConfig(Settings):
    """Settings of sparse attention."""

    _fields = {
        "mode": (SparseAttentionMode.TRISHAPE, Instance(SparseAttentionMode)),
        "num_last_dense_tokens_in_prefill": (100, SIZE), "num_retained_start_tokens_in_cache": (128, SIZE),
        "num_retained_recent_tokens_in_cache": (1920, SIZE), "xattention_threshold": (REAL.assign(0.8), REAL),
        "xattention_block_size": (64, SIZE), "xattention_stride": (8, SIZE),
    }  # fmt: skip

    def __init__(self, *arguments: Any, **keywords: Any):
        """SparseAttentionConfig(mode, ...): the fields in the order of `_fields`."""
        super().__init__()
        values = dict(zip(self._fields, arguments, strict=False))
        if len(arguments) > len(self._fields) or values.keys() & keywords or keywords.keys() - self._fields:
            raise TypeError(f"__init__(): SparseAttentionConfig takes {', '.join(self._fields)}")
        for name, value in {**values, **keywords}.items():
            setattr(self, name, value)

    def to_string(self) -> str:
        """The fields, one a line."""
        values = dict(self._values)
        return _print_fields("SparseAttentionConfig", {"sparseAttentionMode": values.pop("mode"), **values})


class SchedulerConfig(Settings):
    """Settings of ContinuousBatchingPipeline. LLMPipeline runs one request at a time and keeps its state as
    long as it needs: there only sparse attention and cache eviction have an effect."""

    _fields = {
        "max_num_batched_tokens": (256, SIZE), "num_kv_blocks": (0, SIZE), "cache_size": (0, SIZE),
        "num_linear_attention_blocks": (0, SIZE), "cache_interval_multiplier": (None, Optional(SIZE)),
        "dynamic_split_fuse": (True, BOOL), "use_cache_eviction": (False, BOOL),
        "cache_eviction_config": (None, Instance(CacheEvictionConfig)),
        "max_num_seqs": (256, SIZE), "enable_prefix_caching": (False, BOOL),
        "use_sparse_attention": (False, BOOL),
        "sparse_attention_config": (None, Instance(SparseAttentionConfig)),
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.cache_eviction_config = CacheEvictionConfig()
        self.sparse_attention_config = SparseAttentionConfig()

    def to_string(self) -> str:
        """The fields, one a line: without the settings of disabled features."""
        values = dict(self._values)
        for name in ("cache_eviction", "sparse_attention"):
            if not values[f"use_{name}"]:
                del values[f"{name}_config"]
        return _print_fields("SchedulerConfig", values)


def needs_batches(properties: dict[str, Any], device: str) -> bool:
    """True if the property `scheduler_config` asks for sparse attention or cache eviction, or limits the
    blocks of caches on the CPU."""
    scheduler = properties.get("scheduler_config")
    if not isinstance(scheduler, SchedulerConfig):
        return False
    limits = scheduler.num_kv_blocks > 0 and device in ("CPU", "AUTO")
    return limits or scheduler.use_sparse_attention or scheduler.use_cache_eviction
