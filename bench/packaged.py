"""Models that come with Python packages, and what they are tested on: text that is drawn, sounds that are
made.

`rapidocr` ships a detector of lines, a recogniser and a finder of lines that are upside down; `silero-vad`
a detector of speech. Nothing is downloaded: a package that is not installed is left out. Lines of text are
drawn with the font that Pillow ships.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

#: Examples of a seed, and the size of a drawn line.
COUNT, HEIGHT, LENGTH = 16, 48, 320
#: Rows above a line of a page.
SPACE = 32
WORDS = (
    "the quick brown fox jumps over a lazy dog while seven wizards pack boxes of liquor jugs in 1984 "
    "Total Invoice Street Number Kernel Tensor Winter August Paper Bridge Copper 2026 57 3.14"
).split()


class Examples(NamedTuple):
    """Inputs by their names, and what is wanted; nothing where ONNX Runtime's answer in f32 is."""

    inputs: list[dict[str, np.ndarray]]
    wanted: list[Any]


class Task(NamedTuple):
    """A model of a package; `read` makes a prediction of its first output, `score` a number of all."""

    package: str
    file: str
    measure: str
    examples: Callable[[int], Examples]
    read: Callable[[np.ndarray], Any]
    score: Callable[[Sequence[Any], Sequence[Any]], float]


def file_of(task: Task) -> Path | None:
    """The model's file, or None where the package is not installed or has another."""
    spec = importlib.util.find_spec(task.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob(task.file), None)


def as_ir(source: Path, folder: Path, name: str) -> Path:
    """The model as an IR in f32, written once by the real OpenVINO."""
    path = folder / f"{name}.xml"
    if not path.exists():
        import openvino

        folder.mkdir(parents=True, exist_ok=True)
        openvino.save_model(openvino.Core().read_model(source), path, compress_to_fp16=False)
    return path


def drawn(words: str, size: int, noise: np.ndarray) -> np.ndarray:
    """A line of text as f32 [HEIGHT, LENGTH, 3] in 0..255, dark on light, with noise."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (LENGTH, HEIGHT), "white")
    ImageDraw.Draw(image).text((8, 8), words, "black", ImageFont.load_default(size))
    return np.clip(np.asarray(image, np.float32) + noise, 0, 255)


def lines(seed: int) -> list[tuple[str, np.ndarray]]:
    rng, out = np.random.default_rng([seed, 38]), []
    for _ in range(COUNT):
        words = " ".join(rng.choice(WORDS, 3))
        noise = rng.normal(0, 25, (HEIGHT, LENGTH, 3)).astype(np.float32)
        out.append((words, drawn(words, int(rng.integers(20, 27)), noise)))
    return out


def _scaled(image: np.ndarray) -> dict[str, np.ndarray]:
    """[h, w, 3] in 0..255 -> [1, 3, h, w] in -1..1"""
    return {"x": np.ascontiguousarray((image / 127.5 - 1).transpose(2, 0, 1)[None], np.float32)}


def recognition(seed: int) -> Examples:
    found = lines(seed)
    return Examples([_scaled(image) for _, image in found], [words for words, _ in found])


@functools.cache
def alphabet() -> list[str]:
    import onnx

    source = file_of(TASKS["rapidocr-rec"])
    assert source is not None
    (letters,) = (p.value for p in onnx.load(source).metadata_props if p.key == "character")
    return ["", *letters.splitlines(), " "]


def spelled(result: np.ndarray) -> str:
    """Greedy CTC of [1, t, letters]: equal neighbours are one, and letter 0 is none."""
    best = result[0].argmax(-1)
    kept = best[np.r_[True, best[1:] != best[:-1]] & (best != 0)]
    return "".join(alphabet()[i] for i in kept)


def wrong_characters(said: Sequence[str], wanted: Sequence[str]) -> float:
    """Edit distance in % of the wanted characters."""
    total = sum(distance(a, b) for a, b in zip(said, wanted, strict=True))
    return 100 * total / sum(map(len, wanted))


def distance(a: str, b: str) -> int:
    """Levenshtein's"""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def orientation(seed: int) -> Examples:
    """Lines of 192 columns, every other one upside down."""
    images = [image[:, :192] for _, image in lines(seed)]
    turned = [image[::-1, ::-1] if i % 2 else image for i, image in enumerate(images)]
    return Examples([_scaled(image) for image in turned], [i % 2 for i in range(len(turned))])


def detection(seed: int) -> Examples:
    """Pages of 320 x 320: four lines with empty space above each."""
    found, inputs, wanted = lines(seed), [], []
    for i in range(0, COUNT, 4):
        empty = np.full((SPACE, LENGTH, 3), 255, np.float32)
        rows = [part for _, image in found[i : i + 4] for part in (empty, image)]
        inputs.append(_scaled(np.concatenate(rows)))
        wanted.append((True,) * 4)
    return Examples(inputs, wanted)


def found_lines(result: np.ndarray) -> tuple[bool, ...]:
    """Which of the four lines of a page are seen: a tenth of their place is text."""
    seen = result[0, 0] > 0.3
    tops = [SPACE + i * (SPACE + HEIGHT) for i in range(4)]
    return tuple(bool(seen[top : top + HEIGHT].mean() > 0.1) for top in tops)


def right(said: Sequence[Any], wanted: Sequence[Any]) -> float:
    """% of equal predictions, of all parts where predictions have parts"""
    return 100 * float(np.mean(np.asarray(said) == np.asarray(wanted)))


def sounds(seed: int) -> Examples:
    """Pieces of 36 ms: noise, and harmonics of a voice's pitch under it."""
    rng, inputs = np.random.default_rng([seed, 39]), []
    time = np.arange(576) / 16000
    for i in range(4 * COUNT):
        pitch = rng.uniform(90, 260)
        voice = sum(np.sin(2 * np.pi * k * pitch * time + rng.uniform(0, 6)) / k for k in range(1, 20))
        piece = rng.normal(0, 0.02, 576) + (0.3 * voice if i % 2 else 0)
        state = rng.normal(0, 0.5, (2, 1, 128)).astype(np.float32)
        inputs.append({"input": piece.astype(np.float32)[None], "state": state})
    return Examples(inputs, [])


def speech(result: np.ndarray) -> bool:
    return bool(result.reshape(-1)[0] > 0.5)


_OCR = "rapidocr"
TASKS = {
    "rapidocr-rec": Task(
        _OCR, "models/*rec*.onnx", "% of characters wrong", recognition, spelled, wrong_characters
    ),
    "rapidocr-cls": Task(
        _OCR, "models/*cls*.onnx", "% right", orientation, lambda result: int(result[0].argmax()), right
    ),
    "rapidocr-det": Task(_OCR, "models/*det*.onnx", "% of lines found", detection, found_lines, right),
    "silero-vad": Task(
        "silero_vad", "data/silero_vad_openvino_16k.onnx", "% as in f32", sounds, speech, right
    ),
}
