"""Graph modules of ATen operators, which exporters hand over in a TorchFXPythonDecoder with converters."""

import numpy as np
import pytest

import ovjit as ov
from ovjit.compat.frontend.pytorch import ConversionExtension
from ovjit.compat.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from ovjit.compat.frontend.pytorch.torchdynamo import export_decompositions

torch = pytest.importorskip("torch")
ops = ov.opset15


class Of(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = torch.nn.Parameter(torch.arange(4.0), requires_grad=False)

    def forward(self, *given):
        return self.function(*given, self.weight)


def _graph(function, *example, **more):
    """A graph module as exporters hand it over: of an exported program that they have decomposed."""
    whole = export_decompositions.ops_to_not_decompose()
    assert torch.ops.aten.silu.default in whole
    assert not set(whole) & set(export_decompositions.get_export_decomposition_list())
    table = torch.export.default_decompositions()
    for op in whole:
        table.pop(op, None)
    return torch.export.export(Of(function), example, **more).run_decompositions(table).module()


@pytest.mark.parametrize("is_open", [False, True])
def test_graph_modules_of_decoders(is_open):
    """Their inputs have the names that the exporter sets, and are open where it says so."""
    size = torch.export.Dim("size", min=1, max=9)
    shapes = {"given": ({0: size}, {0: size})}
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    graph = _graph(lambda x, y, w: (torch.nn.functional.silu(x) * w, y.sum(0)), x, y, dynamic_shapes=shapes)
    decoder = TorchFXPythonDecoder(graph, dynamic_shapes=is_open)
    decoder._input_signature = ["first", "second"]
    model = ov.convert_model(decoder)
    assert [port.get_any_name() for port in model.inputs] == ["first", "second"]
    assert {str(port.get_partial_shape()) for port in model.inputs} == {"[?,?]" if is_open else "[?,4]"}
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for rows in (1, 5):
        x, y = torch.randn(rows, 4), torch.randn(rows, 4)
        result = compiled({"first": x.numpy(), "second": y.numpy()})
        wanted = torch.nn.functional.silu(x) * torch.arange(4.0), y.sum(0)
        for i, want in enumerate(wanted):
            np.testing.assert_allclose(result[i], want.numpy(), 1e-5, 1e-5)


def test_converters_of_graph_modules_see_types_and_arguments_left_out():
    seen = {}

    def copied(context):
        seen["dtype"] = context.get_attribute("dtype")
        assert not context.has_attribute("layout")
        return [ops.convert(context.get_input(0), context.get_attribute("dtype")).output(0)]

    def attention(context):
        seen["mask"] = context.get_input(3).get_node().get_type_name()
        assert isinstance(context.get_values_from_const_input(5), (bool, np.bool_, np.ndarray))
        given = [context.get_input(i) for i in range(3)]
        return [ops.scaled_dot_product_attention(*given).output(0)]

    x = torch.randn(1, 2, 3, 4)
    graph = _graph(
        lambda x, w: torch.nn.functional.scaled_dot_product_attention(x, x, x * w).to(torch.int32), x
    )
    extensions = [
        ConversionExtension("aten._to_copy.default", copied),
        ConversionExtension("aten.scaled_dot_product_attention.default", attention),
    ]
    model = ov.convert_model(TorchFXPythonDecoder(graph), extension=extensions)
    assert seen == {"dtype": ov.Type.i32, "mask": "PtFrameworkNode"}
    assert model.output(0).get_element_type() == ov.Type.i32
    assert model.input(0).shape == ov.Shape([1, 2, 3, 4])


def test_converters_are_told_of_types_that_are_not_known():
    def copied(context):
        assert context.has_attribute("dtype")
        return [ops.convert(context.get_input(0), context.get_attribute("dtype")).output(0)]

    x = torch.randn(3, 4)
    graph = _graph(lambda x, w: torch.ops.aten._to_copy(x * w, dtype=torch.complex64).real, x)
    extension = ConversionExtension("aten._to_copy.default", copied)
    with pytest.raises(RuntimeError, match="Attribute dtype can't be converted to defined types"):
        ov.convert_model(TorchFXPythonDecoder(graph), extension=[extension])


@pytest.mark.parametrize("is_converted", [False, True])
def test_python_functions_of_lengths(is_converted):
    """By the reader's own rule, or by the converter of the function's text."""
    asked = []

    def smaller(context):
        asked.append(context.get_op_type())
        a, b = context.get_input(0), context.get_input(1)
        return [ops.minimum(a, ops.convert(b, a.get_element_type())).output(0)]

    size = torch.export.Dim("size", min=1, max=9)
    graph = _graph(
        lambda x, w: x * w + torch.sym_min(x.shape[0], 4),
        torch.randn(6, 4),
        dynamic_shapes={"given": ({0: size},)},
    )
    changed = [node for node in graph.graph.nodes if node.target is torch.sym_min]
    for node in changed:
        node.target = min
    assert changed
    extensions = [ConversionExtension("<built-in function min>", smaller)] if is_converted else []
    model = ov.convert_model(TorchFXPythonDecoder(graph), extension=extensions)
    assert asked == ["<built-in function min>"] * len(extensions)
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for rows in (2, 6):
        x = np.random.default_rng(rows).standard_normal((rows, 4), np.float32)
        np.testing.assert_allclose(compiled(x)[0], x * np.arange(4, dtype=np.float32) + min(rows, 4), 1e-6)


def test_converters_give_complex_numbers_as_pairs_or_as_real_parts():
    def in_pairs(context):
        parts = [ops.unsqueeze(context.get_input(i), ops.constant(-1)) for i in range(2)]
        return [ops.concat(parts, axis=-1).output(0)]

    def unchanged(context):
        return [context.get_input(0)]

    def rotate(x, weight):
        phase = torch.complex(weight.cos(), weight.sin())
        return torch.view_as_real(x.to(torch.complex64) * phase)

    x = torch.randn(3, 4)
    extensions = [
        ConversionExtension("aten.complex.default", in_pairs),
        ConversionExtension("aten.view_as_real.default", unchanged),
        ConversionExtension("aten._to_copy.default", unchanged),
    ]
    model = ov.convert_model(TorchFXPythonDecoder(_graph(rotate, x)), extension=extensions)
    result = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]
    np.testing.assert_allclose(result, rotate(x, torch.arange(4.0)).numpy(), 1e-5, 1e-6)


