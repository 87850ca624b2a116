"""Complex tensors that are repeated, such as tables of rotations: beside PyTorch at other sizes."""

import numpy as np
import pytest

import ovjit

torch = pytest.importorskip("torch")


class Rotations(torch.nn.Module):
    """A table that is no buffer, repeated for each sample and gathered from."""

    def __init__(self):
        super().__init__()
        angles = torch.arange(16.0, dtype=torch.float64).reshape(8, 2)
        self.table = torch.polar(torch.ones_like(angles), angles)

    def forward(self, places):
        each = self.table[None].repeat(places.shape[0], 1, 1)
        more = self.table.repeat(places.shape[0], 1, 1), self.table.repeat(2, 3)
        tiled = torch.tile(self.table, (2,)), self.table.tile(2, 1, places.shape[0])
        found = torch.gather(each, 1, places[..., None].repeat(1, 1, 2))
        return tuple(torch.view_as_real(value) for value in (each, *more, *tiled, found))


def test_repeats():
    module = Rotations()
    example = torch.arange(10).reshape(2, 5) % 8
    compiled = ovjit.compile_model(ovjit.convert_model(module, example_input=example), "CPU")
    for places in (example, torch.arange(18).reshape(3, 6) % 8):
        made = compiled(places.numpy())
        for i, wanted in enumerate(module(places)):
            assert made[i].shape == tuple(wanted.shape)
            np.testing.assert_allclose(made[i], wanted.numpy(), rtol=1e-6, atol=1e-6)
