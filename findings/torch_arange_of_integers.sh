#!/bin/sh
# torch.arange of integers between fractions: PyTorch 2.14 has other numbers than 2.13, in programs that 2.13 saved, too.
#
# Versions: torch 2.13.0 and 2.14.1, openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# torch.arange(start, end, step, dtype=torch.int64) rounds its three numbers down. Up to 2.13 their quotient said how many numbers
# there are; since 2.14 the quotient of the fractions does, as in NumPy. So 5 numbers became 4, 1 became 2, and a step of 0.5, which
# raised ValueError, gives zeros. A program that torch.export or torch.jit.trace of 2.13 saved is loaded without a word and has the new
# numbers, although its own graph still says 5. OpenVINO converts the module of 2.14 to the five numbers of 2.13. Where the end depends
# on a size, it sums the fractions and rounds each sum down, which is neither.
#
# Output seen:
#   torch 2.13.0    (0.5, 9.5, 2.5) [0, 2, 4, 6, 8]   (1, 2.5, 1) [1]      (0, 2, 0.5) ValueError
#   saved by 2.13.0, exported                [0.0, 2.0, 4.0, 6.0, 8.0]
#   saved by 2.13.0, traced                  [0.0, 2.0, 4.0, 6.0, 8.0]
#   torch 2.14.1    (0.5, 9.5, 2.5) [0, 2, 4, 6]      (1, 2.5, 1) [1, 2]   (0, 2, 0.5) [0, 0, 0, 0]
#   loaded by 2.14.1, exported, of size 5    [0.0, 2.0, 4.0, 6.0]
#   loaded by 2.14.1, traced                 [0.0, 2.0, 4.0, 6.0]
#   openvino, of the module in 2.14.1        [0.0, 2.0, 4.0, 6.0, 8.0]
#   a size of 4 in 2.14.1                    [0, 2, 4, 6]
#   openvino, the same                       [0, 3, 6, 8]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 2.13.0 2.14.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q "torch==$version" numpy==2.4.6
done
"$folder/2.14.1/bin/pip" install -q openvino==2026.4.1
cat >"$folder/program.py" <<'PYTHON'
import sys

import torch

folder = sys.argv[1]
version = torch.__version__.split("+")[0]
old = version == "2.13.0"


class Chosen(torch.nn.Module):
    """Every third of its numbers, roughly."""

    def forward(self, x):
        return x[torch.arange(0.5, 9.5, 2.5, dtype=torch.int64)]


class Counted(torch.nn.Module):
    """As many integers as rows."""

    def forward(self, x):
        return torch.arange(0.5, 2.5 * x.shape[0] - 0.5, 2.5, dtype=torch.int64)


def integers(*numbers):
    try:
        return torch.arange(*numbers, dtype=torch.int64).tolist()
    except ValueError:
        return "ValueError"


def check(name, got, wanted):
    print(f"{name:40} {got}")
    assert got == wanted, f"{name} has changed: {got}"


before, after = [0.0, 2.0, 4.0, 6.0, 8.0], [0.0, 2.0, 4.0, 6.0]
for numbers, of_old, of_new in (
    ((0.5, 9.5, 2.5), [0, 2, 4, 6, 8], [0, 2, 4, 6]), ((1, 2.5, 1), [1], [1, 2]),
    ((0, 2, 0.5), "ValueError", [0, 0, 0, 0]),
):
    check(f"torch {version} {numbers}", integers(*numbers), of_old if old else of_new)
x = torch.arange(16.0)
if old:
    exported, traced = torch.export.export(Chosen(), (x,)), torch.jit.trace(Chosen(), (x,))
    check("saved by 2.13.0, exported", exported.module()(x).tolist(), before)
    check("saved by 2.13.0, traced", traced(x).tolist(), before)
    torch.export.save(exported, f"{folder}/exported.pt2")
    traced.save(f"{folder}/traced.pt")
else:
    import openvino

    exported = torch.export.load(f"{folder}/exported.pt2")
    sizes = {tuple(node.meta["val"].shape) for node in exported.graph.nodes if node.op == "call_function"}
    assert sizes == {(5,)}, sizes
    check("loaded by 2.14.1, exported, of size 5", exported.module()(x).tolist(), after)
    check("loaded by 2.14.1, traced", torch.jit.load(f"{folder}/traced.pt")(x).tolist(), after)

    def by_openvino(module, x):
        model = openvino.convert_model(module, example_input=(x,))
        return openvino.compile_model(model, "CPU")([x.numpy()])[0].tolist()

    check("openvino, of the module in 2.14.1", by_openvino(Chosen(), x), before)
    rows = torch.zeros(4, 2)
    check("a size of 4 in 2.14.1", Counted()(rows).tolist(), [0, 2, 4, 6])
    check("openvino, the same", by_openvino(Counted(), rows), [0, 3, 6, 8])
PYTHON
for version in 2.13.0 2.14.1; do
    "$folder/$version/bin/python" -W ignore "$folder/program.py" "$folder"
done
