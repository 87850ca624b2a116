"""The models of a Whisper folder: an encoder of spectrograms, and a decoder with state or with the keys and
values of the past as inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError
from ovjit.genai.engine import StepRunner
from ovjit.generation.head import keep_last

ENCODER, DECODER, LATER = (
    f"openvino_{name}_model.xml" for name in ("encoder", "decoder", "decoder_with_past")
)
#: The prefix of the names of outputs with the scores of cross-attention.
_SCORES = "cross_attention_scores_"
#: A part of the names of nodes of cross-attention, as optimum-intel exports them; and of inputs here.
_CROSS = "encoder_attn"


def _split_cross(model: Any) -> tuple[Any, Any]:
    """(a model from the encoder's states to the keys and values of cross-attention, the decoder with these
    as inputs). (None, the decoder as it is) if it does not keep them in variables that only attention reads.

    The variables do not change within a window, so that copies of them at each step are avoided. They are
    computed once for the detection of the language, the text, and the times of words.
    """
    from ovjit.api.model.model import Model

    inputs = {name: p for p in model.get_parameters() for name in p.output(0).get_names()}
    sinks = {sink.get_variable_id(): sink for sink in model.get_sinks()}
    reads = [n for n in model.get_ordered_ops() if n.get_type_name() == "ReadValue" and n.input_values()]
    cross = [n for n in reads if _reads_only(sinks[n.get_variable_id()], n)]
    if not cross or "encoder_hidden_states" not in inputs:
        return None, model
    starts = [node.input_value(0) for node in cross]
    states = Model(
        [ops.result(start) for start in starts], [inputs["encoder_hidden_states"]], "cross"
    ).clone()
    parameters = []
    for i, node in enumerate(cross):
        parameter = ops.parameter(node.output(0).get_partial_shape(), np.float32, name=f"{_CROSS}_{i}")
        parameter.output(0).set_names({f"{_CROSS}_{i}"})
        parameters.append(parameter)
        for target in list(node.output(0).get_target_inputs()):
            if target.get_node().get_type_name() != "Assign":
                target.replace_source_output(parameter.output(0))
    remaining = [sink for name, sink in sinks.items() if name not in {n.get_variable_id() for n in cross}]
    used = _find_sources([*model.get_results(), *remaining])
    others = [parameter for parameter in model.get_parameters() if parameter in used]
    return states, Model(model.get_results(), remaining, [*others, *parameters], "decoder")


def _find_sources(nodes: list[Any]) -> set[Any]:
    """All nodes that these depend on, and themselves."""
    sources, waiting = set(nodes), list(nodes)
    while waiting:
        new = {value.get_node() for value in waiting.pop().input_values()} - sources
        sources |= new
        waiting += new
    return sources


def _reads_only(sink: Any, node: Any) -> bool:
    """True if a variable keeps the value of its first read, and only attention takes it."""
    takers = [target.get_node().get_type_name() for target in node.output(0).get_target_inputs()]
    is_kept = sink.input_value(0).get_node() is node
    return is_kept and set(takers) <= {"Assign", "ScaledDotProductAttention", "MatMul"}


def _add_scores(model: Any) -> None:
    """Add an output for the scores before the softmax of each layer's cross-attention [batch, heads, tokens,
    frames]. OvjitError if the model has none."""
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
        results = self._request.infer({"input_features": features}, share_inputs=True, share_outputs=True)
        return np.array(results["last_hidden_state"])


class SpeechDecoder(StepRunner):
    """Computes logits for the sound of `set_sound`."""

    def __init__(self, folder: Path, device: str, properties: Mapping[str, Any], scores: bool):
        from ovjit.api.run.core import Core

        def load(name: str) -> Any:
            return Core().read_model(str(folder / name))

        def compile_model(model: Any, is_decoder: bool = True) -> tuple[Any, list[str]]:
            if is_decoder:
                keep_last(model, 1)
            compiled = Core().compile_model(model, device, dict(properties))
            names = [next(iter(port.get_names()), "") for port in compiled.inputs]
            return compiled.create_infer_request(), names

        self._has_scores = scores
        cross, model = _split_cross(load(DECODER))
        if scores:
            _add_scores(model)
        self._request, self._names = compile_model(model)
        self._cross = None if cross is None else compile_model(cross, False)[0]
        self._later: Any = None
        if "beam_idx" not in self._names:
            if not (folder / LATER).is_file():
                raise OvjitError(
                    f"{str(folder / DECODER)!r} has no input beam_idx, and there is no {LATER} beside it: "
                    "export the model with the task automatic-speech-recognition-with-past"
                )
            self._later, self._later_names = compile_model(load(LATER))
            self._past: dict[str, np.ndarray] = {}
        self._states: dict[str, np.ndarray] = {}
        self._length = 0

    def set_sound(self, states: np.ndarray) -> None:
        """Use the encoder's states [1, frames, size] of a sound from now on."""
        self._states = {"encoder_hidden_states": states}
        if self._cross is not None:
            results = self._cross.infer([states], share_inputs=True, share_outputs=True)
            self._states |= {f"{_CROSS}_{i}": np.array(results[i]) for i in range(len(results))}

    def start(self, prompt: Sequence[int]) -> np.ndarray:
        self._request.reset_state()
        self._length = 0
        return self._infer(np.asarray(prompt, np.int64)[None], np.zeros(1, np.int32))

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
            "beam_idx": parents,
            "cache_position": np.arange(self._length, self._length + count),
            **self._states,
        }
        if rows > 1:
            feeds["encoder_hidden_states"] = np.repeat(feeds["encoder_hidden_states"], rows, 0)
        if self._later is None:
            inputs = {name: feeds[name] for name in self._names}
            logits = self._request.infer(inputs, share_inputs=True, share_outputs=True)["logits"]
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
        inputs = {name: feeds[name] if name in feeds else self._past[name] for name in names}
        results = request.infer(inputs, share_inputs=True, share_outputs=True)
        for port in results:
            name = next(iter(port.get_names()), "")
            if name.startswith("present."):
                self._past[name.replace("present.", "past_key_values.", 1)] = np.array(results[port])
        return results["logits"]
