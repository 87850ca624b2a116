"""PyInstaller hooks of ovjit, found by the entry point `pyinstaller40`."""

from __future__ import annotations

import os


def get_hook_dirs() -> list[str]:
    """The folder with the hooks, as PyInstaller asks for it."""
    return [os.path.dirname(__file__)]
