"""Operators of other ONNX domains: imported when a model has them, from ovjit's package and from others."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support import ROOT
from tests.support.run import printed

PLUGIN = """
from ovjit.readers.onnx.registry import onnx_op, prepares

@onnx_op("Twice", domain="its.domain")
def twice(n):
    return n("Add", n[0], n[0])
"""

PROGRAM = """
import sys
import numpy as np
from onnx import TensorProto, helper
import ovjit as ov

def model(op, domain):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])
    node = helper.make_node(op, ["x"], ["y"], domain=domain)
    graph = helper.make_graph([node], "g", [value("x")], [value("y")])
    versions = {"": 17, "its.domain": 1, "com.microsoft": 1}
    imports = [helper.make_opsetid(name, version) for name, version in versions.items()]
    return helper.make_model(graph, opset_imports=imports).SerializeToString()

x = np.float32([-1, 0, 2])
core = ov.Core()
print(core.compile_model(core.read_model(model("Relu", "")), "CPU")(x)[0].tolist())
print("ovjit.readers.onnx_contrib" in sys.modules, "its_operators" in sys.modules)
print(core.compile_model(core.read_model(model("Twice", "its.domain")), "CPU")(x)[0].tolist())
print("ovjit.readers.onnx_contrib" in sys.modules, "its_operators" in sys.modules)
try:
    core.read_model(model("Thrice", "its.domain"))
except RuntimeError as error:
    print("its.domain.Thrice" in str(error))
"""


def test_a_package_adds_a_domain(tmp_path: Path) -> None:
    info = tmp_path / "its-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: its\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ovjit.onnx]\nits = its_operators\n")
    (tmp_path / "its_operators.py").write_text(PLUGIN)
    places = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    said = printed("-c", PROGRAM, PYTHONPATH=places).splitlines()
    assert said == ["[0.0, 0.0, 2.0]", "False False", "[-2.0, 0.0, 4.0]", "True True", "True"]
