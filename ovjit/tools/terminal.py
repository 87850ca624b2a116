"""The output of commands: tables and progress by `rich`, if it is installed, else plain text; errors in one
line.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

#: The exceptions for invalid models, files, options and values of a command.
FAULTS = (RuntimeError, ValueError, OSError)
#: A command: a function of the arguments after its name, which returns the exit code.
Main = Callable[[Sequence[str] | None], int]


def reporting(*faults: type[Exception]) -> Callable[[Main], Main]:
    """A decorator of commands: errors in `faults` are printed to standard error in one line, and the exit
    code is 2."""

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            try:
                return main(argv)
            except BrokenPipeError:  # the reader of the output has closed it; `python -m ovjit` handles this
                raise
            except faults as error:
                print(f"ovjit: {error}", file=sys.stderr)
                return 2

        return run

    return decorate


def keep_end(text: str, width: int) -> str:
    """The end of a text, at most `width` characters: names of layers differ at their end."""
    return text if len(text) <= width else "..." + text[3 - width :]


def _console(errors: bool = False) -> Any | None:
    """A console of `rich` for standard output, or for `errors`. None if that is not a terminal, or `rich` is
    not installed."""
    if not (sys.stderr if errors else sys.stdout).isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(stderr=errors)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> None:
    """Print rows of texts and numbers. Numbers are right-aligned."""
    texts = [[_text(cell) for cell in row] for row in rows]
    is_numeric = [
        all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) for i in range(len(columns))
    ]
    console = _console()
    if console is not None:
        from rich.table import Table
        from rich.text import Text

        width = sum(3 + max(len(name), *(len(row[i]) for row in texts), 0) for i, name in enumerate(columns))
        # a table that is too wide is transposed if it has few rows
        if texts and width >= console.width and len(texts) < len(columns):
            texts = [[name, *(row[i] for row in texts)] for i, name in enumerate(columns)]
            columns, is_numeric = texts.pop(0), [False, *[True] * (len(texts[0]) - 1)]
        table = Table(title=Text(title) if title else None, title_justify="left")
        for name, numeric in zip(columns, is_numeric, strict=True):
            table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
        for row in texts:
            table.add_row(*map(Text, row))  # names may look like markup
        console.print(table)
        return
    widths = [max(len(name), *(len(r[i]) for r in texts), 0) for i, name in enumerate(columns)]
    lines = [title] if title else []
    for row in ([*columns], ["-" * w for w in widths], *texts):
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, is_numeric, strict=True))
        lines.append("  ".join(cells).rstrip())
    print("\n".join(lines))


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if 1e4 <= abs(cell) < 1e15 else f"{cell:.4g}"
    return str(cell)


@contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A progress bar. The yielded function sets how much of `total` is done. Without a terminal nothing is
    shown."""
    console = _console()
    if console is None:
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(what), BarColumn(), TimeRemainingColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def stages() -> Iterator[Callable[[str, float, float], None]]:
    """A progress bar on standard error for work of several stages. The yielded function takes a stage's name,
    the amount done, and the total amount. It may be called from any thread. Without a terminal nothing is
    shown."""
    console = _console(errors=True)
    if console is None:
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
