"""The file with the bytecode of many modules: the next process uses it while the sources are the same."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
from pathlib import Path

import pytest

from ovjit import module_cache
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
from ovjit import module_cache
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


def test_a_file_of_other_sources_or_a_damaged_one_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, made_of = tmp_path / "modules.pyc", ["state", "here"]
    monkeypatch.setattr(module_cache, "_made_of", lambda: made_of)
    part = ("ovjit.one", str(tmp_path / "one.py"), False), b"code"
    content = module_cache._packed(made_of, dict([part]))
    place.write_bytes(content)
    finder = module_cache._read(str(place))
    assert finder is not None and list(finder.places) == ["ovjit.one"]
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
from ovjit import module_cache
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
