"""Modules after a conversion, which runs them several times: hooks, generators, threads, gradients."""

from __future__ import annotations

import importlib
import random
import sys
import threading
import warnings

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def convert(module, x=None):
    """The Model of a module that computes with sizes, so that it is traced again and runs at other sizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ov.convert_model(module, example_input=torch.rand(2, 6, 10) if x is None else x)


def half(x):
    return x[..., : int(x.shape[-1] / 2)]


class Hooking(torch.nn.Module):
    """It adds hooks when it runs."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(10, 10)
        self.layer.register_forward_hook(lambda module, inputs, result: result * 2)

    def forward(self, x):
        self.layer.register_forward_pre_hook(lambda module, inputs: None)
        self.register_forward_hook(lambda module, inputs, result: None, always_call=True)
        return half(self.layer(x))


def hooks(module):
    """The tables of hooks of all parts of a module."""
    tables = [table for part in module.modules() for name, table in vars(part).items() if "_hooks" in name]
    return [dict(table) for table in tables]


def test_hooks_are_those_of_before() -> None:
    module = Hooking().eval()
    before = hooks(module)
    compiled = ov.compile_model(convert(module), "CPU", EXACT)
    assert before == hooks(module) and sum(map(len, before)) == 1
    x = torch.rand(3, 6, 10)
    with torch.no_grad():
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x), rtol=1e-4, atol=1e-5)


class Drawing(torch.nn.Module):
    """It draws from generators of its own."""

    def __init__(self):
        super().__init__()
        self.torch_generator = torch.Generator().manual_seed(3)
        self.numpy_generator = np.random.default_rng(3)
        self.numpy_state = np.random.RandomState(3)
        self.python_generator = random.Random(3)

    def draw(self):
        drawn = torch.rand((), generator=self.torch_generator).item()
        numpy = self.numpy_generator.random(), self.numpy_state.rand()
        return drawn, *numpy, self.python_generator.random()

    def forward(self, x):
        return half(x) * self.draw()[0]


def test_generators_of_a_module_are_as_before() -> None:
    module, other = Drawing(), Drawing()
    convert(module)
    assert module.draw() == other.draw()


class Starting(torch.nn.Module):
    """It starts a thread each time that it runs."""

    def __init__(self, started):
        super().__init__()
        self.note = started.append

    def forward(self, x):
        thread = threading.Thread(target=self.note, args=(tuple(map(int, x.shape)),))
        thread.start()
        thread.join()
        return half(x)


def test_no_threads_are_started_for_other_sizes() -> None:
    started = []
    convert(Starting(started))
    assert set(started) == {(2, 6, 10)}


class Failing(torch.nn.Module):
    """It writes to its state, and fails."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(2))
        self.rows = []

    def forward(self, x):
        self.count += int(x.shape[1])
        self.rows.append(x)
        self.width = x.shape[2]
        raise LookupError("no such row")


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_module_that_fails_is_as_before(dynamo) -> None:
    importlib.import_module(
        "torch._dynamo"
    )  # it replaces functions of PyTorch, and adds a filter of warnings
    module = Failing()
    before = sys.getprofile(), sys.gettrace(), torch.is_grad_enabled(), list(warnings.filters)
    functions = [(owner, dict(vars(owner))) for owner in (torch.Tensor, torch)]
    with pytest.raises(ov.errors.OvjitError, match="no such row"):
        ov.convert_model(module, example_input=torch.rand(2, 6, 10), dynamo=dynamo)
    assert not module.count.any() and module.rows == [] and not hasattr(module, "width")
    assert before == (sys.getprofile(), sys.gettrace(), torch.is_grad_enabled(), list(warnings.filters))
    for owner, table in functions:
        assert not [name for name, value in table.items() if vars(owner)[name] is not value]


def test_weights_and_their_gradients_are_as_before() -> None:
    module, x = torch.nn.Sequential(torch.nn.Linear(10, 10), torch.nn.ReLU()), torch.rand(2, 6, 10)
    module(x).sum().backward()
    before = [(p, p.requires_grad, p.grad, p.grad.clone(), p._version) for p in module.parameters()]
    convert(module, x.requires_grad_())
    after = [(p, p.requires_grad, p.grad, p._version) for p in module.parameters()]
    for (p, needs, grad, values, version), (q, needs_after, grad_after, version_after) in zip(
        before, after, strict=True
    ):
        assert p is q and needs == needs_after and grad is grad_after and version == version_after
        assert torch.equal(grad_after, values)
    assert x.requires_grad and x.grad is None
