"""What `bench.accuracy` counts: perplexity, edits, and which drop is one."""

from __future__ import annotations

import numpy as np
import pytest

from bench import accuracy, packaged


def test_perplexity_of_even_chances() -> None:
    logits = np.zeros((2, 3, 7), np.float32)
    assert accuracy.perplexity(logits, np.zeros((2, 3), np.int64)) == pytest.approx(7)


@pytest.mark.parametrize(
    "a, b, edits", [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
)
def test_edits(a: str, b: str, edits: int) -> None:
    assert packaged.distance(a, b) == packaged.distance(b, a) == edits


@pytest.mark.parametrize(
    "measure, ours, theirs, simulated, judged",
    [
        ("% right", 90.0, 90.4, None, ""),
        ("% right", 90.0, 91.0, None, "worse"),
        ("% right", 90.0, 91.0, 90.1, "as simulated"),
        ("% of characters wrong", 3.0, 2.0, 2.1, "worse"),
        ("% of characters wrong", 2.0, 3.0, 1.0, ""),
        ("perplexity", 10.1, 10.0, None, "worse"),
        ("perplexity", 10.01, 10.0, None, ""),
    ],
)
def test_what_is_worse(
    measure: str, ours: float, theirs: float, simulated: float | None, judged: str
) -> None:
    means = {"ovjit": ours, "openvino": theirs} | ({} if simulated is None else {"simulated": simulated})
    assert accuracy.judged(measure, means) == judged


def test_precisions_with_equal_results_share_a_row() -> None:
    results = (("f32", "98", "98", "98"), ("bf16", "98", "98", ""), ("int8", "97", "98", "97"))
    rows = [
        {"model": "mlp", "precision": precision, "ovjit": ours, "openvino": theirs, "onnxruntime": further}
        for precision, ours, theirs, further in results
    ]
    merged = accuracy.merge_equal_rows(rows)
    assert [(row["precision"], row["onnxruntime"]) for row in merged] == [("f32, bf16", "98"), ("int8", "97")]
    assert rows[0]["precision"] == "f32"


@pytest.mark.long
def test_a_network_is_trained_and_measured(tmp_path) -> None:
    for name in ("torch", "sklearn", "nncf"):
        pytest.importorskip(name)
    rows = accuracy.classifier("lstm", 0, tmp_path)
    assert [row["precision"] for row in rows] == ["f32", "bf16", "f16", "int8", "w8", "w4"]
    assert all(row["ovjit"] > 85 for row in rows), rows
