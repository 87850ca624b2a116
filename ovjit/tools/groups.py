"""The graphs whose kernels are shipped: small models, and groups of fused nodes cut out of larger ones.

    python -m ovjit.tools.groups MODEL ... [--anew | --kind KIND] [--frequent] [--into FILE]

adds the groups of these models whose kernels the package lacks. Groups that most models need come first, or
all with `--frequent`. With `--anew`, all groups are replaced by those of these models, whatever the package
has. With `--kind` the models themselves are added, as they were read.

A Python program in place of a MODEL stands for all graphs that it compiles while it runs, such as segments of
tokenizers, bodies of loops, and paged decoders. Give it an empty OVJIT_CACHE: kept models are not compiled.

A graph is a line of JSON in `groups.xz`, in the form of `storage/graph_format.py`. A group is stored after
all passes, for the precision of that compilation. A large constant is stored as its range, and whether f16
or an integer has all its numbers, since kernels depend on nothing else. Groups precede models: the files of
kernels have no room for all graphs.

Small models are better than groups: they go through the passes of each target. The file has all variants of
common layers, and small versions of common networks.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import lzma
import runpy
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.converted import Unmade, Unpacked
from ovjit.graph.graph import Builder, Graph, Node, Value
from ovjit.graph.op import TensorType, find_op
from ovjit.graph.shapes import guess_input_shape
from ovjit.records import NamedTuple
from ovjit.storage import graph_format

if TYPE_CHECKING:
    from ovjit.codegen.cpu.targets import Target
    from ovjit.codegen.kernel import Kernel
    from ovjit.compiler.options import Context, Options
    from ovjit.compiler.program import Program
    from ovjit.planning.fuse import Group

FILE = Path(__file__).with_name("groups.xz")
#: Maximum elements of a constant that is stored completely: of reals, and of integers, which may be indices.
REALS, INTEGERS = 64, 4096
#: Maximum preceding groups that are stored with a group: groups that it reads, or the previous ones in order.
FURTHEST = 3
#: Kinds of groups: those that MANY models need, and others (the default of lines without a kind).
FREQUENT, CUTS, MANY = "frequent", "cuts", 6
#: The 16-bit types in which models compute.
HALVES = ("bf16", "f16")
#: value -> its readers, as in `Graph.uses`.
Uses = Mapping[Value, Sequence[tuple[Node | None, int]]]


class Cut(NamedTuple):
    """A stored graph. With a precision: a group of nodes after all passes. Without: a model before all
    passes. `kind`: FREQUENT or CUTS for groups, else the kind of the model."""

    graph: Graph
    precision: str | None
    kind: str = CUTS

    def kernels(self, target: Target) -> list[Kernel]:
        """The kernels that it needs. None if the target does not compute in its precision. A group in a
        16-bit type is compiled in the target's default 16-bit type."""
        from ovjit.codegen.cpu.formats import float_types
        from ovjit.compiler.lowered import LoweredGraph
        from ovjit.compiler.options import Context

        if self.precision is None:
            return list(dict.fromkeys(chain.from_iterable(kernels_of(self.graph, target).values())))
        half = default_half(target)
        precision = half if self.precision in HALVES else self.precision
        if precision not in float_types(target):
            return []
        graph = self.graph if precision == self.precision else in_type(self.graph, self.precision, half)
        return LoweredGraph(graph, Context(target, options_of(precision, target)), interpreted=False).kernels


def default_half(target: Target) -> str:
    """The 16-bit type in which models compute by default, if the CPU multiplies it."""
    return "f16" if target.is_arm else "bf16"


