"""VLMPipeline: texts from pictures and texts."""

from __future__ import annotations

import copy
import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.adapters import apply_adapters
from ovjit.genai.answers import Answer, Writer, answer_prompt
from ovjit.genai.config import GenerationConfig, add_eos, check_single, merge, read_config
from ovjit.genai.enums import GenerationFinishReason
from ovjit.genai.figures import Figures, measure, now_us
from ovjit.genai.history import ChatHistory
from ovjit.genai.images.pixels import check_picture
from ovjit.genai.json_files import read_json
from ovjit.genai.llm import engine_properties
from ovjit.genai.speculation import check_drafts
from ovjit.genai.stops import Stops
from ovjit.genai.streamers import streamer_of
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn
from ovjit.genai.vision.engine import EmbeddingEngine
from ovjit.genai.vision.family import Family, Prompt
from ovjit.genai.vision.gemma import Gemma3
from ovjit.genai.vision.internvl import InternVL
from ovjit.genai.vision.llava import Llava
from ovjit.genai.vision.llava_next import LlavaNext
from ovjit.genai.vision.phi import Phi3Vision
from ovjit.genai.vision.qwen import Qwen2VL, Qwen3VL, Qwen25VL
from ovjit.genai.vision.results import VLMDecodedResults, VLMPerfMetrics
from ovjit.genai.vision.tags import Media, PictureChat
from ovjit.genai.vision.videos import VideoMetadata, check_video
from ovjit.generation.head import keep_last

#: The model_type of config.json -> the family.
_FAMILIES: dict[str, type[Family]] = {
    "gemma3": Gemma3, "internvl_chat": InternVL, "llava": Llava, "llava_next": LlavaNext,
    "phi3_v": Phi3Vision, "qwen2_5_vl": Qwen25VL, "qwen2_vl": Qwen2VL, "qwen3_vl": Qwen3VL,
}  # fmt: skip
#: The networks that all families have, by their names in a dict of models.
_NETWORKS = ("language", "text_embeddings", "vision_embeddings")


