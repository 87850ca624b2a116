"""Pipelines of texts as scikit-learn's exporters write them, beside ONNX Runtime."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import ovjit as ov
from ovjit.graph.op import find_op
from tests.support.sweeps import some
from tests.support.threads import run_threads

WORDS = ["the", "Fox", "dog", "x", "a_1", "ZOE", "Zoë", "日本", "ab", "b", "", "q\x00r", "tab\tbed", "42"]


def _vectorizer(shape: list[Any], token: str, shortest: int, case: str, more: dict[str, Any]) -> Any:
    """Reshape, StringNormalizer (unless the case stays), Tokenizer, Flatten, TfIdfVectorizer."""
    nodes = [helper.make_node("Reshape", ["x", "flat"], ["texts"])]
    if case != "NONE":
        names = {"case_change_action": case, "is_case_sensitive": 0, "locale": "C.utf8"}
        nodes.append(helper.make_node("StringNormalizer", ["texts"], ["cased"], **names))
    source = "texts" if case == "NONE" else "cased"
    how = {"tokenexp": token} if token else {"separators": [""]}
    cut = {"mark": 0, "mincharnum": shortest, "pad_value": "#", **how}
    nodes.append(helper.make_node("Tokenizer", [source], ["tokens"], domain="com.microsoft", **cut))
    nodes.append(helper.make_node("Flatten", ["tokens"], ["rows"]))
    nodes.append(helper.make_node("TfIdfVectorizer", ["rows"], ["y"], **more))
    infos = [helper.make_tensor_value_info("x", TensorProto.STRING, shape),
             helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])]  # fmt: skip
    flat = onnx.numpy_helper.from_array(np.array([-1]), "flat")
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [flat])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("seed", some(range(60), 6))
def test_counts_of_words_in_texts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = str(rng.choice(["NONE", "LOWER", "UPPER"]))
    changed = {"LOWER": str.lower, "UPPER": str.upper}.get(case, str)
    pool_words = [changed(w) for w in rng.permutation(["the", "Fox", "dog", "x", "a_1", "ZOE", "42", "ab"])]
    sizes = int(rng.integers(1, 4))
    pool, starts, count = [], [], 0
    for size in range(1, sizes + 1):
        starts.append(len(pool))
        grams = {tuple(rng.choice(pool_words, size).tolist()) for _ in range(8)}
        pool += [word for gram in sorted(grams) for word in gram]
        count += len(grams)
    more = {"mode": str(rng.choice(["TF", "IDF", "TFIDF"])), "max_gram_length": sizes,
            "min_gram_length": int(rng.integers(1, sizes + 1)),
            "max_skip_count": int(rng.integers(0, 3)), "ngram_counts": starts,
            "ngram_indexes": rng.permutation(count + 2)[:count].tolist(), "pool_strings": pool}  # fmt: skip
    if rng.random() < 0.7:
        more["weights"] = rng.uniform(0.5, 2, count).round(2).tolist()
    token = str(rng.choice(["[a-zA-Z0-9_]+", "\\w+", "[a-z]+", "[a-zA-Z0-9 _]+"]))
    _compare(seed, _vectorizer([None, 1], token, int(rng.integers(1, 3)), case, more), f"{token} {case}")


@pytest.mark.parametrize("seed", some(range(40), 6))
def test_counts_of_characters_in_texts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = str(rng.choice(["NONE", "LOWER"]))
    letters = list("xagtZ_4 ") + ["é", "日"]
    pool, starts, count = [], [], 0
    for size in range(1, 4):
        starts.append(len(pool))
        grams = {tuple(rng.choice(letters[: 10 if seed % 2 else 8], size).tolist()) for _ in range(9)}
        pool += [letter for gram in sorted(grams) for letter in gram]
        count += len(grams)
    more = {"mode": "TF", "max_gram_length": 3, "min_gram_length": int(rng.integers(1, 4)),
            "max_skip_count": int(rng.integers(0, 2)), "ngram_counts": starts,
            "ngram_indexes": rng.permutation(count).tolist(), "pool_strings": pool}  # fmt: skip
    token = str(rng.choice([".", ""]))
    _compare(seed, _vectorizer([None, 1], token, 1, case, more), f"{token or 'each letter'} {case}")


def _compare(seed: int, model: Any, what: str) -> None:
    """The counts in random texts, of ASCII or not, beside ONNX Runtime."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, int(rng.integers(0, 9)))) for _ in range(12)]
    texts = [t for t in texts if seed % 2 or t.isascii()] or ["the"]
    x = np.array(texts, object).reshape(-1, 1)
    plain = np.array([t.replace("\x00", " ") for t in texts], object).reshape(-1, 1)  # C strings end there
    right = _session(model.SerializeToString()).run(None, {"x": plain})[0]
    read = ov.Core().read_model(model.SerializeToString())
    assert "TextNGrams" in {node.get_type_name() for node in read.get_ordered_ops()}
    got = ov.compile_model(read, "CPU")(plain.astype(str))[0]
    np.testing.assert_allclose(got, right, rtol=1e-6, err_msg=f"seed {seed} {what}")
    one = ov.compile_model(read, "CPU")(x[:1].astype(str))[0]
    if "\x00" not in texts[0]:
        np.testing.assert_allclose(one, right[:1], rtol=1e-6, err_msg=f"seed {seed}")


