"""Kernels are compiled where there are no sources: from bytecode alone, in archives, in frozen programs."""

from __future__ import annotations

import importlib.util
import marshal
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import ovjit
from ovjit import source_files
from ovjit._pyinstaller import get_hook_dirs
from ovjit.codegen import module_texts, source, versions
from ovjit.errors import NoSource, OvjitError
from ovjit.tools.kernel_sources import collect_sources
from tests.support import ROOT, packed
from tests.support.run import FINISH

HEAD = importlib.util.MAGIC_NUMBER + bytes(12)

NETWORK = """
import numpy as np, ovjit as ov
from ovjit.data import digits
xml, images, labels = digits()
found = np.array(ov.compile_model(xml)(images)[0])
assert (found.argmax(1) == labels).mean() > 0.97
print(ov.__file__)
"""
OWN = '''
import numpy as np
import ovjit as ov
from ovjit.codegen.template import rows
from ovjit.codegen.words import *
from ovjit.planning.row_kernels import RowLowering
from ovjit.graph.op import TensorType, op


@rows("n")
def own_gain(x, y, n):
    """a text"""
    total = splat(0.0)
    for i in vectors(n):
        total = fma(load(x, i), load(x, i), total)
    for i in vectors(n):
        finish(y, i, load(x, i) * splat(hadd(total)))


@op("OwnGain", types=("f32",), native=("f32",), lower=lambda g: RowLowering(g, own_gain, (1,)))
class OwnGain:
    """x times the sum of its squares"""

    def infer(data):
        return TensorType(data.dtype, data.shape)

    def ref(data):
        return data * (data * data).sum(1, keepdims=True)


def run():
    x = ov.opset8.parameter([3, 37], np.float32)
    model = ov.Model([ov.opset8.own_gain(x).output(0)], [x])
    request = ov.Core().compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    data = np.arange(111, dtype=np.float32).reshape(3, 37) / 100
    found = request.infer([data])[0]
    np.testing.assert_allclose(found, data * (data * data).sum(1, keepdims=True), rtol=1e-5)
    print([info.exec_type for info in request.get_profiling_info()])
'''

CHECKED = """
from ovjit.codegen import versions
from ovjit.codegen.function import FunctionKernel
from ovjit.codegen.parts import Inline, Routine
from ovjit.codegen.source import definition
from ovjit.codegen.template import Template
from ovjit.graph import op
import ovjit.tiles.driver, ovjit.execution.runner_functions, ovjit_ops.attention.cpu_attention
for record in op.all_ops():
    record.lowering()
kinds = FunctionKernel, Inline, Template, Routine
found = {id(k): k for m in list(sys.modules.values()) if m.__name__.startswith("ovjit")
         for k in vars(m).values() if isinstance(k, kinds)}
for kernel in found.values():
    assert definition(kernel.function).name == kernel.function.__name__
print(len(found), versions.code_digest())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return packed.copied(tmp_path_factory.mktemp("sources") / "site")


@pytest.fixture(scope="module")
def bytecode(site: Path, tmp_path_factory) -> Path:
    return packed.bytecode_alone(shutil.copytree(site, tmp_path_factory.mktemp("bytecode") / "site"))


def printed(done) -> list[str]:
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def test_bytecode_alone(bytecode: Path, tmp_path: Path) -> None:
    done = packed.start(bytecode, NETWORK, tmp_path, OVJIT_SHIPPED="0")
    assert printed(done) == [str(bytecode / "ovjit" / "__init__.pyc")]


def test_shipped_kernels_are_those_of_the_sources(bytecode: Path, tmp_path: Path) -> None:
    count, digest = printed(packed.start(bytecode, CHECKED, tmp_path))
    assert int(count) > 150 and digest == versions.code_digest()
    # the second start has kept it, and needs no text
    (bytecode / "ovjit" / "data" / module_texts.FILE).rename(tmp_path / "away")
    try:
        again = "from ovjit.codegen import versions; print(versions.code_digest())"
        kept = packed.start(bytecode, again, tmp_path)
        assert printed(kept) == [digest]
        lost = packed.start(bytecode, CHECKED, tmp_path)
    finally:
        (tmp_path / "away").rename(bytecode / "ovjit" / "data" / module_texts.FILE)
    assert lost.returncode == 1 and "NoSource" in lost.stderr
    assert "python -m ovjit.tools.ship --texts" in lost.stderr


def test_a_text_of_other_bytecode_is_not_believed(bytecode: Path, tmp_path: Path) -> None:
    file = bytecode / "ovjit" / "data" / module_texts.FILE
    whole = file.read_bytes()
    texts = collect_sources()
    home = "ovjit_ops.normalization.cpu_softmax"
    assert "0.0" in texts[home]
    file.write_bytes(module_texts.pack({**texts, home: texts[home].replace("0.0", "1.0")}))
    program = """
