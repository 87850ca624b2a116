"""Networks that `python -m bench.gpu` measures on a card, beside PyTorch's eager mode and `torch.compile`.

A network is a function of an object that has its operations, of which there are two: `Builder` makes a model
of ovjit, and `Eager` calls PyTorch. Both have the same random weights, in the order in which they are used.
So results can be compared, and neither torchvision nor transformers is needed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import ovjit as ov
from bench.gpu_worker import Item

op = ov.opset13
SEED = 20261130
#: Seconds for an item: PyTorch compiles a network in up to a minute.
SECONDS = 150.0
#: Added to variances.
EPSILON = 1e-5


class Builder:
    """The operations of a network for ovjit. `weights`: arrays to use first, in order; the others are drawn.
    The attribute of this name has those that were used."""

    def __init__(self, weights: Sequence[np.ndarray] = ()):
        self.weights: list[np.ndarray] = []
        self._first_weights, self._rng = iter(weights), np.random.default_rng(SEED)

    def weight(self, *shape: int, gain: float = 1.0, mean: float = 0.0) -> Any:
        array = next(self._first_weights, None)
        if array is None:
            size = np.float32(gain / np.sqrt(np.prod(shape[1:])))
            array = self._rng.standard_normal(shape, np.float32) * size + np.float32(mean)
        self.weights.append(array)
        return array

    def constant(self, array: np.ndarray) -> Any:
        self.weights.append(next(self._first_weights, array))
        return array

    def convolve(self, x: Any, ins: int, outs: int, taps: int = 1, stride: int = 1) -> Any:
        pads = [taps // 2 if stride < taps else 0] * 2
        y = op.convolution(x, self.weight(outs, ins, taps, taps), [stride] * 2, pads, pads, [1, 1])
        return op.add(y, self.weight(1, outs, 1, 1, gain=0.1))

    def convolve_channels(self, x: Any, channels: int, stride: int) -> Any:
        y = op.group_convolution(x, self.weight(channels, 1, 1, 3, 3), [stride] * 2, [1, 1], [1, 1], [1, 1])
        return op.add(y, self.weight(1, channels, 1, 1, gain=0.1))

    def enlarge(self, x: Any, ins: int, outs: int) -> Any:
        return op.convolution_backprop_data(x, self.weight(ins, outs, 2, 2), [2, 2])

    def pool(self, x: Any, taps: int = 3) -> Any:
        pads = [taps // 2 if taps > 2 else 0] * 2
        return op.max_pool(x, [2, 2], [1, 1], pads, pads, [taps, taps]).output(0)

    def join_channels(self, x: Any, y: Any) -> Any:
        return op.concat([x, y], 1)

    def list_patches(self, x: Any, batch: int, width: int, count: int) -> Any:
        """The pixels [batch, width, height, width] of images as rows, after a row of weights."""
        rows = op.transpose(op.reshape(x, [batch, width, count], False), [0, 2, 1])
        return op.concat([op.broadcast(self.weight(1, 1, width), [batch, 1, width]), rows], 1)

    def first_row(self, x: Any) -> Any:
        return op.gather(x, np.int64(0), np.int64(1))

    def mean(self, x: Any) -> Any:
        return op.reduce_mean(x, [2, 3], False)

    def multiply_weights(self, x: Any, ins: int, outs: int, biased: bool = True) -> Any:
        y = op.matmul(x, self.weight(outs, ins), False, True)
        return op.add(y, self.weight(1, outs, gain=0.1)) if biased else y

    def embed(self, ids: Any, rows: int, width: int) -> Any:
        return op.gather(self.weight(rows, width), ids, np.int64(0))

    def normalize(self, x: Any, width: int) -> Any:
        y = op.multiply(op.mvn(x, [-1], True, EPSILON, "inside_sqrt"), self.weight(1, width, mean=1))
        return op.add(y, self.weight(1, width))

    def normalize_size(self, x: Any, width: int) -> Any:
        mean = op.reduce_mean(op.power(x, np.float32(2)), [-1], True)
        scale = op.divide(np.float32(1), op.sqrt(op.add(mean, np.float32(EPSILON))))
        return op.multiply(op.multiply(x, scale), self.weight(1, width, mean=1))

    def split_heads(self, x: Any, batch: int, rows: int, heads: int, size: int) -> Any:
        return op.transpose(op.reshape(x, [batch, rows, heads, size], False), [0, 2, 1, 3])

    def join_heads(self, x: Any, batch: int, rows: int, width: int) -> Any:
        return op.reshape(op.transpose(x, [0, 2, 1, 3]), [batch, rows, width], False)

    def rotate(self, x: Any, cosine: Any, sine: Any) -> Any:
        parts = op.split(x, -1, 2)
        rotated = op.concat([op.negative(parts.output(1)), parts.output(0)], -1)
        return op.add(op.multiply(x, cosine), op.multiply(rotated, sine))

    def append(self, before: Any, x: Any) -> Any:
        return op.concat([op.convert(before, np.float32), x], 2)

    def attend(self, q: Any, k: Any, v: Any, shares: bool = False) -> Any:
        """Attention. `shares`: several heads of queries have one head of keys."""
        if not shares:
            return op.scaled_dot_product_attention(q, k, v, causal=False)
        (batch, heads, rows, size), (_, key_heads, _, _) = (list(x.get_output_shape(0)) for x in (q, k))
        q = op.reshape(q, [batch, key_heads, heads // key_heads, rows, size], False)
        y = op.scaled_dot_product_attention(q, *(op.unsqueeze(x, 2) for x in (k, v)), causal=False)
        return op.reshape(y, [batch, heads, rows, size], False)

    def add(self, x: Any, y: Any) -> Any:
        return op.add(x, y)

    def multiply(self, x: Any, y: Any) -> Any:
        return op.multiply(x, y)

    def relu(self, x: Any) -> Any:
        return op.relu(x)

    def relu6(self, x: Any) -> Any:
        return op.clamp(x, 0.0, 6.0)

    def gelu(self, x: Any) -> Any:
        return op.gelu(x, "erf")

    def swish(self, x: Any) -> Any:
        return op.swish(x)


class Eager:
    """The same for tensors of PyTorch, with the weights of a `Builder` as tensors."""

    def __init__(self, torch: Any, weights: Sequence[Any]):
        self._torch, self._functional, self._weights, self._used = torch, torch.nn.functional, weights, 0
        self.add, self.multiply, self.relu = torch.add, torch.mul, self._functional.relu
        self.gelu, self.swish, self.relu6 = (getattr(self._functional, n) for n in ("gelu", "silu", "relu6"))

    def weight(self, *shape: int) -> Any:
        self._used += 1
        return self._weights[self._used - 1]

    def constant(self, array: np.ndarray) -> Any:
        return self.weight()

    def convolve(self, x: Any, ins: int, outs: int, taps: int = 1, stride: int = 1) -> Any:
        w, bias = self.weight(), self.weight()
        return self._functional.conv2d(x, w, bias.reshape(-1), stride, taps // 2 if stride < taps else 0)

    def convolve_channels(self, x: Any, channels: int, stride: int) -> Any:
        w, bias = self.weight(), self.weight()
        w = w.reshape(channels, 1, 3, 3)
        return self._functional.conv2d(x, w, bias.reshape(-1), stride, 1, groups=channels)

    def enlarge(self, x: Any, ins: int, outs: int) -> Any:
        return self._functional.conv_transpose2d(x, self.weight(), None, 2)

    def pool(self, x: Any, taps: int = 3) -> Any:
        return self._functional.max_pool2d(x, taps, 2, taps // 2 if taps > 2 else 0)

    def join_channels(self, x: Any, y: Any) -> Any:
        return self._torch.cat([x, y], 1)

    def list_patches(self, x: Any, batch: int, width: int, count: int) -> Any:
        rows = x.reshape(batch, width, count).transpose(1, 2)
        return self._torch.cat([self.weight().expand(batch, 1, width), rows], 1)

    def first_row(self, x: Any) -> Any:
        return x[:, 0]

    def mean(self, x: Any) -> Any:
        return x.mean((2, 3))

    def multiply_weights(self, x: Any, ins: int, outs: int, biased: bool = True) -> Any:
        w = self.weight()
        return self._functional.linear(x, w, self.weight().reshape(-1) if biased else None)

    def embed(self, ids: Any, rows: int, width: int) -> Any:
        return self._functional.embedding(ids, self.weight())

    def normalize(self, x: Any, width: int) -> Any:
        w, bias = self.weight(), self.weight()
        return self._functional.layer_norm(x, (width,), w.reshape(-1), bias.reshape(-1), EPSILON)

    def normalize_size(self, x: Any, width: int) -> Any:
        return self._functional.rms_norm(x, (width,), self.weight().reshape(-1), EPSILON)

    def split_heads(self, x: Any, batch: int, rows: int, heads: int, size: int) -> Any:
        return x.reshape(batch, rows, heads, size).transpose(1, 2)

    def join_heads(self, x: Any, batch: int, rows: int, width: int) -> Any:
        return x.transpose(1, 2).reshape(batch, rows, width)

    def rotate(self, x: Any, cosine: Any, sine: Any) -> Any:
        first, second = x.chunk(2, -1)
        return x * cosine + self._torch.cat([-second, first], -1) * sine

    def append(self, before: Any, x: Any) -> Any:
        return self._torch.cat([before, x], 2)

    def attend(self, q: Any, k: Any, v: Any, shares: bool = False) -> Any:
        return self._functional.scaled_dot_product_attention(q, k, v, enable_gqa=shares)


# --- networks


def resnet(net: Any, x: Any, *, width: int, counts: Sequence[int], classes: int) -> Any:
    """ResNet-50 by `counts` of blocks, whose normalizations are folded into convolutions."""
    x, ins = net.pool(net.relu(net.convolve(x, 3, width, 7, 2))), width
    for stage, count in enumerate(counts):
        inner = width << stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            y = net.relu(net.convolve(x, ins, inner))
            y = net.relu(net.convolve(y, inner, inner, 3, stride))
            y = net.convolve(y, inner, 4 * inner)
            x = net.relu(net.add(y, x if block else net.convolve(x, ins, 4 * inner, 1, stride)))
            ins = 4 * inner
    return net.multiply_weights(net.mean(x), ins, classes)


def mobilenet(
    net: Any, x: Any, *, width: int, stages: Sequence[tuple[int, ...]], last: int, classes: int
) -> Any:
    """MobileNetV2. `stages`: the factor of inner channels, channels, blocks, and the first block's stride."""
    x, ins = net.relu6(net.convolve(x, 3, width, 3, 2)), width
    for factor, outs, count, stride in stages:
        for block in range(count):
            inner = factor * ins
            y = x if factor == 1 else net.relu6(net.convolve(x, ins, inner))
            y = net.relu6(net.convolve_channels(y, inner, 1 if block else stride))
            y = net.convolve(y, inner, outs)
            x, ins = net.add(x, y) if block else y, outs
    return net.multiply_weights(net.mean(net.relu6(net.convolve(x, ins, last))), last, classes)


