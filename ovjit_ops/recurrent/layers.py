"""LSTM, GRU, AUGRU and RNN: cells (one step for a batch) and sequences, registered by one function.

Letters of dimensions: B batch, T steps, I input size, H hidden size, D directions, G gates x H, P rows of the
bias (one more gate for a GRU with `linear_before_reset`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.attributes import REQUIRED
from ovjit.graph.op import Op, TensorType, register
from ovjit_ops.common.checks import check_same_type, check_type
from ovjit_ops.common.dims import Dims
from ovjit_ops.common.values import INTEGERS, in_f32
from ovjit_ops.elementwise.arithmetic import REALS
from ovjit_ops.recurrent.step import (
    ACTIVATIONS,
    DIRECTIONS,
    FORMATS,
    KINDS,
    check_lengths,
    directions,
    gate_rows,
    make_step,
    run_directions,
    run_step,
    split_bias,
)
from ovjit_ops.recurrent.steps import expand_layer


def layer(
    name: str, opset: int, kind: str, doc: str, *, sequence: bool = False, letters: str = "",
    peepholes: bool = False, **options: Any,
) -> Op:  # fmt: skip
    """Register a recurrent layer. `letters` are the dimensions of its attention input, if it has one."""
    d = "D" if sequence else ""
    shapes = {"X": "BTI" if sequence else "BI", "initial_hidden_state": f"B{d}H"}
    if KINDS[kind].states == 2:
        shapes["initial_cell_state"] = f"B{d}H"
    if sequence:
        shapes["sequence_lengths"] = "B"
    shapes |= {"W": f"{d}GI", "R": f"{d}GH", "B": f"{d}P"}
    if peepholes:
        shapes["P"] = "."
    if letters:
        shapes["A"] = letters
    attributes: list[tuple[str, str, Any]] = [("hidden_size", "Positive", REQUIRED)]
    attributes += [("direction", "Word", REQUIRED)] if sequence else []
    attributes += [("activations", "Strs", KINDS[kind].activations), ("activations_alpha", "Floats", ())]
    attributes += [("activations_beta", "Floats", ()), ("clip", "Single", 0.0)]
    attributes += [("linear_before_reset", "Bool", False)] if "GRU" in kind else []
    attributes += [("weights_format", "Word", "fico"), ("input_forget", "Bool", False)] if peepholes else []

    words: dict[str, Any] = {"activations": list(ACTIVATIONS)}
    if peepholes:
        words["weights_format"] = FORMATS
    if sequence:
        words["direction"] = f"ov::op::RecurrentSequenceDirection: {' '.join(DIRECTIONS)}"

    def infer(*xs: TensorType | None, **attrs: Any) -> tuple[TensorType, ...]:
        named = dict(zip(shapes, xs, strict=False))
        dims = infer_dims(kind, named, shapes, attrs)
        dtype = next((x.dtype for n, x in named.items() if x and n != "sequence_lengths"), "dynamic")
        outputs = (["BDTH"] if sequence else []) + [f"B{d}H"] * KINDS[kind].states
        return tuple(TensorType(dtype, dims.shape(letters)) for letters in outputs)

    positional = [
        inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None if n == "P" else REQUIRED)
        for n in shapes
    ]
    keywords = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=kind_of, default=default)
        for n, kind_of, default in attributes
    ]
    infer.__signature__ = inspect.Signature([*positional, *keywords])  # type: ignore[attr-defined]

    @in_f32
    def ref(*xs: np.ndarray, **attrs: Any) -> tuple[np.ndarray, ...]:
        named = dict(zip(shapes, xs, strict=False))
        return (_run_sequence if sequence else _run_cell)(kind, named, attrs)

    return register(
        Op(
            name, opset, infer, ref, doc=doc, types=REALS, native=("f32",), ulp=64, words=words,
            expand=expand_layer(kind, list(shapes), sequence), **options,
        )
    )  # fmt: skip


def infer_dims(
    kind: str, named: Mapping[str, TensorType | None], shapes: Mapping[str, str], attrs: Mapping[str, Any]
) -> Dims:
    """The dimensions of a layer's inputs. Raises ModelError if attributes, types or shapes do not fit."""
    size = attrs["hidden_size"]
    step = make_step(kind, attrs)
    if kind == "AUGRU":
        check(
            not step.clip and not step.linear_before_reset, "clip and linear_before_reset are not supported"
        )
    gates = KINDS[kind].gates
    dims = Dims(H=size, G=gates * size, P=(gates + step.linear_before_reset) * size)
    if "direction" in attrs:
        dims.extents["D"] = len(directions(attrs["direction"]))
    x = named["X"]
    for name, type in named.items():
        if type is None or x is None:
            continue
        if name == "sequence_lengths":
            check_type(type, INTEGERS, name)
        else:
            check_type(type, REALS, name)
            check_same_type(type, x, name)
        dims.fit(name, type, shapes[name])
    peep = named.get("P")
    if peep is not None and peep.shape is not None:
        Dims(P=3 * size).fit("P", peep, "P")
    return dims


def _run_cell(kind: str, named: dict[str, Any], attrs: dict[str, Any]) -> tuple[np.ndarray, ...]:
    step = make_step(kind, attrs)
    order = attrs.get("weights_format", "fico")
    w, r, b = (gate_rows(named[n], order) for n in "WRB")
    bias, rb = split_bias(b, kind, step.linear_before_reset)
    peep = () if named.get("P") is None else np.split(named["P"], 3)
    h, c = named["initial_hidden_state"], named.get("initial_cell_state")
    out = run_step(step, named["X"] @ w.T + bias, h, c, r, rb, named.get("A"), peep)
    return tuple(x for x in out if x is not None)


def _run_sequence(kind: str, named: dict[str, Any], attrs: dict[str, Any]) -> tuple[np.ndarray, ...]:
    step = make_step(kind, attrs)
    x, h, c = named["X"], named["initial_hidden_state"], named.get("initial_cell_state")
    backwards = directions(attrs["direction"])
    lengths = check_lengths(named["sequence_lengths"], x.shape[1], backwards)
    biases = [split_bias(b, kind, step.linear_before_reset) for b in named["B"]]
    xps = [x @ w.T + bias for w, (bias, _) in zip(named["W"], biases, strict=True)]
    rbs = [rb for _, rb in biases]
    return run_directions(step, xps, h, c, lengths, backwards, named["R"], rbs, named.get("A"))


layer("LSTMCell", 1, "LSTM", "One step of an LSTM; its gates may see the cell's state (P).",
      peepholes=True)  # fmt: skip
layer("LSTMCell", 4, "LSTM", "One step of an LSTM.")
layer("LSTMSequence", 5, "LSTM", "An LSTM over sequences.", sequence=True)
layer("GRUCell", 3, "GRU", "One step of a GRU.")
layer("GRUSequence", 5, "GRU", "A GRU over sequences.", sequence=True)
layer("RNNCell", 1, "RNN", "One step of a plain recurrent layer.")
layer("RNNSequence", 5, "RNN", "A plain recurrent layer over sequences.", sequence=True)
layer("AUGRUCell", 1, "AUGRU", "One step of a GRU whose update gate is damped by attention A.",
      letters="B1", plugin=True)  # fmt: skip
layer("AUGRUSequence", 1, "AUGRU", "A GRU over sequences, its update gate damped by attention A.",
      sequence=True, letters="BT1", plugin=True)  # fmt: skip
