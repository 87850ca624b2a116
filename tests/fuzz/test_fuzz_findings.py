"""What the fuzzers have found, each as small as it gets; single operations' values are in
`test_hostile_values.py`."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit import opset13 as op
from ovjit.engine import compile_graph
from ovjit.errors import ModelError, OvjitError, UnsupportedError
from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port
from ovjit.graph.graph import Builder, rebuild
from ovjit.graph.interp import evaluate
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from ovjit.rewrite.integer_weights import integer_range_steps
from ovjit_ops.convolution.cpu_transposed import phases, tap_sets
from tests.support.run import run as run_graph
from tests.support.run import run_job

X = np.array([[-1, 2, -3]], np.float32)


def _parameter(b: Builder, shape: Any, kind: str = "f32") -> Any:
    return b.add("Parameter", (), {"shape": shape, "element_type": kind}).output


def test_an_output_of_unknown_rank_is_exported() -> None:
    x, axes = op.parameter([1, -1, 3], np.float32), op.parameter([-1], np.int64)
    model = ovjit.Model([op.squeeze(x, axes)], [x, axes], "squeezed")
    compiled = ovjit.compile_model(model, "CPU")
    again = ovjit.Core().import_model(compiled.export_model().getvalue(), "CPU")
    assert again.output(0).partial_shape.rank.is_dynamic
    for feed in ([X[None], [0]], [X[None], [0, 1]]):
        arrays = [feed[0], np.array(feed[1])]
        np.testing.assert_array_equal(again(arrays)[0], compiled(arrays)[0])


@pytest.mark.parametrize("number", ["9223372036854775808", 1 << 63, -(1 << 63) - 1, "-99999999999999999999"])
def test_attributes_have_64_bits(number: Any) -> None:
    with pytest.raises(ModelError, match="axis"):
        find_op("Softmax").check_attributes({"axis": number})
    seeds = find_op("RandomUniform").check_attributes({"output_type": "f32", "global_seed": (1 << 64) - 1})
    assert seeds["global_seed"] == (1 << 64) - 1  # without a sign


@pytest.mark.parametrize("shape", [(True,), (-1,), ("2",), (1 << 63,), "12", (2.5,)])
def test_dimensions_are_whole_numbers(shape: Any) -> None:
    with pytest.raises(ModelError, match="shape"):
        find_op("Parameter").check_attributes({"shape": shape, "element_type": "f32"})
    with pytest.raises(ModelError, match="variable_shape"):
        find_op("ReadValue").check_attributes({"variable_id": "v", "variable_shape": shape})


def test_element_types_without_arrays_are_refused_at_once() -> None:
    for kind in ("u1", "u3", "u6"):
        x = op.parameter([2, 8], getattr(ovjit.Type, kind))
        turned = op.transpose(x, op.constant(np.array([1, 0])))
        with pytest.raises(UnsupportedError, match=kind):
            ovjit.compile_model(ovjit.Model([turned], [x]), "CPU")


def test_who_takes_a_result_takes_its_tensor() -> None:
    x = op.parameter([1, 3], np.float32, name="x")
    text, weights = ovjit._model_bytes(ovjit.Model([op.tanh(op.relu(x, name="relu"), name="tanh")], [x]))
    edge = '<edge from-layer="1"'
    assert text.decode().count(edge) == 1  # from Relu to Tanh
    lines = text.decode().replace("\t", "").split("\n")
    number = next(line for line in lines if 'type="Result"' in line).split('"')[1]
    port = '<output><port id="1" precision="FP32"><dim>1</dim><dim>3</dim></port></output>'
    changed = text.decode().replace("</input>\n\t\t</layer>\n\t</layers>", f"</input>{port}</layer></layers>")
    assert changed != text.decode(), text.decode()
    extra = (
        '<layer id="9" name="y" type="Result" version="opset1"><input><port id="0" precision="FP32">'
        "<dim>1</dim><dim>3</dim></port></input></layer></layers>"
    )
    edges = f'<edge from-layer="{number}" from-port="1" to-layer="9" to-port="0" /></edges>'
    changed = changed.replace("</layers>", extra).replace("</edges>", edges)
    compiled = ovjit.compile_model(ovjit.Core().read_model(changed.encode(), weights), "CPU")
    first, second = compiled([X]).values()
    np.testing.assert_array_equal(first, second)


def _loop(condition: Any, shape: Any = (1, 5)) -> Any:
    """A graph with a Loop whose body goes on while `condition(builder, x)` holds."""
    inner = Builder()
    x = _parameter(inner, shape)
    twice = inner.add("Add", [x, x]).output
    body = inner.finish([condition(inner, twice), twice])
    b = Builder()
    given = [b.constant(np.array(3)), b.constant(np.array(True)), _parameter(b, shape)]
    attrs = {"body": body, "input_ports": [Port(MERGED, 2, 0, 1)], "output_ports": [Port(LAST, 0, 1)],
             "condition_result": 0}  # fmt: skip
    return b.finish([b.add("Loop", given, attrs).output])


@pytest.mark.parametrize("shape", [(1, 5), (ANY, ANY)])
def test_a_loop_s_condition_is_one_boolean(shape: Any) -> None:
    data = np.ones((1, 5), np.float32)
    for condition in (
        lambda b, x: b.add("Less", [x, b.constant(np.float32(3))]).output,
        lambda b, x: b.add("ReduceSum", [x, b.constant(np.array([0, 1]))]).output,
    ):
        with pytest.raises(OvjitError, match="condition"):
            evaluate(_loop(condition, shape), [data])
        with pytest.raises(OvjitError, match="condition"):
            job = compile_graph(_loop(condition, shape), {}).new_job()
            run_job(job, [data])


def test_what_a_loop_without_trips_makes_has_the_shape_that_it_would_have() -> None:
    inner = Builder()
    x = _parameter(inner, (ANY, 2))
    longer = inner.add("Concat", [x, x], {"axis": 0}).output
    body = inner.finish([inner.constant(np.array(True)), longer])
    b = Builder()
    given = [_parameter(b, (), "i64"), b.constant(np.array(True)), _parameter(b, (ANY, 2))]
    attrs = {"body": body, "input_ports": [Port(INVARIANT, 2, 0)], "output_ports": [Port(LAST, 0, 1)],
             "condition_result": 0}  # fmt: skip
    graph = b.finish([b.add("Loop", given, attrs).output])
    job = compile_graph(graph, {}).new_job()
    data = np.ones((3, 2), np.float32)
    for trips in (0, 1, 0):
        feeds = [np.array(trips), data]
        want = evaluate(graph, feeds)[0]
        assert want.shape == (6, 2)
        run_job(job, feeds)
        np.testing.assert_array_equal(job.outputs[0], want)


@pytest.mark.parametrize("port", [(INVARIANT, 2, [0]), (3, 2, 0), (INVARIANT, 2, "0"), (INVARIANT, 2, 0.5)])
def test_ports_are_numbers(port: Any) -> None:
    inner = Builder()
    x = _parameter(inner, (2,))
    body = inner.finish([inner.constant(np.array(True)), inner.add("Relu", [x]).output])
    b = Builder()
    given = [b.constant(np.array(1)), b.constant(np.array(True)), _parameter(b, (2,))]
    attrs = {"body": body, "input_ports": [port], "output_ports": [Port(LAST, 0, 1)], "condition_result": 0}
    with pytest.raises(ModelError, match="port"):
        b.add("Loop", given, attrs)


def test_sizes_beyond_64_bits_are_told() -> None:
    from ovjit.errors import sizes_of_64_bits

    with pytest.raises(ModelError, match="'conv'.*64 bits"), sizes_of_64_bits("conv"):
        np.array([1 << 70], np.int64)


@pytest.mark.parametrize("name", ["Transpose", "ReduceSum", "Squeeze", "Reshape"])
def test_a_list_of_nothing_that_comes_at_run_time(name: str) -> None:
    b = Builder()
    x, which = _parameter(b, (ANY, 1) if name != "Reshape" else (1, 1)), _parameter(b, (ANY,), "i64")
    graph = b.finish([b.add(name, [x, which]).output])
    job = compile_graph(graph, {}).new_job()
    feeds = [np.ones((1, 1), np.float32), np.empty(0, np.int64)]
    for _ in range(2):
        run_job(job, feeds)
        want = evaluate(graph, feeds)[0]
        assert job.outputs[0].shape == want.shape and (job.outputs[0] == want).all()


@pytest.mark.parametrize("shape", [(1, 3), (2, 1)])
def test_a_loop_s_counter_is_one_number(shape: Any) -> None:
    inner = Builder()
    count, x = _parameter(inner, shape, "i64"), _parameter(inner, (1, 3))
    more = inner.add("Add", [x, inner.add("Convert", [count], {"destination_type": "f32"}).output]).output
    body = inner.finish([inner.constant(np.array(True)), more])
    b = Builder()
    given = [b.constant(np.array(2)), b.constant(np.array(True)), _parameter(b, (1, 3))]
    attrs = {"body": body, "input_ports": [Port(MERGED, 2, 1, 1)], "output_ports": [Port(LAST, 0, 1)],
             "condition_result": 0, "iteration_parameter": 0}  # fmt: skip
    with pytest.raises(ModelError, match="parameter of the iteration number"):
        b.add("Loop", given, attrs)


@pytest.mark.parametrize("open_dims", [False, True])
def test_an_iterator_over_nothing(open_dims: bool) -> None:
    inner = Builder()
    body = inner.finish([inner.add("Relu", [_parameter(inner, (ANY, 1, 3))]).output])
    b = Builder()
    data = _parameter(b, (ANY, ANY, 3) if open_dims else (7, 0, 3))
    ports = {"input_ports": [Port(SLICED, 0, 0, axis=1)], "output_ports": [Port(CONCAT, 0, 0, axis=1)]}
    graph = b.finish([b.add("TensorIterator", [data], {"body": body, **ports}).output])
    job = compile_graph(graph, {}).new_job()
    for extent in (0, 2, 0) if open_dims else (0,):
        x = np.ones((7, extent, 3), np.float32)
        run_job(job, [x])
        assert job.outputs[0].shape == evaluate(graph, [x])[0].shape == (7, extent, 3)


@pytest.mark.parametrize("precision", ["bf16", "f32"])
@pytest.mark.parametrize("kind", ["convolution", "convolution_backprop_data"])
def test_a_halo_that_only_some_extents_need(kind: str, precision: str) -> None:
    """Whether the last window reads a padding at the end is not known before the shape is."""
    rng = np.random.default_rng(5)
    x = op.parameter([1, 32, -1, -1], np.float32)
    data = rng.standard_normal((1, 32, 9, 7)).astype(np.float32)
    kernel = op.constant((rng.standard_normal((32, 32, 3, 3)) / 17).astype(np.float32))
    if kind == "convolution":
        y = op.convolution(op.relu(x), kernel, [3, 3], [0, 0], [1, 1], [1, 1])
    else:
        shape = op.constant(np.array([18, 14]))
        y = op.convolution_backprop_data(op.relu(x), kernel, [2, 2], shape, auto_pad="same_lower")
    model = ovjit.Model([y], [x])
    compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    for rows in (9, 8) if kind == "convolution" else (9,):
        given = data[:, :, :rows]
        got, want = compiled([given])[0], evaluate(model._graph(), [given])[0]
        assert got.shape == want.shape and np.abs(got - want).max() < (0.1 if precision == "bf16" else 1e-4)


@pytest.mark.parametrize("back", [False, True])
def test_a_body_is_given_what_lies_backwards(back: bool) -> None:
    inner = Builder()
    body = inner.finish([inner.add("Tanh", [_parameter(inner, (6, 3, 1, 1))]).output])
    b = Builder()
    cuts = [b.constant(np.array([v])) for v in (-3, 2, -2, 0)]
    turned = b.add("Slice", [_parameter(b, (16, 3, 2, 1)), *cuts]).output
    way = {"start": -1, "stride": -1, "end": 0} if back else {}
    ports = {"input_ports": [Port(SLICED, 0, 0, axis=2, **way)], "output_ports": [Port(CONCAT, 0, 0, axis=2)]}
    graph = b.finish([b.add("TensorIterator", [turned], {"body": body, **ports}).output])
    x = np.linspace(-1, 1, 96, dtype=np.float32).reshape(16, 3, 2, 1)
    job = compile_graph(graph, {}).new_job()
    run_job(job, [x])
    np.testing.assert_allclose(job.outputs[0], evaluate(graph, [x])[0], atol=1e-6)


def test_samples_of_a_region_are_bounded() -> None:
    """A number of them that a file names would keep a kernel busy for ever."""
    data, rois, images = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 4), np.float32), np.zeros(1, np.int32)
    attrs = {"pooled_h": 2, "pooled_w": 2, "spatial_scale": 1.0, "mode": "avg"}
    for ratio in (-1, 2049, (1 << 62) - 1, (1 << 63) - 1):
        b = Builder()
        given = [_parameter(b, (1, 1, 4, ANY)), b.constant(rois), b.constant(images)]
        with pytest.raises(ModelError, match="sampling_ratio"):
            b.add("ROIAlign", given, {**attrs, "sampling_ratio": ratio})
    b = Builder()
    given = [_parameter(b, data.shape), b.constant(rois), b.constant(images)]
    assert b.add("ROIAlign", given, {**attrs, "sampling_ratio": 2048}).output.shape == (1, 1, 2, 2)


@pytest.mark.parametrize("name", ["Split", "VariadicSplit"])
def test_a_scalar_is_not_split(name: str) -> None:
    b = Builder()
    given = [_parameter(b, ()), _parameter(b, (), "i64")]
    given += [b.constant(np.array([1]))] if name == "VariadicSplit" else []
    with pytest.raises(ModelError, match="scalar"):
        b.add(name, given, {"num_splits": 1} if name == "Split" else {})


def test_what_is_not_resized_is_not_padded() -> None:
    b = Builder()
    given = [_parameter(b, (1, 3, 4, 5)), b.constant(np.array([8, 10]))]
    attrs = {"axes": (2, 3), "mode": "nearest"}
    fine = b.add(find_op("Interpolate", 1), given, {**attrs, "pads_begin": (0, 0, 1)}).output
    compile_graph(b.finish([fine]), {})
    graph = b.finish([b.add(find_op("Interpolate", 1), given, {**attrs, "pads_begin": (1,)}).output])
    with pytest.raises(ModelError, match="pads_begin"):
        compile_graph(graph, {})
    with pytest.raises(ModelError, match="pads_begin"):
        evaluate(graph, [np.zeros((1, 3, 4, 5), np.float32)])


def test_what_stands_for_a_node_has_its_shape() -> None:
    b = Builder()
    x = _parameter(b, (2, ANY))
    graph = b.finish([b.add("Relu", [x]).output])

    def longer(builder: Any, node: Any, inputs: Any) -> Any:
        if node.op.name != "Relu":
            return None
        return builder.add("Concat", [inputs[0]] * 2, {"axis": 0}).outputs

    with pytest.raises(ModelError, match=r"output type .*4"):
        rebuild(graph, longer)


def test_strides_of_transposed_convolutions_may_be_any_number() -> None:
    for stride in (1 << 32, 1 << 40):
        b = Builder()
        x = _parameter(b, (1, 3, 1, 1))
        filters = b.constant(np.ones((3, 4, 2, 2), np.float32))
        attrs = {"strides": (1, stride), "pads_begin": (0, 0), "pads_end": (0, 0), "dilations": (1, 1)}
        graph = b.finish([b.add("ConvolutionBackpropData", [x, filters], attrs).output])
        job = compile_graph(graph, {}).new_job()
        data = np.ones((1, 3, 1, 1), np.float32)
        run_job(job, [data])
        np.testing.assert_array_equal(job.outputs[0], evaluate(graph, [data])[0])


@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3, 6])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_the_taps_of_all_phases_are_packed(kernel: int, stride: int, dilation: int) -> None:
    sets = tap_sets(kernel, stride, dilation)
    assert len(set(sets)) == len(sets)
    for pad in range(7):
        assert {p.taps for p in phases(20, kernel, stride, dilation, pad)} == set(sets)


def test_a_loop_s_body_that_does_not_run_may_reject_its_inputs() -> None:
    inner = Builder()
    x, y = _parameter(inner, (ANY, 2)), _parameter(inner, (ANY, 2))
    body = inner.finish([inner.constant(np.array(True)), inner.add("Add", [x, y]).output])
    b = Builder()
    given = [b.constant(np.array(0)), b.constant(np.array(True))]
    given += [_parameter(b, (ANY, 2)), _parameter(b, (ANY, 2))]
    ports = [Port(MERGED, 2, 0, 1), Port(INVARIANT, 3, 1)]
    attrs = {"body": body, "input_ports": ports, "output_ports": [Port(LAST, 0, 1)], "condition_result": 0}
    graph = b.finish([b.add("Loop", given, attrs).output])
    for rows in (1, 3, 4):
        feeds = [np.ones((3, 2), np.float32), np.ones((rows, 2), np.float32)]
        job = compile_graph(graph, {}).new_job()
        run_job(job, feeds)
        for got in (job.outputs[0], evaluate(graph, feeds)[0]):
            np.testing.assert_array_equal(got, feeds[0])


@pytest.mark.parametrize("name", ["ScatterUpdate", "ScatterElementsUpdate", "GatherElements"])
def test_a_scalar_has_no_axis(name: str) -> None:
    b = Builder()
    x, many = _parameter(b, ()), () if name != "ScatterUpdate" else (3,)
    given = [x, _parameter(b, many, "i64")]
    if name != "GatherElements":
        given += [_parameter(b, many), b.constant(np.array(0))]
    with pytest.raises(ModelError, match="scalar|rank must be >= 1"):
        b.add(name, given, {"axis": 0} if name == "GatherElements" else {})


def test_columns_are_numbers() -> None:
    b = Builder()
    given = [_parameter(b, (1, 4, 4), "string"), b.constant(np.array([3, 3])), b.constant(np.array([2, 2]))]
    with pytest.raises(ModelError, match="not string"):
        b.add("Col2Im", given, {})


@pytest.mark.parametrize("name", ["EmbeddingBagPackedSum", "EmbeddingBagOffsetsSum"])
def test_where_nothing_is_made_no_index_counts(name: str) -> None:
    for table, bags in (((0, 0, 17), 2), ((3, 0), 2), ((3, 4), 0)):
        b = Builder()
        packed = name == "EmbeddingBagPackedSum"
        index = np.full((bags, 2) if packed else (5,), 9)
        feeds = [np.ones(table, np.float32), index, *([] if packed else [np.full(bags, 7)])]
        given = [_parameter(b, (ANY,) * a.ndim, "f32" if i == 0 else "i64") for i, a in enumerate(feeds)]
        graph = b.finish([b.add(name, given, {}).output])
        job = compile_graph(graph, {}).new_job()
        run_job(job, feeds)
        want = evaluate(graph, feeds)[0]
        assert job.outputs[0].shape == want.shape == (bags, *table[1:])


@pytest.mark.parametrize("name", ["BatchNormInference", "GroupNormalization"])
@pytest.mark.parametrize("constant", [True, False])
def test_channels_that_do_not_fit_are_refused(name: str, constant: bool) -> None:
    """The arithmetic that stands for a normalization broadcasts: 3 statistics over 1 channel are no error."""
    lists = [np.ones(3, np.float32)] * (4 if name == "BatchNormInference" else 2)
    attrs = {"epsilon": 1e-3} if name == "BatchNormInference" else {"num_groups": 1, "epsilon": 1e-3}
    b = Builder()
    x = _parameter(b, (ANY, ANY, ANY))
    given = [b.constant(v) if constant else _parameter(b, v.shape) for v in lists]
    graph = b.finish([b.add(name, [x, *given], attrs).output])
    for images, channels in ((2, 3), (2, 1), (2, 2), (0, 1), (0, 2)):
        feeds = [np.ones((images, channels, 4), np.float32), *([] if constant else lists)]
        job = compile_graph(graph, {}).new_job()
        for i, array in enumerate(feeds):
            job.set_input(i, array)
        if channels == 3:
            job.run()
            np.testing.assert_allclose(job.outputs[0], evaluate(graph, feeds)[0], atol=1e-5)
            continue
        for run in (job.run, lambda feeds=feeds: evaluate(graph, feeds)):
            with pytest.raises(OvjitError):
                run()


@pytest.mark.parametrize("name", ["ReduceL1", "ReduceL2", "ReduceSum", "ReduceMean", "ReduceMax"])
@pytest.mark.parametrize("keep", [True, False])
def test_a_scalar_is_reduced_to_itself(name: str, keep: bool) -> None:
    b = Builder()
    given = [_parameter(b, ()), b.constant(np.array([0]))]
    graph = b.finish([b.add(name, given, {"keep_dims": keep}).output])
    job = compile_graph(graph, {}).new_job()
    data = np.array(3, np.float32)
    run_job(job, [data])
    want = evaluate(graph, [data])[0]
    assert want.shape == job.outputs[0].shape == () and want == job.outputs[0] == 3


_SCALARS = {
    "Gather": [(np.int64, [0, 0]), (np.int64, 0)], "Reverse": [(np.int64, [0])],
    "Roll": [(np.int64, [1]), (np.int64, [1])],
    "Transpose": [(np.int64, [0])],
}  # fmt: skip


@pytest.mark.parametrize("name", _SCALARS)
def test_a_scalar_has_no_axis_that_moves(name: str) -> None:
    b = Builder()
    rest = [b.constant(np.array(value, dtype)) for dtype, value in _SCALARS[name]]
    with pytest.raises(ModelError):
        b.add(name, [_parameter(b, ()), *rest], {"mode": "index"} if name == "Reverse" else {})
    b = Builder()
    if name == "Transpose":
        with pytest.raises(ModelError, match="rank of arg"):
            b.add(name, [_parameter(b, ()), _parameter(b, (1,), "i64")], {})
        b = Builder()
        graph = b.finish([b.add(name, [_parameter(b, ()), _parameter(b, (ANY,), "i64")], {}).output])
        job = compile_graph(graph, {}).new_job()
        run_job(job, [np.array(5, np.float32), np.zeros(0, np.int64)])
        assert job.outputs[0] == 5


@pytest.mark.parametrize(("name", "shapes", "attrs"), [
    ("ReverseSequence", [("f32", (2, 3)), ("nf4", (2,))], {}),
    ("CTCGreedyDecoder", [("f32", (2, 1, 3)), ("nf4", (2, 1))], {}),
    ("RegionYolo", [("boolean", (1, 14, 2, 2))],
     {"coords": 4, "classes": 2, "num": 2, "do_softmax": False, "mask": (0, 1), "axis": 1, "end_axis": 3}),
])  # fmt: skip
def test_what_is_no_number_is_none(name: str, shapes: Any, attrs: Any) -> None:
    b = Builder()
    given = [_parameter(b, shape, kind) for kind, shape in shapes]
    with pytest.raises(ModelError, match="nf4|boolean"):
        b.add(name, given, attrs)


def test_tensors_have_64_dimensions_at_most() -> None:
    b = Builder()
    x = _parameter(b, (1,) * 64)
    with pytest.raises(ModelError, match="64 dimensions"):
        b.add("Unsqueeze", [x, b.constant(np.array([0]))], {})
    with pytest.raises(ModelError, match="64 dimensions"):
        _parameter(b, (1,) * 65)


@pytest.mark.parametrize(("name", "count", "attrs", "what"), [
    ("StridedSlice", 3, {"begin_mask": (), "end_mask": ()}, "129 slices are possible, not 268435456"),
    ("VariadicSplit", 1, {}, "at most 1048576 parts, not 268435456"),
])  # fmt: skip
def test_vectors_without_values_are_bounded(name: str, count: int, attrs: dict, what: str) -> None:
    """What a shape says of their length is no reason to make as many objects."""
    b = Builder()
    axis = [b.constant(np.array(0))] if name == "VariadicSplit" else []
    given = [_parameter(b, (2, 3)), *axis, *(_parameter(b, (1 << 28,), "i64") for _ in range(count))]
    tracemalloc.start()
    with pytest.raises(ModelError, match=what):
        b.add(name, given, attrs)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 24


def test_a_slice_s_ends_are_counted_before_they_are_listed() -> None:
    b = Builder()
    start, step = b.constant(np.array([0, 0])), b.constant(np.array([1, 1]))
    tracemalloc.start()
    with pytest.raises(ModelError, match="compatible shapes"):
        b.add("Slice", [_parameter(b, (2, 3)), start, _parameter(b, (1 << 20,), "i64"), step], {})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20


def test_samples_of_moved_bins_are_bounded() -> None:
    b = Builder()
    given = [_parameter(b, (1, 4, ANY, ANY)), _parameter(b, (4, 5)), _parameter(b, (4, 4, 1, 1))]
    attrs = {"output_dim": 4, "spatial_scale": 0.5, "group_size": 1, "spatial_bins_x": 3, "spatial_bins_y": 3}
    assert b.add("DeformablePSROIPooling", given, attrs).output.shape == (4, 4, 1, 1)
    for bins in (1 << 21, 1 << 32, (1 << 63) - 1):
        with pytest.raises(ModelError, match="spatial_bins_y"):
            b.add("DeformablePSROIPooling", given, {**attrs, "spatial_bins_y": bins})


def test_nothing_may_be_repeated_without_end() -> None:
    """What is known of an empty result is worked out without what NumPy would repeat on the way to it."""
    for repeats, shape in (
        ([1, 1, 1 << 40, 0], (1, 4, 1, 1)),
        ([1 << 31, 0, 1], (1, 1, 1)),
        ([1 << 40, 0], (1,)),
    ):
        b = Builder()
        data = b.constant(np.ones(shape, np.float32))
        out = b.add("Tile", [data, b.constant(np.array(repeats))], {}).output
        assert out.type.value.size == 0
        assert evaluate(b.finish([out]), [])[0].shape == out.shape


def test_nothing_may_be_shuffled_in_many_groups() -> None:
    b = Builder()
    x = _parameter(b, (0, 3))
    graph = b.finish([b.add("ShuffleChannels", [x], {"axis": 0, "group": 1 << 62}).output])
    empty = np.zeros((0, 3), np.float32)
    assert evaluate(graph, [empty])[0].shape == (0, 3)
    job = compile_graph(graph, {}).new_job()
    run_job(job, [empty])
    assert job.outputs[0].shape == (0, 3)


def test_an_order_is_a_list() -> None:
    b = Builder()
    with pytest.raises(ModelError, match="Input order must be a vector"):
        b.add("Transpose", [_parameter(b, (4,)), b.constant(np.array(0))], {})


@pytest.mark.parametrize("opened", [False, True])
def test_angles_may_repeat_what_is_turned_whole(opened: bool) -> None:
    """RoPE of one batch by sines of two; what stays unturned cannot be repeated."""
    rng = np.random.default_rng(5)
    shapes = ((1, 5, 2, 8), (1, 1, 5, 8), (2, 1, 5, 8))
    x, cos, sin = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    b = Builder()
    declared = (*shapes[:2], (ANY if opened else 2, 1, 5, 8))
    inputs = [_parameter(b, shape) for shape in declared]
    out = b.add("RoPE", inputs, {"rotary_ndims": 8, "input_trans0213": True}).output
    data = x.transpose(0, 2, 1, 3)
    want = data * cos + np.concatenate([-data[..., 4:], data[..., :4]], -1) * sin
    graph = b.finish([out])
    job = compile_graph(graph, {}).new_job()
    run_job(job, (x, cos, sin))
    for got in (job.outputs[0], evaluate(graph, [x, cos, sin])[0]):
        np.testing.assert_allclose(got, want, atol=1e-6)
    with pytest.raises(ModelError, match="needs a rotation of all elements"):
        angles = [_parameter(b, (n, 1, 5, 6)) for n in (1, 2)]
        b.add("RoPE", [inputs[0], *angles], {"rotary_ndims": 6, "input_trans0213": True})


def test_an_unknown_width_may_be_rotated_whole() -> None:
    """Then angles broadcast the data: the inferred type has room for it, as a loop's body must know."""
    b = Builder()
    shapes = (1, ANY, 5, ANY), (ANY, 1, 5, ANY), (1, 1, 5, ANY)
    inputs = [_parameter(b, shape) for shape in shapes]
    out = b.add("RoPE", inputs, {"rotary_ndims": 8}).output
    assert out.shape[0] == ANY and out.shape[2] == 5
    graph = b.finish([b.add("Tanh", [out]).output])
    arrays = [np.ones(shape, np.float32) for shape in ((1, 2, 5, 8), (7, 1, 5, 8), (1, 1, 5, 8))]
    job = compile_graph(graph, {}).new_job()
    run_job(job, arrays)
    assert job.outputs[0].shape == evaluate(graph, arrays)[0].shape == (7, 2, 5, 8)


