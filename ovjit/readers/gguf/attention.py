"""Attention of a decoder: rotary positions with the scalings that files name, masks, caches that grow, and
heads that share keys and values.

`Attention` keeps its caches in variables. `FlatAttention` has llama.cpp's inputs, as OpenVINO's front end for
GGUF: the caller owns the caches [1, rows, heads, size] of f16, and gives the row of each new token, the masks
over all rows, and the tokens of which it wants logits. Outputs are the logits and the caches with the new
rows.
"""

from __future__ import annotations

import math

import numpy as np

from ovjit.build import Model, Node, Output, Parameter, make_model, make_parameter, make_result
from ovjit.errors import UnsupportedError
from ovjit.graph.shapes import ANY, Interval
from ovjit.readers.gguf.weights import Weights, half_order

#: YaRN's turns within the original context above which pairs stay, and below which they are stretched.
FAST, SLOW = 32.0, 1.0
#: The least base of the speeds: each pair turns no faster than the one before.
BASE = 1.0
#: How speeds may be stretched for a longer context.
SCALINGS = ("none", "linear", "yarn", "longrope")


class RotaryTables:
    """Cosines and sines [B, 1, L, rotated], which layers of one base share."""

    def __init__(self, w: Weights, positions: Output):
        self.w, self.positions = w, positions
        self._tables: dict[tuple[float, bool], tuple[Output, Output]] = {}

    def rotate(self, x: Output, windowed: bool) -> Output:
        """x [B, heads, L, size] with the first `rotated` elements of heads rotated by their positions."""
        w, settings = self.w, self.w.settings
        cosine, sine = self._of_layer(windowed)
        part = w.slice(x, 3, 0, settings.rotated) if settings.rotated < settings.size else x
        low = w.slice(part, 3, 0, settings.rotated // 2)
        high = w.slice(part, 3, settings.rotated // 2)
        half = w.concat([w("Multiply", high, -1.0), low], -1)
        result = w("Add", w("Multiply", part, cosine), w("Multiply", half, sine))
        return result if part is x else w.concat([result, w.slice(x, 3, settings.rotated)], -1)

    def _of_layer(self, windowed: bool) -> tuple[Output, Output]:
        settings = self.w.settings
        base, scaled = settings.real("rope.freq_base", 10000.0, BASE), True
        if windowed and settings.arch == "gemma3":  # those layers were never stretched
            base, scaled = settings.real("rope.freq_base_swa", 10000.0, BASE), False
        if (base, scaled) not in self._tables:
            self._tables[base, scaled] = self._angles(base, scaled)
        return self._tables[base, scaled]

    def _angles(self, base: float, scaled: bool) -> tuple[Output, Output]:
        w, size = self.w, self.w.settings.rotated
        speeds, longer = base ** (-np.arange(0, size, 2) / size), 1.0
        if scaled:
            speeds, longer = self._stretch(speeds, base)
        turns = self._divide_by_factors(speeds)
        positions = w.unsqueeze(w.convert(self.positions, "f32"), [1])
        angles = w.transpose(w("MatMul", turns, positions, transpose_a=False, transpose_b=False), [0, 2, 1])
        angles = w.unsqueeze(w.concat([angles, angles], -1), [1])
        both = [w("Cos", angles), w("Sin", angles)]
        if longer != 1:
            both = [w("Multiply", v, longer) for v in both]
        return both[0], both[1]

    def _divide_by_factors(self, speeds: np.ndarray) -> Output:
        """[1, rotated / 2, 1]: speeds over the factors of a tensor. phi3 has two such tensors, and uses the
        second as soon as a position is beyond the original context."""
        w, count = self.w, len(speeds)

        def shape_row(name: str) -> np.ndarray:
            return (speeds / w.array(name, count)).astype(np.float32).reshape(1, -1, 1)

        if w.has("rope_factors_long.weight"):
            original = w.settings.integer("rope.scaling.original_context_length")
            last = w("ReduceMax", w.convert(self.positions, "i64"), [0, 1], keep_dims=False)
            beyond = w("GreaterEqual", last, original)
            far, near = (shape_row(f"rope_factors_{name}.weight") for name in ("long", "short"))
            return w("Select", beyond, far, near)
        if w.has("rope_freqs.weight"):
            return w.const(shape_row("rope_freqs.weight"))
        return w.const(speeds.astype(np.float32).reshape(1, -1, 1))

    def _stretch(self, speeds: np.ndarray, base: float) -> tuple[np.ndarray, float]:
        """Angular speeds for a longer context, and the factor of cosines and sines."""
        settings = self.w.settings
        old = settings.real("rope.scale_linear", 1.0)
        factor = settings.real("rope.scaling.factor", old)
        kind = settings.text("rope.scaling.type", "linear" if factor != 1 else "none")
        if kind not in SCALINGS:
            raise UnsupportedError(
                f"rope.scaling.type {kind!r} is not supported; supported: {', '.join(SCALINGS)}"
            )
        more = settings.real("rope.scaling.attn_factor", 1.0)
        if kind in ("none", "longrope") or factor <= 0:
            return speeds, more
        if kind == "linear":
            return speeds / factor, more
        fast = settings.real("rope.scaling.yarn_beta_fast", FAST)
        slow = settings.real("rope.scaling.yarn_beta_slow", SLOW)
        context = settings.integer("rope.scaling.original_context_length", settings.integer("context_length"))
        size = settings.rotated

        def pair(turns: float) -> float:
            return size * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

        low, high = pair(fast), pair(slow)
        if settings.kind.whole_pairs:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(0, low), min(size - 1, high)
        share = 1 - np.clip((np.arange(size // 2) - low) / max(0.001, high - low), 0, 1)
        return speeds / factor * (1 - share) + speeds * share, more * (1 + 0.1 * math.log(factor))


#: What hides a position: the lowest number of f16, as exporters write it.
HIDDEN = -65504.0


class Inputs:
    """The model's inputs, as optimum exports them."""

    def __init__(self, w: Weights):
        def parameter(name: str, dtype: str, rank: int) -> Parameter:
            return make_parameter(dtype, (ANY,) * rank, name, {name})

        self.parameters = [
            parameter("input_ids", "i64", 2), parameter("attention_mask", "i64", 2),
            parameter("position_ids", "i64", 2), parameter("beam_idx", "i32", 1),
        ]  # fmt: skip
        self.ids, self.attention_mask, self.positions, self.beams = (p.output(0) for p in self.parameters)
        self.batch = w.dim_of(self.ids, 0)

    def select_positions(self, x: Output) -> Output:
        """Select the positions of x [B, L, features] for which logits are computed: all."""
        return x


class Attention:
    """Makes the attention of each layer; `sinks` are the Assigns of its caches."""

    def __init__(self, w: Weights, inputs: Inputs):
        self.w, self.inputs, self.sinks = w, inputs, list[Node]()
        self.turns = RotaryTables(w, inputs.positions)
        self._masks: dict[int, Output] = {}

    def __call__(self, x: Output, layer: int) -> Output:
        """x [B, L, wide] -> the same, attended to."""
        w, s, name = self.w, self.w.settings, f"blk.{layer}"
        q, k, v = self._project(x, name)
        q = self._normalize(self._heads(q, s.heads, s.size), f"{name}.attn_q_norm")
        k = self._normalize(self._heads(k, s.shared, s.size), f"{name}.attn_k_norm")
        window = s.windows[layer]
        if s.arch != "gpt2":
            q, k = self.turns.rotate(q, bool(window)), self.turns.rotate(k, bool(window))
        k = self._append_to_cache(k, layer, "key", s.size)
        v = self._append_to_cache(self._heads(v, s.shared, s.value_size), layer, "value", s.value_size)
        sinks = [w.array(f"{name}.attn_sinks.weight", s.heads).reshape(1, -1, 1, 1)] if s.kind.sinks else []
        z = self._attend(q, self._repeat_heads(k), self._repeat_heads(v), self._mask(window), *sinks)
        z = w("Reshape", w.transpose(z, [0, 2, 1, 3]), [0, 0, s.heads * s.value_size], special_zero=True)
        return w.linear(z, f"{name}.attn_output", s.hidden_size)

    def _project(self, x: Output, name: str) -> list[Output]:
        w, s = self.w, self.w.settings
        sizes = [s.heads * s.size, s.shared * s.size, s.shared * s.value_size]
        if w.has(f"{name}.attn_qkv.weight") or (s.kind.joined and not w.has(f"{name}.attn_q.weight")):
            return w.split(w.linear(x, f"{name}.attn_qkv", sum(sizes)), 2, sizes)
        orders = [half_order(n, s.size, s.rotated) if s.kind.paired else None for n in (s.heads, s.shared)]
        return [
            w.linear(x, f"{name}.attn_{letter}", size, order)
            for letter, size, order in zip("qkv", sizes, [*orders, None], strict=True)
        ]

    def _heads(self, x: Output, count: int, size: int) -> Output:
        """[B, L, count * size] -> [B, count, L, size]"""
        w = self.w
        return w.transpose(w("Reshape", x, [0, 0, count, size], special_zero=True), [0, 2, 1, 3])

    def _normalize(self, x: Output, name: str) -> Output:
        return rms_norm(self.w, x, name) if self.w.settings.kind.head_norms else x

    def _append_to_cache(self, value: Output, layer: int, kind: str, size: int) -> Output:
        """The cached and the new keys (or values) of a layer, in the order of the beams."""
        w, shared, name = self.w, self.w.settings.shared, f"past_key_values.{layer}.{kind}"
        start = w.concat([self.inputs.batch, w.const([shared]), w.const([0]), w.const([size])], 0)
        before = w(
            "ReadValue", w("Broadcast", 0.0, start), variable_id=name, variable_type="f32",
            variable_shape=(ANY, shared, ANY, size),
        )  # fmt: skip
        joined = w.concat([w("Gather", before, self.inputs.beams, 0), value], 2)
        self.sinks.append(w("Assign", joined, variable_id=name).node)
        return joined

    def _repeat_heads(self, x: Output) -> Output:
        """[B, shared, L, size] -> [B, heads, L, size]"""
        w, s, size = self.w, self.w.settings, self.w.last_dim(x)
        if s.heads == s.shared:
            return x
        times = [w.const([s.shared, s.heads // s.shared]), w.dim_of(x, 2), w.const([size])]
        wider = w("Broadcast", w.unsqueeze(x, [2]), w.concat([self.inputs.batch, *times], 0))
        return w("Reshape", wider, [0, s.heads, -1, size], special_zero=True)

    def _attend(self, q: Output, k: Output, v: Output, mask: Output, *sinks: np.ndarray) -> Output:
        """Attention; `sinks`: the score [1, heads, 1, 1] that each row of a head has without a value."""
        w, s = self.w, self.w.settings
        if not s.attention_cap:
            return w("ScaledDotProductAttention", q, k, v, mask, float(s.scale), *sinks, causal=False)
        scores = w("MatMul", q, k, transpose_a=False, transpose_b=True)
        scores = cap_softly(w, w("Multiply", scores, float(s.scale)), s.attention_cap)
        chances = w("Softmax", w("Add", scores, mask), axis=-1)
        return w("MatMul", chances, v, transpose_a=False, transpose_b=False)

    def _mask(self, window: int) -> Output:
        """The attention mask: 0 where a new position attends to a key. Masked are later positions, those that
        attention_mask excludes, and with `window` those at least a window before."""
        if window in self._masks:
            return self._masks[window]
        w, one = self.w, self.w.const(1)
        new, total = (w.scalar(w.dim_of(v, 1)) for v in (self.inputs.ids, self.inputs.attention_mask))
        columns = w.unsqueeze(w("Range", 0, total, one, output_type="i64"), [0])
        rows = w("Range", w("Subtract", total, new), total, one, output_type="i64")
        rows = w.unsqueeze(rows, [1])
        visible = w("LessEqual", columns, rows)
        if window:
            visible = w("LogicalAnd", visible, w("Greater", columns, w("Subtract", rows, window)))
        shown = w.unsqueeze(w.convert(self.inputs.attention_mask, "boolean"), [1, 2])
        both = w("LogicalAnd", w.unsqueeze(visible, [0, 1]), shown)
        self._masks[window] = w("Select", both, 0.0, HIDDEN)
        return self._masks[window]


def rms_norm(w: Weights, x: Output, name: str) -> Output:
    """x over the root of the mean of its squares, times `name`.weight"""
    mean = w("ReduceMean", w("Power", x, 2.0), [-1], keep_dims=True)
    root = w("Sqrt", w("Add", mean, w.settings.eps))
    normed = w("Multiply", x, w("Divide", 1.0, root))
    return w("Multiply", normed, w.array(f"{name}.weight", w.last_dim(x)))


def cap_softly(w: Weights, x: Output, cap: float) -> Output:
    """cap * tanh(x / cap)"""
    return w("Multiply", w("Tanh", w("Multiply", x, 1 / cap)), cap)


class FlatInputs(Inputs):
    """The model's inputs with llama.cpp's names."""

    def __init__(self, w: Weights):
        self.w, self.by_name, self.nodes = w, dict[str, Output](), dict[str, Parameter]()
        s = w.settings
        for name in ("inp_kv_idx", "inp_out_ids", "inp_pos", "inp_tokens"):
            self._add(name, "i32", (1, 1, 1, ANY))
        for name in ["self_kq_mask"] + ["self_kq_mask_swa"] * any(s.windows):
            self._add(name, "f32", (1, 1, ANY, ANY))
        self._add("token_len_per_seq", "i64", (1,))
        for layer in range(s.layers):
            for kind, size in (("k", s.size), ("v", s.value_size)):
                self._add(f"cache_{kind}_l{layer}", "f16", (1, ANY, s.shared, size))
        self.parameters = [self.nodes[name] for name in sorted(self.nodes)]
        self.ids, self.positions = (self.squeeze_input(name, [0, 1]) for name in ("inp_tokens", "inp_pos"))
        self.rows, self.outs = (self.squeeze_input(name, [0, 1, 2]) for name in ("inp_kv_idx", "inp_out_ids"))
        self.batch = w.const([1])

    def _add(self, name: str, dtype: str, shape: tuple[int | Interval, ...]) -> None:
        node = self.nodes[name] = make_parameter(dtype, shape, name, {name})
        self.by_name[name] = node.output(0)

    def squeeze_input(self, name: str, axes: list[int]) -> Output:
        return self.w("Squeeze", self.by_name[name], axes)

    def select_positions(self, x: Output) -> Output:
        return self.w("Gather", x, self.outs, 1)


class FlatAttention(Attention):
    """Attention over the rows of the caller's caches."""

    inputs: FlatInputs

    def __init__(self, w: Weights, inputs: FlatInputs):
        super().__init__(w, inputs)
        self.caches: list[tuple[str, Output]] = []

    def _append_to_cache(self, value: Output, layer: int, kind: str, size: int) -> Output:
        w, name = self.w, f"cache_{kind[0]}_l{layer}"
        rows = w.convert(w.transpose(value, [0, 2, 1, 3]), "f16")
        cache = w("ScatterUpdate", self.inputs.by_name[name], self.inputs.rows, rows, 1)
        self.caches.append((name, cache))
        return w.transpose(w.convert(cache, "f32"), [0, 2, 1, 3])

    def _mask(self, window: int) -> Output:
        return self.inputs.by_name["self_kq_mask_swa" if window else "self_kq_mask"]

    def model(self, logits: Output) -> Model:
        w, s = self.w, self.w.settings
        ends = [("result_output_softcapped" if s.final_cap else "result_output", w.unsqueeze(logits, [0]))]
        ends += self.caches
        results = [make_result(value, name) for name, value in ends]
        result = make_model(results, self.inputs.parameters, "gguf")
        if any(s.windows):
            result.set_rt_info(max(s.windows), ["gguf_swa_window_size"])
        return result
