"""Compiled parts as functions of tensors, which go in and come out without copies where they lie in order."""

from __future__ import annotations

import ctypes
import functools
from collections import deque
from collections.abc import Callable, Mapping
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np

from ovjit.api.run.core import Core
from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.types import Type
from ovjit.api.tensors.vectors import Shape
from ovjit.compat.frontend.pytorch.torchdynamo.graphs import part_of, static_outputs
from ovjit.compat.frontend.pytorch.torchdynamo.options import Options
from ovjit.readers.torch.values import array_of, torch_types


@functools.cache
def _plain() -> frozenset[Any]:
    """Element types whose tensors NumPy reads where they lie."""
    import torch

    return frozenset((torch.float32, torch.int64, torch.bool, torch.int32, torch.float16, torch.float64))


class Runner:
    """A part that is compiled. Calling it takes the part's arguments and gives its outputs in a list."""

    def __init__(self, module: Any, constants: Mapping[int, Any], options: Options):
        part = part_of(module, constants)
        self.takes, self.gives, self.laid = part.takes, part.gives, part.laid
        self.compiled = Core().compile_model(part.model, options.device, options.config)
        self._shapes = static_outputs(part.model)
        self._types = _types(self.compiled.outputs)
        self._taken = _types(self.compiled.inputs)
        self._idle: deque[Any] = deque()  # requests that no thread uses

    def __call__(self, arguments: Any) -> list[Any]:
        import torch

        inputs = [_array(arguments[i], kind) for i, kind in zip(self.takes, self._taken, strict=True)]
        made: list[Any] = [None] * len(self._shapes)
        request = self._idle.pop() if self._idle else self.compiled.create_infer_request()
        for i, shape in enumerate(self._shapes):
            if shape is not None:  # the tensor that the caller gets is what is written to
                made[i] = torch.empty(shape, dtype=self._types[i])
                request.set_output_tensor(i, _lent(made[i]))
        found = request.infer(inputs, share_inputs=True, share_outputs=True)
        for i, value in enumerate(made):
            if value is None:
                made[i] = _tensor(np.array(found[i]), self._types[i])
        self._idle.append(request)
        for i, (axes, lengths) in self.laid.items():
            made[i] = made[i].permute(axes).expand(lengths)
        return [_given(kind, where, made) for kind, where in self.gives]


def _types(ports: list[Any]) -> list[Any]:
    """PyTorch's element types of a Model's ports."""
    return [torch_types()[port.get_element_type().to_string()] for port in ports]


def _given(kind: str, where: Any, made: list[Any]) -> Any:
    import torch

    if kind == "value":
        return where
    if kind == "number":
        return made[where].item()
    return torch.view_as_complex(made[where]) if kind == "complex" else made[where]


def _lent(value: Any) -> Tensor:
    """A tensor in the memory of PyTorch's; NumPy has no bf16, so its bits are lent."""
    import torch

    if value.dtype is torch.bfloat16:
        bits = value.detach().contiguous().view(torch.int16).numpy()
        return Tensor(bits, Shape(list(value.shape)), Type.bf16)
    return Tensor(_array(value, value.dtype), shared_memory=True)


def _array(value: Any, kind: Any) -> Any:
    """A tensor or number as an array; as PyTorch's type `kind`, as operators may give another type than
    their graph says."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.dtype is not kind and not value.is_complex():
            value = value.to(kind)
        if value.dtype in _plain() and value.is_contiguous() and value.is_cpu and not value.is_neg():
            return value.detach().numpy()
        return _lent(value) if value.dtype is torch.bfloat16 else array_of(value)[0]
    return np.asarray(
        value, np.bool_ if isinstance(value, bool) else np.int64 if isinstance(value, int) else np.float64
    )


def _tensor(array: np.ndarray, dtype: Any) -> Any:
    import torch

    if dtype is torch.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


class Frozen:
    """A part some of whose arguments are weights: constants, as long as they do not change.

    `places` are those arguments. Each call looks at them: where one is another tensor or has been written
    to, the part is compiled anew by `make`. PyTorch does not count what is written to `tensor.data`: that is
    seen by a few of the bytes.
    """

    def __init__(self, places: list[int], make: Callable[[Mapping[int, Any]], Callable[[Any], list[Any]]]):
        self.places, self.make = places, make
        self._seen: tuple[list[int], list[int]] | None = None
        self._kept: list[Any] = []
        self._spots: list[Any] = []
        self._bytes = b""
        self._call: Any = None

    def __call__(self, arguments: Any) -> list[Any]:
        now = [arguments[i] for i in self.places]
        seen = _states(now)
        if seen != self._seen or b"".join(self._spots) != self._bytes:
            self._spots = _spots(now)
            self._bytes = b"".join(self._spots)
            self._call = self.make(dict(zip(self.places, now, strict=True)))
            self._seen, self._kept = seen, now
        return self._call(arguments)


_pointer, _version = methodcaller("data_ptr"), attrgetter("_version")


#: How many bytes are looked at in one place.
SPOT = 64


def _spots(tensors: list[Any]) -> list[Any]:
    """Views of a few bytes at the beginning, the middle and the end of each tensor that lies in order."""
    found = []
    for tensor in tensors:
        place, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        if not place or not size or tensor.device.type != "cpu" or not tensor.is_contiguous():
            continue
        starts = {0, size // 2, max(0, size - SPOT)}
        found += [(ctypes.c_char * min(SPOT, size - at)).from_address(place + at) for at in sorted(starts)]
    return found


def _states(tensors: list[Any]) -> tuple[list[int], list[int]]:
    """Which memory each tensor has, and how often it was written to as far as PyTorch counts that."""
    pointers = list(map(_pointer, tensors))
    try:
        return pointers, list(map(_version, tensors))
    except RuntimeError:  # writes to tensors of inference mode are not counted
        return pointers, [0 if tensor.is_inference() else tensor._version for tensor in tensors]
