"""Random ONNX models of one node beside ONNX Runtime, and beside ONNX's own evaluator where it refuses.

`python -m tests.support.onnx.beside_onnxruntime COUNT SEED [FAMILY ...]` prints what differs;
`native` among the families takes
kernels instead of the references, `types` other element types and versions.
The families are the functions in `FAMILIES` of the modules `samples_*`.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import helper

import ovjit as ov
from ovjit.graph import interp
from tests.support.onnx import retyped as retyping
from tests.support.onnx import samples_layers, samples_math, samples_ml, samples_ms, samples_shapes
from tests.support.onnx.retyped import retyped
from tests.support.onnx.samples import Sample
from tests.support.onnx.samples_ml import ML
from tests.support.onnx.samples_ms import MS

FAMILIES = {
    **samples_math.FAMILIES,
    **samples_layers.FAMILIES,
    **samples_shapes.FAMILIES,
    **samples_ms.FAMILIES,
    **samples_ml.FAMILIES,
}
BF16 = helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


class Verdict(NamedTuple):
    status: str  # same, skipped, refused, wrong
    said: str


def model_of(sample: Sample, rng: np.random.Generator) -> tuple[bytes, dict[str, np.ndarray]]:
    """(the model, values of its inputs). Dimensions are open at random, inputs are constants at random."""
    names = [f"x{i}" if v is not None else "" for i, v in enumerate(sample.inputs)]
    while names and not names[-1]:
        names.pop()
    outs = [f"y{i}" for i in range(sample.outputs)]
    node = helper.make_node(sample.op, names, outs, "node", domain=sample.domain, **sample.attributes)
    opened, constant = rng.random() < 0.4, rng.random()
    infos, initializers, given = [], [], {}
    for i, (name, value) in enumerate(zip(names, sample.inputs, strict=False)):
        if value is None:
            continue
        free = i in sample.free and constant < 0.5
        if i in sample.constants or (free and rng.random() < 0.7):
            initializers.append(onnx.numpy_helper.from_array(value, name))
            continue
        loose = opened and i not in sample.constants and (i == 0 or rng.random() < 0.1)
        known = value.ndim - 1 if sample.domain else value.ndim  # a width that is known
        shape = [
            f"d{i}_{j}" if loose and j < known and rng.random() < 0.6 else d
            for j, d in enumerate(value.shape)
        ]
        infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape))
        given[name] = value
    graph = helper.make_graph(
        [node], "g", infos, [onnx.ValueInfoProto(name=name) for name in outs], initializers
    )
    imports = [helper.make_opsetid("", sample.opset)]
    if sample.domain:
        imports.append(helper.make_opsetid(sample.domain, sample.version))
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return model.SerializeToString(), given


def by_onnxruntime(model: bytes, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    run = onnxruntime.RunOptions()
    run.log_severity_level = 4
    return session.run(None, given, run)


def by_onnxruntime_in_f32(model: bytes, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The same node of f32 where it is of other real types; what comes out is of the node's own types."""
    proto = onnx.ModelProto.FromString(model)
    kinds = {getattr(onnx.TensorProto, name) for name in ("FLOAT16", "BFLOAT16", "DOUBLE")}
    for info in proto.graph.input:
        if info.type.tensor_type.elem_type in kinds:
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for tensor in proto.graph.initializer:
        if tensor.data_type in kinds:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    real = (np.float16, np.float64, BF16)
    mixed = {v.dtype for v in given.values()} & {np.dtype(kind) for kind in (*real, np.float32)}
    if len(mixed) > 1 and any(node.domain == MS for node in proto.graph.node):
        raise ValueError("what mixtures round in between is not said by f32")
    given = {k: v.astype(np.float32) if v.dtype in real else v for k, v in given.items()}
    outputs = by_onnxruntime(proto.SerializeToString(), given)
    types = output_types(onnx.ModelProto.FromString(model))
    return [
        value.astype(kind) if value.dtype == np.float32 and kind is not None else value
        for value, kind in zip(outputs, types, strict=False)
    ]


def output_types(proto: onnx.ModelProto) -> list[Any]:
    """The types that the standard says the outputs have, None where it says none."""
    (node,) = proto.graph.node
    if node.domain == MS:
        numbers = {info.name: info.type.tensor_type.elem_type for info in proto.graph.input}
        numbers |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
        kinds = {name: helper.tensor_dtype_to_np_dtype(number) for name, number in numbers.items()}
        return retyping.output_types(node.op_type, 1, [kinds.get(name) for name in node.input])
    inferred = onnx.shape_inference.infer_shapes(proto)
    found = [info.type.tensor_type.elem_type for info in inferred.graph.output]
    return [helper.tensor_dtype_to_np_dtype(number) if number else None for number in found]


