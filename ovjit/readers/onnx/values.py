"""Values of ONNX that are no tensors: sequences, and optionals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ovjit.build import Output


class TensorList(list):
    """A sequence: its tensors are known one by one while the model is read, so that no node stands for it.

    `element_type` is that of an empty one, where the model says it.
    """

    def __init__(self, items: Iterable[Any] = (), element_type: str | None = None):
        super().__init__(items)
        self.element_type = element_type


class LoopSequence:
    """A sequence to which a loop adds a tensor in each iteration: the rows of one tensor, [iterations, ...].

    `first` are its initial tensors. Tensors that may have different lengths and that the model joins along an
    axis are in `joined` in that form, by that axis.
    """

    def __init__(self, first: TensorList, rows: Output, joined: Mapping[int, Output] | None = None) -> None:
        self.first = first
        self.rows = rows
        self.joined = joined or {}


class _Empty:
    """An optional that holds nothing."""

    def __repr__(self) -> str:
        return "an empty optional"


EMPTY = _Empty()


class OpenOptional:
    """An optional that holds `value` if `is_there`, a boolean of one element. Else the value stands for
    none."""

    def __init__(self, value: Any, is_there: Output) -> None:
        self.value = value
        self.is_there = is_there
