"""Random programs of `PrePostProcessor`, run with OpenVINO and with ovjit.

Compared are the builtin class of what each call raises, the ports of the built model (names, shapes, types,
layouts), and its results. A program that OpenVINO alone refuses, or that refuses in another class, is a
finding as well.
"""

from __future__ import annotations

import contextlib
import random
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.fuzz import fuzzing

LIFE = 300
F32 = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": 1}
TYPES = ("f32", "f32", "f32", "f16", "u8", "u8", "i32", "i64", "f64", "i8", "u16", "bf16", "boolean", "u32")
COLORS = ("RGB", "BGR", "GRAY", "RGBX", "BGRX", "NV12_SINGLE_PLANE", "NV12_TWO_PLANES", "I420_SINGLE_PLANE",
          "I420_THREE_PLANES", "UNDEFINED")  # fmt: skip
PLANES = {"NV12_TWO_PLANES": 2, "I420_THREE_PLANES": 3}
LAYOUTS = {
    4: (
        "NCHW",
        "NHWC",
        "NCHW",
        "NHWC",
        "N...",
        "...C",
        "NC??",
        "CHWN",
        "[N,C,...]",
        "NHCW",
        "N?HW",
        "...",
        "NCDHW",
        "",
    ),
    3: ("CHW", "HWC", "CHW", "HWC", "NHW", "NCH", "...C", "C...", "N?C", "NCHW"),
    2: ("NC", "HW", "CN", "N...", "?C", "..."),
    5: ("NCDHW", "NDHWC", "NC...", "N...C", "NDCHW"),
    0: ("NCHW", "NHWC", "...", "N..."),
}
#: What OpenVINO says of programs that are built here: a type that its Interpolate does not take, and planes
#: or channels along an axis that is not the layout's.
BETTER = ("input_et == element::f32", "after preprocessing is not aligned with")
NARROW = ("i8", "u8", "u16", "u32", "i32", "i64", "boolean")
#: Element types whose arrays are compared exactly, or nearly so.
NEAR = {"float32": 2e-4, "float16": 1e-2, "float64": 2e-4, "bfloat16": 4e-2}


def make(seed: int) -> dict[str, Any]:
    """{"models": statements that make inputs and outputs, "calls": statements of the processor}."""
    rng = random.Random(seed)
    inputs = [make_input(rng, i) for i in range(rng.choice((1, 1, 1, 2)))]
    calls: list[str] = []
    for i, spec in enumerate(inputs):
        calls += describe_input(rng, i, spec)
    outputs = rng.choice((1, 1, 2))
    for i in range(outputs):
        calls += describe_output(rng, i, inputs[i % len(inputs)])
    if rng.random() < 0.25:
        rng.shuffle(calls)
    return {"seed": seed, "inputs": inputs, "outputs": outputs, "calls": calls}


def make_input(rng: random.Random, number: int) -> dict[str, Any]:
    rank = rng.choice((4, 4, 4, 4, 4, 3, 2, 5, 0))
    channels_last = rng.random() < 0.3
    sizes = [rng.choice((2, 4, 5, 6, 7, 8)) for _ in range(3)]
    channels = rng.choice((3, 3, 3, 1, 2, 4))
    shape: Any = {
        4: [
            1 if rng.random() < 0.7 else 2,
            *([*sizes[:2], channels] if channels_last else [channels, *sizes[:2]]),
        ],
        3: [*sizes[:2], channels] if channels_last else [channels, *sizes[:2]],
        2: [sizes[0], channels],
        5: [1, *sizes, channels] if channels_last else [1, channels, *sizes],
        0: None,
    }[rank]
    names = [f"in{number}", f"b{number}"]
    open_axes = [rng.random() < rng.choice((0, 0, 0.3, 0.6)) for _ in range(rank)]
    said = None if shape is None else [-1 if o else d for d, o in zip(shape, open_axes, strict=True)]
    return {
        "rank": rank, "shape": said, "full": shape, "channels": channels, "last": channels_last,
        "type": rng.choice(("f32", "f32", "f32", "f32", "f16", "u8", "i32")),
        "body": rng.choice(BODIES), "names": rng.choice((names[:1], names[:1], names, [])),
        "layout": rng.choice(LAYOUTS[rank]) if rng.random() < 0.15 else None,
    }  # fmt: skip


