"""Files of PyTorch by path: scripts and exported programs."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
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
    with pytest.raises(Exception, match="Cannot recognize input model.*is damaged.*CRC"):
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


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Sized(torch.nn.Module):
    def forward(self, x):
        return x.reshape(2 * x.shape[0], 2) * x.shape[0]


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """What the archive of a program with an open dimension holds."""
    path = tmp_path_factory.mktemp("program") / "a.pt2"
    program = torch.export.export(Sized(), (torch.rand(3, 4),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return str(path)


def member(members, end):
    return next(name for name in members if name.endswith(end))


@pytest.mark.parametrize("place", ["sample_inputs", "weights", "constants", "opaque"])
def test_pickles_in_a_program_run_no_code(members, tmp_path, place) -> None:
    """PyTorch's loader runs what they call; it is asked first whether they hold tensors alone."""
    made, changed = tmp_path / "made", dict(members)
    buffer = io.BytesIO()
    torch.save(Touches(made), buffer)
    if place == "sample_inputs":
        changed[member(members, "sample_inputs/model.pt")] = buffer.getvalue()
    else:
        name = member(members, f"model_{'constants' if place == 'opaque' else place}_config.json")
        file = {"weights": "weight_0", "constants": "tensor_0", "opaque": "opaque_obj_0"}[place]
        row = {"path_name": file, "is_param": False, "use_pickle": True, "tensor_meta": None}
        changed[name] = json.dumps({"config": {"w": row}}).encode()
        content = pickle.dumps(Touches(made)) if place == "opaque" else buffer.getvalue()
        changed[os.path.join(os.path.dirname(name), file)] = content
    with pytest.raises(RuntimeError, match="pickled objects that are no tensors|objects of Python"):
        ov.convert_model(written(tmp_path / "b.pt2", changed))
    assert not made.exists()


@pytest.mark.parametrize(
    "old, new",
    [
        (r'"expr_str": "[^"]*"', "\"expr_str\": \"__import__('os').mkdir('{}')\""),
        (r'"expr_str": "[^"]*"', '"expr_str": "Max(\'(1).__class__\', 1)"'),
        (r'"expr_str": "[^"]*"', '"expr_str": "Symbol(\'s77\').__class__"'),
        (r'"expr_str": "[^"]*"', '"expr_str": "Integer(9)**Integer(9)**Integer(9)"'),
        (r'"expr_str": "[^"]*"', '"expr_str": "Pow(Pow(Symbol(\'s\'), 999), 999)"'),
        (r'"expr_str": "[^"]*"', '"expr_str": "LShift(1, 99999999999)"'),
        (r'"expr_str": "[^"]*"', '"expr_str": "factorial(99999999)"'),
        (r'"name": "x"', "\"name\": \"x=__import__('os').mkdir('{}')\""),
        (r"torch\.ops\.aten\.mul\.Tensor", "torch.os.mkdir"),
        (r'\\"context\\": \\"\[\]', r"\"context\": \"[\\\"x=__import__('os').mkdir('{}')\\\"]"),
    ],
)
def test_texts_in_a_program_are_not_run(members, tmp_path, old, new) -> None:
    made, name = tmp_path / "made", member(members, "models/model.json")
    text = re.sub(old, lambda _: new.format(made), members[name].decode())
    path = written(tmp_path / "b.pt2", {**members, name: text.encode()})
    with pytest.raises(RuntimeError, match="is no (name|expression). Loading it may run code"):
        ov.convert_model(path)
    assert not made.exists()
    assert len(ov.convert_model(written(tmp_path / "c.pt2", members)).inputs) == 1


