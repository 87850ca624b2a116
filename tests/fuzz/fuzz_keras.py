# ruff: noqa: E501 (a form of a statement is one piece of text)
"""Random Keras models through each way in: objects, `.keras` files, SavedModels, TensorFlow Lite's forms.

A model is made statement by statement, each a layer or an operation on values made before, and its text can be
run by itself. TensorFlow's results are what ovjit's are compared with, and LiteRT's those of `.tflite` files;
of quantised ones, ovjit may be no further from the results in floating point than LiteRT is. Needs the packages
`tensorflow`, `tf2onnx` and `tflite`.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ml_dtypes
import numpy as np

import ovjit
from ovjit.errors import OvjitError
from tests.fuzz import fuzzing

#: Models of one child: TensorFlow keeps what it traced.
LIFE = 40
#: Address space of a child, of which TensorFlow reserves much more than it uses.
MEMORY = 24 << 30
PATIENCE = 300.0
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
#: Elements of the largest value, where its sizes are known.
MOST = 4000
ACTIVATIONS = ("relu relu6 elu selu softplus softsign sigmoid tanh exponential hard_sigmoid hard_silu silu gelu "
               "leaky_relu mish celu hard_tanh log_sigmoid soft_shrink tanh_shrink squareplus "
               "sparse_plus hard_shrink threshold linear").split()  # fmt: skip
FORMS = ("f32", "f16", "dynamic", "i8", "i8 inside", "i16x8")
#: Policy -> its share of the models.
POLICIES = {"float32": 16, "bfloat16": 1, "mixed_bfloat16": 1, "float16": 1, "mixed_float16": 1}

Make = Callable[["Net", random.Random, str], "str | None"]
STATEMENTS: list[tuple[int | None, Make]] = []


def of_rank(*ranks: int, weight: int = 1) -> Callable[[Make], Make]:
    """Decorator: statements on values of these ranks, with their batch; of any rank without."""

    def add(make: Make) -> Make:
        STATEMENTS.extend((rank, make) for rank in ranks or (None,) for _ in range(weight))
        return make

    return add


class Net:
    """A model's statements and the values that they name, as far as Keras takes them."""

    def __init__(self, seed: int, without: list[int], policy: str = "") -> None:
        import keras
        import tensorflow as tf

        keras.utils.clear_session()
        r = random.Random(seed)
        random_policy = r.choices(list(POLICIES), list(POLICIES.values()))[0]
        self.policy = policy or random_policy
        keras.config.set_dtype_policy(self.policy)
        keras.utils.set_random_seed(seed % 2**31)
        self.names: dict[str, Any] = {
            "keras": keras, "L": keras.layers, "ops": keras.ops, "tf": tf, "np": np,
        }  # fmt: skip
        self.values: dict[str, Any] = {}
        self.lines: list[str] = []
        self.inputs: list[str] = []
        self.count = 0
        for _ in range(r.choices((1, 2, 3), (6, 3, 1))[0]):
            self.add_input(r)
        for i in range(r.randint(2, 9)):
            if i not in without:
                self.add_statement(random.Random(seed * 100 + i))
        read = {word for line in self.lines for word in re.findall(r"\w+", line.partition(" = ")[2])}
        ends = [n for n in self.values if n not in read and n not in self.inputs]
        more = [n for n in self.values if n not in ends and n not in self.inputs]
        if more and r.random() < 0.2:
            ends.append(r.choice(more))
        self.outputs = ends[:4]
        self.compiles = r.random() < 0.2

    def add_input(self, r: random.Random) -> None:
        kind = r.choice("image image sequence sequence vector tokens volume".split())
        size: Callable[[], Any] = lambda: None if self.open else r.randint(5, 9)  # noqa: E731
        self.open = r.random() < 0.3
        channels = r.choice((1, 2, 3, 4, 8))
        shape = {"image": (size(), size(), channels), "sequence": (size(), channels), "vector": (channels * 3,),
                 "tokens": (size(),), "volume": (size(), size(), size(), channels)}[kind]  # fmt: skip
        name = f"x{len(self.inputs)}"
        batch = f"batch_shape={(r.randint(1, 3), *shape)}" if r.random() < 0.2 else f"shape={shape}"
        dtype = (
            "int32" if kind == "tokens" else "uint8" if r.random() < 0.05 else self.policy.rpartition("_")[2]
        )
        self.run(name, f"keras.Input({batch}, dtype={dtype!r}, name={name!r})")
        self.inputs.append(name)

    def run(self, name: str, text: str) -> bool:
        line = f"{name} = {text}"
        try:
            exec(line, self.names)
        except Exception:
            return False
        value = self.names[name]
        if any(v == 0 for v in value.shape) or np.prod([v or 3 for v in value.shape], dtype=float) > MOST * 4:
            return False
        self.lines.append(line)
        self.values[name] = value
        return True

    def add_statement(self, r: random.Random) -> None:
        for _ in range(12):
            names = list(self.values)
            x = r.choice(names[-3:] if r.random() < 0.7 else names)
            value = self.values[x]
            rank = len(value.shape)
            fitting = [make for at, make in STATEMENTS if at is None or at == rank]
            text = r.choice(fitting)(self, r, x)
            if text and self.run(f"t{self.count}", text):
                self.count += 1
                return

    def model(self) -> Any:
        keras = self.names["keras"]
        return keras.Model([self.values[n] for n in self.inputs], [self.values[n] for n in self.outputs])

    def has_usual_values(self, given: list[np.ndarray]) -> bool:
        """True if all values have elements, and the shapes that Keras says. Converters need not take others."""
        values = [value for n, value in self.values.items() if n not in self.inputs]
        every = self.names["keras"].Model([self.values[n] for n in self.inputs], values)
        shapes = [result.shape for result in every(given, training=False)]
        return all(
            0 not in shape and len(shape) == len(value.shape)
            and all(a in (None, b) for a, b in zip(value.shape, shape, strict=True))
            for shape, value in zip(shapes, values, strict=True)
        )  # fmt: skip

    def text(self) -> str:
        return "\n".join([f"# {self.policy}", *self.lines,
                          f"model = keras.Model([{', '.join(self.inputs)}], [{', '.join(self.outputs)}])"])  # fmt: skip

    def is_real(self, x: str) -> bool:
        return "float" in str(self.values[x].dtype)

    def size(self, x: str, axis: int) -> Any:
        return self.values[x].shape[axis]

    def like(self, r: random.Random, x: str) -> str:
        """A value of the same shape and type, x where there is no other."""
        v = self.values[x]
        same = [n for n, w in self.values.items() if w.shape == v.shape and w.dtype == v.dtype]
        return r.choice(same)

    def data(self, r: random.Random, batch: int) -> list[np.ndarray]:
        rng = np.random.default_rng(r.randrange(2**32))
        given = []
        sizes = [r.randint(5, 9) for _ in range(3)]
        for name in self.inputs:
            v = self.values[name]
            shape = [batch if v.shape[0] is None else v.shape[0]]
            shape += [sizes[i] if d is None else d for i, d in enumerate(v.shape[1:])]
            if str(v.dtype) == "int32":
                given.append(rng.integers(0, 8, shape).astype(np.int32))
            elif str(v.dtype) == "uint8":
                given.append(rng.integers(0, 256, shape).astype(np.uint8))
            else:
                given.append(rng.normal(size=shape).astype(str(v.dtype)))
        return given


