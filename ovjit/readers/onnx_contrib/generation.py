"""Decoders that the searches of com.microsoft run step by step: of GPT-2's form, or with an encoder as in T5
and Whisper.

Dimensions in shapes: batch, beams (1 in a greedy search), rows = batch * beams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.build import Output
from ovjit.errors import UnsupportedError
from ovjit.graph.shapes import is_static
from ovjit.readers.onnx import tensors
from ovjit.readers.onnx.node import OnnxNode
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.readers.onnx.scope import Scope

GPT, T5, WHISPER = 0, 1, 2

#: A step: (state, scope) -> (scores of the next token [rows, places, vocabulary], what is the past next)
Run = Callable[[dict[str, Output], "Scope"], tuple[Output, list[Output]]]


class Form(NamedTuple):
    """The model of a search and its loop state.

    `state` is carried between steps: `past_0` ..., `ids` (the tokens that are read next) and the values that
    `advance` computes from the state and the chosen tokens. `first` is the first step, if another graph makes
    it. The past has its rows along the dimension `axis`.
    """

    state: dict[str, Output]
    first: Run | None
    run: Run
    advance: Callable[[dict[str, Output], Output], dict[str, Output]]
    axis: int


def fill(n: OnnxNode, value: Output, *shape: Output) -> Output:
    return n.broadcast(value, n.concat(list(shape), 0))


def for_beams(n: OnnxNode, x: Output, beams: int) -> Output:
    """[batch, ...] -> [batch * beams, ...]"""
    if beams == 1:
        return x
    dims = [n.dim_of(x, i) for i in range(n.rank(x))]
    shape = n.concat([dims[0], n.const(np.array([beams])), *dims[1:]], 0)
    every = n.broadcast(n.unsqueeze(x, [1]), shape)
    return n.reshape(every, n.concat([n.const(np.array([-1])), *dims[1:]], 0))


def inside(n: OnnxNode, value: Output, scope: Scope) -> Output:
    """Makes a value of the search's own graph available in the graph of a step."""
    return value if scope is n.scope else scope.capture(value)


def _empty_past(n: OnnxNode, kind: str, shape: Any, rows: Output, rank: int) -> Output:
    """Keys or values of nothing, [..., rows, heads, 0, size], by the declaration of the past: its dimensions
    but those of rows and places must be known."""
    fixed = None if shape is None or len(shape) != rank else (*shape[: rank - 4], shape[-3], shape[-1])
    if not is_static(fixed):
        raise UnsupportedError(f"a decoder whose past has the shape {shape} is not supported")
    *before, heads, size = (n.const(np.array([d])) for d in fixed)
    return fill(n, n.const(0, kind), *before, rows, heads, n.const(np.array([0])), size)


def _types(graph: Any) -> list[tuple[str, Any]]:
    """(element type, shape) of a graph's inputs as they are declared"""
    return [tensors.tensor_type(info.type) for info in graph.input]


def _call(n: OnnxNode, graph: Any, inputs: list[Output], scope: Scope) -> list[Output]:
    """Reads a graph on these inputs, converted to its declared types, and returns its outputs."""
    values = [n.convert(value, kind) for value, (kind, _) in zip(inputs, _types(graph), strict=True)]
    names = [info.name for info in graph.input]
    outputs, _ = n.reader.subgraph(graph, scope, dict(zip(names, values, strict=True)), captures=False)
    return outputs


# -- a decoder alone -----------------------------------------------------------------------------------------


def decoder_only(n: OnnxNode, ids: Output, mask: Output | None, pad: int, beams: int) -> Form:
    """(tokens, positions, mask, past of each layer) -> (scores, present of each layer). Positions count the
    tokens that are no filling."""
    decoder, begin = n.require("decoder"), n.attr("init_decoder")
    kinds = _types(decoder)
    if len(kinds) != len(decoder.output) + 2 or len(kinds) < 4:
        raise UnsupportedError(
            f"a decoder with {len(kinds)} inputs and {len(decoder.output)} outputs is not supported; "
            "expected inputs are tokens, positions, a mask and the past, expected outputs are logits "
            "and the present"
        )
    if begin is not None and (len(begin.input), len(begin.output)) != (len(kinds), len(decoder.output)):
        raise UnsupportedError(
            "the decoder of the first step should have the same inputs and outputs as the decoder"
        )
    real = n.convert(n("NotEqual", ids, n.like(ids, pad)), "i32")
    token_counts = n("CumSum", real, 1)
    state = {
        "ids": ids,
        "position": n("Multiply", n("Subtract", token_counts, n.like(real, 1)), real),
        "next_position": n("ReduceSum", real, [1], keep_dims=True),
        "mask": real if mask is None else n.convert(mask, "i32"),
    }
    state = {name: for_beams(n, value, beams) for name, value in state.items()}
    rows = n.dim_of(state["ids"], 0)
    for i, (kind, shape) in enumerate(kinds[3:]):
        state[f"past_{i}"] = _empty_past(n, kind, shape, rows, 5)

    def run_of(graph: Any) -> Run:
        def run(state: dict[str, Output], scope: Scope) -> tuple[Output, list[Output]]:
            past = [state[f"past_{i}"] for i in range(len(kinds) - 3)]
            inputs = [state["ids"], state["position"], state["mask"], *past]
            logits, *present = _call(n, graph, inputs, scope)
            return logits, present

        return run

    def advance(state: dict[str, Output], token: Output) -> dict[str, Output]:
        ones = n.broadcast(n.const(1, "i32"), n.shape_of(token))
        return {
            "position": state["next_position"],
            "next_position": n("Add", state["next_position"], ones),
            "mask": n("Concat", state["mask"], ones, axis=1),
        }

    return Form(state, None if begin is None else run_of(begin), run_of(decoder), advance, 1)


