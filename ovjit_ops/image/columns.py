"""How many windows Col2Im adds up, and by which settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.errors import check
from ovjit.graph.windows import full_attribute


def window_counts(size: Sequence[Any], kernel: Sequence[Any], attrs: dict[str, Any]) -> list[Any]:
    """How many windows there are along each side of a picture."""
    out = []
    for i in range(2):
        window = (kernel[i] - 1) * attrs["dilations"][i] + 1
        rest = size[i] + attrs["pads_begin"][i] + attrs["pads_end"][i] - window
        check(rest >= 0, f"the window of {window} is larger than the padded size {size[i]}")
        out.append(rest // attrs["strides"][i] + 1)
    return out


def full_settings(attrs: dict[str, Any]) -> dict[str, Any]:
    """The attributes of Col2Im with an entry for each side."""
    rows = (("strides", 1, 1), ("dilations", 1, 1), ("pads_begin", 0, 0), ("pads_end", 0, 0))
    return {n: full_attribute(attrs[n], 2, n, default, low) for n, default, low in rows}
