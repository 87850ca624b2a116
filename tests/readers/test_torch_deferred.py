"""Scripts without an example, beside PyTorch: ranks and types of inputs are set after the conversion."""

from __future__ import annotations

import copy
from typing import Dict  # noqa: UP035 - by this name scripts know it

import numpy as np
import pytest

import ovjit as ov
from ovjit.compat.frontend.failures import OpConversionFailure
from ovjit.compat.frontend.frontend import FrontEndManager
from ovjit.compat.frontend.pytorch.py_pytorch_frontend import _Type
from ovjit.compat.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

torch = pytest.importorskip("torch")
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


class Turned(torch.nn.Module):
    def forward(self, x, index):
        rows = x.transpose(0, 1)
        return {"taken": torch.take(x, index), "rows": rows[1:]}


class Scaled(torch.nn.Module):
    def forward(self, x):
        return x * 2.5, x + 1


def inputs():
    return torch.arange(12, dtype=torch.float32).reshape(3, 4), torch.tensor([5, -1, 0])


def converted(module):
    front = FrontEndManager().load_by_framework("pytorch")
    return front.convert(front.load(TorchScriptPythonDecoder(module)))


def typed(model, given):
    for port, value in zip(model.inputs, given, strict=True):
        node = port.get_node()
        node.set_partial_shape(ov.PartialShape([-1] * value.dim()))
        node.set_element_type(ov.Type(value.numpy().dtype))
    return model


def check(model, module, given):
    from torch.utils._pytree import tree_leaves

    got = ov.compile_model(model, "CPU", EXACT)([value.numpy() for value in given])
    wanted = tree_leaves(module(*given))
    assert len(got) == len(wanted)
    for i, want in enumerate(wanted):
        want = want.numpy() if isinstance(want, torch.Tensor) else np.array(want)
        assert (got[i].dtype, got[i].shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got[i], want, rtol=1e-6)


def test_ranks_and_types_are_set_after_the_conversion() -> None:
    module, given = Turned().eval(), inputs()
    model = typed(converted(module), given)
    assert all(port.get_partial_shape().rank.is_dynamic for port in model.outputs)
    model.validate_nodes_and_infer_types()
    assert [str(port.get_partial_shape()) for port in model.outputs] == ["[?]", "[?,?]"]
    assert [port.names for port in model.outputs] == [{"taken"}, {"rows"}]
    check(model, module, given)


def test_the_model_is_completed_when_it_is_compiled_copied_or_saved(tmp_path) -> None:
    module, given = Turned().eval(), inputs()
    model = converted(module)
    check(typed(copy.deepcopy(model), given), module, given)
    with pytest.raises(RuntimeError, match="rank is unknown"):
        ov.compile_model(model, "CPU")
    ov.save_model(typed(model, given), tmp_path / "m.xml", compress_to_fp16=False)
    check(ov.Core().read_model(tmp_path / "m.xml"), module, given)


def test_inputs_that_are_prepared_before_their_types_are_known() -> None:
    """What stands for the script takes what is put before it."""
    module, (x, index) = Turned().eval(), inputs()
    model = typed(converted(module), (x, index))
    steps = ov.preprocess.PrePostProcessor(model)
    steps.input(0).tensor().set_element_type(ov.Type.u8)
    got = ov.compile_model(steps.build(), "CPU", EXACT)([x.numpy().astype(np.uint8), index.numpy()])
    np.testing.assert_allclose(got["rows"], module(x, index)["rows"].numpy())


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_types_of_results_follow_from_those_of_inputs(dtype) -> None:
    given = (torch.ones(2, 3, dtype=getattr(torch, dtype)),)
    model = typed(converted(Scaled()), given)
    model.validate_nodes_and_infer_types()
    check(model, Scaled(), given)


def test_a_model_that_was_changed_is_not_read_again() -> None:
    model = converted(Scaled())
    model.add_outputs(model.outputs[0].get_node().input_value(0))
    results = len(model.outputs)
    typed(model, (torch.ones(2, 3),)).validate_nodes_and_infer_types()
    assert len(model.outputs) == results


def test_what_no_rule_reads_is_refused_at_once() -> None:
    class Unread(torch.nn.Module):
        def forward(self, x):
            return torch.special.airy_ai(x).transpose(0, 1)

    with pytest.raises(OpConversionFailure, match="airy"):
        converted(Unread())