def in_type(graph: Graph, old: str, new: str) -> Graph:
    """The graph with tensors and constants of type `new` in place of `old`."""
    builder, result = Builder(), dict[Value, Value]()

    def retype(value: Any) -> Any:
        if isinstance(value, Unmade) and value.dtype == dtypes.numpy_dtype(old):
            value = value.array()
        if isinstance(value, np.ndarray) and value.dtype == dtypes.numpy_dtype(old):
            return value.astype(np.float32).astype(dtypes.numpy_dtype(new))
        return new if isinstance(value, str) and value == old else value

    for node in graph.nodes:
        types = [TensorType(retype(v.dtype), v.shape) for v in node.outputs] if node.lowered else None
        attrs = {name: retype(value) for name, value in node.attrs.items()}
        inputs = [result[value] for value in node.inputs]
        copy = builder.add(node.op, inputs, attrs, types=types, lowered=node.lowered)
        result.update(zip(node.outputs, copy.outputs, strict=True))
    return builder.finish([result[value] for value in graph.outputs])


def options_of(precision: str, target: Target) -> Options:
    from ovjit.api.run.properties_table import ROWS
    from ovjit.compiler.options import Options

    groups = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
    return Options.of({"INFERENCE_PRECISION_HINT": precision, groups: ROWS[groups].default}, target)


def programs_of(graph: Graph, target: Target) -> dict[str, list[Program]]:
    """precision -> the programs of a model that computes in it, for a target: with those of its segments, and
    of the initial values of a model with state."""
    from ovjit.codegen.cpu.formats import float_types
    from ovjit.compiler.options import Context
    from ovjit.engine import lifted_for
    from ovjit.rewrite.model_variables import Start

    by_precision: dict[str, list[Program]] = {}
    for precision in [kind for kind in ("f32", default_half(target)) if kind in float_types(target)]:
        graphs, options = [graph], options_of(precision, target)
        if graph.has_state:
            lifted = lifted_for(graph, Context(target, options))
            graphs = [lifted.main, *(start.graph for start in lifted.inits if isinstance(start, Start))]
        context = Context(target, options)
        by_precision[precision] = [p for one in dict.fromkeys(graphs) for p in _with_segments(one, context)]
    return by_precision


def kernels_of(graph: Graph, target: Target) -> dict[str, list[Kernel]]:
    """precision -> the kernels of a model that computes in it, for a target."""
    return {
        precision: list(dict.fromkeys(kernel for program in programs for kernel in program.kernels))
        for precision, programs in programs_of(graph, target).items()
    }


def _with_segments(graph: Graph, context: Context) -> list[Program]:
    """The program of a graph, and those of its segments, which are compiled at run time."""
    from ovjit.compiler import compile as compile_program
    from ovjit.execution.segments import Chain
    from ovjit.planning.concrete_types import concrete_types
    from ovjit.planning.partition import Cut, needs_cut

    programs = [compile_program(graph, *context)]
    graph = programs[0].graph

    def build(part: Graph, _: Any) -> Any:
        programs.extend(_with_segments(part, context))

    with contextlib.suppress(OvjitError):  # guessed dimensions contradict each other
        types = concrete_types(graph, [guess_input_shape(v.shape) for v in graph.inputs])
        if needs_cut(types):
            Chain(Cut(graph, types), {}, build)
    return programs


def graphs_of(path: str) -> list[Graph]:
    """The graph of a model; for a Python program, all graphs that it compiles."""
    import ovjit as ov
    from ovjit import engine

    if not path.endswith(".py"):
        return [ov.Core().read_model(path)._graph()]
    engine.compiled_graphs = graphs = list[Graph]()
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        engine.compiled_graphs = None
    return graphs


def cuts(path: Path = FILE) -> Iterator[Cut]:
    """The graphs of a file, in its order: graphs that most models need come first."""
    return (decode(json.loads(line)) for line in lines_of(path))


def lines_of(path: Path = FILE) -> list[str]:
    return lzma.decompress(path.read_bytes()).decode().splitlines()


def write_lines(lines: Iterable[str], path: Path = FILE) -> None:
    path.write_bytes(lzma.compress("".join(line + "\n" for line in lines).encode(), preset=9))


