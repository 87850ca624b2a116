"""Selection of the ATen nodes to compile, by the names of OpenVINO's class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.fx.passes.operator_support import OperatorSupportBase

from ovjit.compat.frontend.pytorch.torchdynamo import options as compile_options
from ovjit.compat.frontend.pytorch.torchdynamo.support import why_unsupported


class OperatorSupport(OperatorSupportBase):
    """Decides which nodes are compiled. `options`: those of torch.compile, of which `disabled_ops` excludes
    nodes."""

    def __init__(self, options: Mapping[str, Any] | None):
        self._options = compile_options.read({"disabled_ops": (options or {}).get("disabled_ops")})
        self.enabled_op_names: list[str] = []

    def enable_by_name(self, node: Any) -> None:
        """Always compile this node."""
        self.enabled_op_names.append(node.name)

    def is_node_supported(self, submodules: Any, node: Any) -> bool:
        """Whether the node is compiled."""
        return node.op == "call_function" and (
            node.name in self.enabled_op_names or why_unsupported(node, self._options, {}) is None
        )


__all__ = ["OperatorSupport"]
