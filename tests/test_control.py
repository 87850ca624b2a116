"""If, Loop and TensorIterator: the Python API, files both ways, and results beside the real OpenVINO."""

from __future__ import annotations

import pickle
import threading

import control_models
import numpy as np
import pytest

import ovjit
from ovjit import opset13
from ovjit.op import if_op, loop, tensor_iterator
from ovjit.op.util import ConcatOutputDescription, MergedInputDescription, SliceInputDescription

openvino = pytest.importorskip("openvino")
SAME = {"INFERENCE_PRECISION_HINT": "f32"}


def results(ov, model, inputs):
    return list(ov.Core().compile_model(model, "CPU", SAME)(inputs).to_dict().values())


@pytest.mark.parametrize("name", control_models.CASES)
def test_as_openvino(name, tmp_path):
    build, rows = control_models.CASES[name]
    mine, theirs = build(ovjit, opset13), build(openvino, openvino.opset13)
    for a, b in zip(mine.outputs, theirs.outputs, strict=True):
        assert str(a.get_partial_shape()) == str(b.get_partial_shape())
    ovjit.serialize(mine, tmp_path / "mine.xml")
    openvino.serialize(theirs, tmp_path / "theirs.xml")
    models = [
        (ovjit, mine),
        (ovjit, mine.clone()),
        (ovjit, pickle.loads(pickle.dumps(mine))),
        (ovjit, ovjit.Core().read_model(tmp_path / "theirs.xml")),
        (openvino, openvino.Core().read_model(tmp_path / "mine.xml")),
    ]
    compiled = [(ov, ov.Core().compile_model(model, "CPU", SAME)) for ov, model in models]
    compiled.append((ovjit, ovjit.Core().import_model(compiled[0][1].export_model(), "CPU")))
    for seed, row in enumerate(rows):
        inputs = control_models.arrays(row, seed)
        want = results(openvino, build(openvino, openvino.opset13), inputs)
        for number, (_, each) in enumerate(compiled):
            for got, expected in zip(each(inputs).to_dict().values(), want, strict=True):
                assert got.shape == expected.shape, (name, number, seed)
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=f"{name} {number}")


def test_no_trip():
    model = control_models.counting_loop(ovjit, opset13, None)
    last, whole = results(ovjit, model, [np.ones((4, 3), np.float32), np.int64(0)])
    np.testing.assert_array_equal(last, np.zeros((1, 3)))
    assert whole.shape == (0, 3)


def test_more_trips_than_parts():
    model = control_models.counting_loop(ovjit, opset13, None)
    with pytest.raises(RuntimeError, match="part"):
        results(ovjit, model, [np.ones((4, 3), np.float32), np.int64(5)])


def test_classes_and_descriptions():
    model = control_models.counting_loop(ovjit, opset13)
    (node,) = [n for n in model.get_ops() if isinstance(n, loop)]
    assert node.get_type_name() == "Loop" and repr(node).startswith("<loop: 'Loop_")
    assert node.get_special_body_ports() == [0, 0] and node.get_num_iterations() == 4
    sliced, merged = node.get_input_descriptions()
    assert isinstance(sliced, SliceInputDescription) and isinstance(merged, MergedInputDescription)
    assert (merged.input_index, merged.body_parameter_index, merged.body_value_index) == (3, 2, 1)
    assert (sliced.start, sliced.stride, sliced.part_size, sliced.end, sliced.axis) == (0, 1, 1, -1, 0)
    assert isinstance(node.get_output_descriptions()[1], ConcatOutputDescription)
    assert len(node.get_function().get_parameters()) == 3
    node.set_input_descriptions([sliced, merged])
    node.validate_and_infer_types()
    copy = merged.copy()
    assert copy is not merged and copy.body_value_index == 1
    assert copy.get_type_info().name == "MergedInputDescription"
    branch = if_op()
    with pytest.raises(TypeError):
        branch.get_then_body()
    with pytest.raises(TypeError):
        tensor_iterator().get_body()
    with pytest.raises(TypeError):
        node.set_special_body_ports([0])
    with pytest.raises(IndexError):
        node.get_iter_value(opset13.parameter([1], np.float32).output(0))


def test_reshape_goes_into_bodies():
    model = control_models.counting_loop(ovjit, opset13, None)
    model.reshape({0: [9, 3]})
    assert list(results(ovjit, model, [np.ones((9, 3), np.float32), np.int64(9)])[1].shape) == [9, 3]
    with pytest.raises(RuntimeError):
        model.reshape({0: [9, 4]})
    assert list(model.input(0).shape) == [9, 3]


