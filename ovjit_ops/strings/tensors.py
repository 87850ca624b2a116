"""StringTensorUnpack and StringTensorPack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.forks import ForkLock
from ovjit.graph.op import TensorType, op
from ovjit.graph.shapes import ANY
from ovjit_ops.common.checks import check_rank, check_same_type, check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INDEX_TYPES


def unpack_strings(data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Begins and ends of strings, and the bytes of all."""
    parts = [x if isinstance(x, bytes) else str(x).encode() for x in data.reshape(-1).tolist()]
    sizes = [0, *map(len, parts)]
    if sum(sizes) >= 1 << 31:
        raise InferenceError("the strings have 2 GiB or more in total")
    ends = np.array(sizes, np.int32).cumsum(dtype=np.int32)
    symbols = np.frombuffer(bytearray().join(parts), np.uint8)
    return ends[:-1].reshape(data.shape), ends[1:].reshape(data.shape), symbols


def pack_strings(begins: np.ndarray, ends: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """Strings as an array of bytes objects. Raises InferenceError if begins and ends differ in shape, or a
    string is outside of the symbols."""
    b, e, data = begins.reshape(-1).tolist(), ends.reshape(-1).tolist(), symbols.tobytes()
    if begins.shape != ends.shape or b and (min(b) < 0 or max(e) > len(data)) or any(map(int.__gt__, b, e)):
        raise InferenceError(f"begins and ends differ in shape, or exceed the {symbols.size} symbols")
    out = np.empty(len(b), object)
    out[:] = [data[i:j] for i, j in zip(b, e, strict=True)]
    return out.reshape(begins.shape)


@op("StringTensorUnpack", opset=15, types=["string"], host=lambda inputs, attrs: unpack_strings)
class StringTensorUnpack:
    """Unpacks strings to the begin and end offsets of each, and the UTF-8 bytes of all."""

    def infer(data):
        check(
            data.dtype in ("string", "dynamic"),
            f"StringTensorUnpack expects a tensor with string elements. Got: {data.dtype}",
        )
        return TensorType("i32", data.shape), TensorType("i32", data.shape), TensorType("u8", (ANY,))

    def ref(data):
        return unpack_strings(data)


#: Up to so many strings are packed one by one, which takes less than calls of NumPy.
_FEW = 16
#: The most symbols of which parts are kept.
_MOST_SYMBOLS = 1 << 16


class _Parts:
    """Packs parts of constant symbols, such as a classifier's labels: each part is made once. Thread-safe."""

    def __init__(self, symbols: np.ndarray):
        self._symbols = symbols
        self._parts = np.full(symbols.size + 1, b"", object)
        #: The end of the part that begins at a place, -1 without one. It is stored after the part, once.
        self._ends = np.full(symbols.size + 1, -1, np.int64)
        self._lock = ForkLock("words")

    def pack(self, begins: np.ndarray, ends: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """`pack_strings`."""
        is_small = begins.size <= _FEW or begins.shape != ends.shape
        if is_small or begins.min() < 0 or begins.max() > self._symbols.size:
            return pack_strings(begins, ends, symbols)
        part_ends = self._ends[begins]
        if (part_ends == ends).all():
            return self._parts[begins]
        parts = pack_strings(begins, ends, symbols)
        if (part_ends < 0).any():
            self._keep(begins, ends, parts)
        return parts

    def _keep(self, begins: np.ndarray, ends: np.ndarray, parts: np.ndarray) -> None:
        with self._lock.lock:
            for begin, end, part in zip(begins.flat, ends.flat, parts.flat, strict=True):
                if self._ends[begin] < 0:
                    self._parts[begin] = part
                    self._ends[begin] = end


def _pack_of(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Callable[..., Any]:
    symbols = inputs[2]
    return pack_strings if symbols is None or symbols.size > _MOST_SYMBOLS else _Parts(symbols).pack


@op("StringTensorPack", opset=15, types=["i32", "i64"], host=_pack_of)
class StringTensorPack:
    """Packs strings from the begin and end offsets of each, and UTF-8 bytes."""

    def infer(begins, ends, symbols):
        for name, x in (("begins", begins), ("ends", ends)):
            check_type(x, INDEX_TYPES, name)
        check_same_type(begins, ends, "begins")
        check_type(symbols, ("u8",), "symbols")
        check_rank(symbols, 1, "symbols")
        if begins.shape is None or ends.shape is None:
            return TensorType("string", begins.shape or ends.shape)
        check(len(begins.shape) == len(ends.shape), f"{begins} and {ends} should have the same rank")
        letters = "".join(chr(ord("A") + i) for i in range(len(begins.shape)))
        return TensorType("string", unify(begins=(begins, letters), ends=(ends, letters)).shape(letters))

    def ref(begins, ends, symbols):
        return pack_strings(begins, ends, symbols)
