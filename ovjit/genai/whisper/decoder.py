"""The models of a Whisper folder: an encoder of spectrograms, and a decoder with state or with the keys and
values of the past as inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.engine import StepRunner
from ovjit.generation.head import keep_last

ENCODER, DECODER, LATER = (
    f"openvino_{name}_model.xml" for name in ("encoder", "decoder", "decoder_with_past")
)
#: The begin of the names of outputs with the scores of cross-attention.
_SCORES = "cross_attention_scores_"
#: A part of the names of nodes of cross-attention, as optimum-intel exports them.
_CROSS = "encoder_attn"


def _compile(path: Path, device: str, properties: Mapping[str, Any], scores: bool) -> Any:
    """The compiled decoder of a file. `scores`: with outputs for those of cross-attention."""
    from ovjit.api.run.core import Core

    model = Core().read_model(str(path))
    keep_last(model, 1)
    if scores:
        _add_scores(model)
    return Core().compile_model(model, device, dict(properties))


def _add_scores(model: Any) -> None:
    """Add an output for the scores before the softmax of each layer's cross-attention [batch, heads, tokens,
    frames]. OvjitError if the model has none."""
    from ovjit.compat import opset13 as ops

    nodes = [n for n in model.get_ordered_ops() if n.get_type_name() == "ScaledDotProductAttention"]
    nodes = [node for node in nodes if _CROSS in node.get_friendly_name()]
    if not nodes:
        raise OvjitError(
            "word_timestamps needs a decoder with ScaledDotProductAttention nodes whose names have "
            f"{_CROSS!r}: export the model with a newer optimum-intel"
        )
    for i, node in enumerate(nodes):
        query, key, *others = node.input_values()[:2] + node.input_values()[3:5]
        if len(others) == 2:
            query = ops.multiply(query, others[1]).output(0)
        else:
            size = query.get_partial_shape()[3].get_length()
            query = ops.multiply(query, ops.constant(np.float32(size**-0.5))).output(0)
        scores = ops.matmul(query, key, False, True)
        if others:
            scores = ops.add(scores, others[0])
        scores.output(0).set_names({f"{_SCORES}{i}"})
        model.add_outputs(scores.output(0))


class Encoder:
    """The states of sound [1, frames, size] of a spectrogram [1, mels, frames]."""

    def __init__(self, folder: Path, device: str, properties: Mapping[str, Any]):
        from ovjit.api.run.core import Core

        compiled = Core().compile_model(str(folder / ENCODER), device, dict(properties))
        self._request = compiled.create_infer_request()

    def encode(self, features: np.ndarray) -> np.ndarray:
        return np.array(self._request.infer({"input_features": features})["last_hidden_state"])


class SpeechDecoder(StepRunner):
    """Tokens of the sound in `states`, which is set before `start`."""

    def __init__(self, folder: Path, device: str, properties: Mapping[str, Any], scores: bool):
        self._has_scores = scores
        first = _compile(folder / DECODER, device, properties, scores)
        self._request = first.create_infer_request()
        self._names = _names_of(first)
        self._later: Any = None
        if "beam_idx" not in self._names:
            if not (folder / LATER).is_file():
                raise OvjitError(
                    f"{str(folder / DECODER)!r} has no input beam_idx, and there is no {LATER} beside it: export "
                    "the model with the task automatic-speech-recognition-with-past"
                )
            later = _compile(folder / LATER, device, properties, False)
            self._later, self._later_names = later.create_infer_request(), _names_of(later)
            self._past: dict[str, np.ndarray] = {}
        self.states = np.zeros((1, 0, 0), np.float32)
        self._length = 0

    def start(self, prompt: Sequence[int]) -> np.ndarray:
        self._request.reset_state()
        self._length = 0
        logits = self._infer(np.asarray(prompt, np.int64)[None], np.zeros(1, np.int32))
        return logits

    def step(self, parents: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        return self._infer(np.asarray(tokens, np.int64)[:, None], np.asarray(parents, np.int32))

    def read_scores(self, tokens: Sequence[int], heads: Sequence[tuple[int, int]]) -> np.ndarray:
        """The scores of cross-attention [heads, tokens, frames] of a sequence, for heads as (layer, head).
        OvjitError if the decoder was compiled without them, or for a head that it does not have."""
        if not self._has_scores:
            raise OvjitError(
                "word_timestamps needs the property word_timestamps=True of the pipeline's constructor"
            )
        self.start(tokens)
        count = sum(name.startswith(_SCORES) for p in self._request.model_outputs for name in p.get_names())
        layers = {layer: None for layer, _ in heads}
        if any(layer >= count for layer in layers):
            raise OvjitError(f"alignment_heads has a layer that is not in [0, {count}), the decoder's layers")
        scores = {layer: np.array(self._request.get_tensor(f"{_SCORES}{layer}").data) for layer in layers}
        if any(head >= scores[layer].shape[1] for layer, head in heads):
            raise OvjitError("alignment_heads has a head that its layer does not have")
        return np.stack([scores[layer][0, head] for layer, head in heads]).astype(np.float32)

    def _infer(self, ids: np.ndarray, parents: np.ndarray) -> np.ndarray:
        rows, count = ids.shape
        feeds = {
            "input_ids": ids,
            "encoder_hidden_states": np.repeat(self.states, rows, 0) if rows > 1 else self.states,
            "beam_idx": parents,
            "cache_position": np.arange(self._length, self._length + count),
        }
        if self._later is None:
            logits = self._request.infer({name: feeds[name] for name in self._names})["logits"]
        else:
            logits = self._infer_past(feeds, parents)
        self._length += count
        return np.array(logits[:, -1], np.float32)

    def _infer_past(self, feeds: dict[str, Any], parents: np.ndarray) -> np.ndarray:
        """Logits of a decoder whose keys and values are outputs, and inputs of the next inference."""
        is_first = self._length == 0
        request, names = (self._request, self._names) if is_first else (self._later, self._later_names)
        if not is_first:
            self._past = {name: value[parents] for name, value in self._past.items()}
        results = request.infer({name: feeds[name] if name in feeds else self._past[name] for name in names})
        for port in results:
            name = next(iter(port.get_names()), "")
            if name.startswith("present."):
                self._past[name.replace("present.", "past_key_values.", 1)] = np.array(results[port])
        return results["logits"]


def _names_of(compiled: Any) -> list[str]:
    return [next(iter(port.get_names()), "") for port in compiled.inputs]
