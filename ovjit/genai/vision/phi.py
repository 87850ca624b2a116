"""Phi-3-vision: a picture as one small view, and as crops of a larger one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Prompt, Visual
from ovjit.genai.vision.pixels import end_lines, normalize
from ovjit.genai.vision.resizing import resize_bilinear, resize_cubic
from ovjit.genai.vision.tags import UNIVERSAL, Media, check_numbers

_F32 = np.float32
#: Pixels of a crop's side, and the values of a line's end.
_SIDE, _VALUES = 336, 4096
_NATIVE = re.compile(r"<\|image_(\d+)\|>")


def choose_scale(height: int, width: int, crops: int) -> tuple[int, int]:
    """The size of a picture as at most `crops` crops: its longer side is a multiple of theirs."""
    ratio = _F32(max(height, width)) / _F32(min(height, width))
    scale = 1
    while scale * math.ceil(_F32(scale) / ratio) <= crops:
        scale += 1
    longer = (scale - 1) * _SIDE
    shorter = int(_F32(longer) / ratio)
    if not shorter:
        raise OvjitError(f"a picture of {height} x {width} pixels is too thin")
    return (longer, shorter) if width < height else (shorter, longer)


def pad_crops(image: np.ndarray) -> np.ndarray:
    """A picture u8 [height, width, 3] with white pixels around the middle of its shorter side."""
    height, width = image.shape[:2]
    axis, side = (0, height) if height < width else (1, width)
    missing = math.ceil(side / _SIDE) * _SIDE - side
    pads = [(0, 0)] * 3
    pads[axis] = (missing // 2, missing - missing // 2)
    return np.pad(image, pads, constant_values=255)


def join_crops(features: np.ndarray, rows: int, columns: int, line_end: np.ndarray) -> np.ndarray:
    """Features f32 [rows * columns, side * side, size] of crops as [tokens, 4 * size]: four neighbours are
    a token, and each line has an end."""
    side, size = math.isqrt(features.shape[1]) // 2, features.shape[2]
    tiles = features.reshape(rows, columns, side, 2, side, 2, size).transpose(0, 2, 1, 4, 3, 5, 6)
    return end_lines(tiles.reshape(rows * side, columns * side, 4 * size), line_end)


def _read_end(settings: Mapping[str, Any], name: str, count: int | None) -> np.ndarray:
    """The values f32 [count] of a `config.json`, 0 if it has none; None: of any number."""
    values = np.reshape(np.array(settings.get(name, np.zeros(_VALUES)), _F32), -1)
    if count is not None and len(values) != count:
        raise OvjitError(f"{name} of config.json should have {count} numbers, not {len(values)}")
    return values


class Phi3Vision(Family):
    """Phi-3-vision. The vision encoder takes crops f32 [crops, 3, 336, 336]. Pictures are numbered from 1 in
    prompts, and a number can come again. In tokens they are -1, -2, ..."""

    networks: ClassVar[tuple[str, ...]] = ("vision_projection",)
    #: The text after a tag that the prompt has not.
    _behind_tag = "\n"

    def __init__(
        self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer, values: int | None = _VALUES
    ):
        super().__init__(folder, requests, tokenizer)
        settings = read_json(folder / "config.json")
        self._crops = int(self._processor.get("num_crops", 4))
        self._line_end, self._view_end = (_read_end(settings, name, values) for name in ("sub_GN", "glb_GN"))

    def preprocess(self, image: np.ndarray) -> tuple[np.ndarray, int, int]:
        """(crops f32 [1 + rows * columns, 3, 336, 336] of a picture u8 [1, height, width, 3], the first of
        all of it, their rows, their columns)."""
        height, width = choose_scale(image.shape[1], image.shape[2], self._crops)
        large = pad_crops(resize_bilinear(image[0], height, width))
        small = self.normalize_planes(resize_cubic(large[None], _SIDE, _SIDE, "asymmetric", -0.5))
        rows, columns = (side // _SIDE for side in large.shape[:2])
        planes = normalize(large[None], self._mean, self._deviation).reshape(3, rows, _SIDE, columns, _SIDE)
        crops = planes.transpose(1, 3, 0, 2, 4).reshape(rows * columns, 3, _SIDE, _SIDE)
        return np.concatenate([small, crops]), rows, columns

    def encode(self, image: np.ndarray) -> Visual:
        pixels, rows, columns = self.preprocess(image)
        features = self.run("vision_embeddings", [pixels])
        crops = join_crops(features[1:], rows, columns, self._line_end)
        small = join_crops(features[:1], 1, 1, self._line_end)
        joined = np.concatenate([crops, self._view_end[None], small])[None]
        return Visual(self.run("vision_projection", [joined])[0])

    def insert_tags(self, prompt: str, bases: tuple[int, int], media: Media) -> tuple[str, list[Any]]:
        def write(number: int) -> str:
            return f"<|image_{number + 1}|>{self._behind_tag}"

        base, count = bases[0], len(media.images)
        numbers = [int(number) for number in UNIVERSAL["image"].findall(prompt)]
        natives = [int(number) - 1 for number in _NATIVE.findall(prompt)]
        if numbers and natives:
            raise OvjitError("Prompt can contain only one type of image tags.")
        check_numbers(numbers or natives, base, count)
        if numbers:
            prompt = UNIVERSAL["image"].sub(lambda match: write(int(match[1])), prompt)
        elif not natives:
            prompt = "".join(write(base + i) for i in range(count)) + prompt
        return prompt, list(media.images)

    def tokenize(self, text: str, special: bool, visuals: Sequence[Visual]) -> np.ndarray:
        """Each piece of the text begins as a text of its own."""
        chunks = []
        for i, piece in enumerate(_NATIVE.split(text)):
            if i % 2:
                number = int(piece)
                if not 0 < number <= len(visuals):
                    raise OvjitError(f"<|image_{number}|> is not one of the {len(visuals)} pictures")
                chunks.append(np.full((1, len(visuals[number - 1].features)), -number, np.int64))
            elif piece:
                chunks.append(super().tokenize(piece, True, visuals))
        if not chunks:
            raise OvjitError("a prompt cannot have the length 0")
        return np.concatenate(chunks, 1)

    def find_slots(self, ids: np.ndarray) -> np.ndarray:
        return ids[0] < 0

    def merge(self, ids: np.ndarray, embeds: np.ndarray, visuals: Sequence[Visual]) -> Prompt:
        numbers, order = -1 - ids[0, self.find_slots(ids)], []
        begin = 0
        while begin < len(numbers):
            order.append(visuals[numbers[begin]])
            begin += len(order[-1].features)
        return super().merge(ids, embeds, order)
