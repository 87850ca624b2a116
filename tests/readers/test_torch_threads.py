"""Conversion in threads: one converts at a time, and other threads see nothing of it."""

from __future__ import annotations

import builtins
import io
import logging
import random
import sys
import threading
import time
import types
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ovjit as ov  # noqa: E402
from tests.support.run import printed  # noqa: E402
from tests.support.torch_modules import Of  # noqa: E402

SEED = 69
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def looped(x):
    """A loop over an open dimension."""
    out = []
    for t in range(x.shape[1]):
        out.append(x[:, t] * 2)
    return torch.stack(out, 1)


def half(x):
    return x[..., : int(x.shape[-1] / 2)]


def branched(x):
    if x.shape[1] > 4:
        x = x * 3
    return x + 1


def chosen(x):
    width = min(x.shape[1], round(x.shape[2] / 2))
    return x[:, :width] * math_of(x)


def math_of(x):
    return max(x.shape[0], 2) + len(x.shape)


def masked(x):
    return torch.where(x > 0.5, x, torch.zeros(()))


FUNCTIONS = looped, half, branched, chosen, masked


def _everything():
    """What other threads could see of a conversion."""
    own = sys.modules[__name__]
    functions = {n: (f, f.__code__) for n, f in vars(own).items() if isinstance(f, types.FunctionType)}
    names = vars(own).keys() - {"__warningregistry__"}
    streams = (
        sys.stdout,
        sys.stderr,
        warnings.showwarning,
        list(warnings.filters),
        sys.getprofile(),
        sys.gettrace(),
    )
    logged = logging.root.manager.disable, logging.root.level, list(logging.root.handlers)
    patched = dict(vars(torch.Tensor)), dict(vars(torch)), dict(vars(torch.nn.functional))
    flags = torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled(), torch.jit.TracerWarning
    return [streams, logged, dict(vars(builtins)), names, functions, *patched, flags]


#: What it logs in a converting thread is dropped.
LOGGER = "torch.fx.experimental.symbolic_shapes"


class Beside(threading.Thread):
    """A thread that prints, logs, warns, draws numbers and runs functions while others are converted."""

    def __init__(self, functions):
        super().__init__()
        self.functions = functions
        self.stop = threading.Event()
        self.count = 0
        self.drawn, self.wrong, self.seen = [], [], set()
        self.showing = warnings.showwarning
        self.x = torch.rand(2, 6, 10, generator=torch.Generator().manual_seed(SEED))
        self.wanted = [f(self.x) for f in functions]

    def run(self):
        plain = [int, len, max, sys.stdout, sys.stderr]
        while not self.stop.is_set() or self.count < 50:
            n = self.count
            print(f"line {n}")
            print(f"line {n}", file=sys.stderr)
            logging.getLogger(LOGGER).error("record %d", n)
            warnings.warn(f"warning {n}", RuntimeWarning, stacklevel=1)
            self.drawn.append(
                (torch.rand(4).tolist(), np.random.rand(4).tolist(), [random.random() for _ in range(4)])
            )
            for f, wanted in zip(self.functions, self.wanted, strict=True):
                try:
                    if not torch.equal(f(self.x), wanted):
                        self.wrong.append((f.__name__, "other numbers"))
                except BaseException as error:
                    self.wrong.append((f.__name__, repr(error)))
            if [int, len, max, sys.stdout, sys.stderr] != plain or logging.root.manager.disable:
                self.wrong.append("replaced")
            if not isinstance(3, int) or warnings.showwarning is not self.showing:
                self.wrong.append("types")
            self.count += 1
            time.sleep(0.001)


@pytest.mark.parametrize("threads", [1, 4])
def test_nothing_of_a_conversion_is_seen_in_other_threads(threads, monkeypatch) -> None:
    out, err, records, shown = io.StringIO(), io.StringIO(), [], []

    class Keeping(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    handler = Keeping()
    monkeypatch.setattr(logging.getLogger(LOGGER), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger(LOGGER), "propagate", False)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    errors, models = [], {}

    def noisy(x):
        return half(x) + torch.rand_like(half(x))

    def convert(number):
        for i in range(20 // threads):
            function = (*FUNCTIONS, noisy)[(i + number) % 6]
            try:
                module = Of(function) if i % 2 else torch.nn.Sequential(Of(function))
                models[number, i] = function, ov.convert_model(module, example_input=torch.rand(2, 6, 10))
            except BaseException as error:
                errors.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: shown.append(str(message))
        before = _everything()
        beside = Beside(FUNCTIONS)
        beside.showing = warnings.showwarning
        beside.start()
        converting = [threading.Thread(target=convert, args=(n,)) for n in range(threads)]
        for each in converting:
            each.start()
        for each in converting:
            each.join()
        beside.stop.set()
        beside.join()
        after = _everything()
    assert not errors, errors
    assert not beside.wrong, beside.wrong[:3]
    assert len(models) == 20
    for one, other in zip(before, after, strict=True):
        assert one == other
    lines = [f"line {n}" for n in range(beside.count)]
    assert out.getvalue().splitlines() == err.getvalue().splitlines() == lines
    assert records == [f"record {n}" for n in range(beside.count)]
    assert [w for w in shown if w.startswith("warning ")] == [f"warning {n}" for n in range(beside.count)]
    for place in range(3):
        drawn = [number for row in beside.drawn for number in row[place]]
        assert len(set(drawn)) > 0.999 * len(drawn), "no number is drawn twice, but for f32 that are equal"
    for function, model in list(models.values())[:: 20 // 5]:
        if function in FUNCTIONS:
            x = torch.rand(3, 6, 8)  # a loop has the example's iterations
            got = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
            np.testing.assert_allclose(got, function(x), rtol=1e-6)


ran = []


def expensive(x):
    ran.append("expensive")
    return x * 2


def not_taken(x):
    if x.shape[1] > 100:
        y = expensive(x)
    else:
        y = x + 1
    return y[..., : int(x.shape[2] / 2)]


def told_elsewhere(x):
    if x.shape[1] != x.shape[2] and x.shape[1] > 7:
        y = printing(x)
    else:
        y = x + 1
    return y


def printing(x):
    print("this should not be seen")
    return x


@pytest.mark.parametrize("function", [not_taken, told_elsewhere])
def test_a_branch_that_is_not_taken_has_no_effect(function, capfd) -> None:
    ran.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ov.convert_model(Of(function), example_input=torch.rand(2, 6, 10))
    assert not ran and capfd.readouterr() == ("", "")
    x = torch.rand(2, 6, 10)
    np.testing.assert_array_equal(ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0], function(x))


EXITS = """
import sys, os, warnings
import torch
import ovjit as ov

def leave(x):
    sys.exit("too large")

class Module(torch.nn.Module):
    def forward(self, x):
        if x.shape[1] > 100:
            x = leave(x)
        y = leave(x) if x.shape[2] == x.shape[1] else x
        if x.shape[2] < 5:
            y = y + leave(x)
        return y[:, : int(x.shape[1] / 2)]

warnings.simplefilter("ignore")
ov.convert_model(Module(), example_input=torch.rand(2, 6, 10))
print("alive")
"""


def test_an_exit_on_a_branch_that_is_not_taken_does_not_end_the_program() -> None:
    assert printed("-c", EXITS).splitlines() == ["alive"]


def test_what_a_module_prints_is_seen(capfd) -> None:
    def telling(x):
        print("run")
        return half(x)

    ov.convert_model(Of(telling), example_input=torch.rand(2, 6, 10))
    lines = capfd.readouterr().out.splitlines()
    assert lines and set(lines) == {"run"}
