"""Tables on the terminal and results as JSON.

A result file is {"bench": name, "keys": [columns that name a row], "machine": {...}, "rows": [{...}]}.
"""

from __future__ import annotations

import datetime
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.engines import cores

ROOT = Path(__file__).resolve().parent.parent


def machine() -> dict[str, Any]:
    """What a reader needs to know about where and when numbers were taken."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            model = next(names, model)
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The commit that is checked out, with "+" if files differ from it."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def write(
    path: Path | None, bench: str, keys: Sequence[str], rows: list[dict[str, Any]], **more: Any
) -> None:
    """Write the rows, which `keys` tell apart, where there is a path for them."""
    if path is None:
        return
    result = {"bench": bench, "keys": list(keys), "machine": machine(), **more, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {path}", file=sys.stderr)


def table(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> str:
    """The rows as aligned text; columns that no row has are left out."""
    rows = list(rows)
    columns = [c for c in columns if any(r.get(c) is not None for r in rows)]
    cells = [[_cell(r.get(c)) for c in columns] for r in rows]
    widths = [max([len(c), *(len(line[i]) for line in cells)]) for i, c in enumerate(columns)]
    left = [all(not isinstance(r.get(c), (int, float)) for r in rows) for c in columns]

    def line(texts: Sequence[str]) -> str:
        parts = (t.ljust(w) if flush else t.rjust(w) for t, w, flush in zip(texts, widths, left, strict=True))
        return "  ".join(parts).rstrip()

    return "\n".join([line(columns), line(["-" * w for w in widths]), *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return (
            f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
        )
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed, interpolated."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def ratios(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, float]:
    """Ours / theirs from the times of each round, [rounds][times]: median of the rounds' ratios of medians,
    and the quartiles of those ratios."""
    pairs = zip(ours, theirs, strict=True)
    found = [statistics.median(a) / statistics.median(b) for a, b in pairs]
    return {
        "ratio": statistics.median(found),
        "ratio_low": quantile(found, 0.25),
        "ratio_high": quantile(found, 0.75),
    }
