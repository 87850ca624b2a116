"""Python's collector runs less often while models are read and compiled, and as before afterwards."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ovjit
from ovjit import collector
from tests.support import ROOT
from tests.support.run import printed

o = ovjit.opset13
OWN = (701, 11, 12)


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*OWN)
    yield
    gc.set_threshold(*before)


def test_thresholds_are_higher_meanwhile() -> None:
    with collector.seldom():
        assert gc.get_threshold() == collector.SELDOM
        with collector.seldom():
            assert gc.get_threshold() == collector.SELDOM
        assert gc.get_threshold() == collector.SELDOM
    assert gc.get_threshold() == OWN


def test_the_last_compilation_restores_them() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with collector.seldom():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with pytest.raises(ValueError, match="compiling"), collector.seldom():
        thread.start()
        inside.wait()
        raise ValueError("compiling")
    assert gc.get_threshold() == collector.SELDOM
    leave.set()
    thread.join()
    assert gc.get_threshold() == OWN


@pytest.mark.parametrize("chosen", [(0, 10, 10), (400_000, 5, 5)])
def test_what_the_program_chose_stays(chosen: tuple[int, int, int]) -> None:
    gc.set_threshold(*chosen)
    with collector.seldom():
        assert gc.get_threshold() == chosen
    gc.set_threshold(*OWN)
    with collector.seldom():
        gc.set_threshold(*chosen)
    assert gc.get_threshold() == chosen


@pytest.mark.parametrize("imports", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_what_imports_made_is_old(
    imports: bool, frozen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "collected_late.py").write_text("made = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    gc.unfreeze()  # what all tests have frozen
    try:
        if frozen:
            gc.freeze()
        before = gc.get_freeze_count()
        with collector.seldom():
            made: list[int] = []
            if imports:
                importlib.import_module("collected_late")
        oldest = any(item is made for item in gc.get_objects(generation=2))
        assert oldest == (imports and not frozen)
        assert bool(gc.get_freeze_count()) == frozen and gc.get_freeze_count() <= before
    finally:
        gc.freeze()
        sys.modules.pop("collected_late", None)


#: A program that has imported the API -> whether the objects of imports have left the collector.
PROGRAMS = {
    "import ovjit as ov, json\nTEXT = '1'\nov.Core": True,
    "from __future__ import annotations\nfrom ovjit import Core, Type\nfrom json import dumps": True,
    "import ovjit as ov\ndef read(): pass\nov.Core": False,
    "import ovjit as ov\nclass Log: file = open('log', 'w')\nLog.file.write('kept')\nov.Core": False,
    "import ovjit as ov\npairs = []\npairs.append(pairs)\nov.Core": False,
    "import log": False,
    "import threading as t, ovjit\nt.Thread(target=t.Event().wait, daemon=True).start()\novjit.Core": False,
    "from unittest.util import safe_repr\nfrom lazy import Lazy\nsafe_repr(Lazy())": False,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_imports_leave_the_collector_before_a_program_has_objects(program: str, tmp_path: Path) -> None:
    (tmp_path / "log.py").write_text("import ovjit\n\novjit.Core\n")
    packages = tmp_path / "site-packages"
    packages.mkdir()
    (packages / "lazy.py").write_text(
        "class Lazy:\n    def __repr__(self):\n        from ovjit import Core\n        return str(Core)\n"
    )
    file = tmp_path / "program.py"
    file.write_text(f"{program}\nimport gc\nprint(gc.get_freeze_count() > 0)\n")
    path = os.pathsep.join(map(str, (ROOT, packages)))
    assert printed(file, folder=tmp_path, PYTHONPATH=path).split() == [str(PROGRAMS[program])]
    if "open(" in program:
        assert (tmp_path / "log").read_text() == "kept"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_the_thresholds_of_before() -> None:
    with collector.seldom():
        child = os.fork()
        if not child:
            os._exit(gc.get_threshold() != OWN)
    assert os.waitpid(child, 0)[1] == 0


def test_compiling_and_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int]] = []
    from ovjit import engine

    real = engine.build

    def build(*given: object) -> object:
        seen.append(gc.get_threshold())
        return real(*given)

    monkeypatch.setattr(engine, "build", build)
    x = o.parameter([4], np.float32)
    made = ovjit.compile_model(ovjit.Model([o.relu(x)], [x], "one"), "CPU")
    assert seen == [collector.SELDOM] and gc.get_threshold() == OWN
    assert made(np.float32([-1, 0, 2, -3]))[0].tolist() == [0, 0, 2, 0]

    from ovjit.readers import registry

    monkeypatch.setattr(registry, "read_model", lambda *_: seen.append(gc.get_threshold()))
    ovjit.Core().read_model("a.xml")
    assert seen[1:] == [collector.SELDOM] and gc.get_threshold() == OWN
