"""Texts in ONNX files, and what models of scikit-learn are made of, beside ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import ovjit as ov
from tests.support.onnx.samples_ml import _trees
from tests.support.onnx.samples_shapes import LETTERS, pattern
from tests.support.sweeps import in_turn, some

ML, MS = "ai.onnx.ml", "com.microsoft"
WORDS = ["", "a", "Zoë", "ÄÖ", "straße", "Москва", "Ωμέγα", "x y", "monday", "Monday",
         "MONDAY", "日本", "😀b"]  # fmt: skip


def words(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.array(WORDS, object)[rng.integers(0, len(WORDS), shape)]


def compare(
    op: str, given: list[np.ndarray], attributes: dict[str, Any], outputs: int, domain: str, where: str,
    version: int = 3,
) -> None:  # fmt: skip
    """One node in ovjit and in ONNX Runtime, its inputs' first dimensions mostly open."""
    infos = []
    for i, value in enumerate(given):
        kind = onnx.TensorProto.STRING if value.dtype == object else None
        kind = kind or helper.np_dtype_to_tensor_dtype(value.dtype)
        known = value.ndim == 1 or op == "StringNormalizer"
        shape = [f"d{i}" if j == 0 and not known else d for j, d in enumerate(value.shape)]
        infos.append(helper.make_tensor_value_info(f"x{i}", kind, shape))
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, [info.name for info in infos], names, domain=domain, **attributes)
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=name) for name in names])
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    imports.append(helper.make_opsetid(ML, {"TreeEnsemble": 5, "LabelEncoder": version}.get(op, 3)))
    model = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
    values = {info.name: value for info, value in zip(infos, given, strict=True)}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # others wait in loops, for longer than a session takes
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, values)
    compiled = ov.compile_model(model, "CPU")
    results = compiled({k: v if v.dtype != object else v.astype(str) for k, v in values.items()})
    for i, right in enumerate(wanted):
        got = results[i]
        assert got.shape == right.shape, where
        if right.dtype.kind in "OUS":
            assert got.astype(str).tolist() == right.astype(str).tolist(), where
        elif right.dtype.kind == "f":
            np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5, err_msg=where)
        else:
            np.testing.assert_array_equal(got, right, err_msg=where)


def read_pattern(text: str) -> None:
    infos = [helper.make_tensor_value_info(*row, [3]) for row in (("x", 8), ("y", 9))]
    node = helper.make_node("RegexFullMatch", ["x"], ["y"], pattern=text)
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    ov.Core().read_model(model.SerializeToString())


@pytest.mark.parametrize("seed", some(range(1, 4), 1))
def test_patterns(seed: int) -> None:
    """Random expressions over random texts, most of which they match in part."""
    rng = np.random.default_rng(seed)
    for number in range(6):
        where, text = f"seed {seed}, pattern {number}", pattern(rng)
        x = np.array(["".join(rng.choice(LETTERS, int(rng.integers(0, 6)))) for _ in range(200)], object)
        compare("RegexFullMatch", [x], {"pattern": text}, 1, "", f"{where} {text!r}")


@pytest.mark.parametrize(
    "text",
    [
        "(",
        "a)",
        "*",
        "a**",
        "[b-a]",
        "[a",
        "a{3,2}",
        "a{1001}",
        "\\8",
        "\\y",
        "(?x)a",
        "\\x{110000}",
        "[[:no:]]",
    ],
)
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(RuntimeError, match="regular expression"):
        read_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        "(((x{1000}){1000}){1000}){1000}",
        "(((){1000}){1000}){1000}",
        "(.*a){14}.{14}",
        "(" * 5000 + ")" * 5000,
    ],
)
def test_patterns_that_grow(text: str) -> None:
    """Refused in bounded time and memory."""
    with pytest.raises(RuntimeError, match="regular expression"):
        read_pattern(text)


