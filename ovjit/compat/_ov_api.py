"""The classes of inference, where OpenVINO's Python layer keeps them."""

from ovjit.api.model.model import Model
from ovjit.api.run.compiled import CompiledModel
from ovjit.api.run.core import Core, compile_model
from ovjit.api.run.queue import AsyncInferQueue
from ovjit.api.run.request import InferRequest
from ovjit.api.run.results import OVDict
from ovjit.api.tensors.tensor import Tensor
from ovjit.compat.utils.data_helpers.wrappers import _InferRequestWrapper, tensor_from_file

__all__ = [
    "AsyncInferQueue", "CompiledModel", "Core", "InferRequest", "Model", "OVDict", "Tensor",
    "_InferRequestWrapper", "compile_model", "tensor_from_file",
]  # fmt: skip
