"""The command `ovc`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit.tools.ovc import main


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The IR of relu(a) and of -b."""
    a, b = (ovjit.opset13.parameter([2, 3], np.float32, name=name) for name in "ab")
    for parameter in (a, b):
        parameter.output(0).set_names({parameter.friendly_name})
    model = ovjit.Model([ovjit.opset13.relu(a), ovjit.opset13.negative(b)], [a, b])
    ovjit.save_model(model, tmp_path / "in.xml")
    return tmp_path / "in.xml"


def ours(*args: Any) -> int:
    return main([str(arg) for arg in args])


@pytest.mark.parametrize(("given", "made"), [("m", "m.xml"), ("m.xml", "m.xml"), ("new/", "new/in.xml"),
                                             ("there", "there/in.xml"), ("a.b", "a.b.xml")])  # fmt: skip
def test_where_the_model_is_written(source, tmp_path, given, made):
    (tmp_path / "there").mkdir()
    assert ours(source, "--output_model", f"{tmp_path}{os.sep}{given}") == 0
    assert ovjit.Core().read_model(tmp_path / made).input("a").partial_shape == [2, 3]


@pytest.mark.parametrize(
    ("described", "shapes"),
    [
        ("a[4,?],b[1..5,2]", ["[4,?]", "[1..5,2]"]),
        ("b[7,1]", ["[2,3]", "[7,1]"]),
        ("[6,6],[5,?]", ["[6,6]", "[5,?]"]),
        ("a,b", ["[2,3]", "[2,3]"]),
    ],
)
def test_inputs_are_given_shapes(source, tmp_path, described, shapes):
    assert ours(source, "--input", described, "--output_model", tmp_path / "out.xml") == 0
    model = ovjit.Core().read_model(tmp_path / "out.xml")
    assert [str(model.input(name).partial_shape) for name in "ab"] == shapes


@pytest.mark.parametrize("args", [["--input", "a[1"], ["--input", "a[2,3]{f16}"],
                                  ["--extension", "lib.so"], ["--input", "c[1,2]"]])  # fmt: skip
def test_what_is_refused(source, tmp_path, args, capsys):
    assert ours(source, *args, "--output_model", tmp_path / "out.xml") == 1
    assert not (tmp_path / "out.xml").exists() and "ovc: " in capsys.readouterr().err


def test_it_runs_as_a_module_under_the_other_name(source, tmp_path):
    command = [sys.executable, "-m", "ovjit", "run", "-m", "openvino.tools.ovc"]
    args = [source, "--output_model", tmp_path / "x"]
    made = subprocess.run([*command, *args], capture_output=True, text=True)
    assert made.returncode == 0 and "SUCCESS" in made.stdout and (tmp_path / "x.xml").exists(), made.stderr
    assert "usage" in subprocess.run([*command, "--help"], capture_output=True, text=True).stdout
