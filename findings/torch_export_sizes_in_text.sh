#!/bin/sh
# A size that a PyTorch module writes into a text is another text while torch.export runs, so the program takes another way.
#
# Versions: torch 2.14.1, Python 3.11, Linux x86-64.
#
# The module looks up a factor under a key such as "4x6", as modules do that keep tables for resolutions. torch.export (non-strict,
# the default) gives symbolic sizes to the module, and their text is the symbol's name: the key is "s" and a number, then "x6". No table
# has it, so the program has the default factor, for the very example it was exported with, and for every other size. There is no
# error, no warning and no guard: reading the text does not count as reading the size. All ways of naming an open size do the same.
# With strict=True the size becomes a constant, and the program refuses other sizes. A trace, an export without open sizes and
# torch.compile with dynamic sizes are right for the example.
#
# Output seen (the factor for a tensor of 4 x 6, and of 8 x 6):
#   module                 2.0 3.0
#   export                 2.0 refused
#   export, Dim.AUTO       1.0 1.0
#   export, Dim.DYNAMIC    1.0 1.0
#   export, Dim("n")       1.0 1.0
#   strict, Dim.AUTO       2.0 refused
#   trace                  2.0 2.0
#   compile, dynamic       2.0 3.0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.14.1
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.export import Dim, export


class Scaled(torch.nn.Module):
    """Multiplies by the factor of its input's resolution, 1 for others."""

    factors = {"4x6": 2.0, "8x6": 3.0}

    def forward(self, x):
        return x * self.factors.get(f"{x.shape[0]}x{x.shape[1]}", 1.0)


module = Scaled()
small, large = torch.ones(4, 6), torch.ones(8, 6)


def exported(size=None, **options):
    shapes = None if size is None else ({0: size},)
    return export(module, (small,), dynamic_shapes=shapes, **options).module()


def factor(function, x):
    try:
        return str(function(x)[0, 0].item())
    except AssertionError:
        return "refused"


ways = {
    "module": module,
    "export": exported(),
    "export, Dim.AUTO": exported(Dim.AUTO),
    "export, Dim.DYNAMIC": exported(Dim.DYNAMIC),
    'export, Dim("n")': exported(Dim("n", min=2, max=64)),
    "strict, Dim.AUTO": exported(Dim.AUTO, strict=True),
    "trace": torch.jit.trace(module, small),
    "compile, dynamic": torch.compile(module, backend="eager", dynamic=True),
}
seen = {name: f"{factor(way, small)} {factor(way, large)}" for name, way in ways.items()}
for name, factors in seen.items():
    print(f"{name:22} {factors}")
assert seen == {
    "module": "2.0 3.0",
    "export": "2.0 refused",
    "export, Dim.AUTO": "1.0 1.0",
    "export, Dim.DYNAMIC": "1.0 1.0",
    'export, Dim("n")': "1.0 1.0",
    "strict, Dim.AUTO": "2.0 refused",
    "trace": "2.0 2.0",
    "compile, dynamic": "2.0 3.0",
}, seen
PYTHON
