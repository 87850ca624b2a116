"""Native forms of the operations with tables of characters (`normalization`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.native_routines import address, native
from ovjit_ops.text.character_maps import CompiledTable, form_of, sequences_of_form
from ovjit_ops.text.cpu_character_steps import DOUBLE_ARRAY, FORM, NO_TABLE
from ovjit_ops.text.cpu_native import FULL, as_i32, marks_at, refuse, strings_of
from ovjit_ops.text.packed import pack, text_of

_STEPS = "ovjit_ops.text.cpu_character_steps"
_build_tree = native(_STEPS, "build_tree")
_normalize_strings = native(_STEPS, "normalize_strings")

_POINTS = 0x110000


class _Table:
    """A table in memory: `kind`, and the block of its addresses."""

    def __init__(self, kind: int, arrays: Sequence[np.ndarray], block: Sequence[int], plain: np.ndarray):
        self.kind = kind
        self._arrays = arrays
        self._block = np.array([*block, 0], np.int64)
        self._plain = np.concatenate([plain.astype(np.uint8), np.array([0xEF, 0xBF, 0xBD], np.uint8)])
        self.args = [kind, address(self._block), address(self._plain)]


def _pages(values: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(page of each 256 code points, values of the pages): those of other code points are 0."""
    numbers = {0: 0}  # high part of code points -> page; page 0 has no values
    for point in values:
        numbers.setdefault(point >> 8 or -1, len(numbers))
    pages = np.zeros(_POINTS >> 8, np.int32)
    out = np.zeros((len(numbers), 256), np.int32)
    for point, value in values.items():
        number = numbers[point >> 8 or -1]
        pages[point >> 8] = number
        out[number, point & 255] = value
    return pages, out


@functools.lru_cache(16)
def _of_form(form: str, case_fold: bool) -> _Table:
    singles, alike, sequences = sequences_of_form(form, case_fold)
    texts = dict.fromkeys([*singles.values(), *sequences.values()])
    numbers = {text: i + 1 for i, text in enumerate(texts)}
    begins, ends, chars = pack([b"", *(text.encode() for text in texts)])
    single_pages = _pages({ord(char): numbers[by] for char, by in singles.items()})
    alike_pages = _pages({ord(char): ord(by) for char, by in alike.items()})
    points = as_i32([ord(c) for sequence in sequences for c in sequence])
    stops = as_i32(np.cumsum([len(sequence) for sequence in sequences]))
    values = as_i32([numbers[by] for by in sequences.values()])
    slots = 1 << (2 * points.size + 16).bit_length()
    tree, nodes = np.zeros(2 * slots, np.int64), np.zeros(points.size + 2, np.int32)
    _build_tree(
        address(points), address(stops), address(values), len(sequences), address(tree), slots - 1,
        address(nodes),
    )  # fmt: skip
    arrays = [*single_pages, *alike_pages, tree, nodes, begins, as_i32(ends - begins), chars]
    at = [address(x) for x in arrays]
    plain = np.array([chr(i) not in singles for i in range(128)])
    second = any(c < "\x80" for sequence in sequences for c in sequence[1:])
    return _Table(FORM, arrays, [*at[:5], slots - 1, *at[5:]], plain & (not second))


def _of_compiled(table: bytes) -> _Table:
    if not table:
        return _Table(NO_TABLE, (), (), np.ones(128, bool))
    compiled = CompiledTable(table)
    units, texts = np.ascontiguousarray(compiled.units), np.frombuffer(compiled.texts, np.uint8).copy()
    block = [address(units), units.size, address(texts), texts.size]
    # a byte that begins no key, or a key that ASCII does not continue and that is not the byte itself
    plain = np.array([compiled.keeps_ascii(byte) for byte in range(128)])
    return _Table(DOUBLE_ARRAY, (units, texts), block, plain)


def _evaluating(table: _Table, name: str, dummy: bool, remove: bool, escape: bool, skips: bool) -> Any:
    options = [*table.args, int(dummy), int(remove), int(escape)]

    def evaluate(*arrays: np.ndarray) -> Any:
        begins, ends, chars = arrays[:3]
        buffers, at = strings_of(begins, ends, chars)
        marks = marks_at(arrays[3] if skips else None, buffers)
        first, last = np.empty(begins.shape, np.int32), np.empty(begins.shape, np.int32)
        room = (
            2 * int((buffers[1].astype(np.int64) - buffers[0]).clip(0, buffers[2].size).sum())
            + 16 * buffers[0].size
            + 64
        )
        while True:
            out = np.empty(room, np.uint8)
            args = address(first), address(last), address(out), room
            count = _normalize_strings(*at, marks, *options, *args)
            if count != FULL:
                break
            room *= 4
        refuse(count if count < 1 << 31 else -2, name)
        return (first, last, out[:count], *arrays[3:4]) if skips else (first, last, out[:count])

    evaluate.owned = table  # type: ignore[attr-defined]
    return evaluate


def prepare_map(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    form = form_of(attrs["normalization_form"])
    if not form and inputs[-1] is None:
        return None
    table = _of_form(form, attrs["case_fold"]) if form else _of_compiled(text_of(inputs[-1]))
    flags = attrs["add_dummy_prefix"], attrs["remove_extra_whitespaces"], attrs["escape_whitespaces"]
    skips = len(inputs) == 5 or bool(form) and len(inputs) == 4
    return _evaluating(table, "CharsMapNormalization", *flags, skips)


def prepare_form(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    table = _of_form(form_of(attrs["normalization_form"]), False)
    return _evaluating(table, "NormalizeUnicode", False, False, False, len(inputs) == 4)


def prepare_case(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    if not attrs["encoding"]:
        return None
    return _evaluating(_of_form("identity", True), "CaseFold", False, False, False, len(inputs) == 4)