def decode(tables: Any) -> Cut:
    """The graph of a line. Types of nodes that are not lowered are inferred."""
    parts = {"kept": zlib.decompress(base64.b64decode(tables["kept"]))}
    parts |= {key: _any(*key.split(), nbytes=nbytes) for key, nbytes in tables["any"].items()}
    reader, builder, result = graph_format.Reader(parts), Builder(), list[Node]()
    for op, opset, inputs, attrs, types in tables["nodes"]:
        kinds = types and [TensorType(dtype, dims and graph_format.read_dims(dims)) for dtype, dims in types]
        values = [result[node].outputs[i] for node, i in inputs]
        checked = {name: reader.value(value) for name, value in attrs.items()}
        record, lowered = find_op(op, opset), kinds is not None
        result.append(builder.add(record, values, checked, types=kinds, lowered=lowered))
    graph = builder.finish([result[node].outputs[i] for node, i in tables["outputs"]])
    return Cut(graph, tables["precision"], tables.get("kind", CUTS))


def _any(kind: str, low: str = "", high: str = "", numbers: str = "", *, nbytes: int) -> bytes:
    """`nbytes` bytes of numbers of a type in a range. `numbers`: of reals, "integers", or "float16" for those
    that f16 has. Without a range: numbers that select no special kernel, neither 0 nor subnormal."""
    rng, dtype = np.random.default_rng(0), dtypes.numpy_dtype(kind)
    count, real = -(-nbytes // dtype.itemsize), dtypes.ELEMENT_TYPES[kind].is_real
    if low and real and numbers != "integers":
        return rng.uniform(float(low), float(high), count).astype(numbers or dtype).astype(dtype).tobytes()
    if low:
        integer = np.uint64 if int(low) >= 0 else np.int64
        return rng.integers(int(low), int(high), count, integer, endpoint=True).astype(dtype).tobytes()
    if dtype.kind == "b":
        return rng.integers(0, 2, count, np.uint8).tobytes()
    if not real:
        return rng.bytes(nbytes)
    return (rng.uniform(0.5, 1, count) * rng.choice((-1, 1), count)).astype(dtype).tobytes()


def _range(array: np.ndarray) -> str:
    """The type and the range of an array's numbers, and what they are, as `_any` takes them."""
    kind, low, high, numbers = dtypes.from_numpy(array.dtype), array.min(), array.max(), ""
    if not np.isfinite((float(low), float(high))).all():
        return kind
    if array.dtype == np.float32:  # zero points are integers, and scales of f16 stay so in kernels
        with np.errstate(over="ignore"):
            nearest = {"integers": np.rint(array), "float16": array.astype(np.float16)}
        numbers = next((name for name, those in nearest.items() if np.array_equal(those, array)), "")
    make = float if dtypes.ELEMENT_TYPES[kind].is_real and numbers != "integers" else int
    return f"{kind} {make(low)} {make(high)} {numbers}".rstrip()


def encode(cut: Cut) -> dict[str, Any]:
    """The line of a group. Raises TypeError for content that cannot be stored."""
    most: dict[str, int] = {}

    def describe_large(array: np.ndarray) -> tuple[str, int] | None:
        """A large array is stored as the range of its numbers. None for others, which are stored whole."""
        if array.size <= (INTEGERS if array.dtype.kind == "i" and array.itemsize > 1 else REALS):
            return None
        range_name = _range(array)
        most[range_name] = max(most.get(range_name, 0), array.nbytes)
        return range_name, 0

    arrays, nodes = graph_format.Arrays("kept", describe_large), list(cut.graph.nodes)
    index = {node: i for i, node in enumerate(nodes)}

    def indices_of(values: Iterable[Value]) -> list[list[int]]:
        return [[index[value.node], value.index] for value in values]

    rows = []
    for node in nodes:
        attrs = {name: graph_format.encode(value, arrays) for name, value in node.attrs.items()}
        types = [[v.dtype, graph_format.encode_dims(v.shape)] for v in node.outputs] if node.lowered else None
        rows.append([node.op.name, node.op.opset, indices_of(node.inputs), attrs, types])
    stored = base64.b64encode(zlib.compress(arrays.content(), 9)).decode()
    outputs = indices_of(cut.graph.outputs)
    tables = {"precision": cut.precision, "nodes": rows, "outputs": outputs, "kept": stored, "any": most}
    return tables | ({} if cut.kind == CUTS else {"kind": cut.kind})


def _kind(line: str) -> str:
    return str(json.loads(line).get("kind", CUTS))


def _line(tables: Mapping[str, Any]) -> str:
    return json.dumps(tables, separators=(",", ":"))


def cut_out(groups: Sequence[Group], precision: str, uses: Uses) -> Cut:
    """The graph of the nodes of `groups`, which are in order. Values from other nodes become inputs, and
    values with other readers become outputs."""
    builder, replaced = Builder(), dict[Value, Value]()
    nodes = [node for group in groups for node in _nodes(group)]
    members = set(nodes)
    for node in nodes:
        for value in node.inputs:
            if value.node not in members and value not in replaced:
                replaced[value] = _source(builder, value)
        copy = builder.copy(node, [replaced[v] for v in node.inputs], [v.type for v in node.outputs])
        replaced.update(zip(node.outputs, copy.outputs, strict=True))
    result = [v for group in groups for v in group.outputs]
    read = [v for v in result if any(reader not in members for reader, _ in uses[v])]
    return Cut(builder.finish([replaced[v] for v in read]), precision)


def _nodes(group: Group) -> list[Node]:
    return [node for node in (*group.prologue, group.anchor, *group.body) if node is not None]


def _inputs(group: Group) -> set[Value]:
    return {value for node in _nodes(group) for value in node.inputs}


def _source(builder: Builder, value: Value) -> Value:
    if value.node.op.role == "constant":
        stored = value.stored_array
        if isinstance(stored, Unmade) and not isinstance(stored, Unpacked):
            return builder.constant(stored.array(), value.dtype)
        return builder.copy(value.node, [], [value.type]).output
    return builder.add("Parameter", [], {"element_type": value.dtype, "shape": value.shape}).output


class Found:
    """Collects groups with kernels that are not shipped, or all groups; with `kind`, models instead of
    groups. Groups with kernels that `needed` programs have are FREQUENT."""

    def __init__(self, target: Target, kind: str = "", all_kernels: bool = False, needed: int = MANY):
        self.target, self.kind, self.all_kernels, self.needed = target, kind, all_kernels, needed
        self.groups: list[Group] = []
        self.makers: dict[Value, int] = {}
        self.uses: Uses = {}
        self.lines: dict[str, str] = {}
        self.models = Counter[str]()
        self.failures: Counter[str] = Counter()

    def add_model(self, graph: Graph) -> None:
        """Add the groups of a model that need kernels which neither the package nor earlier models have."""
        if self.kind:
            model = Cut(graph, None, self.kind)
            keys = [kernel.content_key(self.target) for kernel in model.kernels(self.target)]
            new = [key for key in keys if self._is_new(key)]
            self.models.update(new)
            self.lines = dict.fromkeys(new, _line(encode(model))) | self.lines
            return
        for precision, programs in programs_of(graph, self.target).items():
            for program in programs:
                self.add(program, precision)

    def _is_new(self, key: str) -> bool:
        from ovjit.codegen import shipped

        return self.all_kernels or shipped.find(key, self.target) is None

    def add(self, program: Program, precision: str) -> None:
        """Add the groups of a program that need kernels which neither the package nor earlier models have."""
        self.groups = [low.group for low in program.lowerings]
        self.makers = {v: i for i, group in enumerate(self.groups) for v in group.outputs}
        self.uses = program.graph.uses()
        keys = set()
        for number, lowering in enumerate(program.lowerings):
            for kernel in lowering.kernels:
                key = kernel.content_key(self.target)
                if key in keys or not self._is_new(key):
                    continue
                keys.add(key)
                self.models[key] += 1
                if key not in self.lines:
                    self._take(number, key, kernel.name, precision)

    def _take(self, number: int, key: str, name: str, precision: str) -> None:
        """Add a group, with other groups if its kernels depend on them: on their layouts, or on the nodes
        that they do not absorb."""
        for members in self._windows(number):
            try:
                line = _line(encode(cut_out([self.groups[i] for i in members], precision, self.uses)))
                again = decode(json.loads(line)).kernels(self.target)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                continue
            if any(each.content_key(self.target) == key for each in again):
                self.lines[key] = line
                return
            why = f"alone it has {[k.name for k in again][:2]}"
        self.failures[f"{name}: {why}"[:150]] += 1

    def _windows(self, number: int) -> Iterator[Sequence[int]]:
        """Yield candidates: the group alone, with the groups that it reads, with those that these read, with
        the preceding groups, and then with all that read the same tables, which may be packed for one."""
        members = {number}
        for _ in range(FURTHEST + 1):
            yield sorted(members)
            members |= {self.makers[v] for i in members for v in _inputs(self.groups[i]) if v in self.makers}
        for first in range(number - 1, max(number - FURTHEST, 0) - 1, -1):
            yield range(first, number + 1)
        tables = {v for v in _inputs(self.groups[number]) if v.node.op.role == "constant" and v.shape}
        yield [i for i, group in enumerate(self.groups) if tables & _inputs(group)]

    def sorted(self) -> list[str]:
        """The lines. Groups that most models need come first."""
        keys = sorted(self.lines, key=lambda key: -self.models[key])
        frequent = {} if self.kind else {"kind": FREQUENT}
        need = {self.lines[key]: self.models[key] for key in reversed(keys)}
        lines = dict.fromkeys(self.lines[key] for key in keys)
        return [_line(json.loads(x) | frequent) if need[x] >= self.needed else x for x in lines]


def search(paths: Sequence[str], groups: Found) -> None:
    """Add the groups of models and of programs; a line for each."""
    for path in paths:
        before = len(groups.lines), groups.failures.total()
        try:
            for graph in graphs_of(path):
                groups.add_model(graph)
        except Exception as error:
            print(f"{path}: {type(error).__name__}: {error}")
            continue
        print(Path(path).stem, len(groups.lines) - before[0], groups.failures.total() - before[1], flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    from ovjit.codegen.cpu.host import host_target

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--anew", action="store_true", help="replace the groups of the file")
    parser.add_argument("--kind", default="", help="keep the models themselves, as models of this kind")
    parser.add_argument("--frequent", action="store_true", help="add them as groups that most models need")
    parser.add_argument("--into", type=Path, default=FILE, metavar="FILE")
    options = parser.parse_args(argv)
    groups = Found(host_target(), options.kind, options.anew, 1 if options.frequent else MANY)
    search(options.models, groups)
    stored = lines_of(options.into) if options.into.exists() else []
    if options.anew:
        stored = [line for line in stored if _kind(line) not in (FREQUENT, CUTS)]
    again = set(groups.lines.values())  # they may become FREQUENT
    kinds = {line: _kind(line) for line in (*(x for x in stored if x not in again), *groups.sorted())}
    order = list(dict.fromkeys((FREQUENT, CUTS, *kinds.values())))
    lines = sorted(kinds, key=lambda line: order.index(kinds[line]))
    write_lines(lines, options.into)
    for what, count in groups.failures.most_common(40):
        print(count, what)
    print(f"{len(groups.lines)} kernels; {len(lines)} graphs, {len(set(lines) - set(stored))} of them new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
