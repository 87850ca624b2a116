"""torchvision's pipelines as part of a model, beside Pillow and NumPy; and beside torchvision where it is.

The stand-ins have the names and attributes of torchvision's transforms, by which the converter knows them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ovjit.preprocess.torchvision import PreprocessConverter
from PIL import Image

import ovjit as ov
from ovjit import opset13 as op

SEED = 20261121


def _stand_in(name: str, **defaults: Any) -> type:
    def init(self: Any, *args: Any, **given: Any) -> None:
        vars(self).update({**defaults, **dict(zip(defaults, args, strict=False)), **given})

    return type(name, (), {"__init__": init})


Compose = _stand_in("Compose", transforms=())
ToTensor = _stand_in("ToTensor")
Normalize = _stand_in("Normalize", mean=0, std=1, inplace=False)
Resize = _stand_in("Resize", size=None, interpolation="bilinear", max_size=None, antialias=True)
CenterCrop = _stand_in("CenterCrop", size=None)
Pad = _stand_in("Pad", padding=0, fill=0, padding_mode="constant")
Grayscale = _stand_in("Grayscale", num_output_channels=1)
ConvertImageDtype = _stand_in("ConvertImageDtype", dtype="torch.float32")


def _model(channels: int = 3) -> ov.Model:
    x = op.parameter([-1, channels, -1, -1], np.float32, name="image")
    return ov.Model([op.negative(x)], [x])


def _image(height: int = 61, width: int = 83) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _answer(transforms: list[Any], image: np.ndarray, channels: int = 3) -> np.ndarray:
    """What the model gets for the image: (channels, height, width)."""
    example = Image.fromarray(image)
    model = PreprocessConverter.from_torchvision(_model(channels), Compose(transforms), example)
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return -compiled(image[None])[0][0]


def _tensor(image: np.ndarray) -> np.ndarray:
    """What ToTensor makes of it."""
    return np.atleast_3d(image).transpose(2, 0, 1).astype(np.float32) / 255


@pytest.mark.parametrize("size", [40, [40], (33, 91), 100])
@pytest.mark.parametrize("way", ["nearest", "nearest-exact", "bilinear", "bicubic"])
def test_resize(size: Any, way: str) -> None:
    """Pillow's, width first; its coefficients are rounded, so what is half way may be one step off."""
    image = _image()
    short = np.ravel(size)[0]
    height, width = size if isinstance(size, tuple) else (short, int(short * 83 / 61))
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    used = filters.get(way, Image.Resampling.NEAREST)
    want = Image.fromarray(image).resize((width, 61), used).resize((width, height), used)
    got = _answer([Resize(size, SimpleNamespace(value=way)), ToTensor()], image)
    off = np.rint(255 * np.abs(got - _tensor(np.asarray(want))))
    assert off.max() <= (way in filters) and (off > 0).mean() < 0.02


def test_a_size_that_was_not_the_examples() -> None:
    """The first resize takes images of every size."""
    transforms = Compose([Resize((20, 30)), ToTensor()])
    model = PreprocessConverter.from_torchvision(_model(), transforms, Image.fromarray(_image()))
    assert str(model.input().partial_shape) == "[1,?,?,3]"
    other = _image(33, 29)
    want = Image.fromarray(other).resize((30, 33), Image.Resampling.BILINEAR)
    want = want.resize((30, 20), Image.Resampling.BILINEAR)
    got = -ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(other[None])[0][0]
    np.testing.assert_allclose(got, _tensor(np.asarray(want)), atol=1.01 / 255)


