"""The operators of the tests' table by LiteRT's interpreter, each a file of one operator.

    python lite_operators.py FOLDER

FOLDER/NAME.tflite with FOLDER/NAME.npz, arrays in0, in1 ..., gives FOLDER/NAME.out.npz with out0, out1 ...
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def main() -> None:
    for path in sorted(Path(sys.argv[1]).glob("*.tflite")):
        with np.load(path.with_suffix(".npz")) as kept:
            inputs = [kept[f"in{i}"] for i in range(len(kept))]
        lite = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        for row, value in zip(lite.get_input_details(), inputs, strict=True):
            lite.resize_tensor_input(row["index"], value.shape)
        lite.allocate_tensors()
        for row, value in zip(lite.get_input_details(), inputs, strict=True):
            lite.set_tensor(row["index"], value)
        lite.invoke()
        out = [lite.get_tensor(row["index"]) for row in lite.get_output_details()]
        np.savez(path.with_suffix(".out.npz"), **{f"out{i}": value for i, value in enumerate(out)})


main()
