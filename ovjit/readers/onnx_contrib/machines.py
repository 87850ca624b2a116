"""Linear models and support vector machines of ai.onnx.ml."""

from __future__ import annotations

from ovjit.readers.onnx.control import loop_while
from ovjit.readers.onnx_contrib.scores import *

if TYPE_CHECKING:
    from ovjit.readers.onnx.scope import Scope


def _of_two(n: OnnxNode, one: Output, labels: np.ndarray, positive: bool) -> list[Output]:
    """(label, scores of both classes) from one score. With `positive`, all weights are positive and the score
    is a probability."""
    above = n("Greater", one, 0.5 if positive else 0.0)
    index = n.squeeze(n.convert(above, "i64"), [1])
    how = n.attr("post_transform") or "NONE"
    if positive and how != "LOGISTIC":
        scores = n("Concat", n("Subtract", 1.0, one), one, axis=1)
        return [pick_labels(n, index, labels), scores]
    both = n("Concat", n("Negative", one), one, axis=1)
    return [pick_labels(n, index, labels), n("Sigmoid", both) if how == "LOGISTIC" else both]


def _linear(n: OnnxNode, x: Output, count: int) -> Output:
    """x W^T + b with `count` rows of coefficients, in the type of x"""
    weights = np.asarray(n.require("coefficients"), np.float32)
    if count < 1 or weights.size % count:
        raise ModelError(f"{weights.size} coefficients are given for {count} rows")
    out = n("MatMul", x, n.like(x, weights.reshape(count, -1)), transpose_b=True)
    offset = n.attr("intercepts")
    return n("Add", out, n.like(x, np.asarray(offset, np.float32))) if offset else out


@ml("LinearRegressor")
def linear_regressor(n: OnnxNode) -> Any:
    out = _linear(n, read_rows(n), n.attr("targets") or 1)
    return n.convert(transform_scores(n, out, read_transform(n)), "f32")


@ml("LinearClassifier")
def linear_classifier(n: OnnxNode) -> Any:
    """(class of each row, scores)"""
    labels = read_labels(n)
    rows = len(n.attr("intercepts") or ()) or labels.size
    scores = _linear(n, n.convert(read_rows(n), "f32"), rows)  # as ONNX Runtime has doubles
    if rows == 1 and labels.size == 2:
        return _of_two(n, scores, labels, False)
    return [best_labels(n, scores, labels), transform_scores(n, scores, read_transform(n))]


@ml("SVMRegressor")
def svm_regressor(n: OnnxNode) -> Any:
    """A kernel SVM: weighted kernels of a row and each support vector; without vectors a linear model."""
    x = read_rows(n)
    weights, rho = (np.asarray(n.require(name), np.float32) for name in ("coefficients", "rho"))
    count = n.attr("n_supports") or 0
    if not rho.size or not weights.size:
        raise ModelError(
            f"{weights.size} coefficients and {rho.size} offsets are given; at least one of each is needed"
        )
    if count:
        vectors = np.asarray(n.require("support_vectors"), np.float32)
        if weights.size != count or not vectors.size or vectors.size % count:
            raise ModelError(
                f"{weights.size} coefficients and {vectors.size} elements do not match {count} vectors"
            )
        kernels = _kernels(n, x, vectors.reshape(count, -1))
    else:
        kernels = x
    out = n("Add", n("MatMul", kernels, n.like(x, weights.reshape(-1, 1))), n.like(x, rho[:1]))
    if n.attr("one_class"):
        return n("Select", n("Greater", out, n.like(x, 0)), 1.0, -1.0)
    return n.convert(transform_scores(n, out, read_transform(n)), "f32")


#: Elements of a matrix that tells which vectors speak for which pair of classes.
MOST_WEIGHTS = 1 << 24


