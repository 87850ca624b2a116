"""What front ends raise, by OpenVINO's names. They are Exceptions, not RuntimeErrors, as there."""

from __future__ import annotations


class GeneralFailure(Exception):
    """A file or a model that cannot be read."""


class InitializationFailure(Exception):
    """There is no such front end."""


class NotImplementedFailure(Exception):
    """The front end cannot do that."""


class OpConversionFailure(Exception):
    """An operation that cannot be converted."""


class OpValidationFailure(Exception):
    """An operation whose inputs or attributes do not fit."""
