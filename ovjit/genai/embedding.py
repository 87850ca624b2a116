"""EmbeddingPipeline: vectors of texts as one Tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.retrieval import TextEmbeddingPipeline


class EmbedResult:
    """`embeddings`: a Tensor [texts, size] in f32."""

    def __init__(self, embeddings: Tensor):
        self.embeddings = embeddings


class EmbeddingPipeline:
    """Vectors of texts: EmbeddingPipeline(folder, device, **kwargs). Keywords are fields of
    TextEmbeddingPipeline.Config, or `text_embedding_config` with such an object, and properties of the
    device."""

    def __init__(self, models_path: Any, device: str, **kwargs: Any):
        config = kwargs.pop("text_embedding_config", None)
        self._pipeline = TextEmbeddingPipeline(models_path, device, config, **kwargs)

    def embed(self, text: str | Sequence[str] = "", images: Sequence[Any] = (), videos: Sequence[Any] = (),
              videos_metadata: Sequence[Any] = (), *, embedding_prompt: str | None = None, **_: Any
              ) -> EmbedResult:  # fmt: skip
        """A vector for each text, with `embedding_prompt` before it, or else `embed_instruction` of the
        configuration. RuntimeError for pictures and videos: models of texts take none. Other keywords are
        ignored."""
        if len(images) or len(videos) or len(videos_metadata):
            raise OvjitError("a model of texts takes no images and videos: leave them out")
        texts = [text] if isinstance(text, str) else text
        if embedding_prompt is None:
            rows = self._pipeline.embed_documents(texts)
        else:
            rows = self._pipeline.embed(texts, embedding_prompt)
        return EmbedResult(Tensor(np.array(rows, np.float32)))
