"""Samples of `ovjit_ops/indexing`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit_ops.elementwise.arithmetic import random_array
from ovjit_ops.indexing.scatter import ND_REDUCTIONS, REDUCTIONS
from ovjit_ops.movement.shape import ints
from tests.support.samples import samples

_BAGS = ("sum", "mean")


def _offset_samples(reductions: tuple[str, ...], rng: np.random.Generator, dtype: str = "f32"):
    for reduction in reductions:
        attrs = {"reduction": reduction} if len(reductions) > 1 else {}
        for shape, cuts, n in (
            ((5, 1), [0], 3),
            ((7, 16), [0, 2, 2, 4], 9),
            ((10, 17), [0, 3, 3], 3),
            ((4, 3, 33), [0, 1], 2),
            ((100, 8), [0, 5, 9, 9, 30], 50),
        ):
            table = random_array(rng, shape, dtype, (-3, 3))
            index = rng.integers(0, shape[0], n)
            inputs = [table, index, np.array(cuts)]
            yield inputs, attrs
            yield [*inputs, np.array(1)], attrs
            if reduction == "sum":
                weights = random_array(rng, (n,), dtype, (-2, 2))
                yield [*inputs, np.array(-1 if shape[0] == 4 else 0), weights], attrs


samples("EmbeddingBagOffsetsSum", 3)(partial(_offset_samples, ("sum",)))
samples("EmbeddingBagOffsets", 15)(partial(_offset_samples, _BAGS))


def _range_samples(rng: np.random.Generator, dtype: str = "f32"):
    for shape, n, bags in (((5, 1), 3, 2), ((7, 16), 9, 5), ((10, 17), 3, 4), ((4, 3, 33), 2, 3)):
        table = random_array(rng, shape, dtype, (-3, 3))
        index = rng.integers(-shape[0] - 1, shape[0] + 2, n)
        inputs = [table, index, *rng.integers(-n - 2, n + 3, (2, bags))]
        for reduction in (*_BAGS, "max"):
            yield inputs, {"reduction": reduction}
        yield [*inputs, random_array(rng, (n,), dtype, (-2, 2))], {"reduction": "sum"}


samples("EmbeddingBagRanges")(_range_samples)


def _packed_samples(reductions: tuple[str, ...], rng: np.random.Generator, dtype: str = "f32"):
    for reduction in reductions:
        attrs = {"reduction": reduction} if len(reductions) > 1 else {}
        for shape, counts in (
            ((5, 1), (1, 1)),
            ((7, 16), (3, 2)),
            ((10, 17), (4, 5)),
            ((4, 3, 33), (2, 3)),
        ):
            table, index = random_array(rng, shape, dtype, (-3, 3)), rng.integers(0, shape[0], counts)
            yield [table, index], attrs
            if reduction == "sum":
                yield [table, index, random_array(rng, counts, dtype, (-2, 2))], attrs


samples("EmbeddingBagPackedSum", 3)(partial(_packed_samples, ("sum",)))
samples("EmbeddingBagPacked", 15)(partial(_packed_samples, _BAGS))


@samples("EmbeddingSegmentsSum", 3)
def embedding_segments_sum(rng, dtype="f32"):
    for shape, ids, count in (
        ((5, 1), [0], 1),
        ((7, 16), [0, 0, 2, 2], 4),
        ((10, 17), [0, 1, 1], 2),
        ((4, 3, 33), [1, 1], 3),
    ):
        table, index = random_array(rng, shape, dtype, (-3, 3)), rng.integers(0, shape[0], len(ids))
        inputs = [table, index, np.array(ids), np.array(count)]
        yield inputs, {}
        yield [*inputs, np.array(1)], {}
        yield [*inputs, np.array(2), random_array(rng, (len(ids),), dtype, (-2, 2))], {}


@samples("SegmentMax", 16)
def segment_max(rng, dtype="f32"):
    for shape, ids, count in (
        ((1,), [0], None),
        ((4, 17), [0, 0, 2, 3], None),
        ((5, 2, 3), [0, 1, 1, 4, 4], 6),
        ((4, 8), [0, 1, 2, 3], 2),
    ):
        for mode in ("zero", "lowest"):
            more = [] if count is None else [np.array(count)]
            yield [random_array(rng, shape, dtype), np.array(ids), *more], {"fill_mode": mode}


def _gather_samples(version: int, rng: np.random.Generator, dtype: str = "f32"):
    cases: list[tuple] = [
        ((10,), (4,), 0, 0),
        ((5, 17), (3,), 1, 0),
        ((5, 17), (2, 3), 0, 0),
        ((3, 4, 5), (), 1, 0),
        ((2, 16), (7,), -1, 0),
        ((3, 4), (0,), 0, 0),
    ]
    if version > 1:
        cases += [((2, 5, 3), (2, 4), 1, 1), ((2, 3, 5, 4), (2, 3, 2), 2, 2), ((2, 5), (2, 3), 1, -1)]
    for shape, counts, axis, batch in cases:
        index = rng.integers(-shape[axis] if version == 8 else 0, shape[axis], counts)
        attrs = {} if version == 1 else {"batch_dims": batch}
        yield [random_array(rng, shape, dtype), np.asarray(index, dtype=np.int64), np.array(axis)], attrs
    if version == 8:
        yield [random_array(rng, (5, 3), dtype), ints(-6, 5, 1, 1 << 40), np.array(0)], {"batch_dims": 0}


samples("Gather")(partial(_gather_samples, 1))
samples("Gather", 7)(partial(_gather_samples, 7))


samples("Gather", 8)(partial(_gather_samples, 8))


@samples("GatherElements", 6)
def gather_elements(rng, dtype="f32"):
    for shape, counts, axis in (
        ((7,), (4,), 0),
        ((3, 17), (3, 5), 1),
        ((5, 16), (2, 16), 0),
        ((2, 3, 4), (2, 3, 9), -1),
    ):
        index = rng.integers(0, shape[axis], counts)
        yield [random_array(rng, shape, dtype), index.astype(np.int64)], {"axis": axis}


@samples("GatherND", 5)
def gather_nd(rng, dtype="f32"):
    for shape, counts, batch in (
        ((5,), (3, 1), 0),
        ((4, 17), (3, 1), 0),
        ((4, 5, 6), (2, 3, 2), 0),
        ((2, 4, 5), (2, 3, 1), 1),
        ((2, 3, 4, 5), (2, 3, 2), 2),
        ((3, 4), (2,), 0),
    ):
        index = np.stack([rng.integers(0, shape[batch + k], counts[:-1]) for k in range(counts[-1])], -1)
        yield [random_array(rng, shape, dtype), index.astype(np.int64)], {"batch_dims": batch}


@samples("NonZero", 3)
def non_zero(rng, dtype="f32"):
    for shape in ((7,), (3, 17), (2, 3, 4), (0, 3), (2, 0), (5000,), (2, 1, 3, 2)):
        data = random_array(rng, shape, dtype)
        yield [np.where(rng.random(shape) < 0.5, data, 0).astype(data.dtype)], {"output_type": "i64"}
    yield [np.zeros((2, 3), data.dtype)], {"output_type": "i32"}
    yield [np.array(1, data.dtype)], {"output_type": "i64"}


@samples("PaddedNonZero")
def padded_non_zero(rng, dtype="f32"):
    """No element is zero: the buffer is undefined behind the positions."""
    for shape in ((7,), (2, 3, 5), (0, 3)):
        yield [np.ones(shape, random_array(rng, (1,), dtype).dtype)], {"output_type": "i64"}


def _one_hot_samples(variants, rng: np.random.Generator, dtype: str = "i64"):
    on, off = np.array(1.5, dtype=np.float32), np.array(-0.5, dtype=np.float32)
    for variant in variants:
        for shape, depth, axis in (((5,), 3, -1), ((2, 17), 16, 0), ((), 4, 0), ((2, 3), 5, 1)):
            low = -depth - 1 if len(variants) > 1 else -1
            index = np.asarray(rng.integers(low, depth + 1, shape), dtype=numpy_dtype(dtype))
            yield [index, np.array(depth, dtype=np.int64), on, off], {"axis": axis, **variant}


samples("OneHot")(partial(_one_hot_samples, [{}]))
samples("OneHot", 16)(
    partial(_one_hot_samples, [{"negative_indices_mode": m} for m in ("ignore_negative", "normalize")])
)


@samples("ScatterUpdate", 3)
def scatter_update(rng, dtype="f32"):
    for shape, counts, axis in (((7,), (3,), 0), ((3, 17), (4,), 1), ((5, 3), (2, 2), 0)):
        index = rng.permutation(shape[axis])[: math.prod(counts)].reshape(counts)
        updates = (*shape[:axis], *counts, *shape[axis + 1 :])
        yield (
            [
                random_array(rng, shape, dtype),
                index.astype(np.int64),
                random_array(rng, updates, dtype),
                np.array(axis),
            ],
            {},
        )


def _scatter_nd_samples(reductions: list[str], rng: np.random.Generator, dtype: str = "f32"):
    for reduction in reductions:
        attrs = {"reduction": reduction} if len(reductions) > 1 else {}
        for shape, counts in (((9,), (3, 1)), ((8, 5), (3, 1)), ((9, 6), (4, 2))):
            first = rng.permutation(shape[0])[: counts[0]]
            if reduction != "none":
                first[0] = first[-1]  # a repeated position
            index = np.stack(
                [first, *(rng.integers(0, shape[k], counts[0]) for k in range(1, counts[1]))], -1
            )
            updates = random_array(rng, (counts[0], *shape[counts[1] :]), dtype)
            yield [random_array(rng, shape, dtype), index.astype(np.int64), updates], attrs


samples("ScatterNDUpdate", 4)(partial(_scatter_nd_samples, ["none"]))
samples("ScatterNDUpdate", 15)(partial(_scatter_nd_samples, list(ND_REDUCTIONS)))


def _scatter_elements_samples(attrs: list[dict[str, Any]], rng: np.random.Generator, dtype: str = "f32"):
    for variant in attrs:
        for shape, counts, axis in (((9,), (4,), 0), ((3, 17), (3, 5), 1), ((6, 4), (2, 4), 0)):
            index = np.argsort(rng.random((*counts[:axis], shape[axis], *counts[axis + 1 :])), axis)
            index = np.take(index, np.arange(counts[axis]), axis)
            yield (
                [
                    random_array(rng, shape, dtype),
                    index.astype(np.int64),
                    random_array(rng, counts, dtype),
                    np.array(axis),
                ],
                variant,
            )


samples("ScatterElementsUpdate", 3)(partial(_scatter_elements_samples, [{}]))
samples("ScatterElementsUpdate", 12)(
    partial(
        _scatter_elements_samples,
        [{"reduction": r, "use_init_val": u} for r in REDUCTIONS for u in (True, False)],
    )
)


@samples("Bucketize", 3)
def bucketize(rng, dtype="f32"):
    for shape, count in (((7,), 3), ((3, 17), 16), ((2, 3, 5), 1), ((33,), 0), ((1000,), 100)):
        bounds_of = np.sort(random_array(rng, (count,), dtype))
        for attrs in (
            {"output_type": "i64", "with_right_bound": True},
            {"output_type": "i32", "with_right_bound": False},
        ):
            data = random_array(rng, shape, dtype)
            if count > 1:
                data.reshape(-1)[:2] = bounds_of[:2]
            yield [data, bounds_of], attrs


@samples("SearchSorted", 15)
def search_sorted(rng, dtype="f32"):
    for shape, count in (
        ((7,), (3,)),
        ((3, 17), (3, 5)),
        ((2, 3, 16), (2, 3, 33)),
        ((9,), (2, 4)),
        ((0,), (3,)),
    ):
        sequence = np.sort(random_array(rng, shape, dtype), -1)
        for right in (False, True):
            values = random_array(rng, count, dtype)
            if sequence.size and sequence.ndim == 1:
                values.reshape(-1)[0] = sequence[0]
            yield [sequence, values], {"right_mode": right}


@samples("Unique", 10)
def unique(rng, dtype="f32"):
    for shape, axis in (
        ((7,), None),
        ((3, 17), None),
        ((33,), 0),
        ((5, 2), 0),
        ((2, 9), 1),
        ((1,), None),
    ):
        for order in (True, False):
            data = random_array(rng, shape, dtype, (0, 3))
            data = np.floor(data).astype(data.dtype) if data.dtype.kind == "f" else data
            yield [data, *([] if axis is None else [np.array(axis)])], {"sorted": order}


@samples("PaddedUnique")
def padded_unique(rng, dtype="f32"):
    """All rows are distinct: buffers are undefined behind the valid prefix."""
    for shape in ((1, 1), (7, 1), (51, 1), (3, 17), (17, 2)):
        data = rng.permutation(math.prod(shape)).reshape(shape).astype(numpy_dtype(dtype))
        for order in (True, False):
            yield [data], {"sorted": order, "index_element_type": "i64", "count_element_type": "i32"}


@samples("GatherTree")
def gather_tree(rng, dtype="f32"):
    kind = numpy_dtype(dtype)
    for t, b, w in ((1, 1, 1), (5, 2, 3), (17, 3, 8), (9, 1, 16)):
        ids, parents = rng.integers(0, 11, (t, b, w)), rng.integers(0, w, (t, b, w))
        lengths = rng.integers(1, t + 1, b)
        yield [ids.astype(kind), parents.astype(kind), lengths.astype(kind), np.array(10, kind)], {}


@samples("SparseFillEmptyRows", 16)
def sparse_fill_empty_rows(rng, dtype="f32"):
    for rows, columns, at in (
        (5, 6, [[0, 1], [0, 3], [2, 0]]),
        (3, 2, [[0, 0], [1, 1], [2, 0]]),
        (4, 1, [[3, 0]]),
    ):
        values = random_array(rng, (len(at),), dtype)
        yield [values, np.array([rows, columns]), np.array(at), np.array(7).astype(values.dtype)], {}
