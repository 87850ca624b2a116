"""Random chains of post-processing, and pictures of any colour format: answers are OpenVINO's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from hypothesis import given, settings
from hypothesis import strategies as st

import ovjit
from ovjit.graph.interp import evaluate
from tests.support.beside import examples, random_array

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
chains = st.lists(
    st.one_of(
        st.tuples(
            st.just("convert_element_type"),
            st.sampled_from(["f32", "f16", "i32", "u8", "i64", "f64", "boolean"]),
        ),
        st.tuples(
            st.just("convert_layout"),
            st.sampled_from(["NHWC", "NCHW", "CHWN", [0, 2, 3, 1], [3, 2, 1, 0], [0, 1]]),
        ),
        st.tuples(st.just("clamp"), st.sampled_from([(0.0, 1.0), (-1.5, 2.5), (2.0, 1.0)])),
    ),
    max_size=4,
)
layouts = st.sampled_from([None, "NCHW", "NHWC"])


def after(ov: Any, chain: Any, kind: str | None, model_layout: str | None, layout: str | None) -> Any:
    """A model of f32, NCHW, with the chain behind it."""
    o13 = ov.opset13
    x = o13.parameter([1, 3, 2, 4], np.float32, name="x")
    steps = ov.preprocess.PrePostProcessor(ov.Model([o13.multiply(x, np.float32(1.5))], [x], "m"))
    output = steps.output()
    if model_layout:
        output.model().set_layout(ov.Layout(model_layout))
    made = output.postprocess()
    for name, value in chain:
        if name == "convert_element_type":
            made.convert_element_type(getattr(ov.Type, value))
        elif name == "convert_layout":
            made.convert_layout(value if isinstance(value, list) else ov.Layout(value))
        else:
            made.clamp(*value)
    if kind:
        output.tensor().set_element_type(getattr(ov.Type, kind))
    if layout:
        output.tensor().set_layout(ov.Layout(layout))
    return steps.build()


def picture(ov: Any, source: str, target: str, kind: str, size: Any, resize: str | None, mean: Any) -> Any:
    """A model of pictures of any size, for which another format is converted, resized and normalised."""
    o13, colors = ov.opset13, ov.preprocess.ColorFormat
    shape = ov.PartialShape([1, -1, -1, 1 if target == "GRAY" else 3])
    x = o13.parameter(shape, np.float32, name="x")
    x.output(0).set_names({"x"})
    steps = ov.preprocess.PrePostProcessor(ov.Model([o13.add(x, np.float32(0))], [x], "m"))
    tensor = steps.input().tensor().set_element_type(getattr(ov.Type, kind)).set_layout(ov.Layout("NHWC"))
    planes = {"NV12_TWO_PLANES": (["y", "uv"],), "I420_THREE_PLANES": (["y", "u", "v"],)}.get(source, ())
    tensor.set_color_format(getattr(colors, source), *planes)
    if size:
        tensor.set_spatial_static_shape(*size)
    made = steps.input().preprocess().convert_color(getattr(colors, target)).convert_element_type(ov.Type.f32)
    if resize:
        made.resize(getattr(ov.preprocess.ResizeAlgorithm, resize), 5, 6)
    if mean:
        made.mean(mean)
    steps.input().model().set_layout(ov.Layout("NHWC"))
    return steps.build()


def both(make: Callable[..., Any], *what: Any) -> list[Any]:
    """The models of OpenVINO and ovjit with equal ports; none where both refuse."""
    models, refusals = [], []
    for ov in (openvino, ovjit):
        try:
            models.append(make(ov, *what))
        except Exception as error:
            refusals.append(next(k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins"))
    assert not models or not refusals, f"{what}: one refuses: {refusals}"
    if not models:
        assert refusals[0] == refusals[1], what
        return []
    said = [
        [(str(p.get_partial_shape()), str(p.get_element_type())) for p in [*m.inputs, *m.outputs]]
        for m in models
    ]
    assert said[0] == said[1], what
    return models


def compare(models: list[Any], arrays: list[np.ndarray], tolerance: float, what: Any) -> None:
    expected = openvino.Core().compile_model(models[0], "CPU", EXACT)(arrays)[0]
    (got,) = evaluate(models[1]._graph(), arrays)
    assert got.shape == expected.shape, what
    assert np.abs(got.astype(np.float64) - expected).max() <= tolerance, what


@settings(max_examples=examples(30))
@given(chains, st.sampled_from([None, "f16", "i32", "u8"]), layouts, layouts)
def test_a_chain_behind_a_model(chain: Any, kind: str | None, model_layout: Any, layout: Any) -> None:
    what = chain, kind, model_layout, layout
    models = both(after, *what)
    if models:  # rounding to f16 comes before or after other steps
        compare(models, [np.abs(random_array("float32", [1, 3, 2, 4], 3)) * 3], 0.02, what)


@settings(max_examples=examples(30))
@given(
    st.sampled_from(
        ["NV12_SINGLE_PLANE", "NV12_TWO_PLANES", "I420_SINGLE_PLANE", "I420_THREE_PLANES", "RGB", "BGR",
         "RGBX", "BGRX", "GRAY"]
    ),
    st.sampled_from(["RGB", "BGR", "GRAY"]),
    st.sampled_from(["u8", "f32"]),
    st.sampled_from([None, (2, 2), (4, 6), (2, 4), (3, 4)]),
    st.sampled_from([None, "RESIZE_LINEAR", "RESIZE_NEAREST", "RESIZE_CUBIC"]),
    st.sampled_from([None, 1.0, [1.0, 2.0, 3.0]]),
)  # fmt: skip
def test_a_picture(source: str, target: str, kind: str, size: Any, resize: str | None, mean: Any) -> None:
    what = source, target, kind, size, resize, mean
    models = both(picture, *what)
    if models and size:
        dtype = {"u8": "uint8", "f32": "float32"}[kind]
        arrays = [random_array("uint8", list(p.get_shape()), 5).astype(dtype) for p in models[0].inputs]
        compare(models, arrays, 1.01 if kind == "u8" else 0.02, what)  # bytes are rounded, both ways
