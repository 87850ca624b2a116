"""Operators that exporters should decompose before they pass a graph to `convert_model`."""

from __future__ import annotations

from typing import Any

from ovjit.readers.torch.programs.decompose import kept_whole, more_decompositions


def get_export_decomposition_list() -> list[Any]:
    """The operators that PyTorch can decompose, and for which `convert_model` has no rule."""
    return list(more_decompositions())


def ops_to_not_decompose() -> list[Any]:
    """The operators that PyTorch can decompose, but for which `convert_model` has a rule."""
    return kept_whole()
