"""Scores and labels of the classifiers and regressors of ai.onnx.ml."""

from __future__ import annotations

from ovjit.readers.onnx.text import text_at
from ovjit.readers.onnx_contrib.rule_language import *

#: In the order of their numbers in TreeEnsemble.
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def read_rows(n: OnnxNode) -> Output:
    """The features [rows, features] as f32, or as f64 if that is their type."""
    x = n[0] if n.dtype(n[0]) == "f64" else n.convert(n[0], "f32")
    return n.unsqueeze(x, [0]) if n.rank(x) == 1 else x


def read_labels(n: OnnxNode) -> np.ndarray:
    """The labels of the classes, integers or texts."""
    for name in ("classlabels_int64s", "classlabels_ints"):
        if n.attr(name):
            return np.asarray(n.attr(name), np.int64)
    if n.attr("classlabels_strings"):
        return np.asarray(n.attr("classlabels_strings"), object)
    raise ModelError("the labels of the classes are missing")


def pick_labels(n: OnnxNode, index: Output, labels: np.ndarray) -> Output:
    """The labels at these positions."""
    if labels.dtype == object:
        return text_at(n, labels.tolist(), index)
    return n("Gather", n.const(labels), index, 0, opset=8)


def best_labels(n: OnnxNode, scores: Output, labels: np.ndarray) -> Output:
    """The label of each row's highest score, the first of equal ones."""
    return pick_labels(n, n.squeeze(n.top_k(scores, 1, 1)[1], [1]), labels)


def read_transform(n: OnnxNode) -> str:
    """The attribute `post_transform`. Raises ModelError for an unknown one."""
    how = n.attr("post_transform") or "NONE"
    if how not in TRANSFORMS:
        raise ModelError(f"the post_transform {how[:20]!r} is unknown; it should be one of {TRANSFORMS}")
    return how


def transform_scores(n: OnnxNode, scores: Output, how: str) -> Output:
    """The scores after a `post_transform`."""
    if how == "NONE":
        return scores
    if how == "LOGISTIC":
        return n("Sigmoid", scores)
    if how == "SOFTMAX":
        return n("Softmax", scores, axis=1, opset=8)
    if how == "SOFTMAX_ZERO":
        zero = n("Equal", scores, n.like(scores, 0))
        weights = n("Select", zero, n.like(scores, -np.inf), scores)
        return n("Select", zero, n.like(scores, 0), n("Softmax", weights, axis=1, opset=8))
    if how == "PROBIT":
        return _probit(n, scores)
    raise UnsupportedError(f"the post_transform {how[:20]!r} is not supported")


def _probit(n: OnnxNode, scores: Output) -> Output:
    """sqrt(2) erfinv(2 x - 1) by Winitzki's formula with a = 0.147, in f32 as in ONNX Runtime."""
    a = np.float32(0.147)
    v = n.convert(scores, "f32")
    x = n("Subtract", n("Multiply", v, 2.0), 1.0)
    log = n("Log", n("Multiply", n("Subtract", 1.0, x), n("Add", x, 1.0)))
    half = n("Add", n("Multiply", log, 0.5), 2 / (np.float32(3.14159) * a))
    root = n("Sqrt", n("Subtract", _rounded_product(n, half, half), _rounded_product(n, log, n.const(1 / a))))
    size = n("Sqrt", n("Subtract", root, half))
    signed = n("Select", n("Less", x, 0.0), n("Negative", size), size)
    return n.convert(n("Multiply", signed, math.sqrt(2)), n.dtype(scores))


def _rounded_product(n: OnnxNode, x: Output, y: Output) -> Output:
    """x * y in f32, rounded before what follows: the difference of the root above cancels most digits."""
    return n.convert(n("Multiply", n.convert(x, "f64"), n.convert(y, "f64")), "f32")


def check_word(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """A validated choice. Raises ModelError for an unknown word."""
    if value not in choices:
        raise ModelError(
            f"the {name} {str(value)[:20]!r} is unknown; it should be one of {', '.join(choices)}"
        )
    return str(value)