def test_a_body_that_contains_itself():
    x, v = opset13.parameter([1], np.float32), opset13.parameter([1], np.float32)
    node = tensor_iterator()
    body = ovjit.Model([opset13.relu(v)], [v])
    node.set_body(body)
    node.set_invariant_input(v, x.output(0))
    out = node.get_iter_value(body.get_results()[0].input_value(0))
    body.add_results([opset13.result(out)])
    body.add_parameters([x])
    with pytest.raises(RuntimeError):
        ovjit.Core().compile_model(ovjit.Model([out], [x]), "CPU")


def test_bodies_nested_too_deep():
    def nest(depth):
        x = opset13.parameter([1], np.float32)
        value = opset13.relu(x)
        body = ovjit.Model([value], [x])
        for _ in range(depth):
            outer = opset13.parameter([1], np.float32)
            node = tensor_iterator()
            node.set_body(body)
            node.set_invariant_input(body.get_parameters()[0], outer.output(0))
            value = node.get_iter_value(body.get_results()[0].input_value(0))
            body = ovjit.Model([value], [outer])
        return body

    np.testing.assert_array_equal(results(ovjit, nest(20), [np.float32([-3])])[0], [0])
    with pytest.raises(RuntimeError, match="nested more than 64 deep"):
        nest(70)


def endless():
    x, v = opset13.parameter([4], np.float32), opset13.parameter([4], np.float32)
    step = opset13.add(v, opset13.constant(np.float32(1)))
    true = opset13.constant(np.array(True))
    node = opset13.loop(opset13.constant(np.int64(-1)), opset13.constant(np.array(True)))
    node.set_function(ovjit.Model([true, step], [v]))
    node.set_special_body_ports([-1, 0])
    node.set_merged_input(v, x.output(0), step.output(0))
    return ovjit.Model([node.get_iter_value(step.output(0))], [x])


@pytest.mark.timeout(60)
def test_an_endless_loop_can_be_cancelled():
    request = ovjit.Core().compile_model(endless(), "CPU").create_infer_request()
    request.start_async([np.zeros(4, np.float32)])
    stopper = threading.Timer(0.3, request.cancel)
    stopper.start()
    with pytest.raises(RuntimeError, match="cancel"):
        request.wait()
    stopper.join()


def state_in_bodies(ov, ops, kind):
    """A sum that a body keeps, from trip to trip and from inference to inference."""
    info = ov.op.util.VariableInfo()
    info.data_shape, info.data_type, info.variable_id = ov.PartialShape([1, 3]), ov.Type.f32, "sum"
    variable = ov.op.util.Variable(info)
    row = ops.parameter([1, 3], np.float32)
    read = ov.op.read_value(ops.constant(np.full((1, 3), 2, np.float32)), variable)
    new = ops.add(row, read)
    result = ops.result(new)
    body = ov.Model([result], [ov.op.assign(new, variable)], [row])
    x = ops.parameter([4 if kind == "iterator" else 1, 3], np.float32)
    if kind == "iterator":
        node = ops.tensor_iterator()
        node.set_body(body)
        node.set_sliced_input(row, x.output(0), 0, 1, 1, -1, 0)
        return ov.Model([node.get_concatenated_slices(new.output(0), 0, 1, 1, -1, 0)], [x])
    condition, other = ops.parameter([], bool), ops.parameter([1, 3], np.float32)
    kept = ops.result(ops.relu(other))
    node = ops.if_op(condition.output(0))
    node.set_then_body(body)
    node.set_else_body(ov.Model([kept], [other]))
    node.set_input(x.output(0), row, other)
    return ov.Model([node.set_output(result, kept)], [condition, x])


@pytest.mark.parametrize("kind", ["iterator", "branch"])
def test_variables_in_bodies(kind, tmp_path):
    mine, theirs = state_in_bodies(ovjit, opset13, kind), state_in_bodies(openvino, openvino.opset13, kind)
    ovjit.serialize(mine, tmp_path / "mine.xml")
    openvino.serialize(theirs, tmp_path / "theirs.xml")
    models = [
        (openvino, theirs),
        (ovjit, mine),
        (ovjit, ovjit.Core().read_model(tmp_path / "theirs.xml")),
        (openvino, openvino.Core().read_model(tmp_path / "mine.xml")),
    ]
    requests = [ov.Core().compile_model(m, "CPU", SAME).create_infer_request() for ov, m in models]
    rng = np.random.default_rng(3)
    for step, taken in enumerate((True, True, False, True)):
        x = rng.standard_normal((4 if kind == "iterator" else 1, 3)).astype(np.float32)
        inputs = [x] if kind == "iterator" else [np.array(taken), x]
        if step == 3:
            for request in requests:
                request.reset_state()
        want, *others = [list(request.infer(inputs).values())[0] for request in requests]
        for got in others:
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=f"{kind} step {step}")
    assert [s.name for s in requests[1].query_state()] == ["sum"]