class ByName(torch.nn.Module):
    def forward(self, given: Dict[str, torch.Tensor]):  # noqa: UP006
        return given["first"] + given["second"]


def test_a_decoder_has_the_script() -> None:
    """Frozen where it is scripted, traced with an example, and a script as it is."""
    x = torch.ones(2)
    layer = torch.nn.Linear(2, 2)
    script = TorchScriptPythonDecoder(layer).pt_module
    assert "prim::GetAttr" not in str(script.inlined_graph)
    assert "prim::GetAttr" in str(TorchScriptPythonDecoder(layer, skip_freeze=True).pt_module.inlined_graph)
    assert TorchScriptPythonDecoder(script).pt_module is script
    by_name = {"first": x, "second": x + 1}
    for example in ((by_name,), {"given": by_name}):
        traced = TorchScriptPythonDecoder(ByName(), example_input=example).pt_module
        assert "aten::__getitem__" in str(traced.inlined_graph)
    with pytest.raises(RuntimeError, match="by tracing"):
        _ = TorchScriptPythonDecoder(layer, example_input=(x, x)).pt_module


def test_decoders_of_nodes_tell_of_types() -> None:
    class Divided(torch.nn.Module):
        def __init__(self, mode):
            super().__init__()
            self.mode = mode

        def forward(self, x, y):
            return torch.div(x, y, rounding_mode=self.mode)

    for mode, kind in (("trunc", _Type.Str), (None, _Type.PyNone)):
        decoder = TorchScriptPythonDecoder(Divided(mode))
        nodes = {node.kind(): node for node in decoder.graph_element.nodes()}
        constant = TorchScriptPythonDecoder(decoder.pt_module, nodes["prim::Constant"])
        divided = TorchScriptPythonDecoder(decoder.pt_module, nodes["aten::div"])
        assert isinstance(constant.get_output_type(0).value, kind)
        assert isinstance(divided.get_input_type(2).value, kind)
        assert isinstance(divided.get_input_type(0).value, _Type.Tensor)
        assert divided.get_op_type() == "aten::div" and divided.num_of_outputs() == 1
        with pytest.raises(RuntimeError, match="node of a TorchScript graph"):
            ov.convert_model(divided)


class Depending(torch.nn.Module):
    """What a trace of zeros of the described shapes would take for constants."""

    def forward(self, x, count, more: float = 2.5):
        rows = x * more
        for i in range(int(count)):
            rows = torch.cat([rows[:i], rows[i + 1 :] + i])
        if bool(x.sum() > 0):
            rows = -rows
        return rows, torch.full([int(count)], 3.0)


class Numbered(torch.nn.Module):
    def forward(self, start: float, count: int, double: bool):
        made = torch.arange(count) + start
        return made * 2 if double else made


@pytest.mark.parametrize("x", [torch.ones(5, 2), -torch.ones(7, 2)])
def test_modules_with_described_inputs_are_scripted(x) -> None:
    described = [("x", [-1, 2], np.float32), ("count", [], np.int64)]
    model = ov.convert_model(Depending(), input=described)
    assert [port.names for port in model.inputs] == [{"x"}, {"count"}]
    check(model, Depending(), (x, torch.tensor(3)))


@pytest.mark.parametrize("double", [True, False])
def test_described_numbers_are_those_of_the_script(double) -> None:
    described = [([], np.float32), ([], np.int64), ([], bool)]
    compiled = ov.compile_model(ov.convert_model(Numbered(), input=described), "CPU", EXACT)
    got = compiled([np.float32(0.5), np.int64(4), np.bool_(double)])[0]
    np.testing.assert_allclose(got, Numbered()(0.5, 4, double).numpy())


class Perhaps(torch.nn.Module):
    def __init__(self, weights: bool):
        super().__init__()
        self.layer = torch.nn.MultiheadAttention(8, 2, batch_first=True).requires_grad_(False)
        self.weights = weights

    def forward(self, x):
        return self.layer(x, x, x, need_weights=self.weights)


@pytest.mark.parametrize("weights", [True, False])
def test_tensors_that_a_script_may_leave_out(weights) -> None:
    module, x = Perhaps(weights).eval(), torch.rand(2, 5, 8)
    model = typed(converted(module), (x,))
    assert len(model.outputs) == 2
    model.validate_nodes_and_infer_types()
    compiled = ov.compile_model(model, "CPU", EXACT)
    assert len(compiled.outputs) == 1 + weights
    for got, want in zip(compiled(x.numpy()).values(), module(x), strict=False):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["clone", "deepcopy"])
