"""Single operations with attributes drawn at random, at known and at open shapes, in several element types:
compiled, against the interpreter.

These are operations whose samples cannot have every pair of attributes: windows, resampling, regions,
transforms, recurrent layers, scatters. What one of the two refuses, the other refuses as well.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from ovjit.utils.node_factory import NodeFactory

import ovjit
from ovjit.errors import OvjitError
from ovjit.graph.interp import evaluate
from tests.fuzz import fuzzing

#: Errors that are allowed, of the largest element; integers may be rounded the other way.
TYPES = {"f32": 2e-4, "f16": 1e-2, "bf16": 6e-2, "f64": 2e-4, "u8": 0.0, "i32": 0.0}
DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16)} | {
    short: np.dtype(name)
    for short, name in {"f32": "f4", "f16": "f2", "f64": "f8", "u8": "u1", "i32": "i4", "i64": "i8"}.items()
}
LIFE = 1500
PADS = ("explicit", "explicit", "same_upper", "same_lower", "valid")

Draw = random.Random
Inputs = list[dict[str, Any]]


def data(*shape: int) -> dict[str, Any]:
    """An input of the case's element type."""
    return {"shape": list(shape)}


def ints(values: Any, kind: str = "i64") -> dict[str, Any]:
    """A constant."""
    return {"values": values, "type": kind}


def extents(r: Draw, count: int, low: int = 1, high: int = 8) -> list[int]:
    return [r.randint(low, high) for _ in range(count)]