def pick(r: random.Random, *of: Any) -> Any:
    return r.choice(of)


def activation(r: random.Random) -> str:
    return r.choice(ACTIVATIONS) if r.random() < 0.4 else "linear"


@of_rank(3, 4, 5, weight=3)
def convolve(n: Net, r: random.Random, x: str) -> str | None:
    rank = len(n.values[x].shape) - 2
    window = r.choice((1, 2, 3)) if r.random() < 0.6 else tuple(r.randint(1, 3) for _ in range(rank))
    stride, dilation = (r.choice((1, 2, 3)), 1) if r.random() < 0.6 else (1, r.choice((1, 2, 3)))
    pads = ["valid", "same"]
    kind = r.choice(["Conv", "Conv", "SeparableConv", "DepthwiseConv", "ConvTranspose"])
    if kind == "Conv" and rank == 1:
        pads.append("causal")
    if rank == 3 and kind in ("SeparableConv", "DepthwiseConv"):
        kind = "Conv"
    pad = r.choice(pads)
    name = f"Conv{rank}DTranspose" if kind == "ConvTranspose" else f"{kind}{rank}D"
    more = f"strides={stride}, padding={pad!r}, use_bias={r.random() < 0.6}, activation={activation(r)!r}"
    if kind != "ConvTranspose" or dilation == 1:
        more += f", dilation_rate={dilation}"
    if kind == "ConvTranspose" and r.random() < 0.3 and stride > 1:
        more += f", output_padding={r.randrange(stride)}"
    filters = r.choice((1, 2, 4, 6))
    channels = n.size(x, -1)
    if kind == "Conv" and channels and channels % 2 == 0 and r.random() < 0.3:
        more += ", groups=2"
        filters = r.choice((2, 4, 6))
    if kind == "DepthwiseConv":
        return f"L.{name}({window}, depth_multiplier={r.randint(1, 2)}, {more})({x})"
    if kind == "SeparableConv":
        more += f", depth_multiplier={r.randint(1, 2)}"
    return f"L.{name}({filters}, {window}, {more})({x})"


