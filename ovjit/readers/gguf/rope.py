"""Rotary positions: angles of each pair of a head's elements, with the scalings that files name."""

from __future__ import annotations

import math

import numpy as np

from ovjit.build import Output
from ovjit.errors import UnsupportedError
from ovjit.readers.gguf.weights import Weights

#: YaRN's turns within the original context above which pairs stay, and below which they are stretched.
FAST, SLOW = 32.0, 1.0
#: The least base of the speeds: each pair turns no faster than the one before.
BASE = 1.0
#: How speeds may be stretched for a longer context.
SCALINGS = ("none", "linear", "yarn", "longrope")


class Turns:
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
        """Speeds for a longer context, and what cosines and sines are multiplied with."""
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
