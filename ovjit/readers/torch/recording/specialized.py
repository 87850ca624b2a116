"""Programs of torch.export that hold for any number of samples, where the example has one.

A module that compares the number of samples with a length of 1 takes the branch of the example, and
torch.export notes that the number has to be 1 then: decoders of transformers compare it with that of their
positions. Such a module is exported with two samples, in which lengths differ, and that program is kept where
it gives what the module itself gives of the example.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Sequence
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.torch.recording.effects import Effects
from ovjit.readers.torch.recording.found_loops import exporting
from ovjit.readers.torch.recording.mask_selection import agrees, for_any_mask
from ovjit.readers.torch.recording.other_sizes import OtherSizes
from ovjit.readers.torch.recording.patches import patch
from ovjit.readers.torch.recording.python_functions import shadow_functions
from ovjit.readers.torch.recording.recorder import keep, tell
from ovjit.readers.torch.recording.state import call_unchanged
from ovjit.readers.torch.recording.trace import Prepared, attempt, quietly

#: What a module asks of open sizes is asserted when the program runs, and not taken for granted. PyTorch has
#: this option since 2.9.
_DEFERRED = frozenset(("prefer_deferred_runtime_asserts_over_guards",))
#: torch.export knows lengths from here on, and to there, of what holds for any.
_LEAST, _MOST = 2, 1 << 31


def export(ready: Prepared) -> Any:
    """The program of a module with all dimensions open, for any number of samples where there is one."""
    program = _export(ready.module, ready.leaves)
    if not any(leaf.dim() and leaf.shape[0] == 1 for leaf in ready.leaves) or not _is_for_one(program):
        return program
    import torch

    doubled = [
        torch.cat([leaf, leaf]) if leaf.dim() and leaf.shape[0] == 1 else leaf for leaf in ready.leaves
    ]
    names = list(ready.module.names)
    with attempt("an export for two samples"):
        other = _export(ready.module, doubled)
        if not _is_for_one(other) and _agrees(other, ready.module, ready.leaves):
            return other
    ready.module.names[:] = names
    return program


def _export(module: Any, leaves: Sequence[Any]) -> Any:
    try:
        return _of_any_size(module, leaves)
    except Exception:  # such as a loop over the places of a mask
        with for_any_mask(export=True) as assumed:
            program = _of_any_size(module, leaves)
        if not assumed.any or not _agrees(program, module, leaves):
            raise
        return program


def _of_any_size(module: Any, leaves: Sequence[Any]) -> Any:
    """The program; where Python asks for open numbers, the one with Python's functions recorded if that gives
    the same of the example. What is warned of is that of the program alone."""
    program, records, asking = _of_dimensions(module, leaves, set())
    if asking:
        with attempt("an export with numbers of open sizes"):
            other, others, _ = _of_dimensions(module, leaves, asking)
            if _agrees(other, module, leaves):
                program, records = other, others
    for each in records:
        tell(str(each.message), each.category, each.filename, each.lineno)
    return program


def _of_dimensions(module: Any, leaves: Sequence[Any], files: set[str]) -> tuple[Any, list[Any], set[str]]:
    """A program with open dimensions, what was warned of, and the files that asked for numbers: those of
    `files` have Python's functions recorded."""
    import torch
    from torch.export import Dim
    from torch.fx.experimental import _config

    dims = tuple(dict.fromkeys(range(leaf.dim()), Dim.AUTO) for leaf in leaves)
    parameters = inspect.signature(torch.export.export).parameters.keys()
    records: list[Any] = []
    with quietly(records), patch(*_of_exports()), shadow_functions(files, module), exporting() as asking:
        with _config.patch(backed_size_oblivious=True):
            program = torch.export.export(
                module, tuple(leaves), dynamic_shapes=(dims,), strict=False,
                **dict.fromkeys(_DEFERRED & parameters, True),
            )  # fmt: skip
    return program, records, asking


def _of_exports() -> list[tuple[Any, str, Any]]:
    """Patches of torch.export: graphs that PyTorch prints where it fails are not printed, and the numbers
    that are drawn meanwhile by other threads are not drawn again. An export draws none."""
    import torch.export._trace
    import torch.fx.graph_module
    from torch._functorch import aot_autograd

    printing = torch.fx.graph_module, torch.export._trace
    silent = [(module, "print", lambda *_, **__: None) for module in printing]
    states = [(aot_autograd, "preserve_rng_state", contextlib.nullcontext)]
    return [*silent, *(row for row in states if hasattr(*row[:2]))]


def check_open(program: Any, dims: Sequence[tuple[int, int]]) -> None:
    """Raise UnsupportedError if a program does not hold for all lengths of these dimensions of its inputs,
    each given by the place of the input and the axis."""
    inputs = [n.meta["val"] for n in program.graph.find_nodes(op="placeholder")]
    inputs = inputs[len(inputs) - len(program.graph_signature.user_inputs) :]
    for index, axis in dims:
        length = inputs[index].shape[axis]
        symbol = getattr(getattr(length, "node", None), "expr", None)
        span = program.range_constraints.get(symbol)
        if isinstance(length, int) or (
            span is not None and not (span.lower <= _LEAST and span.upper >= _MOST)
        ):
            raise UnsupportedError(f"what the module does depends on the dimension {axis} of input {index}")


def warn_of_other_sizes(program: Any, ready: Prepared, seconds: float) -> None:
    """Warn of a program that gives something else than the module for other sizes. They are compared for so
    many seconds."""
    if OtherSizes(ready, seconds, Effects()).differs(_without_claims(program)):
        message = "The program might be incorrect for other sizes: it differs from the module for some"
        keep(message, UserWarning)


def _is_for_one(program: Any) -> bool:
    """Whether a program asserts that the first dimension of an input is 1."""
    import torch

    def is_samples(node: Any) -> bool:
        if not isinstance(node, torch.fx.Node) or node.target is not torch.ops.aten.sym_size.int:
            return False
        return node.args[0].op == "placeholder" and node.args[1] == 0

    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        claim = node.args[0]
        if not isinstance(claim, torch.fx.Node) or claim.target is not operator.eq:
            continue
        sides = claim.args
        if 1 in sides and any(map(is_samples, sides)):
            return True
    return False


def _agrees(program: Any, module: Any, leaves: Sequence[Any]) -> bool:
    """Whether a program gives what the module gives of the example; what it asserts is left out."""
    results = (call_unchanged(f, module, leaves) for f in (module, _without_claims(program)))
    return agrees(*results)


def _without_claims(program: Any) -> Any:
    """The module of a program, which asserts nothing."""
    import torch

    graph = program.module(check_guards=False)  # of its own
    asserts = torch.ops.aten._assert_scalar.default
    for node in graph.graph.find_nodes(op="call_function", target=asserts):
        graph.graph.erase_node(node)
    graph.recompile()
    return graph
