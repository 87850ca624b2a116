"""What comes with ovjit about ONNX's operators is what the package onnx says, and its messages are the
package's."""

from __future__ import annotations

import collections
import importlib

import numpy as np
import onnx
import openvino
import pytest
from onnx import defs, helper

import ovjit
from ovjit.disk import notice
from ovjit.errors import ModelError
from ovjit.readers.onnx import registry, standard
from tests.support.run import printed

NAMES = sorted({(s.domain, s.name) for s in defs.get_all_schemas_with_history()})


@pytest.mark.parametrize("domain", sorted({domain for domain, _ in NAMES}))
def test_every_version_of_every_operator(domain: str) -> None:
    table = standard._table()
    known = table.newest[domain]
    wrong = []
    for name in (name for one, name in NAMES if one == domain):
        for version in range(1, known + 1):
            try:
                want = standard._schema_of(standard._row(defs.get_schema(name, version, domain)))
            except defs.SchemaError:
                want = None
            if standard.find_schema(domain, name, version) != want:
                wrong.append((name, version))
    assert not wrong, f"{wrong[:5]}: `python -m ovjit.tools.ship --texts` writes the file anew"


def test_the_newest_version() -> None:
    assert standard.newest_opset() == standard._table().newest[""]
    assert standard.newest_opset(1000) == defs.onnx_opset_version()


@pytest.mark.parametrize("version", [defs.onnx_opset_version() + 1, 1000])
def test_newer_opsets_are_read_as_the_newest(version: int, monkeypatch, caplog) -> None:
    monkeypatch.setattr(notice, "_topics", {})
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Softmax", ["x"], ["h"], axis=1), helper.make_node("Neg", ["h"], ["y"])]
    ends = [[value(name, onnx.TensorProto.FLOAT, [2, 3])] for name in "xy"]
    graph = helper.make_graph(nodes, "g", *ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    x = np.float32([[1, 2, 3], [-1, 0, 5]])
    want = openvino.Core().compile_model(openvino.Core().read_model(model.SerializeToString()), "CPU")(x)[0]
    got = ovjit.Core().compile_model(ovjit.Core().read_model(model.SerializeToString()), "CPU")(x)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    (said,) = caplog.messages
    assert f"opset {version} of ai.onnx; it is read as opset {defs.onnx_opset_version()}" in said


def test_an_opset_below_the_first() -> None:
    graph = helper.make_graph([], "g", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 0)], ir_version=10)
    with pytest.raises(ModelError, match="opset 0 of ai.onnx; the first opset is 1"):
        ovjit.Core().read_model(model.SerializeToString())


def test_each_family_has_the_operators_that_the_registry_names() -> None:
    """A model imports the families of its operators alone, by this table."""
    for family in registry.FAMILIES:
        importlib.import_module(f"ovjit.readers.onnx.{family}")
    found = collections.defaultdict(set)
    for (domain, name), rows in registry._ROWS.items():
        for _, rule in rows:
            package, _, family = rule.__module__.rpartition(".")
            if package == "ovjit.readers.onnx" and domain in ("", "ai.onnx.preview.training"):
                found[family].add(name)
    assert found == {family: set(names.split()) for family, names in registry.FAMILIES.items()}


def test_rows_of_names_that_are_none() -> None:
    assert standard._table().rows("", "Abs")
    assert standard._table().rows("", 'Abs\t[[1,{"consumed_inputs":[7,false,null]},1,1,1,1,false]') == []
    assert standard._table().rows("\n", "Abs") == []


def test_an_operator_of_nobody() -> None:
    assert standard.find_schema("com.nobody", "Relu", 1) is None
    assert standard.find_schema("", "NoSuchOperator", 13) is None


def test_a_file_is_read_without_the_package(tmp_path) -> None:
    """And a ModelProto that the package makes later is of the class that the reader knows."""
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Selu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    program = (
        "import sys, ovjit\n"
        f"model = ovjit.Core().read_model({str(path)!r})\n"
        "assert 'onnx' not in sys.modules\n"
        "from google.protobuf.internal import api_implementation\n"
        "native = api_implementation.Type() == 'upb'\n"
        "assert 'google.protobuf.text_format' not in sys.modules or not native\n"
        "import onnx\n"
        "assert onnx.TypeProto.Tensor.__qualname__ == 'TypeProto.Tensor'\n"
        "from ovjit.readers.onnx.standard import messages\n"
        f"proto = onnx.load({str(path)!r})\n"
        "assert messages().ModelProto is onnx.ModelProto\n"
        "assert len(ovjit.Core().read_model(proto).get_ops()) == len(model.get_ops())\n"
    )
    printed("-c", program)


@pytest.mark.parametrize("implementation", ["upb", "python"])
def test_messages_in_each_implementation_of_protobuf(tmp_path, implementation) -> None:
    """The native one's are made without its modules in Python; the classes are the package's in both."""
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Elu", ["x"], ["y"], alpha=2.0)], "g", [x], [y])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    program = (
        "import ovjit\n"
        f"model = ovjit.Core().read_model({str(path)!r})\n"
        "assert model.get_ordered_ops()[1].get_attributes()['alpha'] == 2\n"
        "from ovjit.readers.onnx.standard import messages\n"
        "import onnx\n"
        "for name in ('ModelProto', 'TypeProto', 'TensorProto', 'FunctionProto'):\n"
        "    assert getattr(onnx, name) is getattr(messages(), name)\n"
        "    assert getattr(onnx, name).__module__.endswith('onnx_ml_pb2')\n"
    )
    printed("-c", program, PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=implementation)
