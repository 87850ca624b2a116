"""Operators of ai.onnx.ml that tensors alone can say."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import UnsupportedError
from ovjit.frontends.onnx.node import OnnxNode
from ovjit.frontends.onnx.registry import onnx_op

DOMAIN = "ai.onnx.ml"


def ml(name: str, since: int = 1) -> Any:
    return onnx_op(name, since, DOMAIN)


@ml("ArrayFeatureExtractor")
def array_feature_extractor(n: OnnxNode) -> Any:
    """Columns of the last dimension."""
    out = n("Gather", n[0], n.reshape(n[1], [-1]), -1, opset=8)
    return out if n.rank(n[0]) > 1 else n.unsqueeze(out, [0])


@ml("Binarizer")
def binarizer(n: OnnxNode) -> Any:
    return n.convert(n("Greater", n[0], n.like(n[0], n.attr("threshold"))), n.dtype(n[0]))


@ml("Scaler")
def scaler(n: OnnxNode) -> Any:
    """(x - offset) * scale"""
    x = n.convert(n[0], "f32")
    offset, scale = (
        n.const(np.array(n.attr(name, default), np.float32))
        for name, default in (("offset", [0.0]), ("scale", [1.0]))
    )
    return n("Multiply", n("Subtract", x, offset), scale)


@ml("Normalizer")
def normalizer(n: OnnxNode) -> Any:
    x = n.convert(n[0], "f32")
    axis = [-1]
    norm = n.attr("norm")
    if norm == "MAX":
        size = n("ReduceMax", x, axis, keep_dims=True)
    elif norm in ("L1", "L2"):
        size = n(f"Reduce{norm}", x, axis, keep_dims=True)
    else:
        raise UnsupportedError(f"the norm {norm[:20]!r}")
    zero = n("Equal", size, n.like(x, 0))
    return n("Divide", x, n("Select", zero, n.like(x, 1), size))


@ml("Imputer")
def imputer(n: OnnxNode) -> Any:
    """What is missing, marked by a number or NaN, is replaced."""
    x = n[0]
    real = n.dtype(x) in ("f32", "f64")
    values = n.attr("imputed_value_floats") if real else n.attr("imputed_value_int64s")
    mark = n.attr("replaced_value_float", 0.0) if real else n.attr("replaced_value_int64", 0)
    missing = n("IsNaN", x) if real and np.isnan(mark) else n("Equal", x, n.like(x, mark))
    return n("Select", missing, n.like(x, values), x)


@ml("LabelEncoder", 2)
def label_encoder(n: OnnxNode) -> Any:
    """Each key's value, the default for others: where(x == key, value, ...) for numbers."""
    x = n[0]
    keys, values = _column(n, "keys"), _column(n, "values")
    default = _default(n, values)
    if keys.dtype.kind in "OUS" or values.dtype.kind in "OUS" or n.dtype(x) == "string":
        raise UnsupportedError("labels that are strings: no operation of OpenVINO says it")
    if keys.size != values.size:
        raise UnsupportedError(f"{keys.size} keys and {values.size} values")
    same = n("Equal", n.unsqueeze(x, [-1]), n.like(x, keys))
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        same = n("LogicalOr", same, n("LogicalAnd", n("IsNaN", n.unsqueeze(x, [-1])), np.isnan(keys)))
    found = n("ReduceLogicalOr", same, [-1], keep_dims=False)
    attrs: dict[str, Any] = {"mode": "max", "sort": "value", "index_element_type": "i64", "stable": True}
    place = n.all("TopK", n.convert(same, "i32"), 1, axis=-1, **attrs, opset=11)[1]
    picked = n("Gather", n.const(values), n.squeeze(place, [-1]), 0, opset=8)
    return n("Select", found, picked, n.const(default, picked._tensor._type.dtype))


def _column(n: OnnxNode, what: str) -> np.ndarray:
    from ovjit.frontends.onnx import tensors

    for kind, dtype in (("int64s", np.int64), ("floats", np.float32), ("strings", object)):
        given = n.attr(f"{what}_{kind}")
        if given is not None:
            return np.array(given, dtype)
    tensor = n.attr(f"{what}_tensor")
    if tensor is None or not tensor.data_type:
        raise UnsupportedError(f"the {what} are missing")
    return tensors.decode(tensor)[0].reshape(-1)


def _default(n: OnnxNode, values: np.ndarray) -> Any:
    from ovjit.frontends.onnx import tensors

    tensor = n.attr("default_tensor")
    if tensor is not None and tensor.data_type:
        return tensors.decode(tensor)[0].reshape(())
    if values.dtype.kind in "OUS":
        return n.attr("default_string", "_Unused")
    return n.attr("default_float", -0.0) if values.dtype.kind == "f" else n.attr("default_int64", -1)