def interpolate(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    mode = r.choice("nearest linear linear_onnx cubic bilinear_pillow bicubic_pillow".split())
    plane = mode.endswith("pillow") or mode == "linear_onnx"
    rank = 4 if plane else r.choice([3, 4, 4, 5])
    axes = [2, 3] if plane else sorted(r.sample(range(2, rank), r.randint(1, rank - 2)))
    attrs = {
        "mode": mode, "antialias": r.random() < 0.4, "cube_coeff": r.choice([-0.75, -0.5]),
        "coordinate_transformation_mode": r.choice(
            "half_pixel pytorch_half_pixel asymmetric tf_half_pixel_for_nn align_corners".split()
        ),
        "nearest_mode": r.choice("round_prefer_floor round_prefer_ceil floor ceil simple".split()),
        "shape_calculation_mode": r.choice(["sizes", "scales"]),
    }  # fmt: skip
    if attrs["shape_calculation_mode"] == "sizes":
        goal = ints(extents(r, len(axes), 1, 20))
    else:
        goal = ints([r.choice([0.3, 0.5, 0.7, 1.0, 1.3, 2.0, 2.5, 3.0]) for _ in axes], "f32")
    if r.random() < 0.2 and not plane:
        attrs["pads_begin"] = [0, 0, *extents(r, rank - 2, 0, 1)]
    shape = [r.randint(1, 2), r.choice([1, 3, 17]), *extents(r, rank - 2)]
    return "Interpolate", [data(*shape), goal, ints(axes)], attrs


def transposed(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    rank, ins, outs = r.choice([1, 2, 2, 3]), r.randint(1, 4), r.randint(1, 4)
    strides = extents(r, rank, 1, 3)
    attrs = {
        "strides": strides, "dilations": extents(r, rank, 1, 2), "pads_begin": extents(r, rank, 0, 1),
        "pads_end": extents(r, rank, 0, 1), "auto_pad": r.choice(PADS),
        "output_padding": [r.randint(0, s - 1) for s in strides],
    }  # fmt: skip
    shape, kernel = extents(r, rank, 2, 6), extents(r, rank, 1, 3)
    groups = r.random() < 0.3
    lead = [2, ins, outs] if groups else [ins, outs]
    inputs = [data(r.randint(1, 2), ins * (2 if groups else 1), *shape), data(*lead, *kernel)]
    if r.random() < 0.3:
        inputs.append(ints([(n - 1) * s + 1 + r.randint(0, 3) for n, s in zip(shape, strides, strict=True)]))
    return ("Group" if groups else "") + "ConvolutionBackpropData", inputs, attrs


def pooled(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    rank = r.choice([1, 2, 2, 3])
    kernel = extents(r, rank, 1, 3)
    attrs: dict[str, Any] = {
        "kernel": kernel, "strides": extents(r, rank, 1, 3), "auto_pad": r.choice(PADS),
        "pads_begin": [r.randint(0, k - 1) for k in kernel], "pads_end": [r.randrange(k) for k in kernel],
        "rounding_type": r.choice(["floor", "ceil", "ceil_torch"]),
    }  # fmt: skip
    name = r.choice(["MaxPool", "AvgPool"])
    more = {"dilations": extents(r, rank, 1, 2), "axis": r.randint(-rank - 2, rank + 1)}
    attrs |= more if name == "MaxPool" else {"exclude-pad": r.random() < 0.5}
    return name, [data(r.randint(1, 2), r.choice([1, 3, 17]), *extents(r, rank, 2, 9))], attrs


def regions(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    count, batch = r.randint(1, 5), r.randint(1, 2)
    boxes = [[x := r.uniform(-2, 7), y := r.uniform(-2, 7), x + r.uniform(0, 5), y + r.uniform(0, 5)]
             for _ in range(count)]  # fmt: skip
    attrs = {
        "pooled_h": r.randint(1, 4), "pooled_w": r.randint(1, 4), "sampling_ratio": r.randint(0, 2),
        "spatial_scale": r.choice([0.5, 1.0]), "mode": r.choice(["avg", "max"]),
        "aligned_mode": r.choice(["asymmetric", "half_pixel_for_nn", "half_pixel"]),
    }  # fmt: skip
    image = data(batch, r.choice([1, 3, 17]), *extents(r, 2, 4, 9))
    numbers = ints([r.randrange(batch) for _ in range(count)], "i32")
    return "ROIAlign", [image, ints(boxes, "="), numbers], attrs


def grid(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    attrs = {
        "align_corners": r.random() < 0.5, "mode": r.choice(["bilinear", "nearest", "bicubic"]),
        "padding_mode": r.choice(["zeros", "border", "reflection"]),
    }  # fmt: skip
    height, width, batch = r.randint(1, 5), r.randint(1, 5), r.randint(1, 2)
    points = [[[[r.uniform(-1.7, 1.7) for _ in range(2)] for _ in range(width)] for _ in range(height)]
              for _ in range(batch)]  # fmt: skip
    return "GridSample", [data(batch, r.randint(1, 3), *extents(r, 2, 1, 6)), ints(points, "f32")], attrs


def transform(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    name = r.choice(["DFT", "IDFT", "RDFT", "IRDFT"])
    shape = extents(r, r.randint(1, 3), 1, 7)
    axes = r.sample(range(len(shape)), r.randint(1, len(shape)))
    inputs = [data(*shape, *([] if name == "RDFT" else [2])), ints(axes)]
    if r.random() < 0.5:
        inputs.append(ints([r.choice([-1, r.randint(1, 8)]) for _ in axes]))
    return name, inputs, {}


def sequence(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    steps, batch, size, hidden = r.randint(1, 5), r.randint(1, 3), r.randint(1, 5), r.choice([1, 3, 16])
    direction = r.choice(["forward", "reverse", "bidirectional"])
    ways = 2 if direction == "bidirectional" else 1
    name = r.choice(["LSTMSequence", "GRUSequence", "RNNSequence"])
    gates = {"L": 4, "G": 3, "R": 1}[name[0]]
    attrs: dict[str, Any] = {"hidden_size": hidden, "direction": direction, "clip": r.choice([0.0, 0.5])}
    biases = gates
    if name[0] == "G":
        attrs["linear_before_reset"] = r.random() < 0.5
        biases += attrs["linear_before_reset"]
    states = [data(batch, ways, hidden) for _ in range(2 if name[0] == "L" else 1)]
    lengths = ints([r.randint(0, steps) for _ in range(batch)], "i32")
    weights = [data(ways, gates * hidden, size), data(ways, gates * hidden, hidden)]
    inputs = [data(batch, steps, size), *states, lengths, *weights, data(ways, biases * hidden)]
    return name, inputs, attrs


def scatter(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    shape = extents(r, r.randint(1, 3), 1, 5)
    axis = r.randint(-len(shape), len(shape) - 1)
    counts = [r.randint(1, n) for n in shape]
    counts[axis] = r.randint(1, 6)
    rng = np.random.default_rng(r.randrange(1 << 30))
    places = rng.integers(-shape[axis], shape[axis], counts).tolist()
    attrs = {
        "reduction": r.choice(["sum", "prod", "min", "max", "mean"]), "use_init_val": r.random() < 0.5,
    }  # fmt: skip
    return "ScatterElementsUpdate", [data(*shape), ints(places), data(*counts), ints(axis)], attrs


def deformed(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    ins, outs, group, parts = r.choice([2, 4]), r.choice([2, 4]), r.choice([1, 2]), r.choice([1, 2])
    kernel, strides, dilations = extents(r, 2, 1, 3), extents(r, 2, 1, 2), extents(r, 2, 1, 2)
    shape, pads = extents(r, 2, 5, 8), extents(r, 2, 0, 1)
    batch = r.randint(1, 2)
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1
           for n, p, d, k, s in zip(shape, pads, dilations, kernel, strides, strict=True)]  # fmt: skip
    taps = parts * kernel[0] * kernel[1]
    inputs = [data(batch, ins, *shape), data(batch, 2 * taps, *out), data(outs, ins // group, *kernel)]
    if r.random() < 0.5:
        inputs.append(data(batch, taps, *out))
    attrs = {
        "strides": strides, "dilations": dilations, "pads_begin": pads, "pads_end": pads, "group": group,
        "deformable_group": parts, "bilinear_interpolation_pad": r.random() < 0.5,
    }  # fmt: skip
    return "DeformableConvolution", inputs, attrs


def patches(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    attrs = {
        "sizes": extents(r, 2, 1, 3), "strides": extents(r, 2, 1, 3), "rates": extents(r, 2, 1, 2),
        "auto_pad": r.choice(["valid", "same_upper", "same_lower"]),
    }  # fmt: skip
    return "ExtractImagePatches", [data(r.randint(1, 2), r.randint(1, 4), *extents(r, 2, 5, 9))], attrs


def adaptive(r: Draw) -> tuple[str, Inputs, dict[str, Any]]:
    rank = r.choice([1, 2, 3])
    inputs = [data(r.randint(1, 2), r.choice([1, 3, 17]), *extents(r, rank)), ints(extents(r, rank, 1, 5))]
    return r.choice(["AdaptiveAvgPool", "AdaptiveMaxPool"]), inputs, {}


DRAWS: tuple[Callable[[Draw], tuple[str, Inputs, dict[str, Any]]], ...] = (
    interpolate, interpolate, transposed, pooled, regions, grid, transform, sequence, scatter, deformed,
    patches, adaptive,
)  # fmt: skip


def make(seed: int) -> dict[str, Any]:
    r = random.Random(seed)
    name, inputs, attrs = r.choice(DRAWS)(r)
    kind = r.choice(["f32", "f32", *TYPES])
    return {"seed": seed, "op": name, "inputs": inputs, "attrs": attrs, "type": kind,
            "open": r.random() < 0.5}  # fmt: skip


def arrays_of(case: dict[str, Any]) -> list[np.ndarray]:
    """Of the inputs that are no constants."""
    out = []
    for i, item in enumerate(case["inputs"]):
        if "shape" in item:
            array = np.random.default_rng([case["seed"], i]).normal(0, 1.5, item["shape"])
            whole = case["type"] in ("u8", "i32")
            out.append((np.abs(array * 9) if whole else array).astype(DTYPES[case["type"]]))
    return out


def model_of(case: dict[str, Any]) -> ovjit.Model:
    sources: list[Any] = []
    parameters = []
    kind = ovjit.Type.__dict__[case["type"]]
    for item in case["inputs"]:
        if "shape" in item:
            shape = [-1] * len(item["shape"]) if case["open"] else item["shape"]
            parameters.append(ovjit.opset13.parameter(shape, kind))
            sources.append(parameters[-1])
        else:
            name = case["type"] if item["type"] == "=" else item["type"]
            array = np.array(item["values"]).astype(DTYPES[name])
            bits = ovjit.Tensor(array.view(np.uint16), list(array.shape), kind) if name == "bf16" else array
            sources.append(ovjit.opset13.constant(bits))
    node = NodeFactory("opset14").create(case["op"], sources, case["attrs"])
    return ovjit.Model([node.output(i) for i in range(node.get_output_size())], parameters, "attributes")


def _compiled(model: ovjit.Model, arrays: list[np.ndarray]) -> list[np.ndarray]:
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ovjit.Core().compile_model(model, "CPU", config)
    half = DTYPES["bf16"]
    tensors = [
        ovjit.Tensor(a.view(np.uint16), list(a.shape), ovjit.Type.bf16)
        if a.dtype == half
        else ovjit.Tensor(a)
        for a in arrays
    ]
    found = compiled(tensors)
    ports = enumerate(compiled.outputs)
    return [found[i].view(half) if p.element_type == ovjit.Type.bf16 else found[i] for i, p in ports]


def check(case: dict[str, Any]) -> str:
    try:
        model = model_of(case)
    except OvjitError:
        return ""
    arrays, answers = arrays_of(case), list[Any]()
    for way in (lambda: _compiled(model, arrays), lambda: evaluate(model._graph(), arrays)):
        try:
            with np.errstate(all="ignore"):
                answers.append(way())
        except OvjitError as error:
            answers.append(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    got, want = answers
    if isinstance(got, Exception) or isinstance(want, Exception):
        same = isinstance(got, Exception) == isinstance(want, Exception) and "internal error" not in str(got)
        return "" if same else f"compiled: {got!s:.200}; interpreter: {want!s:.200}"
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        wrong = _difference(a, b, TYPES[case["type"]])
        if wrong:
            return f"output {i}: {wrong}"
    return ""


def _difference(got: np.ndarray, want: np.ndarray, most: float) -> str:
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        return f"{got.dtype} {got.shape}, not {want.dtype} {want.shape}"
    x, y = got.astype(np.float64), want.astype(np.float64)
    largest = np.abs(y[np.isfinite(y)]).max(initial=1)
    with np.errstate(all="ignore"):
        same = (np.abs(x - y) <= (most * largest or 1)) | (x == y) | np.isnan(x) & np.isnan(y)
    if same.all():
        return ""
    at = tuple(int(v[0]) for v in np.nonzero(~same))
    return f"{int((~same).sum())} of {same.size} differ, {got[at]} at {list(at)} instead of {want[at]}"


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if case["open"]:
        yield {**case, "open": False}
    if case["type"] != "f32":
        yield {**case, "type": "f32"}
    for name in case["attrs"]:
        yield {**case, "attrs": {k: v for k, v in case["attrs"].items() if k != name}}


#: The part of a case that findings show.
SHOWN = "model_of(case)._graph()"

if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
