"""Multi-token prediction: a layer that a model was trained with, and that reads its last hidden states."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.run.core import Core
from ovjit.errors import OvjitError
from ovjit.genai.blocks import Row, RowInputs
from ovjit.genai.dflash import attach_head
from ovjit.genai.drafts import DraftedRequest
from ovjit.genai.features import FeatureProposer, add_features
from ovjit.genai.speculation import MTP_FILE, Draft
from ovjit.genai.vision.family import Prompt
from ovjit.generation.decoder import model_file
from ovjit.generation.head import last_product


class MtpProposer(FeatureProposer):
    """Proposes tokens for requests in common batches. Changes `model`, for which it proposes, so that it
    computes features. `rows`: the inputs of a model that takes embeddings."""

    name = "MTP"

    def __init__(self, draft: Draft, model: Any, rows: RowInputs | None):
        if rows is None:
            raise OvjitError("MTP needs a folder with openvino_text_embeddings_model.xml")
        product, _ = last_product(model)
        file = draft.path / MTP_FILE
        read = Core().read_model(file if file.is_file() else model_file(draft.path))
        attach_head(read, model)
        add_features(model, [product.input_value(0)])
        super().__init__(draft, read, rows)

    def _begin(self, request: DraftedRequest) -> Row:
        """Positions are the numbers of tokens, also those of pictures."""
        prompt = request.row.prompt.skip_first()
        return Row([], Prompt(prompt.ids, prompt.embeds, np.arange(prompt.ids.size)[None], {}))
