"""Prompts of texts and pictures to the inputs of a language model: the networks of a family's pictures."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.config import GenerationConfig, demand
from ovjit.genai.figures import measure, now_us
from ovjit.genai.history import ChatHistory
from ovjit.genai.images.pixels import check_picture
from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.deepseek import DeepSeekOCR2
from ovjit.genai.vision.family import Family, Prompt
from ovjit.genai.vision.gemma import Gemma3, Gemma3n
from ovjit.genai.vision.gemma4 import Gemma4
from ovjit.genai.vision.internvl import InternVL
from ovjit.genai.vision.llava import Llava, LlavaNext, LlavaNextVideo
from ovjit.genai.vision.minicpm import MiniCPMV
from ovjit.genai.vision.muse import MuseGlimmer
from ovjit.genai.vision.nanollava import NanoLlava
from ovjit.genai.vision.omni import Qwen3Omni
from ovjit.genai.vision.phi import Phi3Vision
from ovjit.genai.vision.phi4 import Phi4Multimodal
from ovjit.genai.vision.qwen import Qwen2VL, Qwen3VL, Qwen25VL, Qwen35
from ovjit.genai.vision.results import VLMPerfMetrics
from ovjit.genai.vision.tags import Media, PictureChat
from ovjit.genai.vision.videos import VideoMetadata, check_video

#: The model_type of config.json -> the family.
_FAMILIES: dict[str, type[Family]] = {
    "deepseek_ocr2": DeepSeekOCR2,
    "gemma3": Gemma3, "gemma3n": Gemma3n, "gemma4": Gemma4, "gemma4_unified": Gemma4,
    "internvl_chat": InternVL, "llava": Llava, "llava_next": LlavaNext,
    "llava-qwen2": NanoLlava, "llava_next_video": LlavaNextVideo,
    "minicpmo": MiniCPMV, "minicpmv": MiniCPMV, "muse_glimmer": MuseGlimmer,
    "phi3_v": Phi3Vision, "phi4mm": Phi4Multimodal, "qwen2_5_vl": Qwen25VL, "qwen2_vl": Qwen2VL,
    "qwen3_5": Qwen35, "qwen3_5_moe": Qwen35, "qwen3_vl": Qwen3VL,
    "qwen3_omni": Qwen3Omni, "qwen3_omni_moe": Qwen3Omni,
}  # fmt: skip
LANGUAGE = "language"
#: The networks that all families have, by their names in a dict of models.
_NETWORKS = (LANGUAGE, "text_embeddings", "vision_embeddings")


def choose_family(folder: Path) -> type[Family]:
    """The family of a folder with a config.json. UnsupportedError for others."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in _FAMILIES:
        raise UnsupportedError(f"Unsupported {kind!r} VLM model type: ovjit runs {sorted(_FAMILIES)}")
    return _FAMILIES[kind]


def read_folder(folder: Path) -> dict[str, Any]:
    """The models of a folder by name. RuntimeError if some are missing."""
    from ovjit.api.run.core import Core

    names = (*_NETWORKS, *choose_family(folder).list_networks(folder))
    files = {name: folder / f"openvino_{name}_model.xml" for name in names}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise OvjitError(f"{str(folder)!r} has no {', '.join(missing)}: export it with optimum-cli")
    return {name: Core().read_model(str(file)) for name, file in files.items()}


def read_models(folder: Path, models: Mapping[str, Any]) -> dict[str, Any]:
    """The models of pairs (text of an IR, its weights). RuntimeError if some are missing."""
    from ovjit.api.run.core import Core

    names = (*_NETWORKS, *choose_family(folder).list_networks(folder))
    missing = [name for name in names if name not in models]
    if missing:
        raise OvjitError(f"the models {missing} are missing: {list(names)} are needed")
    return {name: Core().read_model(*models[name]) for name in names}


class Shown:
    """The pictures u8 [1, height, width, channels] of a prompt, its videos u8 [frames, height, width, 3] with
    what is known about them, and its sounds f32 [samples]."""

    def __init__(
        self, pictures: Sequence[np.ndarray] = (), videos: Sequence[tuple[np.ndarray, VideoMetadata]] = (),
        sounds: Sequence[np.ndarray] = (),
    ):  # fmt: skip
        self.pictures, self.videos, self.sounds = pictures, videos, sounds


