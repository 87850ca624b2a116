"""The models that fuzzers of files change.

`base(i)` is one of `COUNT` models, made when it is asked for: of every operation's samples, in each element
type, a model of that operation alone, and some models of several operations for what a single one does not
have: bodies, variables, quantized and compressed weights, preprocessing. Small models make a change hit what
matters, and thousands of them are read, compiled and run in a second.
"""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import ovjit
from ovjit import opset15 as op
from ovjit.api.model.boundary import Constant, Parameter
from ovjit.api.model.node import Node
from ovjit.api.tensors.convert import dims_of
from ovjit.graph import dtypes
from ovjit.graph.op import Op
from tests.fuzz.guarded_ops import element_types, records
from tests.support import control_models
from tests.support.samples import has_samples, samples_of

#: Elements of the largest sample that is taken.
LARGEST = 3000
#: Samples that are taken of an operation in its other element types, and in how many of the cases.
OTHERS, SELDOM = 2, 0.2
#: The part of the cases that changes models of several operations.
SEVERAL = 0.12


class Sample(NamedTuple):
    record: Op
    dtype: str
    inputs: list[np.ndarray]
    attrs: dict[str, Any]


@functools.cache
def samples() -> list[list[Sample]]:
    """The samples of each operation that has any."""
    out = []
    for record in (*records(), *(r for r in _string_records())):
        found = []
        for i, dtype in enumerate(element_types(record)):
            rng = np.random.default_rng(zlib.crc32(record.name.encode()))
            some = [
                Sample(record, dtype, list(inputs), attrs)
                for inputs, attrs in samples_of(record, rng, dtype)
                if sum(x.size for x in inputs) <= LARGEST
            ]
            found += some if i == 0 else some[:OTHERS]
        if found:
            out.append(found)
    return out


def _string_records() -> list[Op]:
    from ovjit.graph.op import all_ops

    return [r for r in all_ops() if has_samples(r) and not r.internal and "string" in r.types]


def pick(rng: random.Random) -> tuple[int, int]:
    """The number of a base: (operation, sample), or (-1, model of several operations)."""
    if rng.random() < SEVERAL:
        return -1, rng.randrange(len(SEVERAL_OPERATIONS))
    first = rng.randrange(len(samples()))
    row = samples()[first]
    usual = sum(s.dtype == row[0].dtype for s in row)
    return first, rng.randrange(2 * len(row) if rng.random() < SELDOM else usual)


def base(number: tuple[int, int]) -> ovjit.Model:
    """The model of that number."""
    first, second = number
    if first < 0:
        return SEVERAL_OPERATIONS[second]()
    row = samples()[first]
    return one_operation(row[second % len(row)], second)


def feeds(number: tuple[int, int]) -> dict[str, np.ndarray]:
    """What the parameters of that model are usually given, by their names, as far as it matters."""
    first, second = number
    if first < 0:
        return {}
    row = samples()[first]
    return {f"in{i}": array for i, array in enumerate(row[second % len(row)].inputs)}


def one_operation(sample: Sample, seed: int = 0) -> ovjit.Model:
    """A model of one operation: the first input is a parameter, the others mostly constants; some dimensions
    are open. All are parameters where the operation writes some: blocks of caches and of states. Raises
    ModelError where no operation of the public API takes the sample."""
    rng = random.Random(seed)
    record, inputs = sample.record, []
    parameters = []
    for i, array in enumerate(sample.inputs):
        kind = dtypes.from_numpy(array.dtype)
        if i and rng.random() < 0.7 and record.role not in ("pages", "states"):
            inputs.append(Constant._of(np.asarray(array), kind, None, None).output(0))
            continue
        shape = [-1 if rng.random() < 0.3 else d for d in array.shape]
        parameter = Parameter._of(kind, dims_of(",".join(map(str, shape))), f"in{i}")
        parameters.append(parameter)
        inputs.append(parameter.output(0))
    node = Node._new(record, inputs, record.check_attributes(sample.attrs), record.name)
    return ovjit.Model(node.outputs(), parameters, record.name)