BODIES = ("relu", "relu", "add", "multiply", "convolution", "convolution", "itself", "concat")


def describe_input(rng: random.Random, i: int, spec: dict[str, Any]) -> list[str]:
    rank = spec["rank"]
    where = f"p.input({i})" if rng.random() < 0.5 or not spec["names"] else f"p.input('{spec['names'][0]}')"
    likely = {4: ("NHWC" if spec["last"] else "NCHW"), 3: ("HWC" if spec["last"] else "CHW"), 2: "NC",
              5: ("NDHWC" if spec["last"] else "NCDHW"), 0: "NCHW"}[rank]  # fmt: skip
    calls = []
    if rng.random() < 0.7:
        layout = likely if rng.random() < 0.8 else rng.choice(LAYOUTS[rank])
        calls.append(f"{where}.model().set_layout({text(rng, layout)})")
    tensor = []
    kind = rng.choice(TYPES)
    if rng.random() < 0.6:
        tensor.append(f"set_element_type(t.{kind})")
    color = ""
    if rng.random() < 0.35:
        color = rng.choice(COLORS)
        names = [["y", "u", "v"], ["y", "uv"]][PLANES.get(color, 3) == 2][: PLANES.get(color, 0)]
        if rng.random() < 0.03:
            names = ["y", "v"]
        more = f", {names}" if names and rng.random() < 0.8 else ""
        tensor.append(f"set_color_format(v.ColorFormat.{color}{more})")
    if rng.random() < (0.3 if "_" in color else 0.6):
        layout = rng.choice(LAYOUTS[rank if rng.random() < 0.85 else rng.choice((2, 3, 4, 5))])
        if color.endswith("X"):  # OpenVINO takes their last axis for the channels, whatever the layout
            layout = "NHWC"
        tensor.append(f"set_layout({text(rng, layout)})")
    if rng.random() < 0.25:
        size = f"{rng.choice((2, 4, 6, 8))}, {rng.choice((2, 4, 6, 10))}"
        tensor.append(rng.choice((f"set_spatial_static_shape({size})", "set_spatial_dynamic_shape()")))
    elif rng.random() < 0.3:
        tensor.append(random_shape(rng, spec))
    if rng.random() < 0.03:
        tensor.append("set_memory_type('GPU_SURFACE')")
    rng.shuffle(tensor)
    calls += [f"{where}.tensor().{call}" for call in tensor]
    steps = []
    if color and rng.random() < 0.85:
        steps.append(
            f"convert_color(v.ColorFormat.{rng.choice(('RGB', 'BGR', 'RGB', 'BGR', 'GRAY', *COLORS))})"
        )
    for _ in range(rng.choice((0, 1, 1, 2, 3, 4))):
        steps.insert(
            rng.randint(0 if rng.random() < 0.1 else min(len(steps), 1), len(steps)), step(rng, spec)
        )
    return calls + [f"{where}.preprocess().{s}" for s in steps]


def text(rng: random.Random, layout: str) -> str:
    return f"L('{layout}')" if rng.random() < 0.8 else f"'{layout}'"


def random_shape(rng: random.Random, spec: dict[str, Any]) -> str:
    if spec["full"] is None:
        return rng.choice(("set_shape([1, 3, 6, 8])", "set_shape([1, 6, 8, 3])", "set_shape([-1, 3, -1, 8])"))
    shape = list(spec["full"])
    if rng.random() < 0.3 and len(shape) > 2:
        shape = [shape[0], *shape[2:], shape[1]]
    for i in range(len(shape)):
        if rng.random() < 0.3:
            shape[i] = rng.choice((-1, shape[i] + 1, shape[i] + 3, 2 * shape[i]))
    if rng.random() < 0.1:
        kind = rng.choice(("float32", "uint8", "int64"))
        return f"set_from(np.zeros({[max(d, 1) for d in shape]}, np.{kind}))"
    if rng.random() < 0.1:
        shape = shape[:-1] if rng.random() < 0.5 else [1, *shape]
    return f"set_shape({shape})" if rng.random() < 0.8 else f"set_shape(ov.PartialShape({shape}))"


