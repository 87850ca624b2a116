"""Rewrites of Models for readers: rules, folding of constants, merging of equal nodes."""

from ovjit.api.model.folding import fold
from ovjit.api.model.merge_equal_nodes import merge_equal_nodes
from ovjit.api.model.model_rules import ModelNode, ModelUses, ModelValue, ModelWriter, apply_rules

__all__ = [
    "ModelNode", "ModelUses", "ModelValue", "ModelWriter", "apply_rules", "fold", "merge_equal_nodes",
]  # fmt: skip
