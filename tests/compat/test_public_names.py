"""Programs find OpenVINO's modules by its names; each is there once, and imports of all kinds lead to it."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import runpy
import sys
import types

import pytest

import ovjit
from ovjit import alias, compat
from tests.support import ROOT
from tests.support.run import printed

#: Modules that import PyTorch, which need not be there.
OF_TORCH = {"ovjit.compat.torch"} | {
    f"ovjit.compat.frontend.pytorch.torchdynamo.{name}" for name in ("backend", "op_support")
}
LEFT_OUT = OF_TORCH if importlib.util.find_spec("torch") is None else set()
NAMES = {name: module for name, module in compat.NAMES.items() if module not in LEFT_OUT}

_ELSEWHERE = [name for name in compat.NAMES.values() if ".compat." not in name]
_FOUND = [m.name for m in pkgutil.walk_packages(compat.__path__, "ovjit.compat.")]
MODULES = sorted({*_ELSEWHERE, *_FOUND} - LEFT_OUT)


def public(name: str) -> str:
    target = next(t for t in sorted(compat.NAMES.values(), key=len)[::-1] if f"{name}.".startswith(f"{t}."))
    return next(n for n, t in compat.NAMES.items() if t == target) + name[len(target) :]


@pytest.mark.parametrize("name", [n for n in MODULES if not n.endswith("__main__")])
def test_both_names_are_one_module(name: str) -> None:
    module = importlib.import_module(public(name))
    assert module is importlib.import_module(name) is sys.modules[public(name)]
    assert module.__name__ == module.__spec__.name == name
    assert importlib.import_module(public(name).replace("ovjit", "ovjit.runtime", 1)) is module


def test_every_module_of_the_folder_has_a_name() -> None:
    found = {m.name for m in pkgutil.iter_modules(compat.__path__, "ovjit.compat.")}
    assert found == {name for name in compat.NAMES.values() if ".compat." in name}
    for name in NAMES:
        importlib.import_module(name)
        assert getattr(ovjit, name.split(".")[1]) is sys.modules[".".join(name.split(".")[:2])]


def test_a_name_that_is_not_there() -> None:
    for name in ("ovjit.opset18", "ovjit.preprocess.nothing", "ovjit.compat.nothing"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)


def test_aliases_are_installed_once() -> None:
    before = list(sys.meta_path)
    alias.install_names(compat.NAMES)
    alias.install("ovjit.runtime", "ovjit")
    assert sys.meta_path == before


PROGRAM = """
import importlib, sys, threading
import ovjit
known = {n: m for n, m in ovjit.compat.NAMES.items() if m not in LEFT_OUT}
names = [n for pair in known.items() for n in pair]
wrong, go = [], threading.Barrier(8)
def work(i):
    go.wait()
    for name in names[i:] + names[:i]:
        try:
            importlib.import_module(name)
        except Exception as error:
            wrong.append(f"{name}: {error!r}")
threads = [threading.Thread(target=work, args=(i * 7,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
same = all(sys.modules[a] is sys.modules[b] for a, b in known.items())
print(wrong, same)
"""


def test_threads_import_by_both_names_at_once() -> None:
    assert printed("-c", f"LEFT_OUT = {LEFT_OUT!r}\n" + PROGRAM) == "[] True\n"


def test_old_pickles_are_read() -> None:
    """They name modules as programs do."""
    import pickle

    from ovjit.exceptions import UserInputError
    from ovjit.preprocess import PrePostProcessor

    for kind in (PrePostProcessor, UserInputError):
        assert pickle.loads(pickle.dumps(kind)) is kind
    old = b"covjit.preprocess.processor\nPrePostProcessor\n."
    assert pickle.loads(old) is PrePostProcessor
    assert str(UserInputError) == "<class 'ovjit.exceptions.UserInputError'>"


def test_type_checkers_find_every_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stubs that wheels have: one for each module, of which `import *` and `__getattr__` are true."""
    parts = "hatchling.builders.hooks.plugin.interface".split(".")
    for i in range(len(parts)):  # which is there when a wheel is built
        path = ".".join(parts[: i + 1])
        monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    monkeypatch.setattr(sys.modules[path], "BuildHookInterface", object, raising=False)
    made = runpy.run_path(str(ROOT / ".ci" / "stubs.py"))["stubs"](ROOT)
    assert made.pop("py.typed") == "partial\n"
    said = {line.rsplit(" ", 1)[1] for line in made.pop("__init__.pyi").splitlines()}
    assert said >= {name for name in dir(ovjit) if name[0] != "_"}, "type checkers take these for Any"
    found = {public(name).replace(".", "/").removeprefix("ovjit/") for name in {*MODULES, *LEFT_OUT}}
    lazy = {"genai", "onnxruntime"}  # packages whose names are imported when they are first used
    assert {path.removesuffix(".pyi").removesuffix("/__init__") for path in made} == found | lazy
    for name in lazy:
        text = made.pop(f"{name}/__init__.pyi")
        named = {line.split("(")[0].split(":")[0].rsplit(" ", 1)[-1] for line in text.splitlines()}
        assert named >= set(importlib.import_module(f"ovjit.{name}").__all__), name
    for opset in range(1, 18):  # whose stubs have a type for builders
        module, text = importlib.import_module(f"ovjit.opset{opset}"), made.pop(f"opset{opset}.pyi")
        assert text.endswith("def __getattr__(name: str) -> Callable[..., _Node]: ...\n")
        for name in ("constant", "parameter", "result", "tensor_iterator", "loop", "if_op"):
            written = any(
                line.startswith(f"{name} = ") or line.endswith(f" as {name}") for line in text.split("\n")
            )
            assert written == hasattr(module, name), (opset, name)
    for text in made.values():
        if "__main__" not in text and text.split()[1] not in LEFT_OUT:
            module = importlib.import_module(text.split()[1])
            assert hasattr(module, "__getattr__") == ("__getattr__" in text), text