from ovjit.codegen.source import definition
from ovjit.codegen.template import Template
from ovjit_ops.normalization import cpu_softmax
kernels = [k for k in vars(cpu_softmax).values() if isinstance(k, Template)]
for kernel in kernels:
    definition(kernel.function)
"""
    try:
        done = packed.start(bytecode, program, tmp_path)
    finally:
        file.write_bytes(whole)
    assert "NoSource" in done.stderr and home in done.stderr
    printed(packed.start(bytecode, program, tmp_path))


def test_operations_of_a_user(bytecode: Path, tmp_path: Path) -> None:
    folder = tmp_path / "users"
    folder.mkdir()
    (folder / "own_gain_ops.py").write_text(OWN)
    program = f"sys.path.insert(0, {str(folder)!r})\nimport own_gain_ops; own_gain_ops.run()"
    assert printed(packed.start(bytecode, program, tmp_path)) == ["['own_gain_f32']"]
    packed.bytecode_alone(folder)
    done = packed.start(bytecode, program, tmp_path)
    assert done.returncode == 1
    assert "'own_gain' of module 'own_gain_ops' is compiled from its source" in done.stderr
    assert "ship own_gain_ops.py beside the module" in done.stderr


def test_what_is_typed_in_has_no_text() -> None:
    names: dict = {"__name__": "typed"}
    exec("def function(x):\n    return x", names)
    with pytest.raises(NoSource, match="write the function into a file") as caught:
        source.definition(names["function"])
    assert isinstance(caught.value, OvjitError)


def test_states_of_bytecode_and_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for a state must not outlive it."""
    site = tmp_path / "site"
    (site / "lone").mkdir(parents=True)
    (site / "lone" / "__init__.py").write_text("x = 1\n")
    packed.bytecode_alone(site)
    monkeypatch.syspath_prepend(str(site))
    first = source_files.source_files("lone")
    assert first is not None and [name for name, *_ in first] == ["/__init__.pyc"]
    code = compile("x = 12", "f", "exec")
    (site / "lone" / "__init__.pyc").write_bytes(HEAD + marshal.dumps(code))
    assert source_files.source_files("lone") != first
    digest = versions._digest_of("lone")
    (site / "lone" / "__init__.pyc").write_bytes(HEAD + marshal.dumps(compile("x = 13", "f", "exec")))
    assert versions._digest_of("lone") != digest  # there is no text of it

    (tmp_path / "zip" / "within").mkdir(parents=True)
    (tmp_path / "zip" / "within" / "__init__.py").write_text("y = 1\n")
    archive = packed.zipped(tmp_path / "zip", tmp_path / "a.zip")
    monkeypatch.syspath_prepend(str(archive))
    assert source_files.source_files("within") == [
        (str(archive), archive.stat().st_size, archive.stat().st_mtime_ns)
    ]
    assert source_files.read_kept("within", "thing") is None
    source_files.keep("within", "thing", [1, "a"])
    assert source_files.read_kept("within", "thing") == [1, "a"]
    os.utime(archive, ns=(1, 1))
    assert source_files.read_kept("within", "thing") is None


COUNTED = """
compiled = []
def seen(event, given):
    if event == "compile" and isinstance(given[1], str) and ".whl" in given[1]:
        compiled.append(given[1])
sys.addaudithook(seen)
"""


def test_a_wheel_on_the_path_compiles_its_modules_once(site: Path, tmp_path: Path) -> None:
    wheel = packed.zipped(site, tmp_path / "ovjit.whl")
    program = COUNTED + NETWORK + FINISH + "print(len(set(compiled)))"
    file, first = printed(packed.start(wheel, program, tmp_path / "cache"))
    assert file == str(wheel / "ovjit" / "__init__.py") and int(first) > 200
    again = packed.start(wheel, program, tmp_path / "cache")
    assert int(printed(again)[1]) < 24 and again.stderr == ""  # what the cache itself needs
    unkept = packed.start(wheel, "import ovjit", "0")
    assert "every start compiles its modules again" in unkept.stderr and "OVJIT_CACHE" in unkept.stderr
    kernels = (tmp_path / "cache").glob("*.kernel")
    (entry,) = [path for path in kernels if b'bytecode of ovjit.graph.op"' in path.read_bytes()]
    entry.write_bytes(entry.read_bytes()[:-1] + b"?")  # is not believed
    damaged = packed.start(wheel, program, tmp_path / "cache")
    assert int(printed(damaged)[1]) == int(printed(again)[1]) + 1
    os.utime(wheel, ns=(1, 1))  # another one
    assert int(printed(packed.start(wheel, program, tmp_path / "cache"))[1]) > 150


