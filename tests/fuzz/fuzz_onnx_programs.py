# ruff: noqa: E501, E731 (a line is one statement of a model)
"""Random ONNX programs of several nodes beside ONNX Runtime, at two sizes in one compiled model.

Nodes are drawn one by one and run at once, each in a model of its own: what ONNX Runtime refuses is left out. The
program has branches, loops and scans that capture values, optional inputs that are missing, scalars,
initializers that are inputs, outputs that are inputs, constants or given twice.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.fuzz import fuzz_onnx_cases, fuzzing

LIFE = 1500
#: ONNX Runtime needs room for threads.
MEMORY = 16 << 30
FLOATS = ("float32", "float32", "float32", "float64")
INTEGERS = ("int64", "int32", "int32", "uint8", "int8", "int16", "uint16", "uint32", "uint64", "bool")
LENGTHS = (1, 2, 3, 4, 5, 6, 8, 12)
MOST = 5000
SIZES = (1, 2, 3, 4, 5, 7)


class Refused(Exception):
    """ONNX Runtime does not compute this."""


class Program:
    """The nodes, constants and values of a graph; `outer` is the one around it."""

    def __init__(self, rng: random.Random, opset: int, outer: Program | None = None, prefix: str = ""):
        self.r, self.opset, self.outer, self.prefix = rng, opset, outer, prefix
        self.nodes: list[Any] = []
        self.values: dict[str, np.ndarray] = dict(outer.values) if outer else {}
        self.constants: dict[str, np.ndarray] = dict(outer.constants) if outer else {}
        self.own_constants: list[str] = []
        self.count = 0

    def name(self, stem: str = "v") -> str:
        self.count += 1
        return f"{self.prefix}{stem}{self.count}"

    # --- what generators ask for

    def pick(self, test: Any = None) -> str:
        names = [n for n, v in self.values.items() if n not in self.constants and (test is None or test(v))]
        if not names:
            raise Refused
        late = names[-4:]
        return self.r.choice(late if self.r.random() < 0.6 else names)

    def float(self, rank: int = 0) -> str:
        return self.pick(lambda v: v.dtype.kind == "f" and v.ndim >= rank)

    def number(self, rank: int = 0) -> str:
        return self.pick(lambda v: v.dtype.kind in "fiu" and v.ndim >= rank)

    def any(self, rank: int = 0) -> str:
        return self.pick(lambda v: v.ndim >= rank)

    def constant(self, array: Any, dtype: Any = None) -> str:
        array = np.asarray(array, dtype)
        name = self.name("c")
        self.values[name] = self.constants[name] = array
        self.own_constants.append(name)
        return name

    def like(self, v: str, shape: Any = None) -> str:
        """A constant, or another value, of v's type whose shape broadcasts with v's."""
        x = self.values[v]
        if shape is None:
            fits = [
                n
                for n, y in self.values.items()
                if y.dtype == x.dtype and n not in self.constants and _broadcast(x, y)
            ]
            if fits and self.r.random() < 0.6:
                return self.r.choice(fits)
            shape = [d if self.r.random() < 0.6 else 1 for d in x.shape][
                self.r.choice((0, 0, 0, 1, x.ndim)) :
            ]
        return self.constant(random_array(self.r, x.dtype, shape))

    def axis(self, v: str, low: bool = True) -> int:
        n = self.values[v].ndim
        if not n:
            raise Refused
        a = self.r.randrange(n)
        return a - n if low and self.r.random() < 0.4 else a

    def axes(self, v: str, most: int = 9) -> list[int]:
        n = self.values[v].ndim
        chosen = self.r.sample(range(n), self.r.randint(min(1, n), min(n, most)))
        return [a - n if self.r.random() < 0.3 else a for a in chosen]

    # --- growth

    def add(
        self, kind: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[str]:
        import onnx.helper as h

        names = [self.name() for _ in range(outputs)]
        node = h.make_node(
            kind,
            inputs,
            names,
            name=self.name("n"),
            domain=domain,
            **{k: v for k, v in attributes.items() if v is not None},
        )
        self.nodes.append(node)
        return names

    def statement(self) -> None:
        """One or more nodes; what is refused is taken back, and another is drawn."""
        for _ in range(5):
            if self.try_one():
                return

    def try_one(self) -> bool:
        before = (len(self.nodes), dict(self.values), dict(self.constants), len(self.own_constants))
        try:
            self.r.choice(STATEMENTS)(self)
            self.run_last(before[0], before[1])
            return True
        except Refused:
            del self.nodes[before[0] :]
            self.values, self.constants = before[1], before[2]
            del self.own_constants[before[3] :]
            return False

    def run_last(self, first: int, values: dict[str, np.ndarray]) -> None:
        nodes = self.nodes[first:]
        made = [o for n in nodes for o in n.output if o]
        used = _used(nodes) - set(made)
        constants = {n: self.constants[n] for n in used if n in self.constants}
        inputs = {n: self.values[n] for n in used if n not in self.constants}
        data = make_model(nodes, inputs, constants, made, self.opset, sizes=False)
        found = fuzz_onnx_cases.by_onnxruntime(data, inputs)
        if isinstance(found, Exception) or any(
            not 0 < x.size <= MOST or not _finite(x) or x.dtype.kind in "OUS" for x in found
        ):
            raise Refused
        for n, x in zip(made, found, strict=True):
            self.values[n] = x


def _finite(x: np.ndarray) -> bool:
    return x.dtype.kind != "f" or bool(np.isfinite(x).all())


def _broadcast(x: np.ndarray, y: np.ndarray) -> bool:
    try:
        return np.broadcast_shapes(x.shape, y.shape) is not None
    except ValueError:
        return False


def _used(nodes: Any) -> set[str]:
    names: set[str] = set()
    for n in nodes:
        names.update(i for i in n.input if i)
        for a in n.attribute:
            if a.HasField("g"):
                inside = {o for m in a.g.node for o in m.output} | {i.name for i in a.g.input}
                inside |= {i.name for i in a.g.initializer}
                names |= (_used(a.g.node) | {o.name for o in a.g.output}) - inside
    return names


def random_array(r: random.Random, dtype: Any, shape: Any) -> np.ndarray:
    g = np.random.default_rng(r.randrange(1 << 30))
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return g.random(shape) < 0.5
    if dtype.kind in "iu":
        low = 0 if dtype.kind == "u" else -4
        return g.integers(low, 5, shape).astype(dtype)
    x = np.asarray(g.standard_normal(shape) * 2)
    if r.random() < 0.02 and x.size:
        x.reshape(-1)[g.integers(0, x.size)] = r.choice((0.0, -0.0, 1e4, 1e-7))
    return x.astype(dtype)


def make_model(
    nodes: Any,
    inputs: dict[str, np.ndarray],
    constants: dict[str, np.ndarray],
    outputs: list[str],
    opset: int,
    sizes: Any,
    as_inputs: Any = (),
    shapes: Any = None,
    functions: Any = (),
) -> bytes:
    """`sizes`: the names of dimensions by input, False for none at all."""
    import onnx
    import onnx.helper as h

    def info(name: str, x: np.ndarray, shape: Any) -> Any:
        return h.make_tensor_value_info(name, h.np_dtype_to_tensor_dtype(x.dtype), shape)

    infos = [info(n, x, [None] * x.ndim if not sizes else sizes[n]) for n, x in inputs.items()]
    infos += [info(n, constants[n], list(constants[n].shape)) for n in as_inputs]
    outs = []
    for n in outputs:
        v = onnx.ValueInfoProto()
        v.name = n
        outs.append(v)
    initializers = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(x) if x.ndim else x, n)
        for n, x in constants.items()
    ]
    graph = h.make_graph(list(nodes), "g", infos, outs, initializers)
    model = h.make_model(
        graph,
        opset_imports=[h.make_opsetid("", opset), h.make_opsetid("own", 1)],
        ir_version=10,
        functions=list(functions),
    )
    return model.SerializeToString()


# --- statements


def unary(p: Program) -> None:
    kind = p.r.choice(
        "Abs Neg Ceil Floor Exp Sigmoid Tanh Relu Softplus Softsign Erf Sign Sin Cos "
        "Atan Sinh Cosh Asinh Round Elu Selu LeakyRelu ThresholdedRelu HardSigmoid "
        "HardSwish Celu Gelu Mish Identity IsNaN IsInf Not BitwiseNot Swish".split()
    )
    a: Any = {
        "Elu": {"alpha": 0.7},
        "LeakyRelu": {"alpha": 0.2},
        "ThresholdedRelu": {"alpha": 0.6},
        "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
        "Celu": {"alpha": 1.5},
        "Gelu": {"approximate": p.r.choice(("none", "tanh"))},
        "IsInf": {"detect_negative": p.r.choice((0, 1))},
    }.get(kind, {})
    p.add(kind, [p.any()], **a)


def binary(p: Program) -> None:
    kind = p.r.choice(
        "Add Sub Mul Div Mod PRelu Equal Less Greater LessOrEqual GreaterOrEqual And Or Xor "
        "BitShift BitwiseAnd BitwiseOr BitwiseXor Min Max Sum Mean".split()
    )
    x = p.any()
    y = p.like(x)
    a: dict[str, Any] = {}
    if kind == "Mod":
        if p.values[x].dtype.kind == "f":
            raise Refused  # a last bit may be a whole divisor
        a = {"fmod": p.r.choice((0, 1))}
    if kind in ("Mod", "Div"):
        y = p.constant(np.where(p.values[y] == 0, 3, p.values[y]).astype(p.values[x].dtype))
    if kind == "BitShift":
        a = {"direction": p.r.choice(("LEFT", "RIGHT"))}
    if kind == "PRelu" and np.broadcast_shapes(p.values[x].shape, p.values[y].shape) != p.values[x].shape:
        raise Refused
    args = [x, y] if p.r.random() < 0.6 or kind == "PRelu" else [y, x]
    if kind in ("Mod", "Div"):
        args = [x, y]
    if kind in ("Min", "Max", "Sum", "Mean") and p.r.random() < 0.3:
        args.append(p.like(x))
    p.add(kind, args, **a)


def cast(p: Program) -> None:
    """Not from reals to integers, where a last bit is a step."""
    x = p.any()
    p.add(
        "Cast",
        [x],
        to=p.r.choice((1, 1, 9, 11) if p.values[x].dtype.kind == "f" else (1, 2, 3, 5, 6, 7, 9, 11, 12, 13)),
    )


def reduce(p: Program) -> None:
    kind = p.r.choice(
        "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare".split()
    )
    x = p.number()
    if ("Log" in kind or kind in ("ReduceMean", "ReduceL2")) and p.values[x].dtype.kind != "f":
        raise Refused  # ONNX Runtime divides by the number of nothing
    axes = p.axes(x) if p.r.random() < 0.8 else None
    keep = p.r.choice((0, 1, None))
    as_input = p.opset >= 18 or kind == "ReduceSum" and p.opset >= 13
    if as_input:
        args = [x] + ([p.constant(axes, "int64")] if axes is not None else [])
        p.add(kind, args, keepdims=keep, noop_with_empty_axes=p.r.choice((0, 0, 1, None)))
    else:
        p.add(kind, [x], axes=axes or None, keepdims=keep)


def arg_or_sort(p: Program) -> None:
    x = p.number(1)
    axis = p.axis(x)
    if p.r.random() < 0.5:
        p.add(
            p.r.choice(("ArgMax", "ArgMin")),
            [x],
            axis=axis,
            keepdims=p.r.choice((0, 1)),
            select_last_index=p.r.choice((0, 1)) if p.opset >= 12 else None,
        )
    elif p.opset >= 11:
        d = p.values[x].shape[axis]
        p.add(
            "TopK",
            [x, p.constant([p.r.randint(0, d)], "int64")],
            2,
            axis=axis,
            largest=p.r.choice((0, 1)),
            sorted=1,
        )


def softmax(p: Program) -> None:
    x = p.float(1)
    p.add(
        p.r.choice(("Softmax", "LogSoftmax", "Hardmax")),
        [x],
        axis=p.axis(x) if p.opset >= 11 else p.axis(x, False),
    )


def shape(p: Program) -> None:
    x = p.any()
    a: dict[str, Any] = {}
    if p.opset >= 15 and p.r.random() < 0.5:
        a = {"start": p.r.randint(-3, 2), "end": p.r.choice((None, 1, 2, -1))}
    p.add(p.r.choice(("Shape", "Shape", "Size")) if not a else "Shape", [x], **a)


def reshape(p: Program) -> None:
    x = p.any()
    how = p.r.randrange(8)
    s = list(p.values[x].shape)
    size = p.values[x].size
    if how == 0:
        p.add("Flatten", [x], axis=p.r.randint(0, len(s)))
    elif how == 1:
        p.add("Reshape", [x, p.constant([-1], "int64")])
    elif how == 2:
        target = [0 if p.r.random() < 0.5 else d for d in s]
        if target and p.r.random() < 0.6:
            target[p.r.randrange(len(target))] = -1
        p.add("Reshape", [x, p.constant(np.array(target, "int64"))])
    elif how == 3:
        divisors = [d for d in range(1, 8) if size % d == 0]
        target = p.r.choice(([p.r.choice(divisors), -1], [-1, p.r.choice(divisors)], [1, -1, 1]))
        p.add(
            "Reshape",
            [x, p.constant(target, "int64")],
            allowzero=p.r.choice((None, 0, 1)) if p.opset >= 14 else None,
        )
    elif how == 4:
        axes = sorted({p.r.randint(0, len(s)) for _ in range(p.r.choice((1, 1, 2)))})
        if p.opset >= 13:
            p.add("Unsqueeze", [x, p.constant(axes, "int64")])
        else:
            p.add("Unsqueeze", [x], axes=axes)
    elif how == 5:
        ones = [i for i, d in enumerate(s) if d == 1]
        axes = p.r.sample(ones, p.r.randint(0, len(ones)))
        axes = [a - len(s) if p.r.random() < 0.3 and p.opset >= 11 else a for a in axes]
        if not axes:
            raise Refused
        if p.opset >= 13:
            p.add("Squeeze", [x, p.constant(axes, "int64")])
        else:
            p.add("Squeeze", [x], axes=axes)
    elif how == 6:
        other = p.any()
        p.add("Reshape", [x, p.add("Shape", [other])[0]])
    else:
        perm = list(range(len(s)))
        p.r.shuffle(perm)
        p.add("Transpose", [x], perm=perm if p.r.random() < 0.8 and perm else None)


def expand(p: Program) -> None:
    x = p.any()
    s = list(p.values[x].shape)
    how = p.r.random()
    if how < 0.4:
        target = [p.r.choice((1, 2, 3)) if d == 1 else p.r.choice((1, d)) for d in s]
        target = [p.r.choice((1, 2))] * p.r.choice((0, 1)) + target
        p.add("Expand", [x, p.constant(np.array(target, "int64"))])
    elif how < 0.7:
        p.add("Tile", [x, p.constant(np.array([p.r.choice((0, 1, 1, 2, 3)) for _ in s], "int64"))])
    else:
        p.add("Expand", [x, p.add("Shape", [p.any()])[0]])


def concat(p: Program) -> None:
    x = p.any(1)
    axis = p.axis(x)
    v = p.values[x]

    def fits(y: np.ndarray) -> bool:
        return (
            y.dtype == v.dtype
            and y.ndim == v.ndim
            and all(
                a == b for i, (a, b) in enumerate(zip(v.shape, y.shape, strict=True)) if i != axis % v.ndim
            )
        )

    args = [x] + [p.pick(fits) for _ in range(p.r.choice((0, 1, 1, 2)))]
    if p.r.random() < 0.4:
        s = list(v.shape)
        s[axis] = p.r.choice((0, 1, 2))
        args.insert(p.r.randint(0, len(args)), p.like(x, s))
    p.add("Concat", args, axis=axis)


def split(p: Program) -> None:
    x = p.any(1)
    axis = p.axis(x)
    d = p.values[x].shape[axis]
    n = p.r.choice((1, 2, 2, 3))
    if p.r.random() < 0.5 or p.opset < 18:
        cuts = sorted(p.r.randint(0, d) for _ in range(n - 1))
        parts = [b - a for a, b in zip([0, *cuts], [*cuts, d], strict=True)]
        if p.opset >= 13:
            p.add("Split", [x, p.constant(parts, "int64")], n, axis=axis)
        else:
            p.add("Split", [x], n, axis=axis, split=parts)
    else:
        p.add("Split", [x], n, axis=axis, num_outputs=n)


def slice_(p: Program) -> None:
    x = p.any(1)
    axes = p.axes(x, 3)
    s = p.values[x].shape
    big = p.r.choice((100, 2**31 - 1, 2**63 - 1))
    starts = [p.r.choice((0, 0, 1, -1, -2, p.r.randint(0, s[a]), -big, big)) for a in axes]
    steps = [p.r.choice((1, 1, 1, 2, 3, -1, -2, -1)) for _ in axes]
    ends = [p.r.choice((s[a], big, big, -1, 2, p.r.randint(0, s[a]), -big)) for a in axes]
    if max(ends) == big and min(steps) < 0:
        raise Refused  # ONNX Runtime goes on to the other end
    if p.opset < 10:
        p.add("Slice", [x], axes=axes, starts=starts, ends=ends)
        return
    kind = p.r.choice(("int64", "int64", "int32")) if big < 2**40 else "int64"
    args = [x, p.constant(starts, kind), p.constant(ends, kind)]
    if p.r.random() < 0.85:
        args.append(p.constant(axes, kind))
        if p.r.random() < 0.6:
            args.append(p.constant(steps, kind))
    p.add("Slice", args)


def slice_by_value(p: Program) -> None:
    """Bounds that follow from a shape."""
    x, y = p.any(1), p.any(1)
    if p.opset < 10:
        raise Refused
    n = p.add("Gather", [p.add("Shape", [y])[0], p.constant([0], "int64")])[0]
    if p.r.random() < 0.5:
        n = p.add(p.r.choice(("Sub", "Add", "Mul")), [n, p.constant([1], "int64")])[0]
    if p.r.random() < 0.5:
        p.add("Slice", [x, p.constant([0], "int64"), n, p.constant([p.axis(x)], "int64")])
    else:
        p.add("Slice", [x, n, p.constant([2**31 - 1], "int64"), p.constant([p.axis(x)], "int64")])


def pad(p: Program) -> None:
    x = p.pick(lambda v: v.ndim >= 1 and v.dtype != bool)
    n = p.values[x].ndim
    mode = p.r.choice(
        ("constant", "constant", "reflect", "edge", "wrap")
        if p.opset >= 19
        else ("constant", "reflect", "edge")
    )
    pads = [p.r.choice((0, 0, 0, 1, 2, -1 if mode == "constant" else 0)) for _ in range(2 * n)]
    if p.opset >= 18 and p.r.random() < 0.4:
        axes = p.axes(x, 2)
        pads = pads[: 2 * len(axes)]
        value = p.constant(p.r.choice((0, 1, 2)), p.values[x].dtype) if p.r.random() < 0.6 else ""
        p.add(
            "Pad",
            [x, p.constant(pads, "int64"), value, p.constant(axes, p.r.choice(("int64", "int32")))],
            mode=mode,
        )
    elif p.opset >= 11:
        p.add(
            "Pad",
            [x, p.constant(pads, "int64")]
            + ([p.constant(3, p.values[x].dtype)] if p.r.random() < 0.5 else []),
            mode=mode,
        )
    else:
        p.add("Pad", [x], pads=pads, mode=mode, value=0.5)


def gather(p: Program) -> None:
    x = p.any(1)
    axis = p.axis(x)
    s = p.values[x].shape
    d = s[axis]
    if not d:
        raise Refused
    kind = p.r.choice(("int64", "int32"))
    g = np.random.default_rng(p.r.randrange(1 << 30))
    how = p.r.randrange(5)
    if how == 0:
        shape = p.r.choice(([], [1], [2], [2, 3], [0], [3, 1]))
        p.add("Gather", [x, p.constant(g.integers(-d, d, shape), kind)], axis=axis)
    elif how == 1 and p.opset >= 11:
        shape = [p.r.randint(1, k) if k else 0 for k in s]
        p.add("GatherElements", [x, p.constant(g.integers(-d, d, shape), kind)], axis=axis)
    elif how == 2 and p.opset >= 11 and min(s):
        n = p.r.randint(1, len(s))
        b = p.r.choice((0, 1)) if p.opset >= 12 and n < len(s) else 0
        lead = ([s[0]] if b else []) + [p.r.choice((1, 2, 3)) for _ in range(p.r.choice((0, 1, 2)))]
        low = s[b : b + n]
        idx = (
            np.stack([g.integers(-k, k, lead) for k in low], -1)
            if lead
            else np.array([g.integers(-k, k) for k in low])
        )
        p.add("GatherND", [x, p.constant(idx, "int64")], batch_dims=b or None)
    elif how == 3:
        chosen = p.pick(
            lambda v: v.dtype in (np.int64, np.int32) and v.size and v.min() >= -d and v.max() < d
        )
        p.add("Gather", [x, chosen], axis=axis)
    else:
        cond = p.constant(g.random(d) < 0.5)
        p.add("Compress", [x, cond], axis=axis)


def scatter(p: Program) -> None:
    if p.opset < 16:
        raise Refused
    x = p.any(1)
    v = p.values[x]
    if not v.size:
        raise Refused
    s = v.shape
    g = np.random.default_rng(p.r.randrange(1 << 30))
    reduction = p.r.choice(("none", "add", "mul") + (("max", "min") if p.opset >= 18 else ()))
    if p.r.random() < 0.5:
        axis = p.axis(x)
        shape = [p.r.randint(1, k) for k in s]
        d = s[axis]
        if reduction == "none":
            shape[axis] = 1
        idx = g.integers(-d, d, shape)
        p.add(
            "ScatterElements",
            [x, p.constant(idx, "int64"), p.constant(random_array(p.r, v.dtype, shape))],
            axis=axis,
            reduction=reduction,
        )
    else:
        n = p.r.randint(1, len(s))
        lead = [1] if reduction == "none" else [p.r.choice((1, 2, 3, 0))]
        idx = np.stack([g.integers(-k, k, lead) for k in s[:n]], -1)
        p.add(
            "ScatterND",
            [x, p.constant(idx, "int64"), p.constant(random_array(p.r, v.dtype, [*lead, *s[n:]]))],
            reduction=reduction,
        )


def where(p: Program) -> None:
    x = p.any()
    y = p.like(x)
    bools = [
        n
        for n, v in p.values.items()
        if v.dtype == bool and _broadcast(v, p.values[x]) and _broadcast(v, p.values[y])
    ]
    c = p.r.choice(bools) if bools else p.constant(random_array(p.r, bool, p.values[x].shape))
    p.add("Where", [c, x, y] if p.r.random() < 0.5 else [c, y, x])


def matmul(p: Program) -> None:
    x = p.float(1)
    v = p.values[x]
    k = v.shape[-1]
    shape = p.r.choice(([k], [k, 1], [k, 3], [k, 17], [*([1] * p.r.choice((0, 1))), *v.shape[:-2], k, 4]))
    if p.r.random() < 0.25 and v.ndim == 2:
        ta, tb = p.r.choice((0, 1)), p.r.choice((0, 1))
        kk = v.shape[0] if ta else k
        w = p.constant(random_array(p.r, v.dtype, [5, kk] if tb else [kk, 5]))
        m = v.shape[1] if ta else v.shape[0]
        c = [p.constant(random_array(p.r, v.dtype, p.r.choice(([5], [1], [], [m, 5], [m, 1], [1, 5]))))]
        p.add(
            "Gemm",
            [x, w] + (c if p.r.random() < 0.7 or p.opset < 11 else []),
            transA=ta,
            transB=tb,
            alpha=p.r.choice((None, 0.5, 2.0)),
            beta=p.r.choice((None, 0.0, 0.3)),
        )
    elif p.r.random() < 0.3:
        fits = lambda y: y.dtype == v.dtype and y.ndim >= 2 and y.shape[-2] == k
        p.add("MatMul", [x, p.pick(fits)])
    else:
        w = p.constant(random_array(p.r, v.dtype, shape))
        p.add("MatMul", [x, w])


def einsum(p: Program) -> None:
    if p.opset < 12:
        raise Refused
    x = p.float(2)
    n = p.values[x].ndim
    if n > 4:
        raise Refused
    letters = "abcd"[:n]
    k = p.r.randrange(4)
    if k == 0:
        perm = "".join(p.r.sample(letters, p.r.randint(0, n)))
        p.add("Einsum", [x], equation=f"{letters}->{perm}")
    elif k == 1:
        w = p.constant(random_array(p.r, p.values[x].dtype, [p.values[x].shape[-1], 3]))
        p.add("Einsum", [x, w], equation=f"{letters},{letters[-1]}z->{letters[:-1]}z")
    elif k == 2:
        p.add("Einsum", [x, x], equation=f"...{letters[-1]},...{letters[-1]}->...")
    else:
        y = p.like(x, p.values[x].shape)
        out = "".join(p.r.sample(letters, p.r.randint(0, n)))
        p.add("Einsum", [x, y], equation=f"{letters},{letters}->{out}")


def conv(p: Program) -> None:
    x = p.pick(lambda v: v.dtype == np.float32 and v.ndim in (3, 4) and v.shape[1] > 0)
    v = p.values[x]
    n = v.ndim - 2
    c = v.shape[1]
    group = p.r.choice([g for g in range(1, c + 1) if c % g == 0])
    k = [p.r.choice((1, 2, 3)) for _ in range(n)]
    a: dict[str, Any] = {
        "group": group,
        "dilations": [p.r.choice((1, 1, 2)) for _ in range(n)],
        "strides": [p.r.choice((1, 1, 2)) for _ in range(n)],
    }
    if p.r.random() < 0.4:
        a["auto_pad"] = p.r.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
        if "SAME" in a["auto_pad"]:
            a["dilations"] = [1] * n
    else:
        a["pads"] = [p.r.choice((0, 1, 1, 2)) for _ in range(2 * n)]
    if p.r.random() < 0.7:
        m = group * p.r.choice((1, 2, 4))
        w = p.constant(random_array(p.r, v.dtype, [m, c // group, *k]))
        b = [p.constant(random_array(p.r, v.dtype, [m]))] if p.r.random() < 0.5 else []
        p.add("Conv", [x, w, *b], **a, kernel_shape=k if p.r.random() < 0.5 else None)
    else:
        m = p.r.choice((1, 2, 3))
        a["auto_pad"] = "NOTSET"  # of others ONNX Runtime makes other sizes than the standard
        w = p.constant(random_array(p.r, v.dtype, [c, m, *k]))
        b = [p.constant(random_array(p.r, v.dtype, [m * group]))] if p.r.random() < 0.5 else []
        if "pads" in a and p.r.random() < 0.3:
            a["output_padding"] = [p.r.choice((0, 1)) for _ in range(n)]
        p.add("ConvTranspose", [x, w, *b], **a)


def _extents(a: dict[str, Any]) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(a["kernel_shape"], a.get("dilations") or [1] * 9, strict=False)]


def pool(p: Program) -> None:
    x = p.pick(lambda v: v.dtype.kind == "f" and v.ndim in (3, 4, 5))
    v = p.values[x]
    n = v.ndim - 2
    k = [p.r.choice((1, 2, 3)) for _ in range(n)]
    a: dict[str, Any] = {"kernel_shape": k}
    kind = p.r.choice("MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool".split())
    if kind.startswith("Global"):
        p.add(kind, [x])
        return
    a["strides"] = [p.r.choice((1, 2, 3)) for _ in range(n)] if p.r.random() < 0.7 else None
    if p.r.random() < 0.3:
        a["auto_pad"] = p.r.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
    else:
        a["pads"] = [p.r.randint(0, (d - 1) // 2 + (d > 2)) if d > 1 else 0 for d in k + k]
    if kind != "LpPool" and p.opset >= 10:
        a["ceil_mode"] = p.r.choice((0, 1))
    if kind == "AveragePool":
        a["count_include_pad"] = p.r.choice((0, 1))
    if "SAME" not in a.get("auto_pad", "") and (
        kind == "MaxPool" and p.opset >= 10 or kind == "AveragePool" and p.opset >= 19
    ):
        a["dilations"] = [p.r.choice((1, 1, 2)) for _ in range(n)]
    if any(d < e for d, e in zip(v.shape[2:], _extents(a), strict=True)):
        raise Refused  # ONNX Runtime has a window there
    p.add(kind, [x], 2 if kind == "MaxPool" and p.r.random() < 0.3 else 1, **a)


def norm(p: Program) -> None:
    x = p.float(2)
    v = p.values[x]
    c = v.shape[1]
    make = lambda shape, low=-2.0: p.constant(
        np.abs(random_array(p.r, "float32", shape)).clip(0.1, 3).astype(v.dtype)
        if low > 0
        else random_array(p.r, v.dtype, shape)
    )
    kind = p.r.choice(
        "BatchNormalization InstanceNormalization LayerNormalization GroupNormalization LpNormalization "
        "MeanVarianceNormalization LRN RMSNormalization".split()
    )
    if kind == "BatchNormalization":
        p.add(kind, [x, make([c]), make([c]), make([c]), make([c], 1.0)], epsilon=1e-3)
    elif kind == "InstanceNormalization":
        p.add(kind, [x, make([c]), make([c])], epsilon=1e-3)
    elif kind in ("LayerNormalization", "RMSNormalization"):
        axis = p.axis(x)
        s = v.shape[axis:] if axis < 0 else v.shape[axis:]
        shape = p.r.choice((s, s, s[-1:], [1]))
        b = [make(shape)] if p.r.random() < 0.6 and kind[0] == "L" else []
        p.add(
            kind,
            [x, make(shape), *b],
            1 if kind[0] == "R" or p.r.random() < 0.7 else 3,
            axis=axis,
            epsilon=1e-3,
        )
    elif kind == "GroupNormalization":
        groups = p.r.choice([g for g in range(1, c + 1) if c % g == 0] or [1])
        n = c if p.opset >= 21 else groups
        p.add(kind, [x, make([n]), make([n])], num_groups=groups, epsilon=1e-3)
    elif kind == "LpNormalization":
        p.add(kind, [x], axis=p.axis(x), p=p.r.choice((1, 2)))
    elif kind == "MeanVarianceNormalization":
        p.add(kind, [x], axes=p.axes(x))
    else:
        p.add(kind, [x], size=p.r.choice((1, 3)), alpha=0.01, beta=0.7, bias=1.2)


def cumulative(p: Program) -> None:
    if p.opset < 11:
        raise Refused
    x = p.number(1)
    p.add(
        "CumSum",
        [x, p.constant(p.axis(x), p.r.choice(("int64", "int32")))],
        exclusive=p.r.choice((0, 1)),
        reverse=p.r.choice((0, 1)),
    )


def sized(p: Program) -> None:
    """Values of a size that follows from a shape."""
    x = p.any()
    how = p.r.randrange(6)
    if how == 0 and p.opset >= 9:
        p.add("ConstantOfShape", [p.add("Shape", [x])[0]], value=_one(p.r))
    elif how == 1 and p.opset >= 11:
        n = p.add("Size", [x])[0]
        p.add("Range", [p.constant(0, "int64"), n, p.constant(p.r.choice((1, 2, 3)), "int64")])
    elif how == 2 and p.opset >= 9:
        p.add("NonZero", [x])
    elif how == 3 and p.opset >= 11:
        d = p.r.choice((3, 5))
        idx = p.pick(lambda v: v.dtype.kind in "iu" and v.size)
        p.add(
            "OneHot",
            [idx, p.constant(p.r.choice((d, [d])), "int64"), p.constant([0.5, 2.0], "float32")],
            axis=p.r.choice((-1, 0)),
        )
    elif how == 4 and p.opset >= 14:
        x = p.any(2)
        k = [p.constant(p.r.choice((-5, -1, 0, 1, 2, 9)), "int64")] if p.r.random() < 0.7 else []
        p.add("Trilu", [x, *k], upper=p.r.choice((0, 1)))
    elif how == 5 and p.opset >= 9:
        p.add("EyeLike", [p.any(2)], k=p.r.choice((-1, 0, 1)), dtype=p.r.choice((1, 7)))
    else:
        raise Refused


def _one(r: random.Random) -> Any:
    import onnx

    return onnx.numpy_helper.from_array(random_array(r, r.choice(("float32", "int64", "int32", "bool")), [1]))


def unique(p: Program) -> None:
    if p.opset < 11:
        raise Refused
    x = p.pick(lambda v: v.dtype in (np.float32, np.int64, np.int32, np.float64))
    p.add(
        "Unique",
        [x],
        p.r.choice((1, 2, 4)),
        axis=p.axis(x) if p.r.random() < 0.5 and p.values[x].ndim else None,
        sorted=p.r.choice((0, 1)),
    )


def resize(p: Program) -> None:
    if p.opset < 11:
        raise Refused
    x = p.pick(lambda v: v.dtype == np.float32 and v.ndim in (2, 3, 4) and v.size and np.isfinite(v).all())
    s = p.values[x].shape
    mode = p.r.choice(("nearest", "linear", "nearest", "cubic") if len(s) == 4 else ("nearest", "linear"))
    lead = 0 if len(s) == 2 or mode == "nearest" else len(s) - 2
    a: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": p.r.choice(
            ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        ),
    }
    if mode == "nearest":
        a["nearest_mode"] = p.r.choice(("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"))
    roi = "" if p.opset >= 13 else p.constant(np.zeros(0, "float32"))
    if p.r.random() < 0.5:
        if a["coordinate_transformation_mode"] == "align_corners":
            raise Refused  # docs/onnx.md: ONNX Runtime aligns the corners of the rounded size
        scales = [1.0 if i < lead else p.r.choice((0.5, 1.0, 2.0, 1.5, 0.7)) for i in range(len(s))]
        p.add("Resize", [x, roi, p.constant(scales, "float32")], **a)
    else:
        sizes = [d if i < lead else p.r.choice((1, 2, 3, 5, d)) for i, d in enumerate(s)]
        empty = "" if p.opset >= 13 else p.constant(np.zeros(0, "float32"))
        p.add("Resize", [x, roi, empty, p.constant(sizes, "int64")], **a)


def space(p: Program) -> None:
    x = p.pick(lambda v: v.dtype == np.float32 and v.ndim == 4)
    b = p.r.choice((1, 2))
    if p.r.random() < 0.5:
        p.add("SpaceToDepth", [x], blocksize=b)
    else:
        p.add("DepthToSpace", [x], blocksize=b, mode=p.r.choice(("DCR", "CRD")) if p.opset >= 11 else None)


def clip(p: Program) -> None:
    x = p.number()
    if p.opset < 11:
        p.add("Clip", [x], min=p.r.choice((None, -1.0)), max=p.r.choice((None, 1.0)))
        return
    d = p.values[x].dtype
    low = p.constant(1, d) if p.r.random() < 0.6 else ""
    p.add("Clip", [x, low] + ([p.constant(p.r.choice((0, 3)), d)] if p.r.random() < 0.6 else []))


def recurrent(p: Program) -> None:
    x = p.pick(lambda v: v.dtype == np.float32 and v.ndim == 3 and v.size)
    t, b, i = p.values[x].shape
    kind = p.r.choice(("LSTM", "GRU", "RNN"))
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    h = p.r.choice((1, 2, 3))
    direction = p.r.choice(("forward", "reverse", "bidirectional"))
    d = 2 if direction == "bidirectional" else 1
    f = lambda *s: p.constant(random_array(p.r, "float32", s).clip(-2, 2))
    args = [x, f(d, gates * h, i), f(d, gates * h, h)]
    args.append(f(d, 2 * gates * h) if p.r.random() < 0.5 else "")
    args.append(p.constant([p.r.randint(1, t) for _ in range(b)], "int32") if p.r.random() < 0.4 else "")
    args.append(f(d, b, h) if p.r.random() < 0.4 else "")
    if kind == "LSTM":
        args.append(f(d, b, h) if p.r.random() < 0.4 else "")
        args.append(f(d, 3 * h) if p.r.random() < 0.3 else "")
    while args[-1] == "":
        args.pop()
    p.add(
        kind,
        args,
        3 if kind == "LSTM" else 2,
        hidden_size=h,
        direction=direction,
        clip=p.r.choice((None, None, 0.5)),
        linear_before_reset=p.r.choice((0, 1)) if kind == "GRU" else None,
        input_forget=p.r.choice((None, None, 1)) if kind == "LSTM" else None,
    )


def quantize(p: Program) -> None:
    if p.opset < 10:
        raise Refused
    x = p.pick(lambda v: v.dtype == np.float32 and np.isfinite(v).all() and v.size)
    kind = p.r.choice(("uint8", "int8"))
    if p.r.random() < 0.3 and p.opset >= 11:
        q, s, z = p.add("DynamicQuantizeLinear", [x], 3)
        p.add("DequantizeLinear", [q, s, z])
        return
    a: dict[str, Any] = {}
    if p.r.random() < 0.5 and p.opset >= 13 and p.values[x].ndim:
        a = {"axis": p.axis(x)}
        n = [p.values[x].shape[a["axis"]]]
    else:
        n = []
    s = p.constant(np.abs(random_array(p.r, "float32", n)).clip(0.01, 1).astype("float32"))
    z = p.constant(random_array(p.r, kind, n))
    q = p.add("QuantizeLinear", [x, s, z], **a)[0]
    if p.r.random() < 0.6:
        p.add("DequantizeLinear", [q, s, z], **a)


def integer_matmul(p: Program) -> None:
    if p.opset < 10:
        raise Refused
    x = p.pick(lambda v: v.dtype in (np.uint8, np.int8) and v.ndim >= 2)
    w = p.constant(random_array(p.r, p.r.choice(("uint8", "int8")), [p.values[x].shape[-1], 3]))
    z = [p.constant(2, p.values[x].dtype)] if p.r.random() < 0.5 else []
    if z and p.r.random() < 0.5:
        z.append(p.constant(1, p.values[w].dtype))
    p.add("MatMulInteger", [x, w, *z])


def gathered_sizes(p: Program) -> None:
    """A reshape by sizes that are computed one by one, as exporters write it."""
    x = p.any(2)
    s = p.add("Shape", [x])[0]
    parts = []
    for i in range(p.values[x].ndim):
        d = p.add("Gather", [s, p.constant(i, "int64")])[0]
        parts.append(
            p.add("Unsqueeze", [d], axes=[0])[0]
            if p.opset < 13
            else p.add("Unsqueeze", [d, p.constant([0], "int64")])[0]
        )
    order = parts[:]
    p.r.shuffle(order)
    if p.r.random() < 0.5:
        k = p.r.randrange(len(order))
        merged = p.add("Mul", [order[k], order[k - 1]])[0]
        order = [merged] + [o for i, o in enumerate(order) if i not in (k, (k - 1) % len(order))]
    p.add("Reshape", [x, p.add("Concat", order, axis=0)[0]])


def inner(p: Program, wanted: int) -> Program:
    q = Program(p.r, p.opset, p, f"{p.prefix}{p.name('s')}_")
    for _ in range(wanted):
        q.statement()
    return q


def subgraph(
    q: Program, inputs: list[tuple[str, np.ndarray]], outputs: list[str], ranks: bool = False
) -> Any:
    import onnx
    import onnx.helper as h

    infos = [
        h.make_tensor_value_info(
            n, h.np_dtype_to_tensor_dtype(x.dtype), [None] * x.ndim if ranks or x.ndim == 0 else None
        )
        for n, x in inputs
    ]
    outs = [
        h.make_tensor_value_info(
            n, h.np_dtype_to_tensor_dtype(q.values[n].dtype), [None] * q.values[n].ndim if ranks else None
        )
        for n in outputs
    ]
    constants = [onnx.numpy_helper.from_array(np.array(q.constants[n]), n) for n in q.own_constants]
    return h.make_graph(q.nodes, q.name("g"), infos, outs, constants)


def results(q: Program, test: Any = None) -> list[str]:
    names = [o for n in q.nodes for o in n.output if o and (test is None or test(q.values[o]))]
    if not names:
        raise Refused
    return names


def if_(p: Program) -> None:
    if p.prefix.count("_") > 1:
        raise Refused
    bools = [n for n, v in p.values.items() if v.dtype == bool and v.size == 1 and n not in p.constants]
    if bools and p.r.random() < 0.5:
        cond = p.r.choice(bools)
    else:
        x = p.number()
        t = p.add("ReduceMax", [x], keepdims=0)[0] if p.r.random() < 0.5 else p.add("Size", [x])[0]
        cond = p.add(
            "Greater", [p.add("Cast", [t], to=1)[0], p.constant(p.r.choice((0, 1, 4, 12)), "float32")]
        )[0]
    a = inner(p, p.r.choice((1, 2, 3)))
    b = inner(p, p.r.choice((0, 1, 2)))
    outs = p.r.sample(results(a), min(len(results(a)), p.r.choice((1, 1, 2))))
    others = []
    for o in outs:
        v = a.values[o]
        fits = [
            n for n, y in b.values.items() if y.dtype == v.dtype and n not in b.constants and y.ndim == v.ndim
        ]
        if fits and p.r.random() < 0.8:
            n = p.r.choice(fits)
            others.append(b.add("Identity", [n])[0])
            b.values[others[-1]] = b.values[n]
        else:
            others.append(b.constant(random_array(p.r, v.dtype, v.shape)))
    p.add("If", [cond], len(outs), then_branch=subgraph(a, [], outs), else_branch=subgraph(b, [], others))


def loop(p: Program) -> None:
    if p.prefix.count("_") > 1:
        raise Refused
    x = p.any()
    q = Program(p.r, p.opset, p, f"{p.prefix}{p.name('s')}_")
    i, c, s = q.name("i"), q.name("k"), q.name("x")
    q.values[i], q.values[c], q.values[s] = np.array(0, "int64"), np.array(True), p.values[x]
    for _ in range(p.r.choice((1, 2, 3, 4))):
        q.statement()
    same = [
        n
        for n in results(q)
        if q.values[n].dtype == q.values[x].dtype and q.values[n].shape == q.values[x].shape
    ]
    carried = p.r.choice(same) if same and p.r.random() < 0.9 else q.add("Add", [s, s])[0]
    q.values[carried] = q.values.get(carried, q.values[s])
    scans = p.r.sample(results(q), min(len(results(q)), p.r.choice((0, 1, 1, 2))))
    scans = [q.add("Identity", [n])[0] for n in scans if n in q.values]
    for n in scans:
        source = q.nodes[-1 - (len(scans) - 1 - scans.index(n))].input[0]
        q.values[n] = q.values[source]
    if p.r.random() < 0.4:
        stop = q.add("Less", [i, q.constant(p.r.choice((0, 1, 3)), "int64")])[0]
    else:
        stop = q.add("Identity", [c])[0]
    q.values[stop] = np.array(True)
    k = len(scans)
    body = subgraph(q, [(i, q.values[i]), (c, q.values[c]), (s, q.values[s])], [stop, carried, *scans])
    trips = p.constant(p.r.choice((0, 1, 2, 3, 5)), "int64") if p.r.random() < 0.7 else _trips(p)
    cond = p.r.choice(("", p.constant(True)))
    p.add("Loop", [trips, cond, x], 1 + k, body=body)


def _trips(p: Program) -> str:
    """A number of iterations that follows from a shape."""
    return p.add("Gather", [p.add("Shape", [p.any(1)])[0], p.constant(0, "int64")])[0]


def scan(p: Program) -> None:
    if p.prefix.count("_") > 1 or p.opset < 9:
        raise Refused
    xs = p.any(1)
    axis = p.axis(xs)
    v = np.moveaxis(p.values[xs], axis, 0)
    if not len(v):
        raise Refused
    state = p.number()
    q = Program(p.r, p.opset, p, f"{p.prefix}{p.name('s')}_")
    s, e = q.name("x"), q.name("e")
    q.values[s], q.values[e] = p.values[state], np.array(v[0])
    for _ in range(p.r.choice((1, 2, 3))):
        q.statement()
    same = [
        n
        for n in results(q)
        if q.values[n].dtype == q.values[s].dtype and q.values[n].shape == q.values[s].shape
    ]
    new = p.r.choice(same) if same else q.add("Add", [s, s])[0]
    q.values[new] = q.values.get(new, q.values[s])
    out = p.r.choice(results(q, lambda _: True))
    y = q.add("Identity", [out])[0]
    q.values[y] = q.values[out]
    body = subgraph(q, [(s, q.values[s]), (e, q.values[e])], [new, y], ranks=True)
    p.add(
        "Scan",
        [state, xs],
        2,
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[p.r.choice((0, 1))],
        scan_output_axes=[p.r.randint(0, q.values[y].ndim)],
        scan_output_directions=[p.r.choice((0, 1))],
    )


STATEMENTS = [unary] * 4 + [binary] * 5 + [cast, cast, reduce, reduce, arg_or_sort, softmax, shape, reshape, reshape, reshape, expand,
              concat, concat, split, slice_, slice_, slice_by_value, pad, gather, gather, scatter, where, matmul, matmul, einsum, conv, pool,
              norm, norm, cumulative, sized, unique, resize, space, clip, recurrent, quantize, integer_matmul,
              gathered_sizes, if_, if_, loop, loop, scan]  # fmt: skip


class Case:
    def __init__(self, seed: int, without: list[int]):
        r = self.r = random.Random(seed)
        opset = r.choice((7, 8, 9, 10, 11, 12, 13, 13, 14, 15, 16, 17, 17, 18, 18, 19, 20, 21, 21, 22, 23))
        p = self.p = Program(r, opset)
        a = {k: r.choice(SIZES) for k in "abcd"}
        self.other = {k: r.choice(SIZES) if r.random() < 0.6 else v for k, v in a.items()}
        self.sizes: dict[str, list[Any]] = {}
        for i in range(r.choice((1, 2, 2, 3))):
            name = "xyz"[i]
            kind = r.choice(FLOATS) if i == 0 or r.random() < 0.5 else r.choice(INTEGERS)
            dims = (
                [r.choice("abcd") for _ in range(r.choice((0, 1, 2, 2, 3, 3, 4)))]
                if i
                else [r.choice("abcd") for _ in range(r.choice((1, 2, 3, 4)))]
            )
            fixed = r.random() < 0.3
            self.sizes[name] = [a[d] if fixed else d for d in dims]
            p.values[name] = random_array(r, kind, [a[d] for d in dims])
        self.inputs = dict(p.values)
        wanted = r.choice(LENGTHS)
        for i in range(wanted):
            draw = random.Random(r.random())
            p.r = draw
            if i not in without:
                p.statement()
        self.wanted = wanted
        p.r = r
        made = [o for n in p.nodes for o in n.output if o and o in p.values]
        outs = [made[-1]] if made else []
        outs += r.sample(made, min(len(made), r.choice((0, 1, 2, 3))))
        if r.random() < 0.1:
            outs.append(r.choice(list(self.inputs)))
        outs = list(dict.fromkeys(outs))
        self.outputs = outs
        used = _used(p.nodes)
        constants = {n: x for n, x in p.constants.items() if n in used}
        as_inputs = [n for n in constants if r.random() < 0.04]
        self.data = (
            make_model(p.nodes, self.inputs, constants, outs, opset, self.sizes, as_inputs) if made else b""
        )
        self.second = {
            n: random_array(
                r, x.dtype, [self.other.get(d, d) if isinstance(d, str) else d for d in self.sizes[n]]
            )
            for n, x in self.inputs.items()
        }


make = fuzzing.make_by_seed


def check(case: dict[str, Any]) -> str:
    import ovjit
    from ovjit.errors import OvjitError

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        c = Case(case["seed"], case["without"])
        if not c.data:
            return ""
        title = f"opset {c.p.opset} {[n.op_type for n in c.p.nodes]}"
        compiled: Any = None
        for which, inputs in (("first", c.inputs), ("second", c.second), ("third", c.inputs)):
            want = fuzz_onnx_cases.by_onnxruntime(c.data, inputs)
            try:
                if compiled is None:
                    compiled = ovjit.Core().compile_model(
                        ovjit.Core().read_model(c.data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
                    )
                used = {name for port in compiled.inputs for name in port.names}
                got: Any = [
                    np.asarray(v) for v in compiled({n: x for n, x in inputs.items() if n in used}).values()
                ]
            except Exception as error:
                got = error
            if isinstance(got, Exception):
                if "rank is unknown" in str(got):
                    return ""
                if not isinstance(got, (OvjitError, MemoryError)) or "internal error" in str(got):
                    return f"{title}: {which}: raises {type(got).__name__}: {got}"
                if isinstance(want, list) and isinstance(fuzz_onnx_cases.by_reference(c.data, inputs), list):
                    return f"{title}: {which}: refuses: {type(got).__name__} {str(got)[:600]}"
                if compiled is None:
                    return ""
                continue
            if not isinstance(want, list):
                continue
            if wrong := _differ(got, want):
                ref = fuzz_onnx_cases.by_reference(c.data, inputs)
                if isinstance(ref, list) and not _differ(got, ref):
                    continue
                return f"{title}: {which} {[list(x.shape) for x in inputs.values()]}: {wrong}"
    return ""


def _differ(got: list[np.ndarray], want: list[np.ndarray]) -> str:
    """Shapes of nothing are not compared: what a Loop without iterations collects has no shape in the standard."""

    def finite(x: np.ndarray) -> np.ndarray:
        top = np.finfo(x.dtype).max if x.dtype.kind == "f" else 0
        return np.clip(x, -top, top) if top else x

    got, want = ([finite(x) for x in a] for a in (got, want))
    pairs = [(x, y) for x, y in zip(got, want, strict=True) if x.size or y.size]
    return fuzz_onnx_cases.differ([x for x, _ in pairs], [y for _, y in pairs])


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return fuzzing.without_steps(case, Case(case["seed"], case["without"]).wanted)


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
