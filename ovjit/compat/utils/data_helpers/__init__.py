"""Tensors from files and from what a caller passes as inputs."""

from ovjit.api.run.results import OVDict
from ovjit.compat.utils.data_helpers.data_dispatcher import _data_dispatch
from ovjit.compat.utils.data_helpers.wrappers import _InferRequestWrapper, tensor_from_file

__all__ = ["OVDict", "_InferRequestWrapper", "_data_dispatch", "tensor_from_file"]
