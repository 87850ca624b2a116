"""Convolutions of sequences beside sums in float64: each way to compute them, with groups, strides, dilations
and pads, at known and at open sizes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as op
from tests.support.sweeps import in_turn

SEED = 20261129
#: (groups, channels of a group, outputs of a group): dense, depthwise, several channels a group.
CHANNELS = [(1, 3, 8), (1, 32, 33), (2, 1, 1), (16, 1, 1), (4, 1, 2), (3, 8, 8), (2, 16, 7)]
WINDOWS = [1, 2, 3, 4, 7]
STEPS = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3)]
SIZES = ["known", "open", "open batch"]
CASES = list(itertools.product(CHANNELS, WINDOWS, STEPS, SIZES))


def convolve(x: np.ndarray, w: np.ndarray, groups: int, step: tuple[int, int], pads: tuple[int, int]) -> Any:
    """The sums in float64, of x[N, C, L] and w[O, C / groups, K]; `step`: stride and dilation."""
    stride, dilation = step
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), pads])
    taps, across = w.shape[2], (w.shape[2] - 1) * dilation + 1
    windows = np.lib.stride_tricks.sliding_window_view(x, across, 2)[:, :, ::stride, ::dilation]
    windows = windows.reshape(len(x), groups, -1, windows.shape[2], taps)
    filters = w.astype(np.float64).reshape(groups, -1, w.shape[1], taps)
    return np.einsum("ngclk,gock->ngol", windows, filters).reshape(len(x), len(w), -1)


@pytest.mark.parametrize(("channels", "taps", "step", "sizes"), in_turn(CASES, 4, 1))
def test_windows_of_sequences(channels: Any, taps: int, step: tuple[int, int], sizes: str) -> None:
    rng = np.random.default_rng([SEED, *channels, taps, *step])
    groups, width, outs = channels
    length, pads = int(rng.choice([24, 33, 100])), (int(rng.integers(0, taps + 1)), int(rng.integers(0, 3)))
    x = rng.standard_normal((2, groups * width, length)).astype(np.float32)
    w = (rng.standard_normal((groups * outs, width, taps)) / np.sqrt(width * taps)).astype(np.float32)
    shape = {"known": x.shape, "open": (-1, x.shape[1], -1), "open batch": (-1, *x.shape[1:])}[sizes]
    data = op.parameter(list(shape), np.float32)
    window = [step[0]], [pads[0]], [pads[1]], [step[1]]
    if groups == 1:
        y = op.convolution(data, op.constant(w), *window)
    else:
        y = op.group_convolution(data, op.constant(w.reshape(groups, outs, width, taps)), *window)
    model = ov.Model([op.relu(y)], [data])
    got = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    want = np.maximum(convolve(x, w, groups, step, pads), 0)
    np.testing.assert_allclose(
        got, want, rtol=0, atol=1e-5 * np.abs(want).max(), err_msg=f"{channels} {x.shape}"
    )
