"""Random chains of preprocessing: inputs and answers are OpenVINO's. ovjit's are the interpreter's."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from hypothesis import given, settings
from hypothesis import strategies as st

import ovjit
from ovjit.graph.interp import evaluate
from tests.support.beside import examples, random_array

#: Name of a step and what it may be given.
STEPS = {
    "mean": st.sampled_from([0.5, 3.0, [1.0, 2.0, 3.0]]),
    "scale": st.sampled_from([2.0, 0.25, [1.0, 2.0, 4.0]]),
    "convert_element_type": st.sampled_from(["f32", "i32", "f64"]),
    "convert_layout": st.sampled_from(["NCHW", "NHWC", [0, 2, 1, 3]]),
    "reverse_channels": st.none(),
    "crop": st.sampled_from([([0, 0, 0, 0], [1, 2, 2, 2]), ([0, 1, 0, 0], [1, 3, 3, 2])]),
    "resize": st.sampled_from(["RESIZE_LINEAR", "RESIZE_NEAREST"]),
    "pad": st.sampled_from(
        [([0, 0, 1, 0], [0, 0, 0, 2], 1.5, "constant"), ([0] * 4, [0, 0, 1, 0], 0.0, "reflect")]
    ),
}
chains = st.lists(
    st.sampled_from(sorted(STEPS)).flatmap(lambda name: st.tuples(st.just(name), STEPS[name])), max_size=4
)  # fmt: skip


def built(ov: Any, chain: Any, kind: str, layout: str, color: str | None) -> Any:
    """A model of an image, NCHW in f32, with the chain in front."""
    o13 = ov.opset13
    x = o13.parameter([1, 3, 4, 4], np.float32, name="x")
    model = ov.Model([o13.add(x, np.float32(0))], [x], "m")
    steps = ov.preprocess.PrePostProcessor(model)
    tensor = steps.input().tensor().set_element_type(getattr(ov.Type, kind)).set_layout(ov.Layout(layout))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    if color:
        tensor.set_color_format(getattr(ov.preprocess.ColorFormat, color))
    if any(name == "resize" for name, _ in chain):
        tensor.set_shape([1, 3, 6, 7] if layout == "NCHW" else [1, 6, 7, 3])
    made = steps.input().preprocess()
    if color:
        made.convert_color(ov.preprocess.ColorFormat.BGR)
    for name, value in chain:
        if name == "convert_element_type":
            made.convert_element_type(getattr(ov.Type, value))
        elif name == "convert_layout":
            made.convert_layout(value if isinstance(value, list) else ov.Layout(value))
        elif name == "resize":
            made.resize(getattr(ov.preprocess.ResizeAlgorithm, value))
        elif name == "pad":
            made.pad(*value[:3], getattr(ov.preprocess.PaddingMode, value[3].upper()))
        elif name == "crop":
            made.crop(*value)
        elif value is None:
            made.reverse_channels()
        else:
            getattr(made, name)(value)
    return steps.build()


def refusal_or_model(ov: Any, *what: Any) -> Any:
    try:
        return built(ov, *what)
    except RuntimeError as error:
        return error


@settings(max_examples=examples(40))
@given(
    chains, st.sampled_from(["u8", "f32"]), st.sampled_from(["NCHW", "NHWC"]), st.sampled_from([None, "RGB"])
)
def test_a_chain(chain: Any, kind: str, layout: str, color: str | None) -> None:
    what = chain, kind, layout, color
    theirs, ours = refusal_or_model(openvino, *what), refusal_or_model(ovjit, *what)
    assert isinstance(theirs, Exception) == isinstance(ours, Exception), f"{what}\n{theirs}\n{ours}"
    if isinstance(theirs, Exception):
        return
    for side in ("inputs", "outputs"):
        said = [[(str(p.get_partial_shape()), p.get_element_type().get_type_name()) for p in getattr(m, side)]
                for m in (theirs, ours)]  # fmt: skip
        assert said[0] == said[1], what
    x = np.abs(random_array("uint8" if kind == "u8" else "float32", list(theirs.input().shape), 7))
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    expected = openvino.Core().compile_model(theirs, "CPU", config)(x)[0]
    (got,) = evaluate(ours._graph(), [x])
    assert got.shape == expected.shape, what
    assert np.abs(got - expected).max() <= 1e-4 * max(1, np.abs(expected).max()), what
