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


def asserted(x):
    """Sizes that are equal, as the code says itself. Two sizes are taken for different ones elsewhere."""
    both = torch.cat([x, x], -1)[..., : x.shape[-1]]
    assert x.shape[-1] == both.shape[-1], f"{x.shape} and {both.shape}"
    torch._assert(x.shape[-2] == both.shape[-2], "heights")
    if x.shape[0] != both.shape[0]:
        raise ValueError("numbers of samples")
    return both[..., : int(x.shape[-1] / 2)]


def claims(yes, no, no_other):
    """Ten questions for the truth of what is given. Other answers to the first six raise exceptions."""
    assert yes, "text"
    if no:
        raise ValueError(f"{yes!r} and {no}")
    if not yes:
        raise ValueError
    if any(each for each in [no]):
        raise ValueError
    if (no, 1) != (no_other, 1) or 1 in [no_other]:
        raise ValueError
    made = []
    if yes:
        made.append(1 if no else 2)
    while no:
        made.append(3)
    if no:
        made.append(4)
    else:
        made.append(5)
    return made
