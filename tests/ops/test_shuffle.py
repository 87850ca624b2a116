"""Channel shuffles and transposes of elements of every size, beside NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit
from ovjit.compiler.pass_pipeline import op_rules
from ovjit.graph.dtypes import numpy_dtype
from ovjit.rewrite.rules import run_rules
from tests.support.compiled import here

SEED = 20261120
F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
TYPES = ("u8", "i8", "f16", "i16", "f32", "i32", "i64")


def random_data(rng, shape, dtype):
    return rng.integers(0, 120, shape).astype(numpy_dtype(dtype))


def answer(out, parameters, arrays, config=F32):
    model = ovjit.Model([out.output(0)], parameters)
    return np.array(ovjit.Core().compile_model(model, "CPU", config)(arrays)[0])


@pytest.mark.parametrize("dtype", TYPES)
def test_transposes_of_every_size(dtype):
    rng = np.random.default_rng((SEED, TYPES.index(dtype)))
    ops = ovjit.opset13
    for _ in range(12):
        shape = tuple(int(d) for d in rng.choice([1, 2, 3, 4, 5, 15, 16, 17, 33], rng.integers(3, 5)))
        order = [int(i) for i in rng.permutation(len(shape))]
        x = ops.parameter(list(shape), getattr(ovjit.Type, dtype))
        data = random_data(rng, shape, dtype)
        got = answer(ops.transpose(x, order), [x], [data])
        np.testing.assert_array_equal(got, data.transpose(order), err_msg=f"{shape} {order} seed {SEED}")


@pytest.mark.parametrize("dtype", ["u8", "f16", "f32"])
@pytest.mark.parametrize("groups, each", [(2, 5), (3, 17), (4, 34), (8, 4), (9, 3), (4, 1)])
def test_shuffles_that_exporters_write(dtype, groups, each):
    """Reshape, Transpose, Reshape is a shuffle; behind it an addition by channel, which it is sunk below."""
    rng = np.random.default_rng((SEED, groups, each))
    ops = ovjit.opset13
    shape = (2, groups * each, 3, 5)
    x = ops.parameter(list(shape), getattr(ovjit.Type, dtype))
    apart = ops.reshape(x, [2, groups, each, 3, 5], False)
    mixed = ops.reshape(ops.transpose(apart, [0, 2, 1, 3, 4]), list(shape), False)
    data = random_data(rng, shape, dtype)
    more = random_data(rng, (1, shape[1], 1, 1), dtype)
    want = data.reshape(2, groups, each, 3, 5).swapaxes(1, 2).reshape(shape)
    for config in (F32, {"INFERENCE_PRECISION_HINT": "bf16"}):  # recognized in bf16 alone
        np.testing.assert_array_equal(answer(mixed, [x], [data], config), want, err_msg=f"seed {SEED}")
    added = ops.add(mixed, ops.constant(more))
    for config in (F32, {"INFERENCE_PRECISION_HINT": "bf16"}):
        got = answer(added, [x], [data], config)
        np.testing.assert_array_equal(got, want + more, err_msg=f"seed {SEED}")


@pytest.mark.parametrize(
    "inner, order, found",
    [
        ((4, 6), (0, 2, 1, 3, 4), True),
        ((4, 6), (0, 1, 2, 4, 3), False),  # another transpose
        ((4, 6), (0, 2, 1, 4, 3), False),  # more than the channels
        ((24, 1), (0, 2, 1, 3, 4), False),  # nothing moves
    ],
)
def test_what_is_a_shuffle(inner, order, found):
    ops = ovjit.opset13
    x = ops.parameter([2, 24, 5, 5], np.float32)
    apart = ops.reshape(x, [2, *inner, 5, 5], False)
    mixed = ops.reshape(ops.transpose(apart, list(order)), [2, 24, 5, 5], False)
    graph = ovjit.Model([mixed.output(0)], [x])._graph()
    for precision in ("f32", "bf16"):
        context = here(precision=precision)
        names = [n.op.name for n in run_rules(graph, op_rules(), context).nodes]
        assert ("ShuffleChannels" in names) == (found and precision == "bf16")
    data = np.random.default_rng(SEED).standard_normal((2, 24, 5, 5)).astype(np.float32)
    want = data.reshape(2, *inner, 5, 5).transpose(order).reshape(2, 24, 5, 5)
    np.testing.assert_array_equal(answer(mixed, [x], [data]), want)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 6, 3)])
def test_any_axis_before_an_elementwise_operation(shape: tuple[int, ...]) -> None:
    o, x = ovjit.opset13, np.arange(np.prod(shape), dtype="f4").reshape(shape)
    for axis in range(len(shape)):
        groups = 2 if shape[axis] % 2 == 0 else 3
        p = o.parameter(shape, np.float32)
        shuffled = o.relu(o.shuffle_channels(o.tanh(p), axis, groups))
        split = x.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
        wanted = np.tanh(split.swapaxes(axis, axis + 1).reshape(shape))
        found = ovjit.compile_model(ovjit.Model([shuffled], [p]), "CPU")([x])[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
