"""Discrete Fourier transforms: complex (DFT, IDFT), of real signals (RDFT, IRDFT), of windows (STFT, ISTFT).

The last dimension of complex data is [real, imaginary]. Axes count the other dimensions. A signal is cropped
or zero-padded to `signal_size` before the transform; -1 keeps its size.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ovjit.errors import check
from ovjit.graph.dtypes import FULL, numpy_dtype
from ovjit.graph.graph import Value
from ovjit.graph.op import Bool, TensorType, op
from ovjit.graph.shapes import ANY, Dim, bounds, compatible
from ovjit.rewrite.writer import not_negative
from ovjit_ops.common.checks import check_same_type, check_type
from ovjit_ops.common.values import length, shape_scalar, shape_value
from ovjit_ops.elementwise.arithmetic import REALS, random_array
from ovjit_ops.fourier.axes import checked_axes, checked_frames, transform_axes
from ovjit_ops.movement.shape import ints

_LOWER = ".cpu_fft:lower_fourier"


def to_complex(x: np.ndarray) -> np.ndarray:
    """[..., 2] -> complex numbers in double precision."""
    doubles = x.astype(np.float64)
    return doubles[..., 0] + 1j * doubles[..., 1]


def from_complex(z: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.stack([z.real, z.imag], -1).astype(dtype)


def _infer(kind: str, data: TensorType, axes: TensorType, sizes: TensorType | None) -> TensorType:
    check_type(data, REALS)
    named, lengths = shape_value(axes, "axes"), None if sizes is None else shape_value(sizes, "signal_size")
    if data.shape is None:
        return TensorType(data.dtype, None)
    shape = list(data.shape)
    if kind != "RDFT":
        check(shape and compatible(shape[-1], 2), "The last dimension of input data must be 2.")
        shape = shape[:-1]
    check(shape, f"{data} has no dimension to transform")
    count = length(axes)
    check(count is None or count <= len(shape), f"{count} axes exceed the rank of {data}")
    tail: list[Dim] = [] if kind == "IRDFT" else [2]
    if named is None or (sizes is not None and lengths is None):
        free: list[Dim] = [ANY] * len(shape)
        if named is not None and kind in ("DFT", "IDFT"):
            dimensions = checked_axes(named.tolist(), len(shape))
            free = [ANY if a in dimensions else d for a, d in enumerate(shape)]
        return TensorType(data.dtype, (*free, *tail))
    out = transform_axes(kind, shape, named.tolist(), None if lengths is None else lengths.tolist())[2]
    return TensorType(data.dtype, (*out, *tail))


def _ref(kind: str):
    functions: dict[str, Any] = {
        "DFT": np.fft.fftn,
        "IDFT": np.fft.ifftn,
        "RDFT": np.fft.rfftn,
        "IRDFT": np.fft.irfftn,
    }

    def ref(data: np.ndarray, axes: np.ndarray, sizes: np.ndarray | None = None) -> np.ndarray:
        # f32 is transformed in f32, as in NumPy and ONNX: sums that cancel leave the same rounding errors
        x = data if data.dtype == np.float32 else data.astype(np.float64)
        z = x if kind == "RDFT" else np.ascontiguousarray(x).view(np.result_type(x, 1j))[..., 0]
        lengths = None if sizes is None else sizes.reshape(-1).tolist()
        dimensions, signal, _ = transform_axes(kind, z.shape, axes.reshape(-1).tolist(), lengths)
        if not dimensions:
            return data.copy()
        for n in signal:
            check(isinstance(n, int) and n > 0, f"a signal of {n} elements cannot be transformed")
        if kind != "RDFT" and not z.size:
            z = np.zeros(z.shape, z.dtype)
        out = functions[kind](z, signal, dimensions)
        return out.astype(data.dtype) if kind == "IRDFT" else from_complex(out, data.dtype)

    return ref


def _samples(kind: str, rng: np.random.Generator, dtype: str = "f32"):
    cases: list[tuple[tuple[int, ...], list[int], list[int] | None]] = [
        ((1,), [0], None), ((8,), [0], None), ((3, 7), [1], None), ((3, 16), [-1], None),
        ((2, 17, 5), [1], None), ((15, 33), [0, 1], None), ((2, 12, 10), [2, 0], None),
        ((3, 31), [1], [16]), ((4, 6, 8), [1, 2], [4, 5]), ((2, 64), [1], None), ((1, 100), [1], [-1]),
    ]  # fmt: skip
    if kind in ("DFT", "IDFT"):
        cases += [((3, 5), [1], [9]), ((3, 5), [1, 0], [4, -1])]
    if kind == "IRDFT":
        cases = [c for c in cases if c[0] != (1,)] + [((3, 5), [1], [9])]
    for shape, axes, sizes in cases:
        full = shape if kind == "RDFT" else (*shape, 2)
        data = random_array(rng, full, dtype, (-1, 1))
        if kind == "IRDFT":  # IRDFT ignores the part that belongs to no real signal
            data[..., 1] *= 0.5
        yield [data, ints(*axes), *([] if sizes is None else [ints(*sizes)])], {}


def _register(kind: str, opset: int, doc: str) -> None:
    def infer(data, axes, signal_size=None):
        return _infer(kind, data, axes, signal_size)

    members = {"__doc__": doc, "infer": infer, "ref": _ref(kind), "samples": partial(_samples, kind)}
    row = op(kind, opset=opset, types=REALS, native=FULL, ulp=64, lower=_LOWER)
    row(type(kind, (), members))


_register("DFT", 7, "The Fourier transform along `axes`: X[k] = sum of x[n] exp(-2 pi i n k / N).")
_register("IDFT", 7, "The inverse Fourier transform along `axes`, divided by the number of elements.")
_register("RDFT", 9, "The Fourier transform of real signals; of the last axis the first half, N // 2 + 1.")
_register("IRDFT", 9, "The real signal whose transform is given, of its last axis the first half.")


def frame_window(window: np.ndarray, size: int) -> np.ndarray:
    """The window centred in a frame of `size` elements, padded with zeros."""
    before = (size - window.size) // 2
    return np.pad(window.astype(np.float64), (before, size - window.size - before))


def _frame_inputs(data: TensorType, window: TensorType, size: TensorType, step: TensorType):
    check_type(data, REALS)
    check_same_type(window, data, "the window")
    check(window.shape is None or len(window.shape) == 1, f"the window should be a list, not {window}")
    return shape_scalar(size, "frame_size"), shape_scalar(step, "frame_step")


@op("STFT", opset=15, types=REALS, native=FULL, ulp=64, lower=_LOWER)
class STFT:
    """The transform of overlapping frames of a signal, each multiplied by the window.

    The shape is [batch, frames, bins, 2], with `transpose_frames` [batch, bins, frames, 2]. The result of a
    1-D signal has no batch.
    """

    def infer(data, window, frame_size, frame_step, *, transpose_frames: Bool):
        size, step = _frame_inputs(data, window, frame_size, frame_step)
        if data.shape is None:
            return TensorType(data.dtype, None)
        check(len(data.shape) in (1, 2), f"the signal should have one or two dimensions, not {data}")
        checked_frames(size, step, window.shape[0] if window.shape else None, data.shape[-1])
        bins: Dim = ANY if size is None else size // 2 + 1
        frames: Dim = ANY
        if size is not None and step is not None:
            frames = (data.shape[-1] - size) // step + 1
        tail = (bins, frames) if transpose_frames else (frames, bins)
        return TensorType(data.dtype, (*data.shape[:-1], *tail, 2))

    def ref(data, window, frame_size, frame_step, *, transpose_frames):
        size, step = int(frame_size.item()), int(frame_step.item())
        frames = np.lib.stride_tricks.sliding_window_view(data.astype(np.float64), size, -1)[..., ::step, :]
        out = np.fft.rfft(frames * frame_window(window, size), axis=-1)
        return from_complex(out.swapaxes(-1, -2) if transpose_frames else out, data.dtype)


@op("ISTFT", opset=16, types=REALS, native=FULL, ulp=64)
class ISTFT:
    """The signal of transformed frames [batch, bins, frames, 2]: windowed frames are added where they
    overlap, and divided by the sum of squared windows."""

    def infer(data, window, frame_size, frame_step, signal_length=None, *, center: Bool, normalized: Bool):
        size, step = _frame_inputs(data, window, frame_size, frame_step)
        requested = None if signal_length is None else shape_scalar(signal_length, "signal_length")
        if data.shape is None:
            return TensorType(data.dtype, None)
        check(len(data.shape) in (3, 4), f"the data should be [batch, bins, frames, 2], not {data}")
        check(compatible(data.shape[-1], 2), f"the last dimension of {data} should be 2")
        checked_frames(size, step, window.shape[0] if window.shape else None, None)
        if size is not None:
            check(
                compatible(data.shape[-3], size // 2 + 1),
                f"{data} does not have the {size // 2 + 1} bins of frames of {size}",
            )
        n: Dim = ANY
        if requested is not None:
            check(requested >= 0, f"signal_length {requested} should not be negative")
            n = requested
        elif signal_length is None and size is not None and step is not None:
            n = (data.shape[-2] - 1) * step + (size % 2 if center else size)
        return TensorType(data.dtype, (*data.shape[:-3], n))

    def ref(data, window, frame_size, frame_step, signal_length=None, *, center, normalized):
        size, step = int(frame_size.item()), int(frame_step.item())
        wave = frame_window(window, size)
        z = to_complex(data) * (np.sqrt(size) if normalized else 1)
        frames = np.fft.irfft(z.swapaxes(-1, -2), size, axis=-1) * wave
        count = frames.shape[-2]
        total = (count - 1) * step + size
        out, weight = np.zeros((*data.shape[:-3], total)), np.zeros(total)
        for i in range(count):
            out[..., i * step : i * step + size] += frames[..., i, :]
            weight[i * step : i * step + size] += wave * wave
        out = np.where(weight > 0, out / np.where(weight > 0, weight, 1), 0)
        first = size // 2 if center else 0
        requested = total - 2 * first if signal_length is None else int(signal_length.item())
        out = out[..., first : first + requested]
        out = np.pad(out, [(0, 0)] * (out.ndim - 1) + [(0, requested - out.shape[-1])])
        return out.astype(data.dtype)

    def expand(w, node, inputs):
        """ISTFT(x) -> Col2Im of windowed frames IRDFT(x), divided by the sum of squared windows

        None if the sizes are not known.
        """
        data, window, *numbers = inputs
        fixed = [shape_scalar(v.type, "a number") for v in numbers]
        if data.shape is None or window.shape is None or any(n is None for n in fixed):
            return None
        (size, step, *target), rank, span = [int(n or 0) for n in fixed], len(data.shape), w.shape(window)[0]
        frames, first = w.shape(data)[-2], size // 2 if node.attrs["center"] else 0
        total = (frames - 1) * step + size
        lead = tuple(range(rank - 3))
        zero = np.zeros((), numpy_dtype(data.dtype))
        if bounds(data.shape[-2])[0] < 1:  # Col2Im requires at least one window
            missing, none = not_negative(1 - frames), (0,) * rank
            data = w("Pad", data, none, (*none[:-2], missing, 0), zero, pad_mode="constant")
            frames = frames + missing
        spectra = w("Transpose", data, (*lead, rank - 2, rank - 3, rank - 1))
        signals = w("IRDFT", spectra, (rank - 2,), (size,))
        before = (size - span) // 2
        wave = w("Pad", window, (before,), (size - span - before,), zero, pad_mode="constant")
        scaled = w("Multiply", wave, float(np.sqrt(size))) if node.attrs["normalized"] else wave
        transposed = w("Transpose", w("Multiply", signals, scaled), (*lead, rank - 2, rank - 3))
        squares = w("Reshape", w("Multiply", wave, wave), (size, 1), special_zero=False)
        weights = w("Broadcast", squares, (size, frames), mode="numpy")
        covered = (frames - 1) * step + size

        def overlap_add(columns: Value) -> Value:
            """[..., size, frames] -> [..., 1, 1, length]"""
            return w(
                "Col2Im", columns, (1, covered), (1, size), strides=(1, step), dilations=(1, 1),
                pads_begin=(0, 0), pads_end=(0, 0),
            )  # fmt: skip

        sums, weight = overlap_add(transposed), overlap_add(weights)
        positive = w("Greater", weight, 0.0)
        one = np.ones((), zero.dtype)
        out = w("Select", positive, w("Divide", sums, w("Select", positive, weight, one)), zero)
        out = w("Squeeze", out, (rank - 3, rank - 2))
        if target:
            there = not_negative(target[0] - not_negative(target[0] + first - total))
            zeros = (0,) * len(lead)
            out = w.part(out, first, first + there, -1)
            return [w("Pad", out, (*zeros, 0), (*zeros, target[0] - there), zero, pad_mode="constant")]
        return [w.part(out, first, total - first, -1)]