@ml("SVMClassifier")
def svm_classifier(n: OnnxNode) -> Any:
    """(class of each row, decision of each pair of classes): the class with the most votes wins.

    Support vectors are ordered by class; row k of the coefficients has a vector's weights against the k-th of
    the other classes.
    """
    labels, each = read_labels(n), [int(count) for count in n.attr("vectors_per_class") or ()]
    if not each:
        return _linear_machine(n, labels)
    classes, count = len(each), sum(each)
    vectors, weights, rho = (
        np.asarray(n.require(name), np.float32) for name in ("support_vectors", "coefficients", "rho")
    )
    fits = labels.size == classes > 1 and min(each) >= 0 < count <= vectors.size and vectors.size % count == 0
    if not fits or weights.size != (classes - 1) * count or rho.size != classes * (classes - 1) // 2:
        raise ModelError(
            f"{vectors.size} elements of vectors, {weights.size} coefficients and {rho.size} offsets do "
            f"not match {labels.size} labels with {each[:8]} vectors per class"
        )
    if rho.size * max(count, classes) > MOST_WEIGHTS:
        raise UnsupportedError(f"{count} vectors are not valid for {rho.size} pairs of classes")
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    weights = weights.reshape(classes - 1, count)
    of_class = np.repeat(np.arange(classes), each)
    against = np.stack(
        [
            np.where(of_class == i, weights[j - 1], 0) + np.where(of_class == j, weights[i], 0)
            for i, j in pairs
        ]
    )
    kernels = _kernels(n, n.convert(read_rows(n), "f32"), vectors.reshape(count, -1))
    scores = n("Add", n("MatMul", kernels, n.const(against.astype(np.float32)), transpose_b=True), rho)
    first, second = (np.eye(classes, dtype=np.float32)[[pair[at] for pair in pairs]] for at in (0, 1))
    won = n.convert(n("Greater", scores, 0.0), "f32")
    votes = n("MatMul", won, n.const(first - second))
    best = best_labels(n, n("Add", votes, second.sum(0)), labels)
    if n.attr("prob_a"):
        return [best, transform_scores(n, _probabilities(n, scores, pairs, classes), read_transform(n))]
    if classes > 2:
        return [best, transform_scores(n, scores, read_transform(n))]
    how = n.attr("post_transform") or "NONE"
    if how in ("SOFTMAX", "SOFTMAX_ZERO"):  # of one score of two classes there is nothing to normalise
        return [best, n("Concat", n("Subtract", 1.0, scores), scores, axis=1)]
    return [best, transform_scores(n, n("Concat", n("Negative", scores), scores, axis=1), read_transform(n))]


def _linear_machine(n: OnnxNode, labels: np.ndarray) -> Any:
    """A linear support vector machine: a score for each class; the label is the class of the highest score.
    With two classes, ONNX Runtime answers the second class if either score exceeds a limit."""
    weights, rho = (np.asarray(n.require(name), np.float32) for name in ("coefficients", "rho"))
    if not rho.size or n.attr("prob_a"):
        raise UnsupportedError(
            f"{rho.size} offsets of a machine without vectors, or its probabilities, are not supported"
        )
    n.attributes |= {"intercepts": [float(rho[0])] * labels.size}
    scores = decided = _linear(n, n.convert(read_rows(n), "f32"), labels.size)
    if labels.size == 2:
        limit = n("GreaterEqual", scores, 0.5) if (weights >= 0).all() else n("Greater", scores, 0.0)
        above = n("ReduceLogicalOr", limit, [1], keep_dims=True)
        decided = n("Select", n("LogicalAnd", above, n.const(np.array([False, True]))), np.inf, scores)
    return [best_labels(n, decided, labels), transform_scores(n, scores, read_transform(n))]