def test_copies_are_read_again_when_types_are_known(how) -> None:
    """A product of integers and a real number is real, also in a copy that was made before types were set."""
    script = torch.jit.script(Scaled())
    model = ov.convert_model(script)
    made = model.clone() if how == "clone" else copy.deepcopy(model)
    x = np.array([1, 2], np.int32)
    made.input(0).get_node().set_element_type(ov.Type.i32)
    made.input(0).get_node().set_partial_shape(ov.PartialShape([-1]))
    made.validate_nodes_and_infer_types()
    got = ov.compile_model(made, "CPU")(x)
    for i, wanted in enumerate(script(torch.tensor(x))):
        assert got[i].dtype == wanted.numpy().dtype
        np.testing.assert_array_equal(got[i], wanted.numpy())


class Mixed(torch.nn.Module):
    def forward(self, x, y):
        return (x + y) * 2


def typed_place(model, i, dtype, rank=None):
    place = model.get_inputs()[i]
    model.set_element_type(place, ov.Type(np.dtype(dtype)))
    if rank is not None:
        model.set_partial_shape(place, ov.PartialShape([-1] * rank))


def test_element_types_alone_decide_those_of_results() -> None:
    """No rank is known, and one type comes after the other."""
    model = converted(Mixed())
    kinds = []
    for i, dtype in ((0, np.uint8), (1, np.float16)):
        model.inputs[i].get_node().set_element_type(ov.Type(np.dtype(dtype)))
        model.validate_nodes_and_infer_types()
        kinds.append(model.output(0).get_element_type())
    assert kinds[1] == ov.Type.f16
    one = np.array([1, 2], np.uint8), np.array([0.5, 2], np.float16)
    wanted = Mixed()(*map(torch.tensor, one)).numpy()
    model.reshape({0: [2], 1: [2]})
    np.testing.assert_array_equal(ov.compile_model(model, "CPU", EXACT)(one)[0], wanted)


@pytest.mark.parametrize("converts", [False, True])
def test_the_types_that_are_set_last_count(converts) -> None:
    front = FrontEndManager().load_by_framework("pytorch")
    model = front.load(TorchScriptPythonDecoder(Scaled()))
    typed_place(model, 0, np.float32, 1)
    if converts:
        assert front.convert(model).output(1).get_element_type() == ov.Type.f32
    typed_place(model, 0, np.int32)
    check(front.convert(model), Scaled(), (torch.tensor([1, 2], dtype=torch.int32),))


class Ranked(torch.nn.Module):
    """It cannot be read without a rank, and its type follows those of its inputs."""

    def forward(self, x, y):
        return x.transpose(0, 1) + y, x * 1.5


def test_types_that_come_after_the_ranks() -> None:
    given = torch.ones(2, 3, dtype=torch.int32), torch.tensor(0.5)
    model = converted(Ranked())
    for port, value in zip(model.inputs, given, strict=True):
        port.get_node().set_partial_shape(ov.PartialShape([-1] * value.dim()))
    model.validate_nodes_and_infer_types()
    assert [len(port.get_partial_shape()) for port in model.outputs] == [2, 2]
    model = copy.deepcopy(model)
    for port, value in zip(model.inputs, given, strict=True):
        port.get_node().set_element_type(ov.Type(value.numpy().dtype))
    model.validate_nodes_and_infer_types()
    check(model, Ranked(), given)


def test_names_that_were_given_stay() -> None:
    front = FrontEndManager().load_by_framework("pytorch")
    model = front.load(TorchScriptPythonDecoder(Scaled()))
    model.set_name_for_tensor(model.get_outputs()[0], "scaled")
    typed_place(model, 0, np.int64, 1)
    made = front.convert(model)
    assert made.output(0).names == {"scaled"}
    check(made, Scaled(), (torch.tensor([1, 2]),))


def test_what_cannot_be_read_is_an_error_each_time() -> None:
    class Squared(torch.nn.Module):
        def forward(self, x):
            return x.unflatten(1, (2, 3)) if x.dim() == 2 else x.sum(3)

    model = converted(Squared())
    model.input(0).get_node().set_element_type(ov.Type.f32)
    model.input(0).get_node().set_partial_shape(ov.PartialShape([-1, -1, -1]))
    for _ in range(2):
        with pytest.raises(RuntimeError):
            ov.compile_model(model, "CPU")
