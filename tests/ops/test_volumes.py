"""Convolution and pooling over three spatial dimensions: natively, beside the real OpenVINO."""

from __future__ import annotations

import numpy as np
import openvino
import openvino.opset14 as real
import ovjit.opset14 as ours
import pytest

import ovjit
from ovjit.engine import compile_graph
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from ovjit.graph.op import TensorType, find_op
from ovjit.graph.shapes import ANY
from ovjit_ops.convolution.convolution import convolve
from tests.support.oracle import assert_same, our_answers
from tests.support.sweeps import in_turn, some

SEED = 303


def attributes(rng, kernel):
    return (
        [int(v) for v in rng.integers(1, 3, 3)],
        [int(rng.integers(0, (k + 1) // 2 + 1)) for k in kernel],
        [int(rng.integers(0, (k + 1) // 2 + 1)) for k in kernel],
        [int(v) for v in rng.integers(1, 3, 3)],
    )


@pytest.mark.parametrize("groups", in_turn([1, 2, 16], 2))
def test_convolution_of_random_windows(groups):
    """With a bias, a residual that is added and an activation."""
    rng = np.random.default_rng(SEED)
    for round in range(5):
        n, each, outs = int(rng.integers(1, 3)), int(rng.integers(1, 20)), int(rng.integers(1, 20))
        if groups == 16:
            each = outs = 1
        kernel = [int(v) for v in rng.integers(1, 4, 3)]
        strides, begin, end, dilations = attributes(rng, kernel)
        extents = [int(v) for v in rng.integers(7, 11, 3)]
        x = rng.standard_normal((n, groups * each, *extents)).astype(np.float32)
        shape = (groups, outs, each, *kernel) if groups > 1 else (outs, each, *kernel)
        filters = rng.standard_normal(shape).astype(np.float32)
        parameter = real.parameter(list(x.shape), np.float32)
        build = real.group_convolution if groups > 1 else real.convolution
        node = build(parameter, filters, strides, begin, end, dilations)
        other = rng.standard_normal(tuple(node.output(0).get_shape())).astype(np.float32)
        residual = real.parameter(list(other.shape), np.float32)
        bias = rng.standard_normal((1, groups * outs, 1, 1, 1)).astype(np.float32)
        node = real.relu(real.add(real.add(node, bias), residual))
        where = f"seed {SEED} round {round}: {x.shape} {shape} {strides} {begin} {end} {dilations}"
        model = openvino.Model([node], [parameter, residual])
        kinds = assert_same(model, [x, other], where, rtol=1e-4, atol=1e-3)
        assert "ref_numpy" not in kinds, where
        assert groups != 16 or any(kind.startswith("depthwise") for kind in kinds), (kinds, where)


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize("kernel", some([(3, 3, 3), (2, 1, 3), (5, 4, 5)], 2))
def test_depthwise_volumes_of_any_extents(channels, kernel, monkeypatch):
    """Windows that are in the code and such that are looped over, of several volumes that are open."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng([SEED, channels, *kernel])
    filters = rng.standard_normal((channels, 1, 1, *kernel)).astype(np.float32)
    data = ours.parameter([-1, channels, -1, -1, -1], np.float32)
    pads = [k // 2 for k in kernel]
    node = ours.group_convolution(ours.relu(data), filters, [2, 1, 1], pads, pads, [1, 2, 1])
    compiled = ovjit.Core().compile_model(ovjit.Model([node.output(0)], [data], "volumes"), "CPU")
    for shape in ((1, 5, 9, 8), (3, 4, 7, 17)):
        x = rng.standard_normal((shape[0], channels, *shape[1:])).astype(np.float32)
        attrs = {"strides": (2, 1, 1), "dilations": (1, 2, 1), "pads_begin": pads, "pads_end": pads}
        attrs["auto_pad"] = "explicit"
        want = convolve(np.maximum(x, 0).astype(np.float64), filters.astype(np.float64), attrs)
        np.testing.assert_allclose(compiled(x)[0], want, rtol=0, atol=1e-4, err_msg=f"{shape}, seed {SEED}")


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooling_of_random_windows(kind):
    """Behind a concatenation, before a convolution whose padding is a border of the output."""
    rng = np.random.default_rng(SEED)
    for round in range(8):
        n, c = int(rng.integers(1, 3)), int(rng.choice([1, 3, 17]))
        kernel = [int(v) for v in rng.integers(1, 4, 3)]
        strides, begin, end, dilations = attributes(rng, kernel)
        begin, end = ([min(p, k - 1, k // 2) for p, k in zip(v, kernel, strict=True)] for v in (begin, end))
        x = rng.standard_normal((n, c, *(int(v) for v in rng.integers(7, 11, 3)))).astype(np.float32)
        parameter = real.parameter(list(x.shape), np.float32)
        both = real.concat([parameter, real.relu(parameter)], 1)
        if kind == "max":
            node = real.max_pool(both, strides, dilations, begin, end, kernel).output(0)
        else:
            node = real.avg_pool(both, strides, begin, end, kernel, bool(round % 2)).output(0)
        filters = rng.standard_normal((4, 2 * c, 3, 3, 3)).astype(np.float32)
        seen = real.convolution(node, filters, [1] * 3, [1] * 3, [1] * 3, [1] * 3)
        where = f"seed {SEED} round {round}: {x.shape} {kernel} {strides} {begin} {end} {dilations}"
        model = openvino.Model([node, seen.output(0)], [parameter])
        kinds = assert_same(model, [x], where, rtol=1e-4, atol=1e-3)
        assert "ref_numpy" not in kinds, where


@pytest.mark.parametrize("dtype", ["f64", "i32", "i64", "u8", "i16"])
def test_convolution_of_other_types_runs_natively(dtype):
    """With what follows, in one to three dimensions, exactly as NumPy; random filters, groups and windows."""
    rng = np.random.default_rng(SEED)
    kind = numpy_dtype(dtype)
    for round in range(6):
        rank, groups = 1 + round % 3, (1, 3)[round % 2]
        n, each, outs = int(rng.integers(1, 3)), int(rng.integers(1, 6)), int(rng.choice([1, 5, 16, 33]))
        shape = (n, groups * each, *(int(v) for v in rng.integers(5, 9, rank)))
        kernel = tuple(int(v) for v in rng.integers(1, 4, rank))
        filters = (groups, outs, each, *kernel) if groups > 1 else (outs, each, *kernel)
        x, w = (rng.integers(0 if dtype == "u8" else -9, 9, s).astype(kind) for s in (shape, filters))
        moves = [rng.integers(*limits, rank).tolist() for limits in ((1, 3), (0, 2), (0, 2), (1, 3))]
        parameter = ours.parameter(list(shape), kind)
        build = ours.group_convolution if groups > 1 else ours.convolution
        made = build(parameter, ours.constant(w), *moves)
        node = ours.add(made, ours.constant(np.array(3, kind)))
        compiled = ovjit.Core().compile_model(ovjit.Model([node], [parameter]), "CPU", {"PERF_COUNT": True})
        request = compiled.create_infer_request()
        got = request.infer([x])[0]
        names = ("strides", "pads_begin", "pads_end", "dilations")
        attrs = {**dict(zip(names, moves, strict=True)), "auto_pad": "explicit"}
        want = convolve(x, w if groups > 1 else w[None], attrs) + np.array(3, kind)
        where = f"seed {SEED} round {round}: {shape} {filters} {moves}"
        np.testing.assert_array_equal(got, want, err_msg=where)
        assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}


@pytest.mark.parametrize("rank", [1, 2])
def test_indices_of_maxima(rank):
    """Natively, for every axis and both types, with equals and NaN, beside the reference and OpenVINO."""
    rng = np.random.default_rng(SEED)
    for round in range(8):
        n, c = int(rng.integers(1, 3)), int(rng.choice([1, 3, 17]))
        kernel = [int(v) for v in rng.integers(1, 4, rank)]
        strides, dilations = ([int(v) for v in rng.integers(1, 3, rank)] for _ in range(2))
        pads = [k // 2 for k in kernel]
        x = rng.integers(0, 5, (n, c, *(int(v) for v in rng.integers(6, 11, rank)))).astype(np.float32)
        kind, axis = ("i32", "i64")[round % 2], round % (rank + 2)
        where = f"seed {SEED} round {round}: {x.shape} {kernel} {strides} {dilations} {kind} {axis}"
        parameter = real.parameter(list(x.shape), np.float32)
        node = real.max_pool(parameter, strides, dilations, pads, pads, kernel, "floor", None, kind, axis)
        model = openvino.Model(node.outputs(), [parameter])
        kinds = assert_same(model, [x], where)
        assert "ref_numpy" not in kinds, where
        x[rng.random(x.shape) < 0.1] = np.nan
        (values, places), _ = our_answers(model, [x])
        attrs = {
            "kernel": kernel, "strides": strides, "dilations": dilations, "pads_begin": pads,
            "pads_end": pads, "index_element_type": kind, "axis": axis,
        }  # fmt: skip
        record = find_op("MaxPool", 8)
        want = record.evaluate([x], record.check_attributes(attrs))
        np.testing.assert_array_equal(values, want[0], err_msg=where)
        np.testing.assert_array_equal(places, want[1], err_msg=where)


def test_volumes_of_bytes_without_a_kernel() -> None:
    """The host has their sums as whole numbers."""
    rng = np.random.default_rng(SEED)
    x, filters = rng.integers(0, 256, (1, 7, 4, 5, 4)), rng.integers(-128, 128, (7, 1, 1, 4, 4, 3))
    b = Builder()
    data = b.add("Parameter", (), {"shape": (ANY, 7, ANY, ANY, ANY), "element_type": "u8"}).output
    ones = (1, 1, 1)
    attrs = {"strides": ones, "dilations": ones, "pads_begin": ones, "pads_end": ones, "auto_pad": "explicit"}
    types = [TensorType("i32", (ANY, 7, ANY, ANY, ANY))]
    inputs = [data, b.constant(filters.astype(np.int8))]
    made = b.add("GroupConvolution", inputs, attrs, types=types, lowered=True).output
    job = compile_graph(b.finish([made]), {"threads": 1}).new_job()
    job.set_input(0, x.astype(np.uint8))
    job.run()
    want = convolve(x.astype(np.float64), filters.astype(np.float64), attrs)
    np.testing.assert_array_equal(job.outputs[0], want, err_msg=f"seed {SEED}")
