"""Tokenizers of openvino_tokenizers: its library's path, its operations in node factories and files.

The ids of small tokenizers are those of the real package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ovjit
from ovjit.compat.utils.node_factory import NodeFactory
from ovjit.errors import OvjitError
from ovjit.planning.concrete_types import concrete_types
from ovjit.planning.partition import Cut
from tests.support.tokenizers import GPT2, LLAMA3, TEXTS, Builder

LIBRARY = "/no/such/folder/libopenvino_tokenizers.so"
#: (pattern, form, first token) -> ids of TEXTS, by openvino_tokenizers 2026.4.1.0.
EXPECTED: dict[tuple[str, str, int], list[list[int]]] = {
    (GPT2, "", -1): [
        [274, 32, 278],
        [],
        [257, 32, 266, 259, 32, 306, 39, 116, 32, 260, 372, 32, 258],
        [32, 32, 265, 39, 108, 108, 10, 10, 32, 290, 32, 32, 292, 52, 53, 32],
        [303, 32, 298, 32, 195, 169, 204, 129, 32, 239, 172, 129],
        [9, 13, 10, 32, 120, 373, 372, 121, 32],
        [68, 79, 78, 39, 84, 32, 60, 124, 101, 110, 100],
        [304, 225, 160, 142, 305, 226, 128, 168, 28, 0, 46],
        [240, 159, 152, 128, 240, 159, 145, 169, 226, 128, 141, 240, 159, 145, 167, 32, 205, 133],
    ],
    (LLAMA3, "nfc", 300): [
        [300, 274, 32, 278],
        [300],
        [300, 257, 32, 266, 259, 32, 306, 39, 116, 32, 260, 372, 32, 258],
        [300, 32, 32, 265, 39, 108, 108, 10, 10, 32, 290, 32, 32, 292, 52, 53, 32],
        [300, 303, 32, 298, 32, 195, 169, 204, 129, 32, 239, 172, 129],
        [300, 9, 13, 10, 32, 120, 373, 372, 121, 32],
        [300, 68, 79, 78, 39, 84, 32, 60, 124, 101, 110, 100],
        [300, 304, 225, 160, 142, 305, 226, 128, 168, 28, 0, 46],
        [300, 240, 159, 152, 128, 240, 159, 145, 169, 226, 128, 141, 240, 159, 145, 167, 32, 205, 133],
    ],
    (LLAMA3, "", -1): [
        [274, 32, 278],
        [],
        [257, 32, 266, 259, 32, 306, 39, 116, 32, 260, 372, 32, 258],
        [32, 32, 265, 39, 108, 108, 10, 10, 32, 290, 32, 32, 292, 52, 53, 32],
        [303, 32, 298, 32, 195, 169, 204, 129, 32, 239, 172, 129],
        [9, 13, 10, 32, 120, 373, 372, 121, 32],
        [68, 79, 78, 39, 84, 32, 60, 124, 101, 110, 100],
        [304, 225, 160, 142, 305, 226, 128, 168, 28, 0, 46],
        [240, 159, 152, 128, 240, 159, 145, 169, 226, 128, 141, 240, 159, 145, 167, 32, 205, 133],
    ],
}


@pytest.fixture(scope="module")
def builder() -> Builder:
    factory = NodeFactory("opset15")
    factory.add_extension(LIBRARY)
    return Builder(ovjit, factory, ovjit.opset15)


@pytest.mark.parametrize("path", [LIBRARY, Path(LIBRARY), "openvino_tokenizers.dll"])
def test_the_library_is_known_by_its_name(path: str | Path) -> None:
    ovjit.Core().add_extension(path)
    ovjit.frontend.FrontEndManager().load_by_framework("onnx").add_extension(path)
    factory = NodeFactory()
    x = ovjit.opset15.parameter([-1], ovjit.Type.string)
    with pytest.raises(OvjitError, match="is not part of opset13"):
        factory.create("StringTensorUnpack", [x])
    factory.add_extension(path)
    assert factory.create("StringTensorUnpack", [x]).get_output_size() == 3
    with pytest.raises(OvjitError, match="loads no native libraries"):
        factory.add_extension("libopenvino_others.so")


@pytest.mark.parametrize(("pattern", "form", "bos"), [(GPT2, "", -1), (LLAMA3, "nfc", 300), (LLAMA3, "", -1)])
def test_ids_are_those_of_the_real_package(
    builder: Builder, pattern: str, form: str, bos: int, tmp_path: Path
) -> None:
    model = builder.tokenizer(pattern, form, bos)
    path = tmp_path / "openvino_tokenizer.xml"
    ovjit.save_model(model, path)
    assert 'version="extension"' in path.read_text()
    compiled = ovjit.Core().compile_model(path, "CPU")
    expected = EXPECTED[pattern, form, bos]
    for _ in range(2):  # the second time from the words that are kept
        ids, mask = compiled(list(TEXTS)).values()
        assert [row[keep].tolist() for row, keep in zip(ids, mask.astype(bool), strict=True)] == expected
    for text, row in zip(TEXTS, expected, strict=True):
        if text:  # of no bytes at all the package makes one row, whatever the number of texts
            ids, mask = compiled([text]).values()
            assert ids[0].tolist() == row and mask.all()


def test_a_detokenizer(builder: Builder, tmp_path: Path) -> None:
    model, words = builder.detokenizer(), builder.tokenizer(GPT2)
    ovjit.save_model(model, tmp_path / "openvino_detokenizer.xml")
    compiled = ovjit.Core().compile_model(tmp_path / "openvino_detokenizer.xml", "CPU")
    texts = ["hello world", "<|end|>你好", "a<|start|>b"]
    ids = ovjit.compile_model(words, "CPU")(texts)[0].astype(np.int32)
    ids = np.where(ids == 0, -1, ids)  # a number that is no word gives no text
    assert compiled(ids)[0].tolist() == ["hello world", "<|end|>你好", "ab"]
    assert compiled(np.array([[0xE4, 0xBD]], np.int32))[0].tolist() == ["\ufffd"]
    assert compiled(np.zeros((2, 0), np.int32))[0].tolist() == ["", ""]


def test_a_tokenizer_is_one_break(builder: Builder) -> None:
    """The integers between the operations on strings run with them: each break takes longer than they."""
    compiled = ovjit.compile_model(builder.tokenizer(LLAMA3, "nfc", 300), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    for texts in (["hello"], ["hello", "the weather"]):
        request.infer(texts)
        rows = [(row.node_type, row.exec_type) for row in request.get_profiling_info()]
        first = rows.index(("SpecialTokensSplit", "ref_numpy"))
        last = rows.index(("RaggedToDense", "ref_numpy"))
        between = [name for name, _ in rows[first : last + 1]]
        assert {"RegexSplit", "BPETokenizer", "CombineSegments", "Subtract", "ReduceMax"} <= set(between)
        assert {kind for _, kind in rows[first : last + 1]} == {"ref_numpy"}
        assert all(kind != "ref_numpy" for _, kind in rows[last + 1 :])


def test_models_that_follow_a_tokenizer_do_not_run_on_the_host(builder: Builder) -> None:
    """Only integers between operations on strings do."""
    ops = ovjit.opset15
    x = ops.parameter([-1, -1], np.float32)
    best = ops.topk(x, np.int32(1), -1, "max", "none", index_element_type="i32").output(1)
    words = builder.strings([b"a", b"bc"])
    made = builder.create("VocabDecoder", [ops.add(best, np.int32(0)).output(0), *words])
    graph = ovjit.Model([builder.create("FuzeRagged", made[:4])[0]], [x])._graph()
    cut = Cut(graph, concrete_types(graph, [(2, 5)]))
    assert [node.op.name for node in cut.hosts] == ["VocabDecoder", "FuzeRagged"]


def test_threads_share_a_tokenizer(builder: Builder) -> None:
    """Requests at the same time give the ids that one gives: the words that are kept are for one of them."""
    compiled = ovjit.compile_model(builder.tokenizer(GPT2), "CPU")
    queue = ovjit.AsyncInferQueue(compiled, 4)
    found: dict[int, list[list[int]]] = {}
    queue.set_callback(lambda request, i: found.setdefault(i, request.results[0].tolist()))
    rng = np.random.default_rng(5)
    texts = ["".join(rng.choice(list("the wold12 ."), 60)) for _ in range(40)]
    for i, text in enumerate(texts):
        queue.start_async([text], i)
    queue.wait_all()
    alone = ovjit.compile_model(builder.tokenizer(GPT2), "CPU")
    assert found == {i: alone([text])[0].tolist() for i, text in enumerate(texts)}


@pytest.mark.parametrize("version", ["extension", "opset1", "opset15"])
def test_files_have_strings_under_any_opset(version: str, builder: Builder) -> None:
    text = ovjit.readers.ir.writer.to_bytes(builder.detokenizer())[0].decode()
    text = text.replace(
        'type="StringTensorPack" version="opset15"', f'type="StringTensorPack" version="{version}"'
    )
    assert ovjit.Core().read_model(text.encode(), ovjit.readers.ir.writer.to_bytes(builder.detokenizer())[1])
