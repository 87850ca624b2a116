"""Changed cases of ONNX's own tests of operators: other types, extents, values, attributes and opsets.

A case is run by ovjit, ONNX Runtime and ONNX's evaluator. It goes wrong if ovjit's answer is that of neither,
if ovjit raises an exception that is not its own, or if it refuses what both others compute alike.
"""

from __future__ import annotations

import functools
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit
from ovjit.errors import OvjitError
from tests.fuzz import fuzzing
from tests.support.onnx.cases import Case, as_arrays, input_names, load_cases

LIFE = 4000
#: Operators with random or undefined results, or that read files.
LEFT_OUT = (
    "random",
    "bernoulli",
    "image_decoder",
    "dropout",
    "training",
    "seq",
    "optional",
    "adam",
    "adagrad",
)
FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
#: Relative and absolute tolerance by type, for sums of some hundred terms.
NEAR = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-4, "float64": 1e-5}
#: Attributes that are 0 or 1.
FLAGS = frozenset(
    "keepdims noop_with_empty_axes saturate align_corners allowzero antialias broadcast ceil_mode "
    "center_point_box count_include_pad exclude_outside largest sorted linear_before_reset layout normalize "
    "onesided inverse reverse exclusive fmod is_causal detect_positive detect_negative select_last_index "
    "storage_order training_mode upper periodic keep_dims input_forget normalize_variance is_case_sensitive "
    "output_sequence transA transB nodes_missing_value_tracks_true spatial".split()
)
#: The choices of attributes that are texts, by their names.
WORDS = {
    "mode": "constant reflect edge wrap nearest linear cubic bilinear bicubic avg max DCR CRD".split(),
    "coordinate_transformation_mode": (
        "half_pixel pytorch_half_pixel align_corners asymmetric half_pixel_symmetric output_half_pixel "
        "tf_half_pixel_for_nn"
    ).split(),
    "nearest_mode": "round_prefer_floor round_prefer_ceil floor ceil".split(),
    "auto_pad": "NOTSET SAME_UPPER SAME_LOWER VALID".split(),
    "direction": "forward reverse bidirectional LEFT RIGHT".split(),
    "reduction": "none add mul min max mean sum".split(),
    "padding_mode": "zeros border reflection".split(),
    "keep_aspect_ratio_policy": "stretch not_larger not_smaller".split(),
    "approximate": "none tanh".split(),
    "equation": ["ij,jk->ik", "...ij->...ji", "ii->i", "ij->", "ij,ij->i"],
}


@functools.cache
def bases() -> list[Case]:
    """The cases whose values are tensors."""
    chosen = [c for c in load_cases(("node", "simple")) if not any(word in c.name for word in LEFT_OUT)]
    return [c for c in chosen if len(c.model) < 20_000 and c.runs and all(_is_array(v) for v in c.runs[0][0])]


def _is_array(value: Any) -> bool:
    value = as_arrays(value)
    return isinstance(value, np.ndarray) and value.size < 20_000


class Changed:
    """A model, its inputs by name, and what was changed."""

    def __init__(self, seed: int, without: list[str]):
        import onnx

        rng = self.rng = random.Random(seed)
        case = rng.choice(bases())
        self.name = case.name
        self.model = onnx.ModelProto.FromString(case.model)
        arrays = [np.array(as_arrays(v)) for v in case.runs[0][0]]
        self.inputs = dict(zip(input_names(case), arrays, strict=False))
        self.changes: list[str] = []
        self.without = without
        for change in rng.sample(CHANGES, rng.choice((1, 2, 2, 3, 3, 4))):
            part = random.Random(rng.random())
            name = change.__name__.strip("_")
            if name not in without:
                change(self, part)
                self.changes.append(name)

    def node_of(self, rng: random.Random) -> Any:
        return rng.choice(list(self.model.graph.node))

    def info(self, name: str) -> Any:
        return next((i for i in self.model.graph.input if i.name == name), None)


