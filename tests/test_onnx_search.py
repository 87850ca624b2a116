"""GreedySearch and BeamSearch of com.microsoft around random small decoders, beside ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ovjit as ov
from ovjit.errors import OvjitError

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
MOST_POSITIONS = 32


class Decoder:
    """A graph of attention: (tokens, positions, mask, past of each layer) -> (logits, present ...)"""

    def __init__(
        self, rng: np.random.Generator, vocabulary: int, heads: int, size: int, layers: int, prefix: str
    ):
        self.rng, self.prefix, self.nodes, self.constants = rng, prefix, [], []
        width = heads * size
        x = self("Add", self("Gather", self.random(vocabulary, width), "input_ids"),
                 self("Gather", self.random(MOST_POSITIONS, width), "position_ids"))  # fmt: skip
        free = self("Sub", self.constant(np.float32(1)), self("Cast", "attention_mask", to=1))
        bias = self("Mul", self("Unsqueeze", free, self.ints(1, 2)), self.constant(np.float32(-1e4)))
        split, first = self.ints(0, 0, heads, size), self.ints(0)
        for i in range(layers):
            q, k, v = (
                self("Transpose", self("Reshape", self.projected(x, width, width), split), perm=[0, 2, 1, 3])
                for _ in range(3)
            )
            both = self("Concat", self("Unsqueeze", k, first), self("Unsqueeze", v, first), axis=0)
            both = self("Concat", f"past_{i}", both, axis=3, output=f"present_{i}")
            k, v = (self("Gather", both, self.constant(np.array(at)), axis=0) for at in (0, 1))
            scores = self("Add", self("MatMul", q, self("Transpose", k, perm=[0, 1, 3, 2])), bias)
            seen = self("Transpose", self("MatMul", self("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
            x = self("Add", x, self("Reshape", seen, self.ints(0, 0, width)))
        self.projected(x, width, vocabulary, output="logits")
        info = helper.make_tensor_value_info
        names = (("input_ids", "s"), ("position_ids", "s"), ("attention_mask", "t"))
        inputs = [info(name, TensorProto.INT32, ["b", dim]) for name, dim in names]
        shape = [2, "b", heads, "p", size]
        inputs += [info(f"past_{i}", TensorProto.FLOAT, shape) for i in range(layers)]
        outputs = [info("logits", TensorProto.FLOAT, ["b", "s", vocabulary])]
        outputs += [info(f"present_{i}", TensorProto.FLOAT, shape) for i in range(layers)]
        self.graph = helper.make_graph(self.nodes, f"{prefix}decoder", inputs, outputs, self.constants)

    def __call__(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{self.prefix}t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: np.ndarray) -> str:
        name = f"{self.prefix}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values))

    def random(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape).astype(np.float32))

    def projected(self, x: str, rows: int, columns: int, **more: str) -> str:
        return self("MatMul", x, self.random(rows, columns), **more)


def model_of(rng: np.random.Generator, op: str) -> tuple[bytes, dict[str, np.ndarray], int, str]:
    """(the model, values of its inputs, the filling, what it is about)"""
    vocabulary, heads, size, layers = (int(rng.integers(*r)) for r in ((6, 12), (1, 3), (2, 5), (1, 3)))
    batch, length = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    most, pad, end = length + int(rng.integers(1, 8)), *(int(v) for v in rng.integers(0, vocabulary, 2))
    attributes: dict[str, Any] = {
        "decoder": Decoder(rng, vocabulary, heads, size, layers, "").graph,
        "pad_token_id": pad,
        "eos_token_id": end,
        "no_repeat_ngram_size": int(rng.choice([0, 0, 2, 3])),
    }
    if rng.random() < 0.25:
        attributes["init_decoder"] = Decoder(rng, vocabulary, heads, size, layers, "first_").graph
    ids = rng.integers(0, vocabulary, (batch, length)).astype(np.int32)
    ids[rng.random(ids.shape) < rng.choice([0, 0.3])] = pad
    allowed = (rng.random(vocabulary) < 0.8).astype(np.int32)
    first = (rng.random((batch, vocabulary)) < 0.8).astype(np.int32)
    allowed[:5], first[:, :5] = 1, 1
    beams = int(rng.integers(1, 4))
    values: dict[str, Any] = {
        "max_length": np.array([most], np.int32),
        "min_length": np.array([rng.integers(0, most)], np.int32),
        "num_beams": np.array([beams], np.int32),
        "num_return_sequences": np.array([rng.integers(1, beams + 1)], np.int32),
        "length_penalty": np.array([rng.choice([0, 0.5, 1, 2])], np.float32),
        "repetition_penalty": np.array([rng.choice([0.7, 1, 1.3])], np.float32),
        "vocab_mask": allowed,
        "prefix_vocab_mask": first,
        "attention_mask": (rng.random(ids.shape) < 0.8).astype(np.int32),
    }
    outputs, optional = ["y0"], ["repetition_penalty", "vocab_mask", "prefix_vocab_mask", "attention_mask"]
    if op == "BeamSearch":
        attributes["early_stopping"] = int(rng.integers(0, 2))
        outputs = ["y0", "y1"]
    else:
        values = {k: v for k, v in values.items() if k not in list(values)[2:5]}
        optional.append("min_length")
    absent = [name for name in optional if rng.random() < 0.6]
    inputs = ["ids", *("" if name in absent else name for name in values)]
    fixed = set(values) if rng.random() < 0.5 else {"num_beams", "num_return_sequences"}
    feeds = {"ids": ids, **{k: v for k, v in values.items() if k not in fixed and k not in absent}}
    constants = [numpy_helper.from_array(v, k) for k, v in values.items() if k in fixed]
    opened = rng.random() < 0.5
    infos = [
        helper.make_tensor_value_info(
            k, helper.np_dtype_to_tensor_dtype(v.dtype), ["b", "s"] if opened and k == "ids" else v.shape
        )
        for k, v in feeds.items()
    ]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node(op, inputs, outputs, "search", domain="com.microsoft", **attributes)
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "g", infos, results, constants)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    about = {k: v for k, v in attributes.items() if not k.endswith("decoder")}
    said = f"{op} ids {ids.tolist()} most {most} beams {beams} absent {absent} fixed {sorted(fixed)} {about}"
    return model.SerializeToString(), feeds, pad, said


def judge(op: str, seed: int) -> None:
    model, feeds, pad, about = model_of(np.random.default_rng((seed, *op.encode())), op)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    wanted = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    got = list(ov.Core().compile_model(ov.Core().read_model(model), "CPU", F32)(feeds).values())
    assert [(v.shape, v.dtype) for v in got] == [(v.shape, v.dtype) for v in wanted], f"seed {seed}: {about}"
    said, right = got[0], wanted[0]
    if op == "GreedySearch":  # where all have ended ONNX Runtime leaves what was in memory
        ended = feeds["ids"].shape[1]
        while ended < said.shape[1] and not (said[:, ended:] == pad).all():
            ended += 1
        said, right = said[:, :ended], right[:, :ended]
    np.testing.assert_array_equal(said, right, f"seed {seed}: {about}")
    for one, other in zip(got[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}: {about}")


@pytest.mark.parametrize("op", ["GreedySearch", "BeamSearch"])
def test_random_searches(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_INTERP", "1")
    for seed in range(10):
        judge(op, seed)


@pytest.mark.parametrize("op", ["GreedySearch", "BeamSearch"])
def test_a_search_by_kernels(op: str) -> None:
    judge(op, 100)


def test_searches_that_are_refused() -> None:
    model = onnx.ModelProto.FromString(model_of(np.random.default_rng(1), "BeamSearch")[0])
    node = model.graph.node[0]
    node.attribute.append(helper.make_attribute("model_type", 1))
    with pytest.raises((OvjitError, RuntimeError), match="an encoder and a decoder"):
        ov.Core().read_model(model.SerializeToString())
    node.op_type = "Sampling"
    with pytest.raises((OvjitError, RuntimeError), match="No conversion rule.*Sampling"):
        ov.Core().read_model(model.SerializeToString())
