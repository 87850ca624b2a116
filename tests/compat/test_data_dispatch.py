"""`openvino.utils.data_helpers`: what packages around OpenVINO call to make Tensors of inputs."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np
import pytest

SETUP = """
import functools
import openvino.utils.data_helpers.data_dispatcher as dd
from openvino.utils.data_helpers import _data_dispatch

@functools.cache
def compiled(shape, dtype, inputs):
    ps = [ov.opset13.parameter(list(shape), dtype, name=f"data{i}") for i in range(inputs)]
    model = ov.Model([ov.opset13.result(p) for p in ps], ps)
    return ov.Core().compile_model(model, "CPU")

def request(shape, dtype=np.float32, inputs=1):
    return compiled(tuple(shape), dtype, inputs).create_infer_request()

def shown(value):
    if isinstance(value, dict):
        return {k: shown(v) for k, v in value.items()}
    strings = value.element_type == ov.Type.string
    return str(value.element_type), list(value.shape), (value.str_data if strings else value.data).tolist()

def dispatched(inputs, shared, shape, dtype=np.float32, count=1):
    r = request(shape, dtype, count)
    for tensor in r.input_tensors:  # OpenVINO leaves them as they are
        if tensor.element_type != ov.Type.string:
            tensor.data[...] = 0
    out = _data_dispatch(r, inputs, shared)
    return shown(out), (shown(r.input_tensors[0]) if out == {} else None)

class Array:
    def __init__(self, array):
        self.array = array
    def __array__(self, dtype=None, copy=None):
        return self.array
"""


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "copied"])
def shared(request):
    return request.param


SINGLE = [
    "np.float64(2)", "np.int_(1)", "3", "2.5", "True", "np.array(2.0, np.float32)", "np.array(1, np.int8)",
    "np.array([1.0, 2.0])", "np.ones((2, 2), np.float32)", "np.ones((3,), np.int8)", "[1, 2]", "[1.5]",
    "[np.ones(2)]", "(np.ones(2, np.float32),)", "{0: np.ones(2)}", "{'data0': [1, 2]}", "{0.5: np.ones(2)}",
    "Array(np.ones(2, np.float32))", "ov.Tensor(np.ones((2, 2)))", "None", "[]", "{}", "object()",
    "{0: object()}", "{0: None}", "np.asfortranarray(np.ones((2, 3), np.float32))",
]  # fmt: skip


@pytest.mark.parametrize("value", SINGLE)
@pytest.mark.parametrize("shape", ["[2]", "[1]", "[]", "[-1]"])
def test_values_for_one_input(value, shape, shared):
    same(f"dispatched({value}, {shared}, {shape})")


@pytest.mark.parametrize("dtype", ["bf16", "f16", "i8", "boolean", "i64", "f64"])
@pytest.mark.parametrize("array", ["np.array([1, 2], np.float16)", "np.array([1, 0])", "[True, False]"])
def test_values_take_the_type_of_the_input(dtype, array, shared):
    same(f"dispatched({array}, {shared}, [2], ov.Type.{dtype})")


@pytest.mark.parametrize(
    "value",
    ["np.array(['śćż', 'b'])", "np.array(['ab', 'b']).astype('S')", "['ś', 'b']", "[b'a', b'b']"],
)
def test_strings(value, shared):
    same(f"dispatched({value}, {shared}, [2], ov.Type.string)")
    if value.startswith("["):
        same(f"dispatched({value}[0], {shared}, [], ov.Type.string)")


@pytest.mark.parametrize(
    "value",
    ["[np.ones(2), np.zeros(2)]", "{1: np.ones(2)}", "[1, 2]", "(np.ones(2), [1.0, 2.0])", "np.ones(2)",
     "{5: np.ones(2)}", "{'zz': np.ones(2)}"],
)  # fmt: skip
def test_two_inputs(value, shared):
    same(f"dispatched({value}, {shared}, [2], np.float32, 2)")


def test_memory_is_shared_where_it_can_be():
    same(
        "a = np.ones((2, 2), np.float32); b = np.ones((2, 2)); c = np.asfortranarray(a)\n"
        "frozen = np.ones((2, 2), np.float32); frozen.setflags(write=False)\n"
        "[np.shares_memory(_data_dispatch(request([2, 2]), x, True).data, x) for x in (a, b, c, frozen)]"
        " + [np.shares_memory(_data_dispatch(request([2, 2]), Array(a), True).data, a)]"
    )


def test_requests_keep_what_is_copied():
    names = namespace("ovjit")
    dd, request = names["dd"], names["request"]([2])
    array = np.ones(2, np.float32)
    assert dd._data_dispatch(request, array, False) == {}
    array[:] = 5
    assert request.input_tensors[0].data.tolist() == [1, 1]
    for key in (0, "data0", request.model_inputs[0], None):
        tensor = dd.get_request_tensor(request, key)
        assert tensor.data.tolist() == [1, 1]
        dd.set_request_tensor(request, tensor, key)
    with pytest.raises(TypeError, match="Unsupported key type"):
        dd.get_request_tensor(request, 0.5)


@functools.cache
def namespace(package: str) -> dict[str, Any]:
    names: dict[str, Any] = {"np": np, "ov": importlib.import_module(package)}
    exec(SETUP.replace("openvino", package), names)
    return names


def outcome(package: str, source: str) -> Any:
    *statements, expression = source.split("\n")
    names = dict(namespace(package))
    try:
        for statement in statements:
            exec(statement, names)
        return repr(eval(expression, names))
    except Exception:
        return "raises"


def same(source: str) -> None:
    real, mine = outcome("openvino", source), outcome("ovjit", source)
    assert mine == real, f"{source}\nOpenVINO: {real}\novjit:    {mine}"
