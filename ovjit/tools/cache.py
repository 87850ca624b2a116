"""`python -m ovjit cache list|prune|warm|path`: see which kernels or models are kept, add or remove some."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence

_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_AGES = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of the cache; `argv` is what follows the word `cache`. Returns the exit code."""
    options = _parser().parse_args(argv)
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ovjit cache", description="Compiled kernels and models on disk.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        command.add_argument(
            "--cache-dir", metavar="DIR", help="the models in this CACHE_DIR, not the kernels"
        )
        return command

    add("list", _list, "show what is kept, the most recently used first")
    command = add("prune", _prune, "remove what was not used, the least recently used first")
    command.add_argument("--max-bytes", type=_size, help="keep so much: 500M, 2G (default: 1G, models 16G)")
    command.add_argument("--max-age", type=_age, help="and nothing unused for longer: 30d, 12h, 90 (seconds)")
    command = add("warm", _warm, "compile models, so that later processes find them or their kernels")
    command.add_argument("model", nargs="+", help="a model file")
    command.add_argument("--device", default="CPU")
    add("path", _path, "print the cache's folder")
    return parser


def _list(options: argparse.Namespace) -> int:
    from ovjit import cache

    try:
        entries = cache.entries(options.cache_dir)
    except OSError as error:
        return _fail(options, error)
    for entry in entries:
        day = time.strftime("%Y-%m-%d", time.localtime(entry.last_used))
        about = " ".join(f"{name}={_printable(value)}" for name, value in sorted(entry.about.items()))
        print(f"{entry.key}  {entry.bytes:>10,}  {day}  {about}")
    total = sum(entry.bytes for entry in entries)
    print(f"{len(entries)} {_kind(options)}s, {total:,} bytes, in {_where(options)}")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from ovjit import cache

    try:
        freed = cache.prune(options.max_bytes, options.max_age, options.cache_dir)
        remaining = cache.entries(options.cache_dir)
    except OSError as error:
        return _fail(options, error)
    print(f"{freed:,} bytes freed, {sum(entry.bytes for entry in remaining):,} left, in {_where(options)}")
    return 0


def _warm(options: argparse.Namespace) -> int:
    import ovjit
    from ovjit import cache
    from ovjit.storage import late_writes

    if cache.folder() is None and not options.cache_dir:
        print("the kernel cache is disabled, so nothing can be compiled ahead", file=sys.stderr)
        return 1
    core = ovjit.Core()
    more = [{"CACHE_DIR": options.cache_dir}] if options.cache_dir else []
    failed = 0
    for model in options.model:
        before, start = _keys(options), time.perf_counter()
        try:
            compiled = core.compile_model(model, options.device, *more)
            late_writes.finish()
            del compiled  # which a write needs
        except Exception as error:  # the other models are still worth their while
            print(f"{model}: {error}", file=sys.stderr)
            failed += 1
            continue
        new = len(_keys(options) - before)
        print(f"{model}: {new} new {_kind(options)}s in {time.perf_counter() - start:.1f} s")
    return 1 if failed else 0


def _keys(options: argparse.Namespace) -> set[str]:
    from ovjit import cache

    try:
        return {entry.key for entry in cache.entries(options.cache_dir)}
    except FileNotFoundError:
        return set()


def _path(options: argparse.Namespace) -> int:
    from ovjit import cache

    if options.cache_dir is None and cache.folder() is None:
        print("the kernel cache is disabled", file=sys.stderr)
        return 1
    print(_where(options))
    return 0


def _kind(options: argparse.Namespace) -> str:
    return "model" if options.cache_dir else "kernel"


def _where(options: argparse.Namespace) -> str:
    if options.cache_dir:
        return os.path.abspath(os.path.expanduser(options.cache_dir))
    from ovjit import cache

    return str(cache.folder() or "no folder")


def _fail(options: argparse.Namespace, error: OSError) -> int:
    print(f"{_where(options)}: {error.strerror}", file=sys.stderr)
    return 1


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
