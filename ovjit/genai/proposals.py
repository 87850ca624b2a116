"""The choice of what proposes tokens in common batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.api.model.model import Model
from ovjit.errors import OvjitError
from ovjit.genai.batches import Proposals
from ovjit.genai.blocks import RowInputs
from ovjit.genai.drafts import DraftProposer, LookupProposer
from ovjit.genai.speculation import draft_of


def load_proposals(
    properties: Mapping[str, Any], source: Any, model: Model, inputs: RowInputs | None = None
) -> Proposals | None:
    """The proposer of tokens for `model`, the one of `source`, by the properties `draft_model` and
    `prompt_lookup`. It may change the model. `inputs`: those of a model that takes embeddings."""
    draft = draft_of(properties)
    if properties.get("prompt_lookup"):
        return LookupProposer()
    if draft is None:
        return None
    if draft.mode == "dflash_mode":
        from ovjit.genai.dflash import DflashProposer

        return DflashProposer(draft, model, inputs)
    if draft.mode == "mtp_mode":
        from ovjit.genai.mtp import MtpProposer

        return MtpProposer(draft, model, inputs)
    if draft.mode == "eagle3_mode":
        from ovjit.genai.eagle import EagleProposer

        return EagleProposer(draft, source, model, inputs)
    if inputs is not None:
        raise OvjitError(
            "Speculative decoding is not supported for models with embeddings: leave draft_model out, or "
            "give one of EAGLE-3, DFlash or MTP"
        )
    return DraftProposer(draft)
