"""Files of PyTorch: a path -> a script or an exported program. Archives are identified by their contents.

PyTorch trusts its files. It unpickles the contents of an exported program, and evaluates strings and names
in it as Python. So they are checked before PyTorch loads them.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from ovjit.errors import ModelError, unless_of_signal
from ovjit.readers.files.archives import check_archive, members_of
from ovjit.readers.logs import drop_records
from ovjit.readers.registry import Source, recognize
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.trace import quietly

#: Names end up in code that PyTorch makes of a graph.
_NAME = re.compile(r"[^\s\"'`\\()=;\[\]{}@#]*")
#: Functions that a graph may name.
_FUNCTION = re.compile(r"torch\.ops\.\w+\.\w+(\.\w+)?|torch\._?sym_\w+|(_operator|math)\.\w+|[^.]*")
#: Keys of an exported program whose values are text for people, data, or left out when it is loaded.
_TEXTS = ("metadata", "as_string", "as_strings", "out_spec", "torch_version", "guards_code")
#: Nodes of Python's grammar that expressions of sizes are made of.
_EXPRESSION = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Call, ast.keyword, ast.Name),
    *(ast.Constant, ast.Tuple, ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context),
)
_LONGEST = 1 << 16
#: Packages of SymPy whose functions are computed in time that their arguments' digits bound, but for powers.
_CORE = ("sympy.core.", "sympy.logic.", "sympy.functions.elementary.", "torch.utils._sympy.")
_POWERS = ("Pow", "PowByNatural", "FloatPow", "LShift")
#: Numbers within powers are smaller.
_MOST_OF_POWER = 1 << 16
#: Members that older archives have: pickles that end as texts do, and the graph.
_OLD_PICKLES = ("serialized_state_dict.json", "serialized_constants.json")
_OLD_GRAPH = "serialized_exported_program.json"


def check_script(path: str) -> None:
    """Raise ModelError if a pickle in a script is shorter than its declared length: PyTorch would allocate
    that."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".pkl"):
                try:
                    for _ in pickletools.genops(archive.read(name)):
                        pass
                except unless_of_signal(Exception) as error:  # any class, by its opcode
                    raise ModelError(f"{path} is damaged: {name!r}: {error}") from error


def check_program(path: str) -> None:
    """Raise ModelError if an exported program would run code while PyTorch loads or decomposes it.

    Members are read by PyTorch's own reader, so that the loader sees what was checked.
    """
    try:
        reader = torch._C.PyTorchFileReader(path)
        views = [(list(reader.get_all_records()), reader.get_record)]
    except RuntimeError:  # the loader reads an older form, too
        views = []
    with zipfile.ZipFile(path) as archive:
        if _OLD_GRAPH in archive.namelist() or not views:
            views.append((archive.namelist(), archive.read))
        for names, read in views:
            for what in _harms(names, read):
                raise ModelError(
                    f"{path} is refused: {what}. Loading it may run code. If you trust the file, give "
                    "convert_model the program: torch.export.load(path)"
                )


def _harms(names: list[str], read: Callable[[str], bytes]) -> Iterator[str]:
    """Yield a message for each archive member that may run code."""
    pickles = {name for name in names if name.endswith(".pt") or name in _OLD_PICKLES}
    for name in names:
        if "data/aotinductor/" in name:
            yield f"it holds compiled code ({name})"
        if not name.endswith(".json") or name in _OLD_PICKLES:
            continue
        try:
            text = json.loads(read(name))
        except (ValueError, RecursionError):
            continue  # the loader refuses it, too, if it reads it
        if name.endswith("_config.json"):
            payloads = _payloads(text)
            if any(str(row.get("path_name")).startswith("opaque") for row in payloads):
                yield f"it holds objects of Python ({name})"
            folder = os.path.dirname(name)
            pickles |= {
                os.path.join(folder, str(r.get("path_name"))) for r in payloads if r.get("use_pickle")
            }
        yield from _unsafe(text)
    for name in pickles.intersection(names):
        if why := _not_only_weights(read(name)):
            yield f"the member {name} holds pickled objects that are no tensors ({why})"


def _payloads(text: Any) -> list[dict[str, Any]]:
    config = text.get("config") if isinstance(text, dict) else None
    return [row for row in config.values() if isinstance(row, dict)] if isinstance(config, dict) else []


def _not_only_weights(content: bytes) -> str:
    """Return the reason why PyTorch cannot load a pickle with `weights_only`, or "" if it can."""
    try:
        torch.load(io.BytesIO(content), map_location="meta", weights_only=True)
    except unless_of_signal(Exception) as error:
        lines = [
            line for line in str(error).splitlines() if "GLOBAL" in line or "unsupported" in line.lower()
        ]
        return (lines or [type(error).__name__])[0][:200]
    return ""


