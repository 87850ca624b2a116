"""`import ovjit.as_onnxruntime`: after it, `import onnxruntime` and its submodules are `ovjit.onnxruntime`.

Programs written for ONNX Runtime then run unchanged, on the CPU. `onnxruntime.quantization` and other parts
in Python are those of the installed wheel; without one, a missing submodule is a ModuleNotFoundError. Raises
ImportError if the real package has been imported already, since two engines under one name would conflict.
"""

import sys

import ovjit.onnxruntime.wheel
from ovjit.alias import install_names

if (_real := sys.modules.get("onnxruntime")) not in (None, ovjit.onnxruntime):
    raise ImportError(
        "the real onnxruntime is already imported, from "
        f"{getattr(_real, '__file__', None) or 'an unknown file'}: import ovjit.as_onnxruntime before it, "
        "or run the program with python -m ovjit run --as onnxruntime"
    )
install_names({"onnxruntime": "ovjit.onnxruntime"})
sys.modules["onnxruntime"] = ovjit.onnxruntime
ovjit.onnxruntime.wheel.share_python_parts()
