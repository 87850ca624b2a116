"""`onnxruntime` on ovjit: sessions that run ONNX models on the CPU.

    import ovjit.onnxruntime as ort
    session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    results = session.run(None, {"x": x})

Under `ovjit.as_onnxruntime` and `python -m ovjit run --as onnxruntime` it is the module `onnxruntime`.
"""

from __future__ import annotations

from typing import Any

from ovjit.module_cache import imports_from_file
from ovjit.onnxruntime.surface import PACKAGE, SHARED, import_names
from ovjit.version import ONNXRUNTIME

with imports_from_file():
    _NAMES = import_names(SHARED, PACKAGE)
globals().update(_NAMES)
__all__ = sorted(_NAMES)

__version__ = version = ONNXRUNTIME
__author__ = "Microsoft"
package_name, cuda_version = "onnxruntime", ""


def __getattr__(name: str) -> Any:
    if name == "capi":
        import ovjit.onnxruntime.capi as capi

        return capi
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise AttributeError(
        f"ovjit's onnxruntime has no {name}: docs/onnxruntime_programs.md lists what it has. The rest needs "
        "the real onnxruntime, in a separate environment"
    )
