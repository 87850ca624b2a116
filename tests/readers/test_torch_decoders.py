"""Decoders of PyTorch's modules and what `convert_model` takes with them, beside the real package."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import itertools
from typing import Any

import numpy as np
import pytest

import ovjit

torch = pytest.importorskip("torch")
openvino = pytest.importorskip("openvino")

both = pytest.mark.parametrize("ov", [openvino, ovjit], ids=["openvino", "ovjit"])


def part(ov: Any, name: str) -> Any:
    return importlib.import_module(f"{ov.__name__}.frontend.{name}")


def decoder_of(ov: Any, *args: Any, **kwargs: Any) -> Any:
    return part(ov, "pytorch.ts_decoder").TorchScriptPythonDecoder(*args, **kwargs)


def front_end(ov: Any) -> Any:
    return ov.frontend.FrontEndManager().load_by_framework("pytorch")


def script(module: Any) -> Any:
    with torch.no_grad():
        return torch.jit.freeze(torch.jit.script(module).eval())


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def nodes(scripted: Any, kind: str = "prim::Constant") -> list[Any]:
    return [node for node in scripted.inlined_graph.nodes() if node.kind() == kind]


class Held(torch.nn.Module):
    """Gives a tensor that it holds."""

    def __init__(self, tensor: Any):
        super().__init__()
        self.tensor = tensor

    def forward(self):
        return self.tensor


class Divided(torch.nn.Module):
    def __init__(self, mode: str | None):
        super().__init__()
        self.mode = mode

    def forward(self, x, y):
        return torch.div(x, y, rounding_mode=self.mode)


class Sum(torch.nn.Module):
    def forward(self, x, y):
        return torch.relu(x + y)


class Cosine(torch.nn.Module):
    def forward(self, x):
        return torch.cos(x.to(torch.float32))


TYPES = "float8_e4m3fn float8_e5m2 float16 bfloat16 float32 float64 bool uint8 int8 int16 int32 int64".split()


@both
@pytest.mark.parametrize("name", TYPES)
def test_constant_tensors(ov, name) -> None:
    scripted = script(Held(torch.tensor([1, 2]).to(getattr(torch, name))))
    (made,) = decoder_of(ov, scripted, nodes(scripted)[0]).as_constant()
    wanted = part(ov, "pytorch.ts_decoder").pt_to_ov_type_map[f"torch.{name}"]
    assert made.get_element_type() == wanted and made.get_partial_shape() == ov.PartialShape([2])
    if not name.startswith(("float8", "bfloat")):
        np.testing.assert_array_equal(made.get_node().get_data(), scripted().numpy())


@both
def test_complex_constants_are_pairs(ov) -> None:
    scripted = script(Held(torch.tensor([1 + 3j, 2 + 4j])))
    (made,) = decoder_of(ov, scripted, nodes(scripted)[0]).as_constant()
    assert made.get_node().get_data().tolist() == [[1, 3], [2, 4]]


@both
@pytest.mark.parametrize(
    ("value", "kind"),
    [(2**63 - 1, "i64"), (2.5, "f32"), (True, "boolean"), ([1, 2], "i64"), ((1.0, 2.0), "f32"),
     ((True, False), "boolean")],
)  # fmt: skip
def test_constant_numbers(ov, value, kind) -> None:
    scripted = script(Held(value))
    (made,) = decoder_of(ov, scripted, nodes(scripted)[0]).as_constant()
    assert made.get_element_type() == getattr(ov.Type, kind)
    np.testing.assert_array_equal(made.get_node().get_data(), np.array(value))


@both
@pytest.mark.parametrize("mode", ["trunc", None])
def test_types_of_texts_and_of_none(ov, mode) -> None:
    types = part(ov, "pytorch.py_pytorch_frontend")._Type
    wanted = types.Str if mode else types.PyNone
    scripted = script(Divided(mode))
    constant = decoder_of(ov, scripted, nodes(scripted)[0])
    division = decoder_of(ov, scripted, nodes(scripted, "aten::div")[0])
    assert isinstance(constant.get_output_type(0).value, wanted) and constant.as_string() == mode
    assert isinstance(division.get_input_type(2).value, wanted)
    assert division.get_op_type() == "aten::div" and division.input_is_none(2) == (mode is None)


class Listed(torch.nn.Module):
    def forward(self):
        return torch.jit.annotate(list[torch.Tensor | None], [torch.ones(1, 3, 3)])


class Optional(torch.nn.Module):
    def forward(self):
        return torch.jit.annotate(torch.Tensor | None, None)


@both
def test_lists_of_constant_tensors_and_none(ov) -> None:
    graph = decoder_of(ov, script(Listed())).graph_element
    (made,) = graph.findAllNodes("prim::ListConstruct")
    assert made.hasUses() and str(made.input().type()) == "Tensor"
    graph = decoder_of(ov, script(Optional())).graph_element
    assert [str(output.type()) for output in graph.outputs()] == ["NoneType"]


@both
def test_nodes_of_a_trace(ov) -> None:
    seen = []
    decoder = decoder_of(ov, Sum(), example_input=(torch.ones(2), torch.ones(2)))
    decoder.visit_subgraph(lambda node: seen.append((node.get_op_type(), node.num_of_outputs())))
    assert [kind for kind, _ in seen if kind.startswith("aten")] == ["aten::add", "aten::relu"]
    assert decoder.get_input_signature_name(1) == "x" and decoder.decoder_type_name() == "ts"


@both
def test_names_of_arguments_of_an_exported_graph(ov) -> None:
    class Nested(torch.nn.Module):
        def forward(self, a, b):
            return a["x"] + a["y"] + b

    one = torch.ones(2)
    program = torch.export.export(Nested(), ({"x": one, "y": one}, one))
    decoder = part(ov, "pytorch.fx_decoder").TorchFXPythonDecoder(program.module())
    assert decoder._input_signature == ["a", "b"] and decoder.get_input_signature_name(1) == "b"


KINDS = [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("scalar", [(False, False), (True, False), (False, True)])
def test_types_of_results_follow_types_that_inputs_are_given(scalar) -> None:
    """The expectation is what PyTorch gives."""

    class Added(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor):
            return x + y

    scripted = script(Added())
    table = part(ovjit, "pytorch.ts_decoder").pt_to_ov_type_map
    for types in itertools.product(KINDS, repeat=2):
        front, decoder = front_end(ovjit), decoder_of(ovjit, scripted)
        model = front.load(decoder)
        shapes = [[] if alone else [2, 2] for alone in scalar]
        for name, kind, shape in zip(("x.1", "y.1"), types, shapes, strict=True):
            place = model.get_place_by_tensor_name(name)
            model.set_element_type(place, table[str(kind)])
            model.set_partial_shape(place, ovjit.PartialShape(shape))
        wanted = scripted(*(torch.ones(s, dtype=k) for s, k in zip(shapes, types, strict=True)))
        made = front.convert(model).output(0)
        assert made.get_element_type() == table[str(wanted.dtype)], types
        assert made.get_partial_shape() == list(wanted.shape)


def test_convert_model_with_types_alone() -> None:
    model = ovjit.convert_model(torch.jit.script(Sum()), input=[torch.float32, torch.int32])
    model.reshape({0: [2], 1: [2]})
    compiled = ovjit.compile_model(model, "CPU")
    x, y = np.array([-3.5, 2], np.float32), np.array([1, 2], np.int32)
    np.testing.assert_array_equal(compiled([x, y])[0], np.maximum(x + y, 0))


@both
def test_extensions_after_a_model_was_loaded(ov) -> None:
    front, decoder = front_end(ov), decoder_of(ov, script(Cosine()))
    model = front.load(decoder)
    assert kinds(front.convert(model)) == ["Parameter", "Convert", "Cos", "Result"]
    front.add_extension(part(ov, "pytorch").OpExtension("Sin", "aten::cos"))
    assert kinds(front.convert(model)) == ["Parameter", "Convert", "Sin", "Result"]


class Everything(torch.nn.Module):
    def forward(self, x):
        padded = torch.nn.functional.pad(x, [1, 2], "constant", 0.5)
        return torch.addmm(x, x, x, beta=2, alpha=3.5), padded, torch.div(x, x, rounding_mode="floor")


@both
def test_values_of_constant_inputs(ov) -> None:
    seen = []

    def converted(context: Any) -> Any:
        seen.append([_value(context, i) for i in range(1, context.get_input_size())])
        return ov.opset10.relu(context.get_input(0)).outputs()

    def _value(context: Any, i: int) -> Any:
        try:
            return context.get_values_from_const_input(i), context.get_values_from_const_input(i, None, str)
        except ov.frontend.GeneralFailure:  # a tensor that is not known
            return None

    extensions = [part(ov, "pytorch").ConversionExtension(f"aten::{n}", converted) for n in ("addmm", "pad")]
    extensions.append(part(ov, "pytorch").ConversionExtension("aten::div", converted))
    ov.convert_model(Everything(), example_input=torch.ones(3, 3), extension=extensions)
    assert seen[1][2:] == [(2, "2"), (3.5, "3.5")]
    assert seen[0] == [([1, 2], ["1", "2"]), ("constant", "constant"), (0.5, "0.5")]
    assert seen[2][1] == ("floor", "floor")


@both
def test_a_converter_that_raises(ov) -> None:
    def broken(context: Any) -> Any:
        raise ValueError("mine")

    extension = part(ov, "pytorch").ConversionExtension("aten::relu", broken)
    with pytest.raises(ov.frontend.OpConversionFailure, match="aten::relu"):
        ov.convert_model(torch.nn.ReLU(), example_input=torch.ones(2), extension=extension)


@both
def test_what_convert_model_refuses_of_a_module(ov) -> None:
    x = torch.ones(1)
    with pytest.raises(AssertionError, match="`output` argument is not supported for PyTorch"):
        ov.convert_model(Sum(), example_input=(x, x), output="name")
    for given in ("in[1, 10]", "in1,in2", ["in[1]", "other[2]"], ("nope", [1])):
        with pytest.raises(RuntimeError, match=r"Input for tensor name '(in|nope).*' is not found"):
            ov.convert_model(Sum(), input=given, example_input=(x, x))
    with pytest.raises(Exception, match="Unexpected type of example_input"):
        ov.convert_model(torch.nn.ReLU(), example_input="text")
    with pytest.raises(Exception, match="example_input is required when dynamo=True"):
        ov.convert_model(Sum(), dynamo=True)


def rows(model: Any) -> Any:
    inputs = [(sorted(port.get_names()), str(port.get_partial_shape())) for port in model.inputs]
    return inputs, [(sorted(port.get_names()), str(port.get_partial_shape())) for port in model.outputs]


@both
def test_modules_by_torch_export(ov) -> None:
    example = torch.zeros(2, 3), torch.zeros(2, 3)
    for given in (example, {"x": example[0], "y": example[1]}):
        model = ov.convert_model(Sum(), example_input=given, dynamo=True)
        assert rows(model) == ([(["x"], "[2,3]"), (["y"], "[2,3]")], [(["relu:0"], "[2,3]")])
    model = ov.convert_model(Sum(), example_input=example, input=[[-1, 3], [-1, 3]], dynamo=True)
    assert rows(model)[0] == [(["x"], "[?,3]"), (["y"], "[?,3]")]


@both
def test_examples_by_name_and_modules_in_lists(ov) -> None:
    x = torch.ones(2)
    model = ov.convert_model([Sum()], example_input={"x": x, "y": x, "other": x})
    assert rows(model)[0] == [(["x"], "[?]"), (["y"], "[?]")]

    class Parts(torch.nn.Module):
        def forward(self, parts: dict[str, torch.Tensor]):
            return parts["a"] * parts["b"]

    for given in (({"a": x, "b": x},), {"parts": {"a": x, "b": x}}):
        assert [row[0] for row in rows(ov.convert_model(Parts(), example_input=given))[0]] == [["a"], ["b"]]


@dataclasses.dataclass
class Pair:
    first: Any
    second: Any
    empty: Any = None


@pytest.mark.parametrize("dynamo", [False, True])
def test_outputs_in_a_dataclass(dynamo) -> None:
    class Paired(torch.nn.Module):
        def forward(self, x):
            return Pair(x + 1, x * 2)

    model = ovjit.convert_model(Paired(), example_input=torch.ones(1, 4), dynamo=dynamo)
    made = ovjit.compile_model(model, "CPU")(np.full((1, 4), 3, np.float32))
    np.testing.assert_array_equal(made["first"], np.full((1, 4), 4))
    np.testing.assert_array_equal(made["second"], np.full((1, 4), 6))


def test_shapes_of_a_scripts_tuple() -> None:
    class Product(torch.nn.Module):
        def forward(self, pair: tuple[torch.Tensor, torch.Tensor]):
            return pair[0] * pair[1]

    described = [([2, 3], np.float32), ([2, 3], np.float32)]
    model = ovjit.convert_model(torch.jit.script(Product()), input=described)
    assert [str(port.get_partial_shape()) for port in model.inputs] == ["[2,3]", "[2,3]"]


@both
@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_modules_whose_weights_are_made_traceable(ov, name) -> None:
    torch.manual_seed(0)
    kind, x = getattr(torch, name), torch.randn(4, 16)
    plain = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU()).to(kind).float()
    with torch.no_grad():
        wanted = plain(x).numpy()
    given = copy.deepcopy(plain).to(kind)
    patch = part(ov, "pytorch.patch_model")
    getattr(patch, "__make_16bit_traceable")(given)
    try:
        with torch.no_grad():
            model = ov.convert_model(given, example_input=x)
    finally:  # OpenVINO's takes the place of functions of PyTorch's
        patch.unpatch_model(given, "_openvino_module_extension_patch_orig_forward")
    made = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    (weight,) = (node for node in constants if list(node.get_output_shape(0)) == [8, 16])
    wanted_type = {"float16": "f16", "bfloat16": "bf16", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2"}
    assert weight.get_element_type().get_type_name() == wanted_type[name]
    assert given[0].weight.dtype is kind


class Tied(torch.nn.Module):
    """A weight that two layers share, one of them by a function, and that is asked for its type."""

    def __init__(self):
        super().__init__()
        self.table, self.norm = torch.nn.Embedding(10, 16), torch.nn.LayerNorm(16)

    def forward(self, i):
        rows = self.norm(self.table(i)).to(self.table.weight.dtype)
        return torch.nn.functional.linear(rows, self.table.weight)


def test_a_weight_that_is_made_traceable_and_read_by_another_function() -> None:
    """In OpenVINO's model its numbers are zeros there."""
    torch.manual_seed(0)
    plain, i = Tied().bfloat16().float().eval(), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        wanted = plain(i).numpy()
    given = copy.deepcopy(plain).bfloat16()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    patch = part(ovjit, "pytorch.patch_model")
    getattr(patch, "__make_16bit_traceable")(given)
    model = ovjit.convert_model(given, example_input=i)
    patch.unpatch_model(given, "_openvino_module_extension_patch_orig_forward")
    made = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(i.numpy())[0]
    np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4)
    after = given.state_dict()
    assert after.keys() == before.keys()
    assert all(after[name].equal(value) for name, value in before.items())
    assert "forward" not in vars(given.norm)


