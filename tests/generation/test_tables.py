"""Tables of tokenizers in GGUF files that are damaged, or say less than they may."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ovjit.errors import OvjitError
from ovjit.generation.tokenizer import of_tables

pytest.importorskip("tokenizers")

UNIGRAMS: dict[str, Any] = {
    "model": "t5", "tokens": ["<pad>", "</s>", "<unk>", "\u2581", "a", "\u2581a"],
    "scores": [0.0, 0.0, 0.0, -1.0, -2.0, -0.5], "token_type": [3, 3, 2, 1, 1, 1], "eos_token_id": 1,
}  # fmt: skip


def made(**changes: Any) -> Any:
    said = {key: value for key, value in (UNIGRAMS | changes).items() if value is not None}
    return of_tables({
        f"tokenizer.ggml.{key}": json.dumps(value) if isinstance(value, list) else value
        for key, value in said.items()
    })  # fmt: skip


@pytest.mark.parametrize("changes, said", [
    ({"eos_token_id": 6}, "eos_token_id should be one of 6 token indices, not 6"),
    ({"bos_token_id": -7}, "bos_token_id should be one of 6 token indices, not -7"),
    ({"eot_token_id": "x"}, "eot_token_id should be a whole number, not x"),
    ({"tokens": [1, "a"]}, "tokens should be a list of texts, not 1"),
    ({"tokens": 7}, "tokens should be a list, not 7"),
    ({"tokens": "{}"}, "tokens should be a list"),
    ({"tokens": "[" * 100_000}, "tokens should be a list"),
    ({"scores": ["x"] * 6}, "scores should be a list of numbers, not 'x'"),
    ({"token_type": [3] * 9}, "token_type has 9 entries, but 6 tokens exist"),
    ({"token_type": [1.5] * 6}, "token_type should be a list of whole numbers, not 1.5"),
    ({"precompiled_charsmap": 10**12}, "precompiled_charsmap should be a list"),
    ({"model": "gpt2", "merges": ["q zz"]}, "is not a valid tokenizer: .*q"),
    ({"model": "gpt2", "merges": ["qzz"]}, "is not a valid tokenizer: "),
])  # fmt: skip
def test_damaged_tables_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OvjitError, match=said):
        made(**changes)


def test_a_text_without_tokens_is_an_error() -> None:
    with pytest.raises(OvjitError, match="cannot encode the text"):
        made(token_type=[3, 3, 1, 1, 1, 1]).encode("b")


@pytest.mark.parametrize("number", [-1, 2**32 - 1, 2**64 - 1, None])
def test_a_file_may_have_no_such_token(number: int | None) -> None:
    assert made(eos_token_id=number, bos_token_id=number, add_bos_token=True).ends == frozenset()


def test_the_unknown_token_is_the_one_that_the_file_names() -> None:
    assert made(token_type=None, unknown_token_id=2).encode("b a") == [3, 2, 5]
