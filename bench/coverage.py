"""Which lines of Python the tests run, by folder: rooms of tests under `coverage` (pip install coverage).

    python -m bench.coverage [ROOM ...] [--data FOLDER] [--page FILE]

Each room (`tests/api`, ...; all by default) runs once, in a process of its own, and leaves a file of data in
FOLDER. Rooms that are there already are not run again. Kernels are not seen: Numba's compiler reads their
source, and no interpreter runs it. Nor is seen what tests run in further processes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import command, report

#: Folders whose files are counted apart from those of their parents.
DEPTH = {"ovjit": 2, "ovjit_ops": 2}
PAGE = """# Coverage of the tests

Made by `python -m bench.coverage {rooms} --page FILE` on commit {commit}, {about}.

Lines of Python that these tests run in their own process. The figures are lower bounds. {share} folders of
tests ran: {rooms}. A folder of sources that they are not about is low here.

These are not seen:

- **kernels**: Numba's compiler reads their source, and no interpreter runs it. So files of kernels show less
  than is tested. The tests of operations compare each kernel with NumPy.
- **further processes**: tests of servers, forks, faults and command lines start them.

| folder | lines | run | % |
|---|---|---|---|
{table}
"""


def rooms() -> list[str]:
    """The folders of tests that have some."""
    return sorted({path.parent.name for path in (report.ROOT / "tests").glob("*/test_*.py")})


def run(room: str, data: Path) -> str:
    """Pytest's last line of a room, whose data and output are in `data` afterwards."""
    kept = data / f"{room}.txt"
    if not kept.exists():
        env = {**os.environ, "COVERAGE_FILE": str(data / f".coverage.{room}")}
        command = [sys.executable, "-m", "coverage", "run", "--source", "ovjit,ovjit_ops", "-m", "pytest"]
        done = subprocess.run(
            [*command, "-q", "-n", "0", "-p", "no:cacheprovider", f"tests/{room}"], cwd=report.ROOT, env=env,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        kept.write_text(done.stdout or "it did not begin")
    return kept.read_text().splitlines()[-1]


def counted(data: Path, rooms: Sequence[str]) -> dict[str, tuple[int, int]]:
    """folder -> statements, and how many of them ran."""
    whole = data / "whole"
    files = [str(path) for room in rooms if (path := data / f".coverage.{room}").exists()]
    env = {**os.environ, "COVERAGE_FILE": str(whole)}
    options: dict[str, Any] = {"env": env, "cwd": report.ROOT, "check": True, "capture_output": True}
    for words in (["combine", "--keep", *files], ["json", "-i", "-o", str(data / "whole.json")]):
        subprocess.run([sys.executable, "-m", "coverage", *words], **options)
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, file in json.loads((data / "whole.json").read_text())["files"].items():
        parts = Path(name).parts
        folder = "/".join(parts[:-1][: DEPTH[parts[0]]])
        found[folder][0] += file["summary"]["num_statements"]
        found[folder][1] += file["summary"]["covered_lines"]
    return {folder: (total, ran) for folder, (total, ran) in sorted(found.items())}


def table(found: dict[str, tuple[int, int]]) -> str:
    """Rows of Markdown, the families of operations as one, the sum last."""
    rooms_found: dict[str, tuple[int, int]] = {}
    for name, (n, ran) in (*found.items(), *(("all", row) for row in found.values())):
        room = "ovjit_ops" if name.startswith("ovjit_ops/") else name
        lines_before, ran_before = rooms_found.get(room, (0, 0))
        rooms_found[room] = lines_before + n, ran_before + ran
    lines = (
        f"| `{name}` | {n:,} | {ran:,} | {100 * ran / max(n, 1):.0f} |"
        for name, (n, ran) in rooms_found.items()
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = command.parser("coverage", __doc__, json=False)
    parser.add_argument("rooms", nargs="*", help="default: all")
    parser.add_argument("--data", type=Path, default=None, help="where data are kept (a new folder)")
    parser.add_argument("--page", type=Path, default=None)
    given = parser.parse_args(argv)
    if importlib.util.find_spec("coverage") is None:
        parser.error("coverage is not installed: pip install coverage")
    data = given.data or Path(tempfile.mkdtemp(prefix="ovjit-coverage-"))
    data.mkdir(parents=True, exist_ok=True)
    chosen = given.rooms or rooms()
    for room in chosen:
        began = time.monotonic()
        print(f"- {room}: {run(room, data)} ({time.monotonic() - began:.0f} s)", flush=True)
    text = table(counted(data, chosen))
    print(text)
    if given.page:
        about = report.machine()
        machine = f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {about['date'][:10]}"
        commit, names = about["commit"], " ".join(chosen)
        words = {"rooms": names, "commit": commit, "about": machine, "table": text}
        given.page.write_text(PAGE.format(share=f"{len(chosen)} of {len(rooms())}", **words))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
