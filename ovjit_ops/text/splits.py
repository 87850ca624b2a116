"""RegexSplit and SpecialTokensSplit: cut ragged strings into pieces. The bytes stay where they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.op import Bool, Int, Str, TensorType, op
from ovjit_ops.common.checks import check_type
from ovjit_ops.text.packed import (
    check_bytes,
    check_count,
    check_ragged_strings,
    check_skips,
    check_strings,
    ragged_ends,
    ragged_strings_type,
    rows_of,
    sample_rows,
    sample_strings,
    sample_text,
    text_of,
    unpack,
)
from ovjit_ops.text.patterns import Offsets, compile_pattern, decode_text, matches

BEHAVIOURS = ("remove", "isolate", "contiguous", "mergedwithprevious", "mergedwithnext")


def split_pattern(pattern: bytes, behaviour: str) -> bytes:
    """The pattern of RegexSplit: neighbouring matches are one if the behaviour is contiguous."""
    if behaviour == "contiguous" and not pattern.endswith(b"+"):
        return b"(" + pattern + b")+"
    return pattern


def cut(
    length: int, spans: Iterable[tuple[int, int]], behaviour: str, invert: bool, max_splits: int
) -> list[tuple[int, int]]:
    """The pieces of a text of `length` bytes with these matches."""
    pieces: list[tuple[int, int]] = []
    last, at = -1, 0

    def add(begin: int, end: int, match: bool) -> None:
        nonlocal last
        if behaviour == "remove" and match:
            return
        if behaviour == "mergedwithprevious":
            if not match and end != length:
                last = begin
                return
            if match:
                begin = last
        elif behaviour == "mergedwithnext":
            if match:
                last = begin
                return
            if last != -1:
                begin = last
        pieces.append((max(0, begin), length if len(pieces) == max_splits else min(length, end)))

    for begin, end in spans:
        if begin != at:
            add(at, begin, invert)
        add(begin, end, not invert)
        at = end
    if at < length:
        add(at, length, invert)
    elif behaviour == "mergedwithnext" and last != length:
        add(last, length, invert)
    return pieces


def _outputs(shape: Any, rows: Sequence[Any], pieces: Sequence[Any], chars: np.ndarray) -> list[np.ndarray]:
    return [*ragged_ends(rows, shape), *ragged_ends(pieces, (len(pieces),)), chars]


def empty_rows(begins: np.ndarray, strings: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Rows without pieces, if no string has a byte, and the strings as they are. OpenVINO returns one row."""
    zeros = np.zeros(begins.shape, np.int32)
    return (zeros, zeros.copy(), *strings)


@op("RegexSplit", plugin="extension", host=".cpu_split:prepare_split")
class RegexSplit:
    """Cuts strings at the matches of a pattern. `behaviour`: what becomes of the matches."""

    words = {"behaviour": " ".join(BEHAVIOURS)}

    def infer(*inputs, behaviour: Str = "remove", invert: Bool = False, max_splits: Int = -1):
        check_count(inputs, (6, 7, 9), "RegexSplit")
        check_ragged_strings(inputs[:5])
        skips = len(inputs) == 7
        check_bytes(inputs[5 + skips], "the pattern")
        if len(inputs) == 9:
            check_strings(inputs[6:], "the skipped tokens")
        check(max_splits == -1 or max_splits > 0, f"max_splits should be -1 or positive, not {max_splits}")
        types = ragged_strings_type(inputs[0].shape)
        return (*types, TensorType("boolean", types[2].shape)) if skips else types

    def ref(*inputs, behaviour="remove", invert=False, max_splits=-1):
        begins, ends, *strings = inputs[:5]
        skips = inputs[5] if len(inputs) == 7 else None
        if not strings[2].size:
            return empty_rows(begins, strings if skips is None else [*strings, skips])
        pattern = compile_pattern(split_pattern(text_of(inputs[6 if skips is not None else 5]), behaviour))
        special_tokens = set(unpack(*inputs[6:])) if len(inputs) == 9 else set()
        texts, at = unpack(*strings), strings[0].tolist()
        if skips is not None:
            check_skips(skips, len(texts))
        rows: list[tuple[int, int]] = []
        pieces: list[tuple[int, int]] = []
        marks: list[bool] = []
        for row in rows_of(begins, ends, len(texts)):
            first = len(pieces)
            for i in row:
                text, skip = texts[i], skips is not None and bool(skips[i])
                if skip or text in special_tokens:
                    cuts = [(0, len(text))]
                else:
                    cuts = cut(len(text), matches(pattern, text), behaviour, invert, max_splits)
                pieces += [(at[i] + begin, at[i] + end) for begin, end in cuts]
                marks += [skip] * len(cuts)
            rows.append((first, len(pieces)))
        out = _outputs(begins.shape, rows, pieces, strings[2])
        return (*out, np.array(marks, bool)) if skips is not None else tuple(out)

    def samples(rng, dtype="i32"):
        rows = sample_rows(["hello  world", "a"], [], ["don't stop", "x y z "])
        for behaviour in BEHAVIOURS:
            for invert in (False, True):
                yield [*rows, sample_text(r"\s+")], {"behaviour": behaviour, "invert": invert}
        skips = np.array([False, True, False, False])
        yield [*rows, skips, sample_text(r"\s")], {"behaviour": "isolate", "max_splits": 2}
        tokens = sample_strings("a", "hello  world")
        yield [*rows, sample_text(r"\p{L}"), *tokens], {"behaviour": "isolate"}
        yield [*sample_rows(["é ü", "ß"]), sample_text(r"\s")], {"behaviour": "remove"}


