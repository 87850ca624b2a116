"""Samples of `ovjit_ops/text`."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from ovjit_ops.text.character_maps import FORMS
from ovjit_ops.text.packed import Packed, pack
from ovjit_ops.text.ragged import MODES, SIDES
from ovjit_ops.text.splits import BEHAVIOURS
from tests.support.samples import samples


def sample_strings(*words: str | bytes) -> Packed:
    return pack([w if isinstance(w, bytes) else w.encode() for w in words])


def sample_rows(*rows: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Ragged strings of these rows."""
    ends = np.cumsum([len(row) for row in rows], dtype=np.int32)
    begins = np.concatenate([np.zeros(1, np.int32), ends[:-1]]).astype(np.int32)
    return (begins, ends, *sample_strings(*(w for row in rows for w in row)))


def sample_text(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).copy()


@samples("UTF8Validate")
def utf8_validate(rng, dtype="i32"):
    hard = (
        b"abc",
        b"",
        "é€😀".encode(),
        b"\xff a\xc3",
        b"\xe0\x80\x80x",
        b"\xf0\x9f\x98",
        b"\xed\xa0\x80",
        b"\xe2\x28\xa1",
    )
    for mode in (False, True):
        yield [*sample_strings(*hard)], {"replace_mode": mode}
        noise = bytes(rng.integers(120, 256, 200, np.uint8))
        yield [*sample_strings(noise, noise[:33])], {"replace_mode": mode}


@samples("ByteFallback")
def byte_fallback(rng, dtype="i32"):
    yield [*sample_strings("<0x41>", "a", "", "<0xE2>", "<0x4>", "<0x0g>", "<s>", "<abcd>")], {}


@samples("BytesToChars")
def bytes_to_chars(rng, dtype="i32"):
    rows = sample_rows(["hello wörld", ""], ["\n\x00~"])
    yield [*rows], {}
    yield [*rows, np.array([False, True, True])], {}


@samples("CharsToBytes")
def chars_to_bytes(rng, dtype="i32"):
    yield [*sample_rows(["Ġhello", "ĠwÃ¶rld"], [], ["Ċ", "~ł"])], {}


@samples("RegexNormalization")
def regex_normalization(rng, dtype="i32"):
    strings = sample_strings("a  b", "", "héé  llo", "I don't .", "x$1")
    for pattern, by in (
        (r"\s+", " "),
        (r"(\w)(\w)", r"\2\1"),
        ("^", "▁"),
        (r"(a)|(b)", r"<\1>"),
        ("l", "$$"),
    ):
        for everywhere in (True, False):
            texts = sample_text(pattern), sample_text(by)
            yield [*strings, *texts], {"global_replace": everywhere}
    skips = np.array([True, False, False, True, False])
    yield [*strings, skips, sample_text(" "), sample_text("▁")], {}


@samples("CharsMapNormalization")
def chars_map_normalization(rng, dtype="i32"):
    strings = sample_strings("  a  é ﬁ ", "", "Ｈello\u0301", b"\xff a\xe2\x82", "가 ÅΩ")
    for form in FORMS[1:]:
        yield [*strings], {"normalization_form": form, "remove_extra_whitespaces": False}
    yield [*strings], {"normalization_form": "identity", "case_fold": True}
    flags = {"add_dummy_prefix": True, "escape_whitespaces": True}
    yield [*strings, np.zeros(0, np.uint8)], flags
    skips = np.array([True, False, True, False, False])
    yield [*strings, skips], {"normalization_form": "NFKC", **flags}


@samples("NormalizeUnicode")
def normalize_unicode(rng, dtype="i32"):
    strings = sample_strings("  é ﬁ ", "", "e\u0301", "ÅΩ")
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield [*strings], {"normalization_form": form}
    yield [*strings, np.array([True, False, True, False])], {}


@samples("CaseFold")
def case_fold(rng, dtype="i32"):
    strings = sample_strings("AbC É", "", "ΣΑΣ ẞ")
    for attrs in ({}, {"encoding": ""}, {"encoding": "", "lower": False}):
        yield [*strings], attrs
        yield [*strings, np.array([True, False, False])], attrs


@samples("EqualStr")
def equal_str(rng, dtype="i32"):
    first = sample_strings("a", "bc", "", "é")
    for second in (sample_strings("a", "b", "", "é"), sample_strings("bc"), sample_strings()):
        yield [*first, *second], {}
        yield [*second, *first], {}


@samples("StringToHashBucket")
def string_to_hash_bucket(rng, dtype="i32"):
    noise = bytes(rng.integers(0, 256, 300, np.uint8))
    for buckets in (10, 1 << 40):
        yield (
            [
                *sample_strings(
                    *(noise[:n] for n in (0, 1, 3, 4, 7, 8, 16, 17, 32, 33, 64, 65, 128, 129, 300))
                )
            ],
            {"num_buckets": buckets},
        )


