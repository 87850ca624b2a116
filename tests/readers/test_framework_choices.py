"""Attributes that are choices, of operators of TensorFlow and Paddle that stay in an exported ONNX model."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import TensorProto, helper

from ovjit.readers.frameworks.operators import known_operators
from ovjit.readers.onnx.choices import _TABLES, ANY
from ovjit.readers.onnx.reader import open_model, read_opened

DOMAINS = {"tf": "tensorflow", "paddle": "paddle"}


def read(framework: str, operator: str, **attributes: Any) -> None:
    domain = DOMAINS[framework]
    x = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1, 4, 4, 1]) for i in range(3)]
    node = helper.make_node(operator, [i.name for i in x], ["y"], "the_node", domain=domain, **attributes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    model = helper.make_model(helper.make_graph([node], "g", x, [y]), opset_imports=imports, ir_version=8)
    read_opened(open_model(model), known_operators(framework))


@pytest.mark.parametrize(("framework", "operator", "attribute"), [
    ("tf", "Conv2DBackpropInput", "padding"), ("tf", "Conv3DBackpropInputV2", "data_format"),
    ("tf", "MatrixDiagV3", "align"), ("tf", "ScaleAndTranslate", "kernel_type"),
    ("paddle", "rnn", "mode"), ("paddle", "unique", "dtype"),
])  # fmt: skip
def test_a_wrong_word_is_refused(framework: str, operator: str, attribute: str) -> None:
    domain = DOMAINS[framework]
    assert f"{domain}.{operator}" in known_operators(framework)
    own = _TABLES[domain]
    choice = own.get(operator, {}).get(attribute) or own[ANY][attribute]
    with pytest.raises(RuntimeError, match=f"the_node.*'{attribute}' is 'wrong'") as caught:
        read(framework, operator, **{attribute: "wrong"})
    assert all(word in str(caught.value) for word in choice.words)


def test_declared_operators_have_rules() -> None:
    for framework, domain in DOMAINS.items():
        for operator in _TABLES[domain]:
            assert operator == ANY or f"{domain}.{operator}" in known_operators(framework)
