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
