# ruff: noqa: E501
"""Write docs/benchmarks.md and its picture from the files of results in `bench/results`.

    python -m docs.benchmarks            # writes the page
    python -m docs.benchmarks --check    # exit code 1 if it is out of date

A file has the results of one machine: `machine`, `commit`, `date`, and `results`, each with `title`, `command`,
`columns`, `rows`, and perhaps a `note`, or a `commit` of its own. The page has the newest results of each machine.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".md")
PICTURE = Path(__file__).with_name("speed.svg")
RESULTS = PAGE.parents[1] / "bench" / "results"
#: Maximum bytes of the page. Older tables stay in the files of results, and leave the page.
MOST_BYTES = 20_000
#: Heading -> file of results, and how many of its tables the page shows.
SECTIONS = {
    "A Zen 5 with BF16": ("zen5", 3),
    "A Zen 4": ("zen4", 0),
    "Starts, blobs and busy cores on a Zen 4": ("zen4_starts", 1),
    "An Emerald Rapids without AMX": ("emerald_rapids", 1),
    "A Xeon with VNNI": ("xeon_vnni", 0),
    "A Cascade Lake with VNNI": ("cascade_lake", 1),
    "A Sapphire Rapids with AMX": ("sapphire_rapids", 0),
    "A Zen 3 with AVX2": ("zen3", 0),
    "A Zen 1 with AVX2": ("zen1", 0),
    "AArch64, by a model": ("aarch64_model", 0),
    "Two commits": ("two_commits", 0),
}
HEAD = """# Benchmarks

This page is made from the files in `bench/results` by `python -m docs.benchmarks`.

Each benchmark compares engines in one run, on one machine. Every engine has its own process, and one process runs at a time.
Measurements are *interleaved*: each round runs every engine for a moment, in an order that changes from round to round.
`ratio` is the median over rounds of the ratio of a round's medians, to OpenVINO in the same precision. Below 1 is faster.

## Run them

Run nothing else meanwhile. `--json FILE` stores the numbers with CPU, versions, commit and date.

```
pip install -e .[bench]
python -m bench.run --json before.json
python -m bench.run --models resnet50 squeezenet --threads 1 --rounds 5 --starts 0
```

| command | measures |
|---|---|
| `python -m bench.run --set transformers --starts 0` | networks: latency, differences, share of the [roofline](debugging.md); `--throughput` adds queues, `--batch 64` batches |
| `python -m bench.calls --models add digits --jobs 1 2 4` | the cost of a call, of `start_async`, and of a queue's item |
| `python -m bench.ops Convolution MatMul` | single operations, GFLOP/s and GB/s; `--samples` runs all of them |
| `python -m bench.tiles --format bf16 u8i8` | the micro-kernel alone, on the convolutions of a network |
| `python -m bench.gemv --kinds i8 u4z --groups 32 128` | products of one row with compressed weights |
| `python -m bench.generate --precision f32 u8 --prompt 64 --tokens 24` | a decoder: first and further tokens |
| `python -m bench.genai --what llm batch --weights i4 --cases 1x16 8x16` | LLMPipeline and others beside openvino_genai's: first and further tokens |
| `python -m bench.whisper --tokens 60` | WhisperPipeline beside openvino_genai's: CPU time of a call |
| `python -m bench.paged --sizes small --steps 6` | decoders over paged caches |
| `python -m bench.first --rounds 3` | CPU time of first compilations, 76 models; `--missing` lists kernels that are not shipped |
| `python -m bench.compiling` | `compile_model` with and without caches |
| `python -m bench.startup --models digits --open` | a process from its start to the first result of a blob |
| `python -m bench.blobs` | bytes of a blob, its export and its import |
| `python -m bench.large` | decoders of 1.1 billion parameters: time and memory of compilation |
| `python -m bench.shapes --apart` | the first inference of a new shape |
| `python -m bench.interference --models resnet50` | latency beside a busy process |
| `python -m bench.busy --neighbours 0 8` | percentiles of calls beside busy processes |
| `python -m bench.loadgen --models digits resnet50 --seconds 10` | MLPerf's LoadGen (no official results) |
| `python -m bench.delta before.json after.json` | every number that changed by more than 3 % |
| `python -m bench.networks --check` | the seeded random weights of the networks, which `bench.run` makes |

