"""The function by which JAX lowers an equation, and the line that an equation is from."""

from __future__ import annotations

from functools import partial
from typing import Any


def expand(eqn: Any) -> Any:
    """The jaxpr of the function by which JAX lowers an equation's primitive on a CPU; None without one.

    JAX registers lowerings in tables without a public name. A lowering by a function is a closure over it.
    """
    import jax
    from jax._src.interpreters import mlir

    tables = (
        getattr(mlir, "_platform_specific_lowerings", {}).get("cpu", {}),
        getattr(mlir, "_lowerings", {}),
    )
    for table in tables:
        rule = getattr(table.get(eqn.primitive), "rule", None)
        names = getattr(getattr(rule, "__code__", None), "co_freevars", ())
        captured = dict(zip(names, getattr(rule, "__closure__", None) or (), strict=False))
        if {"fun", "multiple_results"} <= captured.keys():
            specs = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in eqn.invars]
            return jax.make_jaxpr(partial(captured["fun"].cell_contents, **eqn.params))(*specs)
    return None


def find_line(eqn: Any) -> str:
    """The file, line and function that an equation is from."""
    from jax._src import source_info_util

    return str(source_info_util.summarize(eqn.source_info))