@pytest.mark.parametrize("seed", some(range(2), 1))
def test_parts_of_texts(seed: int) -> None:
    """Separators and expressions at random, anchors and borders of words among them."""
    rng = np.random.default_rng(seed)
    for number in range(6):
        shape = [(5,), (2, 3), (1, 4)][number % 3]
        letters = [rng.choice(LETTERS, int(rng.integers(0, 12))) for _ in range(int(np.prod(shape)))]
        x = np.array(["".join(text) for text in letters], object).reshape(shape)
        attributes: dict[str, Any] = {
            "mark": number % 2,
            "mincharnum": int(rng.integers(1, 4)),
            "pad_value": ["#", "", "pad"][number // 2],
        }
        if number == 0:
            attributes.update(separators=[""], mincharnum=1)
        elif number < 3:
            attributes["tokenexp"] = pattern(rng)
        else:
            attributes["separators"] = [pattern(rng), *([" "] if number == 5 else [])]
        compare("Tokenizer", [x], attributes, 1, MS, f"seed {seed}, {attributes} of {x.tolist()}")


@pytest.mark.parametrize(
    "how",
    [{"tokenexp": "a|ab"}, {"tokenexp": r"\b\w"}, {"tokenexp": "(?m)^."}, {"separators": ["b*"]},
     {"tokenexp": "[a-z]+", "separators": [" +", ","]}, {"tokenexp": "no such"}],
    ids=str,
)  # fmt: skip
def test_edges_of_parts(how: dict[str, Any]) -> None:
    x = np.array(["ab  cd", "", "ééa, b", "abab", "a\nbc d"], object)
    for mark in (0, 1):
        compare("Tokenizer", [x], {"mark": mark, "mincharnum": 1, "pad_value": "#", **how}, 1, MS, str(how))


@pytest.mark.parametrize(
    "wrong",
    [{"separators": [""], "mincharnum": 2}, {"mincharnum": 1}, {"tokenexp": "a", "mincharnum": 0}],
    ids=str,
)
def test_parts_that_are_refused(wrong: dict[str, Any]) -> None:
    node = helper.make_node("Tokenizer", ["x"], ["y"], domain=MS, mark=0, pad_value="#", **wrong)
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.STRING, [None]) for name in "xy"]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    with pytest.raises(RuntimeError, match="mincharnum|words of 2"):
        ov.Core().read_model(helper.make_model(graph, opset_imports=[helper.make_opsetid(MS, 1)]))


@pytest.mark.parametrize("seed", some(range(3), 2))
def test_texts_as_labels(seed: int) -> None:
    rng, where = np.random.default_rng(seed), f"seed {seed}"
    keys = ["monday", "Zoë", "", "Москва"][seed % 2 :]
    numbers = {"values_int64s": list(range(5, 5 + len(keys))), "default_int64": -7}
    compare("LabelEncoder", [words(rng, 3, 5)], {"keys_strings": keys, **numbers}, 1, ML, where)
    to_text = {"keys_int64s": list(range(len(keys))), "values_strings": keys, "default_string": "other"}
    compare("LabelEncoder", [rng.integers(-1, 5, (2, 3))], to_text, 1, ML, where)
    others = {"keys_strings": keys, "values_strings": keys[::-1]}
    compare("LabelEncoder", [words(rng, 7)], others, 1, ML, where)
    listed = {"classes_strings": keys, "default_int64": -3, "default_string": "none"}
    compare("LabelEncoder", [words(rng, 2, 4)], listed, 1, ML, where, version=1)
    compare("LabelEncoder", [rng.integers(-1, 5, 6)], listed, 1, ML, where, version=1)
    table = {"cats_strings": keys, "cats_int64s": list(range(len(keys)))}
    compare("CategoryMapper", [words(rng, 2, 4)], {**table, "default_int64": 9}, 1, ML, where)
    compare("CategoryMapper", [rng.integers(-1, 5, 6)], {**table, "default_string": "-"}, 1, ML, where)


@pytest.mark.parametrize("seed", some(range(4), 2))
def test_numbers_as_labels(seed: int) -> None:
    """Keys in any order, of which the first equal one counts: zeros of both signs, infinities, NaN."""
    rng, where = np.random.default_rng(seed), f"seed {seed}"
    reals = np.array([2.5, 0.0, -1, np.inf, -0.0, 7, 2.5, -np.inf] + [np.nan] * (seed % 2), np.float32)
    numbers = np.append(rng.integers(-30, 3000, 2000), [(1 << 60) + 1, 1 << 60])
    for keys, kind, more in ((reals, "floats", [3, np.nan]), (numbers, "int64s", [-40, 5000, (1 << 60) + 2])):
        x = rng.choice(np.append(keys, more).astype(keys.dtype), (3, 20))
        keys = rng.permutation(keys)
        table = {f"keys_{kind}": keys.tolist(), "values_int64s": list(range(9, 9 + len(keys)))}
        compare("LabelEncoder", [x], {**table, "default_int64": -4}, 1, ML, where, version=4)


