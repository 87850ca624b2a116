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


def unknown_operators() -> dict:
    """Operators that paddle2onnx refuses, all with open sizes but where it is told, and an example."""
    rng = np.random.default_rng(20261128)
    functional, ops = paddle.nn.functional, paddle.vision.ops
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    n = lambda high, *shape: rng.integers(0, high, shape)  # noqa: E731
    interpolate = functional.interpolate
    return {
        "factor": (lambda x: interpolate(x, scale_factor=1.7, mode="bilinear"), f(1, 2, 4, 6)),
        "factors": (lambda x: interpolate(x, scale_factor=[1.7, 2.0], mode="nearest"), f(1, 2, 4, 6)),
        "last_resized": (
            lambda x: interpolate(x, size=[7, 9], mode="bilinear", data_format="NHWC"), f(1, 4, 6, 2),
        ),
        "windows": (lambda x: functional.adaptive_avg_pool2d(x, [3, 2]), f(1, 2, 7, 8)),
        "largest_of_windows": (lambda x: functional.adaptive_max_pool2d(x, 3), f(1, 2, 7, 8)),
        "last_pooled": (
            lambda x: functional.avg_pool2d(x, 3, 2, 1, exclusive=False, data_format="NHWC"), f(1, 6, 8, 3),
        ),
        "split": (lambda x: sum(paddle.split(x, 3, axis=1)), f(2, 6)),
        "sections": (lambda x: paddle.split(x, [1, -1, 2], axis=1)[1], f(2, 6)),
        "flip": (lambda x: paddle.flip(x, [0, -1]), f(2, 3, 4)),
        "repeat": (lambda x: paddle.repeat_interleave(x, 2, axis=1), f(3, 4)),
        "layer": (lambda x: functional.layer_norm(x, [3, 4]), f(2, 3, 4)),
        "instances": (functional.instance_norm, f(2, 3, 4, 4)),
        "masked": (lambda x, m: paddle.masked_select(x, m), f(3, 4), n(2, 3, 4) > 0),
        "filled": (lambda x, m: paddle.masked_fill(x, m, 2.5), f(3, 4), n(2, 3, 4) > 0),
        "gelu": (lambda x: functional.gelu(x, approximate=True), f(3, 4) * 2),
        "most": (lambda x: paddle.amax(x, axis=[0, -1]) + paddle.amin(x), f(3, 4, 2)),
        "total": (lambda x: paddle.logsumexp(x) + paddle.sum(x), f(3, 4)),
        "celu": (lambda x: functional.celu(x, 0.7), f(3, 4)),
        "expm1": (paddle.expm1, f(3, 4) * 1e-4),
        "trunc": (paddle.trunc, f(3, 4) * 3),
        "mask": (lambda x: functional.sequence_mask(x, 6), n(6, 4)),
        "boxes": (
            lambda x, t: ops.box_coder(x, [0.1, 0.1, 0.2, 0.2], t, "decode_center_size", axis=1),
            np.float32([[0, 0, 4, 4], [1, 2, 8, 9]]), f(2, 3, 4),
        ),
        "branch": (
            lambda x: paddle.static.nn.cond(
                paddle.sum(x) > 0, lambda: functional.leaky_relu(x, 0.3), lambda: paddle.flip(x, [0])
            ),
            -abs(f(3, 4)),
        ),
    }  # fmt: skip


def known_sizes() -> dict:
    """Operators that are converted where sizes are known."""
    rng = np.random.default_rng(20261129)
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    functional, ops = paddle.nn.functional, paddle.vision.ops
    return {
        "last_convolved": (
            lambda x, w: functional.conv2d(x, w, padding="SAME", stride=2, data_format="NHWC"),
            f(1, 7, 6, 3),
            f(4, 3, 3, 3),
        ),
        "deformed": (
            lambda x, o, w: ops.deform_conv2d(x, o, w, padding=1),
            f(1, 4, 5, 5),
            f(1, 18, 5, 5),
            f(3, 4, 3, 3),
        ),
        "same": (
            lambda x, w: functional.conv2d_transpose(x, w, stride=2, padding="SAME"),
            f(1, 3, 6, 5),
            f(3, 4, 3, 3),
        ),
        "grid": (
            lambda x: paddle.nn.functional.affine_grid(x, [1, 2, 3, 4], align_corners=False),
            f(1, 2, 3),
        ),
    }


