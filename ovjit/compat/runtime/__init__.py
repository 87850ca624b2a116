"""The module that OpenVINO had before its names moved to the top: `import ovjit.runtime as ov`.

Everything that `ovjit` has is here, submodules included, as the same objects.
"""

from __future__ import annotations

from typing import Any

import ovjit
from ovjit.alias import install

install("ovjit.runtime", "ovjit")


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return ovjit.__all__
    if name.startswith("__"):
        raise AttributeError(f"module 'ovjit.runtime' has no attribute {name!r}")
    return getattr(ovjit, name)


def __dir__() -> list[str]:
    return dir(ovjit)