class PictureReader:
    """Reads prompts. `models`: those of a folder, without the language model."""

    def __init__(
        self, models: Mapping[str, Any], folder: Path, tokenizer: Tokenizer, device: str,
        settings: Mapping[str, Any],
    ):  # fmt: skip
        from ovjit.api.run.core import Core

        requests = {
            name: Core().compile_model(model, device, dict(settings)).create_infer_request()
            for name, model in models.items()
        }
        self._tokenizer = tokenizer
        self.family = choose_family(folder)(folder, requests, tokenizer)
        self.embedder = requests["text_embeddings"]
        #: The pictures of chats.
        self._chats: weakref.WeakKeyDictionary[ChatHistory, PictureChat] = weakref.WeakKeyDictionary()

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """The embeddings f32 [rows, tokens, size] of tokens; those of pictures are negative or replaced."""
        return np.array(self.embedder.infer([np.maximum(ids, 0)])[0], np.float32)

    def check(self, images: Any, videos: Any = (), metadata: Any = (), audios: Any = ()) -> Shown:
        """The arguments images, videos, videos_metadata and audios. TypeError, RuntimeError."""
        sounds = [_check_sound(audio) for audio in audios]
        return Shown(_split_pictures(images, self.family.channels), _split_videos(videos, metadata), sounds)

    def encode(self, shown: Shown) -> Media:
        """The features of pictures and videos."""
        images = [self.family.encode(picture) for picture in shown.pictures]
        return Media(images, [self.family.encode_video(*video) for video in shown.videos])

    def read(
        self, prompt: str, history: ChatHistory | None, config: GenerationConfig, shown: Shown,
        metrics: VLMPerfMetrics,
    ) -> tuple[Prompt, PictureChat]:  # fmt: skip
        """(the prompt of a text, or of a chat, the chat's pictures: see `keep`)."""
        start_us, raw = now_us(), metrics.vlm_raw_metrics
        with measure(raw.vision_encoding_durations):
            media = self.encode(shown)
        with measure(raw.audio_encoding_durations):
            media.sounds = self.family.encode_sounds(shown.sounds)
        raw.per_image_slice_counts += [1] * len(media.images)
        chat = PictureChat(None if history is None else self._chats.get(history))
        text, special, visuals = self._render(prompt, history, chat, config, media, metrics)
        with measure(metrics.raw_metrics.tokenization_durations):
            ids = self.family.tokenize(text, special, visuals)
        with measure(raw.text_embedding_durations):
            embeds = self.embed(ids)
        if config.pruning_ratio:
            check_pruning(config)
            ids, embeds, visuals = self.family.prune(ids, embeds, visuals, config)
        read = self.family.merge(ids, embeds, visuals)
        raw.prepare_embeddings_durations.append(now_us() - start_us)
        metrics._input_tokens += read.ids.size
        return read, chat

    def keep(self, history: ChatHistory, chat: PictureChat) -> None:
        """Store the pictures of a chat whose last message is answered."""
        self._chats[history] = chat

    def _render(
        self, prompt: str, history: ChatHistory | None, chat: PictureChat, config: GenerationConfig,
        media: Media, metrics: VLMPerfMetrics,
    ) -> tuple[str, bool, list[Any]]:  # fmt: skip
        """(the text with the tokens of pictures, with special tokens, pictures and videos in order)."""
        is_chat = history is not None
        if history is None:
            text, visuals = self.family.insert_tags(prompt, (0, 0), media)
            messages = [{"role": "user", "content": text}]
            if not config.apply_chat_template:
                return text, True, visuals
            history = ChatHistory()
        else:
            messages, visuals = chat.read(history.get_messages(), media, self.family.insert_tags)
        with measure(metrics.raw_metrics.chat_template_durations):
            tools, extra = history.get_tools(), history.get_extra_context()
            text = self._tokenizer.apply_chat_template(messages, True, tools=tools, extra_context=extra)
        return text, is_chat, visuals


def check_pruning(config: GenerationConfig) -> None:
    """RuntimeError for settings of pruning that are out of range."""
    demand(config.pruning_ratio <= 100, "pruning ratio must be between 0 and 100")
    demand(0 <= config.relevance_weight <= 1, "relevance weight must be between 0.0 and 1.0")


def _split_pictures(images: Any, channels: tuple[int, ...]) -> list[np.ndarray]:
    """The pictures u8 [1, height, width, channels] of a list of Tensors."""
    pictures = []
    for image in images:
        if not isinstance(image, Tensor) or len(image.shape) not in (3, 4):
            raise OvjitError("an image should be a Tensor of u8 [height, width, 3] or [n, height, width, 3]")
        batch = image.data if len(image.shape) == 4 else image.data[None]
        pictures += [check_picture(Tensor(batch[i : i + 1]), "an image", channels) for i in range(len(batch))]
    return pictures


def _check_sound(audio: Any) -> np.ndarray:
    """The samples f32 of a sound: those of a Tensor. TypeError, RuntimeError."""
    if not isinstance(audio, Tensor):
        raise TypeError(f"audios should be a list of Tensors, not of {type(audio).__name__}")
    data: np.ndarray = audio.data
    if data.dtype != np.float32 or data.ndim != 1:
        raise OvjitError(
            f"a sound should be a Tensor of f32 [samples], not of {data.dtype} {list(data.shape)}"
        )
    return data


def _split_videos(videos: Any, metadata: Any) -> list[tuple[np.ndarray, VideoMetadata]]:
    """The videos u8 [frames, height, width, 3], with what is known about them."""
    checked = [check_video(video) for video in videos]
    details = list(metadata or [VideoMetadata()] * len(checked))
    if len(checked) != len(details):
        raise OvjitError("Number of videos and videos metadata must match if metadata provided.")
    return list(zip(checked, details, strict=True))
