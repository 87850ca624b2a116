"""The steps before byte pairs are merged: pre-tokenizers, which split texts into words and have the names of
GGUF files, and SentencePiece's normalizer.

A `Cut` has a list of regular expressions. Each match is a piece, and so is the text between two matches.
The next expression splits these pieces.

`Charsmap` is SentencePiece's table of replaced characters, `precompiled_charsmap`. The class of
`tokenizers` looks up whole graphemes and loses some of their characters. This one replaces the longest key
at each position, as SentencePiece and llama.cpp do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.errors import InferenceError, OvjitError
from ovjit.records import NamedTuple
from ovjit_ops.text.character_maps import CompiledTable

_SHORT = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = rf"{_SHORT}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_ONE, _THREE, _EACH = r"\p{N}", r"\p{N}{1,3}", r"\s+(?!\S)|\s+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_LARGE, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _words(digits: str, blanks: str = _BLANKS, marks: str = _MARKS, short: str = f"(?i:{_SHORT})|") -> str:
    """A pattern for words with a leading mark or blank, numbers by the pattern `digits`, marks with following
    line ends, and blanks."""
    return f"{short}{_LETTERS}|{digits}|{marks}|{blanks}"


def _cut_cases(digits: str, short: str) -> str:
    """A pattern for words as of `_words`, in which an upper-case letter after a lower-case one begins a word.
    `short`: the pattern of endings such as 's."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{lead}{_LARGE}*{_SMALL}+{short}|{lead}{_LARGE}+{_SMALL}*{short}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"
    )


#: As `_words`: with accents as parts of words; with words and the single blanks between them in one piece.
_MARKED = (
    rf"(?i:{_SHORT})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BLANKS}"
)
_SPACED = (
    rf"(?i:{_SHORT})|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_EACH}"
)
#: Chinese and Japanese; letters and marks of DeepSeek's first models.
_HAN, _EAST = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CASED = (
    "[[\\p{Lu}\\p{Ll}\\p{Lt}]&&[^\u0560-\u0588\u10c7\u10cd\u10d0-\u10ff\u1c80-\u1c8a\u2d00-\u2d2d\ua790-\ua7ff"
    "\uab30-\uab6f\U00010570-\U000105bc\U00016e40-\U00016e7f\U0001d400-\U0001d7cb\U0001df00-\U0001df1e]]"
)
_DEEPSEEK_MARKS = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_BLANKS}"
)
_FALCON_MARKS = r"[\p{P}\$\+<=>\^~\|`]+"
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    f"|[\u3105-\u312f]+|{_HAN}"
)
_JAIS_BLANKS = "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")) + r"|\s"


class Cut(NamedTuple):
    """The meaning of a value of `tokenizer.ggml.pre`. `words`: expressions, in order. `whole_words`: a word
    that is a token is used without merges. `begins`: texts begin with a special token, unless the file says
    otherwise. `composed`: letters and their accents become one character."""

    words: tuple[str, ...] = (_GPT2,)
    whole_words: bool = False
    begins: bool = False
    composed: bool = False


def _alike(names: str, cut: Cut) -> dict[str, Cut]:
    return dict.fromkeys(names.split(), cut)


