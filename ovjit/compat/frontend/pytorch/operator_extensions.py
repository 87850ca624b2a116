"""How operators of PyTorch are converted, in the words of a program."""

from __future__ import annotations

import ovjit.compat.frontend.extensions as extensions


class ConversionExtension(extensions.ConversionExtension):
    """How an operator of PyTorch is converted."""

    framework = "PyTorch"


class OpExtension(extensions.OpExtension):
    """An operator of PyTorch that is an operation of OpenVINO's."""

    framework = "PyTorch"