@of_rank(3, 4, 5, weight=2)
def pool(n: Net, r: random.Random, x: str) -> str:
    rank = len(n.values[x].shape) - 2
    kind = r.choice(("Max", "Average"))
    ways = [
        f"L.{kind}Pooling{rank}D({r.randint(2, 3)}, strides={r.choice((None, 1, 2, 3))}, padding={pick(r, 'same', 'valid')!r})({x})",
        f"L.Global{kind}Pooling{rank}D(keepdims={r.random() < 0.5})({x})",
        f"L.UpSampling{rank}D({r.randint(1, 3)})({x})",
        f"L.ZeroPadding{rank}D({r.randint(1, 2)})({x})",
        f"L.Cropping{rank}D({r.randint(1, 2)})({x})",
        f"L.SpatialDropout{rank}D(0.4)({x})",
        f"L.Adaptive{kind}Pooling{rank}D({r.randint(1, 4)})({x})",
    ]
    return r.choice(ways)


@of_rank(4, weight=2)
def scale_image(n: Net, r: random.Random, x: str) -> str:
    way = r.choice(("nearest", "bilinear", "bilinear", "bicubic", "lanczos3", "lanczos5", "area"))
    size = (r.randint(3, 14), r.randint(3, 14))
    ways = [
        f"L.UpSampling2D({(r.randint(1, 3), r.randint(1, 3))}, interpolation={way!r})({x})",
        f"L.Resizing({size[0]}, {size[1]}, interpolation={way!r}, antialias={r.random() < 0.2}, "
        f"crop_to_aspect_ratio={r.random() < 0.2})({x})",
        f"L.CenterCrop({r.randint(2, 6)}, {r.randint(2, 6)})({x})",
        f"L.Rescaling({r.choice((1 / 255, 2.0))}, offset={r.choice((0.0, -1.0))})({x})",
        f"ops.image.resize({x}, {size}, interpolation={way!r}, antialias={r.random() < 0.3})",
        f"ops.image.pad_images({x}, 1, 2, 1, 0)", f"ops.image.crop_images({x}, 1, 0, 1, 1)",
        f"ops.image.extract_patches({x}, {r.randint(1, 3)}, padding={pick(r, 'same', 'valid')!r})",
        f"ops.image.rgb_to_grayscale({x})", f"ops.image.rgb_to_hsv(ops.sigmoid({x}))",
        f"L.ZeroPadding2D((({r.randint(0, 2)}, 1), (0, {r.randint(0, 2)})))({x})",
        f"L.Cropping2D((({r.randint(0, 1)}, 1), (0, {r.randint(0, 2)})))({x})",
        f"L.ConvLSTM1D(2, 2, padding='same', return_sequences={r.random() < 0.5})({x})",
        f"L.Permute((2, 1, 3))({x})", f"L.Permute((3, 1, 2))({x})",
        f"ops.nn.depth_to_space({x}, 2)" if hasattr(n.names["ops"].nn, "depth_to_space") else f"L.Flatten()({x})",
    ]  # fmt: skip
    return r.choice(ways)


