"""Exceptions of a conversion, by OpenVINO's names."""

from __future__ import annotations

import re
from typing import Any

from ovjit.errors import ModelError, OvjitError


class BasicError(OvjitError):
    """A format string, and the values for its braces."""

    def __str__(self) -> str:
        return str(self.args[0]).format(*self.args[1:]) if len(self.args) > 1 else "".join(self.args)


class Error(BasicError):
    """The request is invalid or cannot be fulfilled."""


class Unrecognized(Error, ModelError):
    """A file that no front end takes."""


class FrameworkError(BasicError):
    """The framework of the model fails."""


class InternalError(BasicError):
    """The converter is at fault."""


def classify_error_type(e: Any) -> str:
    """The part of an ImportError's text with the missing module or name; "undefined" for other errors."""
    match = re.search(r"No module named '(\w|\.)+'|cannot import name '\w+'", str(e))
    return match[0] if match else "undefined"
