"""Readers are closed rooms: without the folder of any of them the rest works, and says what is missing."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
import tomllib

from ovjit.readers import registry
from ovjit.readers.frameworks import exported
from tests.support import ROOT
from tests.support.run import printed, python
from tests.support.sweeps import in_turn

#: Imports of all that users reach, an IR, a model by builders, and then a model of the missing format.
PROGRAM = """
import sys
from importlib import import_module
from pathlib import Path
import numpy as np
import ovjit as ov
from ovjit.compat import opset13 as ops
from ovjit.data import DIGITS_XML

for name in {modules!r}:
    import_module(name)
core = ov.Core()
pixels = np.zeros((1, 1, 8, 8), np.float32)
assert core.compile_model(DIGITS_XML, "CPU")(pixels)[0].shape[-1] == 10
x = ops.parameter([3], np.float32)
model = ov.Model([ops.relu(x)], [x])
assert core.compile_model(model, "CPU")(np.float32([-1, 0, 2]))[0].tolist() == [0, 0, 2]
path = Path(sys.argv[1])
try:
    {read}
except Exception as error:
    print(isinstance(error, RuntimeError), error)
"""
MODULES = (
    "ovjit.__main__", "ovjit.compat.frontend", "ovjit.compat.ovc.convert_impl",
    "ovjit.generation.paged", "ovjit.lora.tensors", "ovjit.tools.generate",
)  # fmt: skip
READ = "core.read_model(path)"
CONVERT = "ov.convert_model(path)"
JAXPR = "ov.convert_model(type('ClosedJaxpr', (), {'__module__': 'jax'})())"
FOLDER = "import_module('ovjit.generation.paged').read_folder(path.parent)"
ADAPTER = "import_module('ovjit.lora.tensors').read_adapter(path)"
#: folders that are missing, a file of the format, how it is read
MISSING = (
    ("torch", "model.pt2", CONVERT),
    ("onnx onnx_contrib", "model.onnx", READ),
    ("tflite", "model.tflite", READ),
    ("jax", "none", JAXPR),
    ("frameworks", "model.pb", READ),
    ("gguf", "model.gguf", READ),
    ("checkpoint", "config.json", FOLDER),
    ("checkpoint", "adapter.safetensors", ADAPTER),
)


def link_without(folder: Path, rooms: list[str], place: str = "ovjit/readers") -> None:
    """The packages in another folder, by links, without these rooms of a place."""
    (folder / "ovjit_ops").symlink_to(ROOT / "ovjit_ops")
    parts = place.split("/")
    for depth in range(len(parts)):
        left_out = rooms if depth == len(parts) - 1 else [parts[depth + 1]]
        inner = "/".join(parts[: depth + 1])
        (folder / inner).mkdir()
        for path in (ROOT / inner).iterdir():
            if path.name not in (*left_out, "__pycache__"):
                (folder / inner / path.name).symlink_to(path)


@pytest.mark.parametrize(("rooms", "name", "read"), MISSING, ids=lambda value: value)
def test_the_rest_works_without_a_reader(rooms: str, name: str, read: str, tmp_path: Path) -> None:
    link_without(tmp_path, rooms.split())
    file = tmp_path / name
    file.write_bytes(b"no model")
    program = PROGRAM.format(modules=MODULES, read=read)
    said = printed("-c", program, file, folder=tmp_path, PYTHONPATH=str(tmp_path))
    room = f"ovjit.readers.{rooms.split()[0]}"
    assert f"this installation of ovjit is without {room}. Install ovjit again: pip install" in said
    assert said.startswith("True")


#: A module that every installation converts, operators of rare numerics, and one that needs such an operator.
NUMERICS = """
import torch
import ovjit as ov
from ovjit.readers.torch.registry import known_operators

def convert(function):
    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return ov.convert_model(Module(), example_input=torch.ones(3, 2))

print(convert(torch.nn.functional.gelu).outputs[0].get_element_type())
print("aten::linalg_svd" in known_operators(), "aten::erfc" in known_operators())
try:
    convert(lambda x: torch.linalg.matrix_norm(x, 2))