def test_strings_that_no_row_has_are_written_as_characters() -> None:
    record = find_op("BytesToChars")
    chars = np.frombuffer("ö ".encode(), np.uint8)
    arrays = [np.array(x, np.int32) for x in ([0], [1], [0, 2], [2, 3])]
    want = record.evaluate([*arrays, chars], {})
    for got, expected in zip(record.hosting()([None] * 5, {})(*arrays, chars), want, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert bytes(want[4]) == "Ã¶Ġ".encode()


def test_a_stride_beyond_everything_is_no_reason_to_read_ahead() -> None:
    """Strides of 2^63 - 1 and 2^40 move one window nowhere, along rows and along columns."""
    data = np.random.default_rng(3).standard_normal((1, 2, 5, 7)).astype(np.float32)
    for strides in ([1, (1 << 63) - 1], [1 << 40, 1], [1 << 20, 1 << 62]):
        for shape in (data.shape, (1, 2, ANY, ANY)):
            b = Builder()
            attrs = {"strides": strides, "pads_begin": [0, 0], "pads_end": [0, 0], "kernel": [3, 3]}
            out = b.add("MaxPool", [_parameter(b, shape)], attrs).output
            job = compile_graph(b.finish([out]), {}).new_job()
            run_job(job, [data])
            rows = range(3) if strides[0] == 1 else range(1)
            columns = range(5) if strides[1] == 1 else range(1)
            want = [[data[0, :, r : r + 3, c : c + 3].max((1, 2)) for c in columns] for r in rows]
            np.testing.assert_array_equal(job.outputs[0][0], np.array(want).transpose(2, 0, 1))


def test_cells_may_have_inputs_of_nothing() -> None:
    rng = np.random.default_rng(4)
    x = op.parameter([-1, 0], np.float32)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((2, 4), (2, 4), (16, 0), (16, 4), (16,))]
    model = ovjit.Model([op.lstm_cell(x, *map(op.constant, arrays), 4).output(0)], [x])
    got = ovjit.compile_model(model, "CPU")(np.zeros((2, 0), np.float32))[0]
    h, c, _, r, bias = (a.astype(np.float64) for a in arrays)
    f, i, g, o = np.split(h @ r.T + bias, 4, 1)
    f, i, o = (1 / (1 + np.exp(-v)) for v in (f, i, o))
    np.testing.assert_allclose(got, o * np.tanh(f * c + i * np.tanh(g)), atol=1e-6)