def test_writes_to_inputs_at_the_end_of_a_graph():
    """The written value is an output where the graph returns it; a write that is read later is refused."""

    def step(x, cache, weight):
        cache.copy_(torch.cat([cache[1:], x]))
        return cache * weight, cache

    x, cache = torch.randn(1, 4), torch.randn(3, 4)
    graph = _graph(step, x, cache)
    writes = [node for node in graph.graph.nodes if node.target is torch.ops.aten.copy_.default]
    assert len(writes) == 1
    compiled = ov.compile_model(
        ov.convert_model(TorchFXPythonDecoder(graph)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    result = compiled([x.numpy(), cache.numpy()])
    scaled, kept = step(x, cache.clone(), torch.arange(4.0))
    np.testing.assert_allclose(result[0], scaled.numpy(), 1e-6)
    np.testing.assert_array_equal(result[1], kept.numpy())
    with graph.graph.inserting_after(writes[0]):
        later = graph.graph.call_function(torch.ops.aten.neg.default, writes[0].args[:1])
    outputs = graph.graph.output_node()
    outputs.args = (((*outputs.args[0], later)),)
    graph.recompile()
    with pytest.raises(RuntimeError, match="aten::copy_"):
        ov.convert_model(TorchFXPythonDecoder(graph))


def test_a_copy_has_the_shape_of_the_tensor_written_to():
    def last_two(x, weight):
        return torch.ops.aten.copy(x.new_zeros(x.shape[0], 2, 4), x[:, -2:] * weight)

    rows = torch.export.Dim("rows", min=1, max=9)
    graph = _graph(last_two, torch.randn(5, 3, 4), dynamic_shapes={"given": ({0: rows},)})
    model = ov.convert_model(TorchFXPythonDecoder(graph, dynamic_shapes=True))
    assert str(model.output(0).get_partial_shape()) == "[?,2,4]"
    copied = model.get_results()[0].input_value(0).get_node()
    assert (copied.get_type_name(), copied.get_attributes()["mode"]) == ("Broadcast", "numpy")
    x = torch.randn(2, 3, 4)
    result = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x.numpy())[0]
    np.testing.assert_allclose(result, last_two(x, torch.arange(4.0)).numpy(), 1e-6)