@of_rank(3, weight=5)
def recur(n: Net, r: random.Random, x: str) -> str:
    units = r.randint(1, 5)
    cell = r.choice(("LSTM", "GRU", "SimpleRNN"))
    acts = f"activation={r.choice(('tanh', 'tanh', 'relu', 'sigmoid', 'linear'))!r}"
    if cell != "SimpleRNN":
        acts += f", recurrent_activation={r.choice(('sigmoid', 'sigmoid', 'hard_sigmoid', 'tanh'))!r}"
    if cell == "GRU":
        acts += f", reset_after={r.random() < 0.7}"
    all_steps = r.random() < 0.6
    given = f"{units}, {acts}, use_bias={r.random() < 0.8}, return_sequences={all_steps}, unroll={r.random() < 0.1}"
    back = f", go_backwards={r.random() < 0.3}"
    mask = r.choice(("", "", "", "any", "tokens"))
    source = f"L.Masking(0.0)(ops.relu({x}))" if mask == "any" else x
    vectors = [v for v, w in n.values.items() if len(w.shape) == 2 and n.is_real(v)]
    state = ""
    if vectors and r.random() < 0.4:
        y = r.choice(vectors)
        begin = f"L.Dense({units})({y})"
        state = f", initial_state=[{begin}, {begin}]" if cell == "LSTM" else f", initial_state={begin}"
    ways = [
        f"L.{cell}({given}{back})({source}{state})",
        f"L.{cell}({given}{back}, zero_output_for_mask=True)({source}{state})" if all_steps else f"L.{cell}({given}{back})({x})",
        f"L.Bidirectional(L.{cell}({given}), merge_mode={pick(r, 'concat', 'sum', 'mul', 'ave')!r})({source})",
        f"L.{cell}({given}, return_state=True)({x})[{pick(r, 0, 1)}]",
        f"L.RNN([L.{cell}Cell({units}), L.GRUCell(3)], return_sequences={all_steps})({source})",
        f"L.TimeDistributed(L.Dense({units}, activation='tanh'))({source})",
        f"L.TimeDistributed(L.Dense({units}))({source})",
    ]  # fmt: skip
    return r.choice(ways)


@of_rank(3, weight=3)
def attend(n: Net, r: random.Random, x: str) -> str:
    others = [
        v for v, w in n.values.items() if len(w.shape) == 3 and n.is_real(v) and w.shape[0] == n.size(x, 0)
    ]
    y = r.choice(others) if others else x
    width = [v for v in others if n.size(v, -1) == n.size(x, -1)] or [x]
    ways = [
        f"L.MultiHeadAttention({r.randint(1, 3)}, {r.randint(1, 4)}, value_dim={r.choice((None, 2))}, use_bias={r.random() < 0.7})({x}, {y})",
        f"L.MultiHeadAttention(2, 3)({x}, {x}, use_causal_mask=True)",
        f"L.GroupQueryAttention(2, 4, 2)({x}, {y}, use_causal_mask={r.random() < 0.5})",
        f"L.Attention(use_scale={r.random() < 0.5}, score_mode={pick(r, 'dot', 'concat')!r})([{x}, {r.choice(width)}])",
        f"L.AdditiveAttention()([{x}, {r.choice(width)}])",
        f"L.Attention()([{x}, {x}], use_causal_mask=True)",
        f"ops.dot_product_attention(ops.expand_dims({x}, 2), ops.expand_dims({x}, 2), ops.expand_dims({x}, 2), is_causal={r.random() < 0.5})",
        f"L.Dot(axes=(2, 2), normalize={r.random() < 0.4})([{x}, {r.choice(width)}])",
        f"L.Dot(axes=(1, 1))([{x}, {n.like(r, x)}])",
    ]  # fmt: skip
    return r.choice(ways)


@of_rank(2, weight=4)
def from_vectors(n: Net, r: random.Random, x: str) -> str | None:
    if "int" in str(n.values[x].dtype):
        size = r.randint(2, 5)
        ways = [
            f"L.Embedding(8, {size}, mask_zero={r.random() < 0.5})({x})", f"L.Embedding(8, {size})({x})",
            f"L.LSTM({size}, return_sequences={r.random() < 0.5})(L.Embedding(8, 4, mask_zero=True)({x}))",
            f"L.Bidirectional(L.GRU({size}, return_sequences={r.random() < 0.5}))(L.Embedding(8, 4, mask_zero=True)({x}))",
            f"L.CategoryEncoding(8, output_mode={pick(r, 'multi_hot', 'count')!r})({x})",
            f"L.GlobalAveragePooling1D()(L.Embedding(8, 4, mask_zero=True)({x}))",
            f"L.MultiHeadAttention(2, 2)(*[L.Embedding(8, 4, mask_zero=True)({x})] * 2)",
            f"ops.one_hot({x}, {r.randint(6, 9)})", f"L.IntegerLookup(vocabulary=[1, 2, 5, 7], output_mode={pick(r, 'int', 'multi_hot')!r})({x})",
            f"L.Hashing(5)({x})", f"ops.cumsum({x}, 1)", f"{x} // 3", f"{x} % 3", f"ops.cast({x}, 'float32')",
        ]  # fmt: skip
        return r.choice(ways)
    ways = [
        f"L.RepeatVector({r.randint(1, 4)})({x})", f"L.Discretization([-1.0, 0.0, 0.5])({x})",
        f"L.UnitNormalization()({x})", f"ops.top_k({x}, 1)[0]", f"L.Dense({r.randint(1, 12)})({x})",
        f"L.EinsumDense('ab,bc->ac', {r.randint(1, 6)}, bias_axes='c')({x})",
    ]  # fmt: skip
    return r.choice(ways)


