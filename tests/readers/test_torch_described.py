"""Types and shapes of inputs that `input` tells of beside an example, as by OpenVINO."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
real = pytest.importorskip("openvino")
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


class Product(torch.nn.Module):
    def forward(self, x, y):
        return torch.sigmoid(torch.relu(x * y))


class Rows(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = torch.nn.Embedding(7, 4)
        with torch.no_grad():
            self.rows.weight.copy_(torch.arange(28.0).reshape(7, 4) / 8)

    def forward(self, ids):
        return self.rows(ids), ids + 1


class Quotients(torch.nn.Module):
    def forward(self, x):
        return x / 2, x * 2.5, x.sum(), x // 2, x.float(), torch.zeros_like(x)


FLOATS = (torch.ones(4), torch.ones(4))
TYPED = [
    (Product, FLOATS, ["i64", "i64"]),
    (Product, FLOATS, ["i64", "f32"]),
    (Product, FLOATS, ["f16", "f32"]),
    (Product, FLOATS, ["u8", "u8"]),
    (Product, FLOATS, {"y": "i32", "x": "f32"}),
    (Rows, torch.ones(2, 3, dtype=torch.int64), ["i32"]),
    (Rows, torch.ones(2, 3, dtype=torch.int64), ["u8"]),
    (Quotients, FLOATS[0], ["i64"]),
    (Quotients, FLOATS[0], ["f64"]),
]


def described(package, types):
    """Types of inputs as the package has them."""
    if isinstance(types, dict):
        return {name: getattr(package.Type, kind) for name, kind in types.items()}
    return [getattr(package.Type, kind) for kind in types]


def answers(package, module, example, types):
    model = package.convert_model(module(), example_input=example, input=described(package, types))
    compiled = package.compile_model(model, "CPU", EXACT)
    inputs = [
        (np.arange(4) % 3).astype(port.get_element_type().to_dtype())
        if len(port.get_partial_shape()) == 1
        else (np.arange(6).reshape(2, 3) % 5).astype(port.get_element_type().to_dtype())
        for port in compiled.inputs
    ]
    names = [port.get_element_type().get_type_name() for port in (*model.inputs, *model.outputs)]
    return names, list(compiled(inputs).values())


@pytest.mark.parametrize("module, example, types", TYPED)
def test_operators_are_read_with_the_types_that_inputs_are_given(module, example, types) -> None:
    have, got = answers(ov, module, example, types)
    want, wanted = answers(real, module, example, types)
    assert have == want
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_script_with_an_example_is_read_with_the_types_that_inputs_are_given() -> None:
    script = torch.jit.script(Product())
    model = ov.convert_model(script, example_input=FLOATS, input=[ov.Type.i32, ov.Type.i32])
    assert [port.get_element_type() for port in model.inputs] == [ov.Type.i32] * 2
    x, y = np.arange(4, dtype=np.int32), np.array([1, 2, 0, 1], np.int32)
    wanted = script(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    got = ov.compile_model(model, "CPU", EXACT)([x, y])[0]
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_bfloat16_is_a_type_that_inputs_are_given() -> None:
    model = ov.convert_model(Product(), example_input=FLOATS, input=[ov.Type.bf16, ov.Type.bf16])
    theirs = real.convert_model(Product(), example_input=FLOATS, input=[real.Type.bf16, real.Type.bf16])
    assert model.output(0).get_element_type() == ov.Type.bf16
    assert theirs.output(0).get_element_type() == real.Type.bf16


def joined(a, b):
    return torch.cat([a, torch.ones(1, 1)], 1) + b


def joined_behind_an_activation(a, b):
    return torch.cat([a.relu(), torch.ones(1, 1)], 1) + b


def joined_along_rows(a, b):
    return torch.cat([a, torch.ones(3, 4), b[:, :4]], 0)


@pytest.mark.parametrize("function", [joined, joined_behind_an_activation, joined_along_rows])
def test_parts_of_a_tuple_have_the_lengths_of_what_they_are_joined_with(function) -> None:
    class Parts(torch.nn.Module):
        def forward(self, pair):
            return function(*pair)

    example = ((torch.ones(1, 4), torch.ones(1, 5)),)
    mine, theirs = (package.convert_model(Parts(), example_input=example) for package in (ov, real))
    for have, want in ((mine.inputs, theirs.inputs), (mine.outputs, theirs.outputs)):
        assert [str(port.partial_shape) for port in have] == [str(port.partial_shape) for port in want]


class Views(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Conv2d(3, 8, 3)

    def forward(self, x):
        y = self.mix(x)
        return y.view(y.shape[0], -1, 16)[:, : x.shape[1] // 2].mean((1, 2))


def test_described_sizes_are_constants() -> None:
    """As OpenVINO has them: nothing computes sizes that are known."""
    x = torch.linspace(-1.0, 1.0, 600).reshape(2, 3, 10, 10)
    models = [p.convert_model(Views(), example_input=x, input=[[2, 3, 10, 10]]) for p in (ov, real)]
    for model in models:
        assert not {"ShapeOf", "Gather", "Concat"} & {node.get_type_name() for node in model.get_ops()}
    assert str(models[0].output(0).partial_shape) == str(models[1].output(0).partial_shape) == "[2]"
    module = Views().eval()
    got = ov.compile_model(ov.convert_model(module, example_input=x, input=[[2, 3, 10, 10]]), "CPU", EXACT)(
        x.numpy()
    )[0]
    with torch.no_grad():
        np.testing.assert_allclose(got, module(x).numpy(), rtol=1e-5, atol=1e-6)
