"""InferRequest, CompiledModel and OVDict beside the real OpenVINO."""

from __future__ import annotations

import contextlib
import copyreg
import gc
import pickle
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from ovjit import errors
from tests.support import api_cases as cases
from tests.support.threads import run_threads, start_and_join

X = np.arange(8, dtype=np.float32) - 3


class HasArray:
    """Something with the array interface."""

    def __array__(self, dtype=None, copy=None):
        return np.arange(8, dtype=np.float32)


ONE_INPUT = {
    "array": X,
    "list of array": [X],
    "tuple of array": (X,),
    "too many": [X, X],
    "dict int": {0: X},
    "dict name": {"a": X},
    "dict bool": {False: X},
    "dict unknown name": {"zz": X},
    "dict unknown int": {5: X},
    "dict negative": {-1: X},
    "dict float": {0.0: X},
    "dict numpy int": {np.int64(0): X},
    "f64": X.astype("f8"),
    "f16": X.astype("f2"),
    "i32": X.astype("i4"),
    "bool": X > 0,
    "big endian": X.astype(">f4"),
    "object": X.astype(object),
    "strided": np.repeat(X, 2)[::2],
    "reversed": X[::-1],
    "read-only": np.frombuffer(X.tobytes(), np.float32),
    "stride 0": np.broadcast_to(np.float32(2), (8,)),
    "array interface": HasArray(),
    "array interface in dict": {0: HasArray()},
    "wrong size": X[:7].copy(),
    "wrong rank": X[None],
    "wrong size in dict": {"a": X[:7].copy()},
    "list of floats": X.tolist(),
    "nested list": [X.tolist()],
    "list in dict": {0: X.tolist()},
    "empty list": [],
    "scalar": 2.5,
    "numpy scalar": np.float32(1),
    "text": "text",
    "text array": np.array(["a"] * 8),
    "None in dict": {0: None},
    "dict in list": [{0: X}],
    "object()": object(),
    "set": set(),
    "generator": (x for x in [X]),
}


