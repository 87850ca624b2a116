"""SchedulerConfig: settings of the real package's engine of pages."""

from __future__ import annotations

from ovjit.genai.fields import BOOL, SIZE, Absent, Optional, Settings


class SchedulerConfig(Settings):
    """Settings of memory and batches. ovjit runs one request at a time and keeps its state as long as it
    needs, so they change no result and have no effect. Cache eviction and sparse attention, which would
    change results, are an UnsupportedError when they are switched on."""

    _fields = {
        "max_num_batched_tokens": (256, SIZE), "num_kv_blocks": (0, SIZE), "cache_size": (0, SIZE),
        "num_linear_attention_blocks": (0, SIZE), "cache_interval_multiplier": (None, Optional(SIZE)),
        "dynamic_split_fuse": (True, BOOL), "use_cache_eviction": (False, Absent("cache eviction")),
        "max_num_seqs": (256, SIZE), "enable_prefix_caching": (False, BOOL),
        "use_sparse_attention": (False, Absent("sparse attention")),
    }  # fmt: skip

    def to_string(self) -> str:
        """The fields, one a line."""
        lines = []
        for name, value in self._values.items():
            text = "unset" if value is None else str(value).lower()
            lines.append(f"  {name}: {text}\n")
        return "SchedulerConfig { \n" + "".join(lines) + " }"
