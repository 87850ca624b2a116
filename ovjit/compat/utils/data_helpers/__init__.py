"""Results, requests, and tensors from files."""

from ovjit.api.run.results import OVDict
from ovjit.compat.utils.data_helpers.wrappers import _InferRequestWrapper, tensor_from_file

__all__ = ["OVDict", "_InferRequestWrapper", "tensor_from_file"]
