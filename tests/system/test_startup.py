"""From a process's start to its first result with a blob, measured beside the real OpenVINO."""

from __future__ import annotations

import pytest

from bench.run import Subject
from bench.startup import ENGINES, KEYS, TIMES, measure
from tests.support import networks  # noqa: F401, puts the folder of `bench` on the path
from tests.support.sweeps import some


@pytest.mark.parametrize("open_shapes", some([False, True], 1))
def test_rows(open_shapes: bool, tmp_path) -> None:
    rows = measure(Subject("digits", tmp_path, None), 1, 1, tmp_path, open_shapes)
    assert [tuple(row[key] for key in KEYS) for row in rows] == [("digits", engine) for engine in ENGINES]
    for row in rows:
        package, imported, inferred, start = (row[name] for name in TIMES)
        assert 0 < max(package, imported, inferred) and package + imported + inferred < start
    assert rows[0]["from_blob"] == "True" and rows[1]["ratio"] == 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_resnet_starts_faster_than_openvino(tmp_path) -> None:
    """Both with a blob of their own: to the first result faster, and `import_model` itself no slower."""
    mine, other, mapped = measure(Subject("resnet50", tmp_path, None), 2, 7, tmp_path, False)
    assert mine["from_blob"] == "True"
    assert mine["ratio"] < 1 and mine["import_ratio"] <= 1
    assert mine["start_ms"] < mapped["start_ms"] and mine["import_ms"] <= mapped["import_ms"], (
        mine,
        mapped,
        other,
    )
