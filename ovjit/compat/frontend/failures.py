"""Exceptions of front ends, by OpenVINO's names. As there, these derive from Exception, not RuntimeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovjit.errors import ModelError, OvjitError, UnsupportedError

#: What errors of a file say that are about its operations.
_OF_OPERATIONS = ("No conversion rule found", "While validating ONNX node", "No translator found")


class GeneralFailure(Exception):
    """A file or a model that cannot be read."""


class Unreadable(GeneralFailure, ModelError):
    """An invalid file of a known format, or an invalid object: OpenVINO's class, and an error of ovjit's."""


class InitializationFailure(Exception):
    """There is no front end of that name."""


class NotImplementedFailure(Exception):
    """The front end does not support the operation."""


class OpConversionFailure(Exception):
    """An operation that cannot be converted."""


class Unconverted(OpConversionFailure, UnsupportedError):
    """An operation that `convert_model` cannot convert: OpenVINO's class, and an error of ovjit's."""


def is_of_operation(error: OvjitError) -> bool:
    """Whether reading a file failed at one of its operations."""
    return any(words in str(error) for words in _OF_OPERATIONS)


def as_failures(read: Callable[[], Any]) -> Any:
    """Return the result of `read`; its errors are raised again as OpenVINO's classes."""
    try:
        return read()
    except OvjitError as error:
        kind = OpConversionFailure if is_of_operation(error) else Unreadable
        raise kind(str(error)) from error


class OpValidationFailure(Exception):
    """An operation whose inputs or attributes do not fit."""
