"""What exporters hand to `convert_model`: a PyTorch module with its example."""

from ovjit.readers.torch.decoders import TorchScriptPythonDecoder

__all__ = ["TorchScriptPythonDecoder"]