_LLAMA3 = Cut((_words(_THREE),), True, True)
#: The cuts by their names.
CUTS: Mapping[str, Cut] = {
    **_alike("gpt-2 phi-2 jais roberta-bpe jina-es jina-de jina-v1-en jina-v2-es jina-v2-de", Cut()),
    **_alike("jina-v2-code a.x-4.0 exaone4 gigachat mellum trillion granite-docling modern-bert", Cut()),
    **_alike("olmo mpt", Cut(composed=True)),
    **_alike("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", _LLAMA3),
    **_alike("dbrx smaug-bpe glm4 chatglm-bpe", Cut(_LLAMA3.words)),
    "jais-2": Cut((_words(_THREE, rf"\s*[\r\n]+|{_JAIS_BLANKS}"),)),
    "minicpm5": Cut((_THREE, _words(r"\p{N}+")), True),
    **_alike("deepseek-r1-qwen stablelm2 megrez kormo f2llmv2", Cut((_words(_ONE),))),
    **_alike("hunyuan solar-open grok-2", Cut((_words(_ONE),))),
    "qwen2": Cut((_words(_ONE),), composed=True),
    "qwen35": Cut((_MARKED,), composed=True),
    "exaone-moe": Cut((_SPACED,)),
    "ufakzeka": Cut((_words(_ONE, short=""),)),
    "laguna": Cut((r"[^\n]+|[\n]+", _words(_ONE))),
    "seed-coder": Cut((_words(_ONE, marks=r" ?[^\s\p{L}\p{N}\r\n]+"),)),
    **_alike("bailingmoe bailingmoe2 llada-moe", Cut((_words(_ONE, rf"\s*[\r\n]|{_EACH}"),))),
    **_alike("smollm starcoder refact codeshell exaone minerva-7b mellum2", Cut((_ONE, _GPT2))),
    "command-r": Cut((_ONE, _GPT2), composed=True),
    **_alike("gpt-4o llama4 kanana2 talkie minimax-m2", Cut((_cut_cases(_THREE, f"(?i:{_SHORT})?"),))),
    "tekken": Cut((_cut_cases(_ONE, ""),), True, True),
    **_alike("deepseek-v3 hunyuan-dense joyai-llm hy_v4", Cut((_THREE, _HAN, _DEEPSEEK3))),
    "youtu": Cut((_YOUTU, _cut_cases(_ONE, f"(?i:{_SHORT})?")), True),
    **_alike("tiny_aya cohere2moe", Cut((r"\d{1,3}(?=(?:\d{3})*\b)", _cut_cases(_THREE, f"(?i:{_SHORT})?")))),
    "deepseek-llm": Cut((r"[\r\n]", rf"\s?{_CASED}+", _DEEPSEEK_MARKS, r"\s+$", _EAST, r"\p{N}+")),
    "deepseek-coder": Cut((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST, _ONE)),
    "falcon": Cut((_FALCON_MARKS, _GPT2, "[0-9]{3}")),
    **_alike("bloom poro-chat gpt3-finnish", Cut((_BLOOM,))),
    "viking": Cut((_BLOOM, _ONE)),
    # llama.cpp's, where a file does not say how
    "default": Cut((_FALCON_MARKS.replace("`", ""), _GPT2, r"\p{N}+", "[0-9]{3}")),
}


class Charsmap:
    """Replaces parts of texts by `table`. Raises OvjitError for a damaged table."""

    def __init__(self, table: bytes):
        try:
            self._table = CompiledTable(table)
        except InferenceError as error:
            # raised here, since the package drops exceptions of normalizers
            raise OvjitError(f"tokenizer.ggml.precompiled_charsmap is damaged: {error}") from error
        #: Bytes that stay where another one of ASCII follows.
        self._plain = frozenset(filter(self._table.keeps_ascii, range(128)))

    def replace(self, text: str) -> str:
        """The text with the longest key at each place replaced, from the left."""
        content, plain, parts, at, begin = text.encode(), self._plain, list[bytes](), 0, 0
        while at < len(content):
            first = content[at]
            if first in plain and content[at + 1 : at + 2].isascii():
                at += 1
                continue
            count, by = self._table.longest(content, at)
            if count:
                parts += [content[begin:at], by]
                begin = at + count
            at += count or 1 + (first >= 0xC0) + (first >= 0xE0) + (first >= 0xF0)  # a character of UTF-8
        return b"".join([*parts, content[begin:]]).decode("utf-8", "replace")

    def normalize(self, text: Any) -> None:
        """Replace keys in a NormalizedString, in place. `tokenizers.normalizers.Normalizer.custom` calls
        it."""
        before = text.normalized
        after = self.replace(before)
        if after != before:
            text.clear()
            text.append(after)