def _probabilities(n: OnnxNode, scores: Output, pairs: Sequence[tuple[int, int]], classes: int) -> Output:
    """Probabilities of classes from those of each pair of classes: the p that minimises p' Q p. Newton's
    method updates one class after the other, with libsvm's number of rounds and tolerance."""
    slopes, offsets = (np.asarray(n.attr(f"prob_{which}") or [], np.float32) for which in "ab")
    if slopes.size != len(pairs) or offsets.size != len(pairs):
        raise ModelError(
            f"{slopes.size} and {offsets.size} parameters are given for {len(pairs)} pairs of classes"
        )
    n.check_count(classes, "classes whose probabilities are found by iteration", 64)
    of_two = n("Sigmoid", n("Negative", n("Add", n("Multiply", scores, slopes), offsets)))
    of_two = n("Clamp", of_two, min=1e-7, max=float(np.float32(1 - 1e-7)))
    column = np.full((classes, classes), len(pairs) * 2)
    for at, (i, j) in enumerate(pairs):
        column[i, j], column[j, i] = at, len(pairs) + at
    nothing = n("Multiply", n.slice(of_two, 1, 0, 1), 0.0)
    sides = n("Concat", of_two, n("Subtract", 1.0, of_two), nothing, axis=1)
    wins = n("Gather", sides, column, 1, opset=8)  # [rows, i, j]: i rather than j; 0 for i = j
    square = n("ReduceSum", n("Multiply", wins, wins), [1], keep_dims=False)
    ones = np.eye(classes, dtype=np.float32)
    q = n("Subtract", n("Multiply", n.unsqueeze(square, [2]), ones),
          n("Multiply", wins, n.transpose(wins, [0, 2, 1])))  # fmt: skip
    start = n("Add", n("Multiply", square, 0.0), np.float32(1 / classes))

    def once(state: dict[str, Output], _trip: Output, scope: Scope) -> tuple[dict[str, Output], Output]:
        """(p after one more round, whether any row had to go on)"""
        p, q_here = state["p"], scope.capture(q)
        first, weights = p, n.squeeze(n("MatMul", n.unsqueeze(p, [1]), q_here), [1])
        least = n("ReduceSum", n("Multiply", p, weights), [1], keep_dims=True)
        gap = n("ReduceMax", n("Abs", n("Subtract", weights, least)), [1], keep_dims=True)
        busy = n("GreaterEqual", gap, np.float32(0.005 / classes))
        for t in range(classes):
            row = n("Gather", q_here, t, 1, opset=8)
            mine, diagonal = (n.slice(x, 1, t, t + 1) for x in (weights, row))
            step = n("Divide", n("Subtract", least, mine), diagonal)
            more = n("Add", step, 1.0)
            least = n("Add", least, n("Multiply", step, n("Add", n("Multiply", step, diagonal),
                                                          n("Multiply", mine, 2.0))))  # fmt: skip
            least = n("Divide", n("Divide", least, more), more)
            weights = n("Divide", n("Add", weights, n("Multiply", step, row)), more)
            p = n("Divide", n("Add", p, n("Multiply", step, ones[t])), more)
        return {"p": n("Select", busy, p, first)}, n("ReduceLogicalOr", busy, [0, 1], keep_dims=False)

    return loop_while(n, once, n.const(max(100, classes)), n.const(True), {"p": start})["p"]


def _kernels(n: OnnxNode, x: Output, vectors: np.ndarray) -> Output:
    """Kernel values of a support vector machine for each row and vector: [rows, vectors]"""
    gamma, offset, degree = [*(n.attr("kernel_params") or []), 0.0, 0.0, 0.0][:3]
    how = n.attr("kernel_type")
    if how == "RBF":
        # vectors are the last axis: sums over the features are vectors of neighbours
        gap = n("Subtract", n.unsqueeze(x, [2]), n.like(x, vectors.T[None]))
        far = n("ReduceSum", n("Multiply", gap, gap), [1], keep_dims=False)
        return n("Exp", n("Multiply", far, n.like(x, -gamma)))
    out = n("MatMul", x, n.like(x, vectors), transpose_b=True)
    if how == "LINEAR":
        return out
    out = n("Add", n("Multiply", out, n.like(x, gamma)), n.like(x, offset))
    if how == "POLY":
        return n("Power", out, n.like(x, degree))
    if how == "SIGMOID":
        return n("Tanh", out)
    raise UnsupportedError(f"the kernel {how[:20]!r} is not supported")
