"""GatedDeltaNet and SelectiveSSM of IR files, beside the real OpenVINO and in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.engine import compile_graph
from tests.support.run import run

SEED = 20261123
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
UNIT = 'fuse_qk_l2norm="true" q_l2_norm_eps="0.01" k_l2_norm_eps="0.02"'


def file_of(shapes: list[tuple[int, ...]], data: str, name: str = "GatedDeltaNet") -> bytes:
    """An IR file of the operation alone, as OpenVINO's own reads it once its CPU plugin is loaded."""

    def port(i: int, shape: tuple[int, ...]) -> str:
        return f'<port id="{i}" precision="FP32">{"".join(f"<dim>{d}</dim>" for d in shape)}</port>'

    n, outs = len(shapes), [shapes[2], shapes[3]] if name == "GatedDeltaNet" else [shapes[3], shapes[5]]
    layers = [
        f'<layer id="{i}" name="p{i}" type="Parameter" version="opset1"><data '
        f'shape="{",".join(map(str, s))}" element_type="f32"/><output>{port(0, s)}</output></layer>'
        for i, s in enumerate(shapes)
    ]
    layers.append(
        f'<layer id="{n}" name="op" type="{name}" version="extension"><data {data}/><input>'
        f"{''.join(port(i, s) for i, s in enumerate(shapes))}</input><output>"
        f"{''.join(port(n + i, s) for i, s in enumerate(outs))}</output></layer>"
    )
    layers += [
        f'<layer id="{n + 1 + i}" name="r{i}" type="Result" version="opset1">'
        f"<input>{port(0, s)}</input></layer>"
        for i, s in enumerate(outs)
    ]
    ends = [(i, 0, n, i) for i in range(n)] + [(n, n + i, n + 1 + i, 0) for i in range(len(outs))]
    edges = [f'<edge from-layer="{a}" from-port="{b}" to-layer="{c}" to-port="{d}"/>' for a, b, c, d in ends]
    net = f"<layers>{''.join(layers)}</layers><edges>{''.join(edges)}</edges>"
    return f'<?xml version="1.0"?><net name="m" version="11">{net}</net>'.encode()


def shapes_of(
    batch: int, tokens: int, heads: int, groups: int, size: int, wide: int
) -> list[tuple[int, ...]]:
    keys, values, gates = (batch, tokens, heads, size), (batch, tokens, groups, wide), (batch, tokens, groups)
    return [keys, keys, values, (batch, groups, size, wide), gates, gates]


def data_of(shapes: list[tuple[int, ...]], rng: np.random.Generator) -> list[np.ndarray]:
    made = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    made[1] /= np.linalg.norm(made[1], axis=-1, keepdims=True)
    made[4], made[5] = -np.abs(made[4]), 1 / (1 + np.exp(made[5]))
    return made


def real(content: bytes, data: list[np.ndarray]) -> list[np.ndarray]:
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, which brings the operation
    compiled = core.compile_model(core.read_model(content, b""), "CPU", F32)
    return [np.array(x) for x in compiled(data).values()]


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("heads, groups, size, wide", [(2, 2, 16, 8), (2, 6, 16, 24), (1, 3, 7, 5)])
def test_as_the_real_package(heads: int, groups: int, size: int, wide: int, unit: bool) -> None:
    rng = np.random.default_rng([SEED, groups, unit])
    shapes = shapes_of(2, 9, heads, groups, size, wide)
    content, data = file_of(shapes, UNIT if unit else ""), data_of(shapes, rng)
    graph = ov.Core().read_model(content, b"")._graph()
    got = run(compile_graph(graph, {}), data, native=True)
    for one, other in zip(got, real(content, data), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * np.abs(other).max(), err_msg=f"{SEED}")


def test_tokens_one_by_one_are_those_of_a_prompt() -> None:
    """Open batch and tokens: the state goes on, whatever a call has of the tokens."""
    rng = np.random.default_rng(SEED)
    shapes = shapes_of(3, 11, 2, 4, 16, 16)
    open_shapes = [tuple(-1 if i == 0 or (i == 1 and n != 3) else d for i, d in enumerate(s)) for n, s in
                   enumerate(shapes)]  # fmt: skip
    compiled = ov.Core().compile_model(ov.Core().read_model(file_of(open_shapes, UNIT), b""), "CPU", F32)
    data = data_of(shapes, rng)
    want, last = (np.array(x) for x in compiled(data).values())
    state, parts, first = data[3], [], 0
    for count in (1, 1, 4, 5):
        rows = [state if i == 3 else x[:, first : first + count] for i, x in enumerate(data)]
        y, state = (np.array(x) for x in compiled(rows).values())
        parts.append(y)
        first += count
    np.testing.assert_array_equal(np.concatenate(parts, 1), want)
    np.testing.assert_array_equal(state, last)


@pytest.mark.parametrize("index, shape, what", [
    (4, (1, 3, 2, 2), "gate"), (3, (1, 2, 9, 8), "recurrent_state"), (0, (1, 3, 2, 9), "key"),
])  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(index: int, shape: tuple[int, ...], what: str) -> None:
    shapes: list[Any] = shapes_of(1, 3, 2, 2, 8, 8)
    shapes[index] = shape
    content = file_of(shapes, "")
    with pytest.raises(RuntimeError, match=what):
        ov.Core().read_model(content, b"")
    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    with pytest.raises(RuntimeError):
        core.read_model(content, b"")


@pytest.mark.parametrize("heads, groups, size, states", [(4, 1, 8, 16), (6, 2, 5, 24), (3, 3, 16, 7)])
def test_state_spaces_as_the_real_package(heads: int, groups: int, size: int, states: int) -> None:
    """At once, and token by token with open dimensions."""
    rng = np.random.default_rng([SEED, heads])
    batch, tokens = 2, 9
    pairs, rows = (batch, tokens, groups, states), (batch, tokens, heads)
    shapes = [(heads,), rows, pairs, (*rows, size), pairs, (batch, heads, size, states)]
    data = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    data[0], data[1] = -np.abs(data[0]), np.abs(data[1])
    content = file_of(shapes, "", "SelectiveSSM")
    got = run(compile_graph(ov.Core().read_model(content, b"")._graph(), {}), data, native=True)
    for one, other in zip(got, real(content, data), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * np.abs(other).max(), err_msg=f"{SEED}")
    opened = [s if n == 0 else (-1, *(s[1:] if n == 5 else (-1, *s[2:]))) for n, s in enumerate(shapes)]
    compiled = ov.compile_model(ov.Core().read_model(file_of(opened, "", "SelectiveSSM"), b""), "CPU", F32)
    state, parts = data[5], []
    for t in range(tokens):
        one = [data[0], *(x[:, t : t + 1] for x in data[1:5]), state]
        y, state = (np.array(x) for x in compiled(one).values())
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, 1), got[0], rtol=0, atol=1e-6 * np.abs(got[0]).max())
    np.testing.assert_allclose(state, got[1], rtol=0, atol=1e-6 * np.abs(got[1]).max())
