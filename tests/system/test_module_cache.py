"""The file with the bytecode of many modules: the next process uses it while the sources are the same."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
from pathlib import Path

import numpy as np
import pytest

from ovjit import module_cache, source_files
from tests.support.run import printed

PROGRAM = """
import inspect, json, sys
import ovjit
from ovjit.module_cache import CachedLoader
shape = str(ovjit.PartialShape([1, -1]))
cached = [m for m in list(sys.modules.values()) if isinstance(getattr(m, "__loader__", None), CachedLoader)]
for module in cached:
    assert module.__spec__.origin == module.__file__, module
    assert module.__cached__.endswith(".pyc") and "class" in inspect.getsource(ovjit.PartialShape)
print(json.dumps([shape, sorted(m.__name__ for m in cached)]))
"""


def run(tmp_path: Path, **more: str) -> list[str]:
    """The modules that a process has imported from the file."""
    bytecode = {"PYTHONDONTWRITEBYTECODE": None, "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    shape, cached = json.loads(printed("-c", PROGRAM, folder=tmp_path, **(bytecode | more)))
    assert shape == "[1,?]"
    return cached


def test_the_next_process_imports_from_one_file(tmp_path: Path) -> None:
    assert run(tmp_path, PYTHONDONTWRITEBYTECODE="1") == run(tmp_path) == []
    (file,) = (tmp_path / "bytecode").rglob("modules.*.pyc")
    written = file.stat().st_mtime_ns
    cached = run(tmp_path)
    assert "ovjit.api.tensors.shapes" in cached
    assert file.stat().st_mtime_ns == written  # nothing was missing
    file.write_bytes(file.read_bytes()[:-1])
    assert run(tmp_path) == []
    assert run(tmp_path) == cached


TWO_NAMES = """
import importlib, sys
import ovjit
from ovjit import module_cache, source_files
ovjit.PartialShape  # from here on, modules are looked for in the file first
for name in ("properties", "opset11", "utils.types"):
    one, other = (importlib.import_module(f"ovjit.{room}{name}") for room in ("", "compat."))
    assert one is other is sys.modules[f"ovjit.{name}"] and one.__spec__.name == f"ovjit.compat.{name}", name
print(sum(isinstance(finder, module_cache._Finder) for finder in sys.meta_path))
"""


def test_a_module_with_two_names_is_one_in_the_next_process_too(tmp_path: Path) -> None:
    env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    found = [int(printed("-c", TWO_NAMES, folder=tmp_path, **env)) for _ in range(3)]
    assert found[0] == 0 and found[-1] == 1, "the file has been read"


OF_OTHERS = """
import gc, sys
import ovjit.{package}
ovjit.{package}.{name}
from ovjit.module_cache import CachedLoader
module = sys.modules["ovjit.{package}.{module}"]
print(type(module.__spec__.loader) is CachedLoader, gc.get_freeze_count() > 5_000)
"""


@pytest.mark.parametrize("name", ["genai.llm.LLMPipeline", "onnxruntime.session.InferenceSession"])
def test_other_packages_come_from_the_file_and_leave_the_collector(tmp_path: Path, name: str) -> None:
    code = OF_OTHERS.format(**dict(zip(("package", "module", "name"), name.split("."), strict=True)))
    env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    found = [printed("-c", code, folder=tmp_path, **env).strip() for _ in range(3)]
    assert found == ["False True", *["True True"] * 2]


def test_a_file_of_other_sources_or_a_damaged_one_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, made_of = tmp_path / "modules.pyc", ["state", "here"]
    monkeypatch.setattr(module_cache, "_made_of", lambda: made_of)
    part = ("ovjit.one", str(tmp_path / "one.py"), False), b"code"
    content = module_cache._packed(made_of, dict([part]))
    place.write_bytes(content)
    finder = module_cache._read(str(place))
    assert finder is not None and list(finder.entries) == ["ovjit.one"]
    assert finder.find_spec("ovjit.two") is None
    spec = finder.find_spec("ovjit.one")
    assert spec is not None and spec.loader.code == b"code" and spec.loader.path == spec.origin == part[0][1]
    for others in (["state", "there"], None):
        monkeypatch.setattr(module_cache, "_made_of", lambda others=others: others)
        assert module_cache._read(str(place)) is None
    monkeypatch.setattr(module_cache, "_made_of", lambda: made_of)
    assert module_cache._read(str(tmp_path / "none")) is None
    for end in range(len(content)):
        place.write_bytes(content[:end])
        assert module_cache._read(str(place)) is None, end


@pytest.mark.parametrize("change", ["longer", "newer", "elsewhere"])
def test_bytecode_of_other_sources_is_left_out(change: str, tmp_path: Path) -> None:
    source, cached = tmp_path / "one.py", tmp_path / "one.pyc"
    source.write_text("x = 1\n")
    py_compile.compile(str(source), str(cached))
    assert module_cache._bytecode(str(source), str(cached)) == cached.read_bytes()[16:]
    if change == "longer":
        times = source.stat()
        source.write_text("x = 12\n")
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "newer":
        os.utime(source, (0, 0))
    else:
        source = Path(shutil.copytree(tmp_path, tmp_path / "other")) / "one.py"
    assert module_cache._bytecode(str(source), str(cached)) is None


NAMES = """
import importlib.util
from ovjit import module_cache, source_files
places = {"a": ("/x/a/__init__.py", True, 0, 0), "a.b": ("/x/a/b.py", False, 0, 0)}
finder = module_cache._Finder(memoryview(b""), places)
for name, (file, *_) in places.items():
    assert finder.find_spec(name).cached == importlib.util.cache_from_source(file), name
