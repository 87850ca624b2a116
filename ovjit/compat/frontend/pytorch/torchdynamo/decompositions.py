"""Operators that PyTorch decomposes for the backend, by the names of OpenVINO's functions."""

from __future__ import annotations

from typing import Any

from ovjit.compat.frontend.pytorch.torchdynamo.export_decompositions import (
    get_export_decomposition_list,
    ops_to_not_decompose,
)


def get_inf_decomposition_list() -> list[Any]:
    """The operators that are decomposed in graphs of inference."""
    return get_export_decomposition_list()


def get_aot_decomposition_list() -> list[Any]:
    """The operators that are decomposed in graphs of training: the same."""
    return get_export_decomposition_list()


__all__ = [
    "get_aot_decomposition_list",
    "get_export_decomposition_list",
    "get_inf_decomposition_list",
    "ops_to_not_decompose",
]
