"""Operators that PyTorch decomposes for the backend, by the names of OpenVINO's functions."""

from __future__ import annotations

from ovjit.compat.frontend.pytorch.torchdynamo.export_decompositions import (
    get_export_decomposition_list,
    ops_to_not_decompose,
)

#: Graphs of training and of inference decompose the same operators.
get_aot_decomposition_list = get_inf_decomposition_list = get_export_decomposition_list

__all__ = [
    "get_aot_decomposition_list", "get_export_decomposition_list", "get_inf_decomposition_list",
    "ops_to_not_decompose",
]  # fmt: skip
