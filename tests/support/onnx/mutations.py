"""ONNX files with bytes, fields, names and nodes changed at random."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support.onnx.files import FLOAT, make, node


def seeds() -> list[bytes]:
    """Small models that between them use most of the reader."""
    w = np.arange(36, dtype=np.float32).reshape(4, 1, 3, 3)
    convolution = make(
        [
            node("Conv", "x w b", "a", "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("BatchNormalization", "a s s s s", "n"),
            node("MaxPool", "n", "p", kernel_shape=[2, 2]),
            node("GlobalAveragePool", "p", "g"),
            node("Flatten", "g", "f"),
            node("Gemm", "f m", "y", transB=1),
        ],
        [("x", ["N", 1, 12, 12])],
        ["y"],
        {"w": w, "b": np.ones(4, np.float32), "s": np.ones(4, np.float32), "m": np.ones((3, 4), np.float32)},
    )
    shapes = make(
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "d", axis=0),
            node("Unsqueeze", "d zero1", "u"),
            node("Concat", "u minus", "shape", axis=0),
            node("Reshape", "x shape", "r"),
            node("Slice", "r zero1 one1 one1", "c"),
            node("Transpose", "c", "t", perm=[1, 0]),
            node("Split", "t", "a b", axis=0),
            node("Add", "a b", "y"),
        ],
        [("x", ["N", 4])],
        ["y"],
        {
            "zero": np.array(0), "zero1": np.array([0]), "one1": np.array([1]), "minus": np.array([-1]),
        },
    )  # fmt: skip
    body = helper.make_graph(
        [node("Add", "v x", "v2"), node("Identity", "c", "c2"), node("Mul", "v2 v2", "o")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, [3]),
        ],
        [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in ("c2", "v2", "o")],
    )
    branch = helper.make_graph(
        [node("Neg", "x", "n")], "b", [], [helper.make_tensor_value_info("n", FLOAT, [3])]
    )
    control = make(
        [
            node("Loop", "trips go x", "v o", body=body),
            node("ReduceSum", "o", "total", keepdims=0),
            node("Greater", "total zero", "cond"),
            node("If", "cond", "y", then_branch=branch, else_branch=branch),
        ],
        [("x", [3])],
        ["y"],
        {"trips": np.array(3), "go": np.array(True), "zero": np.array(0, np.float32)},
    )
    quantised = make(
        [
            node("QuantizeLinear", "x s z", "q"),
            node("DequantizeLinear", "q s z", "d"),
            node("LSTM", "d w r", "y", hidden_size=2),
        ],
        [("x", [2, 1, 3])],
        ["y"],
        {
            "s": np.array(0.1, np.float32), "z": np.array(3, np.uint8), "w": np.ones((1, 8, 3), np.float32),
            "r": np.ones((1, 8, 2), np.float32),
        },
    )  # fmt: skip
    inner = helper.make_function(
        "my",
        "F",
        ["a"],
        ["c"],
        [node("Relu", "a", "b"), node("Softmax", "b", "c")],
        [helper.make_opsetid("", 17)],
    )
    functions = make(
        [
            node("F", "x", "s", domain="my"),
            node("Resize", "s - scales", "r"),
            node("TopK", "r k", "y i", axis=-1),
        ],
        [("x", [1, 1, 4, 4])],
        ["y"],
        {"scales": np.array([1, 1, 2, 2], np.float32), "k": np.array([2])},
        imports=[helper.make_opsetid("my", 1)],
    )
    functions.functions.append(inner)
    return [m.SerializeToString() for m in (convolution, shapes, control, quantised, functions)]


def mutate(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(out))
        kind = rng.randrange(6)
        if kind == 0:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del out[place : place + rng.randrange(1, 8)]
        elif kind == 3:
            out[place:place] = rng.randbytes(rng.randrange(1, 8))
        elif kind == 4:
            other = rng.randrange(len(out))
            size = rng.randrange(1, 32)
            out[place : place + size] = out[other : other + size]
        else:
            out[place : place + 9] = b"\xff" * 8 + b"\x7f"
        if not out:
            return b""
    return bytes(out)


def mutate_fields(rng: random.Random, data: bytes) -> bytes:
    """Another value for a field somewhere in the message: what comes through the parser."""
    proto = onnx.ModelProto.FromString(data)
    numbers = [0, 1, -1, 2, 3, 7, 2**31 - 1, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        fields: list[Any] = []
        waiting = [proto]
        while waiting:
            message = waiting.pop()
            for descriptor, value in message.ListFields():
                repeated = not hasattr(value, "SerializeToString") and hasattr(value, "append")
                repeated = repeated or (hasattr(value, "add") and not hasattr(value, "SerializeToString"))
                if descriptor.message_type is not None:
                    waiting.extend(value if repeated else [value])
                    if repeated and len(value):
                        fields.append((message, descriptor.name, "drop"))
                elif repeated:
                    fields.append((message, descriptor.name, "list"))
                else:
                    fields.append((message, descriptor.name, "one"))
        message, name, how = rng.choice(fields)
        value = getattr(message, name)
        try:
            if how == "drop":
                del value[rng.randrange(len(value))]
            elif how == "list" and len(value):
                place = rng.randrange(len(value))
                old = value[place]
                if rng.random() < 0.3:
                    del value[place]
                elif isinstance(old, int):
                    value[place] = rng.choice(numbers)
                elif isinstance(old, float):
                    value[place] = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
                else:
                    value[place] = rng.choice(list(value))
            elif isinstance(value, bytes):
                setattr(message, name, value[: rng.randrange(len(value) + 1)])
            elif isinstance(value, int):
                setattr(message, name, rng.choice(numbers))
            elif isinstance(value, float):
                setattr(message, name, rng.choice((0.0, -1.0, float("nan"), float("inf"))))
            elif isinstance(value, str):
                setattr(
                    message, name, rng.choice(("", "x", "y", "Relu", "Reshape", "Concat", "Loop", value * 2))
                )
        except (ValueError, OverflowError):
            continue
    return proto.SerializeToString()


def graphs_of(proto: Any) -> list[Any]:
    """The graph, those inside of nodes, and the functions."""
    out = [proto.graph, *proto.functions]
    for graph in out:
        for made in graph.node:
            for attribute in made.attribute:
                out += [attribute.g] if attribute.HasField("g") else attribute.graphs
    return out


def mutate_structure(rng: random.Random, data: bytes) -> bytes:
    """Names, nodes and graphs in each other's places: circles, names given twice or hidden, bodies with other
    inputs and outputs, functions that call themselves.
    """
    proto = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        graphs = graphs_of(proto)
        nodes = [made for graph in graphs for made in graph.node]
        names = [name for made in nodes for name in (*made.input, *made.output)] + ["", "x", "y"]
        full = [graph for graph in graphs if isinstance(graph, onnx.GraphProto)]
        infos = [info for graph in full for info in (*graph.input, *graph.output, *graph.value_info)]
        if not nodes or not infos:
            break
        graph, made, info, how = (rng.choice(v) for v in (graphs, nodes, infos, range(14)))
        if how < 2 and made.input:
            made.input[rng.randrange(len(made.input))] = rng.choice(names)
        elif how < 4 and made.output:
            made.output[rng.randrange(len(made.output))] = rng.choice(names)
        elif how == 4:
            info.name = rng.choice(names)
        elif how == 5:  # a node in another graph, or once more in its own
            kept = type(made)()
            kept.CopyFrom(made)  # which may lie around the graph
            graph.node.add().CopyFrom(kept)
        elif how == 6 and len(graph.node) > 1:
            a, b = rng.sample(range(len(graph.node)), 2)
            kept = type(made)()
            kept.CopyFrom(graph.node[a])
            graph.node[a].CopyFrom(graph.node[b])
            graph.node[b].CopyFrom(kept)
        elif how == 7:
            other = rng.choice(nodes)
            made.op_type, made.domain = other.op_type, other.domain
        elif how == 8:
            bodies = [a for other in nodes for a in other.attribute if a.HasField("g")]
            if bodies:
                kept = onnx.GraphProto()
                kept.CopyFrom(rng.choice(full) if rng.random() < 0.3 else rng.choice(bodies).g)
                rng.choice(bodies).g.CopyFrom(kept)
        elif how == 9 and proto.functions:
            function = rng.choice(proto.functions)
            made.op_type, made.domain = function.name, function.domain
        elif how == 10 and proto.functions:
            kept = type(proto.functions[0])()
            kept.CopyFrom(rng.choice(proto.functions))
            proto.functions.add().CopyFrom(kept)
        elif how == 11 and info.type.tensor_type.shape.dim:
            dim = rng.choice(info.type.tensor_type.shape.dim)
            dim.dim_value = rng.choice((0, -1, 1, 2, 2**31, 2**62, -(2**63)))
        elif how == 12:
            full[rng.randrange(len(full))].initializer.add().CopyFrom(
                onnx.numpy_helper.from_array(np.arange(rng.randrange(4), dtype=np.int64), rng.choice(names))
            )
        elif how == 13:
            info.type.tensor_type.elem_type = rng.choice((0, 1, 2, 7, 8, 9, 10, 16, 17, 21, 99))
    return proto.SerializeToString()
