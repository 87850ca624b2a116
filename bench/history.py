"""A history of speed: figures of commits in a file, and two commits compared.

    python -m bench.history add [COMMIT ...]        measure commits (HEAD), a line each in bench/history.jsonl
    python -m bench.history show [--page FILE]      the file as a table
    python -m bench.history compare OLD NEW         fails if a figure of NEW is more than 3 % worse

Figures: CPU time of the import, of a network until its first answer (read, compiled, run; an empty cache of
kernels), and of a call; the peak of memory. One thread, f32. The network `call` is so small that the call
itself counts; `net` has five convolutions. `compare` runs both commits interleaved, each run in a new
process, and takes medians of the ratios within a round.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, report

FILE = report.ROOT / "bench" / "history.jsonl"
PROBE = report.ROOT / "bench" / "history_probe.py"
#: Figure -> what it is. Less is better in all.
FIGURES = {
    "import_ms": "CPU time of `import ovjit`", "call_first_ms": "a small network, until its first answer",
    "call_us": "a call of it", "net_first_ms": "five convolutions, until their first answer",
    "net_us": "a call of them", "peak_mb": "the process's peak of memory",
}  # fmt: skip
LIMIT = 3.0
SEED = 20261123


def write_networks(folder: Path) -> None:
    """The two networks and their inputs, in ONNX as old versions read it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(SEED)

    def save(
        name: str, nodes: list[Any], weights: dict[str, np.ndarray], shape: list[int], out: list[int]
    ) -> None:
        tensors = [numpy_helper.from_array(w.astype(np.float32), key) for key, w in weights.items()]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, out)
        graph = helper.make_graph(nodes, name, [x], [y], tensors)
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
            folder / f"{name}.onnx",
        )
        np.save(folder / f"{name}.npy", rng.standard_normal(shape).astype(np.float32))

    w = {"w": rng.standard_normal((16, 16)) / 4}
    save(
        "call",
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        w,
        [1, 16],
        [1, 16],
    )
    nodes, weights, last, channels = [], {}, "x", 3
    for i, width in enumerate((32, 32, 64, 64, 64)):
        weights[f"w{i}"] = rng.standard_normal((width, channels, 3, 3)) / (9 * channels) ** 0.5
        stride = 2 if i in (1, 3) else 1
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1] * 4, strides=[stride] * 2))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        last, channels = f"r{i}", width
    weights["w"] = rng.standard_normal((channels, 10)) / 8
    nodes += [helper.make_node("GlobalAveragePool", [last], ["p"]), helper.make_node("Flatten", ["p"], ["f"])]
    nodes.append(helper.make_node("MatMul", ["f", "w"], ["y"]))
    save("net", nodes, weights, [1, 3, 64, 64], [1, 10])


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A worktree of that commit, removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "tree")
        _git("worktree", "add", "--detach", "-q", str(place), commit)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=report.ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def figures(tree: Path, networks: Path, seconds: float) -> dict[str, Any]:
    """One run of the probe with that version of ovjit, and an empty cache of kernels."""
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "PYTHONPATH": str(tree), "OVJIT_CACHE": cache}
        command = [sys.executable, "-P", str(PROBE), str(networks), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"the probe ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(commit: str, runs: int, seconds: float) -> dict[str, Any]:
    """A line of the file: the commit, the machine, and the least of some runs of each figure."""
    with tempfile.TemporaryDirectory() as folder, checked_out(commit) as tree:
        write_networks(Path(folder))
        found = [figures(tree, Path(folder), seconds) for _ in range(runs)]
    line = {
        "commit": _git("rev-parse", "--short=12", commit),
        "date": _git("show", "-s", "--format=%cI", commit),
    }
    line["subject"] = _git("show", "-s", "--format=%s", commit)
    about = report.machine()
    line |= {"cpu": about["cpu"], "python": about["python"], "runs": runs}
    for key in found[0]:
        values = [one[key] for one in found if key in one]
        line[key] = round(min(values), 3) if not isinstance(values[0], str) else values[0]
    return line


def add(commits: Sequence[str], runs: int, seconds: float) -> None:
    """Measure commits; a line that is there for a commit and this CPU is replaced."""
    lines = [json.loads(text) for text in FILE.read_text().splitlines()] if FILE.exists() else []
    for commit in commits:
        line = measured(commit, runs, seconds)
        print(json.dumps(line), flush=True)
        lines = [old for old in lines if (old["commit"], old["cpu"]) != (line["commit"], line["cpu"])] + [
            line
        ]
        lines.sort(key=lambda one: one["date"])
        FILE.write_text("".join(json.dumps(one) + "\n" for one in lines))


def compare(old: str, new: str, rounds: int, seconds: float, limit: float) -> list[dict[str, Any]]:
    """A row for each figure."""
    with tempfile.TemporaryDirectory() as folder, checked_out(old) as one, checked_out(new) as other:
        write_networks(Path(folder))
        found: dict[str, list[dict[str, Any]]] = {"old": [], "new": []}
        for i in range(rounds):
            for name, tree in (("old", one), ("new", other))[:: 1 if i % 2 else -1]:
                found[name].append(figures(tree, Path(folder), seconds))
    return judged(found["old"], found["new"], limit)


def judged(old: list[dict[str, Any]], new: list[dict[str, Any]], limit: float) -> list[dict[str, Any]]:
    """A row for each figure: medians, and new / old over the rounds. It is worse where the median and the
    lower quartile of the ratios are beyond the limit, so that a disturbed round is no finding."""
    rows = []
    for key in FIGURES:
        pairs = [(a[key], b[key]) for a, b in zip(old, new, strict=True) if key in a and key in b]
        if not pairs:
            continue
        ratios = [b / a for a, b in pairs]
        low, middle = report.quantile(ratios, 0.25), statistics.median(ratios)
        row = {
            "figure": key,
            "old": statistics.median(a for a, _ in pairs),
            "new": statistics.median(b for _, b in pairs),
        }
        row |= {"ratio": middle, "ratio_low": low, "ratio_high": report.quantile(ratios, 0.75)}
        worst = 1 + limit / 100
        rows.append(row | {"worse": "worse" if middle > worst and low > worst else ""})
    return rows


def table(lines: list[dict[str, Any]]) -> str:
    """The file as tables of Markdown, one for each CPU: figures of two CPUs do not compare."""
    out = []
    for cpu in dict.fromkeys(line["cpu"] for line in lines):
        mine = [line for line in lines if line["cpu"] == cpu]
        rows = [("commit", "date", *FIGURES), ("---",) * (2 + len(FIGURES))]
        for line in mine:
            values = [f"{line[key]:.4g}" if key in line else "" for key in FIGURES]
            rows.append((line["commit"][:8], line["date"][:16].replace("T", " "), *values))
        pythons = ", ".join(sorted({line["python"] for line in mine}))
        text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        out.append(f"**{cpu}**, Python {pythons}:\n\n{text}")
    return "\n\n".join(out)


PAGE = """# History of speed

`bench/history.jsonl` has a line for each measured commit and CPU. The commands are
`python -m bench.history add COMMIT ...` and `python -m bench.history show --page docs/history.md`. The
figures of two CPUs do not compare.

| figure | meaning |
|---|---|
{figures}

Times are CPU times of one thread, in f32, the least of the runs of each commit. Caches are empty.
Figures that a version cannot give are left out. Between releases a commit's shipped object files may be older
than its sources. Its kernels are compiled then, and first answers take longer.

{table}

`python -m bench.history compare OLD NEW` runs two commits interleaved, each run in a new process. The exit
code is 1 if a figure of NEW is more than 3 % worse. Both the median of the ratios and their lower quartile
must be beyond the limit. [An example](benchmarks.md#two-commits).
"""


def main(argv: list[str] | None = None) -> int:
    parser = command.parser("history", __doc__, json=False)
    parser.add_argument("what", choices=["add", "show", "compare"])
    parser.add_argument("commits", nargs="*")
    parser.add_argument(
        "--rounds", type=int, default=None, help="processes of each commit (add: 3, compare: 9)"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU seconds of calls in a process (0.5)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="percent (3)")
    parser.add_argument("--page", type=Path, default=None)
    given = parser.parse_args(argv)
    if given.what == "add":
        add(given.commits or ["HEAD"], given.rounds or 3, given.seconds)
        return 0
    if given.what == "compare":
        if len(given.commits) != 2:
            parser.error("compare takes two commits")
        rows = compare(*given.commits, given.rounds or 9, given.seconds, given.limit)
        print(report.table(rows, list(rows[0])))
        return int(any(row["worse"] for row in rows))
    lines = [json.loads(text) for text in FILE.read_text().splitlines()]
    print(table(lines))
    if given.page:
        explained = "\n".join(f"| `{key}` | {what} |" for key, what in FIGURES.items())
        given.page.write_text(PAGE.format(figures=explained, table=table(lines)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
