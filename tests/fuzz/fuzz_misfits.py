"""Every operation's samples with one input of another rank or extent: native code, at static and at open
shapes, and the reference take it or refuse it alike. Between inaccessible pages."""

from __future__ import annotations

import functools
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ovjit.graph.op import find_op
from tests.fuzz import fuzz_indices, fuzzing, guarded_ops
from tests.support.samples import samples_of

#: Samples of more elements take too long.
MOST = 1 << 17
#: What an extent becomes; "-1" is one less than it is.
EXTENTS = ["0", "1", "2", "-1", "+1", "+3", "*2"]


@functools.cache
def _names() -> list[str]:
    return sorted(r.name for r in guarded_ops.records())


@functools.cache
def _samples(name: str) -> list[tuple[Sequence[np.ndarray], dict[str, Any]]]:
    record = find_op(name)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = guarded_ops.element_types(record)[0]
    return [s for s in samples_of(record, rng, kind) if sum(x.size for x in s[0]) <= MOST]


def make(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([20261120, seed])
    name = str(rng.choice(_names()))
    samples = _samples(name)
    if not samples:
        return {"op": name, "sample": -1, "input": 0, "change": [], "constants": [], "open": []}
    sample = int(rng.integers(len(samples)))
    inputs, _ = samples[sample]
    where = int(rng.integers(len(inputs)))
    change: list[Any] = [str(rng.choice(["first", "last", "less", "extent", "extent", "extent"]))]
    if change[0] == "extent" and inputs[where].ndim:
        change += [int(rng.integers(inputs[where].ndim)), str(rng.choice(EXTENTS))]
    some = rng.random() < 0.5
    constants = [bool(i > 0 and some and rng.random() < 0.7) for i in range(len(inputs))]
    is_open = rng.random() < 0.7
    opened = [bool(is_open and rng.random() < 0.8) for _ in inputs]
    case = {"op": name, "sample": sample, "input": where, "change": change}
    return {**case, "constants": constants, "open": opened}


def _changed(x: np.ndarray, kind: str, axis: int = 0, extent: str = "") -> np.ndarray:
    if kind == "first":
        return x[np.newaxis]
    if kind == "last" or x.ndim == 0:
        return x[..., np.newaxis]
    if kind == "less":
        return np.asarray(x[0]) if x.shape[0] else x[..., np.newaxis]
    had = x.shape[axis]
    many = {"-": had - 1, "+": had + int(extent[1:] or 0), "*": 2 * had}.get(extent[0])
    many = max(int(extent) if many is None else many, 0)
    if not had:
        return np.zeros((*x.shape[:axis], many, *x.shape[axis + 1 :]), x.dtype)
    return np.take(x, np.arange(many) % had, axis)


def check(case: dict[str, Any]) -> str:
    if case["sample"] < 0:
        return ""
    inputs, attrs = _samples(case["op"])[case["sample"]]
    arrays = [np.ascontiguousarray(x) if x.ndim else x for x in inputs]
    if case["change"]:
        arrays[case["input"]] = _changed(arrays[case["input"]], *case["change"])
    return fuzz_indices.disagreement(
        find_op(case["op"]), arrays, attrs, case["constants"], case["open"], values_too=False
    )


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for key, plain in (("open", False), ("constants", True)):
        for i, now in enumerate(case[key]):
            if now != plain and (i or key == "open"):
                yield {**case, key: [plain if k == i else v for k, v in enumerate(case[key])]}


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
