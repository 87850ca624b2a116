"""Random quantized ONNX graphs (QDQ in its forms) beside ONNX Runtime without its optimizations.

Weights per tensor, per axis and by blocks, in 4 and 8 bits and floats of 8; activations in u8, i8, u16, i16;
products, convolutions, sums, pools and activations between; in f32 and f16. ONNX Runtime runs each node by
itself, so that its answers are those of the standard.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit
from ovjit.errors import OvjitError
from tests.fuzz import fuzzing

LIFE = 3000
INTS = {"u8": (2, 0, 255), "i8": (3, -128, 127), "u16": (4, 0, 65535), "i16": (5, -32768, 32767),
        "u4": (21, 0, 15), "i4": (22, -8, 7)}  # fmt: skip
F8 = {"f8e4m3fn": 17, "f8e5m2": 19}


class Net:
    """Builds a model of one input."""

    def __init__(self, seed: int, limits: dict[str, Any]):
        self.r = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.inits: list[Any] = []
        self.count = 0
        self.kind = "f16" if self.r.random() < 0.12 and not limits.get("f32") else "f32"
        self.said: list[str] = []
        self.limits = limits

    @property
    def real(self) -> Any:
        return np.float16 if self.kind == "f16" else np.float32

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def add(self, op: str, *inputs: str, **attrs: Any) -> str:
        import onnx

        out = self.name()
        self.nodes.append(onnx.helper.make_node(op, list(inputs), [out], **attrs))
        return out

    def const(self, values: Any) -> str:
        import onnx

        out = self.name()
        self.inits.append(
            onnx.numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), out)
        )
        return out

    def low(self, values: np.ndarray, kind: str) -> str:
        """A constant of few bits."""
        import onnx

        out = self.name()
        number = INTS[kind][0] if kind in INTS else F8[kind]
        self.inits.append(onnx.helper.make_tensor(out, number, values.shape, values.reshape(-1).tolist()))
        return out

    # --- activations

    def qdq(self, x: str, low: float, high: float, channels: int | None = None, axis: int = 1) -> str:
        kind = self.r.choice(("u8", "u8", "u8", "i8", "i8", "u16", "i16"))
        _, least, most = INTS[kind]
        way = self.r.choice(("asymmetric", "symmetric", "no zero"))
        per = channels is not None and self.r.random() < 0.15
        shape = (channels,) if per else self.r.choice(((), (), (1,)))
        spread = np.asarray(self.rng.uniform(0.6, 1.1, shape), np.float64)
        if way == "asymmetric":
            scale = (high - low) / (most - least) * spread
            zero = np.clip(np.round(least - low / scale), least, most)
        else:
            scale = max(abs(low), abs(high)) / (most if least else most / 1) * spread
            zero = np.zeros(shape) if way == "no zero" or least else np.full(shape, (most + 1) // 2)
        if not np.all(scale > 0):
            return x
        s = self.const(scale.astype(self.real))
        z = [] if way == "no zero" and kind == "u8" else [self.low(np.asarray(zero, np.int64), kind)]
        attrs = {"axis": axis} if per else {}
        self.said.append(f"qdq {kind} {way}{' per channel' * per}")
        q = self.add("QuantizeLinear", x, s, *z, **attrs)
        if self.r.random() < 0.15 and kind in ("u8", "i8"):
            q = self.add("Identity", q)
        return self.add("DequantizeLinear", q, s, *z, **attrs)

    # --- weights

    def weights(self, shape: tuple[int, ...], axis: int, blocked: int | None) -> str:
        """A dequantized constant; `axis`: of its channels; `blocked`: the one that may be cut."""
        way = self.r.choice(("tensor", "axis", "axis", "block"))
        kinds = ("i8", "i8", "u8", "i4", "u4", "i16", "f8e4m3fn", "f8e5m2")
        kind = self.r.choice(kinds)
        if way == "block" and (blocked is None or shape[blocked] % 4):
            way = "axis"
        attrs: dict[str, Any] = {}
        scale_shape: tuple[int, ...] = ()
        if way == "axis":
            scale_shape, attrs = (shape[axis],), {"axis": axis}
        elif way == "block":
            assert blocked is not None
            size = self.r.choice([s for s in (4, 8, 16, 32) if shape[blocked] % s == 0])
            scale_shape = tuple(d // size if i == blocked else d for i, d in enumerate(shape))
            attrs = {"axis": blocked, "block_size": size}
        self.said.append(f"weights {kind} {way} {attrs}")
        scale = self.rng.uniform(0.01, 0.1, scale_shape).astype(self.real)
        if kind in F8:
            import onnx

            values = self.rng.standard_normal(shape).astype(np.float32) * 2
            q = self.low(values, kind)
            zero = [self.low(np.zeros(scale_shape, np.float32), kind)] if self.r.random() < 0.5 else []
            del onnx
        else:
            _, least, most = INTS[kind]
            q = self.low(self.rng.integers(max(least, -200), min(most, 200) + 1, shape), kind)
            zero = []
            if self.r.random() < 0.6 and kind != "i16":
                half = (most + least + 1) // 2
                around = self.rng.integers(max(half - 3, least), half + 4, scale_shape)
                zero = [self.low(np.asarray(around, np.int64), kind)]
        return self.add("DequantizeLinear", q, self.const(scale), *zero, **attrs)

    def bias(self, count: int) -> str:
        if self.r.random() < 0.5:
            return self.const(self.rng.standard_normal(count).astype(self.real))
        self.said.append("i32 bias")
        import onnx

        q = self.name()
        self.inits.append(
            onnx.numpy_helper.from_array(self.rng.integers(-500, 500, count).astype(np.int32), q)
        )
        scale = self.rng.uniform(1e-3, 1e-2, (count,)).astype(self.real)
        return self.add("DequantizeLinear", q, self.const(scale), axis=0)


def build(seed: int, limits: dict[str, Any]) -> tuple[bytes, dict[str, np.ndarray], str]:
    import onnx

    n = Net(seed, limits)
    r = n.r
    images = r.random() < 0.5
    rows, depth = r.choice((1, 2, 5, 17)), r.choice((4, 8, 16, 32, 48))
    shape = (r.choice((1, 2)), depth, r.choice((5, 8)), r.choice((6, 9))) if images else (rows, depth)
    x, bound = "x", 3.0
    for _ in range(r.choice((1, 2, 2, 3, 4))):
        axis = 1
        if r.random() < 0.85:
            x = n.qdq(x, -bound, bound, shape[axis])
        if images:
            kind = r.choice(("conv", "conv", "depthwise", "pool", "average", "relu", "add", "clip", "mul"))
        else:
            kind = r.choice(("matmul", "matmul", "gemm", "relu", "add", "clip", "mul", "sigmoid", "softmax"))
        channels = shape[1]
        n.said.append(kind)
        if kind == "conv":
            outs, k = r.choice((3, 8, 17)), r.choice((1, 3))
            w = n.weights((outs, channels, k, k), 0, 1)
            x = n.add("Conv", x, w, *([n.bias(outs)] if r.random() < 0.6 else []), pads=[k // 2] * 4)
            shape = (shape[0], outs, *shape[2:])
            bound *= 8
        elif kind == "depthwise":
            w = n.weights((channels, 1, 3, 3), 0, None)
            x = n.add("Conv", x, w, group=channels, pads=[1] * 4)
            bound *= 4
        elif kind == "matmul":
            outs = r.choice((3, 8, 17, 32))
            x = n.add("MatMul", x, n.weights((channels, outs), 1, 0))
            shape, bound = (shape[0], outs), bound * 8
        elif kind == "gemm":
            outs = r.choice((3, 8, 17, 32))
            w = n.weights((outs, channels), 0, 1)
            x = n.add("Gemm", x, w, *([n.bias(outs)] if r.random() < 0.7 else []), transB=1)
            shape, bound = (shape[0], outs), bound * 8
        elif kind == "pool":
            x = n.add("MaxPool", x, kernel_shape=[2, 2], pads=[0, 0, 1, 1])
        elif kind == "average":
            x = n.add("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=r.randrange(2))
        elif kind == "relu":
            x = n.add("Relu", x)
        elif kind == "sigmoid":
            x, bound = n.add("Sigmoid", x), 1.0
        elif kind == "softmax":
            x, bound = n.add("Softmax", x, axis=-1), 1.0
        elif kind == "clip":
            x = n.add("Clip", x, n.const(n.real(-1)), n.const(n.real(6)))
        elif kind in ("add", "mul"):
            other = n.rng.standard_normal((channels, 1, 1) if images else (channels,)).astype(n.real)
            y = n.const(other)
            if r.random() < 0.6:
                y = n.qdq(y, -2.0, 2.0)
            x = n.add("Add" if kind == "add" else "Mul", x, y)
            bound *= 2
    if r.random() < 0.5:
        x = n.qdq(x, -bound, bound, shape[1])
    elif r.random() < 0.3:
        s = n.const(np.asarray(bound / 120, n.real))
        x = n.add("QuantizeLinear", x, s, n.low(np.asarray(128, np.int64), "u8"))
    open_rows = r.random() < 0.3
    number = 10 if n.kind == "f16" else 1
    begin = (r.choice((1, 2)), *shape[1:])
    del begin
    data = (n.rng.standard_normal(_input_shape(n, seed, images, rows, depth)) * 1.5).astype(n.real)
    info = onnx.helper.make_tensor_value_info(
        "x", number, ["N" if open_rows and i == 0 else d for i, d in enumerate(data.shape)]
    )
    graph = onnx.helper.make_graph(n.nodes, "g", [info], [onnx.ValueInfoProto(name=x)], n.inits)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString(), {"x": data}, f"{n.kind} {'open ' * open_rows}{data.shape} {n.said}"


def _input_shape(n: Net, seed: int, images: bool, rows: int, depth: int) -> tuple[int, ...]:
    r = random.Random(seed + 1)
    return (r.choice((1, 2)), depth, r.choice((5, 8)), r.choice((6, 9))) if images else (rows, depth)


def by_onnxruntime(data: bytes, inputs: dict[str, np.ndarray]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return session.run(None, inputs)
    except Exception as error:
        return error


def make(seed: int) -> dict[str, Any]:
    return {"seed": seed, "limits": {}}


def check(case: dict[str, Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data, inputs, title = build(case["seed"], case["limits"])
        theirs = by_onnxruntime(data, inputs)
        try:
            compiled = ovjit.compile_model(
                ovjit.Core().read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
            ours = [np.array(v) for v in compiled(inputs).to_tuple()]
        except OvjitError as error:
            return "" if isinstance(theirs, Exception) else f"{title}: refuses: {error}"
        except Exception as error:
            return f"{title}: raises {type(error).__name__}: {error}"
    if isinstance(theirs, Exception):
        return ""
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"{title}: output {i}: {a.dtype}{a.shape}, not {b.dtype}{b.shape}"
        u, v = a.astype(np.float64), b.astype(np.float64)
        scale = max(float(np.abs(v).max(initial=0)), 1e-6)
        off = np.abs(u - v) / scale
        # a value on the border of two steps may take the other one, which later products carry on
        if (
            np.median(off) > (4e-3 if a.dtype == np.float16 else 1e-4)
            or np.quantile(off, 0.9) > 2e-2
            or off.max() > 0.1
        ):
            at = np.unravel_index(int(off.argmax()), off.shape)
            said = f"off by {off.max():.3g} of {scale:.3g} (median {np.median(off):.2g})"
            return f"{title}: output {i}: {said}, {a[at]} not {b[at]}"
    return ""


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not case["limits"].get("f32"):
        yield {**case, "limits": {"f32": True}}


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