def test_powers_and_divisions_of_sizes_are_expressions(tmp_path) -> None:
    class Sizes(torch.nn.Module):
        def forward(self, x):
            n = x.shape[0]
            return x.new_zeros(n**2 + (n + 3) // 2 + max(n, 5) + n % 3)

    dims = {"x": {0: torch.export.Dim("n", min=2, max=99)}}
    program = torch.export.export(Sizes(), (torch.rand(4, 3),), dynamic_shapes=dims)
    torch.export.save(program, tmp_path / "a.pt2")
    compiled = ov.compile_model(ov.convert_model(str(tmp_path / "a.pt2")), "CPU")
    assert compiled(np.ones((7, 3), np.float32))[0].shape == (49 + 5 + 7 + 1,)


def test_guards_of_a_program_are_left_out(members, tmp_path) -> None:
    """They are code that asks for sizes."""
    from ovjit.readers.torch.files import load

    made, name = tmp_path / "made", member(members, "models/model.json")
    text = json.loads(members[name])
    text["guards_code"] = [f"L['x'].size()[0] != len(__import__('os').mkdir({str(made)!r}) or '')"]
    path = written(tmp_path / "b.pt2", {**members, name: json.dumps(text).encode()})
    assert load(path).module()(torch.ones(3, 4)).shape == (6, 2)
    assert not made.exists()


@pytest.mark.parametrize("strict", [False, True])
def test_arguments_of_all_kinds_are_no_code(tmp_path, strict) -> None:
    """Names of modules and keys of data may have any letters."""

    class Parts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = torch.nn.ModuleDict({"a-b": torch.nn.Linear(3, 3), "c:d/e": torch.nn.Linear(3, 3)})

        def forward(self, x, *, more):
            return {
                "it's": self.parts["a-b"](x["y z"]),
                "b": self.parts["c:d/e"](more[0]) * x["y z"].shape[0],
            }

    example = {"y z": torch.rand(4, 3)}, {"more": [torch.rand(2, 3)]}
    program = torch.export.export(Parts(), example[:1], example[1], strict=strict)
    torch.export.save(program, tmp_path / "a.pt2")
    assert len(ov.convert_model(str(tmp_path / "a.pt2")).outputs) == 2


def test_compiled_code_in_a_program_is_refused(members, tmp_path) -> None:
    folder = member(members, "models/model.json").partition("/")[0]
    path = written(tmp_path / "b.pt2", {**members, f"{folder}/data/aotinductor/m/x.so": b"\x7fELF"})
    with pytest.raises(RuntimeError, match="it holds compiled code"):
        ov.convert_model(path)


@pytest.mark.parametrize("kind", ["traced", "exported"])
def test_weights_with_another_checksum_are_refused(net, tmp_path, kind) -> None:
    """PyTorch does not compare them: the numbers were wrong without a word."""
    path = tmp_path / "a.pt2"
    save(kind, *net, str(path))
    weight = net[0].layer.weight.detach().numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(weight) + 2] ^= 16
    path.write_bytes(data)
    with pytest.raises(RuntimeError, match="is damaged.*CRC"):
        ov.convert_model(str(path))


def test_a_bomb_is_refused(net, tmp_path) -> None:
    save("traced", *net, str(tmp_path / "a.pt"))
    with zipfile.ZipFile(tmp_path / "a.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/extra/zeros", bytes(300 << 20))
    with pytest.raises(RuntimeError, match="its members would take more than twice its size"):
        ov.convert_model(str(tmp_path / "a.pt"))


def test_pickles_of_scripts_are_as_long_as_they_say(net, tmp_path) -> None:
    """PyTorch reserves the length that a text in one claims to have: 2 GB for a file of 2 kB."""
    save("traced", *net, str(tmp_path / "a.pt"))
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        changed = {name: archive.read(name) for name in archive.namelist()}
    name = member(changed, "data.pkl")
    at = changed[name].index(b"X") + 1
    changed[name] = changed[name][:at] + (2**31 - 8).to_bytes(4, "little") + changed[name][at + 4 :]
    with pytest.raises(RuntimeError, match="is damaged.*data.pkl"):
        ov.convert_model(written(tmp_path / "b.pt", changed))


@pytest.mark.parametrize("how", ["names", "version", "cut", "old"])
def test_damaged_archives_are_told(net, tmp_path, how) -> None:
    path = tmp_path / "a.pt"
    save("traced", *net, str(path))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # the table of members
    if how == "names":
        data[at + 48] = 0xB7
    elif how == "version":
        data[at + 6] = 255
    else:
        del data[at:]
    path.write_bytes(data)
    if how == "old":
        torch.save(net[0].state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(RuntimeError, match="Cannot recognize input model.*(damaged archive|no archive of)"):
        ov.convert_model(str(path))


@pytest.mark.parametrize("kind", ["traced", "scripted", "exported"])
def test_changed_members_give_our_errors_only(net, tmp_path, kind) -> None:
    """Members with other bytes and right checksums: read, or refused, by this project's errors."""
    save(kind, *net, str(tmp_path / "a.pt2"))
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive:
        parts = {name: archive.read(name) for name in archive.namelist() if archive.getinfo(name).file_size}
    rng = random.Random(20261127)
    for turn in range(40):
        name = rng.choice(list(parts))
        data = bytearray(parts[name])
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path = written(tmp_path / "b.pt2", {**parts, name: bytes(data)})
        try:
            ov.convert_model(path)
        except RuntimeError as error:
            assert "ovjit" in type(error).__module__, (turn, name, error)


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
