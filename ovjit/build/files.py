"""Runtime information as OpenVINO's files have it, and the checks of arguments of what writes them."""

from ovjit.api.arguments import flag, takes
from ovjit.api.model.boundary import LAYOUT_NOTE
from ovjit.api.model.paged import HEADS_NOTE, PagedAttentionExtension, heads_of, noted_heads
from ovjit.api.model.rt_info import as_text
from ovjit.api.surface import surface_of

__all__ = [
    "HEADS_NOTE", "LAYOUT_NOTE", "PagedAttentionExtension", "as_text", "flag", "heads_of", "noted_heads",
    "surface_of", "takes",
]  # fmt: skip
