"""Reductions over windows: pooling along any axes."""

from __future__ import annotations

import itertools

from ovjit.readers.jax.rule_language import *
from ovjit.readers.jax.shapes import by_elements, dilate

#: A window that is reduced by a function has so many elements at most.
_MOST = 256


@primitive("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def reduce_window(n: JaxNode) -> Any:
    p, x = n.params, n.convert(n[0], "u8") if n.is_bool(n[0]) else n[0]
    dilated_sum = n.op_type == "reduce_window_sum" and any(int(d) != 1 for d in p["window_dilation"])
    whole_sum = n.op_type == "reduce_window_sum" and not n.is_real(n[0])
    count = sum(
        int(size) != 1 or int(step) != 1 or tuple(pad) != (0, 0)
        for size, step, pad in zip(p["window_dimensions"], p["window_strides"], p["padding"], strict=True)
    )
    is_cropped = any(int(low) < 0 or int(high) < 0 for low, high in p["padding"])
    is_spread = any(int(d) != 1 for d in p["base_dilation"])
    if dilated_sum or whole_sum or count > 3 or is_cropped or is_spread:
        op, start = _JOINS[n.op_type](n.dtype(x))
        result = _by_places(n, [x], [n.like(x, start)], lambda a, b: [n(op, a[0], b[0])])[0]
        return n.convert(result, n.dtype(n[0]))
    sizes, strides = [int(v) for v in p["window_dimensions"]], [int(v) for v in p["window_strides"]]
    pads, steps = [(int(a), int(b)) for a, b in p["padding"]], [int(v) for v in p["window_dilation"]]
    shape = n.dims(n[0])
    over = [a for a in range(len(shape)) if sizes[a] != 1 or strides[a] != 1 or pads[a] != (0, 0)]
    if not over:
        return n[0]
    others = [a for a in range(len(shape)) if a not in over]
    order = [*others, *over]
    x = n.transpose(x, order)
    x = n.reshape_to(x, [math.prod(shape[a] for a in others), 1, *(shape[a] for a in over)])
    options: dict[str, Any] = {
        "strides": [strides[a] for a in over], "kernel": [sizes[a] for a in over],
        "pads_begin": [pads[a][0] for a in over], "pads_end": [pads[a][1] for a in over],
        "rounding_type": "floor", "auto_pad": "explicit", "dilations": [steps[a] for a in over],
    }  # fmt: skip
    if n.op_type == "reduce_window_sum":
        del options["dilations"]
        result = n("AvgPool", x, exclude_pad=False, opset=14, **options)
        result = n("Multiply", result, n.like(result, math.prod(options["kernel"])))
    else:
        # unsigned types have no -x, and the least signed number has none; ~x reverses the order, too
        mirroring = None if n.op_type == "reduce_window_max" else "Negative" if n.is_real(x) else "BitwiseNot"
        result = n("MaxPool", n(mirroring, x) if mirroring else x, opset=14, **options)
        result = n(mirroring, result) if mirroring else result
    result = n.convert(result, n.dtype(n[0]))
    out = n.out_dims()
    result = n.reshape_to(result, [out[a] for a in order])
    return n.transpose(result, [order.index(a) for a in range(len(order))])


#: How two elements are joined, and what a reduction begins with.
_JOINS: dict[str, Callable[[str], tuple[str, Any]]] = {
    "reduce_window_sum": lambda kind: ("Add", 0),
    "reduce_window_max": lambda kind: ("Maximum", value_range(kind)[0]),
    "reduce_window_min": lambda kind: ("Minimum", value_range(kind)[1]),
}


@primitive("reduce_window")
def reduce_window_by_function(n: JaxNode) -> Any:
    """Reduces windows by a jaxpr. Padding, and gaps between dilated elements, are left out, as in XLA."""
    count, body = len(n) // 2, n.body()
    return _by_places(
        n, n.inputs[:count], n.inputs[count:], lambda a, b: by_elements(n, body, [*a, *b]), inside=True
    )


@primitive("select_and_gather_add")
def select_and_gather_add(n: JaxNode) -> Any:
    """The tangent of the largest or smallest element of each window."""
    op, start = _SELECTED[n.params["select_prim"].name](n.dtype(n[1]))
    values = [n[1], n[0]]
    return _by_places(n, values, [n.like(n[1], start), n.like(n[0], 0)], lambda a, b: _first(n, op, a, b))[1]


@primitive("select_and_scatter_add")
def select_and_scatter_add(n: JaxNode) -> Any:
    """Add each window's number at the index of its largest or smallest element, the first of equal ones."""
    source, x = n[0], n[1]
    op, start = _SELECTED[n.params["select_prim"].name](n.dtype(x))
    shape = n.out_dims()
    count = math.prod(shape)
    numbers = n.reshape_to(n.arange(count), shape)
    none = n.convert(n.length(count), "i64")

    def join(a: Sequence[Output], b: Sequence[Output]) -> list[Output]:
        return _first(n, op, a, b, n("Equal", a[1], none))

    starts = [n.like(x, start), none]
    positions = _by_places(n, [x, numbers], starts, join, n.dims(source), inside=True)[1]
    zeros = n.broadcast(n.like(source, 0), n.concat([n.reshape(n("Add", none, n.const(1)), [1])], 0))
    flat_places, updates = (n.reshape(v, [-1]) for v in (positions, source))
    result = n("ScatterElementsUpdate", zeros, flat_places, updates, 0, reduction="sum", opset=12)
    return n.reshape_to(n.slice(result, 0, 0, -1), shape)


#: Whether the first of two elements is kept, and what comes before all elements.
_SELECTED: dict[str, Callable[[str], tuple[str, Any]]] = {
    "ge": lambda kind: ("GreaterEqual", value_range(kind)[0]),
    "le": lambda kind: ("LessEqual", value_range(kind)[1]),
}


def _first(
    n: JaxNode, op: str, a: Sequence[Output], b: Sequence[Output], unless: Output | None = None
) -> list[Output]:
    """The element of two that `op` selects; the second one where `unless` is true."""
    is_first = n(op, a[0], b[0])
    if unless is not None:
        is_first = n("LogicalAnd", is_first, n("LogicalNot", unless))
    return [n("Select", is_first, *pair) for pair in zip(a, b, strict=True)]


def _by_places(
    n: JaxNode, values: Sequence[Output], starts: Sequence[Output], join: Callable[..., list[Output]],
    shape: Sequence[Any] | None = None, inside: bool = False,
) -> list[Output]:  # fmt: skip
    """Reduce windows by a function of two values: first elements of all windows with the second ones, and so
    on. `inside`: elements of the padding are skipped; without it they are `starts`. `shape`: that of the
    windows, if the result has another one."""
    p = n.params
    shape = n.out_dims() if shape is None else shape
    sizes, dims = [int(v) for v in p["window_dimensions"]], n.dims(values[0])
    n.check_count(math.prod(sizes), "elements of a window", _MOST)
    base_dilation, steps = (p.get(f"{of}_dilation") or [1] * len(sizes) for of in ("base", "window"))
    inside = inside and (any(map(any, p["padding"])) or any(int(step) != 1 for step in base_dilation))
    operands = list(zip(values, starts, strict=True))
    if inside:
        operands.append((n.spread(n.const(True), dims), n.const(False)))
    padded = [_pad(n, x, start, base_dilation, dims) for x, start in operands]
    result = [n.spread(v, shape) for v in starts]
    for offset in itertools.product(*map(range, sizes)):
        begin = [k * int(d) for k, d in zip(offset, steps, strict=True)]
        strides = [int(s) for s in p["window_strides"]]
        end = [b + (d - 1) * s + 1 for b, d, s in zip(begin, shape, strides, strict=True)]
        parts = [n("Slice", x, begin, n.lengths(end), strides, list(range(len(shape)))) for x in padded]
        joined = join(result, parts[: len(result)])
        if inside:
            joined = [n("Select", parts[-1], *pair) for pair in zip(joined, result, strict=True)]
        result = joined
    return result


def _pad(n: JaxNode, x: Output, fill: Output, base_dilation: Sequence[Any], dims: Sequence[Any]) -> Output:
    """A tensor with the base dilation and the padding of windows."""
    shape = list(dims)
    for axis, step in enumerate(map(int, base_dilation)):
        x = dilate(n, x, axis, step - 1, fill, shape)
        if step > 1:
            shape[axis] = (shape[axis] - 1) * step + 1
    low, high = ([int(row[i]) for row in n.params["padding"]] for i in range(2))
    return n("Pad", x, low, high, fill, pad_mode="constant")
