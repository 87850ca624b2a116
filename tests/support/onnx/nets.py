"""Small networks of random weights, put together as exporters of ten years write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

F = np.float32


class Net:
    """An ONNX graph that is being written; calling it adds a node and gives its outputs' names."""

    def __init__(self, seed: int, opset: int = 13, microsoft: bool = False, prefix: str = ""):
        self.prefix = prefix
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.microsoft = microsoft
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.inputs: list[Any] = []
        self.values: dict[str, np.ndarray] = {}

    def input(self, name: str, value: np.ndarray, shape: Any = None) -> str:
        number = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.inputs.append(
            helper.make_tensor_value_info(name, number, value.shape if shape is None else shape)
        )
        self.values[name] = value
        return name

    def const(self, value: Any, dtype: Any = None) -> str:
        array = np.asarray(value, dtype)
        if array.dtype == np.float64:
            array = array.astype(F)
        name = f"{self.prefix}w{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, scale: float | None = None) -> str:
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        return self.const(self.rng.standard_normal(shape) * (scale or (2 / max(fan, 1)) ** 0.5))

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        names = [x if isinstance(x, str) else "" if x is None else self.const(x) for x in inputs]
        outs = [f"{self.prefix}t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, names, outs, domain=domain, **attributes))
        return outs[0] if outputs == 1 else outs

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def model(self, *outputs: str) -> onnx.ModelProto:
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, infos, self.initializers)
        imports = [helper.make_opsetid("", self.opset)]
        if self.microsoft:
            imports.append(helper.make_opsetid("com.microsoft", 1))
        version = 3 if self.opset < 9 else 8
        if version == 3:  # initializers are inputs, too
            for tensor in self.initializers:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        return helper.make_model(graph, opset_imports=imports, ir_version=version)

    # -- layers ------------------------------------------------------------------------------------------

    def conv(
        self,
        x: str,
        cin: int,
        cout: int,
        k: int = 3,
        s: int = 1,
        act: str | None = "Relu",
        g: int = 1,
        bn: bool = False,
        d: int = 1,
    ) -> str:
        pad = d * (k // 2)
        bias = None if bn else self.weight(cout, scale=0.1)
        inputs = [x, self.weight(cout, cin // g, k, k), *([] if bias is None else [bias])]
        x = self(
            "Conv", *inputs, kernel_shape=[k, k], strides=[s, s], pads=[pad] * 4, group=g, dilations=[d, d]
        )
        if bn:
            x = self.norm(x, cout)
        if act == "SiLU":
            return self("Mul", x, self("Sigmoid", x))
        if act == "HardSwish":
            clipped = self("Clip", self("Add", x, 3.0), 0.0, 6.0)
            return self("Div", self("Mul", x, clipped), 6.0)
        if act == "LeakyRelu":
            return self("LeakyRelu", x, alpha=0.1)
        if act == "PRelu":
            return self("PRelu", x, self.const(self.rng.random((cout, 1, 1)) * 0.3))
        return x if act is None else self(act, x)

    def norm(self, x: str, c: int) -> str:
        stats = [
            self.const(self.rng.uniform(0.5, 1.5, c)),
            self.weight(c, scale=0.1),
            self.weight(c, scale=0.1),
            self.const(self.rng.uniform(0.5, 1.5, c)),
        ]
        more = {"spatial": 1} if self.opset == 7 else {}
        return self("BatchNormalization", x, *stats, epsilon=1e-5, **more)

    def linear(self, x: str, cin: int, cout: int) -> str:
        return self(
            "Add",
            self("MatMul", x, self.const(self.rng.standard_normal((cin, cout)) / cin**0.5)),
            self.weight(cout, scale=0.1),
        )

    def layer_norm(self, x: str, c: int, fused: bool = False) -> str:
        scale, bias = self.const(self.rng.uniform(0.5, 1.5, c)), self.weight(c, scale=0.1)
        if fused:
            return self("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)
        d = self("Sub", x, self("ReduceMean", x, axes=[-1]))
        var = self("ReduceMean", self("Pow", d, 2.0), axes=[-1])
        return self("Add", self("Mul", self("Div", d, self("Sqrt", self("Add", var, 1e-5))), scale), bias)

    def gelu(self, x: str) -> str:
        e = self("Add", self("Erf", self("Div", x, 2**0.5)), 1.0)
        return self("Mul", self("Mul", x, e), 0.5)


Built = tuple[onnx.ModelProto, dict[str, np.ndarray]]