## In short
"""


def read_results(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def format_cell(cell: Any) -> str:
    if not isinstance(cell, float):
        return str(cell)
    if abs(cell) < 0.001:
        return f"{cell:.2g}"
    return f"{cell:.2f}" if cell == round(cell, 2) and abs(cell) < 10 else str(cell)


def format_result(result: dict[str, Any], default: dict[str, Any]) -> str:
    """A result as Markdown: title, command and commit, table, note."""
    commit = result.get("commit", default["commit"])
    command = result["command"]
    command = f"`{command}`" if command.startswith("python -m ") and ":" not in command else command
    rows = [result["columns"], ["---"] * len(result["columns"]), *result["rows"]]
    table = "\n".join("| " + " | ".join(map(format_cell, row)) + " |" for row in rows)
    note = f"\n\n{result['note']}" if result.get("note") else ""
    return f"**{result['title']}** ({command}, commit {commit}):\n\n{table}{note}\n"


def page() -> str:
    summary = read_results("summary")
    parts = [
        HEAD,
        f"{summary['machine']}, {summary['date']}.\n",
        *(format_result(result, summary) for result in summary["results"]),
        f"![time over that of OpenVINO]({PICTURE.name})\n",
        "What a call costs (`bench.calls`):\n\n![what a call costs](calls.svg)\n",
    ]
    for heading, (name, count) in SECTIONS.items():
        data = read_results(name)
        parts += [f"## {heading}\n", f"{data['machine']}, {data['date']}.\n"]
        parts += [format_result(result, data) for result in data["results"][:count]]
        further = data["results"][count:]
        if further:
            titles = "; ".join(re.split("[:,]", result["title"])[0] for result in further)
            parts.append(f"Further tables in `bench/results/{name}.json`: {titles}.\n")
    return "\n".join(parts)


def picture() -> str:
    """The first table of the summary as a bar chart (SVG): time over that of OpenVINO, one thread."""
    summary = read_results("summary")
    rows = [(str(row[0]), float(row[1])) for row in summary["results"][0]["rows"]]
    left, scale, height = 230, 420, 28
    width, bottom = left + scale + 60, height * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom}" font-family="sans-serif" font-size="14">',
        f'<rect width="{width}" height="{bottom}" fill="white"/>',
    ]
    for i, (label, ratio) in enumerate(rows):
        y = 8 + i * height
        parts += [
            f'<text x="{left - 10}" y="{y + 15}" text-anchor="end">{label}</text>',
            f'<rect x="{left}" y="{y}" width="{scale * ratio:.0f}" height="20" fill="#3b7dd8"/>',
            f'<text x="{left + scale * ratio + 6:.0f}" y="{y + 15}">{ratio:.2f}</text>',
        ]
    line = left + scale
    parts += [
        f'<line x1="{line}" y1="2" x2="{line}" y2="{bottom - 24}" stroke="#555" stroke-dasharray="4 3"/>',
        f'<text x="{line}" y="{bottom - 8}" text-anchor="middle" fill="#555">1.0: OpenVINO {OPENVINO}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


#: The release that the summary compares with.
OPENVINO = "2026.4.1"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and its picture, or with --check compare them. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.benchmarks", description="docs/benchmarks.md")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the page is out of date")
    arguments = parser.parse_args(argv)
    content = {PAGE: page(), PICTURE: picture()}
    if len(content[PAGE].encode()) > MOST_BYTES:
        print(f"{PAGE.name} would have more than {MOST_BYTES} bytes: show fewer tables", file=sys.stderr)
        return 1
    if arguments.check:
        stale = [path.name for path, text in content.items() if not path.exists() or path.read_text() != text]
        if stale:
            print(f"{', '.join(stale)}: out of date", file=sys.stderr)
        return int(bool(stale))
    for path, text in content.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
