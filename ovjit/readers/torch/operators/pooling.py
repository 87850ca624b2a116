"""Pooling by sliding windows, and to sizes that are given."""

from __future__ import annotations

from ovjit.readers.torch.operators.nn import spread
from ovjit.readers.torch.rule_language import *


def _batched(n: Call, x: Output, dims: int, body: Any) -> Any:
    """Apply `body` to x with a batch dimension, which is added if missing."""
    if n.rank(x) == dims + 2:
        return body(x)
    result = body(n.unsqueeze(x, [0]))
    if isinstance(result, list):
        return [n.squeeze(v, [0]) for v in result]
    return n.squeeze(result, [0])


#: What is not supported with such windows.
_OPEN = "indices, ceil_mode, a divisor or uncounted padding of windows whose sizes are open"


def _sizes(n: Call, sizes: Any, dims: int) -> list[Any]:
    """One number per spatial dimension, ints where static."""
    each = spread([sizes] if isinstance(sizes, Number) else sizes, dims)
    return [v if (constant := n.known_number(v)) is None else constant for v in each]


def _by_windows(
    n: Call, x: Output, op: str, kernel: list[Any], step: list[Any], pads: list[int], dilation: list[int]
) -> Output:
    """Pool with window sizes that the model computes, along one dimension after the other."""
    dims = len(kernel)
    if any(pads):
        if op == "ReduceMax" and not n.is_real(x):
            raise UnsupportedError(f"{_OPEN} is not supported")
        fill = n.like(x, float("-inf") if op == "ReduceMax" else 0)
        around = [0] * (n.rank(x) - dims) + pads
        x = n("Pad", x, around, around, fill, pad_mode="constant")
    for i in range(dims):
        axis, length = n.rank(x) - dims + i, n.size(x, i - dims)
        if isinstance(kernel[i], Number) and step[i] is kernel[i] and _is_same(kernel[i], length):
            x = n(op, x, [axis], keep_dims=True)
        else:
            taps = n("Gather", x, _windows(n, length, kernel[i], dilation[i], step[i]), axis)
            x = n(op, taps, [axis], keep_dims=False)
    return x


def _is_same(a: Number, b: Any) -> bool:
    return isinstance(b, Number) and a.key is not None and a.key == b.key


@aten("max_pool1d", "max_pool2d", "max_pool3d", "max_pool1d_with_indices", "max_pool2d_with_indices",
      "max_pool3d_with_indices", "_low_memory_max_pool_with_offsets")  # fmt: skip
