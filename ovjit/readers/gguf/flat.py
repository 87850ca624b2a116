"""A decoder with llama.cpp's inputs, as OpenVINO's front end for GGUF gives it.

The caller owns the caches [1, rows, heads, size] of f16, and gives the row of each new token, the masks over
all rows, and the tokens of which it wants logits. Outputs are the logits and the caches with the new rows.
"""

from __future__ import annotations

from ovjit.build import Model, Output, Parameter, make_model, make_parameter, make_result
from ovjit.graph.shapes import ANY, Interval
from ovjit.readers.gguf.attention import Attention, Inputs
from ovjit.readers.gguf.weights import Weights


class FlatInputs(Inputs):
    """Inputs by their names in llama.cpp."""

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
