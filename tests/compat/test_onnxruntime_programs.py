"""ovjit under the name onnxruntime: calls beside the real package, and programs of other packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.environments import install, new_environment
from tests.support.run import command, python

PROGRAMS = Path(__file__).parent / "programs"
OURS = ("-m", "ovjit", "run", "--as", "onnxruntime")


def outcomes(*how: str, folder: Path) -> dict[str, list[Any]]:
    done = command(sys.executable, *how, PROGRAMS / "onnxruntime_calls.py", folder, folder=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {call: row for call, *row in rows}


def tidy(text: str) -> str:
    """A message without what only the real package knows: places in its sources, addresses, all of
    pybind11's signatures behind the first line, and the reason why a kernel failed."""
    text = re.sub(r"/onnxruntime_src/\S+ .*?\)> (.*? was false\. )?", "", text)
    text = re.sub(r"/onnxruntime_src/.*(was false\.|\)) ", "", text)
    text = re.sub(r"(incompatible (function|constructor) arguments).*", r"\1", text, flags=re.DOTALL)
    text = re.sub(r"(status code returned while running).*", r"\1", text, flags=re.DOTALL)
    text = re.sub(r"(In Node, \(.*?\)).*(, Error)", r"\1\2", text)
    text = text.replace("'AzureExecutionProvider, CPUExecutionProvider'", "'CPUExecutionProvider'")
    return text.strip()


#: Calls of which only the kind of outcome is equal (value, or the error's class), and why.
OF_THE_SAME_KIND = {
    'ort.SessionOptions().register_custom_ops_library("/nowhere.so")': "no native library is loaded",
    "ort.SessionOptions(1)": "Python's own message",
    "ort.ExecutionMode(0) < ort.ExecutionMode(1)": "Python's own message",
    "ort.get_available_providers()": "there is no Azure",
    "OF((-2,), np.float32)": "a place in the sources",
    'setattr(S("add").get_inputs()[0], "name", "q")': "Python's own message",
    'S("add").get_provider_graph_assignment_info()': "the end of the message",
    'run("taken", s=(np.ones((3, 2), f4),))': "the message",
    "ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.zeros(2, np.uint8), 16)": "a place in the sources",
}  # fmt: skip


@pytest.mark.timeout(300)
def test_calls_have_the_outcomes_of_the_real_package(tmp_path):
    write = "from tests.compat.programs import onnxruntime_calls as calls; calls.write_models(sys.argv[1])"
    written = python("-c", f"import sys; {write}", str(tmp_path))
    assert written.returncode == 0, written.stderr
    real, ours = outcomes(folder=tmp_path), outcomes(*OURS, folder=tmp_path)
    assert list(real) == list(ours) and len(real) > 300
    wrong = {}
    for call, row in real.items():
        same = (
            2 if call in OF_THE_SAME_KIND and row[0] == "error" else 1 if call in OF_THE_SAME_KIND else None
        )
        shown = [
            [tidy(x) if isinstance(x, str) else list(map(tidied, x)) for x in r[:same]]
            for r in (row, ours[call])
        ]
        if shown[0] != shown[1]:
            wrong[call] = shown
    assert not wrong, json.dumps(wrong, indent=1)[:4000]


def tidied(value: Any) -> Any:
    return tidy(value) if isinstance(value, str) else value


def test_tidy_leaves_what_matters():
    assert tidy("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid output name:q") != tidy(
        "Invalid output name:q"
    )
    assert tidy("run(): incompatible function arguments. x") == "run(): incompatible function arguments"


IMPORTS = """
import onnxruntime as ort, onnxruntime.capi.onnxruntime_pybind11_state as state
from onnxruntime.capi._pybind_state import InvalidArgument
from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession
import ovjit.onnxruntime, sys
assert ort is ovjit.onnxruntime and state.InvalidArgument is InvalidArgument
assert InferenceSession is ort.InferenceSession is ort.capi.onnxruntime_inference_collection.InferenceSession
try:
    import onnxruntime.no_such_part
except ModuleNotFoundError as error:
    assert "onnxruntime.no_such_part" in str(error)
else:
    raise AssertionError
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
assert not any("site-packages/onnxruntime" in file for file in files)
print("fine", __name__, sys.argv[1:])
"""


