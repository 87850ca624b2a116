"""Exceptions of a conversion, by OpenVINO's names."""

from __future__ import annotations

from ovjit.errors import ModelError, OvjitError


class BasicError(OvjitError):
    """A format string, and the values for its braces."""

    def __str__(self) -> str:
        return str(self.args[0]).format(*self.args[1:]) if len(self.args) > 1 else "".join(self.args)


class Error(BasicError):
    """The request is invalid or cannot be fulfilled."""


class Unrecognized(Error, ModelError):
    """A file that no front end takes."""
