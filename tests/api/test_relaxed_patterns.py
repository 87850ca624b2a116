"""`Model.reshape` relaxes constant patterns of Reshape that hold the size of a batch, as OpenVINO's does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops

F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def weights(*shape: int, dtype: Any = np.float32) -> Any:
    return ops.constant((np.arange(np.prod(shape)).reshape(shape) % 7 - 3).astype(dtype))


def flat(x: Any, *pattern: int) -> Any:
    return ops.reshape(x, ops.constant(np.array(pattern)), True)


def images() -> Any:
    return ops.parameter([2, 3, 4], np.float32, name="x")


def reshaped(y: Any, x: Any, *shapes: Any) -> list[str]:
    model, found = ov.Model([y], [x]), []
    for shape in shapes:
        model.reshape(shape)
        found.append(str(model.output(0).partial_shape))
    return found


@pytest.mark.parametrize("pattern", [(2, 12), (2, -1), (-1, 12), (0, -1), (0, 12)])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_first_operand_of_a_product_takes_other_batches(pattern: Any, transposed: bool) -> None:
    x = images()
    y = ops.matmul(flat(x, *pattern), weights(*((5, 12) if transposed else (12, 5))), False, transposed)
    assert reshaped(y, x, [4, 3, 4], [-1, 3, 4], [1, 3, 4]) == ["[4,5]", "[?,5]", "[1,5]"]


def test_one_row_of_all_elements_becomes_a_row_for_each_image() -> None:
    x = ops.parameter([1, 3, 4], np.float32)
    y = ops.matmul(flat(x, 1, -1), weights(12, 5), False, False)
    assert reshaped(y, x, [4, 3, 4], [-1, 3, 4]) == ["[4,5]", "[?,5]"]


@pytest.mark.parametrize("transposed, pattern", [(False, (12, 2)), (True, (2, 12))])
def test_the_second_operand_of_a_product_takes_other_batches(transposed: bool, pattern: Any) -> None:
    x = images()
    y = ops.matmul(weights(5, 12), flat(x, *pattern), False, transposed)
    assert reshaped(y, x, [4, 3, 4], [-1, 3, 4]) == ["[5,4]", "[5,?]"]


def test_a_transposed_first_operand() -> None:
    x = images()
    y = ops.matmul(flat(x, 12, 2), weights(12, 5), True, False)
    assert reshaped(y, x, [4, 3, 4], [-1, 3, 4]) == ["[4,5]", "[?,5]"]


def test_weights_may_be_stored_in_another_type() -> None:
    x = images()
    wide = ops.multiply(ops.convert(weights(12, 5, dtype=np.float16), "f32"), np.float32(2))
    model = ov.Model([ops.matmul(flat(x, 2, 12), wide, False, False)], [x])
    model.reshape([-1, 3, 4])
    data = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)
    want = data.reshape(5, 12) @ (2 * (np.arange(60).reshape(12, 5) % 7 - 3))
    np.testing.assert_allclose(ov.compile_model(model, "CPU", F32)(data)[0], want, rtol=1e-4, atol=1e-4)


def test_one_axis_is_open() -> None:
    x = ops.parameter([2, 3], np.float32)
    assert reshaped(flat(x, 6), x, [4, 3], [-1, 3], [2, 5]) == ["[12]", "[?]", "[10]"]


def test_rows_between_two_reshapes_keep_both_sizes() -> None:
    x = images()
    y = flat(ops.matmul(flat(x, -1, 4), weights(4, 5), False, False), 2, 3, 5)
    model = ov.Model([y], [x])
    model.reshape([-1, -1, 4])
    assert str(model.output(0).partial_shape) == "[?,?,5]"
    data = np.random.default_rng(0).standard_normal((3, 7, 4)).astype(np.float32)
    want = data @ (np.arange(20).reshape(4, 5) % 7 - 3)
    np.testing.assert_allclose(ov.compile_model(model, "CPU", F32)(data)[0], want, rtol=1e-4, atol=1e-4)


def test_what_is_left_between_two_reshapes_stays_left() -> None:
    """A pattern that counts the last axis holds for other batches as it is."""
    x = images()
    y = flat(ops.matmul(flat(x, -1, 4), weights(4, 5), False, False), 2, 3, -1)
    assert reshaped(y, x, [4, 3, 4], [6, 3, 4], [2, 3, 4]) == ["[2,3,10]", "[2,3,15]", "[2,3,5]"]


def test_a_product_over_nothing() -> None:
    x = ops.parameter([2, 0, 4], np.float32)
    y = ops.matmul(ops.reshape(x, ops.constant([2, 0]), False), weights(0, 5), False, False)
    assert reshaped(ops.relu(y), x, [2, 0, 7]) == ["[2,5]"]


def test_sizes_in_another_order_stay() -> None:
    x = images()
    y = flat(ops.matmul(flat(x, -1, 4), weights(4, 5), False, False), 3, 2, 5)
    with pytest.raises(RuntimeError, match="incompatible with input shape"):
        reshaped(y, x, [4, 3, 4])


@pytest.mark.parametrize(
    "make",
    [
        lambda x: ops.relu(flat(x, 2, 12)),
        lambda x: ops.matmul(flat(x, 2, 1, 12), weights(12, 5), False, False),
        lambda x: ops.matmul(flat(x, 2, 12), ops.reshape(x, ops.constant([12, 2]), False), False, False),
    ],
)
def test_a_failed_reshape_changes_nothing(make: Any) -> None:
    x = images()
    model = ov.Model([make(x)], [x])
    before = [(n.get_type_name(), str(n.get_output_partial_shape(0))) for n in model.get_ordered_ops()]
    with pytest.raises(RuntimeError):
        model.reshape([4, 3, 5])
    after = [(n.get_type_name(), str(n.get_output_partial_shape(0))) for n in model.get_ordered_ops()]
    assert after == before


def test_a_failed_reshape_restores_relaxed_patterns() -> None:
    x = images()
    rows = flat(x, 2, 12)
    y = ops.add(ops.matmul(rows, weights(12, 5), False, False), ops.reduce_sum(flat(x, 2, 12), [1], True))
    model = ov.Model([y], [x])
    with pytest.raises(RuntimeError):
        model.reshape([4, 3, 4])
    assert rows.input_value(1).get_node().data.tolist() == [2, 12]


def test_batch_of_a_network_with_a_fixed_pattern() -> None:
    """The network of OpenVINO's sample `model_creation_sample`, in small."""
    x = ops.parameter([64, 2, 4, 4], np.float32, name="x")
    x.set_layout(ov.Layout("NCHW"))
    pooled = ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2], "ceil", None).output(0)
    y = ops.softmax(ops.matmul(flat(pooled, 64, 8), weights(5, 8), False, True), 1)
    model = ov.Model([y], [x])
    ov.set_batch(model, 3)
    assert str(model.output(0).partial_shape) == "[3,5]"
    assert ov.compile_model(model, "CPU")(np.ones((3, 2, 4, 4), np.float32))[0].shape == (3, 5)