def test_the_ways_in(tmp_path):
    run = python("-c", "import ovjit.as_onnxruntime\nimport ovjit.as_onnxruntime" + IMPORTS)
    assert run.stdout == "fine __main__ []\n", run.stderr
    (tmp_path / "program.py").write_text(IMPORTS)
    run = python(*OURS, str(tmp_path / "program.py"), "a", "--as", "b")
    assert run.stdout == "fine __main__ ['a', '--as', 'b']\n", run.stderr
    run = python(*OURS, "-m", "program", "x", folder=tmp_path)
    assert run.stdout == "fine __main__ ['x']\n", run.stderr
    both = "import openvino, onnxruntime, ovjit\nassert openvino is ovjit\nprint(onnxruntime.__file__)"
    (tmp_path / "both.py").write_text(both)
    run = python("-m", "ovjit", "run", "--as", "openvino", "--as", "onnxruntime", str(tmp_path / "both.py"))
    assert "ovjit" in run.stdout, run.stderr


def test_python_parts_of_the_wheel_run_on_ovjit(tmp_path: Path) -> None:
    """Quantization, its calibration, and the optimizer of transformers."""
    pytest.importorskip("sympy")
    program, found = PROGRAMS / "onnxruntime_quantization.py", {}
    for how in ((), OURS):
        folder = tmp_path / str(len(how))
        folder.mkdir()
        done = command(sys.executable, *how, program, folder, folder=folder)
        assert done.returncode == 0, done.stderr[-3000:]
        found[how] = json.loads(done.stdout.splitlines()[-1])
    (real, place), (ours, our_place) = found.values()
    assert (place == "ovjit/", our_place) == (False, "ovjit/") and list(real) == list(ours)
    for name, (kinds, values) in real.items():
        assert ours[name][0] == kinds, name
        np.testing.assert_allclose(ours[name][1], values, atol=1e-5, err_msg=name)


def test_without_the_wheel_its_parts_are_missing(tmp_path: Path) -> None:
    code = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda c, name, *a: None if name == "onnxruntime" else find(name, *a))
import ovjit.as_onnxruntime
try:
    import onnxruntime.quantization
except ModuleNotFoundError as error:
    print(error)
"""
    run = python("-c", code)
    assert "onnxruntime.quantization" in run.stdout, run.stderr


def test_the_real_package_first_is_refused():
    run = python("-c", "import onnxruntime\nimport ovjit.as_onnxruntime")
    assert run.returncode == 1
    assert "ImportError: the real onnxruntime is already imported" in run.stderr
    run = python("-m", "ovjit", "run", "--as", "nonsense", "x.py")
    assert run.returncode == 2 and "invalid choice" in run.stderr


# -- from PyPI ---------------------------------------------------------------------------------------------

FOR_OCR = ("opencv-python-headless", "pyclipper", "shapely", "six", "omegaconf", "tqdm", "pillow", "colorlog",
           "requests", "pyyaml")  # fmt: skip
#: Program -> (its package, what else it needs).
PACKAGES = {
    "magika": ("magika", ("click", "python-dotenv")),
    "rapidocr_onnxruntime": ("rapidocr_onnxruntime", FOR_OCR),
    "rapidocr": ("rapidocr", FOR_OCR),
    "silero_vad": ("silero-vad", ()),
    "basic_pitch": ("basic-pitch", ("librosa", "mir-eval", "pretty_midi", "resampy<0.4.3", "setuptools<80")),
    "nudenet": ("nudenet", ("opencv-python-headless",)),
    "piper": ("piper-tts", ("pathvalidate",)),
    "onnx_asr": ("onnx-asr", ()),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return new_environment(tmp_path_factory.mktemp("programs") / "env")


def answer_of(done: subprocess.CompletedProcess[str]) -> tuple[Any, float]:
    assert done.returncode == 0, done.stderr[-3000:]
    answer, seconds = json.loads(done.stdout.strip().splitlines()[-1])
    return answer, seconds


@pytest.mark.pypi
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PACKAGES)
def test_a_program(name, environment):
    package, needs = PACKAGES[name]
    if needs:
        install(environment, *needs)
    install(environment, package, alone=True)
    program = PROGRAMS / "for_onnxruntime.py"
    real, of_real = answer_of(command(environment, program, name))
    ours, of_ours = answer_of(command(environment, *OURS, program, name))
    assert_near(ours, real)
    print(f"{name}: {of_ours:.3f} s of CPU, the real package {of_real:.3f} s")


def assert_near(ours: Any, real: Any) -> None:
    """Texts, labels and integers are equal; floats, which are rounded, within two of their last digits."""
    assert type(ours) is type(real)
    if isinstance(real, list):
        assert len(ours) == len(real), (ours, real)
        for a, b in zip(ours, real, strict=True):
            assert_near(a, b)
    elif isinstance(real, dict):
        assert ours.keys() == real.keys()
        for key in real:
            assert_near(ours[key], real[key])
    elif isinstance(real, float):
        np.testing.assert_allclose(ours, real, rtol=1e-5, atol=2e-3)
    else:
        assert ours == real
