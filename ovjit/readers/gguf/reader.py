"""A GGUF file -> a decoder with state, as optimum exports them: input_ids, attention_mask, position_ids and
beam_idx in, logits out, keys and values in variables."""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

from ovjit.build import Model, make_model, make_result
from ovjit.readers.files import name_errors
from ovjit.readers.gguf.attention import Attention, FlatAttention, FlatInputs, Inputs, cap_softly
from ovjit.readers.gguf.header import open_gguf
from ovjit.readers.gguf.layers import feed_forward, norm
from ovjit.readers.gguf.settings import Settings
from ovjit.readers.gguf.weights import Weights, shape_of_rank

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
