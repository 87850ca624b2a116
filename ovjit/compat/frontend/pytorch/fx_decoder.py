"""Decoder of an exported program or a graph of ATen operators, which exporters pass to `convert_model`."""

from __future__ import annotations

from ovjit.compat.frontend.extensions import _IDecoder
from ovjit.readers.torch import decoders


class TorchFXPythonDecoder(decoders.TorchFXPythonDecoder, _IDecoder):
    """An exported program, or a graph module with the metadata of its placeholders."""

    def get_input_signature_name(self, index: int) -> str:
        """The name of an input in the signature of the module."""
        return self._input_signature[index]

    def decoder_type_name(self) -> str:
        """The kind of graph: FX."""
        return "fx"


__all__ = ["TorchFXPythonDecoder"]
