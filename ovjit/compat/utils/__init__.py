"""Edits of a graph, deferred constants, and what packages around OpenVINO take from its `utils`."""

from ovjit.compat.package_utils import classproperty, deprecated, deprecatedclassproperty, get_cmake_path
from ovjit.compat.utils import data_helpers, decorators, input_validation, node_factory, types
from ovjit.compat.utils.graph import numpy_to_c, replace_node, replace_output_update_name
from ovjit.compat.utils.postponed_constant import make_postponed_constant

__all__ = [
    "classproperty", "data_helpers", "decorators", "deprecated", "deprecatedclassproperty", "get_cmake_path",
    "input_validation", "make_postponed_constant", "node_factory", "numpy_to_c", "replace_node",
    "replace_output_update_name", "types",
]  # fmt: skip
