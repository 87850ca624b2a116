"""Rules of the records' field `images`: whether an operation computes the images of a batch independently.

An image is a slice of a tensor along axis 0. A rule takes the types of the inputs, whether each of them is a
batch, and the attributes. It returns how many outputs, from the first on, are batches whose images depend
only on the same images of the inputs; True: all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.graph.op import TensorType
from ovjit.rewrite.batches import broadcast_images

Rule = Callable[..., "bool | int"]


def images_of(*batches: int, along: int | str | None = None) -> Rule:
    """The rule that only these inputs are batches; then all outputs are. `along`: the attribute or the index
    of the input with the operation's axes, which may not include axis 0."""

    def rule(inputs: Sequence[TensorType], batched: Sequence[bool], **attrs: Any) -> bool:
        indices = [i for i, batch in enumerate(batched) if batch]
        if not indices or not set(indices) <= set(batches):
            return False
        return along is None or excludes_batch_axis(_axes(inputs, attrs, along), inputs[indices[0]].shape)

    return rule


def all_images(along: str) -> Rule:
    """The rule that all inputs are batches, for an operation along the axis in this attribute."""

    def rule(inputs: Sequence[TensorType], batched: Sequence[bool], **attrs: Any) -> bool:
        return all(batched) and excludes_batch_axis(attrs[along], inputs[0].shape)

    return rule


def _first_alone(batched: Sequence[bool]) -> bool:
    """Whether the first input is a batch, and no other is."""
    return batched[0] and not any(batched[1:])


def _axes(inputs: Sequence[TensorType], attrs: dict[str, Any], along: int | str) -> Any:
    if isinstance(along, str):
        return attrs[along]
    return inputs[along].value if along < len(inputs) else None


def excludes_batch_axis(axes: Any, shape: Sequence[Any]) -> bool:
    """Whether the axes are known, and do not include axis 0 of this shape."""
    if axes is None:
        return False
    return all(int(axis) % len(shape) for axis in np.asarray(axes).reshape(-1))


def matrix_images(
    inputs: Sequence[TensorType], batched: Sequence[bool], *, transpose_a: bool, **attrs: Any
) -> bool:
    """The rule of MatMul: batches of matrices, or rows of a left matrix."""
    ranks = [len(x.shape) for x in inputs]
    rank = max(ranks)
    if rank > 2:
        return broadcast_images(inputs, batched, rank)
    return _first_alone(batched) and ranks[0] == 2 and not transpose_a


def pad_images(inputs: Sequence[TensorType], batched: Sequence[bool], **attrs: Any) -> bool:
    """The rule of Pad: axis 0 is neither padded nor cropped."""
    pads = [x.value for x in inputs[1:3]]
    constant = all(p is not None for p in pads)
    return _first_alone(batched) and constant and not any(np.asarray(p).reshape(-1)[0] for p in pads)


def moved_images(inputs: Sequence[TensorType], batched: Sequence[bool], **attrs: Any) -> bool:
    """The rule of Transpose: axis 0 stays first."""
    order = inputs[1].value
    return _first_alone(batched) and order is not None and order.size > 0 and int(order.flat[0]) == 0


def window_images(inputs: Sequence[TensorType], batched: Sequence[bool], axis: int = 1, **attrs: Any) -> int:
    """The rule of MaxPool with indices. Indices count over the dimensions from `axis` on. If these include
    axis 0, only the first output is a batch."""
    return 2 if axis % len(inputs[0].shape) else 1


def resized_images(along: int | str) -> Rule:
    """The rule of an Interpolate with its axes in this input or attribute: no padding, and axis 0 is not
    resized."""
    alone = images_of(0, along=along)

    def rule(inputs: Sequence[TensorType], batched: Sequence[bool], **attrs: Any) -> bool:
        padded = any(attrs["pads_begin"]) or any(attrs["pads_end"])
        return not padded and bool(alone(inputs, batched, **attrs))

    return rule


def sliced_images(
    inputs: Sequence[TensorType], batched: Sequence[bool], *, begin_mask: Sequence[int],
    end_mask: Sequence[int], new_axis_mask: Sequence[int] = (), shrink_axis_mask: Sequence[int] = (),
    ellipsis_mask: Sequence[int] = (), **attrs: Any,
) -> bool:  # fmt: skip
    """The rule of StridedSlice: axis 0 is complete and in order."""
    full = bool(begin_mask and end_mask and begin_mask[0] and end_mask[0])
    moved = any(mask and mask[0] for mask in (new_axis_mask, shrink_axis_mask, ellipsis_mask))
    steps = inputs[3].value if len(inputs) > 3 else np.ones(1, np.int64)
    in_order = steps is not None and (not steps.size or int(steps.flat[0]) == 1)
    return _first_alone(batched) and full and not moved and in_order


def chosen_images(
    inputs: Sequence[TensorType], batched: Sequence[bool], batch_dims: int = 0, **attrs: Any
) -> bool:
    """The rule of Gather: all images use the same indices, along another axis."""
    return _first_alone(batched) and not batch_dims and excludes_batch_axis(inputs[2].value, inputs[0].shape)
