"""A self-contained HTML page of a tool's measurements: tables, and pictures as SVG by matplotlib."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 88rem; padding: 0 1rem; color:
#1b1f24; } h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d8dee4; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tbody tr:hover { background: #f3f6fa; } svg { max-width: 100%; height: auto; }
td.bar { min-width: 7rem; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
td.bar div { background: #4878a8; height: .8rem; }
footer { margin-top: 2rem; color: #57606a; font-size: .85rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page of the given parts of HTML."""
    import platform

    from ovjit.version import __version__

    generator = f"ovjit {html.escape(__version__)}, {html.escape(platform.processor() or platform.machine())}"
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n<footer>{generator}</footer></body></html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], bar: str | None = None) -> str:
    """An HTML table. The column `bar` has numbers from 0 to 1, which are drawn as bars."""
    texts = [any(isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    digits = [_decimals([row[i] for row in rows]) for i in range(len(columns))]
    head = "".join(
        f"<th{' class=text' if text else ''}>{html.escape(c)}</th>"
        for c, text in zip(columns, texts, strict=True)
    )
    lines = []
    for row in rows:
        cells = []
        for i, (name, cell) in enumerate(zip(columns, row, strict=True)):
            if name == bar:
                cells.append(f'<td class="bar"><div style="width:{100 * float(cell):.1f}%"></div></td>')
            elif isinstance(cell, str):
                kind = "text name" if i == 0 else "text"
                cells.append(f'<td class="{kind}">{html.escape(cell)}</td>')
            else:
                cells.append(f"<td>{'' if cell is None else f'{cell:,.{digits[i]}f}'}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _decimals(cells: Sequence[Any]) -> int:
    """Decimals for a column: three digits of its median number, so that the column can be scanned."""
    numbers = sorted(abs(c) for c in cells if isinstance(c, (int, float)) and c)
    if all(isinstance(c, int) for c in cells if c is not None) or not numbers:
        return 0
    middle = numbers[len(numbers) // 2]
    return min(max(2 - math.floor(math.log10(middle)), 0), 6)


def needs_pictures() -> None:
    """Raise ImportError, with the name of the extra to install, if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'ovjit[cli]'") from None


def picture(draw: Callable[[Any], None], width: float = 9.0, height: float = 3.2) -> str:
    """The drawing of `draw` as SVG. Raises ImportError, with the name of the extra to install, if matplotlib
    is missing."""
    needs_pictures()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure.add_subplot())
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def benchmark_page(results: Sequence[Any], rows: Sequence[dict[str, Any]]) -> str:
    """The page of `ovjit benchmark`: the table, a histogram of all latencies, the throughput, and the
    rounds."""
    import numpy as np

    columns = "name api requests count median_ms p90_ms p99_ms throughput_fps compile_ms".split()
    columns += ["ratio"] if len(rows) > 1 else []
    high = max(float(np.percentile(r.latencies, 99)) for r in results)
    low = min(min(r.latencies) for r in results)

    def histogram(axes: Any) -> None:
        bins = np.linspace(low, high if high > low else low + 1e-3, 60)
        for result in results:
            axes.hist(np.clip(result.latencies, low, high), bins, alpha=0.6, label=result.subject.name)
        axes.set_xlabel("latency of an inference, ms (the slowest hundredth in the last bin)")
        axes.set_ylabel("inferences")
        axes.legend(loc="upper right", fontsize="small")

    def throughput(axes: Any) -> None:
        names = [r.subject.name for r in results]
        axes.barh(names, [r.throughput for r in results], color="#4878a8")
        axes.invert_yaxis()
        axes.set_xlabel("inferences x batch in a second")

    def rounds(axes: Any) -> None:
        for result in results:
            medians = [r[2] for r in result.rounds]
            axes.plot(range(1, len(medians) + 1), medians, "o-", label=result.subject.name)
        axes.set_xlabel("round")
        axes.set_ylabel("median latency, ms")
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="lower right", fontsize="small")

    parts = [table(columns, [[row[c] for c in columns] for row in rows])]
    parts += ["<h2>Latencies</h2>", picture(histogram)]
    parts += ["<h2>Throughput</h2>", picture(throughput, height=0.8 + 0.45 * len(results))]
    parts += [
        "<h2>Rounds</h2>",
        "<p>All are measured in turn: what disturbs a round, disturbs all.</p>",
        picture(rounds),
    ]
    return page("Benchmark", parts)


def profile_page(title: str, measured: Any) -> str:
    """The page of `ovjit profile`: kernels and steps, with their shares of the time and of the roofline."""
    columns = ("node", "type", "kernel", "us", "share %", "time", "GFLOP/s", "GB/s", "roofline %")

    def cells(line: Any) -> tuple[Any, ...]:
        return (
            line.name, line.type, line.kernel, line.us, 100 * line.share, line.share, line.gflops,
            line.gbytes, 100 * line.roofline,
        )  # fmt: skip

    roofline = measured.roofline
    peaks = "".join(f", {peak / 1e9:,.0f} in {form}" for form, peak in roofline.peaks.items())
    text = (
        f"<p>Steps take {measured.total_us:,.1f} us, the latency is {measured.latency_us:,.1f} us (medians); "
        f"the roofline of {roofline.threads} core(s): {roofline.flops / 1e9:,.0f} GFLOP/s in f32{peaks}.</p>"
    )
    kernels = ("steps", *columns[2:])
    rows = [_without_type(cells(line)) for line in measured.kernels]
    return page(title, [
        text, "<h2>Kernels</h2>", table(kernels, rows, "time"),
        "<h2>Steps</h2>", table(columns, [cells(line) for line in measured.steps], "time"),
    ])  # fmt: skip


def _without_type(cells: tuple[Any, ...]) -> tuple[Any, ...]:
    return (int(cells[0]), *cells[2:])
