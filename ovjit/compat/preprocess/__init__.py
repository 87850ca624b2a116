"""Steps before and after a model: types, layouts, colours, sizes, means, as part of the model itself."""

from ovjit.compat.preprocess.formats import ColorFormat, PaddingMode, ResizeAlgorithm
from ovjit.compat.preprocess.infos import (
    InputInfo,
    InputModelInfo,
    InputTensorInfo,
    OutputInfo,
    OutputModelInfo,
    OutputTensorInfo,
    PostProcessSteps,
    PreProcessSteps,
)
from ovjit.compat.preprocess.processor import PrePostProcessor

__all__ = [
    "ColorFormat", "InputInfo", "InputModelInfo", "InputTensorInfo", "OutputInfo", "OutputModelInfo",
    "OutputTensorInfo", "PaddingMode", "PostProcessSteps", "PrePostProcessor", "PreProcessSteps",
    "ResizeAlgorithm",
]  # fmt: skip

# OpenVINO's native module has the members of its enumerations by themselves, too
globals().update({**ColorFormat.__members__, **PaddingMode.__members__, **ResizeAlgorithm.__members__})
