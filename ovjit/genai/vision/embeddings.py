"""EmbeddingPipeline: vectors of texts, pictures and videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.fields import unpack_config
from ovjit.genai.history import ChatHistory
from ovjit.genai.retrieval import TextEmbeddingPipeline, check_texts, pool_states, split_config
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.turns import Turn
from ovjit.genai.vision.engine import list_inputs
from ovjit.genai.vision.reader import LANGUAGE, PictureReader, read_folder
from ovjit.genai.vision.tags import UNIVERSAL, Media
from ovjit.generation.head import keep_last


class EmbedResult:
    """`embeddings`: a Tensor [texts, size] in f32."""

    __slots__ = ("embeddings",)

    def __init__(self, embeddings: Tensor):
        self.embeddings = embeddings


class _PictureEncoder:
    """The model of a folder of VLMPipeline, whose logits are the states of tokens."""

    def __init__(self, folder: Path, device: str, properties: dict[str, Any]):
        from ovjit.api.run.core import Core

        kind, last = TextEmbeddingPipeline.Config, TextEmbeddingPipeline.PoolingType.LAST_TOKEN
        config = properties.pop("text_embedding_config", None)
        self._config, settings = split_config(config, kind, properties, pooling_type=last)
        self._config.validate()
        models = read_folder(folder)
        language = models.pop(LANGUAGE)
        if self._config.pooling_type is last:
            keep_last(language, 1)
        self._tokenizer, self._turn = Tokenizer(folder), Turn()
        self._reader = PictureReader(models, folder, self._tokenizer, device, settings)
        compiled = Core().compile_model(language, device, settings)
        self._names = list_inputs(compiled)
        self._request = compiled.create_infer_request()

    def embed(self, texts: Sequence[str], shown: Sequence[Any], prompt: str | None) -> np.ndarray:
        """The vectors f32 [texts, size] of texts, each of which is about the same pictures and videos."""
        checked = self._reader.check(*shown)
        with self._turn.take():
            media = self._reader.encode(checked)
            vectors = [
                self._infer(self._format(self._add_tags(text, media), prompt), media) for text in texts
            ]
        return np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)

    def _add_tags(self, text: str, media: Media) -> str:
        """The text, followed by tags of all pictures and videos if it has none."""
        family = self._reader.family
        natives = [tag for tag in (family.native, family.native_video) if tag]
        if any(tag in text for tag in natives) or any(tag.search(text) for tag in UNIVERSAL.values()):
            return text
        counts = {"image": len(media.images), "video": len(media.videos)}
        tags = (f"<ov_genai_{kind}_{i}>" for kind, count in counts.items() for i in range(count))
        return text + "".join(tags)

    def _format(self, text: str, prompt: str | None) -> str:
        """The text with its instruction, followed by the special tokens of the tokenizer. RuntimeError if it
        adds tokens elsewhere."""
        if prompt is not None and self._tokenizer.chat_template:
            messages = [{"role": "system", "content": prompt}, {"role": "user", "content": text}]
            text = self._tokenizer.apply_chat_template(ChatHistory(messages), False)
        else:
            text = (prompt or "") + text
        special, plain = (
            self._tokenizer.encode(text, add_special_tokens=adds).input_ids.data[0].tolist()
            for adds in (True, False)
        )
        if special[: len(plain)] != plain:
            raise OvjitError("Tokenizer special tokens are expected only at the end of the prompt")
        added = special[len(plain) :]
        return text + (self._tokenizer.decode(added, skip_special_tokens=False) if added else "")

    def _infer(self, text: str, media: Media) -> np.ndarray:
        """The vector [1, size] of a text."""
        family = self._reader.family
        text, visuals = family.insert_tags(text, (0, 0), media)
        ids = family.tokenize(text, True, visuals)
        read = family.merge(ids, self._reader.embed(ids), visuals)
        feeds = {
            **read.inputs, "inputs_embeds": read.embeds, "position_ids": read.positions,
            "attention_mask": np.ones((1, read.ids.shape[1]), np.int64), "beam_idx": np.zeros(1, np.int32),
        }  # fmt: skip
        self._request.reset_state()
        results = self._request.infer({name: feeds[name] for name in self._names})
        states = np.array(results["logits"], np.float32)
        return pool_states(states, np.ones(states.shape[:2], np.int64), self._config)


class EmbeddingPipeline:
    """Vectors of texts, pictures and videos: EmbeddingPipeline(folder, device, **kwargs), where the folder is
    one of TextEmbeddingPipeline or of VLMPipeline. Keywords are fields of TextEmbeddingPipeline.Config, or
    `text_embedding_config` with such an object, and properties of the device. Models that read pictures take
    the last token's state by default."""

    def __init__(self, models_path: Any, device: str, **kwargs: Any):
        self._pictures: _PictureEncoder | None = None
        is_path = isinstance(models_path, (str, bytes, os.PathLike)) and isinstance(device, str)
        folder = Path(os.fsdecode(models_path)) if is_path else Path()
        if is_path and (folder / "openvino_language_model.xml").exists():
            self._pictures = _PictureEncoder(folder, device, unpack_config(kwargs))
        else:
            config = kwargs.pop("text_embedding_config", None)
            self._texts = TextEmbeddingPipeline(models_path, device, config, **kwargs)

    def embed(self, text: str | Sequence[str] = "", images: Sequence[Any] = (), videos: Sequence[Any] = (),
              videos_metadata: Sequence[Any] = (), *, embedding_prompt: str | None = None, **_: Any
              ) -> EmbedResult:  # fmt: skip
        """A vector for each text with the pictures and videos at its tags, or else after it. The text
        follows `embedding_prompt`; a model of texts has `embed_instruction` of the configuration by default.
        RuntimeError for pictures and videos of a model of texts. Other keywords are ignored."""
        texts = check_texts([text] if isinstance(text, str) else text)
        if not all(isinstance(each, Tensor) for each in (*images, *videos)):
            raise TypeError("embed(): images and videos should be lists of Tensors")
        if self._pictures is not None:
            rows = self._pictures.embed(texts, (images, videos, videos_metadata), embedding_prompt)
            return EmbedResult(Tensor(rows))
        if len(images) or len(videos) or len(videos_metadata):
            raise OvjitError("This model does not support image/video input: leave images and videos out")
        if embedding_prompt is None:
            vectors = self._texts.embed_documents(texts)
        else:
            vectors = self._texts.embed(texts, embedding_prompt)
        return EmbedResult(Tensor(np.array(vectors, np.float32)))