def _other_type(c: Changed, rng: random.Random) -> None:
    """All tensors of one type get another one."""
    import onnx

    kinds = sorted({x.dtype.name for x in c.inputs.values()})
    if not kinds:
        return
    old = rng.choice(kinds)
    group = FLOATS if old in FLOATS else INTEGERS if old in INTEGERS else ()
    if not group:
        return
    new = rng.choice(
        [k for k in (*group, *((*FLOATS, *INTEGERS) if rng.random() < 0.15 else ())) if k != old]
    )
    before, after = _number(old), _number(new)
    for value in (*c.model.graph.input, *c.model.graph.output):
        if value.type.tensor_type.elem_type == before:
            value.type.tensor_type.elem_type = after
    for name, x in c.inputs.items():
        if x.dtype.name == old:
            c.inputs[name] = _cast(x, new)
    for node in c.model.graph.node:
        for a in node.attribute:
            if a.name in ("to", "dtype", "output_dtype") and a.i == before:
                a.i = after
    for tensor in c.model.graph.initializer:
        if tensor.data_type == before:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(_cast(onnx.numpy_helper.to_array(tensor), new), tensor.name)
            )


def _number(name: str) -> int:
    import onnx

    known = {"bfloat16": onnx.TensorProto.BFLOAT16}
    return known.get(name) or onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name))


def _cast(x: np.ndarray, new: str) -> np.ndarray:
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16 if new == "bfloat16" else new)
    with np.errstate(all="ignore"):
        return x.astype(kind)


def _other_extent(c: Changed, rng: random.Random) -> None:
    """One extent becomes another, in every shape that has it."""
    extents = sorted({d for x in c.inputs.values() for d in x.shape})
    if not extents:
        return
    old, new = rng.choice(extents), rng.choice((0, 1, 1, 2, 3, 5, 7, 16, 17, 33))
    only = rng.random() < 0.25 and rng.choice(sorted(c.inputs))
    for name, x in c.inputs.items():
        if only and name != only:
            continue
        for axis, d in enumerate(x.shape):
            if d == old and (new or d):
                x = (
                    np.take(x, np.arange(new) % max(d, 1), axis)
                    if d
                    else np.zeros((*x.shape[:axis], new, *x.shape[axis + 1 :]), x.dtype)
                )
                if x.size > 200_000:
                    return
        c.inputs[name] = x


def _other_rank(c: Changed, rng: random.Random) -> None:
    """One input loses a dimension or gets one."""
    name = rng.choice(sorted(c.inputs)) if c.inputs else None
    if name is None:
        return
    x = c.inputs[name]
    how = rng.choice(("first", "last", "scalar", "flat", "less"))
    if how == "first":
        x = x[None]
    elif how == "last":
        x = x[..., None]
    elif how == "scalar" and x.size and x.dtype != object:
        x = x.reshape(-1)[0].reshape(())
    elif how == "flat":
        x = x.reshape(-1)
    elif x.ndim and x.shape[0]:
        x = x[0]
    c.inputs[name] = np.array(x)


def _other_values(c: Changed, rng: random.Random) -> None:
    """Special values, random ones, or ends of integers in one input."""
    name = rng.choice(sorted(c.inputs)) if c.inputs else None
    if name is None:
        return
    if any(word in c.name for word in ("window", "range", "eyelike", "onehot", "tile", "expand", "pad")):
        return  # sizes: a random one asks for all memory
    x = c.inputs[name].copy()
    generator = np.random.default_rng(rng.randrange(1 << 30))
    flat = x.reshape(-1)
    if x.dtype.name in FLOATS:
        if rng.random() < 0.4:
            flat[:] = _cast(
                generator.standard_normal(flat.size) * rng.choice((0.1, 1, 10, 1000)), x.dtype.name
            )
        else:
            special = [
                0.0 if "resize" in c.name else np.nan,
                np.inf,
                -np.inf,
                0.0,
                -0.0,
                1e30,
                -1e-30,
                0.5,
                -0.5,
                1.5,
                2.5,
                1.0,
                -1.0,
            ]
            mask = generator.random(flat.size) < 0.4
            with np.errstate(all="ignore"):
                flat[mask] = generator.choice(special, mask.sum()).astype(x.dtype)
    elif x.dtype.name in INTEGERS:
        info = np.iinfo(x.dtype)
        low, high = rng.choice(((-3, 4), (-1, 2), (0, 8), (info.min, info.max)))
        low, high = max(low, info.min), min(high, info.max)
        if flat.size:
            flat[:] = generator.integers(low, high, flat.size, dtype=x.dtype, endpoint=True)
    elif x.dtype == bool:
        flat[:] = generator.random(flat.size) < 0.5
    c.inputs[name] = x