def fresh(value):
    """Arrays of its own for every call: OpenVINO writes to arrays that were lent to an earlier one."""
    if isinstance(value, dict):
        return {k: fresh(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(fresh(v) for v in value)
    return value.copy() if type(value) is np.ndarray and value.flags.carray else value


@pytest.mark.parametrize("share", [False, True], ids=["copied", "shared"])
@pytest.mark.parametrize("name", ONE_INPUT)
def test_inputs_of_a_model_with_one_input(name, share):
    requests = {ov: cases.unary(ov).create_infer_request() for ov in (ovjit, openvino)}
    for request in requests.values():
        request.infer(np.full(8, 5, np.float32))
    cases.check_alike(lambda ov: requests[ov].infer(fresh(ONE_INPUT[name]), share_inputs=share), name)
    # refused or not, the request goes on working
    cases.check_alike(lambda ov: requests[ov].infer(-X), name)


LISTS = {
    "plain": [[1, 2, 3], [4, 5, 6]], "one nested": [[[1, 2, 3], [4, 5, 6]]],
    "deeper": [[[[1, 2, 3], [4, 5, 6]]]],
    "tuple": ([[1, 2, 3], [4, 5, 6]],), "flat": [1, 2, 3, 4, 5, 6], "flat in a list": [[1, 2, 3, 4, 5, 6]],
    "two": [[[1, 2, 3], [4, 5, 6]]] * 2, "in a dict": {0: [[1, 2, 3], [4, 5, 6]]},
}  # fmt: skip


@pytest.mark.parametrize("shape", [[2, 3], [-1, 3], [-1, -1], [1, 2, 3], [6], [1]], ids=str)
@pytest.mark.parametrize("name", LISTS)
def test_lists_as_the_value_of_an_input_or_as_inputs(name, shape):
    if name == "one nested" and shape == [1, 2, 3]:
        # refused by OpenVINO, which takes it for a list of one input of [2, 3]
        compiled = cases.unary(ovjit, shape, np.int64, "absolute")
        np.testing.assert_array_equal(compiled(LISTS[name])[0], LISTS[name])
        return
    text = str(shape)
    models = {ov: cases.unary(ov, text, np.int64, "absolute") for ov in (ovjit, openvino)}
    cases.check_alike(lambda ov: models[ov](LISTS[name]), (name, shape))


TWO_INPUTS = {
    "list": [X, X + 1],
    "tuple": (X, X + 1),
    "dict": {"a": X, 1: X + 1},
    "dict reversed": {"b": X, "a": X + 1},
    "first only": [X * 2],
    "second only": {1: X * 2},
    "empty list": [],
    "empty tuple": (),
    "empty dict": {},
    "none": None,
    "single array": X,
    "single scalar": 1.5,
    "three": [X, X, X],
    "second wrong": [X * 3, X[:5].copy()],
    "second of a wrong type": [X * 3, None],
    "casts": [X.astype("i8"), X.astype("f8")],
}


@pytest.mark.parametrize("share", [False, True], ids=["copied", "shared"])
@pytest.mark.parametrize("name", TWO_INPUTS)
def test_inputs_of_a_model_with_two_inputs(name, share):
    requests = {ov: cases.adder(ov).create_infer_request() for ov in (ovjit, openvino)}
    for request in requests.values():
        request.infer([X, X])
    cases.check_alike(lambda ov: requests[ov].infer(fresh(TWO_INPUTS[name]), share_inputs=share), name)


def test_a_refused_input_leaves_the_request_as_it_was():
    request = cases.adder(ovjit).create_infer_request()
    request.infer([X, X])
    for share in (False, True):
        for bad in ([X + 9, X[:5].copy()], [X + 9, "text"], {"a": X + 9, "zz": X}, [X + 9, X, X]):
            with pytest.raises((RuntimeError, ValueError)):
                request.infer(bad, share_inputs=share)
            np.testing.assert_array_equal(request.infer()[0], X + X)


def test_inputs_by_port():
    for ov in (ovjit, openvino):
        compiled = cases.adder(ov)
        a, b = compiled.inputs
        np.testing.assert_array_equal(compiled({b: X, a: X * 2})["sum"], X * 3)
        with pytest.raises(RuntimeError):
            compiled({compiled.output(0): X[:3].copy()})
        with pytest.raises(TypeError):
            compiled({a.get_node(): X})


@pytest.mark.parametrize("shape", [(), (1, 1), (1,)])
@pytest.mark.parametrize(
    "value", [2.5, 3, True, np.float32(4), np.array(2.5), np.array([2.5], "f4")], ids=repr
)
def test_scalars(shape, value):
    if shape and np.ndim(value) == 0 and not isinstance(value, np.ndarray):
        result = cases.unary(ovjit, shape).create_infer_request().infer({0: value})[0]
        np.testing.assert_array_equal(result, np.full(shape, value, np.float32))  # OpenVINO computes garbage
        return
    for call in (
        lambda m: m(value),
        lambda m: m({0: value}),
        lambda m: m.create_infer_request().infer((value,)),
    ):
        cases.check_alike(lambda ov, call=call: call(cases.unary(ov, shape)), (shape, value))


@pytest.mark.parametrize(
    ("dtype", "op", "value"),
    [
        (np.int64, "absolute", [1, -2, 3]),
        (np.int64, "absolute", [[1, -2, 3]]),
        (np.int64, "absolute", [1.0, 2.0, 3.0]),
        (np.int64, "absolute", (1, 2, 3)),
        (np.int64, "absolute", ([1, -2, 3],)),
        (np.int64, "absolute", {0: [1, -2, 3]}),
        (np.int64, "absolute", np.array([1.7, -2.7, 3.2])),
        (np.int64, "absolute", np.array([1, 2, 255], "u1")),
        (np.int8, "absolute", np.array([300, -300, 5])),
        (np.int8, "absolute", [1, 2, 3]),
        (bool, "logical_not", np.array([0, 2, -1])),
        (bool, "logical_not", np.array([0, 0.2, -1])),
        (bool, "logical_not", [True, False, True]),
        (np.float16, "relu", np.array([1.5, 2, -3])),
    ],
    ids=repr,
)
def test_lists_and_casts(dtype, op, value):
    cases.check_alike(lambda ov: cases.unary(ov, (3,), dtype, op)(value))
    cases.check_alike(lambda ov: cases.unary(ov, (3,), dtype, op).create_infer_request().infer(value))


def test_wide_integers_are_not_cut_off():
    wide = np.array([2**40 + 1, -(2**50), 3])
    np.testing.assert_array_equal(cases.unary(ovjit, (3,), np.int64, "absolute")(wide)[0], abs(wide))


@pytest.mark.parametrize("key", [-1, None, 0.0, (0,)], ids=repr)
@pytest.mark.parametrize("value", [X, ovjit.Tensor(X)], ids=["array", "tensor"])
def test_a_key_that_selects_nothing(key, value):
    """OpenVINO raises RuntimeError for some of the tensors, where the cast of the key fails."""
    compiled = cases.unary(ovjit, (8,), np.float32, "relu")
    for infer in (compiled, compiled.create_infer_request().infer):
        with pytest.raises(TypeError, match="ncompatible"):
            infer({key: value})


def test_error_messages_are_one_sentence():
    image = cases.unary(ovjit, (1, 3, 8, 8))
    for bad, parts in (
        (
            np.zeros((1, 8, 8, 3), "f4"),
            ["'a'", "[1,3,8,8]", "[1,8,8,3]", "f32", "NHWC", "x.transpose(0, 3, 1, 2)"],
        ),
        (np.zeros((3, 8, 8), "f4"), ["'a'", "[1,3,8,8]", "[3,8,8]", "x[None]"]),
        (ovjit.Tensor(np.zeros((1, 3, 8, 8))), ["'a'", "f32", "f64", "astype('float32')"]),
    ):
        with pytest.raises(RuntimeError) as error:
            image(bad)
        assert "\n" not in str(error.value)
        for part in parts:
            assert part in str(error.value)
    with pytest.raises(RuntimeError, match="did you mean 'input_0'"):
        a = ovjit.opset8.parameter([1], name="input_0")
        ovjit.compile_model(ovjit.Model([ovjit.opset8.relu(a)], [a]))({"inptu_0": np.zeros(1, "f4")})


# -- sharing -----------------------------------------------------------------------------------------------


def test_shared_inputs_are_read_where_they_lie():
    x = X.copy()
    for ov in (ovjit, openvino):
        request = cases.unary(ov).create_infer_request()
        request.infer(x, share_inputs=True)
        assert np.shares_memory(request.get_input_tensor().data, x)
        x[:] = 7
        np.testing.assert_array_equal(request.infer()[0], x)
        request = cases.unary(ov).create_infer_request()
        request.infer(x)
        assert not np.shares_memory(request.get_input_tensor().data, x)


def test_a_lent_array_is_never_written_to():
    request = cases.unary(ovjit).create_infer_request()
    lent = X.copy()
    request.infer(lent, share_inputs=True)
    for other in (X + 100, (X + 100).astype("f8"), [X + 100], {0: X[::-1]}):
        request.infer(other)
        np.testing.assert_array_equal(lent, X)
    compiled = cases.unary(ovjit)
    compiled(lent)
    compiled(X + 100, share_inputs=False)
    np.testing.assert_array_equal(lent, X)


def test_arrays_of_another_process_are_taken_at_once(monkeypatch) -> None:
    """Their dtype is equal to NumPy's, but another object."""
    first, second = (pickle.loads(pickle.dumps(X + n)) for n in (1, 2))
    assert first.dtype is not X.dtype
    request = cases.unary(ovjit).create_infer_request()
    request.infer(X, share_inputs=True)
    monkeypatch.setattr("ovjit.api.run.request.assign_inputs", lambda *_: pytest.fail("the long way"))
    for array in (first, second):
        want = cases.unary(openvino)(array)[0]
        np.testing.assert_array_equal(request.infer(array, share_inputs=True)[0], want)
    monkeypatch.undo()
    for other in (first.astype(">f4"), first.astype("f8")):
        np.testing.assert_array_equal(request.infer(other)[0], cases.unary(openvino)(first)[0])


def test_shared_arrays_of_other_shapes_that_fit():
    x = ovjit.opset13.parameter([-1, ovjit.Dimension(2, 5)], np.float32, name="x")
    model = ovjit.Model([ovjit.opset13.add(x, np.float32(1))], [x], "shapes")
    request = ovjit.compile_model(model, "CPU").create_infer_request()
    for shape in ((1, 2), (4, 2), (4, 5), (0, 3), (2, 2)):
        array = np.full(shape, len(shape), np.float32)
        np.testing.assert_array_equal(request.infer([array], share_inputs=True)[0], array + 1)
        assert np.shares_memory(request.get_input_tensor().data, array) or not array.size
        request.infer([array], share_inputs=True)  # `get_input_tensor` sends the next array the long way
        for bad in ((2, 6), (2, 1), (2,), (1, 2, 2)):
            with pytest.raises(RuntimeError, match="incompatible"):
                request.infer([np.zeros(bad, np.float32)], share_inputs=True)
        np.testing.assert_array_equal(request.infer()[0], array + 1)


def test_a_set_tensor_stays_the_users_and_is_written():
    for ov in (ovjit, openvino):
        for how in ("infer", "set"):
            request = cases.unary(ov).create_infer_request()
            tensor = ov.Tensor(np.ones(8, np.float32))
            if how == "infer":
                request.infer(tensor)
            else:
                request.set_input_tensor(tensor)
            request.infer(X)
            np.testing.assert_array_equal(tensor.data, X)
            tensor.data[:] = 5
            np.testing.assert_array_equal(request.infer()[0], np.full(8, 5))


def test_sharing_does_not_overwrite_a_set_tensor():
    request = cases.unary(ovjit).create_infer_request()
    tensor = ovjit.Tensor(np.ones(8, np.float32))
    request.set_input_tensor(tensor)
    for value in (X, X[::-1], X.astype("f8"), np.frombuffer(X.tobytes(), np.float32)):
        request.set_input_tensor(tensor)
        request.infer(value, share_inputs=True)
        np.testing.assert_array_equal(tensor.data, np.ones(8))


def test_results_are_copies_and_shared_outputs_views():
    for ov in (ovjit, openvino):
        request = cases.unary(ov).create_infer_request()
        copied = request.infer(X)[0]
        shared = request.infer(X, share_outputs=True)[0]
        also = request.results[0]
        request.infer(X + 10)
        np.testing.assert_array_equal(copied, np.maximum(X, 0))
        np.testing.assert_array_equal(also, np.maximum(X, 0))
        np.testing.assert_array_equal(shared, X + 10)
        del request
        gc.collect()
        np.testing.assert_array_equal(shared, X + 10)
        assert copied.flags.writeable


def test_a_shared_array_lives_until_the_inference_has_ended():
    compiled = cases.heavy(ovjit, 64, 10)
    request = compiled.create_infer_request()
    expected = request.infer(np.eye(64, dtype=np.float32))[0]
    for _ in range(5):
        x = np.eye(64, dtype=np.float32)
        alive = weakref.ref(x)
        request.start_async(x, share_inputs=True)
        del x
        assert alive() is not None
        request.wait()
        np.testing.assert_array_equal(request.results[0], expected)
    request.infer(np.eye(64, dtype=np.float32), share_inputs=True)
    assert alive() is None


def test_chaining_models_copies_nothing():
    for ov in (ovjit, openvino):
        first, second = (cases.unary(ov, op=op).create_infer_request() for op in ("negative", "relu"))
        second.set_input_tensor(first.get_output_tensor())
        first.infer(X)
        np.testing.assert_array_equal(second.infer()[0], np.maximum(-X, 0))
        assert np.shares_memory(second.get_input_tensor().data, first.get_output_tensor().data)
        first.infer(-X)
        np.testing.assert_array_equal(second.infer()[0], np.maximum(X, 0))


def test_output_tensors_of_the_user():
    for ov in (ovjit, openvino):
        request = cases.unary(ov).create_infer_request()
        tensor = ov.Tensor(np.zeros(8, np.float32))
        request.set_output_tensor(tensor)
        result = request.infer(X)[0]
        np.testing.assert_array_equal(tensor.data, np.maximum(X, 0))
        np.testing.assert_array_equal(result, tensor.data)
        array = np.zeros(8, np.float32)
        request.set_tensor(request.model_outputs[0], ov.Tensor(array, shared_memory=True))
        request.start_async(X + 1)
        request.wait()
        np.testing.assert_array_equal(array, np.maximum(X + 1, 0))
        with pytest.raises(RuntimeError):
            request.set_output_tensor(ov.Tensor(np.zeros(7, np.float32)))
        with pytest.raises(RuntimeError):
            request.set_output_tensor(ov.Tensor(np.zeros(8)))


# -- open dimensions ---------------------------------------------------------------------------------------


def test_open_dimensions():
    # OpenVINO cannot go back from a lent array to a copied one of another shape
    for ov, shares in ((ovjit, (False, True)), (ovjit, (True,)), (openvino, (False,)), (openvino, (True,))):
        request = cases.unary(ov, "?,2..4").create_infer_request()
        assert list(request.get_input_tensor().shape) == [0, 0]
        assert list(request.get_output_tensor().shape) == [0, 0]
        assert request.infer()[0].shape == (0, 0)
        for shape in ((2, 3), (5, 2), (1, 4), (2, 3), (0, 2)):
            x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
            for share in shares:
                np.testing.assert_array_equal(request.infer(x, share_inputs=share)[0], np.maximum(x, 0))
            assert list(request.get_input_tensor().shape) == list(shape)
            assert list(request.get_output_tensor().shape) == list(shape)
        for bad in (np.zeros((2, 5), "f4"), np.zeros(3, "f4"), 2.0):
            with pytest.raises(RuntimeError):
                request.infer(bad)


def test_tensors_of_open_dimensions_follow():
    for ov in (ovjit, openvino):
        request = cases.unary(ov, "?,3").create_infer_request()
        tensor = request.get_input_tensor()
        tensor.shape = [2, 3]
        tensor.data[:] = 4
        out = request.get_output_tensor()
        request.infer()
        np.testing.assert_array_equal(out.data, np.full((2, 3), 4))
        mine = ov.Tensor(np.zeros((2, 3), np.float32))
        request.set_output_tensor(mine)
        request.infer(np.ones((2, 3), np.float32))
        np.testing.assert_array_equal(mine.data, np.ones((2, 3)))
        request.infer(np.ones((3, 3), np.float32))
        assert list(mine.shape) == [3, 3]


def test_an_unknown_rank_does_not_compile():
    for ov in (ovjit, openvino):
        with pytest.raises(RuntimeError):
            cases.unary(ov, "...")


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_empty_tensors(shape):
    cases.check_alike(lambda ov: cases.unary(ov, shape)(np.zeros(shape, "f4")))
    cases.check_alike(lambda ov: cases.unary(ov, shape)())


# -- results -----------------------------------------------------------------------------------------------


def test_ovdict():
    results = {ov: cases.two_outputs(ov)(np.array([1, -2, 3, -4], "f4")) for ov in (ovjit, openvino)}
    for call in (
        lambda r: r[0], lambda r: r[-1], lambda r: r[True], lambda r: r["abs"], lambda r: r["zz"],
        lambda r: r[2],
        lambda r: r[np.int64(0)], lambda r: r[1.0], lambda r: r[None], lambda r: len(r), lambda r: r.names(),
        lambda r: r.to_tuple(), lambda r: list(r.values()), lambda r: [str(k) for k in r], lambda r: 0 in r,
        lambda r: 5 in r, lambda r: "neg" in r,
        lambda r: [repr(view) for view in (r.keys(), r.values(), r.items())],
        lambda r: [array.tolist() for array in reversed(r.values())],
        lambda r: r.get(7, "none"), lambda r: repr(r),
        lambda r: str(r),
        lambda r: r.to_dict(), lambda r: [(str(k), v) for k, v in r.items()], lambda r: [type(r).__name__,
        hash(r)],
        lambda r: r[next(iter(r))], lambda r: r.__setitem__(0, 1),
    ):  # fmt: skip
        cases.check_alike(lambda ov, call=call: call(results[ov]))
    compiled = cases.two_outputs(ovjit)
    result = compiled(np.array([1, -2, 3, -4], "f4"))
    np.testing.assert_array_equal(result[compiled.output("abs")], [1, 2, 3, 4])
    np.testing.assert_array_equal(result[compiled.output(0)], [-1, 2, -3, 4])
    with pytest.raises(KeyError):
        result[compiled.input(0)]
    assert not isinstance(result, dict)


def test_results_as_inputs_go_by_position():
    for ov in (ovjit, openvino):
        out = cases.unary(ov)(X)
        np.testing.assert_array_equal(cases.unary(ov, op="negative")(out)[0], -np.maximum(X, 0))
        np.testing.assert_array_equal(
            cases.adder(ov)(cases.adder(ov)([X, X]), share_inputs=False).to_tuple()[0][:0], []
        )


# -- looking at requests and compiled models -----------------------------------------------------------------


def test_ports_and_reprs():
    for call in (
        repr, lambda m: repr(m.create_infer_request()), lambda m: repr(m.inputs), lambda m: m.input(0),
        lambda m: m.input("b"), lambda m: m.input("zz"), lambda m: m.input(2), lambda m: m.input(-1),
        lambda m: m.input(), lambda m: m.output(), lambda m: m.output("sum"), lambda m: m.output(1),
        lambda m: m.input(1.0), lambda m: m.input(None), lambda m: m.input(np.int64(1)),
        lambda m: m.output("a"),
        lambda m: m.input(0) == m.input(0), lambda m: m.input(0) == m.input(1), lambda m: m.input(0).any_name,
        lambda m: m.input(0).names, lambda m: list(m.input(0).shape), lambda m: repr(m.input(0).element_type),
        lambda m: hash(m.input(0)) == hash(m.input(0)), lambda m: m.input(0).get_index(),
        lambda m: m.create_infer_request().model_inputs, lambda m: m.create_infer_request().model_outputs,
        lambda m: repr(m.create_infer_request().get_compiled_model()),
    ):  # fmt: skip
        cases.check_alike(lambda ov, call=call: call(cases.adder(ov)))


def test_a_compiled_model_does_not_follow_its_model():
    a = ovjit.opset8.parameter([8], name="a")
    model = ovjit.Model([ovjit.opset8.relu(a)], [a], "m")
    compiled = ovjit.compile_model(model)
    before = repr(compiled)
    model.input(0).set_names({"other"})
    model.reshape([4])
    assert repr(compiled) == before
    np.testing.assert_array_equal(compiled({"a": X})[0], np.maximum(X, 0))


TENSOR_CALLS = {
    "get_tensor": [("a",), ("sum",), ("zz",), (0,), (None,), (1.0,), ()],
    "get_input_tensor": [(), (None,), (0,), (1,), (2,), (-1,), ("a",), (1.0,), (np.int64(0),)],
    "get_output_tensor": [(), (0,), (1,), (-1,), ("sum",), (np.int64(0),)],
}


@pytest.mark.parametrize("method", TENSOR_CALLS)
def test_getting_tensors(method):
    requests = {ov: cases.adder(ov).create_infer_request() for ov in (ovjit, openvino)}
    for request in requests.values():
        request.infer([X, X])
    for args in TENSOR_CALLS[method]:
        if method == "get_tensor" and args == (None,):
            continue
        cases.check_alike(lambda ov, args=args: getattr(requests[ov], method)(*args), args)
    for ov, request in requests.items():
        with pytest.raises(RuntimeError):
            request.get_tensor(cases.unary(ov, (3,)).output(0))


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("set_tensor", ("a", "T")), ("set_tensor", ("zz", "T")), ("set_tensor", (0, "T")), ("set_tensor",
        ("a", "T7")),
        ("set_tensor", ("a", "T64")), ("set_tensor", ("a", "X")), ("set_tensor", ("sum", "T")),
        ("set_tensor", ("zz", "X")), ("set_input_tensor", (9, "X")), ("set_output_tensor", (9, "X")),
        ("set_input_tensor", ("T",)), ("set_input_tensor", (1, "T")), ("set_input_tensor", (2, "T")),
        ("set_input_tensor", (-1, "T")), ("set_input_tensor", (0, "T7")), ("set_input_tensor", (0, "T64")),
        ("set_input_tensor", (0, "X")), ("set_input_tensor", ("a", "T")), ("set_input_tensor", ("T", 0)),
        ("set_output_tensor", ("T",)), ("set_output_tensor", (0, "T")), ("set_output_tensor", (1, "T")),
        ("set_output_tensor", (0, "T7")), ("set_output_tensor", (0, "T64")), ("set_output_tensor", ("X",)),
        ("set_tensors", ({0: "T"},)), ("set_tensors", ({"a": "T", "sum": "T"},)), ("set_tensors",
        ({"zz": "T"},)),
        ("set_tensors", ({9: "T"},)), ("set_tensors", ({0: "X"},)), ("set_tensors", ({1.0: "T"},)),
        ("set_tensors", ({},)), ("set_tensors", (["T"],)), ("set_tensors", (None,)),
        ("set_input_tensors", ({0: "T", 1: "T"},)), ("set_input_tensors", ({"a": "T"},)),
        ("set_input_tensors", ({9: "T"},)), ("set_input_tensors", (["T"],)), ("set_input_tensors", (None,)),
        ("set_input_tensors", ({},)), ("set_output_tensors", ({0: "T"},)), ("set_output_tensors",
        ({"sum": "T"},)),
        ("set_output_tensors", ({3: "T"},)), ("set_output_tensors", (["T"],)), ("set_output_tensors", ({},)),
    ],
    ids=repr,
)  # fmt: skip
def test_setting_tensors(method, args):
    def call(ov):
        named = {
            "T": ov.Tensor(X.copy()), "T7": ov.Tensor(X[:7].copy()), "T64": ov.Tensor(X.astype("f8")),
            "X": X.copy(),
        }  # fmt: skip

        def real(value):
            if isinstance(value, dict):
                return {k: real(v) for k, v in value.items()}
            if isinstance(value, list):
                return [real(v) for v in value]
            return named[value] if isinstance(value, str) and value in named else value

        request = cases.adder(ov).create_infer_request()
        request.infer([X, X])
        getattr(request, method)(*map(real, args))
        return request.infer()

    cases.check_alike(call, (method, args))


