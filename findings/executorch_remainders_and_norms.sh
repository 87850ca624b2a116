#!/bin/sh
# ExecuTorch: -7 % 3 of integers is -1 and not 2, a layer norm of numbers near 10,000 is 350 times too large, and a count in f16 stops at 2048.
#
# Versions: executorch 1.5.1, torch 2.13.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# A program that torch.export has taken down is run by ExecuTorch's portable kernels, in place of PyTorch's. No error, no warning:
# - The remainder of integers has the dividend's sign, as C++'s %. PyTorch's has the divisor's, as Python's. For floats the sign is put right
#   (pull request 90, of 2023, for std::fmod), and // of integers is floored, so x // y and x % y of one program do not fit together. Positions in
#   a ring buffer and buckets of signed hashes become negative; as an index, a negative number is another row.
# - layer_norm and group_norm take the variance as the mean of squares less the square of the mean, in f32. Of 10000 to 10003 it is 0, and the norm
#   divides by the root of eps; it can be below 0 as well, and all is NaN. PyTorch is right to the last digit shown.
# - sum and mean add one number after the other in f32: 300,000 times 0.1 are 29,920. cumsum of f16 is added in f16: a running count stays at 2048.
# - max_pool2d keeps a NaN that comes first in its window, and passes over one that comes later. sign of NaN is NaN, in PyTorch 0.
# No report of these was found.
#
# Output seen on 2026-11-30:
#   x % y, int64         PyTorch 2 -2 1 -1 7 0                                            ExecuTorch -1 1 -2 2 -1 0
#   x % y, int32         PyTorch 2 -2 1 -1 7 0                                            ExecuTorch -1 1 -2 2 -1 0
#   x % 3, int64         PyTorch 2 1 1 2 2 0                                              ExecuTorch -1 1 -2 2 -1 0
#   x % y, float32       PyTorch 2 -2 1 -1 7 0                                            ExecuTorch the same
#   x // y, int64        PyTorch -3 -3 -3 -3 -1 2                                         ExecuTorch the same
#   layer_norm           PyTorch -1.34164 -0.447212 0.447212 1.34164 -1.34164 -0.447212 0.447212 1.34164 ExecuTorch -474.342 -158.114 158.114 474.342 -1.34164 -0.447212 0.447212 1.34164
#   group_norm           PyTorch -1.34164 -0.447212 0.447212 1.34164 -1.34164 -0.447212 0.447212 1.34164 ExecuTorch nan nan nan nan -1.34164 -0.447212 0.447212 1.34164
#   sum of tenths        PyTorch 30000                                                    ExecuTorch 29920.4
#   mean of tenths       PyTorch 0.1                                                      ExecuTorch 0.0997348
#   cumsum of ones, f16  PyTorch 2001 5000                                                ExecuTorch 2001 2048
#   sum of ones, f16     PyTorch 5000                                                     ExecuTorch the same
#   max_pool2d by 2      PyTorch nan 3 nan 3                                              ExecuTorch nan 3 1 3
#   sign of NaN          PyTorch 0 1 1 1                                                  ExecuTorch nan 1 1 1
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 numpy==2.4.6 flatbuffers tabulate pyyaml ruamel.yaml packaging
"$folder/env/bin/pip" install -q --no-deps executorch==1.5.1 torchao==0.18.0
"$folder/env/bin/python" -W ignore - 2> "$folder/log" <<'PYTHON' || { tail -5 "$folder/log"; exit 1; }
import math

import torch
import torch.nn.functional as F
from executorch.exir import to_edge
from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer

torch.set_num_threads(1)
x, y = torch.tensor([-7, 7, -8, 8, -1, 6]), torch.tensor([3, -3, 3, -3, 8, 3])
numbers = torch.tensor([[10000.0, 10001, 10002, 10003], [0, 1, 2, 3]])
tenths, ones = torch.full((300_000,), 0.1), torch.ones(5000, dtype=torch.float16)
rows = torch.tensor([[[math.nan, 1, 2, 3]], [[1, math.nan, 2, 3]]])
cases = {  # -> whether ExecuTorch has another result
    "x % y, int64": (lambda: x % y, True),
    "x % y, int32": (lambda: x.int() % y.int(), True),
    "x % 3, int64": (lambda: x % 3, True),
    "x % y, float32": (lambda: x.float() % y.float(), False),
    "x // y, int64": (lambda: x // y, False),
    "layer_norm": (lambda: F.layer_norm(numbers, (4,)), True),
    "group_norm": (lambda: F.group_norm(numbers[:, None], 1), True),
    "sum of tenths": (lambda: tenths.sum(), True),
    "mean of tenths": (lambda: tenths.mean(), True),
    "cumsum of ones, f16": (lambda: ones.cumsum(0)[[2000, 4999]], True),
    "sum of ones, f16": (lambda: ones.sum(), False),
    "max_pool2d by 2": (lambda: F.max_pool2d(rows, (1, 2)), True),
    "sign of NaN": (lambda: rows[0, 0].sign(), True),
}


class Network(torch.nn.Module):
    def forward(self, *given):
        global x, y, numbers, tenths, ones, rows
        x, y, numbers, tenths, ones, rows = given
        return tuple(case() for case, _ in cases.values())


def text(array):
    return " ".join(f"{value:.6g}" for value in array.double().flatten().tolist())


given = (x, y, numbers, tenths, ones, rows)
right = Network()(*given)
program = to_edge(torch.export.export(Network().eval(), given)).to_executorch()
found = _load_for_executorch_from_buffer(program.buffer).forward(list(given))
for (title, (_, other)), expected, got in zip(cases.items(), right, found, strict=True):
    assert expected.shape == got.shape and expected.dtype == got.dtype, title
    same = torch.allclose(expected.double(), got.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
    print(f"{title:20} PyTorch {text(expected):56} ExecuTorch {'the same' if same else text(got)}")
    assert same != other, f"{title}: ExecuTorch has changed"
PYTHON