@pytest.mark.parametrize("seed", some(range(3), 2))
def test_classes_named_by_text(seed: int) -> None:
    rng, where = np.random.default_rng(seed), f"seed {seed}"
    x = rng.standard_normal((6, 4)).astype(np.float32)
    names = ["no", "yes", "perhaps"][: 2 + seed % 2]
    trees = _trees(rng, 4, "class", list(range(len(names))))
    compare("TreeEnsembleClassifier", [x], {"classlabels_strings": names, **trees}, 2, ML, where)
    linear: dict[str, Any] = {
        "coefficients": rng.standard_normal(4 * len(names)).tolist(),
        "intercepts": rng.standard_normal(len(names)).tolist(),
        "classlabels_strings": names,
        "post_transform": "SOFTMAX",
    }
    compare("LinearClassifier", [x], linear, 2, ML, where)


@pytest.mark.parametrize("seed", some(range(4), 2))
def test_probabilities_of_support_vectors(seed: int) -> None:
    rng, where = np.random.default_rng(seed), f"seed {seed}"
    x = rng.standard_normal((9, 3)).astype(np.float32)
    classes = 2 + seed
    each = rng.integers(1, 4, classes).tolist()
    pairs = classes * (classes - 1) // 2
    machine: dict[str, Any] = {
        "kernel_type": ("RBF", "LINEAR")[seed % 2],
        "kernel_params": [0.4, 0.0, 3.0],
        "support_vectors": rng.standard_normal(sum(each) * 3).tolist(),
        "vectors_per_class": each,
        "coefficients": rng.standard_normal(sum(each) * (classes - 1)).tolist(),
        "rho": rng.standard_normal(pairs).tolist(),
        "prob_a": rng.uniform(-3, -1, pairs).tolist(),
        "prob_b": rng.uniform(-0.5, 0.5, pairs).tolist(),
        "classlabels_ints": list(range(classes)),
    }
    compare("SVMClassifier", [x], machine, 2, ML, where)


@pytest.mark.parametrize("seed", range(3))
def test_texts_are_picked_and_told_apart(seed: int) -> None:
    rng, where = np.random.default_rng(seed), f"seed {seed}"
    compare("OneHotEncoder", [words(rng, 5, 2)], {"cats_strings": WORDS[seed:], "zeros": 1}, 1, ML, where)
    labels = onnx.helper.make_tensor("labels", onnx.TensorProto.STRING, [4], [w.encode() for w in WORDS[:4]])
    nodes = [
        helper.make_node("ArrayFeatureExtractor", ["labels", "x"], ["y"], domain=ML),
        helper.make_node("Gather", ["labels", "x"], ["z"]),
    ]
    info = helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n"])
    outputs = [onnx.ValueInfoProto(name=name) for name in "yz"]
    graph = helper.make_graph(nodes, "g", [info], outputs, [labels])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    x = rng.integers(0, 4, 5)
    wanted = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    got = ov.compile_model(model, "CPU")([x])
    for i in range(2):
        assert got[i].tolist() == wanted[i].tolist(), where


