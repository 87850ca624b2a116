"""Fourier transforms natively: random lengths, axes and signal sizes, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit

SEED = 3900
#: Powers of two, products of small and larger primes, primes, and lengths that are split in two dimensions.
LENGTHS = [
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    11,
    12,
    15,
    16,
    30,
    49,
    64,
    77,
    97,
    100,
    121,
    128,
    210,
    257,
    360,
    512,
    1000,
    1024,
]


def transform(name, data, *constants, dynamic=False, **keywords):
    ops = ovjit.opset16
    shape = ovjit.PartialShape([-1] * data.ndim) if dynamic else ovjit.PartialShape(list(data.shape))
    parameter = ops.parameter(shape, ovjit.Type(data.dtype))
    node = getattr(ops, name)(parameter, *constants, **keywords)
    compiled = ovjit.Core().compile_model(
        ovjit.Model([node.output(0)], [parameter]), "CPU", {"PERF_COUNT": True, "INFERENCE_NUM_THREADS": 2}
    )
    request = compiled.create_infer_request()
    out = request.infer([data])[0]
    return np.array(out), {row.exec_type for row in request.get_profiling_info()}


def close(got, want, where):
    assert got.shape == want.shape, where
    scale = max(1.0, np.abs(want).max(initial=0))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-6 * scale, err_msg=where)


def pairs(z):
    return np.stack([z.real, z.imag], -1)


@pytest.mark.parametrize("case", range(40))
def test_random_transform(case):
    rng = np.random.default_rng((SEED, case))
    name = ["dft", "idft", "rdft", "irdft"][case % 4]
    rank = int(rng.integers(1, 4))
    shape = [int(rng.choice(LENGTHS if rank == 1 else LENGTHS[:12])) for _ in range(rank)]
    shape[int(rng.integers(rank))] = int(rng.choice(LENGTHS))
    count = int(rng.integers(1, rank + 1))
    axes = [int(a) for a in rng.permutation(rank)[:count]]
    if name == "irdft" and shape[axes[-1]] < 2:
        shape[axes[-1]] = 5
    sizes = None
    if rng.random() < 0.4:
        sizes = [int(rng.choice([-1, shape[a], shape[a] + 3, max(1, shape[a] - 2)])) for a in axes]
    data = rng.standard_normal((*shape, 2)).astype(np.float32)
    z = data[..., 0].astype(np.float64) + 1j * data[..., 1]
    lengths = [shape[a] if sizes is None or s == -1 else s for a, s in zip(axes, sizes or axes, strict=True)]
    if name == "irdft" and (sizes is None or sizes[-1] == -1):
        lengths[-1] = 2 * (shape[axes[-1]] - 1)
    where = f"seed {(SEED, case)}: {name} {shape} axes {axes} sizes {sizes}"
    named = [np.array([a - rank if rng.random() < 0.3 else a for a in axes])]
    named += [] if sizes is None else [np.array(sizes)]
    given = np.ascontiguousarray(data[..., 0]) if name == "rdft" else data
    got, steps = transform(name, given, *named, dynamic=case % 3 == 0)
    want = {
        "dft": lambda: pairs(np.fft.fftn(z, lengths, axes)),
        "idft": lambda: pairs(np.fft.ifftn(z, lengths, axes)),
        "rdft": lambda: pairs(np.fft.rfftn(z.real, lengths, axes)),
        "irdft": lambda: np.fft.irfftn(z, lengths, axes),
    }[name]()
    close(got, want, where)
    assert "ref_numpy" not in steps, where


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4096,), 0), ((3, 10000), 1), ((16384,), 0), ((20, 6000), 1), ((997,), 0), ((40, 331), 1)],
)
def test_long_signals(shape, axis):
    data = np.random.default_rng(SEED).standard_normal((*shape, 2)).astype(np.float32)
    z = data[..., 0].astype(np.float64) + 1j * data[..., 1]
    for name, function in (("dft", np.fft.fft), ("idft", np.fft.ifft)):
        got, steps = transform(name, data, np.array([axis]))
        close(got, pairs(function(z, axis=axis)), f"{name} {shape}")
        assert "ref_numpy" not in steps


def test_a_large_prime_is_transformed_by_the_reference():
    data = np.random.default_rng(SEED).standard_normal((10007, 2)).astype(np.float32)
    got, steps = transform("dft", data, np.array([0]))
    close(got, pairs(np.fft.fft(data[:, 0] + 1j * data[:, 1])), "10007")
    assert "ref_numpy" in steps


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("shape", "window", "size", "step"), [((400,), 25, 25, 10), ((3, 1000), 64, 128, 32), ((2, 77), 5, 11, 1)]
)
def test_frames(shape, window, size, step, turned):
    rng = np.random.default_rng(SEED)
    data, wave = (rng.standard_normal(s).astype(np.float32) for s in (shape, (window,)))
    got, steps = transform("stft", data, wave, np.int64(size), np.int64(step), turned)
    padded = np.zeros(size)
    padded[(size - window) // 2 :][:window] = wave
    frames = np.lib.stride_tricks.sliding_window_view(data, size, -1)[..., ::step, :]
    want = np.fft.rfft(frames * padded, axis=-1)
    close(got, pairs(want.swapaxes(-1, -2) if turned else want), f"{shape} {size} {step}")
    assert "ref_numpy" not in steps


def test_nonsense_is_refused():
    ops = ovjit.opset16
    x = ops.parameter([3, 8, 2], np.float32)
    for wrong in (
        lambda: ops.dft(x, np.array([2])),
        lambda: ops.dft(x, np.array([0, 0])),
        lambda: ops.dft(x, np.array([0]), np.array([0])),
        lambda: ops.dft(x, np.array([0]), np.array([-5])),
        lambda: ops.dft(x, np.array([0]), np.array([4, 4])),
        lambda: ops.dft(ops.parameter([3, 8], np.float32), np.array([0])),
        lambda: ops.stft(
            ops.parameter([8], np.float32), np.ones(4, np.float32), np.int64(9), np.int64(1), False
        ),
        lambda: ops.stft(
            ops.parameter([8], np.float32), np.ones(4, np.float32), np.int64(4), np.int64(0), False
        ),
    ):
        with pytest.raises(RuntimeError):
            wrong()


@pytest.mark.parametrize("open_shape", [False, True])
def test_istft_runs_natively_beside_openvino(open_shape) -> None:
    """Lengths that are asked for, frames that do not overlap or leave nothing, and no signal."""
    openvino = pytest.importorskip("openvino")
    rng = np.random.default_rng(SEED)
    for batch, size, step, frames, window, center, normalized, length in (
        (1, 1024, 256, 20, 1024, True, False, None), (2, 16, 4, 33, 12, True, False, None),
        (3, 15, 4, 9, 15, False, True, None), (2, 16, 20, 9, 9, False, True, 50),
        (2, 16, 4, 1, 16, True, True, 5), (2, 16, 4, 1, 16, True, False, None),
        (2, 16, 4, 3, 16, False, False, 70), (0, 16, 4, 3, 16, False, True, None),
    ):  # fmt: skip
        data = rng.standard_normal((batch, size // 2 + 1, frames, 2)).astype(np.float32)
        wave = np.hanning(window + 2)[1:-1].astype(np.float32)
        declared = [-1, size // 2 + 1, -1, 2] if open_shape and length is None else list(data.shape)
        answers = []
        for package in (ovjit, openvino):
            ops = package.opset16
            x = ops.parameter(declared, np.float32)
            more = {} if length is None else {"signal_length": ops.constant(np.int64(length))}
            numbers = [ops.constant(v) for v in (wave, np.int64(size), np.int64(step))]
            node = ops.istft(x, *numbers, center=center, normalized=normalized, **more)
            model = package.Model([node.output(0)], [x], "istft")
            compiled = package.Core().compile_model(model, "CPU", {"PERF_COUNT": True})
            request = compiled.create_infer_request()
            answers.append(request.infer([data])[0].copy())
            if package is ovjit and batch:
                steps = [row.exec_type for row in request.get_profiling_info()]
                assert "ref_numpy" not in steps, steps
        np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-5, err_msg=f"{data.shape} seed {SEED}")