def _other_attribute(c: Changed, rng: random.Random) -> None:
    """An attribute that the schema has gets another value, or is left out."""
    import onnx

    node = c.node_of(rng)
    if node.op_type == "Constant":
        return
    version = next((o.version for o in c.model.opset_import if o.domain == node.domain), 1)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except Exception:
        return
    names = sorted(set(schema.attributes))
    if not names:
        return
    name = rng.choice(names)
    present = next((a for a in node.attribute if a.name == name), None)
    kind = schema.attributes[name].type
    T = onnx.defs.OpSchema.AttrType
    value: Any = None
    if name in ("stash_type", "qk_matmul_output_mode", "round_mode", "softmax_precision"):
        return  # of few numbers
    if present is not None and rng.random() < 0.25:
        node.attribute.remove(present)
        return
    if kind == T.INT:
        if name in FLAGS:
            value = rng.choice((0, 1))
        elif name in ("to", "dtype", "output_dtype"):
            value = rng.choice((1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 16))
        else:
            value = rng.choice((0, 1, 1, -1, 2, 3, -2, 4))
    elif kind == T.FLOAT:
        value = rng.choice((0.0, 1.0, -1.0, 0.5, 2.0, 1e-5, 0.3))
    elif kind == T.STRING:
        value = rng.choice(WORDS.get(name) or ["none"])
    elif kind == T.INTS:
        count = len(present.ints) if present is not None else rng.choice((1, 2, 2, 3, 4))
        value = [rng.choice((0, 1, 1, 2, 2, 3, -1)) for _ in range(count)]
        if name in ("perm",):
            value = rng.sample(range(count), count)
    elif kind == T.FLOATS and present is not None:
        value = [rng.choice((0.0, 1.0, 0.5, -1.0, 2.0)) for _ in present.floats]
    if value is None:
        return
    if present is not None:
        node.attribute.remove(present)
    node.attribute.append(onnx.helper.make_attribute(name, value))


def _as_constants(c: Changed, rng: random.Random) -> None:
    """Some inputs become initializers, mostly not the first."""

    names = list(c.inputs)
    for i, name in enumerate(names):
        if rng.random() < (0.7 if i else 0.2):
            x = c.inputs[name]
            if x.dtype == object or x.dtype.kind in "US":
                continue
            c.model.graph.initializer.append(_tensor(x, name))
            info = c.info(name)
            if info is not None:
                c.model.graph.input.remove(info)
            del c.inputs[name]


def _tensor(x: np.ndarray, name: str) -> Any:
    import onnx

    if x.dtype.name == "bfloat16":
        return onnx.helper.make_tensor(name, onnx.TensorProto.BFLOAT16, x.shape, x.tobytes(), raw=True)
    return onnx.numpy_helper.from_array(np.ascontiguousarray(x) if x.ndim else x, name)


def _open_shapes(c: Changed, rng: random.Random) -> None:
    """Dimensions of inputs are not known."""
    c.open = rng.random() < 0.9  # type: ignore[attr-defined]


def _other_opset(c: Changed, rng: random.Random) -> None:
    for one in c.model.opset_import:
        if one.domain in ("", "ai.onnx"):
            one.version = rng.randrange(7, 27)


