"""Batches in parts: what records say of images, against their references; and which graphs become loops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.compiler.options import MOST_THREADS, Context, Options
from ovjit.engine import host_target
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import Op, all_ops
from ovjit.rewrite import batches
from tests.support.op_samples import samples
from tests.support.samples import has_samples

BATCHES = Context(host_target(), Options(batches=True))


def told() -> list[Op]:
    """Operations whose records, or bodies, say something of images."""
    return [o for o in all_ops() if has_samples(o) and (o.images or o.scalar) and o.may_fold]


def data(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def resized(version: int) -> list[Any]:
    sizes, scales, axes = np.array([8, 3]), np.float32([2, 0.6]), np.array([2, 3])
    if version == 1:
        return [([data(2, 3, 4, 5), sizes], {"axes": (2, 3), "mode": "linear"})]
    attrs = {"mode": "linear", "shape_calculation_mode": "sizes"}
    both = [sizes, scales] if version == 4 else [sizes]
    return [([data(2, 3, 4, 5), *both, axes], attrs)]


#: More samples, of operations that have none with several images: of each version.
WITH_IMAGES: dict[str, Any] = {
    "Interpolate": resized,
    "Pad": lambda _: [([data(3, 5), np.array([0, 2]), np.array([0, 1])], {"pad_mode": "reflect"})],
    "Squeeze": lambda _: [([data(3, 1, 5), np.array([1])], {})],
    "StridedSlice": lambda _: [
        (
            [data(3, 5), np.array([0, 1]), np.array([0, 4]), np.array([1, 2])],
            {"begin_mask": (1, 0), "end_mask": (1, 0)},
        )
    ],
    "Slice": lambda _: [([data(3, 5), np.array([4]), np.array([0]), np.array([-2]), np.array([1])], {})],
}


def images(record: Op, inputs: list[np.ndarray], attrs: dict, batched: tuple[int, ...]) -> int:
    """What the record says for these inputs, of which some are batches."""
    b = Builder()
    values = []
    for i, array in enumerate(inputs):
        kind = dtypes.from_numpy(array.dtype)
        if i in batched:
            values.append(b.add("Parameter", (), {"shape": array.shape, "element_type": kind}).output)
        else:
            values.append(b.constant(array, kind))
    node = b.add(record, values, attrs)
    return batches._images(node, {values[i] for i in batched})


def possible(inputs: list[np.ndarray]) -> Iterator[tuple[int, ...]]:
    """The sets of inputs that may be batches of two or more."""
    counts = {i: a.shape[0] for i, a in enumerate(inputs) if a.ndim and a.shape[0] > 1}
    for size in range(1, min(len(counts), 3) + 1):
        for some in itertools.combinations(counts, size):
            if len({counts[i] for i in some}) == 1:
                yield some


@pytest.mark.parametrize("most", [4, pytest.param(0, marks=pytest.mark.long)])
@pytest.mark.parametrize("record", told(), ids=str)
def test_images_are_independent_where_a_record_says_so(record: Op, most: int) -> None:
    """The reference of each image alone is that of the whole, exactly but for the order of sums. Of all
    samples, or, where the record has no rule of its own, of `most` of them (0: all)."""
    most = 0 if record.images is not None else most
    seen = 0
    more = enumerate(WITH_IMAGES.get(record.name, lambda version: [])(record.opset), 1000)
    mine = ((number, inputs, attrs) for number, (inputs, attrs) in more)
    for number, inputs, attrs in itertools.chain(samples(record, record.types[0], most), mine):
        arrays = [np.asarray(a) for a in inputs]
        attrs = record.check_attributes(attrs)
        for some in possible(arrays):
            good = images(record, arrays, attrs, some)
            whole = record.evaluate(arrays, attrs) if good else ()
            count = arrays[some[0]].shape[0]
            if not good or any(y.shape[:1] != (count,) for y in whole[:good]):
                continue  # the pass asks for a batch as the output, too
            seen += 1
            for i in range(count):
                one = [a[i : i + 1] if k in some else a for k, a in enumerate(arrays)]
                if record.dims_input >= 0 and one[record.dims_input][0] == count:
                    one[record.dims_input] = np.array([1, *one[record.dims_input][1:]])
                made = record.evaluate(one, attrs)
                for k in range(good):
                    what = f"sample {number}, batches {some}, image {i}, output {k}"
                    same = np.testing.assert_allclose
                    same(made[k], whole[k][i : i + 1], rtol=1e-5, atol=1e-5, equal_nan=True, err_msg=what)
    assert seen or record.images is None, "no sample tries what the record says"


def convolutions(count: int = 6, width: int = 32, last: Any = None) -> ov.Model:
    """A small network whose tensors outweigh its weights, with a Reshape that names the batch."""
    rng = np.random.default_rng(7)
    x = ops.parameter([count, 3, width, width], np.float32, name="x")
    y: Any = x
    for channels in (8, 8):
        given = int(y.get_output_shape(0)[1])
        filters = ops.constant(rng.standard_normal((channels, given, 3, 3)).astype(np.float32))
        y = ops.relu(ops.convolution(y, filters, [1, 1], [1, 1], [1, 1], [1, 1]))
    pooled = ops.max_pool(y, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2])
    flat = ops.reshape(pooled.output(0), ops.constant(np.array([count, -1])), special_zero=False)
    weights = ops.constant(rng.standard_normal((8 * width * width // 4, 5)).astype(np.float32) / width)
    out = ops.softmax(ops.matmul(flat, weights, False, False), axis=1)
    return ov.Model([out if last is None else last(out), ops.reduce_mean(y, [2, 3])], [x], "network")


def loops(graph: Graph) -> int:
    return sum(node.op.name == "TensorIterator" for node in graph.nodes)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts as for a cache of some 200 KB."""
    monkeypatch.setattr(batches, "MOST_BYTES", 200_000)
    monkeypatch.setattr(batches, "LEAST_BYTES", 50_000)
    monkeypatch.setattr(batches, "OUTWEIGH", 1)


