"""Edits of a graph, and deprecation warnings."""

from ovjit.compat.package_utils import deprecation_warning
from ovjit.compat.utils.graph import numpy_to_c, replace_node, replace_output_update_name

__all__ = ["deprecation_warning", "numpy_to_c", "replace_node", "replace_output_update_name"]