@of_rank(weight=6)
def layer(n: Net, r: random.Random, x: str) -> str:
    if not n.is_real(x):
        return f"ops.cast({x}, 'float32')"
    rank = len(n.values[x].shape)
    axis = r.choice((-1, -1, r.randint(1, max(1, rank - 1))))
    ways = [
        f"L.Dense({r.randint(1, 6)}, activation={activation(r)!r})({x})",
        f"L.Activation({r.choice(ACTIVATIONS)!r})({x})", f"L.Activation({r.choice(ACTIVATIONS)!r})({x})",
        f"L.LeakyReLU({r.choice((0.1, 0.5))})({x})", f"L.ELU({r.choice((1.0, 0.3))})({x})", f"L.PReLU()({x})",
        f"L.PReLU(shared_axes={list(range(1, max(2, rank - 1)))})({x})",
        f"L.ReLU(max_value={r.choice((None, 1.0, 6.0))}, negative_slope={r.choice((0.0, 0.2))}, threshold={r.choice((0.0, 0.3))})({x})",
        f"L.Softmax(axis={axis})({x})", f"L.BatchNormalization(axis={axis}, scale={r.random() < 0.7}, center={r.random() < 0.7})({x})",
        f"L.BatchNormalization()({x})", f"L.LayerNormalization(axis={axis})({x})", f"L.RMSNormalization()({x})",
        f"L.LayerNormalization(axis={list(range(1, rank)) or -1}, scale=False)({x})",
        f"L.GroupNormalization({r.choice((1, 2, -1))}, axis={axis})({x})", f"L.UnitNormalization(axis={axis})({x})",
        f"L.Flatten()({x})", f"L.Reshape((-1,))({x})", f"L.Reshape((-1, {r.randint(1, 3)}))({x})",
        f"L.Normalization(axis=None, mean=0.3, variance=2.0)({x})", f"L.SpectralNormalization(L.Dense(3))({x})",
        f"L.Identity()({x})", f"L.GaussianNoise(0.1)({x})", f"L.ActivityRegularization(0.1)({x})",
    ]  # fmt: skip
    return r.choice(ways)


@of_rank(weight=4)
def merge(n: Net, r: random.Random, x: str) -> str:
    y = n.like(r, x)
    same_rank = [
        v
        for v, w in n.values.items()
        if len(w.shape) == len(n.values[x].shape) and w.dtype == n.values[x].dtype
    ]
    z = r.choice(same_rank)
    axis = r.randint(1, max(1, len(n.values[x].shape) - 1))
    kinds = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
    ways = [
        f"L.{r.choice(kinds)}()([{x}, {y}])", f"L.{r.choice(kinds)}()([{x}, {z}])",
        f"L.Concatenate(axis={axis})([{x}, {z}])", f"L.Concatenate(axis={axis})([{x}, {x}, {y}])",
        f"ops.stack([{x}, {y}], {axis})", f"ops.where({x} > 0, {y}, {x})", f"{x} * {z} + {y}",
        f"ops.logaddexp({x}, {y})", f"ops.arctan2({x}, {y})",
    ]  # fmt: skip
    return r.choice(ways)


