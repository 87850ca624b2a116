"""Versions of what a model is converted with."""

from __future__ import annotations

import contextlib
import importlib
import platform
import sys
from typing import Any


def get_imported_module_version(imported_module: Any) -> str:
    """A module's version. AttributeError for one that tells none."""
    for name in ("__version__", "VERSION", "version"):
        version = getattr(imported_module, name, None)
        if isinstance(version, str):
            return version
    raise AttributeError(f"{imported_module} module doesn't have version attribute")


def get_environment_setup(framework: str) -> dict[str, str]:
    """Python's version, the system, and for "tf" TensorFlow's version where it is installed."""
    setup = {"python_version": platform.python_version()}
    if framework == "tf":
        with contextlib.suppress(AttributeError, ImportError):
            setup["tensorflow"] = get_imported_module_version(importlib.import_module("tensorflow"))
    setup["sys_platform"] = sys.platform
    return setup