def _fewer_inputs(c: Changed, rng: random.Random) -> None:
    """An input of a node is left out."""
    node = c.node_of(rng)
    if len(node.input) < 2:
        return
    i = rng.randrange(1, len(node.input))
    name = node.input[i]
    node.input[i] = ""
    while node.input and not node.input[-1]:
        del node.input[-1]
    if not any(name in n.input for n in c.model.graph.node) and name in c.inputs:
        del c.inputs[name]
        c.model.graph.input.remove(c.info(name))


def _fewer_outputs(c: Changed, rng: random.Random) -> None:
    outputs = c.model.graph.output
    if len(outputs) > 1:
        dropped = outputs[rng.randrange(len(outputs))]
        for node in c.model.graph.node:
            for i, name in enumerate(list(node.output)):
                if name == dropped.name:
                    node.output[i] = ""
        outputs.remove(dropped)


CHANGES = [
    _other_type, _other_extent, _other_rank, _other_values, _other_values, _other_attribute, _other_attribute,
    _as_constants, _open_shapes, _other_opset, _fewer_inputs, _fewer_outputs,
]  # fmt: skip


def _finish(c: Changed) -> bytes:
    """The model's file: inputs have the shapes of the arrays, or open ones; outputs have none."""
    is_open = getattr(c, "open", False)
    for info in c.model.graph.input:
        if info.name in c.inputs:
            shape = info.type.tensor_type.shape
            del shape.dim[:]
            for k, d in enumerate(c.inputs[info.name].shape):
                dim = shape.dim.add()
                if is_open:
                    dim.dim_param = f"{info.name}_{k}"
                else:
                    dim.dim_value = d
    for info in c.model.graph.output:
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    del c.model.graph.value_info[:]
    c.model.ir_version = min(c.model.ir_version, 11)
    return c.model.SerializeToString()


# --- the three engines: a list of arrays, or an exception