@both
def test_modules_that_extensions_take_the_place_of(ov) -> None:
    """`evaluate` gives the values, and `condition` says which modules are meant."""
    extensions = part(ov, "pytorch")
    net, x = (
        torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3)),
        torch.ones(2, 3),
    )
    wanted = net(x)
    extension = extensions.ModuleExtension(
        torch.nn.Linear,
        "Fixed",
        evaluate=lambda module, x: x * 2,
        convert=lambda module, target, x: target(x) + 1,
        condition=lambda module: module is net[0],
    )
    patch = part(ov, "pytorch.patch_model")
    patch.patch_model(net, {torch.nn.Linear: extension}, "_own_forward")
    assert [patch.has_been_patched(module, "", "_own_forward") for module in net] == [True, False, False]
    assert net(x).equal(net[2](torch.full((2, 3), 3.0)))
    patch.unpatch_model(net, "_own_forward")
    assert not patch.has_been_patched(net[0], "", "_own_forward")
    assert net(x).equal(wanted)


def test_graphs_that_are_described_by_their_decoder() -> None:
    """Bodies that are called with another mode of gradients. The graph itself is the oracle."""
    from torch._higher_order_ops.wrap import wrap_with_set_grad_enabled

    body = torch.fx.Graph()
    total = body.call_function(torch.ops.aten.add.Tensor, (body.placeholder("x"), body.get_attr("offset")))
    body.output((total,))
    module = torch.fx.GraphModule({"offset": torch.tensor([2.0, 3.0])}, body)
    for mode in (False, True):
        graph = torch.fx.Graph()
        x = graph.placeholder("x")
        graph.output(graph.call_function(wrap_with_set_grad_enabled, (mode, graph.get_attr("body"), x)))
        module = torch.fx.GraphModule({"body": module}, graph)
    x = torch.ones(2)
    kind = part(ovjit, "pytorch.fx_decoder").TorchFXPythonDecoder
    model = ovjit.convert_model(kind(module, input_shapes=[x.shape], input_types=[x.dtype]))
    np.testing.assert_array_equal(ovjit.compile_model(model, "CPU")(x.numpy())[0], module(x)[0].numpy())
