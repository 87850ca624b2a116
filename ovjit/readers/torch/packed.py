"""Layers with weights of 4 or 8 bits (GPTQ, AWQ, torchao, compressed-tensors) -> OpenVINO's pattern of them.

While its model is traced or exported, such a layer is one operator. That operator is read as a MatMul with
(Convert(codes) - zero) * scale, which stays packed when the model is compiled. Embeddings are Gathers of it:

    codes u4 [out, groups, group] -> Convert -> Subtract -> Multiply -> Reshape [out, in] -> MatMul

A layer is known by its attributes, as the classes differ from package to package. Its unpacked weights are
checked against what the layer itself computes; one that computes otherwise keeps its own arithmetic.
"""

from __future__ import annotations

import contextlib
from functools import cache

from ovjit.build import make_constant
from ovjit.errors import unless_of_signal
from ovjit.graph.converted import Unmade, Unpacked
from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.tracing.patches import patch
from ovjit.readers.torch.tracing.trace import is_script

#: The operator for a layer while a model is traced: ovjit::packed_layer(x, number, outputs, dtype).
OPERATOR = "ovjit::packed_layer"
#: AWQ's order of the 8 numbers of 4 bits in a word.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
#: How far a layer's own result may be from that of its unpacked weights, as a share of the largest number.
_AGREES = 2e-2


class Packed(NamedTuple):
    """A layer: codes [out, in], zero points and scales [out, groups], `kind` of the codes, the bias.

    `zeros` may be None, and `order` says which column of the codes belongs to each input, None for its own.
    `rows` is the type of an embedding's rows, None for a linear layer.
    """

    codes: np.ndarray
    zeros: np.ndarray | None
    scales: np.ndarray
    kind: str
    bias: np.ndarray | None
    order: np.ndarray | None = None
    rows: Any = None

    def weights(self) -> np.ndarray:
        """The matrix [out, in] in f32."""
        outs, depth = self.codes.shape
        groups = self.scales.shape[1]
        real = self.codes.reshape(outs, groups, -1).astype(np.float32)
        if self.zeros is not None:
            real -= self.zeros[..., None].astype(np.float32)
        real *= self.scales[..., None].astype(np.float32)
        matrix = real.reshape(outs, depth)
        return matrix if self.order is None else matrix[:, self.order]


@contextlib.contextmanager
def packed_layers(root: Any) -> Iterator[Mapping[str, Callable[..., Any]]]:
    """Context manager in which layers with packed weights call `OPERATOR`. Yields the converter for it."""
    layers: list[Packed] = []
    rows = []
    for module in root.modules() if hasattr(root, "modules") and not is_script(root) else ():
        packed = _layer_of(module)
        if packed is not None:
            rows.append((module, "forward", _forward(len(layers), packed)))
            layers.append(packed)

    def convert(call: Call, arguments: Mapping[str, Any]) -> Any:
        x, number, _, dtype = arguments.values()
        layer = layers[int(number)]
        result = linear(call, x, layer) if layer.rows is None else table(call, x, layer)
        return call.convert(result, element_type(dtype))

    with patch(*rows):
        yield {OPERATOR: convert} if layers else {}


def _forward(number: int, layer: Packed) -> Callable[..., Any]:
    operator, (outputs, depth) = _operator(), layer.codes.shape
    if layer.rows is not None:
        return lambda x, *_, **__: operator(x, number, depth, layer.rows)
    return lambda x, *_, **__: operator(x, number, outputs, x.dtype)


@cache
def _operator() -> Any:
    """The operator, registered with PyTorch once for a process."""

    def result_shape(x: torch.Tensor, outputs: int) -> tuple[int, ...]:
        return (*(x.shape[:-1] if x.is_floating_point() else x.shape), outputs)

    def empty(x: torch.Tensor, number: int, outputs: int, dtype: torch.dtype) -> torch.Tensor:
        return x.new_zeros(result_shape(x, outputs), dtype=dtype)

    kinds = {"x": torch.Tensor, "number": int, "outputs": int, "dtype": torch.dtype, "return": torch.Tensor}
    empty.__annotations__ = kinds
    result = torch.library.custom_op(OPERATOR, empty, mutates_args=())
    result.register_fake(lambda x, number, outputs, dtype: x.new_empty(result_shape(x, outputs), dtype=dtype))
    return result


def linear(n: Call, x: Output, layer: Packed) -> Output:
    """A linear layer: x [..., in] times the dequantized weights, plus its bias."""
    real = _matrix(n, layer)
    if layer.order is not None:
        x = n("Gather", x, np.argsort(layer.order), -1)
    result = n("MatMul", n.convert(x, "f32"), real, transpose_a=False, transpose_b=True)
    return result if layer.bias is None else n("Add", result, n.const(layer.bias.astype(np.float32)))


