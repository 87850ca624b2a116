"""Rows of bytes: caches of keys and values store them in the place of rows of f32.

A row of n numbers is one group or several. Each group has a scale and a zero, x ~ scale * number + zero, with
numbers of 8 bits or of 4. First come the scales and zeros of all groups, interleaved, in f32, then the
numbers. So an operation that moves or joins whole rows does it to their scales too: a tensor [..., n] of f32
is one [..., `ByteRows.size(n)`] of u8. With 4 bits, the low bits of a byte have a number of the first half of
its group. The high bits have the number as far behind the middle.
"""

from __future__ import annotations

import numpy as np

from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Shape, is_static
from ovjit.records import NamedTuple

#: Bytes of a group's scale and zero.
HEAD = 8
#: Rows take a multiple of so many bytes: the next row's scales lie where f32 may lie.
MULTIPLE = 4
#: Groups whose scale is smaller are their zero: the reciprocal would be infinite.
LEAST = 2.0**-126


class ByteRows(NamedTuple):
    """How rows are stored: `bits` of a number, elements of a `group`, 0: of the whole row."""

    bits: int = 8
    group: int = 0

    @property
    def name(self) -> str:
        """u8 or u4, and the size of groups behind it, if there are several: what variables say of it."""
        return f"u{self.bits}" + (f":{self.group}" if self.group else "")

    @property
    def top(self) -> int:
        """The greatest number."""
        return (1 << self.bits) - 1

    @staticmethod
    def of(name: str) -> ByteRows | None:
        """What has this `name`; None for the name of another type."""
        bits, _, group = name.partition(":")
        return ByteRows(int(bits[1:]), int(group or 0)) if bits in ("u8", "u4") else None

    def groups(self, n: int) -> int:
        """How many groups n numbers have."""
        return n // self.group if self.group else 1

    def head(self, n: int) -> int:
        """Bytes before the numbers of a row of n."""
        return self.groups(n) * HEAD

    def size(self, n: int) -> int:
        """Bytes of a row of n numbers."""
        return self.head(n) + n * self.bits // 8

    def count(self, size: int) -> int:
        """How many numbers a row of so many bytes has."""
        if not self.group:
            return (size - HEAD) * 8 // self.bits
        return size // (HEAD + self.group * self.bits // 8) * self.group

    def has(self, shape: Shape | None) -> bool:
        """Whether tensors of this shape surely have rows that can be stored so."""
        n = shape[-1] if shape else None
        if not isinstance(n, int) or n <= 0:
            return False
        each = self.group or n
        return not (n % each or n * self.bits % (8 * MULTIPLE) or each * self.bits % 8)

    def may_have(self, shape: Shape | None) -> bool:
        """False where tensors of this shape surely have no rows that can be stored so."""
        return shape is None or self.has(shape) or not is_static(shape[-1:])

    def in_bytes(self, of: TensorType) -> TensorType:
        """The type of the rows of this tensor as bytes."""
        shape = of.shape
        if shape:
            shape = (*shape[:-1], self.size(shape[-1]) if isinstance(shape[-1], int) else ANY)
        return TensorType("u8", shape)

    def in_floats(self, of: TensorType) -> TensorType:
        """The type of what these rows of bytes are."""
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
            places = np.nan_to_num(np.rint((parts - low) * steps), nan=0.0)
        numbers = np.clip(places, 0, self.top).astype(np.uint8)
        if self.bits == 4:
            half = numbers.shape[-1] // 2
            numbers = numbers[..., :half] | numbers[..., half:] << 4
        head = np.concatenate([scale, low], -1).view(np.uint8)
        lead = x.shape[:-1]
        whole = [part.reshape(*lead, part.shape[-1] * part.shape[-2]) for part in (head, numbers)]
        return np.concatenate(whole, -1)

    def to_floats(self, rows: np.ndarray) -> np.ndarray:
        """What rows of bytes stand for."""
        lead, n = rows.shape[:-1], self.count(rows.shape[-1])
        groups, at = self.groups(n), self.head(n)
        head = np.ascontiguousarray(rows[..., :at]).view(np.float32).reshape(*lead, groups, 2)
        numbers = rows[..., at:].reshape(*lead, groups, (rows.shape[-1] - at) // groups)
        if self.bits == 4:
            numbers = np.concatenate([numbers & 15, numbers >> 4], -1)
        with np.errstate(all="ignore"):
            made: np.ndarray = numbers.astype(np.float32) * head[..., :1] + head[..., 1:]
        return made.reshape(*lead, n)
