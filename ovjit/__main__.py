"""`python -m ovjit`: run a program written for OpenVINO or ONNX Runtime, show what ovjit does, tend the
kernel cache."""

from __future__ import annotations

import argparse
import importlib
import os
import runpy
import sys
from collections.abc import Callable, Sequence

from ovjit.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` is what follows `python -m ovjit`. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in TOOLS:
            module, function, _ = TOOLS[arguments[0]]
            tool: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
            return _flush_output(tool(arguments[1:]))
        options = _parser().parse_args(arguments)
        if options.command == "demo":
            return _flush_output(_demo(options.device))
    except BrokenPipeError:  # `ovjit inspect ... | head`: the reader is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:  # no traceback is needed
        print("ovjit: interrupted", file=sys.stderr)
        return 130
    return run(options.program, options.arguments, options.module, options.names or ("openvino",))


#: command -> (module, function of its arguments, what it does)
TOOLS = {
    "benchmark": ("ovjit.tools.measure", "main", "latency and throughput of models"),
    "profile": ("ovjit.tools.profile", "main", "show what each step of a model takes"),
    "compare": ("ovjit.tools.compare", "main", "every step beside the references"),
    "inspect": ("ovjit.tools.inspect", "main", "inputs, outputs, operations, sizes; a picture of the graph"),
    "convert": ("ovjit.tools.files", "convert_main", "an ONNX file to OpenVINO IR"),
    "compile": ("ovjit.tools.files", "compile_main", "a model file to a compiled blob"),
    "generate": ("ovjit.tools.generate", "main", "text from a language model, as it comes"),
    "cache": ("ovjit.tools.cache", "main", "list, prune or warm the kernel cache"),
    "shim": ("ovjit.tools.shim", "main", "give ovjit the name openvino in this environment"),
}  # fmt: skip


def _flush_output(code: int) -> int:
    """Write what standard output still buffers, and return the exit code of a command. Raises BrokenPipeError
    if nobody reads it."""
    print(end="", flush=True)
    return code


def _demo(device: str) -> int:
    from ovjit.tools import demo

    try:
        return demo.main(device=device)
    except (RuntimeError, ValueError) as error:  # a machine without code, a wrong variable
        print(f"ovjit: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ovjit", description="OpenVINO's Python API on Numba.")
    parser.add_argument("--version", action="version", version=f"ovjit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    command = commands.add_parser("run", help="run a program with ovjit in the place of openvino")
    command.add_argument(
        "--as", dest="names", action="append", choices=("openvino", "onnxruntime"),
        help="the package in whose place ovjit is; may be repeated (default: openvino)",
    )  # fmt: skip
    command.add_argument("-m", dest="module", action="store_true", help="the program is a module's name")
    command.add_argument("program", help="a script, or with -m a module")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own arguments")
    command = commands.add_parser(
        "demo", help="classify handwritten digits with the embedded network, and time it"
    )
    command.add_argument("-d", "--device", default="CPU", help="CPU or GPU; default: CPU")
    for name, (_, _, about) in TOOLS.items():
        commands.add_parser(name, help=about, add_help=False)
    return parser


def run(
    program: str, arguments: Sequence[str], module: bool = False, names: Sequence[str] = ("openvino",)
) -> int:
    """Run a script (or module) as `__main__`, with ovjit for the packages `names`. Its exceptions pass
    through."""
    try:
        if "openvino" in names:
            import ovjit.as_openvino
        if "onnxruntime" in names:
            import ovjit.as_onnxruntime  # noqa: F401
    except ImportError as error:
        print(f"ovjit: {error}", file=sys.stderr)
        return 2
    if not module and not os.path.exists(program):
        print(f"ovjit: can't open the program {program!r}: the file does not exist", file=sys.stderr)
        return 2
    sys.argv = [program, *arguments]
    if module:
        sys.path.insert(0, os.getcwd())
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
        runpy.run_path(program, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
