"""PrePostProcessor beside the real OpenVINO: what it prints, what becomes of the model, what that
computes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit

BOTH = [openvino, ovjit]


def model(ov: Any, shape: Any = (1, 3, 8, 8), dtype: Any = np.float32, layout: str = "") -> Any:
    x = ov.opset13.parameter(list(shape), dtype, name="in")
    x.output(0).set_names({"t_in"})
    result = ov.opset13.result(ov.opset13.relu(x, name="relu"), name="res")
    made = ov.Model([result], [x], "m")
    result.output(0).set_names({"t_out"})
    if layout:
        x.layout = ov.Layout(layout)
    return made


#: name -> (steps, the model's shape). `p` is the PrePostProcessor, `v` the package's `preprocess`, `t` its
#: Type,
#: `L` its Layout, `o` its opset13.
CASES: dict[str, tuple[str, tuple[int, ...]]] = {
    "nothing": ("", (1, 3, 8, 8)),
    "the model's layout only": ("p.input().model().set_layout(L('NCHW'))", (1, 3, 8, 8)),
    "mean and scale of bytes": (
        "p.input().tensor().set_element_type(t.u8).set_layout(L('NHWC'));"
        "p.input().model().set_layout(L('NCHW'));"
        "p.input().preprocess().convert_element_type(t.f32).mean([1, 2, 3]).scale([4, 5, 6])",
        (1, 3, 8, 8),
    ),
    "an image with fewer axes than its format has": (
        "p.input().tensor().set_color_format(v.ColorFormat.BGRX);p.input().model().set_layout(L('CHW'))",
        (3, 8, 8),
    ),
    "a layout that says nothing": (
        "p.input().tensor().set_layout(L('...'));p.input().model().set_layout(L('NCHW'));"
        "p.output().model().set_layout(L('NCHW'));p.output().tensor().set_layout(L('...'))",
        (1, 3, 8, 8),
    ),
    "a result turned and converted": (
        "p.output().model().set_layout(L('NCHW'));p.output().postprocess().convert_layout(L('NHWC'));"
        "p.output().tensor().set_element_type(t.f16)",
        (1, 3, 8, 7),
    ),
    "one mean": ("p.input().preprocess().mean(1.5).scale(2)", (1, 3, 8, 8)),
    "mean of integers": ("p.input().tensor().set_element_type(t.u8);p.input().preprocess().mean(3)", (1, 3)),
    "mean without a layout": ("p.input().preprocess().mean([1, 2, 3])", (1, 3, 8, 8)),
    "mean of too few": (
        "p.input().tensor().set_layout(L('NCHW'));p.input().preprocess().mean([1, 2])",
        (1, 3, 8, 8),
    ),
    "type to the model's": ("p.input().preprocess().convert_element_type()", (1, 3)),
    "f16 in between": (
        "p.input().tensor().set_element_type(t.u8);p.input().preprocess().convert_element_type(t.f16).scale(2)",
        (1, 3),
    ),
    "a shape, and axes by number": (
        "p.input().tensor().set_shape([1, 8, 6, 3]);p.input().model().set_layout(L('NCHW'));"
        "p.input().preprocess().convert_layout([0, 3, 1, 2])",
        (1, 3, 8, 6),
    ),
    "a shape, and axes by number twice": (
        "p.input().tensor().set_shape([-1, -1, -1, 3]);p.input().model().set_layout(L('NCHW'));"
        "p.input().preprocess().convert_layout([0, 2, 3, 1]).convert_layout([0, 2, 3, 1])",
        (1, 3, 8, 8),
    ),
    "a shape that the axes do not give": (
        "p.input().tensor().set_shape([1, 3, 8, 6]);p.input().model().set_layout(L('NCHW'));"
        "p.input().preprocess().convert_layout([0, 3, 1, 2])",
        (1, 3, 8, 6),
    ),
    "resize to the model": (
        "p.input().tensor().set_layout(L('NHWC')).set_spatial_static_shape(20, 30);"
        "p.input().model().set_layout(L('NCHW'));"
        "p.input().preprocess().resize(v.ResizeAlgorithm.RESIZE_LINEAR).reverse_channels()",
        (1, 3, 8, 8),
    ),
    "resize from any size": (
        "p.input().tensor().set_layout(L('NHWC')).set_spatial_dynamic_shape();"
        "p.input().model().set_layout(L('NCHW'));p.input().preprocess().resize(v.ResizeAlgorithm.RESIZE_CUBIC)",
        (1, 3, 8, 8),
    ),
    "resize without a layout": (
        "p.input().preprocess().resize(v.ResizeAlgorithm.RESIZE_LINEAR)",
        (1, 3, 8, 8),
    ),
    "resize twice": (
        "p.input().tensor().set_layout(L('NCHW')).set_spatial_static_shape(4, 5);"
        "p.input().preprocess().resize(v.ResizeAlgorithm.RESIZE_NEAREST, 6, 6)"
        ".resize(v.ResizeAlgorithm.RESIZE_LINEAR)",
        (1, 3, 8, 8),
    ),
    "crop": (
        "p.input().tensor().set_shape([1, 3, 10, 12]);p.input().preprocess().crop([0, 0, 1, 2], [1, 3, -1, "
        "-2])",
        (1, 3, 8, 8),
    ),
    "crop of open dimensions": (
        "p.input().tensor().set_shape([-1, 3, -1, -1]);"
        "p.input().preprocess().crop([0, 0, 0, 0], [1, 3, 8, 8])",
        (1, 3, 8, 8),
    ),
    "pad": (
        "p.input().tensor().set_shape([1, 3, 6, 6]);"
        "p.input().preprocess().pad([0, 0, 1, 1], [0, 0, 1, 1], 0.5, v.PaddingMode.CONSTANT)",
        (1, 3, 8, 8),
    ),
    "pad by reflection": (
        "p.input().tensor().set_shape([1, 3, 6, 6]);"
        "p.input().preprocess().pad([0, 0, 1, 1], [0, 0, 1, 1], [0], v.PaddingMode.REFLECT)",
        (1, 3, 8, 8),
    ),
    "layout by numbers": ("p.input().preprocess().convert_layout([0, 3, 1, 2])", (1, 3, 8, 8)),
    "layout by too few numbers": ("p.input().preprocess().convert_layout([0, 1, 2])", (1, 3, 8, 8)),
    "layout by wrong numbers": ("p.input().preprocess().convert_layout([0, 0, 1, 2])", (1, 3, 8, 8)),
    "layout by name": (
        "p.input().tensor().set_layout(L('NHWC'));p.input().preprocess().convert_layout(L('NCHW'))",
        (1, 3, 8, 8),
    ),
    "layout there and back": (
        "p.input().tensor().set_layout(L('NHWC'));p.input().model().set_layout(L('NHWC'));"
        "p.input().preprocess().convert_layout(L('NCHW')).convert_layout(L('NHWC'))",
        (1, 3, 8, 8),
    ),
    "open layouts": (
        "p.input().tensor().set_layout(L('N...C'));p.input().model().set_layout(L('NC...'))",
        (1, 3, 8, 8),
    ),
    "an image without a batch": (
        "p.input().tensor().set_layout(L('HWC'));p.input().model().set_layout(L('NCHW'))",
        (1, 3, 8, 8),
    ),
    "an image without a batch, in order": (
        "p.input().tensor().set_layout(L('CHW'));p.input().model().set_layout(L('NCHW'))",
        (1, 3, 8, 8),
    ),
    "layouts that do not fit": (
        "p.input().tensor().set_layout(L('NHWC'));p.input().model().set_layout(L('NCDW'))",
        (1, 3, 8, 8),
    ),
    "a layout of another rank": ("p.input().tensor().set_layout(L('NC'))", (1, 3, 8, 8)),
    "another shape": ("p.input().tensor().set_shape([1, 3, 9, 9])", (1, 3, 8, 8)),
    "two shapes": ("p.input().tensor().set_shape([1, 3, 9, 9]).set_spatial_static_shape(3, 3)", (1, 3, 8, 8)),
    "as an array": ("p.input().tensor().set_from(np.zeros((1, 3, 8, 8), np.uint8))", (1, 3, 8, 8)),
    "no such input": ("p.input('nope')", (1, 3)),
    "no such index": ("p.output(4)", (1, 3)),
    "custom": ("p.input().preprocess().custom(lambda out: o.abs(out).output(0))", (1, 3, 8, 8)),
    "outputs": (
        "p.output().tensor().set_element_type(t.i32).set_layout(L('NHWC'));"
        "p.output('t_out').model().set_layout(L('NCHW'))",
        (1, 3, 8, 8),
    ),
    "output steps": (
        "p.output().postprocess().convert_element_type(t.f16).convert_layout([0, 2, 3, 1])"
        ".custom(lambda out: o.abs(out).output(0))",
        (1, 3, 8, 8),
    ),
    "output type of nothing": ("p.output().postprocess().convert_element_type()", (1, 3)),
    "planes without a conversion": (
        "p.input().tensor().set_layout(L('NHWC')).set_color_format(v.ColorFormat.NV12_TWO_PLANES)",
        (1, 8, 8, 3),
    ),
    "mean of planes": (
        "p.input().tensor().set_layout(L('NHWC')).set_color_format(v.ColorFormat.I420_THREE_PLANES);"
        "p.input().preprocess().mean(1)",
        (1, 8, 8, 3),
    ),
    "a colour alone": ("p.input().tensor().set_color_format(v.ColorFormat.RGB)", (1, 8, 8, 3)),
    "a colour of no layout": (
        "p.input().tensor().set_color_format(v.ColorFormat.BGR);"
        "p.input().preprocess().convert_color(v.ColorFormat.GRAY)",
        (1, 8, 8, 1),
    ),
    "a colour of no layout, the model has one": (
        "p.input().tensor().set_color_format(v.ColorFormat.RGBX);p.input().model().set_layout(L('NCHW'));"
        "p.input().preprocess().convert_color(v.ColorFormat.BGR)",
        (1, 3, 8, 8),
    ),
    "a colour that no model takes": (
        "p.input().tensor().set_color_format(v.ColorFormat.RGBX)",
        (1, 8, 8, 4),
    ),
    "layouts as strings": (
        "p.input().tensor().set_layout('NHWC');p.input().model().set_layout('NCHW');"
        "p.output().model().set_layout('NCHW');p.output().postprocess().convert_layout('NHWC')",
        (1, 3, 8, 8),
    ),
    "no layout in a string": ("p.input().model().set_layout('N-C')", (1, 3)),
    "pads that cut": (
        "p.input().tensor().set_shape([1, 3, 11, 7]);"
        "p.input().preprocess().pad([0, 0, -2, 2], [0, 0, -1, -1], 3, v.PaddingMode.CONSTANT)",
        (1, 3, 8, 8),
    ),
    "pads of bytes": (
        "p.input().tensor().set_shape([1, 3, 8, 7]).set_element_type(t.u8);"
        "p.input().preprocess().pad([0, 0, 0, 0], [0, 0, 0, 1], 3, v.PaddingMode.CONSTANT)",
        (1, 3, 8, 8),
    ),
    "names of planes": (
        "p.input().tensor().set_color_format(v.ColorFormat.NV12_TWO_PLANES, ['y'])",
        (1, 8, 8, 3),
    ),
}
for name in ("RESIZE_NEAREST", "RESIZE_BILINEAR_PILLOW", "RESIZE_BICUBIC_PILLOW"):
    CASES[name] = (
        "p.input().tensor().set_layout(L('NHWC')).set_shape([1, 20, 30, 3]).set_element_type(t.u8);"
        f"p.input().model().set_layout(L('NCHW'));"
        f"p.input().preprocess().resize(v.ResizeAlgorithm.{name}, 8, 8)",
        (1, 3, 8, 8),
    )
for pair in (
    "BGR RGB", "RGB BGR", "RGBX RGB", "BGRX RGB", "RGBX BGR", "RGB GRAY", "BGR GRAY", "RGB RGB", "GRAY RGB",
    "RGBX GRAY", "RGB RGBX", "NV12_SINGLE_PLANE RGB", "NV12_TWO_PLANES BGR", "I420_SINGLE_PLANE RGB",
    "I420_THREE_PLANES BGR", "NV12_TWO_PLANES GRAY", "NV12_SINGLE_PLANE GRAY",
):  # fmt: skip
    source, target = pair.split()
    CASES[f"colour {pair}"] = (
        f"p.input().tensor().set_layout(L('NHWC')).set_color_format(v.ColorFormat.{source})"
        ".set_element_type(t.u8);p.input().model().set_layout(L('NCHW'));"
        f"p.input().preprocess().convert_color(v.ColorFormat.{target})",
        (1, 1 if target == "GRAY" else 3, 8, 8),
    )


def described(ov: Any, steps: str, shape: tuple[int, ...]) -> tuple[str, Any]:
    """(what is printed or the error's class, the built model or None)"""
    made = model(ov, shape)
    preprocess = ov.preprocess
    p = preprocess.PrePostProcessor(made)
    names = {"p": p, "v": preprocess, "t": ov.Type, "L": ov.Layout, "o": ov.opset13, "np": np}
    try:
        for step in steps.split(";"):
            eval(step or "None", names)
        printed = re.sub(r"(?m)^Error occurred: .*(\n.+)?", "Error", str(p))
        return printed, p.build()
    except RuntimeError:
        return "RuntimeError", None


def ports(made: Any) -> list[Any]:
    """The parts that users see, running numbers left out."""
    rows = []
    for node in (*made.get_parameters(), *made.get_results()):
        rows.append(
            (node.get_type_name(), str(node.output(0).get_partial_shape()), str(node.get_element_type()),
             sorted(node.output(0).get_names()), node.layout.to_string())
        )  # fmt: skip
    last = made.get_results()[0].input_value(0).get_node().get_friendly_name()
    return [*rows, re.sub(r"_\d+", "", last)]


@pytest.mark.parametrize("name", CASES)
def test_as_openvino(name):
    steps, shape = CASES[name]
    (printed, real), (ours_printed, ours) = (described(ov, steps, shape) for ov in BOTH)
    assert ours_printed == printed
    if real is None:
        return
    assert ports(ours) == ports(real)
    rng = np.random.default_rng(len(name))
    arrays = []
    for parameter in real.get_parameters():
        dims = [8 if d.is_dynamic else d.get_length() for d in parameter.get_partial_shape()]
        kind = parameter.get_element_type().to_dtype()
        arrays.append(rng.uniform(0, 255, dims).astype(kind) if kind == np.uint8 else
                      rng.uniform(-3, 3, dims).astype(kind))  # fmt: skip
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    want = openvino.compile_model(real, "CPU", precise)(arrays)[0]
    got = ovjit.compile_model(ours, "CPU", precise)(arrays)[0]
    assert got.dtype == want.dtype and got.shape == want.shape
    # integers that are rounded from a number next to a half may be one apart
    tolerance = 1 if "u8" in steps and ("RESIZE" in steps or "NV12" in steps or "I420" in steps) else 2e-5
    np.testing.assert_allclose(got, want, atol=tolerance, rtol=1e-3 if "f16" in steps else 1e-5)


LAYOUTS = "NCHW NHWC N... ... ?... N...C ...C NC?W N?HW HWC ...HW N??C ...W ???W".split()


@pytest.mark.parametrize("how", ["tensor and model", "step", "output"])
def test_layouts_that_name_some_axes(how: str) -> None:
    def made(ov: Any, have: str, want: str) -> Any:
        p = ov.preprocess.PrePostProcessor(model(ov, (2, 3, 4, 5)))
        one, other = ov.Layout(have), ov.Layout(want)
        try:
            if how == "output":
                p.output().model().set_layout(one)
                p.output().tensor().set_layout(other)
            else:
                p.input().tensor().set_layout(one)
                if how == "step":
                    p.input().preprocess().convert_layout(other)
                else:
                    p.input().model().set_layout(other)
            built = p.build()
        except RuntimeError:
            return "RuntimeError"
        ends = built.get_parameters()[0], built.get_results()[0]
        return [(str(end.output(0).get_partial_shape()), end.layout.to_string()) for end in ends]

    for have in LAYOUTS:
        for want in LAYOUTS:
            assert made(ovjit, have, want) == made(openvino, have, want), (have, want)


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_the_given_model_is_changed(ov):
    made = model(ov)
    p = ov.preprocess.PrePostProcessor(made)
    p.input().tensor().set_element_type(ov.Type.u8)
    p.build()
    assert made.input("t_in").get_element_type() == ov.Type.u8
    with pytest.raises(RuntimeError):
        p.build()


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_pads_that_cut_more_than_there_is(ov):
    p = ov.preprocess.PrePostProcessor(model(ov, (1, 3, 8, 8)))
    p.input().preprocess().pad([0, 0, -2, 0], [0, 0, -7, 1], 0, ov.preprocess.PaddingMode.CONSTANT)
    with pytest.raises(RuntimeError, match="not aligned with original parameter's shape"):
        p.build()


def test_what_fails_changes_nothing():
    made = model(ovjit, layout="NCHW")
    before = [(n.get_friendly_name(), str(n.output(0))) for n in made.get_ordered_ops()]
    p = ovjit.preprocess.PrePostProcessor(made)
    p.input().tensor().set_element_type(ovjit.Type.u8).set_layout(ovjit.Layout("NHWC"))
    p.output().postprocess().convert_element_type()  # to no type: found after the input has been done
    with pytest.raises(RuntimeError, match="dynamic/unknown"):
        p.build()
    assert [(n.get_friendly_name(), str(n.output(0))) for n in made.get_ordered_ops()] == before
    assert made.get_parameters()[0].layout.to_string() == "[N,C,H,W]"


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_unknown_element_types(ov):
    """They were taken, and the built model had an input without a type, or the model's own output."""
    for ask in (
        lambda p: p.input().tensor().set_element_type(ov.Type.dynamic),
        lambda p: (
            p.input().preprocess().convert_element_type(ov.Type.f32).custom(lambda n: n)
            and p.input().tensor().set_element_type(ov.Type.dynamic)
        ),
        lambda p: p.output().tensor().set_element_type(ov.Type.dynamic),
    ):
        p = ov.preprocess.PrePostProcessor(model(ov))
        ask(p)
        with pytest.raises(RuntimeError, match="dynamic"):
            p.build()


def test_wrong_kinds_of_arguments():
    p = ovjit.preprocess.PrePostProcessor(model(ovjit))
    for wrong in (
        lambda: p.input().tensor().set_element_type("f32"),
        lambda: p.input().tensor().set_layout(3),
        lambda: p.input().tensor().set_from([1]),
        lambda: p.input().preprocess().mean("x"),
        lambda: p.input().preprocess().resize("linear"),
        lambda: ovjit.preprocess.PrePostProcessor(3),
        lambda: ovjit.preprocess.InputInfo(),
    ):
        with pytest.raises(TypeError):
            wrong()


#: What is called with which arguments, of a PrePostProcessor `p`.
ARGUMENTS = {
    "p.input().tensor().set_spatial_static_shape({})":
        ["-3, 100", "3, -1", "2**63, 4", "2**64, 4", "4, 4", "np.int64(4), np.int32(4)"],
    "p.input().tensor().set_shape({})":
        ["np.array([1, 3, 4, 4])", "np.array([1, -1])", "np.array([1.5])", "np.array([[1]])", "[1, 3]"],
    "p.input().preprocess().resize(r, {})": ["-3, 100", "3, -1", "2**64, 4", "4, 4", "4.0, 4"],
    "p.input().preprocess().convert_layout({})":
        ["", "None", "[0, 2, 3, -1]", "[0, 2, 3, 2**64]", "[0, 2, 3, 1]", "ov.Layout()"],
    "p.output().postprocess().convert_layout({})": ["", "None", "[0, -1]", "[1, 0]"],
    "p.input().preprocess().mean({})": ["['1']", "10**400", "[10**400]", "[]", "np.float32(1)"],
    "p.input().preprocess().scale({})": ["['1']", "10**400", "[10**400]", "(1, 2, 3)"],
    "p.input().preprocess().crop({})": ["[2**31], [1]", "[-(2**63)], [1]", "[0], [2**31 - 1]"],
    "p.input().preprocess().pad({}, 0, constant)": ["[2**31], [0]", "[-(2**31) - 1], [0]", "[0], [1]"],
}  # fmt: skip


@pytest.mark.parametrize("call", ARGUMENTS)
def test_ranges_of_arguments(call: str) -> None:
    """Negative sizes were taken as sizes."""

    def said(ov: Any, arguments: str) -> str:
        resize, pad = ov.preprocess.ResizeAlgorithm.RESIZE_LINEAR, ov.preprocess.PaddingMode.CONSTANT
        p = ov.preprocess.PrePostProcessor(model(ov))
        try:
            eval(call.format(arguments), {"p": p, "np": np, "ov": ov, "r": resize, "constant": pad})
        except (TypeError, RuntimeError) as error:
            return "TypeError" if isinstance(error, TypeError) else "RuntimeError"
        return "taken"

    for arguments in ARGUMENTS[call]:
        assert said(ovjit, arguments) == said(openvino, arguments), arguments


def test_what_was_built_is_still_described():
    shown = []
    for ov in BOTH:
        made = model(ov, (1, 3, 8, 8))
        p = ov.preprocess.PrePostProcessor(made)
        p.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        p.input().model().set_layout(ov.Layout("NCHW"))
        before = str(p)
        p.build()
        assert str(p) == before
        shown.append(before)
    assert shown[0] == shown[1]
