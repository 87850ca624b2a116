"""Tree ensembles of ai.onnx.ml beside ONNX Runtime."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import ovjit as ov
from ovjit.readers.onnx.attributes import AttributeValues
from tests.support.onnx.samples_trees import FAMILIES, model_of
from tests.support.sweeps import in_turn, some

ort = pytest.importorskip("onnxruntime")


def _beside(model: bytes, x: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})


def _answers(model: bytes, x: np.ndarray) -> list[np.ndarray]:
    compiled = ov.Core().compile_model(ov.Core().read_model(model), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return [np.asarray(value) for value in compiled(x).values()]


def _compare(model: bytes, x: np.ndarray, where: str) -> None:
    node = onnx.load_from_string(model).graph.node[0]
    ends = [helper.get_attribute_value(a) for a in node.attribute if a.name == "post_transform"]
    probit = ends[:1] in ([b"PROBIT"], [4])  # its formula cancels digits
    for got, right in zip(_answers(model, x), _beside(model, x), strict=True):
        if right.dtype.kind in "OUSi":
            np.testing.assert_array_equal(got, right, err_msg=where)
            continue
        assert got.dtype == right.dtype, where
        far = 5e-4 if probit else 2e-6
        np.testing.assert_allclose(got, right, far, far / 4, err_msg=where)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", some(range(400), 3))
def test_random_ensembles(family: str, seed: int) -> None:
    """All modes, NaN and infinities, thresholds that features equal, doubles, base values, labels."""
    model, x = FAMILIES[family](np.random.default_rng(seed))
    _compare(model, x, f"{family} seed {seed}")


#: One tree: x <= 0 to the first leaf, else to the second.
_STUMP: dict[str, Any] = {
    "nodes_treeids": [0] * 3, "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0] * 3,
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
}  # fmt: skip


def _classifier(weights: list[dict[int, float]], base: list[float], wide: bool, **more: Any) -> bytes:
    rows = [(i + 1, c, w) for i, leaf in enumerate(weights) for c, w in leaf.items()]
    nodes, classes, values = map(list, zip(*rows, strict=True))
    out = {**_STUMP, "class_treeids": [0] * len(nodes), "class_nodeids": nodes, "class_ids": classes, **more}
    if wide:
        out |= {"nodes_values_as_tensor": np.zeros(3), "class_weights_as_tensor": np.array(values)}
        out |= {"base_values_as_tensor": np.array(base)} if base else {}
    else:
        out |= {"nodes_values": [0.0] * 3, "class_weights": values} | ({"base_values": base} if base else {})
    x = np.zeros((1, 1), np.float64 if wide else np.float32)
    return model_of("TreeEnsembleClassifier", out, x, ["label", "scores"], 3)


_SIDES = {wide: np.array([[-1.0], [1.0]], np.float64 if wide else np.float32) for wide in (False, True)}


@pytest.mark.parametrize(
    "wide, base, which, low",
    in_turn(
        list(itertools.product([False, True], [[], [0.25], [-0.75], [0.25, 0.125]], [0, 1], [0.1, -0.2])), 3
    ),
)
def test_weights_of_one_of_two_classes(wide: bool, base: list[float], which: int, low: float) -> None:
    """The limit of the label depends on the signs of all weights, whichever attribute has them. By default
    every third case, which leaves out no value of any parameter."""
    for how in ("NONE", "LOGISTIC", "SOFTMAX"):
        more = {"classlabels_int64s": [4, 7], "post_transform": how}
        model = _classifier([{which: 0.9}, {which: low}], base, wide, **more)
        _compare(model, _SIDES[wide], how)


@pytest.mark.parametrize("wide", [False, True])
def test_probabilities_of_two_classes(wide: bool) -> None:
    """The label of the higher one. ONNX Runtime takes the second class whenever its sum is positive."""
    model = _classifier([{0: 0.9, 1: 0.1}, {0: 0.2, 1: 0.8}], [], wide, classlabels_strings=["no", "yes"])
    label, scores = _answers(model, _SIDES[wide])
    assert label.tolist() == ["no", "yes"]
    np.testing.assert_allclose(scores, [[0.9, 0.1], [0.2, 0.8]], rtol=1e-6)


def test_doubles_are_compared_as_doubles() -> None:
    """The double above 0.1 is not below it; sums of weights that f32 has not are those of doubles."""
    out = {**_STUMP, "nodes_values_as_tensor": np.array([0.1, 0, 0]), "n_targets": 1,
           "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0],
           "target_weights_as_tensor": np.array([1e8 + 1, -1.0]), "base_values_as_tensor": np.array([-1e8]),
           }  # fmt: skip
    x = np.nextafter([[0.1], [0.1], [0.1]], [[0.0], [0.1], [1.0]])
    model = model_of("TreeEnsembleRegressor", out, x, ["y"], 3)
    np.testing.assert_array_equal(_answers(model, x)[0], np.float32([[1], [1], [-1e8 - 1]]))
    _compare(model, x, "thresholds of doubles")


def test_sums_have_the_order_of_the_trees() -> None:
    """Bits of f32 sums, for any number of rows and threads."""
    rng = np.random.default_rng(3)
    for seed in range(400, 440):
        model, x = FAMILIES["regressor"](np.random.default_rng(seed))
        if x.dtype != np.float32 or b"PROBIT" in model or b"SOFTMAX" in model or b"LOGISTIC" in model:
            continue
        right = _beside(model, x)[0]
        np.testing.assert_array_equal(_answers(model, x)[0], right, err_msg=f"seed {seed}")
        read = ov.Core().read_model(model)
        compiled = ov.Core().compile_model(read, "CPU", {"INFERENCE_NUM_THREADS": 2})
        rows = rng.integers(0, len(x), 300)
        np.testing.assert_array_equal(compiled(x[rows])[0], right[rows], err_msg=f"seed {seed}")


def _regressor(**more: Any) -> bytes:
    out = {**_STUMP, "nodes_values": [0.0] * 3, "n_targets": 1, "target_treeids": [0, 0],
           "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0], **more}  # fmt: skip
    return model_of("TreeEnsembleRegressor", out, _SIDES[False], ["y"], 3)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"nodes_modes": ["BRANCH_LESS", "LEAF", "LEAF"]}, "nodes_modes.*'BRANCH_LESS'.*BRANCH_LEQ"),
        ({"post_transform": "TANH"}, "post_transform.*'TANH'.*LOGISTIC"),
        ({"aggregate_function": "MEDIAN"}, "aggregate_function.*'MEDIAN'.*AVERAGE"),
        ({"nodes_truenodeids": [5, 0, 0]}, "node 0 of the tree 0 has a child that does not exist"),
        ({"nodes_truenodeids": [0, 0, 0]}, "cycle"),
        ({"nodes_nodeids": [0, 1, 1]}, "node 1 of the tree 0 is given twice"),
        ({"target_ids": [0, 1]}, "weight of node 2 of tree 0 for target 1"),
        ({"base_values": [1.0, 2.0]}, "2 base values are given for 1 targets"),
        ({"nodes_featureids": [-1, 0, 0]}, "reads the feature -1"),
        ({"nodes_values": [0.0]}, "1 numbers are given for 3 tree nodes"),
    ],
)
def test_invalid_ensembles(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        ov.Core().read_model(_regressor(**wrong))


def test_too_few_features() -> None:
    model = ov.Core().read_model(_regressor(nodes_featureids=[3, 0, 0]))
    with pytest.raises(RuntimeError, match="4 features"):
        ov.compile_model(model, "CPU")(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "op, attributes, right",
    [
        ("Scaler", {"offset": [1e8, 1e8], "scale": [1.0, 2.0]}, [[1, 6]]),
        ("LinearRegressor", {"coefficients": [1.0, 0.0], "intercepts": [-1e8], "targets": 1}, [[1]]),
        ("SVMRegressor", {"kernel_type": "LINEAR", "coefficients": [1.0], "support_vectors": [1.0, 0.0],
                          "kernel_params": [0.0, 0.0, 3.0], "rho": [-1e8], "n_supports": 1}, [[1]]),
        ("SVMRegressor", {"kernel_type": "RBF", "coefficients": [1.0], "support_vectors": [1e8, 1e8],
                          "kernel_params": [0.5, 0.0, 3.0], "rho": [0.0], "n_supports": 1}, [[np.exp(-5)]]),
    ],
)  # fmt: skip
def test_doubles_are_not_rounded_first(op: str, attributes: dict[str, Any], right: list[Any]) -> None:
    x = np.array([[1e8 + 1, 1e8 + 3]])
    got = _answers(model_of(op, attributes, x, ["y"], 1), x)[0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, right, rtol=1e-6)


def test_levels_are_limited() -> None:
    """A path of many nodes is checked level by level, which has a limit."""
    count = (1 << 14) + 10
    ids = list(range(2 * count + 1))
    inner = [i % 2 == 0 and i < 2 * count for i in ids]
    nodes: dict[str, Any] = {
        "nodes_treeids": [0] * len(ids), "nodes_nodeids": ids, "nodes_featureids": [0] * len(ids),
        "nodes_values": [0.5] * len(ids), "nodes_modes": ["BRANCH_LEQ" if own else "LEAF" for own in inner],
        "nodes_truenodeids": [i + 1 if own else 0 for i, own in enumerate(inner)],
        "nodes_falsenodeids": [i + 2 if own else 0 for i, own in enumerate(inner)],
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="levels of trees"):
        ov.Core().read_model(_regressor(**nodes))


def _stumps(ids: np.ndarray, order: np.ndarray) -> bytes:
    """Trees of a root and two leaves. `ids`: of their nodes; `order`: that of the nodes in the file."""
    count = len(ids)
    rng = np.random.default_rng(5)
    columns = {
        "treeids": np.repeat(np.arange(count) * 7, 3), "nodeids": ids.reshape(-1),
        "featureids": np.repeat(np.arange(count) % 2, 3), "values": np.repeat(rng.standard_normal(count), 3),
        "modes": np.array(["BRANCH_GT", "LEAF", "LEAF"] * count),
        "truenodeids": np.repeat(ids[:, 1], 3), "falsenodeids": np.repeat(ids[:, 2], 3),
    }  # fmt: skip
    attributes: dict[str, Any] = {f"nodes_{name}": column[order].tolist() for name, column in columns.items()}
    attributes |= {
        "target_treeids": np.repeat(np.arange(count) * 7, 2).tolist(),
        "target_nodeids": ids[:, 1:].reshape(-1).tolist(), "target_ids": [0] * (2 * count),
        "target_weights": rng.standard_normal(2 * count).tolist(), "n_targets": 1,
    }  # fmt: skip
    return model_of("TreeEnsembleRegressor", attributes, np.zeros((1, 2), np.float32), ["y"], 3)


def test_ids_of_nodes_in_any_order() -> None:
    """The same forest with ids in order, with gaps that differ, and far apart in nodes of any order."""
    count = 400  # more nodes than have their modes numbered one by one
    rng = np.random.default_rng(6)
    plain, in_file = np.arange(3 * count).reshape(count, 3) % 3, np.arange(3 * count)
    x = rng.standard_normal((40, 2)).astype(np.float32)
    _compare(_stumps(plain, in_file), x, "in order")
    expected = _answers(_stumps(plain, in_file), x)[0]
    gaps = plain * (np.arange(count)[:, None] + 1) - np.arange(count)[:, None]
    far = rng.integers(-(1 << 40), 1 << 40, (count, 3))
    leaves_behind = np.concatenate([in_file[::3], rng.permutation(np.delete(in_file, slice(0, None, 3)))])
    for ids, order in ((gaps, in_file), (far, in_file), (plain, leaves_behind), (far, leaves_behind)):
        np.testing.assert_array_equal(_answers(_stumps(ids, order), x)[0], expected)


@pytest.mark.parametrize("longest, distinct", [(0, 1), (3, 2), (9, 7), (16, 16), (16, 40), (17, 3)])
def test_numbers_of_words(longest: int, distinct: int) -> None:
    """Of any letters, such as that of the fields' tag."""
    rng = np.random.default_rng(longest)
    for letters in ("ABC\0", "HIJK"):
        drawn = ["".join(rng.choice(list(letters), rng.integers(longest + 1))) for _ in range(distinct)]
        words = [drawn[i] for i in rng.integers(distinct, size=1500)]
        attribute = helper.make_attribute("nodes_modes", words)
        found, numbers = AttributeValues({"m": attribute.strings}, {"m": attribute}).words("m")
        assert [found[i] for i in numbers] == words and sorted(set(found)) == sorted(found)