def test_lists_of_tensors():
    for call in (
        lambda r: list(r.input_tensors),
        lambda r: list(r.output_tensors),
        lambda r: r.results,
        lambda r: np.shares_memory(r.input_tensors[0].data, r.get_input_tensor(0).data),
        lambda r: r.query_state(),
        lambda r: r.reset_state(),
        lambda r: r.latency > 0,
        lambda r: r.userdata,
    ):

        def run(ov, call=call):
            request = cases.adder(ov).create_infer_request()
            request.infer([X, X])
            return call(request)

        cases.check_alike(run)


def test_profiling():
    request = cases.unary(ovjit).create_infer_request()
    request.infer(X)
    infos = request.get_profiling_info()
    assert infos
    assert all(info.status == ovjit.ProfilingInfo.Status.NOT_RUN and not info.real_time for info in infos)
    request = cases.unary(ovjit, PERF_COUNT=True).create_infer_request()
    request.infer(X)
    ran = [info for info in request.profiling_info if info.status == ovjit.ProfilingInfo.Status.EXECUTED]
    assert ran
    assert all(info.node_name and info.node_type and info.exec_type for info in ran)


# -- asynchronous ------------------------------------------------------------------------------------------


def test_start_async_and_wait():
    for ov in (ovjit, openvino):
        request = cases.adder(ov).create_infer_request()
        assert request.wait() is None
        assert request.wait_for(0) is False
        assert request.latency == 0.0
        with pytest.raises(RuntimeError):
            request.wait_for(-1)
        with pytest.raises(TypeError):
            request.wait_for(1.5)
        request.start_async([X, X])
        assert request.wait() is None
        assert request.wait_for(0) is True
        np.testing.assert_array_equal(request.results["sum"], 2 * X)
        request.start_async()
        request.wait()
        request.wait()
        assert request.latency > 0


