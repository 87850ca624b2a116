"""Blobs, models in CACHE_DIR and kept models of x86-64 on AArch64, and the reverse: code is refused, and
the model compiled from its graph. Here one of the two is a name; `tests/system/test_aarch64.py` has both."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset8 as op
from ovjit.readers.ir.writer import to_bytes
from ovjit.storage import blob, kept_models, late_writes, origins
from ovjit.storage.graph_format import parse

#: An instruction set of x86-64 that this machine does not compile for, and a CPU that has it.
OTHER_X86 = ("avx512", "skylake-avx512") if blob.machine()["isa"] == "avx2" else ("avx2", "haswell")
#: What a file says of the machine that it is for, where that is the other one.
OTHERS = {
    "aarch64": {"isa": "neon", "cpu": "", "features": "+lse,+dotprod", "platform": "Linux-aarch64"},
    "x86_64": {"isa": OTHER_X86[0], "cpu": OTHER_X86[1], "features": "", "platform": "Linux-x86_64"},
    "one instruction set": {"platform": "Linux-riscv64"},
}
X = np.random.default_rng(5).standard_normal((1, 64)).astype(np.float32)


class Machine:
    """What this process says that it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str):
        self.monkeypatch, self.mine = monkeypatch, blob.machine
        self.other = {**blob.machine(), **OTHERS[name]}
        self.loaded: list[str] = []  # whose code
        load = blob._load

        def noted(container, *given):
            header = parse(container.sections["header"], "header")
            self.loaded.append(header["machine"]["platform"])
            return load(container, *given)

        monkeypatch.setattr(blob, "_load", noted)

    def be(self, other: bool) -> None:
        self.monkeypatch.setattr(blob, "machine", (lambda config=None: self.other) if other else self.mine)


@pytest.fixture(params=OTHERS)
def machine(request, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield Machine(monkeypatch, request.param)


def model() -> ov.Model:
    w = np.random.default_rng(4).standard_normal((64, 33)).astype(np.float32)
    x = op.parameter([1, 64], np.float32, name="x")
    return ov.Model([op.relu(op.matmul(x, op.constant(w), False, False))], [x], "m")


@pytest.mark.parametrize("there", [False, True], ids=["of the other", "on the other"])
def test_blobs(there: bool, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.be(not there)
    compiled = ov.Core().compile_model(model(), "CPU")
    want, data = compiled(X)[0], compiled.export_model().getvalue()
    machine.be(there)
    with caplog.at_level(logging.WARNING, "ovjit"):
        found = ov.Core().import_model(data, "CPU")
    assert "the blob's object code is not used, its model is compiled again" in caplog.text
    assert not machine.loaded and not found.get_property("LOADED_FROM_CACHE")
    np.testing.assert_array_equal(found(X)[0], want)
    machine.be(not there)
    assert ov.Core().import_model(data, "CPU").get_property("LOADED_FROM_CACHE") and machine.loaded


def check_starts(machine: Machine, start: Callable[[], ov.CompiledModel]) -> None:
    """Starts here, two on the other machine, and two here again: each loads its own code, or compiles."""
    answers = []
    for other in (False, True, True, False, False):
        machine.be(other)
        machine.loaded.clear()
        answers.append(start()(X)[0])
        assert set(machine.loaded) <= {blob.machine()["platform"]}, "code of another machine"
        np.testing.assert_array_equal(answers[-1], answers[0])
    assert machine.loaded, "the last start finds what is its own"


def test_models_in_a_folder_of_the_user(machine: Machine, tmp_path: pathlib.Path) -> None:
    core, same = ov.Core(), model()
    core.set_property({"CACHE_DIR": str(tmp_path / "models")})
    check_starts(machine, lambda: core.compile_model(same, "CPU"))


def test_kept_models(machine: Machine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ovjit.disk import kernel_cache

    monkeypatch.setattr(kernel_cache, "_default", kernel_cache.KernelCache(tmp_path / "cache"))
    monkeypatch.setattr(origins, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(late_writes, "write_later", lambda executable, write: write(executable))
    for name in kept_models._WATCHING:
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "m.xml"
    xml, weights = to_bytes(model())
    path.write_bytes(xml)
    path.with_suffix(".bin").write_bytes(weights)
    check_starts(machine, lambda: ov.Core().compile_model(path, "CPU"))
    assert list((tmp_path / "cache" / "models").glob("*.blob"))