def test_nothing_is_converted_to_no_type() -> None:
    node = op.convert(op.constant(np.ones(3, np.float32)), "dynamic")
    assert node.get_element_type() == ovjit.Type.dynamic
    with pytest.raises(UnsupportedError, match="converts to the element type dynamic"):
        ovjit.compile_model(ovjit.Model([node], []), "CPU")


@pytest.mark.parametrize(
    "shape, axes, wanted",
    [
        ((3,), [1, 1], (3, 1)),
        ((3, 4), [0, -4], (1, 3, 4)),
        ((3,), [2, 0, 2], (1, 3, 1)),
        ((3,), [2, 2], None),
        ((3,), [2, -1], None),  # OpenVINO writes beyond its list
    ],
)
def test_new_axes_count_once(shape: tuple[int, ...], axes: list[int], wanted: tuple[int, ...] | None) -> None:
    data, b = np.ones(shape, np.float32), Builder()
    if wanted is None:
        with pytest.raises(ModelError, match=r"out of the tensor rank range|out of range for a result"):
            b.add("Unsqueeze", [_parameter(b, shape), b.constant(np.array(axes))], {})
        with pytest.raises(ModelError, match=r"out of the tensor rank range|out of range for a result"):
            find_op("Unsqueeze").evaluate([data, np.array(axes)], {})
        return
    out = b.add("Unsqueeze", [_parameter(b, shape), b.constant(np.array(axes))], {}).output
    assert out.shape == wanted
    assert find_op("Unsqueeze").evaluate([data, np.array(axes)], {})[0].shape == wanted


