"""`bench.loadgen` runs MLPerf's scenarios; its accuracy is read from LoadGen's own log."""

from __future__ import annotations

import pytest

from bench import loadgen


def test_every_scenario() -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs ovjit[bench]")
    work = loadgen.task("digits", None)
    rows = loadgen.compare("digits", work, ["ovjit", "openvino"], loadgen.SCENARIOS, 0.1, 50.0, 1)
    assert [(row["scenario"], row["engine"]) for row in rows] == [
        (scenario, engine) for scenario in loadgen.SCENARIOS for engine in ("ovjit", "openvino")
    ]
    for row in rows:
        assert row["value"] > 0, row
        assert row["accuracy"] == pytest.approx(359 / 360), row


def test_the_search_finds_the_largest_rate() -> None:
    assert loadgen.largest_rate(lambda rate: rate <= 30, 64) == 30
    assert loadgen.largest_rate(lambda rate: False, 64) == 0


def test_a_wrong_answer_costs_accuracy() -> None:
    subject = object.__new__(loadgen.Subject)
    subject.work = loadgen.Task("", [{}, {}], [3, 4])
    log = [{"qsl_idx": 0, "data": "03000000"}, {"qsl_idx": 1, "data": "05000000"}]
    assert subject.right(log) == 0.5
    with pytest.raises(RuntimeError, match="lacks samples"):
        subject.right(log[:1])
