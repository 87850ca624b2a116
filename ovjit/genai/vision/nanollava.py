"""nanoLLaVA: a picture in the middle of a gray square; texts around pictures are tokenized apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.llava import fit_view
from ovjit.genai.vision.pixels import normalize

_F32 = np.float32
_TAG = "<image>"
#: The side of the square, its gray, and the number of a picture's tokens.
_SIDE, _GRAY, _TOKEN = 384, 127, -200


class NanoLlava(Family):
    """nanoLLaVA. The vision encoder takes `images` f32 [1, 3, 384, 384]."""

    native = f"{_TAG}\n"

    def encode(self, image: np.ndarray) -> Visual:
        half = np.full(3, 0.5, _F32)
        pixels = normalize(fit_view(image[0], _SIDE, _SIDE, _GRAY)[None], half, half)
        return Visual(self.run("vision_embeddings", {"images": pixels})[0])

    def write(self, visual: Visual) -> str:
        return self.native

    def tokenize(self, text: str, special: bool, visuals: Sequence[Visual]) -> np.ndarray:
        """Each piece of the text begins as a text of its own."""
        pieces = text.split(_TAG)
        if not visuals:
            return super().tokenize(text, special, visuals)
        if len(pieces) != len(visuals) + 1:
            raise OvjitError(f"the prompt has {len(pieces) - 1} tags {_TAG} for {len(visuals)} pictures")
        chunks = []
        for i, piece in enumerate(pieces):
            ids = self._tokenizer.encode(piece, add_special_tokens=special).input_ids.data
            chunks.append(np.array(ids, np.int64).reshape(1, -1))
            if i < len(visuals):
                chunks.append(np.full((1, len(visuals[i].features)), _TOKEN, np.int64))
        return np.concatenate(chunks, 1)

    def find_slots(self, ids: np.ndarray) -> np.ndarray:
        return ids[0] == _TOKEN
