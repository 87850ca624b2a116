"""Inputs of a run: conversion and checks, with ONNX Runtime's words for inputs that do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.onnxruntime.element_types import STRING, TYPES, number_of, number_of_text, tensor_text
from ovjit.onnxruntime.failures import Fail, InvalidArgument, failure_of, refuse
from ovjit.onnxruntime.graph_info import NodeArg
from ovjit.onnxruntime.values import OrtValue


class InputCheck:
    """The checks of one input. `shape` is the last shape that passed them."""

    __slots__ = ("_arg", "_number", "_port", "_port_dtype", "dtype", "name", "shape")

    def __init__(self, arg: NodeArg, has_rank: bool, port: Any) -> None:
        self.name = arg.name
        self._arg = arg if has_rank and not arg.type.startswith("seq(") else None
        self._number = number = number_of_text(arg.type)
        #: The input of the compiled model, None if the model is compiled for the rank of a call's arrays.
        self._port = port
        #: The NumPy type of that input, in which the elements' bytes lie.
        self._port_dtype = None if port is None else np.dtype(port.get_element_type().to_dtype())
        #: The type that arrays have, None if they are always converted.
        self.dtype = TYPES[number].dtype if number != STRING else None
        self.shape: tuple[int, ...] | None = None

    def convert(self, value: Any) -> np.ndarray:
        """The array of a value that a program passes. Raises ONNX Runtime's errors if it does not fit."""
        array, number, shape = self._array_of(value)
        if number != self._number:
            raise self._wrong_type(tensor_text(number))
        if self._arg is not None:
            check_shape("input", self._arg, shape)
        self.shape = shape
        if number == STRING:
            return _text_of(array)
        if array.dtype != self._port_dtype and TYPES[number].dtype is None:
            return array.view(self._port_dtype)
        return array

    def _wrong_type(self, actual: str) -> Exception:
        expected = tensor_text(self._number)
        text = f"Unexpected input data type. Actual: ({actual}) , expected: ({expected})"
        return failure_of(InvalidArgument, text)

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
                raise self._wrong_type(value.data_type())
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
            raise self._wrong_type("map")
        if hasattr(value, "__iter__") and not isinstance(value, np.generic):
            raise RuntimeError(
                f"Input must be a list of dictionaries or a single numpy array for input '{self.name}'."
            )
        raise RuntimeError(f"Unable to handle object of type {type(value)}")


class SequenceCheck(InputCheck):
    """The checks of a sequence. Its tensors, of one shape, become the rows of one."""

    __slots__ = ()

    def convert(self, value: Any) -> np.ndarray:
        items = value._array if isinstance(value, OrtValue) else value
        if isinstance(items, np.ndarray):
            text = f"input with name: '{self.name}' expected to be of type: 3 but received a tensor"
            raise failure_of(InvalidArgument, text)
        if not isinstance(items, list):
            return super().convert(value)  # which raises the error
        if not all(isinstance(item, np.ndarray) for item in items):
            raise RuntimeError("CreateSequenceOfTensors: Input is not a tensor")
        if any(number_of(item.dtype) != self._number for item in items):
            raise RuntimeError("TensorSeq: tensor to be added has a different data type.")
        if len({item.shape for item in items}) > 1:
            refuse(f"sequences of tensors of several shapes ({self.name})", "pad them to one shape")
        rows = [super(SequenceCheck, self).convert(item) for item in items]
        self.shape = None  # an array is no sequence
        if rows:
            return np.stack(rows)
        shape = () if self._port is None else self._port.get_partial_shape().get_min_shape()[1:]
        return np.zeros((0, *shape), self._port_dtype or TYPES[self._number].dtype)


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
    if array.dtype.kind != "O" or {*map(type, texts := array.ravel().tolist())} <= {str}:
        return array
    return np.array([*map(str, texts)], object).reshape(array.shape)
