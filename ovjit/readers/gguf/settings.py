"""Settings of a decoder from a GGUF file's metadata, with the defaults of its architecture."""

from __future__ import annotations

import math
from typing import Any

from ovjit.errors import ModelError, UnsupportedError
from ovjit.records import NamedTuple

#: The most layers, and the largest of other sizes.
LAYERS, LARGEST = 4096, 1 << 24


class Kind(NamedTuple):
    """Properties of an architecture."""

    #: Files have the two elements of a pair of queries and keys side by side.
    paired: bool = False
    #: Norms follow attention and feed-forward parts.
    post_norms: bool = False
    #: Embeddings are multiplied with the root of their width.
    root: bool = False
    #: Of so many layers the last sees all positions, the others a window; 0: all layers are alike.
    every: int = 0
    #: The window, if the file does not say it.
    window: int = 0
    #: Weights of the chosen experts sum to 1, if the file does not say it.
    normed_experts: bool = True
    act: str = "silu"
    #: All products of layers have biases.
    biased: bool = False
    #: Each head of queries and of keys has a norm.
    head_norms: bool = False
    #: Queries, keys and values are one product.
    joined: bool = False
    #: Beside the chosen experts there is one for all rows.
    shared_expert: bool = False
    #: Each head of queries has one more score, without a value.
    sinks: bool = False
    #: Bounds of the pairs that YaRN stretches are whole numbers.
    whole_pairs: bool = True
    #: The norm before the feed-forward part.
    second_norm: str = "ffn_norm"


KINDS = {
    "llama": Kind(paired=True),
    "qwen2": Kind(),
    "qwen2moe": Kind(normed_experts=False, shared_expert=True),
    "qwen3": Kind(head_norms=True),
    "qwen3moe": Kind(head_norms=True),
    "gemma2": Kind(post_norms=True, root=True, every=2, window=4096, act="gelu"),
    "gemma3": Kind(post_norms=True, root=True, every=6, act="gelu", head_norms=True),
    "phi3": Kind(joined=True),
    "gpt2": Kind(act="gelu", biased=True, joined=True),
    "gpt-oss": Kind(
        every=2, window=128, act="clamped", biased=True, sinks=True, whole_pairs=False,
        second_norm="post_attention_norm",
    ),
}  # fmt: skip
#: Layers of the models whose queries are scaled by their width over their heads.
_WIDE_SCALE = {"gemma2": 46, "gemma3": 62}


#: What changes the answers of other architectures, and where it changes nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,), "attention.clamp_kqv": (0,), "attention.max_alibi_bias": (0,),
    "attention.output_scale": (0, 1), "attention.shared_kv_layers": (0,), "attention.temperature_scale": (0,),
    "embedding_scale": (0, 1), "expert_gating_func": (0, 1), "expert_group_count": (0, 1),
    "expert_weights_scale": (0, 1), "logit_scale": (0, 1), "residual_scale": (0, 1),
    "rope.scaling.alpha": (0, 1), "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_ext_factor": (1, -1), "rope.scaling.yarn_log_multiplier": (0,),
    "router_logit_softcapping": (0,), "use_parallel_residual": (False,),
}  # fmt: skip