except Exception as error:
    print(type(error).__name__, str(error).replace(chr(10), " "))
"""


def test_readers_work_without_rare_numerics(tmp_path: Path) -> None:
    """Rules for operators that few models have are in a folder that nothing imports."""
    torch = pytest.importorskip("torch")
    assert printed("-c", NUMERICS).splitlines() == ["<Type: 'float32'>", "True True"]
    link_without(tmp_path, ["numerics_contrib"])
    said = printed("-c", NUMERICS, folder=tmp_path, PYTHONPATH=str(tmp_path)).splitlines()
    assert said[:2] == ["<Type: 'float32'>", "False True"]
    # PyTorch 2.13 traces the parts of the norm
    rule = "aten::_linalg_svd" if torch.__version__.startswith("2.13.") else "aten::linalg_matrix_norm"
    assert f"No conversion rule found for operations: {rule}" in said[2]


#: Three modules of PyTorch: one that every way converts, one with a number, one with torch.vmap.
WITHOUT_RECORDING = """
import importlib.util
import warnings
import numpy as np
import torch
import ovjit as ov

assert importlib.util.find_spec("ovjit.readers.torch.recording") is None

class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.linear, self.function = torch.nn.Linear(6, 6), function

    def forward(self, x):
        return self.function(self.linear(x))

functions = {
    "plain": torch.relu,
    "half": lambda x: x[:, : int(x.shape[1] / 2)],
    "mapped": torch.vmap(lambda row: row * row.sum()),
}
for name, function in functions.items():
    module, x, wider = Module(function).eval(), torch.rand(3, 4, 6), torch.rand(5, 6, 6)
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        compiled = ov.compile_model(ov.convert_model(module, example_input=x), "CPU")
        right = []
        for each in (x, wider):
            got, want = compiled(each.numpy())[0], function(module.linear(each)).numpy()
            right.append(got.shape == want.shape and np.allclose(got, want, rtol=1e-4, atol=1e-4))
    texts = [str(w.message) for w in caught]
    print(name, *right, sum("a Python integer might cause the trace to be incorrect" in t for t in texts))
"""


def test_pytorch_is_converted_without_the_room_that_records_python(tmp_path: Path) -> None:
    """Plain traces and programs stay, and PyTorch's warning of a number that is the example's."""
    pytest.importorskip("torch")
    link_without(tmp_path, ["recording"], "ovjit/readers/torch")
    said = printed("-c", WITHOUT_RECORDING, folder=tmp_path, PYTHONPATH=str(tmp_path)).splitlines()
    assert said == ["plain True True 0", "half True False 1", "mapped True True 0"]


def test_the_reader_of_tensorflow_works_without_its_rewriter(tmp_path: Path) -> None:
    program = "from ovjit.readers.frameworks import exported\nprint(exported._rebuild(None, [], []))"
    with pytest.raises(AssertionError, match="No module named 'tensorflow'|NoneType"):
        printed("-c", program)
    link_without(tmp_path, [exported.REWRITING])
    with pytest.raises(AssertionError, match="UnsupportedError: loops of TensorFlow 1.*is without"):
        printed("-c", program, folder=tmp_path, PYTHONPATH=str(tmp_path))


@functools.cache
def private_names_of_api() -> frozenset[str]:
    """The attributes and methods with a leading underscore that classes of `ovjit.api` have."""
    names: set[str] = set()
    for path in (ROOT / "ovjit" / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names |= bound_by_class(node) if isinstance(node, ast.ClassDef) else set()
    return frozenset(name for name in names if name.startswith("_") and not name.endswith("__"))


def bound_by_class(node: ast.ClassDef) -> set[str]:
    """The names of a class's methods, of its fields, and of what it stores in objects."""
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef):
            names.add(inner.name)
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
        elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            names.add(inner.attr)
    return names


