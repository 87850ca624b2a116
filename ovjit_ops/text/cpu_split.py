"""Native forms of the operations with regular expressions (`splits`, RegexNormalization).

Patterns without a table (`automata`) are left to the references.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.native_routines import address, native
from ovjit_ops.text import patterns
from ovjit_ops.text.automata import Automaton, automaton
from ovjit_ops.text.cpu_native import FULL, Slices, as_bytes, marks_at, ranges_of, refuse, strings_of
from ovjit_ops.text.packed import text_of
from ovjit_ops.text.splits import BEHAVIOURS, SpecialTokensSplit, empty_rows, split_pattern

_STEPS = "ovjit_ops.text.cpu_split_steps"
_split_strings = native(_STEPS, "split_strings")
_replace_matches = native(_STEPS, "replace_matches")


def _table_args(pattern: Automaton) -> list[int]:
    states, columns = pattern.table.shape
    return [address(pattern.with_heads) + 256, address(pattern.table), columns, *pattern.starts]


class _Pieces:
    """The arrays of a cut of ragged strings."""

    def __init__(self, arrays: Sequence[np.ndarray], skips: np.ndarray | None):
        begins, ends, *strings = arrays[:5]
        self.rows = ranges_of(begins, ends)
        self.shape = begins.shape
        self.buffers, self.strings_at = strings_of(*strings)
        marks = marks_at(skips, self.buffers)
        self.rows_at = [address(self.rows[0]), address(self.rows[1]), self.rows[0].size, marks]
        # most strings have fewer pieces
        self.room = self.strings_at[4] // 2 + 2 * self.strings_at[3] + 16

    def run(self, call: Callable[..., int], table: Sequence[int], options: Sequence[int], name: str) -> Any:
        """Begins and ends of rows and of pieces, and the marks of pieces. More room is made if it is
        needed."""
        count = self.rows[0].size
        while True:
            out = Slices(count, count, self.room, self.room, self.room // 4 + 1)
            count_or_error = call(*self.strings_at, *table, *self.rows_at, *options, *out.args, self.room)
            if count_or_error != FULL:
                break
            self.room *= 4
        refuse(count_or_error, name)
        begins, ends, first, last, marks = out.arrays()
        rows = begins.reshape(self.shape), ends.reshape(self.shape)
        return (*rows, first[:count_or_error], last[:count_or_error], marks.view(bool)[:count_or_error])


def prepare_split(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    skips = len(inputs) == 7
    pattern = inputs[6 if skips else 5]
    if len(inputs) == 9 or pattern is None:
        return None
    splitter = automaton(split_pattern(text_of(pattern), attrs["behaviour"]))
    if splitter is None:
        return None
    table, behaviour = _table_args(splitter), BEHAVIOURS.index(attrs["behaviour"])
    options = [behaviour, int(attrs["invert"]), attrs["max_splits"], 0]

    def evaluate(*arrays: np.ndarray) -> Any:
        chars = arrays[4]
        if not chars.size:
            return empty_rows(arrays[: 6 if skips else 5])
        pieces = _Pieces(arrays, arrays[5] if skips else None)
        *ranges, marks = pieces.run(_split_strings, table, options, "RegexSplit")
        return (*ranges, chars, marks) if skips else (*ranges, chars)

    # the table's memory belongs to `splitter`
    evaluate.automaton = splitter  # type: ignore[attr-defined]
    return evaluate


def prepare_special(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    if inputs[-1] is None:
        return None
    pattern = text_of(inputs[-1])
    splitter = automaton(pattern)
    if splitter is None:
        return None
    table, whole_match = _table_args(splitter), set(range(splitter.groups + 1)) == splitter.whole_groups
    skips = len(inputs) == 7
    options = [BEHAVIOURS.index("isolate"), 0, -1, 1]  # matches are marked

    def evaluate(*arrays: np.ndarray) -> Any:
        pieces = _Pieces(arrays, arrays[5] if skips else None)
        *ranges, marks = pieces.run(_split_strings, table, options, "SpecialTokensSplit")
        if whole_match or not marks.any():
            return (*ranges, arrays[4], marks)
        return by_reference(*arrays)  # the token is a part of the match

    by_reference: Any = SpecialTokensSplit.ref
    evaluate.automaton = splitter  # type: ignore[attr-defined]
    return evaluate


def prepare_replacement(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    if inputs[-1] is None or inputs[-2] is None:
        return None
    try:
        pattern = patterns.earlier(text_of(inputs[-2]).decode()).encode()
    except UnicodeDecodeError:
        return None
    matcher = automaton(pattern)
    template = patterns.template_of(text_of(inputs[-1]))
    parts = patterns.parts_of(template)
    if matcher is None or matcher.empty or parts is None:
        return None
    groups = [part for part in parts if not isinstance(part, str)]
    if len(groups) > 1 or any(part[0] not in matcher.whole_groups for part in groups):
        return None
    at = parts.index(groups[0]) if groups else len(parts)
    front, back = (
        as_bytes(np.frombuffer("".join(p).encode(), np.uint8)) for p in (parts[:at], parts[at + 1 :])
    )
    options = [
        int(attrs["global_replace"]), address(front), front.size, len(groups), address(back), back.size,
        (matcher.groups + 1) * len(template),
    ]  # fmt: skip
    table = _table_args(matcher)

    def evaluate(*arrays: np.ndarray) -> Any:
        begins, ends, chars = arrays[:3]
        buffers, strings_at = strings_of(begins, ends, chars)
        marks = marks_at(arrays[3] if len(arrays) == 6 else None, buffers)
        count, room = buffers[0].size, 2 * strings_at[4] + 64
        while True:
            slices, text = Slices(count, count), np.empty(room, np.uint8)
            total = _replace_matches(*strings_at, *table, marks, *options, *slices.args, address(text), room)
            if total != FULL:
                break
            room *= 4
        refuse(total if total < 1 << 31 else -2, "RegexNormalization")
        first, last = (x.reshape(begins.shape) for x in slices.arrays())
        return (first, last, text[:total], *arrays[3:4]) if marks else (first, last, text[:total])

    evaluate.owned = matcher, front, back  # type: ignore[attr-defined]
    return evaluate
