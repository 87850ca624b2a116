"""Operations that take a whole SentencePiece model, by the package `sentencepiece`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, UnsupportedError, check
from ovjit.graph.op import Bool, Float, Int, TensorType, op
from ovjit.graph.shapes import ANY
from ovjit_ops.common.checks import check_rank, check_type
from ovjit_ops.text import packed
from ovjit_ops.text.byte_forms import byte_of
from ovjit_ops.text.patterns import compile_pattern, matches


def processor(model: np.ndarray) -> Any:
    """The package's processor of a model. UnsupportedError without the package, InferenceError for bytes that
    are no model."""
    try:
        import sentencepiece
    except ImportError as error:
        raise UnsupportedError(
            "tokenizers with a SentencePiece model need the package sentencepiece: pip install sentencepiece"
        ) from error
    result = sentencepiece.SentencePieceProcessor()
    try:
        result.LoadFromSerializedProto(packed.text_of(model))
    except RuntimeError as error:
        raise InferenceError(f"the SentencePiece model cannot be read: {error}") from error
    return result


def token_pattern(tokens: Sequence[bytes]) -> bytes:
    """The pattern of special tokens. Tokens of letters stand at the border of a word."""
    parts = []
    for token in tokens:
        quoted = b"".join(b"\\" + bytes([c]) if c in b".^$*+?()[]{}|\\" else bytes([c]) for c in token)
        letters = token.isalpha() if token else True
        parts.append(rb"\b" + quoted + b"|" + quoted + rb"\b" if letters else quoted)
    return b"|".join(parts)


class _Encoder:
    def __init__(self, inputs: Sequence[Any], attrs: Mapping[str, Any]):
        self.model = processor(inputs[0])
        self.attrs = attrs
        self.special = len(inputs) in (6, 8)
        self.numbers: dict[bytes, int] = {}
        self.pattern = None
        if self.special:
            tokens = packed.unpack(*inputs[-4:-1])
            for token, number in zip(tokens, inputs[-1].reshape(-1).tolist(), strict=True):
                self.numbers.setdefault(token, number)
            self.pattern = compile_pattern(token_pattern(tokens))

    def part(self, text: bytes) -> list[int]:
        attrs = self.attrs
        options: dict[str, Any] = {"add_bos": attrs["add_bos"]}
        if not self.special:
            options |= {"add_eos": attrs["add_eos"], "reverse": attrs["reverse"]}
        if attrs["nbest_size"] not in (0, 1):
            options |= {"enable_sampling": True, "nbest_size": attrs["nbest_size"], "alpha": attrs["alpha"]}
        return self.model.encode(text, out_type=int, **options)

    def ids(self, text: bytes) -> list[int]:
        if not self.special:
            return self.part(text)
        ids: list[int] = []
        at = 0
        for begin, end in matches(self.pattern, text):
            before = self.part(text[at:begin]) if at < begin else []
            number = self.numbers.get(text[begin:end])
            # a match that is no token gives the text in front of it once more
            ids += before + ([number] if number is not None else self.part(text[at:begin]))
            at = end
        if at < len(text):
            ids += self.part(text[at:])
        if self.attrs["add_eos"]:
            ids.append(self.model.eos_id())
        return ids[::-1] if self.attrs["reverse"] else ids


@packed.with_known(0, 1)
def prepare_encoder(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    if len(inputs) > 4 and any(x is None for x in inputs[-4:]):
        return None  # special tokens that are computed
    encoder = _Encoder(inputs, attrs)

    def evaluate(*arrays: np.ndarray) -> Any:
        if len(arrays) in (4, 8):
            texts = packed.unpack(*arrays[1:4])
        else:
            texts = [x if isinstance(x, bytes) else str(x).encode() for x in arrays[1].reshape(-1)]
        rows = [encoder.ids(text) for text in texts]
        sizes = [len(row) for row in rows]
        total = sum(sizes)
        indices = np.empty((total, 2), np.int64)
        indices[:, 0] = np.repeat(np.arange(len(rows)), sizes)
        indices[:, 1] = np.arange(total) - np.repeat(np.cumsum(sizes, dtype=np.int64) - sizes, sizes)
        values = np.array([number for row in rows for number in row], np.int32)
        return indices, values, np.array([len(rows), max(sizes, default=0)], np.int64)

    return evaluate


@op("SentencepieceTokenizer", plugin="extension", host=prepare_encoder)
class SentencepieceTokenizer:
    """The pieces of strings as a sparse tensor: indices, ids, shape."""

    def infer(
        *inputs, nbest_size: Int = 0, alpha: Float = 1.0, add_bos: Bool = False, add_eos: Bool = False,
        reverse: Bool = False,
    ):  # fmt: skip
        packed.check_count(inputs, (2, 4, 6, 8), "SentencepieceTokenizer")
        packed.check_bytes(inputs[0], "the SentencePiece model")
        if len(inputs) in (4, 8):
            packed.check_strings(inputs[1:4])
        else:
            check_type(inputs[1], ("string", "f32"), "the strings")
        if len(inputs) > 4:
            packed.check_strings(inputs[-4:-1], "the special tokens")
            check_type(inputs[-1], ("i32",), "the ids of special tokens")
        return TensorType("i64", (ANY, 2)), TensorType("i32", (ANY,)), TensorType("i64", (2,))

    ref = packed.by_host(prepare_encoder)


class _Decoder:
    def __init__(self, model: np.ndarray):
        self.model = processor(model)
        self.size = self.model.GetPieceSize()

    def rows(self, ids: np.ndarray) -> list[list[int]]:
        if ids.ndim != 2:
            raise InferenceError("a detokenizer takes ids with two dimensions")
        return [[i for i in row if i < self.size] for row in ids.tolist()]


@packed.with_known(0, 1)
def prepare_decoder(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    decoder = _Decoder(inputs[0])

    def evaluate(model: np.ndarray, ids: np.ndarray) -> Any:
        return packed.pack([decoder.model.decode(row).encode() if row else b"" for row in decoder.rows(ids)])

    return evaluate


@packed.with_known(0, 1)
def prepare_stream_decoder(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    decoder = _Decoder(inputs[0])
    pieces = [byte_of(decoder.model.IdToPiece(i).encode()) for i in range(decoder.size)]

    def evaluate(model: np.ndarray, ids: np.ndarray) -> Any:
        return packed.pack([b"".join([pieces[i] for i in row]) for row in decoder.rows(ids)])

    return evaluate


def _infer_decoder(model, ids):
    packed.check_bytes(model, "the SentencePiece model")
    check_rank(ids, 2, "the ids")
    check(ids.dtype in ("i32", "dynamic"), f"the ids should be i32, not {ids}")
    return packed.strings_type((ANY,) if ids.shape is None else ids.shape[:1])


@op("SentencepieceDetokenizer", plugin="extension", host=prepare_decoder)
class SentencepieceDetokenizer:
    """The text of each row of ids."""

    def infer(model, ids):
        return _infer_decoder(model, ids)

    ref = packed.by_host(prepare_decoder)


@op("SentencepieceStreamDetokenizer", plugin="extension", host=prepare_stream_decoder)
class SentencepieceStreamDetokenizer:
    """The pieces of each row of ids, joined as they are."""

    def infer(model, ids):
        return _infer_decoder(model, ids)

    ref = packed.by_host(prepare_stream_decoder)