def test_readers_of_a_squeezed_dimension_are_made_for_the_rank() -> None:
    """An open dimension that turns out not to be 1 would stay, which is told, as OpenVINO tells it."""
    b = Builder()
    graph = b.finish([b.add("Squeeze", [_parameter(b, (ANY, ANY)), b.constant(np.array([0]))], {}).output])
    job = compile_graph(graph, {}).new_job()
    run_job(job, [np.ones((1, 3), np.float32)])
    assert job.outputs[0].shape == (3,)
    job.set_input(0, np.ones((2, 3), np.float32))
    with pytest.raises(ModelError, match="its output type is"):
        job.run()


def test_bins_of_open_shape_are_counted() -> None:
    b = Builder()
    numbers = [b.constant(np.ones(12, np.float32)), b.constant(np.array(12)), b.constant(np.array(3))]
    attrs = {"center": False, "normalized": False}
    graph = b.finish([b.add("ISTFT", [_parameter(b, (3, ANY, 4, 2)), *numbers], attrs).output])
    job = compile_graph(graph, {}).new_job()
    job.set_input(0, np.ones((3, 5, 4, 2), np.float32))
    with pytest.raises(OvjitError, match="bins"):
        job.run()


def test_the_dilation_of_one_tap_says_nothing() -> None:
    b = Builder()
    x = _parameter(b, (1, 2, 3, 4))
    filters = b.constant(np.arange(6, dtype=np.float32).reshape(2, 1, 1, 3, 1))
    window = {
        "strides": (1, 1), "pads_begin": (1, 0), "pads_end": (1, 0), "dilations": (1, 1 << 62),
        "auto_pad": "explicit",
    }  # fmt: skip
    graph = b.finish([b.add("GroupConvolution", [x, filters], window).output])
    data = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    job = compile_graph(graph, {"threads": 1}).new_job()
    run_job(job, [data])
    np.testing.assert_array_equal(job.outputs[0], evaluate(graph, [data])[0])


