"""Operations that index, slice, pad, split and reshape, with hostile numbers as constants and as inputs, with
open dimensions, between inaccessible pages. Native code and reference agree: on the answer, or to refuse."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.errors import ModelError, OvjitError
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.graph.shapes import ANY
from tests.fuzz import fuzzing
from tests.fuzz.fuzz_models import is_no_step
from tests.support import guard_pages

HOSTILE = [0, 0, 1, 1, 2, 3, -1, -1, -2, -3, 5, 7, 8, 100, -100, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1,
           2**32, 2**40, -(2**40), 2**62, -(2**62), 2**63 - 1, -(2**63)]  # fmt: skip
INDEX_TYPES = ["i32", "i64", "i64", "i64", "i8", "u8", "u32", "u64", "i16", "u16"]
#: A tensor of more elements is not asked for: it is no fault to have no memory for it.
MOST = 1 << 22


class _Maker:
    def __init__(self, seed: int):
        self.rng = np.random.default_rng([20261204, seed])
        rank = int(self.rng.integers(1, 5))
        self.shape = [
            int(self.rng.choice([0, 1, 2, 3, 4, 5, 8, 17], p=[0.04, *[0.96 / 7] * 7])) for _ in range(rank)
        ]
        self.rank = rank

    def pick(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def number(self, usual: int) -> int:
        """Mostly what is usual, else anything."""
        return usual if self.rng.random() < 0.75 else int(self.pick(*HOSTILE))

    def small(self) -> int:
        return self.number(int(self.rng.integers(-3, 6)))

    def axis(self) -> int:
        return self.number(int(self.rng.integers(-self.rank, self.rank)))

    def many(self, count: int, make: Any) -> list[int]:
        count = count if self.rng.random() < 0.9 else int(self.rng.integers(0, 6))
        return [make() for _ in range(count)]

    def index(self, shape: list[int], extent: int) -> dict[str, Any]:
        kind = self.pick(*INDEX_TYPES)
        info = np.iinfo(dtypes.numpy_dtype(kind))
        count = int(np.prod(shape, dtype=np.int64)) if shape else 1
        one = max(extent, 1)
        usual = lambda: int(self.rng.integers(-one if info.min else 0, one))  # noqa: E731
        hostile = self.rng.random() < 0.3
        values = [self.number(usual()) if hostile else usual() for _ in range(min(count, 400))]
        values = [min(max(v, int(info.min)), int(info.max)) for v in values]
        return {"values": values, "shape": shape, "type": kind}

    def data(self, shape: list[int] | None = None) -> dict[str, Any]:
        return {"data": self.shape if shape is None else shape}

    def ints(self, values: list[int] | int) -> dict[str, Any]:
        shape = [len(values)] if isinstance(values, list) else []
        return {"values": values if isinstance(values, list) else [values], "shape": shape, "type": "i64"}


def _slice(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    n = int(m.rng.integers(1, m.rank + 1))
    step = lambda: m.number(m.pick(-2, -1, 1, 2))  # noqa: E731
    lists = [m.many(n, m.small), m.many(n, m.small), m.many(n, step), m.many(n, m.axis)]
    return "Slice", [m.data(), *map(m.ints, lists)], {}


def _strided(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    n = int(m.rng.integers(1, m.rank + 1))
    names = ("begin_mask", "end_mask", "new_axis_mask", "shrink_axis_mask", "ellipsis_mask")
    masks = {k: [int(m.rng.random() < 0.15) for _ in range(n)] for k in names}
    lists = [m.many(n, m.small), m.many(n, m.small), m.many(n, lambda: m.number(m.pick(-2, -1, 1, 2)))]
    return "StridedSlice", [m.data(), *map(m.ints, lists)], masks


def _gather(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    axis = int(m.rng.integers(0, m.rank))
    batch = int(m.rng.integers(0, axis + 1)) if m.rng.random() < 0.3 else 0
    shape = [*m.shape[:batch], *m.pick([3], [2, 2], [], [0], [17])]
    return "Gather", [m.data(), m.index(shape, m.shape[axis]), m.ints(m.number(axis))], {"batch_dims": batch}


def _gather_elements(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    axis = int(m.rng.integers(0, m.rank))
    shape = list(m.shape)
    shape[axis] = m.pick(1, 3, 9)
    if m.rng.random() < 0.15:
        shape[m.pick(*range(m.rank))] = m.pick(1, 20)
    return "GatherElements", [m.data(), m.index(shape, m.shape[axis])], {"axis": m.number(axis)}


def _gather_nd(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    depth = (
        m.number(int(m.rng.integers(1, m.rank + 1)))
        if m.rng.random() < 0.1
        else int(m.rng.integers(1, m.rank + 1))
    )
    depth = min(max(depth, 0), 6)
    low = min(m.shape[:depth], default=1)
    return "GatherND", [m.data(), m.index([m.pick(0, 1, 5), depth], low)], {"batch_dims": m.pick(0, 0, 0, 1)}


def _scatter_update(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    axis = int(m.rng.integers(0, m.rank))
    many = m.pick([2], [1, 3], [0], [5])
    updates = [*m.shape[:axis], *many, *m.shape[axis + 1 :]]
    if m.rng.random() < 0.1:
        updates[m.pick(*range(len(updates)))] = m.pick(1, 2, 9)
    return (
        "ScatterUpdate",
        [m.data(), m.index(many, m.shape[axis]), m.data(updates), m.ints(m.number(axis))],
        {},
    )


def _scatter_nd(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    depth = int(m.rng.integers(1, m.rank + 1))
    count = m.pick(0, 1, 4)
    updates = [count, *m.shape[depth:]]
    if m.rng.random() < 0.1:
        updates[m.pick(*range(len(updates)))] = m.pick(1, 2, 9)
    low = min(m.shape[:depth])
    return "ScatterNDUpdate", [m.data(), m.index([count, depth], low), m.data(updates)], {"reduction": "none"}


def _scatter_elements(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    axis = int(m.rng.integers(0, m.rank))
    many = [m.pick(1, d, d) if a != axis else m.pick(1, 2) for a, d in enumerate(m.shape)]
    if m.rng.random() < 0.1:
        many[m.pick(*range(m.rank))] = m.pick(1, 9)
    attrs = {"reduction": m.pick("none", "sum", "min", "prod"), "use_init_val": bool(m.rng.integers(2))}
    return (
        "ScatterElementsUpdate",
        [m.data(), m.index(many, m.shape[axis]), m.data(many), m.ints(m.number(axis))],
        attrs,
    )


def _pad(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    mode = m.pick("constant", "edge", "reflect", "symmetric")
    lists = [m.many(m.rank, lambda: m.number(m.pick(0, 0, 1, 2, -1))) for _ in range(2)]
    return "Pad", [m.data(), *map(m.ints, lists), {"data": []}], {"pad_mode": mode}


def _reshape(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    pattern = m.many(m.pick(1, 2, 3), lambda: m.number(m.pick(-1, 0, 1, 2, 4)))
    return "Reshape", [m.data(), m.ints(pattern)], {"special_zero": bool(m.rng.integers(2))}


def _tile(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    return "Tile", [m.data(), m.ints(m.many(m.rank, lambda: m.number(m.pick(0, 1, 1, 2))))], {}


def _broadcast(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    target = [m.number(m.pick(1, d, d)) for d in m.shape]
    return "Broadcast", [m.data(), m.ints(target)], {"mode": m.pick("numpy", "bidirectional")}


def _transpose(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    return "Transpose", [m.data(), m.ints([m.number(int(v)) for v in m.rng.permutation(m.rank)])], {}


def _split(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    return "Split", [m.data(), m.ints(m.axis())], {"num_splits": m.number(m.pick(1, 2, 4))}


def _variadic(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    axis = m.axis()
    extent = m.shape[axis] if -m.rank <= axis < m.rank else 3
    first = int(m.rng.integers(0, extent + 1))
    return (
        "VariadicSplit",
        [m.data(), m.ints(axis), m.ints([m.number(first), m.number(m.pick(-1, extent - first))])],
        {},
    )


def _blocks(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    name = m.pick("SpaceToBatch", "BatchToSpace")
    blocks = [1, *(m.number(m.pick(1, 2)) for _ in range(m.rank - 1))]
    pads = [[0, *(m.number(m.pick(0, 0, 1)) for _ in range(m.rank - 1))] for _ in range(2)]
    if m.rng.random() < 0.1:
        pads[0][0] = m.number(1)
    return name, [m.data(), m.ints(blocks), *map(m.ints, pads)], {}


def _roll(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    n = m.pick(1, 1, 2)
    return "Roll", [m.data(), m.ints(m.many(n, m.small)), m.ints(m.many(n, m.axis))], {}


def _reverse(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    m.shape = [*m.shape, 3] if m.rank < 2 else m.shape
    batch, seq = (int(v) for v in m.rng.permutation(len(m.shape))[:2])
    lengths = [m.number(int(m.rng.integers(0, m.shape[seq] + 1))) for _ in range(m.shape[batch])]
    return "ReverseSequence", [m.data(), m.ints(lengths)], {"batch_axis": batch, "seq_axis": seq}


def _top_k(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    axis = int(m.rng.integers(0, m.rank))
    k = m.number(int(m.rng.integers(0, m.shape[axis] + 1)))
    return (
        "TopK",
        [m.data(), m.ints(k)],
        {"axis": m.number(axis), "mode": "max", "sort": m.pick("value", "index")},
    )


def _one_hot(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    on, off = ({"data": []} for _ in range(2))
    index = m.index(m.shape, 5)
    index["type"] = m.pick("i32", "i64")
    index["values"] = [min(max(v, -(2**31)), 2**31 - 1) for v in index["values"]]
    return "OneHot", [index, m.ints(m.number(m.pick(1, 5))), on, off], {"axis": m.number(0)}


def _unsqueeze(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    return m.pick("Unsqueeze", "Squeeze"), [m.data(), m.ints(m.many(m.pick(1, 2), m.axis))], {}


def _shuffle(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    return "ShuffleChannels", [m.data()], {"axis": m.axis(), "group": m.number(m.pick(1, 2))}


def _depth(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    attrs = {"block_size": m.number(m.pick(1, 2)), "mode": m.pick("blocks_first", "depth_first")}
    return m.pick("DepthToSpace", "SpaceToDepth"), [m.data()], attrs


def _reduce(m: _Maker) -> tuple[str, list[Any], dict[str, Any]]:
    name = m.pick("ReduceSum", "ReduceMax", "ReduceMean")
    return name, [m.data(), m.ints(m.many(m.pick(1, 2), m.axis))], {"keep_dims": bool(m.rng.integers(2))}


MAKERS = [
    _slice, _slice, _strided, _strided, _gather, _gather_elements, _gather_nd, _scatter_update, _scatter_nd,
    _scatter_elements, _pad, _reshape, _tile, _broadcast, _transpose, _split, _variadic, _blocks, _roll,
    _reverse, _top_k, _one_hot, _unsqueeze, _shuffle, _depth, _reduce,
]  # fmt: skip


def make(seed: int) -> dict[str, Any]:
    m = _Maker(seed)
    name, inputs, attrs = MAKERS[int(m.rng.integers(len(MAKERS)))](m)
    constants = [i > 0 and bool(m.rng.random() < 0.6) for i in range(len(inputs))]
    opened = [bool(m.rng.random() < 0.4) for _ in inputs]
    return {
        "op": name,
        "inputs": inputs,
        "attrs": attrs,
        "constants": constants,
        "open": opened,
        "seed": seed,
    }


def arrays_of(case: dict[str, Any]) -> list[np.ndarray]:
    rng = np.random.default_rng(case["seed"])
    out = []
    for what in case["inputs"]:
        if "data" in what:
            out.append(rng.integers(-9, 9, what["data"]).astype(np.float32))
            continue
        kind = dtypes.numpy_dtype(what["type"])
        count = int(np.prod(what["shape"], dtype=np.int64))
        values = np.array([v % 2**64 for v in what["values"]], np.uint64).astype(kind)
        out.append(
            np.resize(values, count).reshape(what["shape"]) if count else np.zeros(what["shape"], kind)
        )
    return out


def check(case: dict[str, Any]) -> str:
    arrays = arrays_of(case)
    attrs = {k: tuple(v) if isinstance(v, list) else v for k, v in case["attrs"].items()}
    return disagreement(find_op(case["op"]), arrays, attrs, case["constants"], case["open"])


#: Operations whose result has another rank where an open dimension is not 1. Then a graph refuses, as
#: OpenVINO does: it has the rank of the usual case.
RANKS_BY_VALUES = frozenset(("Squeeze",))


def disagreement(
    record: Op,
    arrays: Sequence[np.ndarray],
    attrs: dict[str, Any],
    constants: Sequence[bool],
    opened: Sequence[bool],
    values_too: bool = True,
) -> str:
    """How native code and the reference differ: one refuses alone, raises a strange exception, or has another
    answer (only of another shape, where its `values` are not asked). A graph may know more than the reference
    of one operation, and does what OpenVINO does with it."""
    _install()
    if _is_huge(record, arrays, attrs):
        return ""
    try:
        want: Any = record.evaluate(arrays, record.check_attributes(attrs))
    except OvjitError as error:
        want = error
    except Exception as error:
        return f"the reference raises {type(error).__name__}: {error}"
    try:
        b = Builder()
        values, given = [], []
        for i, array in enumerate(arrays):
            kind = dtypes.from_numpy(array.dtype)
            if constants[i]:
                values.append(b.constant(array, kind))
                continue
            shape = [ANY] * array.ndim if opened[i] else array.shape
            values.append(b.add("Parameter", (), {"shape": shape, "element_type": kind}).output)
            given.append(array)
        node = b.add(record, values, attrs)
        graph = b.finish(node.outputs)
        if not graph.outputs:
            return ""
        if record.name in RANKS_BY_VALUES and not isinstance(want, Exception):
            if node.output.type.rank not in (None, want[0].ndim):
                want = ModelError("its readers are made for another rank")
        if isinstance(want, Exception) and is_no_step(node) and node.output.shape == arrays[0].shape:
            want = (arrays[0],)
        got: Any = guard_pages.run_guarded(graph, [given], guard_pages.BEHIND)[0]
    except OvjitError as error:
        got = error
    except MemoryError:
        return ""  # what depends on the values of inputs is known to be huge only now
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if isinstance(got, Exception) or isinstance(want, Exception):
        if "internal error" in str(got):
            return str(got)
        if isinstance(got, Exception) != isinstance(want, Exception):
            return f"native: {_brief(got)}; reference: {_brief(want)}"
        return ""
    for a, b_ in zip(got, want, strict=True):
        if a.shape != b_.shape or (values_too and not np.allclose(a, b_, equal_nan=True)):
            return f"native: {_brief(got)}; reference: {_brief(want)}"
    return ""


def _is_huge(record: Any, arrays: list[np.ndarray], attrs: dict[str, Any]) -> bool:
    kinds = [TensorType(dtypes.from_numpy(x.dtype), x.shape, x) for x in arrays]
    try:
        found = record.infer_types(kinds, record.check_attributes(attrs))
    except OvjitError:
        return False
    return any(
        t.shape is not None and np.prod([float(getattr(d, "lo", d)) for d in t.shape]) > MOST for t in found
    )


def _brief(x: Any) -> str:
    if isinstance(x, Exception):
        return f"refuses ({x})"
    return "gives " + ", ".join(f"{a.shape} {a.reshape(-1)[:6].tolist()}" for a in x)


_installed = False


def _install() -> None:
    global _installed
    if not _installed:
        guard_pages.install(guard_pages.BEHIND)
        _installed = True


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for i, opened in enumerate(case["open"]):
        if opened:
            yield {**case, "open": [o and k != i for k, o in enumerate(case["open"])]}
    for i, constant in enumerate(case["constants"]):
        if not constant and i:
            yield {**case, "constants": [c or k == i for k, c in enumerate(case["constants"])]}
    for i, what in enumerate(case["inputs"]):
        key = "data" if "data" in what else "shape"
        for axis, d in enumerate(what[key]):
            if d > 1 and key == "data":
                shape = [1 if a == axis else v for a, v in enumerate(what[key])]
                yield {
                    **case,
                    "inputs": [{**w, key: shape} if k == i else w for k, w in enumerate(case["inputs"])],
                }
        for place, v in enumerate(what.get("values", [])):
            if v not in (0, 1):
                values = [0 if k == place else w for k, w in enumerate(what["values"])]
                yield {**case, "inputs": [
                    {**w, "values": values} if k == i else w for k, w in enumerate(case["inputs"])
                ]}  # fmt: skip


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
