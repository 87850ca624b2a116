"""What exporters hand to `convert_model`: an exported program or a graph of ATen operators."""

from __future__ import annotations

from ovjit.compat.frontend.extensions import _IDecoder
from ovjit.readers.torch import decoders


class TorchFXPythonDecoder(decoders.TorchFXPythonDecoder, _IDecoder):
    """An exported program, or a graph module with what its placeholders tell of the inputs."""

    def get_input_signature_name(self, index: int) -> str:
        """The name of an input in the signature of the module."""
        return self._input_signature[index]

    def decoder_type_name(self) -> str:
        """The kind of graph: FX."""
        return "fx"


__all__ = ["TorchFXPythonDecoder"]
