"""What ovjit answers with the instruction set of OVJIT_ISA; run by `test_isa.py` in a process of its own.

    python -m tests.support.isa_answers OUT.npz [--ops | --all-ops] [network ...]

OUT gets an array for each network, "digits" for the embedded one; with --ops the names of the operations that
were checked, each on five samples (--all-ops: on all), as "ops", and what was wrong with them, as "faults";
"isa" is what was compiled for.
"""

from __future__ import annotations

import sys

import numpy as np

import ovjit as ov
from ovjit.codegen.cpu.host import host_target
from ovjit.data import digits
from tests.support import op_samples
from tests.support.op_samples import check, native_ops

#: One of every kind of kernel.
OPS = {
    "AvgPool", "GatheredMatMul", "CompressedMatMul", "Convert", "Convolution", "ConvolutionBackpropData",
    "CumSum", "Erf", "Exp", "Gather", "GroupConvolution", "LRN", "Log", "MatMul", "MaxPool",
    "ReduceMax", "ReduceMean", "ReduceSum", "Sigmoid", "Softmax", "Tanh", "TopK", "Transpose",
}  # fmt: skip


#: Times the limit of the widest vectors: with fewer lanes each sums a longer run.
LOOSER = 4


def faults(most: int) -> tuple[list[str], list[str]]:
    """The operations checked on so many samples (0: all) against their references; what was wrong."""
    strict = op_samples.tolerance
    op_samples.tolerance = lambda *args: LOOSER * strict(*args)
    seen, wrong = [], []
    for record in native_ops():
        if record.name not in OPS or (record.name, record.opset) in NEWER:
            continue
        seen.append(record.name)
        for i, inputs, attrs in op_samples.samples(record, "f32", most):
            try:
                check(record, inputs, attrs, "f32", f"{record!r} sample {i} {attrs}")
            except AssertionError as error:
                wrong.append(f"{error}"[:300])
    for dtype in ("f16", "bf16"):  # what narrow types go through on their way to registers
        record = next(r for r in native_ops() if r.name == "Exp")
        for i, inputs, attrs in op_samples.samples(record, dtype, most):
            try:
                check(record, inputs, attrs, dtype, f"{record!r} {dtype} sample {i}")
            except AssertionError as error:
                wrong.append(f"{error}"[:300])
    return seen, wrong


#: Versions that only add an output or an attribute to kernels that are checked already.
NEWER = {
    ("MaxPool", 8),
    ("MaxPool", 14),
    ("AvgPool", 14),
    ("AvgPool", 16),
    ("TopK", 3),
    ("TopK", 11),
    ("Gather", 7),
    ("Gather", 8),
    ("Softmax", 1),
}


def main() -> None:
    out, *names = sys.argv[1:]
    core = ov.Core()
    arrays: dict[str, np.ndarray] = {"isa": np.array(host_target().name)}
    for option in {"--ops", "--all-ops"}.intersection(names):
        names.remove(option)
        seen, wrong = faults(5 if option == "--ops" else 0)
        arrays |= {"ops": np.array(seen), "faults": np.array(wrong, str)}
    for name in names:
        if name == "digits":
            xml, images, _ = digits()
            arrays[name] = np.array(core.compile_model(xml, "CPU")(images)[0])
        else:
            from bench.networks import build, network_input

            arrays[name] = np.array(core.compile_model(str(build(name)), "CPU")([network_input(name)])[0])
    np.savez(out, **arrays)


if __name__ == "__main__":
    main()
