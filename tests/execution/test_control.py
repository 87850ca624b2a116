"""If, Loop and TensorIterator: the Python API, files both ways, and results beside the real OpenVINO."""

from __future__ import annotations

import pickle
import re
import signal
import threading

import numpy as np
import pytest
from ovjit.op import if_op, loop, tensor_iterator
from ovjit.op.util import ConcatOutputDescription, MergedInputDescription, SliceInputDescription

import ovjit
from ovjit import opset13
from ovjit.readers.ir.writer import to_bytes
from tests.support import control_models

openvino = pytest.importorskip("openvino")
F32 = np.float32
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


def constant_loop(ov, ops, trips, last=-1):
    """Sums of rows of a constant, beside a parameter."""
    x = ops.parameter([2], F32, name="x")
    row, total, i = (ops.parameter(s, t) for s, t in (([1, 3], F32), ([1, 3], F32), ([], np.int64)))
    s = ops.add(ops.add(row, total), ops.convert(i, F32))
    node = ops.loop(ops.constant(np.int64(trips)).output(0), ops.constant(np.array(True)).output(0))
    node.set_function(ov.Model([ops.constant(np.array(True)), s], [i, row, total]))
    node.set_special_body_ports([0, 0])
    rows = ops.constant(np.arange(3 * trips, dtype=F32).reshape(trips, 3))
    node.set_sliced_input(row, rows.output(0), 0, 1, 1, -1, 0)
    node.set_merged_input(total, ops.constant(np.zeros((1, 3), F32)).output(0), s.output(0))
    whole = node.get_concatenated_slices(s.output(0), 0, 1, 1, -1, 0)
    return ov.Model([node.get_iter_value(s.output(0), last), whole, ops.relu(x).output(0)], [x])


