"""Fourier transforms."""

from __future__ import annotations

from ovjit.readers.torch.operators.complex import pair_of
from ovjit.readers.torch.rule_language import *


def _scale_by_norm(n: Call, pair: Output, lengths: list[Any], norm: str | None, inverse: bool) -> Output:
    """Multiply by the power of N that `norm` requires: OpenVINO's inverse transform divides by N."""
    norm = norm or "backward"
    power = {("backward", False): 0, ("forward", False): -1, ("ortho", False): -0.5,
             ("backward", True): 0, ("forward", True): 1, ("ortho", True): 0.5}[norm, inverse]  # fmt: skip
    return _times_power(n, pair, lengths, power)


def _times_power(n: Call, value: Output, lengths: list[Any], power: float) -> Output:
    """A tensor times a power of the product of the lengths."""
    if not power:
        return value
    count = n.tensor(n.product(lengths), n.dtype(value))
    return n("Multiply", value, n("Power", count, n.like(value, power)))


@aten("fft_fft", "fft_ifft", "fft_fft2", "fft_ifft2", "fft_fftn", "fft_ifftn")
def fft(n: Call, x: Any, /, dim: Any = -1, norm: Any = None, **sizes_by_name: Any) -> Complex:
    inverse = "ifft" in n.op
    value = pair_of(n, x)
    axes, sizes = _axes(
        n, value.pair, n.rank(value.pair) - 1, sizes_by_name.get("n", sizes_by_name.get("s")), dim
    )
    return Complex(transform(n, "IDFT" if inverse else "DFT", value.pair, axes, sizes, norm, inverse))


def _axes(n: Call, value: Output, rank: int, sizes: Any, dim: Any) -> tuple[list[int], list[Any]]:
    if n.op.endswith("2") and dim == -1:
        dim = [-2, -1]
    if n.op.endswith("n") and (dim is None or dim == -1):
        dim = list(range(rank)) if sizes is None else list(range(rank - len(sizes), rank))
    axes = n.axes([dim] if isinstance(dim, int) else dim, rank)
    return axes, _lengths(n, value, axes, sizes)


def _lengths(n: Call, value: Output, axes: list[int], sizes: Any) -> list[Any]:
    if sizes is None:
        return [n.size(value, a) for a in axes]
    listed = sizes if isinstance(sizes, (list, tuple)) else [sizes]
    return [n.size(value, a) if n.known_number(s) == -1 else s for a, s in zip(axes, listed, strict=True)]


def transform(
    n: Call, op: str, pair: Output, axes: list[int], sizes: list[Any], norm: Any, inverse: bool
) -> Output:
    kind, upcast = n.dtype(pair), n.upcast(pair)
    result = n(op, upcast, n.const(axes), n.ints(sizes))
    return n.convert(_scale_by_norm(n, result, sizes, norm, inverse), kind)


@aten("fft_rfft", "fft_rfft2", "fft_rfftn")
def rfft(n: Call, x: Output, /, dim: Any = -1, norm: Any = None, **sizes_by_name: Any) -> Complex:
    """Return the non-negative frequencies of the last axis; the others are their conjugates."""
    value = n.real(x)
    axes, sizes = _axes(n, value, n.rank(value), sizes_by_name.get("n", sizes_by_name.get("s")), dim)
    return Complex(transform(n, "RDFT", value, axes, sizes, norm, False))


@aten("fft_irfft", "fft_irfft2", "fft_irfftn")
def irfft(n: Call, x: Any, /, dim: Any = -1, norm: Any = None, **sizes_by_name: Any) -> Output:
    """The inverse of rfft. The default length of the last axis is 2 * (its length - 1)."""
    value = pair_of(n, x).pair
    requested_sizes = sizes_by_name.get("n", sizes_by_name.get("s"))
    axes, sizes = _axes(n, value, n.rank(value) - 1, requested_sizes, dim)
    last = requested_sizes[-1] if isinstance(requested_sizes, (list, tuple)) else requested_sizes
    if last is None or n.known_number(last) == -1:
        sizes[-1] = n.compute("Multiply", n.compute("Subtract", sizes[-1], 1), 2)
    return transform(n, "IRDFT", value, axes, sizes, norm, True)


@aten("fft_hfft2", "fft_hfftn")
def hfftn(n: Call, x: Any, /, dim: Any = -1, norm: Any = None, **sizes_by_name: Any) -> Output:
    """fft along all axes but the last, along which the other half follows: irfft of the conjugates, which
    scales as the transform forwards."""
    pair = pair_of(n, x)
    requested_sizes = sizes_by_name.get("s")
    axes, sizes = _axes(n, pair.pair, n.rank(pair.pair) - 1, requested_sizes, dim)
    if len(axes) > 1:
        pair = fft_of(n, pair, axes[:-1], sizes[:-1], norm)
    last = None if requested_sizes is None else sizes[-1]
    swapped = {"forward": "backward", "ortho": "ortho"}.get(norm or "backward", "forward")
    result: Output = n.also("fft_irfft", n.also("conj", pair), n=last, dim=axes[-1], norm=swapped)
    return result


def fft_of(n: Call, x: Complex, axes: list[int], sizes: list[Any], norm: Any) -> Complex:
    """The forward transform along some axes."""
    return Complex(transform(n, "DFT", x.pair, axes, sizes, norm, False))


