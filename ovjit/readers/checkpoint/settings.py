"""config.json of transformers -> the metadata that the reader of GGUF files takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.errors import ModelError, UnsupportedError
from ovjit.records import NamedTuple

#: model_type -> architecture of `ovjit.readers.gguf.settings`.
FAMILIES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
    "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe", "gemma2": "gemma2", "gemma3_text": "gemma3",
    "phi3": "phi3", "gpt2": "gpt2",
}  # fmt: skip
_GEMMA = {
    "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096,
    "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
#: What transformers takes where config.json has no such entry, unless all kinds have the same.
USUAL: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 4096},
    "mixtral": {"rms_norm_eps": 1e-5, "rope_theta": 1e6},
    "qwen3": {"head_dim": 128},
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": {**_GEMMA, "rope_theta": 1e6},
    "phi3": {"rms_norm_eps": 1e-5},
    "gpt2": {"activation_function": "gelu_new"},
}
#: Activations, by the name that `Kind.act` has for them.
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}
#: Parts of a scaling of rotary positions that are read; others would change what is computed.
_ROPE = frozenset(
    "rope_type type rope_theta factor original_max_position_embeddings low_freq_factor high_freq_factor "
    "short_factor long_factor attention_factor beta_fast beta_slow partial_rotary_factor".split()
)


#: Magnitudes of a number, elements of a layer's row, heads or their elements, and layers: more is damage.
LARGEST, WIDEST, MOST_HEADS, MOST_LAYERS = 1e30, 1 << 24, 1 << 16, 10_000


class Metadata(NamedTuple):
    """`metadata` by GGUF's names; `tensors` that are computed from the configuration; the name of the
    activation."""

    metadata: dict[str, Any]
    tensors: dict[str, np.ndarray]
    act: str


class Config:
    """A configuration's entries, checked where they are read."""

    def __init__(self, entries: dict[str, Any]):
        self.entries = entries

    def any_of(self, *names: str, default: Any = None) -> Any:
        """The first entry of these names that is not null. ModelError if all are missing, without default."""
        for name in names:
            if self.entries.get(name) is not None:
                return self.entries[name]
        if default is None:
            raise ModelError(f"config.json has no {' or '.join(map(repr, names))}")
        return default

    def real(self, *names: str, default: float | None = None) -> float:
        return self._magnitude(names[0], self.any_of(*names, default=default))

    def _magnitude(self, name: str, value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not -LARGEST < value < LARGEST:
            raise ModelError(f"config.json: {name!r} is {value!r:.80}, which is not a number")
        return float(value) if isinstance(value, float) else int(value)

    def positive(self, *names: str, most: float = LARGEST, default: float | None = None) -> float:
        """A number above 0 and not above `most`: others would be divided by, or take all memory."""
        value = self.real(*names, default=default)
        if not 0 < value <= most:
            raise ModelError(
                f"config.json: {names[0]!r} is {value!r}; it should be above 0 and at most {most:g}"
            )
        return value

    def reals(self, name: str) -> np.ndarray:
        """A list of numbers."""
        values = self.any_of(name)
        if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
            raise ModelError(f"config.json: {name!r} is {values!r:.80}, which is not a list of numbers")
        return np.asarray([self._magnitude(name, value) for value in values], np.float32)

    def part(self, name: str) -> dict[str, Any]:
        """The nested object `name`; an empty one if it is missing."""
        section = self.entries.get(name) or {}
        if not isinstance(section, dict):
            raise ModelError(f"config.json: {name!r} is {section!r:.80}, which is not valid")
        return section

    def flag(self, name: str) -> bool:
        return bool(self.entries.get(name))


def override(entries: dict[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the entries `by` in place of its own. Rope scaling has two names in
    configurations, and keeps its base unless `by` has one."""
    result = {**entries, **by}
    if "rope_scaling" in by and "rope_parameters" not in by:
        result["rope_parameters"] = by["rope_scaling"]
    before, after = entries.get("rope_parameters"), result.get("rope_parameters")
    if after is not before and isinstance(before, dict) and "rope_theta" in before.keys() - by.keys():
        result["rope_theta"] = before["rope_theta"]
    return result


def metadata_of(entries: dict[str, Any]) -> Metadata:
    """Metadata of a decoder from config.json. UnsupportedError names an unsupported model type or option."""
    kind = entries.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UnsupportedError(
            f"model_type {kind!r} is not supported; supported: {', '.join(FAMILIES)}. Export other "
            "models (optimum-cli export openvino --task text-generation-with-past)"
        )
    entries = USUAL.get(kind, {}) | entries
    arch, c = FAMILIES[kind], Config(entries)
    rope: dict[str, Any] = {}
    tensors: dict[str, np.ndarray] = {}
    width = c.positive("hidden_size", "n_embd", most=WIDEST)
    heads = c.positive("num_attention_heads", "n_head", most=MOST_HEADS)
    result = {
        "block_count": c.positive("num_hidden_layers", "n_layer", most=MOST_LAYERS),
        "embedding_length": width,
        "attention.head_count": heads,
        "attention.head_count_kv": c.positive("num_key_value_heads", most=MOST_HEADS, default=heads),
        "context_length": c.real("max_position_embeddings", "n_positions", default=2048),
    }
    size = c.positive("head_dim", most=MOST_HEADS, default=width // heads)
    result["attention.key_length"] = result["attention.value_length"] = size
    if arch == "gpt2":
        result["attention.layer_norm_epsilon"] = c.real("layer_norm_epsilon", default=1e-5)
        _refuse(entries, scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True)
    else:
        result["attention.layer_norm_rms_epsilon"] = c.real("rms_norm_eps", default=1e-6)
        rope, tensors = _rotary(c, size, arch)
    if arch.startswith("gemma"):
        result["attention.scale"] = c.positive("query_pre_attn_scalar", default=size) ** -0.5
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            result[name] = c.real(name, default=0.0)
        _refuse(entries, use_bidirectional_attention=True)
    experts = _experts(c, kind)
    windows = _windows(c, kind, int(result["block_count"]))
    all_made = {f"{arch}.{name}": value for name, value in (result | rope | experts | windows).items()}
    act = c.any_of("hidden_act", "hidden_activation", "activation_function", default="silu")
    if not isinstance(act, str) or act not in ACTIVATIONS:
        raise UnsupportedError(
            f"the activation {act!r} is not supported; supported: {', '.join(ACTIVATIONS)}"
        )
    return Metadata({"general.architecture": arch, **all_made}, tensors, ACTIVATIONS[act])


def _refuse(entries: dict[str, Any], **options: Any) -> None:
    for name, value in options.items():
        if entries.get(name) == value:
            raise UnsupportedError(f"config.json: {name} = {value!r} is not supported")


def _experts(c: Config, kind: str) -> dict[str, Any]:
    if "moe" not in kind and kind != "mixtral":
        return {}
    if c.entries.get("mlp_only_layers") or c.real("decoder_sparse_step", default=1) != 1:
        raise UnsupportedError(
            "config.json: models that mix layers with experts and layers without experts are not supported"
        )
    count = c.real("num_local_experts", "num_experts")
    normed = {"expert_weights_norm": c.flag("norm_topk_prob")} if "moe" in kind else {}
    return {"expert_count": count, "expert_used_count": c.real("num_experts_per_tok"), **normed}


def _windows(c: Config, kind: str, layers: int) -> dict[str, Any]:
    """The sliding window, and which layers have it."""
    window = c.entries.get("sliding_window")
    has_switch = kind.startswith("qwen")
    if not window or (has_switch and not c.flag("use_sliding_window")):
        return {"attention.sliding_window": 0, "attention.sliding_window_pattern": 0}
    kinds = c.entries.get("layer_types")
    if kinds is None and has_switch:
        first = c.real("max_window_layers", default=layers)
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    result: dict[str, Any] = {"attention.sliding_window": c.real("sliding_window")}
    if kinds is not None:
        supported = {"sliding_attention", "full_attention"}
        if not isinstance(kinds, list) or not supported.issuperset(map(str, kinds)):
            raise UnsupportedError(
                f"config.json: layer_types {kinds!r:.200} is not supported; supported: {sorted(supported)}"
            )
        result["attention.sliding_window_pattern"] = [x == "sliding_attention" for x in kinds]
    elif kind == "gemma3_text":
        result["attention.sliding_window_pattern"] = int(c.real("sliding_window_pattern", default=6))
    return result


def _rotary(c: Config, size: float, arch: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata of rotary positions, and tables of factors."""
    scaling = c.part("rope_parameters") or c.part("rope_scaling")
    result: dict[str, Any] = {}
    if "full_attention" in scaling:  # one for each kind of layer
        near, scaling = (Config(scaling).part(f"{layers}_attention") for layers in ("sliding", "full"))
        result["rope.freq_base_swa"] = Config(near).positive("rope_theta", default=10000.0)
        if near.get("rope_type", "default") != "default" or (
            arch != "gemma3" and near.get("rope_theta") != scaling.get("rope_theta")
        ):
            raise UnsupportedError(
                "config.json: scaled rotary positions of sliding-window layers are not supported"
            )
    elif arch == "gemma3":
        result["rope.freq_base_swa"] = c.real("rope_local_base_freq", default=10000.0)
    r = Config(scaling)
    result["rope.freq_base"] = base = r.positive("rope_theta", default=c.real("rope_theta", default=10000.0))
    part = r.real("partial_rotary_factor", default=c.real("partial_rotary_factor", default=1.0))
    if not 0 < part <= 1:
        raise ModelError(f"config.json: 'partial_rotary_factor' is {part!r}, which is not valid")
    result["rope.dimension_count"] = rotated = int(size * part)
    kind = r.any_of("rope_type", "type", default="default")
    unread = sorted(set(scaling) - _ROPE)
    if unread:
        raise UnsupportedError(
            f"config.json: these keys of rope_scaling are not supported: {', '.join(unread)}"
        )
    if kind == "default":
        return result, {}
    if kind == "linear":
        return result | {"rope.scaling.type": "linear", "rope.scaling.factor": r.real("factor")}, {}
    if kind == "llama3":
        return result, {"rope_freqs.weight": _llama3(r, base, rotated)}
    original = r.positive(
        "original_max_position_embeddings",
        default=c.real("original_max_position_embeddings", "max_position_embeddings"),
    )
    result["rope.scaling.original_context_length"] = original
    if kind == "yarn":
        return result | _yarn(r), {}
    if kind != "longrope" or arch != "phi3":
        kinds = "linear, llama3, yarn and, of phi3, longrope"
        raise UnsupportedError(f"rotary positions scaled by {kind!r} are not supported; supported: {kinds}")
    factor = c.real("max_position_embeddings") / original
    longer = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
    result |= {"rope.scaling.type": "longrope", "rope.scaling.factor": factor}
    result["rope.scaling.attn_factor"] = r.real("attention_factor", default=longer)
    tables = {name: r.reals(f"{name}_factor") for name in ("long", "short")}
    return result, {f"rope_factors_{name}.weight": table for name, table in tables.items()}


def _yarn(r: Config) -> dict[str, Any]:
    factor = r.real("factor")
    usual = 1 + 0.1 * math.log(factor) if factor > 1 else 1.0
    return {
        "rope.scaling.type": "yarn", "rope.scaling.factor": factor,
        "rope.scaling.attn_factor": r.real("attention_factor", default=usual) / usual,
        "rope.scaling.yarn_beta_fast": r.real("beta_fast", default=32.0),
        "rope.scaling.yarn_beta_slow": r.real("beta_slow", default=1.0),
    }  # fmt: skip


def _llama3(r: Config, base: float, rotated: int) -> np.ndarray:
    """Divisors of the angular speeds of Llama 3's rope scaling: 1 for short wavelengths, `factor` for long
    ones, interpolated between."""
    factor, low, high = (r.positive(name) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    original = r.positive("original_max_position_embeddings")
    if low == high:
        raise ModelError(f"config.json: 'low_freq_factor' and 'high_freq_factor' are both {low!r}")
    turns = original * base ** (-np.arange(0, rotated, 2) / rotated) / (2 * math.pi)
    near = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - near) / factor + near)).astype(np.float32)
