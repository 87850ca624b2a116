"""Random nodes of ai.onnx, a function for each family of operators: generator -> Sample."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto

Rng = np.random.Generator
F = np.float32
_NAMES = {np.dtype(t): n for t, n in ((np.float32, TensorProto.FLOAT), (np.int64, TensorProto.INT64))}


class Sample(NamedTuple):
    """One node: inputs that are None are left out."""

    op: str
    inputs: list[Any]
    attributes: dict[str, Any]
    opset: int = 21
    outputs: int = 1
    constants: Collection[int] = ()  #: inputs that are constants
    free: Collection[int] = ()  #: inputs that may be constants
    tolerance: float = 2e-5
    steps: int = 0  #: how far integers may be off
    domain: str = ""
    version: int = 1  #: of the domain, where it is none of the standard's
    unchecked: Collection[int] = ()  #: outputs whose values are not compared


def pick(rng: Rng, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def flip(rng: Rng, chance: float = 0.5) -> bool:
    return bool(rng.random() < chance)


def dims(rng: Rng, low: int = 0, high: int = 5, most: int = 5, zeros: bool = True) -> tuple[int, ...]:
    shape = rng.integers(1, most + 1, int(rng.integers(low, high)))
    if zeros and flip(rng, 0.05) and len(shape):
        shape[int(rng.integers(len(shape)))] = 0
    return tuple(int(d) for d in shape)


def values(rng: Rng, shape: Any, dtype: Any = F, scale: float = 2.0) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape) * scale).astype(dtype)
    if dtype.kind == "u":
        return np.asarray(rng.integers(0, 60, shape)).astype(dtype)
    return np.asarray(rng.integers(-30, 30, shape)).astype(dtype)


def some(rng: Rng, **maybe: Any) -> dict[str, Any]:
    """Each attribute is given or left to its default."""
    return {k: v for k, v in maybe.items() if v is not None and flip(rng, 0.7)}


def spread(rng: Rng, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts with `shape`."""
    out = [d if flip(rng, 0.7) else 1 for d in shape]
    return tuple(out[int(rng.integers(0, len(out) + 1)) if flip(rng, 0.3) else 0 :])
