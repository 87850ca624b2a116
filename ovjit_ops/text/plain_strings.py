"""Operations on strings that are no parts of tokenizers: comparison, hashes, numbers as text, joins."""

from __future__ import annotations

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Positive, TensorType, op
from ovjit.graph.shapes import ANY
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.values import INDEX_TYPES
from ovjit_ops.text.packed import (
    check_bytes,
    check_count,
    check_strings,
    pack,
    strings_type,
    text_of,
    unpack,
)

_NUMBERS = ("f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "boolean")


@op("EqualStr", plugin="extension", host=True)
class EqualStr:
    """1 where strings are equal, else 0. A shorter list is continued with its first string."""

    def infer(*inputs):
        check_count(inputs, (6,), "EqualStr")
        check_strings(inputs[:3])
        check_strings(inputs[3:], "the other strings")
        return TensorType("i32", (ANY,))

    def ref(*inputs):
        first, second = unpack(*inputs[:3]), unpack(*inputs[3:])
        count = max(len(first), len(second)) if first and second else 0
        pairs = (
            (first[i if i < len(first) else 0], second[i if i < len(second) else 0]) for i in range(count)
        )
        return np.array([a == b for a, b in pairs], np.int32)


_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
_MASK = (1 << 64) - 1


def farm_hash(text: bytes) -> int:
    """FarmHash's Fingerprint64, which TensorFlow uses for its buckets."""
    size = len(text)
    if size <= 16:
        return _hash_to_16(text)
    if size <= 32:
        k = _K2 + 2 * size
        a, b, c, d = _at(text, 0) * _K1, _at(text, 8), _at(text, size - 8) * k, _at(text, size - 16) * _K2
        return _mix(_turn(a + b, 43) + _turn(c, 30) + d, a + _turn(b + _K2, 18) + c, k)
    if size <= 64:
        k = _K2 + 2 * size
        a, b, c, d = _at(text, 0) * _K2, _at(text, 8), _at(text, size - 8) * k, _at(text, size - 16) * _K2
        y = (_turn(a + b, 43) + _turn(c, 30) + d) & _MASK
        z = _mix(y, a + _turn(b + _K2, 18) + c, k)
        e, f = _at(text, 16) * k, _at(text, 24)
        g, h = (y + _at(text, size - 32)) * k, (z + _at(text, size - 24)) * k
        return _mix(_turn(e + f, 43) + _turn(g, 30) + h, e + _turn(f + a, 18) + g, k)
    return _hash_long(text)


def _at(text: bytes, offset: int) -> int:
    return int.from_bytes(text[offset : offset + 8], "little")


def _turn(value: int, by: int) -> int:
    value &= _MASK
    return (value >> by | value << (64 - by)) & _MASK


def _shift(value: int) -> int:
    value &= _MASK
    return value ^ value >> 47


def _mix(u: int, v: int, k: int) -> int:
    a = _shift((u ^ v) * k)
    return _shift((v ^ a) * k) * k & _MASK


def _hash_to_16(text: bytes) -> int:
    size = len(text)
    if size >= 8:
        k = _K2 + 2 * size
        a, b = _at(text, 0) + _K2, _at(text, size - 8)
        return _mix((_turn(b, 37) * k + a) & _MASK, (_turn(a, 25) + b) * k & _MASK, k)
    if size >= 4:
        first, last = (int.from_bytes(x, "little") for x in (text[:4], text[-4:]))
        return _mix(size + (first << 3), last, _K2 + 2 * size)
    if not size:
        return _K2
    y, z = text[0] + (text[size >> 1] << 8), size + (text[-1] << 2)
    return _shift(y * _K2 ^ z * _K0) * _K2 & _MASK


def _weak(text: bytes, offset: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = (_at(text, offset + 8 * i) for i in range(4))
    a += w
    b = _turn(b + a + z, 21)
    c = a
    a += x + y
    b += _turn(a, 44)
    return (a + z) & _MASK, (b + c) & _MASK


def _hash_long(text: bytes) -> int:
    size = len(text)
    x, y = 81, (81 * _K1 + 113) & _MASK
    z = _shift(y * _K2 + 113) * _K2 & _MASK
    v = w = (0, 0)
    x = (x * _K2 + _at(text, 0)) & _MASK
    last = (size - 1) & 63
    for offset in range(0, (size - 1) // 64 * 64, 64):
        x, y, z, v, w = _round(text, offset, x, y, z, v, w, _K1, 1)
    k = (_K1 + ((z & 0xFF) << 1)) & _MASK
    w = (w[0] + last) & _MASK, w[1]
    v = (v[0] + w[0]) & _MASK, v[1]
    w = (w[0] + v[0]) & _MASK, w[1]
    x, y, z, v, w = _round(text, size - 64, x, y, z, v, w, k, 9)
    return _mix(_mix(v[0], w[0], k) + _shift(y) * _K0 + z & _MASK, _mix(v[1], w[1], k) + x & _MASK, k)


def _round(text, offset, x, y, z, v, w, k, times):
    """64 bytes of a long text. Returns the new state."""
    x = _turn(x + y + v[0] + _at(text, offset + 8), 37) * k & _MASK
    y = _turn(y + v[1] + _at(text, offset + 48), 42) * k & _MASK
    x ^= w[1] * times & _MASK
    y = (y + v[0] * times + _at(text, offset + 40)) & _MASK
    z = _turn(z + w[0], 33) * k & _MASK
    v = _weak(text, offset, v[1] * k & _MASK, (x + w[0]) & _MASK)
    w = _weak(text, offset + 32, (z + w[1]) & _MASK, (y + _at(text, offset + 16)) & _MASK)
    return z, y, x, v, w


@op("StringToHashBucket", plugin="extension", host=True)
class StringToHashBucket:
    """The hash of each string, modulo a number of buckets."""

    def infer(begins, ends, chars, *, num_buckets: Positive):
        check_strings((begins, ends, chars))
        return TensorType("i64", begins.shape)

    def ref(begins, ends, chars, *, num_buckets):
        buckets = [farm_hash(text) % num_buckets for text in unpack(begins, ends, chars)]
        return np.array(buckets, np.uint64).astype(np.int64).reshape(begins.shape)


def _number_text(x) -> bytes:
    if isinstance(x, (bool, np.bool_)):
        return b"true" if x else b"false"
    if not isinstance(x, (float, np.floating)):
        return str(int(x)).encode()
    if np.isnan(x):
        return b"-nan" if np.signbit(x) else b"nan"
    return b"%.6g" % float(x)


@op("NumericToString", plugin="openvino_tokenizers", host=True, types=_NUMBERS)
class NumericToString:
    """Numbers as texts: floats with six digits."""

    def infer(data):
        check_type(data, (*_NUMBERS, "string"))
        return TensorType("string", data.shape)

    def ref(data):
        out = np.empty(data.size, object)
        out[:] = [_number_text(x) for x in data.reshape(-1)]
        return out.reshape(data.shape)


@op("ContribStringJoin", plugin="extension", host=True)
class ContribStringJoin:
    """Joins strings along an axis, with a text between them."""

    def infer(begins, ends, chars, separator, axis):
        check_strings((begins, ends, chars))
        check_bytes(separator, "the separator")
        check_type(axis, INDEX_TYPES, "the axis")
        rank = begins.rank
        if rank is None:
            return strings_type(None)
        if rank <= 1:
            return strings_type(())
        constant = isinstance(axis.value, np.ndarray) and not axis.value.dtype.hasobject
        if not constant:
            return strings_type((ANY,) * (rank - 1))
        position = int(axis.value.reshape(-1)[0])
        check(-rank <= position < rank, "ContribStringJoin axis out of range")
        return strings_type([d for i, d in enumerate(begins.shape) if i != position % rank])

    def ref(begins, ends, chars, separator, axis):
        texts, between = unpack(begins, ends, chars), text_of(separator)
        if not begins.ndim:
            return pack(texts, ())
        position = int(axis.reshape(-1)[0])
        if not -begins.ndim <= position < begins.ndim:
            raise InferenceError("ContribStringJoin axis out of range")
        indices = np.moveaxis(np.arange(begins.size).reshape(begins.shape), position, -1)
        shape = indices.shape[:-1]
        rows = indices.reshape(int(np.prod(shape)), begins.shape[position])
        return pack([between.join([texts[i] for i in row]) for row in rows.tolist()], shape)


@op("ContribStringSplit", plugin="extension", host=True)
class ContribStringSplit:
    """Cuts strings at a text; at each byte if it is empty. The pieces are those of a sparse tensor: indices,
    strings, shape."""

    def infer(begins, ends, chars, separator, skip_empty):
        check_strings((begins, ends, chars))
        check_bytes(separator, "the separator")
        check_type(skip_empty, ("boolean", "u8", "i8"), "skip_empty")
        rank = ANY if begins.rank is None else begins.rank + 1
        pieces = strings_type((ANY,))
        return TensorType("i64", (ANY, rank)), *pieces, TensorType("i64", (rank,))

    def ref(begins, ends, chars, separator, skip_empty):
        between, skip = text_of(separator), bool(skip_empty.reshape(-1)[0])
        indices, pieces, most = [], [], 0
        positions = np.ndindex(begins.shape)
        for position, text in zip(positions, unpack(begins, ends, chars), strict=True):
            parts = text.split(between) if between else [text[i : i + 1] for i in range(len(text))]
            most = max(most, len(parts))
            for i, part in enumerate(parts):
                if part or not skip:
                    indices.append((*position, i))
                    pieces.append(part)
        rank = begins.ndim + 1
        return (
            np.array(indices, np.int64).reshape(len(indices), rank), *pack(pieces),
            np.array([*begins.shape, most], np.int64),
        )  # fmt: skip