def _grown(x):
    """The loop reads the value that it carries first."""
    count = paddle.full([1], 0, "int64")
    _, y = paddle.static.nn.while_loop(
        lambda k, y: k < 3,
        lambda k, y: [k + 1, paddle.concat([y, x * paddle.cast(k, "float32")], axis=0)],
        [count, x],
    )
    return y


def _listed(x):
    """The last element of a list of two, and how many there are."""
    first = paddle.zeros([1], "int64")
    values = paddle.tensor.array_write(x, first, paddle.tensor.create_array("float32"))
    values = paddle.tensor.array_write(x * 2, first + 1, values)
    return paddle.tensor.array_read(values, first + 1), paddle.tensor.array_length(values)


class Shared(paddle.nn.Layer):
    """A normalization is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = paddle.nn.BatchNorm2D(4)

    def forward(self, x0):
        return self.norm(paddle.nn.functional.relu(self.norm(x0)))


class Recurrent(paddle.nn.Layer):
    """Two layers in both directions, whose items end early."""

    def __init__(self, kind) -> None:
        super().__init__()
        self.layer = kind(3, 4, num_layers=2, direction="bidirect")

    def forward(self, x0, x1):
        y, ends = self.layer(x0, sequence_length=x1)
        return y, *(ends if isinstance(ends, tuple) else [ends])


def left_operators() -> dict:
    """Operators that stay in the ONNX model, for which ovjit has rules, and an example of their inputs."""
    rng = np.random.default_rng(20261201)
    ops = paddle.vision.ops
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    corner, size = rng.uniform(0, 20, (48, 2)), rng.uniform(2, 20, (48, 2))
    boxes = np.concatenate([corner, corner + size], -1).astype(np.float32)
    variances = rng.uniform(0.1, 2, (4, 4, 3, 4)).astype(np.float32)
    anchors = boxes.reshape(4, 4, 3, 4)

    def proposed(scores, deltas, sizes):
        return ops.generate_proposals(
            scores, deltas, sizes, paddle.to_tensor(anchors), paddle.to_tensor(variances), pre_nms_top_n=30,
            post_nms_top_n=10, nms_thresh=0.6, min_size=1.5, return_rois_num=True,
        )  # fmt: skip

    def kept(x, s):
        return ops.matrix_nms(x, s, 0.1, 0.05, 10, 6, return_index=True, background_label=-1)

    def kept_by_gauss(x, s):
        return ops.matrix_nms(
            x, s, 0.1, 0.05, -1, -1, use_gaussian=True, gaussian_sigma=1.5, normalized=False,
            return_rois_num=False,
        )  # fmt: skip

    scores = rng.uniform(0.05, 1, (2, 3, 8)).astype(np.float32)
    lengths = np.array([3, 5, 1, 2])
    return {
        "matrix_nms": (kept, boxes[:16].reshape(2, 8, 4), scores),
        "matrix_nms_gaussian": (kept_by_gauss, boxes[:16].reshape(2, 8, 4), scores),
        "proposals": (proposed, abs(f(1, 3, 4, 4)), f(1, 12, 4, 4) * 0.1, np.float32([[64, 60]])),
        "lstm": (Recurrent(paddle.nn.LSTM), f(4, 5, 3), lengths),
        "gru": (Recurrent(paddle.nn.GRU), f(4, 5, 3), lengths),
        "rnn": (Recurrent(paddle.nn.SimpleRNN), f(4, 5, 3), lengths),
        "nms": (lambda x, s: ops.nms(x, 0.3, s), boxes, np.arange(48, dtype=np.float32)),
        "unique": (
            lambda x: paddle.unique(x, return_index=True, return_inverse=True, return_counts=True),
            rng.integers(-4, 4, 20) << 40,
        ),
        "rows": (lambda x: paddle.unique(x, axis=0), rng.integers(0, 2, (9, 2))),
        "quotients": (
            lambda x, y: (x // y, x / y, paddle.divide(x, y)),
            np.array([2**40 + 1, -(2**35) - 3, 7, -9]),
            np.array([3, 7, -2, 4]),
        ),
        "deformed": (
            lambda x, o, w: ops.deform_conv2d(x, o, w, stride=2, padding=1),
            f(1, 4, 7, 7),
            f(1, 18, 4, 4),
            f(3, 4, 3, 3),
        ),
        "rolled": (lambda x: paddle.roll(x, 2), f(3, 4)),
        "expanded": (paddle.expand_as, f(1, 3), f(4, 3)),
        "shifted": (lambda x: paddle.nn.functional.temporal_shift(x, 2, 0.25), f(4, 8, 3, 3)),
        "gamma": (lambda x: (paddle.digamma(x), paddle.lgamma(x)), abs(f(3, 4)) * 9),
        "bessel": (lambda x: (paddle.i0(x), paddle.erfinv(paddle.tanh(x))), f(3, 4) * 2),
        "inverse": (
            lambda x: (paddle.inverse(x), paddle.linalg.det(x)),
            f(2, 4, 4) + 4 * np.eye(4, dtype=np.float32),
        ),
    }


def check_left_operators() -> None:
    for function, *inputs in left_operators().values():
        made = function(*map(paddle.to_tensor, inputs))
        want = [value.numpy() for value in (made if isinstance(made, tuple) else [made]) if value is not None]
        assert all(value.size for value in want)
        layer = function if isinstance(function, paddle.nn.Layer) else layer_of(function, len(inputs))
        for is_open in (False, True):
            check_layer(layer, inputs, want, is_open)
    x = np.ones((2, 3), np.float32)
    check_layer(One(_listed), [x], [x * 2, np.array([2])], True)
    kept, *inputs = left_operators()["matrix_nms"]
    branch = Two(
        lambda x, s: paddle.static.nn.cond(
            paddle.sum(s) > 0, lambda: kept(x, s)[0], lambda: kept(x, s * 0.5)[0]
        )
    )
    try:
        check_layer(branch, inputs, None, False)
    except RuntimeError as error:
        assert "pd_op.matrix_nms in a branch or a loop" in str(error), error
    else:
        raise AssertionError("an operator was left in a branch")


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


def layer_of(function, count: int):
    return (One, Two, Three)[count - 1](function)


def check(model, inputs, want) -> None:
    """The model gives the arrays that are wanted, or the one."""
    wanted = want if isinstance(want, list) else [want]
    made = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(list(inputs))
    assert len(made) == len(wanted), (len(made), len(wanted))
    for i, value in enumerate(wanted):
        assert (made[i].shape, made[i].dtype) == (value.shape, value.dtype), (i, made[i], value)
        np.testing.assert_allclose(made[i], value, rtol=1e-4, atol=1e-5)


def check_operators() -> None:
    rows = [(*row, False) for row in operators().values()]
    rows += [(*row, True) for row in unknown_operators().values()]
    rows += [(*row, False) for row in known_sizes().values()]
    for function, *inputs, is_open in rows:
        want = function(*map(paddle.to_tensor, inputs)).numpy()
        check_layer(layer_of(function, len(inputs)), inputs, want, is_open)
    x = np.random.default_rng(20261130).normal(size=(2, 4, 3, 3)).astype(np.float32)
    shared = Shared()
    shared.eval()
    check_layer(shared, [x], shared(paddle.to_tensor(x)).numpy(), False)
    rows = x[0, 0]  # Paddle changes the input of the loop itself, where it does not save it
    check_layer(One(_grown), [rows], np.concatenate([rows * k for k in (1, 0, 1, 2)]), True)


def check_layer(layer, inputs, want, is_open: bool) -> None:
    """The model of a layer, whose sizes are open or those of the inputs, gives what is wanted."""
    names = [f"x{i}" for i in range(len(inputs))]
    specs = [
        paddle.static.InputSpec([None] * v.ndim if is_open else v.shape, str(v.dtype), n)
        for v, n in zip(inputs, names, strict=True)
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
    check_left_operators()
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
