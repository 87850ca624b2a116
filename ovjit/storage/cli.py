"""`python -m ovjit cache list|prune|warm|path`: look at the kernel cache, make it smaller, or fill it."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence

_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_AGES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the cache; `argv` is what follows the word `cache`. Returns the exit code."""
    options = _parser().parse_args(argv)
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ovjit cache", description="The cache of compiled kernels.")
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("list", help="show what is kept, the most recently used first")
    command.set_defaults(run=_list)

    command = commands.add_parser("prune", help="remove kernels, the least recently used first")
    command.add_argument("--max-bytes", type=_size, help="keep so much: 500M, 2G (default: 1G)")
    command.add_argument("--max-age", type=_age, help="and nothing unused for longer: 30d, 12h, 90 (seconds)")
    command.set_defaults(run=_prune)

    command = commands.add_parser("warm", help="compile models, so that later processes find their kernels")
    command.add_argument("model", nargs="+", help="a model file")
    command.add_argument("--device", default="CPU")
    command.set_defaults(run=_warm)

    command = commands.add_parser("path", help="print the cache's folder")
    command.set_defaults(run=_path)
    return parser


def _list(options: argparse.Namespace) -> int:
    from ovjit import cache

    found = cache.entries()
    for entry in found:
        day = time.strftime("%Y-%m-%d", time.localtime(entry.last_used))
        about = " ".join(f"{name}={_printable(value)}" for name, value in sorted(entry.about.items()))
        print(f"{entry.key}  {entry.bytes:>10,}  {day}  {about}")
    print(f"{len(found)} kernels, {sum(entry.bytes for entry in found):,} bytes, in {_where()}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from ovjit import cache

    freed = cache.prune(options.max_bytes, options.max_age)
    left = cache.entries()
    print(f"{freed:,} bytes freed, {sum(entry.bytes for entry in left):,} left, in {_where()}")
    return 0


def _warm(options: argparse.Namespace) -> int:
    import ovjit
    from ovjit import cache

    if cache.folder() is None:
        print("there is no kernel cache to fill", file=sys.stderr)
        return 1
    core = ovjit.Core()
    failed = 0
    for model in options.model:
        before, began = {entry.key for entry in cache.entries()}, time.perf_counter()
        try:
            core.compile_model(model, options.device)
        except Exception as error:  # the other models are still worth their while
            print(f"{model}: {error}", file=sys.stderr)
            failed += 1
            continue
        new = sum(entry.key not in before for entry in cache.entries())
        print(f"{model}: {new} new kernels in {time.perf_counter() - began:.1f} s")
    return 1 if failed else 0


def _path(options: argparse.Namespace) -> int:
    from ovjit import cache

    folder = cache.folder()
    if folder is None:
        print("there is no kernel cache", file=sys.stderr)
        return 1
    print(folder)
    return 0


def _where() -> str:
    from ovjit import cache

    return str(cache.folder() or "no folder")


def _printable(text: str) -> str:
    """Text from a file, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _size(text: str) -> int:
    return int(_number(text, r"(\d+(?:\.\d+)?)([kmgt]?)i?b?", _SIZES))


def _age(text: str) -> float:
    return _number(text, r"(\d+(?:\.\d+)?)([smhdw]?)", _AGES)


def _number(text: str, pattern: str, units: dict[str, int]) -> float:
    match = re.fullmatch(pattern, text.strip().lower(), re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number with a unit")
    return float(match[1]) * units[match[2]]
