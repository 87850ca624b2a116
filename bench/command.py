"""What the command lines of all benchmarks share: `python -m bench.<name>`, a table, and `--json`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import report


def parser(name: str, doc: str | None, json: bool = True) -> argparse.ArgumentParser:
    """The parser of `python -m bench.<name>`, which `doc` begins to describe."""
    made = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=(doc or "").partition("\n")[0])
    if json:
        made.add_argument("--json", type=Path, help="write the results there")
    return made


def finish(
    given: argparse.Namespace,
    name: str,
    keys: Sequence[str],
    columns: Sequence[str],
    rows: list[dict[str, Any]],
    **more: Any,
) -> int:
    """Print the rows, and write them where `--json` says. Returns the exit code."""
    print(report.table(rows, columns))
    report.write(given.json, name, keys, rows, **more)
    return 0
