#!/bin/sh
# PyTorch 2.13.0: ExportedProgram.run_decompositions loses a write to what an inactive dropout returns.
#
# Versions: torch 2.13.0 and 2.14.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# In evaluation, dropout returns the tensor that it is given, not a copy. A write in place to its result is one to its argument, as in
# `z = dropout(y); z += x` where y is read later, too. The exported program does so. After run_decompositions, which every backend and
# PyTorch's own ONNX exporter call, the write is gone for those who read y: no error, no warning, other numbers. Operators such as type_as
# and atleast_3d, which may return their argument as well, are right. 2.14.1 is right.
#
# Output seen (sums of y and z for x = 0, 1, ... 5):
#   torch 2.13.0   module                45.0 45.0
#   torch 2.13.0   program               45.0 45.0
#   torch 2.13.0   decomposed            30.0 45.0
#   torch 2.13.0   decomposed, type_as   45.0 45.0
#   torch 2.14.1   module                45.0 45.0
#   torch 2.14.1   program               45.0 45.0
#   torch 2.14.1   decomposed            45.0 45.0
#   torch 2.14.1   decomposed, type_as   45.0 45.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 2.13.0 2.14.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q "torch==$version" numpy==2.4.6
done
cat >"$folder/program.py" <<'PYTHON'
import torch

version = torch.__version__.split("+")[0]


class Residual(torch.nn.Module):
    """Adds x to twice x in place, by way of `same`, which returns its argument."""

    def __init__(self, same):
        super().__init__()
        self.same = same

    def forward(self, x):
        y = x * 2
        z = self.same(y)
        z += x
        return y, z


class TypeOfItself(torch.nn.Module):
    def forward(self, x):
        return x.type_as(x)


def check(name, function, right=(45.0, 45.0)):
    got = tuple(value.sum().item() for value in function(torch.arange(6.0)))
    print(f"torch {version}   {name:22}", *got)
    assert got == right, f"{name} has changed: {got}"


module = Residual(torch.nn.Dropout(0.1)).eval()
check("module", module)
program = torch.export.export(module, (torch.arange(6.0),))
check("program", program.module())
lost = (30.0, 45.0) if version == "2.13.0" else (45.0, 45.0)
check("decomposed", program.run_decompositions().module(), lost)
beside = torch.export.export(Residual(TypeOfItself()).eval(), (torch.arange(6.0),))
check("decomposed, type_as", beside.run_decompositions().module())
PYTHON
for version in 2.13.0 2.14.1; do
    "$folder/$version/bin/python" -W ignore "$folder/program.py"
done
