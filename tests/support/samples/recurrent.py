"""Samples of `ovjit_ops/recurrent`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ovjit_ops.elementwise.arithmetic import random_array
from ovjit_ops.recurrent import delta, selective
from ovjit_ops.recurrent.step import DIRECTIONS, KINDS, directions
from tests.support.samples import samples

#: attribute sets of the samples
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "LSTM": [{}, {"clip": 0.7}, {"activations": ("tanh", "relu", "sigmoid")}],
    "GRU": [{}, {"linear_before_reset": True}, {"clip": 0.4}, {"activations": ("relu", "sigmoid")}],
    "AUGRU": [{}],
    "RNN": [{}, {"clip": 0.4}, {"activations": ("relu",)}, {"activations": ("sigmoid",)}],
}
#: batch, steps, input size, hidden size
SIZES = [(1, 1, 1, 1), (2, 5, 7, 17), (7, 3, 16, 8), (3, 4, 5, 33), (15, 2, 33, 16)]


def layer_samples(kind: str, sequence: bool) -> Callable:
    """Samples of a cell or a sequence: each attribute set, each direction, different lengths."""
    gates, states, _ = KINDS[kind]

    def sample_layer(rng: np.random.Generator, dtype: str = "f32") -> Iterator[tuple[list[np.ndarray], dict]]:
        def data(*shape: int) -> np.ndarray:
            return random_array(rng, shape, dtype, (-1, 1))

        for i, (b, t, x, h) in enumerate(SIZES):
            for j, variant in enumerate(VARIANTS[kind]):
                if j and i not in (1, 2):
                    continue
                attrs = {"hidden_size": h, "activations": KINDS[kind].activations, **variant}
                rows = (gates + bool(variant.get("linear_before_reset"))) * h
                if not sequence:
                    inputs = [data(b, x), *(data(b, h) for _ in range(states))]
                    inputs += [data(gates * h, x), data(gates * h, h), data(rows)]
                    yield inputs + ([np.abs(data(b, 1))] if kind == "AUGRU" else []), attrs
                    continue
                direction = DIRECTIONS[(i + j) % 3] if kind != "AUGRU" else "forward"
                d = len(directions(direction))
                lengths = np.full(b, t) if (i + j) % 2 else rng.integers(1, t + 1, b)
                inputs = [data(b, t, x), *(data(b, d, h) for _ in range(states)), lengths.astype(np.int64)]
                inputs += [data(d, gates * h, x), data(d, gates * h, h), data(d, rows)]
                inputs += [np.abs(data(b, t, 1))] if kind == "AUGRU" else []
                yield inputs, {**attrs, "direction": direction}

    return sample_layer


for _kind, _cell, _sequence in (("LSTM", 4, 5), ("GRU", 3, 5), ("RNN", 1, 5), ("AUGRU", 1, 1)):
    samples(f"{_kind}Cell", _cell)(layer_samples(_kind, False))
    samples(f"{_kind}Sequence", _sequence)(layer_samples(_kind, True))
samples("LSTMCell")(layer_samples("LSTM", False))


@samples("GatedDeltaNet")
def gated_delta_net(rng, dtype="f32") -> Iterator[Any]:
    for batch, tokens, heads, groups, size, value_size, unit in (
        (2, 5, 2, 2, 16, 8, True), (1, 3, 2, 4, 16, 24, False), (1, 1, 1, 3, 7, 5, True),
    ):  # fmt: skip
        extents = {"B": batch, "T": tokens, "H": heads, "G": groups, "K": size, "V": value_size}
        data = [
            rng.standard_normal([extents[c] for c in s]).astype(np.float32) for s in delta.SHAPES.values()
        ]
        data[1] /= np.linalg.norm(data[1], axis=-1, keepdims=True)
        data[4], data[5] = -np.abs(data[4]), 1 / (1 + np.exp(data[5]))
        yield data, {"fuse_qk_l2norm": True, "q_l2_norm_eps": 0.01} if unit else {}


def _sample_tables() -> list[np.ndarray]:
    """Two sequences: three tokens after one past token, and two tokens."""
    tables = [0, 3, 5], [0, 1, 3, 2, 4], [0, 3, 5], [1, 0], [2, 0]
    return [np.array(x, np.int32) for x in tables]


def _sample(rng: np.random.Generator, shapes: str) -> list[np.ndarray]:
    extents = {"T": 5, "B": 6, "H": 2, "G": 4, "K": 16, "V": 5, "1": 1}
    arrays = [rng.standard_normal([extents[c] for c in s]).astype(np.float32) for s in shapes.split()]
    return arrays


def _delta_sample(rng: np.random.Generator) -> list[np.ndarray]:
    arrays = _sample(rng, "THK THK TGV BGVK TG TG")
    arrays[1] /= np.linalg.norm(arrays[1], axis=-1, keepdims=True)
    arrays[4], arrays[5] = -np.abs(arrays[4]), 1 / (1 + np.exp(arrays[5]))
    return [*arrays, *_sample_tables()]


def _space_sample(rng: np.random.Generator) -> list[np.ndarray]:
    arrays = _sample(rng, "G TG THK TGV THK BGVK")
    arrays[0], arrays[1] = -np.abs(arrays[0]), np.abs(arrays[1])
    return [*arrays, *_sample_tables()]


@samples("PagedGatedDeltaNet")
def paged_gated_delta_net(rng, dtype="f32"):
    yield _delta_sample(rng), {"use_qk_l2norm": True, "q_l2_norm_eps": 0.01}


@samples("PagedSelectiveSSM")
def paged_selective_ssm(rng, dtype="f32"):
    yield _space_sample(rng), {}


@samples("PagedCausalConv1D")
def paged_causal_conv1d(rng, dtype="f32"):
    yield [*_sample(rng, "TK BKG K1G K"), *_sample_tables()], {}


@samples("PagedStatesGuard")
def paged_states_guard(rng, dtype="f32"):
    yield [*_sample_tables(), *_sample(rng, "TK BGV")], {}


@samples("PagedStates")
def paged_states(rng, dtype="f32"):
    done = np.zeros(1, np.int64)
    yield [*_delta_sample(rng), done], {"what": "delta", "unit": True, "q_eps": 0.01}
    yield [*_delta_sample(rng), done], {"what": "delta"}
    yield [*_space_sample(rng), done], {"what": "space"}
    yield [*_sample(rng, "TK BKG K1G K"), *_sample_tables(), done], {"what": "window"}


@samples("SelectiveSSM")
def selective_ssm(rng, dtype="f32") -> Iterator[Any]:
    for batch, tokens, heads, groups, size, states in ((2, 5, 4, 2, 8, 16), (1, 1, 3, 1, 5, 7)):
        extents = {"B": batch, "T": tokens, "H": heads, "G": groups, "P": size, "N": states}
        data = [
            rng.standard_normal([extents[c] for c in s]).astype(np.float32) for s in selective.SHAPES.values()
        ]
        data[0], data[1] = -np.abs(data[0]), np.abs(data[1])
        yield data, {}


@samples("RecurrentSteps")
def recurrent_steps(rng, dtype="f32"):
    for i, (kind, roles) in enumerate(
        (
            ("LSTM", "xhclr"),
            ("LSTM", "xhcr"),
            ("GRU", "xhlr"),
            ("GRU", "xhlrb"),
            ("AUGRU", "xhra"),
            ("RNN", "xhlr"),
        )
    ):
        gates = KINDS[kind].gates
        for j, (b, t, h) in enumerate(((1, 1, 1), (2, 5, 17), (7, 3, 33), (25, 4, 8))):
            direction = DIRECTIONS[(i + j) % 3]
            d = len(directions(direction))
            shapes = {"x": (b, t, d * gates * h), "h": (b, d, h), "c": (b, d, h), "r": (d, gates * h, h),
                      "b": (d, h), "a": (b, t, 1)}  # fmt: skip
            inputs = [
                rng.integers(0, t + 1, b) if r == "l" else random_array(rng, shapes[r], dtype, (-1, 1))
                for r in roles
            ]
            attrs = {"kind": kind, "roles": roles, "direction": direction, "hidden_size": h,
                     "activations": KINDS[kind].activations, "linear_before_reset": "b" in roles,
                     "clip": 0.5 if j == 2 and kind != "AUGRU" else 0.0}  # fmt: skip
            yield inputs, attrs
