"""Fourier transforms."""

from __future__ import annotations

from ovjit.readers.onnx.rule_language import *


def _complex(n: OnnxNode, x: Output) -> Output:
    """[..., 1] of real numbers as complex [..., 2]; [..., 2] is unchanged."""
    last = (n.shape(x) or (2,))[-1]
    if last == 2:
        return x
    zeros = n.broadcast(n.like(x, 0), n.shape_of(x))  # x * 0 is NaN at infinities
    both = n("Concat", x, zeros, axis=-1)
    return both if last == 1 else n.slice(both, n.rank(x) - 1, 0, 2)


def _real(n: OnnxNode, x: Output) -> Output:
    """[..., 1] of real numbers without the last dimension. Raises ModelError for complex ones."""
    last = (n.shape(x) or (1,))[-1]
    if isinstance(last, int) and last != 1:
        raise ModelError("onesided needs real numbers")
    return n("Gather", x, 0, -1, opset=8) if not isinstance(last, int) else n.squeeze(x, [-1])


def transform(
    n: OnnxNode, x: Output, axis: int | Output, length: Output | None, inverse: bool, onesided: bool
) -> Output:
    """The discrete Fourier transform of [..., 1] or [..., 2] along `axis`, of `length` elements if given. The
    axis may be a tensor [1]."""
    rank = n.rank(x)
    if isinstance(axis, int):
        if n.axis(axis, rank) == rank - 1:
            raise ModelError("the last dimension should hold real and imaginary parts")
        axis = n.const(np.array([n.axis(axis, rank)], np.int64))
    else:
        axis = n("FloorMod", axis, rank)
    size = [] if length is None else [n.reshape(n.convert(length, "i64"), [1])]
    if onesided and not inverse:
        return n("RDFT", _real(n, x), axis, *size)
    if onesided:
        return n.unsqueeze(n("IRDFT", _complex(n, x), axis, *size), [-1])
    return n("IDFT" if inverse else "DFT", _complex(n, x), axis, *size)


@onnx_op("DFT", 17)
def dft(n: OnnxNode) -> Any:
    """The axis is an attribute, from opset 20 on an input."""
    axis: int | Output = n.attr("axis", -2)
    if n.has(2):
        constant, axis = n.value(n[2]), n.convert(n.reshape(n[2], [1]), "i64")
        axis = axis if constant is None else int(constant.reshape(-1)[0])
    return transform(n, n[0], axis, n.optional(1), bool(n.attr("inverse")), bool(n.attr("onesided")))


@onnx_op("STFT", 17)
def stft(n: OnnxNode) -> Any:
    """Short-time Fourier transform: frames of the signal, `frame_step` apart, times the window,
    transformed."""
    signal, window = n[0], n.optional(2)
    if n.has(3):
        extent = n.scalar(n.convert(n[3], "i64"))
    elif window is not None:
        extent = n.scalar(n.dim_of(window, 0))
    else:
        raise ModelError("neither a window nor frame_length is given")
    step_tensor = n.scalar(n.convert(n[1], "i64"))
    step, length = (None if v is None else int(v) for v in (n.value(step_tensor), n.value(extent)))
    if (step is not None and step < 1) or (length is not None and length < 1):
        raise ModelError(f"frames of {length} elements with step {step} are not valid")
    shape = n.shape(signal) or ()
    if len(shape) not in (2, 3):
        raise ModelError(f"the signal has {len(shape)} dimensions, not 3")
    if len(shape) == 2:
        signal = n.unsqueeze(signal, [2])
    size = shape[1]
    if isinstance(size, int) and step is not None and length is not None:
        count = (size - length) // step + 1
        if count < 1:
            raise ModelError(f"a signal of {size} elements has no frame of {length}")
        n.check_count(count * length, "elements of frames")
        indices = n.const(np.arange(count)[:, None] * step + np.arange(length)[None, :])
    else:
        last = n("Subtract", n.squeeze(n.dim_of(signal, 1), [0]), n("Subtract", extent, 1))
        begins = n("Range", 0, last, step_tensor, output_type="i64", opset=4)
        inside = n.upto(extent)
        indices = n("Add", n.unsqueeze(begins, [1]), n.unsqueeze(inside, [0]))
    frames = n("Gather", signal, indices, 1, opset=8)  # [batch, frames, length, 1 or 2]
    if window is not None:
        frames = n("Multiply", frames, n.unsqueeze(n.convert(window, n.dtype(signal)), [1]))
    onesided, is_complex = bool(n.attr("onesided")), (n.shape(frames) or (1,))[-1] == 2
    result = transform(n, frames, 2, None, False, onesided and not is_complex)
    if not onesided or not is_complex:
        return result
    # the standard has no answer for it; its evaluator and ONNX Runtime give the first half
    half = n("Add", n("Divide", n.dim_of(result, 2), 2), 1)
    return n("Slice", result, [0], half, [1], [2], opset=8)


@onnx_op("MelWeightMatrix", 17)
def mel_weight_matrix(n: OnnxNode) -> Any:
    """[spectrogram bins, mel bins]: triangles between frequencies that are equally far apart on the mel
    scale."""
    kind = n.data_type("output_datatype")
    bins, length = (n.scalar(n.convert(n[i], "i64")) for i in (0, 1))
    rate, low, high = (n.scalar(n.convert(n[i], "f64")) for i in (2, 3, 4))
    sizes = [n.value(v) for v in (bins, length)]
    if sizes[0] is not None and sizes[1] is not None:
        n.check_count(int(sizes[0]) * (int(sizes[1]) // 2 + 1), "elements of a matrix", 1 << 20)

    def real(value: float) -> Output:
        return n.const(value, "f64")

    def mel(hertz: Output) -> Output:
        span = n("Log", n("Add", real(1.0), n("Divide", hertz, real(700.0))))
        return n("Multiply", n("Divide", span, real(float(np.log(10)))), real(2595.0))

    more = n("Add", bins, 2)
    step = n("Divide", n("Subtract", mel(high), mel(low)), n.convert(more, "f64"))
    points = n("Add", n("Multiply", n.convert(n.upto(more), "f64"), step), mel(low))
    hertz = n("Subtract", n("Power", real(10.0), n("Divide", points, real(2595.0))), real(1.0))
    width = n.convert(n("Add", length, 1), "f64")
    bin_indices = n("Divide", n("Multiply", width, n("Multiply", hertz, real(700.0))), rate)
    bin_indices = n.convert(bin_indices, "i64")
    lower, centre, upper = (n.slice(bin_indices, 0, i, i - 2 or None) for i in range(3))
    rows = n.unsqueeze(n.upto(n("Add", n("Divide", length, 2), 1)), [1])

    def share(part: Output, span: Output) -> Output:
        return n("Divide", n.convert(part, "f64"), n.convert(n("Maximum", span, 1), "f64"))

    rises = n("LogicalAnd", n("GreaterEqual", rows, lower), n("LessEqual", rows, centre))
    risen = n("Select", n("Equal", lower, centre), real(1.0),
              share(n("Subtract", rows, lower), n("Subtract", centre, lower)))  # fmt: skip
    falls = n("LogicalAnd", n("GreaterEqual", rows, centre), n("Less", rows, upper))
    fallen = share(n("Subtract", upper, rows), n("Subtract", upper, centre))
    out = n("Select", falls, fallen, n("Select", rises, risen, real(0.0)))
    return n.fold(n.convert(out, kind))