@of_rank(weight=4)
def operate(n: Net, r: random.Random, x: str) -> str:
    if not n.is_real(x):
        return f"ops.cast({x}, 'float32')"
    rank = len(n.values[x].shape)
    axis = r.randint(1, max(1, rank - 1))
    keep = r.random() < 0.5
    kinds = ("sum", "mean", "max", "min", "prod", "std", "var", "logsumexp")
    ways = [
        f"ops.{r.choice(kinds)}({x}, axis={axis}, keepdims={keep})", f"ops.{r.choice(kinds)}({x}, axis={axis}, keepdims={keep})",
        f"{x}[:, 1:]", f"{x}[:, ::-1]", f"{x}[..., :1]", f"{x}[..., -1]", f"{x}[:, None]", f"{x}[..., None]",
        f"ops.roll({x}, 1, {axis})", f"ops.flip({x}, {axis})", f"ops.repeat({x}, 2, {axis})", f"ops.cumsum({x}, {axis})",
        f"ops.sort({x}, axis={axis})", f"ops.tile({x}, {[1] * (rank - 1) + [2]})", f"ops.split({x}, 1, {axis})[0]",
        f"ops.swapaxes({x}, {axis}, -1)", f"ops.clip({x}, -0.5, 0.7)", f"ops.abs({x})", f"ops.square({x})", f"ops.floor({x})",
        f"ops.round({x})", f"ops.sign({x})", f"ops.erf({x})", f"ops.sqrt(ops.abs({x}))", f"ops.rsqrt(ops.abs({x}) + 0.1)",
        f"ops.sin({x})", f"ops.expm1({x})", f"ops.log1p(ops.abs({x}))", f"ops.pad({x}, {[[0, 0]] + [[1, 2]] * (rank - 1)}, mode={pick(r, 'constant', 'reflect', 'symmetric')!r})",
        f"ops.take({x}, [0, 1, 0], axis={axis})", f"ops.cumprod({x}, {axis})", f"ops.argmax({x}, axis={axis})",
        f"ops.matmul({x}, ops.swapaxes({x}, -1, -2))", f"ops.logical_and({x} > 0, {x} < 1)", f"ops.normalize({x}, axis={axis})",
        f"ops.softmax({x}, axis={axis})", f"ops.any({x} > 0, axis={axis})", f"ops.diff({x}, axis={axis})", f"ops.argsort({x}, axis={axis})",
        f"ops.squeeze({x}[:, :1], 1)", f"ops.moveaxis({x}, -1, 1)", f"ops.cast({x}, 'int32')", f"ops.cast({x}, 'float16')",
        f"ops.glu({x}, -1)", f"ops.amin({x}, axis={axis})", f"ops.count_nonzero({x}, axis={axis})",
        f"ops.quantile({x}, 0.3, axis={axis})", f"ops.median({x}, axis={axis})", f"ops.tril({x})", f"ops.nan_to_num({x})",
        f"ops.floor_divide({x}, 0.7)", f"ops.mod({x}, 0.7)", f"ops.power(ops.abs({x}) + 0.1, 1.5)", f"ops.digitize({x}, np.array([-1.0, 0.0, 1.0]))",
        f"ops.reshape({x}, (-1, {r.randint(1, 4)}))", f"ops.einsum('...ij->...ji', {x})", f"ops.einsum('...i,...i->...', {x}, {x})",
        f"ops.scan(lambda c, a: (c + a, c * a), {x}[:, 0], ops.moveaxis({x}, 1, 0))[1]",
        f"ops.while_loop(lambda v: ops.sum(v) < 50, lambda v: (v * 1.5 + 1,), ({x},))[0]",
        f"ops.cond(ops.sum({x}) > 0, lambda: {x} * 2, lambda: {x} - 1)", f"ops.fori_loop(0, 3, lambda i, v: v * 0.5 + 1, {x})",
        f"ops.segment_sum({x}[0], np.array([0, 0, 1, 1, 1]), 3)", f"ops.unfold({x}, 2)",
    ]  # fmt: skip
    return r.choice(ways)


@of_rank(weight=1)
def nest(n: Net, r: random.Random, x: str) -> str:
    """A model as a layer."""
    shape = tuple(n.values[x].shape[1:])
    if not n.is_real(x):
        return f"ops.cast({x}, 'float32')"
    inner = r.choice(("L.Dense(3, activation='relu')", "L.LayerNormalization()", "L.BatchNormalization()"))
    return f"keras.Sequential([keras.Input({shape}), {inner}, L.Activation('tanh')])({x})"


