"""Options of torch.compile by the names of OpenVINO's functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.compat.frontend.pytorch.torchdynamo.options import is_on


def _is_testing(options: Mapping[str, Any] | None) -> bool:
    """Whether the option `testing` is on."""
    return is_on(options or {}, "testing")


__all__ = ["_is_testing"]