@aten("fft_fftfreq", "fft_rfftfreq")
def frequencies(n: Call, count: Any, d: float = 1.0, dtype: Any = None) -> Output:
    """i / (count * d), of fftfreq for i from 0 to the half and then for the negative ones."""
    half = n.compute("Divide", count, 2)
    if n.op.endswith("rfftfreq"):
        indices = n.arange(n.compute("Add", half, 1))
    else:
        count_tensor, half_tensor = n.one(count), n.one(half)
        moved = n("FloorMod", n("Add", n.arange(count), half_tensor), count_tensor)
        indices = n("Subtract", moved, half_tensor)
    kind = "f32" if dtype is None else element_type(dtype)
    span = n("Multiply", n.tensor(count, "f64"), n.const(float(d), "f64"))
    return n.convert(n("Divide", n.convert(indices, "f64"), span), kind)


@aten("_fft_c2c")
def c2c(n: Call, x: Complex, dim: Any, normalization: int, forward: bool) -> Complex:
    axes = n.axes(dim, n.rank(x.pair) - 1)
    sizes = _lengths(n, x.pair, axes, None)
    result = n("DFT" if forward else "IDFT", x.pair, n.const(axes))
    return Complex(_normalize(n, result, sizes, normalization, not forward))


@aten("_fft_r2c")
def r2c(n: Call, x: Output, dim: Any, normalization: int, onesided: bool) -> Complex:
    axes = n.axes(dim, n.rank(x))
    sizes = _lengths(n, x, axes, None)
    result = n("RDFT", x, n.const(axes)) if onesided else n("DFT", n.complex_of(x).pair, n.const(axes))
    return Complex(_normalize(n, result, sizes, normalization, False))


@aten("_fft_c2r")
def c2r(n: Call, x: Complex, dim: Any, normalization: int, last_dim_size: Any) -> Output:
    axes = n.axes(dim, n.rank(x.pair) - 1)
    sizes = _lengths(n, x.pair, axes, None)
    sizes[-1] = last_dim_size
    result = n("IRDFT", x.pair, n.const(axes), n.ints(sizes))
    return _normalize(n, result, sizes, normalization, True)


def _normalize(n: Call, value: Output, sizes: list[Any], normalization: int, inverse: bool) -> Output:
    """0: not at all, 1: by the root of N, 2: by N; OpenVINO's inverse has divided by N."""
    return _times_power(n, value, sizes, (0, -0.5, -1)[normalization] + inverse)


@aten("fft_fftshift", "fft_ifftshift")
def fftshift(n: Call, x: Any, dim: Any = None) -> Any:
    value, rank, typed = n.unwrap(x)
    axes = list(range(rank)) if dim is None else n.axes([dim] if isinstance(dim, int) else dim, rank)
    shifts = []
    for axis in axes:
        half = n.compute("Divide", n.size(value, axis), 2)
        if n.op.endswith("ifftshift"):
            half = n.compute("Divide", n.compute("Add", n.size(value, axis), 1), 2)
        shifts.append(half)
    return typed(n("Roll", value, n.ints(shifts), n.const(axes)))


@aten("stft")
def stft(
    n: Call, x: Output, n_fft: int, hop_length: Any = None, win_length: Any = None, window: Any = None,
    center: bool = False, pad_mode: str = "reflect", normalized: bool = False, onesided: Any = None,
    return_complex: Any = None,
) -> Any:  # fmt: skip
    """Windows of a signal, each transformed: [batch, frequencies, frames]"""
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    single = n.rank(x) == 1
    value = n.unsqueeze(x, [0]) if single else x
    if center:
        half = n_fft // 2
        kind = {"reflect": "reflect", "constant": "constant", "replicate": "edge"}[pad_mode]
        filling = [n.like(x, 0)] if kind == "constant" else []
        value = n("Pad", value, [0, half], [0, half], *filling, pad_mode=kind)
    shape = n.fill(1, [width], n.dtype(x)) if window is None else window
    if width < n_fft:
        pad_left = (n_fft - width) // 2
        shape = n("Pad", shape, [pad_left], [n_fft - width - pad_left], n.like(x, 0), pad_mode="constant")
    if onesided is False:
        frames = n.also("unfold", value, -1, n_fft, hop)
        frames = n("Multiply", frames, shape)
        pair = n("DFT", n.complex_of(frames).pair, n.const([2]))
        pair = n.transpose(pair, [0, 2, 1, 3])
    else:
        pair = n("STFT", value, shape, n.const(n_fft), n.const(hop), transpose_frames=True)
    if normalized:
        pair = n("Multiply", pair, n.like(pair, 1 / math.sqrt(n_fft)))
    pair = n.squeeze(pair, [0]) if single else pair
    return Complex(pair) if return_complex else pair


@aten("istft")
def istft(
    n: Call, x: Any, n_fft: int, hop_length: Any = None, win_length: Any = None, window: Any = None,
    center: bool = True, normalized: bool = False, onesided: Any = None, length: Any = None,
    return_complex: bool = False,
) -> Output:  # fmt: skip
    """Compute the inverse STFT of a real signal. A two-sided spectrum is cut to its non-negative half."""
    if return_complex:
        raise UnsupportedError("istft of a complex signal is not supported")
    pair = x.pair if isinstance(x, Complex) else x
    if not onesided:
        pair = n.cut(pair, n.rank(pair) - 3, 0, n_fft // 2 + 1)
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    shape = n.fill(1, [width], n.dtype(pair)) if window is None else window
    extra = [] if length is None else [n.index(length)]
    return n("ISTFT", pair, shape, n.const(n_fft), n.const(hop), *extra, center=bool(center),
             normalized=bool(normalized))  # fmt: skip