STEPS = (*("mean", "scale", "convert_element_type", "convert_layout", "resize", "reverse_channels") * 2,
         "crop", "pad", "custom", "convert_color")  # fmt: skip


def step(rng: random.Random, spec: dict[str, Any]) -> str:
    rank = spec["rank"] or 4
    if rng.random() < 0.03:
        rank = rng.choice((2, 3, 4, 5))
    channels = spec["channels"] if rng.random() < 0.8 else rng.choice((1, 2, 3, 4))
    many = [round(rng.uniform(0.5, 4), 2) for _ in range(channels)]
    name = rng.choice(STEPS)
    if name in ("mean", "scale"):
        return f"{name}({rng.choice((2.5, 0.5, many, many))})"
    if name == "convert_element_type":
        return f"convert_element_type({rng.choice(('', 't.f32', 't.f32', f't.{rng.choice(TYPES)}'))})"
    if name == "convert_layout":
        if rng.random() < 0.5:
            return f"convert_layout({text(rng, rng.choice(LAYOUTS[rank]))})"
        order = rng.sample(range(rank), rank)
        if rng.random() < 0.05:
            order[0] = order[-1]  # OpenVINO writes beyond its memory for an index that is no axis
        return f"convert_layout({order})"
    if name == "resize":
        algorithm = rng.choice(("LINEAR", "LINEAR", "CUBIC", "NEAREST", "BILINEAR_PILLOW", "BICUBIC_PILLOW"))
        size = rng.choice(("", "", f", {rng.choice((2, 5, 8))}, {rng.choice((3, 6, 8))}"))
        return f"resize(v.ResizeAlgorithm.RESIZE_{algorithm}{size})"
    if name == "crop":
        begin = [rng.choice((0, 0, 0, 1)) for _ in range(rank)]
        return f"crop({begin}, {[rng.choice((2**31 - 1, 100, 4, 3, -1)) for _ in range(rank)]})"
    if name == "pad":
        counts = [[rng.choice((0, 0, 0, 0, 1, 2, -1)) for _ in range(rank)] for _ in range(2)]
        value = rng.choice(("0.5", "0", "[1.5]", "[0.0]"))
        mode = rng.choice(("CONSTANT", "REFLECT", "SYMMETRIC"))
        return f"pad({counts[0]}, {counts[1]}, {value}, v.PaddingMode.{mode})"
    if name == "custom":
        return f"custom({rng.choice(CUSTOM)})"
    if name == "convert_color":
        return f"convert_color(v.ColorFormat.{rng.choice(COLORS)})"
    return "reverse_channels()"


CUSTOM = (
    "lambda x: o.abs(x).output(0)",
    "lambda x: o.convert(x, 'f32').output(0)",
    "lambda x: o.transpose(x, [0, 2, 3, 1]).output(0)",
    "lambda x: o.unsqueeze(x, 0).output(0)",
    "lambda x: o.abs(x)",
)


def describe_output(rng: random.Random, i: int, spec: dict[str, Any]) -> list[str]:
    if rng.random() < 0.4:
        return []
    where, rank, calls = f"p.output({i})", spec["rank"], []
    if rng.random() < 0.5:
        calls.append(f"{where}.model().set_layout({text(rng, rng.choice(LAYOUTS[rank]))})")
    if rng.random() < 0.4:
        calls.append(f"{where}.tensor().set_layout({text(rng, rng.choice(LAYOUTS[rank]))})")
    if rng.random() < 0.4:
        calls.append(f"{where}.tensor().set_element_type(t.{rng.choice(TYPES)})")
    for _ in range(rng.choice((0, 0, 1, 2))):
        kind = rng.choice(("convert_element_type", "convert_layout", "custom", "clamp"))
        order = rng.choice((str(rng.sample(range(rank), rank)), text(rng, rng.choice(LAYOUTS[rank]))))
        calls.append(f"{where}.postprocess()." + {
            "convert_element_type": f"convert_element_type({rng.choice(('', f't.{rng.choice(TYPES)}'))})",
            "convert_layout": f"convert_layout({order})",
            "custom": f"custom({rng.choice(CUSTOM)})",
            "clamp": f"clamp({rng.choice(('0.0, 1.5', '-1.0, 1.0', '2.0, 1.0'))})",
        }[kind])  # fmt: skip
    return calls


