"""The searches of com.microsoft around random small models, beside ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ovjit as ov
from ovjit.errors import OvjitError
from tests.support.sweeps import parts

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
MOST_POSITIONS = 32
#: Searches: the operator and the form of what it runs (0 GPT-2's decoder, 1 T5's, 2 Whisper's).
SEARCHES = {
    "GreedySearch": ("GreedySearch", 0), "Sampling": ("Sampling", 0), "BeamSearch": ("BeamSearch", 0),
    "T5": ("BeamSearch", 1), "Whisper": ("BeamSearch", 2), "WhisperBeamSearch": ("WhisperBeamSearch", 2),
}  # fmt: skip


class Net:
    """A graph of attention that is written node by node."""

    def __init__(self, rng: np.random.Generator, vocabulary: int, heads: int, size: int, prefix: str = ""):
        self.rng, self.prefix, self.vocabulary = rng, prefix, vocabulary
        self.heads, self.size, self.width = heads, size, heads * size
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

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

    def projected(self, x: str, columns: int = 0, **more: str) -> str:
        return self("MatMul", x, self.random(self.width, columns or self.width), **more)

    def headed(self, x: str, output: str = "") -> str:
        """[b, s, width] -> [b, heads, s, size] of a projection"""
        parts = self("Reshape", self.projected(x), self.ints(0, 0, self.heads, self.size))
        return self("Transpose", parts, perm=[0, 2, 1, 3], output=output)

    def attended(self, q: str, k: str, v: str, bias: str = "") -> str:
        scores = self("MatMul", q, self("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self("Add", scores, bias) if bias else scores
        seen = self("Transpose", self("MatMul", self("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        return self("Reshape", seen, self.ints(0, 0, self.width))

    def hidden(self, mask: str) -> str:
        """What is added to scores of places that `mask` [b, t] hides"""
        free = self("Sub", self.constant(np.float32(1)), self("Cast", mask, to=1))
        return self("Mul", self("Unsqueeze", free, self.ints(1, 2)), self.constant(np.float32(-1e4)))

    def embedded(self, ids: str) -> str:
        return self("Gather", self.random(self.vocabulary, self.width), ids)

    def takes(self, name: str, shape: list[Any], kind: int = TensorProto.INT32) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def gives(self, name: str, shape: list[Any]) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def graph(self) -> onnx.GraphProto:
        name = f"{self.prefix}net"
        return helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.constants)


def decoder(rng: np.random.Generator, vocabulary: int, heads: int, size: int, layers: int, prefix: str):
    """(tokens, positions, mask, past of each layer) -> (logits, present ...)"""
    net = Net(rng, vocabulary, heads, size, prefix)
    ids, places = (net.takes(name, ["b", "s"]) for name in ("input_ids", "position_ids"))
    mask = net.takes("attention_mask", ["b", "t"])
    x = net("Add", net.embedded(ids), net("Gather", net.random(MOST_POSITIONS, net.width), places))
    bias, first = net.hidden(mask), net.ints(0)
    net.gives("logits", ["b", "s", vocabulary])
    for i in range(layers):
        q, k, v = (net.headed(x) for _ in range(3))
        both = net("Concat", net("Unsqueeze", k, first), net("Unsqueeze", v, first), axis=0)
        shape = [2, "b", heads, "p", size]
        past = net.takes(f"past_{i}", shape, TensorProto.FLOAT)
        both = net("Concat", past, both, axis=3, output=net.gives(f"present_{i}", shape))
        k, v = (net("Gather", both, net.constant(np.array(at)), axis=0) for at in (0, 1))
        x = net("Add", x, net.attended(q, k, v, bias))
    net.projected(x, vocabulary, output="logits")
    return net.graph()


SPEECH = 3  # channels of what Whisper's encoder reads


def encoder_and_decoder(
    rng: np.random.Generator, vocabulary: int, heads: int, size: int, layers: int, form: int
) -> dict[str, Any]:
    """The graphs of a BeamSearch of T5's (1) or Whisper's (2) form. At random the encoder gives no scores, or
    the decoder reads hidden states or all earlier tokens."""
    whole = form == 2 or rng.random() < 0.6
    hidden, by_token = whole and bool(rng.random() < 0.5), bool(rng.random() < 0.7)
    parts = [f"{what}_{{}}_{i}" for i in range(layers) for what in ("key", "value")]
    names = [part.format(kind) for kind in ("self", "cross") for part in parts]
    shapes = {name: ["b", heads, "p" if "self" in name else "t", size] for name in names}

    net = Net(rng, vocabulary, heads, size, "encoder_")
    bias = ""
    if form == 2:
        features = net.takes("encoder_input_ids", ["b", SPEECH, "t"], TensorProto.FLOAT)
        x = net("MatMul", net("Transpose", features, perm=[0, 2, 1]), net.random(SPEECH, net.width))
    else:
        ids, mask = (net.takes(f"encoder_{name}", ["b", "t"]) for name in ("input_ids", "attention_mask"))
        x, bias = net.embedded(ids), net.hidden(mask)
    x = net("Add", x, net.attended(*(net.headed(x) for _ in range(3)), bias))
    if whole:
        said = net.takes("decoder_input_ids", ["b", "s"])
        net.gives("logits", ["b", "s", vocabulary])
        net("Identity", x, output=net.gives("encoder_hidden_states", ["b", "t", net.width]))
        y = net.embedded(said)
        for name in names[: 2 * layers]:
            net.headed(y, net.gives(f"present_{name}", shapes[name]))
        net.projected(y, vocabulary, output="logits")
    for name in names[2 * layers :]:
        net.headed(x, net.gives(f"present_{name}", shapes[name]))
    encoder = net.graph()

    net = Net(rng, vocabulary, heads, size, "decoder_")
    ids = net.takes("input_ids", ["b", 1 if by_token else "s"])
    bias = "" if form == 2 else net.hidden(net.takes("encoder_attention_mask", ["b", "t"]))
    if hidden:
        net.takes("encoder_hidden_states", ["b", "t", net.width], TensorProto.FLOAT)
    for name in names:
        net.takes(f"past_{name}", shapes[name], TensorProto.FLOAT)
    net.gives("logits", ["b", 1 if by_token else "s", vocabulary])
    x = net.embedded(ids)
    for i in range(layers):
        q = net.headed(x)
        parts = []
        for what in ("key", "value"):
            own = f"{what}_self_{i}"
            out = net.gives(f"present_{own}", shapes[own])
            parts.append(net("Concat", f"past_{own}", net.headed(x), axis=2, output=out))
        x = net("Add", x, net.attended(q, *parts))
        cross = [f"past_{what}_cross_{i}" for what in ("key", "value")]
        x = net("Add", x, net.attended(net.headed(x), *cross, bias))
    net.projected(x, vocabulary, output="logits")
    return {"encoder": encoder, "decoder": net.graph(), "model_type": form}


def model_of(rng: np.random.Generator, search: str) -> tuple[bytes, dict[str, np.ndarray], int, str]:
    """(the model, values of its inputs, the filling, what it is about)"""
    op, form = SEARCHES[search]
    net = tuple(int(rng.integers(*r)) for r in ((6, 12), (1, 3), (2, 5), (1, 3)))
    vocabulary, batch, length = net[0], int(rng.integers(1, 4)), int(rng.integers(1, 5))
    begun = 1 if form == 1 else length
    most, pad, end = begun + int(rng.integers(2, 8)), *(int(v) for v in rng.integers(0, vocabulary, 2))
    attributes: dict[str, Any] = {
        "pad_token_id": pad,
        "eos_token_id": end,
        "no_repeat_ngram_size": int(rng.choice([0, 0, 2, 3])),
    }
    if form:
        attributes.update(encoder_and_decoder(rng, *net, form))
        attributes["decoder_start_token_id"] = int(rng.integers(0, vocabulary))
    else:
        attributes["decoder"] = decoder(rng, *net, "")
        if rng.random() < 0.25:
            attributes["init_decoder"] = decoder(rng, *net, "first_")
    tokens = rng.integers(0, vocabulary, (batch, length)).astype(np.int32)
    tokens[rng.random(tokens.shape) < rng.choice([0, 0.3])] = pad
    allowed = (rng.random(vocabulary) < 0.8).astype(np.int32)
    first = (rng.random((batch, vocabulary)) < 0.8).astype(np.int32)
    allowed[:5], first[:, :5] = 1, 1
    beams = int(rng.integers(1, 4))
    sound = rng.standard_normal((batch, SPEECH, length + 3)).astype(np.float32)
    values: dict[str, Any] = {
        "ids": sound if form == 2 else tokens,
        "max_length": np.array([most], np.int32),
        "min_length": np.array([rng.integers(0, most)], np.int32),
        "num_beams": np.array([beams], np.int32),
        "num_return_sequences": np.array([rng.integers(1, beams + 1)], np.int32),
        "length_penalty": np.array([rng.choice([0, 0.5, 1, 2])], np.float32),
        "repetition_penalty": np.array([rng.choice([0.7, 1, 1.3])], np.float32),
        "vocab_mask": allowed,
        "prefix_vocab_mask": first,
        "attention_mask": (rng.random(tokens.shape) < 0.8).astype(np.int32),
    }
    outputs, optional = ["y0"], ["repetition_penalty", "vocab_mask", "prefix_vocab_mask", "attention_mask"]
    constant = {"num_beams", "num_return_sequences"}
    if op.endswith("BeamSearch"):
        attributes["early_stopping"] = int(rng.integers(0, 2))
        outputs = ["y0", "y1"]
    else:
        values = {k: v for k, v in values.items() if k not in list(values)[3:6]}
        optional.append("min_length")
    absent = [name for name in optional if rng.random() < 0.6]
    if form == 2:
        absent.append("attention_mask")
        values["decoder_input_ids"] = tokens
    if op == "WhisperBeamSearch":
        timed = int(rng.random() < 0.6)
        for name in ("logits_processor", "cross_qk_layer_head", "extra_decoding_ids"):
            values[name] = np.array([timed], np.int32)
        own = ("beginning_timestamp", "no_timestamps", "start_of_lm", "translate", "transcribe")
        tokens_of = [int(rng.integers(1, vocabulary - 1)), *(int(v) for v in rng.integers(0, vocabulary, 4))]
        attributes.update({f"{k}_token_id": v for k, v in zip(own, tokens_of, strict=True)})
        absent += ["cross_qk_layer_head", "extra_decoding_ids"]
        constant.add("logits_processor")
        values["temperature"] = np.array([rng.choice([0.5, 1, 2])], np.float32)
    if op == "Sampling":
        values["presence_mask"] = (rng.random((batch, vocabulary)) < 0.5).astype(np.int32)
        values["seed"] = np.array([rng.integers(0, 100)], np.int32)
        absent.append("presence_mask")
        own = {"custom": int(rng.integers(0, 2)), "top_p": float(rng.choice([0.1, 0.6, 0.9]))}
        attributes.update(own, temperature=float(rng.choice([0.5, 1, 20])))
        attributes["min_tokens_to_keep"] = int(rng.integers(0, 3))
    inputs = ["" if name in absent else name for name in values]
    fixed = {*values} - {"ids", "decoder_input_ids"} if rng.random() < 0.5 else constant
    feeds = {k: v for k, v in values.items() if k not in fixed and k not in absent}
    constants = [numpy_helper.from_array(v, k) for k, v in values.items() if k in fixed]
    shapes = {k: v.shape for k, v in feeds.items()}
    if rng.random() < 0.5:
        shapes["ids"] = ("b", *values["ids"].shape[1:-1], "s")
    infos = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), shapes[k])
        for k, v in feeds.items()
    ]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node(op, inputs, outputs, "search", domain="com.microsoft", **attributes)
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "g", infos, results, constants)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    about = {k: v for k, v in attributes.items() if not k.endswith("coder")}
    said = f"{op} ids {tokens.tolist()} most {most} beams {beams} absent {absent} fixed {sorted(fixed)}"
    return model.SerializeToString(), feeds, pad, f"{said} {about}"


def judge(search: str, seed: int) -> None:
    model, feeds, pad, about = model_of(np.random.default_rng((seed, *search.encode())), search)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    wanted = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    got = list(ov.Core().compile_model(ov.Core().read_model(model), "CPU", F32)(feeds).values())
    assert [(v.shape, v.dtype) for v in got] == [(v.shape, v.dtype) for v in wanted], f"seed {seed}: {about}"
    said, right = got[0], wanted[0]
    if not SEARCHES[search][0].endswith("BeamSearch"):  # behind the end of all it leaves what was in memory
        ended = feeds["ids"].shape[1]
        while ended < said.shape[1] and not (said[:, ended:] == pad).all():
            ended += 1
        said, right = said[:, :ended], right[:, :ended]
    np.testing.assert_array_equal(said, right, f"seed {seed}: {about}")
    for one, other in zip(got[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}: {about}")


@pytest.mark.parametrize("seeds", parts(range(4), 1), ids=len)
@pytest.mark.parametrize("search", SEARCHES)
def test_random_searches(search: str, seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_INTERP", "1")
    for seed in seeds:
        judge(search, seed)


@pytest.mark.parametrize("search", ["GreedySearch", "BeamSearch", "T5"])
def test_a_search_by_kernels(search: str) -> None:
    judge(search, 100)


def refused(model: bytes, match: str, **changes: Any) -> None:
    proto = onnx.ModelProto.FromString(model)
    node = proto.graph.node[0]
    kept = [attribute for attribute in node.attribute if attribute.name not in changes]
    node.ClearField("attribute")
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in changes.items())])
    with pytest.raises((OvjitError, RuntimeError), match=match):
        ov.Core().read_model(proto.SerializeToString())


def test_searches_that_are_refused() -> None:
    greedy, t5 = (model_of(np.random.default_rng(1), name)[0] for name in ("GreedySearch", "T5"))
    refused(greedy, "GreedySearch of models of the type 1", model_type=1)
    refused(t5, "BeamSearch of models of the type 3", model_type=3)
    decoder = next(a.g for a in onnx.ModelProto.FromString(t5).graph.node[0].attribute if a.name == "decoder")
    decoder.input.add().CopyFrom(decoder.input[0])
    decoder.input[-1].name = "past_sequence_length"
    refused(t5, "a decoder with .* inputs", decoder=decoder)
    sampling = onnx.ModelProto.FromString(model_of(np.random.default_rng(1), "Sampling")[0])
    sampling.graph.node[0].input[-1] = ""
    refused(sampling.SerializeToString(), "without a seed")
