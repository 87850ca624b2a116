"""What the tests of the inference API share: small models on either package, and outcomes that compare."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino

import ovjit

#: OpenVINO computes in the model's own types, as ovjit always does.
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def compiled_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """OpenVINO's models are compiled once for each set of arguments, as each takes it some 30 ms. Callers get
    a CompiledModel and requests of their own. ovjit's are compiled by each call."""
    known: dict[str, Any] = {}

    @functools.wraps(make)
    def made(ov: Any, *args: Any, **config: Any) -> Any:
        if ov is not openvino:
            return make(ov, *args, **config)
        key = repr((args, sorted(config.items())))
        if key not in known:
            known[key] = make(ov, *args, **config)
        return openvino.CompiledModel(known[key])

    return made


@compiled_once
def unary(
    ov: Any, shape: Any = (8,), dtype: Any = np.float32, op: str = "relu", device: str = "CPU", **config: Any
) -> Any:
    """A compiled model of one operation on the input "a"."""
    a = (
        ov.opset8.parameter(shape if isinstance(shape, str) else list(shape), dtype=dtype, name="a")
        if not (isinstance(shape, str))
        else ov.opset8.parameter(ov.PartialShape(shape), dtype=dtype, name="a")
    )
    return ov.Core().compile_model(
        ov.Model([getattr(ov.opset8, op)(a)], [a], "one"), device, {**EXACT, **config}
    )


@compiled_once
def adder(ov: Any, shape: Any = (8,), **config: Any) -> Any:
    """A compiled model: inputs "a" and "b", output "sum"."""
    a, b = (ov.opset8.parameter(list(shape), dtype=np.float32, name=n) for n in "ab")
    total = ov.opset8.add(a, b)
    total.output(0).set_names({"sum"})
    return ov.Core().compile_model(ov.Model([total], [a, b], "adder"), "CPU", {**EXACT, **config})


@compiled_once
def two_outputs(ov: Any) -> Any:
    """A compiled model: input "a", outputs "neg" and "abs"."""
    a = ov.opset8.parameter([4], dtype=np.float32, name="a")
    results = []
    for op, name in (("negative", "neg"), ("absolute", "abs")):
        node = getattr(ov.opset8, op)(a)
        node.output(0).set_names({name})
        results.append(node)
    return ov.Core().compile_model(ov.Model(results, [a], "two"), "CPU", EXACT)


def heavy(ov: Any, size: int = 256, layers: int = 40) -> Any:
    """A compiled model that runs for a while: `layers` matrix products of size x size."""
    x = ov.opset8.parameter([size, size], dtype=np.float32, name="a")
    y = x
    for _ in range(layers):
        y = ov.opset8.matmul(y, x, False, False)
    return ov.Core().compile_model(ov.Model([y], [x], "heavy"), "CPU", EXACT)


def endless(ov: Any) -> Any:
    """A compiled model that adds 1 for ever to its first input, [256, 256], if the second one is true."""
    ops = ov.opset13
    x, goes_on = ops.parameter([256, 256], np.float32), ops.parameter([], np.bool_)
    v, true = ops.parameter([256, 256], np.float32), ops.constant(np.array(True))
    more = ops.add(v, ops.constant(np.float32(1)))
    node = ops.loop(ops.constant(np.int64(-1)), goes_on)
    node.set_function(ov.Model([true, more], [v]))
    node.set_special_body_ports([-1, 0])
    node.set_merged_input(v, x.output(0), more.output(0))
    model = ov.Model([node.get_iter_value(more.output(0))], [x, goes_on])
    return ov.Core().compile_model(model, "CPU", EXACT)


def plain(value: Any) -> Any:
    """A value of either package in a form that compares."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return {plain(v) for v in value}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "to_tuple"):  # OVDict
        return [plain(v) for v in value.to_tuple()]
    if type(value).__name__ == "Tensor":
        return str(value.element_type), list(value.shape), value.data.tolist()
    return repr(value)


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """("returns", value) or ("raises", exception)."""
    try:
        return "returns", plain(call())
    except Exception as error:
        return "raises", error


def check_alike(call: Callable[[Any], Any], what: object = "") -> None:
    """`call(package)` does the same with both packages; what OpenVINO raises is caught alike."""
    kind, theirs = outcome(lambda: call(openvino))
    mine_kind, mine = outcome(lambda: call(ovjit))
    if kind == "raises":
        assert mine_kind == "raises", f"{what}: OpenVINO raises {theirs!r}, ovjit returns {mine!r}"
        assert isinstance(mine, type(theirs)), f"{what}: OpenVINO raises {theirs!r}, ovjit {mine!r}"
        assert "src/" not in str(mine)
    else:
        assert (mine_kind, mine) == (kind, theirs), what
