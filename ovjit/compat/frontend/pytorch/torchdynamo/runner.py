"""Compiled parts as functions of tensors, which go in and come out without copies where they lie in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any

import numpy as np

from ovjit.api.run.addressed import AddressedJob
from ovjit.api.run.core import Core
from ovjit.compat.frontend.pytorch.torchdynamo.checks import as_in_eager_mode
from ovjit.compat.frontend.pytorch.torchdynamo.graphs import part_of, static_outputs
from ovjit.compat.frontend.pytorch.torchdynamo.options import Options
from ovjit.errors import InferenceError
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.values import array_of, torch_types

_pointer = methodcaller("data_ptr")


class Runner:
    """A compiled partition. Calling it with the partition's arguments returns a list of outputs.

    A call passes addresses of tensors. Where Python takes part in the inference, a request takes arrays.
    """

    def __init__(self, module: Any, constants: Mapping[int, Any], options: Options):
        part = part_of(module, constants)
        self.gives, self.laid = part.gives, part.laid
        self.compiled = Core().compile_model(part.model, options.device, options.config)
        types = _types(self.compiled.inputs)
        self._tensors = list(zip(part.takes, types, strict=False))
        self._numbers = list(zip(part.numbers, types[len(part.takes) :], strict=True))
        self._types = _types(self.compiled.outputs)
        self._new = _new_tensor()
        self._kinds = {where: kind for kind, where in self.gives if kind != "value"}
        #: Of each output that a call allocates: the place of its address, its size, strides and type.
        self._allocations: list[tuple[int, Any, Any, Any] | None] = [
            None if shape is None else (len(types) + i, *self._form(i, shape))
            for i, shape in enumerate(static_outputs(part.model))
        ]
        self._open = [i for i, result in enumerate(self._allocations) if result is None]
        #: Whether the outputs are those of the model.
        self._is_plain = all(
            kind in ("tensor", "complex") and where == i for i, (kind, where) in enumerate(self.gives)
        )
        self._jobs: deque[AddressedJob] = deque()  # those that no thread uses
        self._requests: deque[Any] = deque()

    def __call__(self, arguments: Any) -> list[Any]:
        try:
            job = self._jobs.pop()
        except IndexError:
            job = AddressedJob(self.compiled)
        values, shapes = [], []
        for index, kind in self._tensors:
            value = arguments[index]
            if value.dtype is not kind or not value.is_contiguous() or value.is_neg():
                value = _in_order(value, kind)
            values.append(value)
            shapes.append(value.shape)
        for index, kind in self._numbers:
            values.append(_number(arguments[index], kind))
            shapes.append(())
        if shapes != job.shapes:
            job.prepare(shapes)
        bases = job.bases
        if bases is None:
            self._jobs.append(job)
            return self._by_request(values)
        bases[: len(values)] = list(map(_pointer, values))
        result: list[Any] = []
        new = self._new
        for how in self._allocations:
            if how is None:
                result.append(None)
                continue
            at, size, strides, dtype = how
            value = new(size, strides, dtype)
            bases[at] = value.data_ptr()
            result.append(value)
        try:
            job.run()
        except InferenceError as error:
            raise as_in_eager_mode(error) from None
        for i in self._open:
            result[i] = self._restore_layout(i, _tensor(job.take(i), self._types[i]))
        self._jobs.append(job)
        return result if self._is_plain else [_select(kind, where, result) for kind, where in self.gives]

    def _by_request(self, values: list[Any]) -> list[Any]:
        try:
            request = self._requests.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        try:
            outputs = request.infer([array_of(value)[0] for value in values], True, True)
        except InferenceError as error:
            raise as_in_eager_mode(error) from None
        arrays = [np.array(outputs[i]) for i in range(len(self._types))]
        result = [
            self._restore_layout(i, _tensor(array, dtype))
            for i, (array, dtype) in enumerate(zip(arrays, self._types, strict=True))
        ]
        self._requests.append(request)
        return [_select(kind, where, result) for kind, where in self.gives]

    def _form(self, i: int, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
        """(shape, strides, dtype) of output `i` for the caller, from the shape of the compiled model's
        output."""
        like = self._restore_layout(i, torch.empty(shape, dtype=self._types[i], device="meta"))
        return tuple(like.shape), like.stride(), like.dtype

    def _restore_layout(self, i: int, tensor: Any) -> Any:
        """The tensor for the caller, with its strides, from the memory of the model's output i."""
        if i in self.laid:
            axes, lengths = self.laid[i]
            tensor = tensor.permute(axes).expand(lengths)
        if self._kinds[i] != "complex":
            return tensor
        if not tensor.numel():  # its strides are not those of pairs
            return tensor.new_empty(tensor.shape[:-1], dtype=tensor.dtype.to_complex())
        return torch.view_as_complex(tensor)


def _types(ports: list[Any]) -> list[Any]:
    """PyTorch's element types of a Model's ports."""
    return [torch_types()[port.get_element_type().to_string()] for port in ports]


def _new_tensor() -> Callable[[Any, Any, Any], Any]:
    """A function that creates a CPU tensor from a size, strides and a type, as Inductor does."""

    def allocate(size: Any, strides: Any, dtype: Any) -> Any:
        return torch.empty_strided(size, strides, dtype=dtype, device="cpu")

    return getattr(torch._C._dynamo.guards, "_empty_strided_cpu", allocate)


def _select(kind: str, where: Any, tensors: list[Any]) -> Any:
    if kind == "value":
        return where
    return tensors[where].item() if kind == "number" else tensors[where]


def _in_order(value: Any, kind: Any) -> Any:
    """A contiguous tensor of the type `kind`. Operators may return another type than their graph says."""
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    elif value.dtype is not kind:
        value = value.to(kind)
    if value.layout is not torch.strided:
        value = value.to_dense()
    return value.cpu().resolve_neg().contiguous()


def _number(value: Any, kind: Any) -> Any:
    return value.to(kind) if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=kind)


def _tensor(array: np.ndarray, dtype: Any) -> Any:
    """A tensor that shares an array's memory. Types that NumPy lacks are passed as bits."""
    return torch.from_numpy(array.view(f"i{array.itemsize}")).view(dtype)
