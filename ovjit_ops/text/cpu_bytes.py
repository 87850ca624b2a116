"""Native forms of the operations on bytes and rows (`byte_forms`, `ragged`, VocabDecoder)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.native_routines import address, native
from ovjit.errors import InferenceError
from ovjit_ops.text.byte_forms import bytes_of_chars, chars_of_bytes
from ovjit_ops.text.cpu_native import FULL, OTHER, Slices, as_i32, marks_at, ranges_of, refuse, strings_of
from ovjit_ops.text.packed import check_ranges, check_shapes, text_of
from ovjit_ops.text.ragged import MODES, SIDES, Truncate, combine, combined_shape, dense, join_strings

_STEPS = "ovjit_ops.text.cpu_byte_steps"
_validate = native(_STEPS, "validate_strings")
_put_byte_tokens = native(_STEPS, "put_byte_tokens")
_decode_words = native(_STEPS, "decode_words")
_as_chars = native(_STEPS, "write_bytes_as_chars")
_as_bytes = native(_STEPS, "write_chars_as_bytes")
_pad_rows = native(_STEPS, "pad_rows")
_join_rows = native(_STEPS, "join_rows")


def _like(begins: np.ndarray, room: int) -> tuple[list[np.ndarray], list[int]]:
    """New begins, ends and `room` bytes, and their addresses."""
    shape = np.shape(begins)
    arrays: list[np.ndarray] = [
        np.empty(shape, np.int32), np.empty(shape, np.int32), np.empty(room, np.uint8),
    ]  # fmt: skip
    return arrays, [address(x) for x in arrays]


def _count_bytes(strings: Sequence[np.ndarray]) -> int:
    """The sum of the lengths of strings (begins, ends, bytes), each at most the number of bytes."""
    return int((strings[1].astype(np.int64) - strings[0]).clip(0, strings[2].size).sum())


def prepare_validation(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    replace = int(attrs["replace_mode"])

    def evaluate(begins: np.ndarray, ends: np.ndarray, chars: np.ndarray) -> Any:
        strings, at = strings_of(begins, ends, chars)
        code = _validate(*at, 0, 0, 0, replace)
        refuse(code, "UTF8Validate")
        if code == 1:
            return begins, ends, chars
        results, results_at = _like(begins, 3 * _count_bytes(strings) + 1)
        count = _validate(*at, *results_at, replace)
        refuse(count, "UTF8Validate")
        return results[0], results[1], results[2][:count].copy()

    return evaluate


def prepare_byte_tokens(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    def evaluate(begins: np.ndarray, ends: np.ndarray, chars: np.ndarray) -> Any:
        strings, at = strings_of(begins, ends, chars)
        results, results_at = _like(begins, _count_bytes(strings) + 1)
        count = _put_byte_tokens(*at, *results_at)
        refuse(count, "ByteFallback")
        return results[0], results[1], results[2][:count]

    return evaluate


class VocabDecoder:
    def __init__(self, inputs: Sequence[Any], attrs: Mapping[str, Any]):
        self.words, at = strings_of(*inputs[1:4])
        check_ranges(self.words[0], self.words[1], self.words[2].size, "a word")
        self.args = [*at[:3], at[3], at[4]]
        self._attribute = np.array(attrs["skip_tokens"], np.int32)
        self._cached_mask: tuple[bytes, np.ndarray] = (b"", self._mask(np.zeros(0, np.int32)))

    def _mask(self, skipped: np.ndarray) -> np.ndarray:
        """1 for each word that is skipped."""
        count = self.words[0].size
        mask = np.zeros(max(count, 1), np.uint8)
        mask[skipped[(skipped >= 0) & (skipped < count)]] = 1
        return mask

    def __call__(self, *arrays: np.ndarray) -> Any:
        skipped = arrays[4].reshape(-1) if len(arrays) == 5 else self._attribute
        key = skipped.tobytes()
        entry = self._cached_mask
        if entry[0] != key:
            entry = self._cached_mask = key, self._mask(skipped)
        ids = as_i32(arrays[0])
        batch, size = ids.shape
        each = max(size, 1)  # a row without numbers has one empty string
        begins, ends = np.zeros(batch * each, np.int32), np.zeros(batch * each, np.int32)
        args = [address(ids), ids.size, *self.args, address(entry[1]), address(begins), address(ends)]
        total = _decode_words(*args, 0)
        refuse(total if total < 1 << 31 else -2, "VocabDecoder")
        chars = np.empty(total, np.uint8)
        if total:
            _decode_words(*args, address(chars))
        rows = np.arange(0, (batch + 1) * each, each, dtype=np.int32)
        return rows[:-1], rows[1:], begins, ends, chars


def prepare_decoder(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    return None if any(x is None for x in inputs[1:4]) else VocabDecoder(inputs, attrs)


def prepare_bytes_to_chars(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    table = as_i32([int.from_bytes(char, "little") for char in chars_of_bytes()])

    def evaluate(*arrays: np.ndarray) -> Any:
        row_begins, row_ends, begins, ends, chars = arrays[:5]
        check_ranges(row_begins, row_ends, begins.size, "a row")
        buffers, at = strings_of(begins, ends, chars)
        marks = marks_at(arrays[5] if len(arrays) == 6 else None, buffers)
        results, results_at = _like(begins, 2 * _count_bytes(buffers) + 1)
        count = _as_chars(*at, *results_at, address(table), marks)
        refuse(count, "BytesToChars")
        return (row_begins, row_ends, results[0], results[1], results[2][:count], *arrays[5:])

    return evaluate


def prepare_chars_to_bytes(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    table = np.full(256, -1, np.int32)
    for char, byte in bytes_of_chars().items():
        if len(char) == 2:
            table[(char[0] - 0xC2) << 6 | char[1] & 63] = byte

    def evaluate(row_begins: np.ndarray, row_ends: np.ndarray, *strings: np.ndarray) -> Any:
        rows = ranges_of(row_begins, row_ends)
        buffers, at = strings_of(*strings)
        lengths = (buffers[1].astype(np.int64) - buffers[0]).clip(0, buffers[2].size)
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        bounds = [np.clip(x, 0, lengths.size) for x in rows]
        room = int((before[bounds[1]] - before[bounds[0]]).clip(0).sum())
        results, results_at = _like(row_begins, room + 1)
        count = _as_bytes(address(rows[0]), address(rows[1]), rows[0].size, *at, *results_at, address(table))
        refuse(count, "CharsToBytes")
        if count == OTHER:
            raise InferenceError("CharsToBytes: a character stands for no byte")
        return results[0], results[1], results[2][:count]

    return evaluate


def prepare_dense(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    default_pad_right, keep_ends = attrs["pad_right"], int(attrs["m_pad_max_length"])

    def evaluate(*arrays: np.ndarray) -> Any:
        begins, ends, data, length, fill = arrays[:5]
        pad_right = bool(arrays[5].reshape(-1)[0]) if len(arrays) == 6 else default_pad_right
        if data.dtype != np.int32 or data.ndim != 1:
            return dense(begins, ends, data, length, fill, pad_right, bool(keep_ends))
        size = int(length.reshape(-1)[0])
        if size < 0:
            raise InferenceError(f"RaggedToDense: the length {size} is negative")
        rows, elements = ranges_of(begins, ends), as_i32(data)
        shape = (*begins.shape, size)
        out, mask = np.empty(shape, np.int32), np.empty(shape, bool)
        code = _pad_rows(
            address(rows[0]), address(rows[1]), rows[0].size, address(elements), elements.size, size,
            int(fill.reshape(-1)[0]), address(out), address(mask), int(pad_right), keep_ends,
        )  # fmt: skip
        refuse(code, "RaggedToDense")
        return out, mask

    return evaluate


def prepare_segments(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    def evaluate(*arrays: np.ndarray) -> Any:
        count = (len(arrays) - 1) // 3
        if arrays[-1].size != count or any(x.dtype != np.int32 for x in arrays):
            return combine(*arrays)
        buffers = [np.ascontiguousarray(x) for x in arrays]
        rows = max([x.size for x in buffers[0:-1:3]])
        parts: list[int] = []
        room = 0
        for k in range(0, 3 * count, 3):
            begins, ends, data = buffers[k : k + 3]
            size = begins.size
            if ends.size != size or size not in (1, rows):
                raise InferenceError("CombineSegments: the segments differ in their number of rows")
            parts += [address(begins), address(ends), size, address(data), data.size]
            room += data.size * (rows if size == 1 else 1)
        while True:
            out = Slices(rows, rows, room, room)
            total = _join_rows(rows, count, address(buffers[-1]), *out.args, room, *parts)
            if total != FULL:
                break
            room = 4 * room + 16  # rows may have the same elements
        refuse(total if total < 1 << 31 else -2, "CombineSegments")
        shape = combined_shape(arrays, rows)
        first, last, elements, numbers = out.arrays()
        both = first.reshape(shape), last.reshape(shape)
        return (*both, elements[:total], *both, numbers[:total])

    return evaluate


def prepare_truncation(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    words = [None if x is None else text_of(x) for x in inputs[-2:]]
    if len(inputs) != 6 or words[0] not in SIDES or words[1] not in MODES:
        return None  # the reference has the error
    by_reference: Any = Truncate.ref

    def evaluate(*arrays: np.ndarray) -> Any:
        begins, ends, data = arrays[:3]
        check_shapes(begins, ends)
        if begins.size == 1 and ends.item() - begins.item() <= arrays[3].item():
            return begins, ends, data  # a short text, without the calls of NumPy
        return by_reference(*arrays)

    return evaluate


def prepare_joins(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    def evaluate(begins: np.ndarray, ends: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Any:
        if begins.ndim == starts.ndim == 1 and begins.shape == ends.shape and starts.shape == stops.shape:
            if (begins < ends).all() and (not begins.size or begins.min() >= 0 and ends.max() <= starts.size):
                return starts[begins], stops[ends - 1]
        return join_strings(begins, ends, starts, stops)

    return evaluate
