"""A GGUF file -> a decoder with state, as optimum exports them: input_ids, attention_mask, position_ids and
beam_idx in, logits out, keys and values in variables.

Between attention stand gated and plain feed-forward parts, and mixtures of experts.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

from ovjit.build import Model, Output, make_model, make_result
from ovjit.errors import ModelError
from ovjit.readers.files import name_errors
from ovjit.readers.gguf.attention import Attention, FlatAttention, FlatInputs, Inputs, cap_softly, rms_norm
from ovjit.readers.gguf.header import open_gguf
from ovjit.readers.gguf.settings import Settings
from ovjit.readers.gguf.weights import Weights, shape_of_rank
from ovjit.records import NamedTuple

#: The limit of gates and of what they scale in gpt-oss, and the factor within its sigmoid.
LIMIT, STEEP = 7.0, 1.702


def norm(w: Weights, x: Output, name: str) -> Output:
    """The norm of the architecture, over the last axis."""
    if w.settings.arch != "gpt2":
        return rms_norm(w, x, name)
    y = w.standardize(x, [-1], w.settings.eps)
    y = w("Multiply", y, w.array(f"{name}.weight", w.settings.hidden_size))
    return w("Add", y, w.array(f"{name}.bias", w.settings.hidden_size))


def activate(w: Weights, x: Output) -> Output:
    if w.settings.kind.act == "silu":
        return w("Swish", x)
    return w("Gelu", x, approximation_mode="tanh", opset=7)


def apply_gate(w: Weights, gate: Output, up: Output) -> Output:
    """`up` times the activation of `gate`. gpt-oss clamps both, and adds 1 to `up`."""
    if w.settings.kind.act != "clamped":
        return w("Multiply", activate(w, gate), up)
    gate = w("Swish", w("Minimum", gate, LIMIT), STEEP)
    return w("Multiply", gate, w("Add", w("Clamp", up, min=-LIMIT, max=LIMIT), 1.0))


def feed_forward(w: Weights, x: Output, layer: int) -> Output:
    """The feed-forward part of a layer: x [B, L, features] -> the same shape."""
    name = f"blk.{layer}"
    plain = w.has(f"{name}.ffn_up.weight")  # some models with experts begin with a layer without them
    if w.settings.experts and not plain:
        return experts(w, x, name)
    return _dense(w, x, name)


def _rows(w: Weights, name: str) -> int:
    return shape_of_rank(w.tensor(name).shape, 2)[-2]


def _dense(w: Weights, x: Output, name: str, suffix: str = "") -> Output:
    up = w.linear(x, f"{name}.ffn_up{suffix}", _rows(w, f"{name}.ffn_up{suffix}.weight"))
    if w.has(f"{name}.ffn_gate{suffix}.weight"):
        inner = w.last_dim(up)
        up = apply_gate(w, w.linear(x, f"{name}.ffn_gate{suffix}", inner), up)
    elif w.settings.arch == "phi3":  # both in one
        if w.last_dim(up) % 2:
            raise ModelError(f"the tensor '{name}.ffn_up.weight' has an odd number of rows")
        gate, up = w.split(up, 2, [w.last_dim(up) // 2] * 2)
        up = apply_gate(w, gate, up)
    elif w.settings.arch == "gpt2":
        up = activate(w, up)
    else:
        w.tensor(f"{name}.ffn_gate{suffix}.weight")  # says that it is missing
    return w.linear(up, f"{name}.ffn_down{suffix}", w.settings.hidden_size)


def experts(w: Weights, x: Output, name: str) -> Output:
    """Mixture of experts: the best experts of each row, weighted by their probabilities, and possibly a
    shared one."""
    s = w.settings
    rows = w.reshape(x, [-1, s.hidden_size])
    chances = w("Softmax", w.linear(rows, f"{name}.ffn_gate_inp", s.experts), axis=1)
    best, picks = w.all(
        "TopK", chances, s.chosen, axis=1, mode="max", sort="value", index_element_type="i64", opset=11
    )
    if s.normed_experts:
        best = w("Divide", best, w("ReduceSum", best, [1], keep_dims=True))
    names = [f"{name}.ffn_{part}_exps.weight" for part in ("gate", "up", "down")]
    result = (_by_row if all(map(w.is_multiplied_by_row, names)) else _by_expert)(w, rows, best, picks, names)
    if s.kind.shared_expert:
        gate = w.array(f"{name}.ffn_gate_inp_shexp.weight", s.hidden_size).reshape(1, -1)
        shown = w("Sigmoid", w("MatMul", rows, gate, transpose_a=False, transpose_b=True))
        shared = w.reshape(_dense(w, x, name, "_shexp"), [-1, s.hidden_size])
        result = w("Add", result, w("Multiply", shared, shown))
    return w("Reshape", result, w("ShapeOf", x, output_type="i64"), special_zero=False)


class _Table(NamedTuple):
    """Matrices of experts [experts, outputs, inputs], their scales [experts, 1, 1], and their biases
    [experts, 1, outputs], where there are some."""

    matrices: Output
    scales: Output | None
    biases: Output | None


def _tables(w: Weights, names: list[str]) -> list[_Table]:
    """gate and up [experts, inner, wide], down [experts, wide, inner]"""
    s, inner = w.settings, _rows(w, names[0])
    shapes = [(s.experts, inner, s.hidden_size)] * 2 + [(s.experts, s.hidden_size, inner)]
    tables = []
    for name, shape in zip(names, shapes, strict=True):
        scales, biases, stem = None, None, name.removesuffix(".weight")
        if w.has(f"{stem}.scale"):
            scales = w.const(w.array(f"{stem}.scale", s.experts).reshape(-1, 1, 1))
        if s.kind.biased:
            biases = w.const(w.array(f"{stem}.bias", *shape[:2]).reshape(s.experts, 1, -1))
        tables.append(_Table(w.matrix(name, *shape), scales, biases))
    return tables


def _scale_and_shift(w: Weights, y: Output, scales: Output | None, biases: Output | None) -> Output:
    """Products times their scales, with their biases."""
    y = y if scales is None else w("Multiply", y, scales)
    return y if biases is None else w("Add", y, biases)


def _by_row(w: Weights, rows: Output, best: Output, picks: Output, names: list[str]) -> Output:
    """Products of each row with the matrices that it chooses; weights of other experts are not read."""
    s = w.settings
    gate, up, down = _tables(w, names)
    flat = w.reshape(picks, [-1])
    each = w.reshape(w("Tile", w.unsqueeze(rows, [1]), [1, s.chosen, 1]), [-1, 1, s.hidden_size])

    def times(x: Output, table: _Table) -> Output:
        matrices, *factors = (None if part is None else w("Gather", part, flat, 0) for part in table)
        return _scale_and_shift(w, w("MatMul", x, matrices, transpose_a=False, transpose_b=True), *factors)

    result = times(apply_gate(w, times(each, gate), times(each, up)), down)
    result = w("Multiply", w.reshape(result, [-1, s.chosen, s.hidden_size]), w.unsqueeze(best, [2]))
    return w("ReduceSum", result, [1], keep_dims=False)


def _by_expert(w: Weights, rows: Output, best: Output, picks: Output, names: list[str]) -> Output:
    """Products of every row with every expert; experts that a row does not choose have the weight 0. For
    float weights, where a Gather of the chosen experts would copy them."""
    s = w.settings
    gate, up, down = _tables(w, names)
    none = w("Broadcast", 0.0, w.concat([w.dim_of(rows, 0), w.const([s.experts])], 0))
    weights = w("ScatterElementsUpdate", none, picks, best, 1, opset=3)
    x = w("Tile", w.unsqueeze(rows, [0]), [s.experts, 1, 1])  # OpenVINO spreads no rows over packed ones

    def times(x: Output, table: _Table) -> Output:
        matrices, *factors = table
        return _scale_and_shift(w, w("MatMul", x, matrices, transpose_a=False, transpose_b=True), *factors)

    result = times(apply_gate(w, times(x, gate), times(x, up)), down)
    result = w("Multiply", result, w.unsqueeze(w.transpose(weights, [1, 0]), [2]))
    return w("ReduceSum", result, [0], keep_dims=False)


#: Names of metadata that may be names in an IR.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")


def read_gguf(path: str | os.PathLike[str], flat: bool = False) -> Model:
    """The Model of a GGUF file; its metadata, with the tokenizer's tables, are `rt_info["gguf"]`.

    `flat`: with llama.cpp's inputs, see `FlatInputs`. Lists are there as JSON. RuntimeError that names the
    file and what is wrong; UnsupportedError, one too, names the architecture, the type of tensor or the
    tensors that are not read.
    """
    where = os.fsdecode(path)
    with name_errors(where, TypeError, ValueError, AttributeError):
        file = open_gguf(where)
        settings = Settings(file.metadata)
        model = decoder(Weights(file, settings), flat)
        _note(model, file.metadata)
        return model


def decoder(w: Weights, flat: bool = False) -> Model:
    """The decoder of these tensors and settings, with state or `flat`."""
    s = w.settings
    inputs = FlatInputs(w) if flat else Inputs(w)
    words = w.matrix("token_embd.weight", -1, s.hidden_size)
    x = w("Gather", words, inputs.ids, 0)
    if s.kind.root:
        x = w("Multiply", x, math.sqrt(s.hidden_size))
    if s.arch == "gpt2":
        positions = w.matrix("position_embd.weight", -1, s.hidden_size)
        x = w("Add", x, w("Gather", positions, inputs.positions, 0))
    attention = FlatAttention(w, inputs) if isinstance(inputs, FlatInputs) else Attention(w, inputs)
    for layer in range(s.layers):
        w.base = f"blk.{layer}"
        y = attention(norm(w, x, f"{w.base}.attn_norm"), layer)
        if layer == s.layers - 1:
            x, y = inputs.select_positions(x), inputs.select_positions(y)
        x = w("Add", x, _part(w, y, "post_attention_norm"))
        y = feed_forward(w, norm(w, x, f"{w.base}.{s.kind.second_norm}"), layer)
        x = w("Add", x, _part(w, y, "post_ffw_norm"))
    w.base = ""
    x = norm(w, x, "output_norm")
    if w.has("output.weight"):
        logits = w.linear(x, "output", shape_of_rank(w.tensor("token_embd.weight").shape, 2)[0])
    else:
        logits = w("MatMul", x, words, transpose_a=False, transpose_b=True)
    if s.final_cap:
        logits = cap_softly(w, logits, s.final_cap)
    w.check_used()
    if isinstance(attention, FlatAttention):
        return attention.model(logits)
    logits.tensor.set_names({"logits"})
    name = w.file.metadata.get("general.name")
    name = name if isinstance(name, str) and name else s.arch
    return make_model([make_result(logits, "logits")], inputs.parameters, name, sinks=attention.sinks)


def _part(w: Weights, x: Any, name: str) -> Any:
    """Output of a part of a layer, normalized if the architecture has norms there (as gemma has)."""
    return norm(w, x, f"{w.base}.{name}") if w.settings.kind.post_norms else x


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A file's metadata as they are in `rt_info["gguf"]`, without its tensors. RuntimeError that names the
    file and what is wrong."""
    where = os.fsdecode(path)
    with name_errors(where, TypeError, ValueError, AttributeError):
        return _as_info(open_gguf(where).metadata)


def _as_info(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata with names that may be in an IR: texts in valid Unicode, lists as JSON."""
    info = {}
    for key, value in metadata.items():
        if key.startswith("GGUF.") or not _NAME.fullmatch(key):
            continue
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()
        info[key] = json.dumps(value) if isinstance(value, list) else value
    return info


def _note(model: Model, metadata: dict[str, Any]) -> None:
    for key, value in _as_info(metadata).items():
        model.set_rt_info(value, ["gguf", key])