@samples("NumericToString")
def numeric_to_string(rng, dtype="f32"):
    from ovjit_ops.elementwise.arithmetic import random_array

    yield [random_array(rng, (2, 3), dtype)], {}
    if dtype in ("f32", "f64"):
        hard = [0, -0.0, 1, 1e6, 1e7, 123456789, 1e-5, 0.1, np.inf, -np.inf, np.nan]
        yield [np.array(hard, np.float32 if dtype == "f32" else np.float64)], {}


@samples("ContribStringJoin")
def contrib_string_join(rng, dtype="i32"):
    begins, ends, chars = sample_strings("a", "bc", "", "é", "x", "yz")
    for shape, axis in (((6,), 0), ((2, 3), 1), ((2, 3), 0), ((3, 1, 2), -2)):
        for kind in (np.int32, np.int64):
            yield [begins.reshape(shape), ends.reshape(shape), chars, sample_text(", "), kind(axis)], {}


@samples("ContribStringSplit")
def contrib_string_split(rng, dtype="i32"):
    begins, ends, chars = sample_strings("a,b", ",", "", "é,,x")
    for shape in ((4,), (2, 2)):
        for between in (",", ",,", ""):
            for skip in (np.array(True), np.array(0, np.uint8)):
                yield [begins.reshape(shape), ends.reshape(shape), chars, sample_text(between), skip], {}


_ROWS = ([0, 3, 3], [3, 3, 7], [10, 11, 12, 20, 21, 22, 23])


def _sample(begins=_ROWS[0], ends=_ROWS[1], data=_ROWS[2]):
    return [np.array(x, np.int32) for x in (begins, ends, data)]


@samples("RaggedToDense")
def ragged_to_dense(rng, dtype="i32"):
    for length in (0, 2, 4, 6):
        for right in (True, False):
            yield [*_sample(), np.int32(length), np.int32(-1)], {"pad_right": right}
    yield [*_sample(), np.int32(5), np.int32(-1), np.array(False)], {}
    rows = _sample([0, 1], [1, 3])[:2]
    yield [*rows, rng.standard_normal((3, 2)).astype(np.float32), np.int32(2), np.float32(0.5)], {}
    yield [*_sample([0, 1], [2, 2]), np.int32(3), np.int32(0)], {"m_pad_max_length": True}


@samples("RaggedToSparse")
def ragged_to_sparse(rng, dtype="i32"):
    yield _sample()[:2], {}


@samples("RaggedToRagged")
def ragged_to_ragged(rng, dtype="i32"):
    yield [np.array([0, 0, 2, 2, 2, 4], np.int32), np.array(6, np.int32)], {}
    yield [np.array([0, 1, 5], np.int32), np.array([3], np.int32)], {}
    yield [np.array([], np.int32), np.array(2, np.int32)], {}


@samples("RaggedTensorPack")
def ragged_tensor_pack(rng, dtype="i32"):
    yield _sample(), {}


@samples("Truncate")
def truncate(rng, dtype="i32"):
    first, second = _sample(), _sample([0, 4, 5], [4, 5, 7])
    for side in SIDES:
        for mode in MODES:
            texts = [np.frombuffer(t, np.uint8).copy() for t in (side, mode)]
            for most in (2, 5, 100):
                yield [*first, np.int32(most), *texts], {"m_num_inputs": 1}
                yield [*first, *second, np.int32(most), *texts], {"m_num_inputs": 2}


@samples("CombineSegments")
def combine_segments(rng, dtype="i32"):
    bos = _sample(0, 1, [1])
    yield [*bos, *_sample(), np.array([0, 0], np.int32)], {}
    yield (
        [
            *bos,
            *_sample(),
            *bos,
            *_sample([0, 4, 5], [4, 5, 7]),
            *bos,
            np.array([0, 0, 0, 1, 1], np.int32),
        ],
        {},
    )
    yield [*_sample(), np.array([0], np.int32)], {}


