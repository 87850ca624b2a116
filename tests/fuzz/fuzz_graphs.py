"""Random graphs of 2 to 12 operations with open dimensions, branches, loops and variables, run at several
shapes between inaccessible pages: optimised, some of them not optimised too, against the interpreter."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.bodies import CONCAT, INVARIANT, LAST, MERGED, SLICED, Port
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.interp import evaluate
from ovjit.graph.shapes import ANY
from ovjit.rewrite.model_variables import Start, lift
from tests.fuzz import fuzzing
from tests.support import guard_pages

UNARY = "Relu Sigmoid Tanh Negative Abs Gelu HSwish SoftPlus Swish Mish HSigmoid SoftSign".split()
BINARY = "Add Multiply Subtract Maximum Minimum SquaredDifference".split()
#: What most graphs are made of: each sequence of scalar operations is a kernel to be compiled.
USUAL_UNARY, USUAL_BINARY, USUAL = ["Relu", "Tanh"], ["Add", "Multiply"], 0.85
#: Neighbouring seeds whose graphs are of the same operations.
BLOCK = 64
#: Cases of one process, which keeps their kernels.
LIFE = 4000
#: Passes without which a graph runs as it is.
UNOPTIMISED, SELDOM = "fold,batch_norm,ops,weights,clean,fuse", 7
REDUCE = "ReduceSum ReduceMean ReduceMax ReduceMin ReduceL2".split()
POOL = {"kernel": [2, 2], "strides": [1, 1], "pads_begin": [0, 0], "pads_end": [0, 0]}


class _Maker:
    """Grows a graph while it keeps the shapes that the values have for the first set of inputs.

    Which operations there are and what they read is drawn for a block of seeds, all else for each: kernels
    depend on the former, and to compile them is what a case would cost most."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng([20261203, seed])
        self.block = seed // BLOCK
        self.plan = np.random.default_rng([20261205, self.block])
        self.inputs: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.shapes: list[tuple[int, ...] | None] = []  # by value: inputs, then nodes
        self.kinds: list[str] = []
        usual = self.plan.random() < USUAL
        self.unary_names = USUAL_UNARY if usual else UNARY
        self.binary_names = USUAL_BINARY if usual else BINARY
        rank = int(self.plan.choice([1, 2, 3, 3, 4, 4, 4, 5]))
        sizes = [int(self.rng.choice([1, 2, 3, 5, 16, 17])) for _ in range(rank)]
        for _ in range(int(self.plan.integers(1, 4))):
            own = rank if self.plan.random() < 0.8 else int(self.plan.integers(0, rank + 1))
            dims = [1 if self.rng.random() < 0.2 else d for d in sizes[rank - own :]]
            likely = [0.2 if own > 2 and axis == 1 else 0.7 for axis in range(own)]  # channels seldom
            opened = [bool(self.rng.random() < p) for p in likely]
            self.inputs.append({"shape": dims, "open": opened})
            self.note(tuple(dims), "f32")

    def note(self, shape: tuple[int, ...] | None, kind: str) -> None:
        self.shapes.append(shape)
        self.kinds.append(kind)

    def pick(self, *ranks: int) -> int | None:
        """A value of one of these ranks (any), mostly what was made last."""
        good = [
            i for i, s in enumerate(self.shapes)
            if s is not None and self.kinds[i] == "f32" and (not ranks or len(s) in ranks)
        ]  # fmt: skip
        if not good:
            return None
        return good[-1 - int(min(self.plan.geometric(0.5) - 1, len(good) - 1))]

    def number(self, *choices: int) -> int:
        return int(self.rng.choice(choices))

    def planned(self, *choices: int) -> int:
        """One that is the same for the whole block, as far as the choices are."""
        return int(self.plan.choice(choices))

    def begin(self) -> None:
        """What the next operation is does not depend on how often others were refused."""
        self.plan = np.random.default_rng([20261204, self.block, len(self.nodes)])

    def constant(self, *shape: int) -> dict[str, Any]:
        return {"constant": list(shape), "seed": int(self.rng.integers(1 << 30))}

    def ints(self, values: Any) -> dict[str, Any]:
        return {"ints": [int(v) for v in np.atleast_1d(values)]}

    def propose(self) -> dict[str, Any] | None:
        kind = self.plan.choice(list(MAKERS), p=WEIGHTS)
        made = MAKERS[kind](self)
        read = made.get("in") or () if made is not None else ()
        sizes = [np.prod(i.get("constant", ())) for i in read if isinstance(i, dict)]
        return None if None in read or max(sizes, default=0) > 1 << 20 else made

    def follow(self) -> dict[str, Any] | None:
        """After a sum of products mostly what may become its epilogue: beside an input, or another value."""
        last = len(self.shapes) - 1
        anchors = ("Convolution", "GroupConvolution", "MatMul")
        if not self.nodes or self.nodes[-1]["op"] not in anchors or self.plan.random() < 0.2:
            return None
        rank = len(self.shapes[last] or ())
        others = [i for i, s in enumerate(self.shapes[:-1]) if s is not None and len(s) <= rank]
        inputs = [i for i in others if i < len(self.inputs)] or others
        if not inputs:
            return None
        other = self.planned(*(inputs if self.plan.random() < 0.7 else others))
        pair = [last, other] if self.plan.random() < 0.5 else [other, last]
        return {"op": str(self.plan.choice(self.binary_names)), "in": pair}

    def unary(self) -> dict[str, Any]:
        return {"op": str(self.plan.choice(self.unary_names)), "in": [self.pick()]}

    def clamp(self) -> dict[str, Any]:
        return {"op": "Clamp", "in": [self.pick()], "attrs": {"min": -0.3, "max": 0.7}}

    def binary(self) -> dict[str, Any]:
        first = self.pick()
        other: Any = self.planned(*range(len(self.shapes)))
        if self.plan.random() < 0.3:
            other = self.planned(*range(len(self.inputs)))
        elif self.plan.random() < 0.4:
            shape = self.shapes[first] if first is not None else ()
            lead = int(self.rng.integers(0, len(shape or ()) + 1))
            other = self.constant(*(1 if self.rng.random() < 0.4 else d for d in (shape or ())[lead:]))
        pair = [first, other] if self.plan.random() < 0.5 else [other, first]
        return {"op": str(self.plan.choice(self.binary_names)), "in": pair}

    def prelu(self) -> dict[str, Any] | None:
        at = self.pick(2, 3, 4)
        if at is None:
            return None
        shape = self.shapes[at] or ()
        return {"op": "PRelu", "in": [at, self.constant(int(self.rng.choice([shape[1], shape[-1], 1])))]}

    def select(self) -> dict[str, Any]:
        condition = {"bools": [bool(self.rng.integers(2))]}
        return {"op": "Select", "in": [condition, self.pick(), {"numbers": [-1.1]}]}

    def conv(self) -> dict[str, Any] | None:
        """Of sequences, images or volumes, in groups or not, with strides and dilations."""
        at = self.pick(3, 4, 5)
        if at is None:
            return None
        shape = self.shapes[at] or ()
        channels, axes = shape[1], len(shape) - 2
        outs = channels if self.rng.random() < 0.5 else self.number(1, 5, 16, 17, 33)
        sizes = [self.number(1, 3)] * axes
        if self.plan.random() < 0.3:
            sizes = [self.planned(1, 2, 3, 5) for _ in range(axes)]
        steps = self.number(1, 1, 2)
        dilation = 2 if self.plan.random() < 0.15 else 1
        pads = [size // 2 * dilation for size in sizes]
        attrs = {
            "dilations": [dilation] * axes,
            "pads_begin": pads,
            "pads_end": pads,
            "strides": [steps] * axes,
        }
        if channels and self.plan.random() < 0.3:
            groups = 2 if channels % 2 == 0 and self.plan.random() < 0.3 else channels
            filters = self.constant(groups, self.planned(1, 1, 2), channels // groups, *sizes)
            return {"op": "GroupConvolution", "attrs": attrs, "in": [at, filters]}
        return {"op": "Convolution", "in": [at, self.constant(outs, channels, *sizes)], "attrs": attrs}

    def matmul(self) -> dict[str, Any] | None:
        at = self.pick(2, 3, 4)
        if at is None:
            return None
        depth = (self.shapes[at] or ())[-1]
        outs = depth if self.rng.random() < 0.5 else self.number(1, 7, 16, 33, 40)
        return {"op": "MatMul", "in": [at, self.constant(depth, outs)]}

    def product(self) -> dict[str, Any]:
        at = self.pick(2, 3, 4)
        return {"op": "MatMul", "in": [at, at], "attrs": {"transpose_b": True}}

    def reduce(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        rank = len(self.shapes[at] or ())
        axes = self.rng.permutation(rank)[: self.planned(1, 1, 2)]
        keep = {"keep_dims": bool(self.plan.random() < 0.8)}
        return {"op": str(self.plan.choice(REDUCE)), "in": [at, self.ints(axes)], "attrs": keep}

    def softmax(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        return {"op": "Softmax", "in": [at], "attrs": {"axis": -1 if self.rng.random() < 0.6 else 0}}

    def transpose(self) -> dict[str, Any] | None:
        at = self.pick(2, 3, 4)
        if at is None:
            return None
        return {"op": "Transpose", "in": [at, self.ints(self.rng.permutation(len(self.shapes[at] or ())))]}

    def slice(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        axis = self.number(*range(len(self.shapes[at] or ())))
        limits = [
            self.number(-9, -3, -1, 0, 1, 2, 9),
            self.number(-9, -2, 0, 2, 5, 9),
            self.number(-2, -1, 1, 2),
        ]
        return {"op": "Slice", "in": [at, *map(self.ints, limits), self.ints(axis)]}

    def concat(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        rank = len(self.shapes[at] or ())
        others = [self.pick(rank) for _ in range(self.planned(1, 1, 2))]
        return {"op": "Concat", "in": [at, *others], "attrs": {"axis": self.number(*range(rank))}}

    def split(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        axis = self.number(*range(len(self.shapes[at] or ())))
        return {"op": "VariadicSplit", "in": [at, self.ints(axis), self.ints([-1, self.number(0, 1, 2)])]}

    def pad(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        rank = len(self.shapes[at] or ())
        pads = [self.ints([self.number(0, 0, 1, 2, -1) for _ in range(rank)]) for _ in range(2)]
        mode = str(self.plan.choice(["constant", "edge", "reflect", "symmetric"]))
        return {"op": "Pad", "in": [at, *pads, {"numbers": [0.5]}], "attrs": {"pad_mode": mode}}

    def reshape(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        rank = len(self.shapes[at] or ())
        pattern = [[-1], [0, -1], [1, -1], [-1, 1], [0] * rank][self.planned(0, 1, 2, 3, 4)]
        return {"op": "Reshape", "in": [at, self.ints(pattern)], "attrs": {"special_zero": True}}

    def unsqueeze(self) -> dict[str, Any] | None:
        at = self.pick(0, 1, 2, 3)
        return {"op": "Unsqueeze", "in": [at, self.ints(self.number(0, -1))]}

    def pool(self) -> dict[str, Any]:
        kind = str(self.plan.choice(["MaxPool", "AvgPool"]))
        pads = {"pads_begin": [1, 1], "pads_end": [self.number(0, 1)] * 2} if self.rng.random() < 0.4 else {}
        attrs = {**POOL, **pads, "kernel": [self.number(1, 2, 3), 2], "strides": [self.number(1, 2), 1]}
        if kind == "AvgPool":
            attrs["exclude_pad"] = bool(self.rng.integers(2))
        else:
            attrs["dilations"] = [1, 1]
        return {"op": kind, "in": [self.pick(4)], "attrs": attrs}

    def gather(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        axis = self.number(*range(len(self.shapes[at] or ())))
        index = self.ints(self.rng.integers(-2, 3, self.number(1, 2, 4)))
        return {"op": "Gather", "in": [at, index, self.ints(axis)], "attrs": {"batch_dims": 0}}

    def tile(self) -> dict[str, Any] | None:
        at = self.pick(1, 2, 3, 4)
        if at is None:
            return None
        rank = len(self.shapes[at] or ())
        return {"op": "Tile", "in": [at, self.ints([self.number(1, 1, 2, 3) for _ in range(rank)])]}

    def half(self) -> dict[str, Any]:
        kind = str(self.plan.choice(["f16", "bf16"]))
        return {"op": "Convert", "in": [self.pick()], "attrs": {"destination_type": kind}, "back": True}

    # --- graphs within

    def body(self, count: int) -> list[dict[str, Any]]:
        """Elementwise nodes on values 0 to `count` - 1."""
        nodes: list[dict[str, Any]] = []
        for _ in range(self.planned(1, 1, 2, 3)):
            known = count + len(nodes)
            kind = self.plan.random()
            if kind < 0.5:
                nodes.append({"op": str(self.plan.choice(self.unary_names)), "in": [known - 1]})
            else:
                other: Any = self.planned(*range(known)) if kind < 0.8 else {"numbers": [0.5]}
                nodes.append({"op": str(self.plan.choice(self.binary_names)), "in": [known - 1, other]})
        return nodes

    def branch(self) -> dict[str, Any]:
        """Two bodies of which the data chooses one; sometimes they make other shapes."""
        at = self.pick()
        bodies = [self.body(1), self.body(1)]
        rank = len(self.shapes[at] or ()) if at is not None else 0
        if rank and self.plan.random() < 0.2:
            for nodes, count in zip(bodies, (1, self.number(1, 2)), strict=True):
                nodes.append({"op": "Concat", "in": [len(nodes)] * count, "attrs": {"axis": 0}})
        return {"op": "If", "in": [self.pick(), at], "bodies": bodies, "limit": self.number(-1, 0, 3)}

    def loop(self) -> dict[str, Any]:
        """A value that goes round; how often may depend on data, and so may its end."""
        at = self.pick(1, 2, 3, 4)
        return {
            "op": "Loop", "in": [at, at if self.plan.random() < 0.5 else self.pick()],
            "bodies": [[*(nodes := self.body(2)), {"op": "Tanh", "in": [1 + len(nodes)]}]],
            "trips": self.number(0, 1, 2, 3, 4), "by_data": bool(self.rng.random() < 0.3),
            "limit": self.number(-1, 1, 4) if self.rng.random() < 0.3 else None,
            "concat": self.number(-1, -1, 0),
        }  # fmt: skip

    def iterate(self) -> dict[str, Any] | None:
        """A body for each slice, forwards or backwards."""
        at = self.pick(2, 3, 4)
        if at is None:
            return None
        axis = self.number(*range(len(self.shapes[at] or ())))
        return {"op": "TensorIterator", "in": [at], "bodies": [self.body(1)], "axis": axis,
                "back": bool(self.rng.random() < 0.5)}  # fmt: skip

    def remember(self) -> dict[str, Any]:
        """A variable that begins with a value and has it added at every inference."""
        return {"op": "Remember", "in": [self.pick(1, 2, 3, 4)], "name": f"v{len(self.nodes)}"}

    def mvn(self) -> dict[str, Any]:
        attrs = {"normalize_variance": True, "eps": 1e-3, "eps_mode": "inside_sqrt"}
        return {"op": "MVN", "in": [self.pick(2, 3, 4), self.ints(-1)], "attrs": attrs}

    def cumsum(self) -> dict[str, Any]:
        return {"op": "CumSum", "in": [self.pick(1, 2, 3), self.ints(0)], "attrs": {}}

    def shuffle(self) -> dict[str, Any]:
        return {
            "op": "ShuffleChannels",
            "in": [self.pick(4)],
            "attrs": {"axis": 1, "group": self.number(1, 2)},
        }


MAKERS = {
    name: getattr(_Maker, name)
    for name in (
        "unary clamp binary prelu select conv matmul product reduce softmax transpose slice concat "
        "split pad reshape unsqueeze pool gather tile half mvn cumsum shuffle branch loop iterate remember"
    ).split()
}
_COUNTS = dict.fromkeys(MAKERS, 1.0) | {"unary": 4.0, "binary": 6.0, "conv": 4.0, "matmul": 2.0}
WEIGHTS = np.array(list(_COUNTS.values())) / sum(_COUNTS.values())


def make(seed: int) -> dict[str, Any]:
    maker = _Maker(seed)
    wanted = 2 + min(int(maker.plan.geometric(0.3)) - 1, 10)
    tries, begun = 0, -1
    while len(maker.nodes) < wanted and tries < 60:
        tries += 1
        if len(maker.nodes) > begun:
            begun = len(maker.nodes)
            maker.begin()
        node = maker.follow() or maker.propose()
        if node is None:
            continue
        found = _shape(maker, node)
        if found is None or np.prod(found, dtype=float) > 60_000:
            continue
        maker.nodes.append(node)
        maker.note(found, "f32")
    first = [i["shape"] for i in maker.inputs]
    sets = [first]
    for _ in range(maker.number(1, 1, 3)):
        by_size: dict[int, int] = {}
        changed = []
        for item in maker.inputs:
            dims = []
            for d, opened in zip(item["shape"], item["open"], strict=True):
                new = by_size.setdefault(d, int(maker.rng.choice([1, d, d + 1, 2 * d, 7])))
                if maker.rng.random() < 0.2:  # one that broadcasts, where another input's does not
                    new = int(maker.rng.choice([1, 1, 1, 0, new + 1]))
                dims.append(new if opened else d)
            changed.append(dims)
        sets.append(changed)
    maker.begin()
    outputs = [int(v) for v in np.flatnonzero(maker.plan.random(len(maker.shapes)) < 0.15)]
    outputs = [v for v in outputs if v >= len(maker.inputs)] or [len(maker.shapes) - 1]
    last = len(maker.shapes) - 1
    return {"inputs": maker.inputs, "nodes": maker.nodes, "outputs": sorted({*outputs, last}), "sets": sets,
            "seed": seed}  # fmt: skip


def _shape(maker: _Maker, node: dict[str, Any]) -> tuple[int, ...] | None:
    """The shape that a new node has for the first set of inputs; None when it is not accepted."""
    b = Builder()
    values: list[Value] = []
    for shape in maker.shapes:
        values.append(b.add("Parameter", (), {"shape": shape or (), "element_type": "f32"}).output)
    try:
        shape = _add(b, values, node).shape
    except OvjitError:
        return None
    return shape if shape is not None and all(isinstance(d, int) for d in shape) else None


def _add(b: Builder, values: list[Value], node: dict[str, Any]) -> Value:
    if node["op"] in _SPECIAL:
        return _SPECIAL[node["op"]](b, [values[i] for i in node["in"]], node)
    inputs = [values[i] if isinstance(i, int) else b.constant(_array(i)) for i in node["in"]]
    attrs = {k: tuple(v) if isinstance(v, list) else v for k, v in node.get("attrs", {}).items()}
    if attrs.get("destination_type") == "f16" and node.get("back"):
        # The pair of conversions is dropped, as OpenVINO does: an empty ReduceMin gives no inf
        inputs = [b.add("Clamp", inputs, {"min": -65504.0, "max": 65504.0}).output]
    out = b.add(node["op"], inputs, attrs).output
    return b.add("Convert", [out], {"destination_type": "f32"}).output if node.get("back") else out


def _above(b: Builder, value: Value, limit: float) -> Value:
    """Whether the sum of all elements is above a limit, which is beside what many sums are (0, 1): sums on
    it would fall to either side by a rounding error."""
    flat = b.add("Reshape", [value, b.constant(np.array([-1]))], {"special_zero": False}).output
    total = b.add("ReduceSum", [flat, b.constant(np.array([0]))], {"keep_dims": False}).output
    return b.add("Greater", [total, b.constant(np.float32(limit + 0.37))]).output


def _body(nodes: list[dict[str, Any]], given: Sequence[tuple[Any, str]], extra: Any = None) -> Graph:
    """The graph of a body: its last value, before it what `extra(builder, last)` makes."""
    b = Builder()
    values = [b.add("Parameter", (), {"shape": s, "element_type": t}).output for s, t in given]
    for node in nodes:
        values.append(_add(b, values, node))
    before = [] if extra is None else [extra(b, values[-1])]
    return b.finish([*before, values[-1]])


def _if(b: Builder, inputs: list[Value], node: dict[str, Any]) -> Value:
    then, other = (_body(nodes, [(inputs[1].shape, "f32")]) for nodes in node["bodies"])
    rows, results = [Port(INVARIANT, 1, 0)], [Port(LAST, 0, 0)]
    attrs = {"then_body": then, "else_body": other, "then_inputs": rows, "else_inputs": rows,
             "then_outputs": results, "else_outputs": results}  # fmt: skip
    return b.add("If", [_above(b, inputs[0], node["limit"]), inputs[1]], attrs).output


def _loop(b: Builder, inputs: list[Value], node: dict[str, Any]) -> Value:
    limit = node["limit"]

    def go_on(inner: Builder, last: Value) -> Value:
        if limit is None:
            return inner.constant(np.array(True))
        return inner.add("LogicalNot", [_above(inner, last, limit)]).output

    given = [(inputs[1].shape, "f32"), (inputs[0].shape, "f32")]
    body = _body(node["bodies"][0], given, go_on)
    trips: Value = b.constant(np.array(node["trips"]))
    if node["by_data"]:
        more = b.add("Convert", [_above(b, inputs[0], 0)], {"destination_type": "i64"}).output
        trips = b.add("Add", [trips, more]).output
    joined = Port(CONCAT, 0, 1, axis=0) if node["concat"] == 0 else Port(LAST, 0, 1)
    attrs = {"body": body, "input_ports": [Port(INVARIANT, 3, 0), Port(MERGED, 2, 1, 1)],
             "output_ports": [joined], "condition_result": 0}  # fmt: skip
    return b.add("Loop", [trips, b.constant(np.array(True)), *inputs], attrs).output


def _iterate(b: Builder, inputs: list[Value], node: dict[str, Any]) -> Value:
    axis, shape = node["axis"], inputs[0].shape
    body = _body(node["bodies"][0], [((*shape[:axis], 1, *shape[axis + 1 :]), "f32")])
    way = {"start": -1, "stride": -1, "end": 0} if node["back"] else {"start": 0, "stride": 1, "end": -1}
    attrs = {"body": body, "input_ports": [Port(SLICED, 0, 0, axis=axis, **way)],
             "output_ports": [Port(CONCAT, 0, 0, axis=axis, **way)]}  # fmt: skip
    return b.add("TensorIterator", inputs, attrs).output


def _remember(b: Builder, inputs: list[Value], node: dict[str, Any]) -> Value:
    kind = {"variable_id": node["name"], "variable_type": "f32", "variable_shape": inputs[0].shape}
    new = b.add("Add", [b.add("ReadValue", inputs, kind).output, inputs[0]]).output
    b.add("Assign", [new], {"variable_id": node["name"]})
    return new


_SPECIAL = {"If": _if, "Loop": _loop, "TensorIterator": _iterate, "Remember": _remember}


def _array(what: dict[str, Any]) -> np.ndarray:
    if "ints" in what:
        values = np.array(what["ints"], np.int64)
        return values
    if "numbers" in what:
        return np.array(what["numbers"], np.float32).reshape(what.get("shape", ()))
    if "bools" in what:
        return np.array(what["bools"]).reshape(())
    rng = np.random.default_rng(what["seed"])
    array = rng.standard_normal(what["constant"]).astype(np.float32)
    return array / max(1.0, np.sqrt(array.size / max(array.shape[0] if array.ndim else 1, 1)))


def graph_of(case: dict[str, Any]) -> Graph:
    b = Builder()
    values: list[Value] = []
    for item in case["inputs"]:
        shape = [ANY if o else d for d, o in zip(item["shape"], item["open"], strict=True)]
        values.append(b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output)
    for node in case["nodes"]:
        values.append(_add(b, values, node))
    assigned = [node.output for node in b.nodes if node.op.name == "Assign"]
    return b.finish([*(values[i] for i in case["outputs"]), *assigned])


def arrays_of(case: dict[str, Any], number: int) -> list[np.ndarray]:
    rng = np.random.default_rng([case["seed"], number])
    return [rng.standard_normal(shape).astype(np.float32) for shape in case["sets"][number]]


def check(case: dict[str, Any]) -> str:
    _install()
    try:
        graph = graph_of(case)
    except OvjitError:
        return ""  # what is left out of a graph may make it one that is not accepted
    wrong = _check(case, graph)
    if not wrong and case["seed"] % SELDOM == 0:
        os.environ["OVJIT_SKIP"] = UNOPTIMISED
        try:
            wrong = _check(case, graph)
        finally:
            del os.environ["OVJIT_SKIP"]
        wrong = wrong and f"not optimised, {wrong}"
    return wrong


def started(start: Start, arrays: list[np.ndarray]) -> np.ndarray:
    """What a variable begins with; `arrays` are those of all inputs and variables."""
    return evaluate(start.graph, [arrays[i] for i in start.inputs])[start.output]


class _Interpreter:
    """The graph's answers one after the other, with its variables."""

    def __init__(self, graph: Graph):
        self.lifted = lift(graph) if graph.has_state else None
        self.graph = graph if self.lifted is None else self.lifted.main
        self.values: list[np.ndarray] | None = None

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        if self.lifted is None:
            return evaluate(self.graph, arrays)
        values = self.values
        if values is None:
            values = [np.zeros([getattr(d, "lo", d) for d in v.shape], "f4") for v in self.lifted.variables]
            for i, init in enumerate(self.lifted.inits):  # each may read those before it
                values[i] = started(init, [*arrays, *values]) if isinstance(init, Start) else init
        made = evaluate(self.graph, [*arrays, *values])
        count = len(self.lifted.variables)
        self.values = made[len(made) - count :]
        return made[: len(made) - count]


class _Native:
    """The compiled graph, its inputs and outputs between inaccessible pages."""

    def __init__(self, graph: Graph):
        self.executable = compile_graph(graph, {"threads": 1})
        self.job = self.executable.new_job()

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        return guard_pages.run_job(self.executable, self.job, arrays, SIDE)


def _check(
    case: dict[str, Any],
    graph: Graph,
    given: Callable[[dict[str, Any], int], list[np.ndarray]] = arrays_of,
    native: type[_Native] = _Native,
) -> str:
    halves = any(node.get("back") is True and node["op"] == "Convert" for node in case["nodes"])
    ways: list[Any] = [None, None]
    for number in range(len(case["sets"])):
        arrays = given(case, number)
        answers: list[Any] = []
        for k, make_way in enumerate((native, _Interpreter)):
            try:
                if ways[k] is None:
                    ways[k] = make_way(graph)
                answers.append(ways[k].run(arrays))
            except OvjitError as error:
                answers.append(error)
            except Exception as error:
                return f"{make_way.__name__}: {type(error).__name__} at {case['sets'][number]}: {error}"
        got, want = answers
        if isinstance(want, Exception) or isinstance(got, Exception):
            if isinstance(want, Exception) != isinstance(got, Exception):
                return f"at {case['sets'][number]}: native {_brief(got)}, interpreter {_brief(want)}"
            if "internal error" in str(got):
                return f"at {case['sets'][number]}: {got}"
            ways = [None, None]  # the values of variables are undefined then
            continue
        for i, (a, b) in enumerate(zip(got, want, strict=True)):
            wrong = _difference(a, b, 3e-2 if halves else 2e-3)
            if wrong:
                return f"output {i} at {case['sets'][number]}: {wrong}"
    return ""


def _brief(x: Any) -> str:
    return f"refuses ({x})" if isinstance(x, Exception) else f"gives {[a.shape for a in x]}"


def _difference(got: np.ndarray, want: np.ndarray, most: float) -> str:
    if got.shape != want.shape:
        return f"the shape is {got.shape}, not {want.shape}"
    assert dtypes.from_numpy(got.dtype) == dtypes.from_numpy(want.dtype)
    if got.dtype.hasobject:
        different = [(x, y) for x, y in zip(got.flat, want.flat, strict=True) if _unsigned(x) != _unsigned(y)]
        return f"{different[0][0]!r} instead of {different[0][1]!r}" if different else ""
    x, y = got.astype(np.float64), want.astype(np.float64)
    finite = np.abs(y[np.isfinite(y)])
    with np.errstate(all="ignore"):
        same = (np.abs(x - y) <= most * (1 + (finite.max() if finite.size else 0))) | (x == y)
        same |= np.isnan(x) & np.isnan(y)
    if same.all():
        return ""
    at = tuple(int(v) for v in np.argwhere(~same)[0])
    return f"{int((~same).sum())} of {same.size} differ, {got[at]} at {list(at)} instead of {want[at]}"


def _unsigned(text: str | bytes) -> str | bytes:
    """A text without the sign of a zero or NaN, which fused operations may change."""
    return text[1:] if text in ("-0", "-nan", b"-0", b"-nan") else text


SIDE = guard_pages.BEHIND
_installed = False


def _install() -> None:
    global _installed
    if not _installed:
        guard_pages.install(SIDE)
        _installed = True


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for sets in fuzzing.without(case["sets"]):
        if sets:
            yield {**case, "sets": sets}
    for i, output in enumerate(case["outputs"]):
        if len(case["outputs"]) > 1:
            yield {**case, "outputs": case["outputs"][:i] + case["outputs"][i + 1 :]}
        elif output > len(case["inputs"]):
            yield {**case, "outputs": [output - 1]}
    first = len(case["inputs"])
    for n in reversed(range(len(case["nodes"]))):
        kept = _without_node(case, first + n)
        if kept is not None:
            yield kept
    for i, item in enumerate(case["inputs"]):
        for axis, opened in enumerate(item["open"]):
            fixed = {tuple(s[i])[axis] for s in case["sets"]}
            if opened and fixed == {item["shape"][axis]}:
                opens = [o and a != axis for a, o in enumerate(item["open"])]
                inputs = [{**x, "open": opens} if k == i else x for k, x in enumerate(case["inputs"])]
                yield {**case, "inputs": inputs}


def _without_node(case: dict[str, Any], value: int) -> dict[str, Any] | None:
    """The case without the node that makes `value`: what it read stands for it."""
    node = case["nodes"][value - len(case["inputs"])]
    source = next((i for i in node["in"] if isinstance(i, int)), None)
    if source is None or len(case["nodes"]) == 1:
        return None

    def moved(i: Any) -> Any:
        if not isinstance(i, int):
            return i
        i = source if i == value else i
        return i - (i > value)

    nodes = [
        {**n, "in": [moved(i) for i in n["in"]]}
        for k, n in enumerate(case["nodes"])
        if k != value - len(case["inputs"])
    ]
    outputs = sorted({moved(o) for o in case["outputs"]})
    if any(o < len(case["inputs"]) for o in outputs):
        return None
    return {**case, "nodes": nodes, "outputs": outputs}


#: The part of a case that findings show.
SHOWN = "graph_of(case)"

if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
