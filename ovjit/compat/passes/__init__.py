"""Passes over a Model: one's own, by patterns or over the whole, and some that are ready."""

from ovjit.compat.passes.base import ModelPass, PassBase
from ovjit.compat.passes.graph_rewrite import BackwardGraphRewrite, GraphRewrite, Matcher, MatcherPass
from ovjit.compat.passes.manager import Manager
from ovjit.compat.passes.patterns import (
    AnyInput,
    Optional,
    Or,
    PatternSymbolValue,
    Predicate,
    WrapType,
    attrs_match,
    consumers_count,
    has_static_dim,
    has_static_dims,
    has_static_rank,
    has_static_shape,
    rank_equals,
    rank_more_than,
    shape_matches,
    type_matches,
    type_matches_any,
)
from ovjit.compat.passes.ready import (
    ConstantFolding,
    ConvertFP32ToFP16,
    LowLatency2,
    MakeStateful,
    Serialize,
    Version,
    VisualizeTree,
)

__all__ = [
    "AnyInput", "BackwardGraphRewrite", "ConstantFolding", "ConvertFP32ToFP16", "GraphRewrite", "LowLatency2",
    "MakeStateful", "Manager", "Matcher", "MatcherPass", "ModelPass", "Optional", "Or", "PassBase",
    "PatternSymbolValue", "Predicate", "Serialize", "Version", "VisualizeTree", "WrapType", "attrs_match",
    "consumers_count", "has_static_dim", "has_static_dims", "has_static_rank", "has_static_shape",
    "rank_equals", "rank_more_than", "shape_matches", "type_matches", "type_matches_any",
]  # fmt: skip
