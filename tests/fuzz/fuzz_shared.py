"""Random graphs of values that several operations read, mostly through views, and of several outputs: what is
computed in place must not be read later. Around one or two operations of any kind, on their own samples."""

from __future__ import annotations

import functools
import os
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ovjit.codegen.elementwise import NATIVE_TYPES
from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.op import Op, all_ops
from ovjit.graph.shapes import ANY
from tests.fuzz import fuzz_graphs, fuzzing
from tests.support.run import run_job
from tests.support.samples import has_samples, samples_of

#: Neighbouring seeds whose graphs have the same operations, and so the same kernels.
BLOCK = 8
#: Cases of one process, which keeps their kernels.
LIFE = 2000
#: Of so many cases, one is proved under OVJIT_CHECK=1.
PROVED = 3
#: Elements of a value at most.
LARGEST = 20_000
#: Values that have larger elements go through Tanh before they are shared: what follows adds no large errors.
LIMIT = 20.0
#: Operations around the sampled ones: those that views, or that rows in place, are made of, most often.
GLUE = {
    "unary": 3, "binary": 4, "matmul": 1, "reduce": 3, "softmax": 4, "transpose": 2, "slice": 2, "concat": 2,
    "split": 1, "pad": 1, "reshape": 4, "unsqueeze": 1, "gather": 1, "tile": 1, "mvn": 2, "rms": 1,
    "conv": 1, "pool": 1, "shuffle": 1, "cumsum": 1, "iterate": 1, "loop": 1, "remember": 1,
    "normalized_view": 6,
}  # fmt: skip
NAMES, ODDS = list(GLUE), np.array(list(GLUE.values())) / sum(GLUE.values())
#: Operations that give random numbers, and beginnings of the names of those that write to their inputs.
RANDOM, WRITING = frozenset(("Multinomial", "RandomUniform")), ("Paged", "PaKV")
#: Operations of one shape here: others are singular matrices, unsorted boundaries, or no extents of 1.
CLOSED = frozenset(("Bucketize", "Inverse", "SearchSorted", "Squeeze"))


@functools.cache
def records() -> dict[str, Op]:
    """The operations that have samples of numbers, by name and opset."""
    found = (r for r in all_ops() if has_samples(r) and not r.internal and r.types)
    found = (r for r in found if r.name not in RANDOM and not r.name.startswith(WRITING))
    return {f"{r.name}-{r.opset}": r for r in found if r.types[0] in NATIVE_TYPES}