def test_one_hot_of_indices_beyond_32_bits() -> None:
    index = op.parameter([-1], np.int64)
    node = op.one_hot(index, op.constant(5), op.constant(1.0, np.float32), op.constant(0.0, np.float32), -1)
    data = np.array([(1 << 32) + 3, -(1 << 32), 1 << 31, -(1 << 63), (1 << 63) - 1, -1, 5, 4, 0])
    got = ovjit.compile_model(ovjit.Model([node], [index]), "CPU")(data)[0]
    np.testing.assert_array_equal(got, data[:, None] == np.arange(5))


def _dim(*bounds: int) -> Any:
    return ovjit.Dimension(*bounds) if bounds else ovjit.Dimension()


@pytest.mark.parametrize(
    ("extent", "start", "stop", "step", "made"),
    [
        ((2, 4), -2, 1 << 40, 1, "2"),
        ((2, 4), 1, 1 << 40, 1, "1..3"),
        ((2, 4), -1, -9, -1, "2..4"),
        ((0, 5), -2, 3, 1, "..2"),
        ((2, 400), -2, 1 << 40, 1, "2"),
        ((2, 4), None, 3, 2, "..2"),
        ((2, 4), 0, 3, None, "..4"),
        ((), None, 3, 2, "..2"),
        ((), 0, (1 << 63) - 1, 1, "?"),
    ],
)
def test_slices_are_bounded_as_tensors(extent: Any, start: Any, stop: Any, step: Any, made: str) -> None:
    x = op.parameter(ovjit.PartialShape([_dim(*extent), _dim(3)]), np.float32)
    limits = (start, stop, step)
    lists = [op.parameter([1], np.int64) if v is None else op.constant(np.array([v])) for v in limits]
    given = ovjit.PartialShape(f"[{made},3]")
    assert op.slice(x, *lists, op.constant(np.array([0]))).output(0).partial_shape == given
    taken = op.strided_slice(x, *lists, [0], [0])
    assert taken.output(0).partial_shape == given
    if None not in limits:
        low, high = extent or (0, 9)
        for n in range(low, min(high, low + 9) + 1):
            (got,) = evaluate(ovjit.Model([taken], [x])._graph(), [np.zeros((n, 3), np.float32)])
            assert given[0].compatible(ovjit.Dimension(len(got))), n


