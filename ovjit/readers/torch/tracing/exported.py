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
from collections.abc import Callable, Iterator, Sequence
from logging import WARNING
from typing import Any

from ovjit.errors import UnsupportedError
from ovjit.readers.logs import drop_records
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.agreement import agrees
from ovjit.readers.torch.tracing.effects import Effects
from ovjit.readers.torch.tracing.index_warnings import exporting
from ovjit.readers.torch.tracing.other_sizes import OtherSizes
from ovjit.readers.torch.tracing.patches import patch
from ovjit.readers.torch.tracing.plain import Recorded
from ovjit.readers.torch.tracing.recorder import keep
from ovjit.readers.torch.tracing.state import call_unchanged, restore_module
from ovjit.readers.torch.tracing.trace import Prepared, attempt, quietly
from ovjit.records import NamedTuple

#: Conditions of a module on dynamic sizes are asserted when the program runs, not assumed. PyTorch has
#: this option since 2.9.
_DEFERRED = frozenset(("prefer_deferred_runtime_asserts_over_guards",))
#: torch.export knows lengths from here on, and to there, of what holds for any.
_LEAST, _MOST = 2, 1 << 31


class Exported(NamedTuple):
    """A program with dynamic dimensions, its warnings, and the files whose code needed concrete numbers."""

    program: Any
    warned: list[Any]
    asking_files: set[str]


def export(ready: Prepared, export_once: Callable[[Any, Sequence[Any]], Exported]) -> Recorded:
    """The program of a module with all dimensions dynamic, for any batch size if possible.

    `export_once` makes a program of a module and tensors.
    """
    result = export_once(ready.module, ready.leaves)
    if any(leaf.dim() and leaf.shape[0] == 1 for leaf in ready.leaves) and _is_for_one(result.program):
        import torch

        doubled = [
            torch.cat([leaf, leaf]) if leaf.dim() and leaf.shape[0] == 1 else leaf for leaf in ready.leaves
        ]
        names = list(ready.module.names)
        with attempt("an export for two samples"):
            other = export_once(ready.module, doubled)
            if not _is_for_one(other.program) and is_right(other.program, ready.module, ready.leaves):
                return Recorded(other.program, other.warned)
        ready.module.names[:] = names
    return Recorded(result.program, result.warned)


def export_open(
    module: Any, leaves: Sequence[Any], context: contextlib.AbstractContextManager[Any] | None = None
) -> Exported:
    """Export a module once, within a context manager that patches what its code calls."""
    from torch.export import Dim
    from torch.fx.experimental import _config

    dims = tuple(dict.fromkeys(range(leaf.dim()), Dim.AUTO) for leaf in leaves)
    parameters = inspect.signature(torch.export.export).parameters.keys()
    records: list[Any] = []
    with quietly(records), _silent_export(), context or contextlib.nullcontext(), exporting() as asking:
        with _config.patch(backed_size_oblivious=True), restore_module(module):
            program = torch.export.export(
                module, tuple(leaves), dynamic_shapes=(dims,), strict=False,
                **dict.fromkeys(_DEFERRED & parameters, True),
            )  # fmt: skip
    return Exported(program, records, asking)


@contextlib.contextmanager
def _silent_export() -> Iterator[None]:
    """Context manager of torch.export: what PyTorch prints and logs where it fails is neither printed nor
    logged, and the numbers that are drawn meanwhile by other threads are not drawn again. An export draws
    none."""
    import torch.export._trace
    import torch.fx.graph_module
    from torch._functorch import aot_autograd

    rows: list[Any] = [(aot_autograd, "preserve_rng_state", contextlib.nullcontext)]
    rows += [(m, "print", lambda *_, **__: None) for m in (torch.fx.graph_module, torch.export._trace)]
    loggers = ("torch.fx.experimental.symbolic_shapes",)
    with patch(*rows), drop_records(loggers, lambda record: record.levelno >= WARNING):
        yield


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
    """Warn if a program's results differ from the module's for other sizes, compared for at most
    `seconds`."""
    if OtherSizes(ready, seconds, Effects()).differs(without_claims(program)):
        message = "The program might be incorrect for other sizes: it differs from the module for some"
        keep(message, UserWarning)


def _is_for_one(program: Any) -> bool:
    """Whether a program asserts that the first dimension of an input is 1."""

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


def is_right(program: Any, module: Any, leaves: Sequence[Any]) -> bool:
    """Whether a program returns the module's results for the example. Its assertions are ignored."""
    results = (call_unchanged(f, module, leaves) for f in (module, without_claims(program)))
    return agrees(*results)


def without_claims(program: Any) -> Any:
    """The module of a program, without assertions."""
    graph = program.module(check_guards=False)  # of its own
    asserts = torch.ops.aten._assert_scalar.default
    for node in graph.graph.find_nodes(op="call_function", target=asserts):
        graph.graph.erase_node(node)
    graph.recompile()
    return graph