def private_accesses(tree: ast.Module) -> list[str]:
    """`line: expression` of each use of a name that is private to `ovjit.api`, but for objects of classes of
    the file itself and of PyTorch."""
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    foreign = private_names_of_api().difference(*map(bound_by_class, classes))
    texts = {
        node: ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in foreign
    }
    return [
        f"{node.lineno}: {text}"
        for node, text in texts.items()
        if not text.startswith(("torch.", "buffer._version", "module._c."))
    ]


def test_readers_use_no_private_name_of_the_api() -> None:
    """`ovjit.build` makes Models for them, and gives the facts of nodes and tensors."""
    rooms = (ROOT / "ovjit" / "readers").rglob("*.py")
    wrong = {str(path.relative_to(ROOT)): private_accesses(ast.parse(path.read_text())) for path in rooms}
    assert not {path: lines for path, lines in wrong.items() if lines}


def test_private_names_are_seen() -> None:
    text = "class A:\n    def _op(self): self._rt\n\nx._op, value._tensor._type, torch.x._node\n"
    assert sorted(private_accesses(ast.parse(text))) == [
        "2: self._rt",
        "4: value._tensor",
        "4: value._tensor._type",
    ]


def test_built_in_readers_are_those_of_the_entry_points() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert entries[registry.GROUP] == registry.BUILT_IN
    for name in registry.BUILT_IN:
        reader = registry.load_built_in(name)
        assert reader.name == name
        endings = {ending for ending, owner in registry.SUFFIXES.items() if owner == name}
        assert endings == set(reader.suffixes)


READER = """
from ovjit.compat import opset13 as ops
from ovjit.errors import ModelError
from ovjit.readers.registry import Reader
import numpy as np
import ovjit as ov

class Doubling(Reader):
    name, title, suffixes = "doubling", "Doubling (.twice)", (".twice",)

    def sniff(self, source):
        return source.head.startswith(b"twice ")

    def read(self, source, request):
        if not source.head.startswith(b"twice "):
            raise ModelError(f"{source.path} does not begin with 'twice '")
        x = ops.parameter([int(source.head[6:])], np.float32)
        return ov.Model([ops.add(x, x)], [x])

READER = Doubling()
"""
USE = """
import sys
import numpy as np
import ovjit as ov
from pathlib import Path
from ovjit.compat.frontend import FrontEndManager

core, folder = ov.Core(), Path(sys.argv[1])
core.read_model(folder / "model.xml")
print("its_reader" in sys.modules)
for model in (folder / "m.twice", folder / "m.other", b"twice 2"):
    print(core.compile_model(model, "CPU")(np.float32([1, 3]))[0].tolist())
print(ov.convert_model(folder / "m.twice").output(0).shape)
manager = FrontEndManager()
front_end = manager.load_by_model(str(folder / "m.other"))
print(front_end.get_name(), "doubling" in manager.get_available_front_ends())
print(front_end.convert(front_end.load(folder / "m.twice")).output(0).shape)
for path in (folder / "bad.twice", folder / "unknown.bin"):
    try:
        core.read_model(path)
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.parametrize("entry", ["its_reader:READER", "its_reader"])
def test_a_package_adds_a_reader(entry: str, tmp_path: Path) -> None:
    info = tmp_path / "its-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: its\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ovjit.readers]\nits = {entry}\n")
    (tmp_path / "its_reader.py").write_text(READER)
    for name in ("m.twice", "m.other"):
        (tmp_path / name).write_text("twice 2")
    (tmp_path / "bad.twice").write_text("once 2")
    (tmp_path / "unknown.bin").write_text("nothing")
    for suffix in (".xml", ".bin"):
        (tmp_path / f"model{suffix}").symlink_to(ROOT / "ovjit" / "data" / f"digits{suffix}")
    places = f"{tmp_path}:{ROOT}"
    if entry == "its_reader":
        with pytest.raises(AssertionError, match="<module 'its_reader'.* is no Reader with a name"):
            printed("-c", USE, tmp_path, PYTHONPATH=places)
        return
    said = printed("-c", USE, tmp_path, PYTHONPATH=places).splitlines()
    assert said[:4] == ["False", "[2.0, 6.0]", "[2.0, 6.0]", "[2.0, 6.0]"]
    assert said[4:7] == ["[2]", "doubling True", "[2]"]
    assert said[7].endswith("bad.twice does not begin with 'twice '")
    assert "The format is unknown; supported formats are OpenVINO IR (.xml)" in said[8]
    assert "Paddle (.pdmodel, .json) and Doubling (.twice)" in said[8]


#: Bodies of a module with a reader that is wrong -> what the error says for each of the inputs of FAULTS.
BROKEN = {
    "raise ValueError('no start')": r"its:READER \(ovjit.readers\) cannot be imported \(ValueError: no",
    "import no_such_module": r"its:READER .* cannot be imported \(ModuleNotFoundError: No module",
    "raise SystemExit(3)": r"its:READER .* cannot be imported \(SystemExit: 3\)",
    "OTHER = 1": r"its:READER .* cannot be imported \(AttributeError: .*'READER'",
    "suffixes = '.mine'": "is no Reader with a name and a tuple of suffixes",
    "def sniff(self, source): raise KeyError('head')": r"the reader 'mine' of its.*KeyError: 'head'",
    "def sniff(self, source): return np.zeros(2)": r"the reader 'mine' of its.*ValueError: The truth value",
    "def claims(self, source): raise KeyError('name')": r"the reader 'mine' of its.*KeyError: 'name'",
    "def read(self, source, request): raise LookupError('line 3')": r"the reader 'mine' of its.*line 3",
    "def read(self, source, request): return None": r"'mine' of its: `read` returns NoneType, not a Model",
    "def convert(self, model, conversion): return 'x'": r"'mine' of its: `convert` returns str, not a Model",
}
FAULTS = """
import ovjit as ov
from ovjit.compat.frontend import FrontEndManager