def set_weights(model: Any, seed: int) -> None:
    """Weights and statistics that are not what layers begin with."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        if "float" not in str(w.dtype):
            continue
        values = rng.normal(size=w.shape) * (0.6 if len(w.shape) > 1 else 0.3)
        if "variance" in w.path:
            values = np.abs(values) + 0.3
        elif w.path.endswith(("gamma", "scale")):
            values = 1 + 0.3 * values
        w.assign(values)


make = fuzzing.make_by_seed


def check(case: dict[str, Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _check(case)


def _check(case: dict[str, Any]) -> str:
    import logging

    for name in ("tensorflow", "absl", "tf2onnx"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    seed = case["seed"]
    n = Net(seed, case["without"], case.get("policy", ""))
    if not n.outputs:
        return ""
    try:
        model = n.model()
        set_weights(model, seed)
        r = random.Random(seed + 7)
        rows = [n.data(r, batch) for batch in (2, 1)]
        wanted = results_of(model, rows)
        if not all(map(n.has_usual_values, rows)):
            return ""
    except Exception:
        return ""
    title = n.text() + "\n"
    for way in case.get("ways") or r.sample(("object", "file", "saved"), 1) + r.sample(FORMS, 2):
        with tempfile.TemporaryDirectory() as folder:
            try:
                wrong = check_way(n, model, way, rows, wanted, folder, case.get("strict", False))
            except OvjitError as error:
                wrong = f"refuses: {str(error)[-500:]}" if case.get("strict") else ""
            if wrong:
                return f"{title}{way}: {wrong}"
    return ""


def results_of(model: Any, rows: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """TensorFlow's, of one traced function: some layers are others without a trace."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(x.shape, x.dtype) for x in model.inputs])
    def call(*values: Any) -> Any:
        return tf.nest.flatten(model(list(values) if len(values) > 1 else values[0], training=False))

    return [[np.asarray(x) for x in call(*map(tf.constant, given))] for given in rows]


def check_way(
    n: Net, model: Any, way: str, rows: list[Any], wanted: list[Any], folder: str, strict: bool
) -> str:
    if way in ("object", "file", "saved"):
        source: Any = model
        if way == "file":
            source = os.path.join(folder, "m.keras")
            try:
                model.save(source)
                n.names["keras"].models.load_model(source, compile=False)
            except Exception:
                return ""
        elif way == "saved":
            source = os.path.join(folder, "m")
            try:
                model.export(source, verbose=False)
            except Exception:
                return ""
        run = Runner(ovjit.convert_model(source), n.compiles)
        for given, want in zip(rows, wanted, strict=True):
            if wrong := compare(run.by_name(n.inputs, given, way == "saved"), want, 2e-4, n.policy):
                return wrong
        return ""
    data = convert_lite(model, way, rows)
    if data is None:
        return ""
    path = os.path.join(folder, "m.tflite")
    with open(path, "wb") as file:
        file.write(data)
    run = Runner(ovjit.Core().read_model(path), n.compiles)
    for given, want in zip(rows, wanted, strict=True):
        try:
            lite = run_lite(path, given)
        except Exception:
            continue
        if lite is None:
            continue
        values, theirs = lite
        found = run(values)
        if len(found) != len(theirs):
            return f"{len(found)} outputs, not {len(theirs)}"
        if way in ("f32", "f16"):
            for i, result in enumerate(theirs):
                right = [result, *(w for w in want if w.shape == result.shape and w.dtype == result.dtype)]
                tries = [compare([found[i]], [w], 2e-4 if way == "f32" else 4e-3, n.policy) for w in right]
                if all(tries):
                    return f"output {i}: {tries[0]}"
        elif wrong := compare_steps(found, theirs, want, path):
            return wrong
    return ""


class Runner:
    """A model that is compiled, or evaluated by the references of operations, which takes no compiler."""

    def __init__(self, model: Any, compiles: bool):
        self.inputs, self.outputs = list(model.inputs), list(model.outputs)
        self.model = ovjit.compile_model(model, "CPU", F32) if compiles else model
        self.compiles = compiles

    def __call__(self, values: list[np.ndarray]) -> list[np.ndarray]:
        if self.compiles:
            results = self.model(dict(enumerate(values)))
            return [self.read(i, np.asarray(results[i])) for i in range(len(self.outputs))]
        made = [ovjit.Tensor(port.get_element_type(), ovjit.Shape([])) for port in self.outputs]
        assert self.model.evaluate(made, [ovjit.Tensor(np.ascontiguousarray(value)) for value in values])
        return [self.read(i, np.array(tensor.data)) for i, tensor in enumerate(made)]

    def read(self, i: int, values: np.ndarray) -> np.ndarray:
        """Values of an output; arrays hold those of bf16 as the bits of float16."""
        is_bf16 = self.outputs[i].get_element_type() == ovjit.Type.bf16
        return values.view(ml_dtypes.bfloat16) if is_bf16 else values

    def by_name(self, names: list[str], values: list[np.ndarray], saved: bool) -> list[np.ndarray]:
        """Of values of the inputs that `names` says; results of a SavedModel are named output_0 and so on."""
        of_name = dict(zip(names, values, strict=True))
        found = self(
            [
                next(of_name[x] for x in of_name if any(x in name for name in port.names))
                for port in self.inputs
            ]
        )
        if not saved or len(found) == 1:
            return found
        numbers = [int(re.findall(r"\d+", min(port.names))[-1]) for port in self.outputs]
        return [result for _, result in sorted(zip(numbers, found, strict=True), key=lambda row: row[0])]


