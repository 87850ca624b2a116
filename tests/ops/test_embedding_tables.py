"""Bags of embeddings, searches, products in f64 and integers, natively: random ones, hostile indices."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit
from ovjit.graph.op import find_op
from tests.support.sweeps import in_turn, some

SEED = 8800


def infer(node, parameters, given):
    compiled = ovjit.Core().compile_model(
        ovjit.Model([node.output(0)], parameters), "CPU", {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": 2}
    )
    request = compiled.create_infer_request()
    out = np.array(request.infer(given)[0])
    return out, {row.exec_type for row in request.get_profiling_info()}


def parameters_of(arrays, dynamic=False):
    return [
        ovjit.opset15.parameter(
            ovjit.PartialShape([-1] * x.ndim if dynamic else list(x.shape)), ovjit.Type(x.dtype)
        )
        for x in arrays
    ]


@pytest.mark.parametrize("case", in_turn(range(24), 2))
def test_random_bags(case):
    rng = np.random.default_rng((SEED, case))
    rows, width = (
        int(rng.choice([1, 5, 100])),
        tuple(rng.choice([1, 7, 16, 65, 130], int(rng.integers(1, 3)))),
    )
    index = rng.choice([np.int32, np.int64])
    bags, count = int(rng.integers(1, 40)), int(rng.integers(1, 60))
    name = ["embedding_bag_offsets", "embedding_bag_packed", "embedding_segments_sum"][case % 3]
    table = rng.standard_normal((rows, *width)).astype(np.float32)
    at = rng.integers(0, rows, count).astype(index)
    arrays, keywords = [table, at], {}
    if name == "embedding_bag_offsets":
        arrays.append(np.concatenate([[0], np.sort(rng.integers(0, count + 1, bags - 1))]).astype(index))
    elif name == "embedding_bag_packed":
        arrays[1] = rng.integers(0, rows, (bags, 3)).astype(index)
    else:
        arrays += [np.sort(rng.integers(0, bags, count)).astype(index), np.array(bags, index)]
    if name != "embedding_segments_sum" and rng.random() < 0.5:
        keywords["reduction"] = "mean"
    elif rng.random() < 0.5 and name != "embedding_bag_packed":
        arrays += [np.array(rng.integers(0, rows), index), rng.standard_normal(count).astype(np.float32)]
    where = f"seed {(SEED, case)}: {name} {[x.shape for x in arrays]} {keywords}"
    parameters = parameters_of(arrays, dynamic=case % 2 == 0)
    given = list(parameters)
    if name == "embedding_segments_sum":  # how many segments there are decides about the shape
        given[3] = ovjit.opset15.constant(arrays[3])
        del parameters[3]
    node = getattr(ovjit.opset15, name)(*given, **keywords)
    got, steps = infer(node, parameters, [x for x, g in zip(arrays, given, strict=True) if g in parameters])
    wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in arrays]
    (want,) = find_op(node.get_type_name()).evaluate(wide, keywords)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=where)
    assert "ref_numpy" not in steps, where


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_means_of_extreme_integers(dtype):
    """Sums wrap, means are rounded towards zero, and so many that their number wraps are divided by that."""
    info = np.iinfo(dtype)
    table = np.array([[info.max] * 19, [info.min] * 19, [info.max // 5 * 2 + 1] * 19, [7] * 19], dtype)
    for chosen in ([[0], [2], [1]], [[2, 3], [2, 2], [1, 3]], [[2, 3, 3], [1, 3, 2], [0, 0, 3]], [[3] * 300]):
        indices = np.array(chosen, np.int32)
        parameters = parameters_of([table, indices])
        node = ovjit.opset15.embedding_bag_packed(*parameters, None, "mean")
        got, steps = infer(node, parameters, [table, indices])
        (own,) = find_op("EmbeddingBagPacked").evaluate([table, indices], {"reduction": "mean"})
        sums = table[indices].sum(1, dtype=dtype)
        count = int(np.array(indices.shape[1]).astype(dtype))
        want = [[int(abs(v) // abs(count)) * (1 if (v < 0) == (count < 0) else -1) for v in row]
                for row in sums.astype(object)]  # fmt: skip
        np.testing.assert_array_equal(got, np.array(want, object).astype(dtype))
        np.testing.assert_array_equal(own, got)
        assert "ref_numpy" not in steps


TABLE = np.ones((4, 8), np.float32)


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("embedding_bag_offsets", [[0, 4], [0, 1]]),
        ("embedding_bag_offsets", [[0, -5], [0, 1]]),
        ("embedding_bag_offsets", [[0, 1], [0, 3]]),
        ("embedding_bag_offsets", [[0, 1, 2], [0, 2, 1]]),
        ("embedding_bag_offsets", [[0, 1], [1, 1]]),
        ("embedding_bag_offsets", [[0, 1], [0, 2], 9]),
        ("embedding_bag_packed", [[[0, 1 << 40]]]),
        ("embedding_segments_sum", [[0, 1], [1, 0], 2]),
        ("embedding_segments_sum", [[0, 1], [0, 2], 2]),
        ("embedding_segments_sum", [[0, 1], [-1, 0], 2]),
    ],
)
def test_hostile_bags_are_refused(name, rest):
    """By the kernel and by the reference, naming the node."""
    arrays = [TABLE, *(np.array(x, np.int64) for x in rest)]
    parameters = parameters_of(arrays)
    node = getattr(ovjit.opset15, name)(*parameters, name="the_bag")
    with pytest.raises(RuntimeError, match="the_bag"):
        infer(node, parameters, arrays)
    with pytest.raises(RuntimeError):
        find_op(node.get_type_name()).evaluate(arrays, {})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.uint16, np.int64])
@pytest.mark.parametrize("right", [False, True])
def test_random_searches(dtype, right):
    rng = np.random.default_rng(SEED)
    sequence = np.sort(rng.integers(0, 50, (7, 33)).astype(dtype), -1)
    values = rng.integers(0, 55, (7, 100)).astype(dtype)
    if dtype == np.float32:
        values[0, :3] = [np.nan, np.inf, -np.inf]
    parameters = parameters_of([sequence, values])
    node = ovjit.opset15.search_sorted(*parameters, right)
    got, steps = infer(node, parameters, [sequence, values])
    side = "right" if right else "left"
    np.testing.assert_array_equal(
        got, [np.searchsorted(a, v, side) for a, v in zip(sequence, values, strict=True)]
    )
    assert "ref_numpy" not in steps
    parameters = parameters_of([values, sequence[0]])
    node = ovjit.opset15.bucketize(*parameters, "i32", not right)
    got, steps = infer(node, parameters, [values, sequence[0]])
    np.testing.assert_array_equal(got, np.searchsorted(sequence[0], values, side))
    assert got.dtype == np.int32 and "ref_numpy" not in steps


@pytest.mark.parametrize("case", some(range(24), 12))
def test_random_products(case):
    rng = np.random.default_rng((SEED, case))
    dtype = [np.float64, np.int32, np.int64, np.uint8, np.int16, np.uint64][case % 6]
    m, k, n = (int(rng.choice([1, 3, 4, 5, 16, 17, 31, 33, 65])) for _ in range(3))
    batch = tuple(int(d) for d in rng.integers(1, 4, int(rng.integers(0, 4))))
    turned = [bool(rng.random() < 0.5) for _ in range(2)]
    lead = [tuple(1 if rng.random() < 0.3 else d for d in batch) for _ in range(2)]
    shapes = [(*lead[0], *((k, m) if turned[0] else (m, k))), (*lead[1], *((n, k) if turned[1] else (k, n)))]
    if rng.random() < 0.2:
        shapes[1], turned[1] = (k,), False
    if dtype == np.float64:
        arrays = [rng.standard_normal(s) for s in shapes]
    else:
        limits = np.iinfo(dtype)
        arrays = [rng.integers(limits.min, limits.max, s, dtype) for s in shapes]
    where = f"seed {(SEED, case)}: {shapes} {turned} {np.dtype(dtype)}"
    parameters = parameters_of(arrays, dynamic=case % 4 == 0)
    got, steps = infer(ovjit.opset15.matmul(*parameters, *turned), parameters, arrays)
    a = arrays[0].swapaxes(-1, -2) if turned[0] else arrays[0]
    b = arrays[1].swapaxes(-1, -2) if turned[1] else arrays[1]
    want = np.matmul(a, b)
    assert got.shape == want.shape and got.dtype == dtype, where
    if dtype == np.float64:
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12, err_msg=where)
    else:
        np.testing.assert_array_equal(got, want, err_msg=where)
    assert "ref_numpy" not in steps, where
