"""Files of PyTorch by path: scripts and exported programs."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")


class Net(torch.nn.Module):
    """Two inputs, one layer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x, y):
        return self.layer(x) + y


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval(), (torch.rand(2, 4), torch.rand(2, 3))


def save(kind, net, example, path):
    if kind == "traced":
        torch.jit.trace(net, example).save(path)
    elif kind == "scripted":
        torch.jit.script(net).save(path)
    else:
        torch.export.save(torch.export.export(net, example), path)


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    "kind, name", [("traced", "a.pt"), ("scripted", "b.pth"), ("traced", "c.bin"), ("exported", "d.pt2")]
)
def test_files_are_known_by_their_contents(net, tmp_path, kind, name, as_list) -> None:
    module, example = net
    path = tmp_path / name
    save(kind, module, example, str(path))
    model = ov.convert_model([path] if as_list else str(path))
    assert [sorted(p.names) for p in model.inputs] == (
        [["x"], ["y"]] if kind == "exported" else [["x.1"], ["y.1"]]
    )
    if kind == "exported":
        assert [str(p.partial_shape) for p in model.inputs] == ["[?,?]", "[?,?]"]
    else:  # a script tells nothing of its inputs
        for port, tensor in zip(model.inputs, example, strict=True):
            port.get_node().set_partial_shape(ov.PartialShape(list(tensor.shape)))
            port.get_node().set_element_type(ov.Type.f32)
        model.validate_nodes_and_infer_types()
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    got = compiled([t.numpy() for t in example])[0]
    np.testing.assert_allclose(got, module(*example).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_script_with_an_example_or_shapes(net, tmp_path) -> None:
    module, example = net
    path = str(tmp_path / "a.pt")
    save("traced", module, example, path)
    model = ov.convert_model(path, example_input=example)
    assert [str(p.partial_shape) for p in model.inputs] == ["[?,?]", "[?,?]"]
    model = ov.convert_model(path, input=[[2, 4], [2, 3]])
    assert [str(p.partial_shape) for p in model.inputs] == ["[2,4]", "[2,3]"]


@pytest.mark.parametrize("whole", [False, True])
def test_weights_without_a_graph_are_named(net, tmp_path, whole) -> None:
    path = str(tmp_path / "w.pt")
    torch.save(net[0] if whole else net[0].state_dict(), path)
    with pytest.raises(Exception, match=r"Cannot recognize input model.*no graph.*torch\.export\.save"):
        ov.convert_model(path)


def test_a_damaged_file_is_told(net, tmp_path) -> None:
    path = tmp_path / "a.pt2"
    save("exported", *net, str(path))
    data = bytearray(path.read_bytes())
    at = data.index(b'{"') + 2  # the start of a JSON text in the archive
    data[at : at + 8] = b"#" * 8
    path.write_bytes(data)
    with pytest.raises(Exception, match="Cannot recognize input model.*PyTorch cannot load"):
        ov.convert_model(str(path))


def test_why_a_program_is_damaged_is_told_once(net, tmp_path, caplog, capfd) -> None:
    """The error has PyTorch's reason, and its log of a hundred lines is not written."""
    save("exported", *net, str(tmp_path / "a.pt2"))
    with zipfile.ZipFile(tmp_path / "a.pt2") as read, zipfile.ZipFile(tmp_path / "b.pt2", "w") as written:
        for name in read.namelist():
            content = read.read(name)
            if name.endswith("models/model.json"):
                content = content.replace(b'{"name": "weight"', b'{"name": "nope"')
                assert content != read.read(name)
            written.writestr(name, content)
    with pytest.raises(Exception, match="PyTorch cannot load .*Failed deserializing node .*nope"):
        ov.convert_model(str(tmp_path / "b.pt2"))
    assert not [r for r in caplog.records if r.levelname == "WARNING"] and not "".join(capfd.readouterr())


def test_arguments_that_no_rule_expects_are_told() -> None:
    """As in a damaged file: the error names the operator, and the line that calls it."""
    from ovjit.readers.torch.scripts.script import ScriptReader

    x = ov.opset8.parameter([2, 3]).output(0)
    with pytest.raises(RuntimeError, match=r"aten::permute, line 7 with these arguments \(ValueError"):
        ScriptReader(None).call("aten::permute", "", {"self": x, "dims": [1, "zero"]}, "", lambda: ", line 7")


def test_read_model_points_to_convert_model(net, tmp_path) -> None:
    path = str(tmp_path / "a.pt")
    save("traced", *net, path)
    with pytest.raises(RuntimeError, match="Unable to read the model.*Use convert_model to read"):
        ov.Core().read_model(path)
