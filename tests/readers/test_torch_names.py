"""Names of a converted module's inputs and outputs beside OpenVINO's."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
real = pytest.importorskip("openvino")


class Keyed(torch.nn.Module):
    """Keys of a dict that inputs and variables have, too."""

    def forward(self, sample, other):
        extra = sample * 3
        value = torch.relu(extra) + extra * other
        return {"sample": sample + 1, "other": other, "extra": value}


class Exchanged(torch.nn.Module):
    """Each key is the variable of another output."""

    def forward(self, x):
        first = torch.relu(x)
        second = torch.exp(first)
        return {"second": first, "first": torch.relu(second)}


class Reassigned(torch.nn.Module):
    """A variable that has the name of an input, and layers that call their argument `input`."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def forward(self, x, scale):
        states = (x,)
        x = self.first(x)
        states += (x,)
        y = self.second(x) * scale
        states += (y,)
        return torch.nn.functional.layer_norm(y, (3,)), states


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear = torch.nn.Linear
        self.rows = torch.nn.Sequential(linear(3, 3), torch.nn.ReLU(), linear(3, 3), torch.nn.GELU())

    def forward(self, x):
        found = []
        for _ in range(3):
            x = self.rows(x)
            found.append(x)
        return found


class Picked(torch.nn.Module):
    """Operators that are recorded by functions of ovjit read a variable."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, x, size):
        last = self.layer(x)
        row = last[torch.arange(last.shape[0])]
        left = self.layer(torch.relu(x))
        return last, row, left, torch.cat([left, torch.relu(last)]) * size


def names(package, module, example):
    model = package.convert_model(module, example_input=example)
    return [[sorted(port.get_names()) for port in side] for side in (model.inputs, model.outputs)]


X, ONE = torch.rand(2, 3), torch.tensor(1)


@pytest.mark.parametrize(
    "made, example",
    [
        (Keyed, (X, X)),
        (Keyed, {"other": X, "sample": X}),
        (Exchanged, X),
        (Reassigned, (X, X)),
        (Reassigned, {"scale": X, "x": X}),
        (Layers, X),
        (Picked, (X, ONE)),
    ],
)
def test_names_are_those_of_openvino(made, example) -> None:
    torch.manual_seed(0)
    module = made().eval()
    assert names(ov, module, example) == names(real, module, example)


def test_an_output_that_has_the_name_of_an_input_is_found_by_its_own() -> None:
    """Inputs and outputs of a model have different names, so that a tensor is meant by each."""
    model = ov.convert_model(Keyed().eval(), example_input=(X, X))
    request = ov.compile_model(model).create_infer_request()
    request.infer({"sample": X.numpy(), "other": X.numpy()})
    assert (request.get_tensor("sample").data == X.numpy()).all()
    assert (request.get_tensor("sample_1").data == (X + 1).numpy()).all()


class Found(torch.nn.Module):
    def forward(self, x):
        rows, columns = torch.nonzero(x > 0, as_tuple=True)
        return rows + columns * 3


class Unbound(torch.nn.Module):
    """Parts that are unpacked, of which one is not read, and rows that are found."""

    def __init__(self):
        super().__init__()
        self.layer, self.found = torch.nn.Linear(3, 3), Found()

    def forward(self, x):
        first, _, last = x.unbind(0)
        return torch.relu(first), last * 2, self.found(self.layer(last))


def names_of_nodes(package, module, example):
    """The name of each node that is not a constant, with those of what it reads."""
    made = package.convert_model(module, example_input=example)
    nodes = [n for n in made.get_ordered_ops() if n.get_type_name() not in ("Constant", "Convert")]
    return {
        node.get_friendly_name(): [
            (source.get_node().get_friendly_name(), source.get_index())
            for source in node.input_values()
            if source.get_node().get_type_name() not in ("Constant", "Convert")
        ]
        for node in nodes
        if node.get_type_name() != "Result"
    }


def test_parts_have_the_names_of_openvino() -> None:
    module, example = Unbound().eval(), torch.rand(3, 2, 3)
    assert names_of_nodes(ov, module, example) == names_of_nodes(real, module, example)


def test_parts_of_a_layer_that_is_called_twice_have_names_of_their_own() -> None:
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.part = Unbound()

        def forward(self, x):
            return self.part(x), self.part(x + 1)

    module, example = Twice().eval(), torch.rand(3, 2, 3)
    ours, theirs = (names_of_nodes(package, module, example) for package in (ov, real))
    assert ours.keys() == theirs.keys()


class Rows(torch.nn.Module):
    """One row: moving it is a change of shape, and patterns copy the batch."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)

    def forward(self, x):
        batch = x.shape[0]
        heads = self.layer(x[:, :1]).reshape(batch, 1, 2, 4).permute(0, 2, 1, 3)
        joined = torch.tanh(heads).transpose(1, 2).reshape(batch, 1, 8)
        return torch.flatten(self.norm(joined).permute(0, 2, 1), 1)