def test_nobody_has_to_wait():
    request = cases.adder(ovjit).create_infer_request()
    request.start_async([X, X])
    while request._job.busy:
        time.sleep(0.001)
    np.testing.assert_array_equal(request.get_output_tensor().data, 2 * X)
    request.start_async([X, X + 1])
    while request._job.busy:
        time.sleep(0.001)
    np.testing.assert_array_equal(request.infer({"a": X + 1})[0], 2 * X + 2)


def test_callbacks_and_userdata():
    for ov in (ovjit, openvino):
        request = cases.adder(ov).create_infer_request()
        seen = []
        request.set_callback(seen.append, "first")
        assert request.userdata == "first"
        request.start_async([X, X])
        request.wait()
        request.start_async([X, X], "second")
        request.wait()
        request.start_async([X, X])
        request.wait()
        request.infer([X, X])
        assert seen == ["first", "second", "second"]
        assert request.userdata == "second"
        with pytest.raises(TypeError):
            request.set_callback(5, None)
        with pytest.raises(TypeError):
            request.set_callback(print)
        with pytest.raises(AttributeError):
            request.userdata = 3


def test_userdata_without_a_callback_warns():
    for ov in (ovjit, openvino):
        request = cases.adder(ov).create_infer_request()
        with pytest.warns(RuntimeWarning, match="no callback"):
            request.start_async([X, X], "lost")
        request.wait()
        assert request.userdata is None


