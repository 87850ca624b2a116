"""Extensions for operators of PyTorch."""

import ovjit.compat.frontend.extensions as extensions


class ConversionExtension(extensions.ConversionExtension):
    """A converter of an operator of PyTorch."""

    namespace = None


class OpExtension(extensions.OpExtension):
    """An operator of PyTorch that maps to an OpenVINO operation."""

    namespace = None
