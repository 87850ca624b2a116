"""The common steps of families of models: pictures to features, tags to tokens, positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError
from ovjit.forks import made_once
from ovjit.genai.config import GenerationConfig
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.pixels import normalize, read_mean
from ovjit.genai.vision.processors import read_processor
from ovjit.genai.vision.tags import Media, find_tags, insert_tags
from ovjit.genai.vision.videos import VideoMetadata


class Visual:
    """An encoded picture or video: `features` f32 [tokens, size]."""

    def __init__(self, features: np.ndarray):
        self.features = features


class Clip(Visual):
    """An encoded video: the seconds at which its frames, or groups of frames, are shown."""

    def __init__(self, features: np.ndarray, times: Sequence[float] = ()):
        super().__init__(features)
        self.times = times


class Prompt:
    """Inputs of a language model: tokens `ids` [1, tokens], embeddings f32 [1, tokens, size], positions i64
    [..., 1, tokens], and its further inputs by name. `shift` i64 [...]: the next position of each axis less
    the number of tokens. `text_axes`: the first axes, whose positions are numbers of tokens."""

    def __init__(
        self, ids: np.ndarray, embeds: np.ndarray, positions: np.ndarray, inputs: Mapping[str, Any],
        text_axes: int = 0,
    ):  # fmt: skip
        self.ids, self.embeds, self.positions, self.inputs = ids, embeds, positions, inputs
        last = positions[text_axes:].max(initial=-1) if text_axes else positions.max(initial=-1)
        self.shift = np.full(positions.shape[:-2], int(last) + 1 - ids.shape[1], np.int64)
        if text_axes:
            self.shift[:text_axes] = 0

    def skip_first(self) -> Prompt:
        """The prompt from its second token on, without further inputs."""
        return Prompt(self.ids[:, 1:], self.embeds[:, 1:], self.positions[..., 1:], {})

    @property
    def tokens(self) -> list[int]:
        tokens: list[int] = self.ids[0].tolist()
        return tokens

    @property
    def words(self) -> list[int]:
        """The tokens, but for numbers of pictures."""
        tokens: list[int] = self.ids[self.ids >= 0].tolist()
        return tokens

    @made_once
    def keys(self) -> list[int]:
        """Numbers that are equal for equal inputs, one for each token."""
        columns = zip(self.embeds[0], np.moveaxis(self.positions, -1, 0), strict=True)
        return [hash((row.tobytes(), column.tobytes())) for row, column in columns]


class Family:
    """A family of models. `requests` are those of its networks, by their names."""

    #: The text of a picture in prompts, and that of a video ("" if the family has none).
    native, native_video = "", ""
    #: The text that replaces a tag with a number, and that comes first without tags; "": the native tag.
    automatic = ""
    #: The text whose token each feature of a picture replaces; "": the native tag.
    picture_token = ""
    #: The texts around these tokens.
    _borders = ("", "")
    #: Names of networks, besides those that all families have.
    networks: ClassVar[tuple[str, ...]] = ()
    #: The numbers of channels that pictures may have.
    channels: ClassVar[tuple[int, ...]] = (3,)
    #: Whether tags of pictures are put before those of videos, not after them.
    _images_last = False
    #: The first position.
    _first = 0
    #: The axes of positions that number the tokens, without regard to pictures.
    _text_axes = 0

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        self._requests, self._tokenizer = requests, tokenizer
        #: The settings of the processor of pictures.
        self._processor = read_processor(folder)
        self._mean, self._deviation = read_mean(self._processor)

    @classmethod
    def list_networks(cls, folder: Path) -> tuple[str, ...]:
        """The names of networks that a folder has besides those that all families have."""
        return cls.networks

    def token(self, text: str) -> int:
        """The last token of a text."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data
        return int(np.reshape(ids, -1)[-1])

    @made_once
    def _slot_tokens(self) -> list[int]:
        texts = (self.picture_token or self.native, self.native_video)
        return [self.token(text) for text in texts if text]

    def run(self, network: str, feeds: Any) -> np.ndarray:
        """The first output of a network, as a copy in f32."""
        return np.array(self._requests[network].infer(feeds)[0], np.float32)

    def embed_pictures(self, images: np.ndarray, network: str = "vision_embeddings") -> np.ndarray:
        """The features of pictures u8 [n, height, width, 3], which a network takes as `pixel_values`."""
        return self.run(network, {"pixel_values": normalize(images, self._mean, self._deviation)})

    def read_sizes(self, name: str, default: int) -> tuple[int, int]:
        """(height, width) of a setting of the processor."""
        size = self._processor.get(name) or {}
        return int(size.get("height", default)), int(size.get("width", default))

    def normalize_planes(self, planes: np.ndarray) -> np.ndarray:
        """Planes f32 [frames, 3, height, width] of values up to 255, around 0."""
        mean, deviation = (values.reshape(3, 1, 1) for values in (self._mean, self._deviation))
        return (planes / np.float32(255) - mean) / deviation

    def encode(self, image: np.ndarray) -> Visual:
        """A picture u8 [1, height, width, channels]."""
        raise NotImplementedError

    def encode_video(self, frames: np.ndarray, metadata: VideoMetadata) -> Visual:
        """A video u8 [frames, height, width, 3]."""
        raise UnsupportedError(
            "Video preprocessing isn't implemented for this model. Pass frames as independent images."
        )

    def encode_sounds(self, sounds: Sequence[np.ndarray]) -> list[Visual]:
        """The features of samples f32 at 16 kHz. UnsupportedError for models that do not hear."""
        if sounds:
            raise UnsupportedError("the model reads no sounds: leave `audios` out")
        return []

    def write(self, visual: Any) -> str:
        """The text that replaces the tag of a picture or video."""
        return ((self.picture_token or self.native) * len(visual.features)).join(self._borders)

    def insert_tags(self, prompt: str, bases: tuple[int, int], media: Media) -> tuple[str, list[Any]]:
        """The prompt with the tokens of its pictures and videos, and these in their order. `bases`: the
        numbers of the first picture and of the first video."""
        kinds = [("image", self.native, bases[0], media.images, self.automatic)]
        if self.native_video:
            kinds.append(("video", self.native_video, bases[1], media.videos, ""))
        queues = {}
        for kind, tag, base, shown, automatic in reversed(kinds) if self._images_last else kinds:
            prompt, numbers = insert_tags(prompt, tag, base, len(shown), kind, automatic)
            queues[tag] = [shown[number - base] for number in numbers]
        pieces, tags = find_tags(prompt, list(queues))
        visuals = [queues[tag].pop(0) for tag in tags]
        texts = [*map(self.write, visuals), ""]
        return "".join(part for pair in zip(pieces, texts, strict=True) for part in pair), visuals

    def tokenize(self, text: str, special: bool, visuals: Sequence[Any]) -> np.ndarray:
        """The tokens i64 [1, tokens] of a text. RuntimeError for an empty one."""
        ids = np.array(self._tokenizer.encode(text, add_special_tokens=special).input_ids.data)
        if not ids.size:
            raise OvjitError("a prompt cannot have the length 0")
        return ids

    def find_slots(self, ids: np.ndarray) -> np.ndarray:
        """bool [tokens]: where pictures and videos are."""
        return np.isin(ids[0], self._slot_tokens)

    def prune(
        self, ids: np.ndarray, embeds: np.ndarray, visuals: list[Any], config: GenerationConfig
    ) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        """The tokens, their embeddings and the pictures without the least useful features, if the family
        has such a step."""
        return ids, embeds, visuals

    def merge(self, ids: np.ndarray, embeds: np.ndarray, visuals: Sequence[Any]) -> Prompt:
        """The prompt of tokens and their embeddings f32 [1, tokens, size], with features instead of those of
        placeholders. Both are counted from the end, as a tokenizer may have cut the first placeholders."""
        slots = np.zeros(0, np.int64)
        if visuals:
            slots = np.flatnonzero(self.find_slots(ids))
            features = np.concatenate([visual.features for visual in visuals])
            count = min(len(slots), len(features))
            embeds, slots = embeds.copy(), slots[len(slots) - count :]
            embeds[0, slots] = features[len(features) - count :]
        inputs = self.inputs(ids, slots, visuals)
        return Prompt(ids, embeds, self.positions(ids, visuals), inputs, self._text_axes)

    def positions(self, ids: np.ndarray, visuals: Sequence[Any]) -> np.ndarray:
        """The positions i64 [..., 1, tokens] of a prompt."""
        return np.arange(self._first, self._first + ids.shape[1])[None]

    def inputs(self, ids: np.ndarray, slots: np.ndarray, visuals: Sequence[Any]) -> dict[str, np.ndarray]:
        """Further inputs of the language model, for tokens [rows, tokens] with features at `slots`."""
        return {}
