"""Operators of ai.onnx.ml that tensors alone can say."""

from __future__ import annotations

from ovjit.readers.onnx.text import compare_text, find_text, text_at
from ovjit.readers.onnx_contrib.scores import *


@ml("ArrayFeatureExtractor")
def array_feature_extractor(n: OnnxNode) -> Any:
    """Gather columns of the last dimension."""
    out = n("Gather", n[0], n.reshape(n[1], [-1]), -1, opset=8)
    return out if n.rank(n[0]) > 1 else n.unsqueeze(out, [0])


@ml("Binarizer")
def binarizer(n: OnnxNode) -> Any:
    return n.convert(n("Greater", n[0], n.like(n[0], n.attr("threshold"))), n.dtype(n[0]))


@ml("Scaler")
def scaler(n: OnnxNode) -> Any:
    """(x - offset) * scale, of doubles in f64"""
    x = n[0] if n.dtype(n[0]) == "f64" else n.convert(n[0], "f32")
    offset, scale = (
        n.like(x, np.array(n.attr(name, default), np.float32))
        for name, default in (("offset", [0.0]), ("scale", [1.0]))
    )
    return n.convert(n("Multiply", n("Subtract", x, offset), scale), "f32")


@ml("Normalizer")
def normalizer(n: OnnxNode) -> Any:
    x = n.convert(n[0], "f32")
    axis = [-1]
    norm = n.attr("norm")
    size = n("ReduceMax" if norm == "MAX" else f"Reduce{norm}", x, axis, keep_dims=True)
    zero = n("Equal", size, n.like(x, 0))
    return n("Divide", x, n("Select", zero, n.like(x, 1), size))


@ml("Imputer")
def imputer(n: OnnxNode) -> Any:
    """Replaces missing values, which are marked by a number or NaN."""
    x = n[0]
    real = n.dtype(x) in ("f32", "f64")
    values = n.attr("imputed_value_floats") if real else n.attr("imputed_value_int64s")
    mark = n.attr("replaced_value_float", 0.0) if real else n.attr("replaced_value_int64", 0)
    missing = n("IsNaN", x) if real and np.isnan(mark) else n("Equal", x, n.like(x, mark))
    return n("Select", missing, n.like(x, values), x)


@ml("LabelEncoder", 2)
def label_encoder(n: OnnxNode) -> Any:
    """Each key's value, the default for others: the first of the keys that is equal."""
    x = n[0]
    keys, values = _column(n, "keys"), _column(n, "values")
    if keys.size != values.size or not keys.size:
        raise ModelError(f"{keys.size} keys and {values.size} values are given; the numbers should be equal")
    if (keys.dtype.kind in "OUS") != (n.dtype(x) == "string"):
        raise ModelError(f"the keys differ in type from the input, which is {n.dtype(x)}")
    if n.dtype(x) == "string":
        is_key, index = find_text(n, x, keys.tolist())
    else:
        is_key, index = _find_number(n, x, keys)
    default = _default(n, values)
    if values.dtype.kind in "OUS":
        return text_at(n, [*values.tolist(), default], n("Select", is_key, index, values.size))
    picked = n("Gather", n.const(values), index, 0, opset=8)
    return n("Select", is_key, picked, n.const(default, n.dtype(picked)))


@ml("LabelEncoder")
def label_encoder_1(n: OnnxNode) -> Any:
    """Labels as their indices in a list."""
    texts = n.require("classes_strings")
    return _map_labels(n, texts, np.arange(len(texts)))


@ml("CategoryMapper")
def category_mapper(n: OnnxNode) -> Any:
    return _map_labels(n, n.require("cats_strings"), np.asarray(n.require("cats_int64s"), np.int64))


def _map_labels(n: OnnxNode, texts: list[str], numbers: np.ndarray) -> Output:
    """Map texts to numbers, or numbers to texts."""
    if len(texts) != numbers.size or not texts:
        raise ModelError(
            f"{len(texts)} strings and {numbers.size} numbers are given; they should be equally many"
        )
    if n.dtype(n[0]) == "string":
        is_match, index = find_text(n, n[0], texts)
        picked = n("Gather", n.const(numbers), index, 0, opset=8)
        return n("Select", is_match, picked, n.attr("default_int64"))
    is_match, index = _find_number(n, n[0], numbers)
    return text_at(n, [*texts, n.attr("default_string")], n("Select", is_match, index, numbers.size))


def _find_number(n: OnnxNode, x: Output, keys: np.ndarray) -> tuple[Output, Output]:
    """(whether each number is among the keys, the index of the first key that is equal); NaN equals NaN."""
    same_type = n.value(n.like(x, keys))
    assert same_type is not None
    ordered, first = np.unique(same_type, return_index=True)
    bounds = np.nan_to_num(ordered, nan=np.inf, posinf=np.inf, neginf=-np.inf)  # NaN is the last
    at = n("Bucketize", x, n.like(x, bounds), output_type="i64", opset=3)
    at = n("Minimum", at, len(ordered) - 1)
    is_key = n("Equal", n("Gather", n.like(x, ordered), at, 0, opset=8), x)
    index = n("Gather", first, at, 0, opset=8)
    if keys.dtype.kind == "f" and np.isnan(ordered[-1]):
        is_nan = n("IsNaN", x)
        is_key, index = n("LogicalOr", is_key, is_nan), n("Select", is_nan, int(first[-1]), index)
    return is_key, index


@ml("FeatureVectorizer")
def feature_vectorizer(n: OnnxNode) -> Any:
    parts = [n.convert(x if n.rank(x) > 1 else n.unsqueeze(x, [1]), "f32") for x in n.tensors()]
    return n.concat(parts, 1)


@ml("OneHotEncoder")
def one_hot_encoder(n: OnnxNode) -> Any:
    is_text = n.dtype(n[0]) == "string"
    names = ("cats_strings", "cats_int64s") if is_text else ("cats_int64s", "cats_strings")
    if not n.attr(names[0]) and n.attr("zeros", 1):  # no text is a number
        count = n.const(np.array([len(n.require(names[1]))]))
        return n.broadcast(0.0, n.concat([n.shape_of(n[0]), count], 0))
    if is_text:
        return n.convert(compare_text(n, n[0], n.require("cats_strings")), "f32")
    kinds = np.asarray(n.require("cats_int64s"), np.int64)
    return n.convert(n("Equal", n.unsqueeze(n.convert(n[0], "i64"), [n.rank(n[0])]), kinds), "f32")


@ml("ZipMap")
def zip_map(n: OnnxNode) -> Any:
    """Returns the scores as a tensor, not as a map from classes for each row: models have tensors only.
    Columns are the classes in the order of their labels."""
    read_labels(n)
    return n("Identity", n[0])


def _column(n: OnnxNode, what: str) -> np.ndarray:
    for kind, dtype in (("int64s", np.int64), ("floats", np.float32), ("strings", object)):
        values = n.attr(f"{what}_{kind}")
        if values is not None:
            return np.array(values, dtype)
    tensor = n.attr(f"{what}_tensor")
    if tensor is None or not tensor.data_type:
        raise UnsupportedError(f"the {what} are missing")
    return tensors.decode(tensor, n.reader.external)[0].reshape(-1)


def _default(n: OnnxNode, values: np.ndarray) -> Any:
    tensor = n.attr("default_tensor")
    if tensor is not None and tensor.data_type:
        return tensors.decode(tensor, n.reader.external)[0].reshape(())
    if values.dtype.kind in "OUS":
        return n.attr("default_string", "_Unused")
    return n.attr("default_float", -0.0) if values.dtype.kind == "f" else n.attr("default_int64", -1)
