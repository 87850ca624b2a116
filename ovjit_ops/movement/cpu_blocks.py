"""Operations that are a few strided copies: DepthToSpace, SpaceToDepth, SpaceToBatch, BatchToSpace, Tile,
Roll.

The shapes of source and target are split until elements map by strides. Splitting a dimension always yields
strides, so each operation reads and writes its data once, in any layout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ovjit.codegen.transpose import interleave_kernel, interleave_sizes
from ovjit.graph.graph import Node, Value
from ovjit.graph.shapes import is_static, normalize_axis
from ovjit.planning.copies import MOST_WOVEN, plan_interleave
from ovjit.planning.lower import AsInput, Group, Lowering, Planner, View, element_size, plan_copy
from ovjit.rewrite.writer import Writer

#: (attributes, source shape) -> (split source shape, permutation of its dimensions for the target)
Shuffle = Callable[[Mapping[str, Any], Sequence[int]], tuple[Sequence[int], Sequence[int]]]


class Rearranged(AsInput):
    """Splits, permutes and merges dimensions in one copy. Columns of small blocks are interleaved or
    deinterleaved in registers. `back`: deinterleave, as the source has the columns of blocks along its last
    dimension."""

    flexible = True

    def __init__(self, group: Group, how: Shuffle, back: bool):
        super().__init__(group)
        self.how = how
        self.back = back
        size, block = element_size(group.last.output.dtype), group.last.attrs["block_size"]
        self.weaves = 1 < block <= MOST_WOVEN and size in interleave_sizes(self.target)
        self.kernels = (interleave_kernel(size, block, back),) if self.weaves else ()

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        source, target = planner.view(node.inputs[0]), planner.output(node.output)
        parts, order = self.how(node.attrs, source.shape)
        if not target.count:
            return
        split = source.as_shape(parts)
        permuted = split.permute(order)
        out = target.as_shape(permuted.shape)
        if self.weaves:
            # `woven`: the interleaved side, whose last two dimensions are a row's blocks and their columns
            woven, plain = (split, out.permute(np.argsort(order).tolist())) if self.back else (out, permuted)
            across = (*range(len(parts) - 2), len(parts) - 1, len(parts) - 2)
            if plan_interleave(planner, plain.permute(across), woven, self.back):
                return
        plan_copy(planner, permuted, out)


def depth_to_space(attrs: Mapping[str, Any], shape: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    n, c, *spatial = shape
    size, k = attrs["block_size"], len(spatial)
    blocks, channels = (size,) * k, c // size**k
    if attrs["mode"] == "blocks_first":
        order = [0, k + 1] + [a for i in range(k) for a in (k + 2 + i, 1 + i)]
        return (n, *blocks, channels, *spatial), order
    order = [0, 1] + [a for i in range(k) for a in (k + 2 + i, 2 + i)]
    return (n, channels, *blocks, *spatial), order


def space_to_depth(attrs: Mapping[str, Any], shape: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    n, c, *spatial = shape
    size, k = attrs["block_size"], len(spatial)
    parts = (n, c, *(v for d in spatial for v in (d // size, size)))
    blocks, pixels = [3 + 2 * i for i in range(k)], [2 + 2 * i for i in range(k)]
    first = attrs["mode"] == "blocks_first"
    return parts, [0, *blocks, 1, *pixels] if first else [0, 1, *blocks, *pixels]


class Copies(AsInput):
    """Base class of copies that depend on the values of inputs 1, 2 ... Values that are unknown when shapes
    are known raise NotNative, and the reference runs."""

    def plan(self, planner: Planner) -> None:
        node = self.group.last
        values = [planner.shape_value(v).reshape(-1).tolist() for v in node.inputs[1:]]
        self.copy(planner, node, planner.view(node.inputs[0]), values)

    def copy(self, planner: Planner, node: Node, source: View, values: list[list[int]]) -> None:
        raise NotImplementedError


#: `Tiled`: maximum bytes of a short row, and minimum bytes of a target, for which steps are worth it.
SHORT_ROW, WORTH_STEPS = 256, 1 << 15


class Tiled(Copies):
    """Tile: the target's dimensions are split into [repeats, extent]; the source is repeated by strides of
    0.

    Where rows are short, the target is written in steps. First the innermost repeated dimension is written,
    in the first block of each dimension outside of it. Then blocks, which are longer, are repeated along one
    dimension after the other.
    """

    def copy(self, planner: Planner, node: Node, source: View, values: list[list[int]]) -> None:
        target = planner.output(node.output)
        if not target.count:
            return
        rank = len(target.shape)
        shape = (1,) * (rank - len(source.shape)) + source.shape
        parts = [v for d, extent in zip(shape, target.shape, strict=True) for v in (extent // d, d)]
        source_view = source.as_shape([v for d in shape for v in (1, d)])
        target = target.as_shape(parts)
        stepwise = is_static(node.output.shape) and steps_of(parts, target.itemsize)
        inner, *outer = stepwise or [0]
        first = block_of(target, inner)
        plan_copy(planner, source_view.expand(first.shape), first)
        for axis in outer:
            block = block_of(target, axis)
            copies = block.slice(axis, 1, parts[axis] - 1)
            plan_copy(planner, block.slice(axis, 0, 1).expand(copies.shape), copies)


def block_of(target: View, axis: int) -> View:
    """The first block of each dimension of `target` [repeats, extent, ...] before `axis`."""
    for outer in range(0, axis, 2):
        target = target.slice(outer, 0, 1)
    return target


def steps_of(parts: Sequence[int], itemsize: int) -> list[int]:
    """The repeated dimensions of a Tile to [repeats, extent, ...] that is planned in steps, innermost first.
    None are if the target is small, or rows long."""
    if math.prod(parts) * itemsize < WORTH_STEPS:
        return []
    repeated = [axis for axis in range(len(parts) - 2, -1, -2) if parts[axis] > 1]
    short = len(repeated) > 1 and math.prod(parts[repeated[0] + 1 :]) * itemsize <= SHORT_ROW
    return repeated if short else []


class Rolled(Copies):
    """Roll: two copies along each axis that is shifted."""

    def copy(self, planner: Planner, node: Node, source: View, values: list[list[int]]) -> None:
        shifts, axes = values
        moves: dict[int, int] = {}
        count = max(len(shifts), len(axes)) if shifts and axes and source.shape else 0
        for i in range(count):
            axis = normalize_axis(axes[i % len(axes)], len(source.shape))
            moves[axis] = moves.get(axis, 0) + shifts[i % len(shifts)]
        target = planner.output(node.output)
        if not target.count:
            return
        choices = []
        for axis, shift in moves.items():
            n = source.shape[axis]
            by = shift % n
            # (axis, source index, target index, count)
            choices.append([p for p in ((axis, 0, by, n - by), (axis, n - by, 0, by)) if p[3]])
        for pieces in itertools.product(*choices):
            part, destination = source, target
            for axis, first, to, size in pieces:
                part, destination = part.slice(axis, first, size), destination.slice(axis, to, size)
            plan_copy(planner, part, destination)


def space_to_batch(shape: Sequence[int], blocks: Sequence[int]) -> tuple[list[int], list[int]]:
    """(split shape [N, D/b, b, ...] of [N, D...], permutation to [b..., N, D/b...])."""
    k = len(blocks)
    parts = [shape[0], *(v for d, b in zip(shape[1:], blocks, strict=True) for v in (d // b, b))]
    return parts, [2 + 2 * i for i in range(k)] + [0] + [1 + 2 * i for i in range(k)]


class SpaceToBatch(Copies):
    """SpaceToBatch without padding; `expand_space_to_batch` moves padding to a Pad."""

    def copy(self, planner: Planner, node: Node, source: View, values: list[list[int]]) -> None:
        target = planner.output(node.output)
        if target.count:
            parts, order = space_to_batch(source.shape, values[0][1:])
            permuted = source.as_shape(parts).permute(order)
            plan_copy(planner, permuted, target.as_shape(permuted.shape))


class FromBatch(Copies):
    """BatchToSpace. Cropping is a slice of the uncropped result."""

    def copy(self, planner: Planner, node: Node, source: View, values: list[list[int]]) -> None:
        blocks, begin, end = values
        n = source.shape[0] // math.prod(blocks)
        full = (n, *(d * b for d, b in zip(source.shape[1:], blocks[1:], strict=True)))
        cropped = any(begin) or any(end)
        target = planner.allocate(full, source.itemsize) if cropped else planner.output(node.output)
        parts, order = space_to_batch(full, blocks[1:])
        if target.count:
            permuted = target.as_shape(parts).permute(order)
            plan_copy(planner, source.as_shape(permuted.shape), permuted)
        if cropped:
            for axis, size in enumerate(planner.shape(node.output)):
                target = target.slice(axis, begin[axis], size)
            planner.alias_or_copy(node.output, target)


def lower_space_to_batch(group: Group) -> Lowering | None:
    pads = [v.type.value for v in group.last.inputs[2:]]
    return SpaceToBatch(group) if all(p is not None and not p.any() for p in pads) else None


def expand_space_to_batch(w: Writer, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    """SpaceToBatch(x, blocks, begin, end) -> SpaceToBatch(Pad(x, begin, end), blocks, 0, 0)"""
    x, blocks, begin, end = inputs
    first, last = begin.type.value, end.type.value
    if first is None or last is None or not (first.any() or last.any()):
        return None
    none = np.zeros_like(first)
    return [w("SpaceToBatch", w("Pad", x, begin, end, pad_mode="constant"), blocks, none, none)]


lower_depth_to_space = partial(Rearranged, how=depth_to_space, back=False)
lower_space_to_depth = partial(Rearranged, how=space_to_depth, back=True)
