"""Questions about a Layout by the meaning of its axes, and the layouts of a model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.api.arguments import expect
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.node import ConstOutput, Output
from ovjit.api.tensors.layout import Layout
from ovjit.errors import ModelError


def _layout(layout: Layout) -> Layout:
    return expect(layout, Layout, "a Layout is expected")


def _has(axis: str, what: str) -> Callable[[Layout], bool]:
    def has(layout: Layout) -> bool:
        return _layout(layout).has_name(axis)

    has.__name__ = has.__qualname__ = f"has_{what}"
    has.__doc__ = f"Whether the layout names the axis {axis} ({what})."
    return has


def _idx(axis: str, what: str) -> Callable[[Layout], int]:
    def idx(layout: Layout) -> int:
        return _layout(layout).get_index_by_name(axis)

    idx.__name__ = idx.__qualname__ = f"{what}_idx"
    idx.__doc__ = (
        f"The index of the axis {axis} ({what}), negative if it comes after `...`."
        " RuntimeError if it is not named."
    )
    return idx


has_batch, batch_idx = _has("N", "batch"), _idx("N", "batch")
has_channels, channels_idx = _has("C", "channels"), _idx("C", "channels")
has_depth, depth_idx = _has("D", "depth"), _idx("D", "depth")
has_height, height_idx = _has("H", "height"), _idx("H", "height")
has_width, width_idx = _has("W", "width"), _idx("W", "width")


def get_layout(port: Output | ConstOutput) -> Layout:
    """The layout of a model's input or output; an empty Layout for any other port."""
    expect(port, (Output, ConstOutput), "get_layout takes an Output")
    node = port.get_node()
    return node.get_layout() if isinstance(node, (Parameter, Result)) else Layout()


def set_layout(port: Output, layout: Layout) -> None:
    """Set the layout of a model's input or output. RuntimeError for another port or rank."""
    expect(port, Output, "set_layout takes an Output")
    node = port.get_node()
    if not isinstance(node, (Parameter, Result)):
        raise ModelError("Layout can be set only for Parameter and Result operations.")
    node.set_layout(layout)


__all__ = [
    "batch_idx", "channels_idx", "depth_idx", "get_layout", "has_batch", "has_channels", "has_depth",
    "has_height", "has_width", "height_idx", "set_layout", "width_idx",
]  # fmt: skip