for use in (
    lambda: ov.Core().read_model("m.mine"), lambda: ov.compile_model("m.mine", "CPU"),
    lambda: ov.Core().read_model("m.other"), lambda: ov.Core().read_model(b"text"),
    lambda: ov.convert_model("m.mine"), lambda: ov.convert_model(object()),
    lambda: FrontEndManager().load_by_framework("mine").load("m.mine"),
):
    try:
        use()
        print("no error")
    except RuntimeError as error:
        print(str(error).replace(chr(10), " "))
print(ov.Core().read_model("model.xml").outputs[0].get_names() is not None)
"""


@pytest.mark.parametrize("body", in_turn(list(BROKEN), 3))
def test_a_reader_of_a_package_that_is_wrong(body: str, tmp_path: Path) -> None:
    """The error names the plug-in, whatever is wrong with it; models of other endings need no plug-in."""
    (tmp_path / "its-1.0.dist-info").mkdir()
    (tmp_path / "its-1.0.dist-info" / "entry_points.txt").write_text("[ovjit.readers]\nits = its:READER\n")
    head = (
        "import numpy as np\nfrom ovjit.readers.registry import Reader\nclass R(Reader):\n    name = 'mine'\n"
    )
    head += "    title, suffixes = 'Mine (.mine)', ('.mine',)\n"
    if "convert" in body:
        head += "    def sniff(self, source): return source.is_object\n"
    is_method = body.startswith(("def", "suffixes"))
    (tmp_path / "its.py").write_text(f"{head}    {body}\nREADER = R()\n" if is_method else body)
    for name in ("m.mine", "m.other"):
        (tmp_path / name).write_text("text")
    for suffix in (".xml", ".bin"):
        (tmp_path / f"model{suffix}").symlink_to(ROOT / "ovjit" / "data" / f"digits{suffix}")
    done = python("-c", FAULTS, folder=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 0, done.stderr
    *said, other = done.stdout.splitlines()
    assert other == "True" and len(said) == 7
    assert any(re.search(BROKEN[body], line) for line in said), said