def by_onnxruntime(data: bytes, inputs: dict[str, np.ndarray]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        values = {}
        for name, x in inputs.items():
            if x.dtype.name == "bfloat16":
                values[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(x.view(np.uint16), 16)
            else:
                values[name] = onnxruntime.OrtValue.ortvalue_from_numpy(
                    np.ascontiguousarray(x).reshape(x.shape)
                )
        if any(x.dtype.kind in "OUS" for x in inputs.values()):
            found = session.run(None, inputs)
        else:
            found = [
                v.numpy() if v.is_tensor() and "bfloat16" not in v.data_type() else v
                for v in session.run_with_ort_values(None, values)
            ]
        return [_of_ort(v) for v in found]
    except Exception as error:
        return error


def _of_ort(v: Any) -> np.ndarray:
    import ml_dtypes

    if isinstance(v, np.ndarray):
        return v
    if not v.is_tensor():
        raise RuntimeError("no tensor")
    import torch

    return (
        torch.utils.dlpack.from_dlpack(v._ortvalue.to_dlpack())
        .view(torch.uint16)
        .numpy()
        .view(ml_dtypes.bfloat16)
    )


def by_reference(data: bytes, inputs: dict[str, np.ndarray]) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    try:
        model = onnx.ModelProto.FromString(data)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return [np.asarray(v) for v in ReferenceEvaluator(model).run(None, inputs)]
    except Exception as error:
        return error


def by_ovjit(data: bytes, inputs: dict[str, np.ndarray]) -> Any:
    try:
        model = ovjit.Core().read_model(data)
        compiled = ovjit.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        used = {name for port in compiled.inputs for name in port.names}  # others are dropped
        values = {}
        for name, x in inputs.items():
            if name not in used:
                continue
            if x.dtype.name == "bfloat16":
                x = (
                    ovjit.Tensor(x.view(np.uint16), list(x.shape), ovjit.Type.bf16)
                    if x.size
                    else np.zeros(x.shape, np.uint16)
                )
            values[name] = x
        found = compiled(values)
        outputs = []
        for port, array in found.items():
            array = np.asarray(array)
            if port.get_element_type() == ovjit.Type.bf16:
                import ml_dtypes

                array = array.view(ml_dtypes.bfloat16)
            outputs.append(array)
        return outputs
    except Exception as error:
        return error


def differ(a: list[np.ndarray], b: list[np.ndarray]) -> str:
    if len(a) != len(b):
        return f"{len(a)} outputs, not {len(b)}"
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if x.shape != y.shape:
            return f"output {i}: shape {x.shape}, not {y.shape}"
        if x.dtype.kind in "OUS" or y.dtype.kind in "OUS":
            if x.astype(str).tolist() != y.astype(str).tolist():
                return f"output {i}: {brief(x)}, not {brief(y)}"
            continue
        if x.dtype != y.dtype:
            return f"output {i}: {x.dtype}, not {y.dtype}"
        tolerance = NEAR.get(x.dtype.name, 0)
        u, v = (z.astype(np.float64) if tolerance else z for z in (x, y))
        if tolerance:
            finite = np.abs(v[np.isfinite(v)])
            scale = float(finite.max(initial=0))
            with np.errstate(all="ignore"):
                same = np.isclose(u, v, rtol=tolerance, atol=tolerance * max(scale, 1e-3), equal_nan=True)
        elif x.dtype == np.uint8:
            same = (u == v) | (u == 127) & (v == 255) | (u == 255) & (v == 127)  # NaN of floats of 8 bits
        elif x.dtype.kind in "iu" and "4" not in x.dtype.name:
            same = u == v
        else:
            same = np.equal(*(np.frombuffer(z.tobytes(), (np.uint8, z.itemsize)) for z in (u, v)))
            same = same.all(-1).reshape(x.shape)
        if not np.all(same):
            at = tuple(int(k[0]) for k in np.nonzero(~same)) if x.ndim else ()
            return f"output {i}: {brief(x)}, not {brief(y)} (first at {at}: {x[at]!r}, not {y[at]!r})"
    return ""


def brief(x: np.ndarray) -> str:
    return f"{x.dtype}{list(x.shape)} {x.reshape(-1)[:6].tolist()}"


make = fuzzing.make_by_seed


def check(case: dict[str, Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            return _check(case)


def _check(case: dict[str, Any]) -> str:
    c = Changed(case["seed"], case["without"])
    try:
        data = _finish(c)
    except Exception:
        return ""
    title = f"{c.name} {c.changes}"
    ours = by_ovjit(data, c.inputs)
    if isinstance(ours, Exception) and not isinstance(ours, (OvjitError, MemoryError)):
        return f"{title}: raises {type(ours).__name__}: {ours}"
    if isinstance(ours, Exception) and "internal error" in str(ours):
        return f"{title}: {ours}"
    ort = by_onnxruntime(data, c.inputs)
    if isinstance(ours, list) and isinstance(ort, list) and not differ(ours, ort):
        return ""
    if isinstance(ours, Exception) and isinstance(ort, Exception):
        return ""
    ref = by_reference(data, c.inputs)
    if isinstance(ours, Exception):
        same = isinstance(ref, list) and not differ(ref, ort)
        return (
            f"{title}: refuses what {'both' if same else 'ONNX Runtime'} compute: {str(ours)[:300]}"
            if same or case.get("strict")
            else ""
        )
    if isinstance(ref, list) and not differ(ours, ref):
        return ""
    if isinstance(ort, list):
        also = " and than the reference" if isinstance(ref, list) else ""
        return f"{title}: other than ONNX Runtime{also}: {differ(ours, ort)}"
    if isinstance(ref, list) and _is_valid(data):
        return (
            f"{title}: other than the reference: {differ(ours, ref)} (ONNX Runtime refuses: {str(ort)[:100]})"
        )
    return ""


def _is_valid(data: bytes) -> bool:
    """Whether the types and shapes are those of the standard."""
    import onnx

    try:
        onnx.checker.check_model(data, full_check=True)
    except Exception:
        return False
    return True


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in Changed(case["seed"], case["without"]).changes:
        yield {**case, "without": [*case["without"], name]}


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