@pytest.mark.parametrize("names", [{"classlabels_strings": ["no", "yes"]}, {"classlabels_int64s": [3, 1]}])
def test_maps_from_classes_are_columns(names: dict[str, Any]) -> None:
    info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])
    node = helper.make_node("ZipMap", ["x"], ["y"], domain=ML, **names)
    graph = helper.make_graph([node], "g", [info], [onnx.ValueInfoProto(name="y")])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    x = np.random.default_rng(1).random((3, 2)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    maps = session.run(None, {"x": x})[0]
    got = ov.compile_model(model, "CPU")([x])[0]
    assert [dict(zip(*names.values(), row, strict=True)) for row in got.tolist()] == maps


@pytest.mark.parametrize("seed", range(4))
def test_texts_are_joined_and_normalised(seed: int) -> None:
    rng, where = np.random.default_rng(seed), f"seed {seed}"
    compare("StringConcat", [words(rng, 3, 4), words(rng, 1, 4)], {}, 1, "", where)
    compare("StringConcat", [words(rng, 3), words(rng, 1)], {}, 1, "", where)
    attributes: dict[str, Any] = {
        "case_change_action": ("NONE", "LOWER", "UPPER", "LOWER")[seed],
        "is_case_sensitive": seed % 2,
        "stopwords": [["monday", "ÄÖ"], ["x"], ["MONDAY"], WORDS][seed],
    }
    # other locales than this may not be there, and of letters it knows ASCII's
    attributes["locale"] = "C"
    plain = [w for w in WORDS if w.upper() == w.lower() or w.isascii()]
    compare("StringNormalizer", [np.array(plain, object)], attributes, 1, "", where)
    compare("StringNormalizer", [np.array([plain[2:]], object)], attributes, 1, "", where)


@pytest.mark.parametrize("action", ["LOWER", "UPPER"])
def test_letters_of_all_scripts_change_case(action: str) -> None:
    letters = [chr(code) for code in range(1, 1 << 16, 7) if not 0xD800 <= code < 0xE000]
    texts = np.array(["".join(letters[i : i + 100]) for i in range(0, len(letters), 100)] + WORDS)
    node = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action=action)
    kind = onnx.TensorProto.STRING
    infos = [helper.make_tensor_value_info(name, kind, [None]) for name in "xy"]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    got = ov.compile_model(model, "CPU")([texts])[0].tolist()

    def changed(letter: str) -> str:
        other = letter.lower() if action == "LOWER" else letter.upper()
        same = len(other) == 1 and len(other.encode()) == len(letter.encode())
        return other if same and ord(letter) < 1 << 16 else letter

    assert [str(v) for v in got] == ["".join(map(changed, text)) for text in texts.tolist()]


@pytest.mark.parametrize("mode", in_turn(["TF", "IDF", "TFIDF"], 2))
@pytest.mark.parametrize("text", [False, True])
def test_ngrams(mode: str, text: bool) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        grams = [*rng.permutation(5)[:3], *rng.integers(0, 5, 8)]
        pairs = [(int(grams[i]), int(grams[i + 1])) for i in range(3, 11, 2)]
        pool = [int(g) for g in grams[:3]] + [v for pair in dict.fromkeys(pairs) for v in pair]
        count = 3 + (len(pool) - 3) // 2
        attributes: dict[str, Any] = {
            "mode": mode,
            "min_gram_length": 1 + seed % 2,
            "max_gram_length": 2,
            "max_skip_count": seed,
            "ngram_counts": [0, 3],
            "ngram_indexes": [int(v) for v in rng.permutation(count)],
            "weights": [float(v) for v in rng.random(count)],
        }
        x = rng.integers(0, 5, (3, 7) if seed else (7,))
        if text:
            attributes["pool_strings"] = [WORDS[v] for v in pool]
            compare("TfIdfVectorizer", [np.array(WORDS, object)[x]], attributes, 1, "", f"seed {seed}")
        else:
            attributes["pool_int64s"] = pool
            compare("TfIdfVectorizer", [x], attributes, 1, "", f"seed {seed}")


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_support_vectors(kernel: str) -> None:
    rng = np.random.default_rng(len(kernel))
    attributes: dict[str, Any] = {
        "kernel_type": kernel,
        "kernel_params": [0.3, 0.5, 2.0],
        "support_vectors": rng.standard_normal(15).tolist(),
        "coefficients": rng.standard_normal(5).tolist(),
        "rho": [0.25],
        "n_supports": 5,
        "one_class": int(kernel == "POLY"),
    }
    compare("SVMRegressor", [rng.standard_normal((4, 3)).astype(np.float32)], attributes, 1, ML, kernel)