class Settings:
    """The settings of one file, checked. ModelError for missing or inconsistent numbers."""

    def __init__(self, metadata: dict[str, Any]):
        self.metadata = metadata
        arch = metadata.get("general.architecture")
        if not isinstance(arch, str):
            raise ModelError("the metadata 'general.architecture' is missing")
        if arch not in KINDS:
            raise UnsupportedError(
                f"the architecture {arch!r:.100} is not supported; supported: {', '.join(KINDS)}"
            )
        self.arch, self.kind = arch, KINDS[arch]
        for name, values in NEUTRAL.items():
            if metadata.get(self.key(name), values[0]) not in values:
                raise UnsupportedError(
                    f"the metadata {self.key(name)!r} is {metadata[self.key(name)]!r:.80}, which is not "
                    "supported"
                )
        self.layers = self.integer("block_count", most=LAYERS)
        self.hidden_size = self.integer("embedding_length")
        self.heads = self.integer("attention.head_count")
        self.shared = self.integer("attention.head_count_kv", self.heads)
        if self.heads % self.shared:
            raise ModelError(
                f"{self.heads} heads of queries are not a multiple of {self.shared} heads of keys"
            )
        self.size = self.integer("attention.key_length", self.hidden_size // self.heads or None)
        self.value_size = self.integer("attention.value_length", self.hidden_size // self.heads or None)
        if self.heads * max(self.size, self.value_size) > LARGEST:
            raise ModelError(
                f"{self.heads} heads of {self.size} elements exceed the maximum of {LARGEST} elements"
            )
        norm = "attention.layer_norm_epsilon" if arch == "gpt2" else "attention.layer_norm_rms_epsilon"
        self.eps = self.real(norm, least=0.0)
        self.rotated = self.integer("rope.dimension_count", self.size)
        if self.rotated > self.size or self.rotated % 2:
            raise ModelError(f"rope.dimension_count is {self.rotated}, but heads have {self.size} elements")
        self.scale = self.real("attention.scale", 0.0) or 1 / math.sqrt(
            self.hidden_size / self.heads if _WIDE_SCALE.get(arch) == self.layers else self.size
        )
        self.experts = self.integer("expert_count", 0, least=0)
        self.chosen = self.integer("expert_used_count") if self.experts else 0
        if self.chosen > self.experts:
            raise ModelError(f"{self.chosen} experts per token of {self.experts} experts is not valid")
        self.normed_experts = bool(metadata.get(self.key("expert_weights_norm"), self.kind.normed_experts))
        self.attention_cap = self.real("attn_logit_softcapping", 50.0 if arch == "gemma2" else 0.0)
        self.final_cap = self.real("final_logit_softcapping", 30.0 if arch == "gemma2" else 0.0)
        self.windows = self._windows()

    def key(self, name: str) -> str:
        return f"{self.arch}.{name}"

    def _number(self, name: str, default: Any) -> Any:
        """A number, or one that is the same for all layers."""
        value = self.metadata.get(self.key(name), default)
        if isinstance(value, list) and value:
            if any(v != value[0] for v in value):
                raise UnsupportedError(f"{self.key(name)!r} differs between layers, which is not supported")
            value = value[0]
        if value is None:
            raise ModelError(f"the metadata {self.key(name)!r} is missing")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ModelError(f"the metadata {self.key(name)!r} is {value!r:.80}, which is not a number")
        return value

    def integer(self, name: str, default: int | None = None, least: int = 1, most: int = LARGEST) -> int:
        value = self._number(name, default)
        if value != int(value) or not least <= value <= most:
            raise ModelError(f"the metadata {self.key(name)!r} is {value}; it should be {least} to {most}")
        return int(value)

    def real(self, name: str, default: float | None = None, least: float = -math.inf) -> float:
        value = float(self._number(name, default))
        if value < least:
            raise ModelError(f"the metadata {self.key(name)!r} is {value}; it should be at least {least}")
        return value

    def text(self, name: str, default: str) -> str:
        value = self.metadata.get(self.key(name), default)
        if not isinstance(value, str):
            raise ModelError(f"the metadata {self.key(name)!r} is {value!r:.80}, which is not a string")
        return value

    def _windows(self) -> list[int]:
        """The sliding window of each layer: 0 where it sees all."""
        window = self.integer("attention.sliding_window", self.kind.window, least=0)
        pattern = self.metadata.get(self.key("attention.sliding_window_pattern"), self.kind.every)
        if isinstance(pattern, list):
            if len(pattern) != self.layers:
                raise ModelError(
                    f"the sliding-window pattern has {len(pattern)} layers, but the model has {self.layers}"
                )
            return [window if has else 0 for has in pattern]
        every = self.integer("attention.sliding_window_pattern", self.kind.every, least=0)
        if not every:
            return [window] * self.layers
        return [window if i % every < every - 1 else 0 for i in range(self.layers)]
