"""`torch` for the modules of this room, which are imported without the package, too."""

from __future__ import annotations

import importlib
from typing import Any


class _PyTorch:
    """The package torch, imported when one of its attributes is first read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("torch"), name)


torch: Any = _PyTorch()
