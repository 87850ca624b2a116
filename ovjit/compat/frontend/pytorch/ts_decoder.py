"""What exporters hand to `convert_model`: a PyTorch module with its example."""

from ovjit.readers.torch.trace import TorchScriptPythonDecoder

__all__ = ["TorchScriptPythonDecoder"]
