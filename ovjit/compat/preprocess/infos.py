"""Descriptions of a model's inputs and outputs by the user: tensors, steps, and the model's own layouts."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import ovjit.compat.preprocess.steps as steps
from ovjit.api.arguments import explain_calls
from ovjit.api.tensors.convert import dims_of
from ovjit.api.tensors.layout import Layout
from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.types import Type
from ovjit.compat.preprocess.formats import FORMATS, ColorFormat, PaddingMode, ResizeAlgorithm, plane_count
from ovjit.errors import ModelError, no_such_form

if TYPE_CHECKING:
    from typing_extensions import Self


@explain_calls
class _Info:
    """Base of the descriptions that a PrePostProcessor creates."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise TypeError(f"{type(self).__name__}: No constructor defined! See PrePostProcessor")

    @classmethod
    def _make(cls) -> Any:
        info = cls.__new__(cls)
        info._setup()
        return info

    def _setup(self) -> None:
        """Set the attributes of an empty description."""


def _as_layout(value: Any) -> Any:
    return Layout(value) if isinstance(value, str) else value


def _expect(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise no_such_form(f"{what} should be a {kind.__name__}, not {value!r}")
    return value


#: What sizes, coordinates and pads may be: the ranges of C++'s size_t, int64_t and int32_t.
_SIZE, _LONG, _INT = (0, 2**64 - 1), (-(2**63), 2**63 - 1), (-(2**31), 2**31 - 1)


def _int(value: Any, what: str, within: tuple[int, int]) -> int:
    """An integer within a range. TypeError for other values."""
    number, (low, high) = operator.index(value), within
    if not low <= number <= high:
        raise no_such_form(f"{what} should be from {low} to {high}, not {value!r}")
    return number


def _ints(values: Any, what: str, within: tuple[int, int]) -> list[int]:
    if isinstance(values, (str, bytes)) or not np.iterable(values):
        raise no_such_form(f"{what} should be a sequence of ints, not {values!r}")
    return [_int(v, what, within) for v in values]


def _floats(value: Any, what: str) -> list[float]:
    try:
        listed = value if np.iterable(value) else [value]
        if isinstance(value, (str, dict)) or any(isinstance(v, str) for v in listed):
            raise TypeError(value)
        return [float(v) for v in listed]
    except (TypeError, ValueError, OverflowError):
        raise no_such_form(f"{what} should be numbers, not {value!r}") from None


@explain_calls
class _Described(_Info):
    _layout: Layout | None = None

    def set_layout(self, layout: Layout | str) -> Self:
        """Set the layout, the meaning of the axes."""
        self._layout = _expect(_as_layout(layout), Layout, "layout")
        return self


class InputModelInfo(_Described):
    """The description of a model's input: its layout."""


class OutputModelInfo(_Described):
    """The description of a model's output: its layout."""


@explain_calls
class _Typed(_Described):
    _type: str | None = None

    def set_element_type(self, type: Type) -> Self:
        """Set the element type."""
        self._type = _expect(type, Type, "type")._name
        return self


class OutputTensorInfo(_Typed):
    """The tensor that a user gets. Properties that are not set are the model's."""


@explain_calls
class InputTensorInfo(_Typed):
    """The tensor that a user passes. Properties that are not set are the model's."""

    _shape: Any = None
    _shape_set = False
    _spatial: tuple[int, int] | None = None  # (-1, -1): open
    _color = ColorFormat.UNDEFINED
    _sub_names: Sequence[str] = ()
    _memory_type = ""

    def set_shape(self, shape: Any) -> InputTensorInfo:
        """Set the shape: anything that PartialShape takes but a text, or an array of ints. RuntimeError if a
        spatial shape is set."""
        self._one_kind_of_shape(self._spatial is None)
        if isinstance(shape, str):
            raise no_such_form("a shape is a PartialShape or a sequence of lengths, not a text")
        lengths = _ints(shape, "shape", _LONG) if isinstance(shape, np.ndarray) else shape
        self._shape, self._shape_set = dims_of(lengths), True
        return self

    def set_spatial_static_shape(self, height: int, width: int) -> InputTensorInfo:
        """Set the lengths of the axes H and W. RuntimeError if a shape is set."""
        self._one_kind_of_shape(not self._shape_set)
        self._spatial = _int(height, "height", _SIZE), _int(width, "width", _SIZE)
        return self

    def set_spatial_dynamic_shape(self) -> InputTensorInfo:
        """Make the axes H and W dynamic. RuntimeError if a shape is set."""
        self._one_kind_of_shape(not self._shape_set)
        self._spatial = -1, -1
        return self

    def _one_kind_of_shape(self, holds: bool) -> None:
        if not holds:
            raise ModelError("'set_spatial_static_shape' and 'set_shape/set_from' shall not be used together")

    def set_from(self, tensor: Any) -> InputTensorInfo:
        """Set the element type and shape of a Tensor or an array."""
        if isinstance(tensor, np.ndarray):
            tensor = Tensor(tensor)
        _expect(tensor, Tensor, "tensor")
        return self.set_element_type(tensor.element_type).set_shape(list(tensor.shape))

    def set_color_format(self, format: ColorFormat, sub_names: Sequence[str] = ()) -> InputTensorInfo:
        """Set the colour format; `sub_names` name the tensors of a format of several planes."""
        _expect(format, ColorFormat, "format")
        names = list(sub_names)
        count = plane_count(format)
        if names and count == 1:
            raise ModelError(
                f"Plane names are not allowed for single plane color format '{FORMATS[format].label}'"
            )
        if names and len(names) != count:
            raise ModelError(
                f"Number of sub-names ({len(names)}) shall match with number of planes for "
                f"'{FORMATS[format].label}' color format ({count})"
            )
        self._color, self._sub_names = format, names
        return self

    def set_memory_type(self, memory_type: str) -> InputTensorInfo:
        """Set the memory type, which only devices with memory of their own use; it is stored as the tensor's
        `memory_type`."""
        self._memory_type = _expect(memory_type, str, "memory_type")
        return self


@explain_calls
class _Steps(_Info):
    _steps: Sequence[steps.Step] = ()

    def _add(self, step: steps.Step) -> Any:
        self._steps = [*self._steps, step]
        return self

    def convert_element_type(self, type: Type = Type.dynamic) -> Self:
        """Convert the element type; without an argument, to the final one."""
        return self._add(steps.convert_type(_expect(type, Type, "type")._name))

    def convert_layout(
        self, dst_layout: Layout | str | Sequence[int] | None = None, dims: Any = None
    ) -> Self:
        """Transpose to a Layout, or by a permutation of the axes; an empty one is no step."""
        target = _as_layout(_either(dst_layout, dims))
        if isinstance(target, Layout):
            return self._add(steps.convert_layout(target))
        order = _ints(target, "dims", _SIZE)
        return self._add(steps.permute(order)) if order else self

    def custom(self, operation: Callable[..., Any]) -> Self:
        """Apply a function that takes the current Output and returns another one."""
        if not callable(operation):
            raise no_such_form(f"operation should be a function, not {operation!r}")
        return self._add(steps.custom(operation))


@explain_calls
class PreProcessSteps(_Steps):
    """Steps from the user's tensor to the model's input, in the order in which they are added."""

    def convert_color(self, dst_format: ColorFormat) -> PreProcessSteps:
        """Convert the colour format."""
        return self._add(steps.convert_color(_expect(dst_format, ColorFormat, "dst_format")))

    def mean(self, value: Any = None, values: Any = None) -> PreProcessSteps:
        """Subtract one number, or one for each channel."""
        return self._add(steps.arithmetic("mean", _floats(_either(value, values), "values")))

    def scale(self, value: Any = None, values: Any = None) -> PreProcessSteps:
        """Divide by one number, or by one for each channel."""
        return self._add(steps.arithmetic("scale", _floats(_either(value, values), "values")))

    def resize(
        self, alg: ResizeAlgorithm, dst_height: int | None = None, dst_width: int | None = None
    ) -> PreProcessSteps:
        """Resize to a height and width, or to the model's."""
        _expect(alg, ResizeAlgorithm, "alg")
        if (dst_height is None) != (dst_width is None):
            raise no_such_form("resize takes both, dst_height and dst_width, or none")
        size = None
        if dst_height is not None:
            size = _int(dst_height, "dst_height", _SIZE), _int(dst_width, "dst_width", _SIZE)
        return self._add(steps.resize(alg, size))

    def crop(self, begin: Sequence[int], end: Sequence[int]) -> PreProcessSteps:
        """Crop every axis to `begin` up to, but not including, `end`; negative numbers count from the end."""
        first, last = _ints(begin, "begin", _INT), _ints(end, "end", _INT)
        if len(first) != len(last):
            raise ModelError(
                f"Crop ({first}, {last}) begin/end coordinates must have the same size. "
                f"Begin size={len(first)}, end size={len(last)}"
            )
        return self._add(steps.crop(first, last))

    def pad(
        self, pads_begin: Sequence[int], pads_end: Sequence[int], value: Any, mode: PaddingMode
    ) -> PreProcessSteps:
        """Add the given numbers of elements before and after every axis."""
        _expect(mode, PaddingMode, "mode")
        begin, end = _ints(pads_begin, "pads_begin", _INT), _ints(pads_end, "pads_end", _INT)
        return self._add(steps.pad(begin, end, _floats(value, "value"), mode))

    def reverse_channels(self) -> PreProcessSteps:
        """Reverse the order of the channels (RGB to BGR)."""
        return self._add(steps.reverse_channels())


class PostProcessSteps(_Steps):
    """Steps from the model's output to the user's tensor, in the order in which they are added."""


def _either(first: Any, second: Any) -> Any:
    if first is not None and second is not None:
        raise no_such_form("only one of the two forms can be given")
    chosen = second if first is None else first
    if chosen is None:
        raise no_such_form("an argument is missing")
    return chosen


@explain_calls
class InputInfo(_Info):
    """One input: the user's tensor, the steps, the model's input."""

    def _setup(self) -> None:
        self._tensor: InputTensorInfo = InputTensorInfo._make()
        self._steps: PreProcessSteps = PreProcessSteps._make()
        self._model: InputModelInfo = InputModelInfo._make()

    def tensor(self) -> InputTensorInfo:
        """The description of the user's tensor."""
        return self._tensor

    def preprocess(self) -> PreProcessSteps:
        """The steps from the user's tensor to the model's input."""
        return self._steps

    def model(self) -> InputModelInfo:
        """The description of the model's input."""
        return self._model


@explain_calls
class OutputInfo(_Info):
    """One output: the model's output, the steps, the user's tensor."""

    def _setup(self) -> None:
        self._tensor: OutputTensorInfo = OutputTensorInfo._make()
        self._steps: PostProcessSteps = PostProcessSteps._make()
        self._model: OutputModelInfo = OutputModelInfo._make()

    def tensor(self) -> OutputTensorInfo:
        """The description of the user's tensor."""
        return self._tensor

    def postprocess(self) -> PostProcessSteps:
        """The steps from the model's output to the user's tensor."""
        return self._steps

    def model(self) -> OutputModelInfo:
        """The description of the model's output."""
        return self._model
