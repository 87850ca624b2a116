"""`Model.reshape` broadcasts constant states of LSTM cells to the batch, as OpenVINO's does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset1
from ovjit import opset13 as ops

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
HIDDEN, WIDTH, STEPS = 3, 2, 5
RNG = np.random.default_rng(69)
X_WEIGHTS, H_WEIGHTS, BIAS, H, C = (
    RNG.standard_normal(shape).astype(np.float32)
    for shape in ((4 * HIDDEN, WIDTH), (4 * HIDDEN, HIDDEN), (4 * HIDDEN,), (1, HIDDEN), (1, HIDDEN))
)


def make_cell(x: Any, h: Any, c: Any) -> Any:
    return ops.lstm_cell(
        x, h, c, ops.constant(X_WEIGHTS), ops.constant(H_WEIGHTS), ops.constant(BIAS), HIDDEN
    )


def make_loop(axis: int, batch: int = 1) -> ov.Model:
    """A TensorIterator over a sequence, which has the batch at `axis`."""
    shape = [batch if i == axis else STEPS for i in range(2)]
    x = ops.parameter([*shape, WIDTH], np.float32, name="x")
    part = ops.parameter([1 if i != axis else batch for i in range(2)] + [WIDTH], np.float32)
    h, c = (ops.parameter([batch, HIDDEN], np.float32) for _ in range(2))
    cell = make_cell(ops.squeeze(part, ops.constant(np.array([1 - axis]))), h, c)
    rows = ops.unsqueeze(cell.output(0), ops.constant(np.array([1 - axis])))
    body = ov.Model([ops.result(v) for v in (cell.output(0), cell.output(1), rows)], [part, h, c])
    loop, results = ops.tensor_iterator(), body.get_results()
    loop.set_body(body)
    loop.set_sliced_input(part, x.output(0), 0, 1, 1, -1, 1 - axis)
    for state, value, result in ((h, H, 0), (c, C, 1)):
        constant = ops.constant(np.repeat(value, batch, 0)).output(0)
        loop.set_merged_input(state, constant, results[result].output(0))
    outputs = [loop.get_concatenated_slices(results[2].output(0), 0, 1, 1, -1, 1 - axis)]
    return ov.Model([*outputs, loop.get_iter_value(results[1].output(0), -1)], [x])


def run(model: ov.Model, x: np.ndarray) -> list[np.ndarray]:
    return list(ov.compile_model(model, "CPU", F32)([x]).values())


@pytest.mark.parametrize("constant", ["both", "h", "c"])
@pytest.mark.parametrize("batch", [4, -1])
def test_states_of_a_cell_take_other_batches(constant: str, batch: int) -> None:
    x = ops.parameter([1, WIDTH], np.float32, name="x")
    h, c = (
        ops.constant(value)
        if constant in (name, "both")
        else ops.parameter([1, HIDDEN], np.float32, name=name)
        for name, value in (("h", H), ("c", C))
    )
    inputs = [x, *(each for each in (h, c) if constant != "both" and each.get_type_name() == "Parameter")]
    model = ov.Model(list(make_cell(x, h, c).outputs()), inputs)
    model.reshape({i: [batch, *port.shape[1:]] for i, port in enumerate(model.inputs)})
    assert [str(port.partial_shape) for port in model.outputs] == 2 * [
        f"[{'?' if batch < 0 else 4},{HIDDEN}]"
    ]
    rows = np.linspace(-1, 1, 4 * WIDTH, dtype=np.float32).reshape(4, WIDTH)
    states = [
        np.repeat(value, 4, 0) for value, name in ((H, "h"), (C, "c")) if constant not in (name, "both")
    ]
    result = ov.compile_model(model, "CPU", F32)([rows, *states])
    one = ops.parameter([4, WIDTH], np.float32)
    whole = make_cell(one, ops.constant(np.repeat(H, 4, 0)), ops.constant(np.repeat(C, 4, 0)))
    for got, want in zip(result.values(), run(ov.Model(list(whole.outputs()), [one]), rows), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("batch", [4, -1])
def test_states_of_a_loop_take_other_batches(axis: int, batch: int) -> None:
    model, shape = make_loop(axis), [STEPS, STEPS, WIDTH]
    shape[axis] = batch
    model.reshape(shape)
    size = "?" if batch < 0 else "4"
    sizes = f"{size},{STEPS}" if axis == 0 else f"{STEPS},{size}"
    assert [str(port.partial_shape) for port in model.outputs] == [
        f"[{sizes},{HIDDEN}]",
        f"[{size},{HIDDEN}]",
    ]
    shape[axis] = 4
    x = np.linspace(-1, 1, 4 * STEPS * WIDTH, dtype=np.float32).reshape(shape)
    for got, want in zip(run(model, x), run(make_loop(axis, 4), x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_a_refused_shape_leaves_the_model() -> None:
    x = ops.parameter([1, WIDTH], np.float32, name="x")
    model = ov.Model(list(make_cell(x, ops.constant(H), ops.constant(C)).outputs()), [x])
    before = [node.get_type_name() for node in model.get_ordered_ops()]
    with pytest.raises(RuntimeError):
        model.reshape([4, WIDTH + 1])
    assert [node.get_type_name() for node in model.get_ordered_ops()] == before


def test_states_of_other_cells_stay() -> None:
    """OpenVINO broadcasts those of LSTMCell-4 alone."""
    x = ops.parameter([1, WIDTH], np.float32)
    weights = ops.constant(X_WEIGHTS[:9]), ops.constant(H_WEIGHTS[:9]), ops.constant(BIAS[:9])
    gru = ov.Model([ops.gru_cell(x, ops.constant(H), *weights, HIDDEN)], [x])
    with pytest.raises(RuntimeError, match="initial_hidden_state"):
        gru.reshape([4, WIDTH])
    x = ops.parameter([1, WIDTH], np.float32)
    arrays = (ops.constant(value) for value in (H, C, X_WEIGHTS, H_WEIGHTS, BIAS))
    old = ov.Model(list(opset1.lstm_cell(x, *arrays, HIDDEN).outputs()), [x])
    with pytest.raises(RuntimeError, match="initial_hidden_state"):
        old.reshape([4, WIDTH])
