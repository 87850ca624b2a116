"""Types, shapes and stored elements of tensors, as readers need them: the classes of OpenVINO's API, and text
and packed bytes as arrays."""

from ovjit.api.model.boundary import constant_node, from_storage, to_storage
from ovjit.api.tensors.convert import dims_of, partial_shape_of
from ovjit.api.tensors.layout import Layout
from ovjit.api.tensors.memory import decode_text, encode_strings
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import TYPES, Type

__all__ = [
    "TYPES", "Layout", "PartialShape", "Type", "constant_node", "decode_text", "dims_of", "encode_strings",
    "from_storage", "partial_shape_of", "to_storage",
]  # fmt: skip