def table(n: Call, x: Output, layer: Packed) -> Output:
    """An embedding: the rows of the table at the indices x."""
    rows = n("Gather", _matrix(n, layer), x, 0)
    return rows if layer.order is None else n("Gather", rows, layer.order, -1)


def _matrix(n: Call, layer: Packed) -> Output:
    """The weights [out, in] in f32, of codes in the layer's own order of inputs."""
    outs, depth = layer.codes.shape
    groups = layer.scales.shape[1]
    shape = (outs, groups, depth // groups) if groups > 1 else (outs, depth)
    each = (outs, groups, 1) if groups > 1 else (outs, 1)
    kind = "f16" if layer.scales.dtype == np.float16 else "f32"
    real = n.convert(_code_constant(layer.codes.reshape(shape), layer.kind), kind)
    if layer.zeros is not None:
        zeros = layer.zeros.reshape(each)
        fits = zeros.min() >= 0 and zeros.max() <= 15 and layer.kind == "u4"
        codes = _code_constant(zeros.astype(np.uint8), "u4") if fits else n.const(zeros.astype(np.int16))
        real = n("Subtract", real, n.convert(codes, kind))
    real = n("Multiply", real, n.const(layer.scales.reshape(each)))
    return n.convert(n.reshape(real, [outs, depth]) if groups > 1 else real, "f32")


def _code_constant(values: np.ndarray, kind: str) -> Output:
    """A constant of 4 or 8 bits."""
    stored: np.ndarray | Unmade = values
    if kind in ("u4", "i4"):
        flat = (values.reshape(-1).astype(np.int16) & 15).astype(np.uint8)
        flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
        stored = Unpacked(flat[0::2] | flat[1::2] << 4, values.shape, kind)
    return make_constant(stored, kind, tuple(values.shape))


# -- what layers look like ---------------------------------------------------------------------------------


def _layer_of(module: Any) -> Packed | None:
    """The packed weights of a module; None for a module without any, or with another computation."""
    for read in (_gptq, _awq, _torchao, _compressed_tensors):
        try:
            candidates = read(module)
        except (AttributeError, TypeError, ValueError, IndexError, RuntimeError):
            continue  # attributes of another meaning
        ordered = sorted(candidates, key=lambda layer: _distance(module, layer))  # of equal ones the first
        if ordered and _distance(module, ordered[0]) <= _AGREES:
            return ordered[0]
    return None


def _distance(module: Any, layer: Packed) -> float:
    """Return the maximum error of a layer's result with these weights, relative to the largest value.

    It is 0 for a layer that cannot run here, and infinite for a result of another shape.
    """
    outs, depth = layer.codes.shape
    if layer.rows is not None:
        inputs, expected = [torch.arange(outs)], layer.weights()
    else:
        x = torch.randn(3, depth, generator=torch.Generator().manual_seed(0))
        inputs = [x.to(kind) for kind in (torch.float32, torch.float16, torch.bfloat16)]
        bias = 0 if layer.bias is None else layer.bias.astype(np.float32)
        expected = x.numpy() @ layer.weights().T + bias
    for values in inputs:
        try:
            with torch.no_grad():
                result = module(values).float().numpy()
        except unless_of_signal(Exception):  # whatever its kernels raise
            continue
        most = float(np.abs(expected).max()) or 1.0
        return float(np.abs(result - expected).max()) / most if result.shape == expected.shape else np.inf
    return 0.0


def _words(tensor: Any, bits: int, axis: int) -> np.ndarray:
    """Unpack 32-bit words along an axis to codes of `bits` bits, the lowest bits first."""
    words = tensor.detach().cpu().numpy().view(np.uint32)
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    words = np.moveaxis(words, axis, -1)
    codes = (words[..., None] >> shifts & np.uint32((1 << bits) - 1)).astype(np.uint8)
    return np.moveaxis(codes.reshape(*words.shape[:-1], -1), -1, axis)


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _bias(module: Any) -> np.ndarray | None:
    return None if getattr(module, "bias", None) is None else _array(module.bias)


def _gptq(module: Any) -> list[Packed]:
    """Read GPTQ: codes are packed along the inputs. In its first format, stored zero points are one too
    small."""
    if not all(hasattr(module, name) for name in ("qweight", "qzeros", "scales", "bits")):
        return []
    bits = int(module.bits)
    if bits not in (4, 8) or module.qweight.shape[1] != module.scales.shape[1]:
        return []
    codes = _words(module.qweight, bits, 0)
    scales = _array(module.scales).T
    zeros = _words(module.qzeros, bits, 1)[:, : codes.shape[1]].T
    groups = _groups(module, codes.shape[0], scales.shape[1])
    codes, order = _by_groups(codes.T, groups)
    if not np.array_equal(np.bincount(groups), np.full(scales.shape[1], len(groups) // scales.shape[1])):
        return []
    points = zeros.astype(np.int16)
    result = Packed(np.ascontiguousarray(codes), points + 1, scales, f"u{bits}", _bias(module), order)
    second = result._replace(zeros=points)
    return [second, result] if getattr(module, "qzero_format", lambda: 1)() == 2 else [result, second]


def _groups(module: Any, inputs: int, count: int) -> np.ndarray:
    """The group of each input. Kernels with consecutive groups omit `g_idx`."""
    index = getattr(module, "g_idx", None)
    if index is None or index.numel() == 0:
        return np.arange(inputs) // (inputs // count)
    return _array(index).astype(np.int64)


def _awq(module: Any) -> list[Packed]:
    """Read AWQ: codes are packed along the outputs, in an interleaved order."""
    if not all(hasattr(module, name) for name in ("qweight", "qzeros", "scales")):
        return []
    bits = int(getattr(module, "w_bit", getattr(module, "bits", 0)))
    if bits != 4:
        return []
    positions = np.argsort(_AWQ_ORDER)
    scales = _array(module.scales).T
    codes, zeros = (
        _words(words, bits, 1).reshape(words.shape[0], -1, 8)[..., positions].reshape(words.shape[0], -1)
        for words in (module.qweight, module.qzeros)
    )
    if codes.shape[1] != scales.shape[0]:
        return []
    return [Packed(np.ascontiguousarray(codes.T), zeros.T.astype(np.int16), scales, "u4", _bias(module))]


def _torchao(module: Any) -> list[Packed]:
    """Read a Linear whose weight is a torchao tensor: integers [out, in], scales, zero points."""
    weight: Any = getattr(module, "weight", None)
    if not isinstance(module, torch.nn.Linear) or not type(weight).__module__.startswith("torchao."):
        return []
    data = getattr(weight, "tensor_impl", weight)
    codes = next(getattr(data, name) for name in ("qdata", "int_data") if hasattr(data, name))
    outs = codes.shape[0]
    if codes.dtype not in (torch.int8, torch.uint8) or codes.shape != weight.shape:
        return []
    values = _array(codes)
    scales = _by_row(_array(getattr(data, "scale", None)), outs)
    points = getattr(data, "zero_point", None)
    zeros = None if points is None else _by_row(_array(points).astype(np.int16), outs)
    if zeros is not None and not zeros.any():
        zeros = None
    narrow = values.dtype == np.int8 and values.min() >= -8 and values.max() <= 7
    kind = "i4" if narrow else "i8" if values.dtype == np.int8 else "u8"
    return [Packed(values, zeros, scales, kind, _bias(module))]


def _compressed_tensors(module: Any) -> list[Packed]:
    """Read compressed-tensors: codes packed along the inputs. Symmetric codes and zero points have half the
    range added."""
    scheme = module.quantization_scheme
    arguments, is_table = scheme.weights, isinstance(module, torch.nn.Embedding)
    bits = int(arguments.num_bits)
    is_integer = str(getattr(arguments.type, "value", arguments.type)) == "int"
    is_layer = isinstance(module, (torch.nn.Linear, torch.nn.Embedding))
    if not is_layer or not is_integer or bits not in (2, 4, 8):
        return []
    if getattr(scheme, "input_activations", None) is not None:
        return []
    codes = _words(module.weight_packed, bits, 1)
    codes = codes[:, : module.embedding_dim if is_table else module.in_features]
    scales = _by_row(_array(module.weight_scale), codes.shape[0])
    kind, zeros, order = ("u8" if bits == 8 else "u4"), None, None
    if arguments.symmetric:
        codes, kind = (codes.astype(np.int16) - (1 << bits - 1)).astype(np.int8), kind.replace("u", "i")
    else:
        zeros = _words(module.weight_zero_point, bits, 0)[: codes.shape[0]].astype(np.int16)
    groups = getattr(module, "weight_g_idx", None)
    if groups is not None and int(groups.min()) >= 0:
        codes, order = _by_groups(codes, _array(groups).astype(np.int64))
    rows = module.weight_scale.dtype if is_table else None
    return [Packed(codes, zeros, scales, kind, _bias(module), order, rows)]


def _by_groups(codes: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(codes [out, in] with inputs sorted by group, the column of each input; None if they are in order)."""
    if not (np.diff(groups) < 0).any():
        return codes, None
    order = np.argsort(groups, kind="stable")
    return codes[:, order], np.argsort(order)


def _by_row(values: np.ndarray, outs: int) -> np.ndarray:
    """A scalar, or numbers [out, groups] of any shape, as [out, groups]."""
    if values.size == 1:
        return np.full((outs, 1), values.reshape(()))
    return np.ascontiguousarray(values.reshape(outs, -1))
