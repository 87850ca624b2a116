"""Small tokenizers, built by node factories: of ovjit, or of the real openvino with openvino_tokenizers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<|end|>", "<|start|>")
#: What the merges are taken from.
WORDS = "the then there other weather hello world don't we'll naïve 12 123 straße 你好 it is isn't".split()
TEXTS = (
    "hello world", "", "the weather isn't there<|end|> then", "  we'll\n\n naïve  12345 ",
    "你好 straße é\u0301 ﬁ",
    "\t\r\n x<|start|><|end|>y ", "DON'T <|end", "it\u180eis\u2028\x1c\x00.", "😀👩‍👧 ͅ",
)  # fmt: skip


def byte_pairs(words: Sequence[str] = WORDS) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """(vocabulary, merges): all bytes, and the words joined from the left."""
    vocabulary = {bytes([i]): None for i in range(256)}
    merges: dict[tuple[bytes, bytes], None] = {}
    for word in itertools.chain(words, (f" {w}" for w in words)):
        made = b""
        for byte in word.encode():
            if made:
                merges[made, bytes([byte])] = None
            made += bytes([byte])
            vocabulary[made] = None
    return list(vocabulary), list(merges)


class Builder:
    """`factory`: one whose extension is added. `ops`: the package's opset 15."""

    def __init__(self, package: Any, factory: Any, ops: Any):
        self.package, self.factory, self.ops = package, factory, ops

    def create(self, name: str, inputs: Sequence[Any], attrs: dict[str, Any] | None = None) -> list[Any]:
        return list(self.factory.create(name, list(inputs), attrs or {}).outputs())

    def const(self, value: Any, dtype: Any = np.int32) -> Any:
        return self.ops.constant(np.asarray(value, dtype)).output(0)

    def text(self, text: str) -> Any:
        return self.const(np.frombuffer(text.encode(), np.uint8), np.uint8)

    def strings(self, words: Sequence[bytes]) -> list[Any]:
        ends = np.cumsum([len(w) for w in words])
        begins = [0, *ends[:-1]]
        return [self.const(begins), self.const(ends), self.const(list(b"".join(words)), np.uint8)]

    def tokenizer(self, pattern: str, form: str = "", bos: int = -1) -> Any:
        """A tokenizer as convert_tokenizer writes it: byte pair encoding of pieces."""
        ops, vocabulary, merges = self.ops, *byte_pairs()
        vocabulary = [*vocabulary, *(s.encode() for s in SPECIAL)]
        x = ops.parameter([-1], self.package.Type.string, name="text")
        strings = list(ops.string_tensor_unpack(x).outputs())
        zero, one = self.const(0, np.int64), self.const(1, np.int64)
        count = ops.gather(ops.shape_of(strings[0]), zero, zero)
        rows = [ops.range(zero, count, one, "i32"), ops.range(one, ops.add(count, one), one, "i32")]
        tokens = self.text("(" + "|".join(s.replace("|", r"\|") for s in SPECIAL) + ")")
        made = self.create("SpecialTokensSplit", [*(r.output(0) for r in rows), *strings, tokens])
        if form:
            options = {"normalization_form": form, "remove_extra_whitespaces": False}
            changed = self.create("CharsMapNormalization", [*made[2:5], made[5]], options)
            made = [*made[:2], *changed]
        made = self.create("RegexSplit", [*made, self.text(pattern)], {"behaviour": "isolate"})
        pairs = [*self.strings([a for a, _ in merges]), *self.strings([b for _, b in merges])]
        made = self.create("BPETokenizer", [*made[:5], *self.strings(vocabulary), *pairs])
        side, mode = self.text("right"), self.text("longest_first")
        made = self.create("Truncate", [*made, self.const(24), side, mode])
        if bos >= 0:
            first = [self.const(0), self.const(1), self.const([bos])]
            made = self.create("CombineSegments", [*first, *made, self.const([0, 0])])[:3]
        size = ops.reduce_max(ops.subtract(made[1], made[0]), self.const(0))
        dense = self.create("RaggedToDense", [*made, size.output(0), self.const(0)])
        return self.package.Model([ops.convert(y, "i64").output(0) for y in dense], [x], "tokenizer")

    def detokenizer(self) -> Any:
        ops = self.ops
        vocabulary = [*byte_pairs()[0], *(s.encode() for s in SPECIAL)]
        ids = ops.parameter([-1, -1], np.int32, name="ids")
        skipped = self.const([len(vocabulary) - 1])
        made = self.create("VocabDecoder", [ids.output(0), *self.strings(vocabulary), skipped])
        joined = self.create("FuzeRagged", made[:4])
        valid = self.create("UTF8Validate", [*joined, made[4]], {"replace_mode": True})
        return self.package.Model([ops.string_tensor_pack(*valid).output(0)], [ids], "detokenizer")
