"""The attributes of GridSample, checked."""

from __future__ import annotations

from typing import Any

from ovjit.errors import check

MODES = ("bilinear", "bicubic", "nearest")


PADDINGS = ("zeros", "border", "reflection")


def settings(attrs: dict[str, Any]) -> tuple[bool, str, str]:
    """(align_corners, mode, padding_mode), checked."""
    mode, padding = attrs["mode"].lower(), attrs["padding_mode"].lower()
    check(
        mode in MODES,
        f'"{mode}" is not a member of enum op::v9::GridSample::InterpolationMode: it is one of '
        f"{', '.join(MODES)}",
    )
    check(padding in PADDINGS, f"padding_mode should be one of {', '.join(PADDINGS)}, not {padding!r}")
    return attrs["align_corners"], mode, padding
