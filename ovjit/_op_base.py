"""The base of operations written in Python, where OpenVINO keeps it."""

from ovjit.api.model.custom import Op

__all__ = ["Op"]
