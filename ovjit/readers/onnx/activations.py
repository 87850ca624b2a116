"""Activations that recurrent and fused operators name."""

from __future__ import annotations

from collections.abc import Callable

from ovjit.build import Output
from ovjit.readers.onnx.node import OnnxNode

#: Those without parameters -> OpenVINO's operation.
PLAIN = {
    "sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softsign": "SoftSign", "softplus": "SoftPlus",
}  # fmt: skip
#: The default alpha and beta of those that take one.
ALPHAS = {"affine": 1.0, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": 1.0, "hardsigmoid": 0.2,
          "elu": 1.0}  # fmt: skip
BETAS = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}


def rescale(op: str) -> Callable[[OnnxNode, Output, float, float], Output]:
    """alpha * op(beta * x)"""
    return lambda n, x, a, b: n("Multiply", n(op, n("Multiply", x, n.like(x, b))), n.like(x, a))


_OF_PARAMETERS: dict[str, Callable[[OnnxNode, Output, float, float], Output]] = {
    "affine": lambda n, x, a, b: n("Add", n("Multiply", x, n.like(x, a)), n.like(x, b)),
    "elu": lambda n, x, a, b: n("Elu", x, alpha=a),
    "hardsigmoid": lambda n, x, a, b: n("HardSigmoid", x, n.like(x, a), n.like(x, b)),
    "leakyrelu": lambda n, x, a, b: n("PRelu", x, n.like(x, [a] if n.shape(x) != () else a)),
    "scaledtanh": rescale("Tanh"),
    "thresholdedrelu": lambda n, x, a, b: n("Select", n("Greater", x, n.like(x, a)), x, n.like(x, 0)),
}


def activation(
    n: OnnxNode, name: str, x: Output, alpha: float | None = None, beta: float | None = None
) -> Output:
    """The activation `name`, in small letters, of x. None: the default parameter. KeyError if the name is
    unknown."""
    if name in PLAIN:
        return n(PLAIN[name], x)
    alpha = ALPHAS.get(name, 0.0) if alpha is None else alpha
    beta = BETAS.get(name, 0.0) if beta is None else beta
    return _OF_PARAMETERS[name](n, x, alpha, beta)
