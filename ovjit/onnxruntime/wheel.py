"""The parts of an installed onnxruntime that are Python only: quantization, tools, transformers, backend and
datasets. They run on ovjit's sessions."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

import ovjit.onnxruntime


def share_python_parts() -> None:
    """Make submodules that ovjit lacks importable from the installed wheel of onnxruntime, without loading
    its `__init__` or its native module. Does nothing without a wheel."""
    path = ovjit.onnxruntime.__path__
    spec = PathFinder.find_spec("onnxruntime", sys.path)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if folder not in path:
            path.append(folder)
