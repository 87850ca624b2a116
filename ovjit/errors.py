"""Exceptions of ovjit, each also the class that OpenVINO raises in its place.

Programs written for OpenVINO catch RuntimeError (nearly always), TypeError, IndexError or
ValueError; ovjit's own classes derive from those, so both kinds of `except` work.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class OvjitError(RuntimeError):
    """Root of ovjit's own errors."""


class ModelError(OvjitError):
    """A model file or a graph is not valid: what, in which node, what to do next."""


class ConverterError(ModelError):
    """A converter that the caller gave for an operator failed. The model is read in no other way then."""


class UnsupportedError(OvjitError):
    """The model is valid but uses something that ovjit does not implement."""


class NoSource(OvjitError):
    """A function is to become machine code, and its text is nowhere: what to ship is in the message."""


class InferenceError(OvjitError):
    """A running inference met data that its operation refuses (an index out of range ...)."""


class Cancelled(OvjitError):
    """Raised by `InferRequest.wait` after `cancel`."""


class Busy(OvjitError):
    """The request is running; wait for it first."""


def check(condition: object, message: str) -> None:
    """Raise ModelError with `message` unless `condition` holds."""
    if not condition:
        raise ModelError(message)


@contextmanager
def sizes_of_64_bits(node: str) -> Iterator[None]:
    """Kernels have no other numbers: raises ModelError where a number of a node's plan is beyond."""
    try:
        yield
    except OverflowError as error:
        raise ModelError(f"node {node!r}: sizes or strides exceed 64 bits") from error


def no_such_form(why: str) -> TypeError:
    """The error of a function that is called with what it does not take."""
    return TypeError(f"incompatible function arguments: {why}")


def no_such_constructor(why: str) -> TypeError:
    """The same of a class that is made of what it does not take."""
    return TypeError(f"incompatible constructor arguments: {why}")


def checked_index(
    value: Any, count: int, what: str, beyond: Callable[[int], Exception], taken: str = "an int"
) -> int:
    """The index `value` of one of `count` items. TypeError unless it is an int from 0 on; `beyond` makes the
    error of one that is too large. `taken`: all kinds of values that the caller accepts, for the error."""
    try:
        index = operator.index(value)
    except TypeError:
        raise no_such_form(f"the {what} is selected by {taken}, not {type(value).__name__}") from None
    if index < 0:
        raise no_such_form(f"{what} indices start at 0; {index} is given")
    if index >= count:
        raise beyond(index)
    return index


def no_path(value: object) -> OvjitError:
    """The error of a path that is neither text nor a PathLike, or that nothing is at."""
    return OvjitError(
        f"Path: '{value}' does not exist. Please provide valid model's path either as a string, bytes or "
        "pathlib.Path"
    )


#: What is said of endings of files that `read_model` does not take.
_ELSEWHERE = {
    ".meta": "Meta graphs of TensorFlow are not supported: save a SavedModel.",
    **dict.fromkeys((".pt", ".pt2", ".pth"), "Use convert_model to read files of PyTorch."),
}


def no_front_end(path: str) -> str:
    """What is said of a file of a framework that is not read; "" of others."""
    return _ELSEWHERE.get(os.path.splitext(path)[1].lower(), "")


def unreadable(path: str | None, why: str) -> str:
    """What is said of a model's file, or of contents without one (None), that is none, and why."""
    if path is None:
        what = "Unable to read the model. Please check if the model format is supported and model is correct."
        return f"{what} {why}"
    ending = os.path.splitext(path)[1]
    return (
        f'Unable to read the model: "{path}" Please check that model format: "{ending}" is supported and the '
        f"model is correct. {why}"
    )
