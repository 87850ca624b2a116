"""Tokenizers of GGUF files beside pipelines of the package `tokenizers`, as the models have them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ovjit.errors import OvjitError
from ovjit.generation.cuts import CUTS
from ovjit.generation.tokenizer import of_tables

tokenizers = pytest.importorskip("tokenizers")

SEED = 20261125
TEXTS = [
    "a\u00a0b\u2003c\u3000d\u2028e\u0085g\u200bh\ufeffi", "e\u0301 \u00e9 A\u030a \u1100\u1161\u11a8 \ufb01",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "1234567890 12 345 \u00b2\u00b3\u00bc \u0663\u0664 \u2163 \u2460", "日本語テキスト한국어中文，。！？「」",
    "\x00\x01\x1b[31m\x7f\t\v\f\r\n\r\n\n\n", "a<|begin|>b<|end|>c <|end|>\n<|beg|>",
    "I'm YOU'RE we'Ve it'\u017f don\u2019t 'S'T'd", "  leading   and trailing   ",
    "fooBarBAZ HTTPServer \u01c5 \u10d0\u0531",
    "$x+=<y>^~|`z` @#%&*()[]{}\\/_-\"'", "```py\nx = 1\n```", "नमस्ते สวัสดี مرحبا، العالم۔ १।२",
    "a.b,c!d?e\u2026f(m|n)", "   ", "\n", "", " a", "x" * 30 + " " * 70 + "y",
]  # fmt: skip
PIECES = [*"abcXYZ019 \n\t'.,!-/$<|`", "  ", "\r\n", "\u00a0", "e\u0301", "日本", "한국", "\u00b2", "\u0663",
          "'re", "<|end|>", "\u0300", "\u0964", "\u2026", "\u01c5"]  # fmt: skip
EAST = "[一-龥ࠀ-一가-퟿]+"
SHORT, BLANKS = "'s|'t|'re|'ve|'m|'ll|'d", r"\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = rf"(?i:{SHORT})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{BLANKS}"
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+SHORT"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*SHORT"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{BLANKS}"
)


def split(words: str) -> Any:
    return tokenizers.pre_tokenizers.Split(tokenizers.Regex(words), "isolated")


def own(name: str) -> tuple[Any, list[Any]]:
    """How the model's tokenizer.json normalises and cuts."""
    parts, norms = tokenizers.pre_tokenizers, tokenizers.normalizers
    raw, worded = parts.ByteLevel(False, use_regex=False), parts.ByteLevel(False, use_regex=True)
    digits = parts.Digits(individual_digits=True)
    return {
        "gpt-2": lambda: (None, [worded]),
        "olmo": lambda: (norms.NFC(), [worded]),
        "smollm": lambda: (None, [digits, worded]),
        "command-r": lambda: (norms.NFC(), [digits, worded]),
        "llama-bpe": lambda: (None, [split(WORDS), raw]),
        "qwen2": lambda: (norms.NFC(), [split(WORDS.replace("{1,3}", "")), raw]),
        "qwen35": lambda: (norms.NFC(), [split(
            rf"(?i:{SHORT})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{BLANKS}"), raw]),
        "gpt-4o": lambda: (None, [split(CASED.replace("SHORT", f"(?i:{SHORT})?")), raw]),
        "tekken": lambda: (None, [split(CASED.replace("SHORT", "").replace("{1,3}", "")), raw]),
        "falcon": lambda: (
            None, [parts.Punctuation("contiguous"), worded, parts.Digits(False), split("[0-9][0-9][0-9]")]
        ),
        "deepseek-coder": lambda: (None, [
            split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(EAST), digits, raw]),
        "deepseek-llm": lambda: (None, [
            split("[\r\n]"), split(r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01c4-\u0293]+"),
            split("\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"), split(r"\s+$"), split(EAST), digits, raw]),
        "deepseek-v3": lambda: (None, [
            split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(
                r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
                rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{BLANKS}"), raw]),
        "bloom": lambda: (None, [split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), raw]),
    }[name]()  # fmt: skip


NAMES = (
    "gpt-2", "olmo", "smollm", "command-r", "llama-bpe", "qwen2", "qwen35", "gpt-4o", "tekken", "falcon",
    "deepseek-coder", "deepseek-llm", "deepseek-v3", "bloom",
)  # fmt: skip


def random_texts(count: int) -> list[str]:
    rng = np.random.default_rng(SEED)
    return ["".join(rng.choice(PIECES, int(rng.integers(1, 40)))) for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_byte_pairs_are_cut_as_the_model_does(name: str) -> None:
    normalizer, steps = own(name)
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=CUTS[name].whole_words))
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator((TEXTS + random_texts(50)) * 3, trainer)
    said = json.loads(inner.to_str())["model"]
    words = sorted(said["vocab"], key=said["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in said["merges"]]
    info = {"model": "gpt2", "pre": name, "add_bos_token": False, "bos_token_id": 0, "eos_token_id": 1}
    lists = {"tokens": words, "token_type": [3, 3] + [1] * (len(words) - 2), "merges": merges}
    info |= {key: json.dumps(value) for key, value in lists.items()}
    made = of_tables({f"tokenizer.ggml.{key}": value for key, value in info.items()})
    for text in (*TEXTS, *random_texts(300)):
        assert made.encode(text) == inner.encode(text).ids, (name, SEED, text)


@pytest.mark.parametrize("name", CUTS)
def test_every_cut_keeps_the_text(name: str) -> None:
    """Expressions are valid, and lose nothing."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    info = {"model": "gpt2", "pre": name, "tokens": json.dumps(alphabet), "merges": "[]", "token_type": "[]"}
    made = of_tables({f"tokenizer.ggml.{key}": value for key, value in info.items()})
    for text in TEXTS:
        wanted = tokenizers.normalizers.NFC().normalize_str(text) if CUTS[name].composed else text
        assert made.decode(made.encode(text)) == wanted, (name, text)


def test_a_file_without_a_name_is_cut_as_llama_cpp_does() -> None:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    info = {"model": "gpt2", "tokens": json.dumps(alphabet), "merges": "[]", "token_type": "[]"}
    made = of_tables({f"tokenizer.ggml.{key}": value for key, value in info.items()})
    cut = [piece for piece, _ in made._inner.pre_tokenizer.pre_tokenize_str("ab 12345 (x) I'm`")]
    assert cut == ["ab", "Ġ", "123", "45", "Ġ", "(", "x", ")", "ĠI", "'", "m", "`"]


def unigrams(**said: Any) -> tuple[Any, dict[str, int], list[float]]:
    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "ab", "bc", "▁ab", "abc", "▁▁", "ca▁"]
    scores = [0.0, 0.0, 0.0, -2.1, -3.2, -3.3, -3.4, -4.5, -4.7, -6.1, -6.9, -3.5, -8.0]
    info = {"model": "t5", "tokens": json.dumps(pieces), "scores": json.dumps(scores)}
    info |= {"token_type": json.dumps([2, 3, 3] + [1] * 10), "eos_token_id": "2"} | said
    return (
        of_tables({f"tokenizer.ggml.{key}": value for key, value in info.items()}),
        {piece: i for i, piece in enumerate(pieces)}, scores,
    )  # fmt: skip


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("fewer", [True, False])
def test_unigrams_have_the_greatest_sum(prefix: bool, fewer: bool) -> None:
    made, number, scores = unigrams(add_space_prefix=prefix, remove_extra_whitespaces=fewer)
    rng = np.random.default_rng(SEED)
    for text in ("", "abc", *("".join(rng.choice(list("abc "), 14)) for _ in range(60))):
        whole = " ".join(text.split()) if fewer else text
        whole = ("▁" if prefix and whole else "") + whole.replace(" ", "▁")
        best: list[tuple[float, list[int]]] = [(0.0, [])]
        for end in range(1, len(whole) + 1):
            ways = [
                (best[start][0] + scores[number[piece]], [*best[start][1], number[piece]])
                for start in range(max(0, end - 4), end)
                if (piece := whole[start:end]) in number
            ]
            best.append(max(ways, key=lambda way: way[0]))
        assert made.encode(text) == best[-1][1], (SEED, text)
        assert made.decode(made.encode(text)) == (" ".join(text.split()) if fewer else text), (SEED, text)


def test_scores_that_are_missing_are_an_error() -> None:
    with pytest.raises(OvjitError, match="scores has 1 entries, but 13 tokens exist"):
        unigrams(scores="[0]")


@pytest.mark.parametrize("name, blanks", [("Phi-3 mini", True), ("Llama", False)])
def test_blanks_behind_special_tokens_of_phi3(name: str, blanks: bool) -> None:
    words = ["<unk>", "<s>", "<|end|>", "\u2581", "a", "\n"]
    info = {"model": "llama", "tokens": json.dumps(words), "scores": json.dumps([0.0] * 6)}
    info |= {"token_type": json.dumps([2, 3, 3, 1, 1, 1]), "add_space_prefix": False}
    tables = {f"tokenizer.ggml.{key}": value for key, value in info.items()} | {"general.name": name}
    made = of_tables(tables)
    assert made.encode("a<|end|>\n a") == ([4, 2, 4] if blanks else [4, 2, 5, 3, 4])
    assert made.encode("<s>\na") == [1, 5, 4]


def test_a_part_of_an_answer_does_not_end_it() -> None:
    words = ["<|return|>", "<|call|>", "<|end|>", "a"]
    info = {"model": "gpt2", "pre": "gpt-4o", "tokens": json.dumps(words), "merges": "[]"}
    info |= {"token_type": json.dumps([3, 3, 3, 1])}
    made = of_tables({f"tokenizer.ggml.{key}": value for key, value in info.items()})
    assert made.ends == {0, 1}
