"""torchvision's transforms as steps of the model, so that images go in as they are.

Neither torch nor torchvision is imported: transforms are known by the names of their classes and attributes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.api.tensors.layout import Layout
from ovjit.api.tensors.types import type_named
from ovjit.compat.preprocess.infos import InputInfo
from ovjit.compat.preprocess.processor import PrePostProcessor
from ovjit.compat.preprocess.steps import constant, make
from ovjit.graph import dtypes
from ovjit.records import NamedTuple

_LOG = logging.getLogger(__name__)

#: Luminance of red, green and blue: of tensors, and in 65,536ths of Pillow's images.
_LUMA, _PILLOW_LUMA = (0.2989, 0.587, 0.114), (19595, 38470, 7471)
_PAD_MODES = ("constant", "edge", "reflect", "symmetric")


class PreprocessConverter:
    """Puts a torchvision pipeline into a Model."""

    def __init__(self, model: Model):
        self._model = model

    @staticmethod
    def from_torchvision(
        model: Model, transform: Callable, input_example: Any, input_name: str | None = None
    ) -> Model:
        """The Model, changed: it takes the inputs of `transform`.

        `transform` is a Compose or a Sequential of Normalize, ConvertImageDtype, Grayscale, Pad, ToTensor,
        CenterCrop and Resize. `input_example` is an image as the pipeline gets it: a Pillow image or an array
        (height, width, channels) or a tensor (channels, height, width), with or without a batch in front.
        Resize to one number keeps the proportions of the example, whatever the size of later images.
        `input_name` is the friendly name of the Parameter, or a name of its tensor; it may be left out if
        there is only one.

        TypeError if `transform` is no pipeline or the example no image; ValueError for a transform or an
        option that has no conversion, and for a name that the model does not have.
        """
        try:
            return _build_model(model, transform, input_example, input_name)
        except Exception as error:
            _LOG.error("the torchvision pipeline is not converted: %s", error)
            raise


def _build_model(model: Model, transform: Any, example: Any, name: str | None) -> Model:
    index = _input_index(model, name)
    processor = PrePostProcessor(model)
    image = _Image.of_example(example, processor.input(index))
    for one in _list_transforms(transform):
        kind = type(one).__name__
        if kind not in _CONVERSIONS:
            raise ValueError(
                f"{kind} is not supported; supported transforms are {', '.join(sorted(_CONVERSIONS))}"
            )
        _CONVERSIONS[kind](one, image)
    parameter = model.get_parameters()[index]
    if parameter.get_layout().empty:
        image.info.model().set_layout(Layout("NCHW"))
    return processor.build()


def _input_index(model: Model, name: str | None) -> int:
    parameters = model.get_parameters()
    if name is None:
        if len(parameters) == 1:
            return 0
        raise ValueError(
            "Model contains multiple inputs. Please specify the name of the input to which prepocessing is "
            "added."
        )
    for i, parameter in enumerate(parameters):
        if name == parameter.get_friendly_name() or name in parameter.output(0).get_names():
            return i
    names = ", ".join(p.get_friendly_name() for p in parameters)
    raise ValueError(f"Input with name {name} is not found; available inputs: {names}")


def _list_transforms(transform: Any) -> list[Any]:
    bases = {base.__name__ for base in type(transform).__mro__}
    if "Compose" in bases:
        return list(transform.transforms)
    if "Sequential" in bases:
        return list(transform)
    raise TypeError(f"Unsupported transform type: {type(transform)}")


class _Image:
    """The image between two transforms: its axes, their lengths, its element type."""

    def __init__(self, info: InputInfo, layout: str, shape: Sequence[int], dtype: str, is_tensor: bool):
        self.info = info
        self.layout = layout
        self.size = dict(zip(layout, shape, strict=True))
        self.dtype = dtype
        self.is_tensor = is_tensor
        self.is_sized = False  # whether a step has depended on height and width
        info.tensor().set_layout(Layout(layout)).set_shape(list(shape)).set_element_type(type_named(dtype))

    @classmethod
    def of_example(cls, example: Any, info: InputInfo) -> _Image:
        """TypeError if it is no array, tensor or Pillow image; ValueError if it has another rank."""
        is_tensor = any(base.__module__.split(".")[0] == "torch" for base in type(example).__mro__)
        if not is_tensor and not hasattr(example, "__array_interface__"):
            raise TypeError(f"Unsupported input type: {type(example)}")
        array = np.asarray(example)
        if array.ndim not in (3, 4):
            raise ValueError(f"Unsupported number of input dimensions: {array.ndim}")
        shape = array.shape if array.ndim == 4 else (1, *array.shape)
        return cls(info, "NCHW" if is_tensor else "NHWC", shape, dtypes.from_numpy(array.dtype), is_tensor)

    @property
    def dtype_is_real(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return dtypes.ELEMENT_TYPES[self.dtype].is_real

    def axis(self, name: str) -> int:
        """The index of the axis "C", "H" or "W"."""
        return self.layout.index(name)

    def step(self, function: Callable[[Output], Output]) -> None:
        """Add a custom step."""
        self.info.preprocess().custom(function)

    def cast(self, dtype: str) -> None:
        """Add a change of the element type, without scaling."""
        if dtype != self.dtype:
            self.info.preprocess().convert_element_type(type_named(dtype))
            self.dtype = dtype

    def pad(self, borders: Sequence[int], mode: str, fill: float) -> None:
        """Add borders at the left, top, right and bottom; negative ones crop."""
        begin, end, value = [0] * 4, [0] * 4, constant(fill, self.dtype)
        for i, name in enumerate("WH"):
            begin[self.axis(name)], end[self.axis(name)] = borders[i], borders[2 + i]
            self.size[name] += borders[i] + borders[2 + i]
        self.step(
            lambda x: make(
                "Pad", x, constant(begin), constant(end), value, opset=12, pad_mode=mode
            )
        )  # fmt: skip
        self.is_sized = True


def _numpy(dtype: str) -> np.dtype:
    return np.dtype(dtypes.numpy_dtype(dtype))


def _pair(size: Any, what: str) -> tuple[int, int]:
    """Height and width of one number, a sequence of one, or of two."""
    if isinstance(size, (int, float)):
        return int(size), int(size)
    if isinstance(size, Sequence) and len(size) in (1, 2) and not isinstance(size, str):
        return int(size[0]), int(size[-1])
    raise ValueError(f"Incorrect size type for {what} operation: {size!r}")


# -- one function for each transform -------------------------------------------------------------------------


def _normalize(transform: Any, image: _Image) -> None:
    if transform.inplace:
        raise ValueError("Inplace Normaliziation is not supported.")
    if not image.dtype_is_real:
        raise ValueError(f"Normalize needs floating-point numbers, not {image.dtype}: put ToTensor before it")
    mean, deviation = ([float(v) for v in np.ravel(x)] for x in (transform.mean, transform.std))
    image.info.preprocess().mean(mean).scale(deviation)


def _to_tensor(transform: Any, image: _Image) -> None:
    if image.is_tensor:
        raise ValueError("ToTensor takes Pillow images and arrays; the input is a tensor already")
    _chw(image)
    if image.dtype == "u8":
        image.cast("f32")
        image.info.preprocess().scale(255.0)
    image.is_tensor = True


def _chw(image: _Image) -> None:
    if image.layout == "NHWC":
        image.info.preprocess().convert_layout(Layout("NCHW"))
        image.layout = "NCHW"


def _convert_image_dtype(transform: Any, image: _Image) -> None:
    """Convert the element type with rescaling: integers represent 0 to 1, so 255 of u8 is 1.0 of f32."""
    source, target = image.dtype, str(transform.dtype).rsplit(".", 1)[-1]
    target = dtypes.from_numpy(np.dtype({"half": "float16", "float": "float32"}.get(target, target)))
    was_real, is_real = image.dtype_is_real, dtypes.ELEMENT_TYPES[target].is_real
    if source == target or (was_real and is_real):
        image.cast(target)
    elif is_real:
        image.cast(target)
        most = constant(np.iinfo(_numpy(source)).max, target)
        image.step(lambda x: make("Divide", x, most))
    elif was_real:
        if target == "i64" or (target == "i32" and source != "f64"):
            raise ValueError(
                f"ConvertImageDtype from {source} to {target} loses precision, and torchvision refuses it"
            )
        factor = constant(np.iinfo(_numpy(target)).max + 1.0 - 1e-3, source)
        image.step(lambda x: make("Multiply", x, factor))
        image.cast(target)
    else:
        source_max, target_max = (int(np.iinfo(_numpy(d)).max) for d in (source, target))
        if source_max > target_max:
            down = constant((source_max + 1) // (target_max + 1), source)
            image.step(lambda x: make("Divide", x, down))
            image.cast(target)
        else:
            image.cast(target)
            up = constant((target_max + 1) // (source_max + 1), target)
            image.step(lambda x: make("Multiply", x, up))


def _grayscale(transform: Any, image: _Image) -> None:
    channels = image.size["C"]
    if channels not in (1, 3):
        raise ValueError(f"Grayscale needs one channel or three, not {channels}")
    axis, dtype = constant([image.axis("C")]), image.dtype
    by_pillow = dtype == "u8" and not image.is_tensor
    shape = [3 if name == "C" else 1 for name in image.layout]

    def luminance(x: Output) -> Output:
        if channels == 1:
            return x
        if not by_pillow:
            real = x if dtypes.ELEMENT_TYPES[dtype].is_real else make("Convert", x, destination_type="f32")
            weights = constant(np.reshape(_LUMA, shape), real.get_element_type().get_type_name())
            total = make("ReduceSum", make("Multiply", real, weights), axis, keep_dims=True)
        else:
            weights = constant(np.reshape(_PILLOW_LUMA, shape), "i32")
            weighted = make("Multiply", make("Convert", x, destination_type="i32"), weights)
            half = make("Add", make("ReduceSum", weighted, axis, keep_dims=True), constant(1 << 15, "i32"))
            total = make("Divide", half, constant(1 << 16, "i32"))
        return make("Convert", total, destination_type=dtype)

    count = transform.num_output_channels
    if count not in (1, 3):
        raise ValueError(f"num_output_channels should be either 1 or 3, not {count}")
    image.step(luminance)
    if count == 3:
        repeats = constant(shape)
        image.step(lambda x: make("Tile", x, repeats))
    image.size["C"] = count


def _pad(transform: Any, image: _Image) -> None:
    padding, fill, mode = transform.padding, transform.fill, transform.padding_mode
    if mode not in _PAD_MODES:
        raise ValueError(
            f"padding_mode {mode!r} is not supported; supported modes are {', '.join(_PAD_MODES)}"
        )
    if mode == "constant" and isinstance(fill, Sequence):
        if len(set(fill)) != 1:
            raise ValueError("Different fill values for R, G, B channels are not supported.")
        fill = fill[0]
    if isinstance(padding, int):
        padding = (padding,)
    if len(padding) not in (1, 2, 4):
        raise ValueError(f"Padding is one number, two or four, not {padding!r}")
    borders = tuple(padding) * (4 // len(padding))
    image.pad(borders, mode, fill if mode == "constant" and fill is not None else 0)


def _center_crop(transform: Any, image: _Image) -> None:
    """Crop around the center; an image that is too small gets borders of zeros first."""
    target_size = dict(zip("HW", _pair(transform.size, "CenterCrop"), strict=True))
    missing = {name: max(length - image.size[name], 0) for name, length in target_size.items()}
    if any(missing.values()):
        image.pad([(missing[name] + rounding) // 2 for rounding in (0, 1) for name in "WH"], "constant", 0)
    begin, end = [0] * 4, [np.iinfo(np.int32).max] * 4
    for name, length in target_size.items():
        begin[image.axis(name)] = first = round((image.size[name] - length) / 2.0)
        end[image.axis(name)] = first + length
        image.size[name] = length
    image.is_sized = True
    image.info.preprocess().crop(begin, end)


class _Way(NamedTuple):
    """Attributes of an Interpolate-11."""

    mode: str
    coordinate_transformation_mode: str = "half_pixel"
    nearest_mode: str = "round_prefer_ceil"


def _way(transform: Any, image: _Image) -> _Way:
    mode = getattr(transform.interpolation, "value", transform.interpolation)
    smooth = not image.is_tensor or getattr(transform, "antialias", True) in (True, "warn", None)
    ways = {
        # (i + 1/2) * scale rounded down for images, i * scale rounded down for tensors
        "nearest": _Way("nearest", "asymmetric", "floor") if image.is_tensor else _Way("nearest"),
        "nearest-exact": _Way("nearest"),
        "bilinear": _Way("bilinear_pillow" if smooth else "linear"),
        "bicubic": _Way("bicubic_pillow" if smooth else "cubic"),
    }
    if mode not in ways:
        raise ValueError(f"Interpolation mode {transform.interpolation} is not supported.")
    return ways[mode]


def _resize(transform: Any, image: _Image) -> None:
    if transform.max_size:
        raise ValueError("Resize with max_size if not supported")
    way = _way(transform, image)
    size, height, width = transform.size, image.size["H"], image.size["W"]
    new_height, new_width = _pair(size, "Resize")
    if isinstance(size, int) or len(size) == 1:  # the length of the shorter side
        short = new_height
        new_height = short if height <= width else int(short * height / width)
        new_width = short if width <= height else int(short * width / height)
    sizes, axes = constant([new_height, new_width]), constant([image.axis("H"), image.axis("W")])
    image.step(
        lambda x: make(
            "Interpolate", x, sizes, axes, opset=11, shape_calculation_mode="sizes", **way._asdict()
        )
    )  # fmt: skip
    if not image.is_sized:  # images of any size are resized to this one
        image.info.tensor().set_shape([-1 if name in "HW" else image.size[name] for name in image.layout])
    image.is_sized = True
    image.size["H"], image.size["W"] = new_height, new_width


_CONVERSIONS: dict[str, Callable[[Any, _Image], None]] = {
    "CenterCrop": _center_crop,
    "ConvertImageDtype": _convert_image_dtype,
    "Grayscale": _grayscale,
    "Normalize": _normalize,
    "Pad": _pad,
    "Resize": _resize,
    "ToTensor": _to_tensor,
}
