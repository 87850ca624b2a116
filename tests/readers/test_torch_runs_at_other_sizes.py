"""Modules that run for other sizes than the example's: what they draw, keep and print, and for how long."""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
import types
import warnings

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
from ovjit.readers.torch.tracing.agreement import agrees  # noqa: E402 - it needs PyTorch
from ovjit.readers.torch.tracing.other_sizes import call_within  # noqa: E402
from tests.support.torch_modules import Of  # noqa: E402

F = torch.nn.functional
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
SHAPES = (2, 6, 10), (3, 6, 13), (1, 4, 9)


def half(x):
    return x[..., : int(x.shape[-1] / 2)]


def noisy(x):
    """Outputs that tell nothing of the numbers that are drawn, and one that is all noise."""
    return half(x), torch.rand_like(x), (x + torch.rand(()) + np.random.rand() + random.random()).isfinite()


def complex_half(x):
    return torch.fft.fft(half(x)) * 3.3


def masked(x):
    places = torch.arange(x.shape[-1]) >= int(x.shape[-1] / 2)
    return torch.where(places, -torch.inf, x), half(x) * torch.nan


def unpacked(x):
    """Parts whose number nobody asks for."""
    first, second, _ = (x * 2, *(x + 1).chunk(2, -1))
    return torch.cat([first, *x.chunk(2, 1)], 1), second.sum(-1) + tuple(x.chunk(2, -1))[0].sum(-1)


def to_powers_of_two(x):
    n = x.shape[-1]
    first, second = x.tensor_split((n - 3,), -1)
    return F.pad(x, (0, 2 ** (n - 1).bit_length() - n)) + n.bit_length(), first, second


def unknown(x):
    """As einops unpacks: none of the lengths is -1, whatever they are."""
    lengths = [x.shape[0] * x.shape[1], 3, x.shape[2]]
    missing = sum(int(length == -1) for length in lengths)
    if missing > 1:
        return x.sum()
    return half(x) * (lengths[0] if missing == 0 else 0)


@pytest.mark.parametrize("function", [half, complex_half, masked, unpacked, unknown, to_powers_of_two])
def test_modules_that_follow_sizes_are_right_at_others_and_nothing_is_told(function) -> None:
    _check(_converted(Of(function)), function)


def test_random_numbers_are_no_reason_to_keep_the_sizes_of_the_example() -> None:
    """Generators go on behind the conversion as if it had drawn none."""
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    wanted = torch.rand(4), random.random(), np.random.rand()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    compiled = _converted(Of(noisy))
    got = torch.rand(4), random.random(), np.random.rand()
    assert torch.equal(wanted[0], got[0]) and wanted[1:] == got[1:]
    for shape in SHAPES:
        x = torch.rand(*shape)
        first, noise, finite = (compiled([x.numpy()])[i] for i in range(3))
        np.testing.assert_array_equal(first, half(x))
        assert noise.shape == shape and 0.1 < noise.mean() < 0.9 and finite.all()


def test_parts_whose_number_is_a_size_are_told() -> None:
    for function in (
        lambda x: x.tensor_split(x.shape[1] - 3, 2)[0],
        lambda x: torch.tensor_split(x, x.shape[1] - 3, dim=2)[0],
    ):
        with pytest.warns(torch.jit.TracerWarning, match=r"by tensor_split\(\) might cause"):
            ov.convert_model(Of(function), example_input=torch.ones(2, 6, 10))


def test_modules_that_are_imported_late_stay_so(monkeypatch) -> None:
    class Late(types.ModuleType):
        def __getattr__(self, name):
            raise AssertionError(f"asked for {name}")

    late = Late("late_module")
    monkeypatch.setitem(sys.modules, "late_module", late)
    _check(_converted(Of(half)), half)


class Counting(torch.nn.Module):
    """It keeps what it has seen in a list of a dict, and tells on all ways that there are."""

    def __init__(self):
        super().__init__()
        self.seen = {"lengths": [], "by": {"batch": []}}

    def forward(self, x):
        self.seen["lengths"].append(x.shape[-1])
        self.seen["by"]["batch"].append(x.shape[0])
        if not torch.jit.is_tracing() and x.shape[-1] not in (10, 13, 9):
            logging.getLogger("counting").error("a length of %d", x.shape[-1])
            print(f"a length of {x.shape[-1]}", file=sys.stderr)
            sys.exit("no such length")
        return half(x)


