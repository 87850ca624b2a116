"""`bench.history` and `bench.memory`: which figures are worse, what a line has, and a small run of each."""

from __future__ import annotations

import json

import pytest

from bench import containers, history, memory, report
from tests.support.run import printed


@pytest.mark.parametrize(
    "ratios, worse",
    [
        ([1.0] * 5, ""),
        ([1.02] * 5, ""),
        ([1.05] * 5, "worse"),
        ([0.9] * 5, ""),
        ([0.99, 0.99, 1.05, 1.06, 1.07], ""),
    ],
)
def test_what_is_worse(ratios: list[float], worse: str) -> None:
    rows = history.judged([{"net_us": 100.0}] * 5, [{"net_us": 100.0 * r} for r in ratios], 3.0)
    assert [(row["figure"], row["worse"]) for row in rows] == [("net_us", worse)]


def test_the_probe_measures_this_version(tmp_path) -> None:
    history.write_networks(tmp_path)
    found = history.figures(report.ROOT, tmp_path, 0.02)
    assert set(found) == set(history.FIGURES) and all(value > 0 for value in found.values()), found


def test_lines_are_replaced_and_in_order(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(history, "FILE", tmp_path / "history.jsonl")
    dates = {"b": "2026-02-01T", "a": "2026-01-01T"}
    about = {"cpu": "x", "python": "3"}
    monkeypatch.setattr(
        history, "measured", lambda c, runs, _: {**about, "commit": c, "date": dates[c], "net_us": runs}
    )
    history.add(["b", "a"], 1, 0)
    history.add(["b"], 7, 0)
    lines = [json.loads(text) for text in history.FILE.read_text().splitlines()]
    assert [(line["commit"], line["net_us"]) for line in lines] == [("a", 1), ("b", 7)]
    assert history.table(lines).count("\n") == 5
    other = history.table([*lines, {**lines[0], "cpu": "y"}])
    assert other.count("**x**") == other.count("**y**") == 1 and other.count("| a |") == 2


def test_the_page_is_what_the_command_writes(tmp_path) -> None:
    page = tmp_path / "history.md"
    history.main(["show", "--page", str(page)])
    assert page.read_text() == (report.ROOT / "docs" / "history.md").read_text()


def test_the_history_is_of_commits() -> None:
    lines = [json.loads(text) for text in history.FILE.read_text().splitlines()]
    assert lines and all({"commit", "date", "cpu", "import_ms"} <= set(line) for line in lines)
    assert [line["date"] for line in lines] == sorted(line["date"] for line in lines)


@pytest.mark.parametrize("name", memory.COUNTS)
def test_a_scenario(name: str, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    memory.write_models(tmp_path, 1, 1)
    for path in list(tmp_path.iterdir()):
        for i in range(1, memory.STRUCTURES[name]):
            path.with_name(path.name.replace("0-0", f"{i}-0")).write_bytes(path.read_bytes())
    points = memory.measured(name, "ovjit", tmp_path, 3)
    assert [point["done"] for point in points] == [0, 1, 2, 3]
    assert all(20 < point["mb"] < 2000 for point in points) and points[-1]["cpu_s"] > 0


def test_a_child_that_fails_is_told(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="start of ovjit ended with"):
        memory.measured("start", "ovjit", tmp_path / "none", 3)


def test_a_group_limits_its_process() -> None:
    try:
        with containers.group(containers.Setting((0.5, None))) as (place,):
            enter = f"open('{place}/cgroup.procs', 'w').write('0')"
            code = f"{enter}\nimport ovjit.cores as c\nprint(c.usable_cores())"
            assert printed("-c", code).startswith("(1, ")  # nested: the outer group's quota counts
    except containers.Refused as error:
        pytest.skip(str(error))
    assert not place.exists()