"""


@pytest.mark.parametrize("options", [(), ("-O",)])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_bytecode_has_the_name_that_importlib_gives(
    tmp_path: Path, options: tuple[str, ...], elsewhere: bool
) -> None:
    prefix = str(tmp_path) if elsewhere else None
    printed(*options, "-c", NAMES, PYTHONDONTWRITEBYTECODE="1", PYTHONPYCACHEPREFIX=prefix)


UNDER_UMASK_0 = "import os; os.umask(0); exec(os.environ['PROGRAM'])"


def _bytecode_of(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "bytecode").rglob("modules.*.pyc")
    return file


def _run_under_umask_0(tmp_path: Path) -> list[str]:
    env = {"PYTHONDONTWRITEBYTECODE": None, "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    return json.loads(printed("-c", UNDER_UMASK_0, folder=tmp_path, PROGRAM=PROGRAM, **env))[1]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_only_those_who_may_write_the_sources_may_write_the_bytecode(tmp_path: Path) -> None:
    assert _run_under_umask_0(tmp_path) == []
    file = _bytecode_of(tmp_path)
    source = Path(module_cache.__file__)
    (by_python,) = file.parent.glob("module_cache.*.pyc")
    assert file.stat().st_mode == by_python.stat().st_mode, "as Python's own bytecode"
    assert not file.stat().st_mode & 0o022 & ~source.stat().st_mode
    content = file.read_bytes()
    assert _run_under_umask_0(tmp_path) != []
    for mode in (0o666, 0o664, 0o646):
        if mode & 0o022 & ~(source.stat().st_mode | source.parent.stat().st_mode):
            file.chmod(mode)
            assert _run_under_umask_0(tmp_path) == [], "another user may have written it"
            assert file.read_bytes() == content or file.stat().st_mode & 0o777 != mode
            assert not file.stat().st_mode & 0o022 & ~source.stat().st_mode, "it is written anew"
    if os.geteuid() == 0:
        os.chown(file, 54321, 54321)
        assert _run_under_umask_0(tmp_path) == []
        assert file.stat().st_uid == 0


def test_any_damage_is_a_miss_and_is_repaired(tmp_path: Path) -> None:
    run(tmp_path)
    cached = run(tmp_path)
    file = _bytecode_of(tmp_path)
    content = file.read_bytes()
    size, rng = len(content), np.random.default_rng(69)
    index = 8 + int.from_bytes(content[:8], "little")
    zeroed = bytearray(content)
    zeroed[index + 1000 : size - 1000] = bytes(size - index - 2000)
    random = bytearray(content)
    random[index:] = rng.bytes(size - index)
    for name, damaged in {
        "the code is zeros": zeroed, "the code is random": random, "random": rng.bytes(size),
        "a bit of the index": _flipped(content, index // 2), "the length": _flipped(content, 1),
        "a bit of a module": _flipped(content, index + 20000),
    }.items():  # fmt: skip
        file.write_bytes(damaged)
        assert set(run(tmp_path)) <= set(cached), name  # whole modules only
        assert run(tmp_path) == cached, f"{name}: it has been written again"


def _flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 16
    return bytes(changed)


def test_an_end_with_nothing_to_write_checks_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksums of all modules take a twentieth of a second start."""
    entries = dict.fromkeys(module_cache.sys.modules, ("", False, 0, 0))
    finder = module_cache._Finder(memoryview(bytes(4)), entries)
    checked, written = [], []
    monkeypatch.setattr(finder, "is_whole", checked.append)
    monkeypatch.setattr(source_files, "write", lambda path, content: written.append(path))
    module_cache._write_if_many("modules.pyc", finder)
    assert checked == written == []
    finder.is_damaged = True
    module_cache._write_if_many("modules.pyc", finder)
    assert sorted(checked) == sorted(entries) and written == ["modules.pyc"]


