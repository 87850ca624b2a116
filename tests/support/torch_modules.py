"""PyTorch modules that tests make of functions. Import it where PyTorch is installed."""

from __future__ import annotations

import torch


class Of(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)