@op("SpecialTokensSplit", plugin="extension", host=".cpu_split:prepare_special")
class SpecialTokensSplit:
    """Cuts strings at special tokens, whose pieces are marked. Of a match with a group, the group is the
    token."""

    def infer(*inputs):
        check_count(inputs, (6, 7), "SpecialTokensSplit")
        check_ragged_strings(inputs[:5])
        if len(inputs) == 7:
            check_type(inputs[5], ("boolean",), "the marks")
        check_bytes(inputs[-1], "the pattern")
        types = ragged_strings_type(inputs[0].shape)
        return (*types, TensorType("boolean", types[2].shape))

    def ref(*inputs):
        begins, ends, *strings = inputs[:5]
        skips = inputs[5] if len(inputs) == 7 else None
        pattern = compile_pattern(text_of(inputs[-1]))
        texts, at = unpack(*strings), strings[0].tolist()
        if skips is not None:
            check_skips(skips, len(texts))
        rows: list[tuple[int, int]] = []
        pieces: list[tuple[int, int]] = []
        marks: list[bool] = []
        for row in rows_of(begins, ends, len(texts)):
            first = len(pieces)
            for i in row:
                if skips is not None and skips[i]:
                    cuts = [(0, len(texts[i]), True)]
                else:
                    cuts = special_cuts(pattern, texts[i])
                pieces += [(at[i] + begin, at[i] + end) for begin, end, _ in cuts]
                marks += [mark for *_, mark in cuts]
            rows.append((first, len(pieces)))
        return (*_outputs(begins.shape, rows, pieces, strings[2]), np.array(marks, bool))

    def samples(rng, dtype="i32"):
        rows = sample_rows(["<s>hello  <pad> x</s>", "a"], [], ["</s>", "é<s>ü"])
        pattern = sample_text(r"(<s>|</s>)|(?:\s*)(<pad>)(?:\s*)")
        yield [*rows, pattern], {}
        yield [*rows, np.array([False, False, True, False]), pattern], {}


def special_cuts(pattern: Any, text: bytes) -> list[tuple[int, int, bool]]:
    """Begin, end and mark of each piece of a text."""
    cuts: list[tuple[int, int, bool]] = []
    string = decode_text(text) if pattern is not None else None
    done = 0
    if string is not None:
        offsets = Offsets(text)
        for match in pattern.finditer(string):
            begin, end = match.span()
            if begin == end:
                break
            if done < offsets[begin]:
                cuts.append((done, offsets[begin], False))
            token = begin, end
            for group in range(1, pattern.groups + 1):
                first, last = match.span(group)
                if begin <= first < last <= end:
                    token = first, last
            cuts.append((offsets[token[0]], offsets[token[1]], True))
            done = offsets[end]
    if done < len(text):
        cuts.append((done, len(text), False))
    return cuts
