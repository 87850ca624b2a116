"""Exceptions that OpenVINO's Python layer raises itself, for programs that catch them."""


class OVError(Exception):
    """Root of these exceptions."""


class UserInputError(OVError):
    """An argument that the called function cannot use."""


class OVTypeError(OVError, TypeError):
    """An element type or Python type that is not known."""


for _error in (OVError, UserInputError, OVTypeError):
    _error.__module__ = "ovjit.exceptions"  # where programs find them

__all__ = ["OVError", "OVTypeError", "UserInputError"]