def by_evaluator(model: bytes, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return ReferenceEvaluator(model).run(None, given)


def by_ovjit(model: bytes, given: dict[str, np.ndarray], native: bool) -> list[np.ndarray]:
    read = ov.Core().read_model(model)
    if native:
        compiled = ov.Core().compile_model(read, "CPU", F32)
        known = {name for port in compiled.inputs for name in port.get_names()}
        result = compiled({k: _tensor(v) for k, v in given.items() if k in known})
        return [_values(result[i], port) for i, port in enumerate(compiled.outputs)]
    graph = read._graph()
    with np.errstate(all="ignore"):
        return list(interp.evaluate(graph, [given[value.node.name] for value in graph.inputs]))


def _tensor(value: np.ndarray) -> Any:
    """The value as an input; arrays of NumPy have no bf16, a tensor of its bits has."""
    if value.dtype == object:
        return value.astype(str)
    if value.dtype != BF16:
        return value
    return ov.Tensor(np.ascontiguousarray(value).view(np.float16), value.shape, ov.Type.bf16)


def _values(result: np.ndarray, port: Any) -> np.ndarray:
    """A copy of an output: bf16 comes as its bits."""
    return np.array(result.view(BF16) if port.get_element_type() == ov.Type.bf16 else result)


def _texts(array: np.ndarray) -> np.ndarray:
    """Strings of any kind as str; other arrays as they are."""
    if array.dtype.kind not in "OUS":
        return array
    out = np.empty(array.shape, object)
    out.reshape(-1)[:] = [v.decode() if isinstance(v, bytes) else str(v) for v in array.reshape(-1)]
    return out


def difference(ours: list[Any], theirs: list[Any], sample: Sample) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} outputs, not {len(theirs)}"
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        if i in sample.unchecked:
            continue
        mine, other = _texts(np.asarray(mine)), _texts(np.asarray(other))
        if mine.dtype != other.dtype:
            return f"output {i} is {mine.dtype}, not {other.dtype}"
        if mine.shape != other.shape:
            return f"output {i} has the shape {mine.shape}, not {other.shape}"
        if mine.dtype.kind in "biuOUS":
            far = np.abs(mine.astype(np.int64) - other.astype(np.int64)) if mine.dtype.kind in "iu" else None
            wrong = mine != other if far is None or not sample.steps else far > sample.steps
        else:
            a, b = mine.astype(np.float64), other.astype(np.float64)
            finite = b[np.isfinite(b)]
            scale = float(np.abs(finite).max()) if finite.size else 0.0
            tolerance = sample.tolerance * {"float16": 8e2, "bfloat16": 2e3}.get(mine.dtype.name, 1)
            with np.errstate(all="ignore"):
                wrong = ~((np.abs(a - b) <= tolerance * (np.abs(b) + 0.1 * scale + 1e-3)) | (a == b))
                wrong &= ~(np.isnan(a) & np.isnan(b))
        if wrong.any():
            at = tuple(int(v[0]) for v in np.nonzero(wrong)) if wrong.ndim else ()
            return f"output {i}: {wrong.sum()} of {wrong.size} differ, at {at} {mine[at]} for {other[at]}"
    return ""


def judge(sample: Sample, rng: np.random.Generator, native: bool = False) -> Verdict:
    """How ovjit does beside ONNX Runtime; where the two differ the standard's evaluator may side with us."""
    try:
        model, given = model_of(sample, rng)
    except Exception as error:  # a sample that no model says
        return Verdict("skipped", f"no model: {error}")
    theirs: dict[str, list[Any]] = {}
    said = []
    engines = {
        "onnxruntime": by_onnxruntime,
        "onnxruntime in f32": by_onnxruntime_in_f32,
        "evaluator": by_evaluator,
    }
    for name, run in engines.items():
        if theirs or (sample.domain and name == "evaluator") or (sample.domain == ML and said):
            break
        try:
            theirs[name] = run(model, given)
        except Exception as error:
            said.append(f"{name}: {str(error)[-150:]}")
    if not theirs:
        return Verdict("skipped", "; ".join(said))
    try:
        ours = by_ovjit(model, given, native)
    except Exception as error:
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        return Verdict("refused", f"({next(iter(theirs))} runs it) {kind}{error}"[:500])
    (name, values), *_ = theirs.items()
    differs = difference(ours, values, sample)
    second = {"": "evaluator", MS: "onnxruntime in f32"}.get(sample.domain, name)
    if differs and name not in ("evaluator", second):
        try:
            other = difference(ours, engines[second](model, given), sample)
        except Exception as error:
            other = f"refuses: {str(error)[:80]}"
        if not other:
            return Verdict("same", f"as the {second}; {name}: {differs}")
        differs += f" ({second}: {other[:120]})"
    if differs:
        return Verdict("wrong", f"{name}: {differs}")
    return Verdict("same", "" if name == "onnxruntime" else name)


def describe(sample: Sample) -> str:
    parts = [f"{v.dtype}{list(v.shape)}" if v is not None else "-" for v in sample.inputs]
    small = [f"x{i}={v.tolist()}" for i, v in enumerate(sample.inputs) if v is not None and v.size <= 6]
    attributes = {k: v for k, v in sample.attributes.items() if not isinstance(v, onnx.TensorProto)}
    return f"{sample.op}-{sample.opset}({', '.join(parts)}) {attributes} {' '.join(small)}"[:400]


def main(count: int, seed: int, families: list[str]) -> None:
    import collections

    native, types = "native" in families, "types" in families
    rows = FAMILIES
    chosen = [f for f in families if f not in ("native", "types")] or list(rows)
    for family in chosen:
        counts: collections.Counter[str] = collections.Counter()
        shown: collections.Counter[str] = collections.Counter()
        for i in range(seed, seed + count):
            rng = np.random.default_rng((i, *family.encode()))
            sample = rows[family](rng)
            sample = retyped(sample, rng) if types else sample
            verdict = judge(sample, rng, native)
            counts[verdict.status] += 1
            if verdict.status == "skipped":
                counts[f"skipped {sample.op}"] += 1
            key = f"{sample.op} {verdict.status} {verdict.said[:30]}"
            if verdict.status in ("refused", "wrong"):
                shown[key] += 1
                if shown[key] <= 2:
                    print(f"  {family} {i}: {verdict.status} {describe(sample)}\n      {verdict.said[-420:]}")
            elif verdict.said and "-v" in sys.argv:
                print(f"  {family} {i}: {verdict.status} {describe(sample)}\n      {verdict.said[:300]}")
        print(f"{family}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [a for a in sys.argv[3:] if a != "-v"])