# -- both packages -----------------------------------------------------------------------------------------


def build_model(ov: Any, case: dict[str, Any]) -> Any:
    o, t = ov.opset13, ov.Type
    parameters, values = [], []
    for number, spec in enumerate(case["inputs"]):
        shape = ov.PartialShape.dynamic() if spec["shape"] is None else ov.PartialShape(spec["shape"])
        x = o.parameter(shape, getattr(t, spec["type"]), name=f"x{number}")
        x.output(0).set_names(set(spec["names"]))
        parameters.append(x)
        values.append(body(o, x, spec))
    results = []
    for number in range(case["outputs"]):
        value = values[number % len(values)]
        if number >= len(values):
            value = o.negative(value) if case["inputs"][0]["type"] != "u8" else o.convert(value, "i32")
        result = o.result(value, name=f"r{number}")
        result.output(0).set_names({f"out{number}"})
        results.append(result)
    model = ov.Model(results, parameters, "m")
    for spec, x in zip(case["inputs"], parameters, strict=True):
        if spec["layout"] is not None:
            with contextlib.suppress(RuntimeError):  # of another rank
                x.layout = ov.Layout(spec["layout"])
    return model


def body(o: Any, x: Any, spec: dict[str, Any]) -> Any:
    dtype = {"f32": np.float32, "f16": np.float16, "u8": np.uint8, "i32": np.int32}[spec["type"]]
    one = np.array(2, dtype)
    kind = spec["body"]
    if kind == "itself":
        return x
    if kind == "convolution" and spec["rank"] == 4 and spec["type"] in ("f32", "f16") and not spec["last"]:
        weights = np.arange(2 * spec["channels"], dtype=dtype).reshape(2, spec["channels"], 1, 1)
        return o.convolution(x, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    if kind == "add":
        return o.add(x, o.constant(one))
    if kind == "multiply":
        return o.multiply(o.add(x, o.constant(one)), o.constant(one))
    if kind == "concat" and spec["rank"]:
        return o.concat([x, x], 0)
    return o.relu(x)


def run_in(ov: Any, case: dict[str, Any]) -> tuple[Any, list[str]]:
    """(the built model, or the exception that ended the program; the calls that raised, with classes)."""
    model = build_model(ov, case)
    names = {"ov": ov, "p": ov.preprocess.PrePostProcessor(model), "v": ov.preprocess, "t": ov.Type, "np": np,
             "L": ov.Layout, "o": ov.opset13}  # fmt: skip
    raised = []
    for call in case["calls"]:
        try:
            eval(call, names)
        except Exception as error:
            raised.append(f"{call}: {builtin_class(error)}")
    try:
        return names["p"].build(), raised
    except Exception as error:
        return error, raised


def builtin_class(error: Exception) -> str:
    return next(k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins")


def ports(model: Any) -> list[Any]:
    return [
        (str(port.get_partial_shape()), sorted(port.get_names()), port.get_element_type().get_type_name(),
         str(port.get_node().layout), re.sub(r"_\d+$", "_#", port.get_node().get_friendly_name()))
        for port in [*model.inputs, *model.outputs]
    ]  # fmt: skip


def feed(ov: Any, model: Any, rng: np.random.Generator) -> list[np.ndarray] | None:
    """An array for each input of OpenVINO's model; None if no extents of the open ones are known."""
    found: list[np.ndarray] = []
    for port in model.inputs:
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic:
            lengths = [1, 3, 6, 4]
        else:
            lengths = [d.get_length() if d.is_static else (4 if i else 2) for i, d in enumerate(shape)]
        kind = port.get_element_type().get_type_name()
        x = rng.integers(0, 2 if kind == "boolean" else 100, lengths)
        if kind == "bf16":
            import ml_dtypes

            found.append(x.astype(ml_dtypes.bfloat16))
        else:
            found.append(
                (x + (0.25 if kind in ("f32", "f64") else 0)).astype(port.get_element_type().to_dtype())
            )
    return found


def compute(ov: Any, model: Any, arrays: list[np.ndarray]) -> Any:
    try:
        tensors = [
            ov.Tensor(a, list(a.shape), ov.Type.bf16) if a.dtype.name == "bfloat16" else a for a in arrays
        ]
        compiled = ov.Core().compile_model(model, "CPU", F32)
        results = compiled(tensors)
        return [np.array(results[i]) for i in range(len(model.outputs))]
    except Exception as error:
        return error


def check(case: dict[str, Any]) -> str:
    import openvino

    import ovjit

    with np.errstate(all="ignore"):
        (theirs, raised), (ours, raised_here) = run_in(openvino, case), run_in(ovjit, case)
        if raised != raised_here:
            return f"calls raise {raised_here}, not {raised}"
        if isinstance(theirs, Exception) or isinstance(ours, Exception):
            refused = [isinstance(e, Exception) for e in (ours, theirs)]
            if refused[0] and not refused[1] and "removes more than" in str(ours):
                return ""  # OpenVINO builds lengths below 0
            if refused[1] and not refused[0] and any(word in str(theirs) for word in BETTER):
                return ""
            if refused[1] and any(spec["shape"] is None for spec in case["inputs"]):
                return ""  # more is built here of inputs of any rank
            classes = [builtin_class(e) for e in (ours, theirs) if isinstance(e, Exception)]
            same = all(refused) and (classes[0] == classes[1] or "unordered_map::at" in str(theirs))
            return "" if same else f"build: {ours!s:.500}, not {theirs!s:.500}"
        # of inputs of any rank more is inferred here, such as from the length of pads
        columns = slice(1 if any(spec["shape"] is None for spec in case["inputs"]) else 0, None)
        if [port[columns] for port in ports(theirs)] != [port[columns] for port in ports(ours)]:
            return f"ports {ports(ours)}, not {ports(theirs)}"
        arrays = feed(openvino, theirs, np.random.default_rng(case["seed"]))
        expected, got = compute(openvino, theirs, arrays), compute(ovjit, ours, arrays)
        if isinstance(expected, Exception) or isinstance(got, Exception):
            if isinstance(expected, Exception) or "?" in str(ports(theirs)):
                return ""  # OpenVINO computes with extents that do not fit, too
            return f"infer: {str(got)[:500]}, not {str(expected)[:500]}"
        if "PILLOW" in str(case["calls"]) and any(spec["rank"] != 4 for spec in case["inputs"]):
            return ""  # of other ranks OpenVINO reads memory that nobody wrote
        if narrows(case):
            return ""  # values that do not fit: docs/special_values.md
        kinds = [f"t.{kind}" for kind in NARROW] + [f"'type': '{kind}'" for kind in NARROW]
        rounds = "resize" in str(case["calls"]) and any(kind in str(case) for kind in kinds)
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            if wrong := difference(a, b, 5 if rounds else 0):
                return f"output {i}: {wrong}"
    return ""


def narrows(case: dict[str, Any]) -> bool:
    """True if a step or an output converts to integers."""
    calls = [call for call in case["calls"] if "set_element_type" not in call or "output" in call]
    return any(f"t.{kind}" in call for call in calls for kind in NARROW)


def difference(a: np.ndarray, b: np.ndarray, steps: int) -> str:
    """What is wrong with `a`. `steps`: by how much it may differ where integers are rounded within."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"{a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}"
    u, v = a.astype(np.float64), b.astype(np.float64)
    near = NEAR.get(a.dtype.name, 0) * max(float(np.abs(v[np.isfinite(v)]).max(initial=0)), 1)
    same = (np.abs(u - v) <= max(near or 1, steps)) | (u == v) | np.isnan(u) & np.isnan(v)
    if same.all():
        return ""
    return f"{int((~same).sum())} of {same.size}; {a[~same][:5].tolist()}, not {b[~same][:5].tolist()}"


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for calls in fuzzing.without(case["calls"]):
        yield {**case, "calls": calls}
    if case["outputs"] > 1:
        yield {**case, "outputs": 1}
    for i, spec in enumerate(case["inputs"]):
        plain = {"type": "f32", "body": "relu", "layout": None}
        for key, value in plain.items():
            if spec[key] != value:
                inputs = list(case["inputs"])
                inputs[i] = {**spec, key: value}
                yield {**case, "inputs": inputs}


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
