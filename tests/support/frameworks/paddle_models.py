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


def main(folder: Path) -> None:
    paddle.seed(20261123)
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
