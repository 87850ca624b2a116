"""The result of `bench.calls` as a picture: microseconds an inference, ovjit beside OpenVINO, p50 and p99.

python -m bench.plot calls.json docs/calls.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLOURS = {"ovjit": "#1f6f8b", "openvino": "#c9a227"}


def draw(result: dict[str, Any], path: Path) -> None:
    """One panel for each model; a bar is the median, its whisker ends at p99. The axis is logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "ovjit"  # equal results make equal files
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    figure, panels = plt.subplots(1, len(models), figsize=(5.2 * len(models), 6), squeeze=False)
    for panel, model in zip(panels[0], models, strict=True):
        rows = [row for row in result["rows"] if row["model"] == model]
        calls = list(dict.fromkeys((row["call"], row["streams"]) for row in rows))
        several = len({streams for _, streams in calls}) > 1
        for offset, engine in ((-0.2, "ovjit"), (0.2, "openvino")):
            found = {(r["call"], r["streams"]): r for r in rows if r["engine"] == engine}
            at = [i + offset for i, call in enumerate(calls) if call in found]
            p50 = [found[call]["p50_us"] for call in calls if call in found]
            p99 = [max(found[call]["p99_us"], found[call]["p50_us"]) for call in calls if call in found]
            whiskers = [[0] * len(p50), [b - a for a, b in zip(p50, p99, strict=True)]]
            panel.barh(
                at, p50, 0.38, xerr=whiskers, label=engine, color=COLOURS[engine], error_kw={"lw": 0.8}
            )
        names = [f"{call} [{streams} streams]" if several else call for call, streams in calls]
        panel.set_yticks(range(len(calls)), names, fontsize=8)
        panel.invert_yaxis()
        panel.set_xscale("log")
        panel.set_xlabel("µs an inference: median, whisker to p99")
        panel.set_title(model)
        panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    draw(json.loads(arguments.result.read_text()), arguments.picture)


if __name__ == "__main__":
    main()