def test_drafts_of_two_processes_have_different_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers that share the folder may have the same process number."""
    place, drafts = tmp_path / "bytecode" / "one.pyc", set()

    def replace(draft: str, to: str) -> None:
        drafts.add(draft)
        os.rename(draft, to)

    monkeypatch.setattr(source_files.os, "replace", replace)
    assert source_files.write(str(place), b"1") and source_files.write(str(place), b"2")
    assert len(drafts) == 2 and os.listdir(place.parent) == ["one.pyc"] and place.read_bytes() == b"2"


def test_the_state_of_a_package_is_that_of_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not depend on how objects of equal values are shared. All modules count, bytecode does not."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "counted" / "inner" / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/one.py"):
        (tmp_path / "counted" / name).write_text("x = 1\n")
    state = source_files.package_state.__wrapped__
    states = [state("counted")]
    (tmp_path / "counted/inner/__pycache__/one.pyc").write_bytes(b"")
    assert state("counted") == states[0]
    monkeypatch.setattr(source_files, "_in_folder", lambda top, f=source_files._in_folder: eval(repr(f(top))))
    assert state("counted") == states[0]
    (tmp_path / "counted/inner/one.py").write_text("x = 12\n")
    states.append(state("counted"))
    os.utime(tmp_path / "counted/__init__.py", (0, 0))
    states.append(state("counted"))
    (tmp_path / "counted/two.py").write_text("")
    states.append(state("counted"))
    assert len(set(states)) == 4 and None not in states


def test_damage_of_what_is_kept_of_a_package_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "kept.pyc"
    monkeypatch.setattr(source_files, "place_beside", lambda package, name: str(place))
    monkeypatch.setattr(source_files.sys, "dont_write_bytecode", False)
    value = {"name": ["one", 2, 3.5], "other": None}
    source_files.keep("ovjit.graph", "of this test", value)
    assert source_files.read_kept("ovjit.graph", "of this test") == value
    content = place.read_bytes()
    for at in range(len(content)):
        place.write_bytes(_flipped(content, at))
        assert source_files.read_kept("ovjit.graph", "of this test") is None, at
    place.write_bytes(content)
    with monkeypatch.context() as other:  # a file of any room has changed
        other.setattr(source_files, "package_state", lambda *packages: "another state")
        assert source_files.read_kept("ovjit.graph", "of this test") is None
    assert source_files.read_kept("ovjit.graph", "of this test") == value
    place.chmod(0o666)
    if not os.stat(source_files.__file__).st_mode & 0o022:
        assert source_files.read_kept("ovjit.graph", "of this test") is None
