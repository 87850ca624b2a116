"""docs/operations.md is up to date, and its list of operations is OpenVINO's."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest
from openvino.utils.node_factory import NodeFactory

from docs import operations
from ovjit.graph.op import all_ops


def test_the_page_is_up_to_date():
    assert operations.PAGE.read_text() == operations.page(), "run python -m docs.operations"


def test_nothing_is_missing_without_a_reason():
    missing = [
        (name, version)
        for name, versions in operations.listed().items()
        for version in versions
        if operations.find(name, version) is None
    ]
    assert [row for row in missing if row not in operations.MISSING] == []
    assert [row for row in operations.MISSING if row not in missing] == [], "these are there by now"


def test_notes_are_about_operations_that_there_are():
    names = set(operations.listed())
    assert set(operations.NOTES) <= names and set(operations.SPECIAL) <= names


@pytest.mark.parametrize("opset", range(1, 18))
def test_the_list_is_that_of_openvino(opset):
    """Names that OpenVINO's builders make are listed, and every version is the one that this opset makes."""
    module = import_module(f"openvino.opset{opset}")
    made = set()
    for name in dir(module):
        function = getattr(module, name)
        if inspect.isfunction(function) and not name.startswith("_"):
            made |= set(
                re.findall(r"""create\(\s*["'](\w+)["']""", inspect.getsource(inspect.unwrap(function)))
            )
    listed = operations.listed()
    assert made <= set(listed)
    factory = NodeFactory(f"opset{opset}")
    for name, versions in listed.items():
        if name == "Constant":  # the factory makes none
            continue
        try:
            kind = factory.create(name).get_type_info()
        except RuntimeError:
            continue  # not of this opset
        assert int(kind.version_id.removeprefix("opset")) in versions, name


def test_operations_beyond_the_list_are_known():
    """Operations that OpenVINO's files carry, but no opset has."""
    beyond = {r.name for r in all_ops() if r.plugin and not r.internal} - set(operations.listed())
    assert beyond == BEYOND, sorted(beyond ^ BEYOND)


#: Of OpenVINO's internal and extension opsets, and those that readers of ONNX make.
BEYOND = {
    "AUGRUCell", "AUGRUSequence", "GatedDeltaNet", "PaKVReorder", "PagedAttentionExtension",
    "PagedCausalConv1D", "PagedGatedDeltaNet", "PagedSelectiveSSM", "RMS", "RoPE", "SelectiveSSM",
    # of openvino_tokenizers
    "BPETokenizer", "ByteFallback", "BytesToChars", "CaseFold", "CharsMapNormalization", "CharsToBytes",
    "CombineSegments", "ContribStringJoin", "ContribStringSplit", "EqualStr", "FuzeRagged",
    "NormalizeUnicode", "NumericToString", "RaggedTensorPack", "RaggedToDense", "RaggedToRagged",
    "RaggedToSparse", "RegexNormalization", "RegexSplit", "SentencepieceDetokenizer",
    "SentencepieceStreamDetokenizer", "SentencepieceTokenizer", "SpecialTokensSplit", "StringToHashBucket",
    "TrieTokenizer", "Truncate", "UTF8Validate", "UnigramTokenizer", "VocabDecoder", "VocabEncoder",
    "WordpieceTokenizer",
    "BitCast", "NumberToString", "StringLookup", "StringToNumber", "TextNGrams", "TreeEnsemble",  # of readers
}  # fmt: skip
