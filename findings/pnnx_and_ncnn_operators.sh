#!/bin/sh
# pnnx and ncnn: rounded divisions lose or change their rounding, scalar rsub its factor, normalize its axis, RNN its activation.
#
# Versions: pnnx 20261020, ncnn 1.0.20261020, torch 2.14.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# pnnx reads a traced module and writes it anew for PyTorch (m_pnnx.py) and for ncnn. What it cannot write for ncnn makes a file that ncnn
# refuses to load; the following is written and run without an error.
# - torch.div with rounding_mode="floor" is a division without rounding, in PyTorch's module, too; "trunc" is rounded down. x // y is right.
# - torch.rsub of a tensor and a number loses alpha; of two tensors it is right.
# - The remainder has the divisor's sign in PyTorch; in ncnn the dividend's, as C's fmod.
# - normalize along the last axis of an image is done along the channels in ncnn, as along axis 1.
# - logsumexp takes the exponential of the numbers themselves in ncnn, so from 89 on it is infinite.
# - RNN with nonlinearity="relu" has tanh in ncnn.
# No report of these was found.
#
# Output seen:
#   rsub(x, 1, alpha=2)  PyTorch [6.0, -4.0, 2.0, -13.0]                  pnnx [4.5, -0.5, 2.5, -5.0]                   ncnn [4.5, -0.5, 2.5, -5.0]
#   rsub(x, y, alpha=2)  PyTorch [7.0, -3.0, 3.0, -17.0]                  pnnx [7.0, -3.0, 3.0, -17.0]                  ncnn [7.0, -3.0, 3.0, -17.0]
#   x // y               PyTorch [-2.0, 1.0, -1.0, -3.0]                  pnnx [-2.0, 1.0, -1.0, -3.0]                  ncnn [-2.0, 1.0, -1.0, -3.0]
#   div, floor           PyTorch [-2.0, 1.0, -1.0, -3.0]                  pnnx [-1.25, 1.25, -0.25, -2.333]             ncnn [-1.25, 1.25, -0.25, -2.333]
#   div, trunc           PyTorch [-1.0, 1.0, 0.0, -2.0]                   pnnx [-2.0, 1.0, -1.0, -3.0]                  ncnn [-2.0, 1.0, -1.0, -3.0]
#   x % y                PyTorch [1.5, 0.5, 1.5, -2.0]                    pnnx [1.5, 0.5, 1.5, -2.0]                    ncnn [-0.5, 0.5, -0.5, 1.0]
#   normalize, dim 1     PyTorch [0.0, 0.042, 0.078, 0.109, 0.137]        pnnx [0.0, 0.042, 0.078, 0.109, 0.137]        ncnn [0.0, 0.042, 0.078, 0.109, 0.137]
#   normalize, dim -1    PyTorch [0.0, 0.447, 0.894, 0.424, 0.566]        pnnx [0.0, 0.447, 0.894, 0.424, 0.566]        ncnn [0.0, 0.042, 0.078, 0.109, 0.137]
#   logsumexp            PyTorch [1080.0, 1140.0, 1200.0, 1260.0, 1320.0] pnnx [1080.0, 1140.0, 1200.0, 1260.0, 1320.0] ncnn [inf, inf, inf, inf, inf]
#   RNN of relu          PyTorch [2.0, 3.0, 3.5]                          pnnx [2.0, 3.0, 3.5]                          ncnn [0.964, 0.986, 0.986]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q pnnx==20261020 ncnn==1.0.20261020 torch==2.14.1 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import os
import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")
import ncnn
import numpy as np
import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)


class Module(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def numbers(y):
    return (np.round(np.asarray(y, np.float64), 3).ravel()[:5] + 0.0).tolist()


def in_pnnx(inputs):
    names = {"__name__": "generated"}
    exec(open("m_pnnx.py").read(), names)
    return numbers(names["Model"]().eval()(*inputs).detach())


def in_ncnn(inputs):
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, name, False)
    assert net.load_param("m.ncnn.param") == 0 and net.load_model("m.ncnn.bin") == 0
    extractor = net.create_extractor()
    for i, x in enumerate(inputs):
        extractor.input(f"in{i}", ncnn.Mat(x[0].numpy()).clone())
    return numbers(extractor.extract("out0")[1])


def check(title, module, wanted, pnnx, in_net, *inputs):
    """Compares the first numbers by PyTorch, by the module that pnnx writes and by ncnn; None stands for the right ones."""
    module = module.eval() if isinstance(module, nn.Module) else Module(module)
    torch.jit.trace(module, inputs).save("m.pt")
    shapes = ",".join(str(list(x.shape)).replace(" ", "") for x in inputs)
    program = os.path.join(os.path.dirname(sys.executable), "pnnx")
    subprocess.run([program, "m.pt", f"inputshape={shapes}", "fp16=0"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    right = numbers(module(*inputs).detach())
    found = in_pnnx(inputs), in_ncnn(inputs)
    print(f"{title:20} PyTorch {right!s:40} pnnx {found[0]!s:40} ncnn {found[1]}")
    assert np.allclose(right, wanted, atol=2e-3), right
    for got, seen in zip(found, (pnnx, in_net)):
        assert np.allclose(got, right if seen is None else seen, atol=2e-3, equal_nan=True), f"the behaviour has changed: {got}"


class First(nn.Module):
    """A recurrent layer without its last state."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


a, b = torch.tensor([[-2.5, 2.5, -0.5, 7.0]]), torch.tensor([[2.0, 2.0, 2.0, -3.0]])
image = torch.arange(24.0).reshape(1, 4, 2, 3)
layer = nn.RNN(2, 1, batch_first=True, nonlinearity="relu")
for parameter in layer.parameters():
    nn.init.constant_(parameter, 0.5)

floors, truncated, quotients = [-2, 1, -1, -3], [-1, 1, 0, -2], [-1.25, 1.25, -0.25, -2.333]
check("rsub(x, 1, alpha=2)", lambda x: torch.rsub(x, 1, alpha=2), [6, -4, 2, -13], [4.5, -0.5, 2.5, -5], [4.5, -0.5, 2.5, -5], a)
check("rsub(x, y, alpha=2)", lambda x, y: torch.rsub(x, y, alpha=2), [7, -3, 3, -17], None, None, a, b)
check("x // y", lambda x, y: x // y, floors, None, None, a, b)
check("div, floor", lambda x, y: torch.div(x, y, rounding_mode="floor"), floors, quotients, quotients, a, b)
check("div, trunc", lambda x, y: torch.div(x, y, rounding_mode="trunc"), truncated, floors, floors, a, b)
check("x % y", lambda x, y: x % y, [1.5, 0.5, 1.5, -2], None, [-0.5, 0.5, -0.5, 1], a, b)
along_channels = [0, 0.042, 0.078, 0.109, 0.137]
check("normalize, dim 1", lambda x: functional.normalize(x, dim=1), along_channels, None, None, image)
check("normalize, dim -1", lambda x: functional.normalize(x, dim=-1), [0, 0.447, 0.894, 0.424, 0.566], None, along_channels, image)
check("logsumexp", lambda x: (x * 60).logsumexp(1), [1080, 1140, 1200, 1260, 1320], None, [np.inf] * 5, image)
check("RNN of relu", First(layer), [2, 3, 3.5], None, [0.964, 0.986, 0.986], torch.ones(1, 3, 2))
PYTHON
