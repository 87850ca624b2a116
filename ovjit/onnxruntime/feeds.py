"""Inputs of a run: conversion and checks, with ONNX Runtime's words for what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.onnxruntime.element_types import STRING, TYPES, number_of, tensor_text
from ovjit.onnxruntime.failures import Fail, InvalidArgument, failure_of
from ovjit.onnxruntime.graph_info import NodeArg
from ovjit.onnxruntime.values import OrtValue


class InputCheck:
    """The checks of one input. `shape` is the last shape that passed them."""

    __slots__ = ("_arg", "_number", "_port_dtype", "dtype", "name", "shape")

    def __init__(self, arg: NodeArg, number: int, has_rank: bool, port_dtype: Any) -> None:
        self.name = arg.name
        self._arg = arg if has_rank else None
        self._number = number
        #: The NumPy type of the compiled model's input, in which the elements' bytes lie.
        self._port_dtype = None if port_dtype is None else np.dtype(port_dtype)
        row = TYPES[number]
        #: The type that arrays have, None if they are always converted.
        self.dtype = row.dtype if number != STRING else None
        self.shape: tuple[int, ...] | None = None

    def convert(self, value: Any) -> np.ndarray:
        """The array of a value that a program passes. Raises ONNX Runtime's errors for what does not fit."""
        array, number, shape = self._array_of(value)
        if number != self._number:
            raise failure_of(
                InvalidArgument,
                f"Unexpected input data type. Actual: ({tensor_text(number)}) , expected: "
                f"({tensor_text(self._number)})",
            )
        if self._arg is not None:
            check_shape("input", self._arg, shape)
        self.shape = shape
        if number == STRING:
            return _text_of(array)
        if array.dtype != self._port_dtype and TYPES[number].dtype is None:
            return array.view(self._port_dtype)
        return array

    def _array_of(self, value: Any) -> tuple[np.ndarray, int, tuple[int, ...]]:
        if isinstance(value, np.ndarray):
            number = number_of(value.dtype)
            if not value.dtype.isnative:
                value = value.astype(value.dtype.newbyteorder("="))
            return np.asarray(value), number, value.shape
        if isinstance(value, OrtValue):
            if value.is_sparse_tensor():
                text = (
                    f"input with name: '{self.name}' expected to be of type: 2 but received a sparse tensor"
                )
                raise failure_of(InvalidArgument, text)
            if not value.is_tensor():
                raise failure_of(
                    InvalidArgument,
                    f"Unexpected input data type. Actual: ({value.data_type()}) , expected: "
                    f"({tensor_text(self._number)})",
                )
            return value._array, value._type, tuple(value.shape())
        if isinstance(value, list):
            try:
                array = np.array(value, TYPES[self._number].dtype)
            except (ValueError, TypeError) as error:
                raise RuntimeError("Could not create tensor from given input list") from error
            return array, self._number, array.shape
        if value is None:
            raise failure_of(
                Fail, f"Non-zero status code returned while running the model: Missing Input: {self.name}"
            )
        if isinstance(value, Mapping):
            raise failure_of(
                InvalidArgument,
                f"Unexpected input data type. Actual: (map) , expected: ({tensor_text(self._number)})",
            )
        if hasattr(value, "__iter__") and not isinstance(value, np.generic):
            raise RuntimeError(
                f"Input must be a list of dictionaries or a single numpy array for input '{self.name}'."
            )
        raise RuntimeError(f"Unable to handle object of type {type(value)}")


def check_shape(what: str, arg: NodeArg, shape: tuple[int, ...]) -> None:
    """Raise InvalidArgument for a shape of another rank, or other fixed dimensions, than an input or output
    has."""
    expected = arg._shape
    if len(shape) != len(expected):
        raise failure_of(
            InvalidArgument,
            f"Invalid rank for {what}: {arg.name} Got: {len(shape)} Expected: {len(expected)} Please fix "
            "either the inputs/outputs or the model.",
        )
    wrong = [
        f" index: {i} Got: {size} Expected: {dim}"
        for i, (size, dim) in enumerate(zip(shape, expected, strict=True))
        if isinstance(dim, int) and dim != size
    ]
    if wrong:
        lines = "\n".join(wrong)
        raise failure_of(
            InvalidArgument,
            f"Got invalid dimensions for {what}: {arg.name} for the following indices\n{lines}\n Please fix "
            "either the inputs/outputs or the model.",
        )


def _text_of(array: np.ndarray) -> np.ndarray:
    """Text as arrays of str, which the compiled model takes."""
    if array.dtype.kind == "O":
        texts = [str(value) for value in array.reshape(-1)]
        return np.array(texts, object).reshape(array.shape)
    return array