@pytest.mark.parametrize(
    "wrong",
    [{"support_vectors": []}, {"coefficients": []}, {"rho": []}, {"n_supports": 4}, {"n_supports": -1}],
    ids=str,
)
def test_support_vectors_that_do_not_fit(wrong: dict[str, Any]) -> None:
    attributes = {"support_vectors": [1.0] * 15, "coefficients": [1.0] * 5, "rho": [0.25], "n_supports": 5}
    node = helper.make_node("SVMRegressor", ["x"], ["y"], domain=ML)
    for name, value in {**attributes, **wrong}.items():
        kind = onnx.AttributeProto.INT if name == "n_supports" else onnx.AttributeProto.FLOATS
        node.attribute.append(helper.make_attribute(name, value, attr_type=kind))
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 3]) for name in "xy"]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(ML, 3), helper.make_opsetid("", 17)])
    with pytest.raises(RuntimeError, match="coefficients"):
        ov.Core().read_model(model)


@pytest.mark.parametrize("kernel", in_turn(["LINEAR", "POLY", "RBF", "SIGMOID"], 2))
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classes_between_support_vectors(kernel: str, classes: int) -> None:
    rng, where = np.random.default_rng(classes), f"{kernel}, {classes} classes"
    each = [int(count) for count in rng.integers(1, 4, classes)]
    for i, transform in enumerate(("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")):
        attributes: dict[str, Any] = {
            "kernel_type": kernel,
            "kernel_params": [0.3, 0.5, 2.0],
            "support_vectors": rng.standard_normal(3 * sum(each)).tolist(),
            "coefficients": rng.standard_normal((classes - 1) * sum(each)).tolist(),
            "rho": rng.standard_normal(classes * (classes - 1) // 2).tolist(),
            "vectors_per_class": each,
            "post_transform": transform,
        }
        numbers: dict[str, Any] = {"classlabels_ints": list(range(7, 7 + classes))}
        labels = ({"classlabels_strings": WORDS[:classes]}, numbers)[(i + classes) % 2]
        x = rng.standard_normal((9, 3)).astype(np.float32)
        compare("SVMClassifier", [x], {**attributes, **labels}, 2, ML, f"{where}, {transform}")


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_machines_without_vectors(classes: int, transform: str) -> None:
    for seed in range(3):
        rng, where = np.random.default_rng((classes, seed)), f"{classes} classes, seed {seed}, {transform}"
        weights = rng.standard_normal(classes * 3)
        attributes: dict[str, Any] = {
            "coefficients": (abs(weights) if seed == 2 else weights).tolist(),
            "rho": rng.standard_normal(1).tolist(),
            "post_transform": transform,
            "kernel_type": "LINEAR",
            "kernel_params": [0.0, 0.0, 0.0],
            "classlabels_ints": list(range(5, 5 + classes)),
        }
        x = rng.standard_normal((40, 3)).astype(np.float32)
        compare("SVMClassifier", [x], attributes, 2, ML, where)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_trees_by_places(dtype: Any) -> None:
    """Leaves behind the nodes, a comparison with a list of members, missing numbers."""
    rng = np.random.default_rng(11)
    x = rng.integers(-2, 4, (9, 3)).astype(dtype)
    x[0, 0] = np.nan

    def tensor(values: Any, kind: Any = dtype) -> Any:
        return onnx.numpy_helper.from_array(np.array(values, kind))

    attributes: dict[str, Any] = {
        "n_targets": 2,
        "tree_roots": [0, 3],
        "nodes_featureids": [0, 1, 2, 1],
        "nodes_modes": tensor([0, 6, 3, 6], np.uint8),
        "nodes_splits": tensor([0.5, 0, 1.0, 0]),
        "nodes_truenodeids": [1, 0, 2, 4],
        "nodes_trueleafs": [0, 1, 1, 1],
        "nodes_falsenodeids": [2, 1, 3, 5],
        "nodes_falseleafs": [0, 1, 1, 1],
        "nodes_missing_value_tracks_true": [1, 0, 0, 0],
        "membership_values": tensor([1.0, 3.0, np.nan, -1.0, np.nan]),
        "leaf_targetids": [0, 1, 0, 1, 0, 1],
        "leaf_weights": tensor(rng.standard_normal(6)),
    }
    compare("TreeEnsemble", [x], attributes, 1, ML, str(dtype))


@pytest.mark.parametrize("delimiter", [None, " ", "ab"])
def test_string_split_up_to_a_number_of_splits(delimiter: str | None) -> None:
    """0 splits give the whole text, a negative number all. The last part has no blanks at its end if blanks
    separate: the standard's text and ONNX Runtime, but not ONNX's evaluator."""
    texts = ["a b c", " d  e ", " ", "  x", "y  ", "xabyabz ab"]
    for most in (-2, -1, 0, 1, 2):
        attributes: dict[str, Any] = {"maxsplit": most}
        if delimiter is not None:
            attributes["delimiter"] = delimiter
        compare("StringSplit", [np.array(texts, object)], attributes, 2, "", f"{delimiter!r} {most}")


def cast(x: np.ndarray, to: int) -> bytes:
    """A model of one Cast."""
    kind = onnx.TensorProto.STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype)
    given, made = (helper.make_tensor_value_info(*row, x.shape) for row in (("x", kind), ("y", to)))
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=to)], "g", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString()


