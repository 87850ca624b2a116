"""Memory of devices that ovjit does not drive: the classes, for programs that name them. None can be made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ovjit.api.accessors import accessor
from ovjit.api.arguments import explain_calls
from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import UnsupportedError


def _refuse(what: str) -> NoReturn:
    raise UnsupportedError(
        f"{what} is not supported: it needs a device with its own memory, such as a GPU; "
        "available devices are CPU"
    )


@explain_calls
class RemoteContext:
    """Memory of a device; `Core.create_context` makes it where there is such a device."""

    def __init__(self) -> None:
        raise TypeError(f"{type(self).__name__}: No constructor defined! See Core.create_context")

    def get_device_name(self) -> str:
        """The name of the device."""
        _refuse("get_device_name")

    def get_params(self) -> dict[str, Any]:
        """What the device tells of its memory."""
        _refuse("get_params")

    def create_tensor(self, type: Any, shape: Any, properties: Mapping[str, Any]) -> RemoteTensor:
        """A tensor in the device's memory."""
        _refuse("create_tensor")

    def create_host_tensor(self, type: Any, shape: Any) -> Tensor:
        """A tensor in memory that the device and this process share."""
        _refuse("create_host_tensor")


@explain_calls
class RemoteTensor:
    """A tensor in a device's memory."""

    def __init__(self, remote_tensor: RemoteTensor, begin: Any, end: Any) -> None:
        _refuse("RemoteTensor")

    def get_device_name(self) -> str:
        """The name of the device."""
        _refuse("get_device_name")

    def get_params(self) -> dict[str, Any]:
        """What the device tells of this memory."""
        _refuse("get_params")

    def get_shape(self) -> Any:
        """The shape."""
        _refuse("get_shape")

    def get_byte_size(self) -> int:
        """How many bytes it takes."""
        _refuse("get_byte_size")

    def copy_to(self, target_tensor: Any) -> None:
        """Copy to a tensor of any memory."""
        _refuse("copy_to")

    def copy_from(self, source_tensor: Any) -> None:
        """Copy from a tensor of any memory."""
        _refuse("copy_from")

    def _no_data(self) -> NoReturn:
        raise UnsupportedError(
            "the data of a RemoteTensor cannot be accessed directly: copy it to a Tensor with copy_to"
        )

    data = accessor(_no_data)
    bytes_data = accessor(_no_data)
    str_data = accessor(_no_data)


@explain_calls
class VAContext(RemoteContext):
    """Memory shared with VA-API on a GPU."""

    def __init__(self, core: Any, display: Any, target_tile_id: int = -1) -> None:
        _refuse("VAContext")

    def create_tensor(self, type: Any, shape: Any, surface: Any, plane: int = 0) -> Any:
        """A tensor over a surface."""
        _refuse("create_tensor")

    def create_tensor_nv12(self, height: int, width: int, nv12_surface: int) -> Any:
        """The two tensors of an NV12 surface."""
        _refuse("create_tensor_nv12")


@explain_calls
class VASurfaceTensor(RemoteTensor):
    """A tensor over a VA-API surface."""

    def __init__(self) -> None:
        raise TypeError("VASurfaceTensor: No constructor defined! See VAContext.create_tensor")

    def _refuse_id(self) -> int:
        _refuse("VASurfaceTensor")

    surface_id = accessor(_refuse_id)
    plane_id = accessor(_refuse_id)
