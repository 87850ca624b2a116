"""Run as a program: every operation's samples between inaccessible pages, see `guard_pages`.

    python guarded_ops.py behind|before FRACTION SEED [NAME...]

Samples run in the operation's first element type, some of them in each other type too; static, with every
subset of the first input's dimensions open (or as many as are chosen), and all inputs open; the data alone
as a parameter, with every input one, and with each input once the only constant. Of these a FRACTION is
chosen by the SEED. Each is printed before it is run, so that the last line names the one that ended the
process; wrong answers and strange exceptions have lines of their own.
"""

from __future__ import annotations

import itertools
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.codegen.elementwise import NATIVE_TYPES
from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph
from ovjit.graph.op import Op, all_ops
from ovjit.graph.shapes import ANY
from tests.support import guard_pages
from tests.support.op_samples import EPSILON, is_float, tolerance
from tests.support.samples import has_samples, samples_of

#: Subsets of open dimensions of an input of more dimensions than these are chosen at random.
SUBSETS = 8
#: Operations that cut real sums to integers: what is whole but for a rounding may be one less.
CUT = frozenset(("Interpolate",))
#: Operations that passes give no empty input whose shape is open, see `paged_caches._COUNTED`.
FILLED = frozenset(("PagedAttention",))


def records(internal: bool = False) -> list[Op]:
    """The operations that have samples; `internal`: those that passes make, too."""
    found = [r for r in all_ops() if has_samples(r) and "string" not in r.types]
    return [r for r in found if internal or not r.internal]


#: (sample, indices of inputs that are constants, open dimensions, inputs, attributes)
Case = tuple[int, tuple[int, ...], str, Sequence[np.ndarray], dict[str, Any]]


def element_types(record: Op) -> list[str]:
    """The type that most samples have, and all others that are native."""
    first = "f32" if "f32" in record.types else record.types[0]
    return [first, *(t for t in record.types if t != first and t in NATIVE_TYPES)]


def cases(record: Op, dtype: str) -> Iterator[Case]:
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    for sample, (inputs, attrs) in enumerate(samples_of(record, rng, dtype)):
        many = range(len(inputs))
        constant_sets = [tuple(i for i in many if i)]
        constant_sets += [(), *((i,) for i in many)] if len(inputs) > 1 else []
        rank = inputs[0].ndim
        subsets = [s for k in range(rank + 1) for s in itertools.combinations(range(rank), k)]
        if len(subsets) > SUBSETS:
            chosen = rng.permutation(len(subsets))[: SUBSETS - 2]
            subsets = [(), subsets[-1], *(subsets[i] for i in sorted(chosen))]
        for constants in dict.fromkeys(constant_sets):
            for open_dims in subsets if 0 not in constants else [()]:
                yield sample, constants, ",".join(map(str, open_dims)), inputs, attrs
            yield sample, constants, "all", inputs, attrs


def graph_of(
    record: Op, constants: Sequence[int], opened: str, inputs: Sequence[np.ndarray], attrs: dict[str, Any]
) -> tuple[Graph, list[np.ndarray]]:
    b = Builder()
    values, arrays = [], []
    for i, array in enumerate(inputs):
        element = dtypes.from_numpy(array.dtype)
        if i in constants:
            values.append(b.constant(array, element))
            continue
        shape: list[Any] = list(array.shape)
        if opened == "all" and not (record.name in FILLED and array.size == 0):
            shape = [ANY] * array.ndim
        elif i == 0 and opened:
            shape = [ANY if str(a) in opened.split(",") else d for a, d in enumerate(array.shape)]
        values.append(b.add("Parameter", (), {"shape": shape, "element_type": element}).output)
        arrays.append(array)
    node = b.add(record, values, attrs)
    return b.finish(node.outputs), arrays


def expected(record: Op, inputs: Sequence[np.ndarray], attrs: dict[str, Any]) -> Sequence[np.ndarray] | str:
    """What the reference says: arrays, or that it refuses."""
    try:
        return record.evaluate(inputs, record.check_attributes(attrs))
    except OvjitError as error:
        return str(error)


def compare(record: Op, got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> str:
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.shape != b.shape:
            return f"output {i} has the shape {a.shape}, not {b.shape}"
        if record.name in CUT and a.dtype.kind in "iu":
            same = bool((np.abs(a.astype(np.int64) - b.astype(np.int64)) <= 1).all())
        elif a.dtype.kind in "iub" or not is_float(a):
            same = np.array_equal(a, b)
        else:
            x, y = a.astype(np.float64), b.astype(np.float64)
            with np.errstate(all="ignore"):
                kind = dtypes.from_numpy(a.dtype)
                limit = 16 * (tolerance(record, y, kind) + EPSILON.get(kind, 0))
                same = bool(((np.abs(x - y) <= limit) | (x == y) | (np.isnan(x) & np.isnan(y))).all())
        if not same:
            worst = np.flatnonzero((a != b).reshape(-1))[:8]
            return (
                f"output {i}: {a.reshape(-1)[worst].tolist()} where {b.reshape(-1)[worst].tolist()} should be"
            )
    return ""


def main() -> None:
    side, fraction, seed, names = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), set(sys.argv[4:])
    guard_pages.install(side)
    rng = np.random.default_rng(seed)
    ran = 0
    for record in records(internal=True):
        if names and record.name not in names:
            continue
        kinds = element_types(record)
        # each other type on as many cases as all of them together have of the first one
        shares = [fraction, *[fraction / len(kinds)] * (len(kinds) - 1)]
        chosen = (
            (kind, case)
            for kind, share in zip(kinds, shares, strict=True)
            for case in cases(record, kind)
            if rng.random() < share
        )
        for kind, (sample, constants, opened, inputs, attrs) in chosen:
            ran += 1
            where = (
                f"{record.name}-{record.opset} {kind} sample {sample} constants {constants} open [{opened}]"
            )
            print("case", where, flush=True)
            want = expected(record, inputs, attrs)
            try:
                graph, arrays = graph_of(record, constants, opened, inputs, attrs)
                got = guard_pages.run_guarded(graph, [arrays, arrays], side)
            except OvjitError as error:
                if not isinstance(want, str):
                    print("WRONG", where, f"refused: {error}", flush=True)
                continue
            except Exception as error:
                print("WRONG", where, f"{type(error).__name__}: {error}", flush=True)
                continue
            if not graph.outputs:
                continue  # how many there are is not known
            if isinstance(want, str):
                print("WRONG", where, f"not refused as the reference does: {want}", flush=True)
                continue
            for answer in got:
                message = compare(record, answer, want)
                if message:
                    print("WRONG", where, message, flush=True)
                    break
    print("ran", ran, flush=True)


if __name__ == "__main__":
    main()
