"""What exporters hand to `convert_model`: an exported program."""

from ovjit.readers.torch.decoders import TorchFXPythonDecoder

__all__ = ["TorchFXPythonDecoder"]
