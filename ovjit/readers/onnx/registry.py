"""Registry of the rules that read operators, keyed by domain, name and the first version they hold for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from ovjit.plugins import load_others
from ovjit.readers.onnx import standard
from ovjit.readers.onnx.standard import Schema as Schema

#: Modules with the standard's rows, one for each family of operators, and the operators that each has: a
#: model imports those that it uses.
FAMILIES = {
    "control": "If Loop Scan",
    "image": "AffineGrid Crop GridSample ImageScaler MaxRoiPool NonMaxSuppression RoiAlign",
    "math": (
        "Abs Acos Acosh Add Affine And Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot "
        "BitwiseOr BitwiseXor Ceil Celu Clip Cos Cosh Det Div Einsum Elu Equal Erf Exp Floor Gelu Gemm "
        "Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log MatMul "
        "Max Mean Min Mish Mod Mul Neg Not Or PRelu ParametricSoftplus Pow Reciprocal Relu Round Scale "
        "ScaledTanh Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh "
        "ThresholdedRelu Where Xor"
    ),
    "nn": (
        "AveragePool BatchNormalization Conv ConvTranspose DeformConv Dropout GlobalAveragePool "
        "GlobalLpPool GlobalMaxPool GroupNormalization Hardmax InstanceNormalization LRN "
        "LayerNormalization LogSoftmax LpNormalization LpPool MaxPool MaxUnpool "
        "MeanVarianceNormalization RMSNormalization Softmax"
    ),
    "quant": (
        "ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul "
        "QuantizeLinear"
    ),
    "random": "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    "recurrent": "GRU LSTM RNN",
    "reduce": (
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
        "ReduceSum ReduceSumSquare"
    ),
    "resize": "Resize Upsample",
    "sequence": (
        "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct "
        "SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence"
    ),
    "signal": "DFT MelWeightMatrix STFT",
    "tensor": (
        "ArgMax ArgMin Cast CastLike CenterCropPad Col2Im Compress Concat Constant ConstantOfShape "
        "CumProd CumSum DepthToSpace DynamicSlice Expand EyeLike Flatten Gather GatherElements GatherND "
        "Identity MemcpyFromHost MemcpyToHost NonZero OneHot Pad Range Reshape ReverseSequence Scatter "
        "ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze TensorScatter Tile TopK "
        "Transpose Trilu Unique Unsqueeze"
    ),
    "text": "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer",
    "training": "Adagrad Adam Momentum",
}  # fmt: skip
_FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names.split()}
#: Operators of other domains. Further packages announce themselves in this group of entry points.
CONTRIBUTED, GROUP = "ovjit.readers.onnx_contrib", "ovjit.onnx"
#: The default domain by either of its names.
DEFAULT_DOMAINS = ("", "ai.onnx")

#: Reads one node: takes an `OnnxNode`, returns its outputs (one, or a list in the operator's order).
Rule = Callable[[Any], Any]

_ROWS: dict[tuple[str, str], list[tuple[int, Rule]]] = {}
#: domain -> what rewrites the nodes of a graph that imports it, before they are read
_PREPARED: dict[str, Callable[[Iterable[Any]], list[Any]]] = {}


def onnx_op(name: str, since: int = 1, domain: str = "") -> Callable[[Rule], Rule]:
    """Decorator: the function reads operator `name` of `domain` from version `since` on, until the next."""

    def decorate(rule: Rule) -> Rule:
        rows = _ROWS.setdefault((domain, name), [])
        rows.append((since, rule))
        rows.sort(key=lambda row: row[0])
        return rule

    return decorate


def onnx_ops(rules: Mapping[str, Rule], domain: str = "") -> None:
    """Register functions by the names of the operators that they read: "Softmax-13" from version 13 on."""
    for key, rule in rules.items():
        name, _, since = key.partition("-")
        onnx_op(name, int(since or 1), domain)(rule)


def converter_key(domain: str, name: str) -> str:
    """The key of an operator among the rules that the caller gives (`ConversionExtension.key`)."""
    return name if domain in DEFAULT_DOMAINS else f"{domain}.{name}"


def find_rule(domain: str, name: str, version: int) -> Rule | None:
    """The function that reads this operator, None if there is none."""
    domain = "" if domain in DEFAULT_DOMAINS else domain
    if name in _FAMILY_OF:
        _load_family(_FAMILY_OF[name])
    if (domain, name) not in _ROWS:
        _load_contributed()
    newest_rule = None
    for since, rule in _ROWS.get((domain, name), ()):
        if since <= version:
            newest_rule = rule
    return newest_rule


@cache
def _load_family(family: str) -> None:
    """Import the rules of a family, once: looking a loaded module up takes as long as reading a node."""
    importlib.import_module(f"ovjit.readers.onnx.{family}")


def prepares(domain: str) -> Callable[[Any], Any]:
    """Decorator: the function gets all nodes of a graph that uses `domain`, and returns the nodes to read
    instead."""

    def decorate(function: Any) -> Any:
        _PREPARED[domain] = function
        return function

    return decorate


def prepare_nodes(nodes: Sequence[Any]) -> Sequence[Any]:
    """The nodes of a graph, changed by the functions that are registered by `prepares` for their domains."""
    for domain in {node.domain for node in nodes}.difference(DEFAULT_DOMAINS):
        _load_contributed()
        if domain in _PREPARED:
            nodes = _PREPARED[domain](nodes)
    return nodes


@cache
def _load_contributed() -> None:
    """Import the rules of operators in other domains."""
    importlib.import_module(CONTRIBUTED)
    load_others(GROUP, CONTRIBUTED)


def find_schema(domain: str, name: str, version: int) -> Schema | None:
    """The standard's row of an operator, None if it has none (com.microsoft's operators have not)."""
    return standard.find_schema("" if domain in DEFAULT_DOMAINS else domain, name, version)


def function_body(domain: str, name: str, version: int, node: Any, types: Any) -> Any:
    """The FunctionProto that the standard gives as an operator's meaning, None if there is none.

    `types()` gives the serialised TypeProtos of the node's inputs, which some bodies depend on.
    """
    from onnx import FunctionProto, defs

    schema = defs.get_schema(name, version, "" if domain in DEFAULT_DOMAINS else domain)
    body = b""
    if schema.has_function:
        body = schema.get_function_with_opset_version(_nearest(schema.function_opset_versions, version))
    if not body and schema.has_context_dependent_function:
        nearest = _nearest(schema.context_dependent_function_opset_versions, version)
        body = schema.get_context_dependent_function_with_opset_version(
            nearest, node.SerializeToString(), types()
        )
    return FunctionProto.FromString(body) if body else None


def _nearest(versions: list[int], version: int) -> int:
    """The newest of the body's versions up to `version`, else the oldest. A function body depends on an opset
    version."""
    return max((v for v in versions if v <= version), default=min(versions))