def kinds(package, module, example, **given):
    made = package.convert_model(module, example_input=example, **given)
    found = [node.get_type_name() for node in made.get_ordered_ops()]
    return sorted(kind for kind in found if kind not in ("Constant", "Convert")), made


def test_shapes_that_follow_one_another_are_one() -> None:
    torch.manual_seed(0)
    module, example = Rows().eval(), torch.rand(2, 5, 8)
    ours, made = kinds(ov, module, example, input=[-1, 5, 8])
    assert ours == kinds(real, module, example, input=[-1, 5, 8])[0]
    compiled = ov.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 3):
        x = torch.rand(batch, 5, 8)
        with torch.no_grad():
            assert np.allclose(compiled(x.numpy())[0], module(x).numpy(), atol=1e-5)


class Rotated(torch.nn.Module):
    """Angles of positions and frequencies that are computed in a type, or that the module has."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype
        self.register_buffer("own", torch.rand(4))

    def forward(self, x, places):
        if self.dtype is None:
            return x * torch.cos(torch.outer(places, self.own))
        steps = torch.arange(0, 8, 2, dtype=self.dtype)
        return x * torch.cos(torch.outer(places, 1.0 / (10000.0 ** (steps / 8)))).float()


@pytest.mark.parametrize("dtype, count", [(torch.float64, 0), (torch.float32, 1), (None, 1)])
def test_frequencies_that_are_computed_in_f64_are_no_weights(dtype, count) -> None:
    module, example = Rotated(dtype).eval(), (torch.rand(3, 4), torch.rand(3))

    def weights(package):
        made = package.convert_model(module, example_input=example)
        products = [node for node in made.get_ordered_ops() if node.get_type_name() == "MatMul"]
        return made, [n for n in products if n.input_value(1).get_node().get_type_name() == "Constant"]

    made, found = weights(ov)
    assert len(found) == len(weights(real)[1]) == count
    result = ov.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([v.numpy() for v in example])
    assert np.allclose(result[0], module(*example).numpy(), atol=1e-6)


class Branched(torch.nn.Module):
    """Equal operators whose order of results is not that of the calls."""

    def forward(self, x, y):
        for i in range(3):
            x = x * y + i
        z = x.reshape(-1) + y.reshape(-1)
        a = torch.relu(y) * 2
        return z, torch.softmax(y, 0) + x, torch.relu(a) * 3 + torch.relu(x)


def test_equal_names_are_numbered_in_the_order_of_nodes():
    names = []
    for package in (real, ov):
        model = package.convert_model(Branched(), example_input=(torch.ones(2, 3), torch.ones(2, 3)))
        nodes = [node for node in model.get_ordered_ops() if node.get_type_name() in KINDS]
        names.append([(node.get_type_name(), node.get_friendly_name()) for node in nodes])
    assert names[1] == names[0]


KINDS = ("Add", "Multiply", "Relu", "Softmax", "Reshape")
