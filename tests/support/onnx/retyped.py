"""Random nodes in any other element types and versions that the standard allows."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from onnx import TensorProto, defs, helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from tests.support.onnx.samples import Rng, Sample, pick
from tests.support.onnx.samples_ms import MS

#: The newest version of each domain that samples are moved to.
NEWEST = {"": 25, "ai.onnx.ml": 4, "com.microsoft": 1}
#: The oldest ones.
OLDEST = {"": 7}
#: Element types of the standard that samples are moved to.
KINDS = (
    "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32",
    "UINT64", "BOOL", "STRING",
)  # fmt: skip
DTYPES = {
    f"tensor({name.lower()})": helper.tensor_dtype_to_np_dtype(getattr(TensorProto, name)) for name in KINDS
}
#: Operators whose inputs mean something else in other versions.
OF_ONE_VERSION = ("GroupNormalization",)
#: Operators whose type variables are one type here: of others, the standard's bodies and its inference of
#: types are not valid.
TOGETHER = ("Attention", "RMSNormalization")


@cache
def schemas(op: str, domain: str) -> dict[int, Any]:
    """The versions of an operator, by the opset since which they hold."""
    known = get_all_operator_schema() if domain == MS else defs.get_all_schemas_with_history()
    rows = [row for row in known if row.name == op and row.domain == domain]
    return {row.since_version: row for row in sorted(rows, key=lambda row: row.since_version)}


def fits(schema: Any, sample: Sample) -> bool:
    """Whether a sample may be of this version."""
    if schema.deprecated or not schema.min_input <= len(sample.inputs) <= schema.max_input:
        return False
    if any(name not in schema.attributes for name in sample.attributes):
        return False
    needed = (name for name, row in schema.attributes.items() if row.required)
    return all(name in sample.attributes for name in needed) and sample.outputs <= schema.max_output


def retyped(sample: Sample, rng: Rng) -> Sample:
    """The sample in some opset from 7 on, each of its type variables some type that this version allows."""
    versions = schemas(sample.op, sample.domain)
    now = sample.version if sample.domain else sample.opset
    if not any(since <= now for since in versions):
        return sample
    starts = [*versions, NEWEST[sample.domain] + 1]
    opsets = [
        opset
        for since, end in zip(starts, starts[1:], strict=False)
        if fits(versions[since], sample)
        for opset in range(max(OLDEST.get(sample.domain, 1), since), end)
    ]
    if sample.op in OF_ONE_VERSION:
        opsets = []
    opset = pick(rng, now, *opsets)
    schema = versions[max(since for since in versions if since <= opset)]
    allowed = {row.type_param_str: row.allowed_type_strs for row in schema.type_constraints}
    chosen: dict[str, Any] = {}
    alike = sample.domain == MS and rng.random() < 0.8  # ONNX Runtime has kernels of few mixtures
    inputs = list(sample.inputs)
    for i, value in enumerate(inputs):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        variable = formal.typeStr if sample.domain == MS else formal.type_str
        if value is None or variable not in allowed or value.dtype.kind in "OUS":
            continue
        same = formal.isHomogeneous if sample.domain == MS else formal.is_homogeneous
        if variable not in chosen or not same:
            kinds = [DTYPES[name] for name in sorted(allowed[variable]) if name in DTYPES]
            kinds += [value.dtype] if value.dtype in kinds else []
            first = next(iter(chosen.values()), None)
            together = first is not None and first in kinds and (sample.op in TOGETHER or alike)
            chosen[variable] = first if together else pick(rng, *kinds)
        inputs[i] = as_type(value, chosen[variable])
    if sample.op in ("Div", "Mod") and inputs[1] is not None and inputs[1].dtype.kind in "iu":
        inputs[1] = np.where(inputs[1] == 0, inputs[1].dtype.type(1), inputs[1])
    if sample.domain:
        return sample._replace(inputs=inputs, version=opset)
    return sample._replace(inputs=inputs, opset=opset)


def output_types(op: str, version: int, given: list[Any]) -> list[Any]:
    """What an operator of com.microsoft gives of inputs of these types: the first's where none says it."""
    schema = schemas(op, MS)[version]
    of = {row.typeStr: kind for row, kind in zip(schema.inputs, given, strict=False) if kind is not None}
    return [of.get(row.typeStr, given[0]) for row in schema.outputs]


def as_type(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The values in a type: reals become integers around 0, below 0 only where the type has such."""
    if value.dtype == dtype:
        return value
    if value.dtype.kind not in "biu" and dtype.kind in "iu":
        value = np.nan_to_num(np.asarray(value, np.float64) * 8, posinf=100, neginf=-100)
        value = value.clip(-100, 100).round()
    if dtype.kind == "O":
        texts = np.empty(value.shape, object)
        texts.reshape(-1)[:] = [f"t{v:.3g}" for v in np.asarray(value, np.float64).reshape(-1)]
        return texts
    if dtype.kind == "u":
        value = np.abs(np.asarray(value, np.int64))
    return np.asarray(value.astype(np.bool_ if dtype == np.bool_ else dtype))
