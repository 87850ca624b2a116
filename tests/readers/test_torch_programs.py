"""Programs of torch.export that are read as they are, beside eager mode: what operators write in place is
seen under all of a tensor's names."""

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError
from ovjit.readers.torch.programs import reader
from ovjit.readers.torch.programs.undecomposed import is_plain

torch = pytest.importorskip("torch")
F = torch.nn.functional
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
SEED = 20261125


class Of(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = torch.nn.Parameter(torch.linspace(-1.0, 1.0, 4), requires_grad=False)
        self.conv = torch.nn.Conv1d(3, 3, 1)
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x):
        return self.function(self, x)


def chained(m, x):
    """Both names are those of one tensor, which is written to twice."""
    y = x * 2
    z = y.relu_()
    z.add_(1)
    return y + z * m.weight, z


def beside(m, x):
    """Two names of one tensor, each written to."""
    y = x * 2
    z = y.relu_()
    y.add_(1)
    return y * z


def typed(m, x):
    y, n = x * 2, (x * 4).to(torch.int32)
    y.add_(x.double())
    n.mul_(torch.tensor(3))
    flags = x > 0
    flags.logical_xor_(x)
    return y, n, flags


def spread(m, x):
    y = torch.zeros_like(x)
    y.copy_(x[0, 0])
    y.mul_(m.weight)
    y.masked_fill_(y > 0.3, -2.0)
    return y, torch.empty_like(x).fill_(torch.tensor(2.5)).clamp_(max=2)


def layers(m, x):
    """As networks of pictures are written."""
    y = F.relu(m.conv(x), inplace=True)
    y = F.dropout(F.hardswish(F.conv1d(y, m.conv.weight), inplace=True), 0.5, False, True)
    y += x
    return F.silu(F.layer_norm(y, (4,)), inplace=True).mean(1)


def read_before(m, x):
    y = x * 2
    part = y[:, 0] + 1
    y.add_(1)
    return y, part


def read_after(m, x):
    y = x * 2
    part = y[:, 0]
    y.add_(1)
    return part * 3


def largest(m, x):
    """As mixtures of experts scale what they have chosen: one of two outputs is written to."""
    values, places = x.topk(2)
    values /= values.sum(-1, keepdim=True)
    return values, places.repeat_interleave(2, 1).mul_(3), places


def halved(m, x):
    """Parts that an operator gives as views of one tensor."""
    y = x * 2
    a, b = y.split(2, -1)
    a.add_(b)
    return y


def written_part(m, x):
    y = x * 2
    y[:, 1].mul_(m.weight)
    a, b = y.chunk(2, -1)
    b.add_(a)
    return y


def input_written(m, x):
    x.add_(1)
    return x * 2


def buffer_written(m, x):
    m.total.add_(x[0, 0])
    return x * m.total


def passed(m, x):
    """Composite operators that give what they are given, or a view of it, without saying so."""
    y, z, v = x * 2, x * 3, x * 4
    F.dropout(y, 0.5, False).add_(1)
    torch.atleast_2d(z).mul_(5)
    v.type_as(x).sub_(3)
    return y, z, v


def rows_of_einsum(m, x):
    y = x * 2
    torch.einsum("abc->cab", y).add_(1)
    return y


def turned(m, x):
    y = x * 2
    y.transpose_(1, 2)
    y.squeeze_(0).add_(1)
    return y


PROGRAMS = [
    (chained, True), (beside, True), (typed, True), (spread, True), (layers, True), (read_before, True),
    (read_after, False), (largest, True), (halved, False), (written_part, False),
    (input_written, False), (buffer_written, False), (passed, False), (rows_of_einsum, False),
    (turned, False),
]  # fmt: skip


@pytest.mark.parametrize(("function", "plain"), PROGRAMS, ids=lambda v: getattr(v, "__name__", None))
def test_writes_in_programs(function, plain) -> None:
    torch.manual_seed(SEED)
    module, x = Of(function).eval(), torch.randn(1, 3, 4)
    program = torch.export.export(module, (x.clone(),), strict=False)
    assert is_plain(program.graph_module) == plain
    got = ov.compile_model(ov.convert_model(program), "CPU", EXACT)(x.numpy().copy())
    with torch.no_grad():
        wanted = module(x.clone())
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for i, value in enumerate(wanted):
        assert got[i].dtype == value.numpy().dtype and got[i].shape == value.shape
        np.testing.assert_allclose(got[i], value, rtol=1e-5, atol=1e-6)


def test_plain_programs_are_not_decomposed(monkeypatch) -> None:
    """Which takes most of the time of a conversion."""
    made = []
    monkeypatch.setattr(reader, "decompose", lambda *given: made.append(given) or given[0])
    x = torch.randn(2, 3, 4)
    dims = ({0: torch.export.Dim("samples", max=64)},)
    program = torch.export.export(Of(layers).eval(), (x,), dynamic_shapes=dims, strict=False)
    model = ov.convert_model(program)
    assert not made and model.input(0).partial_shape == ov.PartialShape([-1, 3, -1])