def test_wait_goes_on_until_the_callback_has_ended():
    request = cases.adder(ovjit).create_infer_request()
    ended = []

    def slow(_):
        assert request.wait_for(0)  # in its own callback nothing is waited for
        np.testing.assert_array_equal(request.get_output_tensor().data, 2 * X)
        assert len(request.infer([X, X + 1])) == 1  # and the request is free
        time.sleep(0.1)
        ended.append(1)

    request.set_callback(slow, None)
    request.start_async([X, X])
    assert not request.wait_for(20)
    request.wait()
    assert ended == [1]


def test_a_callback_that_raises():
    for ov in (ovjit, openvino):
        request = cases.adder(ov).create_infer_request()

        def bad(_):
            raise KeyError("boom")

        request.set_callback(bad, None)
        request.start_async([X, X])
        for _ in range(2):
            with pytest.raises(RuntimeError, match="KeyError: 'boom'"):
                request.wait()
        np.testing.assert_array_equal(request.infer([X, X])[0], 2 * X)
        assert request.wait() is None


def test_a_request_restarted_in_its_callback():
    request = cases.adder(ovjit).create_infer_request()
    runs = []

    def again(_):
        runs.append(request.get_output_tensor().data[0].item())
        if len(runs) < 5:
            request.start_async({"b": np.full(8, len(runs), np.float32)})

    request.set_callback(again, None)
    request.start_async([np.zeros(8, np.float32), np.zeros(8, np.float32)])
    request.wait()
    assert runs == [0, 1, 2, 3, 4]


def test_a_running_request_is_busy():
    started, go = threading.Event(), threading.Event()
    request = cases.heavy(ovjit).create_infer_request()
    x = np.zeros((256, 256), np.float32)
    request.infer(x)
    request.start_async(x)
    tensor = ovjit.Tensor(x)
    calls = (
        lambda: request.infer(x), lambda: request.start_async(x), lambda: request.get_tensor("a"),
        lambda: request.get_input_tensor(), lambda: request.get_output_tensor(), lambda: request.results,
        lambda: request.set_tensor("a", tensor), lambda: request.set_input_tensor(tensor),
        lambda: request.set_callback(print, None), lambda: request.get_profiling_info(),
        lambda: request.input_tensors, lambda: request.query_state(), lambda: request.reset_state(),
    )  # fmt: skip
    refused = 0
    for call in calls:
        if not request._job.busy:
            request.start_async(x)
        try:
            call()
        except RuntimeError as error:
            assert "busy" in str(error)
            refused += 1
    request.wait()
    assert refused >= 3  # the others may have come after the end
    assert request.userdata is None
    assert len(request.model_inputs) == 1
    del started, go


def test_cancel():
    request = cases.heavy(ovjit, 128, 60).create_infer_request()
    x = np.full((128, 128), 1e-3, np.float32)
    expected = request.infer(x)[0]
    request.cancel()  # nothing runs
    cancelled = 0
    for i in range(100):
        request.start_async(x)
        if i % 2:
            time.sleep(0.0005)
        request.cancel()
        try:
            request.wait()
        except RuntimeError as error:
            cancelled += 1
            assert "cancel" in str(error).lower()
            with pytest.raises(RuntimeError):
                request.wait()
    assert cancelled > 20
    np.testing.assert_array_equal(request.infer(x)[0], expected)
    request.wait()


def test_no_callback_after_cancel():
    request = cases.heavy(ovjit, 128, 60).create_infer_request()
    seen = []
    request.set_callback(seen.append, 1)
    x = np.zeros((128, 128), np.float32)
    for _ in range(10):
        seen.clear()
        request.start_async(x)
        request.cancel()
        try:
            request.wait()
            assert seen == [1]
        except RuntimeError:
            assert seen == []


# -- CompiledModel -----------------------------------------------------------------------------------------


