"""Groups of fused nodes cut out of models, whose kernels are shipped besides those of `layers`.

    python -m ovjit.tools.groups MODEL ... [--into FILE]

adds groups of these models that need kernels which the package does not have, those first that most models
need. A group is a small graph as `storage/graph_format.py` has it, after all passes: a line of JSON in
`groups.jsonl`. Constants of many numbers are not kept, as kernels do not depend on them.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.graph import dtypes
from ovjit.graph.converted import Unmade, Unpacked
from ovjit.graph.graph import Builder, Graph, Node, Value
from ovjit.graph.op import TensorType, find_op
from ovjit.records import NamedTuple
from ovjit.storage import graph_format

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.codegen.kernel import Kernel
    from ovjit.compiler.options import Options
    from ovjit.compiler.program import Program
    from ovjit.planning.fuse import Group

FILE = Path(__file__).with_name("groups.jsonl")
#: Numbers of a constant that is kept, at most: one of reals, and one of integers, which may be indices.
REALS, INTEGERS = 64, 4096
#: How many groups before one are taken with it, at most, one behind the other.
FURTHEST = 3


class Cut(NamedTuple):
    """Nodes of a graph after all passes, which has been compiled in a precision."""

    graph: Graph
    precision: str

    def kernels(self, target: Target) -> list[Kernel]:
        """The kernels that it needs: none where the target does not compute in its precision."""
        from ovjit.codegen.cpu.formats import float_types
        from ovjit.compiler.lowered import LoweredGraph
        from ovjit.compiler.options import Context

        if self.precision not in float_types(target):
            return []
        context = Context(target, options_of(self.precision, target))
        return LoweredGraph(self.graph, context, interpreted=False).kernels


def options_of(precision: str, target: Target) -> Options:
    from ovjit.api.run.properties_table import ROWS
    from ovjit.compiler.options import Options

    groups = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
    return Options.of({"INFERENCE_PRECISION_HINT": precision, groups: ROWS[groups].default}, target)


def programs_of(model: Any, target: Target) -> dict[str, list[Program]]:
    """precision -> the programs of a model that computes in it, for a target: with state, of what computes
    its variables' first values, too."""
    from ovjit.codegen.cpu.formats import float_types
    from ovjit.compiler import compile as compile_program
    from ovjit.compiler.options import Context
    from ovjit.engine import lifted_for
    from ovjit.rewrite.model_variables import Start

    found: dict[str, list[Program]] = {}
    graph, half = model._graph(), "f16" if target.is_arm else "bf16"  # what models compute in by default
    for precision in [kind for kind in ("f32", half) if kind in float_types(target)]:
        graphs, options = [graph], options_of(precision, target)
        if graph.has_state:
            lifted = lifted_for(graph, Context(target, options))
            graphs = [lifted.main, *(start.graph for start in lifted.inits if isinstance(start, Start))]
        found[precision] = [compile_program(one, target, options) for one in dict.fromkeys(graphs)]
    return found