def without_gradients(m, x):
    with torch.no_grad():
        y = x * m.weight
    return y + x


def test_graphs_inside_of_plain_programs() -> None:
    x = torch.randn(1, 3, 4)
    module = Of(without_gradients).eval()
    with torch.enable_grad():
        program = torch.export.export(module, (x,))
    names = {getattr(node.target, "__name__", "") for node in program.graph.nodes}
    assert any("set_grad_enabled" in name for name in names) and is_plain(program.graph_module)
    got = ov.compile_model(ov.convert_model(program), "CPU", EXACT)(x.numpy())[0]
    np.testing.assert_allclose(got, module(x), rtol=1e-5, atol=1e-6)


def asks_for_one(m, x):
    """The first branch holds for one length of a dimension, the second for every third one."""
    x = x * 2 if x.shape[1] * 4 / 3 == 8.0 else x * 3
    return x + 1 if x.shape[0] % 3 == 0 else x - 1


def asks_for_two(m, x):
    return x * 2 if x.shape[1] == 6 and x.shape[0] * 2 != 7 else x * 3


@pytest.mark.parametrize("function", [asks_for_one, asks_for_two])
def test_a_dimension_that_a_program_asserts_to_have_one_length_is_not_open(function) -> None:
    """As the program, the model refuses other lengths, for which it has not the module's branch."""
    x = torch.rand(3, 6)
    dims = (dict.fromkeys(range(2), torch.export.Dim.AUTO),)
    program = torch.export.export(Of(function).eval(), (x,), dynamic_shapes=dims)
    model = ov.convert_model(program)
    assert str(model.input(0).get_partial_shape()) == "[?,6]"
    compiled, other = ov.compile_model(model, "CPU", EXACT), torch.rand(9, 6)
    for given in (x, other):
        np.testing.assert_allclose(compiled([given.numpy()])[0], program.module()(given), rtol=1e-6)
    wrong = torch.rand(3, 5)
    with pytest.raises(AssertionError, match="Guard failed"):
        program.module()(wrong)
    with pytest.raises(OvjitError):
        compiled([wrong.numpy()])


def test_equations_that_divide_by_a_length() -> None:
    """Fold asserts what the number of blocks divides; an equation has no value where it divides by 0."""
    x = torch.rand(2, 12, 18)
    module = torch.nn.Fold((5, 6), (2, 3), stride=(1, 2), padding=1)
    dims = (dict.fromkeys(range(3), torch.export.Dim.AUTO),)
    program = torch.export.export(module, (x,), dynamic_shapes=dims)
    compiled = ov.compile_model(ov.convert_model(program), "CPU", EXACT)
    for given in (x, torch.rand(3, 12, 18)):
        np.testing.assert_allclose(compiled([given.numpy()])[0], module(given), rtol=1e-6)


def with_axes_of_data(m, x):
    return torch.special.airy_ai(x.mean(torch.arange(1, len(x.shape)).tolist()))


def test_graphs_of_failed_exports_are_not_printed(capfd) -> None:
    with pytest.raises(OvjitError, match="airy_ai"):
        ov.convert_model(Of(with_axes_of_data), example_input=torch.rand(2, 3, 4))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x, lambda m, x: (x, x), lambda m, x: (x, x + 1), lambda m, x: x.detach(),
        lambda m, x: ((x,), x * 2), lambda m, x: {"twice": x * 2, "same": x},
    ],
)  # fmt: skip
def test_an_input_that_is_an_output_keeps_its_names(function):
    openvino = pytest.importorskip("openvino")
    program = torch.export.export(Of(function), (torch.ones(2, 4),))
    names = []
    for package in (openvino, ov):
        model = package.convert_model(program)
        names.append([sorted(port.get_names()) for port in (*model.inputs, *model.outputs)])
    assert names[1] == names[0]


@pytest.mark.parametrize("enabled", [True, False])
def test_programs_with_autocast_have_its_types(enabled):
    """A graph under autocast names no conversions of types. They are computed all the same."""

    def function(m, x):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y = x @ m.weight[:, None]
            with torch.autocast("cpu", enabled=False):
                z = x @ m.weight[:, None]
        return y, y + x, z

    module = Of(function).eval()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(SEED))
    expected = module(x)
    model = ov.convert_model(torch.export.export(module, (x,)))
    kinds = {torch.bfloat16: ov.Type.bf16, torch.float32: ov.Type.f32}
    assert [output.element_type for output in model.outputs] == [kinds[t.dtype] for t in expected]
    found = ov.compile_model(model, "CPU", EXACT)(x.numpy())
    for i, tensor in enumerate(expected):
        values = found[i].astype(np.float32) if tensor.dtype == torch.float32 else _from_bf16(found[i])
        np.testing.assert_allclose(values, tensor.float().numpy(), rtol=0.01, atol=0.01)


def _from_bf16(array):
    """Numbers of an output of bf16, which OpenVINO returns as f16 bits."""
    return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
