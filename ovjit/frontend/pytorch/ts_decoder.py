"""What exporters hand to `convert_model`: a PyTorch module with its example."""

from ovjit.readers.torch_modules import TorchScriptPythonDecoder

__all__ = ["TorchScriptPythonDecoder"]