def unet(net: Any, x: Any, *, width: int, levels: int, classes: int) -> Any:
    """A U-Net, whose images have sides of a multiple of 2**levels."""

    def convolve_twice(x: Any, ins: int, outs: int) -> Any:
        return net.relu(net.convolve(net.relu(net.convolve(x, ins, outs, 3)), outs, outs, 3))

    ins, skips = 3, []
    for level in range(levels):
        skips.append(convolve_twice(x, ins, width << level))
        x, ins = net.pool(skips[-1], 2), width << level
    x, ins = convolve_twice(x, ins, 2 * ins), 2 * ins
    for y in reversed(skips):
        x, ins = convolve_twice(net.join_channels(y, net.enlarge(x, ins, ins // 2)), ins, ins // 2), ins // 2
    return net.convolve(x, ins, classes)


def attend_rows(net: Any, x: Any, batch: int, rows: int, width: int, heads: int) -> Any:
    """Attention of rows to rows, with its four products."""
    q, k, v = (
        net.split_heads(net.multiply_weights(x, width, width), batch, rows, heads, width // heads)
        for _ in range(3)
    )
    return net.multiply_weights(net.join_heads(net.attend(q, k, v), batch, rows, width), width, width)


def vit(
    net: Any,
    x: Any,
    *,
    batch: int,
    patch: int,
    patches: int,
    width: int,
    heads: int,
    layers: int,
    classes: int,
) -> Any:
    """A vision transformer."""
    x = net.list_patches(net.convolve(x, 3, width, patch, patch), batch, width, patches)
    x = net.add(x, net.weight(patches + 1, width))
    for _ in range(layers):
        x = net.add(x, attend_rows(net, net.normalize(x, width), batch, patches + 1, width, heads))
        y = net.gelu(net.multiply_weights(net.normalize(x, width), width, 4 * width))
        x = net.add(x, net.multiply_weights(y, 4 * width, width))
    return net.multiply_weights(net.first_row(net.normalize(x, width)), width, classes)


def bert(
    net: Any, ids: Any, *, batch: int, rows: int, width: int, heads: int, layers: int, words: int
) -> Any:
    """BERT without masks."""
    x = net.add(net.embed(ids, words, width), net.weight(rows, width))
    x = net.normalize(x, width)
    for _ in range(layers):
        x = net.normalize(net.add(x, attend_rows(net, x, batch, rows, width, heads)), width)
        y = net.gelu(net.multiply_weights(x, width, 4 * width))
        x = net.normalize(net.add(x, net.multiply_weights(y, 4 * width, width)), width)
    return x


def llama(
    net: Any, ids: Any, *past: Any, batch: int, rows: int, width: int, inner: int, heads: int, key_heads: int,
    layers: int, words: int,
) -> Any:  # fmt: skip
    """The scores of words behind a token, for keys and values of `rows` earlier ones."""
    size = width // heads
    angles = rows / 10000 ** (np.arange(size // 2) / (size // 2))
    cosine, sine = (np.tile(f(angles), 2).astype(np.float32)[None] for f in (np.cos, np.sin))
    cosine, sine, x = net.constant(cosine), net.constant(sine), net.embed(ids, words, width)
    for layer in range(layers):
        y = net.normalize_size(x, width)
        q, k, v = (
            net.split_heads(net.multiply_weights(y, width, n * size, False), batch, 1, n, size)
            for n in (heads, key_heads, key_heads)
        )
        k = net.append(past[2 * layer], net.rotate(k, cosine, sine))
        y = net.attend(net.rotate(q, cosine, sine), k, net.append(past[2 * layer + 1], v), True)
        y = net.multiply_weights(net.join_heads(y, batch, 1, width), width, width, False)
        x = net.add(x, y)
        y = net.normalize_size(x, width)
        gate = net.swish(net.multiply_weights(y, width, inner, False))
        y = net.multiply(gate, net.multiply_weights(y, width, inner, False))
        x = net.add(x, net.multiply_weights(y, inner, width, False))
    return net.multiply_weights(net.normalize_size(x, width), width, words, False)


class Network(NamedTuple):
    """A network: its function and sizes. `side`: of images; 0 for networks of words."""

    name: str
    function: Callable[..., Any]
    sizes: dict[str, Any]
    side: int = 0

    def inputs(self, batch: int) -> list[np.ndarray]:
        rng, sizes = np.random.default_rng(SEED + 1), self.sizes
        if self.side:
            return [rng.standard_normal((batch, 3, self.side, self.side), np.float32).astype(np.float16)]
        rows = sizes["rows"]
        if "key_heads" not in sizes:
            return [rng.integers(0, sizes["words"], (batch, rows))]
        shape = batch, sizes["key_heads"], rows, sizes["width"] // sizes["heads"]
        past = [rng.standard_normal(shape, np.float32).astype(np.float16) for _ in range(2 * sizes["layers"])]
        return [rng.integers(0, sizes["words"], (batch, 1)), *past]

    def apply(self, net: Any, batch: int, inputs: Sequence[Any]) -> Any:
        further = {"batch": batch} if "heads" in self.sizes else {}
        return self.function(net, *inputs, **self.sizes, **further)

    def build(self, batch: int, weights: Sequence[np.ndarray] = ()) -> tuple[ov.Model, list[np.ndarray]]:
        """The model, and its weights."""
        net, arrays = Builder(weights), self.inputs(batch)
        parameters = [op.parameter(list(a.shape), a.dtype, name=f"x{i}") for i, a in enumerate(arrays)]
        images = [op.convert(parameters[0], np.float32)] if self.side else parameters
        return ov.Model([self.apply(net, batch, images)], parameters, self.name), net.weights


NETWORKS = (
    Network("ResNet-50", resnet, {"width": 64, "counts": (3, 4, 6, 3), "classes": 1000}, 224),
    Network("BERT-base, 128 words", bert, {
        "rows": 128, "width": 768, "heads": 12, "layers": 12, "words": 30522}),
    Network("MobileNetV2", mobilenet, {
        "width": 32, "last": 1280, "classes": 1000, "stages": (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
            (6, 320, 1, 1))}, 224),
    Network("ViT-base", vit, {
        "patch": 16, "patches": 196, "width": 768, "heads": 12, "layers": 12, "classes": 1000}, 224),
    Network("U-Net, 256 x 256", unet, {"width": 64, "levels": 4, "classes": 2}, 256),
    Network("a token of a Llama of 8 layers, 512 words before", llama, {
        "rows": 512, "width": 2048, "inner": 8192, "heads": 32, "key_heads": 8, "layers": 8, "words": 32000}),
)  # fmt: skip
BATCHES = (1, 32)
#: What is measured of PyTorch, and the mode of `torch.compile`.
WAYS = {"torch": "", "torch.compile": "reduce-overhead"}


def title(network: Network, batch: int) -> str:
    return f"{network.name}, batch {batch}"


#: Name -> weights of the last network.
_weights: dict[str, list[np.ndarray]] = {}


def weights_of(network: Network) -> list[np.ndarray]:
    """The weights of a network, which do not depend on the batch."""
    if network.name not in _weights:
        _weights.clear()  # before: they are gigabytes
        _weights[network.name] = network.build(1)[1]
    return _weights[network.name]


#: Title -> ovjit's result in this process.
_results: dict[str, np.ndarray] = {}


def measure_ovjit(time_of: Callable[..., float], seconds: float) -> Iterator[Item]:
    """The time of networks from call to result with tensors on the card, and to the first result."""

    def run(network: Network, batch: int) -> list[dict[str, Any]]:
        model, _ = network.build(batch, weights_of(network))
        start_s = time.perf_counter()
        compiled = ov.Core().compile_model(model, "GPU")
        request, context = compiled.create_infer_request(), ov.Core().get_default_context("GPU")
        for port, array in zip(compiled.inputs, network.inputs(batch), strict=True):
            tensor = context.create_tensor(port.element_type, list(array.shape), {})
            tensor.copy_from(ov.Tensor(array))
            request.set_tensor(port, tensor)
        output = compiled.outputs[0]
        result = context.create_tensor(output.element_type, output.shape, {})
        request.set_tensor(output, result)
        request.infer()
        first = time.perf_counter() - start_s
        spent = time_of(request.infer, seconds)
        array = ov.Tensor(output.element_type, output.shape)
        result.copy_to(array)
        _results[title(network, batch)] = np.array(array.data)
        return [{"what": title(network, batch), "us": round(1e6 * spent, 1), "first s": round(first, 1)}]

    for network in NETWORKS:
        for batch in BATCHES:
            yield Item(title(network, batch), functools.partial(run, network, batch), SECONDS)


def measure_torch(torch: Any, time_of: Callable[..., float], seconds: float, device: str) -> Iterator[Item]:
    """PyTorch's times in f16, and how far its results are from ovjit's, as a part of the largest."""

    def run(network: Network, batch: int, way: str) -> list[dict[str, Any]]:
        module = module_of(torch, network, batch, device)
        inputs = [to_device(torch, array, device, network.side > 0) for array in network.inputs(batch)]
        start_s = time.perf_counter()
        torch.compiler.reset()  # else another batch would have code for any
        function = torch.compile(module, mode=WAYS[way], dynamic=False) if WAYS[way] else module
        with torch.inference_mode():
            for _ in range(4):  # further calls record CUDA graphs
                result = function(*inputs)
            array = result.float().cpu().numpy()
            row: dict[str, Any] = {
                "what": title(network, batch),
                f"{way} s": round(time.perf_counter() - start_s, 1),
            }
            spent = time_of(lambda: wait(torch, function(*inputs)), seconds)
        row[f"{way} us"] = round(1e6 * spent, 1)
        want = _results.get(title(network, batch))
        if want is not None:
            row[f"{way} difference"] = float(f"{np.abs(array - want).max() / np.abs(want).max():.2g}")
        return [row]

    for way in WAYS:
        for batch in BATCHES:
            for network in NETWORKS:
                name = f"{way} {title(network, batch)}"
                yield Item(name, functools.partial(run, network, batch, way), SECONDS)


def module_of(torch: Any, network: Network, batch: int, device: str) -> Any:
    """A network of PyTorch in f16. Its weights are parameters: CUDA graphs copy other tensors in calls."""

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            tensors = (to_device(torch, array, device, network.side > 0) for array in weights_of(network))
            self.weights = torch.nn.ParameterList(
                [torch.nn.Parameter(t, requires_grad=False) for t in tensors]
            )

        def forward(self, *inputs: Any) -> Any:
            return network.apply(Eager(torch, self.weights), batch, inputs)

    return Module()


def to_device(torch: Any, array: np.ndarray, device: str, has_images: bool) -> Any:
    """A tensor, floats in f16, and channels last for images and their filters."""
    tensor = torch.from_numpy(array).to(device)
    tensor = tensor.half() if tensor.is_floating_point() else tensor
    return tensor.to(memory_format=torch.channels_last) if has_images and tensor.dim() == 4 else tensor


def wait(torch: Any, result: Any) -> Any:
    """Wait for a result on the card."""
    if result.is_cuda:
        torch.cuda.synchronize()
    return result