@pytest.mark.parametrize("size", [40, (41, 60), (100, 50), (50, 101)])
def test_center_crop(size: Any) -> None:
    """Borders of zeros where the image is too small."""
    image = _image()
    height, width = size if isinstance(size, tuple) else (size, size)
    low, left = max(height - 61, 0), max(width - 83, 0)
    padded = np.pad(image, [(low // 2, (low + 1) // 2), (left // 2, (left + 1) // 2), (0, 0)])
    top, first = round((padded.shape[0] - height) / 2), round((padded.shape[1] - width) / 2)
    want = _tensor(padded[top : top + height, first : first + width])
    np.testing.assert_allclose(_answer([CenterCrop(size), ToTensor()], image), want, atol=1e-6)


@pytest.mark.parametrize("padding, sides", [(2, (2, 2, 2, 2)), ((2, 3), (2, 3, 2, 3)), ((2, 3, 4, 5),) * 2])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_pad(padding: Any, sides: tuple[int, ...], mode: str) -> None:
    image = _image()
    left, top, right, bottom = sides
    options: Any = {"constant_values": 7} if mode == "constant" else {}
    want = np.pad(image, [(top, bottom), (left, right), (0, 0)], mode, **options)  # type: ignore[call-overload]
    got = _answer([Pad(padding, 7, mode), ToTensor()], image)
    np.testing.assert_allclose(got, _tensor(want), atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_grayscale(count: int) -> None:
    """Of an image as Pillow has it, of a tensor as torchvision has it."""
    image = _image()
    want = np.repeat(_tensor(np.asarray(Image.fromarray(image).convert("L"))), count, 0)
    np.testing.assert_allclose(_answer([Grayscale(count), ToTensor()], image, count), want, atol=1e-6)
    weighted = (_tensor(image) * np.reshape([0.2989, 0.587, 0.114], (3, 1, 1))).sum(0, keepdims=True)
    got = _answer([ToTensor(), Grayscale(count)], image, count)
    np.testing.assert_allclose(got, np.repeat(weighted, count, 0), atol=1e-6)


def test_a_pipeline() -> None:
    image = _image(90, 70)
    transforms = [
        CenterCrop(64), Pad((2, 3), 5), ToTensor(), ConvertImageDtype("torch.float16"),
        ConvertImageDtype(), Normalize([0.485, 0.456, 0.406], (0.229, 0.224, 0.225)),
    ]  # fmt: skip
    cropped = np.pad(image[13:77, 3:67], [(3, 3), (2, 2), (0, 0)], constant_values=5)
    mean, std = (np.reshape(v, (3, 1, 1)) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    want = (_tensor(cropped).astype(np.float64) - mean) / std
    np.testing.assert_allclose(_answer(transforms, image), want, atol=3e-3)  # f16 has eleven bits


def test_bytes_as_numbers() -> None:
    """255 of u8 is 1.0 of f32, 127 of i8."""
    image = _image()
    got = _answer([ConvertImageDtype()], image)
    np.testing.assert_allclose(got, _tensor(image), atol=1e-6)
    got = _answer([ConvertImageDtype("torch.int8")], image)
    np.testing.assert_array_equal(got, image.transpose(2, 0, 1) // 2)


@pytest.mark.parametrize(
    "transform, error, words",
    [
        (Resize(4), TypeError, "Unsupported transform type"),
        (Compose([Resize(4, max_size=9)]), ValueError, "max_size"),
        (Compose([Resize(4, "lanczos")]), ValueError, "lanczos is not supported"),
        (Compose([Resize("4")]), ValueError, "Incorrect size type for Resize operation"),
        (Compose([Normalize(0.5, 0.5, inplace=True)]), ValueError, "Inplace"),
        (Compose([Normalize(0.5, 0.5)]), ValueError, "put ToTensor before it"),
        (Compose([Pad(1, (1, 2, 3))]), ValueError, "Different fill values"),
        (Compose([Pad((1, 2, 3))]), ValueError, "one number, two or four"),
        (Compose([ToTensor(), ToTensor()]), ValueError, "tensor already"),
        (Compose([_stand_in("RandomCrop")()]), ValueError, "RandomCrop is not supported"),
    ],
)
def test_what_has_no_conversion(transform: Any, error: type[Exception], words: str) -> None:
    model = _model()
    before = [node.get_type_name() for node in model.get_ordered_ops()]
    with pytest.raises(error, match=words):
        PreprocessConverter.from_torchvision(model, transform, Image.fromarray(_image()))
    assert [node.get_type_name() for node in model.get_ordered_ops()] == before


def test_inputs_by_name() -> None:
    """The name of the Parameter or of its tensor; it must be given where there are two."""
    inputs = [op.parameter([-1, 3, -1, -1], np.float32, name=name) for name in ("left", "right")]
    inputs[1].output(0).set_names({"of the tensor"})
    example, transforms = Image.fromarray(_image()), Compose([ToTensor()])
    for name in (None, "middle"):
        with pytest.raises(ValueError, match="multiple inputs" if name is None else "middle is not found"):
            model = ov.Model([op.add(*inputs)], inputs)
            PreprocessConverter.from_torchvision(model, transforms, example, name)
    model = ov.Model([op.add(*inputs)], inputs)
    PreprocessConverter.from_torchvision(model, transforms, example, "of the tensor")
    assert [str(i.partial_shape) for i in model.inputs] == ["[?,3,?,?]", "[1,61,83,3]"]
    for wrong, error in ((object(), TypeError), (np.zeros((3, 3), np.uint8), ValueError)):
        with pytest.raises(error, match=r"Unsupported (input type|number of input dimensions)"):
            PreprocessConverter.from_torchvision(_model(), transforms, wrong)


def test_beside_torchvision() -> None:
    """Where it is installed: tensors of every layout and type, which the stand-ins above do not give."""
    torch = pytest.importorskip("torch")
    real = pytest.importorskip("torchvision").transforms
    image = _image()
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    way = real.InterpolationMode
    pipelines = [
        [real.Resize(40, way.NEAREST)], [real.Resize((33, 91), way.BICUBIC, antialias=False)],
        [real.Resize(100, way.BILINEAR, antialias=False)], [real.Resize((33, 91))],
        [real.Grayscale(3)], [real.ConvertImageDtype(torch.int16)], [real.CenterCrop((100, 40))],
        [real.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), real.Pad(3, padding_mode="reflect")],
    ]  # fmt: skip
    for transforms in pipelines:
        pipeline = torch.nn.Sequential(*transforms)
        for tensor in (pixels, pixels.float() / 255):
            if tensor.dtype == torch.uint8 and "Normalize" in str(pipeline):
                continue
            model = PreprocessConverter.from_torchvision(_model(), pipeline, tensor)
            compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            got = -compiled(tensor[None].numpy())[0]
            want = pipeline(tensor)[None].numpy().astype(np.float64)
            step = 1 if tensor.dtype == torch.uint8 else 2e-5
            np.testing.assert_allclose(got, want, atol=step, err_msg=str(pipeline))