def _choose_family(folder: Path) -> type[Family]:
    """The family of a folder with a config.json. UnsupportedError for others."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in _FAMILIES:
        raise UnsupportedError(f"Unsupported {kind!r} VLM model type: ovjit runs {sorted(_FAMILIES)}")
    return _FAMILIES[kind]


class VLMPipeline:
    """Texts from texts and pictures: VLMPipeline(folder, device, **properties), or VLMPipeline(models,
    tokenizer, config_dir_path, device, generation_config=None, **properties) with a dict of IRs in memory."""

    def __init__(self, models_path: Any = None, *arguments: Any, **kwargs: Any):
        start_us = now_us()
        self._turn = Turn()
        models = kwargs.pop("models", models_path if isinstance(models_path, Mapping) else None)
        if models is None:
            self._load_folder(models_path, *arguments, **kwargs)
        else:
            self._load_models(models, *arguments, **kwargs)
        add_eos(self._config, self._tokenizer)
        #: The chat of start_chat, and the pictures of the chats that were given.
        self._history: ChatHistory | None = None
        self._chats: weakref.WeakKeyDictionary[ChatHistory, PictureChat] = weakref.WeakKeyDictionary()
        self._load_time = (now_us() - start_us) / 1000

    def _load_folder(self, models_path: Any, device: str, **properties: Any) -> None:
        from ovjit.api.run.core import Core

        if not isinstance(models_path, (str, bytes, os.PathLike)) or not isinstance(device, str):
            raise TypeError("VLMPipeline takes the path of a folder and a device")
        folder = Path(os.fsdecode(models_path))
        family = _choose_family(folder)
        files = {name: folder / f"openvino_{name}_model.xml" for name in (*_NETWORKS, *family.networks)}
        missing = [file.name for file in files.values() if not file.is_file()]
        if missing:
            raise OvjitError(f"{str(folder)!r} has no {', '.join(missing)}: export it with optimum-cli")
        models = {name: Core().read_model(str(file)) for name, file in files.items()}
        self._config = read_config(GenerationConfig, folder)
        self._tokenizer = Tokenizer(folder)
        self._compile(family, models, folder, device, properties)

    def _load_models(
        self, models: Mapping[str, Any], tokenizer: Tokenizer, config_dir_path: Any, device: str,
        generation_config: GenerationConfig | None = None, **properties: Any,
    ) -> None:  # fmt: skip
        from ovjit.api.run.core import Core

        folder = Path(os.fsdecode(config_dir_path))
        family = _choose_family(folder)
        names = (*_NETWORKS, *family.networks)
        missing = [name for name in names if name not in models]
        if missing:
            raise OvjitError(f"the models {missing} are missing: {list(names)} are needed")
        self._config, self._tokenizer = copy.copy(generation_config or GenerationConfig()), tokenizer
        read = {name: Core().read_model(*models[name]) for name in names}
        self._compile(family, read, folder, device, properties)

    def _compile(
        self, family: type[Family], models: Mapping[str, Any], folder: Path, device: str,
        properties: dict[str, Any],
    ) -> None:  # fmt: skip
        from ovjit.api.run.core import Core

        for name in ("prompt_lookup", "draft_model", "adapters"):
            if properties.get(name):
                raise UnsupportedError(f"ovjit does not support {name} of VLMPipeline yet: leave it out")
        settings = engine_properties(properties)
        keep_last(models["language"], 1)
        compiled = {name: Core().compile_model(model, device, settings) for name, model in models.items()}
        language = compiled.pop("language")
        requests = {name: network.create_infer_request() for name, network in compiled.items()}
        self._family = family(folder, requests, self._tokenizer)
        self._engine = EmbeddingEngine(language, requests["text_embeddings"], self._family)

    # -- settings

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def get_generation_config(self) -> GenerationConfig:
        return copy.copy(self._config)

    def set_generation_config(self, config: GenerationConfig) -> None:
        """Use this configuration by default. Tokens that end texts stay if it has none."""
        self._config = merge(config, self._config, {})

    def set_chat_template(self, chat_template: str) -> None:
        if self._history is not None:
            raise OvjitError("the template cannot be changed in a chat: call finish_chat first")
        self._tokenizer.set_chat_template(chat_template)

    def start_chat(self, system_message: str = "") -> None:
        """Keep messages from now on. Deprecated: use ChatHistory."""
        warnings.warn("start_chat is deprecated: give a ChatHistory to generate", DeprecationWarning, 2)
        self._history = ChatHistory([{"role": "system", "content": system_message}] if system_message else [])

    def finish_chat(self) -> None:
        """Forget the chat. Deprecated: use ChatHistory."""
        warnings.warn("finish_chat is deprecated: give a ChatHistory to generate", DeprecationWarning, 2)
        self._history = None

    # -- generation

    def generate(self, prompt: str | ChatHistory, *arguments: Any, **kwargs: Any) -> VLMDecodedResults:
        """generate(prompt, images=[...], videos=[], generation_config=None, streamer=None, **kwargs), where a
        Tensor may stand for images, or be the keyword image. A picture is a Tensor u8 [height, width, 3], or
        [n, height, width, 3] for several; a video one [frames, height, width, 3], with `videos_metadata`.
        Further keywords are fields of GenerationConfig."""
        if not isinstance(prompt, (str, ChatHistory)):
            raise TypeError(f"prompt should be a str or a ChatHistory, not {type(prompt).__name__}")
        options = _bind(arguments, kwargs)
        with self._turn:
            return self._generate(prompt, options, kwargs)

    def _generate(
        self, prompt: str | ChatHistory, options: Mapping[str, Any], keywords: dict[str, Any]
    ) -> VLMDecodedResults:
        start_us, metrics = now_us(), VLMPerfMetrics()
        metrics._load_time = self._load_time
        pictures, videos = _split_pictures(options, self._family.channels), _split_videos(options)
        config = merge(options.get("generation_config"), self._config, keywords)
        apply_adapters(None, [], config.adapters)
        if config.pruning_ratio:
            raise UnsupportedError("ovjit does not support pruning_ratio yet: leave the field as it is")
        stream = streamer_of(options.get("streamer"), self._tokenizer)
        check_single(stream, config, 1)
        check_drafts(config, has_draft=False, has_lookup=False)
        raw = metrics.vlm_raw_metrics
        with measure(raw.vision_encoding_durations):
            media = Media(
                [self._family.encode(picture) for picture in pictures],
                [self._family.encode_video(*video) for video in videos],
            )
        raw.per_image_slice_counts += [visual.slices for visual in media.images]
        chat_history = self._history if isinstance(prompt, str) else None
        history = prompt if isinstance(prompt, ChatHistory) else chat_history
        if history is prompt and not (history and config.apply_chat_template):
            raise OvjitError("a ChatHistory needs messages, and apply_chat_template=True")
        chat = PictureChat(None if history is None else self._chats.get(history))
        if chat_history is not None:
            chat_history.append({"role": "user", "content": prompt})
        is_done = False
        try:
            read = self._embed(*self._read_prompt(prompt, history, chat, config, media, metrics), metrics)
            # as in openvino_genai, penalties do not count the tokens of a ChatHistory
            ids = [] if history is prompt else read.ids[read.ids >= 0].tolist()
            raw.prepare_embeddings_durations.append(now_us() - start_us)
            stops = Stops(config, self._tokenizer, read.ids.size)
            metrics._input_tokens += read.ids.size
            steps = answer_prompt(ids, stops, Writer(stream, stops, []), Figures(metrics, start_us))
            answers = self._engine.run(read, steps)[: config.num_return_sequences]
            is_done = answers[0].finish is not GenerationFinishReason.NONE
        finally:
            # the question of an answer that failed or was cancelled is no part of the chat
            if chat_history is not None and not is_done:
                chat_history.pop()
        results = self._decode(answers, metrics, start_us)
        if history is not None and is_done:
            self._chats[history] = chat
        if chat_history is not None and is_done:
            chat_history.append({"role": "assistant", "content": results.texts[0]})
        return results

    def _read_prompt(
        self, prompt: str | ChatHistory, history: ChatHistory | None, chat: PictureChat,
        config: GenerationConfig, media: Media, metrics: VLMPerfMetrics,
    ) -> tuple[str, bool, list[Any]]:  # fmt: skip
        """(the text with the tokens of pictures, with special tokens, pictures and videos in order)."""
        is_chat = history is not None
        if history is None:
            text, visuals = self._family.insert_tags(str(prompt), (0, 0), media)
            messages = [{"role": "user", "content": text}]
            if not config.apply_chat_template:
                return text, True, visuals
            history = ChatHistory()
        else:
            messages, visuals = chat.read(history.get_messages(), media, self._family.insert_tags)
        with measure(metrics.raw_metrics.chat_template_durations):
            tools, extra = history.get_tools(), history.get_extra_context()
            text = self._tokenizer.apply_chat_template(messages, True, tools=tools, extra_context=extra)
        return text, is_chat, visuals

    def _embed(self, text: str, special: bool, visuals: list[Any], metrics: VLMPerfMetrics) -> Prompt:
        """The prompt of a text. RuntimeError for an empty one."""
        with measure(metrics.raw_metrics.tokenization_durations):
            ids = self._family.tokenize(text, special, visuals)
        with measure(metrics.vlm_raw_metrics.text_embedding_durations):
            embeds = self._engine.embed(np.maximum(ids, 0))
        return self._family.merge(ids, embeds, visuals)

    def _decode(self, answers: list[Answer], metrics: VLMPerfMetrics, start_us: float) -> VLMDecodedResults:
        results = VLMDecodedResults()
        with measure(metrics.raw_metrics.detokenization_durations):
            results.texts = [self._tokenizer.decode(answer.tokens) for answer in answers]
        results.scores = [answer.score for answer in answers]
        results.finish_reasons = [answer.finish or GenerationFinishReason.NONE for answer in answers]
        metrics.raw_metrics.generate_durations.append(now_us() - start_us)
        results.perf_metrics = metrics
        return results


def _bind(arguments: Sequence[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `generate` behind the prompt, by name; they are removed from the keywords. TypeError
    for others."""
    names = {
        "images": (Tensor, Sequence),
        "videos": Sequence,
        "generation_config": GenerationConfig,
        "streamer": object,
    }
    options: dict[str, Any] = {}
    order = list(names)
    for value in arguments:
        while order and not isinstance(value, names[order[0]]):  # type: ignore[arg-type]
            order.pop(0)
        if not order:
            raise TypeError(
                f"generate(): incompatible function arguments: {type(value).__name__} is not expected"
            )
        options[order.pop(0)] = value
    for name in ("image", *names, "videos_metadata"):
        if name in keywords:
            options[name] = keywords.pop(name)
    if keywords.get("audios"):
        raise UnsupportedError("ovjit does not support audio in prompts yet: leave it out")
    return options


def _split_pictures(options: Mapping[str, Any], channels: tuple[int, ...]) -> list[np.ndarray]:
    """The pictures u8 [1, height, width, channels] of the arguments image and images."""
    images = options.get("images", [])
    images = [images] if isinstance(images, Tensor) else list(images)
    if "image" in options:
        images.append(options["image"])
    pictures = []
    for image in images:
        if not isinstance(image, Tensor) or len(image.shape) not in (3, 4):
            raise OvjitError("an image should be a Tensor of u8 [height, width, 3] or [n, height, width, 3]")
        batch = image.data if len(image.shape) == 4 else image.data[None]
        pictures += [check_picture(Tensor(batch[i : i + 1]), "an image", channels) for i in range(len(batch))]
    return pictures


def _split_videos(options: Mapping[str, Any]) -> list[tuple[np.ndarray, VideoMetadata]]:
    """The videos u8 [frames, height, width, 3] of the argument videos, with what is known about them."""
    videos = [check_video(video) for video in options.get("videos", [])]
    metadata = list(options.get("videos_metadata") or [VideoMetadata()] * len(videos))
    if len(videos) != len(metadata):
        raise OvjitError("Number of videos and videos metadata must match if metadata provided.")
    return list(zip(videos, metadata, strict=True))