# -- an encoder and a decoder --------------------------------------------------------------------------------


def encoder_and_decoder(
    n: OnnxNode, form: int, start_tokens: Output, mask: Output | None, pad: int, beams: int
) -> Form:
    """Reads input 0 by the encoder, once. The encoder returns either scores and the past after the tokens
    `start_tokens` too, or only the keys and values of its input, which the decoder takes in each step."""
    encoder, decoder = n.require("encoder"), n.require("decoder")
    layers, odd = divmod(len(decoder.output) - 1, 2)
    names = [info.name for info in decoder.input]
    first = 1 if form == WHISPER else 2
    hidden = names[first : first + 1] == ["encoder_hidden_states"]
    first += hidden
    if odd or layers < 1 or len(names) != first + 4 * layers:
        raise UnsupportedError(
            f"a decoder with {len(names)} inputs and {len(decoder.output)} outputs is not supported; "
            "expected inputs are tokens, the encoder's outputs and four past tensors per layer, "
            "expected outputs are logits and two present tensors per layer"
        )
    encoder_inputs = [n[0]]
    if form == T5:
        mask = _without_left(n, encoder_inputs[0], pad) if mask is None else n.convert(mask, "i32")
        encoder_inputs.append(mask)
    has_first_step = len(encoder.input) == len(encoder_inputs) + 1
    if len(encoder.input) not in (len(encoder_inputs), len(encoder_inputs) + 1):
        raise UnsupportedError(f"an encoder with {len(encoder.input)} inputs is not supported")
    outputs = _call(
        n, encoder, [*encoder_inputs, start_tokens] if has_first_step else encoder_inputs, n.scope
    )
    if len(outputs) != (2 + 4 * layers if has_first_step else 2 * layers):
        raise UnsupportedError(f"an encoder with {len(outputs)} outputs for {layers} layers is not supported")
    if hidden and not has_first_step:
        raise UnsupportedError("the decoder takes hidden states that the encoder does not return")
    outputs = [for_beams(n, value, beams) for value in outputs]
    cross = outputs[-2 * layers :]
    fixed = [] if mask is None or form != T5 else [for_beams(n, mask, beams)]
    fixed += outputs[1:2] if hidden else []
    kinds = _types(decoder)
    tokens = kinds[0][1]
    by_token = tokens is not None and len(tokens) == 2 and tokens[1] == 1
    state = {"ids": for_beams(n, start_tokens, beams)}
    rows = n.dim_of(state["ids"], 0)
    for i in range(2 * layers):
        past = outputs[2 + i] if has_first_step else _empty_past(n, *kinds[first + i], rows, 4)
        state[f"past_{i}"] = past

    def begin(state: dict[str, Output], _scope: Scope) -> tuple[Output, list[Output]]:
        return outputs[0], [state[f"past_{i}"] for i in range(2 * layers)]

    def run(state: dict[str, Output], scope: Scope) -> tuple[Output, list[Output]]:
        past = [state[f"past_{i}"] for i in range(2 * layers)]
        around = [inside(n, value, scope) for value in (*fixed, *cross)]
        ids = state["ids"] if by_token else state["said"]
        values = [ids, *around[: len(fixed)], *past, *around[len(fixed) :]]
        logits, *present = _call(n, decoder, values, scope)
        return logits, present

    return Form(state, begin if has_first_step else None, run, lambda _state, _token: {}, 0)


def _without_left(n: OnnxNode, ids: Output, pad: int) -> Output:
    """1 from each item's first token on that is no filling, i32"""
    real = n.convert(n("NotEqual", ids, n.like(ids, pad)), "i32")
    return n.convert(n("Greater", n("CumSum", real, 1), n.const(0, "i32")), "i32")
