"""Scripts that call modules by an interface. Its annotations are no texts, which scripts do not know."""

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")


@torch.jit.interface
class Layer(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pass


class Scaled(torch.nn.Module):
    def __init__(self, scale: float):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh() * self.scale


class ByInterface(torch.nn.Module):
    first: Layer

    def __init__(self):
        super().__init__()
        self.first = Scaled(2.0)
        self.second = torch.nn.Sequential(Scaled(3.0), Scaled(0.5))

    def forward(self, x):
        second: Layer = self.second
        return second.forward(self.first.forward(x)) + self.first.forward(x)


def test_modules_that_are_called_by_interfaces() -> None:
    module = ByInterface()
    model = ov.convert_model(torch.jit.script(module), input=[(ov.PartialShape([-1, -1]), ov.Type.f32)])
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((3, 4), (5, 6)):
        x = torch.rand(shape)
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x).detach(), rtol=1e-5)
