"""RegexSplit and SpecialTokensSplit: cut ragged strings into pieces. The bytes stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.op import Bool, Int, Str, TensorType, op
from ovjit_ops.common.checks import check_type
from ovjit_ops.text import packed
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


def _cut_rows(
    inputs: Sequence[np.ndarray], cuts_of: Callable[[bytes], Iterable[tuple[int, int, bool]]]
) -> tuple[np.ndarray, ...]:
    """Ragged strings that are cut into pieces, and the marks of pieces. `cuts_of(text)`: begin, end and mark
    of each piece. Strings to be skipped, if there is a seventh input, are one marked piece."""
    begins, ends, *strings = inputs[:5]
    skips = inputs[5] if len(inputs) == 7 else None
    texts, at = packed.unpack(*strings), strings[0].tolist()
    if skips is not None:
        packed.check_skips(skips, len(texts))
    rows: list[tuple[int, int]] = []
    pieces: list[tuple[int, int]] = []
    marks: list[bool] = []
    for row in packed.rows_of(begins, ends, len(texts)):
        first = len(pieces)
        for i in row:
            is_kept = skips is not None and skips[i]
            for begin, end, mark in [(0, len(texts[i]), True)] if is_kept else cuts_of(texts[i]):
                pieces.append((at[i] + begin, at[i] + end))
                marks.append(mark)
        rows.append((first, len(pieces)))
    new_rows, strings[:2] = packed.ragged_ends(rows, begins.shape), packed.ragged_ends(pieces, (len(pieces),))
    return (*new_rows, *strings, np.array(marks, bool))


def empty_rows(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Rows without pieces, if no string has a byte, and the strings as they are. OpenVINO returns one row.
    Raises InferenceError if begins and ends differ in shape."""
    packed.check_shapes(*arrays[:2])
    packed.check_shapes(*arrays[2:4])
    return (*(np.zeros(arrays[0].shape, np.int32) for _ in range(2)), *arrays[2:])


@op("RegexSplit", plugin="extension", host=".cpu_split:prepare_split")
class RegexSplit:
    """Cuts strings at the matches of a pattern. `behaviour`: what becomes of the matches."""

    words = {"behaviour": " ".join(BEHAVIOURS)}

    def infer(*inputs, behaviour: Str = "remove", invert: Bool = False, max_splits: Int = -1):
        packed.check_count(inputs, (6, 7, 9), "RegexSplit")
        packed.check_ragged_strings(inputs[:5])
        skips = len(inputs) == 7
        packed.check_bytes(inputs[5 + skips], "the pattern")
        if len(inputs) == 9:
            packed.check_strings(inputs[6:], "the skipped tokens")
        check(max_splits == -1 or max_splits > 0, f"max_splits should be -1 or positive, not {max_splits}")
        types = packed.ragged_strings_type(inputs[0].shape)
        return (*types, TensorType("boolean", types[2].shape)) if skips else types

    def ref(*inputs, behaviour="remove", invert=False, max_splits=-1):
        begins, ends, *strings = inputs[:5]
        skips = inputs[5] if len(inputs) == 7 else None
        if not strings[2].size:
            return empty_rows(inputs[: 5 if skips is None else 6])
        pattern = compile_pattern(
            split_pattern(packed.text_of(inputs[6 if skips is not None else 5]), behaviour)
        )
        special_tokens = set(packed.unpack(*inputs[6:])) if len(inputs) == 9 else set()

        def cuts_of(text: bytes) -> list[tuple[int, int, bool]]:
            if text in special_tokens:
                return [(0, len(text), False)]
            spans = cut(len(text), matches(pattern, text), behaviour, invert, max_splits)
            return [(*span, False) for span in spans]

        out = _cut_rows(inputs, cuts_of)
        return out if skips is not None else out[:-1]


@op("SpecialTokensSplit", plugin="extension", host=".cpu_split:prepare_special")
class SpecialTokensSplit:
    """Cuts strings at special tokens, whose pieces are marked. Of a match with a group, the group is the
    token."""

    def infer(*inputs):
        packed.check_count(inputs, (6, 7), "SpecialTokensSplit")
        packed.check_ragged_strings(inputs[:5])
        if len(inputs) == 7:
            check_type(inputs[5], ("boolean",), "the marks")
        packed.check_bytes(inputs[-1], "the pattern")
        types = packed.ragged_strings_type(inputs[0].shape)
        return (*types, TensorType("boolean", types[2].shape))

    def ref(*inputs):
        pattern = compile_pattern(packed.text_of(inputs[-1]))
        return _cut_rows(inputs, lambda text: special_cuts(pattern, text))


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