@pytest.mark.parametrize("trips, is_folded", [(1, True), (40, True), (20_000, False)])
def test_loops_of_constants(trips, is_folded):
    """They are computed by the compiler, if that does not take long."""
    x = np.array([-1, 2], F32)
    model = constant_loop(ovjit, opset13, trips)
    compiled = ovjit.compile_model(model, "CPU", SAME)
    want = results(openvino, constant_loop(openvino, openvino.opset13, trips), [x])
    for got, expected in zip(compiled([x]).values(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    kinds = [node.get_rt_info()["layerType"] for node in compiled.get_runtime_model().get_ops()]
    assert ("Loop" not in kinds) == is_folded


def test_a_loop_of_constants_that_fails_is_left_to_the_inference():
    compiled = ovjit.compile_model(constant_loop(ovjit, opset13, 4, last=9), "CPU", SAME)
    with pytest.raises(RuntimeError, match="iteration 9"):
        compiled([np.ones(2, F32)])


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


def nest(depth):
    """An iterator in an iterator in an iterator ..."""
    x = opset13.parameter([1], np.float32)
    body = ovjit.Model([opset13.relu(x)], [x])
    for _ in range(depth):
        outer = opset13.parameter([1], np.float32)
        node = tensor_iterator()
        node.set_body(body)
        node.set_invariant_input(body.get_parameters()[0], outer.output(0))
        body = ovjit.Model([node.get_iter_value(body.get_results()[0].input_value(0))], [outer])
    return body


def test_bodies_nested_deep():
    np.testing.assert_array_equal(results(ovjit, nest(20), [np.float32([-3])])[0], [0])


@pytest.mark.long
def test_bodies_nested_too_deep():
    np.testing.assert_array_equal(results(ovjit, nest(60), [np.float32([-3])])[0], [0])
    with pytest.raises(RuntimeError, match="nested more than 64 levels deep"):
        nest(70)


def endless():
    """A loop that does not end. The condition is data, so that no compiler sees it."""
    x, v = opset13.parameter([4], np.float32), opset13.parameter([4], np.float32)
    step = opset13.add(v, opset13.constant(np.float32(1)))
    largest = opset13.reduce_max(v, opset13.constant(np.array([0], np.int64)), False)
    goes_on = opset13.greater_equal(largest, opset13.constant(np.float32(0)))
    node = opset13.loop(opset13.constant(np.int64(-1)), opset13.constant(np.array(True)))
    node.set_function(ovjit.Model([goes_on, step], [v]))
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
    """A sum that a body keeps, over iterations and inferences."""
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


@pytest.mark.timeout(60)
def test_an_endless_loop_can_be_cancelled_from_another_thread():
    request = ovjit.Core().compile_model(endless(), "CPU").create_infer_request()
    stopper = threading.Timer(0.3, request.cancel)
    stopper.start()
    with pytest.raises(RuntimeError, match="cancel"):
        request.infer([np.zeros(4, np.float32)])
    stopper.join()


@pytest.mark.timeout(60)
def test_ctrl_c_ends_an_endless_loop():
    request = ovjit.Core().compile_model(endless(), "CPU").create_infer_request()
    stopper = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    stopper.start()
    with pytest.raises(KeyboardInterrupt):
        request.infer([np.zeros(4, np.float32)])
    stopper.join()
    with pytest.raises(RuntimeError, match="cancel"):  # the request is as good as new
        request.start_async([np.zeros(4, np.float32)])
        request.cancel()
        request.wait()


def product_loop(n=160, trips=6):
    """A body that is worth two threads."""
    ops = opset13
    x, v = ops.parameter([n, n], np.float32), ops.parameter([n, n], np.float32)
    weights = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32) / 12
    step = ops.tanh(ops.add(ops.matmul(v, ops.constant(weights), False, False), ops.multiply(v, v)))
    node = ops.loop(ops.constant(np.int64(trips)), ops.constant(np.array(True)))
    node.set_function(ovjit.Model([ops.constant(np.array(True)), step], [v]))
    node.set_special_body_ports([-1, 0])
    node.set_merged_input(v, x.output(0), step.output(0))
    return ovjit.Model([ops.relu(node.get_iter_value(step.output(0)))], [x])


def test_threads_and_queues_give_the_same_bits():
    x = np.random.default_rng(1).standard_normal((160, 160)).astype(np.float32)
    answers = set()
    for threads in (1, 2, 3):
        compiled = ovjit.Core().compile_model(product_loop(), "CPU", {"INFERENCE_NUM_THREADS": threads})
        answers.update(compiled([x])[0].tobytes() for _ in range(5))
        queue = ovjit.AsyncInferQueue(compiled, 2)
        queue.set_callback(lambda request, _: answers.add(request.get_output_tensor(0).data.tobytes()))
        for _ in range(10):
            queue.start_async([x])
        queue.wait_all()
    assert len(answers) == 1


def test_profile_counts_bodies():
    compiled = ovjit.Core().compile_model(product_loop(trips=20), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    x = np.zeros((160, 160), np.float32)
    for _ in range(3):
        request.infer([x])
        rows = request.get_profiling_info()
        loops = [row for row in rows if row.exec_type == "repeat"]
        inside = [row for row in rows if row.node_type == "MatMul"]
        assert len(loops) == len(inside) == 1
        total = sum(row.real_time.total_seconds() for row in rows) * 1e3
        assert total <= request.latency + 0.1  # a body's steps are not counted in the loop's row again


def test_a_loop_runs_without_the_host():
    """Slices, concatenations, nested bodies and early ends are steps of the runner."""
    for name in ("counting", "reverse", "branches", "nested"):
        build, rows = control_models.CASES[name]
        compiled = ovjit.Core().compile_model(build(ovjit, opset13), "CPU", {"PERF_COUNT": True})
        request = compiled.create_infer_request()
        request.infer(control_models.arrays(rows[0], 0))
        kinds = {row.exec_type for row in request.get_profiling_info()}
        assert not kinds & {"ref_numpy", "bodies"}, name
        again = ovjit.Core().import_model(compiled.export_model(), "CPU")
        assert again._executable.program._plan is not None, name  # it runs as it was stored


def test_an_if_of_a_known_condition_is_its_branch():
    ops = opset13
    x, a, b = (ops.parameter([2, 3], np.float32) for _ in range(3))
    one, two = ops.result(ops.relu(a)), ops.result(ops.reshape(b, [6], False))
    node = ops.if_op(ops.constant(np.array(False)))
    node.set_then_body(ovjit.Model([one], [a]))
    node.set_else_body(ovjit.Model([two], [b]))
    node.set_input(x.output(0), a, b)
    model = ovjit.Model([ops.exp(node.set_output(one, two))], [x])
    assert list(model.output(0).shape) == [6]
    compiled = ovjit.Core().compile_model(model, "CPU")
    assert "If" not in {
        node.get_rt_info()["layerType"].value for node in compiled.get_runtime_model().get_ops()
    }
    np.testing.assert_allclose(compiled([np.ones((2, 3), np.float32)])[0], np.full(6, np.e), rtol=1e-6)


def test_an_if_whether_a_dimension_differs_from_itself_is_its_branch(monkeypatch):
    """So that its outputs have a rank, nothing waits for the host, and plans are traced for any batch: a
    whole quotient that is rounded down is itself."""
    seed = 3

    def build(ov):
        ops = ov.opset13
        x = ops.parameter(ov.PartialShape([-1, -1, 2]), np.float32, name="x")
        shape = ops.shape_of(x)
        rows = ops.gather(shape, ops.constant(np.int64(1)), ops.constant(np.int64(0)))
        a, b = (ops.parameter(ov.PartialShape([-1, -1, 2]), np.float32) for _ in range(2))
        then, other = ops.result(ops.reduce_sum(a, ops.constant(np.int64(2)), False)), ops.result(ops.relu(b))
        node = ops.if_op(ops.not_equal(rows, rows).output(0))
        node.set_then_body(ov.Model([then], [a]))
        node.set_else_body(ov.Model([other], [b]))
        node.set_input(x.output(0), a, b)
        images = ops.gather(shape, ops.constant(np.array([0])), ops.constant(np.int64(0)))
        fourfold, two = ops.multiply(images, ops.constant(np.int64(4))), ops.constant(np.int64(2))
        half = ops.floor(ops.divide(fourfold, two))
        wide = ops.concat([half, ops.constant(np.array([1, 1]))], 0)
        made = ops.tile(ops.reduce_sum(node.set_output(then, other), ops.constant(np.int64(0)), True), wide)
        return ov.Model([made], [x], "same")

    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((n, m, 2)).astype(np.float32) for n, m in ((2, 5), (3, 6), (5, 9))]
    monkeypatch.setenv("OVJIT_SKIP", "trace_ahead")  # a trace of these shapes is what is wanted
    made = ovjit.compile_model(build(ovjit), "CPU", {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32"})
    real = openvino.compile_model(build(openvino), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = made.create_infer_request()
    for array in arrays:
        got, want = request.infer([array])[0], real([array])[0]
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=f"seed {seed}")
    kinds = {row.exec_type for row in request.get_profiling_info()}
    assert not kinds & {"ref_numpy", "bodies"}, kinds
    assert made._executable.program.traces.total == 1


@pytest.mark.parametrize("kind", ["loop", "if"])
def test_a_trace_serves_what_is_around_bodies(kind, monkeypatch):
    """The bodies' shapes are those of the trace; what is around them is of any length, in several jobs of two
    threads, and what the bodies took is in the profile."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    monkeypatch.setenv("OVJIT_SKIP", "trace_ahead")
    seed = 5

    def build(ov):
        ops = ov.opset13
        state = ops.parameter([4, 3], np.float32, name="state")
        x = ops.parameter(ov.PartialShape([-1, 3]), np.float32, name="x")
        half = ops.multiply(state, np.float32(0.5))
        if kind == "loop":
            row, total = (ops.parameter([1, 3], np.float32) for _ in range(2))
            summed = ops.tanh(ops.add(row, total))
            node = ops.loop(ops.constant(np.int64(4)).output(0), ops.constant(np.bool_(True)).output(0))
            node.set_function(ov.Model([ops.constant(np.bool_(True)), summed], [row, total]))
            node.set_special_body_ports([-1, 0])
            node.set_sliced_input(row, half.output(0), 0, 1, 1, -1, 0)
            zeros = ops.constant(np.zeros((1, 3), np.float32))
            node.set_merged_input(total, zeros.output(0), summed.output(0))
            made = node.get_concatenated_slices(summed.output(0), 0, 1, 1, -1, 0)
        else:
            a, b = (ops.parameter([4, 3], np.float32) for _ in range(2))
            then, other = ops.result(ops.exp(a)), ops.result(ops.tanh(b))
            node = ops.if_op(ops.greater(ops.reduce_sum(half, [0, 1], False), np.float32(0)).output(0))
            node.set_then_body(ov.Model([then], [a]))
            node.set_else_body(ov.Model([other], [b]))
            node.set_input(half.output(0), a, b)
            made = node.set_output(then, other)
        product = ops.matmul(ops.relu(x), made, False, True)
        return ov.Model([product.output(0), made], [state, x], kind)

    rng = np.random.default_rng(seed)
    config = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    compiled = ovjit.compile_model(build(ovjit), "CPU", config)
    real = openvino.compile_model(build(openvino), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    requests = [compiled.create_infer_request() for _ in range(2)]
    for n in (20, 21, 33, 34, 50, 77):
        given = [[rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (n, 3))] for _ in requests]
        for request, arrays in zip(requests, given, strict=True):
            request.start_async(arrays)
        for request, arrays in zip(requests, given, strict=True):
            request.wait()
            for i, want in enumerate(real(arrays).to_tuple()):
                about = f"seed {seed}, {n} rows"
                np.testing.assert_allclose(request.results[i], want, rtol=1e-5, atol=1e-6, err_msg=about)
    assert compiled._executable.program.traces.total == 1
    kinds = [row.exec_type for row in requests[0].get_profiling_info()]
    assert {"loop": "repeat", "if": "branch"}[kind] in kinds
    assert len(kinds) > 4, kinds


def test_many_cuts_stay_native():
    def build(ov, ops):
        x = ops.parameter(ov.PartialShape([-1]), np.float32)
        value = x
        for i in range(20):
            found = ops.non_zero(ops.greater(value, ops.constant(np.float32(-2 + 0.02 * i))))
            index = ops.reshape(found, ops.constant(np.array([-1])), False)
            value = ops.tanh(
                ops.multiply(
                    ops.gather(value, index, ops.constant(np.int64(0))), ops.constant(np.float32(1.5))
                )
            )
        return ov.Model([value, ops.shape_of(value)], [x])

    compiled = ovjit.Core().compile_model(build(ovjit, opset13), "CPU", {"PERF_COUNT": True})
    theirs = openvino.Core().compile_model(build(openvino, openvino.opset13), "CPU", SAME)
    request = compiled.create_infer_request()
    for n in (60, 33, 1, 0, 60):
        x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
        for got, want in zip(
            request.infer([x]).to_dict().values(), theirs([x]).to_dict().values(), strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    rows = request.get_profiling_info()
    assert not [row for row in rows if row.exec_type == "ref_numpy"]
    assert sum(row.exec_type.startswith("nonzero_list") for row in rows) == 20


def test_shapes_are_known_as_far_as_openvino_knows_them():
    def shapes(ov, ops):
        x = ops.parameter(ov.PartialShape([-1, 4, ov.Dimension(2, 8)]), np.float32)
        dims = ops.shape_of(x, output_type="i32")
        first = ops.gather(dims, ops.constant(np.array([0])), ops.constant(np.int64(0)))
        last = ops.gather(dims, ops.constant(np.int64(2)), ops.constant(np.int64(0)))
        pattern = ops.concat(
            [first, ops.constant(np.array([4], np.int32)), ops.unsqueeze(last, ops.constant(np.int64(0)))], 0
        )
        wide = ops.broadcast(ops.constant(np.float32(1)), ops.convert(pattern, np.int64))
        flat = ops.reshape(x, ops.concat([first, ops.constant(np.array([-1], np.int32))], 0), False)
        model = ov.Model([wide, flat], [x])
        return [str(port.get_partial_shape()) for port in model.outputs]

    mine, theirs = shapes(ovjit, opset13), shapes(openvino, openvino.opset13)
    assert mine[0] == theirs[0] == "[?,4,2..8]"
    assert mine[1].startswith("[?,") and theirs[1].startswith("[?,")


def test_damaged_files_with_bodies():
    """Numbers changed and lines lost: an error or an answer, never anything else."""
    rng = np.random.default_rng(5)
    texts = []
    for name in ("nested", "reverse", "branches_differ"):
        xml, weights = to_bytes(control_models.CASES[name][0](ovjit, opset13))
        texts.append((xml.decode().split("\n"), weights))
    refused = 0
    for _ in range(120):
        lines, weights = texts[rng.integers(len(texts))]
        lines = list(lines)
        for _ in range(rng.integers(1, 3)):
            at = int(rng.integers(len(lines)))
            if rng.random() < 0.2:
                del lines[at]
            else:
                number = str(rng.choice(["-2", "-1", "0", "1", "3", "7", "1000000000"]))
                lines[at] = re.sub(r'(?<==")-?\d+(?=")', number, lines[at])
        try:
            model = ovjit.Core().read_model("\n".join(lines).encode(), weights)
            ovjit.Core().compile_model(model, "CPU")
        except RuntimeError:
            refused += 1
    assert 40 < refused < 120


def test_files_nested_too_deep():
    head = b'<layer id="0" name="l" type="TensorIterator" version="opset1"><body><layers>'
    text = b'<net version="11"><layers>' + head * 80 + b"</layers></body></layer>" * 80 + b"</layers></net>"
    with pytest.raises(RuntimeError, match="nested more than 64 levels deep"):
        ovjit.Core().read_model(text, b"")


def test_bodies_follow_when_a_model_is_reshaped():
    def shapes(ov, ops):
        found = []
        for build, shape in ((control_models.branches, [5, 3]), (control_models.reverse_iterator, [3, 8, 2])):
            model = build(ov, ops)
            which = next(i for i, p in enumerate(model.inputs) if len(p.get_partial_shape()) == len(shape))
            model.reshape({model.input(which): shape})
            kinds = ("If", "TensorIterator")
            (node,) = [n for n in model.get_ops() if n.get_type_name() in kinds]
            bodies = (
                [node.get_function(i) for i in (0, 1)]
                if node.get_type_name() == "If"
                else [node.get_function()]
            )
            found += [str(p.get_partial_shape()) for body in bodies for p in body.get_parameters()]
            found += [str(r.get_output_partial_shape(0)) for body in bodies for r in body.get_results()]
        return found

    assert shapes(ovjit, opset13) == shapes(openvino, openvino.opset13)


def test_an_end_may_be_the_last_index():
    """An inclusive end if parts fill the range only with it: OpenVINO counts iterations so."""
    x = ovjit.opset13.parameter([2, 8], name="x")
    cut = ovjit.opset13.parameter([2, 2])
    ten = ovjit.opset13.multiply(cut, np.float32(10))
    node = ovjit.opset13.tensor_iterator()
    node.set_body(ovjit.Model([ten], [cut]))
    node.set_sliced_input(cut, x.output(0), 0, 2, 2, 7, 1)
    joined = node.get_concatenated_slices(ten.output(0), 0, 2, 2, 7, 1)
    made = ovjit.Model([joined], [x])
    assert list(made.output().shape) == [2, 8] and node.get_num_iterations() == 4
    rows = np.arange(16, dtype=np.float32).reshape(2, 8)
    np.testing.assert_array_equal(ovjit.compile_model(made, "CPU")([rows])[0], rows * 10)


BAGS = {
    "sum": {}, "mean": {"reduce": "mean"}, "max": {"reduce": "max"}, "weights": {"weighted": True},
    "kept": {"keep": True}, "halves": {"halves": True}, "computed table": {"computed": True},
    "trips": {"trips": True},
}  # fmt: skip


def bags(ov, ops, reduce="sum", weighted=False, keep=False, halves=False, computed=False, trips=False):
    """A Loop whose iterations each add up rows of a table from a start to an end."""

    def integers(*numbers):
        return ops.constant(np.array(numbers, np.int64))

    table = np.random.default_rng(5).normal(size=(11, 21)).astype(np.float16 if halves else np.float32)
    names = {"indices": np.int64, "starts": np.int64, "ends": np.int64, "weights": np.float32}
    outer = {k: ops.parameter(ov.PartialShape([-1]), t, name=k) for k, t in names.items()}
    inner = {k: ops.parameter(ov.PartialShape([-1]), t, name=k) for k, t in names.items()}
    i = ops.parameter([], np.int64)
    outer_table, inner_table = (ops.parameter([11, 21], np.float32, name="table") for _ in range(2))
    rows = inner_table if computed else ops.constant(table)
    rows = ops.convert(rows, np.float32) if halves else rows
    at = [ops.unsqueeze(ops.gather(inner[k], i, integers(0)), integers(0)) for k in ("starts", "ends")]
    taken = ops.gather(rows, ops.slice(inner["indices"], *at, integers(1), integers(0)), integers(0))
    if weighted:
        factors = ops.slice(inner["weights"], *at, integers(1), integers(0))
        taken = ops.multiply(taken, ops.unsqueeze(factors, integers(1)))
    made = getattr(ops, f"reduce_{reduce}")(taken, integers(0), keep)
    made = made if keep else ops.unsqueeze(made, integers(0))
    go_on = ops.convert(ops.constant(np.array(True)), bool)
    used = ["indices", "starts", "ends", *(["weights"] if weighted else [])]
    more = [inner_table] if computed else []
    body = ov.Model([go_on, made], [i, *(inner[k] for k in used), *more])
    count = ops.parameter([], np.int64, name="count")
    number = ops.gather(ops.shape_of(outer["starts"]), integers(0), integers(0))
    number = count if trips else ops.squeeze(number, integers(0))
    node = ops.loop(number.output(0), ops.constant(np.array(True)).output(0))
    node.set_function(body)
    node.set_special_body_ports([0, 0])
    for k in used:
        node.set_invariant_input(inner[k], outer[k].output(0))
    if computed:
        twice = ops.multiply(outer_table, ops.constant(np.float32(2)))
        node.set_invariant_input(inner_table, twice.output(0))
    out = node.get_concatenated_slices(made.output(0), 0, 1, 1, -1, 0)
    ends = [outer[k] for k in used] + [outer_table] * computed + [count] * trips
    return ov.Model([out], ends), table.astype(np.float32)


@pytest.mark.parametrize("name", BAGS)
def test_a_loop_over_ranges_of_rows_is_bags(name):
    """Iterations that add up rows of a table by a part of a list are one operation, with the same results,
    for bounds from the end, behind it and in the wrong order."""
    how = BAGS[name]
    model, table = bags(ovjit, opset13, **how)
    theirs = openvino.Core().compile_model(bags(openvino, openvino.opset13, **how)[0], "CPU", SAME)
    compiled = ovjit.Core().compile_model(model, "CPU", {**SAME, "PERF_COUNT": True})
    request = compiled.create_infer_request()
    for seed, (n, many) in enumerate(((9, 4), (30, 7), (1, 1), (0, 3), (5, 40))):
        rng = np.random.default_rng(seed)
        indices, weights = rng.integers(-11, 11, n), rng.normal(size=n).astype(np.float32)
        starts, ends = rng.integers(-n - 2, n + 3, (2, many))
        inputs = [indices, starts, ends] + ([weights] if how.get("weighted") else [])
        if how.get("computed"):
            table = rng.normal(size=table.shape).astype(np.float32)
            inputs.append(table / 2)
        inputs += [np.array(many, np.int64)] if how.get("trips") else []
        got = request.infer(inputs)[0]
        rows = table[indices].astype(np.float64)
        rows = rows * weights[:, None] if how.get("weighted") else rows
        parts = [rows[a:b] for a, b in zip(starts, ends, strict=True)]
        if how.get("reduce") == "max":
            fair = [p.max(0) if len(p) else np.full(21, np.finfo(np.float32).min) for p in parts]
        else:
            fair = [p.sum(0) / (max(len(p), 1) if how.get("reduce") == "mean" else 1) for p in parts]
        np.testing.assert_allclose(got, fair, rtol=1e-5, atol=1e-5, err_msg=f"{name} {seed}")
        if n:  # OpenVINO does not cut lists without elements
            np.testing.assert_allclose(got, theirs(inputs)[0], rtol=1e-5, atol=1e-5, err_msg=f"{name} {seed}")
        kinds = {row.exec_type for row in request.get_profiling_info()}
        host = set() if how.get("trips") else {"ref_numpy"}  # a Range to a number that is an input
        assert not kinds & {"bodies", "repeat", *host}, (name, seed, kinds)


def test_bags_of_indices_out_of_range_and_of_fewer_bounds_than_trips():
    """What the Loop makes of them: rows of zeros, and bounds of 0."""
    model, table = bags(ovjit, opset13, trips=True)
    compiled = ovjit.Core().compile_model(model, "CPU", SAME)
    indices = np.array([3, 11, -12, 10**12, 4])
    got = compiled([indices, np.array([0, 1]), np.array([5, 4]), np.int64(3)])[0]
    np.testing.assert_allclose(got, [table[3] + table[4], np.zeros(21), np.zeros(21)], rtol=1e-6)


def test_a_loop_that_may_end_early_is_no_bags():
    """A body with a data-dependent condition runs the right number of iterations."""

    def build(ov, ops):
        zero, one = (ops.constant(np.array([k], np.int64)) for k in (0, 1))
        x, cuts = ops.parameter([6], np.int64), ops.parameter([4], np.int64)
        inner, at, i = ops.parameter([6], np.int64), ops.parameter([4], np.int64), ops.parameter([], np.int64)
        start = ops.unsqueeze(ops.gather(at, i, zero), zero)
        start = ops.reshape(start, one, False)
        taken = ops.slice(inner, start, ops.constant(np.array([6], np.int64)), one, zero)
        rows = ops.gather(ops.constant(np.eye(6, dtype=np.float32)), taken, zero)
        made = ops.unsqueeze(ops.reduce_sum(rows, zero, False), zero)
        more = ops.less(ops.squeeze(start, zero), ops.constant(np.array(2, np.int64)))
        node = ops.loop(ops.constant(np.array(4)).output(0), ops.constant(np.array(True)).output(0))
        node.set_function(ov.Model([more, made], [i, inner, at]))
        node.set_special_body_ports([0, 0])
        node.set_invariant_input(inner, x.output(0))
        node.set_invariant_input(at, cuts.output(0))
        return ov.Model([node.get_concatenated_slices(made.output(0), 0, 1, 1, -1, 0)], [x, cuts])

    inputs = [np.arange(6), np.array([0, 2, 1, 5])]
    got, want = (results(ov, build(ov, ops), inputs)[0] for ov, ops in
                 ((ovjit, opset13), (openvino, openvino.opset13)))  # fmt: skip
    assert got.shape == (2, 6)
    np.testing.assert_array_equal(got, want)