def test_one_compiled_model_called_by_many_threads():
    compiled = cases.adder(ovjit)
    wrong = []

    def work(seed):
        for i in range(200):
            x = np.full(8, seed * 1000 + i, np.float32)
            how = (x, [x, x]), (x, {"a": x, "b": x})
            result = compiled(how[i % 2][1], share_inputs=bool(i % 3))[0]
            if not (result == 2 * x).all():
                wrong.append((seed, i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    start_and_join(threads)
    assert not wrong
    assert 1 <= len(compiled._free) <= 16 and compiled._first in compiled._free


@pytest.mark.parametrize("callback", [False, True])
def test_one_request_started_and_waited_for_by_many_threads(callback):
    """It is busy for all but one, and answers. A thread that waits may see the end of a run when another has
    already begun the next."""
    x = ovjit.opset8.parameter([4, 64], np.float32)
    y = x
    for _ in range(6):
        y = ovjit.opset8.tanh(ovjit.opset8.add(y, np.float32(1)))
    compiled = ovjit.compile_model(ovjit.Model([y], [x]), "CPU")
    want = {k: compiled([np.full((4, 64), k, np.float32)])[0].copy() for k in range(1, 4)}
    request = compiled.create_infer_request()
    if callback:
        request.set_callback(lambda userdata: None, None)
    end = time.monotonic() + 1.5
    failed = []

    def start(k):
        while time.monotonic() < end:
            with contextlib.suppress(errors.Busy):
                request.start_async([np.full((4, 64), k, np.float32)])
            request.wait()

    def infer(k):
        while time.monotonic() < end:
            with contextlib.suppress(errors.Busy):
                if not np.array_equal(request.infer([np.full((4, 64), k, np.float32)])[0], want[k]):
                    failed.append(k)

    threads = [threading.Thread(target=start, args=(1,), daemon=True) for _ in range(4)]
    threads += [threading.Thread(target=infer, args=(k,), daemon=True) for k in (2, 3)]
    run_threads(threads, until=end + 20)
    assert not any(thread.is_alive() for thread in threads), "a wait does not end"
    assert not failed
    request.start_async([np.full((4, 64), 1, np.float32)])
    request.wait()
    np.testing.assert_array_equal(request.results[0], want[1])


def test_calls_keep_inputs_and_new_requests_do_not():
    compiled = cases.adder(ovjit)
    compiled([X, X])
    np.testing.assert_array_equal(compiled({0: X + 1})[0], 2 * X + 1)
    np.testing.assert_array_equal(compiled.infer_new_request([X, X])[0], 2 * X)
    np.testing.assert_array_equal(compiled.infer_new_request({0: X})[0], X)  # what was never given is zero
    np.testing.assert_array_equal(compiled()[0], 2 * X + 1)
    compiled.release_memory()
    np.testing.assert_array_equal(compiled([X, X])[0], 2 * X)
    assert compiled.query_state() == []
    assert compiled.reset_state() is None


def test_constructors_and_copies():
    import copy

    compiled = cases.adder(ovjit)
    request = compiled.create_infer_request()
    assert ovjit.InferRequest(request) is request
    assert ovjit.CompiledModel(compiled) is compiled
    for make in (
        ovjit.InferRequest,
        ovjit.CompiledModel,
        lambda: ovjit.InferRequest(5),
        lambda: copy.copy(request),
    ):
        with pytest.raises(TypeError):
            make()
    with pytest.raises(TypeError):
        request.infer([X, X], True, True, True)


# -- element types -----------------------------------------------------------------------------------------


def identity(ov, type_name, shape):
    a = ov.opset8.parameter(list(shape), dtype=getattr(ov.Type, type_name), name="a")
    return ov.Core().compile_model(ov.Model([a], [a], "same"), "CPU")


def test_bf16_takes_and_gives_bits():
    bits = np.array([0x3F80, 0xC000, 0x4049], np.uint16).view(np.float16)
    for ov in (ovjit, openvino):
        compiled = identity(ov, "bf16", (3,))
        result = compiled(bits, share_inputs=True)[0]
        assert result.dtype == np.float16
        np.testing.assert_array_equal(result.view(np.uint16), bits.view(np.uint16))
    import ml_dtypes

    values = np.array([1, -2, 3.14], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(identity(ovjit, "bf16", (3,))(values)[0].view(ml_dtypes.bfloat16), values)
    with pytest.raises(RuntimeError, match="bf16"):
        identity(ovjit, "bf16", (3,))(np.zeros(3, np.float32))


@pytest.mark.parametrize("count", [1, 2, 7, 8])
@pytest.mark.parametrize("name", ["u4", "i4"])
def test_packed_types(name, count):
    rng = np.random.default_rng(count)
    packed = rng.integers(0, 256, (count + 1) // 2, np.uint8)
    if count % 2:
        packed[-1] &= 15
    results = {}
    for ov in (ovjit, openvino):
        tensor = ov.Tensor(packed.copy(), [count], getattr(ov.Type, name))
        request = identity(ov, name, (count,)).create_infer_request()
        results[ov] = request.infer({0: tensor})[0]
        results[ov, "tensor"] = request.get_output_tensor().data
    np.testing.assert_array_equal(results[ovjit].view(np.uint8), packed)
    np.testing.assert_array_equal(results[ovjit], results[openvino])
    np.testing.assert_array_equal(results[ovjit, "tensor"], results[openvino, "tensor"])
    with pytest.raises(RuntimeError):
        identity(ovjit, name, (count,))(packed)


@pytest.mark.parametrize(
    "value",
    [np.array(["ab", "ä€", ""]), np.array([b"ab", b"c", b""]), ["ab", "c", ""], {0: ["x", "y", "z"]}],
    ids=repr,
)
def test_strings(value):
    for decode in (True, False):
        cases.check_alike(
            lambda ov, decode=decode: identity(ov, "string", (3,))(value, decode_strings=decode)
        )


@pytest.mark.parametrize("name", ["f64", "u64", "i16", "u8", "boolean", "f16"])
def test_other_types_pass_through(name):
    dtype = getattr(ovjit.Type, name).to_dtype()
    value = np.array([0, 1, 1], dtype)
    result = identity(ovjit, name, (3,))(value)[0]
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, value)


@pytest.mark.parametrize("ov", [openvino, ovjit], ids=["openvino", "ovjit"])
def test_tensors_that_get_another_shape_after_they_were_set(ov) -> None:
    x = np.arange(16, dtype=np.float32)
    compiled = cases.unary(ov, (16,))
    for new in ([4], [0], [2, 8], [20]):
        request, tensor = compiled.create_infer_request(), ov.Tensor(ov.Type.f32, [16])
        request.set_output_tensor(tensor)
        tensor.shape = new
        got = str(new).replace(" ", "")
        with pytest.raises(RuntimeError, match="output tensor size is not equal to the model out") as error:
            request.infer([x])
        assert f"got {got} expecting [16]" in str(error.value)
        tensor.shape = [16]
        request.infer([x])
        np.testing.assert_array_equal(tensor.data, np.maximum(x, 0))
        request, tensor = compiled.create_infer_request(), ov.Tensor(ov.Type.f32, [16])
        request.set_input_tensor(tensor)
        tensor.shape = new
        with pytest.raises(RuntimeError, match="input tensor size is not equal to the model input") as error:
            request.infer()
        assert f"got {got} expecting [16]" in str(error.value)
    with pytest.raises(RuntimeError, match="the model output size = 16 and the currernt tensor size = 0"):
        compiled.create_infer_request().set_output_tensor(ov.Tensor(ov.Type.f32, [0]))


def test_an_output_over_an_input() -> None:
    """Memory that the caller gives for both: the answer is right wherever one begins in the other."""
    compiled = cases.unary(ovjit, (64,))
    for shift in (0, 1, 3, 8, 9, 31, 63):
        memory = np.linspace(-1, 1, 160, dtype=np.float32)
        for begin, end in ((0, shift), (shift, 0)):
            request = compiled.create_infer_request()
            x, y = memory[begin : begin + 64], memory[end : end + 64]
            request.set_input_tensor(ovjit.Tensor(x, shared_memory=True))
            request.set_output_tensor(ovjit.Tensor(y, shared_memory=True))
            for _ in range(2):
                memory[:] = np.random.default_rng(shift).standard_normal(160)
                want = np.maximum(x, 0)
                request.infer()
                np.testing.assert_array_equal(y, want)
            other = np.ones(64, np.float32)
            request.set_input_tensor(ovjit.Tensor(other, shared_memory=True))
            request.infer()
            np.testing.assert_array_equal(y, other)


@pytest.mark.parametrize("way", ["tensor", "shared result"])
def test_an_output_that_is_the_next_input(way: str) -> None:
    from ovjit import opset13 as op

    x = op.parameter([5, 7], np.float32, name="x")
    y = op.reshape(op.transpose(x, op.constant(np.array([1, 0]))), op.constant(np.array([5, 7])), False)
    compiled = ovjit.compile_model(ovjit.Model([y], [x], "m"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    start = np.arange(35, dtype=np.float32).reshape(5, 7)
    request, want = compiled.create_infer_request(), start
    found = request.infer([start], share_outputs=True)[0]
    for _ in range(4):
        want = want.T.reshape(5, 7)
        np.testing.assert_array_equal(found, want)
        if way == "tensor":
            request.set_input_tensor(request.get_output_tensor())
            request.infer()
            found = request.get_output_tensor().data
        else:
            found = request.infer([found], share_inputs=True, share_outputs=True)[0]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pickled", [False, True], ids=["", "copies have all"])
@pytest.mark.parametrize("way", ["refused", "cancelled", "collected", "callback", "queue", "queue callback"])
def test_a_handled_error_keeps_no_memory(way, pickled, monkeypatch) -> None:
    """An error has frames, and they have requests and arrays: none of them waits for the collector, and an
    error that is told again has no frames of before."""
    if pickled:  # as after `import dask`, if tblib is installed: a pickled error has its traceback, too
        for kind in (errors.OvjitError, errors.InferenceError, errors.Cancelled, ValueError):
            monkeypatch.setitem(copyreg.dispatch_table, kind, whole_error)
    compiled = cases.endless(ovjit)

    def call_back(*arguments: object) -> None:
        raise ValueError("the user's own")

    def run(request: ovjit.InferRequest, array: np.ndarray) -> None:
        if way == "refused":
            request.infer([array[0]])
        elif "queue" in way:
            queue = ovjit.AsyncInferQueue(compiled, 1)
            made.append(queue)
            if way == "queue callback":
                queue.set_callback(call_back)
            queue.start_async([array, way == "queue"])
            if way == "queue":
                queue[0].cancel()
            queue.wait_all()
        else:
            if way == "callback":
                request.set_callback(call_back, None)
            request.start_async([array, way != "callback"])
            if way != "callback":
                request.cancel()
            while way == "collected" and request._guard.locked():
                with contextlib.suppress(errors.Busy):
                    request._check_idle()
            request.wait()

    def fail() -> tuple[list[weakref.ref], list[str], list[int]]:
        request, array = compiled.create_infer_request(), np.zeros((256, 256), np.float32)
        said, frames = [], []
        for again in range(1 if way == "refused" else 3):
            try:
                if again:
                    (made[-1][0] if "queue" in way else request).wait()
                else:
                    run(request, array)
                said.append("")
            except (RuntimeError, ValueError) as error:
                said.append(str(error))
                frames.append(len(traceback.extract_tb(error.__traceback__)))
        return [weakref.ref(request._job), weakref.ref(array)], said, frames

    made: list[ovjit.AsyncInferQueue] = []
    fail()
    gc.collect()
    gc.disable()
    try:
        kept, said, frames = fail()
        assert [ref() for ref in kept] == [None, None]
    finally:
        gc.enable()
    if way == "queue callback":
        assert said == ["the user's own", "", ""]  # which is the queue's, not the request's
    else:
        assert said[0] and len(set(said)) == 1, said
        assert all(count <= 3 for count in frames[1:]), frames


def test_an_error_that_causes_itself_is_told_again_with_each_cause_once() -> None:
    """As what Python makes of errors may be: a chain of causes ends nowhere."""
    first, second = ValueError("the first"), KeyError("the second")
    first.__cause__, second.__cause__ = second, first

    def call_back(_: object) -> None:
        raise first

    request = cases.adder(ovjit).create_infer_request()
    request.set_callback(call_back, None)
    request.start_async([np.ones(8, np.float32)] * 2)
    for again in range(3):
        with pytest.raises(RuntimeError, match="the first") as caught:
            request.wait()
        causes, error = [], caught.value.__cause__
        while again and error is not None and len(causes) < 9:
            causes.append(str(error))
            error = error.__cause__
        assert not again or causes == ["the first", "'the second'"]


def whole_error(error: BaseException) -> tuple:
    """What tblib has a copy of an error made of."""
    return with_traceback, (type(error), error.args, error.__traceback__, error.__cause__)


def with_traceback(kind, args, traceback, cause) -> BaseException:
    error = kind(*args).with_traceback(traceback)
    error.__cause__ = cause
    return error


def test_a_result_that_does_not_fit_a_given_tensor_leaves_the_request_usable() -> None:
    """Shared memory cannot grow: `wait` raises it, or the next call that collects notes it."""
    ops = ovjit.opset13
    x = ops.parameter([-1, 4], np.float32)
    compiled = ovjit.compile_model(ovjit.Model([ops.relu(x)], [x]), "CPU")
    request = compiled.create_infer_request()
    small, large = (ovjit.Tensor(np.zeros((n, 4), np.float32), shared_memory=True) for n in (3, 5))
    data = np.ones((5, 4), np.float32)
    for waits in (True, False):
        request.set_output_tensor(0, small)
        request.start_async([data])
        if waits:
            with pytest.raises(RuntimeError, match="shared memory cannot grow"):
                request.wait()
        else:
            while request._job.busy:
                time.sleep(0.001)
        request.set_output_tensor(0, large)
        request.infer([data])
        np.testing.assert_array_equal(large.data, data)


def total_of(ov: Any) -> Any:
    """A request on a model with a state, which has run once."""
    ops = ov.opset8
    x = ops.parameter([2, 3], np.float32, name="x")
    new = ops.add(ops.read_value("total", np.float32, ov.PartialShape([2, 3])), x)
    model = ov.Model([ops.result(new)], [ops.assign(new, "total")], [x])
    request = ov.compile_model(model, "CPU").create_infer_request()
    request.infer([np.ones((2, 3), np.float32)])
    return request


def new_tensor() -> ovjit.Tensor:
    return ovjit.Tensor(np.zeros((2, 3), np.float32))


#: What reads or changes a request's data.
ACCESSES: dict[str, Callable[[Any], Any]] = {
    "set_tensor": lambda request: request.set_tensor("x", new_tensor()),
    "set_tensors": lambda request: request.set_tensors({0: new_tensor()}),
    "batch": lambda request: request.set_input_tensors([ovjit.Tensor(np.zeros((1, 3), np.float32))] * 2),
    "set_input_tensor": lambda request: request.set_input_tensor(new_tensor()),
    "set_output_tensor": lambda request: request.set_output_tensor(new_tensor()),
    "input_tensors": lambda request: request.input_tensors,
    "results": lambda request: request.results,
    "reset_state": lambda request: request.reset_state(),
    "state": lambda request: request.query_state()[0].state,
    "set state": lambda request: setattr(request.query_state()[0], "state", new_tensor()),
    "reset": lambda request: request.query_state()[0].reset(),
}


#: The functions that do so, and their files.
CHANGES = frozenset("bind bind_batch tensor refresh copy_results show set reset reset_all".split())
PLACES = ("slots.py", "blocks.py", "states.py")


@pytest.mark.parametrize("name", ACCESSES)
def test_no_inference_begins_while_a_request_s_data_are_read_or_changed(name: str) -> None:
    """Another thread's inference would read the new address of an input, or memory that was freed."""
    request = total_of(ovjit)
    ACCESSES[name](request)
    held: dict[str, bool] = {}

    def note(frame: Any, event: str, _: object) -> None:
        code, path = frame.f_code, frame.f_code.co_filename.replace("\\", "/")
        if event == "call" and code.co_name in CHANGES and path.endswith(PLACES):
            held[code.co_name] = held.get(code.co_name, True) and request._guard.locked()

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        ACCESSES[name](request)
    finally:
        sys.setprofile(before)
    assert held and all(held.values()), held
    assert not request._guard.locked()


def test_results_are_of_one_inference_while_other_threads_begin_more() -> None:
    """Busy, or all outputs of one inference: none of them while the next one writes it."""
    ops = ovjit.opset13
    x = ops.parameter([96, 96], np.float32, name="x")
    product = x
    for _ in range(4):
        product = ops.matmul(product, x, False, False)
    model = ovjit.Model([product, ops.multiply(x, np.float32(2))], [x])
    compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    eye = np.eye(96, dtype=np.float32)
    request.infer([eye])
    wrong: list[Any] = []
    end = time.monotonic() + 1

    def infer(factor: float) -> None:
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):
                request.infer([eye * np.float32(factor)])

    def look() -> None:
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):
                power, double = request.results.to_tuple()
                if not np.array_equal(power, eye * (double[0, 0] / 2) ** 5):
                    wrong.append((double[0, 0], power))

    threads = [threading.Thread(target=infer, args=(factor,)) for factor in (2, 3)]
    run_threads([*threads, threading.Thread(target=look), threading.Thread(target=look)])
    assert not wrong, (len(wrong), wrong[0])


@pytest.mark.timeout(60)
def test_threads_that_wait_for_a_guard_without_an_owner_do_not_wait_for_each_other() -> None:
    """After an interrupt that came just when it was taken: all get their answers."""
    request = total_of(ovjit)
    assert request._acquire(False)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(request.results)) for _ in range(4)]
    run_threads(threads)
    assert len(found) == 4


def test_what_runs_within_a_change_of_tensors_finds_the_request_busy(monkeypatch) -> None:
    """Such as a finalizer or a signal's handler, which would wait for itself."""
    request = total_of(ovjit)
    told: list[str] = []

    def bind(slot: Any, *_: object) -> None:
        with pytest.raises(errors.Busy) as refused:
            request.infer()
        told.append(str(refused.value))

    monkeypatch.setattr(type(request._inputs[0]), "bind", bind)
    request.set_input_tensor(new_tensor())
    assert len(told) == 1 and "busy" in told[0]
    monkeypatch.undo()
    request.infer()


@pytest.mark.timeout(60)
def test_threads_may_run_code_whose_constants_have_no_hash() -> None:
    """As TorchDynamo makes it. Owners of guards, lost jobs and signals' handlers are found by their code."""
    end = threading.Event()

    def wait() -> None:
        end.wait()

    def fail() -> None:
        raise KeyError

    for function in (wait, fail):
        function.__code__ = function.__code__.replace(co_consts=(*function.__code__.co_consts, {}))
    with pytest.raises(TypeError, match="unhashable"):
        hash(wait.__code__)
    request = total_of(ovjit)
    queue = ovjit.AsyncInferQueue(request.get_compiled_model(), 1)
    thread = threading.Thread(target=wait)
    thread.start()
    try:
        assert request._acquire(False)
        assert request.results.to_tuple()[0].tolist() == [[1] * 3] * 2
        queue._pool.suspect = True
        queue.wait_all()
    finally:
        end.set()
        thread.join()
    with pytest.raises(KeyError):
        try:
            fail()
        except errors.unless_of_signal(ValueError):
            pass


@pytest.mark.timeout(60)
def test_a_guard_is_not_taken_from_a_thread_that_has_just_got_it() -> None:
    """It had to wait for the guard, and is not yet back in the method that uses it."""
    request = total_of(ovjit)
    assert request._acquire(False)  # nobody has it, as after an interrupt
    acquire, got, may_go_on = request._acquire, threading.Event(), threading.Event()
    me = threading.get_ident()

    def acquire_and_stop(block: bool) -> bool:
        taken = acquire(block)
        if taken and threading.get_ident() != me:
            got.set()
            assert may_go_on.wait(60)
        return taken

    request._acquire = acquire_and_stop
    thread = threading.Thread(target=lambda: request.results)
    thread.start()
    assert got.wait(60)
    threading.Timer(0.05, may_go_on.set).start()
    with contextlib.suppress(errors.Busy):
        request.infer()
    assert may_go_on.is_set()
    thread.join()


class Visited(dict):
    """Jobs of a pool. `visit` is called once as one is taken out, as a signal's handler may be there."""

    visit: Callable[[], None] | None = None

    def pop(self, *args: Any) -> Any:
        visit, self.visit = self.visit, None
        if visit is not None:
            visit()
        return super().pop(*args)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("again", [False, True], ids=["waits", "starts"])
@pytest.mark.parametrize("shown", [False, True], ids=["", "shown"])
def test_a_handler_of_a_signal_waits_for_a_request_whose_end_is_being_noted(again: bool, shown: bool) -> None:
    """As one does that ends a program when its work is done. It may even start the next inference."""
    request = cases.adder(ovjit).create_infer_request()
    pool = request._job._pool
    if shown:
        request.get_output_tensor(0)
    jobs = pool.running = Visited(pool.running)

    def visit() -> None:
        request.wait()
        if again:
            request.start_async([X, 3 * X])

    for _ in range(3):
        request.start_async([X, X])
        jobs.visit = visit
        request.wait()
        assert jobs.visit is None
        request.wait()
        np.testing.assert_array_equal(request.results[0], (4 if again else 2) * X)
        np.testing.assert_array_equal(request.infer([X, 2 * X])[0], 3 * X)
    pool.running = dict(jobs)


@pytest.mark.timeout(60)
def test_a_handler_of_a_signal_finds_a_request_busy_that_is_being_started(monkeypatch) -> None:
    request = cases.adder(ovjit).create_infer_request()
    start = type(request._job).start
    told: list[Any] = []

    def start_late(*args: Any) -> None:
        for access in (lambda: request.infer([X, X]), lambda: request.results, request.query_state):
            with pytest.raises(errors.Busy):
                access()
            told.append(access)
        start(*args)

    monkeypatch.setattr(type(request._job), "start", start_late)
    request.start_async([X, X])
    request.wait()
    assert len(told) == 3
    np.testing.assert_array_equal(request.results[0], 2 * X)


def test_the_request_of_a_running_call_is_not_shown() -> None:
    """A call of a model without variables holds no guard: who then asks for the kept request gets another."""
    x = ovjit.opset8.parameter([2], np.float32)
    compiled = ovjit.compile_model(ovjit.Model([ovjit.opset8.relu(x)], [x]), "CPU")
    compiled(np.float32([1, 2]))
    running = compiled._free.pop()  # as a call does
    shown = compiled._infer_request
    assert shown is not None and shown is not running and compiled._kept_request() is shown
    compiled._free.append(running)
    shown.infer(np.float32([3, 4]))
    compiled(np.float32([5, 6]))
    assert shown.get_output_tensor().data.tolist() == [5, 6]
    with shown._guard:  # as another thread's inference on it
        assert compiled(np.float32([7, 8]))[0].tolist() == [7, 8]
    assert shown.get_output_tensor().data.tolist() == [5, 6]