def compare(found: list[np.ndarray], wanted: list[np.ndarray], tolerance: float, policy: str) -> str:
    if len(found) != len(wanted):
        return f"{len(found)} outputs, not {len(wanted)}"
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {i}: {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}"
        u, v = a.astype(np.float64), b.astype(np.float64)
        ends = v[np.isfinite(v)]
        scale = max(float(np.abs(ends).max()) if ends.size else 0.0, 1e-2)
        low = "float16" in policy or a.dtype == np.float16
        with np.errstate(invalid="ignore"):
            near = (
                (np.abs(u - v) <= (5e-2 if low else tolerance) * scale)
                | (u == v)
                | (np.isnan(u) & np.isnan(v))
            )
        if near.size and near.mean() < (0.8 if low else 1):
            where = np.argwhere(~near)[0]
            return (f"output {i} ({a.dtype}{list(a.shape)}): {1 - near.mean():.3f} wrong, at {where.tolist()} "
                    f"{a[tuple(where)]}, not {b[tuple(where)]}")  # fmt: skip
    return ""


def convert_lite(model: Any, form: str, rows: list[Any]) -> bytes | None:
    """A TensorFlow Lite file of a model, None where the converter refuses it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.experimental_new_converter = True
    if form != "f32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if form.startswith("i"):
        names = [t.name.split(":")[0] for t in model.inputs]
        converter.representative_dataset = lambda: (
            (dict(zip(names, row, strict=True)) if len(row) > 1 else list(row)) for row in rows
        )
        kinds = tf.lite.OpsSet
        converter.target_spec.supported_ops = [
            kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            if form == "i16x8" else kinds.TFLITE_BUILTINS_INT8, kinds.TFLITE_BUILTINS,
        ]  # fmt: skip
        if form == "i8":
            converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return bytes(converter.convert())
    except Exception:
        return None


def run_lite(path: str, given: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """(inputs in the file's order and types, outputs) of LiteRT."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(path, num_threads=1)
    details = interpreter.get_input_details()
    values = []
    for row in details:
        x = next(
            (v for i, v in enumerate(given) if f"x{i}" in row["name"]), given[0] if len(given) == 1 else None
        )
        if x is None:
            return None
        scale, zero = row["quantization"]
        if scale and row["dtype"] != x.dtype:
            limits = np.iinfo(row["dtype"])
            x = np.clip(np.round(x / scale) + zero, limits.min, limits.max)
        values.append(x.astype(row["dtype"]))
        if list(row["shape"]) != list(x.shape):
            if -1 not in row["shape_signature"]:
                return None
            interpreter.resize_tensor_input(row["index"], x.shape)
    interpreter.allocate_tensors()
    for row, x in zip(details, values, strict=True):
        interpreter.set_tensor(row["index"], x)
    interpreter.invoke()
    outputs = dict.fromkeys(row["index"] for row in interpreter.get_output_details())  # each tensor once
    return values, [interpreter.get_tensor(index) for index in outputs]


def compare_steps(
    found: list[np.ndarray], theirs: list[np.ndarray], wanted: list[np.ndarray], path: str
) -> str:
    """Results of quantised files: ours may be no further from those in floating point than LiteRT's."""
    import tensorflow as tf

    details = list({row["index"]: row for row in tf.lite.Interpreter(path).get_output_details()}.values())
    for i, (a, b) in enumerate(zip(found, theirs, strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {i}: {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}"
        scale, zero = details[i]["quantization"]
        u, v = (((t.astype(np.float64) - zero) * scale) if scale else t.astype(np.float64) for t in (a, b))
        same = [w for w in wanted if w.shape == a.shape]
        if not a.size or not np.isfinite(v).all() or not same:
            continue
        size = max(float(np.abs(w).max()) for w in same) if all(np.isfinite(w).all() for w in same) else 0
        if not size:
            continue
        far = min(float(np.abs(v - w).max()) for w in same)
        ours = min(float(np.abs(u - w).max()) for w in same)
        apart = float(np.abs(u - v).max())
        if apart > 3 * scale + 0.02 * size and ours > 1.5 * far + 2 * scale + 0.02 * size:
            return f"output {i} ({a.dtype}{list(a.shape)}): {ours / size:.3f} of the largest off, LiteRT {far / size:.3f}"
    return ""


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return fuzzing.without_steps(case, 9)


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
