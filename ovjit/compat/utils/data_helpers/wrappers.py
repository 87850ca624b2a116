"""Results, requests and tensors from files, where OpenVINO's Python layer keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.run.request import InferRequest as _InferRequestWrapper
from ovjit.api.run.results import OVDict
from ovjit.api.tensors.tensor import Tensor


def tensor_from_file(path: Any) -> Tensor:
    """The bytes of a file as a u8 Tensor [size]. OSError if it cannot be read."""
    return Tensor(np.fromfile(path, dtype=np.uint8))


__all__ = ["OVDict", "_InferRequestWrapper", "tensor_from_file"]
