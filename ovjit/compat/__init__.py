"""OpenVINO's modules: what `ovjit.opset8`, `ovjit.preprocess`, `ovjit.frontend.onnx` and so on are.

Programs import them by those names, which are aliases (`ovjit.alias`): the module is in this folder, once,
and `NAMES` says which name stands for it. Code of ovjit itself imports the modules by where they are, so that
type checkers and packagers follow, and no thread waits for an alias that another one is making.
"""

_MODULES = (
    "_offline_transformations", "_op_base", "_ov_api", "_pyopenvino", "experimental", "frontend",
    "helpers", "layout_helpers", "op", "package_utils", "passes", "preprocess", "properties", "runtime",
    "torch", "utils",
    *(f"opset{i}" for i in range(1, 18)),
)  # fmt: skip

#: public name -> module. What is below a name follows.
NAMES = {f"ovjit.{name}": f"ovjit.compat.{name}" for name in _MODULES}
NAMES |= {
    "ovjit.tools.ovc": "ovjit.compat.ovc",
    "ovjit.exceptions": "ovjit.api.exceptions",
    "ovjit.helpers.packing": "ovjit.api.tensors.packing",
}
