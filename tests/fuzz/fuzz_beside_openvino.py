"""Operations' samples with other attributes, extents and element types, compiled by ovjit and by OpenVINO.

What OpenVINO refuses is not compared. It computes much that is not valid, and leaves some results
uninitialised: findings are to be judged one by one, and the default suite does not run this.
"""

from __future__ import annotations

import functools
import random
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit
from ovjit.errors import OvjitError
from ovjit.graph.op import Op
from tests.fuzz import fuzzing, guarded_ops
from tests.support.samples import samples_of

LIFE = 3000
#: Larger samples take too long.
MOST = 1 << 15
TYPES = ("f32", "f32", "f32", "f32", "f16", "i32", "i64", "u8", "i8", "boolean", "bf16")
DTYPES = {"f32": "float32", "f16": "float16", "i32": "int32", "i64": "int64", "u8": "uint8", "i8": "int8",
          "boolean": "bool"}  # fmt: skip
NEAR = {"float32": 1e-4, "float16": 8e-3, "float64": 1e-4}
#: Operations with random results, or caches, or results in an order of their own.
LEFT_OUT = ("Paged", "Random", "Multinomial", "Read", "Assign", "Detection", "NonMaxSuppression", "MatrixNms",
            "MulticlassNms", "Proposal", "GenerateProposals", "ExperimentalDetectron", "StringTensor",
            "BinaryConvolution", "RGBtoNV12", "BGRtoNV12", "If", "Loop", "TensorIterator")  # fmt: skip
F32 = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": 1}
XML_NAMES = {"exclude_pad": "exclude-pad"}


@functools.cache
def records() -> list[Op]:
    found = [r for r in guarded_ops.records() if not r.plugin and not r.runs_body and r.opset <= 16]
    return [r for r in found if not r.name.startswith(LEFT_OUT)]


@functools.cache
def _samples(name: str, opset: int, dtype: str) -> list[Any]:
    record = next(r for r in records() if (r.name, r.opset) == (name, opset))
    rng = np.random.default_rng(zlib.crc32(f"{name} {dtype}".encode()))
    try:
        return [s for s in samples_of(record, rng, dtype) if sum(np.size(x) for x in s[0]) <= MOST]
    except Exception:
        return []


class Case:
    """An operation, its inputs and attributes, which inputs are constants, and whether shapes are open."""

    def __init__(self, seed: int, without: list[str]):
        rng = random.Random(seed)
        self.record = rng.choice(records())
        usual = [t for t in TYPES if t in self.record.types] or [self.record.types[0]]
        samples = _samples(self.record.name, self.record.opset, rng.choice(usual))
        self.inputs: list[np.ndarray] = []
        self.changes: list[str] = []
        if not samples:
            return
        inputs, attrs = rng.choice(samples)
        self.inputs = [np.array(x) for x in inputs]
        self.attrs = dict(self.record.check_attributes(attrs))
        self.constants = [i > 0 and rng.random() < 0.6 for i in range(len(inputs))]
        self.open = rng.random() < 0.3
        for change in rng.sample(CHANGES, rng.choice((0, 1, 1, 2, 2, 3))):
            part = random.Random(rng.random())
            if change.__name__ not in without:
                change(self, part)
                self.changes.append(change.__name__)

    def __str__(self) -> str:
        shapes = [
            f"{x.dtype}{list(x.shape)}{'c' * c}" for x, c in zip(self.inputs, self.constants, strict=True)
        ]
        name = f"{self.record.name}-{self.record.opset}"
        return f"{name} {shapes} {self.attrs} {'open' * self.open} {self.changes}"


def other_attribute(c: Case, rng: random.Random) -> None:
    names = [n for n in c.attrs if c.record.attributes[n].type != "DType"]
    if not names:
        return
    name = rng.choice(names)
    kind, value = c.record.attributes[name].type, c.attrs[name]
    words = c.record.words.get(name) if c.record.words else None
    words = (words.split() if isinstance(words, str) else list(words)) if words else []
    if words:
        c.attrs[name] = rng.choice(words)
    elif kind == "Bool":
        c.attrs[name] = not value
    elif kind in ("Int", "Positive", "Count"):
        c.attrs[name] = rng.choice((0, 1, 1, 2, 3, -1, -2))
    elif kind == "Float":
        c.attrs[name] = rng.choice((0.0, 0.5, 1.0, -1.0, 2.0, 0.1))
    elif kind in ("Ints", "Counts", "Positives") and value:
        c.attrs[name] = tuple(rng.choice((0, 1, 1, 2, 2, 3, int(v))) for v in value)
    elif kind == "Floats" and value:
        c.attrs[name] = tuple(rng.choice((0.5, 1.0, 2.0, float(v))) for v in value)


def other_extent(c: Case, rng: random.Random) -> None:
    extents = sorted({d for x in c.inputs for d in x.shape if d})
    if not extents:
        return
    old, new = rng.choice(extents), rng.choice((1, 1, 2, 3, 4, 5, 7, 9, 16, 17, 33))
    for i, x in enumerate(c.inputs):
        for axis, d in enumerate(x.shape):
            if d == old:
                x = np.take(x, np.arange(new) % d, axis)
        if x.size > 4 * MOST:
            return
        c.inputs[i] = np.ascontiguousarray(x) if x.ndim else x


