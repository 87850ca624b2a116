"""Inference models of Paddle -> bytes of ONNX, by the package paddle2onnx.

It runs in a process of its own: importing paddle changes handlers of signals, and its exporter prints to
standard output.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Any

from ovjit.errors import ModelError, unreadable

#: Runs with the model, its parameters ("" for none) and the file to write as arguments.
_PROGRAM = """
import sys, paddle2onnx
paddle2onnx.export(sys.argv[1], sys.argv[2], save_file=sys.argv[3], opset_version=17, enable_optimize=False)
"""


def file_to_onnx(path: str, weights: Any = None) -> bytes:
    """The contents of an ONNX file. The model's parameters are `weights`, else in .pdiparams beside it."""
    beside = os.path.splitext(path)[0] + ".pdiparams"
    parameters = os.fsdecode(weights) if isinstance(weights, (str, os.PathLike)) else beside
    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "model.onnx")
        arguments = [os.path.abspath(path), parameters if os.path.isfile(parameters) else "", made]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, errors="replace"
        )
        if not os.path.isfile(made):
            said = " ".join((done.stderr or done.stdout).split())[-600:]
            end = f"died of signal {-done.returncode}" if done.returncode < 0 else "ended"
            why = f"paddle2onnx cannot convert the model. Its process {end} with the output: {said}"
            raise ModelError(unreadable(path, why))
        with open(made, "rb") as file:
            return file.read()