def test_the_hook_is_where_pyinstaller_looks_for_it() -> None:
    from importlib.metadata import entry_points

    (folder,) = get_hook_dirs()
    assert (Path(folder) / "hook-ovjit.py").is_file()
    announced = [e.value for e in entry_points(group="pyinstaller40") if e.value.startswith("ovjit.")]
    assert announced in ([], ["ovjit._pyinstaller:get_hook_dirs"])  # [] where ovjit only lies on the path
    text = (ROOT / "pyproject.toml").read_text()
    assert 'entry-points.pyinstaller40]\nhook-dirs = "ovjit._pyinstaller:get_hook_dirs"' in text


def test_modules_with_kernels_are_told_by_their_decorators() -> None:
    from ovjit.codegen.function import FunctionKernel
    from ovjit.codegen.parts import Inline, Routine
    from ovjit.codegen.template import Template
    from ovjit.graph import op

    for record in op.all_ops():
        record.lowering()
    kinds = (FunctionKernel, Inline, Template, Routine)
    homes = {
        k.function.__module__
        for m in list(sys.modules.values())
        if m.__name__.startswith(("ovjit.", "ovjit_ops."))
        for k in vars(m).values()
        if isinstance(k, kinds)
    }
    assert len(homes) > 40 and homes <= collect_sources().keys()
    assert ovjit.__name__ not in collect_sources()


PROGRAM = """
import subprocess
import sys
import venv
import own_gain_ops
from ovjit.tools import demo

own_gain_ops.run()
sys.exit(demo.main())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A Python with PyInstaller and ovjit, installed as from a wheel, and what this one has besides."""
    folder = tmp_path_factory.mktemp("frozen") / "env"
    venv.create(folder, with_pip=True)
    site = next((folder / "lib").glob("python3.*")) / "site-packages"
    (site / "shared.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
    python = folder / "bin" / "python"
    for what in (("pyinstaller",), ("--no-deps", "--force-reinstall", str(ROOT))):
        done = frozen(python.parent, python, "-m", "pip", "install", "-q", *what)
        assert done.returncode == 0, done.stderr[-3000:]
    return python


def frozen(folder: Path, *command: object, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=1200, cwd=folder,
        env={**clean, **env},
    )  # fmt: skip


@pytest.mark.pypi
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("form", ["--onedir", "--onefile"])
def test_pyinstaller(form: str, environment: Path, tmp_path: Path) -> None:
    """The demo and a user's kernels, without an option; the operation's text is collected by the hook."""
    (tmp_path / "demo.py").write_text(PROGRAM)
    (tmp_path / "own_gain_ops.py").write_text(OWN)
    made = frozen(tmp_path, environment, "-m", "PyInstaller", form, "demo.py")
    assert made.returncode == 0, made.stderr[-3000:]
    program = tmp_path / "dist" / "demo"
    program = program / "demo" if form == "--onedir" else program
    away = tmp_path / "away"
    away.mkdir()
    for _ in range(2):
        done = frozen(away, program, OVJIT_CACHE=str(tmp_path / "cache"), OVJIT_SHIPPED="0")
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.startswith("['own_gain_f32']\n") and "executed layers" in done.stdout
    kept = {path.name for path in (tmp_path / "cache").glob("*.kernel")}
    done = frozen(away, program, OVJIT_CACHE=str(tmp_path / "cache"), OVJIT_SHIPPED="0")
    assert {path.name for path in (tmp_path / "cache").glob("*.kernel")} == kept  # what is kept is found
    if form == "--onedir":
        (program.parent / "_internal" / "own_gain_ops.py").unlink()
        done = frozen(away, program, OVJIT_CACHE="0", OVJIT_SHIPPED="0")
        assert done.returncode == 1 and "module_collection_mode={'own_gain_ops': 'pyz+py'}" in done.stderr
