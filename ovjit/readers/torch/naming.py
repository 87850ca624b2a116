"""Names of nodes as OpenVINO makes them of scopes and operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: The child of what is traced that is the module itself: weights are self.layer.weight then, as in OpenVINO.
TRACED = "self"
#: The child that the module is where OpenVINO wraps it to call it by keywords: it is in names then.
WRAPPED = "model"
#: What takes the items of a list.
UNPACK = "prim::ListUnpack"
#: Operators that give parts, without those that are read alone.
_OF_PARTS = {"aten::split", "aten::chunk", "aten::unbind", "aten::tensor_split", "aten::meshgrid",
             "aten::nonzero_numpy"}  # fmt: skip


def label(scope: str, kind: str) -> str:
    """Return the prefix of OpenVINO's node names: the innermost module of a scope, and the operator.

    A traced scope is "__module.a/__module.a.0". `TRACED` is the child that is the converted module itself.
    """
    path = scope.rsplit("/", 1)[-1].split(".")
    if path[1:2] == [TRACED]:
        del path[1]
    return f"{'.'.join(path)}/{kind}" if len(path) > 1 else kind


def naming(kind: str, users: Sequence[Any]) -> str:
    """The kind used in an operator's name: OpenVINO converts operators that return lists where these are
    unpacked."""
    return UNPACK if kind in _OF_PARTS and [user.kind() for user in users] == [UNPACK] else kind


def where(node: Any) -> str:
    """The line of the user's code that called the operator."""
    try:
        source = node.sourceRange().strip().splitlines()
    except UnicodeDecodeError:  # what a damaged file has of the source
        source = []
    source_line = next((line.strip() for line in source if ".py" in line or "File" in line), "")
    scope = node.scopeName().rsplit("/", 1)[-1]
    parts = [text for text in (f"module {scope}" if scope else "", source_line.strip("# ")) if text]
    return f" ({', '.join(parts)})" if parts else ""