def other_values(c: Case, rng: random.Random) -> None:
    """Other numbers in an input of floats, or small integers."""
    i = rng.randrange(len(c.inputs))
    x = c.inputs[i]
    generator = np.random.default_rng(rng.randrange(1 << 30))
    if x.dtype.kind == "f":
        c.inputs[i] = np.asarray(generator.standard_normal(x.shape) * rng.choice((0.3, 1, 4)), x.dtype)
    elif x.dtype.kind in "iu":
        c.inputs[i] = np.asarray(generator.integers(0 if x.dtype.kind == "u" else -2, 4, x.shape), x.dtype)
    elif x.dtype.kind == "b":
        c.inputs[i] = np.asarray(generator.random(x.shape) < 0.5)


def same_shape(c: Case, rng: random.Random) -> None:
    """One input gets a dimension more at the front, or loses one of 1."""
    i = rng.randrange(len(c.inputs))
    x = c.inputs[i]
    c.inputs[i] = x[0] if x.ndim and x.shape[0] == 1 and rng.random() < 0.5 else x[None]


def shuffled_constants(c: Case, rng: random.Random) -> None:
    c.constants = [rng.random() < 0.5 for _ in c.constants]
    if all(c.constants):
        c.constants[0] = False


CHANGES = [other_attribute, other_attribute, other_extent, other_values, same_shape, shuffled_constants]


def run_in(ov: Any, c: Case) -> Any:
    """The outputs in one of the packages, or its exception."""
    import importlib

    factory = importlib.import_module(f"{ov.__name__}.utils.node_factory").NodeFactory
    opset = importlib.import_module(f"{ov.__name__}.opset13")
    try:
        parameters, ports, values = [], [], []
        for x, constant in zip(c.inputs, c.constants, strict=True):
            if constant and x.size:
                ports.append(opset.constant(x).output(0))
                continue
            shape = ov.PartialShape([-1] * x.ndim) if c.open else list(x.shape)
            parameters.append(opset.parameter(shape, dtype=x.dtype.type))
            ports.append(parameters[-1].output(0))
            values.append(x)
        attrs = {XML_NAMES.get(k, k): list(v) if isinstance(v, tuple) else v for k, v in c.attrs.items()}
        node = factory(f"opset{c.record.opset}").create(c.record.name, ports, attrs)
        model = ov.Model(node.outputs(), parameters)
        compiled = ov.Core().compile_model(model, "CPU", F32)
        results = compiled(values)
        return [np.array(results[i]) for i in range(len(model.outputs))]
    except Exception as error:
        return error


make = fuzzing.make_by_seed


def check(case: dict[str, Any]) -> str:
    with np.errstate(all="ignore"):
        c = Case(case["seed"], case["without"])
        if not c.inputs or any(x.dtype.name == "bfloat16" or x.dtype == object for x in c.inputs):
            return ""
        ours = run_in(ovjit, c)
        if isinstance(ours, Exception) and not isinstance(ours, (OvjitError, TypeError, MemoryError)):
            return f"{c}: raises {type(ours).__name__}: {ours}"
        import openvino

        real = run_in(openvino, c)
        if isinstance(real, Exception):
            return ""
        if isinstance(ours, Exception):  # it computes much that is not valid
            return f"{c}: refuses: {str(ours)[:300]}" if not c.changes else ""
        if len(ours) != len(real):
            return f"{c}: {len(ours)} outputs, not {len(real)}"
        for i, (a, b) in enumerate(zip(ours, real, strict=True)):
            wrong = difference(a, b)
            if wrong and not is_known(c):
                return f"{c}: output {i}: {wrong}"
        return ""


def is_known(c: Case) -> bool:
    """Whether OpenVINO's results differ for this case, as files of `findings` tell."""
    name = c.record.name
    if name == "Range":  # away from the end: it has elements there
        start, stop, step = (float(x.reshape(-1)[0]) if x.size else 0.0 for x in c.inputs)
        return (stop - start) * step < 0
    # there quotients of 64-bit integers are computed in f32, and bags of the default index have other rows
    return (name in ("Divide", "FloorMod", "Mod") and c.inputs[0].dtype == np.int64) or (
        name.startswith("EmbeddingBagOffsets") and len(c.inputs) < 5
    )


def difference(a: np.ndarray, b: np.ndarray) -> str:
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"{a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}"
    near = NEAR.get(a.dtype.name, 0)
    u, v = a.astype(np.float64), b.astype(np.float64)
    scale = max(float(np.abs(v[np.isfinite(v)]).max(initial=0)), 1e-3)
    same = (np.abs(u - v) <= near * scale) | (u == v) | np.isnan(u) & np.isnan(v)
    if same.all():
        return ""
    at = tuple(int(k[0]) for k in np.nonzero(~same)) if a.ndim else ()
    firsts = [v.reshape(-1)[:5].tolist() for v in (a, b)]
    return f"{int((~same).sum())} of {same.size}, at {list(at)} {a[at]!r}, not {b[at]!r}; {firsts}"


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in Case(case["seed"], case["without"]).changes:
        yield {**case, "without": [*case["without"], name]}


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
