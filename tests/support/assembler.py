"""NVIDIA's assembler of PTX and the driver's header, if they are installed: with the toolkit, or by the
packages nvidia-cuda-nvcc and nvidia-cuda-runtime of CUDA 12 and 13. Triton, which comes with PyTorch, has the
assembler, too."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from pathlib import Path


def _find_in_packages(*names: str, package: str = "nvidia") -> list[Path]:
    """The files of these names in the folders of NVIDIA's packages, or of another package."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    return [path for folder in folders for name in names if (path := Path(folder, name)).is_file()]


@functools.cache
def find_ptxas() -> str | None:
    packaged = [
        *_find_in_packages("cuda_nvcc/bin/ptxas", "cu13/bin/ptxas"),
        *_find_in_packages("backends/nvidia/bin/ptxas", package="triton"),
    ]
    return shutil.which("ptxas") or next(map(str, packaged), None)


@functools.cache
def find_headers() -> list[Path]:
    """The files cuda.h."""
    toolkits = [*Path("/usr/local").glob("cuda*/include/cuda.h"), Path("/usr/include/cuda.h")]
    packaged = _find_in_packages("cuda_runtime/include/cuda.h", "cu13/include/cuda.h")
    return [path for path in (*toolkits, *packaged) if path.is_file()]
