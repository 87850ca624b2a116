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


@pytest.mark.parametrize("chosen", [(0, 10, 10), (100_000, 5, 5)])
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
