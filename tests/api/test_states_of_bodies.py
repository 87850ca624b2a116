"""Variables of If, Loop and TensorIterator whose initial values their bodies compute, beside OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
X, Y = np.array([1, 2], np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
F32 = np.float32


def counting(ov: Any, start: Any, parameters: list[Any], results: Callable[[Any], list[Any]]) -> Any:
    """A body with the variable "v", which begins with `start` and is one more after each turn."""
    ops = ov.opset13
    new = ops.add(ops.read_value(start, "v", F32, start.get_output_partial_shape(0)), np.float32(1))
    return ov.Model([ops.result(r) for r in results(new)], [ops.assign(new, "v")], parameters, "body")


def branch(ov: Any, cond: Any, x: Any, kind: Any = (2,)) -> Any:
    """An If: counts from 10 times its input on, or the negative of its input."""
    ops = ov.opset13
    p, q = (ops.parameter(ov.PartialShape(list(kind)), F32, name="p") for _ in range(2))
    taken = counting(ov, ops.multiply(p, np.float32(10)), [p], lambda new: [new])
    other = ov.Model([ops.result(ops.negative(q))], [q], "other")
    node = ops.if_op(cond)
    node.set_then_body(taken), node.set_else_body(other)
    node.set_input(x, p, q)
    return node.set_output(taken.get_results()[0], other.get_results()[0])


def in_branch(ov: Any, kind: Any = (2,)) -> Any:
    cond = ov.opset13.parameter([], np.bool_, name="c")
    x = ov.opset13.parameter(ov.PartialShape(list(kind)), F32, name="x")
    return ov.Model([ov.opset13.result(branch(ov, cond, x.output(0), kind))], [cond, x], "m")


def in_open_branch(ov: Any) -> Any:
    return in_branch(ov, (-1,))


def in_loop(ov: Any, nested: bool = False) -> Any:
    """Counts from what is carried plus a row on, at the first turn that takes the branch if `nested`."""
    ops = ov.opset13
    cond, x = ops.parameter([], np.bool_, name="c"), ops.parameter([2], F32, name="x")
    y = ops.parameter([3, 2], F32, name="y")
    p, row, c = ops.parameter([2], F32), ops.parameter([1, 2], F32), ops.parameter([], np.bool_)
    begin = ops.add(p, ops.squeeze(row, np.array([0])))
    others = [ops.multiply(p, np.float32(2)), ops.logical_not(c), ops.constant(True)]

    def rows(value: Any) -> list[Any]:
        return [ops.unsqueeze(value, ops.constant(np.array([0]))), *others]

    if nested:
        results = rows(branch(ov, c.output(0), begin.output(0)))
        body = ov.Model([ops.result(r) for r in results], [p, row, c], "body")
    else:
        body = counting(ov, begin, [p, row, c], rows)
    loop = ops.loop(ops.constant(np.int32(3)), ops.constant(True))
    loop.set_function(body), loop.set_special_body_ports([-1, 3])
    ends = body.get_results()
    loop.set_merged_input(p, x.output(0), ends[1].output(0))
    loop.set_sliced_input(row, y.output(0), 0, 1, 1, -1, 0)
    loop.set_merged_input(c, cond.output(0), ends[2].output(0))
    out = loop.get_concatenated_slices(ends[0].output(0), 0, 1, 1, -1, 0)
    return ov.Model([ops.result(out)], [cond, x, y], "m")


def in_branch_of_loop(ov: Any) -> Any:
    return in_loop(ov, True)


def in_iterator(ov: Any) -> Any:
    ops = ov.opset13
    cond, x = ops.parameter([], np.bool_, name="c"), ops.parameter([2], F32, name="x")
    y = ops.parameter([3, 2], F32, name="y")
    p, row = ops.parameter([2], F32), ops.parameter([1, 2], F32)
    body = counting(ov, ops.add(p, ops.reduce_sum(row, np.array([0]), False)), [p, row], lambda new: [new])
    iterator = ops.tensor_iterator()
    iterator.set_function(body)
    iterator.set_invariant_input(p, x.output(0))
    iterator.set_sliced_input(row, y.output(0), 0, 1, 1, -1, 0)
    out = iterator.get_iter_value(body.get_results()[0].output(0), -1)
    return ov.Model([ops.result(out)], [cond, x, y], "m")


MODELS = (in_branch, in_open_branch, in_loop, in_branch_of_loop, in_iterator)


def answers(ov: Any, compiled: Any) -> list[tuple[list[float], list[Any]]]:
    """Results, and states behind each run: of several inputs, after resets, and after values that are set."""
    request = compiled.create_infer_request()
    out = []

    def run(cond: bool, x: np.ndarray) -> None:
        request.infer([np.array(cond), x, Y][: len(compiled.inputs)])
        states = [(state.name, np.array(state.state.data)[:2].tolist()) for state in request.query_state()]
        out.append((request.get_output_tensor(0).data.tolist(), states))

    assert [state.name for state in request.query_state()] == ["v"]
    run(True, X), run(True, 3 * X)
    request.reset_state()
    run(False, X), run(False, 2 * X), run(True, 5 * X), run(True, X)
    request.query_state()[0].reset()
    run(True, 7 * X)
    for reset in (True, False):
        if reset:
            request.reset_state()
        request.query_state()[0].state = ov.Tensor(np.array([100, 200], np.float32))
        run(not reset, X), run(True, X)
    return out


@pytest.mark.parametrize("make", MODELS)
def test_beside_the_real_package(make: Any) -> None:
    """Also of a compiled model that is exported and read again."""
    wanted = answers(openvino, openvino.Core().compile_model(make(openvino), "CPU", EXACT))
    compiled = ovjit.Core().compile_model(make(ovjit), "CPU", EXACT)
    assert answers(ovjit, compiled) == wanted
    again = ovjit.Core().import_model(compiled.export_model().getvalue(), "CPU", EXACT)
    assert answers(ovjit, again) == wanted


def test_a_variable_that_is_never_assigned_begins_once() -> None:
    """The real package refuses to run it."""
    ops = ovjit.opset13
    p, q, x = (ops.parameter([2], F32) for _ in range(3))
    cond = ops.parameter([], np.bool_)
    kept = ops.read_value(ops.relu(p), "v", F32, ovjit.PartialShape([2]))
    taken = ovjit.Model([ops.result(ops.multiply(kept, np.float32(2)))], [p], "taken")
    other = ovjit.Model([ops.result(ops.negative(q))], [q], "other")
    node = ops.if_op(cond)
    node.set_then_body(taken), node.set_else_body(other)
    node.set_input(x.output(0), p, q)
    out = node.set_output(taken.get_results()[0], other.get_results()[0])
    request = ovjit.compile_model(
        ovjit.Model([ops.result(out)], [cond, x], "m"), "CPU"
    ).create_infer_request()
    found = [request.infer([np.array(bool(c)), k * X])[0].tolist() for c, k in ((0, 1), (1, 2), (1, 3))]
    assert found == [[-1, -2], [4, 8], [4, 8]]


def test_bodies_that_both_begin_a_variable_are_refused() -> None:
    ops = ovjit.opset13
    cond, x, p, c = (ops.parameter(s, t) for s, t in (([], bool), ([2], F32), ([2], F32), ([], bool)))
    inner = branch(ovjit, c.output(0), p.output(0))
    begin = ops.read_value(ops.relu(p), "v", F32, ovjit.PartialShape([2]))
    taken = ovjit.Model([ops.result(ops.add(inner, begin))], [p, c], "taken")
    q = ops.parameter([2], F32)
    other = ovjit.Model([ops.result(q)], [q], "other")
    node = ops.if_op(cond)
    node.set_then_body(taken), node.set_else_body(other)
    node.set_input(x.output(0), p, q), node.set_input(cond.output(0), c, None)
    out = node.set_output(taken.get_results()[0], other.get_results()[0])
    with pytest.raises(RuntimeError, match="compute the initial value of the variable 'v'"):
        ovjit.compile_model(ovjit.Model([ops.result(out)], [cond, x], "m"), "CPU")