KINDS = "float32 float64 float16 int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool".split()


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_become_texts(kind: str) -> None:
    dtype = np.dtype(kind)
    rng = np.random.default_rng(69)
    if dtype.kind == "f":
        ends = [0, -0.0, np.nan, np.inf, -np.inf, 1e-40, 1e15, 1e17, 123456789, 0.1, 1 / 3, 16777216, 1e-5]
        with np.errstate(over="ignore"):
            some = rng.standard_normal(99) * 10.0 ** rng.integers(-30, 30, 99)
            x = np.concatenate([ends, some]).astype(dtype)
    else:
        low, high = (0, 1) if kind == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        x = np.array([0, 1, low, high, high // 3], dtype)
    model = cast(x, onnx.TensorProto.STRING)
    (wanted,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
    assert ov.compile_model(model, "CPU")([x])[0].tolist() == wanted.tolist()


NUMBERS = """0 -0 1 -1.5 3.14 1e3 1E8 +7 INF +INF -INF inf NaN nan -nan infinity 100.5 -100.9 abc 12abc 0x10
1e400 1e39 -1e39 1e-50 .5 5. 1,000 True 9223372036854775807 9223372036854775808 18446744073709551615 300
-1 256 -9223372036854775808 -9223372036854775809 65504 65520 1e-8 --1 1e 16777217 0x1p-3 1.17549435e-38"""


@pytest.mark.parametrize("kind", KINDS)
def test_texts_become_numbers(kind: str) -> None:
    """As in C: blanks first, then what belongs to a number; without any, ONNX Runtime and ovjit raise."""
    to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = cast(np.array(["1"], object), to)
    session, compiled = onnxruntime.InferenceSession(model), ov.compile_model(model, "CPU")
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    for text in (*NUMBERS.split(), "", " 5", "5 ", "\t4\n"):
        given = np.array([text], object)
        try:
            (wanted,) = session.run(None, {"x": given}, options)
        except Exception:
            with pytest.raises(RuntimeError, match="the text .* is (no|beyond)"):
                compiled([given])
            continue
        np.testing.assert_array_equal(compiled([given])[0], wanted, repr(text))


def test_texts_of_small_types_and_in_files(tmp_path: Any) -> None:
    """By way of wider types; the operations are kept in files."""
    nodes = [
        helper.make_node("Cast", ["x"], ["small"], to=onnx.TensorProto.INT4),
        helper.make_node("Cast", ["small"], ["text"], to=onnx.TensorProto.STRING),
        helper.make_node("Cast", ["text"], ["f8"], to=onnx.TensorProto.FLOAT8E5M2),
        helper.make_node("Cast", ["f8"], ["y"], to=onnx.TensorProto.STRING),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.STRING, None)],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = ov.Core().read_model(proto.SerializeToString())
    ov.save_model(model, tmp_path / "m.xml")
    for each in (model, ov.Core().read_model(tmp_path / "m.xml")):
        made = ov.compile_model(each, "CPU")([np.array([1, -3, 7], np.float32)])[0]
        assert made.tolist() == ["1", "-3", "7"]
