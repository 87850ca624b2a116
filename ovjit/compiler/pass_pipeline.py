"""The order of all rewrites of a graph: `PIPELINE`.

    capture   when a Model becomes a Graph
    pages     paged attention: caches get the types that properties ask for
    state     variables become inputs and outputs
    graph     for the target, before fusion

`OVJIT_SKIP=name,...` skips passes. `OVJIT_CHECK=1` verifies the graph after each pass. `OVJIT_DEBUG=3` prints
the graph after each pass. Modules with passes are imported when they run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ovjit import debug
from ovjit.graph.graph import Graph, verify
from ovjit.graph.op import ops_with_rules

if TYPE_CHECKING:
    from ovjit.compiler.options import Context
    from ovjit.rewrite.model_variables import Lifted
    from ovjit.rewrite.rules import Rule

#: (graph, or the last pass's result of which it is the first part; arguments of the stage) -> the same,
#: rewritten. The argument of the stages "state" and "graph" is the Context.
Pass = Callable[..., Any]


def _load(names: str) -> list[Any]:
    """The passes and rules `module.name ...` of `ovjit.rewrite`."""
    parts = (name.rpartition(".") for name in names.split())
    return [getattr(import_module(f"ovjit.rewrite.{module}"), name) for module, _, name in parts]


def _pass(name: str) -> Pass:
    """The pass `module.name`."""
    return lambda graph, *arguments: _load(name)[0](graph, *arguments)


def _rules(names: str) -> Pass:
    """The pass that applies these rules, and lists of rules."""

    def run(graph: Graph, context: Context) -> Graph:
        rules = [r for each in _load(names) for r in (each if isinstance(each, list | tuple) else [each])]
        return _run_rules(graph, rules, context)

    return run


def _run_rules(graph: Graph, rules: Collection[Rule], context: Context) -> Graph:
    from ovjit.rewrite.rules import run_rules

    return run_rules(graph, [*rules], context)


def _on(operations: str, run: Pass, of: Collection[str] = ()) -> Pass:
    """A pass for graphs with one of these operations, or with a Convert from these element types. For other
    graphs its module is not imported."""
    names = frozenset(operations.split())

    def run_where_needed(graph: Graph, context: Context) -> Graph:
        from ovjit.rewrite.conversions import converts

        absent = names.isdisjoint({n.op.name for n in graph.nodes})
        if absent and not (of and any(converts(n, of) for n in graph.nodes)):
            return graph
        return run(graph, context)

    return run_where_needed


def _append_dimensions(graph: Graph, context: Context) -> Graph:
    has_pdpd = any(node.attrs.get("auto_broadcast") == "pdpd" for node in graph.nodes)
    return _rules("simplify.append_dimensions")(graph, context) if has_pdpd else graph


def _keep_low(lifted: Lifted, context: Context) -> Lifted:
    from ovjit.codegen.cpu.formats import float_types
    from ovjit.compiler.options import caches_of
    from ovjit.rewrite.model_variables import keep_low

    caches = context.options.cache_storage or caches_of({})
    return keep_low(lifted, caches, context.options.precision, float_types(context.target))


def _store_caches(graph: Graph, context: Context) -> Graph:
    from ovjit.rewrite.low_precision import read_halves, store_caches

    for low in context.options.caches:
        graph = store_caches(graph, low)
    return _run_rules(graph, [read_halves], context)


_HALVES = ("f16", "bf16")
_DROPPING = "simplify.DROP_MORE simplify.DROP_NOOPS folding.fold_constants"

#: stage -> name -> pass, in order.
PIPELINE: dict[str, dict[str, Pass]] = {
    "capture": {"hoist": _pass("hoist.hoist")},
    "pages": {"pages": _pass("paged_attention.settle_pages")},
    "state": {"lift": lambda graph, _: _load("model_variables.lift")[0](graph), "keep_low": _keep_low},
    "graph": {
        "batches": _pass("batches.split_batch"),
        "append": _append_dimensions,
        "halves": lambda graph, _: _load("f16_models.widen_halves")[0](graph),
        "quantize": _on("FakeQuantize", _pass("quantization.quantize_graph"), of=("u8", "i8")),
        "decompress": _on("", _rules("decompression.decompress"), of=_HALVES),
        "experts": _on("ScatterElementsUpdate", _rules("experts.choose_experts")),
        "compress": _on("Convert Gather", _rules("compression.compress")),
        "embeddings": _on("Gather", _rules("embeddings.gather_compressed")),
        "fold": _rules(_DROPPING),
        "align": _rules("simplify.align_operands simplify.widen_near_limits"),
        "transposes": _rules("simplify.transpose_the_narrow"),
        "batch_norm": _rules("weight_scales.expand_batch_norm"),
        "ops": lambda graph, context: _run_rules(graph, op_rules(graph), context),
        "weights": _rules("weight_scales.scale_outputs weight_scales.join_offsets weight_scales.join_scales"),
        "expand": _pass("expand.expand_graph"),
        "clean": _rules(f"{_DROPPING} simplify.flush_factors"),
        "requantize": _on("", _pass("requantization.requantize_graph"), of=("i32",)),
        "canonical": _rules("canonical.RULES"),
        "merge": lambda graph, _: _load("merging.merge_equal")[0](graph),
        "precision": _pass("low_precision.lower_precision"),
        "upcast": _pass("expand.upcast_graph"),
        "caches": _store_caches,
    },
}
#: Passes without which a graph that needs them cannot be compiled.
REQUIRED = ("hoist", "pages", "lift")
#: Further names of OVJIT_SKIP: steps after the passes.
STEPS = ("fuse", "layers", "trace_ahead")


def op_rules(graph: Graph | None = None) -> list[Rule]:
    """The rewrite rules of operations (`rules` in their records), without those that do not apply to `graph`
    because of its operations."""
    names = None if graph is None else {node.op.name for node in graph.nodes}
    if graph is not None and any(node.op.runs_body for node in graph.nodes):
        names = None  # a body may be inlined into the graph
    return [rule for record in ops_with_rules(names) for rule in record.rules]


def run_stage(stage: str, graph: Graph, *arguments: Any) -> Any:
    """Run the passes of a stage, without those in `OVJIT_SKIP`. Returns the last pass's result. Raises
    ValueError if `OVJIT_SKIP` has an unknown name, or that of a required pass."""
    showing, checking = debug.level() >= debug.GRAPHS, debug.is_on("OVJIT_CHECK")
    if showing and stage == "graph":
        debug.show_pass("the graph as it is given", graph, None, 0)
    skipped = _skipped_passes()
    result: Any = graph
    for name, run in PIPELINE[stage].items():
        if name in skipped:
            continue
        before, start = graph, time.perf_counter()
        applied_before = _applied_rules() if showing else Counter()
        result = run(result, *arguments)
        graph = result if isinstance(result, Graph) else result[0]
        if showing:
            debug.show_pass(name, graph, before, time.perf_counter() - start)
            debug.show_rules(_applied_rules() - applied_before)
        if checking:
            verify(graph)
    return result


def run_passes(graph: Graph, context: Context) -> Graph:
    """Run the stage "graph"."""
    result: Graph = run_stage("graph", graph, context)
    return result


def _applied_rules() -> Counter[Any]:
    from ovjit.rewrite.rules import applied

    return Counter(applied)


def _skipped_passes() -> Collection[str]:
    skipped = [name for name in debug.skipped_passes() if name]
    if skipped:
        valid = {name for passes in PIPELINE.values() for name in passes}.union(STEPS)
        wrong = [name for name in skipped if name not in valid or name in REQUIRED]
        if wrong:
            names = ", ".join(sorted(valid.difference(REQUIRED)))
            raise ValueError(f"OVJIT_SKIP={wrong[0]} is not valid: give passes that can be left out: {names}")
    return skipped
