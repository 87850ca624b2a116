"""Axes of a reduction."""

from __future__ import annotations

from collections.abc import Iterable

from ovjit.api.model.node import Node


def get_reduction_axes(node: Node, reduction_axes: Iterable[int] | None) -> Iterable[int]:
    """The given axes as a set; all axes of the node's first output where none are given."""
    return set(range(len(node.shape)) if reduction_axes is None else reduction_axes)
