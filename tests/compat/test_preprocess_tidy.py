"""What `PrePostProcessor.build` makes of a model: the real OpenVINO's operations, and its numbers."""

from __future__ import annotations

import importlib
import re
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit


class Words:
    """Short words for graphs of one package."""

    def __init__(self, library: Any):
        self.ov, self.o = library, library.opset13
        self.pp = importlib.import_module(f"{library.__name__}.preprocess")
        self.rng = np.random.default_rng(17)

    def c(self, value: Any, dtype: Any = np.float32) -> Any:
        return self.o.constant(np.array(value, dtype))

    def real(self, *shape: int) -> Any:
        return self.c(self.rng.standard_normal(shape))

    def conv(self, x: Any, w: Any = None) -> Any:
        return self.o.convolution(x, w or self.real(4, 3, 3, 3), [1, 1], [0, 0], [0, 0], [1, 1])

    def turn(self, x: Any, *order: int) -> Any:
        return self.o.transpose(x, self.c(order, np.int64))

    def order(self, x: Any, order: Any = (2, 1, 0), axis: int = 1) -> Any:
        return self.o.gather(x, self.c(order, np.int32), self.c(axis, np.int32))

    def weights(self) -> Any:
        few = self.o.convert(self.c(self.rng.integers(-9, 9, (4, 3, 3, 3)), np.int8), "f32")
        return self.o.multiply(few, self.real(4, 1, 1, 1))

    def halves(self) -> Any:
        return self.o.convert(self.c(self.rng.standard_normal((4, 3, 3, 3)), np.float16), "f32")

    def levels(self, x: Any, *ends: float) -> Any:
        return self.o.fake_quantize(x, *[self.c(end) for end in ends or (-1, 1, -1, 1)], 255)


def twice(k: Words, make: Any) -> Any:
    return k.o.add(make(), make())