@samples("FuzeRagged")
def fuze_ragged(rng, dtype="i32"):
    rows = [np.array(x, np.int32) for x in ([0, 2], [2, 4], [0, 3, 3, 8], [3, 3, 8, 9])]
    yield rows, {}
    yield [np.array([0, 1], np.int32), np.array([1, 1], np.int32), *rows[2:]], {}


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf with fewer than 128 bytes, or of any length up to 16 kB."""
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + content


def _sample_model() -> np.ndarray:
    """A unigram model of 13 pieces that changes no characters."""
    pieces = (
        ("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("▁", -2.0, 1), ("h", -3.0, 1), ("e", -3.0, 1),
        ("l", -3.0, 1), ("o", -3.0, 1), ("▁hell", -2.5, 1), ("ell", -4.0, 1), ("<", -5.0, 1), ("s", -5.0, 1),
        (">", -5.0, 1),
    )  # fmt: skip
    model = b"".join(
        _field(1, _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([24, kind]))
        for text, score, kind in pieces
    )
    model += _field(2, bytes([24, 1])) + _field(3, _field(1, b"identity"))
    return np.frombuffer(model, np.uint8).copy()


@samples("SentencepieceTokenizer")
def sentencepiece_tokenizer(rng, dtype="i32"):
    strings = sample_strings("hello hell", "", "oh <s> l")
    yield [_sample_model(), *strings], {}
    yield [_sample_model(), *strings], {"add_bos": True, "add_eos": True}
    yield (
        [_sample_model(), *strings, *sample_strings("<s>"), np.array([1], np.int32)],
        {"add_eos": True},
    )


@samples("SentencepieceDetokenizer")
def sentencepiece_detokenizer(rng, dtype="i32"):
    yield [_sample_model(), np.array([[3, 4, 5], [6, 99, 4]], np.int32)], {}


@samples("SentencepieceStreamDetokenizer")
def sentencepiece_stream_detokenizer(rng, dtype="i32"):
    yield [_sample_model(), np.array([[3, 4, 5], [6, 99, 4]], np.int32)], {}


@samples("RegexSplit")
def regex_split(rng, dtype="i32"):
    rows = sample_rows(["hello  world", "a"], [], ["don't stop", "x y z "])
    for behaviour in BEHAVIOURS:
        for invert in (False, True):
            yield [*rows, sample_text(r"\s+")], {"behaviour": behaviour, "invert": invert}
    skips = np.array([False, True, False, False])
    yield [*rows, skips, sample_text(r"\s")], {"behaviour": "isolate", "max_splits": 2}
    tokens = sample_strings("a", "hello  world")
    yield [*rows, sample_text(r"\p{L}"), *tokens], {"behaviour": "isolate"}
    yield [*sample_rows(["é ü", "ß"]), sample_text(r"\s")], {"behaviour": "remove"}


@samples("SpecialTokensSplit")
def special_tokens_split(rng, dtype="i32"):
    rows = sample_rows(["<s>hello  <pad> x</s>", "a"], [], ["</s>", "é<s>ü"])
    pattern = sample_text(r"(<s>|</s>)|(?:\s*)(<pad>)(?:\s*)")
    yield [*rows, pattern], {}
    yield [*rows, np.array([False, False, True, False]), pattern], {}


_BPE = ("a", "b", "c", "ab", "abc", " ", "<unk>", "<0x64>", "bc", "cc", "x</w>", "x", "</w>", "y")


_MERGES = (("a", "b"), ("ab", "c"), ("b", "c"), ("c", "c"))


@samples("BPETokenizer")
def bpe_tokenizer(rng, dtype="i32"):
    rows = sample_rows(["abcc", "", "d"], [], ["abab zz", "cc"])
    vocabulary = sample_strings(*_BPE)
    one = sample_strings(*(" ".join(m) for m in _MERGES))
    two = sample_strings(*(m[0] for m in _MERGES)), sample_strings(*(m[1] for m in _MERGES))
    for merges in (one, (*two[0], *two[1])):
        yield [*rows, *vocabulary, *merges], {}
        unknown = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
        yield [*rows, *vocabulary, *merges], unknown
        added = *sample_strings("zz", "a"), np.array([77, 78], np.int32)
        yield [*rows, *vocabulary, *merges, *added], {"unk_token": "<unk>"}
    yield [*sample_rows(["x", "yx"]), *vocabulary, *one], {"end_suffix": "</w>"}


@samples("WordpieceTokenizer")
def wordpiece_tokenizer(rng, dtype="i32"):
    rows = sample_rows(["hello", "he", "xello"], [], ["hellox", "hellohellohello"])
    words = sample_strings("[UNK]", "he", "hel", "##lo", "##l", "##o", "##hel", "#")
    yield [*rows, *words, np.int32(0)], {}
    yield [*rows, *words, np.int32(9)], {"max_bytes_per_word": 8}


@samples("UnigramTokenizer")
def unigram_tokenizer(rng, dtype="i32"):
    rows = sample_rows(["▁hello", "xyzé"], [], ["", "hellohe"])
    words = ("<unk>", "▁", "h", "e", "l", "o", "he", "ll", "llo", "▁he", "hello", "é")
    scores = -rng.random(len(words)).astype(np.float32) * 10
    yield [*rows, *sample_strings(*words), scores], {}
    yield [*rows, *sample_strings(*words), scores], {"unk_token_id": 3}


@samples("TrieTokenizer")
def trie_tokenizer(rng, dtype="i32"):
    words = ("a", "b", "c", "ab", "abc", "cab", "é")
    rows = sample_rows(["abcab", "é"], [], ["aabbcc", ""])
    yield [*rows, *sample_strings(*words), np.arange(10, 17, dtype=np.int32)], {}


@samples("VocabEncoder")
def vocab_encoder(rng, dtype="i32"):
    words = sample_strings("a", "bc", "a", "é")
    for kind in (np.int32, np.int64):
        strings, numbers = sample_strings("bc", "x", "", "a", "é"), np.array([5, 6, 7, 8], kind)
        yield [*strings, *words, numbers, kind(-1)], {}


@samples("VocabDecoder")
def vocab_decoder(rng, dtype="i32"):
    words = sample_strings("a", "bc", "", "é", "<s>")
    ids = np.array([[0, 1, 2], [4, 3, 9]], np.int32)
    yield [ids, *words], {"skip_tokens": [4]}
    yield [ids, *words, np.array([1], np.int32)], {}
    yield [np.zeros((2, 0), np.int32), *words, np.array([], np.int32)], {}
