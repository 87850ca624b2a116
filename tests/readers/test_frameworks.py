"""TensorFlow's models, TensorFlow Lite's by its converter, Paddle's, and functions of JAX.

Needs PyPI: `pytest -m pypi tests/readers/test_frameworks.py`. The packages come into environments of their
own, where programs make models, read them with ovjit, and compare with the framework and its interpreter.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.environments import install, new_environment
from tests.support.run import command

pytestmark = [pytest.mark.pypi, pytest.mark.timeout(3600)]
PROGRAMS = ROOT / "tests" / "support" / "frameworks"


def run(
    folder: Path, name: str, *packages: str, alone: tuple[str, ...] = (), given: tuple[str, ...] = ()
) -> None:
    """The program `name`, whose arguments are `given`, else a folder."""
    python = new_environment(folder / "env")
    install(python, *packages)
    if alone:
        install(python, *alone, alone=True)
    done = command(python, PROGRAMS / f"{name}.py", *(given or (folder,)), folder=ROOT, seconds=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_tensorflow(tmp_path: Path) -> None:
    run(tmp_path, "tensorflow_models", "tensorflow", "tf2onnx")


def test_loops_of_tensorflow(tmp_path: Path) -> None:
    """The order of sets differs between processes, and with it what the exporter makes of a graph."""
    run(tmp_path, "tensorflow_loops", "tensorflow", "tf2onnx", given=tuple("012"))


def test_tensorflow_lite(tmp_path: Path) -> None:
    run(tmp_path, "lite_models", "tensorflow", "ai-edge-litert", "tflite")


def test_random_models_of_keras(tmp_path: Path) -> None:
    """Through objects, files of Keras, SavedModels and forms of TensorFlow Lite."""
    python = new_environment(tmp_path / "env")
    install(python, "tensorflow", "tf2onnx", "tflite")
    done = command(python, "-m", "tests.fuzz.fuzz_keras", 1800, 20261129, 60, folder=ROOT, seconds=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_jax(tmp_path: Path) -> None:
    run(tmp_path, "jax_models", "jax")


def test_random_functions_of_jax(tmp_path: Path) -> None:
    run(tmp_path, "jax_random", "jax", given=("200", "1000"))


def test_paddle(tmp_path: Path) -> None:
    run(tmp_path, "paddle_models", "paddlepaddle", "packaging", alone=("paddle2onnx",))