# --- models of several operations


def _weights(*shape: int) -> Any:
    rng = np.random.default_rng([20261206, *shape])
    return op.constant(rng.standard_normal(shape).astype(np.float32))


def _ints(*values: int) -> Any:
    return op.constant(np.array(values, np.int64))


def image() -> ovjit.Model:
    x = op.parameter([1, 3, 8, 8], np.float32, name="image")
    y = op.convolution(x, _weights(16, 3, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    y = op.prelu(op.add(y, _weights(1, 16, 1, 1)), _weights(16))
    y = op.group_convolution(y, _weights(16, 1, 1, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1])
    y = op.max_pool(y, [2, 2], [1, 1], [0, 0], [1, 1], [2, 2]).output(0)
    y = op.avg_pool(y, [1, 1], [0, 0], [1, 1], [2, 2], True)
    y = op.clamp(op.mvn(y, _ints(2, 3), True, 1e-5, "inside_sqrt"), -1.0, 1.0)
    return ovjit.Model([op.softmax(y, 1)], [x], "image")


def indices() -> ovjit.Model:
    x = op.parameter([-1, 6], np.float32, name="rows")
    i = op.parameter([3], np.int64, name="index")
    y = op.gather(x, i, op.constant(np.array(0)))
    z = op.scatter_update(y, _ints(0, 2), _weights(2, 6), op.constant(np.array(0)))
    s = op.slice(z, _ints(0, 5), _ints(3, -7), _ints(1, -1), _ints(0, 1))
    t = op.strided_slice(s, _ints(0, 0), _ints(2, 4), _ints(1, 2), [0, 0], [0, 1], [0, 0], [0, 0], [0, 0])
    k = op.topk(s, op.constant(np.array(2)), 1, "max", "value")
    h = op.one_hot(op.convert(k.output(1), "i64"), op.constant(np.array(4)), op.constant(np.float32(1)),
                   op.constant(np.float32(0)), -1)  # fmt: skip
    return ovjit.Model([k.output(0), h.output(0), t.output(0)], [x, i], "indices")


def shapes() -> ovjit.Model:
    x = op.parameter([2, -1, 4], np.float32, name="x")
    a = op.reshape(op.transpose(x, _ints(1, 0, 2)), _ints(0, -1), True)
    b = op.variadic_split(a, op.constant(np.array(1)), _ints(3, -1))
    c = op.pad(b.output(0), _ints(0, 1), _ints(1, 0), "constant", op.constant(np.float32(0.5)))
    d = op.tile(op.broadcast(op.reduce_mean(c, _ints(1), True), _ints(1, 5)), _ints(2, 1))
    e = op.matmul(op.unsqueeze(b.output(1), _ints(0)), _weights(5, 7), False, False)
    return ovjit.Model([d, op.squeeze(e, _ints(0)), op.shape_of(c, "i32")], [x], "shapes")


def types() -> ovjit.Model:
    x = op.parameter([4, 5], np.float32, name="x")
    packed = op.constant(np.arange(20, dtype=np.uint8).reshape(4, 5))
    scale = op.multiply(op.subtract(op.convert(packed, "f32"), _weights(4, 1)), _weights(4, 1))
    half = op.convert(op.convert(x, "f16"), "f32")
    wide = op.select(op.greater(half, _weights(1)), half, scale)
    whole = op.add(op.convert(wide, "i32"), op.constant(np.int32(7)))
    return ovjit.Model([op.fake_quantize(wide, *(_weights(1) for _ in range(4)), 16), whole], [x], "types")


def attention() -> ovjit.Model:
    """Open in two dimensions, as transformers are; what follows from the shape goes into a Reshape."""
    x = op.parameter([-1, -1, 8], np.float32, name="x")
    q, k, v = (op.matmul(x, _weights(8, 8), False, False) for _ in range(3))
    heads = op.constant(np.array([0, 0, 2, 4]))
    q, k, v = (op.transpose(op.reshape(t, heads, True), _ints(0, 2, 1, 3)) for t in (q, k, v))
    scores = op.softmax(op.multiply(op.matmul(q, k, False, True), op.constant(np.float32(0.5))), -1)
    mixed = op.transpose(op.matmul(scores, v, False, False), _ints(0, 2, 1, 3))
    shape = op.shape_of(x)
    return ovjit.Model([op.add(op.reshape(mixed, shape, False), x)], [x], "attention")


def quantized() -> ovjit.Model:
    """A convolution and a product that are computed in integers where the CPU can."""

    def fake(x: Any, low: float, high: float, levels: int = 256) -> Any:
        limits = [op.constant(np.float32(v)) for v in (low, high, low, high)]
        return op.fake_quantize(x, *limits, levels)

    x = op.parameter([1, 4, 6, 6], np.float32, name="x")
    whole = (np.arange(8 * 4 * 9) % 251 - 125).reshape(8, 4, 3, 3).astype(np.int8)
    scale = op.constant(np.full((8, 1, 1, 1), 0.01, np.float32))
    kernel = op.multiply(op.convert(op.constant(whole), "f32"), scale)
    y = op.convolution(fake(x, 0, 2.55), kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    y = fake(op.relu(op.add(y, _weights(1, 8, 1, 1))), 0, 4)
    y = op.max_pool(y, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    y = op.reshape(y, _ints(1, -1), False)
    y = op.matmul(fake(y, -1, 1), fake(_weights(72, 5), -2, 2, 255), False, False)
    return ovjit.Model([y], [x], "quantized")


def compressed() -> ovjit.Model:
    """Weights of 8 and of 4 bits with their zero points and scales, in groups."""
    x = op.parameter([-1, 16], np.float32, name="x")
    bytes_ = op.convert(op.constant(np.arange(96, dtype=np.uint8).reshape(6, 16)), "f16")
    wide = op.subtract(bytes_, op.convert(op.constant(np.full((6, 1), 50, np.uint8)), "f16"))
    wide = op.convert(op.multiply(wide, op.constant(np.full((6, 1), 0.02, np.float16))), "f32")
    nibbles = ovjit.Tensor(np.arange(48, dtype=np.uint8), ovjit.Shape([6, 2, 8]), ovjit.Type.u4)
    four = op.convert(op.constant(nibbles), "f16")
    four = op.subtract(four, op.constant(np.full((6, 2, 1), 8, np.float16)))
    four = op.multiply(four, op.constant(np.full((6, 2, 1), 0.1, np.float16)))
    four = op.convert(op.reshape(four, _ints(6, 16), False), "f32")
    return ovjit.Model([op.matmul(x, w, False, True) for w in (wide, four)], [x], "compressed")


def table() -> ovjit.Model:
    """Rows of a compressed table, as embeddings are."""
    rows = op.parameter([-1], np.int64, name="rows")
    whole = op.convert(op.constant(np.arange(40, dtype=np.int8).reshape(5, 8)), "f16")
    wide = op.multiply(whole, op.constant(np.full((5, 1), 0.5, np.float16)))
    found = op.gather(op.convert(wide, "f32"), rows, op.constant(np.array(0)))
    return ovjit.Model([found], [rows], "table")


def total() -> ovjit.Model:
    """A variable that grows by what comes."""
    x = op.parameter([2, 3], np.float32, name="x")
    begin = op.multiply(x, op.constant(np.float32(10)))
    kept = op.read_value(begin, "total", np.float32, ovjit.PartialShape([2, 3]))
    new = op.add(kept, x)
    return ovjit.Model([op.result(new)], [op.assign(new, "total")], [x], "total")


def growing() -> ovjit.Model:
    """A variable whose shape changes, and one that is assigned another one's value."""
    x = op.parameter([1, -1, 4], np.float32, name="x")
    empty = op.constant(ovjit.Tensor(np.zeros((1, 0, 4), np.float32)))
    seen = op.read_value(empty, "seen", np.float32, ovjit.PartialShape([1, -1, 4]))
    last = op.read_value(x, "last", np.float32, ovjit.PartialShape([1, -1, 4]))
    new = op.concat([seen, x], 1)
    mean = op.reduce_mean(new, op.constant(np.array([1])), False)
    sinks = [op.assign(new, "seen"), op.assign(op.relu(x), "last")]
    return ovjit.Model([op.result(mean), op.result(last)], sinks, [x], "growing")


def preprocessed() -> ovjit.Model:
    x = op.parameter([1, 3, 4, 4], np.float32, name="x")
    y = op.relu(op.convolution(x, _weights(2, 3, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]))
    model = ovjit.Model([y], [x], "preprocessed")
    made = ovjit.preprocess.PrePostProcessor(model)
    tensor = made.input().tensor()
    tensor.set_element_type(ovjit.Type.u8).set_layout(ovjit.Layout("NHWC")).set_spatial_dynamic_shape()
    made.input().model().set_layout(ovjit.Layout("NCHW"))
    steps = made.input().preprocess().convert_element_type(ovjit.Type.f32)
    steps = steps.resize(ovjit.preprocess.ResizeAlgorithm.RESIZE_LINEAR)
    steps.reverse_channels().mean([1.0, 2.0, 3.0]).scale(2.0)
    made.output().postprocess().convert_element_type(ovjit.Type.f16)
    return made.build()


def detected() -> ovjit.Model:
    """Boxes and scores, chosen and looked up: shapes depend on data between native steps."""
    boxes = op.parameter([1, 6, 4], np.float32, name="boxes")
    scores = op.parameter([1, 2, 6], np.float32, name="scores")
    n, limit = op.constant(np.array(3)), op.constant(np.float32(0.1))
    chosen = op.non_max_suppression(boxes, op.softmax(scores, 1), n, limit, limit, limit)
    index = op.reshape(op.gather(chosen.output(0), op.constant(np.array(2)), op.constant(np.array(1))),
                       _ints(-1), False)  # fmt: skip
    found = op.gather(op.squeeze(boxes, _ints(0)), op.maximum(index, _ints(0)), op.constant(np.array(0)))
    results = [found.output(0), op.exp(chosen.output(1)).output(0), chosen.output(2)]
    return ovjit.Model(results, [boxes, scores], "detected")


def _control(name: str) -> Callable[[], ovjit.Model]:
    return lambda: control_models.CASES[name][0](ovjit, op)


def _recurrent(kind: str) -> Callable[[], ovjit.Model]:
    def make() -> ovjit.Model:
        """A sequence of open length between other operations."""
        x = op.parameter([-1, -1, 3], np.float32, name="x")
        h = op.parameter([-1, 1, 4], np.float32, name="h")
        lengths = op.parameter([-1], np.int32, name="lengths")
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
        w, r, b = _weights(1, gates * 4, 3), _weights(1, gates * 4, 4), _weights(1, gates * 4)
        if kind == "LSTM":
            y = op.lstm_sequence(x, h, h, lengths, w, r, b, 4, "forward")
        elif kind == "GRU":
            y = op.gru_sequence(x, h, lengths, w, r, b, 4, "reverse")
        else:
            y = op.rnn_sequence(x, h, lengths, w, r, b, 4, "forward")
        turned = op.transpose(y.output(0), _ints(0, 2, 1, 3))
        return ovjit.Model([op.relu(turned).output(0), *y.outputs()[1:]], [x, h, lengths], kind)

    return make


SEVERAL_OPERATIONS: list[Callable[[], ovjit.Model]] = [
    image, indices, shapes, types, attention, quantized, compressed, table, total, growing, preprocessed,
    detected, *(_control(name) for name in control_models.CASES), *map(_recurrent, ("LSTM", "GRU", "RNN")),
]  # fmt: skip
