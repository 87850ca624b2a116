"""NVIDIA's assembler of PTX, if it is installed: on the path, or by the packages nvidia-cuda-nvcc and
nvidia-cuda-nvcc-cu12."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from pathlib import Path


@functools.cache
def find_ptxas() -> str | None:
    found = shutil.which("ptxas")
    spec = None if found else importlib.util.find_spec("nvidia")
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    inside = (Path(folder, part, "bin", "ptxas") for folder in folders for part in ("cuda_nvcc", "cu13"))
    return found or next((str(path) for path in inside if path.is_file()), None)
