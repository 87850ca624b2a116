"""Normalisations at their edges: statistics for each element, and epsilons of 0."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import ovjit as ov

F = np.float32
RNG = np.random.default_rng(20271127)


def model_of(
    operator: str, version: int, inputs: list[np.ndarray], constants: int = 0, shape: Any = None,
    domain: str = "", **attributes: Any,
) -> bytes:  # fmt: skip
    """A node whose last `constants` inputs are initializers; the first has the shape `shape`, if given."""
    names = [f"x{i}" for i in range(len(inputs))]
    node = helper.make_node(operator, names, ["y"], "the_node", domain=domain, **attributes)
    kept = len(inputs) - constants
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape if shape and i == 0 else value.shape)
        for i, (name, value) in enumerate(zip(names[:kept], inputs, strict=False))
    ]
    stored = [
        helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel())
        for name, value in zip(names[kept:], inputs[kept:], strict=True)
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", infos, [result], stored)
    imports = [helper.make_opsetid("", version)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def run(model: bytes, inputs: list[np.ndarray]) -> np.ndarray:
    return ov.Core().compile_model(model, "CPU")(inputs)[0]


def run_onnxruntime(model: bytes, inputs: list[np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True)))[0]


def statistics(shape: tuple[int, ...]) -> list[np.ndarray]:
    """scale, B, mean, var"""
    return [*(RNG.standard_normal(shape).astype(F) for _ in range(3)), RNG.random(shape).astype(F)]


@pytest.mark.parametrize("constants", [0, 4])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 3, 4, 5), (1, 1, 1)])
@pytest.mark.parametrize("version", [7, 8])
def test_statistics_for_each_element_of_a_row(version: int, shape: tuple[int, ...], constants: int) -> None:
    inputs = [RNG.standard_normal(shape).astype(F), *statistics(shape[1:])]
    model = model_of("BatchNormalization", version, inputs, constants, spatial=0, epsilon=1e-3)
    given = inputs[: 5 - constants]
    np.testing.assert_allclose(run(model, given), run_onnxruntime(model, given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("version", [1, 6])
@pytest.mark.parametrize(("shape", "row"), [((3, 4), (4,)), ((3, 4, 5), (4, 5)), ((3, 4, 5), (4,))])
def test_statistics_in_versions_that_onnx_runtime_has_not(
    version: int, shape: tuple[int, ...], row: tuple[int, ...]
) -> None:
    x, scale, bias, mean, var = inputs = [RNG.standard_normal(shape).astype(F), *statistics(row)]
    attributes: dict[str, Any] = {"spatial": 0, "epsilon": 1e-3, "is_test": 1}
    if version == 1:
        attributes["consumed_inputs"] = [0, 0, 0, 1, 1]
    model = model_of("BatchNormalization", version, inputs, **attributes)
    wide = [v.astype(np.float64).reshape(*row, *[1] * (len(shape) - 1 - len(row))) for v in inputs[1:]]
    expected = (x - wide[2]) / np.sqrt(wide[3] + 1e-3) * wide[0] + wide[1]
    np.testing.assert_allclose(run(model, inputs), expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_rows_with_an_open_batch() -> None:
    inputs = [RNG.standard_normal((5, 3, 4)).astype(F), *statistics((3, 4))]
    shape = ["batch", 3, 4]
    model = model_of("BatchNormalization", 7, inputs, 4, shape, spatial=0)
    np.testing.assert_allclose(
        run(model, inputs[:1]), run_onnxruntime(model, inputs[:1]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("shape", "row"), [((3, 4, 5), (4,)), ((3, 4, 5), (5,)), ((3, 4, 5), (4, 1)),
                                            ((3, 4, 5), (3, 4, 5)), ((3, 4), (3,))])  # fmt: skip
def test_statistics_of_other_shapes_are_refused(shape: tuple[int, ...], row: tuple[int, ...]) -> None:
    inputs = [RNG.standard_normal(shape).astype(F), *statistics(row)]
    with pytest.raises(RuntimeError, match="the_node"):
        ov.Core().read_model(model_of("BatchNormalization", 7, inputs, spatial=0))


def test_training_with_statistics_for_each_element_is_refused() -> None:
    inputs = [RNG.standard_normal((3, 4, 5)).astype(F), *statistics((4, 5))]
    model = model_of("BatchNormalization", 7, inputs, spatial=0)
    import onnx

    proto = onnx.ModelProto.FromString(model)
    proto.graph.node[0].output.extend(["mean_out", "var_out"])
    proto.graph.output.append(helper.make_tensor_value_info("mean_out", TensorProto.FLOAT, None))
    with pytest.raises(RuntimeError, match="training mode"):
        ov.Core().read_model(proto.SerializeToString())


X = RNG.standard_normal((2, 4, 3, 3)).astype(F)
C = [RNG.standard_normal(4).astype(F) for _ in range(2)]
ROW = [np.array([1, 2, -3], F), np.array([0.5, 0, 1], F)]
#: operator, version, inputs behind the first, attributes
NORMALIZATIONS: list[tuple[str, int, list[np.ndarray], dict[str, Any]]] = [
    ("InstanceNormalization", 6, C, {}),
    ("LayerNormalization", 17, ROW, {}),
    ("GroupNormalization", 21, C, {"num_groups": 2}),
    ("GroupNormalization", 18, [v[:2] for v in C], {"num_groups": 2}),
    ("RMSNormalization", 23, ROW[:1], {}),
    ("BatchNormalization", 15, [*C, C[0], np.abs(C[1]) + 0.1], {}),
    ("BatchNormalization", 9, [*C, C[0], np.abs(C[1]) + 0.1], {}),
    ("BatchNormalization", 7, [*(RNG.random(X.shape[1:]).astype(F) for _ in range(4))], {"spatial": 0}),
    ("SimplifiedLayerNormalization", 17, ROW[:1], {}),
]


@pytest.mark.parametrize("constant", [False, True], ids=["data", "equal"])
@pytest.mark.parametrize("row", NORMALIZATIONS, ids=lambda r: f"{r[0]}-{r[1]}")
def test_epsilon_of_zero(row: Any, constant: bool) -> None:
    operator, version, rest, attributes = row
    inputs = [np.full_like(X, 2) if constant else X, *rest]
    model = model_of(operator, version, inputs, epsilon=0.0, **attributes)
    expected = run_onnxruntime(model, inputs)
    np.testing.assert_allclose(run(model, inputs), expected, rtol=1e-4, atol=1e-5)


def test_epsilon_of_zero_of_a_skipped_layer() -> None:
    inputs = [X[0], X[1], *ROW]
    for operator, count in (("SkipLayerNormalization", 4), ("SkipSimplifiedLayerNormalization", 3)):
        model = model_of(operator, 17, inputs[:count], domain="com.microsoft", epsilon=0.0)
        expected = run_onnxruntime(model, inputs[:count])
        np.testing.assert_allclose(run(model, inputs[:count]), expected, rtol=1e-4, atol=1e-5)


def test_norms_of_zeros() -> None:
    for p in (1, 2):
        model = model_of("LpNormalization", 1, [X * 0], p=p, axis=1)
        np.testing.assert_array_equal(run(model, [X * 0]), X * 0)
        model = model_of("LpNormalization", 1, [X], p=p, axis=1)
        np.testing.assert_allclose(run(model, [X]), run_onnxruntime(model, [X]), rtol=1e-5)


def test_epsilon_of_zero_and_statistics_that_are_constants() -> None:
    """No warning, and OpenVINO's values where the variance is 0, too."""
    import warnings

    values = [*C, C[0], np.array([0, 1, 2, 0], F)]
    model = model_of("BatchNormalization", 15, [X, *values], 4, epsilon=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = run(model, [X])
    np.testing.assert_allclose(got[:, 1:3], run_onnxruntime(model, [X])[:, 1:3], rtol=1e-4, atol=1e-5)
    assert not np.isfinite(got[:, [0, 3]]).any()


@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
@pytest.mark.parametrize("stash", [None, TensorProto.FLOAT])
def test_statistics_have_the_type_of_stash_type(kind: str, stash: int | None) -> None:
    x = RNG.standard_normal((2, 3, 4)).astype(kind)
    number = helper.np_dtype_to_tensor_dtype(x.dtype)
    attributes = {} if stash is None else {"stash_type": stash}
    node = helper.make_node(
        "LayerNormalization", ["x", "s"], ["y", "mean", "deviation"], axis=1, **attributes
    )
    infos = [
        helper.make_tensor_value_info("x", number, x.shape),
        helper.make_tensor_value_info("s", number, [4]),
    ]
    results = [helper.make_tensor_value_info(name, 0, None) for name in node.output]
    for result in results:
        result.ClearField("type")
    graph = helper.make_graph([node], "g", infos, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    given = [x, np.ones(4, kind)]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, dict(zip("xs", given, strict=True)))
    found = list(ov.Core().compile_model(model, "CPU")(given).values())
    assert [a.dtype for a in found] == [b.dtype for b in wanted]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=4e-3 if kind == "float16" else 1e-5)
