"""Which function reads which operator: rows keyed by domain, name and the version since when they hold."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from ovjit.plugins import import_others
from ovjit.readers.onnx import standard
from ovjit.readers.onnx.standard import Schema as Schema

#: The modules with the standard's rows, one for each family of operators.
FAMILIES = (
    "control", "image", "math", "nn", "quant", "random", "recurrent", "reduce", "sequence", "signal",
    "tensor", "text", "training",
)  # fmt: skip
#: Operators of other domains. Further packages announce themselves in this group of entry points.
CONTRIBUTED, GROUP = "ovjit.readers.onnx_contrib", "ovjit.onnx"
#: The default domain by either of its names.
DEFAULT_DOMAINS = ("", "ai.onnx")

#: Reads one node: takes an `OnnxNode`, returns its outputs (one, or a list in the operator's order).
Rule = Callable[[Any], Any]

_ROWS: dict[tuple[str, str], list[tuple[int, Rule]]] = {}
#: domain -> what rewrites the nodes of a graph that imports it, before they are read
_PREPARED: dict[str, Callable[[Iterable[Any]], list[Any]]] = {}


def onnx_op(name: str, since: int = 1, domain: str = "") -> Callable[[Rule], Rule]:
    """Decorator: the function reads operator `name` of `domain` from version `since` on, until the next."""

    def decorate(rule: Rule) -> Rule:
        rows = _ROWS.setdefault((domain, name), [])
        rows.append((since, rule))
        rows.sort(key=lambda row: row[0])
        return rule

    return decorate


def find_rule(domain: str, name: str, version: int) -> Rule | None:
    """The function that reads this operator, None if there is none."""
    _load_standard()
    domain = "" if domain in DEFAULT_DOMAINS else domain
    if (domain, name) not in _ROWS:
        _load_contributed()
    found = None
    for since, rule in _ROWS.get((domain, name), ()):
        if since <= version:
            found = rule
    return found


def prepares(domain: str) -> Callable[[Any], Any]:
    """Decorator: the function takes the nodes of a graph that has some of `domain`, and returns those to
    read."""

    def decorate(function: Any) -> Any:
        _PREPARED[domain] = function
        return function

    return decorate


def prepared(nodes: Sequence[Any]) -> Sequence[Any]:
    """The nodes of a graph as the functions of their domains want them read."""
    for domain in {node.domain for node in nodes}.difference(DEFAULT_DOMAINS):
        _load_contributed()
        if domain in _PREPARED:
            nodes = _PREPARED[domain](nodes)
    return nodes


@cache
def _load_standard() -> None:
    for family in FAMILIES:
        importlib.import_module(f"ovjit.readers.onnx.{family}")


@cache
def _load_contributed() -> None:
    """Import what reads operators of other domains."""
    _load_standard()
    importlib.import_module(CONTRIBUTED)
    import_others(GROUP, CONTRIBUTED)


def find_schema(domain: str, name: str, version: int) -> Schema | None:
    """The standard's row of an operator, None if it has none (com.microsoft's operators have not)."""
    return standard.find_schema("" if domain in DEFAULT_DOMAINS else domain, name, version)


def function_body(domain: str, name: str, version: int, node: Any, types: Any) -> Any:
    """The FunctionProto that the standard gives as an operator's meaning, None if there is none.

    `types()` gives the serialised TypeProtos of the node's inputs, which some bodies depend on.
    """
    from onnx import FunctionProto, defs

    found = defs.get_schema(name, version, "" if domain in DEFAULT_DOMAINS else domain)
    body = b""
    if found.has_function:
        body = found.get_function_with_opset_version(_nearest(found.function_opset_versions, version))
    if not body and found.has_context_dependent_function:
        nearest = _nearest(found.context_dependent_function_opset_versions, version)
        body = found.get_context_dependent_function_with_opset_version(
            nearest, node.SerializeToString(), types()
        )
    return FunctionProto.FromString(body) if body else None


def _nearest(versions: list[int], version: int) -> int:
    """The newest of the body's versions up to `version`, else the oldest. A body says its opset."""
    return max((v for v in versions if v <= version), default=min(versions))