def test_a_word_that_fills_up_is_counted_by_the_general_way() -> None:
    more = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0,
            "ngram_counts": [0], "ngram_indexes": [0, 1], "pool_strings": ["#", "dog"]}  # fmt: skip
    model = _vectorizer([None, 1], "[a-z]+", 1, "NONE", more)
    x = np.array([["dog dog"], ["x"], [""]], object)
    right = _session(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(ov.compile_model(model.SerializeToString(), "CPU")(x.astype(str))[0], right)


def test_words_of_a_text_with_a_null_character() -> None:
    """Texts of one batch are joined by null characters, if none has one."""
    record = find_op("TextNGrams")
    given = {"case": "none", "token": "[a-z]+", "shortest": 1, "pool": '["a", "b"]', "starts": [0],
             "columns": [0, 1], "width": 2, "least": 1, "most": 1, "skips": 0}  # fmt: skip
    data = np.array([b"a\x00b a", "b", "aé b", b"\xff a"], object)
    expected = [[2, 1], [0, 1], [1, 1], [1, 0]]
    np.testing.assert_array_equal(record.evaluate([data], record.check_attributes(given))[0], expected)


@pytest.mark.parametrize("op", ["OneHotEncoder", "LabelEncoder", "CategoryMapper"])
def test_texts_are_looked_up(op: str) -> None:
    """One table instead of comparisons of all letters."""
    words = [f"word {i}" for i in range(300)] + ["Zoë", ""]
    attributes: dict[str, Any] = {
        "OneHotEncoder": {"cats_strings": words, "zeros": 1},
        "LabelEncoder": {"keys_strings": words, "values_int64s": list(range(302)), "default_int64": -7},
        "CategoryMapper": {"cats_strings": words, "cats_int64s": list(range(302)), "default_int64": -7},
    }[op]
    node = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    info = helper.make_tensor_value_info("x", TensorProto.STRING, [None, 2])
    graph = helper.make_graph([node], "g", [info], [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    x = np.array([["word 7", "Zoë"], ["", "other"], ["word 299", "word 30"]], object)
    right = _session(model).run(None, {"x": x})[0]
    read = ov.Core().read_model(model)
    assert "StringTensorUnpack" not in {n.get_type_name() for n in read.get_ordered_ops()}
    np.testing.assert_array_equal(ov.compile_model(read, "CPU")(x.astype(str))[0], right)


def test_words_in_files(tmp_path) -> None:
    """Words with separators of lists, blanks and quotes are the same after writing and reading IR."""
    words = ["a,b", " c ", "", "d\te", "<&>\"'", "Zoë", "x\ny"]
    names = {"keys_strings": words, "values_int64s": list(range(7)), "default_int64": -1}
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", **names)
    info = helper.make_tensor_value_info("x", TensorProto.STRING, [None])
    graph = helper.make_graph([node], "g", [info], [helper.make_empty_tensor_value_info("y")])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    ov.save_model(ov.Core().read_model(model), tmp_path / "m.xml")
    got = ov.compile_model(ov.Core().read_model(tmp_path / "m.xml"), "CPU")(np.array([*words, "c"]))[0]
    assert got.tolist() == [0, 1, 2, 3, 4, 5, 6, -1]


def test_lists_of_words_that_are_none() -> None:
    record = find_op("StringLookup")
    for text in ("[1]", "{}", "no"):
        with pytest.raises(RuntimeError, match="not a list of words"):
            record.evaluate([np.array(["a"], object)], record.check_attributes({"words": text}))


@pytest.mark.parametrize("shape", [[None], [None, 1], [1, None], [None, 2]], ids=str)
@pytest.mark.parametrize("view", [0, 1, 2, [1, -1], [-1, 1], [0, -1]], ids=str)
def test_words_that_are_no_longer_rows(view: int | list[int], shape: list[Any]) -> None:
    """Flatten along `view`, or Reshape to it: words of all texts in one row are counted together. Only where
    each text stays a row are its words counted without being made."""
    words = {"tokenexp": "[a-z]+", "mark": 0, "mincharnum": 1, "pad_value": "#"}
    counted = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 0,
               "ngram_counts": [0, 2], "ngram_indexes": [0, 1, 2], "pool_strings": [*"abca"]}  # fmt: skip
    seen = (
        helper.make_node("Flatten", ["t"], ["v"], axis=view)
        if isinstance(view, int)
        else helper.make_node("Reshape", ["t", "to"], ["v"])
    )
    nodes = [helper.make_node("Tokenizer", ["x"], ["t"], domain="com.microsoft", **words), seen,
             helper.make_node("TfIdfVectorizer", ["v"], ["y"], **counted)]  # fmt: skip
    to = onnx.numpy_helper.from_array(np.array(view if isinstance(view, list) else [0], np.int64), "to")
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.STRING, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [to],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    texts = np.array(["a b a c", "b", "c a", "", "b a", "c c"])
    x = texts.reshape([d or -1 for d in shape] if len(shape) > 1 else [-1])
    read = ov.Core().read_model(model)
    fused = "TextNGrams" in {node.get_type_name() for node in read.get_ordered_ops()}
    assert fused == (shape in ([None], [None, 1]) and view in (1, [0, -1]))
    right = _session(model).run(None, {"x": x.astype(object)})[0]
    np.testing.assert_array_equal(ov.compile_model(read, "CPU")(x)[0], right)


def test_threads_that_count_at_once_do_not_mix_their_texts() -> None:
    more = {"mode": "TF", "max_gram_length": 2, "min_gram_length": 1, "max_skip_count": 0,
            "ngram_counts": [0, 3],
            "ngram_indexes": [0, 1, 2, 3], "pool_strings": ["ab", "cd", "ef", "ab", "cd"]}  # fmt: skip
    model = _vectorizer([None, 1], "\\w+", 1, "NONE", more).SerializeToString()
    compiled = ov.Core().compile_model(ov.Core().read_model(model), "CPU")
    wrong: list[Any] = []

    def drive(seed: int) -> None:
        rng, request = np.random.default_rng(seed), compiled.create_infer_request()
        for _ in range(300):
            words = rng.choice(["ab", "cd", "ef", "no"], int(rng.integers(1, 400))).tolist()
            pairs = sum(pair == ("ab", "cd") for pair in zip(words, words[1:], strict=False))
            expected = [words.count("ab"), words.count("cd"), words.count("ef"), pairs]
            got = request.infer([np.array([[" ".join(words)]], object)])[0].tolist()
            if got != [expected]:
                wrong.append((seed, got, expected))

    run_threads([threading.Thread(target=drive, args=(i,)) for i in range(6)])
    assert not wrong
