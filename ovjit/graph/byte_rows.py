"""Rows of bytes: what caches of keys and values hold in the place of rows of f32.

A row of n numbers is scale, zero and n bytes, x ~ scale * byte + zero. The two are f32 and lie before the
bytes, so that whatever moves or joins whole rows does it to their scales too. A tensor [..., n] of f32 is one
[..., 8 + n] of u8.
"""

from __future__ import annotations

import numpy as np

from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Shape, is_static

#: Bytes of a row's scale and zero.
HEAD = 8
#: Rows have a multiple of so many elements, and the next row's numbers lie where f32 may lie.
MULTIPLE = 4
#: The greatest byte.
TOP = 255
#: Rows whose scale is smaller are their zero: the reciprocal would be infinite.
LEAST = 2.0**-126


def has_rows(shape: Shape | None) -> bool:
    """Whether tensors of this shape surely have rows that can be bytes."""
    last = shape[-1] if shape else None
    return isinstance(last, int) and last > 0 and last % MULTIPLE == 0


def in_bytes(of: TensorType) -> TensorType:
    """The type of the rows of this tensor as bytes."""
    return TensorType("u8", _longer(of.shape, HEAD))


def in_floats(of: TensorType) -> TensorType:
    """The type of what these rows of bytes are."""
    return TensorType("f32", _longer(of.shape, -HEAD))


def _longer(shape: Shape | None, more: int) -> Shape | None:
    if not shape:
        return shape
    last = shape[-1]
    return (*shape[:-1], last + more if isinstance(last, int) else ANY)


def may_have_rows(shape: Shape | None) -> bool:
    """False where tensors of this shape surely have no rows that can be bytes."""
    return shape is None or has_rows(shape) or not is_static(shape[-1:])


def to_bytes(x: np.ndarray) -> np.ndarray:
    """Rows of f32 as bytes, rounded to the nearest."""
    low = x.min(-1, keepdims=True, initial=np.float32(np.inf))
    high = x.max(-1, keepdims=True, initial=np.float32(-np.inf))
    out = np.empty((*x.shape[:-1], x.shape[-1] + HEAD), np.uint8)
    with np.errstate(all="ignore"):
        scale = (high - low) * np.float32(1 / TOP)
        steps = np.where(scale > np.float32(LEAST), np.float32(1) / scale, np.float32(0))
        places = np.nan_to_num(np.rint((x - low) * steps), nan=0.0)
    out[..., HEAD:] = np.clip(places, 0, TOP)
    out[..., :HEAD] = np.concatenate([scale, low], -1).view(np.uint8)
    return out


def to_floats(rows: np.ndarray) -> np.ndarray:
    """What rows of bytes stand for."""
    head = np.ascontiguousarray(rows[..., :HEAD]).view(np.float32)
    with np.errstate(all="ignore"):
        made: np.ndarray = rows[..., HEAD:].astype(np.float32) * head[..., :1] + head[..., 1:]
    return made
