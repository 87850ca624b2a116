"""`OVAny`: a value of any kind, as properties and runtime information hand it out."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from tests.support import api_cases as cases

VALUES = [
    "1", "1.5", "'a'", "True", "None", "[1, 2]", "[1.5]", "['a', 'b']", "{'a': 1}", "{}", "ov.Type.f32",
    "np.float32(2)", "b'ab'", "{'a': {'b': 1}}", "'5'", "'5.5'", "'YES'", "'true'", "'no'", "'1 2'", "'a b'",
    "''", "'x'", "'1,2'", "'1x'", "' 7'", "'0'", "'2'", "'-1e3z'", "'.5'", "ov.properties.hint.Priority.LOW",
    "123456789.0", "13.23", "10**12",
]  # fmt: skip


def got(ov: Any, source: str) -> Any:
    return eval(source, {"ov": ov, "np": np, "OVAny": ov.OVAny})


@pytest.mark.parametrize(
    "use",
    ["OVAny(v).astype(int)", "OVAny(v).astype(float)", "OVAny(v).astype(str)", "OVAny(v).astype(bool)",
     "sorted(OVAny(v).astype(dict))", "OVAny(v).aslist(int)", "OVAny(v).aslist(str)",
     "OVAny(v).aslist(float)", "OVAny(v).value", "OVAny(v).get()", "OVAny(v) == OVAny(v)"],
)  # fmt: skip
def test_values_are_read_as_openvino_reads_them(use):
    for value in VALUES:
        if use == "OVAny(v) == OVAny(v)" and value == "None":
            continue  # OpenVINO finds that two empty values differ
        cases.check_alike(lambda ov, value=value: got(ov, use.replace("v)", f"{value})")), f"{use}: {value}")


def test_a_list_is_of_one_kind():
    for ov in (openvino, ovjit):
        with pytest.raises(RuntimeError, match="Mixed types in the container are not allowed"):
            ov.OVAny([1, "a"])
    assert ovjit.OVAny([]).aslist() == openvino.OVAny([]).aslist() == []
    assert ovjit.OVAny(np.array([1, 2])) != ovjit.OVAny(np.array([1, 3]))


def test_runtime_information_keeps_its_values_in_files(tmp_path):
    def told(ov: Any) -> list[Any]:
        p = ov.opset13.parameter([1], name="p")
        model = ov.Model([ov.opset13.relu(p)], [p], "m")
        kept = {"b": True, "f": 13.23, "fs": [22.3, 44.0], "i": 7, "s": ["x", "yz"], "t": ov.Type.f32,
                "e": [], "n": {"z": 1, "a": {"c": "d"}}, "by": b"xy"}  # fmt: skip
        for key, value in kept.items():
            model.set_rt_info(value, ["top", key])
        path = tmp_path / f"{ov.__name__}.xml"
        ov.serialize(model, path)
        read = ov.Core().read_model(path)
        words = [read.get_rt_info(["top", key]).astype(str) for key in sorted(kept) if key != "n"]
        return [
            words,
            read.get_rt_info(["top", "b"]).astype(bool), read.get_rt_info(["top", "f"]).astype(float),
            read.get_rt_info(["top", "fs"]).aslist(float), read.get_rt_info(["top", "s"]).aslist(str),
            read.get_rt_info(["top", "e"]).aslist(), sorted(read.get_rt_info(["top", "n"]).astype(dict)),
        ]  # fmt: skip

    assert told(ovjit) == told(openvino)
