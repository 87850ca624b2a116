"""The documents' code runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_adding_an_op(tmp_path: Path) -> None:
    """All blocks, one after the other, in a process of their own: they register operations."""
    text = (ROOT / "docs" / "adding_an_op.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) > 5
    (tmp_path / "page.py").write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_tour(tmp_path: Path) -> None:
    """It prints a graph, groups, a kernel, a plan and a profile, and its answer is right."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "tour.py"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("Convolution+Add+Sigmoid+Multiply", "def kernel(bases, args, chunk, scratch):", "arena:"):
        assert words in done.stdout
    found = re.search(r"largest difference: (\S+)", done.stdout)
    assert found and float(found[1]) < 1e-5


def test_every_promise_names_tests_that_exist() -> None:
    """SECURITY.md: each row of the table has tests, and each of these is there."""
    text = (ROOT / "SECURITY.md").read_text()
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 12
    for promise, tests in rows:
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", tests)
        assert named, promise
        for file, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.M), f"{file} has no {test}"