def test_a_batch_is_computed_in_parts(small: None) -> None:
    model = convolutions()
    graph = model._graph()
    looped = batches.split_batch(graph, BATCHES)
    assert loops(looped) == 1
    assert [n.op.name for n in looped.nodes] == ["Parameter", "TensorIterator"]
    body = looped.nodes[-1].attrs["body"]
    assert body.inputs[0].shape[0] in (1, 2, 3)
    assert [v.type for v in looped.outputs] == [v.type for v in graph.outputs]
    assert loops(batches.split_batch(graph, Context(host_target(), Options()))) == 0


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_results_are_those_of_the_whole(small: None, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    rng = np.random.default_rng(3)
    data = rng.standard_normal((6, 3, 32, 32)).astype(np.float32)
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 2}
    parts = ov.compile_model(convolutions(), "CPU", config)([data])
    monkeypatch.setenv("OVJIT_SKIP", "batches")
    whole = ov.compile_model(convolutions(), "CPU", config)([data])
    close = 1e-5 if precision == "f32" else 2e-2
    for i in range(2):
        np.testing.assert_allclose(parts[i], whole[i], rtol=close, atol=close)


def test_a_blob_has_the_parts(small: None) -> None:
    data = np.random.default_rng(4).standard_normal((6, 3, 32, 32)).astype(np.float32)
    compiled = ov.compile_model(convolutions(), "CPU", {"INFERENCE_NUM_THREADS": 1})
    again = ov.Core().import_model(compiled.export_model(), "CPU")
    np.testing.assert_array_equal(compiled([data])[0], again([data])[0])
    queue = ov.AsyncInferQueue(compiled, 2)
    found: list[np.ndarray] = []
    queue.set_callback(lambda request, _: found.append(request.results[0].copy()))
    for _ in range(4):
        queue.start_async([data])
    queue.wait_all()
    for one in found:
        np.testing.assert_array_equal(one, compiled([data])[0])


@pytest.mark.parametrize(
    "last",
    [
        lambda y: ops.softmax(y, axis=0),
        lambda y: ops.reduce_sum(y, [0], keep_dims=True),
        lambda y: ops.add(y, np.ones((6, 5), np.float32)),
        lambda y: ops.gather(y, np.array([0, 1, 2, 3, 4, 5]), 0),
        lambda y: ops.matmul(y, y, False, True),
        lambda y: ops.reshape(y, np.array([5, 6]), special_zero=False),
        lambda y: ops.multiply(y, ops.random_uniform([1], np.float32(0), np.float32(1), "f32", 1, 1)),
        lambda y: ops.reverse_sequence(y, np.full(6, 2), 0, 1),
    ],
    ids="softmax sum constant gather product reshape random reverse".split(),
)  # fmt: skip
def test_what_mixes_images_stays(small: None, last: Any) -> None:
    assert loops(batches.split_batch(convolutions(last=last)._graph(), BATCHES)) == 0


def test_small_and_open_batches_stay(small: None) -> None:
    assert loops(batches.split_batch(convolutions(width=8)._graph(), BATCHES)) == 0
    assert loops(batches.split_batch(convolutions(count=1)._graph(), BATCHES)) == 0
    x = ops.parameter([-1, 3, 64, 64], np.float32)
    assert loops(batches.split_batch(ov.Model([ops.relu(x)], [x])._graph(), BATCHES)) == 0


def test_rows_of_one_operation_stay() -> None:
    """Nothing would be handed from one to the next in a cache."""
    x = ops.parameter([65_545, 64], np.float32)
    graph = ov.Model([ops.softmax(x, axis=1)], [x])._graph()
    assert loops(batches.split_batch(graph, BATCHES)) == 0


def test_a_part_is_worth_a_turn_of_the_loop() -> None:
    x = ops.parameter([1 << 16, 64], np.float32)
    y: Any = x
    for _ in range(16):
        y = ops.softmax(y, axis=1)
    looped = batches.split_batch(ov.Model([y], [x])._graph(), BATCHES)
    part = looped.nodes[-1].attrs["body"].inputs[0].shape[0]
    assert batches.LEAST_BYTES <= part * 64 * 4 * 2 <= batches.MOST_BYTES


def test_when_batches_are_cut() -> None:
    """Not where a stream has many threads, and not where layers are profiled."""
    target = host_target()
    assert Options.of({"threads": 1}, target).batches
    assert not Options.of({"threads": MOST_THREADS + 1}, target).batches
    assert not Options.of({"threads": 1, "PERF_COUNT": True}, target).batches
