"""Packed strings: begins (i32), ends (i32) and the bytes (u8) of all; ragged tensors have the first and last
index of each row in front of them.

A range of strings or elements is two arrays, so strings may overlap and have any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, compatible_shapes
from ovjit_ops.common.checks import check_rank, check_type

#: Begins, ends and bytes of strings.
Packed = tuple[np.ndarray, np.ndarray, np.ndarray]
#: What evaluates an operation whose constants are known: arrays -> arrays.
Evaluate = Callable[..., Any]


# -- types


def check_ends(begins: TensorType, ends: TensorType, what: str) -> None:
    """Raise ModelError unless begins and ends are i32, and may have one shape. Values are checked where they
    are read: where a result is empty, no one reads them."""
    check_type(begins, ("i32",), f"the begins of {what}")
    check_type(ends, ("i32",), f"the ends of {what}")
    check(
        compatible_shapes(begins.shape, ends.shape),
        f"the begins {begins} and the ends {ends} of {what} differ in shape",
    )


def check_strings(inputs: Sequence[TensorType], what: str = "the strings") -> None:
    """Raise ModelError unless the inputs are begins, ends and bytes of strings."""
    check(len(inputs) == 3, f"{what} should be three tensors: begins, ends and bytes")
    check_ends(inputs[0], inputs[1], what)
    check_type(inputs[2], ("u8",), f"the bytes of {what}")
    check_rank(inputs[2], 1, f"the bytes of {what}")


def check_ragged(inputs: Sequence[TensorType], what: str = "the ragged tensor") -> None:
    """Raise ModelError unless the inputs begin with the begins and ends of rows."""
    check(len(inputs) >= 3, f"{what} should have begins, ends and elements")
    check_ends(inputs[0], inputs[1], what)


def check_ragged_strings(inputs: Sequence[TensorType]) -> None:
    check(len(inputs) == 5, "ragged strings should be five tensors")
    check_ragged(inputs[:3], "the rows")
    check_strings(inputs[2:])


def check_bytes(x: TensorType, what: str) -> None:
    """Raise ModelError unless x is a text: u8 with one dimension."""
    check_type(x, ("u8",), what)
    check_rank(x, 1, what)


def check_count(inputs: Sequence[TensorType], counts: Iterable[int], name: str) -> None:
    """Raise ModelError unless the operation `name` has one of these numbers of inputs."""
    allowed = tuple(counts)
    words = ", ".join(map(str, allowed))
    check(
        len(inputs) in allowed, f"{name} takes {words} inputs, not {len(inputs)}; convert the tokenizer again"
    )


def strings_type(shape: Any) -> tuple[TensorType, ...]:
    return TensorType("i32", shape), TensorType("i32", shape), TensorType("u8", (ANY,))


def ragged_strings_type(shape: Any) -> tuple[TensorType, ...]:
    return TensorType("i32", shape), TensorType("i32", shape), *strings_type((ANY,))


def ragged_type(shape: Any, dtype: str = "i32") -> tuple[TensorType, ...]:
    return TensorType("i32", shape), TensorType("i32", shape), TensorType(dtype, (ANY,))


# -- values


def check_shapes(begins: np.ndarray, ends: np.ndarray) -> None:
    """Raise InferenceError unless ranges have as many begins as ends, in one shape."""
    if begins.shape != ends.shape:
        raise InferenceError(f"begins {list(begins.shape)} and ends {list(ends.shape)} differ in shape")


def check_ranges(begins: np.ndarray, ends: np.ndarray, size: int, what: str = "a string") -> None:
    """Raise InferenceError unless all ranges are within `size`."""
    check_shapes(begins, ends)
    if begins.size and (begins.min() < 0 or ends.max() > size or (ends < begins).any()):
        raise InferenceError(f"{what} is outside of the {size} elements")


def unpack(begins: np.ndarray, ends: np.ndarray, chars: np.ndarray) -> list[bytes]:
    """The strings. Raises InferenceError if one is outside of the bytes."""
    check_ranges(begins, ends, chars.size)
    data = chars.tobytes()
    pairs = zip(begins.reshape(-1).tolist(), ends.reshape(-1).tolist(), strict=True)
    return [data[i:j] for i, j in pairs]


def pack(strings: Sequence[bytes], shape: Sequence[int] | None = None) -> Packed:
    """Begins, ends and bytes of consecutive strings; `shape`: of begins and ends."""
    ends = np.cumsum([len(s) for s in strings], dtype=np.int64)
    if len(ends) and ends[-1] >= 1 << 31:
        raise InferenceError("the strings have 2 GiB or more in total")
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
    chars = np.frombuffer(b"".join(strings), np.uint8).copy()
    shape = (len(strings),) if shape is None else tuple(shape)
    return begins.astype(np.int32).reshape(shape), ends.astype(np.int32).reshape(shape), chars


def rows_of(begins: np.ndarray, ends: np.ndarray, size: int) -> Iterator[range]:
    """The indices of each row. Raises InferenceError if one is outside of `size`."""
    check_ranges(begins, ends, size, "a row")
    for i, j in zip(begins.reshape(-1).tolist(), ends.reshape(-1).tolist(), strict=True):
        yield range(i, j)


def map_strings(
    function: Callable[[bytes], bytes], begins: np.ndarray, ends: np.ndarray, chars: np.ndarray,
    skips: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    """The strings after `function`, but for those that `skips` marks; the skips are returned too."""
    strings = unpack(begins, ends, chars)
    if skips is None:
        return pack([function(s) for s in strings], begins.shape)
    check_skips(skips, len(strings))
    marks = skips.reshape(-1).tolist()
    results = [s if mark else function(s) for s, mark in zip(strings, marks, strict=True)]
    return (*pack(results, begins.shape), skips)


def check_skips(skips: np.ndarray, count: int) -> None:
    if skips.size != count:
        raise InferenceError(f"there are {count} strings, but {skips.size} marks of strings to skip")


def ids_of_rows(
    function: Callable[[bytes], Sequence[int]], inputs: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ids of each row of ragged strings, one string after another."""
    begins, ends, *strings = inputs
    pieces = unpack(*strings)
    ids: list[int] = []
    new: list[tuple[int, int]] = []
    for row in rows_of(begins, ends, len(pieces)):
        first = len(ids)
        for i in row:
            ids += function(pieces[i])
        new.append((first, len(ids)))
    return (*ragged_ends(new, begins.shape), np.array(ids, np.int32))


def ragged_ends(pairs: Sequence[tuple[int, int]], shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Begins and ends of rows as arrays of `shape`."""
    both = np.array(pairs, np.int32).reshape(len(pairs), 2)
    return both[:, 0].copy().reshape(shape), both[:, 1].copy().reshape(shape)


def text_of(x: np.ndarray) -> bytes:
    """The text of a u8 tensor."""
    return np.ascontiguousarray(x).tobytes()


def by_host(host: Callable[..., Evaluate]) -> Callable[..., Any]:
    """The reference of an operation that `host(inputs, attributes)` prepares."""

    def ref(*inputs: np.ndarray, **attrs: Any) -> Any:
        return host(inputs, attrs)(*inputs)

    return ref


def with_known(first: int, last: int | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of `host` functions: None if one of the inputs first to last - 1 is not known."""

    def decorate(host: Callable[..., Any]) -> Callable[..., Any]:
        def host_if_known(inputs: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
            return None if any(x is None for x in inputs[first:last]) else host(inputs, attrs)

        return host_if_known

    return decorate


Attributes = Mapping[str, Any]