@pytest.mark.parametrize(("extent", "open_k"), [((), "?"), ((2, 4), "..4"), ((5,), "..5")])
def test_as_many_as_asked_for_are_found(extent: Any, open_k: str) -> None:
    x = op.parameter(ovjit.PartialShape([_dim(*extent), _dim(2)]), np.float32)
    for k, made in ((op.constant(np.int64(3)), "3"), (op.parameter([], np.int64), open_k)):
        node = op.topk(x, k, 0, "max", "value")
        assert [o.partial_shape for o in node.outputs()] == [ovjit.PartialShape(f"[{made},2]")] * 2


def test_gathered_elements_lie_in_both_shapes() -> None:
    x = op.parameter(ovjit.PartialShape([_dim(3), _dim(2, 4)]), np.float32)
    rows = op.parameter(ovjit.PartialShape([_dim(2, 5), _dim(3, 9)]), np.int64)
    assert op.gather_elements(x, rows, 1).output(0).partial_shape == ovjit.PartialShape("[3,3..9]")
    assert op.gather_elements(x, rows, 0).output(0).partial_shape == ovjit.PartialShape("[2..5,3..4]")
    anything = op.parameter(ovjit.PartialShape.dynamic(), np.int64)
    assert op.gather_elements(x, anything, 1).output(0).partial_shape == ovjit.PartialShape("[3,?]")