def _unsafe(value: Any, key: str = "") -> Iterator[str]:
    """Yield a message for each string in a program's JSON that is not a valid name or expression."""
    if key in _TEXTS:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            if not _NAME.fullmatch(name) and key != "range_constraints":
                yield f"{name[:80]!r} is no name"
            yield from _unsafe(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _unsafe(item, key)
    elif isinstance(value, str):
        if key == "expr_str":
            fits = _is_expression(value)
        elif key in ("target", "as_operator"):
            fits = _FUNCTION.fullmatch(value) is not None
        elif key == "in_spec":
            fits = _has_argument_names(value)
        else:
            fits = _NAME.fullmatch(value) is not None
        if not fits:
            yield f"{value[:80]!r} is no {'expression' if key == 'expr_str' else 'name'}"


def _has_argument_names(text: str) -> bool:
    """Whether the description of a call's keyword arguments has valid names. They become parameters of a
    function."""
    try:
        by_name = json.loads(text)[1]["children_spec"][1]
        names = json.loads(by_name["context"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return False
    return isinstance(names, list) and all(isinstance(n, str) and n.isidentifier() for n in names)


def _is_expression(text: str) -> bool:
    """Whether a text is arithmetic of sizes: numbers, symbols and mathematical functions."""
    import sympy  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from torch.utils._sympy import functions

    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval"))) if len(text) <= _LONGEST else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in nodes:
        if not isinstance(node, _EXPRESSION):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            return False
        if isinstance(node, ast.Name) and node.id.startswith("_"):
            return False
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            kind = getattr(functions, name, None) or getattr(sympy, name, None)
            if not (isinstance(kind, type) and issubclass(kind, sympy.Basic)):
                return False
            if not kind.__module__.startswith(_CORE):
                return False
        if _is_power(node) and not _is_small_power(node):
            return False
    return bool(nodes)


def _is_power(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, (ast.Pow, ast.LShift))
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _POWERS


def _is_small_power(power: ast.AST) -> bool:
    """Whether a power has no power within it and no large number: 9**9**9 takes all memory."""
    inner = [node for node in ast.walk(power) if node is not power]
    numbers = [n.value for n in inner if isinstance(n, ast.Constant) and isinstance(n.value, (int, float))]
    return not any(map(_is_power, inner)) and all(abs(n) < _MOST_OF_POWER for n in numbers)


#: Members of the archives that torch.jit.save and torch.export.save write, below their first folder.
_SCRIPT = "constants.pkl"
_ENDINGS = (".pt", ".pt2", ".pth")
_PROGRAM = ("archive_format", "serialized_exported_program.json")


def kind_of(path: str) -> str | None:
    """ "script", "program", or "pickle" for what torch.save wrote; None for a file that is not PyTorch's."""
    if not os.path.isfile(path) or not zipfile.is_zipfile(path):
        return None
    names = members_of(path)
    members = {name.split("/", 1)[-1] for name in names}
    if any(name in members or name in names for name in _PROGRAM):
        return "program"
    if _SCRIPT in members and any(name.startswith("code/") for name in members):
        return "script"
    return "pickle" if "data.pkl" in members else None


def load(path: str) -> Any:
    """The ScriptModule or ExportedProgram of a file, None where the file is not PyTorch's.

    Raises ModelError for a file that holds weights or a pickled module, for one that PyTorch cannot load, and
    for an exported program that would run code.
    """
    kind = kind_of(path)
    if kind is None:
        if os.path.isfile(path) and path.lower().endswith(_ENDINGS) and recognize(Source(path)) is None:
            raise ModelError(
                f"{path} is no archive of torch.jit.save or torch.export.save, or it is damaged. Load what "
                "torch.save wrote in Python, and pass the module to convert_model"
            )
        return None
    if kind == "pickle":
        raise ModelError(
            f"{path} holds weights or a pickled module, but no graph. Load it in Python and pass the "
            "module to convert_model, or save it with torch.jit.save or torch.export.save"
        )
    try:
        import torch
    except ImportError as error:
        raise ModelError(
            f"{path} is a PyTorch file, which needs the package torch: pip install 'ovjit[torch]'"
        ) from error
    check_archive(path)
    reasons: list[BaseException] = []

    def add_reason(record: Any) -> bool:
        """Logging filter: stores what PyTorch logs before an error that refers to it."""
        reasons.extend(record.exc_info[1:2] if record.exc_info else ())
        return bool(record.exc_info)

    try:
        with quietly(), drop_records(("torch.export",), add_reason):
            if kind == "program":
                check_program(path)
                return _without_guards(torch.export.load(path))
            check_script(path)
            return torch.jit.load(path, map_location="cpu").eval()
    except ModelError:
        raise
    except unless_of_signal(Exception) as error:
        reason = str(reasons[0] if reasons else error)
        raise ModelError(f"PyTorch cannot load {path}: {reason[:1000]}") from error


def _without_guards(program: Any) -> Any:
    """The program without its guards, which are code that checks inputs. ModelError if its weights are no
    tensors."""
    if hasattr(program, "_guards_code"):
        program._guards_code = []
    for name, value in program.state_dict.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"the weight {name[:200]!r} is no tensor, but {type(value).__name__}")
    return program
