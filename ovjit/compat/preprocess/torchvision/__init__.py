"""torchvision's transforms as steps of the model."""

from ovjit.compat.preprocess.torchvision.preprocess_converter import PreprocessConverter

__all__ = ["PreprocessConverter"]