def test_log_softmax_of_large_scores_keeps_the_logarithm() -> None:
    rows = np.array([[3e38, 3e38, 1, 2], [1e5, 1e5, 1e5 + 1, 2], [-5e6, -5e6, -5e6, -5e6]], np.float32)
    x = op.parameter([3, 4], np.float32)
    got = ovjit.compile_model(ovjit.Model([op.log_softmax(x, 1)], [x]), "CPU")([rows])[0]
    shifted = rows.astype(np.float64) - rows.max(1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("batch", [0, -1])
def test_recurrent_layers_of_no_sequences(kind: str, batch: int) -> None:
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[kind]
    rng = np.random.default_rng(5)
    x, h, c = (op.parameter([batch, *rest], np.float32) for rest in ([3, 2], [1, 4], [1, 4]))
    lengths = op.parameter([batch], np.int64)
    states = [h, c] if kind == "lstm" else [h]
    sizes = ((1, gates * 4, 2), (1, gates * 4, 4), (1, gates * 4))
    weights = [rng.standard_normal(s).astype(np.float32) for s in sizes]
    layer = getattr(op, f"{kind}_sequence")(x, *states, lengths, *map(op.constant, weights), 4, "forward")
    compiled = ovjit.compile_model(ovjit.Model(list(layer.outputs()), [x, *states, lengths]), "CPU")
    feeds = [np.zeros((0, *s), np.float32) for s in ([3, 2], *[[1, 4]] * len(states))]
    results = compiled([*feeds, np.zeros(0, np.int64)])
    assert [r.shape for r in results.values()] == [(0, 1, 3, 4), *[(0, 1, 4)] * len(states)]


def test_a_scalar_is_transposed() -> None:
    x = op.parameter([], np.float32)
    node = op.transpose(x, op.constant(ovjit.Tensor(np.zeros(0, np.int64))))
    (got,) = evaluate(ovjit.Model([node], [x])._graph(), [np.float32(3)])
    assert got.shape == () and got == 3


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("across", [False, True])
def test_mean_variance_normalization_of_few_dimensions(shape: tuple[int, ...], across: bool) -> None:
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
    x = op.parameter(shape, np.float32)
    model = ovjit.Model([ovjit.opset2.mvn(x, across, True, 1e-5)], [x])
    axes = tuple(range(1 if across else 2, len(shape)))
    middle = data.mean(axes, keepdims=True)
    expected = (data - middle) / np.sqrt(((data - middle) ** 2).mean(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(ovjit.compile_model(model, "CPU")([data])[0], expected, rtol=1e-5)


def test_a_transposed_convolution_with_huge_strides() -> None:
    """Phases of no taps are not gone through one by one."""
    stride = 1 << 22
    x = op.parameter([1, 1, 1, 2], np.float32)
    node = op.convolution_backprop_data(
        x, np.array([[[[1, 2, 3]]]], np.float32), strides=[1, stride], pads_begin=[0, 0], pads_end=[0, 0],
        dilations=[1, 1],
    )  # fmt: skip
    begun = time.process_time()
    compiled = ovjit.compile_model(ovjit.Model([node.output(0)], [x]), "CPU", {"INFERENCE_NUM_THREADS": 1})
    got = compiled(np.array([[[[2, 5]]]], np.float32))[0].reshape(-1)
    spent = time.process_time() - begun
    wanted = np.zeros(stride + 3, np.float32)
    wanted[:3], wanted[stride:] = (2, 4, 6), (5, 10, 15)
    np.testing.assert_array_equal(got, wanted)
    assert spent < 4, f"{spent:.1f} s"


@pytest.mark.parametrize("end", [np.inf, np.nan])
@pytest.mark.parametrize("which", range(4))
def test_quantisation_with_an_endless_range_has_no_steps(end: float, which: int) -> None:
    """A TensorFlow Lite file had an infinite scale: the zero point was NaN, which became -2**63."""
    ends = [np.float32(v) for v in (-1, 1, -1, 1)]
    assert integer_range_steps(*map(np.asarray, (0, 255, 0, 255)), 256) is not None
    ends[which] = np.float32(end if which % 2 else -end)
    assert integer_range_steps(*map(np.asarray, ends), 256) is None


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("shapes", [([1, 3, 4], [4]), ([1, 3], [2, 3]), ([2, 1], [2, 3])], ids=str)
def test_the_left_operand_of_pdpd_is_not_broadcast(shapes: Any, opened: bool) -> None:
    """The right one is, to the first dimensions of the left one."""
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    b = Builder()
    inputs = [_parameter(b, [ANY] * x.ndim if opened else list(x.shape)) for x in arrays]
    with pytest.raises(OvjitError, match="broadcast"):
        run_graph(b.finish(b.add("Add", inputs, {"auto_broadcast": "pdpd"}).outputs), arrays)
    with pytest.raises(OvjitError, match="broadcast"):
        find_op("Add").evaluate(arrays, {"auto_broadcast": "pdpd"})