def cuts(path: Path = FILE) -> Iterator[Cut]:
    """The groups of a file, those that most models need first."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield decoded(json.loads(line))


def decoded(tables: Any) -> Cut:
    """The group of a line. A node that is not lowered has the types that its operation infers."""
    places = {"kept": base64.b64decode(tables["kept"])}
    places |= {kind: _any(kind, nbytes) for kind, nbytes in tables["any"].items()}
    reader, builder, made = graph_format.Reader(places), Builder(), list[Node]()
    for op, opset, inputs, attrs, types in tables["nodes"]:
        given = types and [TensorType(dtype, dims and graph_format.read_dims(dims)) for dtype, dims in types]
        values = [made[node].outputs[i] for node, i in inputs]
        checked = {name: reader.value(value) for name, value in attrs.items()}
        record, lowered = find_op(op, opset), given is not None
        made.append(builder.add(record, values, checked, types=given, lowered=lowered))
    return Cut(builder.finish([made[node].outputs[i] for node, i in tables["outputs"]]), tables["precision"])


def _any(kind: str, nbytes: int) -> bytes:
    """So many bytes of numbers of a type, none of which kernels are chosen by: not 0, and not subnormal."""
    rng, dtype = np.random.default_rng(0), dtypes.numpy_dtype(kind)
    count = -(-nbytes // dtype.itemsize)
    if dtype.kind == "b":
        return rng.integers(0, 2, count, np.uint8).tobytes()
    if dtype.kind in "iu":
        return rng.bytes(nbytes)
    return (rng.uniform(0.5, 1, count) * rng.choice((-1, 1), count)).astype(dtype).tobytes()


def encoded(cut: Cut) -> dict[str, Any]:
    """The line of a group. TypeError for what has no form."""
    most: dict[str, int] = {}

    def elsewhere(array: np.ndarray) -> tuple[str, int] | None:
        if array.size <= (INTEGERS if array.dtype.kind == "i" and array.itemsize > 1 else REALS):
            return None
        kind = dtypes.from_numpy(array.dtype)
        most[kind] = max(most.get(kind, 0), array.nbytes)
        return kind, 0

    arrays, nodes = graph_format.Arrays("kept", elsewhere), list(cut.graph.nodes)
    index = {node: i for i, node in enumerate(nodes)}

    def places(values: Iterable[Value]) -> list[list[int]]:
        return [[index[value.node], value.index] for value in values]

    rows = []
    for node in nodes:
        attrs = {name: graph_format.encode(value, arrays) for name, value in node.attrs.items()}
        types = [[v.dtype, graph_format.encode_dims(v.shape)] for v in node.outputs] if node.lowered else None
        rows.append([node.op.name, node.op.opset, places(node.inputs), attrs, types])
    kept = base64.b64encode(arrays.content()).decode()
    outputs = places(cut.graph.outputs)
    return {"precision": cut.precision, "nodes": rows, "outputs": outputs, "kept": kept, "any": most}


def cut_out(groups: Sequence[Group], precision: str) -> Cut:
    """The nodes of groups, which are in order: what others make is an input."""
    builder, found = Builder(), dict[Value, Value]()
    nodes = [node for group in groups for node in _nodes(group)]
    for node in nodes:
        for value in node.inputs:
            if value.node not in nodes and value not in found:
                found[value] = _source(builder, value)
        made = builder.copy(node, [found[v] for v in node.inputs], [v.type for v in node.outputs])
        found.update(zip(node.outputs, made.outputs, strict=True))
    return Cut(builder.finish([found[v] for v in groups[-1].outputs]), precision)


def _nodes(group: Group) -> list[Node]:
    return [node for node in (*group.front, group.anchor, *group.body) if node is not None]


def _source(builder: Builder, value: Value) -> Value:
    if value.node.op.role == "constant":
        stored = value.stored
        if isinstance(stored, Unmade) and not isinstance(stored, Unpacked):
            return builder.constant(stored.array(), value.dtype)
        return builder.copy(value.node, [], [value.type]).output
    attrs = {"element_type": value.dtype, "shape": value.shape}
    return builder.add("Parameter", [], attrs).output


class Found:
    """Groups with kernels that nobody has."""

    def __init__(self, target: Target):
        self.target = target
        self.groups: list[Group] = []
        self.makers: dict[Value, int] = {}
        self.lines: dict[str, str] = {}
        self.models = Counter[str]()
        self.left: Counter[str] = Counter()

    def add(self, program: Program, precision: str) -> None:
        """The groups of a program that need kernels which neither the package nor earlier ones have."""
        from ovjit.codegen import shipped

        self.groups = [low.group for low in program.lowerings]
        self.makers = {v: i for i, group in enumerate(self.groups) for v in group.outputs}
        seen = set()
        for number, lowering in enumerate(program.lowerings):
            for kernel in lowering.kernels:
                key = kernel.content_key(self.target)
                if key in seen or shipped.find(key, self.target) is not None:
                    continue
                seen.add(key)
                self.models[key] += 1
                if key not in self.lines:
                    self._take(number, key, kernel.name, precision)

    def _take(self, number: int, key: str, name: str, precision: str) -> None:
        """The group of this number, with those that it reads where it has other kernels alone: their layouts
        decide."""
        taken = {number}
        for _ in range(FURTHEST + 1):
            groups = [self.groups[i] for i in sorted(taken)]
            taken |= self._read_by(groups)
            try:
                line = encoded(cut_out(groups, precision))
                again = decoded(line).kernels(self.target)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                continue
            if any(each.content_key(self.target) == key for each in again):
                self.lines[key] = json.dumps(line, separators=(",", ":"))
                return
            why = f"alone it has {[k.name for k in again][:2]}"
        self.left[f"{name}: {why}"[:150]] += 1

    def _read_by(self, groups: Sequence[Group]) -> set[int]:
        read = [v for group in groups for node in _nodes(group) for v in node.inputs]
        return {self.makers[v] for v in read if v in self.makers}

    def sorted(self) -> list[str]:
        keys = sorted(self.lines, key=lambda key: -self.models[key])
        return list(dict.fromkeys(self.lines[key] for key in keys))


def search(paths: Sequence[str], found: Found) -> None:
    """Add the groups of models; a line for each model."""
    import ovjit as ov

    for path in paths:
        before = len(found.lines), found.left.total()
        try:
            programs = programs_of(ov.Core().read_model(path), found.target)
        except Exception as error:
            print(f"{path}: {type(error).__name__}: {error}")
            continue
        for precision, some in programs.items():
            for program in some:
                found.add(program, precision)
        print(Path(path).stem, len(found.lines) - before[0], found.left.total() - before[1], flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    from ovjit.codegen.cpu.host import host_target

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--into", type=Path, default=FILE, metavar="FILE")
    options = parser.parse_args(argv)
    found = Found(host_target())
    search(options.models, found)
    known = options.into.read_text(encoding="utf-8").splitlines() if options.into.exists() else []
    lines = dict.fromkeys([*known, *found.sorted()])
    options.into.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    for what, count in found.left.most_common(40):
        print(count, what)
    print(f"{len(found.lines)} kernels; {len(lines)} groups, {len(lines) - len(known)} of them new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