def test_nothing_is_told_or_kept_of_other_sizes(capfd, caplog) -> None:
    module = Counting()
    compiled = _converted(module)
    assert module.seen == {"lengths": [], "by": {"batch": []}}
    assert not caplog.records and capfd.readouterr() == ("", "")
    _check(compiled, half)
    logging.getLogger("counting").error("as before")
    assert [r.message for r in caplog.records] == ["as before"]


def by_numbers(x):
    """A loop that ends for 10 and 5 alone."""
    length, times = x.shape[-1], 0
    while length != 5:
        length, times = length // 2, times + 1
    return half(x) * times


def by_tensors(x):
    while x.shape[-1] != 5:
        x = F.max_pool1d(x, 2, ceil_mode=True)
    return x


@pytest.mark.parametrize("function", [by_numbers, by_tensors])
def test_loops_that_end_for_the_example_alone(function, monkeypatch) -> None:
    monkeypatch.setattr("ovjit.readers.torch.tracing.other_sizes.LEAST_LIMIT", 0.5)
    x = torch.rand(2, 6, 10)
    with pytest.warns(torch.jit.TracerWarning):
        model = ov.convert_model(Of(function), example_input=x)
    got = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
    np.testing.assert_array_equal(got, function(x))


def test_functions_that_run_for_too_long() -> None:
    """They end between two lines of their own: no other thread raises an exception in this one."""

    def endless():
        while True:
            ends.append(threading.active_count())

    ends, threads = [], threading.active_count()
    assert call_within(60, max, 3, 4) == 4
    with pytest.raises(ZeroDivisionError):
        call_within(60, lambda: 1 / 0)
    begin = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"more than 0\.2 seconds"):
        call_within(0.2, endless)
    assert time.perf_counter() - begin < 30
    assert set(ends) == {threads}


def test_functions_that_end_leave_no_lock_locked() -> None:
    lock = threading.Lock()

    def endless():
        while True:
            with lock:
                pass

    for _ in range(40):
        with pytest.raises(TimeoutError):
            call_within(0.001, endless)
        assert lock.acquire(timeout=0)
        lock.release()


def test_a_tracer_of_this_thread_stays_and_sees_no_run_at_other_sizes() -> None:
    events = []

    def note(frame, event, _):
        events.append(frame.f_code)

    def run():
        return half(torch.ones(2, 3, 8))

    def endless():
        while True:
            pass

    before = sys.gettrace()
    sys.settrace(note)
    try:
        call_within(60, run)
        with pytest.raises(TimeoutError):
            call_within(0.05, endless)
        kept = sys.gettrace()
    finally:
        sys.settrace(before)
    assert kept is note and not {run.__code__, endless.__code__, half.__code__} & set(events)


class Late(torch.nn.Module):
    """It does not end for other sizes, and is left while it has changed its state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.depth = 0

    def forward(self, x):
        length, times = x.shape[-1], 0
        self.depth += 1
        self.count += 1
        while length != 5:
            length, times = length // 2, times + 1
        self.depth -= 1
        return half(x) * times


def test_a_module_that_is_left_has_the_state_of_before(monkeypatch) -> None:
    monkeypatch.setattr("ovjit.readers.torch.tracing.other_sizes.LEAST_LIMIT", 0.2)
    module, begun, ran = Late(), [], []
    module.register_forward_pre_hook(lambda *_: begun.append(1))
    module.register_forward_hook(lambda module, *_: ran.append(module.depth))
    threads, profile = threading.active_count(), sys.getprofile()
    with pytest.warns(torch.jit.TracerWarning):
        ov.convert_model(module, example_input=torch.rand(2, 6, 10))
    assert len(begun) > len(ran)
    assert set(ran) == {0} and module.depth == 0 and module.count == 0
    assert threading.active_count() == threads and sys.getprofile() is profile


@pytest.mark.parametrize("unit", [1.0, 1j])
def test_numbers_that_are_not_finite_do_not_hide_others(unit) -> None:
    x = torch.tensor([1.0, 2.0, torch.inf, -torch.inf, torch.nan]) * unit
    near, far = x.clone(), x.clone()
    near[0] += 1e-5
    far[0] += 1
    assert agrees([x], [x]) and agrees([x], [near]) and not agrees([x], [far])
    assert not agrees([x], [x.nan_to_num(posinf=3.0)])


def _converted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        model = ov.convert_model(module, example_input=torch.ones(SHAPES[0]))
    return ov.compile_model(model, "CPU", EXACT)


def _check(compiled, function) -> None:
    for shape in SHAPES:
        x = torch.rand(*shape)
        wanted = function(x)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for want, got in zip(wanted, compiled([x.numpy()]).values(), strict=True):
            want = torch.view_as_real(want) if want.is_complex() else want
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