#: What a model does to its input of 1 x 3 x 8 x 8.
GRAPHS: dict[str, Any] = {
    "transpose, convert": lambda k, x: k.o.convert(k.turn(k.o.convert(x, "i32"), 0, 2, 3, 1), "f32"),
    "transpose of two users": lambda k, x: (
        lambda t: k.o.add(k.o.convert(t, "f16"), k.o.convert(k.o.relu(t), "f16"))
    )(k.turn(x, 0, 2, 3, 1)),
    "divide": lambda k, x: k.o.divide(x, k.c([1, 2, 3, 4, 5, 6, 7, 8])),
    "divide in f64": lambda k, x: k.o.divide(k.o.convert(x, "f64"), k.c(3, np.float64)),
    "divide a constant": lambda k, x: k.o.divide(k.c(3), x),
    "number": lambda k, x: k.conv(k.o.multiply(k.c(3), x)),
    "channels": lambda k, x: k.conv(k.o.multiply(x, k.real(3, 1, 1))),
    "places": lambda k, x: k.conv(k.o.multiply(x, k.real(8))),
    "quotient": lambda k, x: k.conv(k.o.divide(x, k.c(3))),
    "two factors": lambda k, x: k.conv(k.o.multiply(k.o.multiply(x, k.c(3)), k.c(2))),
    "two users": lambda k, x: (lambda m: k.o.add(k.conv(m), k.conv(m)))(k.o.multiply(x, k.c(3))),
    "few bits": lambda k, x: k.conv(k.o.multiply(x, k.c(3)), k.weights()),
    "halves": lambda k, x: k.conv(k.o.multiply(x, k.c(3)), k.halves()),
    "quantized weights": lambda k, x: k.conv(k.o.multiply(x, k.c(3)), k.levels(k.real(4, 3, 3, 3))),
    "groups": lambda k, x: k.o.group_convolution(
        k.o.multiply(x, k.real(1, 3, 1, 1)), k.real(3, 2, 1, 3, 3), [1, 1], [0, 0], [0, 0], [1, 1]
    ),
    "backwards": lambda k, x: k.o.convolution_backprop_data(
        k.o.multiply(x, k.real(1, 3, 1, 1)), k.real(3, 4, 2, 2), strides=[2, 2]
    ),
    "product": lambda k, x: k.o.matmul(k.o.multiply(x, k.c(3)), k.real(8, 5), False, False),
    "behind": lambda k, x: k.o.multiply(k.conv(x), k.c(3)),
    "equal": lambda k, x: twice(k, lambda: k.o.sigmoid(k.o.multiply(k.turn(x, 0, 2, 3, 1), k.c(3)))),
    "equal reductions": lambda k, x: twice(k, lambda: k.o.reduce_sum(x, k.c([1], np.int64), True)),
    "not equal": lambda k, x: k.o.add(k.o.add(x, k.c([1] * 8)), k.o.add(x, k.c([2] * 8))),
    "folded": lambda k, x: k.o.add(x, k.o.split(k.c(np.arange(16)), k.c(0, np.int64), 2).output(1)),
    "not folded": lambda k, x: k.o.add(k.o.add(x, k.levels(k.c([1, 2] * 4), 0, 2, 0, 2)), k.o.convert(
        k.c([1, 2] * 4, np.int8), "f32")),
    "shapes": lambda k, x: k.o.reshape(x, k.o.concat([k.o.gather(k.o.shape_of(x), k.c([0], np.int64), k.c(
        0, np.int64)), k.c([-1], np.int64)], 0), False),
    "order": lambda k, x: k.conv(k.order(x)),
    "order, then much": lambda k, x: k.conv(k.o.pad(k.o.clamp(k.o.relu(k.o.add(k.o.power(
        k.order(x), k.c(2)), k.real(1, 3, 8, 8))), 0.1, 2.0), k.c([0, 0, 1, 1], np.int64),
        k.c([0, 0, 1, 1], np.int64), "constant", k.c(0))),
    "order, transposed": lambda k, x: k.conv(k.turn(k.order(k.turn(x, 0, 2, 3, 1), axis=3), 0, 3, 1, 2)),
    "order, two users": lambda k, x: (lambda g: k.o.add(k.conv(g), k.conv(g, k.weights())))(k.order(x)),
    "order, halves": lambda k, x: k.conv(k.order(x), k.halves()),
    "order, levels": lambda k, x: k.conv(k.order(x), k.levels(k.real(4, 3, 3, 3))),
    "order, sum with input": lambda k, x: k.conv(k.o.add(k.order(x), x)),
    "order, maximum": lambda k, x: (lambda g: k.o.add(
        k.conv(k.o.relu(g)), k.o.reduce_max(g, k.c([1, 2, 3], np.int64), True)))(k.order(x)),
    "order, groups": lambda k, x: k.o.group_convolution(
        k.order(x), k.real(3, 1, 1, 3, 3), [1, 1], [0, 0], [0, 0], [1, 1]
    ),
}  # fmt: skip


def usual(k: Words, p: Any) -> None:
    p.input().tensor().set_element_type(k.ov.Type.u8).set_layout(k.ov.Layout("NHWC"))
    p.input().tensor().set_color_format(k.pp.ColorFormat.BGR).set_spatial_static_shape(16, 12)
    steps = p.input().preprocess().convert_element_type(k.ov.Type.f32).convert_color(k.pp.ColorFormat.RGB)
    steps.resize(k.pp.ResizeAlgorithm.RESIZE_LINEAR).mean([1.0, 2.0, 3.0]).scale([2.0, 3.0, 4.0])


def colours(k: Words, p: Any) -> None:
    p.input().tensor().set_color_format(k.pp.ColorFormat.BGR).set_layout(k.ov.Layout("NHWC"))
    p.input().preprocess().convert_color(k.pp.ColorFormat.RGB).mean([1.0, 2.0, 3.0]).scale([2.0, 3.0, 4.0])


