"""Random numbers, drawn from OpenVINO's streams: with a seed, the same numbers at every inference."""

from __future__ import annotations

from ovjit.readers.onnx.rule_language import *

#: How far the seed of the second stream is from that of the first.
_APART = 10000
_TINY = {"f16": float(np.finfo(np.float16).tiny), "f64": float(np.finfo(np.float64).tiny)}


def _seed(n: OnnxNode) -> int:
    """The seed of the random stream: the bits of the attribute; 0 without one."""
    seed = n.attr("seed")
    return 0 if seed is None else int(np.float32(seed).view(np.uint32))


def _kind(n: OnnxNode, like: Output | None) -> str:
    kind = n.dtype(like) if like is not None and n.attr("dtype") is None else n.data_type("dtype")
    if kind != "dynamic" and not ELEMENT_TYPES[kind].is_real:
        raise ModelError(f"random numbers should have a floating-point type, not {kind}")
    return kind


def _shape(n: OnnxNode, like: Output | None) -> Output:
    return n.const(np.array(n.require("shape"), np.int64)) if like is None else n.shape_of(like)


def _uniform(n: OnnxNode, shape: Output, kind: str, low: float, high: float, seed: int) -> Output:
    bounds = n.const(low, kind), n.const(high, kind)
    return n("RandomUniform", shape, *bounds, opset=8, output_type=kind, op_seed=seed)


def _of_range(n: OnnxNode, like: Output | None) -> Output:
    return _uniform(n, _shape(n, like), _kind(n, like), n.attr("low"), n.attr("high"), _seed(n))


def _of_normal(n: OnnxNode, like: Output | None) -> Output:
    """Normally distributed numbers by Box and Muller, from two streams."""
    kind, shape, seed = _kind(n, like), _shape(n, like), _seed(n)
    tiny = _TINY.get(kind, float(np.finfo(np.float32).tiny))
    first, second = (_uniform(n, shape, kind, tiny, 1.0, s) for s in (seed, seed and seed + _APART))
    radius = n("Sqrt", n("Multiply", n("Log", first), n.const(-2.0, kind)))
    wave = n("Cos", n("Multiply", second, n.const(2 * np.pi, kind)))
    noise = n("Multiply", n("Multiply", radius, wave), n.const(n.attr("scale"), kind))
    return n("Add", noise, n.const(n.attr("mean"), kind))


@onnx_op("Bernoulli")
def bernoulli(n: OnnxNode) -> Any:
    chance, kind = n[0], n.dtype(n[0])
    drawn = _uniform(n, n.shape_of(chance), kind, 0.0, 1.0, _seed(n))
    return n.convert(n("Greater", chance, drawn), kind if n.attr("dtype") is None else n.data_type("dtype"))


def drop_out(n: OnnxNode, x: Output, ratio: Output, training: Output) -> list[Output]:
    """(x with a share `ratio` of elements set to 0 and the others scaled up, mask of the others); all are
    kept unless `training`."""
    seed = int(n.attr("seed", 0)) & 0xFFFFFFFF
    idle = n("LogicalNot", training)
    share = n.convert(ratio, "f32")
    drawn = _uniform(n, n.shape_of(x), "f32", 0.0, 1.0, seed)
    mask = n("LogicalOr", n("GreaterEqual", drawn, share), idle)
    factor = n("Select", idle, 1.0, n("Divide", 1.0, n("Subtract", 1.0, share)))
    zero = n.like(x, 0)
    return [n("Select", mask, n("Multiply", x, n.convert(factor, n.dtype(x))), zero), mask]


@onnx_op("Multinomial")
def multinomial(n: OnnxNode) -> Any:
    attrs = {"with_replacement": True, "log_probs": True, "global_seed": _seed(n)}
    kind, count = n.data_type("dtype"), n.const(n.attr("sample_size"), "i32")
    return n("Multinomial", n[0], count, opset=13, convert_type=kind, **attrs)


#: Operators that are one expression.
onnx_ops({
    "RandomUniform": lambda n: _of_range(n, None),
    "RandomUniformLike": lambda n: _of_range(n, n[0]),
    "RandomNormal": lambda n: _of_normal(n, None),
    "RandomNormalLike": lambda n: _of_normal(n, n[0]),
})  # fmt: skip
