"""Small random models as GGUF files, and the same computed by NumPy in f64 from dequantised weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter, quants


def quantised(rng: np.random.Generator, kind: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Bytes of a tensor; types that the package cannot make are random blocks with small scales."""
    real = (rng.standard_normal(shape) * gain).astype(np.float32)
    try:
        return quants.quantize(real, Q[kind])
    except NotImplementedError:
        pass
    block, size = quants.GGML_QUANT_SIZES[Q[kind]]
    raw = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size)).astype(np.uint8)
    lead = raw.shape[:-1]
    halves: dict[str, tuple[int, ...]] = {
        "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    }  # fmt: skip
    for i, at in enumerate(halves.get(kind, (0,))):
        scale = gain / WIDE[kind] * rng.uniform(0.5, 1.5, lead) * (7.5 if i and kind != "Q2_K" else 1)
        write_scale(raw, kind, at, scale)
    return raw.reshape(*shape[:-1], -1)


#: The magnitude of numbers of random blocks with a scale of 1.
WIDE = {
    "Q2_K": 24, "Q3_K": 80, "Q4_K": 600, "Q5_K": 1200, "Q6_K": 2400, "IQ4_NL": 80, "IQ4_XS": 1200, "Q1_0": 1,
    "IQ3_S": 160, "IQ3_XXS": 160, "IQ2_S": 54, "IQ2_XS": 54, "IQ2_XXS": 54, "IQ1_S": 7, "IQ1_M": 7,
    "NVFP4": 6,
}  # fmt: skip


def write_scale(raw: np.ndarray, kind: str, at: int, scale: np.ndarray) -> None:
    """Write the scales of blocks raw [..., bytes] at a byte."""
    half = scale.astype(np.float16)[..., None].view(np.uint8)
    if kind == "IQ1_M":  # four bits of it in the highest bits of four integers
        for i in range(4):
            part = half[..., i // 2] >> (4 * (i % 2)) & 15
            raw[..., 49 + 2 * i] = raw[..., 49 + 2 * i] & 15 | part << 4
    elif kind == "NVFP4":  # an exponent of 4 bits, and 3 bits of a fraction that stay random
        exponent = np.clip(np.log2(scale) + 8, 0, 15).astype(np.uint8)
        raw[..., :4] = raw[..., :4] & 7 | (exponent << 3)[..., None]
    else:
        raw[..., at : at + 2] = half


def dequantised(data: np.ndarray, kind: str) -> np.ndarray:
    """The numbers of a tensor's bytes: the package's; for Q1_0, which it only names, ggml's: a bit is the
    sign of the block's scale."""
    if kind != "Q1_0":
        return quants.dequantize(data, Q[kind])
    blocks = data.reshape(-1, 18)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    bits = [(blocks[:, 2:, None] >> np.uint8(i)) & 1 for i in range(8)]
    positive = np.concatenate(bits, 2).reshape(len(blocks), -1) == 1
    return np.where(positive, scale, -scale).reshape(*data.shape[:-1], -1)


class Sizes:
    """Sizes of a model; others by name."""

    def __init__(self, arch: str, **other: Any):
        self.arch, self.layers, self.wide, self.heads, self.shared, self.size = arch, 2, 256, 8, 4, 32
        self.inner, self.words, self.experts, self.chosen, self.window = 256, 300, 0, 2, 0
        self.turned, self.tied, self.pattern, self.extra = 32, False, None, {}
        self.__dict__.update(other)


def tensors(s: Sizes, kind: str, rng: np.random.Generator) -> dict[str, tuple[str, np.ndarray]]:
    """Tensors by their names in the file: type and bytes (f32 itself)."""
    made: dict[str, tuple[str, np.ndarray]] = {}

    def matrix(name: str, *shape: int) -> None:
        made[name] = kind, quantised(rng, kind, shape, 1 / np.sqrt(shape[-1]))

    def vector(name: str, size: int, low: float = 0.8, high: float = 1.2) -> None:
        made[name] = "F32", rng.uniform(low, high, size).astype(np.float32)

    moe, gpt, oss = s.experts > 0, s.arch == "gpt2", s.arch == "gpt-oss"
    matrix("token_embd.weight", s.words, s.wide)
    if gpt:
        made["position_embd.weight"] = "F32", rng.standard_normal((128, s.wide)).astype(np.float32) * 0.1
    for i in range(s.layers):
        b, q, k = f"blk.{i}.", s.heads * s.size, s.shared * s.size
        norms = ["attn_norm", "post_attention_norm" if oss else "ffn_norm"]
        if s.arch in ("gemma2", "gemma3"):
            norms += ["post_attention_norm", "post_ffw_norm"]
        for name in norms:
            vector(f"{b}{name}.weight", s.wide)
        if s.arch in ("qwen3", "qwen3moe", "gemma3"):
            vector(f"{b}attn_q_norm.weight", s.size)
            vector(f"{b}attn_k_norm.weight", s.size)
        if s.arch in ("gpt2", "phi3"):
            matrix(f"{b}attn_qkv.weight", q + 2 * k, s.wide)
        else:
            for name, n in (("q", q), ("k", k), ("v", k)):
                matrix(f"{b}attn_{name}.weight", n, s.wide)
                if s.arch in ("qwen2", "qwen2moe", "gpt-oss"):
                    vector(f"{b}attn_{name}.bias", n, -0.2, 0.2)
        matrix(f"{b}attn_output.weight", s.wide, q)
        if moe:
            made[f"{b}ffn_gate_inp.weight"] = (
                "F32", rng.standard_normal((s.experts, s.wide)).astype(np.float32) / 8
            )  # fmt: skip
            matrix(f"{b}ffn_gate_exps.weight", s.experts, s.inner, s.wide)
            matrix(f"{b}ffn_up_exps.weight", s.experts, s.inner, s.wide)
            matrix(f"{b}ffn_down_exps.weight", s.experts, s.wide, s.inner)
            if s.arch == "qwen2moe":
                vector(f"{b}ffn_gate_inp_shexp.weight", s.wide, -0.2, 0.2)
                matrix(f"{b}ffn_gate_shexp.weight", s.inner, s.wide)
                matrix(f"{b}ffn_up_shexp.weight", s.inner, s.wide)
                matrix(f"{b}ffn_down_shexp.weight", s.wide, s.inner)
        else:
            if not gpt and s.arch != "phi3":
                matrix(f"{b}ffn_gate.weight", s.inner, s.wide)
            matrix(f"{b}ffn_up.weight", s.inner * (2 if s.arch == "phi3" else 1), s.wide)
            matrix(f"{b}ffn_down.weight", s.wide, s.inner)
        if oss:
            vector(f"{b}attn_sinks.weight", s.heads, -2, 2)
            for name, n in (("attn_output", s.wide), ("ffn_gate_inp", s.experts)):
                vector(f"{b}{name}.bias", n, -0.2, 0.2)
            for name, n, most in (("gate", s.inner, 9), ("up", s.inner, 9), ("down", s.wide, 0.5)):
                bias = rng.uniform(-most, most, (s.experts, n)).astype(np.float32)
                made[f"{b}ffn_{name}_exps.bias"] = "F32", bias
        if gpt:
            for name, n in (
                ("attn_norm", s.wide), ("ffn_norm", s.wide), ("attn_qkv", q + 2 * k), ("ffn_up", s.inner),
                ("attn_output", s.wide), ("ffn_down", s.wide),
            ):  # fmt: skip
                vector(f"{b}{name}.bias", n, -0.2, 0.2)
    vector("output_norm.weight", s.wide)
    if gpt:
        vector("output_norm.bias", s.wide, -0.2, 0.2)
    if not s.tied:
        matrix("output.weight", s.words, s.wide)
    if s.arch == "phi3" and s.extra.get("longrope"):
        vector("rope_factors_long.weight", s.turned // 2, 1, 4)
        vector("rope_factors_short.weight", s.turned // 2, 1, 1.5)
    if s.extra.get("scales"):  # of NVFP4: one for a matrix, or for each of a table
        for name, (_, data) in list(made.items()):
            if (
                name.startswith("blk.")
                and name.endswith(".weight")
                and data.ndim > 1
                and "gate_inp" not in name
            ):
                vector(name.replace(".weight", ".scale"), len(data) if data.ndim == 3 else 1, 0.5, 2)
                made[name.replace(".weight", ".input_scale")] = "F32", np.ones(1, np.float32)
    if s.extra.get("factors"):
        vector("rope_freqs.weight", s.turned // 2, 1, 4)
    return made


def write(
    path: Any, s: Sizes, made: dict[str, tuple[str, np.ndarray]],
    words: Callable[[GGUFWriter], None] | None = None, most: int = 0,
) -> None:  # fmt: skip
    """The file, or files of `most` tensors each; `words` writes the tokenizer's tables."""
    w = GGUFWriter(str(path), s.arch, split_max_tensors=most)
    w.add_block_count(s.layers)
    w.add_embedding_length(s.wide)
    w.add_context_length(128)
    w.add_head_count(s.heads)
    w.add_head_count_kv(s.shared)
    w.add_feed_forward_length(s.inner)
    w.add_key_length(s.size)
    w.add_value_length(s.size)
    if s.arch == "gpt2":
        w.add_layer_norm_eps(1e-5)
    else:
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_freq_base(10000.0 if s.arch != "gemma3" else 1e6)
        w.add_rope_dimension_count(s.turned)
    if s.experts:
        w.add_expert_count(s.experts)
        w.add_expert_used_count(s.chosen)
        w.add_expert_feed_forward_length(s.inner)
    if "normed" in s.extra:
        w.add_expert_weights_norm(s.extra["normed"])
    if s.window:
        w.add_sliding_window(s.window)
    if s.arch == "gemma2":
        w.add_attn_logit_softcapping(5.0)
        w.add_final_logit_softcapping(3.0)
    if "scaling" in s.extra:
        w.add_string(f"{s.arch}.rope.scaling.type", s.extra["scaling"])
        w.add_float32(f"{s.arch}.rope.scaling.factor", 4.0)
    if "scaling" in s.extra or s.extra.get("longrope"):
        w.add_uint32(f"{s.arch}.rope.scaling.original_context_length", 32 if "scaling" in s.extra else 8)
    if s.extra.get("longrope"):
        w.add_float32(f"{s.arch}.rope.scaling.attn_factor", 1.19)
    if words is not None:
        words(w)
    else:
        w.add_tokenizer_model("llama")
        w.add_token_list([f"<{i}>\n" for i in range(s.words)])
        w.add_token_scores([float(-i) for i in range(s.words)])
        w.add_bos_token_id(1)
        w.add_chat_template("{{ messages[0]['content'] }}")
    for name, (kind, data) in made.items():
        w.add_tensor(name, data, raw_dtype=None if kind in ("F32", "F16") else Q[kind])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


class Reference:
    """Logits [L, words] of one sequence in f64, all at once; pairs of llama turn as files have them."""

    def __init__(self, s: Sizes, made: dict[str, tuple[str, np.ndarray]]):
        self.s = s
        self.w = {n: dequantised(d, k).astype(np.float64) for n, (k, d) in made.items()}

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        scale, bias = self.w.get(f"{name}.scale", 1.0), self.w.get(f"{name}.bias", 0.0)
        return x @ self.w[f"{name}.weight"].T * scale + bias

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        if self.s.arch == "gpt2":
            x = x - x.mean(-1, keepdims=True)
        y = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
        return y * self.w[f"{name}.weight"] + self.w.get(f"{name}.bias", 0.0)

    def angles(self, length: int, windowed: bool) -> tuple[np.ndarray, float]:
        s, n = self.s, self.s.turned
        base = 1e6 if s.arch == "gemma3" and not windowed else 10000.0
        speeds, more = np.array([base ** (-2 * i / n) for i in range(n // 2)]), 1.0
        plain = speeds
        if s.extra.get("factors"):
            speeds = speeds / self.w["rope_freqs.weight"]
        if s.extra.get("longrope"):
            speeds, more = speeds / self.w[f"rope_factors_{'long' if length > 8 else 'short'}.weight"], 1.19
        if s.extra.get("scaling") == "linear" and not (s.arch == "gemma3" and windowed):
            speeds = speeds / 4
        if s.extra.get("scaling") == "yarn":
            ends = [n * np.log(32 / (t * 2 * np.pi)) / (2 * np.log(base)) for t in (32.0, 1.0)]
            low, high = max(0, np.floor(ends[0])), min(n - 1, np.ceil(ends[1]))
            mix = [1 - min(1, max(0, (i - low) / max(0.001, high - low))) for i in range(n // 2)]
            speeds = np.array([v / 4 * (1 - m) + v * m for v, m in zip(speeds, mix, strict=True)])
            more = 1 + 0.1 * np.log(4)
            if s.arch == "gpt-oss":
                low, high = max(0, ends[0]), min(n - 1, ends[1])
                mix = [1 - min(1, max(0, (i - low) / (high - low))) for i in range(n // 2)]
                speeds = plain / 4 * (1 - np.array(mix)) + plain * np.array(mix)
        return np.arange(length)[:, None] * speeds, more

    def turn(self, x: np.ndarray, windowed: bool) -> np.ndarray:
        """x [heads, L, size]"""
        n = self.s.turned
        angles, more = self.angles(x.shape[1], windowed)
        c, d, y = np.cos(angles) * more, np.sin(angles) * more, x.copy()
        first, second = slice(0, n // 2), slice(n // 2, n)
        if self.s.arch == "llama":
            first, second = slice(0, n, 2), slice(1, n, 2)
        a, b = x[..., first], x[..., second]
        y[..., first], y[..., second] = a * c - b * d, b * c + a * d
        return y

    def attention(self, x: np.ndarray, i: int) -> np.ndarray:
        s, b, length = self.s, f"blk.{i}.", len(x)
        cuts = np.cumsum([s.heads * s.size, s.shared * s.size])
        if f"{b}attn_qkv.weight" in self.w:
            parts = np.split(self.linear(x, f"{b}attn_qkv"), cuts, 1)
        else:
            parts = [self.linear(x, f"{b}attn_{n}") for n in "qkv"]
        q, k, v = (p.reshape(length, -1, s.size).transpose(1, 0, 2) for p in parts)
        if f"{b}attn_q_norm.weight" in self.w:
            q, k = self.norm(q, f"{b}attn_q_norm"), self.norm(k, f"{b}attn_k_norm")
        every = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2}.get(s.arch, 0)
        window = s.window if not every or i % every < every - 1 else 0
        if s.arch != "gpt2":
            q, k = self.turn(q, bool(window)), self.turn(k, bool(window))
        k, v = (np.repeat(t, s.heads // s.shared, 0) for t in (k, v))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(s.size)
        if s.arch == "gemma2":
            scores = 5 * np.tanh(scores / 5)
        far = np.arange(length)[:, None] - np.arange(length)
        scores[:, (far < 0) | ((far >= window) if window else False)] = -np.inf
        if s.arch == "gpt-oss":
            sinks = np.broadcast_to(self.w[f"{b}attn_sinks.weight"][:, None, None], (s.heads, length, 1))
            p = softmax(np.concatenate([scores, sinks], -1))[..., :-1]
        else:
            p = softmax(scores)
        return self.linear((p @ v).transpose(1, 0, 2).reshape(length, -1), f"{b}attn_output")

    def act(self, x: np.ndarray) -> np.ndarray:
        if self.s.arch in ("gpt2", "gemma2", "gemma3"):
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return x / (1 + np.exp(-x))

    def feed(self, x: np.ndarray, b: str, suffix: str = "") -> np.ndarray:
        up = self.linear(x, f"{b}ffn_up{suffix}")
        if self.s.arch == "gpt2":
            up = self.act(up)
        elif self.s.arch == "phi3":
            gate, up = np.split(up, 2, 1)
            up = self.act(gate) * up
        else:
            up = self.act(self.linear(x, f"{b}ffn_gate{suffix}")) * up
        return self.linear(up, f"{b}ffn_down{suffix}")

    def expert(self, row: np.ndarray, b: str, e: int) -> np.ndarray:
        names = [f"{b}ffn_{n}_exps" for n in ("gate", "up", "down")]
        scales = [self.w[f"{n}.scale"][e] if f"{n}.scale" in self.w else 1.0 for n in names]
        gate, up, down = (self.w[f"{n}.weight"][e] * s for n, s in zip(names, scales, strict=True))
        if self.s.arch != "gpt-oss":
            return down @ (self.act(gate @ row) * (up @ row))
        of_gate, of_up, of_down = (self.w[f"{b}ffn_{n}_exps.bias"][e] for n in ("gate", "up", "down"))
        g = np.minimum(gate @ row + of_gate, 7)
        return down @ (g / (1 + np.exp(-1.702 * g)) * (np.clip(up @ row + of_up, -7, 7) + 1)) + of_down

    def mixed(self, x: np.ndarray, b: str) -> np.ndarray:
        chances, out = softmax(self.linear(x, f"{b}ffn_gate_inp")), np.zeros_like(x)
        for r, row in enumerate(x):
            best = np.argsort(-chances[r])[: self.s.chosen]
            weights = chances[r, best]
            if self.s.extra.get("normed", self.s.arch != "qwen2moe"):
                weights = weights / weights.sum()
            for e, weight in zip(best, weights, strict=True):
                out[r] += weight * self.expert(row, b, e)
        if self.s.arch == "qwen2moe":
            shown = 1 / (1 + np.exp(-x @ self.w[f"{b}ffn_gate_inp_shexp.weight"]))
            out += self.feed(x, b, "_shexp") * shown[:, None]
        return out

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        s = self.s
        x = self.w["token_embd.weight"][ids]
        post = s.arch in ("gemma2", "gemma3")
        if post:
            x = x * np.sqrt(s.wide)
        if s.arch == "gpt2":
            x = x + self.w["position_embd.weight"][: len(ids)]
        for i in range(s.layers):
            b = f"blk.{i}."
            y = self.attention(self.norm(x, f"{b}attn_norm"), i)
            x = x + (self.norm(y, f"{b}post_attention_norm") if post else y)
            y = self.norm(x, f"{b}{'post_attention_norm' if s.arch == 'gpt-oss' else 'ffn_norm'}")
            y = self.mixed(y, b) if s.experts else self.feed(y, b)
            x = x + (self.norm(y, f"{b}post_ffw_norm") if post else y)
        x = self.norm(x, "output_norm")
        logits = x @ self.w["token_embd.weight" if s.tied else "output.weight"].T
        return 3 * np.tanh(logits / 3) if s.arch == "gemma2" else logits


def softmax(x: np.ndarray) -> np.ndarray:
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)