def planes(k: Words, p: Any) -> None:
    p.input().tensor().set_element_type(k.ov.Type.u8).set_color_format(k.pp.ColorFormat.BGRX)
    p.input().tensor().set_layout(k.ov.Layout("NHWC")).set_shape([1, 8, 8, 4])
    p.input().preprocess().convert_color(k.pp.ColorFormat.BGR)
    p.output().postprocess().convert_layout(k.ov.Layout("NHWC")).convert_element_type(k.ov.Type.i32)
    p.output().model().set_layout(k.ov.Layout("NCHW"))


STEPS: dict[str, Any] = {
    "usual": usual,
    "colours": colours,
    "planes": planes,
    "scale": lambda k, p: p.input().preprocess().mean([1.0, 2.0, 3.0]).scale([1.0, 2.0, 4.0]),
    "scale, mean": lambda k, p: p.input().preprocess().scale([1.0, 2.0, 4.0]).mean(3.0),
    "reverse": lambda k, p: p.input().preprocess().reverse_channels(),
}


def shown(model: Any) -> list[Any]:
    """Operations in order: names but for numbers of instances, types, and whether they are marked."""
    return [
        (
            node.get_type_name(),
            re.sub(r"_\d+", "", node.get_friendly_name()),
            [(str(o.get_partial_shape()), o.get_element_type().get_type_name()) for o in node.outputs()],
            "preprocessing_0" in node.get_rt_info(),
        )
        for node in model.get_ordered_ops()
    ]


def built(library: Any, graph: Any, steps: Any) -> tuple[Any, list[Any], np.ndarray]:
    k = Words(library)
    x = k.o.parameter([1, 3, 8, 8], np.float32)
    x.set_friendly_name("x")
    x.set_layout(library.Layout("NCHW"))
    out = graph(k, x)
    out.set_friendly_name("out")
    model = library.Model([out], [x], "m")
    processor = k.pp.PrePostProcessor(model)
    steps(k, processor)
    model = processor.build()
    given = model.input(0)
    data = np.random.default_rng(23).random(given.get_shape()) * 9
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = library.Core().compile_model(model, "CPU", config)
    return model, shown(model), np.array(compiled(data.astype(given.get_element_type().to_dtype()))[0])


CASES = [(name, graph, lambda k, p: None) for name, graph in GRAPHS.items()]
CASES += [(name, lambda k, x: k.o.relu(k.conv(x)), steps) for name, steps in STEPS.items()]


@pytest.mark.parametrize(("graph", "steps"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_operations_and_numbers_are_openvinos(graph, steps, tmp_path):
    _, theirs, expected = built(openvino, graph, steps)
    model, ours, answer = built(ovjit, graph, steps)
    assert ours == theirs
    scale = np.abs(expected).max()
    close = 1e-3 if expected.dtype == np.float16 else 2e-6
    np.testing.assert_allclose(answer, expected, rtol=0, atol=close * scale)
    ovjit.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    again = openvino.Core().read_model(tmp_path / "m.xml")
    assert shown(again) == ours


def test_a_cycle_of_channels_goes_into_weights_the_right_way_round():
    """OpenVINO takes an order for its own inverse, and is wrong by it: the model before it counts."""
    k = Words(ovjit)
    x = k.o.parameter([1, 3, 8, 8], np.float32)
    model = ovjit.Model([k.conv(k.o.add(k.order(x, (1, 2, 0)), k.real(1, 3, 1, 1)))], [x], "m")
    data = np.random.default_rng(29).random((1, 3, 8, 8)).astype(np.float32)
    expected = ovjit.compile_model(model, "CPU")(data)[0].copy()
    built = k.pp.PrePostProcessor(model).build()
    assert "Gather" not in [node.get_type_name() for node in built.get_ops()]
    np.testing.assert_allclose(ovjit.compile_model(built, "CPU")(data)[0], expected, atol=1e-5)
