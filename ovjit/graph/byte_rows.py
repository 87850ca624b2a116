"""Rows of bytes: the quantised storage of rows of f32 in caches of keys and values.

A row of n numbers has one or more groups. Each group has a scale and a zero: x ~ scale * number + zero, with
numbers of 8 or 4 bits. The scales and zeros of all groups come first, interleaved, in f32; the numbers
follow. So an operation that moves or concatenates whole rows moves their scales too. An f32 tensor [..., n]
becomes a u8 tensor [..., `ByteRows.size(n)`]. With 4 bits, byte i of a group of m has number i in its low
bits and number i + m / 2 in its high bits.
"""

from __future__ import annotations

import numpy as np

from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Shape, is_static
from ovjit.records import NamedTuple

#: Bytes of a group's scale and zero.
HEAD = 8
#: Rows take a multiple of this many bytes, so that the next row's scales are aligned f32.
MULTIPLE = 4
#: Groups with a smaller scale are stored as constants, since the scale's reciprocal would be infinite.
LEAST = 2.0**-126


class ByteRows(NamedTuple):
    """A form of rows: `bits` of a number; elements of a `group`, 0: the whole row."""

    bits: int = 8
    group: int = 0

    @property
    def name(self) -> str:
        """The name in variables: u8 or u4, followed by the group size if it is not 0."""
        return f"u{self.bits}" + (f":{self.group}" if self.group else "")

    @property
    def top(self) -> int:
        """The greatest number."""
        return (1 << self.bits) - 1

    @staticmethod
    def of(name: str) -> ByteRows | None:
        """The form with this `name`; None for the name of an element type."""
        bits, _, group = name.partition(":")
        return ByteRows(int(bits[1:]), int(group or 0)) if bits in ("u8", "u4") else None

    def groups(self, n: int) -> int:
        """The number of groups of n numbers."""
        return n // self.group if self.group else 1

    def head(self, n: int) -> int:
        """Bytes of scales and zeros of a row of n numbers."""
        return self.groups(n) * HEAD

    def size(self, n: int) -> int:
        """Bytes of a row of n numbers."""
        return self.head(n) + n * self.bits // 8

    def count(self, size: int) -> int:
        """The number of elements in a row of `size` bytes."""
        if not self.group:
            return (size - HEAD) * 8 // self.bits
        return size // (HEAD + self.group * self.bits // 8) * self.group

    def has(self, shape: Shape | None) -> bool:
        """Whether tensors of this shape can be stored in this form. False if it is unknown."""
        n = shape[-1] if shape else None
        if not isinstance(n, int) or n <= 0:
            return False
        each = self.group or n
        return not (n % each or n * self.bits % (8 * MULTIPLE) or each * self.bits % 8)

    def may_have(self, shape: Shape | None) -> bool:
        """Whether tensors of this shape may be stored in this form. True if it is unknown."""
        return shape is None or self.has(shape) or not is_static(shape[-1:])

    def in_bytes(self, of: TensorType) -> TensorType:
        """The type of the bytes of a tensor of type `of`."""
        shape = of.shape
        if shape:
            shape = (*shape[:-1], self.size(shape[-1]) if isinstance(shape[-1], int) else ANY)
        return TensorType("u8", shape)

    def in_floats(self, of: TensorType) -> TensorType:
        """The f32 type of a tensor whose bytes have the type `of`."""
        shape = of.shape
        if shape:
            shape = (*shape[:-1], self.count(shape[-1]) if isinstance(shape[-1], int) else ANY)
        return TensorType("f32", shape)

    def to_bytes(self, x: np.ndarray) -> np.ndarray:
        """Rows of f32 as bytes, rounded to the nearest."""
        n = x.shape[-1]
        parts = x.reshape(*x.shape[:-1], self.groups(n), n // self.groups(n))
        low = parts.min(-1, keepdims=True, initial=np.float32(np.inf))
        high = parts.max(-1, keepdims=True, initial=np.float32(-np.inf))
        with np.errstate(all="ignore"):
            scale = (high - low) * np.float32(1 / self.top)
            steps = np.where(scale > np.float32(LEAST), np.float32(1) / scale, np.float32(0))
            levels = np.nan_to_num(np.rint((parts - low) * steps), nan=0.0)
        numbers = np.clip(levels, 0, self.top).astype(np.uint8)
        if self.bits == 4:
            half = numbers.shape[-1] // 2
            numbers = numbers[..., :half] | numbers[..., half:] << 4
        head = np.concatenate([scale, low], -1).view(np.uint8)
        lead = x.shape[:-1]
        parts_by_row = [part.reshape(*lead, part.shape[-1] * part.shape[-2]) for part in (head, numbers)]
        return np.concatenate(parts_by_row, -1)

    def to_floats(self, rows: np.ndarray) -> np.ndarray:
        """The f32 values of rows of bytes."""
        lead, n = rows.shape[:-1], self.count(rows.shape[-1])
        groups, at = self.groups(n), self.head(n)
        head = np.ascontiguousarray(rows[..., :at]).view(np.float32).reshape(*lead, groups, 2)
        numbers = rows[..., at:].reshape(*lead, groups, (rows.shape[-1] - at) // groups)
        if self.bits == 4:
            numbers = np.concatenate([numbers & 15, numbers >> 4], -1)
        with np.errstate(all="ignore"):
            result: np.ndarray = numbers.astype(np.float32) * head[..., :1] + head[..., 1:]
        return result.reshape(*lead, n)
