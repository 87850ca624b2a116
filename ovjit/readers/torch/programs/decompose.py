"""Exported programs with the operators that have rules: others are decomposed by PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.registry import find_rule

#: PyTorch decomposes them to something else: weights of attention stand for their logarithmic sums.
UNFAITHFUL = ("aten::_scaled_dot_product_flash_attention_for_cpu",)


def has_rule(target: Any) -> bool:
    """Whether there is a rule for this OpOverload."""
    schema = target._schema
    return find_rule(schema.name, schema.overload_name) is not None


@cache
def _table(refused: frozenset[str] = frozenset()) -> Any:
    """The decompositions to use: PyTorch's, without those of operators with a rule that are not in
    `refused`."""
    from torch.export import default_decompositions

    table = default_decompositions()
    for target in list(table.keys()):
        if hasattr(target, "_schema") and has_rule(target) and not _may_decompose(target, refused):
            table.pop(target)
    for target, function in more_decompositions(refused).items():
        if target not in table:
            table[target] = function
    return table


def more_decompositions(refused: frozenset[str] = frozenset()) -> dict[Any, Any]:
    """Operators without a rule that PyTorch can decompose, also beyond the core set."""
    from torch._decomp import decomposition_table

    return {
        target: function
        for target, function in decomposition_table.items()
        if isinstance(target, torch._ops.OpOverload)
        and (not has_rule(target) or _may_decompose(target, refused))
    }


def kept_whole() -> list[Any]:
    """Operators with a rule that PyTorch can decompose, also beyond the core set."""
    from torch._decomp import decomposition_table
    from torch.export import default_decompositions

    candidates = dict.fromkeys([*default_decompositions().keys(), *decomposition_table])
    return [target for target in candidates if isinstance(target, torch._ops.OpOverload) and has_rule(target)]


def _may_decompose(target: Any, refused: frozenset[str]) -> bool:
    """Whether an operator with a rule must be decomposed nevertheless."""
    return target._schema.name in refused and target._schema.name not in UNFAITHFUL


def _names(schema: Any) -> set[str]:
    """Return the names by which converters may refer to an operator."""
    return {schema.name, f"{schema.name.replace('::', '.')}.{schema.overload_name or 'default'}"}


def decompose(
    program: Any, converters: Mapping[str, Any] | None = None, refused: frozenset[str] = frozenset()
) -> Any:
    """The functional program, with operators decomposed until all have rules, as far as possible.

    `refused` are operators whose rules do not take what is given here.
    """
    from torch.fx.experimental import _config

    table = _table(refused)
    if converters:
        table = table.copy() if hasattr(table, "copy") else dict(table)
        for target in list(table.keys()):
            if hasattr(target, "_schema") and _names(target._schema) & converters.keys():
                table.pop(target)
    with _config.patch(backed_size_oblivious=True):  # lengths of 1 in the example stay open
        return _with_aliases(program).run_decompositions(table)


def _with_aliases(program: Any) -> Any:
    """The program with inactive dropouts replaced by views: they return their argument, and PyTorch 2.13
    loses writes to it when it decomposes them."""

    def is_off(node: Any) -> bool:
        return node.target is torch.ops.aten.dropout.default and node.args[2:] == (False,)

    if not any(map(is_off, program.graph.nodes)):
        return program
    module, program = program.graph_module, copy.copy(program)
    program._graph_module = torch.fx.GraphModule(module, copy.deepcopy(module.graph))
    for node in filter(is_off, program.graph.nodes):
        node.target, node.args = torch.ops.aten.alias.default, node.args[:1]
    program._graph_module.recompile()
    return program
