"""What a conversion raises, by OpenVINO's names."""

from __future__ import annotations

import re
from typing import Any

from ovjit.errors import ModelError, OvjitError


class BasicError(OvjitError):
    """A sentence, and what is put into its braces."""

    def __str__(self) -> str:
        return str(self.args[0]).format(*self.args[1:]) if len(self.args) > 1 else "".join(self.args)


class Error(BasicError):
    """What is asked for cannot be done."""


class Unrecognized(Error, ModelError):
    """A file that no front end takes."""


class FrameworkError(BasicError):
    """The framework of the model fails."""


class InternalError(BasicError):
    """The converter is at fault."""


def classify_error_type(e: Any) -> str:
    """What an ImportError is about; "undefined" for other errors."""
    found = re.search(r"No module named '(\w|\.)+'|cannot import name '\w+'", str(e))
    return found[0] if found else "undefined"