@functools.lru_cache(256)
def sample(name: str, number: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Inputs and attributes of a sample of an operation, in f32 if it takes that. Numbers wrap around."""
    record = records()[name]
    dtype = "f32" if "f32" in record.types else record.types[0]
    every = list(samples_of(record, np.random.default_rng(zlib.crc32(name.encode())), dtype))
    inputs, attrs = every[number % len(every)]
    return [np.asarray(a) for a in inputs], attrs


class _Maker(fuzz_graphs._Maker):
    """As `fuzz_graphs` makes graphs, but any value is read again as often as the last one, and some nodes are
    samples of operations."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.rng = np.random.default_rng([20261127, seed])
        self.block = seed // BLOCK
        self.plan = np.random.default_rng([20261128, self.block])
        self.unary_names, self.binary_names = ["Relu", "Tanh", "Sigmoid"], ["Add", "Multiply", "Maximum"]
        self.last: int | None = None

    def begin(self) -> None:
        self.plan = np.random.default_rng([20261129, self.block, len(self.nodes)])

    def pick(self, *ranks: int) -> int | None:
        """Any value, often the one that was picked before: a shared one."""
        good = [
            i for i, s in enumerate(self.shapes)
            if s is not None and self.kinds[i] == "f32" and (not ranks or len(s) in ranks)
        ]  # fmt: skip
        if not good:
            return None
        if self.last not in good or self.plan.random() < 0.5:
            late = self.plan.random() < 0.6
            self.last = good[-1 - int(self.plan.integers(min(3, len(good))))] if late else None
            if self.last is None:
                self.last = good[int(self.plan.integers(len(good)))]
        return self.last

    def rms(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        return {"op": "RMS", "in": [at, {"numbers": [1.0], "shape": [1]}], "attrs": {"epsilon": 1e-3}}

    def normalized_view(self) -> dict[str, Any] | None:
        """Rows in place behind a view."""
        made = [i for i in range(len(self.inputs), len(self.shapes)) if self.kinds[i] == "f32"]
        made = [i for i in made if self.shapes[i]]
        if made and self.plan.random() < 0.8:
            at = self.last = made[int(self.plan.integers(len(made)))]
        elif (at := self.pick(1, 2, 3, 4)) is None:
            return None
        pattern = [[-1], [0, -1], [1, -1], [-1, 1, 1]][self.planned(0, 0, 1, 2, 3)]
        row = str(self.plan.choice(["Softmax", "LogSoftmax", "MVN", "RMS"]))
        return {"op": "NormalizedView", "in": [at], "shape": pattern, "row": row}

    def sampled(self, name: str) -> None:
        """A sample of an operation, of inputs that are as they are, or exact copies that others read, too."""
        record, number = records()[name], int(self.rng.integers(6))
        arrays, _ = sample(name, number)
        if any(a.size > LARGEST for a in arrays):
            return
        given: list[Any] = []
        for i, array in enumerate(arrays):
            element = dtypes.from_numpy(array.dtype)
            weights = i == 1 and record.epilogue
            indices = i > 0 and record.scalar is None and record.variadic is None
            if (weights or indices) and element != "f32" or (weights and self.plan.random() < 0.7):
                given.append({"sample": [name, number, i]})
                continue
            opened = [bool(self.rng.random() < 0.4) and record.name not in CLOSED for _ in array.shape]
            self.inputs.append({"shape": list(array.shape), "open": opened, "sample": [name, number, i]})
            given.append(-len(self.inputs))
        node = {"op": "Sample", "record": name, "sample": number, "in": given,
                "copied": bool(self.plan.random() < 0.7)}  # fmt: skip
        self.nodes.append(node)


def make(seed: int) -> dict[str, Any]:
    maker = _Maker(seed)
    names = [str(n) for n in maker.plan.choice(list(records()), int(maker.plan.integers(0, 3)))]
    if maker.plan.random() < 0.7 or not names:
        maker.inputs = maker.inputs[:2]
    else:
        maker.inputs = maker.inputs[:1]
    maker.shapes, maker.kinds = [], []
    for name in names:
        maker.sampled(name)
    for item in maker.inputs:
        element = _element(item)
        maker.note(tuple(item["shape"]), element if _shared(item) else "raw")
    # nodes name inputs of samples by their number from the end
    for node in maker.nodes:
        node["in"] = [-i - 1 if isinstance(i, int) else i for i in node["in"]]
    kept, maker.nodes = maker.nodes, []
    for node in kept:
        _keep(maker, node)
    wanted, tries, begun = len(maker.nodes) + 2 + min(int(maker.plan.geometric(0.25)), 9), 0, -1
    while len(maker.nodes) < wanted and tries < 60:
        tries += 1
        if len(maker.nodes) > begun:
            begun = len(maker.nodes)
            maker.begin()
        proposed = getattr(maker, str(maker.plan.choice(NAMES, p=ODDS)))()
        if proposed is None or any(i is None for i in proposed["in"]):
            continue
        if proposed["op"] == "Loop":
            proposed |= {"by_data": False, "limit": None}
        _keep(maker, proposed)
    sets = [[i["shape"] for i in maker.inputs]]
    for _ in range(2):
        by_size: dict[int, int] = {}
        changed = []
        for item in maker.inputs:
            dims = []
            for d, opened in zip(item["shape"], item["open"], strict=True):
                new = by_size.setdefault(d, int(maker.rng.choice([1, d, d + 1, 2 * d, 7])))
                dims.append(new if opened and d and d < 64 else d)
            changed.append(dims)
        sets.append(changed)
    first = len(maker.inputs)
    likely = np.random.default_rng([20261130, maker.block]).random(len(maker.shapes))
    likely += 0.1 * maker.rng.random(len(likely))
    read = {i for node in maker.nodes for i in node["in"] if isinstance(i, int)}
    limits = np.where([v in read for v in range(len(likely))], 0.25, 0.9)  # few are made in vain
    limits[_rows(maker)] = 0.8
    outputs = [int(v) for v in np.flatnonzero(likely < limits) if v >= first]
    last = len(maker.shapes) - 1
    return {"inputs": maker.inputs, "nodes": maker.nodes, "outputs": sorted({*outputs, last}), "sets": sets,
            "seed": seed}  # fmt: skip


def _rows(maker: _Maker) -> list[int]:
    """The values of views whose rows are computed in place."""
    counts = [_outputs(node) for node in maker.nodes]
    ends = np.cumsum([len(maker.inputs), *counts])
    return [int(end) for end, node in zip(ends, maker.nodes, strict=False) if node["op"] == "NormalizedView"]


def _keep(maker: _Maker, node: dict[str, Any]) -> None:
    """Add a node, and note its values, if its shapes are accepted."""
    b = Builder()
    values: list[Value] = []
    for shape, kind in zip(maker.shapes, maker.kinds, strict=True):
        element = kind if kind in NATIVE_TYPES else "f32"
        values.append(b.add("Parameter", (), {"shape": shape or (), "element_type": element}).output)
    if node["op"] == "Sample":
        for i in node["in"]:
            if isinstance(i, int):
                element = _element(maker.inputs[i])
                values[i] = b.add(
                    "Parameter", (), {"shape": maker.inputs[i]["shape"], "element_type": element}
                ).output
    try:
        made = _made(b, values, node)
    except OvjitError:
        return
    sizes = [v.shape for v in made]
    if any(
        s is not None and np.prod([getattr(d, "hi", d) or 0 for d in s], dtype=float) > LARGEST for s in sizes
    ):
        return
    maker.nodes.append(node)
    plain = _ranges(maker, node) if node["op"] == "Sample" else [True] * len(made)
    for value, good in zip(made, plain, strict=True):
        static = value.shape is not None and all(isinstance(d, int) for d in value.shape)
        element = value.dtype if good and static else "raw"
        maker.note(tuple(value.shape) if static else None, element)


def _ranges(maker: _Maker, node: dict[str, Any]) -> list[bool]:
    """Whether the values of a sample are shared as they are: of moderate numbers. The last ones are its
    copied inputs."""
    arrays, attrs = sample(node["record"], node["sample"])
    record = records()[node["record"]]
    try:
        made = list(record.evaluate(arrays, record.check_attributes(attrs)))
    except OvjitError:
        made = []
    given = [arrays[k] for k, i in enumerate(node["in"]) if isinstance(i, int) and node["copied"]]
    count = _outputs(node) - len(given)
    return [k < len(made) and _moderate(made[k]) for k in range(count)] + [_moderate(a) for a in given]


@functools.lru_cache(256)
def _count(record: str, number: int) -> int:
    arrays, attrs = sample(record, number)
    b = Builder()
    values = [b.constant(a, dtypes.from_numpy(a.dtype)) for a in arrays]
    return len(b.add(records()[record], values, attrs).outputs)


def _outputs(node: dict[str, Any]) -> int:
    """The number of values of a node."""
    if node["op"] != "Sample":
        return 1
    copied = sum(isinstance(i, int) for i in node["in"]) if node["copied"] else 0
    return _count(node["record"], node["sample"]) + copied


def _moderate(array: np.ndarray) -> bool:
    if array.dtype != np.float32:
        return False
    with np.errstate(all="ignore"):
        return bool((np.abs(array) < LIMIT).all())


def _element(item: dict[str, Any]) -> str:
    return dtypes.from_numpy(_sample_array(item).dtype) if "sample" in item else "f32"


def _sample_array(item: dict[str, Any]) -> np.ndarray:
    name, number, i = item["sample"]
    return sample(name, number)[0][i]


def _shared(item: dict[str, Any]) -> bool:
    return "sample" not in item or _moderate(_sample_array(item))


def _copy(b: Builder, value: Value) -> Value:
    """The same numbers in other memory: max(x, 0) - max(-x, 0)."""
    if value.dtype != "f32":
        return value
    zero = b.constant(np.float32(0))
    more = b.add("Relu", [value]).output
    less = b.add("Maximum", [b.add("Negative", [value]).output, zero]).output
    return b.add("Subtract", [more, less]).output


def _made(b: Builder, values: list[Value], node: dict[str, Any]) -> list[Value]:
    """Add a node; its values."""
    if node["op"] == "Sample":
        record = records()[node["record"]]
        arrays, attrs = sample(node["record"], node["sample"])
        given = []
        copies = []
        for i, array in zip(node["in"], arrays, strict=True):
            if not isinstance(i, int):
                given.append(b.constant(array, dtypes.from_numpy(array.dtype)))
            elif node["copied"]:
                given.append(_copy(b, values[i]))
                copies.append(given[-1])
            else:
                given.append(values[i])
        return [*b.add(record, given, attrs).outputs, *copies]
    if node["op"] == "NormalizedView":
        shape = b.constant(np.array(node["shape"], np.int64))
        x = b.add("Reshape", [values[node["in"][0]], shape], {"special_zero": True}).output
        if node["row"] == "MVN":
            attrs = {"normalize_variance": True, "eps": 1e-3, "eps_mode": "inside_sqrt"}
            return [b.add("MVN", [x, b.constant(np.array([-1]))], attrs).output]
        if node["row"] == "RMS":
            return [b.add("RMS", [x, b.constant(np.ones(1, np.float32))], {"epsilon": 1e-3}).output]
        return [b.add(node["row"], [x], {"axis": -1}).output]
    return [fuzz_graphs._add(b, values, node)]


def graph_of(case: dict[str, Any]) -> Graph:
    b = Builder()
    values: list[Value] = []
    for item in case["inputs"]:
        shape = [ANY if o else d for d, o in zip(item["shape"], item["open"], strict=True)]
        values.append(b.add("Parameter", (), {"shape": shape, "element_type": _element(item)}).output)
    for node in case["nodes"]:
        values += _made(b, values, node)
    assigned = [node.output for node in b.nodes if node.op.name == "Assign"]
    return b.finish([*(values[i] for i in case["outputs"]), *assigned])


def arrays_of(case: dict[str, Any], number: int) -> list[np.ndarray]:
    rng = np.random.default_rng([case["seed"], number])
    arrays = []
    for item, shape in zip(case["inputs"], case["sets"][number], strict=True):
        if "sample" not in item:
            arrays.append(rng.standard_normal(shape).astype(np.float32))
            continue
        array = _sample_array(item)
        for axis, d in enumerate(shape):
            if d != array.shape[axis]:
                array = np.take(array, np.arange(d) % array.shape[axis], axis)
        arrays.append(np.array(array, order="C"))
    return arrays


class _Shared(fuzz_graphs._Native):
    """The compiled graph in memory as users have it, where values share an arena."""

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        run_job(self.job, arrays)
        return [np.array(out) for out in self.job.outputs[: len(self.executable.outputs)]]


def check(case: dict[str, Any]) -> str:
    proved = case["seed"] % PROVED == 0
    before = os.environ.get("OVJIT_CHECK")
    try:
        graph = graph_of(case)
    except OvjitError:
        return ""  # what is left out of a graph may make it one that is not accepted
    try:
        if proved:
            os.environ["OVJIT_CHECK"] = "1"
        with np.errstate(all="ignore"):
            wrong = fuzz_graphs._check(case, graph, arrays_of, _Shared)
    finally:
        if before is None:
            os.environ.pop("OVJIT_CHECK", None)
        else:
            os.environ["OVJIT_CHECK"] = before
    return wrong and f"{'proved, ' * proved}{wrong}"


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for sets in fuzzing.without(case["sets"]):
        if sets:
            yield {**case, "sets": sets}
    for outputs in fuzzing.without(case["outputs"]):
        if outputs:
            yield _pruned({**case, "outputs": outputs})
    first, at = len(case["inputs"]), len(case["inputs"])
    for k, node in enumerate(case["nodes"]):
        count = _outputs(node)
        for source in [i for i in node["in"] if isinstance(i, int)] if count == 1 else []:
            if source >= first:
                yield _pruned(_replaced(case, k, at, source))
        at += count
    for i, item in enumerate(case["inputs"]):
        for axis, opened in enumerate(item["open"]):
            if opened and {tuple(s[i])[axis] for s in case["sets"]} == {item["shape"][axis]}:
                opens = [o and a != axis for a, o in enumerate(item["open"])]
                inputs = [{**x, "open": opens} if k == i else x for k, x in enumerate(case["inputs"])]
                yield {**case, "inputs": inputs}


def _replaced(case: dict[str, Any], k: int, value: int, source: int) -> dict[str, Any]:
    """The case with `source` read instead of `value`, the one of node `k`."""
    nodes = [
        {**n, "in": [source if i == value and isinstance(i, int) else i for i in n["in"]]} if j > k else n
        for j, n in enumerate(case["nodes"])
    ]
    return {**case, "nodes": nodes, "outputs": sorted({source if o == value else o for o in case["outputs"]})}


def _pruned(case: dict[str, Any]) -> dict[str, Any]:
    """The case without nodes that no output needs."""
    first = len(case["inputs"])
    starts, at = [], first
    for node in case["nodes"]:
        starts.append(at)
        at += _outputs(node)
    needed, kept = set(case["outputs"]), []
    for k in reversed(range(len(case["nodes"]))):
        node = case["nodes"][k]
        own = set(range(starts[k], starts[k] + _outputs(node)))
        if node["op"] == "Remember" or own & needed:
            kept.append(k)
            needed.update(i for i in node["in"] if isinstance(i, int))
    moved = {i: i for i in range(first)}
    at, nodes = first, []
    for k in sorted(kept):
        node = case["nodes"][k]
        for i in range(_outputs(node)):
            moved[starts[k] + i] = at + i
        at += _outputs(node)
        nodes.append({**node, "in": [moved[i] if isinstance(i, int) else i for i in node["in"]]})
    return {**case, "nodes": nodes, "outputs": [moved[o] for o in case["outputs"]]}


#: The part of a case that findings show.
SHOWN = "graph_of(case)"

if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
