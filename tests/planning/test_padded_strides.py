"""Pixels that are kept from sharing sets of the first-level cache: `Layout.apart`."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen.cpu.targets import CACHE_LINE
from ovjit.planning.views import SHARED_SETS, Layout, channels_last

SEED = 20261125


def test_runs_have_a_gap_where_they_would_share_sets() -> None:
    channels = SHARED_SETS // 4
    size, strides, offset = channels_last(4, None, gap=True).allocate((1, channels, 3, 5), 4)
    pixel = SHARED_SETS + CACHE_LINE
    assert (size, strides, offset) == (15 * pixel, [15 * pixel, 4, 5 * pixel, pixel], 0)
    size, strides, _ = channels_last(4, None, gap=True).allocate((1, channels + 1, 3, 5), 4)
    assert strides[3] == SHARED_SETS + 4, "these do not share sets"
    assert channels_last(4).allocate((1, channels, 3, 5), 4)[1][3] == SHARED_SETS, "nobody asked"


def test_what_is_joined_has_what_both_have() -> None:
    halo = [(0, 0), (0, 0), (1, 0), (0, 2)]
    joined = Layout((0, 2, 3, 1), halo).combine(channels_last(4, None, gap=True))
    assert joined == Layout((0, 2, 3, 1), halo, gap=True) != Layout((0, 2, 3, 1), halo)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("stride", [1, 2])
def test_windows_by_channels_among_others(stride: int, precision: str) -> None:
    """A depthwise convolution's input is also added, pooled, concatenated and multiplied; whole numbers."""
    rng = np.random.default_rng([SEED, stride])
    channels = 1024

    def numbers(*shape: int) -> np.ndarray:
        return rng.integers(-2, 3, shape).astype(np.float32)

    x = op.parameter([-1, 8, 6, 5], np.float32)
    start = numbers(channels, 8, 1, 1)
    made = op.relu(op.convolution(x, op.constant(start), [1, 1], [0, 0], [0, 0], [1, 1]))
    taps = numbers(channels, 1, 1, 3, 3)
    deep = op.group_convolution(made, op.constant(taps), [stride] * 2, [1, 1], [1, 1], [1, 1])
    pooled = op.max_pool(made, [1, 1], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    means = op.reduce_sum(made, op.constant(np.array([2, 3])), True)
    both = op.concat([made, op.multiply(made, op.constant(np.float32(2)))], 1)
    plain = op.reshape(made, op.constant(np.array([0, -1])), True)
    results = [deep.output(0), pooled, means.output(0), both.output(0), plain.output(0)]
    config = {"INFERENCE_PRECISION_HINT": precision}
    compiled = ov.Core().compile_model(ov.Model(results, [x]), "CPU", config)
    for batch in (1, 3):
        given = numbers(batch, 8, 6, 5)
        found = compiled(given)
        wide = np.maximum(np.einsum("nchw,oc->nohw", given, start[:, :, 0, 0]), 0)
        padded = np.pad(wide, [(0, 0), (0, 0), (1, 1), (1, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::stride, ::stride]
        wanted = [
            np.einsum("nchwij,cij->nchw", windows, taps[:, 0, 0]),
            np.lib.stride_tricks.sliding_window_view(wide, (2, 2), (2, 3)).max((-1, -2)),
            wide.sum((2, 3), keepdims=True), np.concatenate([wide, 2 * wide], 1), wide.reshape(batch, -1),
        ]  # fmt: skip
        for i, one in enumerate(wanted):
            np.testing.assert_array_equal(np.asarray(found[i]), one, f"output {i}, seed {SEED}")
