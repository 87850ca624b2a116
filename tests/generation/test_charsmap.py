"""SentencePiece's tables of replaced characters: of a table made here, and of SentencePiece where it is
installed."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from ovjit.errors import OvjitError
from ovjit.generation.cuts import Charsmap
from ovjit.generation.tokenizer import of_tables

pytest.importorskip("tokenizers")

SEED = 20261126
#: Keys that are beginnings of others, graphemes of more than five bytes, and a key that disappears.
RULES = {
    "\u2460": "1", "e\u0301": "\u00e9", "\uff76": "\u30ab", "\uff76\uff9e": "\u30ac", "\r": " ",
    "\ufb01": "fi",
    "\u1100\u1161": "\uac00", "\u1100\u1161\u11a8": "\uac01", "\u00ad": "", "\n": " ", "\U0001d7d8": "0",
}  # fmt: skip
PIECES = [*RULES, "e", "\u0301", "\uff9e", "\u1100", "\u11a8", "a", "b", " ", "\U0001f642", "\u2461", "\r\n"]


def table_of(rules: dict[str, str]) -> bytes:
    """The table: children of a unit are at its base, exclusive-or their labels; label 0 is a key's value."""
    texts, offsets = b"", {}
    for key, value in rules.items():
        offsets[key.encode()] = len(texts)
        texts += value.encode() + b"\0"
    units, free = {0: 0}, 256

    def place(prefix: bytes, at: int) -> None:
        nonlocal free
        labels = sorted({key[len(prefix)] for key in offsets if key.startswith(prefix) and key != prefix})
        base = free  # a block of its own for each unit: their labels never meet
        free += 256
        is_key = prefix in offsets
        units[at] |= (at ^ base) << 10 | is_key << 8
        if is_key:
            units[base] = 1 << 31 | offsets[prefix]
        for label in labels:
            units[base ^ label] = label
            place(prefix + bytes([label]), base ^ label)

    place(b"", 0)
    array = np.zeros(free, "<u4")
    for at, unit in units.items():
        array[at] = unit
    return (array.nbytes).to_bytes(4, "little") + array.tobytes() + texts


def longest(text: str, rules: dict[str, str]) -> str:
    made, at = "", 0
    while at < len(text):
        keys = [key for key in rules if text.startswith(key, at)]
        key = max(keys, key=len, default=text[at])
        made += rules.get(key, key)
        at += len(key)
    return made


def random_texts(count: int) -> list[str]:
    rng = np.random.default_rng(SEED)
    return ["".join(rng.choice(PIECES, int(rng.integers(0, 12)))) for _ in range(count)]


def test_the_longest_key_is_replaced() -> None:
    table = Charsmap(table_of(RULES))
    for text in random_texts(500):
        assert table.replace(text) == longest(text, RULES), (SEED, text)


def test_tokens_are_of_the_replaced_text() -> None:
    """Special tokens are found before, and a blank is put before each part of the text."""
    pieces = ["<unk>", "</s>", "\u2581", *"1efi0ab \u00e9\u30ab\u30ac\uac00\uac01", "\u0301"]
    said = {
        "tokens": pieces, "scores": [0.0, 0.0, *[-1.0] * (len(pieces) - 2)],
        "token_type": [2, 3, *[1] * (len(pieces) - 2)], "precompiled_charsmap": list(table_of(RULES)),
    }  # fmt: skip
    info = {f"tokenizer.ggml.{key}": json.dumps(value) for key, value in said.items()}
    made = of_tables(info | {"tokenizer.ggml.model": "t5"})
    words = [pieces[i] for i in made.encode("\u2460\u0301\uff76\uff9e</s>\u1100\u1161\u11a8\r\n\ufb01")]
    wanted = ["\u2581", "1", "\u0301", "\u30ac", "</s>", "\u2581", "\uac01", "\u2581", "\u2581", "f", "i"]
    assert words == wanted


@pytest.mark.parametrize("table", [
    b"\x04", b"\x00\x00\x00\x00", b"\x05\x00\x00\x00" + bytes(8), b"\x00\x01\x00\x00" + bytes(8),
    b"\x04\x00\x00\x00\xff\xff\xff\xff", table_of(RULES)[:-1], [1, 300], "x",
])  # fmt: skip
def test_damaged_tables_are_an_error(table: Any) -> None:
    said = {"tokens": ["a"], "scores": [0.0], "token_type": [1]}
    said["precompiled_charsmap"] = list(table) if isinstance(table, bytes) else table
    info = {f"tokenizer.ggml.{key}": json.dumps(value) for key, value in said.items()}
    with pytest.raises(OvjitError, match="precompiled_charsmap"):
        of_tables(info | {"tokenizer.ggml.model": "t5"}).encode("".join(PIECES))


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc_cf"])
def test_tokens_are_those_of_sentencepiece(rule: str) -> None:
    sentencepiece: Any = pytest.importorskip("sentencepiece")
    from sentencepiece import sentencepiece_model_pb2

    file = io.BytesIO()
    corpus = ["abc 10 20 fig \u304b\u304c\u30ab\u30ac", *random_texts(300)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=file, vocab_size=330, hard_vocab_limit=False,
        normalization_rule_name=rule, byte_fallback=True, character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    real = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(file.getvalue())
    said = {
        "tokens": [p.piece for p in model.pieces], "scores": [p.score for p in model.pieces],
        "token_type": [p.type for p in model.pieces],
        "precompiled_charsmap": list(model.normalizer_spec.precompiled_charsmap),
    }  # fmt: skip
    info = {f"tokenizer.ggml.{key}": json.dumps(value) for key, value in said.items()}
    info |= {"tokenizer.ggml.model": "t5", "tokenizer.ggml.remove_extra_whitespaces": "true"}
    made = of_tables(info)
    for text in random_texts(300):
        assert made.encode(text) == real.encode(text), (SEED, text)