def max_pool(
    n: Call, x: Output, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:  # fmt: skip
    dims = int(n.op[n.op.index("pool") + 4])
    kernel, pads = _sizes(n, kernel_size, dims), spread(padding, dims)
    step = _sizes(n, stride, dims) if stride else kernel
    kind = n.dtype(x)
    if any(isinstance(v, Number) for v in (*kernel, *step)):
        n.no(ceil_mode, n.op.endswith("indices"), what=_OPEN)
        return _by_windows(n, x, "ReduceMax", kernel, step, pads, spread(dilation, dims))

    def pool(v: Output) -> list[Output]:
        operand = v if n.is_real(v) or kind in ("i32", "i64", "i8", "u8") else n.convert(v, "i32")
        result = n.all("MaxPool", operand, kernel=kernel, strides=step,
                     pads_begin=pads, pads_end=pads, dilations=spread(dilation, dims),
                     rounding_type="ceil_torch" if ceil_mode else "floor", axis=2)  # fmt: skip
        return [n.to_type(result[0], kind), result[1]]

    values = _batched(n, x, dims, pool)
    return values if n.op.endswith("indices") else values[0]


@aten("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(
    n: Call, x: Output, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: Any = None,
) -> Output:  # fmt: skip
    dims = int(n.op[len("aten::avg_pool")])
    kernel, pads = _sizes(n, kernel_size, dims), spread(padding, dims)
    step = _sizes(n, stride, dims) if stride else kernel
    if n.is_real(x) and any(isinstance(v, Number) for v in (*kernel, *step)):
        n.no(ceil_mode, divisor_override, any(pads) and not count_include_pad, what=_OPEN)
        return _by_windows(n, x, "ReduceMean", kernel, step, pads, [1] * dims)
    if not n.is_real(x):
        return _round_means(n, avg_pool(n, n.convert(x, "f64"), kernel_size, stride, padding, ceil_mode,
                                  count_include_pad, divisor_override), n.dtype(x))  # fmt: skip
    options: dict[str, Any] = {"kernel": kernel, "strides": step}
    options |= {"rounding_type": "ceil_torch" if ceil_mode else "floor"}

    def pool(v: Output) -> Output:
        if divisor_override is None:
            return n(
                "AvgPool", v, pads_begin=pads, pads_end=pads, exclude_pad=not count_include_pad, **options
            )
        # the mean of windows that all have the same number of elements, zeros among them
        count = 1
        for size in kernel:
            count *= size
        more = [p + (k - 1 if ceil_mode else 0) for p, k in zip(pads, step, strict=True)]
        padded_input = n("Pad", v, [0, 0, *pads], [0, 0, *more], n.like(v, 0), pad_mode="constant")
        options["rounding_type"] = "floor"
        mean = n(
            "AvgPool", padded_input, pads_begin=[0] * dims, pads_end=[0] * dims, exclude_pad=False, **options
        )
        if ceil_mode:  # as many windows as PyTorch has: those that begin inside
            options["rounding_type"] = "ceil_torch"
            like = n("AvgPool", v, pads_begin=pads, pads_end=pads, exclude_pad=False, **options)
            for axis in range(2, 2 + dims):
                mean = n.cut(mean, axis, 0, n.size(like, axis))
        return n("Multiply", mean, n.like(mean, count / divisor_override))

    return _batched(n, x, dims, pool)


def _round_means(n: Call, mean: Output, kind: str) -> Output:
    """Round means of integers towards 0; whole means may have been computed slightly too small."""
    return n.convert(n("Add", mean, n("Multiply", n("Sign", mean), n.like(mean, 1e-9))), kind)


def _target(n: Call, x: Output, output_size: Any, dims: int) -> list[Any]:
    """The output size; None keeps the input's size."""
    sizes = [output_size] if isinstance(output_size, (int, Number)) else list(output_size)
    sizes = sizes * dims if len(sizes) == 1 else sizes
    return [n.size(x, i - dims) if v is None else v for i, v in enumerate(sizes)]


@aten("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
      "_adaptive_avg_pool3d", "mkldnn_adaptive_avg_pool2d")  # fmt: skip
def adaptive_avg_pool(n: Call, x: Output, output_size: Any) -> Output:
    dims = int(n.op[n.op.index("pool") + 4])
    target = _target(n, x, output_size, dims)
    if all(n.known_number(v) == 1 for v in target):
        result = n("ReduceMean", x, [i - dims for i in range(dims)], keep_dims=True)
        return n.rename(result, "AdaptiveAvgPool")
    return _batched(n, x, dims, lambda v: n("AdaptiveAvgPool", v, n.ints(target)))


@aten("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(n: Call, x: Output, output_size: Any) -> Any:
    dims = int(n.op[n.op.index("pool") + 4])
    target = _target(n, x, output_size, dims)
    pooled = _batched(n, x, dims, lambda v: n.all("AdaptiveMaxPool", v, n.ints(target)))
    if all(n.known_number(v) == 1 for v in target):
        return [n("ReduceMax", x, [i - dims for i in range(dims)], keep_dims=True), *pooled[1:]]
    return pooled


@aten("im2col")
def im2col(
    n: Call, x: Output, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Output:
    """Windows of an image as columns: [batch, channels * window, places]"""
    (kh, kw), (dh, dw) = spread(kernel_size, 2), spread(dilation, 2)
    (ph, pw), (sh, sw) = spread(padding, 2), spread(stride, 2)
    single = n.rank(x) == 3
    x = n.unsqueeze(x, [0]) if single else x
    batch, channels = n.size(x, 0), n.size(x, 1)
    x = n("Pad", x, [0, 0, ph, pw], [0, 0, ph, pw], n.like(x, 0), pad_mode="constant")
    out = n("Gather", x, _windows(n, n.size(x, 2), kh, dh, sh), 2)  # [n, c, kh, rows, w]
    out = n("Gather", out, _windows(n, n.size(x, 3), kw, dw, sw), 4)  # [n, c, kh, rows, kw, columns]
    out = n.transpose(out, [0, 1, 2, 4, 3, 5])
    out = n.to_shape(out, [batch, n.compute("Multiply", channels, kh * kw), -1])
    return n.squeeze(out, [0]) if single else out


def _windows(n: Call, length: Any, kernel: Any, dilation: int, stride: Any) -> Output:
    """Indices i64 [kernel, windows] of the elements of each window."""
    covered = n.compute("Add", n.compute("Multiply", n.compute("Subtract", kernel, 1), dilation), 1)
    count = n.compute("Add", n.compute("Divide", n.compute("Subtract", length, covered), stride), 1)
    starts = n("Multiply", n.arange(count), n.index(stride))
    taps = n("Multiply", n.arange(kernel), n.const(dilation))
    return n("Add", n.unsqueeze(taps, [1]), n.unsqueeze(starts, [0]))


@aten("col2im")
def col2im(
    n: Call, x: Output, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
    stride: Any = 1,
) -> Output:  # fmt: skip
    pads = spread(padding, 2)
    return n("Col2Im", x, n.ints(list(output_size)), spread(kernel_size, 2), strides=spread(stride, 2),
             dilations=spread(dilation, 2), pads_begin=pads, pads_end=pads)  # fmt: skip


@aten("max_unpool2d", "max_unpool3d")
def max_unpool(n: Call, x: Output, indices: Output, output_size: Any) -> Output:
    """Scatter each value to the index from which max pooling took it."""
    dims = 2 if n.op.endswith("2d") else 3
    head = n.sizes(x)[:-dims]
    zeros = n.fill(0, [*head, n.product(list(output_size)[-dims:])], n.dtype(x))
    flat = [n.to_shape(v, [*head, -1]) for v in (x, indices)]
    result = n("ScatterElementsUpdate", zeros, flat[1], flat[0], n.const(-1))
    return n.to_shape(result, [*head, *list(output_size)[-dims:]])
