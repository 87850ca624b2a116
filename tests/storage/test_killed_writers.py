"""Readers beside writers that are killed or replace files: whole models of one save, or errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit.disk import folders
from ovjit.readers.ir import reader
from tests.support.run import printed

op = ovjit.opset13
#: `number_of` checks that the xml, which has the limit of a Clamp, and the weights are of one save.
PROGRAM = """
import os, random, signal, sys, time
import numpy as np
import ovjit
from ovjit import opset13 as op
from ovjit.disk.folders import replacing

folder, rounds, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
path, blob = folder + "/m.xml", folder + "/m.blob"
rng = random.Random(seed)


def make_model(v):
    x = op.parameter([4], np.float32, name="x")
    largest = op.reduce_max(op.constant(np.full(1000 + v % 5 * 300, v, np.float32)), op.constant([0]))
    return ovjit.Model([op.result(op.clamp(x, 0.0, float(v))), op.result(op.add(largest, x))], [x], f"m{v}")


def compiled(model):
    return ovjit.Core().compile_model(model, "CPU", {"CACHE_DIR": folder + "/models"})


def number_of(compiled):
    first, second = (np.array(r) for r in compiled(np.full(4, 1e6, np.float32)).values())
    assert (first == first[0]).all() and (second == first + 1e6).all(), (first, second)
    return first[0]


def write(v):
    while True:
        v = v + 2 if v < 60 else v - 59
        ovjit.save_model(make_model(v), path, compress_to_fp16=False)
        with replacing(blob) as file:
            file.write(compiled(path).export_model().getvalue())


ovjit.save_model(make_model(1), path, compress_to_fp16=False)
found, errors = set(), []
for turn in range(rounds):
    children = [pid for first in (1, 2) if (pid := os.fork() or write(first))]
    until = time.monotonic() + rng.uniform(0.2, 0.8)
    while True:
        over = time.monotonic() > until
        if over:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            for pid in children:
                os.waitpid(pid, 0)
        try:
            found.add(number_of(compiled(path)))
            if os.path.exists(blob):
                number_of(ovjit.Core().import_model(open(blob, "rb").read(), "CPU"))
        except RuntimeError as error:
            assert "m.xml" in str(error), error
            errors.append(str(error))
        if over:
            break
print(len(found) > 1, len(errors) <= rounds, *errors[:3])
"""


@pytest.mark.parametrize("rounds", [8, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_killed_writers_of_models_exports_and_caches(tmp_path: Path, rounds: int) -> None:
    text = printed("-c", PROGRAM, tmp_path, rounds, 20261129, OVJIT_CACHE=str(tmp_path / "cache"))
    assert text.split()[:2] == ["True", "True"], text


def _save(path: Path, number: float) -> None:
    x = op.parameter([4], np.float32, name="x")
    weights = op.constant(np.full(100, number, np.float32))
    model = ovjit.Model([op.result(op.clamp(x, 0.0, number)), op.result(weights)], [x])
    ovjit.serialize(model, path)


def _number_of(model: Any) -> float:
    """The number of a model whose xml and weights agree."""
    (clamp,) = (node for node in model.get_ops() if node.get_type_name() == "Clamp")
    (weights,) = (node for node in model.get_ops() if node.get_type_name() == "Constant")
    assert (weights.data == clamp.get_attributes()["max"]).all()
    return float(weights.data[0])


def test_reading_at_each_rename_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "m.xml", []
    _save(path, 1.0)
    replace = os.replace

    def read_and_replace(source: Any, target: Any) -> None:
        for step in (lambda: None, lambda: replace(source, target)):
            step()
            try:
                seen.append(_number_of(reader.read_ir(path)))
            except RuntimeError as error:
                assert "Could not open the file" in str(error)
                seen.append(None)

    monkeypatch.setattr(folders.os, "replace", read_and_replace)
    _save(path, 2.0)
    assert seen == [1, None, None, None, None, 2]
    assert sorted(os.listdir(tmp_path)) == ["m.bin", "m.xml"]


def test_a_save_between_the_files_of_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, numbers, load = tmp_path / "m.xml", [2.0, 3.0], reader.load_weights
    _save(path, 1.0)

    def load_later(*args: Any) -> Any:
        if numbers:
            _save(path, numbers.pop(0))
        return load(*args)

    monkeypatch.setattr(reader, "load_weights", load_later)
    assert _number_of(reader.read_ir(path)) == 3
    monkeypatch.setattr(reader, "load_weights", lambda *args: _save(path, 4.0) or load(*args))
    with pytest.raises(RuntimeError, match=r"m\.xml: other programs replace the model's files all the time"):
        reader.read_ir(path)


@pytest.mark.parametrize("count", range(4))
def test_an_exception_at_each_rename_of_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """An interrupted save is finished, and one that is refused leaves the old files."""
    for error, number in ((KeyboardInterrupt, 2.0), (PermissionError, 1.0)):
        folder = tmp_path / error.__name__
        folder.mkdir()
        _save(folder / "m.xml", 1.0)
        left, replace = [count], os.replace

        def fail_or_replace(
            *paths: Any, left: Any = left, error: Any = error, replace: Any = replace
        ) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise error("refused")
            replace(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(folders.os, "replace", fail_or_replace)
            if count < 3:
                with pytest.raises((error, RuntimeError)):
                    _save(folder / "m.xml", 2.0)
            else:
                _save(folder / "m.xml", 2.0)
        if error is PermissionError and count == 2:
            continue  # the weights are the new ones: the xml is away
        assert _number_of(reader.read_ir(folder / "m.xml")) == (2.0 if count == 3 else number)
        assert sorted(os.listdir(folder)) == ["m.bin", "m.xml"]
