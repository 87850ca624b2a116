"""Makes an inference model of Paddle's in the folder that is given, and reads it with ovjit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import paddle

import ovjit as ov


class Net(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 3, padding=1)
        self.linear = paddle.nn.Linear(4, 5)

    def forward(self, x):
        functional = paddle.nn.functional
        return functional.softmax(self.linear(functional.relu(self.conv(x)).mean([2, 3])))


def operators() -> dict:
    """Uses of operators that paddle2onnx writes wrongly or refuses, and an example of their inputs."""
    rng = np.random.default_rng(20261127)
    functional = paddle.nn.functional
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return {
        "leaky": (lambda x: functional.leaky_relu(x, 0.3), f(2, 5)),
        "groups": (lambda x, w: functional.group_norm(x, 2, 1e-5, w), f(2, 4, 3, 3), f(4)),
        "groups_last": (lambda x: functional.group_norm(x, 2, data_format="NHWC"), f(2, 3, 3, 4)),
        "adaptive": (lambda x: functional.adaptive_avg_pool2d(x, [3, 5]), f(1, 2, 7, 8)),
        "adaptive_max": (lambda x: functional.adaptive_max_pool2d(x, 3), f(1, 2, 7, 8)),
        "area": (lambda x: functional.interpolate(x, size=[9, 5], mode="area"), f(1, 2, 4, 6)),
        "normalized_last": (
            lambda x, m, v: functional.batch_norm(x, m, v, data_format="NHWC"),
            f(2, 4, 5, 3), f(3), abs(f(3)),
        ),
        "largest": (lambda x: paddle.norm(x, p=float("inf"), axis=1), f(3, 4)),
        "length": (paddle.norm, f(3, 4)),
        "mean": (paddle.mean, f(3, 4)),
        "max": (paddle.max, f(3, 4)),
        "product": (paddle.prod, f(3, 4)),
        "size": (
            lambda x, w: functional.conv2d_transpose(x, w, stride=2, output_size=[14, 12]),
            f(1, 3, 6, 5), f(3, 4, 3, 3),
        ),
    }  # fmt: skip


class One(paddle.nn.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x0):
        return self.function(x0)


class Two(One):
    def forward(self, x0, x1):
        return self.function(x0, x1)


class Three(One):
    def forward(self, x0, x1, x2):
        return self.function(x0, x1, x2)


def check(model, inputs, want) -> None:
    got = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(list(inputs))[0]
    assert got.shape == want.shape, (got.shape, want.shape)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def check_operators() -> None:
    for function, *inputs in operators().values():
        want = function(*map(paddle.to_tensor, inputs)).numpy()
        layer = (One, Two, Three)[len(inputs) - 1](function)
        names = [f"x{i}" for i in range(len(inputs))]
        specs = [
            paddle.static.InputSpec(v.shape, str(v.dtype), n) for v, n in zip(inputs, names, strict=True)
        ]
        model = ov.convert_model(layer, example_input=specs)
        inputs = [inputs[int(port.get_any_name()[1:])] for port in model.inputs]
        check(model, inputs, want)


def check_objects() -> None:
    """Layers with examples of each kind, hapi's models, and programs with their executor."""
    net = Net()
    net.train()
    image = np.random.default_rng(20261123).normal(size=(2, 3, 8, 8)).astype(np.float32)
    spec = paddle.static.InputSpec([None, 3, 8, 8], "float32", "image")
    given = [{"example_input": [spec]}, {"example_input": paddle.to_tensor(image)}, {"input": [-1, 3, 8, 8]},
             {"example_input": {"x": image}}]  # fmt: skip
    for arguments in given:
        model = ov.convert_model(net, **arguments)
        assert net.training and all(part.training for part in net.sublayers())
        net.eval()
        check(model, [image], net(paddle.to_tensor(image)).numpy())
        net.train()
    check(ov.convert_model(paddle.Model(net, spec)), [image], net(paddle.to_tensor(image)).numpy())
    for arguments, words in (({}, "example_input"), ({"example_input": {"y": image}}, "no input 'y'")):
        try:
            ov.convert_model(net, **arguments)
        except RuntimeError as error:
            assert words in str(error), error
        else:
            raise AssertionError("a layer was read whose inputs are unknown")
    paddle.enable_static()
    x = paddle.static.data("x", [2, 3, 4])
    half = paddle.nn.functional.relu(x)
    _ = half + paddle.static.data("y", [2, 3, 4])
    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(paddle.static.default_startup_program())
    for program in (executor, paddle.static.default_main_program()):
        model = ov.convert_model(program, example_input=[x], output=[half])
        assert [port.get_any_name() for port in model.inputs] == ["x"]
        value = image[:, :, :4, 0]
        check(model, [value], np.maximum(value, 0))
    paddle.disable_static()


def main(folder: Path) -> None:
    paddle.seed(20261123)
    check_operators()
    check_objects()
    net = Net()
    net.eval()
    image = np.random.default_rng(20261123).normal(size=(2, 3, 8, 8)).astype(np.float32)
    want = net(paddle.to_tensor(image)).numpy()
    assert want.std() > 0.01
    spec = paddle.static.InputSpec([None, 3, 8, 8], "float32", "image")
    paddle.jit.save(net, str(folder / "m"), input_spec=[spec])
    path = next(p for p in (folder / "m.json", folder / "m.pdmodel") if p.exists())
    for read in (ov.Core().read_model, ov.convert_model):
        model = read(path)
        assert model.input(0).get_names() == {"image"}
        got = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    (folder / "bad.pdmodel").write_bytes(b"\x0a\x05hello")
    try:
        ov.Core().read_model(folder / "bad.pdmodel")
    except RuntimeError as error:
        assert "paddle2onnx cannot convert the model" in str(error), error
    else:
        raise AssertionError("a damaged model was read")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
