"""Samples of operations whose inputs need code, by family. Those of rows of shapes are `cases` of the record.

A sample is (inputs, attributes). `samples_of` yields those of both kinds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.graph.op import Op

_SAMPLES: dict[tuple[str, int], Callable] = {}
_FAMILIES = {path.stem for path in Path(__file__).parent.glob("[a-z]*.py")}


def samples(name: str, opset: int = 1) -> Callable[[Callable], Callable]:
    """Register a function (rng, element type) -> samples of an operation."""

    def register(function: Callable) -> Callable:
        _SAMPLES[name, opset] = function
        return function

    return register


def _function_of(record: Op) -> Callable | None:
    """The function of a version's samples, which later versions inherit."""
    package, _, module = record.module.partition(".")
    family = module.partition(".")[0]
    if package == "ovjit_ops" and family in _FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    function = _SAMPLES.get((record.name, record.opset))
    if function is None and record.like is not None and record.samples is record.like.samples:
        return _function_of(record.like)
    return function or record.samples


def has_samples(record: Op) -> bool:
    return _function_of(record) is not None


def samples_of(
    record: Op, rng: np.random.Generator, dtype: str = ""
) -> Iterator[tuple[list[np.ndarray], dict[str, Any]]]:
    """The samples of an operation, of an element type or of the function's own."""
    function = _function_of(record)
    assert function is not None, f"{record} has no samples"
    return function(rng, dtype) if dtype else function(rng)
